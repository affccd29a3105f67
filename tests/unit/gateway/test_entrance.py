"""The local entrance: which session a plain connection gets, and when another one follows."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import NetworkError, SessionRefused
from mutauth_twisted.gateway.entrance import KEPT, SESSIONS, EntranceFactory
from mutauth_twisted.gateway.relay import HalfClosed
from tests.unit.gateway.memory import MemoryTransport

REFUSED = SessionRefused.of("srv1", "backend-unreachable")


class _Endpoint:
    """An endpoint of several instances, whose connections the test makes."""

    def __init__(self, others: bool) -> None:
        self.others = others
        self.shunned: list[Any] = []
        self.attempts: list[tuple[Any, Deferred[Any]]] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        self.attempts.append((factory, Deferred()))
        return self.attempts[-1][1]

    def shun(self, connected: Any) -> bool:
        self.shunned.append(connected)
        return self.others

    def succeed(self) -> tuple[Any, MemoryTransport]:
        """The session that was asked for last, and its transport."""
        factory, connecting = self.attempts[-1]
        session, transport = factory.buildProtocol(None), MemoryTransport()
        session.makeConnection(transport)
        connecting.callback(session)
        return session, transport


class EntranceTests(SynchronousTestCase):
    """One plain connection."""

    def setUp(self) -> None:
        self.enter()

    def enter(self, *, others: bool = True, half_closed: HalfClosed | None = None) -> None:
        """A plain connection comes, and gets its first session."""
        self.refusals: list[Failure] = []
        self.endpoint = _Endpoint(others)
        factory = EntranceFactory(
            cast(Any, self.endpoint), self.refusals.append, half_closed=half_closed
        )
        self.plain: Any = factory.buildProtocol(None)
        self.transport = MemoryTransport()
        self.plain.makeConnection(self.transport)
        self.session, self.network = self.endpoint.succeed()

    def lose(self, error: BaseException) -> None:
        """The session ends."""
        self.session.connectionLost(Failure(error))

    def assert_over(self, *, aborted: bool) -> None:
        """The plain connection is ended, and no session follows."""
        self.assertEqual(len(self.endpoint.attempts), 1)
        self.assertEqual((self.transport.aborted, self.transport.disconnecting)[not aborted], True)

    def test_refused(self) -> None:
        """Bytes that were sent to a service that refused them are sent to the next one, once, with
        their end, and what comes meanwhile behind them; the first is to be shunned.
        """
        self.plain.dataReceived(b"one ")
        self.plain.dataReceived(b"two ")
        self.lose(REFUSED)
        self.assertEqual(self.endpoint.shunned, [self.session])
        self.assertEqual(self.transport.producerState, "paused")
        self.plain.dataReceived(b"three")
        self.plain.readConnectionLost()
        session, network = self.endpoint.succeed()
        self.assertEqual(network.value(), b"one two three")
        self.assertTrue(network.half_closed)
        session.dataReceived(b"answer")
        self.assertEqual(self.transport.value(), b"answer")
        self.assertFalse(self.transport.aborted or self.transport.disconnecting)
        self.assertEqual(self.refusals, [])

    def test_refused_and_alone(self) -> None:
        """Where there is no other instance, the connection is over, and the reason is told."""
        self.enter(others=False)
        self.lose(REFUSED)
        self.assert_over(aborted=True)
        self.assertIs(self.refusals[0].value, REFUSED)

    def test_refused_by_all(self) -> None:
        """It has an end."""
        for number in range(1, SESSIONS + 1):
            self.assertEqual(len(self.endpoint.attempts), number)
            self.lose(REFUSED)
            if number < SESSIONS:
                self.session, self.network = self.endpoint.succeed()
        self.assertEqual(len(self.endpoint.attempts), SESSIONS)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(len(self.refusals), 1)

    def test_dies_before_a_byte(self) -> None:
        """A session that ends in any other way is replaced as long as nothing went through it."""
        self.lose(ConnectionLost())
        _, network = self.endpoint.succeed()
        self.plain.dataReceived(b"question")
        self.assertEqual(network.value(), b"question")

    def test_dies_after_a_byte(self) -> None:
        """Afterwards nothing is repeated."""
        for said, heard in ((b"question", b""), (b"", b"greeting"), (b"question", b"answer")):
            for error in (ConnectionLost(), REFUSED):
                self.enter()
                if said:
                    self.plain.dataReceived(said)
                if heard:
                    self.session.dataReceived(heard)
                elif error is REFUSED:
                    continue
                self.lose(error)
                self.assert_over(aborted=True)

    def test_too_much_to_keep(self) -> None:
        """More than is kept is passed on, and not repeated."""
        self.plain.dataReceived(bytes(KEPT))
        self.plain.dataReceived(b"more")
        self.assertEqual(len(self.network.value()), KEPT + 4)
        self.lose(REFUSED)
        self.assert_over(aborted=True)

    def test_ended_in_order(self) -> None:
        """A session that ends in order was one, though nothing went through it; and one that this
        side has cut is over.
        """
        self.session.readConnectionLost()
        self.lose(ConnectionLost())
        self.assert_over(aborted=True)
        for error in (ConnectionDone(), ConnectionAborted()):
            self.enter()
            self.lose(error)
            self.assert_over(aborted=isinstance(error, ConnectionAborted))

    def test_stopping(self) -> None:
        """When all are cut at the end, none begins anew."""
        self.plain.abort()
        self.lose(ConnectionLost())
        self.assertEqual(len(self.endpoint.attempts), 1)

    def test_next_one_fails(self) -> None:
        """When there is no other session either, that is told."""
        self.lose(REFUSED)
        error = NetworkError("srv2", "it is gone")
        self.endpoint.attempts[-1][1].errback(error)
        self.assertTrue(self.transport.aborted)
        self.assertEqual([each.value for each in self.refusals], [error])

    def test_leaves_meanwhile(self) -> None:
        """A plain connection that goes while the next session is made takes that with it."""
        self.lose(REFUSED)
        connecting = self.endpoint.attempts[-1][1]
        self.plain.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(connecting.called)
        self.assertEqual(self.refusals, [])

    def test_half_closed(self) -> None:
        """The wait for silence sees what comes before and after the session is settled."""
        clock = Clock()
        self.enter(half_closed=HalfClosed(clock, 10))
        self.plain.dataReceived(b"question")
        self.plain.readConnectionLost()
        for _ in range(5):
            clock.advance(9)
            self.session.dataReceived(b".")
        self.assertEqual(self.transport.value(), b".....")
        self.assertFalse(self.network.aborted)
        clock.pump([10, 10])
        self.assertTrue(self.network.aborted)
        self.session.connectionLost(Failure(ConnectionAborted()))
        self.assert_over(aborted=True)
        self.assertEqual(clock.getDelayedCalls(), [])
