"""Every way to an end that two applications, their network and the clock can take together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mutauth_twisted.core.closing import TABLE, Action, Input, Row, State
from mutauth_twisted.core.connection import Connection
from mutauth_twisted.errors import SessionEnded
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.net.cut import ConnectionCut
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.net.outlet import outlet
from mutauth_twisted.net.sockets import STALLED, unsent
from mutauth_twisted.net.transport import LINGER, ProtectedTransport
from mutauth_twisted.testing.connections import established
from mutauth_twisted.testing.fakes import FakeContext
from tests.unit.net.memory_network import MemoryConnection, Reactor, Socket, pair

LIMITS = Limits(idle=60.0, session=100.0)
SIDES = st.integers(0, 1)
DOES = ["write", "close", "end its half", "produce", "pause", "abort"]
HABITS = st.lists(st.sampled_from(DOES), min_size=1, max_size=4, unique=True)


class CheckedConnection:
    """An established connection that notices what is sent behind its end of stream."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.ends_sent = 0
        self.sent_late = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def send_end(self) -> bytes:
        """See Connection."""
        self.ends_sent += 1
        return self._connection.send_end()

    def send(self, data: bytes) -> list[bytes]:
        """See Connection."""
        self.sent_late = self.sent_late or self.ends_sent > 0
        return self._connection.send(data)


@implementer(IHalfCloseableProtocol)
class Network(Protocol):
    """Layers between the socket and the application's transport, once that is there."""

    def __init__(self, end: End) -> None:
        self.end = end

    def connectionMade(self) -> None:
        self.outlet = outlet(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.outlet.gather()
        self.end.transport.dataReceived(data)
        self.outlet.release()

    def readConnectionLost(self) -> None:
        self.end.transport.readConnectionLost()

    def writeConnectionLost(self) -> None:
        self.end.transport.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.end.transport.connectionLost(reason)


@implementer(IPushProducer)
class End(Protocol):
    """One side: its application, which is its own producer, and what it did and was told."""

    def __init__(self, habits: st.SearchStrategy[str], limits: Limits | None) -> None:
        self.habits = habits
        self.sent = bytearray()
        self.received = bytearray()
        self.closed = self.half_closed = self.aborted = self.paused = self.producing = False
        #: Whether its producer was stopped before it was done.
        self.unfinished = False
        #: What it does when it is told something the next time.
        self.react: Callable[[], None] | None = None
        self.lost: list[BaseException] = []
        #: How much of the peer's data had come when its end was told.
        self.finished_at: int | None = None
        self.late = False
        self.limits = limits

    def connect(
        self, reactor: Reactor, socket: Socket, connection: Connection, identity: PeerIdentity
    ) -> None:
        """Begin on an authenticated connection."""
        self.socket = socket
        self.checked = CheckedConnection(connection)
        network = Network(self)
        self.tcp = MemoryConnection(socket, network, reactor)
        self.transport: Any = ProtectedTransport(
            reactor, network.outlet, cast(Connection, self.checked), identity, self.limits
        )
        self.transport.start(self)

    @property
    def may_write(self) -> bool:
        """Tell whether what it writes now has to be sent."""
        over = self.transport.disconnecting or self.half_closed
        return not (self.lost or self.aborted) and (self.producing or not over)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.late = self.late or self.finished_at is not None or bool(self.lost)
        self.told()

    def told(self) -> None:
        """Do what was to be done at this time."""
        react, self.react = self.react, None
        if react is not None:
            react()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason.value)
        if isinstance(reason.value, ConnectionDone) and not self.closed:
            self.finished()

    def finished(self) -> None:
        """The peer has ended, as it seems."""
        if self.finished_at is None:
            self.finished_at = len(self.received)

    def pauseProducing(self) -> None:
        """See IPushProducer."""

    def resumeProducing(self) -> None:
        """See IPushProducer."""

    def stopProducing(self) -> None:
        """See IProducer."""
        self.unfinished = True
        self.unregister()

    def unregister(self) -> None:
        """The producer is done."""
        self.producing = False
        self.transport.unregisterProducer()


