"""The handshake, as a state machine without I/O.

Theory of operation.  The machine (Automat) owns the order of events; its driver, a
:class:`~mutauth_twisted.core.connection.Connection`, owns the frames and the security context.  It
feeds inputs, each of which returns a list of :data:`HandshakeEvent`, to be carried out in order::

    begin()                    Step(None) on an initiator, nothing on an acceptor
    received(frame)            Step(token), Complete or Failed
    stepped(token, complete)   Send(frame), and Complete or AwaitOpening when that was the last
    opened()                   Complete
    step_failed(error, token)  Send(what tells the peer), Failed
    abandon(error)             Failed

``Step(token)`` asks for ``context.step(token)``, and then for ``stepped`` or ``step_failed``.
Nothing follows Complete or Failed.

Who sends the last frame (MS-NNS 3.1.5, 3.2.5): an acceptor whose context is
complete answers with *done*, and has finished; an initiator has finished when
it has the acceptor's *done* and its own context is complete.  Both have the
finished context verified - its flags, its package, who the peer is - before
anything counts as established, and never before it is finished: the flags of
an unfinished context are only wishes.

Between two mutauth peers the acceptor marks its last frame, and the initiator
sends at once a protected empty record, the *opening* (see
:mod:`mutauth_twisted.core.records`).  Only with that, ``opened()``, is the
handshake established for the acceptor: before, whoever copied the initiator's
token looks the same.  A third-party initiator sends none, and an acceptor must
not wait for its first record, as its application may be the one to speak first.

Once the acceptor has said *done* it reads records, not frames.  An initiator
that fails after that, on the acceptor's last token or on its own verification,
therefore sends nothing: the acceptor sees a stream without any record.

On a wire without *done* (``says_done``) each side has finished when its own
context is complete, and has it verified then.  An initiator never sends a last
word there, as it cannot know whether the acceptor still reads frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from attrs import Factory, define, field, frozen
from automat import TypeMachineBuilder

from mutauth_twisted.errors import (
    AccessDenied,
    MutualAuthError,
    PeerRefused,
    ProtocolViolation,
    ServiceFull,
)
from mutauth_twisted.wire import Fault, Token, Wire

Identity = TypeVar("Identity")

# win32 codes (MS-ERREF 2.2) that .NET peers know.
ACCESS_DENIED = 5
SERVICE_FULL = 71  # ERROR_REQ_NOT_ACCEP
LOGON_FAILURE = 1326
TARGET_MISMATCH = 1790

_CODES = {
    ACCESS_DENIED: "its access policy does not allow this principal",
    SERVICE_FULL: "it has as many sessions as it can take; try again later",
    TARGET_MISMATCH: "it did not accept the target name or the protection",
    0x80090322: "the ticket is for another service",
}
_LOGON_CODES = frozenset({LOGON_FAILURE, 0x8009030C})
_SEE_LOG = "the service's log says why"


@frozen
class Step:
    """Run the context's next step with this token (None: there is none yet)."""

    token: bytes | None = field(repr=False)


@frozen
class Send:
    """Send these bytes to the peer.

    :param size: the size of the token in it, None when it carries none.
    """

    data: bytes = field(repr=False)
    size: int | None = None


@frozen
class AwaitOpening(Generic[Identity]):
    """The initiator is another mutauth peer: its first record has to be the opening, and counts for
    the handshake.
    """

    identity: Identity


@frozen
class Complete(Generic[Identity]):
    """Both sides are authenticated; from here on there are only records.

    :param mutauth: whether the peer is another mutauth peer.  On an initiator
        this is the acceptor's unauthenticated word: see docs/security.md.
    """

    identity: Identity
    mutauth: bool = False


@frozen
class Failed:
    """The handshake is over; the connection is of no more use."""

    error: MutualAuthError


HandshakeEvent = Step | Send | AwaitOpening[Identity] | Complete[Identity] | Failed


