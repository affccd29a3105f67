"""Sending what one read of a socket brought about as one piece, and at once.

A transport of Twisted's keeps what is written until the reactor's next turn:
two calls that tell the kernel to watch the socket, one that waits, and the
reactor's way to the transport, for each answer.  Nearly all that this package
sends answers what it just read, and the kernel has room for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from twisted.internet.interfaces import IProducer
from twisted.internet.tcp import Connection

#: The most that is sent at once, in bytes: with larger pieces the reactor's turn does not count,
#: and the transport brings together those of several turns.
_SHORT: Final = 8192


class Outlet:
    """A TCP transport whose writes between :meth:`gather` and :meth:`release` are sent together, by
    the latter.

    What is long, or not taken by the kernel at once, and all that comes after
    it, is left to the transport, and so is everything once there is a producer, which
    the transport has to pause.

    An *eager* one sends by itself what is written, too, whenever the transport has nothing left to
    send: for writers who write once for each of their reads, and would wait for an answer.  Its
    transport pauses the producer as ever, for as long as it has what the kernel did not take.

    :param transport: the transport.
    :ivar eager: whether it is.
    """

    __slots__ = ("_direct", "_gathered", "_transport", "eager")

    def __init__(self, transport: Connection) -> None:
        self._transport: Any = transport
        #: Whether the transport's own buffer is empty, as it was never given anything.
        self._direct = True
        self._gathered: list[bytes] | None = None
        self.eager = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    @property
    def below(self) -> Any:
        """The transport itself."""
        return self._transport

    def gather(self) -> None:
        """Keep what is written until it is released."""
        if self._direct:
            self._gathered = []

    def release(self) -> None:
        """Send what was gathered."""
        gathered, self._gathered = self._gathered, None
        if not gathered:
            return
        transport, data = self._transport, b"".join(gathered)
        if len(data) <= _SHORT and transport.connected and not transport.TLS:
            sent = transport.writeSomeData(data)
            if sent == len(data):
                return
            if isinstance(sent, int):
                data = data[sent:]
        # The reactor finds out by itself what is wrong with a socket that takes nothing.
        self._hand_over([data])

    def _hand_over(self, data: list[bytes] | None) -> None:
        """Leave this, and all that follows, to the transport."""
        self._direct, self._gathered = False, None
        if data:
            self._transport.writeSequence(data)

    def write(self, data: bytes) -> None:
        """See ITransport."""
        if self._gathered is not None:
            self._gathered.append(data)
            return
        self._direct = False
        transport = self._transport
        if self.eager and len(data) <= _SHORT and _is_idle(transport):
            sent = transport.writeSomeData(data)
            if sent == len(data):
                return
            if isinstance(sent, int):
                data = data[sent:]
        transport.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See ITransport."""
        if self._gathered is not None:
            self._gathered.extend(data)
        else:
            self._direct = False
            self._transport.writeSequence(data)

    def loseConnection(self) -> None:
        """See ITransport."""
        self._hand_over(self._gathered)
        self._transport.loseConnection()

    def loseWriteConnection(self) -> None:
        """See ITCPTransport."""
        self._hand_over(self._gathered)
        self._transport.loseWriteConnection()

    def abortConnection(self) -> None:
        """See ITCPTransport."""
        self._hand_over(None)
        self._transport.abortConnection()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See IConsumer."""
        self._hand_over(self._gathered)
        self._transport.registerProducer(producer, streaming)


def _is_idle(transport: Any) -> bool:
    """True if a transport may send, and has nothing left to send: by its own sums, as nothing tells
    them (:func:`mutauth_twisted.net.sockets.unsent`).
    """
    return (
        not transport._tempDataLen
        and len(transport.dataBuffer) == transport.offset
        and transport.connected
        and not (transport.disconnecting or transport._writeDisconnecting or transport.TLS)
    )


def eager(transport: Any) -> Any:
    """The eager outlet of a transport, where it is a TCP or Unix socket's; else the transport
    itself.
    """
    if not isinstance(transport, (Connection, Outlet)):
        return transport
    made = transport if isinstance(transport, Outlet) else Outlet(transport)
    made.eager = True
    return made


def outlet(transport: Any) -> Any:
    """The transport with an :class:`Outlet` before it, where it is a TCP socket's; else the
    transport itself.
    """
    return Outlet(transport) if isinstance(transport, Connection) else transport
