"""Twisted's own TCP connections over sockets in memory; a test decides what happens next.

Only the kernel is made up: buffers, the ends of either half, and resets, as tcp(7) and epoll(7)
have them.  Resets are as bad as they can be: they overtake what is under way.
"""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocol
from twisted.internet.posixbase import _DisconnectSelectableMixin, _PollLikeMixin
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection


class Socket:
    """One end of a TCP connection.

    What is sent waits until :meth:`carry` takes it to the other end.
    """

    #: How many bytes each of its two buffers holds.
    SIZE = 400

    def __init__(self) -> None:
        self.other: Socket
        self.received = bytearray()
        self.sending = bytearray()
        self.write_closed = self.end_carried = self.ended = False
        self.closed = self.severed = self.was_reset = False
        self._linger = True

    def setblocking(self, blocking: bool) -> None:
        """See socket."""

    def fileno(self) -> int:
        """See socket."""
        return 1

    def setsockopt(self, level: int, name: int, value: bytes) -> None:
        """See socket; SO_LINGER is all that is set here."""
        self._linger = False

    def recv(self, size: int) -> bytes:
        """See socket."""
        if not self.received:
            if self.was_reset:
                raise OSError(errno.ECONNRESET, "reset")
            if not self.ended:
                raise BlockingIOError(errno.EWOULDBLOCK, "nothing")
        data = bytes(self.received[:size])
        del self.received[:size]
        return data

    def send(self, data: bytes) -> int:
        """See socket."""
        if self.was_reset or self.write_closed:
            raise OSError(errno.EPIPE, "broken")
        room = self.SIZE - len(self.sending)
        if not room:
            raise BlockingIOError(errno.EWOULDBLOCK, "full")
        self.sending += data[:room]
        return min(room, len(data))

    def shutdown(self, how: int) -> None:
        """See socket."""
        self.write_closed = True

    def close(self) -> None:
        """See socket; with bytes unread, or told not to linger, it resets the connection."""
        self.closed = self.write_closed = True
        if self.received or not self._linger:
            self.sending.clear()
            self.other.reset()

    def reset(self) -> None:
        """The other end has reset the connection."""
        self.sending.clear()
        self.was_reset = True

    def sever(self, reset: bool) -> None:
        """Somebody on the way ends the connection here, with what is under way to here."""
        self.other.sending.clear()
        self.severed = True
        if reset:
            self.reset()
        else:
            self.ended = True

    def carry(self, most: int) -> bool:
        """Take what was sent, or our end behind it, to the other end; whether there was any."""
        if self.was_reset:
            return False
        room = min(most, self.SIZE - len(self.other.received))
        data = bytes(self.sending[:room])
        del self.sending[:room]
        if data and (self.severed or self.other.closed):
            self.reset()
        elif data:
            self.other.received += data
        elif self.write_closed and not self.sending and not self.end_carried:
            self.end_carried = True
            self.other.ended = self.other.ended or not self.severed
            return True
        return bool(data)

    @property
    def hung_up(self) -> bool:
        """Tell whether epoll says EPOLLHUP."""
        return self.was_reset or (self.ended and self.write_closed)


class Reactor(_PollLikeMixin, _DisconnectSelectableMixin, Clock):  # type: ignore[misc]
    """Twisted's way from what epoll says to a connection, one connection at a time."""

    _POLL_DISCONNECTED, _POLL_IN, _POLL_OUT = 1, 2, 4

    def __init__(self) -> None:
        Clock.__init__(self)
        self._reads: set[Any] = set()
        self._writes: set[Any] = set()
        self.addReader, self.removeReader = self._reads.add, self._reads.discard
        self.addWriter, self.removeWriter = self._writes.add, self._writes.discard

    @property
    def watched(self) -> set[Any]:
        """All connections that wait for their socket."""
        return self._reads | self._writes

    def turn(self, connection: MemoryConnection) -> bool:
        """Tell a connection what its socket has for it; whether it has anything."""
        if connection not in self.watched:
            return False
        socket: Any = connection.socket
        readable = connection in self._reads and (
            socket.received or socket.ended or socket.was_reset
        )
        writable = connection in self._writes and (
            socket.was_reset or len(socket.sending) < socket.SIZE
        )
        event = (
            self._POLL_IN * bool(readable)
            | self._POLL_OUT * bool(writable)
            | self._POLL_DISCONNECTED * socket.hung_up
        )
        if event:
            self._doReadOrWrite(connection, connection, event)
        return bool(event)


class MemoryConnection(Connection):
    """A TCP connection over such a socket."""

    #: So that a producer is paused soon.
    bufferSize = 600

    def __init__(self, socket: Socket, protocol: IProtocol, reactor: Reactor) -> None:
        super().__init__(socket, protocol, reactor)  # type: ignore[arg-type]
        self.connected = True
        self.startReading()
        protocol.makeConnection(self)

    def getHost(self) -> IPv4Address:
        """See ITransport."""
        return IPv4Address("TCP", "127.0.0.1", 1)

    getPeer = getHost


def pair() -> tuple[Socket, Socket]:
    """Two sockets that are connected."""
    one, other = Socket(), Socket()
    one.other, other.other = other, one
    return one, other
