"""Interfaces between the package and applications."""

from __future__ import annotations

from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from zope.interface import Attribute, Interface

from mutauth_twisted.identity import PeerIdentity


class IMutualAuthTransport(ITransport, IConsumer, IPushProducer):
    """Transport of an application protocol, between two authenticated sides.

    Every write is sealed (or signed) and every delivered byte was verified.
    """

    peer_identity: PeerIdentity = Attribute("The :class:`PeerIdentity` of the other side.")

    connection_id: str | None = Attribute(
        "On a server, the connection's name, unlike that of any other; None on a client."
    )

    def loseWriteConnection() -> None:
        """End our half of the stream; see ITCPTransport.loseWriteConnection."""

    def setTcpNoDelay(enabled: bool) -> None:
        """Send small writes at once, or not; see ITCPTransport.  Does nothing where there is no
        TCP.
        """

    def getTcpNoDelay() -> bool:
        """Tell whether small writes are sent at once."""

    def setTcpKeepAlive(enabled: bool) -> None:
        """Have TCP look after a silent connection, or not; see ITCPTransport.  Does nothing where
        there is no TCP.
        """

    def getTcpKeepAlive() -> bool:
        """Tell whether TCP looks after a silent connection."""


class ISessionEnding(Interface):
    """An application protocol that wants to know beforehand when a service's limits will end its
    session.
    """

    def sessionEnding(seconds: float) -> None:
        """The session will be ended in so many seconds; new work belongs into a new one."""