class _Inputs(Protocol):
    """The machine's inputs."""

    def begin(self) -> None:
        """Start, as an initiator does."""

    def token(self, token: Token) -> None:
        """A token came from the peer."""

    def stepped(self, token: bytes) -> None:
        """The context took its step and needs another token of the peer."""

    def stepped_to_done(self, token: bytes) -> None:
        """The initiator's context is complete; the acceptor's done is still to come."""

    def stepped_to_end(self, token: bytes) -> None:
        """The context is complete, and the peer has said all it will say."""

    def verified(self, identity: Identity, mutauth: bool) -> None:
        """The finished context has passed every check, and nothing more is to come."""

    def verified_but_opening(self, identity: Identity) -> None:
        """The finished context has passed every check; the initiator's opening is still to
        come.
        """

    def opened(self) -> None:
        """The initiator's opening has come."""

    def end(self, error: MutualAuthError, token: bytes, code: int | None) -> None:
        """The handshake cannot go on; the token and the code, if any, tell the peer."""


@define
class _Core(Generic[Identity]):
    """The machine's data; its outputs append events."""

    wire: Wire
    peer: str
    verify: Callable[[], Identity]
    initiator: bool
    is_mutauth: Callable[[Identity], bool]
    peer_done: bool = False
    peer_mark: bool = False
    wants_frame: bool = False
    opening_of: Identity | None = None
    events: list[HandshakeEvent[Identity]] = Factory(list)

    def take_events(self) -> list[HandshakeEvent[Identity]]:
        events, self.events = self.events, []
        return events

    def took(self, token: Token) -> None:
        self.wants_frame = False
        self.peer_done, self.peer_mark = token.done, token.mutauth

    def send(self, payload: bytes, done: bool, mutauth: bool = False) -> bool:
        """Send a token; whether the wire has a frame for it."""
        if frame := self.wire.token(payload, done, mutauth):
            self.events.append(Send(frame, len(payload)))
        return bool(frame)

    def fail(self, error: MutualAuthError, code: int | None, token: bytes = b"") -> None:
        """End the handshake; an acceptor that has finished, or may have, reads no frame that could
        tell it.
        """
        if not (self.initiator and (self.peer_done or not self.wire.says_done)):
            if token:
                self.send(token, done=False)
            if code is not None and (frame := self.wire.fault(code)):
                self.events.append(Send(frame))
        self.events.append(Failed(error))

    def conclude(self, inputs: _Inputs, last_token: bytes | None) -> None:
        """Have the finished context verified, then tell the peer that all is done, or that it is
        not.
        """
        try:
            identity = self.verify()
        except AccessDenied as error:
            inputs.end(error, b"", ACCESS_DENIED)
        except ServiceFull as error:
            inputs.end(error, b"", SERVICE_FULL)
        except MutualAuthError as error:
            inputs.end(error, b"", TARGET_MISMATCH)
        else:
            mark = not self.initiator and self.is_mutauth(identity)
            sent = last_token is not None and self.send(last_token, done=True, mutauth=mark)
            if mark and sent:
                inputs.verified_but_opening(identity)
            else:
                # A mark that came before this side's last token was not on the peer's last one.
                inputs.verified(identity, self.initiator and self.peer_mark and not sent)

    def violation(self, cause: str) -> ProtocolViolation:
        return ProtocolViolation(
            self.peer,
            cause,
            "check that the port belongs to a service of this protocol",
            code="wrong-protocol",
        )


