"""A whole connection without a network: from the first token to the end of stream.

The peer's tokens and records are those of :class:`mutauth_twisted.testing.fakes.FakeContext`,
which the seeds have: so inputs get as far as a genuine peer does, and cannot
get any further than the genuine conversation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fuzz.inputs import Choices
from fuzz.targets.names import one_line
from mutauth_twisted.core.connection import Connection, Established
from mutauth_twisted.core.context import StepFailed
from mutauth_twisted.core.handshake import Failed, Send, Step
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.core.records import Data, EndOfStream
from mutauth_twisted.errors import MutualAuthError, ProtocolViolation, RecordError, StreamCut
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.protection import Protection
from mutauth_twisted.testing.connections import established
from mutauth_twisted.testing.fakes import SECRET, FakeContext, chunked
from mutauth_twisted.wire import Wire

#: What a genuine peer has to say, record by record.
SAID = (b"hello ", b"world\n", b"x" * 40)
WORDS = b"".join(SAID)
#: How applications behave.
MANNERS = ("listens", "answers", "leaves", "pauses")
#: What may wait at most: see mutauth_twisted.wire._base.
MOST_PENDING = 2 * (0x10000 + 4)


def peer_of(context: FakeContext) -> FakeContext:
    """The context of the other side."""
    return FakeContext(initiator=not context.initiator, legs=context.legs)


def conversation(
    wire: Wire, context: FakeContext, *, seal: bool, mutauth: bool = True, opens: bool = True
) -> list[bytes]:
    """The frames of a peer's records: what it says, and of a mutauth peer its end of stream.

    :param opens: whether a mutauth client's opening comes first.
    """
    opening = [b""] if mutauth and opens and context.initiator else []
    return [
        wire.protect(context, each, seal) for each in [*opening, *SAID, *([b""] if mutauth else [])]
    ]


def security(wire: Wire, seal: bool) -> SecurityOptions:
    """Options that were agreed on."""
    return SecurityOptions(wire, Protection.SEAL if seal else Protection.SIGN)


class Stranger(FakeContext):
    """A context whose peer's tokens nobody can make."""

    def token(self, number: int) -> bytes:
        return b"" if number % 2 == self.initiator else super().token(number)

    def step(self, token: bytes | None) -> Any:
        if token is not None:
            return super().step(b"\0" + token)
        return super().step(token)


class Side:
    """One side of a connection, which does what its events say and checks that they may say it.

    :param choices: what kind of side it is: the wire, the protection, the role, the number of
        tokens, whether its peer can authenticate itself and is a mutauth one, and its manner.
    """

    def __init__(self, choices: Choices) -> None:
        wire, seal, initiator = choices.wire(), choices.flag(), choices.flag()
        legs, self.genuine, mutauth = 2 + choices.below(2), choices.flag(), choices.flag()
        self.late, self.manner = choices.flag(), MANNERS[choices.below(len(MANNERS))]
        self.context = (FakeContext if self.genuine else Stranger)(
            initiator=initiator, legs=legs, blocking=initiator, mutauth=mutauth and not initiator
        )
        self.authorized = 0
        self.established: Established | None = None
        self.sent = self.received = b""
        self.ended = False
        self.error: MutualAuthError | None = None
        self.connection = Connection(
            security(wire, seal), initiator=initiator, peer="peer", authorize=self._authorize
        )
        self.connection.begin(self.context)
        self.perform()

    def _authorize(self, identity: PeerIdentity) -> None:
        assert self.genuine, "a stranger is to be authorized"
        assert self.context.verified == 1, "a peer is to be authorized before it is verified"
        self.authorized += 1

    def perform(self) -> None:
        """Do all that is to be done now; an application that pauses reads nothing."""
        connection = self.connection
        while not (self.established and self.manner == "pauses" and not connection.over):
            if (event := connection.next_event()) is None:
                return
            assert self.error is None, f"{event} after {self.error}"
            assert SECRET.decode() not in repr(event), "an event shows a token"
            if isinstance(event, Step):
                self._step(event.token)
            elif isinstance(event, Send):
                assert self.established is None, "a frame of the handshake follows its end"
                self.sent += event.data
            elif isinstance(event, Established):
                self._established(event)
            elif isinstance(event, Failed):
                one_line(event.error)
                self.error = event.error
            else:
                self._receive(event)

    def _step(self, token: bytes | None) -> None:
        try:
            outcome = self.connection.step(token)
        except StepFailed as failed:
            self.connection.step_failed(failed.error, failed.token)
        else:
            self.connection.stepped(outcome)

    def _established(self, event: Established) -> None:
        context = self.context
        assert self.established is None, "established twice"
        assert self.genuine, "established with a stranger"
        assert context.verified == self.authorized == 1, "established without being authorized"
        assert context.legs <= 2 * len(context.steps), "established on an unfinished context"
        assert context.received or not event.identity.mutauth or context.initiator, (
            "there was no opening"
        )
        self.established = event
        self.sent += event.opening

    def _receive(self, event: Data | EndOfStream) -> None:
        assert self.established is not None, f"{event} before there is a connection"
        assert not self.ended, f"{event} after the end of stream"
        if isinstance(event, EndOfStream):
            self.ended = True
            return
        assert event.data, "no bytes were delivered"
        self.received += event.data
        if self.manner == "answers":
            self.sent += b"".join(self.connection.send(event.data))

    def feed(self, chunk: bytes) -> None:
        """Have bytes come in."""
        before = self.sent
        over = self.connection.over
        self.connection.receive(chunk)
        self.perform()
        assert not over or self.sent == before, "who was turned away is answered"
        assert self.connection.pending <= MOST_PENDING + len(chunk), "what waits is not bounded"

    def outcome(self) -> tuple[object, ...]:
        """Outcome, so far as it does not depend on how the bytes were cut."""
        if self.manner == "pauses":
            assert not self.received, "an application that pauses was fed"
            self.manner = "listens"
            self.perform()
        return self.received, self.sent, self.ended, str(self.error), self.established is None

    def end(self) -> None:
        """The deadline, or the network's end; then everything is over."""
        connection = self.connection
        if self.late:
            connection.timed_out(10.0)
            self.perform()
        if self.established is None:
            assert self.late <= connection.over, (
                "the deadline has passed and the connection goes on"
            )
        connection.connection_lost()
        self.perform()
        assert connection.over, "it goes on without a network"
        assert connection.next_event() is None
        assert WORDS.startswith(self.received), "the application received what nobody said"
        if self.established is None:
            assert self.error is not None, "a connection that failed does not say so"
            assert not self.received
        elif self.error is None:
            assert self.ended
            assert self.received == WORDS or not self.established.identity.mutauth, (
                "a stream that was cut is taken for a finished one"
            )