@implementer(IHalfCloseableProtocol)
class HalfCloseableEnd(End):
    """A side that may go on after the peer's end."""

    def readConnectionLost(self) -> None:
        self.late = self.late or self.finished_at is not None
        self.finished()
        self.told()

    def writeConnectionLost(self) -> None:
        self.told()


class Endings(RuleBasedStateMachine):
    """Two applications that do what they like, over a network that does what it likes."""

    @initialize(
        mutauth=st.booleans(),
        halves=st.tuples(st.booleans(), st.booleans()),
        habits=st.tuples(HABITS, HABITS),
        limits=st.booleans(),
        rough=st.booleans(),
        patient=st.booleans(),
    )
    def connect(
        self,
        mutauth: bool,
        halves: tuple[bool, bool],
        habits: tuple[list[str], list[str]],
        limits: bool,
        rough: bool,
        patient: bool,
    ) -> None:
        """Two authenticated sides: other mutauth peers, or third-party ones to each other.

        :param halves: which application is half-closeable.
        :param habits: what either application does.
        :param limits: whether the second side's sessions are limited.
        :param rough: whether somebody cuts the connection.
        :param patient: whether time passes before both close.
        """
        self.reactor = Reactor()
        self.mutauth = mutauth
        self.rough, self.patient = rough, patient
        #: Whether nothing but the applications' orderly ends has happened, in no time.
        self.orderly = True
        self.elapsed = 0.0
        self.ends: list[End] = [
            (HalfCloseableEnd if half else End)(st.sampled_from(habit), LIMITS if limited else None)
            for half, habit, limited in zip(halves, habits, (False, limits), strict=True)
        ]
        sides = established(
            FakeContext(initiator=True), FakeContext(initiator=False, mutauth=mutauth)
        )
        for end, socket, (connection, event) in zip(self.ends, pair(), sides, strict=True):
            end.connect(self.reactor, socket, connection, event.identity)
        if not mutauth:
            # A third-party stream without any record is a cut one.
            for side in range(2):
                self.do("write", side)
            self.run()

    @rule(data=st.data())
    def one_acts(self, data: st.DataObject) -> None:
        """One application does what it is wont to do."""
        self.do(data.draw(self.ends[0].habits), 0)

    @rule(data=st.data())
    def other_acts(self, data: st.DataObject) -> None:
        """So does the other."""
        self.do(data.draw(self.ends[1].habits), 1)

    @rule(side=SIDES, data=st.data())
    def react(self, side: int, data: st.DataObject) -> None:
        """An application does so in the midst of what it is told next."""
        habit = data.draw(self.ends[side].habits)
        self.ends[side].react = lambda: self.do(habit, side)

    def do(self, what: str, side: int) -> None:
        """Have an application do something."""
        end = self.ends[side]
        transport = end.transport
        if what == "write":
            data = bytes((len(end.sent) + number) % 251 for number in range(200))
            if end.may_write:
                end.sent += data
            transport.write(data)
        elif what == "close":
            end.closed = True
            transport.loseConnection()
        elif what == "end its half":
            end.half_closed = True
            transport.loseWriteConnection()
        elif what == "produce":
            if end.producing:
                end.unregister()
                return
            unfinished, end.producing = end.unfinished, True
            transport.registerProducer(end, True)
            if not end.producing:  # it came too late
                end.unfinished = unfinished
        elif what == "pause":
            end.paused = not end.paused
            (transport.pauseProducing if end.paused else transport.resumeProducing)()
        elif not end.lost:
            end.aborted, self.orderly = True, False
            transport.abortConnection()

    @rule(side=SIDES, most=st.integers(1, 400))
    def carry(self, side: int, most: int) -> None:
        """The network takes something to the other side."""
        self.ends[side].socket.carry(most)

    @rule(side=SIDES)
    def turn(self, side: int) -> None:
        """A side's reactor finds out what its socket has for it."""
        self.reactor.turn(self.ends[side].tcp)

    @rule()
    def run(self) -> None:
        """All that can go on goes on, in no time."""
        while any(
            end.socket.carry(1000) | self.reactor.turn(end.tcp) | self._due() for end in self.ends
        ):
            pass
        for end in self.ends:
            assert end.lost or not end.aborted, "it was not dropped"

    def _due(self) -> bool:
        due = [call for call in self.reactor.getDelayedCalls() if call.getTime() <= self.elapsed]
        self.reactor.advance(0)
        return bool(due)

    @precondition(lambda self: self.rough)
    @rule(resets=st.tuples(st.booleans(), st.booleans()))
    def cut(self, resets: tuple[bool, bool]) -> None:
        """Somebody on the way ends the connection, with an end of TCP's or a reset."""
        self.orderly = False
        for end, reset in zip(self.ends, resets, strict=True):
            if not end.lost:
                end.socket.sever(reset)

    @rule(seconds=st.sampled_from([0.0, 1.0, LINGER, 10 * LINGER]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.elapsed += seconds
        self.orderly = self.orderly and self.elapsed < LINGER
        self.reactor.advance(seconds)

    def teardown(self) -> None:
        """Once both have closed, paused or not, nothing is left; in good order at once."""
        if not hasattr(self, "ends"):
            return
        for end in self.ends:
            end.react = None
        self.run()
        if self.patient:
            self.let_time_pass()
        for number, end in enumerate(self.ends):
            if end.producing:
                end.unregister()
            self.run()
            self.do("close", number)
        self.run()
        if not self.orderly:
            self.let_time_pass()
        self.check()
        for end in self.ends:
            assert len(end.lost) == 1, "something keeps it open"
        assert not self.reactor.getDelayedCalls()
        assert not self.reactor.watched

    def let_time_pass(self) -> None:
        """Time enough passes for all that is over to be gone."""
        for _ in range(5):
            self.wait(LINGER)
            self.run()
        for end, peer in (self.ends, self.ends[::-1]):
            left = (
                bool(peer.checked.ends_sent)
                and not isinstance(end, HalfCloseableEnd)
                and not end.paused
            )
            closed = end.closed and not end.producing and not peer.paused
            assert end.lost or not (left or closed), "it is over, and not gone"

    @invariant()
    def check(self) -> None:
        """Invariants at any time."""
        for end, peer in (self.ends, self.ends[::-1]):
            assert peer.sent.startswith(end.received), "something came that was not sent"
            assert not end.late, "something came behind the end"
            assert not end.checked.sent_late, "something was sent behind our end"
            assert end.checked.ends_sent <= 1, "our end was sent twice"
            assert len(end.lost) <= 1, "the loss was told twice"
            if end.lost:
                self.check_reason(end, peer, end.lost[0])
            if end.finished_at is not None and (self.mutauth or self.orderly):
                assert peer.checked.ends_sent, "a cut was called finished"
                stopped = self.mutauth and peer.unfinished and not peer.limits
                assert not stopped, "a stopped producer was called finished"
                assert len(peer.sent) == end.finished_at, "something was lost before the end"

    def check_reason(self, end: End, peer: End, reason: BaseException) -> None:
        """The reason is one of those that are documented, and no other."""
        told = type(reason)
        assert told in (
            ConnectionDone,
            ConnectionLost,
            ConnectionAborted,
            SessionEnded,
            ConnectionCut,
        )
        if told is ConnectionAborted:
            stalled = end.closed and self.elapsed >= STALLED
            assert end.aborted or stalled, "this side did not abort"
        if told is SessionEnded:
            assert end.limits is not None
            assert end.checked.ends_sent or end.unfinished, "its peer was told of a cut"
        if self.orderly:
            assert told is ConnectionDone, reason


def explore(**how: Any) -> None:
    """Try many interleavings."""
    run_state_machine_as_test(
        Endings,
        settings=settings(
            stateful_step_count=50,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            **how,
        ),
    )


#: Rows of the table, each with a mistake in it.
MISTAKES: list[tuple[State, Input, Row]] = [
    (State.CLOSING, Input.PRODUCED, (State.DRAINING, Action.CLOSE_OUTPUT, Action.READ_ON)),
    (State.HALF_CLOSING, Input.PRODUCED, (State.WRITE_CLOSED, Action.END_OUTPUT)),
    (State.DRAINING, Input.PEER_ENDED, (State.BOTH_ENDED, Action.ABORT)),
    (State.WRITE_CLOSED, Input.PEER_ENDED, (State.WRITE_CLOSED,)),
    (State.OPEN, Input.LIMIT, (State.LEAVING, Action.CLOSE)),
    (State.ABORTED, Input.GONE, (State.LOST,)),
]


class StalledTests(SynchronousTestCase):
    """Bytes that are still to be sent when an application closes."""

    SIZE = 20_000

    def setUp(self) -> None:
        self.play = Endings()
        self.play.connect(True, (False, True), (["write"], ["write"]), False, False, False)
        self.client, self.service = self.play.ends
        self.play.do("pause", 1)
        self.client.sent += bytes(self.SIZE)
        self.client.transport.write(bytes(self.SIZE))

    def close(self, *, half: bool) -> None:
        """Close, at once or by halves, with nearly all unsent."""
        if half:
            self.play.do("end its half", 0)
        self.play.do("close", 0)
        self.play.run()
        self.assertGreater(unsent(self.client.tcp), self.SIZE // 2)

    def test_unsent(self) -> None:
        """Bytes that Twisted has yet to give to the kernel are known, whatever stands above."""
        before = unsent(self.client.tcp)
        self.assertGreaterEqual(before, self.SIZE)
        self.play.turn(0)
        self.assertEqual(unsent(self.client.transport.network), before - Socket.SIZE)
        self.play.do("pause", 1)
        self.play.run()
        self.assertEqual(unsent(self.client.tcp), 0)
        self.assertEqual(unsent(object()), 0)

    def test_comes_late(self) -> None:
        """A peer that takes nothing for longer than the linger, and then goes on, gets all."""
        for half in (False, True):
            self.setUp()
            self.close(half=half)
            for _ in range(4):
                self.play.wait(LINGER)
                self.play.run()
            # It is read on, or a peer that answers would stop reading as well, for ever.
            self.assertIn(self.client.tcp, self.play.reactor._reads)
            self.play.do("pause", 1)
            self.play.run()
            self.assertEqual(self.service.received, self.client.sent)
            self.assertEqual(self.service.finished_at, self.SIZE)
            self.play.do("close", 1)
            self.play.run()
            self.assertIsInstance(self.client.lost[0], ConnectionDone)

    def test_slowly(self) -> None:
        """One that takes a little from time to time gets all, however long it takes."""
        for half in (False, True):
            self.setUp()
            self.close(half=half)
            while len(self.service.received) < self.SIZE:
                self.play.wait(LINGER)
                self.assertEqual(self.client.lost, [])
                self.play.do("pause", 1)
                for _ in range(3):
                    self.client.socket.carry(1000)
                    self.play.turn(1)
                    self.play.turn(0)
                self.play.do("pause", 1)
            self.assertGreater(self.play.elapsed, STALLED)
            self.assertEqual(self.service.received, self.client.sent)

    def test_never(self) -> None:
        """One that takes nothing more is given up in the end, and the loss is told."""
        for half in (False, True):
            self.setUp()
            self.close(half=half)
            for _ in range(int(STALLED / LINGER) + 2):
                self.play.wait(LINGER)
                self.play.run()
            self.assertEqual([type(each) for each in self.client.lost], [ConnectionAborted])
            self.assertEqual(self.play.reactor.getDelayedCalls(), [])


class EndingsTests(SynchronousTestCase):
    """The ends of connections, explored."""

    def test_explored(self) -> None:
        """No interleaving loses data, calls a cut finished, or leaves anything behind."""
        explore(max_examples=150)

    def test_finds_mistakes(self) -> None:
        """The exploration finds ends that are not sent, not noticed, not told, or too sudden."""
        for state, what, wrong in MISTAKES:
            row = cast(dict[Input, Row], TABLE[state])
            right = row[what]
            row[what] = wrong
            try:
                with self.assertRaises(AssertionError, msg=(state, what)):
                    explore(
                        max_examples=2000, database=None, derandomize=True, phases=[Phase.generate]
                    )
            finally:
                row[what] = right
