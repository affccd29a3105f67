"""One side of a connection, from the first token to the end of stream, without I/O.

Theory of operation.  A :class:`Connection` takes bytes and gives events; it has no socket, no
clock, no thread and no log.  Its driver has those, and nothing else to decide::

    begin(context)   the network is there, and TLS, where it is used
    receive(data)    bytes came from the peer
    next_event()     what to do next; None: nothing, until more comes

Whatever the driver calls, it then carries out the events in order, until there is none:

    Step(token)      run ``step(token)``, which may wait for a KDC, wherever it blocks nothing else;
                     then call ``stepped(outcome)`` or ``step_failed(error, token)``.  Steps that
                     wait for nothing are taken at once, and no event tells of them.
    Send(data)       send these bytes
    Established      both sides are authenticated, and the peer is authorized: build the
                     application, send ``opening``, and from now on what ``send()`` and
                     ``send_end()`` return
    Data(data)       verified bytes for the application
    EndOfStream      the peer has said all it had to say; this side may go on
    Failed(error)    the connection is over: leave it; nothing follows

Before Established there is no Data and nothing to send but handshake frames, whatever the peer
does; so no driver can let an application begin early.  A driver that stops asking for events (its
application has paused) leaves the peer's records unread.  A peer that goes on sending then fails
the connection, which ``over`` tells.

The Connection owns all that decides whether a peer is trusted: the frames' reader
(:mod:`mutauth_twisted.wire`), the order of tokens (:mod:`mutauth_twisted.core.handshake`), the
confirmation of a TLS channel (:mod:`mutauth_twisted.core.confirmation`), the verification of the
finished context and of mutual authentication, the question whether the peer is authorized
(``authorize``), the opening and the mark by which mutauth peers know each other, the choice between
records (:mod:`mutauth_twisted.core.records`) and the bare stream inside TLS
(:mod:`mutauth_twisted.core.stream`), and who may speak when.

What the driver decides is when to give up: ``timed_out(seconds)``, ``connection_lost()`` and
``abandon(error)`` end a handshake with a Failed.  An established connection ends with
``connection_lost()``, too: what is still unread comes first, and then what the end means.

Mistakes of the peer are events.  Exceptions are mistakes of this side: ``send()`` and
``send_end()`` raise when the context can protect nothing any more, and whatever else is raised is a
bug, after which the connection must be dropped.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, field, frozen

from mutauth_twisted.core.channelbinding import TLSChannel
from mutauth_twisted.core.confirmation import Confirmed, Confirming
from mutauth_twisted.core.context import Authentication, Outcome, SecurityContext, StepFailed
from mutauth_twisted.core.handshake import (
    AwaitOpening,
    Complete,
    Failed,
    Handshake,
    HandshakeEvent,
    Send,
    Step,
)
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.core.records import Data, EndOfStream, Records, Refused
from mutauth_twisted.core.stream import Stream
from mutauth_twisted.errors import (
    MutualAuthError,
    NetworkError,
    PeerError,
    PeerNotAuthenticated,
    ProtocolViolation,
    SessionRefused,
    StreamCut,
)
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.wire import FrameError, Token

_MUTUAL = int(Flag.MUTUAL)


@frozen
class Established:
    """Both sides are authenticated, and the peer is authorized.

    :param identity: the peer.
    :param opening: what an initiator sends before anything else, once its application has taken the
        connection; an acceptor that does not get it has no session.  May be empty.
    :param flags: what the handshake has come to, for people: the context's flags, and whether both
        sides have confirmed the TLS channel.
    :param tokens: the handshake's tokens, for people: ``1200 sent``, in bytes.
    """

    identity: PeerIdentity
    opening: bytes = field(repr=False)
    flags: int
    tokens: tuple[str, ...]


Event = Step | Send | Established | Data | EndOfStream | Failed


class Connection:
    """One side of a connection; see the module.

    :param security: what was agreed on beforehand.
    :param initiator: whether this side starts the handshake, as a client does.
    :param peer: the peer as errors name it.
    :param authorize: has the last word on an authenticated peer; raises AccessDenied or
        ServiceFull.
    """

    __slots__ = (
        "_authentication",
        "_authorize",
        "_channel",
        "_context",
        "_events",
        "_handshake",
        "_initiator",
        "_lost",
        "_over",
        "_peer",
        "_reader",
        "_records",
        "_security",
        "_tokens",
    )

    def __init__(
        self,
        security: SecurityOptions,
        *,
        initiator: bool,
        peer: str,
        authorize: Callable[[PeerIdentity], None] = lambda identity: None,
    ) -> None:
        self._security = security
        self._initiator = initiator
        self._peer = peer
        self._authorize = authorize
        self._reader = security.wire.reader()
        self._context: SecurityContext | None = None
        #: The context, and around it the confirmation of the TLS channel.
        self._authentication: Authentication | None = None
        self._channel: TLSChannel | None = None
        #: None once it is complete or has failed.
        self._handshake: Handshake[PeerIdentity] | None = Handshake(
            initiator=initiator,
            wire=security.wire,
            peer=peer,
            verify=self._verify,
            refusal=security.package.refusal,
            is_mutauth=self._sends_opening,
        )
        #: What protects application bytes; an acceptor has it while it waits for the opening.
        self._records: Records | Stream | None = None
        self._events: list[Event] = []
        self._tokens: list[str] = []
        #: Whether the peer's bytes have ended.
        self._lost = False
        #: Whether nothing follows: Failed was said, or the last event after the bytes' end.
        self._over = False

    # What the driver sees

    @property
    def begun(self) -> bool:
        """True once :meth:`begin` was called."""
        return self._context is not None

    @property
    def over(self) -> bool:
        """True if no Data follows, as the connection has failed or was read to its end; a driver
        whose application has paused asks for the last event all the same.
        """
        return self._over

    @property
    def awaits_opening(self) -> bool:
        """True if all that is missing is the opening of a mutauth client."""
        return self._handshake is not None and self._handshake.wants_opening

    @property
    def pending(self) -> int:
        """Number of the peer's bytes that wait for the rest of their frame or record."""
        return self._reader.pending

    # The handshake

    def begin(
        self,
        context: SecurityContext,
        channel: TLSChannel | None = None,
        first: Outcome | None = None,
    ) -> None:
        """Start the handshake.

        :param context: this side's security context, bound to the channel, if there is one.
        :param channel: the TLS channel below; None: there is none.
        :param first: an initiator's first step, where it was taken before there was a network.
        """
        self._context = self._authentication = context
        self._channel = channel
        if channel is not None and channel.binding.between_peers:
            self._authentication = (
                Confirmed(context, channel.binding, self._peer)
                if self._initiator
                else Confirming(context, channel.binding)
            )
        if (handshake := self._handshake) is not None:
            events = handshake.begin()
            if first is not None:
                events = handshake.stepped(first.token, first.complete)
            self._perform(events)
            self._read_frames()

    def step(self, token: bytes | None) -> Outcome:
        """Take the step that a Step event asks for; in any thread.

        :raises StepFailed: whatever goes wrong.
        """
        assert self._authentication is not None, "a step follows begin()"
        return self._authentication.step(token)

    def stepped(self, outcome: Outcome) -> None:
        """The step asked for was taken; too late it means nothing."""
        if self._handshake is not None:
            self._perform(self._handshake.stepped(outcome.token, outcome.complete))
            self._read_frames()

    def step_failed(self, error: MutualAuthError, token: bytes = b"") -> None:
        """The step asked for failed; too late it means nothing.

        :param token: the context's error token for the peer; may be empty.
        """
        if self._handshake is not None:
            self._perform(self._handshake.step_failed(error, token))

    def abandon(self, error: MutualAuthError) -> None:
        """End a handshake from outside; the peer is not told why."""
        if self._handshake is not None:
            self._perform(self._handshake.abandon(error))

    def timed_out(self, seconds: float) -> None:
        """End a handshake whose deadline has passed.

        :param seconds: how long it was given.
        """
        within = f"within {seconds:g} s"
        cause, remedy = (
            f"the handshake was not complete {within}",
            "check that the port belongs to a service of this protocol, and that a KDC answers",
        )
        if self.awaits_opening:
            cause, remedy = (
                f"a mutauth client's first record did not come {within}",
                "its ticket was good: whoever sent it has copied it, or lost its connection",
            )
        self.abandon(NetworkError(self._peer, cause, remedy, code="handshake-timeout"))

    def _sends_opening(self, identity: PeerIdentity) -> bool:
        # What a client binds to this very TLS channel cannot be copied from elsewhere: there
        # is not an opening.
        return identity.mutauth and self._security.protection is not Protection.TLS

    def _verify(self) -> PeerIdentity:
        """Verify the finished context, and have the peer authorized."""
        assert self._authentication is not None, "a context is finished after begin()"
        security = self._security
        identity = self._authentication.verify(security.protection)
        # The package has verified its flags; that this one may be missing is not for it alone to
        # say.
        if not int(identity.flags) & _MUTUAL and security.package.authenticates_service:
            raise PeerNotAuthenticated(
                self._peer, "the handshake ended without mutual authentication"
            )
        if not security.wire.flags_decide and security.protection is not Protection.TLS:
            identity = evolve(identity, protection=security.protection)
        self._authorize(identity)
        return identity

    def _perform(self, events: list[HandshakeEvent[PeerIdentity]]) -> None:
        for event in events:
            if isinstance(event, Step):
                self._step(event)
            elif isinstance(event, AwaitOpening):
                self._records = self._make_records(event.identity, mutauth=True)
            elif isinstance(event, Complete):
                self._complete(event)
            elif isinstance(event, Failed):
                self._end(event.error)
            else:
                if event.size is not None:
                    self._tokens.append(f"{event.size} sent")
                self._events.append(event)

    def _step(self, asked: Step) -> None:
        assert self._authentication is not None, "a step follows begin()"
        assert self._handshake is not None, "a step belongs to a handshake"
        if self._authentication.blocking:
            self._events.append(asked)
            return
        try:
            outcome = self._authentication.step(asked.token)
        except StepFailed as failed:
            self._perform(self._handshake.step_failed(failed.error, failed.token))
        else:
            self._perform(self._handshake.stepped(outcome.token, outcome.complete))

    def _complete(self, event: Complete[PeerIdentity]) -> None:
        identity, channel = event.identity, self._channel
        if channel is None and identity.mutauth is not event.mutauth:
            identity = evolve(identity, mutauth=event.mutauth)
        records = self._records or self._make_records(identity, mutauth=identity.mutauth)
        try:
            opening = records.opening() if self._initiator else b""
        except MutualAuthError as error:  # the ticket has ended
            self._end(error)
            return
        flags = int(identity.flags)
        if channel is not None and channel.binding.between_peers:
            flags |= Flag.CHANNEL_BOUND  # a client's context does not say so: the service does
        self._records = records
        self._events.append(Established(identity, opening, flags, tuple(self._tokens)))
        self._close_handshake()

    def _make_records(self, identity: PeerIdentity, *, mutauth: bool) -> Records | Stream:
        if self._channel is not None and self._channel.marks is not None:
            own, theirs = self._channel.marks
            rest = self._reader.take_rest()
            return Stream(own, theirs, rest, self._peer, initiator=self._initiator)
        assert self._context is not None, "a context is finished after begin()"
        protection = identity.protection
        if protection is Protection.TLS:
            # A third-party peer protects its records inside TLS as well, as the flags say.
            sealed = identity.flags & Flag.CONFIDENTIALITY
            protection = Protection.SEAL if sealed else Protection.SIGN
        return Records(
            self._context,
            protection,
            self._security.wire,
            self._reader,
            self._peer,
            initiator=self._initiator,
            mutauth=mutauth,
        )

    def _end(self, error: MutualAuthError) -> None:
        self._over = True
        self._events.append(Failed(error))
        self._close_handshake()

    def _close_handshake(self) -> None:
        """Let go of what only the handshake needs, and of what holds this object in turn."""
        self._handshake = self._authentication = None
        self._authorize = _authorized_no_more
        self._tokens = []

    # The network

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer; once the connection is over they mean nothing."""
        if self._handshake is not None:
            self._receive_frames(self._handshake, data)
        elif not self._over and self._records is not None:
            try:
                self._records.feed(data)
            except ProtocolViolation as error:
                self._end(error)

    def _receive_frames(self, handshake: Handshake[PeerIdentity], data: bytes) -> None:
        try:
            self._reader.feed(data)
            if handshake.peer_must_wait:
                self._reader.next_frame()
                raise FrameError("it speaks first")
        except FrameError as error:
            self.abandon(self._foreign(error))
        else:
            self._read_frames()

    def _read_frames(self) -> None:
        """Go on with the handshake, as far as what has come allows."""
        try:
            while (handshake := self._handshake) is not None:
                if handshake.wants_opening:
                    if not isinstance(self._records, Records) or not self._records.take_opening():
                        return
                    self._perform(handshake.opened())
                elif handshake.wants_frame and (frame := self._reader.next_frame()) is not None:
                    if isinstance(frame, Token):
                        self._tokens.append(f"{len(frame.payload)} received")
                    self._perform(handshake.received(frame))
                else:
                    return
        except FrameError as error:
            self.abandon(self._foreign(error))
        except PeerError as error:  # of the opening: the others are events
            self.abandon(error)

    def _foreign(self, error: FrameError) -> ProtocolViolation:
        return ProtocolViolation(
            self._peer,
            f"the peer speaks another protocol: {error}",
            "check the port, and that both sides use one wire and one protection",
            code="wrong-protocol",
        )

    def connection_lost(self) -> None:
        """No more bytes will come: the peer has closed its half, or the network is gone."""
        if self._handshake is not None:
            self.abandon(
                NetworkError(
                    self._peer,
                    "the peer closed the connection during the handshake",
                    "the peer's log says why; check the port, and that both sides use one wire and "
                    "one protection",
                    code="handshake-cut",
                )
            )
        self._lost = True

    def next_event(self) -> Event | None:
        """The next thing to do; None: nothing, until the driver has something to tell."""
        if self._events:
            return self._events.pop(0)
        if self._over or self._handshake is not None or self._records is None:
            return None
        try:
            event = self._records.next_event()
        except MutualAuthError as error:
            self._over = True
            return Failed(error)
        if event is None and self._lost:
            return self._last_event(self._records)
        if isinstance(event, Refused):
            self._over = True
            return Failed(SessionRefused.of(self._peer, event.code))
        return event

    def _last_event(self, records: Records | Stream) -> EndOfStream | Failed | None:
        self._over = True
        if (cut := records.cut()) is not None:
            return Failed(cut)
        return None if records.ended else EndOfStream()

    # Application bytes

    def send(self, data: bytes) -> list[bytes]:
        """The frames that carry these application bytes, in send order; none for no bytes.

        :raises AuthenticationError: when the context can protect nothing any more.
        """
        return self._protection().protect(data)

    def refuse(self, code: str) -> None:
        """Have a service's end of stream say that there is no session, and why; before any data.

        :param code: one of :data:`~mutauth_twisted.codes.CODES`; a third-party client does not see
            it.
        """
        self._protection().refuse(code)

    def send_end(self) -> bytes:
        """The frame to send after all others: this side's end of stream; no bytes for a third-party
        peer, whose connection just ends.

        :raises AuthenticationError: when the context can protect nothing any more.
        """
        return self._protection().end_of_stream()

    def cut(self) -> StreamCut | None:
        """Return the error of an established connection that ends now; None if the peer has
        finished.
        """
        return self._protection().cut()

    def _protection(self) -> Records | Stream:
        if self._records is None or self._handshake is not None:
            raise AssertionError("application bytes follow Established")
        return self._records


def _authorized_no_more(identity: PeerIdentity) -> None:
    raise AssertionError("a handshake that is over asks for authorization")
