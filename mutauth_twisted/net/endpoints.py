"""Twisted's factories and endpoints with mutual authentication in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import CannotListenError, ConnectError, ConnectionRefusedError, DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.channelbinding import ChannelBinding
from mutauth_twisted.core.context import Begun, Keys, Outcome, SecurityContext, StepFailed
from mutauth_twisted.core.initiators import kerberos_initiators, refuse_on_windows
from mutauth_twisted.core.ntlm import NtlmInitiator, NtlmUsers
from mutauth_twisted.credentials import ClientCredentials, NtlmCredentials, ServiceCredentials
from mutauth_twisted.errors import AccessDenied, KDCUnreachable, MutualAuthError, NetworkError, ServiceFull, UsageError
from mutauth_twisted.interfaces import PeerIdentity
from mutauth_twisted.log import Log
from mutauth_twisted.net.descriptors import guard
from mutauth_twisted.net.faults import OwnFaults
from mutauth_twisted.net.limits import Limits, Place, Places, network_of
from mutauth_twisted.net.protocol import Channel, ExchangeProtocol, Side, describe
from mutauth_twisted.net.refusals import Refusals
from mutauth_twisted.net.tls import Layer, server_layer, trusting_layer
from mutauth_twisted.policy import Package, Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.text import short_name
from mutauth_twisted.threads import Workers

#: For how many seconds a client's ticket for a service, once fetched, is taken to be there, and for how many of them.
_FETCHED_FOR = 60.0
_MOST_FETCHED = 1024
#: For how many seconds what was seen of a service's keys is good enough for its status.
FRESH = 1.0
#: For each reactor: whose tickets for which SPN, and until when that is so.
_fetched: WeakKeyDictionary[Any, dict[tuple[SPN, Any], float]] = WeakKeyDictionary()
#: KDC look-ups under way at once for one domain; further connections queue for their ticket.
_KDC_THREADS = 16
_workers: WeakKeyDictionary[Any, dict[str, Workers]] = WeakKeyDictionary()


def workers_for(reactor: Any, host: str = "") -> Workers:
    """The threads in which clients of a reactor wait for KDCs.

    :param host: where the service is: each domain has threads of its own, so
        that one whose KDC is stuck holds up nobody else.
    """
    domain = host.partition(".")[2].lower()
    domains = _workers.setdefault(reactor, {})
    workers = domains.get(domain)
    if workers is None:
        workers = domains[domain] = Workers(reactor, _KDC_THREADS, "mutauth-kdc")
    return workers


def service_keys(
    credentials: ServiceCredentials | NtlmCredentials, service_class: str | None = None, package: Package = Package.KERBEROS
) -> Keys:
    """What makes a service's contexts, for any package.

    :param service_class: see :class:`mutauth_twisted.core.kerberos.ServiceKeys`; without meaning where no service is proven.
    :raises CredentialError: when the credentials cannot be used.
    :raises UsageError: when they are another package's, or on Windows.
    """
    refuse_on_windows("a service")
    _check_credentials(package, isinstance(credentials, NtlmCredentials))
    if isinstance(credentials, NtlmCredentials):
        return NtlmUsers(credentials)
    # Not before: a client on Windows comes without what this needs.
    from mutauth_twisted.core.kerberos import ServiceKeys

    return ServiceKeys(credentials, service_class, package)


def _check_credentials(package: Package, ntlm: bool) -> None:
    if ntlm is package.proves_service:
        cause = "its credentials are NTLM's" if ntlm else "its credentials are not NTLM's"
        remedy = "name the package and the credentials that belong together"
        raise UsageError(f"package {package.value}", cause, remedy)


@implementer(IProtocolFactory)
class MutualAuthServerFactory:
    """Wraps a server's factory: its protocols are built for proven, admitted clients only.

    :param reactor: provides IReactorTime and IReactorFromThreads.
    :param wrapped: the application's factory.  Its protocols' transport
        provides :class:`~mutauth_twisted.interfaces.IMutualAuthTransport`.
    :param keys: the service's keys.
    :param policy: who may in.
    :param channel: wire, protection and deadline.
    :param limits: how many peers at once, and for how long.
    :param tls: where protection is by TLS, the service's layer; None: one
        with a certificate that is made up.
    :param own: the service's own ``account@REALM``.  Another instance comes with it to see that this one is there, and
        leaves: it is judged by the policy only when it opens a session.
    """

    _log = Log()
    noisy = False

    def __init__(
        self,
        reactor: Any,
        wrapped: IProtocolFactory,
        keys: Keys,
        policy: AccessPolicy,
        channel: Channel = Channel(),
        limits: Limits = Limits(),
        tls: Layer | None = None,
        own: str | None = None,
    ) -> None:
        self._reactor = reactor
        self._own = own.casefold() if own is not None else None
        #: How many clients have come as the service's own account.
        self.own_seen = 0
        _check_credentials(channel.package, isinstance(keys, NtlmUsers))
        self._wrapped = wrapped
        #: Who may come in; may be replaced, for those who come afterwards.
        self.policy = policy
        self._channel = channel
        self._limits = limits
        self._keys = keys
        self._faults = OwnFaults(reactor)
        self._refusals = Refusals(reactor)
        #: When the keys were looked at last, and what was wrong with them.
        self._keys_seen: float | None = None
        self._keys_fault: str | None = None
        self._live: set[_Served] = set()
        self._drained: Deferred[None] | None = None
        #: How many exchanges and sessions there are.
        self.places = Places(limits)
        self._tls = (tls or server_layer()) if channel.protection is Protection.TLS else None
        self._side = Side(
            initiator=False,
            new_context=keys.acceptor,
            admit=self._admit,
            build_application=wrapped.buildProtocol,
            limits=limits,
            tls=self._tls,
            own_fault=self._faults.noted,
            refusals=self._refusals,
        )

    @property
    def fault(self) -> str | None:
        """Fault of the service's own keys or replay cache; None: nothing is known.

        The keys are looked at, once a second at most.  The cache only clients
        can show: its fault is over when nobody has failed for it any more
        (:data:`~mutauth_twisted.net.faults.FORGOTTEN`).
        """
        now = self._reactor.seconds()
        fresh = self._keys_seen is not None and now - self._keys_seen < FRESH
        if not fresh or (self._keys_fault is None and self._faults.standing is not None):
            self._keys_seen, self._keys_fault = now, None
            try:
                self._keys.check()
            except MutualAuthError as error:
                self._keys_fault = str(error)
            else:
                self._faults.usable()
        return self._keys_fault or self._faults.elsewhere

    def _admit(self, identity: PeerIdentity) -> None:
        self._faults.over()
        if not self.is_own(identity):
            self.judge(identity)
        self.places.check_session(identity)

    def is_own(self, identity: PeerIdentity) -> bool:
        """Whether a client says that it is the service's own account, which may be another instance."""
        return self._own is not None and identity.principal.casefold() == self._own

    def judge(self, identity: PeerIdentity) -> None:
        """Have the policy judge a client; raises AccessDenied."""
        if refusal := self.policy.refusal(identity.principal, identity.read_logon):
            cause = f"the access policy does not let this principal in: {refusal.cause}"
            raise AccessDenied(short_name(identity.principal), cause, refusal.remedy)

    def doStart(self) -> None:
        """Called when a port starts listening; see IProtocolFactory."""
        if not self._channel.package.proves_service:
            self._log.warn(
                "package {package}: this service DOES NOT PROVE itself; its clients prove themselves to whoever listens"
                " in its place, who may try passwords on what they send",
                package=self._channel.package.value,
            )
        if self._keys.accepts_replays:
            self._log.warn(
                "accept-replays: this service HAS NO REPLAY CACHE; whoever copies a client's request opens sessions as that"
                " client, although it can read and write nothing in them"
            )
        if (shared := self._limits.handshakes) <= (own := self._limits.handshakes_per_address):
            self._log.warn(
                "max-handshakes-per-address {own}: one address can take all {shared} handshake slots and keep every other"
                " client out; give less than max-handshakes",
                own=own,
                shared=shared,
            )
        self._wrapped.doStart()

    def doStop(self) -> None:
        """Called when a port stops listening; see IProtocolFactory."""
        self._refusals.flush()
        self._wrapped.doStop()

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """The exchange for one connection, or while there are too many its end; see IProtocolFactory."""
        place = self.places.take(addr)
        if place is None:
            self._refusals.refused(_too_many(describe(addr)), network_of(addr), "connection refused")
            # Not None: Twisted's wrappers, TLS and PROXY among them, go on with a None as if it were a protocol.
            return _TurnedAway()
        protocol = _Served(self._reactor, workers_for(self._reactor), self._channel, self._side)
        protocol.place = place
        protocol.served_by = self
        protocol.lost = self._lost
        self._live.add(protocol)
        # The protocol itself logs why; a server has nobody else to tell.
        protocol.authenticated.addErrback(lambda _: None)
        return protocol if self._tls is None else self._tls.under(protocol)

    def _lost(self, protocol: _Served) -> None:
        self._live.discard(protocol)
        if not self._live and self._drained is not None:
            drained, self._drained = self._drained, None
            drained.callback(None)

    async def drain(self, seconds: float) -> int:
        """Wait until the last connection has ended; when time is up, abort those that are left.

        :param seconds: how long they may take.
        :return: how many had to be aborted.
        """
        if not self._live:
            return 0
        drained: Deferred[None] = Deferred()
        self._drained = drained
        drained.addTimeout(seconds, self._reactor)
        try:
            await drained
        except TimeoutError:
            self._drained = None
        left = tuple(self._live)
        for protocol in left:
            protocol.abort()
        return len(left)


