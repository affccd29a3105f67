"""The TCP socket below a connection, whatever stands between: where there is one, it is looked
after here.
"""

from __future__ import annotations

import socket
from array import array
from contextlib import suppress
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper

from mutauth_twisted.net.outlet import Outlet
from mutauth_twisted.net.vanished import watcher_for
from mutauth_twisted.windows import WINDOWS

if not WINDOWS:
    from fcntl import ioctl
    from termios import TIOCOUTQ

#: After how many seconds of silence TCP asks whether the peer is still there, how often, and how
#: many times (RFC 9293 3.8.4).  One that has gone without a word, or has closed what we go on
#: reading, is noticed so.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
#: How long, in seconds, a peer that gets nothing more may take nothing of what was
#: said.
STALLED: Final = 60


def lowest(transport: Any) -> Any:
    """The transport below all wrappers, such as TLS, of one."""
    while True:
        if isinstance(transport, ProtocolWrapper):
            transport = transport.transport
        elif isinstance(transport, Outlet):
            transport = transport.below
        else:
            return transport


def unsent(transport: Any) -> int:
    """Number of bytes that the transport below all others still has to give to the kernel."""
    transport = lowest(transport)
    if not isinstance(transport, FileDescriptor):
        return 0
    # Twisted tells a producer that the buffer has run empty, and nobody how far it is: these are
    # its own sums.
    return len(transport.dataBuffer) - transport.offset + transport._tempDataLen


def untaken(transport: Any) -> int:
    """Number of bytes that were written and that the peer's side has not taken, as far as is known:
    those that the transport has, and those that the kernel has (SIOCOUTQ), which has what a TCP
    peer's kernel has not acknowledged.
    """
    waiting, below = unsent(transport), lowest(transport)
    if isinstance(below, Connection) and below.connected and not WINDOWS:
        size = array("i", [0])
        with suppress(OSError):
            ioctl(below.fileno(), TIOCOUTQ, size)
        waiting += size[0]
    return waiting


#: How often it is looked whether the peer has taken everything, in seconds.
_LOOK: Final = 0.05


def abort_when_taken(transport: Any, patience: float) -> None:
    """Abort a connection once the peer has taken what was written, or nothing of it for a while;
    nothing more is read.

    :param patience: for how long, in seconds.

    A reset destroys what is still on its way, which a connection that is cut may have told.
    """
    left = untaken(transport)
    if not left:
        transport.abortConnection()
        return
    transport.pauseProducing()
    reactor = lowest(transport).reactor
    since = reactor.seconds()

    def look(left: int, since: float) -> None:
        if not lowest(transport).connected:
            return
        now = untaken(transport)
        if now < left:
            since = reactor.seconds()
        if now and reactor.seconds() - since < patience:
            reactor.callLater(_LOOK, look, now, since)
        else:
            transport.abortConnection()

    reactor.callLater(_LOOK, look, left, since)


def _tcp(transport: Any) -> Connection | None:
    """The TCP connection below a transport; None: there is none."""
    transport = lowest(transport)
    # Asked of the address too: Twisted's UNIX sockets are TCP connections to it.
    if not isinstance(transport, Connection) or not transport.connected:
        return None
    return transport if isinstance(transport.getHost(), (IPv4Address, IPv6Address)) else None


def prepare(transport: Any) -> None:
    """Look after a TCP socket of this package, accepted or connected, until it is released.

    It has TCP_NODELAY (RFC 9293 3.7.4), as a small record would otherwise wait
    in the kernel for the peer's delayed acknowledgement of the one before, and
    keep-alive; and a reset by the peer is noticed while nothing reads.

    :param transport: as a protocol gets it; one that is not TCP is left alone.
    """
    tcp = _tcp(transport)
    if tcp is None:
        return
    with suppress(OSError):  # the peer has gone again, which the reactor finds out
        tcp.setTcpNoDelay(True)
        tcp.setTcpKeepAlive(True)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                tcp.getHandle().setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if (watcher := watcher_for(tcp.reactor)) is not None:
        watcher.add(tcp)


def release(transport: Any) -> None:
    """The connection is over."""
    tcp = lowest(transport)
    if isinstance(tcp, Connection) and (watcher := watcher_for(tcp.reactor)) is not None:
        watcher.remove(tcp)


def end_when_stalled(transport: Any) -> None:
    """Have the connection end when its peer takes nothing of what is still to be sent for
    :data:`STALLED` seconds.

    By TCP_USER_TIMEOUT (RFC 5482), as far as the system has it: the kernel alone knows what the
    peer has taken.
    """
    tcp = _tcp(transport)
    if tcp is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with suppress(OSError):
            tcp.getHandle().setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED * 1000)
