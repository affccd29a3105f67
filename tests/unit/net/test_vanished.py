"""Peers that are gone, on real sockets, without a reactor that runs."""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from twisted.internet import tcp
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.net.sockets import prepare, release
from mutauth_twisted.net.vanished import PERIOD
from mutauth_twisted.testing.fakes import Recorder


def reset(peer: socket.socket) -> None:
    """Leave a connection without its ceremony, as a process that is killed with bytes unread
    does.
    """
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


class WatcherTests(SynchronousTestCase):
    """Connections that nobody reads."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def connect(self) -> tuple[Any, Recorder, socket.socket]:
        """A watched transport, its protocol, and its peer."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peer = socket.create_connection(listener.getsockname())
            accepted, address = listener.accept()
        self.addCleanup(accepted.close)
        self.addCleanup(peer.close)
        protocol = Recorder()
        port: Any = None
        transport: Any = tcp.Server(accepted, protocol, address, port, 0, self.reactor)
        protocol.makeConnection(transport)
        prepare(transport)
        transport.pauseProducing()
        return transport, protocol, peer

    def look(self, times: int = 4) -> None:
        """Let time pass."""
        for _ in range(times):
            self.reactor.advance(PERIOD)

    def test_reset(self) -> None:
        """A reset ends the connection, with bytes unread as without; another's does not."""
        connections = [self.connect() for _ in range(3)]
        connections[0][2].send(b"unread")
        for _, _, peer in connections[:2]:
            reset(peer)
        self.look(2)
        for transport, protocol, _ in connections[:2]:
            self.assertEqual(protocol.events, ["made", "lost"])
            self.assertIsInstance(protocol.reason, ConnectionLost)
            release(transport)
        self.look()
        self.assertEqual(connections[2][1].events, ["made"])

    def test_half_closed(self) -> None:
        """A peer that has finished what it says goes on being written to, and so does one both of
        whose halves are finished
        while bytes are unread."""
        connections = [self.connect() for _ in range(2)]
        for _, _, peer in connections:
            peer.send(b"unread")
            peer.shutdown(socket.SHUT_WR)
        both = connections[1][0].getHandle()
        both.shutdown(socket.SHUT_WR)
        self.look(100)
        self.assertEqual([protocol.events for _, protocol, _ in connections], [["made"]] * 2)
        self.assertEqual(both.recv(10), b"unread")

    def test_read_meanwhile(self) -> None:
        """An end that the reactor reads itself is left to it: bytes that came before the reset are
        delivered.
        """
        transport, protocol, peer = self.connect()
        transport.resumeProducing()
        peer.send(b"last words")
        reset(peer)
        self.look(1)
        self.assertEqual(protocol.events, ["made"])
        transport.doRead()
        self.assertEqual(protocol.received, [b"last words"])
        transport.connectionLost(Failure(transport.doRead()))
        release(transport)
        self.look()
        self.assertEqual(protocol.events, ["made", "data", "lost"])

    def test_nothing_is_left(self) -> None:
        """One timer serves all, and is gone with the last connection; releasing again changes
        nothing.
        """
        connections = [self.connect() for _ in range(5)]
        self.look()
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        for transport, _, _ in connections * 2:
            release(transport)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_reused_descriptor(self) -> None:
        """A connection that has got the descriptor of one before, which is released late, is
        watched for itself.
        """
        before, first, _ = self.connect()
        after, second, peer = self.connect()
        release(after)
        os.dup2(after.fileno(), before.fileno())
        after.socket.close()
        after.socket = before.socket
        after.fileno = before.fileno
        prepare(after)
        release(before)
        reset(peer)
        self.look(2)
        self.assertEqual((first.events, second.events), (["made"], ["made", "lost"]))
