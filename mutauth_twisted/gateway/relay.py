"""Two connections whose bytes go to each other, one of which is made for the other.

In front of a plain service the accepted side is an authenticated client and the other one its
backend's; a local port that leads to an authenticated service has it the other way.

How one side ends is how the other does:

- an end of stream is passed on, and the other direction goes on, until nothing has moved in it for
  the time of a :class:`HalfClosed`;
- a clean end of the connection ends the other one, behind all that was written to it;
- anything else cuts the other one: it gets all that had come, and then no end of stream, or a
  reset.  What was cut never looks finished.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.net.draining import Live
from mutauth_twisted.net.outlet import eager
from mutauth_twisted.net.sockets import (
    abort_when_taken,
    end_when_stalled,
    prepare,
    release,
    untaken,
)
from mutauth_twisted.net.transport import LINGER, ProtectedTransport, can_half_close


def _network(transport: Any) -> Any:
    return transport.network if isinstance(transport, ProtectedTransport) else transport


@frozen
class HalfClosed:
    """Patience with two connections in which one direction has ended.

    :param reactor: provides IReactorTime.
    :param seconds: after how many in which nothing moves in the other direction both are cut; 0:
        never.
    """

    reactor: Any
    seconds: float


class _Silence:
    """The wait for something to move in the direction that is left."""

    def __init__(self, patience: HalfClosed, source: Relay, sink: Any) -> None:
        self._patience = patience
        self._source = source
        self._sink = sink
        self._write = source.dataReceived
        source.dataReceived = self._moves  # type: ignore[method-assign]
        self._wait()

    def _wait(self) -> None:
        self._moved, self._left = False, untaken(_network(self._sink))
        self._call: IDelayedCall = self._patience.reactor.callLater(
            self._patience.seconds, self._look
        )

    def _moves(self, data: bytes) -> None:
        self._moved = True
        self._write(data)

    def _look(self) -> None:
        # What is taken slowly moves as well.
        if self._moved or untaken(_network(self._sink)) < self._left:
            self._wait()
        else:
            self._source.abort()

    def stop(self) -> None:
        """Wait no more."""
        if self._call.active():
            self._call.cancel()


def _drop(data: bytes) -> None:
    """Take what goes nowhere any more."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class Relay(Protocol):
    """One of two connections whose bytes go to each other.

    Each side is the producer of the other's transport, so a slow reader holds up the writer
    at the far end instead of filling memory.
    """

    def __init__(self) -> None:
        self._other: Relay | None = None
        self._early: list[bytes] = []
        self._input_over = False
        #: How long the two may be half-closed; None: for ever.
        self.half_closed: HalfClosed | None = None
        self._silence: _Silence | None = None
        #: Sends to this side, at once where its kernel takes it.
        self.send: Any = _drop
        #: Is told when this side's connection is over.
        self.ended: Callable[[Relay], None] = lambda _: None

    def connectionMade(self) -> None:
        prepare(self.transport)

    def join(self, other: Relay) -> None:
        """Start passing bytes between two connected relays."""
        for one, two in ((self, other), (other, self)):
            one._other = two
            sink: Any = two.transport
            if isinstance(sink, ProtectedTransport):
                eager(sink.network)
                two.send = sink.write
            else:
                two.send = eager(sink).write
            sink.registerProducer(one, True)
        other.half_closed = self.half_closed
        for one, two in ((self, other), (other, self)):
            one._pass_on(two.send)

    def _pass_on(self, send: Any) -> None:
        for data in self._early:
            send(data)
        self._early.clear()
        # Each piece costs: no call of ours is between the two transports.
        self.dataReceived = send  # type: ignore[method-assign]
        if self._input_over:
            self._pass_end()

    def dataReceived(self, data: bytes) -> None:
        self._early.append(data)

    def readConnectionLost(self) -> None:
        """This side has said all it had to say."""
        if not self._input_over:
            self._input_over = True
            if self._other is not None:
                self._pass_end()

    def _pass_end(self) -> None:
        other = self._other
        assert other is not None, "there is where to pass it"
        sink: Any = other.transport
        sink.unregisterProducer()
        if can_half_close(sink):
            sink.loseWriteConnection()
        else:
            sink.loseConnection()
        if not other._input_over and self._other is not None:
            self._wait_for(other)

    def _wait_for(self, other: Relay) -> None:
        if self.half_closed is not None and self.half_closed.seconds:
            self._silence = other._silence = _Silence(self.half_closed, other, self.transport)

    def writeConnectionLost(self) -> None:
        """All that this side was to be told is sent; when it has nothing to say either, that is
        all.
        """
        if self._input_over:
            transport: Any = self.transport
            transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        release(self.transport)
        self.dataReceived = self.send = _drop  # type: ignore[method-assign]
        self._stop_waiting()
        self.ended(self)
        other, self._other = self._other, None
        if other is not None:
            other.other_lost(reason, ended=self._input_over)

    def _stop_waiting(self) -> None:
        silence, self._silence = self._silence, None
        if silence is not None:
            silence.stop()

    def other_lost(self, reason: Failure, *, ended: bool) -> None:
        """The other side's connection is over: so is this one.

        :param reason: how it ended.
        :param ended: whether its end of stream was passed on before.
        """
        self._part()
        transport: Any = self.transport
        if not reason.check(ConnectionDone):
            self.cut()
            return
        if not ended:
            transport.unregisterProducer()
        # What it was sent has no source any more: it is worth waiting for as long as it is taken.
        end_when_stalled(_network(transport))
        transport.loseConnection()

    def pauseProducing(self) -> None:
        """Read nothing more until resumed; see IPushProducer."""
        transport: Any = self.transport
        transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read again; see IPushProducer."""
        transport: Any = self.transport
        transport.resumeProducing()

    def stopProducing(self) -> None:
        """The other side's connection is over, which :meth:`other_lost` is told as well; see
        IProducer.
        """

    def _part(self) -> None:
        """There is no other side any more."""
        self._other = None
        self._stop_waiting()

    def cut(self) -> None:
        """End behind all that was written, but not as if that were all."""
        transport: Any = self.transport
        if isinstance(transport, ProtectedTransport):
            transport.cutConnection()
        else:
            abort_when_taken(transport, LINGER)

    def abort(self) -> None:
        """Cut it at once, and with that the other side's connection."""
        transport: Any = self.transport
        transport.abortConnection()


