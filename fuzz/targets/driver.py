"""The driver on Twisted: a connection on a fake transport and a fake clock.

The inputs are those of :mod:`fuzz.targets.connection`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.logger import LogLevel, formatEvent
from twisted.python.failure import Failure

from fuzz.inputs import Choices
from fuzz.targets.connection import MANNERS, MOST_PENDING, WORDS, Stranger
from fuzz.targets.names import one_line
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.net.transport import LINGER
from mutauth_twisted.protection import Protection
from mutauth_twisted.testing.fakes import (
    SECRET,
    FakeContext,
    Player,
    Recorder,
    RecorderFactory,
    captured_log,
    chunked,
)
from mutauth_twisted.wire import Wire

_TIMEOUT = 10.0


class _Connection:
    """One side of a connection, fed by a stranger.

    :param choices: what kind of side it is.
    """

    def __init__(
        self,
        wire: Wire,
        seal: bool,
        initiator: bool,
        legs: int,
        genuine: bool,
        mutauth: bool,
        manner: str,
    ) -> None:
        kind = FakeContext if genuine else Stranger
        self.context = kind(
            initiator=initiator, legs=legs, blocking=initiator, mutauth=mutauth and not initiator
        )
        self.genuine = genuine
        protection = Protection.SEAL if seal else Protection.SIGN
        self.security = SecurityOptions(wire=wire, protection=protection, timeout=_TIMEOUT)
        self._manner = manner
        self.player = Player(self.context, RecorderFactory(self._prepare), security=self.security)
        self.work()

    def _prepare(self, application: Recorder) -> None:
        """Have an application behave in its manner."""
        if self._manner == "answers":
            application.on_data = lambda transport, data: transport.write(data)
        elif self._manner == "leaves":
            application.on_data = lambda transport, data: transport.loseConnection()
        elif self._manner == "pauses":
            application.on_connect = lambda transport: transport.pauseProducing()

    def work(self) -> None:
        """Let the threads finish, and see that nothing has begun that must not."""
        self.player.workers.finish()
        assert len(self.player.factory.built) <= 1, "several applications were built"
        if self.player.factory.built:
            assert self.genuine, "a stranger got an application"
            assert self.context.verified == 1, "an application was built without verification"
            assert self.context.legs <= 2 * len(self.context.steps), (
                "an application was built on an unfinished context"
            )
            identity = cast(Any, self.player.application.transport).peer_identity
            assert self.context.received or not identity.mutauth or self.context.initiator, (
                "there was no opening"
            )

    def feed(self, chunk: bytes) -> None:
        """Have bytes come in, as long as anybody reads."""
        player = self.player
        over = player.transport.disconnecting
        before = player.transport.value()
        if over:
            player.protocol.dataReceived(chunk)
        else:
            player.receive(chunk)
        self.work()
        if over and not player.factory.built:
            assert player.transport.value() == before, "who was turned away is answered"
        assert player.protocol._connection.pending <= MOST_PENDING + len(chunk), (
            "there is no bound on what waits"
        )

    def outcome(self) -> tuple[object, ...]:
        """Outcome, so far as it does not depend on how the bytes were cut."""
        player = self.player
        if player.factory.built and self._manner == "pauses":
            assert not player.application.received, "an application that pauses was fed"
            if not player.transport.disconnecting:
                cast(Any, player.application.transport).resumeProducing()
        received = b"".join(player.application.received) if player.factory.built else None
        return (
            received,
            player.transport.value(),
            player.transport.disconnecting,
            player.transport.aborted,
        )

    def end(self, late: bool) -> None:
        """The network's end, before or after all deadlines; then everything is over."""
        player = self.player
        if late:
            player.reactor.advance(_TIMEOUT)
            if not player.factory.built:
                assert player.transport.disconnecting, (
                    "the deadline has passed and the connection is kept"
                )
            player.reactor.advance(LINGER)
            if not player.factory.built:
                assert player.transport.aborted, "a peer that does not leave keeps its place"
        player.lose()
        self.work()
        (result,) = player.results
        calls = [call for call in player.reactor.getDelayedCalls() if call.active()]
        assert not calls, f"{calls} outlive the connection"
        if not player.factory.built:
            assert isinstance(result, Failure), (
                "somebody was told of a connection that was not established"
            )
            assert isinstance(result.value, MutualAuthError), f"{result}"
            one_line(result.value)
            return
        application = player.application
        assert result is application
        assert application.events[0] == "made" and application.events[-1] == "lost"
        assert application.events.count("lost") == 1
        received = b"".join(application.received)
        assert WORDS.startswith(received), "the application received what nobody said"
        # A third-party peer's stream may end between any two records.
        mutauth = cast(Any, application.transport).peer_identity.mutauth
        if isinstance(application.reason, ConnectionDone) and self._manner != "leaves" and mutauth:
            assert received == WORDS, "a stream that was cut is taken for a finished one"


def check(data: bytes) -> None:
    """A connection of either kind: no application without a proof, no more than was said, and an
    end to it all.
    """
    choices = Choices(data)
    wire, seal, initiator = choices.wire(), choices.flag(), choices.flag()
    legs, genuine, mutauth, late = (
        2 + choices.below(2),
        choices.flag(),
        choices.flag(),
        choices.flag(),
    )
    manner = MANNERS[choices.below(len(MANNERS))]
    cuts, stream = choices.cuts(), choices.rest()
    with captured_log() as events:
        outcomes = []
        for chunks in ([stream] if stream else [], chunked(stream, cuts), _bytewise(stream)):
            connection = _Connection(wire, seal, initiator, legs, genuine, mutauth, manner)
            for chunk in chunks:
                connection.feed(chunk)
            outcomes.append(connection.outcome())
            connection.end(late)
    assert outcomes[0] == outcomes[1] == outcomes[2], "pieces are taken for something else"
    for event in events:
        assert event["log_level"] is not LogLevel.critical, formatEvent(event)
        assert SECRET.decode() not in formatEvent(event), "the log shows a token"


def _bytewise(stream: bytes) -> Iterable[bytes]:
    return (stream[at : at + 1] for at in range(len(stream)))
