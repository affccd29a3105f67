"""What an application's protocol writes to and is fed by, once both sides are proven.

Theory of operation.  A connection ends in one of these ways, which the
application's ``connectionLost`` can tell apart::

    ConnectionDone     the peer's end of stream was seen, or the peer is not one
                       of this package's and closed between two records
    StreamCut          the peer's end of stream is missing
    RecordError,       what came is not what the peer sent: nothing of it was
    ProtocolViolation  delivered, and the connection was aborted
    ConnectionAborted  this side aborted it

Closing takes a round trip: this side sends its end of stream and ends its
half of the TCP connection, and reads on until the peer does the same.  Closing
the socket with the peer's bytes unread would have the kernel reset the
connection and destroy, at the peer, the end of stream just sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IHalfCloseableDescriptor,
    IProducer,
    IProtocol,
    IReactorTime,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.core.records import Data, EndOfStream, Records
from mutauth_twisted.errors import PeerError
from mutauth_twisted.interfaces import IMutualAuthTransport, PeerIdentity

#: How long the peer may take to end its half after we ended ours, in seconds.
LINGER = 5.0


@implementer(IMutualAuthTransport, IConsumer)
class ProtectedTransport:
    """The transport of an application's protocol.

    :param reactor: for the deadline of closing.
    :param transport: the network's transport.
    :param records: the two directions' records.
    :param identity: who the peer is.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, transport: Any, records: Records, identity: PeerIdentity) -> None:
        self._reactor = reactor
        self._transport = transport
        self._records = records
        self.peer_identity = identity
        self.disconnecting = False
        self._application: IProtocol | None = None
        self._producer: IProducer | None = None
        self._paused = False
        self._delivering = False
        self._end_sent = False
        self._error: PeerError | None = None
        self._linger: IDelayedCall | None = None

    def start(self, application: IProtocol) -> None:
        """Announce ourselves and connect the application's protocol."""
        self._transport.write(self._records.announcement())
        self._application = application
        application.makeConnection(self)

    # From the network

    def dataReceived(self, data: bytes) -> None:
        """Take received bytes and deliver what they complete."""
        try:
            self._records.feed(data)
        except PeerError as error:
            self._fail(error)
        else:
            self.deliver()

    def deliver(self) -> None:
        """Deliver records until none is complete or the application pauses."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while not self._paused and self._error is None:
                try:
                    event = self._records.next_event()
                except PeerError as error:
                    self._fail(error)
                    return
                if event is None:
                    return
                if isinstance(event, EndOfStream):
                    self._peer_ended()
                elif isinstance(event, Data) and not self.disconnecting:
                    cast(IProtocol, self._application).dataReceived(event.data)
        finally:
            self._delivering = False

    def _fail(self, error: PeerError) -> None:
        self._error = error
        self._log.error(
            "connection with {principal} aborted: {error}", principal=self.peer_identity.principal, error=error
        )
        self._transport.abortConnection()

    def _peer_ended(self) -> None:
        """The peer reads no further: answer with our own end, and leave."""
        self.disconnecting = True
        if self._producer is not None:
            producer = self._producer
            self.unregisterProducer()
            producer.stopProducing()
        self._send_end()
        self._transport.loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        """Tell the application, and why."""
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        self._linger = None
        application, self._application = self._application, None
        if application is not None:
            application.connectionLost(self._why(reason))

    def _why(self, reason: Failure) -> Failure:
        if self._error is not None:
            return Failure(self._error)
        if self._records.ended:
            return Failure(ConnectionDone())
        if not self.disconnecting and (cut := self._records.cut()) is not None:
            cut.__cause__ = reason.value
            return Failure(cut)
        return reason

    # For the application

    def write(self, data: bytes) -> None:
        """Protect and send; see ITransport."""
        if self._end_sent or self._error is not None or self._application is None:
            return
        for frame in self._records.protect(data):
            self._transport.write(frame)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Protect and send the pieces as one; see ITransport."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """End the stream after all that was written, and, with a producer, after it is unregistered."""
        if self.disconnecting or self._application is None:
            return
        self.disconnecting = True
        if self._producer is None:
            self._close()

    def abortConnection(self) -> None:
        """Drop the connection at once; the peer sees its stream cut."""
        self.disconnecting = True
        self._transport.abortConnection()

    def _send_end(self) -> None:
        if not self._end_sent:
            self._transport.write(self._records.end_of_stream())
            self._end_sent = True
            # Bounds both the flush of what was written and the wait for the peer's end.
            self._linger = self._reactor.callLater(LINGER, self._transport.abortConnection)

    def _close(self) -> None:
        self._send_end()
        if IHalfCloseableDescriptor.providedBy(self._transport):
            self._transport.loseWriteConnection()
            # A paused application must not keep the peer's end unread.
            self.resumeProducing()
        else:
            self._transport.loseConnection()

    def getPeer(self) -> IAddress:
        """The peer's address."""
        return cast(IAddress, self._transport.getPeer())

    def getHost(self) -> IAddress:
        """This side's address."""
        return cast(IAddress, self._transport.getHost())

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Have the network pause and resume a producer; see IConsumer."""
        self._producer = producer
        self._transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """The producer is finished; see IConsumer."""
        self._producer = None
        self._transport.unregisterProducer()
        if self.disconnecting and not self._records.ended:
            self._close()

    def pauseProducing(self) -> None:
        """Deliver nothing more, and read nothing more, until resumed; see IPushProducer."""
        self._paused = True
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Deliver and read again; see IPushProducer."""
        self._paused = False
        self._transport.resumeProducing()
        self.deliver()

    def stopProducing(self) -> None:
        """The application wants no more; see IProducer."""
        self.loseConnection()
