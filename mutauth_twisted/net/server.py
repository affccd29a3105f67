"""Server factory and server endpoint with mutual authentication in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.access import AccessPolicy, Decision
from mutauth_twisted.core.connection import Established
from mutauth_twisted.core.context import Keys
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import Credentials
from mutauth_twisted.errors import (
    AccessDenied,
    MutualAuthError,
    NetworkError,
    SessionEnded,
    UsageError,
)
from mutauth_twisted.findings import Finding
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.log import Log
from mutauth_twisted.mechanisms import NEGOTIATE
from mutauth_twisted.net.connectionlog import ConnectionLog
from mutauth_twisted.net.descriptors import guard
from mutauth_twisted.net.draining import Live
from mutauth_twisted.net.events import ConnectionRecord, Observers
from mutauth_twisted.net.faults import OwnFaults
from mutauth_twisted.net.limits import Limits, Slot, Slots, network_of
from mutauth_twisted.net.protocol import HandshakeProtocol, HandshakeRole, describe
from mutauth_twisted.net.tls import Layer, server_layer
from mutauth_twisted.net.transport import ProtectedTransport
from mutauth_twisted.protection import Protection
from mutauth_twisted.text import short_name
from mutauth_twisted.threads import workers_for

#: For how many seconds what was seen of a service's keys is good enough for its status.
FRESH = 1.0


#: What a service accepts by default: Kerberos, bare or inside SPNEGO, as .NET's clients send it.
ACCEPTING = SecurityOptions(package=NEGOTIATE)

# Sessions about which a new policy decides before other events have their turn.
_AT_ONCE = 100


@implementer(IProtocolFactory)
class MutualAuthServerFactory:
    """Wrapper of a server's factory, which builds protocols for authorized clients only.

    :param reactor: provides IReactorTime and IReactorFromThreads.
    :param wrapped: the application's factory.  Its protocols' transport
        provides :class:`~mutauth_twisted.interfaces.IMutualAuthTransport`.
    :param keys: the service's keys, or the credentials that they are made of.
    :param policy: who is allowed.
    :param security: wire, protection, package and deadline.
    :param limits: how many peers at once, and for how long.
    :param tls: where protection is by TLS, the service's layer; None: one
        with a certificate that is made up.
    :param own: the service's own ``account@REALM``.  Another instance comes with it to see that
        this one is there, and leaves: it is authorized only when it opens a session.
    :param service_class: where credentials are given, the first part of the SPN that a client's
        ticket has to name; None: any.
    :raises CredentialError: when the credentials cannot be used.
    """

    _log = Log()
    noisy = False

    def __init__(
        self,
        reactor: Any,
        wrapped: IProtocolFactory,
        keys: Keys | Credentials,
        policy: AccessPolicy,
        security: SecurityOptions = ACCEPTING,
        limits: Limits = Limits(),
        tls: Layer | None = None,
        own: str | None = None,
        service_class: str | None = None,
    ) -> None:
        if isinstance(keys, Credentials):
            keys = security.package.acceptor_keys(keys, service_class)
        self._reactor = reactor
        self._own = own.casefold() if own is not None else None
        #: How many clients have come as the service's own account.
        self.own_seen = 0
        if keys.authenticates_service is not security.package.authenticates_service:
            cause, remedy = "its keys are another package's", "make the keys with the same package"
            raise UsageError(f"package {security.package.name}", cause, remedy)
        self._wrapped = wrapped
        #: The access policy in force; :meth:`use_policy` replaces it.
        self.policy = policy
        self._security = security
        self._limits = limits
        self._keys = keys
        self._faults = OwnFaults(reactor)
        self._connection_log = ConnectionLog(reactor)
        #: When the keys were looked at last, and what was wrong with them.
        self._keys_seen: float | None = None
        self._keys_fault: Finding | None = None
        self._live: Live[_Served] = Live(reactor)
        #: Told of every connection.
        self.observers = Observers()
        #: How many handshakes and sessions there are.
        self.slots = Slots(limits)
        self._tls = (tls or server_layer()) if security.protection is Protection.TLS else None
        self._role = self._new_role()

    @property
    def wrapped(self) -> IProtocolFactory:
        """The application's factory."""
        return self._wrapped

    def _new_role(self) -> HandshakeRole:
        return HandshakeRole(
            initiator=False,
            new_context=self._keys.acceptor,
            authorize=lambda identity: self._faults.over(),
            build_application=self._wrapped.buildProtocol,
            limits=self._limits,
            tls=self._tls,
            own_fault=self._faults.noted,
            connection_log=self._connection_log,
        )

    def renew(self, other: MutualAuthServerFactory) -> None:
        """Serve new connections as another factory would, which serves none.

        Connections that are there go on as they began, and count; the policy is for
        :meth:`use_policy` to replace.
        """
        self._own, self._keys, self._security = other._own, other._keys, other._security
        self._tls, self._limits, self._keys_seen = other._tls, other._limits, None
        self.slots.resize(self._limits)
        if other._wrapped is not self._wrapped:
            before, self._wrapped = self._wrapped, other._wrapped
            self._wrapped.doStart()
            before.doStop()
        self._role = self._new_role()
        self._warn()

    @property
    def fault(self) -> Finding | None:
        """Fault of the service's own keys or replay cache; None: nothing is known.

        The keys are looked at, once a second at most.  The cache only clients
        can show: its fault is over when no client has failed for it any more
        (:data:`~mutauth_twisted.net.faults.FORGOTTEN`).
        """
        now = self._reactor.seconds()
        fresh = self._keys_seen is not None and now - self._keys_seen < FRESH
        if not fresh or (self._keys_fault is None and self._faults.standing is not None):
            self._keys_seen, self._keys_fault = now, None
            try:
                self._keys.check()
            except MutualAuthError as error:
                self._keys_fault = error.finding
            else:
                self._faults.usable()
        return self._keys_fault or self._faults.elsewhere

    def refuse(self, address: IAddress, error: MutualAuthError) -> None:
        """Note a connection that is closed before its handshake."""
        self._connection_log.refused(error, network_of(address), "connection refused")
        record = ConnectionRecord(address, None, self._reactor.seconds(), error=error)
        self.observers.refused(record)

    def is_own(self, identity: PeerIdentity) -> bool:
        """Tell whether a client claims the service's own account, which may be another instance."""
        return self._own is not None and identity.principal.casefold() == self._own

    async def use_policy(self, policy: AccessPolicy) -> int:
        """Decide by another access policy from now on, and decide again about every session.

        A session that it forbids is ended; any other has its limits from now on.  Where a rule has
        more sessions already than it allows these stay, and no further one begins.

        :return: how many sessions were ended.
        """
        self.policy = policy
        ended = 0
        for number, served in enumerate(self._live, 1):
            ended += served.is_withdrawn()
            if not number % _AT_ONCE:
                await deferLater(self._reactor, 0)
        return ended

    def doStart(self) -> None:
        """Called when a port starts listening; see IProtocolFactory."""
        self._warn()
        self._wrapped.doStart()

    def _warn(self) -> None:
        if not self._security.package.authenticates_service:
            self._log.warn(
                "package {package}: this service is NOT AUTHENTICATED; its clients authenticate to "
                "whoever listens in its place, who may try passwords on what they send",
                package=self._security.package.name,
            )
        if self._keys.accepts_replays:
            self._log.warn(
                "accept-replays: this service HAS NO REPLAY CACHE; whoever copies a client's "
                "request opens sessions as that"
                " client, although it can read and write nothing in them"
            )
        if (shared := self._limits.handshakes) <= (own := self._limits.handshakes_per_address):
            self._log.warn(
                "max-handshakes-per-address {own}: one address can take all {shared} handshake "
                "slots and keep every other"
                " client out; give less than max-handshakes",
                own=own,
                shared=shared,
            )

    def doStop(self) -> None:
        """Called when a port stops listening; see IProtocolFactory."""
        self._connection_log.flush()
        self._wrapped.doStop()

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """The handshake for one connection, or while there are too many its end; see
        IProtocolFactory.
        """
        slot = self.slots.take(addr)
        if slot is None:
            self.refuse(addr, _too_many(describe(addr)))
            # Not None: Twisted's wrappers, TLS and PROXY among them, go on with a None as if it
            # were a protocol.
            return _TurnedAway()
        protocol = _Served(self._reactor, workers_for(self._reactor), self._security, self._role)
        protocol.slot = slot
        protocol.served_by = self
        protocol.lost = self._live.discard
        self._live.add(protocol)
        # The protocol itself logs why; a server has no one else to tell.
        protocol.authenticated.addErrback(lambda _: None)
        return protocol if self._tls is None else self._tls.under(protocol)

    @property
    def sessions(self) -> tuple[ConnectionRecord, ...]:
        """Those connections that are sessions now."""
        live = (protocol.record for protocol in self._live)
        return tuple(record for record in live if record.session_began is not None)

    async def drain(self, seconds: float) -> int:
        """Wait until the last connection has ended; when time is up, abort those that are left.

        :param seconds: how long they may take.
        :return: how many had to be aborted.
        """
        return await self._live.drain(seconds)


