"""The protocol between the network and the application: it runs the exchange.

Each round of the exchange - a token comes, the context steps, a token goes -
is one link of a chain of Deferreds.  The chain's last link builds the
application's protocol, gives it a
:class:`~mutauth_twisted.net.transport.ProtectedTransport`, and fires
:attr:`ExchangeProtocol.authenticated`.  Until then the application knows
nothing of the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, cast

from attrs import evolve, frozen
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
from mutauth_twisted.core.confirmation import Confirmed, Confirming
from mutauth_twisted.core.context import Authentication, Outcome, SecurityContext, StepFailed
from mutauth_twisted.core.handshake import (
    AwaitOpening,
    Established,
    Event,
    Failed,
    Handshake,
    Send,
    Step,
)
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.core.records import Records
from mutauth_twisted.core.stream import Stream
from mutauth_twisted.errors import (
    CredentialError,
    MutualAuthError,
    NetworkError,
    PeerError,
    PeerNotProven,
    ProtocolViolation,
    ThreadsUsedUp,
)
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.log import Log
from mutauth_twisted.net.limits import Limits, network_of
from mutauth_twisted.net.outlet import Outlet, outlet
from mutauth_twisted.net.refusals import Refusals
from mutauth_twisted.net.sockets import prepare, release
from mutauth_twisted.net.tls import Layer
from mutauth_twisted.net.transport import LINGER, ProtectedTransport
from mutauth_twisted.protection import Flag, Protection, flag_names
from mutauth_twisted.text import short_name
from mutauth_twisted.threads import Workers
from mutauth_twisted.wire import FrameError, Token

_flag_names = lru_cache(maxsize=64)(flag_names)
_MUTUAL = int(Flag.MUTUAL)


@frozen
class HandshakeRole:
    """What makes a client's side of the exchange differ from a server's.

    :param initiator: whether this side starts.
    :param new_context: makes the security context; takes the peer's name for
        errors, and the bindings of the TLS channel, if there is one.
    :param authorize: has the last word on a proven peer; raises AccessDenied.
    :param build_application: makes the application's protocol for an address,
        or None to turn the connection away.
    :param limits: how long a session may be idle or last; None: for ever.
    :param tls: the layer below, where protection is by TLS.
    :param own_fault: is told of a service's own fault, and whether it was seen
        here and not told by the client; returns whether it is to be logged as an error.
    :param refusals: says which connections have a line in the log, where there can be many; None:
        each has.
    """

    initiator: bool
    new_context: Callable[[str, ChannelBinding | None], SecurityContext]
    authorize: Callable[[PeerIdentity], None]
    build_application: Callable[[IAddress], IProtocol | None]
    limits: Limits | None = None
    tls: Layer | None = None
    own_fault: Callable[[CredentialError, bool], bool] = lambda error, seen_here: False
    refusals: Refusals | None = None


def _sends_opening(identity: PeerIdentity) -> bool:
    return identity.mutauth


def _sends_none(identity: PeerIdentity) -> bool:
    return False


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
    """

    _log = Log()

    def __init__(
        self,
        reactor: IReactorTime,
        workers: Workers,
        security: SecurityOptions,
        role: HandshakeRole,
    ) -> None:
        self._reactor = reactor
        self._workers = workers
        self._security = security
        self._role = role
        self._reader = security.wire.reader()
        self._protected: ProtectedTransport | None = None
        self._timer: IDelayedCall | None = None
        self._stepping: Deferred[Any] | None = None
        self._over = False
        self._tokens: list[str] = []
        self._bound_to: ChannelBinding | None = None
        self._exchange: Authentication | None = None
        self._records: Records | Stream | None = None
        #: Fires with the application's protocol, or fails: a MutualAuthError, or the application's
        #: own error.
        self.authenticated: Deferred[IProtocol] = Deferred(self._cancelled)

    def connectionMade(self) -> None:
        prepare(self.transport)
        self._transport: Any = outlet(self.transport)
        self._peer = describe(self._transport.getPeer())
        self._handshake: Handshake[PeerIdentity] = Handshake(
            initiator=self._role.initiator,
            wire=self._security.wire,
            peer=self._peer,
            verify=self._verify,
            refusal=self._security.package.refusal,
            # What a client binds to this very TLS channel nobody can have copied from elsewhere:
            # there is no opening.
            is_mutauth=_sends_opening if self._role.tls is None else _sends_none,
        )
        self._timer = self._reactor.callLater(self._security.timeout, self._timed_out)
        if self._role.tls is None:
            self._begin(None)

    def handshakeCompleted(self) -> None:
        """TLS is there, for whoever is at its other end; see IHandshakeListener."""
        if self._role.tls is not None and not self._over:
            self._begin(self._role.tls)

    def _begin(self, tls: Layer | None) -> None:
        try:
            if tls is not None:
                self._bound_to = tls.binding(self._transport, self._peer)
            self._context = self._role.new_context(self._peer, self._bound_to)
        except MutualAuthError as error:
            self._failed(error)
        except Exception:
            self._broken(Failure())
        else:
            self._exchange = self._confirmed(self._context)
            self._perform(self._handshake.begin())

    def _confirmed(self, context: SecurityContext) -> Authentication:
        if self._bound_to is None or not self._bound_to.between_peers:
            return context
        if self._role.initiator:
            return Confirmed(context, self._bound_to, self._peer)
        return Confirming(context, self._bound_to)

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
        elif not self._over:
            try:
                self._reader.feed(data)
                if self._handshake.peer_must_wait:
                    self._reader.next_frame()
                    raise FrameError("it speaks first")
            except FrameError as error:
                self._give_up(self._foreign(error))
            else:
                self._read_frames()

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
        elif self._role.tls is not None and self._exchange is None:
            self._give_up(self._role.tls.explain(reason.value, self._peer))
        else:
            self._peer_left()
        self._stop_timer()
        self._handshake.release()

    def _peer_left(self) -> None:
        self._give_up(
            NetworkError(
                self._peer,
                "the peer closed the connection during the exchange",
                "the peer's log says why; check the port, and that both sides use one wire and one "
                "protection",
            )
        )

    # The exchange

    def _verify(self) -> PeerIdentity:
        exchange = cast(Authentication, self._exchange)
        identity = exchange.verify(self._security.protection)
        # The package has judged its flags; that this one may be missing is not for it alone to say.
        if not int(identity.flags) & _MUTUAL and self._security.package.authenticates_service:
            raise PeerNotProven(self._peer, "the exchange ended without mutual authentication")
        if not self._security.wire.flags_decide and self._security.protection is not Protection.TLS:
            identity = evolve(identity, protection=self._security.protection)
        self._role.authorize(identity)
        return identity

    def _perform(self, events: Iterable[Event[PeerIdentity]]) -> None:
        for event in events:
            if isinstance(event, Step):
                self._step(event.token)
            elif isinstance(event, Send):
                if event.size is not None:
                    self._tokens.append(f"{event.size} sent")
                self._transport.write(event.data)
            elif isinstance(event, AwaitOpening):
                self._records = self._make_records(event.identity, mutauth=True)
            elif isinstance(event, Established):
                identity = event.identity
                if self._bound_to is None and identity.mutauth is not event.mutauth:
                    identity = evolve(identity, mutauth=event.mutauth)
                self._established(identity)
            elif isinstance(event, Failed):
                self._failed(event.error)

    def _step(self, token: bytes | None) -> None:
        """One link of the chain: step the context, send what it says, read on."""
        exchange = cast(Authentication, self._exchange)
        if exchange.blocking:
            stepped: Deferred[Outcome] = self._workers.run(exchange.step, token)
            self._stepping = chain = stepped.addCallbacks(self._step_done, self._step_failed)
            chain.addCallback(self._go_on).addErrback(self._broken)
            return
        # The same link where nobody has to wait for anything: a Deferred would cost a tenth of a
        # service's exchange.
        try:
            try:
                outcome = exchange.step(token)
            except StepFailed as reason:
                events = self._handshake.step_failed(reason.error, reason.token)
            else:
                events = self._step_done(outcome)
            self._go_on(events)
        except Exception:
            self._broken(Failure())

    def _step_done(self, outcome: Outcome) -> list[Event[PeerIdentity]]:
        return self._handshake.stepped(outcome.token, outcome.complete)

    def _step_failed(self, failure: Failure) -> list[Event[PeerIdentity]]:
        failure.trap(StepFailed, ThreadsUsedUp)
        if isinstance(failure.value, ThreadsUsedUp):
            return self._handshake.step_failed(failure.value, b"")
        reason = cast(StepFailed, failure.value)
        return self._handshake.step_failed(reason.error, reason.token)

    def _go_on(self, events: Iterable[Event[PeerIdentity]]) -> None:
        self._perform(events)
        self._read_frames()

    def _broken(self, failure: Failure) -> None:
        """Something raised that must not: the peer is not proven, and whoever waits sees the bug
        itself.
        """
        if self._over and failure.check(CancelledError):
            return
        refusals = self._role.refusals
        if refusals is None or refusals.broken(failure, self._source()):
            self._log.failure(
                "internal error in the exchange with {peer}", failure, peer=self._peer
            )
        if not self.authenticated.called:
            self._leave()
            self._settle(failure)

    def violated(self, cause: str) -> None:
        """The layer below has found the peer to do what it may not."""
        error = ProtocolViolation(self._peer, cause)
        if self._protected is not None:
            self._protected.fail(error)
        else:
            self._give_up(error)

    def _read_frames(self) -> None:
        handshake = self._handshake
        try:
            while handshake.wants_frame and (frame := self._reader.next_frame()) is not None:
                if isinstance(frame, Token):
                    self._tokens.append(f"{len(frame.payload)} received")
                self._perform(handshake.received(frame))
            if handshake.wants_opening and cast(Records, self._records).take_opening():
                self._perform(handshake.opened())
        except FrameError as error:
            self._give_up(self._foreign(error))
        except PeerError as error:  # of the opening: the others are events
            self._give_up(error)

    def _foreign(self, error: FrameError) -> ProtocolViolation:
        return ProtocolViolation(
            self._peer,
            f"the peer speaks another protocol: {error}",
            "check the port, and that both sides use one wire and one protection",
        )

    # The exchange's end

    def _established(self, identity: PeerIdentity) -> None:
        self._over = True
        self._stop()
        principal, refusals = short_name(identity.principal), self._role.refusals
        if refusals is not None and refusals.authenticated(principal):
            self._log_authenticated(identity, principal)
        records = self._records or self._make_records(identity, mutauth=identity.mutauth)
        protected = ProtectedTransport(
            self._reactor, self._transport, records, identity, self._role.limits, refusals
        )
        try:
            opening = records.opening() if self._role.initiator else b""
        except MutualAuthError as error:  # the ticket has ended
            self._failed(error)
            return
        try:
            application = self._role.build_application(self._transport.getPeer())
            if application is not None:
                if refusals is None:  # a client, and none that only wanted to know who is there
                    self._log_authenticated(identity, principal)
                self._protected = protected
                if opening:
                    self._transport.write(opening)
                protected.start(application)
        except Exception:
            # The application's error must not look like a failed login.
            failure = Failure()
            if refusals is None or refusals.broken(failure, principal):
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

    def _log_authenticated(self, identity: PeerIdentity, principal: str) -> None:
        side = "the service at" if self._role.initiator else "the client at"
        proved = (
            f"proved to be {principal}" if principal else "is NOT AUTHENTICATED, and may be anybody"
        )
        package, protection, flags = (
            identity.package,
            identity.protection.value,
            int(identity.flags),
        )
        if self._bound_to is not None and self._bound_to.between_peers:
            flags |= (
                Flag.CHANNEL_BOUND
            )  # a client's context does not say so: the service has confirmed it
        # Written out here: the one line of most connections, and Twisted's formatting takes long
        # for each field.
        (self._log.info if principal else self._log.warn)(
            "{line}",
            line=f"{side} {self._peer} {proved} ({package}, {protection}; {_flag_names(flags)};"
            f" token bytes: {', '.join(self._tokens)})",
            peer=self._peer,
            principal=principal,
        )

    def _make_records(self, identity: PeerIdentity, *, mutauth: bool) -> Records | Stream:
        tls, protection = self._role.tls, identity.protection
        if tls is not None and self._bound_to is not None and self._bound_to.between_peers:
            own, theirs = tls.secrets(self._transport)
            return Stream(own, theirs, self._reader.take_rest(), self._peer)
        if protection is Protection.TLS:
            # A third-party peer protects its records inside TLS as well, as the flags say.
            protection = (
                Protection.SEAL if identity.flags & Flag.CONFIDENTIALITY else Protection.SIGN
            )
        return Records(
            self._context,
            protection,
            self._security.wire,
            self._reader,
            self._peer,
            mutauth=mutauth,
        )

    def _failed(self, error: MutualAuthError) -> None:
        failed = (
            "handshake failed"
            if error.subject == self._peer
            else f"handshake with {self._peer} failed"
        )
        # Whose subject is the peer is told from what the peer sent.
        is_news = isinstance(error, CredentialError) and self._role.own_fault(
            error, error.subject != self._peer
        )
        if is_news or self._role.refusals is None:
            (self._log.error if is_news else self._log.info)(
                "{failed}: {error}", failed=failed, error=error
            )
        else:
            self._role.refusals.refused(error, self._source(), failed)
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
        if not self._over:
            self._perform(self._handshake.abandon(error))

    def _timed_out(self) -> None:
        within = f"within {self._security.timeout:g} s"
        if self._handshake.wants_opening:
            self._give_up(
                NetworkError(
                    self._peer,
                    f"a mutauth client's first record did not come {within}",
                    "its ticket was good: whoever sent it has copied it, or lost its connection",
                )
            )
            return
        self._give_up(
            NetworkError(
                self._peer,
                f"the exchange was not complete {within}",
                "check that the port belongs to a service of this protocol, and that a KDC answers",
            )
        )

    def _cancelled(self, authenticated: Deferred[IProtocol]) -> None:
        self._over = True
        self._stop()
        self._transport.abortConnection()

    def _stop(self) -> None:
        """No more deadline, and nobody waiting for a step that is still to come from its thread."""
        self._stop_timer()
        stepping, self._stepping = self._stepping, None
        if stepping is not None:
            stepping.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
