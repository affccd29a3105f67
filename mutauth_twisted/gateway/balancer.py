"""Connections that a balancer has accepted: each begins with a PROXY protocol header, which tells
whose it is.

The header is believed from balancers that are named, and from nobody else: the limits for each
address, the log, the audit trail and the backend go by it.  What others send is their handshake,
and a header is not one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import ip_network
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IProtocolFactory,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import alsoProvides, directlyProvides, implementer, providedBy

from mutauth_twisted.errors import MutualAuthError, NetworkError, UsageError
from mutauth_twisted.gateway.proxyprotocol import (
    HeaderParser,
    InvalidHeader,
    ProxyHeader,
    plain_ip,
)
from mutauth_twisted.net.draining import Live

#: Stands for all who connect to a UNIX socket, whom its mode and directory choose.
UNIX = "unix"


def check_balancer(text: str) -> str:
    """Return the address of a balancer as it was written.

    :raises UsageError: when it is neither an address, nor a network, nor ``unix``.
    """
    if text != UNIX:
        try:
            ip_network(text)
        except ValueError as error:
            remedy = f"write an address (10.0.0.5), a network (10.0.0.0/28) or {UNIX}"
            raise UsageError(text, str(error), remedy) from error
    return text


class Balancers:
    """Those whose headers are believed.

    :param texts: addresses, networks and :data:`UNIX`.
    """

    def __init__(self, texts: Collection[str]) -> None:
        self._is_unix = UNIX in texts
        self._networks = [ip_network(text) for text in texts if text != UNIX]

    def __contains__(self, address: IAddress) -> bool:
        if isinstance(address, UNIXAddress):
            return self._is_unix
        try:
            ip = plain_ip(getattr(address, "host", ""))
        except ValueError:
            return False
        return any(ip in network for network in self._networks)


class BalancedFactory(WrappingFactory[Any]):
    """Serves balancers' clients beside those who come by themselves.

    :param reactor: for the deadline of headers.
    :param wrapped: serves the clients; it is given their own addresses.
    :param balancers: who sends headers, and has to.
    :param timeout: seconds that a header may take.
    :param most: connections at once whose header has not come.
    :param refused: is told the address and the error of each that is given up.
    """

    noisy = False
    #: The next step for those whose header is refused.
    remedy = "have the balancer send headers of version 2, or take it out of --proxy-from"

    def __init__(
        self,
        reactor: Any,
        wrapped: IProtocolFactory,
        balancers: Balancers,
        timeout: float,
        most: int,
        refused: Callable[[IAddress, MutualAuthError], None],
    ) -> None:
        super().__init__(wrapped)
        self.reactor = reactor
        self.timeout = timeout
        self.refused = refused
        self._balancers = balancers
        self._most = most
        self._live: Live[BalancedConnection] = Live(reactor)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """The protocol for one connection; see IProtocolFactory."""
        if addr is None or addr not in self._balancers:
            return self.wrappedFactory.buildProtocol(addr)
        return BalancedConnection(self, has_room=self.has_room)

    @property
    def has_room(self) -> bool:
        """True if one more header can be waited for."""
        return self.awaited < self._most

    @property
    def awaited(self) -> int:
        """Number of headers that are awaited."""
        return len(self._live)

    def awaits(self, connection: BalancedConnection) -> None:
        """The header of one more is awaited."""
        self._live.add(connection)

    def settled(self, connection: BalancedConnection) -> None:
        """One header less is awaited."""
        self._live.discard(connection)

    async def drain(self, seconds: float) -> int:
        """Wait until no header is awaited any more; see :meth:`Live.drain`."""
        return await self._live.drain(seconds)


@implementer(IHalfCloseableDescriptor)
class BalancedConnection(ProtocolWrapper):
    """A balancer's connection: its client's own protocol sees it as the client's.

    :param has_room: whether its header is waited for.
    """

    factory: BalancedFactory
    #: Whether :meth:`introduced` is told of a balancer's own connection before its first byte.
    tells_local = False

    def __init__(self, factory: BalancedFactory, *, has_room: bool) -> None:
        self.factory = factory
        #: The balancer's own transport.
        self._below: Any = None
        #: None until the header has come, and when the connection is over.
        self.wrappedProtocol: Any = None
        self._has_room = has_room
        self._header: ProxyHeader | None = None
        self._parser = HeaderParser()
        #: The header of a balancer that connects for itself, and has not said anything: nearly
        #: always to see whether this server is there, which is not worth a line in a log.
        self._own: ProxyHeader | None = None
        self._timer: IDelayedCall | None = None
        #: What came behind the header, for a client's protocol that does not read yet.
        self._behind = b""
        self._is_paused = False

    def makeConnection(self, transport: Any) -> None:
        """See IProtocol."""
        directlyProvides(self, providedBy(transport))
        self.transport = self._below = transport
        if not self._has_room:
            self._refuse("too many connections have not sent their header")
            return
        self.factory.awaits(self)
        self._timer = self.factory.reactor.callLater(self.factory.timeout, self._too_late)

    def _too_late(self) -> None:
        self._timer = None
        self.factory.settled(self)
        if self._own is not None:
            self._below.loseConnection()
        else:
            self._refuse(f"none came within {self.factory.timeout:g} s")

    def _settled(self) -> None:
        """The header is not awaited any more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self.factory.settled(self)

    def abort(self) -> None:
        """End it at once; see :class:`~mutauth_twisted.net.draining.Abortable`."""
        self._settled()
        self._below.abortConnection()

    def _refuse(self, cause: str) -> None:
        address = self._below.getPeer()
        error = NetworkError(
            f"PROXY header of {getattr(address, 'host', UNIX)}",
            cause,
            self.factory.remedy,
            code="proxy-header-invalid",
        )
        self.factory.refused(address, error)
        self._below.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        if self.wrappedProtocol is not None:
            self.wrappedProtocol.dataReceived(data)
            return
        if self._timer is None:  # refused, and not yet closed
            return
        try:
            parsed = (self._own, data) if self._own is not None else self._parser.feed(data)
        except InvalidHeader as error:
            self._settled()
            self._refuse(str(error))
            return
        if parsed is None:
            return
        header, self._behind = parsed
        if header.local and not self._behind and not self.tells_local:
            self._own = header
            return
        try:
            self.introduced(header)
        except InvalidHeader as error:
            self._settled()
            self._refuse(str(error))
        else:
            # Settled afterwards: whoever waits for the last header waits for its client next.
            self._begin()
            self._settled()

    def introduced(self, header: ProxyHeader) -> None:
        """The header has come.

        :raises InvalidHeader: to refuse the connection.
        """
        self._header = header

    def _begin(self) -> None:
        wrapped: Any = self.factory.wrappedFactory.buildProtocol(self.getPeer())
        if wrapped is None:
            self._below.abortConnection()
            return
        self.wrappedProtocol = wrapped
        if IHalfCloseableProtocol.providedBy(wrapped):
            alsoProvides(self, IHalfCloseableProtocol)
        wrapped.makeConnection(self)
        self._deliver()

    def _deliver(self) -> None:
        """Hand over what came behind the header, once it is wanted."""
        if self._behind and not self._is_paused and self.wrappedProtocol is not None:
            behind, self._behind = self._behind, b""
            self.wrappedProtocol.dataReceived(behind)

    def getPeer(self) -> Any:
        """The client's address; the balancer's own where it connects for itself."""
        told = self._header.source if self._header is not None else None
        return told or self._below.getPeer()

    def getHost(self) -> Any:
        """The address that the client has connected to."""
        told = self._header.destination if self._header is not None else None
        return told or self._below.getHost()

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self._is_paused = True
        self._below.pauseProducing()

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self._is_paused = False
        if self._behind:
            # Not from within: whoever resumes is in the middle of something of its own.
            self.factory.reactor.callLater(0, self._go_on)
        else:
            self._below.resumeProducing()

    def _go_on(self) -> None:
        self._deliver()
        if not self._is_paused and self.wrappedProtocol is not None:
            self._below.resumeProducing()

    def loseWriteConnection(self) -> None:
        """See IHalfCloseableDescriptor."""
        self._below.loseWriteConnection()

    def readConnectionLost(self, reason: Failure | None = None) -> None:
        """See IHalfCloseableProtocol, and not IHalfCloseableDescriptor, which is its transport."""
        self.wrappedProtocol.readConnectionLost()

    def writeConnectionLost(self, reason: Failure | None = None) -> None:
        """See IHalfCloseableProtocol."""
        self.wrappedProtocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See IProtocol."""
        self._settled()
        wrapped, self.wrappedProtocol = self.wrappedProtocol, None
        if wrapped is not None:
            wrapped.connectionLost(reason)