def _too_many(peer: str) -> NetworkError:
    cause = "as many connections as may are waiting for their handshake"
    return NetworkError(peer, cause, "raise max-waiting or max-waiting-per-address if these are honest clients")


class _TurnedAway(Protocol):
    """A connection too many."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()


class _Served(ExchangeProtocol):
    """A server's connection, which the factory counts."""

    lost: Callable[[_Served], None]
    place: Place
    served_by: MutualAuthServerFactory
    #: Whether it may be another instance, which only wants to know who is here.
    _is_neighbour = False

    def connectionMade(self) -> None:
        # The deadline runs from here on, whether or not it is its turn.
        super().connectionMade()
        self.place.hold(self.transport, self._dropped)

    def _dropped(self) -> None:
        self._give_up(_too_many(self._peer))
        self.abort()

    def _timed_out(self) -> None:
        if not self.place.waits:
            super()._timed_out()
            return
        cause = f"no slot for its handshake became free within {self._channel.timeout:g} s"
        self._give_up(NetworkError(self._peer, cause, "raise max-handshakes if the service can serve more"))

    def _judge(self) -> PeerIdentity:
        identity = super()._judge()
        self._is_neighbour = self.served_by.is_own(identity)
        self.served_by.own_seen += self._is_neighbour
        return identity

    def _peer_left(self) -> None:
        if self._is_neighbour and self._handshake.wants_opening and not self._over:
            self._leave()
            self._settle(Failure(NetworkError(self._peer, "another instance has seen that this one is here")))
        else:
            super()._peer_left()

    def _established(self, identity: PeerIdentity) -> None:
        try:
            if self._is_neighbour:
                self.served_by.judge(identity)
            self.place.promote(identity)
        except (AccessDenied, ServiceFull) as error:
            self._failed(error)
        else:
            super()._established(identity)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        try:
            super().connectionLost(reason)
        finally:
            # Not before: a stranger that is told to leave and stays is one all the same.
            self.place.give_back()
            self.lost(self)

    def abort(self) -> None:
        """Drop the connection at once."""
        transport: Any = self.transport
        transport.abortConnection()


