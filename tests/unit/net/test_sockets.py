"""Options of TCP sockets, which no others get."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.gateway.relay import Relay
from mutauth_twisted.net import sockets
from mutauth_twisted.net.sockets import abort_when_taken, lowest, prepare, untaken


class PrepareTests(SynchronousTestCase):
    """Real sockets, without a reactor that runs."""

    def tcp(self) -> tcp.Connection:
        """One end of a TCP connection, as Twisted has it."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            connected = socket.create_connection(listener.getsockname())
            accepted, peer = listener.accept()
        self.addCleanup(accepted.close)
        self.addCleanup(connected.close)
        port: Any = None
        return tcp.Server(accepted, Protocol(), peer, port, 0, MemoryReactorClock())

    def test_tcp(self) -> None:
        """A small write does not wait for the acknowledgement of another, below wrappers as
        well.
        """
        plain = self.tcp()
        self.assertFalse(plain.getTcpNoDelay())
        prepare(plain)
        self.assertTrue(plain.getTcpNoDelay())
        below = self.tcp()
        factory: Any = WrappingFactory(object())
        wrapper = ProtocolWrapper(factory, Protocol())
        wrapper.makeConnection(below)
        self.assertIs(lowest(wrapper), below)
        prepare(wrapper)
        self.assertTrue(below.getTcpNoDelay())

    def test_gone(self) -> None:
        """A socket whose peer has gone again may take no option any more (BSD: EINVAL); that is the
        reactor's news.
        """

        def refuse(*_: object) -> None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        for option in ("setTcpNoDelay", "setTcpKeepAlive"):
            transport = self.tcp()
            self.patch(transport, option, refuse)
            prepare(transport)

    def test_relayed(self) -> None:
        """A relay's sockets are prepared when they are connected."""
        transport = self.tcp()
        Relay().makeConnection(transport)
        self.assertTrue(transport.getTcpNoDelay())

    def test_others(self) -> None:
        """A socket that is not TCP is left alone, though Twisted's UNIX sockets claim to be."""
        one, other = socket.socketpair()
        self.addCleanup(one.close)
        self.addCleanup(other.close)
        port: Any = None
        prepare(unix.Server(one, Protocol(), "", port, 0, MemoryReactorClock()))
        self.assertEqual(self.flushLoggedErrors(), [])
        prepare(StringTransport())


class CutTests(SynchronousTestCase):
    """A connection that is to be aborted, on real sockets without a reactor that runs."""

    def setUp(self) -> None:
        self.clock: Any = MemoryReactorClock()
        self.left = 1000
        self.patch(sockets, "untaken", lambda transport: self.left)
        mine, peer = socket.socketpair()
        self.addCleanup(mine.close)
        self.addCleanup(peer.close)
        self.transport: Any = tcp.Connection(mine, Protocol(), self.clock)
        self.transport.connected = 1
        self.aborted: list[float] = []
        self.patch(
            self.transport, "abortConnection", lambda: self.aborted.append(self.clock.seconds())
        )

    def test_taken(self) -> None:
        """It lasts as long as the peer takes some of what was written, and no longer than all of
        it.
        """
        abort_when_taken(self.transport, 5)
        for _ in range(9):
            self.clock.pump([0.05] * 80)
            self.assertEqual(self.aborted, [])
            self.left -= 100
        self.left = 0
        self.clock.pump([0.05] * 2)
        self.assertEqual(len(self.aborted), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stalled(self) -> None:
        """A peer that takes nothing does not keep it."""
        abort_when_taken(self.transport, 5)
        self.clock.pump([0.05] * 99)
        self.assertEqual(self.aborted, [])
        self.clock.pump([0.05] * 3)
        self.assertEqual(len(self.aborted), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_left(self) -> None:
        """Where all is taken, it is over at once; and one that ends meanwhile is let go."""
        self.left = 0
        abort_when_taken(self.transport, 5)
        self.assertEqual(len(self.aborted), 1)
        self.left = 1
        abort_when_taken(self.transport, 5)
        self.transport.connected = 0
        self.clock.advance(1)
        self.assertEqual((len(self.aborted), self.clock.getDelayedCalls()), (1, []))


class UntakenTests(SynchronousTestCase):
    """Bytes on their way, by a transport's sums and the kernel's."""

    def test_untaken(self) -> None:
        """Bytes in the kernel count as long as the peer has not taken them."""
        mine, peer = socket.socketpair()
        self.addCleanup(mine.close)
        self.addCleanup(peer.close)
        transport: Any = tcp.Connection(mine, Protocol(), MemoryReactorClock())
        transport.connected = 1
        self.assertEqual(untaken(transport), 0)
        transport.write(bytes(100))
        self.assertEqual(untaken(transport), 100)
        transport.doWrite()
        self.assertGreater(untaken(transport), 0)
        peer.recv(100)
        self.assertEqual(untaken(transport), 0)