def _too_many(peer: str) -> NetworkError:
    cause = "as many connections as may are waiting for their handshake"
    return NetworkError(
        peer,
        cause,
        "raise max-waiting or max-waiting-per-address if these are honest clients",
        code="connections-waiting",
    )


class _TurnedAway(Protocol):
    """A connection too many."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()


class _Served(HandshakeProtocol):
    """A server's connection, which the factory counts."""

    lost: Callable[[_Served], None]
    slot: Slot
    served_by: MutualAuthServerFactory
    record: ConnectionRecord
    #: Whether it may be another instance, which only wants to know who is here.
    _is_neighbour = False
    #: The policy that the record's decision is by.
    _asked: AccessPolicy | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        now = self._reactor.seconds()
        self.record = ConnectionRecord(transport.getPeer(), transport.getHost(), now)
        self.served_by.observers.opened(self.record)
        # The deadline runs from here on, whether or not it is its turn.
        super().connectionMade()
        self.slot.hold(self.transport, self._dropped)

    def _dropped(self) -> None:
        self._give_up(_too_many(self._peer))
        self.abort()

    def _timed_out(self) -> None:
        if not self.slot.waits:
            super()._timed_out()
            return
        cause = f"no slot for its handshake became free within {self._security.timeout:g} s"
        self._give_up(
            NetworkError(
                self._peer,
                cause,
                "raise max-handshakes if the service can serve more",
                code="connections-waiting",
            )
        )

    def _authorize(self, identity: PeerIdentity) -> None:
        factory = self.served_by
        self.record.identity = identity
        factory.observers.authenticated(self.record)
        super()._authorize(identity)
        is_own = factory.is_own(identity)
        # It may be there only to see who is here; if it opens a session, that is counted.
        shares = () if is_own else factory.slots.shares_of(identity, self._decide(identity).grants)
        factory.slots.check_session(identity, shares)
        self._is_neighbour = is_own
        factory.own_seen += is_own

    def _decide(self, identity: PeerIdentity) -> Decision:
        """Ask the access policy, unless it is the one that was asked before.

        :raises AccessDenied: when it does not allow the client.
        """
        policy, known = self.served_by.policy, self.record.decision
        if known is None or self._asked is not policy:
            self._asked = policy
            known = self.record.decision = policy.decide(identity.principal, identity.read_logon)
        if not known.allowed:
            cause = f"the access policy does not allow this principal: {known.cause}"
            raise AccessDenied(short_name(identity.principal), cause, known.remedy)
        return known

    def is_withdrawn(self) -> bool:
        """Decide again about a session, by the policy that is in force now; return True if that has
        ended it.
        """
        record = self.record
        session, identity = record.session, record.identity
        is_session = record.session_began is not None and session and session.reason is None
        if not is_session or session is None or identity is None:
            return False
        try:
            decision = self._decide(identity)
            self.slot.regrant(identity, decision.grants)
        except MutualAuthError as error:
            session.end_session(
                SessionEnded("session", error.cause, error.remedy, code="access-withdrawn")
            )
            return True
        session.limit_session(decision.limits.session)
        return False

    def _peer_left(self) -> None:
        if self._is_neighbour and self._connection.awaits_opening and not self._over:
            self._leave()
            self._settle(
                Failure(NetworkError(self._peer, "another instance has seen that this one is here"))
            )
        else:
            super()._peer_left()

    def _established(self, event: Established) -> None:
        try:
            # By the policy that is in force now, which may be another than a moment ago.
            self.slot.promote(event.identity, self._decide(event.identity).grants)
        except MutualAuthError as error:
            self._failed(error)
        else:
            super()._established(event)

    def _begin_session(self, session: ProtectedTransport) -> None:
        self.record.session = session
        session.connection_id = self.record.id
        session.limit_session(self._decide(session.peer_identity).limits.session)

    def _settle(self, result: Any) -> None:
        record, observers = self.record, self.served_by.observers
        if not self.authenticated.called:
            if isinstance(result, Failure):
                record.error = result.value
                observers.refused(record)
            else:
                record.session_began = self._reactor.seconds()
                observers.established(record)
        super()._settle(result)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        try:
            super().connectionLost(reason)
            record = self.record
            if record.session_began is not None and record.session is not None:
                record.error = (record.session.reason or reason).value
                self.served_by.observers.closed(record)
        finally:
            # Not before: a stranger that is told to leave and stays is one all the same.
            self.slot.release()
            self.lost(self)

    def abort(self) -> None:
        """Drop the connection at once."""
        transport: Any = self.transport
        transport.abortConnection()


