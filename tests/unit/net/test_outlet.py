"""Sending at once, on real sockets without a reactor that runs."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.net.outlet import Outlet, eager, outlet
from mutauth_twisted.net.transport import can_half_close


class Producer:
    """Knows whether it may go on."""

    paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        raise AssertionError("nobody stops it")


class OutletTests(SynchronousTestCase):
    """A transport's end of a pair of sockets."""

    def setUp(self) -> None:
        mine, self.peer = socket.socketpair()
        self.addCleanup(mine.close)
        self.addCleanup(self.peer.close)
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.peer.setblocking(False)
        self.reactor: Any = MemoryReactorClock()
        self.assertTrue(IReactorFDSet.providedBy(self.reactor))
        self.transport: Any = Connection(mine, Protocol(), self.reactor)
        self.transport.connected = 1
        self.outlet: Any = outlet(self.transport)

    def arrived(self) -> bytes:
        """Bytes that the peer can read."""
        try:
            return self.peer.recv(1 << 20)
        except BlockingIOError:
            return b""

    def waits(self) -> bool:
        """Tell whether the reactor is to write."""
        return self.transport in self.reactor.getWriters()

    def test_eager(self) -> None:
        """An eager one sends by itself, though there is a producer, which is paused when the kernel
        takes no more; nothing overtakes what waits.
        """
        producer = Producer()
        outlet: Any = eager(self.transport)
        outlet.registerProducer(producer, True)
        outlet.write(b"question")
        self.assertEqual(self.arrived(), b"question")
        self.assertFalse(self.waits() or producer.paused)
        said, count = bytes(range(256)) * 32, 0
        while not self.waits():
            outlet.write(said)
            count += 1
        for _ in range(10):
            outlet.write(said)
        self.assertTrue(producer.paused)
        outlet.write(b"last")
        heard = b""
        while len(heard) < (count + 10) * len(said) + 4:
            heard += self.arrived()
            self.transport.doWrite()
        self.assertEqual(heard, said * (count + 10) + b"last")
        self.assertFalse(producer.paused)
        outlet.write(b"and again")
        self.assertEqual(self.arrived(), b"and again")

    def test_eager_and_long(self) -> None:
        """Long data are left to the transport, which puts it together with what follows."""
        outlet: Any = eager(self.outlet)
        self.assertIs(outlet, self.outlet)
        outlet.write(bytes(100_000))
        self.assertEqual(self.arrived(), b"")
        self.assertTrue(self.waits())

    def test_eager_and_closing(self) -> None:
        """Behind an end nothing is sent, and a socket that fails is found out by the reactor."""
        for end in ("loseConnection", "loseWriteConnection"):
            self.setUp()
            outlet: Any = eager(self.transport)
            outlet.write(b"first")
            getattr(self.transport, end)()
            outlet.write(b"late")
            self.assertEqual(self.arrived(), b"first", end)
        self.setUp()
        outlet = eager(self.transport)
        self.peer.close()
        outlet.write(b"to nobody")
        self.assertTrue(self.waits())

    def test_eager_elsewhere(self) -> None:
        """A transport of another kind stays as it is."""
        other = StringTransport()
        self.assertIs(eager(other), other)

    def test_at_once(self) -> None:
        """Bytes that were written meanwhile leave with the release, in their order and in one
        piece, without the reactor.
        """
        for _ in range(2):
            self.outlet.gather()
            self.outlet.write(b"one ")
            self.outlet.writeSequence([b"two ", b"three"])
            self.assertEqual(self.arrived(), b"")
            self.outlet.release()
            self.assertEqual(self.arrived(), b"one two three")
            self.assertFalse(self.waits())

    def test_nothing(self) -> None:
        """Nothing written is nothing sent."""
        self.outlet.gather()
        self.outlet.release()
        self.assertEqual((self.arrived(), self.waits()), (b"", False))

    def test_long(self) -> None:
        """Bytes that are long are left to the transport, and what follows them as well."""
        self.outlet.gather()
        self.outlet.write(bytes(8193))
        self.outlet.release()
        self.assertEqual((self.arrived(), self.waits()), (b"", True))

    def test_order(self) -> None:
        """Bytes that the kernel does not take are left to the transport, and all that follows comes
        after them.
        """
        large, sent = bytes(range(256)) * 32, b""
        self.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        while not self.waits():
            self.outlet.gather()
            self.outlet.write(large)
            self.outlet.release()
            sent += large
        self.outlet.gather()
        self.outlet.write(b"the end")
        self.outlet.release()
        self.outlet.write(b".")
        arrived = self.arrived()
        while self.waits():
            self.transport.doWrite()
            arrived += self.arrived()
        self.assertEqual(arrived, sent + b"the end.")

    def test_outside(self) -> None:
        """Bytes that are written at another time are the reactor's, and so is what follows them."""
        self.outlet.write(b"first ")
        self.outlet.gather()
        self.outlet.write(b"second")
        self.outlet.release()
        self.assertEqual(self.arrived(), b"")
        self.transport.doWrite()
        self.assertEqual(self.arrived(), b"first second")

    def test_closing(self) -> None:
        """A connection closes behind what was written."""
        for close in ("loseConnection", "loseWriteConnection"):
            self.setUp()
            self.outlet.gather()
            self.outlet.write(b"last words")
            getattr(self.outlet, close)()
            self.outlet.release()
            self.transport.doWrite()
            self.assertEqual(self.arrived(), b"last words")

    def test_aborted(self) -> None:
        """Bytes that were not sent when a connection is dropped never are."""
        self.outlet.gather()
        self.outlet.write(b"never")
        self.outlet.abortConnection()
        self.outlet.release()
        self.assertEqual(self.arrived(), b"")

    def test_broken(self) -> None:
        """A socket that takes nothing any more is left to the reactor, which finds out and ends the
        connection.
        """
        self.peer.close()
        self.outlet.gather()
        self.outlet.write(b"to nobody")
        self.outlet.release()
        self.assertTrue(self.waits())
        self.assertIsInstance(self.transport.doWrite(), Exception)

    def test_lost(self) -> None:
        """A connection that was lost meanwhile is sent nothing."""
        self.outlet.gather()
        self.outlet.write(b"late")
        self.transport.connected = 0
        self.outlet.release()
        self.assertEqual((self.arrived(), self.waits()), (b"", False))

    def test_producer(self) -> None:
        """With a producer, which the transport has to pause, everything goes through the
        transport.
        """
        producer = Producer()
        self.outlet.gather()
        self.outlet.write(b"before ")
        self.outlet.registerProducer(producer, True)
        self.outlet.write(bytes(1 << 17))
        self.assertTrue(producer.paused)
        self.outlet.release()
        self.outlet.gather()
        self.outlet.write(b"after")
        self.outlet.release()
        arrived = b""
        while self.waits():
            self.transport.doWrite()
            arrived += self.arrived()
        self.assertEqual(arrived, b"before " + bytes(1 << 17) + b"after")
        self.assertFalse(producer.paused)

    def test_other_transports(self) -> None:
        """TLS, and whatever else is not TCP socket, sends as it always does."""
        transport = StringTransport()
        self.assertIs(outlet(transport), transport)

    def test_the_rest_is_the_transport_s(self) -> None:
        """It can half close, and has what the transport has."""
        self.assertIsInstance(self.outlet, Outlet)
        self.assertTrue(can_half_close(self.outlet))
        self.assertIs(self.outlet.getHandle(), self.transport.getHandle())
