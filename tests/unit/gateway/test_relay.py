"""The relay between a connection that was accepted and one that is made for it."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.gateway import relay as relays
from mutauth_twisted.gateway.backend import Backend
from mutauth_twisted.gateway.relay import HalfClosed, RelayFactory
from tests.unit.gateway.memory import MemoryEndpoint, MemoryTransport


class RefusedTests(SynchronousTestCase):
    """A target that cannot be reached."""

    def test_whoever_is_told_fails(self) -> None:
        """The accepted connection is aborted, whatever becomes of telling why."""
        target = MemoryEndpoint()
        relay = RelayFactory(
            Backend(Clock(), cast(Any, target)).connect, lambda failure: 1 / 0
        ).buildProtocol(None)
        transport = MemoryTransport()
        relay.makeConnection(transport)
        target.connecting.errback(Failure(ConnectionRefusedError()))
        self.assertTrue(transport.aborted)
        self.failureResultOf(target.connecting, ZeroDivisionError)


class RelayTests(SynchronousTestCase):
    """Bytes, ends and failures, in both directions."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.target = MemoryEndpoint()
        self.transport = MemoryTransport()
        self.refusals: list[Failure] = []
        connect = Backend(self.clock, cast(Any, self.target)).connect
        self.client: Any = RelayFactory(connect, self.refusals.append).buildProtocol(None)
        self.client.makeConnection(self.transport)

    def test_client_waits_unread(self) -> None:
        """Nothing is read from the client until the service is there; then both directions flow."""
        self.assertEqual(self.transport.producerState, "paused")
        service = self.target.succeed()
        self.assertEqual(self.transport.producerState, "producing")
        self.client.dataReceived(b"question")
        service.dataReceived(b"answer")
        self.assertEqual(
            (self.target.transport.value(), self.transport.value()), (b"question", b"answer")
        )

    def test_bytes_that_came_before_are_kept(self) -> None:
        """Bytes that a pausing transport still delivered go first, their end included."""
        self.client.dataReceived(b"early")
        self.client.readConnectionLost()
        self.target.succeed()
        self.assertEqual(self.target.transport.value(), b"early")
        self.assertTrue(self.target.transport.half_closed)

    def test_each_side_holds_up_the_other(self) -> None:
        """A slow reader pauses the writer at the far end."""
        service = self.target.succeed()
        self.assertIs(self.target.transport.producer, self.client)
        self.assertIs(self.transport.producer, service)
        service.pauseProducing()
        self.assertEqual(self.target.transport.producerState, "paused")
        service.resumeProducing()
        self.assertEqual(self.target.transport.producerState, "producing")

    def test_half_close(self) -> None:
        """An end of stream is passed on, the answer still comes back, and then all is closed."""
        service = self.target.succeed()
        self.client.readConnectionLost()
        self.assertTrue(self.target.transport.half_closed)
        self.assertFalse(self.transport.disconnecting)
        service.dataReceived(b"answer")
        service.readConnectionLost()
        self.assertEqual(self.transport.value(), b"answer")
        self.assertTrue(self.transport.half_closed)
        self.client.writeConnectionLost()
        service.writeConnectionLost()
        self.assertTrue(self.transport.disconnecting and self.target.transport.disconnecting)

    def test_silence(self) -> None:
        """Half-closed connections are cut when nothing moves in the other direction, and only then:
        what comes counts, and so does what is taken.
        """
        backend = Backend(self.clock, cast(Any, self.target))
        factory = RelayFactory(
            backend.connect, self.refusals.append, half_closed=HalfClosed(self.clock, 60)
        )
        taken = [0]
        self.patch(relays, "untaken", lambda transport: taken[0])
        for first in ("client", "service"):
            for moves in (True, False):
                self.target = MemoryEndpoint()
                backend._endpoint = cast(Any, self.target)
                client: Any = factory.buildProtocol(None)
                client.makeConnection(transport := MemoryTransport())
                service = self.target.succeed()
                ended, other = (client, service) if first == "client" else (service, client)
                other_transport = self.target.transport if first == "client" else transport
                sink = transport if first == "client" else self.target.transport
                taken[0] = 100
                ended.readConnectionLost()
                for number in range(5):
                    self.clock.advance(59)
                    if moves:
                        other.dataReceived(b".")
                    else:
                        taken[0] -= 10
                    self.clock.advance(1)
                    self.assertFalse(other_transport.aborted, (first, moves, number))
                self.assertEqual(sink.value(), b"....." if moves else b"")
                self.clock.pump([60, 60])
                self.assertTrue(other_transport.aborted, (first, moves))
                other.connectionLost(Failure(ConnectionAborted()))
                ended.connectionLost(Failure(ConnectionAborted()))
                self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never_silent(self) -> None:
        """Without a time there is no wait."""
        self.client.half_closed = HalfClosed(self.clock, 0)
        self.target.succeed()
        self.client.readConnectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_clean_end(self) -> None:
        """One side's clean end closes the other; nothing is aborted."""
        service = self.target.succeed()
        service.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(self.transport.disconnecting)
        self.assertFalse(self.transport.aborted)

    def test_cut(self) -> None:
        """A cut stream is not passed on as a clean end."""
        self.target.succeed()
        self.client.connectionLost(Failure(ConnectionLost()))
        self.assertTrue(self.target.transport.aborted)

    def test_service_refuses(self) -> None:
        """When the target cannot be reached the accepted side is dropped, and somebody is told
        why.
        """
        self.target.connecting.errback(ConnectionRefusedError())
        self.assertTrue(self.transport.aborted)
        error: Any = self.refusals[0].value
        self.assertEqual(error.code, "backend-unreachable")
        self.assertIn("connection refused", str(error))

    def test_client_leaves_early(self) -> None:
        """An accepted side that goes away while the target is being reached stops the attempt,
        which is not a refusal.
        """
        self.client.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(self.target.cancelled)
        self.assertEqual((self.refusals, self.transport.aborted), ([], False))

    def test_target_without_half_close(self) -> None:
        """A target whose output cannot be ended alone, such as TLS, is closed: nobody may wait for
        an end for ever.
        """
        self.target.transport = StringTransport()  # type: ignore[assignment]
        self.target.succeed()
        self.client.readConnectionLost()
        self.assertTrue(self.target.transport.disconnecting)
