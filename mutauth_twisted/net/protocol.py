"""The driver of a connection on Twisted: timers, threads, log lines and writes.

What happens, and in which order, is the
:class:`~mutauth_twisted.core.connection.Connection`'s business; this protocol tells it what the
network and the clock bring, and carries out its events.  Once it says Established, the
application's protocol is built on a :class:`~mutauth_twisted.net.transport.ProtectedTransport`, and
:attr:`HandshakeProtocol.authenticated` fires.  Until then the application knows nothing of the
connection.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVarTuple

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.core.channelbinding import ChannelBinding
from mutauth_twisted.core.connection import Connection, Established, Event
from mutauth_twisted.core.context import Outcome, SecurityContext, StepFailed
from mutauth_twisted.core.handshake import Failed, Send, Step
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import (
    CredentialError,
    MutualAuthError,
    NetworkError,
    ProtocolViolation,
    ThreadsUsedUp,
    ToldByTicket,
)
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.log import Log
from mutauth_twisted.net.connectionlog import ConnectionLog
from mutauth_twisted.net.limits import Limits, network_of
from mutauth_twisted.net.outlet import Outlet, outlet
from mutauth_twisted.net.sockets import prepare, release
from mutauth_twisted.net.tls import Layer
from mutauth_twisted.net.transport import LINGER, ProtectedTransport
from mutauth_twisted.protection import flag_names
from mutauth_twisted.text import short_name
from mutauth_twisted.threads import Workers

Told = TypeVarTuple("Told")
#: A security context made beforehand, and its first step, if that was taken.
Prepared = tuple[SecurityContext, Outcome | None]

_flag_names = lru_cache(maxsize=64)(flag_names)


@frozen
class HandshakeRole:
    """Differences between a client's part in the handshake and a server's.

    :param initiator: whether this side starts.
    :param new_context: makes the security context; takes the peer's name for
        errors, and the bindings of the TLS channel, if there is one.
    :param authorize: has the last word on an authenticated peer; raises AccessDenied.
    :param build_application: makes the application's protocol for an address,
        or None to turn the connection away.
    :param limits: how long a session may be idle or last; None: for ever.
    :param tls: the layer below, where protection is by TLS.
    :param own_fault: is told of a service's own fault, and whether it was seen
        here and not told by the client; returns whether it is to be logged as an error.
    :param connection_log: says which connections have a line in the log, where there can be many;
        None: each has.
    """

    initiator: bool
    new_context: Callable[[str, ChannelBinding | None], SecurityContext]
    authorize: Callable[[PeerIdentity], None]
    build_application: Callable[[IAddress], IProtocol | None]
    limits: Limits | None = None
    tls: Layer | None = None
    own_fault: Callable[[CredentialError, bool], bool] = lambda error, seen_here: False
    connection_log: ConnectionLog | None = None


def describe(address: IAddress) -> str:
    """An address as messages name it."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None or port is None:
        return str(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@implementer(IHalfCloseableProtocol)
class HandshakeProtocol(Protocol):
    """One connection on the network's side, or above its TLS.

    :param reactor: for the deadline.
    :param workers: where steps that may wait for a KDC run.
    :param security: what was agreed on beforehand.
    :param role: the client's or the server's part.
    :param prepared: a context that was made before there was a connection, and its first step, if
        that was taken; None: ``role`` makes one.
    """

    _log = Log()

    def __init__(
        self,
        reactor: IReactorTime,
        workers: Workers,
        security: SecurityOptions,
        role: HandshakeRole,
        prepared: Prepared | None = None,
    ) -> None:
        self._reactor = reactor
        self._workers = workers
        self._security = security
        self._role = role
        self._prepared = prepared
        self._protected: ProtectedTransport | None = None
        self._timer: IDelayedCall | None = None
        self._stepping: Deferred[None] | None = None
        #: Whether there is nothing more to do for the handshake, however it ended.
        self._over = False
        #: Fires with the application's protocol, or fails: a MutualAuthError, or the application's
        #: own error.
        self.authenticated: Deferred[IProtocol] = Deferred(self._cancelled)

    def connectionMade(self) -> None:
        prepare(self.transport)
        self._transport: Any = outlet(self.transport)
        self._peer = describe(self._transport.getPeer())
        self._connection = Connection(
            self._security,
            initiator=self._role.initiator,
            peer=self._peer,
            authorize=self._authorize,
        )
        self._timer = self._reactor.callLater(self._security.timeout, self._timed_out)
        if self._role.tls is None:
            self._drive(self._begin, None)

    def handshakeCompleted(self) -> None:
        """TLS is there, for whoever is at its other end; see IHandshakeListener."""
        if self._role.tls is not None:
            self._drive(self._begin, self._role.tls)

    def _begin(self, tls: Layer | None) -> None:
        try:
            channel = None if tls is None else tls.channel(self._transport, self._peer)
            binding = None if channel is None else channel.binding
            context, first = self._prepared or (self._role.new_context(self._peer, binding), None)
        except MutualAuthError as error:
            self._connection.abandon(error)
        else:
            self._prepared = None
            self._connection.begin(context, channel, first)

    def dataReceived(self, data: bytes) -> None:
        transport = self._transport
        if not isinstance(transport, Outlet):
            if self._role.tls is not None:
                transport.said(len(data))
            self._received(data)
            return
        transport.gather()
        try:
            self._received(data)
        finally:
            transport.release()

    def _received(self, data: bytes) -> None:
        if self._protected is not None:
            self._protected.dataReceived(data)
        else:
            self._drive(self._connection.receive, data)

    def readConnectionLost(self) -> None:
        if self._protected is not None:
            self._protected.readConnectionLost()
        else:
            self._peer_left()

    def writeConnectionLost(self) -> None:
        if self._protected is not None:
            self._protected.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        release(self.transport)
        if self._protected is not None:
            self._protected.connectionLost(reason)
        elif self._role.tls is not None and not self._connection.begun:
            self._give_up(self._role.tls.explain(reason.value, self._peer))
        else:
            self._peer_left()
        self._stop_timer()
        if self._protected is None:
            self._connection.connection_lost()  # lets go of us, also where we gave up before

    def _peer_left(self) -> None:
        self._drive(self._connection.connection_lost)

    # The handshake

    def _authorize(self, identity: PeerIdentity) -> None:
        self._role.authorize(identity)

    def _drive(self, tell: Callable[[*Told], None], *what: *Told) -> None:
        """Tell the connection something, and carry out what follows from it."""
        if self._over:
            return
        try:
            tell(*what)
            while not self._over and (event := self._connection.next_event()) is not None:
                self._perform(event)
        except Exception:
            self._broken(Failure())

    def _perform(self, event: Event) -> None:
        if isinstance(event, Send):
            self._transport.write(event.data)
        elif isinstance(event, Step):
            stepping = self._workers.run(self._connection.step, event.token)
            self._stepping = stepping.addCallbacks(self._stepped, self._step_failed)
        elif isinstance(event, Established):
            self._established(event)
        elif isinstance(event, Failed):
            self._failed(event.error)
        else:
            raise AssertionError(f"{event} is the transport's business")

    def _stepped(self, outcome: Outcome) -> None:
        self._drive(self._connection.stepped, outcome)

    def _step_failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, StepFailed):
            self._drive(self._connection.step_failed, error.error, error.token)
        elif isinstance(error, ThreadsUsedUp):
            self._drive(self._connection.step_failed, error)
        else:
            self._broken(failure)

    def _broken(self, failure: Failure) -> None:
        """Something raised that must not: the connection is dropped, and whoever still waits for it
        sees the bug itself.
        """
        if self._over and failure.check(CancelledError):
            return
        connection_log = self._role.connection_log
        if connection_log is None or connection_log.broken(failure, self._source()):
            self._log.failure(
                "internal error in the handshake with {peer}", failure, peer=self._peer
            )
        self._over = True
        self._stop()
        (self._protected or self._transport).abortConnection()
        self._settle(failure)

    def violated(self, cause: str) -> None:
        """The layer below has found the peer to do what it may not."""
        error = ProtocolViolation(self._peer, cause)
        if self._protected is not None:
            self._protected.fail(error)
        else:
            self._give_up(error)

    # The handshake's end

    def _established(self, event: Established) -> None:
        self._over = True
        self._stop()
        identity, connection_log = event.identity, self._role.connection_log
        principal = short_name(identity.principal)
        if connection_log is not None and connection_log.authenticated(principal):
            self._log_authenticated(event, principal)
        protected = ProtectedTransport(
            self._reactor,
            self._transport,
            self._connection,
            identity,
            self._role.limits,
            connection_log,
        )
        self._begin_session(protected)
        try:
            application = self._role.build_application(self._transport.getPeer())
            if application is not None:
                if (
                    connection_log is None
                ):  # a client, and none that only wanted to know who is there
                    self._log_authenticated(event, principal)
                self._protected = protected
                if event.opening:
                    self._transport.write(event.opening)
                protected.start(application)
        except Exception:
            # The application's error must not look like a failed login.
            failure = Failure()
            if connection_log is None or connection_log.broken(failure, principal):
                self._log.failure(
                    "the application failed to take the connection with {peer}",
                    failure,
                    peer=self._peer,
                )
            self._transport.abortConnection()
            self._settle(failure)
            return
        if application is None:
            self._leave()
            self._settle(
                Failure(NetworkError(self._peer, "the application's factory took no connection"))
            )
            return
        self._settle(application)
        # The peer's first records may have come together with its last frame.
        protected.deliver()

    def _begin_session(self, session: ProtectedTransport) -> None:
        """The peer is authenticated and authorized, and no application knows it yet."""

    def _log_authenticated(self, event: Established, principal: str) -> None:
        side = "the service at" if self._role.initiator else "the client at"
        authenticated = f"authenticated as {principal}" if principal else "is NOT AUTHENTICATED"
        identity = event.identity
        package, protection = identity.package, identity.protection.value
        # Written out here: the one line of most connections, and Twisted's formatting takes long
        # for each field.
        (self._log.info if principal else self._log.warn)(
            "{line}",
            line=f"{side} {self._peer} {authenticated} ({package}, {protection};"
            f" {_flag_names(event.flags)}; token bytes: {', '.join(event.tokens)})",
            peer=self._peer,
            principal=principal,
        )

    def _failed(self, error: MutualAuthError) -> None:
        failed = (
            "handshake failed"
            if error.subject == self._peer
            else f"handshake with {self._peer} failed"
        )
        is_news = isinstance(error, CredentialError) and self._role.own_fault(
            error, not isinstance(error, ToldByTicket)
        )
        if is_news or self._role.connection_log is None:
            (self._log.error if is_news else self._log.info)(
                "{failed}: {error}", failed=failed, error=error
            )
        else:
            self._role.connection_log.refused(error, self._source(), failed)
        self._leave()
        self._settle(Failure(error))

    def _source(self) -> str:
        return network_of(self._transport.getPeer())

    def _leave(self) -> None:
        """Let the code out that tells the peer; one that does not read it gets no more of our time
        than that.
        """
        self._over = True
        self._stop()
        self._transport.loseConnection()
        self._timer = self._reactor.callLater(LINGER, self._transport.abortConnection)

    def _settle(self, result: Any) -> None:
        if not self.authenticated.called:
            self.authenticated.callback(result)
        elif isinstance(result, Failure):
            result.cleanFailure()

    def _give_up(self, error: MutualAuthError) -> None:
        self._drive(self._connection.abandon, error)

    def _timed_out(self) -> None:
        self._drive(self._connection.timed_out, self._security.timeout)

    def _cancelled(self, authenticated: Deferred[IProtocol]) -> None:
        self._over = True
        self._stop()
        self._transport.abortConnection()

    def _stop(self) -> None:
        """No more deadline, and no wait for a step that is still to come from its thread."""
        self._stop_timer()
        stepping, self._stepping = self._stepping, None
        if stepping is not None:
            stepping.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