def _make_machine(initiator: bool) -> Callable[[_Core[Identity]], _Inputs]:
    builder = TypeMachineBuilder(_Inputs, _Core)
    if initiator:  # the first state made is where it starts
        idle = builder.state("idle")
    waiting = builder.state("waiting for the peer's token")
    stepping = builder.state("stepping")
    confirming = builder.state("waiting for the peer's done")
    concluding = builder.state("verifying")
    over = builder.state("over")
    unfinished = [waiting, stepping, confirming, concluding]

    @waiting.upon(_Inputs.token).to(stepping)
    def step(inputs: _Inputs, core: _Core[Identity], token: Token) -> None:
        core.took(token)
        core.events.append(Step(token.payload))

    @stepping.upon(_Inputs.stepped).to(waiting)
    def answer(inputs: _Inputs, core: _Core[Identity], token: bytes) -> None:
        core.wants_frame = True
        core.send(token, done=False)

    if initiator:
        unfinished.append(idle)

        @idle.upon(_Inputs.begin).to(stepping)
        def begin(inputs: _Inputs, core: _Core[Identity]) -> None:
            core.events.append(Step(None))

        @stepping.upon(_Inputs.stepped_to_done).to(confirming)
        def say_done(inputs: _Inputs, core: _Core[Identity], token: bytes) -> None:
            core.wants_frame = True
            core.send(token, done=True)

        @confirming.upon(_Inputs.token).to(concluding)
        def confirmed(inputs: _Inputs, core: _Core[Identity], token: Token) -> None:
            core.took(token)
            if token.payload or not token.done:
                error = core.violation("the peer sent a token after the handshake was complete")
                inputs.end(error, b"", LOGON_FAILURE)
            else:
                core.conclude(inputs, None)

        @stepping.upon(_Inputs.stepped_to_end).to(concluding)
        def finished(inputs: _Inputs, core: _Core[Identity], token: bytes) -> None:
            if not core.wire.says_done:
                core.conclude(inputs, token)
            elif token:
                inputs.end(
                    core.violation("the peer called the handshake done too early"),
                    b"",
                    LOGON_FAILURE,
                )
            else:
                core.conclude(inputs, None)
    else:
        opening = builder.state("waiting for the initiator's opening")

        @stepping.upon(_Inputs.stepped_to_end).to(concluding)
        def finish(inputs: _Inputs, core: _Core[Identity], token: bytes) -> None:
            core.conclude(inputs, token)

        @concluding.upon(_Inputs.verified_but_opening).to(opening)
        def await_opening(inputs: _Inputs, core: _Core[Identity], identity: Identity) -> None:
            core.opening_of = identity
            core.events.append(AwaitOpening(identity))

        @opening.upon(_Inputs.opened).to(over)
        def established(inputs: _Inputs, core: _Core[Identity]) -> None:
            identity, core.opening_of = core.opening_of, None
            assert identity is not None, "this state has it"
            core.events.append(Complete(identity, mutauth=True))

        unfinished.append(opening)

    @concluding.upon(_Inputs.verified).to(over)
    def conclude(inputs: _Inputs, core: _Core[Identity], identity: Identity, mutauth: bool) -> None:
        core.events.append(Complete(identity, mutauth))

    for state in unfinished:

        @state.upon(_Inputs.end).to(over)
        def end(
            inputs: _Inputs,
            core: _Core[Identity],
            error: MutualAuthError,
            token: bytes,
            code: int | None,
        ) -> None:
            core.wants_frame, core.opening_of = False, None
            core.fail(error, code, token)

    # A step still under way in a thread when the handshake ended comes too late to matter.
    for late in (_Inputs.stepped, _Inputs.stepped_to_done, _Inputs.stepped_to_end, _Inputs.end):
        over.upon(late).loop().returns(None)
    return builder.build()


_initiator_machine = _make_machine(initiator=True)
_acceptor_machine = _make_machine(initiator=False)


