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
from mutauth_twisted.net.sockets import lowest, prepare


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