def check(data: bytes) -> None:
    """A connection of either kind: nobody is established without being authenticated and
    authorized, nothing is delivered but what was said, and it has one end.
    """
    outcomes = []
    for cut in (lambda stream, cuts: [stream] if stream else [], chunked, _bytewise):
        choices = Choices(data)
        side = Side(choices)
        cuts, stream = choices.cuts(), choices.rest()
        for chunk in cut(stream, cuts):
            side.feed(chunk)
        outcomes.append(side.outcome())
        side.end()
    assert outcomes[0] == outcomes[1] == outcomes[2], "pieces are taken for something else"


def _bytewise(stream: bytes, cuts: object = ()) -> Iterable[bytes]:
    return (stream[at : at + 1] for at in range(len(stream)))


def check_records(data: bytes) -> None:
    """The records of an established connection: what was said, as far as it is unharmed, and one
    error.
    """
    choices = Choices(data)
    wire, seal, initiator, mutauth = choices.wire(), choices.flag(), choices.flag(), choices.flag()
    cuts, stream = choices.cuts(), choices.rest()
    whole = _read(wire, seal, initiator, mutauth, [stream] if stream else [])
    assert _read(wire, seal, initiator, mutauth, chunked(stream, cuts)) == whole, (
        "pieces are read as something else"
    )
    assert _read(wire, seal, initiator, mutauth, _bytewise(stream)) == whole, (
        "single bytes are read as something else"
    )


def _read(
    wire: Wire, seal: bool, initiator: bool, mutauth: bool, chunks: Iterable[bytes]
) -> tuple[bytes, bool, str | None, bool]:
    """Bytes that came out, whether the peer ended it, the error, and whether an end was a cut."""
    contexts = FakeContext(initiator=True), FakeContext(initiator=False, mutauth=mutauth)
    sides = established(*contexts, security(wire, seal))
    connection, _ = sides[not initiator]
    contexts[not initiator].received = 0  # the opening, which is not a part of the input
    assert connection.cut() is not None, "a stream without any record is taken for a finished one"
    received, ended = b"", False
    error: MutualAuthError | None = None

    def read() -> None:
        nonlocal received, ended, error
        while (event := connection.next_event()) is not None:
            assert error is None, "something follows an error"
            if isinstance(event, Data):
                assert event.data, "no bytes were delivered"
                assert not ended, "bytes follow the end"
                received += event.data
            elif isinstance(event, EndOfStream):
                ended = True
            else:
                assert isinstance(event, Failed), event
                one_line(event.error)
                error = event.error

    for chunk in chunks:
        connection.receive(chunk)
        read()
    assert WORDS.startswith(received), "what nobody said was received"
    assert isinstance(error, RecordError | ProtocolViolation | None)
    pending, was_ended = connection.pending, ended
    # After an error the connection is over, whatever waits.
    was_over = error is not None
    connection.connection_lost()
    read()
    if was_ended:
        assert received == WORDS
    elif ended:
        assert not mutauth, "a mutauth peer's stream that does not end is taken for a finished one"
        assert not pending, "a stream that ends within a record is no cut one"
    else:
        assert was_over or isinstance(error, StreamCut), "an end that says nothing"
    return received, ended, str(error) if error else None, was_over