class Handshake(Generic[Identity]):
    """One side of a handshake.

    :param initiator: whether this side starts, as a client does.
    :param wire: the format of the frames.
    :param peer: the peer as errors name it.
    :param verify: verifies the finished context: returns the peer's identity, or
        raises an :class:`AuthenticationError`.
    :param refusal: cause and remedy when a service refuses a client's tokens; see
        :class:`~mutauth_twisted.core.mechanism.Mechanism`.
    :param is_mutauth: on an acceptor, whether an authenticated initiator is another
        mutauth peer, so that its opening is waited for.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        wire: Wire,
        peer: str,
        verify: Callable[[], Identity],
        refusal: tuple[str, str] = ("it did not accept the client's tokens", _SEE_LOG),
        is_mutauth: Callable[[Identity], bool] = lambda identity: False,
    ) -> None:
        self._initiator = initiator
        self._refused = refusal
        self._spoken = not initiator
        self._core: _Core[Identity] = _Core(wire, peer, verify, initiator, is_mutauth)
        self._machine = (_initiator_machine if initiator else _acceptor_machine)(self._core)

    @property
    def wants_frame(self) -> bool:
        """True if the machine waits for a frame; only then may one be given to it."""
        return self._core.wants_frame

    @property
    def wants_opening(self) -> bool:
        """True while the machine waits for the initiator's opening; only then may it be told of
        one.
        """
        return self._core.opening_of is not None

    @property
    def peer_must_wait(self) -> bool:
        """True if bytes of the peer can only be another protocol's: an acceptor does not speak
        first.
        """
        return not self._spoken

    def _run(
        self, machine_input: Callable[..., None], *arguments: object
    ) -> list[HandshakeEvent[Identity]]:
        machine_input(*arguments)
        events = self._core.take_events()
        self._spoken = self._spoken or any(isinstance(event, Send) for event in events)
        return events

    def begin(self) -> list[HandshakeEvent[Identity]]:
        """Start; an initiator's first step is due, an acceptor waits."""
        if self._initiator:
            return self._run(self._machine.begin)
        self._core.wants_frame = True
        return []

    def received(self, frame: Token | Fault) -> list[HandshakeEvent[Identity]]:
        """Take a frame of the peer; only while :attr:`wants_frame`."""
        if isinstance(frame, Fault):
            return self.abandon(self._refusal(frame.code))
        return self._run(self._machine.token, frame)

    def stepped(self, token: bytes, complete: bool) -> list[HandshakeEvent[Identity]]:
        """Take the outcome of the step asked for: the token to send, and whether the context is
        complete.
        """
        core = self._core
        if len(token) > core.wire.max_token:
            return self._end(core.violation(f"a token of {len(token)} bytes is too large to send"))
        if complete and self._initiator and core.wire.says_done and not core.peer_done:
            return self._run(self._machine.stepped_to_done, token)
        if complete:
            return self._run(self._machine.stepped_to_end, token)
        if core.peer_done:
            return self._end(
                core.violation("the peer called the handshake done before it was complete")
            )
        if not token:
            return self._end(core.violation("the handshake stopped before it was complete"))
        return self._run(self._machine.stepped, token)

    def opened(self) -> list[HandshakeEvent[Identity]]:
        """The initiator's opening was verified; only while :attr:`wants_opening`."""
        return self._run(self._machine.opened)

    def step_failed(
        self, error: MutualAuthError, token: bytes = b""
    ) -> list[HandshakeEvent[Identity]]:
        """The step asked for failed; the context's error token, if it made one, goes to the
        peer.
        """
        return self._end(error, token if len(token) <= self._core.wire.max_token else b"")

    def abandon(self, error: MutualAuthError) -> list[HandshakeEvent[Identity]]:
        """End the handshake from outside: deadline, lost connection, bytes of another protocol."""
        return self._run(self._machine.end, error, b"", None)

    def _end(self, error: MutualAuthError, token: bytes = b"") -> list[HandshakeEvent[Identity]]:
        return self._run(self._machine.end, error, token, LOGON_FAILURE)

    def _refusal(self, code: int) -> PeerRefused:
        if not self._initiator:
            return PeerRefused(
                self._core.peer,
                f"the client gave up (code {code:#x})",
                "its own message says why",
                status=code,
            )
        meaning, remedy = (
            _CODES.get(code, "it gave no known reason"),
            _SEE_LOG,
        )
        if code in _LOGON_CODES:
            meaning, remedy = self._refused
        return PeerRefused(
            self._core.peer,
            f"the service refused this client: {meaning} (code {code:#x})",
            remedy,
            status=code,
        )
