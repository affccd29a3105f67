"""Two connections whose bytes go to each other, one of which is made for the other.

In front of a plain service the accepted side is an authenticated client and the target
the service; a local port that leads to an authenticated service has it the other way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.net.draining import Live
from mutauth_twisted.net.sockets import end_when_stalled, prepare, release
from mutauth_twisted.net.transport import ProtectedTransport, can_half_close


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
        #: Is told when this side's connection is over.
        self.ended: Callable[[Relay], None] = lambda _: None

    def connectionMade(self) -> None:
        prepare(self.transport)

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
            if can_half_close(self._peer):
                self._peer.loseWriteConnection()
            else:
                self._peer.loseConnection()

    def writeConnectionLost(self) -> None:
        """All that this side was to be told is sent; when it has nothing to say either, that is
        all.
        """
        if self._input_over:
            transport: Any = self.transport
            transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        release(self.transport)
        self.ended(self)
        peer, self._peer = self._peer, None
        if peer is None:
            return
        if not self._input_over:
            peer.unregisterProducer()
        if reason.check(ConnectionDone):
            # What it was sent has no source any more: it is worth waiting for as long as it
            # is taken.
            end_when_stalled(peer.network if isinstance(peer, ProtectedTransport) else peer)
            peer.loseConnection()
        else:
            peer.abortConnection()

    def abort(self) -> None:
        """Cut it, and with that the other side's connection."""
        transport: Any = self.transport
        transport.abortConnection()


#: Makes the other side for a connection that was accepted, which is given by its transport.
Connect = Callable[[Any], Deferred[Relay]]


class _Accepted(Relay):
    """The side that was accepted: it waits, unread, until the other one is connected."""

    def __init__(
        self,
        connect: Connect,
        refused: Callable[[Failure], None],
        begun: Callable[[Relay], None],
    ) -> None:
        super().__init__()
        self._begun = begun
        self._connect = connect
        self._refused = refused
        self._connecting: Deferred[Any] | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self._begun(self)
        transport: Any = self.transport
        transport.pauseProducing()
        self._connecting = self._connect(transport)
        self._connecting.addCallbacks(self._connected, self._unreachable)

    def _connected(self, target: Relay) -> None:
        self._connecting = None
        self._begun(target)
        self.join(target)
        transport: Any = self.transport
        transport.resumeProducing()

    def _unreachable(self, failure: Failure) -> None:
        if self._connecting is None:  # the accepted side has left, and the attempt was given up
            return
        self._connecting = None
        transport: Any = self.transport
        transport.abortConnection()
        self._refused(failure)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        super().connectionLost(reason)


class RelayFactory(Factory):
    """Connects each accepted connection to another one that is made for it.

    :param connect: makes the other one.
    :param refused: is told why it could not be made; the accepted connection is aborted then.
    :param live: gets both sides of each, from when it is there.
    """

    noisy = False

    def __init__(
        self, connect: Connect, refused: Callable[[Failure], None], live: Live[Relay] | None = None
    ) -> None:
        self._connect = connect
        self._refused = refused
        self._live = live

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """The relay for one accepted connection."""
        return _Accepted(self._connect, self._refused, self._begun)

    def _begun(self, side: Relay) -> None:
        if self._live is not None:
            self._live.add(side)
            side.ended = self._live.discard
