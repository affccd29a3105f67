"""What an application's protocol writes to and is fed by, once both sides are proven.

Theory of operation.  A connection ends in one of these ways, which the
application's ``connectionLost`` can tell apart::

    ConnectionDone     the peer's end of stream was seen, or this side closed, or a
                       third-party peer closed between two records
    ConnectionLost     a third-party peer dropped the connection
    SessionEnded       one of the service's limits ended the session
    StreamCut          another mutauth peer's end of stream is missing, or a third-party
                       peer's connection ended in a record or before the first
    RecordError,       what came is not what the peer sent: nothing of it was
    ProtocolViolation  delivered, and the connection was aborted
    ConnectionAborted  this side aborted it
    anything else      the application's dataReceived raised it

An application's protocol that provides IHalfCloseableProtocol learns of the
peer's end by ``readConnectionLost`` and may go on writing; for any other the
peer's end is the connection's, once its producer, if it has one, is finished
or silent.

Closing takes a round trip: this side sends its end of stream (to another mutauth peer) and ends its
half of the TCP connection, and reads on until the peer does the same.  Closing the socket with the
peer's bytes unread would have the kernel reset the connection and destroy, at the peer, the end of
stream just sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.core.records import EndOfStream, Records
from mutauth_twisted.core.stream import Stream
from mutauth_twisted.errors import MutualAuthError, SessionEnded
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.interfaces import IMutualAuthTransport, ISessionEnding
from mutauth_twisted.log import Log
from mutauth_twisted.net.limits import Lifetime, Limits
from mutauth_twisted.net.outlet import Outlet
from mutauth_twisted.net.refusals import Refusals
from mutauth_twisted.net.sockets import lowest
from mutauth_twisted.text import short_name

#: How long, in seconds, a peer that is to be left may take to do its part.
LINGER = 5.0


def can_half_close(transport: object) -> bool:
    """Whether the output of a transport can be ended apart from its input."""
    # Asked of the class: a ProtocolWrapper, TLS for one, claims whatever the socket below it
    # provides, and would have that socket's half closed under its own last records.
    return isinstance(
        transport, ProtectedTransport | Outlet
    ) or IHalfCloseableDescriptor.implementedBy(type(transport))


@implementer(IMutualAuthTransport, IConsumer, IPushProducer)
class ProtectedTransport:
    """The transport of an application's protocol.

    :param reactor: for the deadline of closing.
    :param transport: the network's transport.
    :param records: the two directions' records, or their bytes inside TLS.
    :param identity: who the peer is.
    :param limits: how long the session may be idle or last; None: for ever.
    :param refusals: says which lines about sessions are logged, where there can be many; None: all
        are.
    """

    _log = Log()

    def __init__(
        self,
        reactor: IReactorTime,
        transport: Any,
        records: Records | Stream,
        identity: PeerIdentity,
        limits: Limits | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self._reactor = reactor
        self._transport = transport
        self._records = records
        self.peer_identity = identity
        self._who = short_name(identity.principal) or "an unproven service"
        self.disconnecting = False
        #: None before the start and after the end.
        self._application: IProtocol | None = None
        self._producer: IProducer | None = None
        self._paused = False
        self._delivering = False
        self._end_sent = False
        self._write_ending = False
        self._input_over = False
        #: What the application is told; once it is known, nothing more is written.
        self._reason: Failure | None = None
        self._linger: IDelayedCall | None = None
        self._wrote = False
        self._limits = limits
        self._refusals = refusals
        self._lifetime: Lifetime | None = None

    def start(self, application: IProtocol) -> None:
        """Connect the application's protocol; deliver nothing yet."""
        self._application = application
        if self._limits is not None:
            expires = self.peer_identity.expires
            self._lifetime = Lifetime(
                self._reactor, self._limits, expires, self._announce_end, self._end_session
            )
        self._delivering = True
        try:
            application.makeConnection(self)
        except Exception:
            self._drop(Failure())
            raise
        finally:
            self._delivering = False

    # From the network

    def dataReceived(self, data: bytes) -> None:
        """Take received bytes and deliver what they complete."""
        try:
            self._records.feed(data)
        except MutualAuthError as error:
            self.fail(error)
        else:
            self.deliver()

    def deliver(self) -> None:
        """Deliver records until none is complete or the application pauses."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while (
                not self._paused
                and self._reason is None
                and (application := self._application) is not None
            ):
                event = self._records.next_event()
                if event is None:
                    return
                if isinstance(event, EndOfStream):
                    self._input_ended()
                elif not self.disconnecting:
                    self._touch()
                    self._call(application.dataReceived, event.data)
        except (
            MutualAuthError
        ) as error:  # of the records: the application's own errors end in _call
            self.fail(error)
        finally:
            self._delivering = False

    def _has_line(self) -> bool:
        return self._refusals is None or self._refusals.ended(self._who)

    def _log_failure(self, text: str, failure: Failure) -> None:
        if self._refusals is None or self._refusals.broken(failure, self._who):
            self._log.failure(text, failure, principal=self._who)

    def _touch(self) -> None:
        if self._lifetime is not None:
            self._lifetime.touched = self._lifetime.reactor.seconds()

    def _announce_end(self, seconds: float) -> None:
        if self._has_line():
            text = "the session with {principal} will end in {seconds:.0f} s"
            self._log.info(text, principal=self._who, seconds=seconds)
        ending: Any = ISessionEnding(self._application, None)
        if ending is not None:
            self._call(ending.sessionEnding, seconds)

    def _end_session(self, error: SessionEnded) -> None:
        if self._has_line():
            self._log.info(
                "the session with {principal} is over: {error}", principal=self._who, error=error
            )
        if self._reason is not None:  # it is ending already, and has had its time
            self._transport.abortConnection()
            return
        self._send_end()
        self._leave(Failure(error))

    def _call(self, application: Callable[..., object], *arguments: object) -> None:
        """Call into the application; its own mistake ends its connection, and nobody else's."""
        try:
            application(*arguments)
        except Exception:
            failure = Failure()
            self._log_failure("the application failed on the connection with {principal}", failure)
            self._drop(failure)

    def fail(self, error: MutualAuthError) -> None:
        """The peer did what it may not: nothing more is delivered, and the connection is
        aborted.
        """
        if self._has_line():
            self._log.error(
                "connection with {principal} aborted: {error}", principal=self._who, error=error
            )
        self._drop(Failure(error))

    def _drop(self, reason: Failure) -> None:
        self.disconnecting = True
        if self._reason is None:
            self._reason = reason
        self._transport.abortConnection()

    def _input_ended(self) -> None:
        """The peer has said all it had to say."""
        if self._input_over:
            return
        self._input_over = True
        half_closeable: Any = IHalfCloseableProtocol(self._application, None)
        if half_closeable is None and self._producer is not None:
            self.loseConnection()  # once the producer has said what it has to say
            self._wrote = False
            self._wait(self._still_producing)
            return
        if self.disconnecting and self._end_sent:
            self._end_output()  # however long what was written takes
            return
        if half_closeable is None or (self.disconnecting and self._producer is None):
            self._send_end()
            self._leave(Failure(ConnectionDone()))
            return
        if not self.disconnecting:
            self._call(half_closeable.readConnectionLost)
        if self._end_sent:
            self._end_output()

    def _still_producing(self) -> None:
        """A producer that has nothing to say for a while has nothing to say to a peer that has
        ended.
        """
        if not self._wrote:
            self._leave(Failure(ConnectionDone()))
            return
        self._wrote = False
        self._wait(self._still_producing)

    def _leave(self, reason: Failure) -> None:
        """The connection is over: what we still have to say has little time."""
        if self._reason is not None:
            return
        self.disconnecting = True
        self._reason = reason
        if (producer := self._producer) is not None:
            self.unregisterProducer()
            producer.stopProducing()
        self._transport.loseConnection()
        self._wait(self._transport.abortConnection)

    def readConnectionLost(self) -> None:
        """The peer ended its half of the TCP connection."""
        if self._reason is not None or self._application is None:
            return
        if not self.disconnecting and (cut := self._records.cut()) is not None:
            self._drop(Failure(cut))
        else:
            self._input_ended()

    def writeConnectionLost(self) -> None:
        """All we had to say is sent, and our half of the TCP connection ended."""
        half_closeable: Any = IHalfCloseableProtocol(self._application, None)
        if self.disconnecting:
            self._wait(self._give_up_waiting)
        elif half_closeable is not None:
            self._call(half_closeable.writeConnectionLost)

    def _give_up_waiting(self) -> None:
        # Not aborted: the kernel may still be delivering what a slow peer has yet to read.
        if self._reason is None:
            self._reason = Failure(ConnectionDone())
        # A wrapper such as TLS waits for the peer's word, and the socket below it for the sending
        # only.
        lowest(self._transport).loseConnection()

    def _wait(self, then: Callable[[], None]) -> None:
        self._stop_waiting()
        if self._application is not None:
            self._linger = self._reactor.callLater(LINGER, then)

    def _stop_waiting(self) -> None:
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        self._linger = None

    def connectionLost(self, reason: Failure) -> None:
        """Tell the application, and why."""
        self._deliver_rest()
        application, self._application = self._application, None
        self._stop_waiting()
        if self._lifetime is not None:
            self._lifetime.stop()
            self._lifetime = None  # it holds us, which only the garbage collector would end
        if application is not None:
            try:
                application.connectionLost(self._why(reason))
            except Exception:
                self._log_failure(
                    "the application failed at the end of the connection with {principal}",
                    Failure(),
                )

    def _deliver_rest(self) -> None:
        """Deliver what has come before the end, to an application that has paused as well: there is
        no later.

        TLS reads on to its own end whatever it is told, so that the end comes while records wait.
        """
        while self._paused and not self.disconnecting and self._reason is None:
            self._paused = False
            self.deliver()

    def _why(self, reason: Failure) -> Failure:
        if self._reason is not None:
            return self._reason
        if not self.disconnecting and (cut := self._records.cut()) is not None:
            cut.__cause__ = reason.value
            return Failure(cut)
        return reason

    @property
    def network(self) -> Any:
        """The network's transport."""
        return self._transport

    # For the application

    @property
    def _closed(self) -> bool:
        return self._end_sent or self._reason is not None or self._application is None

    def write(self, data: bytes) -> None:
        """Protect and send; see ITransport."""
        if self._closed:
            return
        try:
            frames = self._records.protect(data)
        except MutualAuthError as error:
            self.fail(error)
            return
        if frames:
            self._wrote = True
            self._touch()
            # At once: the network may pause a producer in the middle, which may write again.
            if len(frames) == 1:
                self._transport.write(frames[0])
            else:
                self._transport.writeSequence(frames)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Protect and send the pieces as one; see ITransport."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """End the stream after all that was written, and, with a producer, after it is
        unregistered.
        """
        if self.disconnecting or self._application is None:
            return
        self.disconnecting = True
        if self._producer is None:
            self._close()

    def loseWriteConnection(self) -> None:
        """End our half of the stream after all that was written; the peer may go on; see
        ITCPTransport.
        """
        if self._closed or self.disconnecting:
            return
        self._write_ending = True
        if self._producer is None:
            self._end_output()

    def abortConnection(self) -> None:
        """Drop the connection at once; the peer sees its stream cut."""
        if self._application is not None:
            self._drop(Failure(ConnectionAborted()))

    def _send_end(self) -> None:
        if not self._end_sent:
            self._end_sent = True
            try:
                frame = self._records.end_of_stream()
            except MutualAuthError as error:  # the ticket has ended
                self.fail(error)
            else:
                if frame:
                    self._transport.write(frame)

    def _end_output(self) -> None:
        self._send_end()
        half_close = can_half_close(self._transport)
        if self._input_over or (self.disconnecting and not half_close):
            self._transport.loseConnection()
            if not half_close:
                self._wait(self._give_up_waiting)
        elif half_close:
            self._transport.loseWriteConnection()

    def _close(self) -> None:
        self._stop_waiting()
        if not self._end_sent or self._input_over:
            self._end_output()
        else:
            self._wait(self._give_up_waiting)
        if self._paused:
            # A paused application must not keep the peer's end unread.
            self.resumeProducing()

    def getPeer(self) -> IAddress:
        """The peer's address."""
        return cast(IAddress, self._transport.getPeer())

    def getHost(self) -> IAddress:
        """This side's address."""
        return cast(IAddress, self._transport.getHost())

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Send small writes at once, or not; see ITCPTransport."""
        if (tcp := self._tcp()) is not None:
            tcp.setTcpNoDelay(enabled)

    def getTcpNoDelay(self) -> bool:
        """Whether small writes are sent at once; see ITCPTransport."""
        return (tcp := self._tcp()) is not None and bool(tcp.getTcpNoDelay())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Have TCP look after a silent connection, or not; see ITCPTransport."""
        if (tcp := self._tcp()) is not None:
            tcp.setTcpKeepAlive(enabled)

    def getTcpKeepAlive(self) -> bool:
        """Whether TCP looks after a silent connection; see ITCPTransport."""
        return (tcp := self._tcp()) is not None and bool(tcp.getTcpKeepAlive())

    def _tcp(self) -> Any:
        # A wrapper such as TLS passes these on to the socket below it.
        return self._transport if hasattr(self._transport, "setTcpNoDelay") else None

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Have the network pause and resume a producer; see IConsumer."""
        if self._closed:
            producer.stopProducing()
            return
        # First, as the network may have the producer say all it has to say at once.
        before, self._producer = self._producer, producer
        try:
            self._transport.registerProducer(producer, streaming)
        except BaseException:
            self._producer = before
            raise

    def unregisterProducer(self) -> None:
        """The producer is finished; see IConsumer."""
        if self._producer is None:
            return
        self._producer = None
        self._transport.unregisterProducer()
        if self._closed:
            return
        if self.disconnecting:
            self._close()
        elif self._write_ending:
            self._end_output()

    def pauseProducing(self) -> None:
        """Deliver nothing more, and read nothing more, until resumed; see IPushProducer."""
        if not self.disconnecting:
            self._paused = True
            self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Deliver and read again; see IPushProducer."""
        self._paused = False
        if self._application is not None:
            self._transport.resumeProducing()
            self.deliver()

    def stopProducing(self) -> None:
        """The application wants no more; see IProducer."""
        self.loseConnection()