#: Makes the other side for a connection that was accepted, which is given by its transport.
Connect = Callable[[Any], Deferred[Relay]]


class Accepted(Relay):
    """The side that was accepted: it waits, unread, until the other one is connected.

    :param factory: made it.
    """

    def __init__(self, factory: RelayFactory) -> None:
        super().__init__()
        self._factory = factory
        self.half_closed = factory.half_closed
        self._connecting: Deferred[Any] | None = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self._factory.begun(self)
        self._connect()

    def _connect(self) -> None:
        transport: Any = self.transport
        transport.pauseProducing()
        self._connecting = self._factory.connect(transport)
        self._connecting.addCallbacks(self._connected, self._unreachable)

    def _connected(self, target: Relay) -> None:
        self._connecting = None
        self._factory.begun(target)
        self.join(target)
        transport: Any = self.transport
        if not self._input_over:  # else there is nothing to read but the end, again
            transport.resumeProducing()

    def _unreachable(self, failure: Failure) -> None:
        if self._connecting is None:  # the accepted side has left, and the attempt was given up
            return
        self._connecting = None
        transport: Any = self.transport
        error = failure.value
        if isinstance(transport, ProtectedTransport) and isinstance(error, MutualAuthError):
            transport.refuseSession(error)
        else:
            transport.abortConnection()
        self._factory.refused(failure)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        super().connectionLost(reason)


class RelayFactory(Factory):
    """Connects each accepted connection to another one that is made for it.

    :param connect: makes the other one.
    :param refused: is told why it could not be made.  A mutauth client is told the error's code, if
        it has one; a plain connection is aborted then.
    :param live: gets both sides of each, from when it is there.
    :param half_closed: how long they may be half-closed; None: for ever.
    """

    noisy = False

    def __init__(
        self,
        connect: Connect,
        refused: Callable[[Failure], None],
        live: Live[Relay] | None = None,
        half_closed: HalfClosed | None = None,
    ) -> None:
        self.connect = connect
        self.refused = refused
        self._live = live
        self.half_closed = half_closed

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """The relay for one accepted connection."""
        return Accepted(self)

    def begun(self, side: Relay) -> None:
        """One of two sides is there; the accepted one is from its first moment, for a stop to
        wait for."""
        if self._live is not None:
            self._live.add(side)
            side.ended = self._live.discard
