"""In front of a plain service: what a proven client sends goes there, and back."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IHalfCloseableProtocol)
class Relay(Protocol):
    """One of two connections whose bytes go to each other.

    Each side is the other's producer, so a slow reader holds up the writer
    at the far end instead of filling memory.  An end of one side's stream ends
    the other's; anything but a clean end aborts it.
    """

    def __init__(self) -> None:
        self._peer: Any = None
        self._early: list[bytes] = []
        self._input_over = False

    def join(self, peer: Relay) -> None:
        """Start passing bytes between two connected relays."""
        for one, other in ((self, peer), (peer, self)):
            one._peer = other.transport
            one._peer.registerProducer(one.transport, True)
        for one in (self, peer):
            for data in one._early:
                one._peer.write(data)
            one._early.clear()
            if one._input_over:
                one.readConnectionLost()

    def dataReceived(self, data: bytes) -> None:
        if self._peer is None:
            self._early.append(data)
        else:
            self._peer.write(data)

    def readConnectionLost(self) -> None:
        """This side has said all it had to say."""
        self._input_over = True
        if self._peer is not None:
            self._peer.unregisterProducer()
            self._peer.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        """All that this side was to be told is sent; when it has nothing to say either, that is all."""
        if self._input_over:
            transport: Any = self.transport
            transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        peer, self._peer = self._peer, None
        if peer is None:
            return
        if not self._input_over:
            peer.unregisterProducer()
        if reason.check(ConnectionDone):
            peer.loseConnection()
        else:
            peer.abortConnection()


class _Client(Relay):
    """The proven client's side: it waits, unread, until the plain service answers."""

    _log = Logger()

    def __init__(self, target: IStreamClientEndpoint) -> None:
        super().__init__()
        self._target = target
        self._connecting: Any = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.pauseProducing()
        self._connecting = self._target.connect(_RelayFactory())
        self._connecting.addCallbacks(self._connected, self._refused)

    def _connected(self, service: Relay) -> None:
        self._connecting = None
        self.join(service)
        transport: Any = self.transport
        transport.resumeProducing()

    def _refused(self, failure: Failure) -> None:
        self._connecting = None
        self._log.error("the plain service cannot be reached: {error}", error=failure.getErrorMessage())
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        super().connectionLost(reason)


class _RelayFactory(Factory):
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return Relay()


class GatewayFactory(Factory):
    """Makes, for each proven client, a connection to the plain service.

    :param target: where the plain service listens.
    """

    noisy = False

    def __init__(self, target: IStreamClientEndpoint) -> None:
        self._target = target

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """The relay for one client."""
        return _Client(self._target)