@implementer(IStreamServerEndpoint)
class MutualAuthServerEndpoint:
    """Listen where the inner endpoint does, for authenticated clients.

    :param reactor: provides IReactorTime and IReactorFromThreads.
    :param inner: where to listen.
    :param keys: the service's keys, or the credentials that they are made of.
    :param policy: who is allowed.
    :param security: wire, protection, package and deadline.
    :param limits: how many peers at once, and for how long.
    :param tls: see :class:`MutualAuthServerFactory`.
    :param service_class: likewise.
    :raises CredentialError: when the credentials cannot be used.
    """

    def __init__(
        self,
        reactor: Any,
        inner: IStreamServerEndpoint,
        keys: Keys | Credentials,
        policy: AccessPolicy,
        security: SecurityOptions = ACCEPTING,
        limits: Limits = Limits(),
        tls: Layer | None = None,
        service_class: str | None = None,
    ) -> None:
        if isinstance(keys, Credentials):
            keys = security.package.acceptor_keys(keys, service_class)
        self._reactor = reactor
        self._inner = inner
        self._wrap: Callable[[IProtocolFactory], MutualAuthServerFactory] = lambda factory: (
            MutualAuthServerFactory(reactor, factory, keys, policy, security, limits, tls)
        )

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Start listening; see IStreamServerEndpoint."""
        return self._inner.listen(self._wrap(protocolFactory)).addCallback(guard, self._reactor)
