"""Client endpoint that authenticates the service before the application hears of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
)
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.core.context import Outcome, StepFailed
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials, Credentials
from mutauth_twisted.errors import (
    KDCUnreachable,
    MutualAuthError,
    NetworkError,
    UsageError,
)
from mutauth_twisted.log import Log
from mutauth_twisted.net.protocol import HandshakeProtocol, HandshakeRole, Prepared
from mutauth_twisted.net.tls import Layer, trusting_layer
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.threads import Workers, workers_for

#: For how many seconds a client's ticket for a service, once fetched, is taken to be there, and for
#: how many of them.
_FETCHED_FOR = 60.0
_MOST_FETCHED = 1024
#: For each reactor: whose tickets for which SPN, and until when that is so.
_fetched: WeakKeyDictionary[Any, dict[tuple[SPN, Any], float]] = WeakKeyDictionary()


class _HandshakeFactory(Factory):
    """Makes the handshakes of one connect(): an endpoint that tries several addresses may make
    several.
    """

    noisy = False

    def __init__(self, new_protocol: Callable[[], HandshakeProtocol], tls: Layer | None) -> None:
        self._new_protocol = new_protocol
        self._tls = tls

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol = self._new_protocol()
        return protocol if self._tls is None else self._tls.under(protocol)

    def handshake(self, connected: Any) -> Any:
        """The handshake in what was connected."""
        return connected if self._tls is None else connected.wrappedProtocol


@implementer(IStreamClientEndpoint)
class MutualAuthClientEndpoint:
    """Connect through the inner endpoint to a service that authenticates as an SPN.

    With a mechanism that does not authenticate the service, and with no other, it proves nothing.

    :param reactor: provides IReactorTime and IReactorFromThreads.
    :param inner: how to reach the service.
    :param spn: the SPN that the service must authenticate as; None: nothing, where the
        package does not authenticate the service.
    :param credentials: who this client is.
    :param security: wire, protection, and the one deadline of connection and handshake.
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
        credentials: Credentials = ClientCredentials(),
        security: SecurityOptions = SecurityOptions(),
        where: str | None = None,
        tls: Layer | None = None,
    ) -> None:
        self._reactor = reactor
        self._inner = inner
        if security.package.authenticates_service is (spn is None):
            cause, remedy = (
                ("it needs the SPN that the service must authenticate as", "give the service's SPN")
                if spn is None
                else (f"it cannot authenticate {spn}", "leave the SPN out, or use package kerberos")
            )
            raise UsageError(f"package {security.package.name}", cause, remedy)
        self._spn = spn
        self._credentials = credentials
        self._new_context = security.package.initiators(spn, credentials, security.protection)
        #: The mechanism whose tokens are exchanged.
        self.package = security.package
        self._security = security
        self._where = where or (str(spn) if spn is not None else "the service")
        self._host = spn.host if spn is not None else ""
        self._tls = (tls or trusting_layer()) if security.protection is Protection.TLS else None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect and authenticate; see IStreamClientEndpoint.

        The Deferred fires with the factory's protocol once both sides are
        authenticated, and fails with a MutualAuthError otherwise.
        """
        # For one connection: an endpoint that tries several addresses may make several.
        prepared: list[Prepared] = []
        has_ticket = False
        role = HandshakeRole(
            initiator=True,
            new_context=self._new_context,
            authorize=lambda _: None,
            build_application=protocolFactory.buildProtocol,
            tls=self._tls,
        )
        workers = workers_for(self._reactor, self._host)
        factory = _HandshakeFactory(
            lambda: HandshakeProtocol(
                self._reactor,
                workers,
                self._security,
                role,
                prepared.pop() if prepared else None,
            ),
            self._tls,
        )

        def reach(_: object) -> Deferred[Any]:
            nonlocal has_ticket
            has_ticket = True
            reaching: Deferred[Any] = maybeDeferred(self._inner.connect, factory)
            return reaching.addCallbacks(
                lambda connected: factory.handshake(connected).authenticated, self._unreachable
            )

        getting = self._get_ticket(workers, prepared)
        connecting = reach(None) if getting is None else getting.addCallback(reach)
        seconds = self._security.timeout
        return connecting.addTimeout(
            seconds, self._reactor, lambda *_: self._too_late(seconds, has_ticket)
        )

    def _get_ticket(self, workers: Workers, prepared: list[Prepared]) -> Deferred[None] | None:
        """Take the handshake's first step, which may ask a KDC: what keeps it from that is no fault
        of the service's.

        :param prepared: gets the context and the step; inside TLS, to which the step is bound, it
            is taken for its ticket only.
        :return: fails with why there is no ticket; None: nobody is to be asked.
        """
        if self._spn is None:
            return None
        ticket, fetched = (self._spn, self._credentials), _fetched.setdefault(self._reactor, {})
        # A second look at a ticket that is there would make each connection inside TLS a little
        # slower.
        if self._tls is not None and fetched.get(ticket, 0.0) > self._reactor.seconds():
            return None
        context = self._new_context(self._where, None)
        if not context.blocking:
            prepared.extend([(context, None)] if self._tls is None else [])
            return None

        def keep(outcome: Outcome) -> None:
            if self._tls is None:
                prepared.append((context, outcome))
                return
            fetched.pop(ticket, None)
            fetched[ticket] = self._reactor.seconds() + _FETCHED_FOR
            if len(fetched) > _MOST_FETCHED:
                del fetched[next(iter(fetched))]

        return workers.run(context.step, None).addCallbacks(keep, self._no_ticket)

    def _no_ticket(self, failure: Failure) -> Failure:
        if not failure.check(StepFailed):
            return failure
        error = cast(StepFailed, failure.value).error
        self._log.info("not connecting to {where}: {error}", where=self._where, error=error)
        return Failure(error)

    def _unreachable(self, failure: Failure) -> Failure:
        if failure.check(OverflowError):  # what sockets make of an invalid port
            return Failure(UsageError(self._where, "the port is out of range", "use 1 to 65535"))
        if failure.check(ValueError) and not failure.check(MutualAuthError):
            return Failure(
                NetworkError(
                    self._where, "invalid host name", "check the name", code="dns-name-invalid"
                )
            )
        failure.trap(ConnectError, DNSLookupError)
        error = failure.value
        if failure.check(ConnectionRefusedError):
            cause, remedy = (
                "nothing listens there (connection refused)",
                "check that the service runs, and its port",
            )
        elif failure.check(DNSLookupError):
            cause, remedy = (
                "the host's name does not resolve",
                "check the name, or ask another DNS server with nameserver",
            )
        else:
            cause, remedy = str(error).rstrip("."), "check the network, and that the service runs"
        return Failure(NetworkError(self._where, cause, remedy, code="connection-failed"))

    def _too_late(self, seconds: float, has_ticket: bool) -> Failure:
        if not has_ticket:
            cause = f"no KDC has given a ticket for it within {seconds:g} s"
            return Failure(
                KDCUnreachable(self._where, cause, "check that a KDC of its realm answers")
            )
        return Failure(
            NetworkError(
                self._where,
                f"no proof of the service within {seconds:g} s",
                "check the port, that the service runs, and that a KDC answers",
                code="handshake-timeout",
            )
        )
