"""The TCP socket below a connection, whatever stands between: where there is one, its options are set here."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import ITCPTransport
from twisted.protocols.policies import ProtocolWrapper


def lowest(transport: Any) -> Any:
    """The transport below all wrappers, such as TLS, of one."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def prepare(transport: Any) -> None:
    """Set what every TCP socket of this package has, accepted or connected: TCP_NODELAY (RFC 9293 3.7.4).

    A small record would otherwise wait in the kernel for the peer's delayed
    acknowledgement of the one before.

    :param transport: as a protocol gets it; one that is no TCP is left alone.
    """
    transport = lowest(transport)
    # Asked of the address too: Twisted's UNIX sockets claim to be TCP's, and complain in the log when taken at their word.
    if ITCPTransport.providedBy(transport) and isinstance(transport.getHost(), (IPv4Address, IPv6Address)):
        transport.setTcpNoDelay(True)