@implementer(IStreamServerEndpoint)
class MutualAuthServerEndpoint:
    """Listens where the inner endpoint does, for proven clients.

    :param reactor: provides IReactorTime and IReactorFromThreads.
    :param inner: where to listen.
    :param keys: the service's keys.
    :param policy: who may in.
    :param channel: wire, protection and deadline.
    :param limits: how many peers at once, and for how long.
    :param tls: see :class:`MutualAuthServerFactory`.
    """

    def __init__(
        self,
        reactor: Any,
        inner: IStreamServerEndpoint,
        keys: Keys,
        policy: AccessPolicy,
        channel: Channel = Channel(),
        limits: Limits = Limits(),
        tls: Layer | None = None,
    ) -> None:
        self._reactor = reactor
        self._inner = inner
        self._wrap: Callable[[IProtocolFactory], MutualAuthServerFactory] = lambda factory: MutualAuthServerFactory(
            reactor, factory, keys, policy, channel, limits, tls
        )

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Start listening; see IStreamServerEndpoint."""
        return self._inner.listen(self._wrap(protocolFactory)).addCallback(guard, self._reactor)


def parse_client(reactor: Any, text: str) -> IStreamClientEndpoint:
    """The client endpoint that a string describes.

    :param text: such as ``tcp:srv1.example.com:9000``.
    :raises UsageError: when it describes none.
    """
    try:
        return cast(IStreamClientEndpoint, clientFromString(reactor, text))
    except UsageError:
        raise
    except (ValueError, TypeError) as error:  # TypeError: Twisted's word for a part that is missing
        raise UsageError(f"endpoint {text}", _no_endpoint(error), "write it in full, such as tcp:HOST:PORT") from error


def _no_endpoint(error: Exception) -> str:
    if str(error).startswith("invalid literal for int()"):
        return "its port or another number in it is none"
    return "a part of it is missing, or one too many" if isinstance(error, TypeError) else str(error)


#: Connections that the kernel keeps until they are accepted.  With Twisted's own 50, those of a burst are dropped, and
#: try again after a second.
BACKLOG = 1024
_TAKES_BACKLOG = re.compile(r"(?:haproxy:)?(?:tcp6?|ssl|tls|unix):")


def _server_endpoint(reactor: Any, text: str) -> IStreamServerEndpoint:
    if _TAKES_BACKLOG.match(text) and ":backlog=" not in text:
        with suppress(TypeError):  # it has one already, without its name
            return cast(IStreamServerEndpoint, serverFromString(reactor, f"{text}:backlog={BACKLOG}"))
    return cast(IStreamServerEndpoint, serverFromString(reactor, text))


def parse_server(reactor: Any, text: str) -> IStreamServerEndpoint:
    """The server endpoint that a string describes; nothing listens yet.

    :param text: such as ``tcp:9000:interface=127.0.0.1``; the backlog is :data:`BACKLOG` unless it says otherwise.
    :raises UsageError: when it describes none, or its port is no port.
    """
    remedy = "write a server endpoint, such as tcp:9000"
    try:
        endpoint = _server_endpoint(reactor, text)
    except UsageError:
        raise
    except (ValueError, TypeError) as error:
        raise UsageError(f"endpoint {text}", _no_endpoint(error), remedy) from error
    port = re.match(r"(?:tcp6?|ssl):(?:port=)?(-?[0-9]+)(?![^:])", text)
    if port is not None and not 0 <= int(port.group(1)) <= 65535:
        raise UsageError(f"endpoint {text}", "its port is out of range", remedy)
    return endpoint


async def listen_on(reactor: Any, text: str, factory: IProtocolFactory) -> Any:
    """Listen where a server endpoint string says.

    :param text: such as ``tcp:9000:interface=127.0.0.1``.
    :return: the IListeningPort.
    :raises UsageError: when the string is no endpoint, or its port no port.
    :raises NetworkError: when that place is taken or not ours.
    """
    try:
        return guard(await parse_server(reactor, text).listen(factory), reactor)
    except UsageError:
        raise
    except (ValueError, OverflowError, TypeError) as error:
        raise UsageError(f"endpoint {text}", _no_endpoint(error), "write a server endpoint, such as tcp:9000") from error
    except CannotListenError as error:
        raise NetworkError(f"endpoint {text}", str(error.socketError), "choose another port or address") from error


class _ExchangeFactory(Factory):
    """Makes the exchanges of one connect(): an endpoint that tries several addresses may make several."""

    noisy = False

    def __init__(self, new_exchange: Callable[[], ExchangeProtocol], tls: Layer | None) -> None:
        self._new_exchange = new_exchange
        self._tls = tls

    def buildProtocol(self, addr: IAddress | None) -> Any:
        exchange = self._new_exchange()
        return exchange if self._tls is None else self._tls.under(exchange)

    def exchange(self, connected: Any) -> Any:
        """The exchange in what was connected."""
        return connected if self._tls is None else connected.wrappedProtocol


def _initiators(
    spn: SPN | None, credentials: ClientCredentials | NtlmCredentials, asked: Channel
) -> Callable[[str, ChannelBinding | None], SecurityContext]:
    """What makes a client's contexts; takes the peer's name and the TLS channel, if there is one."""
    if spn is None or isinstance(credentials, NtlmCredentials):
        ntlm = cast(NtlmCredentials, credentials)
        return lambda peer, _: NtlmInitiator(ntlm, asked.protection, peer)
    new_context = kerberos_initiators(spn, credentials, asked.protection, asked.package)
    return lambda _, channel: new_context(channel)


@implementer(IStreamClientEndpoint)
class MutualAuthClientEndpoint:
    """Connects through the inner endpoint to a service that proves to hold an SPN's key.

    With package ntlm-service-unproven, and with that one only, it proves nothing.

    :param reactor: provides IReactorTime and IReactorFromThreads.
    :param inner: how to reach the service.
    :param spn: what the service must prove to be; None: nothing, where the
        package proves no service.
    :param credentials: who this client is.
    :param channel: wire, protection, and the one deadline of connection and exchange.
    :param where: the service's address as errors name it; the SPN if not given.
    :param tls: where protection is by TLS, the client's layer; None: one that
        takes any certificate.
    :raises UsageError: for an SPN or credentials that the package cannot use.
    """

    _log = Log()

    def __init__(
        self,
        reactor: Any,
        inner: IStreamClientEndpoint,
        spn: SPN | None,
        credentials: ClientCredentials | NtlmCredentials = ClientCredentials(),
        channel: Channel = Channel(),
        where: str | None = None,
        tls: Layer | None = None,
    ) -> None:
        self._reactor = reactor
        self._inner = inner
        if channel.package.proves_service is (spn is None):
            cause = f"it cannot prove {spn}" if spn is not None else "it needs the SPN that the service must prove"
            raise UsageError(f"package {channel.package.value}", cause, "an SPN goes with every package but NTLM's")
        _check_credentials(channel.package, isinstance(credentials, NtlmCredentials))
        self._spn = spn
        self._credentials = credentials
        self._new_context = _initiators(spn, credentials, channel)
        #: Whose tokens are exchanged.
        self.package = channel.package
        self._channel = channel
        self._where = where or (str(spn) if spn is not None else "the service")
        self._host = spn.host if spn is not None else ""
        self._tls = (tls or trusting_layer()) if channel.protection is Protection.TLS else None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect and authenticate; see IStreamClientEndpoint.

        The Deferred fires with the factory's protocol once both sides are
        proven, and fails with a MutualAuthError otherwise.
        """
        begun: list[SecurityContext] = []
        has_ticket = False

        def new_context(peer: str, channel: ChannelBinding | None) -> SecurityContext:
            # For one connection: an endpoint that tries several addresses may make several.
            return begun.pop() if begun else self._new_context(peer, channel)

        side = Side(
            initiator=True,
            new_context=new_context,
            admit=lambda _: None,
            build_application=protocolFactory.buildProtocol,
            tls=self._tls,
        )
        workers = workers_for(self._reactor, self._host)
        factory = _ExchangeFactory(lambda: ExchangeProtocol(self._reactor, workers, self._channel, side), self._tls)

        def reach(_: object) -> Deferred[Any]:
            nonlocal has_ticket
            has_ticket = True
            reaching: Deferred[Any] = maybeDeferred(self._inner.connect, factory)
            return reaching.addCallbacks(lambda connected: factory.exchange(connected).authenticated, self._unreachable)

        getting = self._get_ticket(workers, begun)
        connecting = reach(None) if getting is None else getting.addCallback(reach)
        seconds = self._channel.timeout
        return connecting.addTimeout(seconds, self._reactor, lambda *_: self._too_late(seconds, has_ticket))

    def _get_ticket(self, workers: Workers, begun: list[SecurityContext]) -> Deferred[None] | None:
        """Take the exchange's first step, which may ask a KDC: what keeps it from that is no fault of the service's.

        :param begun: gets the context; inside TLS, to which the step is bound, it is taken for its ticket only.
        :return: fails with why there is no ticket; None: nobody is to be asked.
        """
        if self._spn is None:
            return None
        ticket, fetched = (self._spn, self._credentials), _fetched.setdefault(self._reactor, {})
        # A second look at a ticket that is there would make each connection inside TLS a little slower.
        if self._tls is not None and fetched.get(ticket, 0.0) > self._reactor.seconds():
            return None
        context = self._new_context(self._where, None)
        if not context.blocking:
            begun.extend([context] if self._tls is None else [])
            return None

        def begin(outcome: Outcome) -> None:
            if self._tls is None:
                begun.append(cast(SecurityContext, Begun(context, outcome)))
                return
            fetched.pop(ticket, None)
            fetched[ticket] = self._reactor.seconds() + _FETCHED_FOR
            if len(fetched) > _MOST_FETCHED:
                del fetched[next(iter(fetched))]

        return workers.run(context.step, None).addCallbacks(begin, self._no_ticket)

    def _no_ticket(self, failure: Failure) -> Failure:
        if not failure.check(StepFailed):
            return failure
        error = cast(StepFailed, failure.value).error
        self._log.info("not connecting to {where}: {error}", where=self._where, error=error)
        return Failure(error)

    def _unreachable(self, failure: Failure) -> Failure:
        if failure.check(OverflowError):  # what sockets make of a port that is none
            return Failure(UsageError(self._where, "the port is out of range", "use 1 to 65535"))
        if failure.check(ValueError) and not failure.check(MutualAuthError):
            return Failure(NetworkError(self._where, "invalid host name", "check the name"))
        failure.trap(ConnectError, DNSLookupError)
        error = failure.value
        if failure.check(ConnectionRefusedError):
            cause, remedy = "nothing listens there (connection refused)", "check that the service runs, and its port"
        elif failure.check(DNSLookupError):
            cause, remedy = (
                "the host's name does not resolve",
                "check the name, or ask another DNS server with nameserver",
            )
        else:
            cause, remedy = str(error).rstrip("."), "check the network, and that the service runs"
        return Failure(NetworkError(self._where, cause, remedy))

    def _too_late(self, seconds: float, has_ticket: bool) -> Failure:
        if not has_ticket:
            cause = f"no KDC has given a ticket for it within {seconds:g} s"
            return Failure(KDCUnreachable(self._where, cause, "check that a KDC of its realm answers"))
        return Failure(
            NetworkError(
                self._where,
                f"no proof of the service within {seconds:g} s",
                "check the port, that the service runs, and that a KDC answers",
            )
        )
