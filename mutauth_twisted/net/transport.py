"""Transport of an application's protocol, once both sides are authenticated.

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
    ConnectionAborted  this side aborted it, or ended it as the peer took nothing of what
                       was written for STALLED seconds
    anything else      the application's dataReceived raised it

An application's protocol that provides IHalfCloseableProtocol learns of the
peer's end by ``readConnectionLost`` and may go on writing; for any other the
peer's end is the connection's, once its producer, if it has one, is finished
or silent.

How it comes to that is decided in :mod:`mutauth_twisted.core.closing`: all that happens is its
input, and what it answers is done here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from attrs import frozen
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.core.closing import Action, Closing, Input
from mutauth_twisted.core.connection import Connection
from mutauth_twisted.core.handshake import Failed
from mutauth_twisted.core.records import Data, EndOfStream
from mutauth_twisted.errors import MutualAuthError, SessionEnded
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.interfaces import IMutualAuthTransport, ISessionEnding
from mutauth_twisted.log import Log
from mutauth_twisted.net.connectionlog import ConnectionLog
from mutauth_twisted.net.cut import ConnectionCut
from mutauth_twisted.net.limits import Lifetime, Limits
from mutauth_twisted.net.outlet import Outlet
from mutauth_twisted.net.sockets import STALLED, lowest, unsent
from mutauth_twisted.text import short_name

#: How long, in seconds, a peer that is to be left may take to do its part, once all is sent; it has
#: STALLED to take some of what is not.
LINGER = 5.0


def can_half_close(transport: object) -> bool:
    """Tell whether the output of a transport can be ended apart from its input."""
    # Asked of the class: a ProtocolWrapper, TLS for one, claims whatever the socket below it
    # provides, and would have that socket's half closed under its own last records.
    return isinstance(
        transport, ProtectedTransport | Outlet
    ) or IHalfCloseableDescriptor.implementedBy(type(transport))


@implementer(IPushProducer)
@frozen
class _Guarded:
    """A producer of the application's, as the network calls it.

    :param call: calls into the application.
    """

    call: Callable[..., None]
    producer: Any

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self.call(self.producer.pauseProducing)

    def resumeProducing(self) -> None:
        """See IPushProducer and IPullProducer."""
        self.call(self.producer.resumeProducing)

    def stopProducing(self) -> None:
        """See IProducer."""
        self.call(self.producer.stopProducing)


@implementer(IMutualAuthTransport)
class ProtectedTransport:
    """The transport of an application's protocol.

    :param reactor: for the deadline of closing.
    :param transport: the network's transport.
    :param connection: the established connection.
    :param identity: who the peer is.
    :param limits: how long the session may be idle or last; None: for ever.
    :param connection_log: says which lines about sessions are logged, where there can be many;
        None: all are.
    """

    _log = Log()

    def __init__(
        self,
        reactor: IReactorTime,
        transport: Any,
        connection: Connection,
        identity: PeerIdentity,
        limits: Limits | None = None,
        connection_log: ConnectionLog | None = None,
    ) -> None:
        self._reactor = reactor
        self._transport = transport
        self._connection = connection
        self.peer_identity = identity
        self._who = short_name(identity.principal) or "an unauthenticated service"
        #: None before the start and after the end.
        self._application: IProtocol | None = None
        self._producer: IProducer | None = None
        self._paused = False
        self._delivering = False
        self._closing: Closing[Failure] = Closing(connectionDone)
        self._linger: IDelayedCall | None = None
        self._limits = limits
        self._connection_log = connection_log
        self._lifetime: Lifetime | None = None
        self._most: float | None = None
        self._refused: Failure | None = None
        #: Seconds for which the peer may take nothing of what was written, when all is to end.
        self._patience: float = STALLED
        #: On a server, the connection's name in audit and in what a backend is told.
        self.connection_id: str | None = None
        #: Bytes that the application was given, and that it has written.
        self.received = self.sent = 0

    def start(self, application: IProtocol) -> None:
        """Connect the application's protocol; deliver nothing yet."""
        self._application = application
        if self._limits is not None:
            expires = self.peer_identity.expires
            self._lifetime = Lifetime(
                self._reactor,
                self._limits,
                expires,
                self._announce_end,
                self.end_session,
                self._most,
            )
        self._delivering = True
        try:
            application.makeConnection(self)
        except Exception:
            self._happened(Input.FAULT, Failure())
            raise
        finally:
            self._delivering = False

    # From the network

    def dataReceived(self, data: bytes) -> None:
        """Take received bytes and deliver what they complete."""
        self._connection.receive(data)
        self.deliver()

    def deliver(self) -> None:
        """Deliver records until none is complete or the application pauses."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while (not self._paused or self._connection.over) and self._closing.reason is None:
                event = self._connection.next_event()
                if isinstance(event, Data):
                    if self._closing.state.delivers:
                        self._touch()
                        self.received += len(event.data)
                        self._call(cast(IProtocol, self._application).dataReceived, event.data)
                elif isinstance(event, EndOfStream):
                    self._peer_ended()
                elif isinstance(event, Failed):
                    self.fail(event.error)
                else:
                    return
        finally:
            self._delivering = False

    def _log_line(self, log: Callable[..., None], text: str, **fields: object) -> None:
        if self._connection_log is None or self._connection_log.ended(self._who):
            log(text, principal=self._who, **fields)

    def _log_failure(self, text: str, failure: Failure) -> None:
        if self._connection_log is None or self._connection_log.broken(failure, self._who):
            self._log.failure(text, failure, principal=self._who)

    def _touch(self) -> None:
        if self._lifetime is not None:
            self._lifetime.touched = self._lifetime.reactor.seconds()

    def _announce_end(self, seconds: float) -> None:
        text = "the session with {principal} will end in {seconds:.0f} s"
        self._log_line(self._log.info, text, seconds=seconds)
        ending: Any = ISessionEnding(self._application, None)
        if ending is not None:
            self._call(ending.sessionEnding, seconds)

    def limit_session(self, seconds: float | None) -> None:
        """Have the session last no longer than this since its beginning.

        :param seconds: None: no longer than the service's own limits and the ticket allow.
        """
        self._most = seconds
        if self._lifetime is not None:
            self._lifetime.limit(seconds)

    def end_session(self, error: SessionEnded) -> None:
        """End the session as one of the service's limits does: the application and the log are told
        why.
        """
        self._log_line(self._log.info, "the session with {principal} is over: {error}", error=error)
        self._happened(Input.LIMIT, Failure(error))

    def _call(self, application: Callable[..., object], *arguments: object) -> None:
        """Call into the application; its own mistake ends its connection, and no other."""
        try:
            application(*arguments)
        except Exception:
            failure = Failure()
            self._log_failure("the application failed on the connection with {principal}", failure)
            self._happened(Input.FAULT, failure)

    def fail(self, error: MutualAuthError) -> None:
        """The peer did what it may not: nothing more is delivered, and the connection is
        aborted.
        """
        text = "connection with {principal} aborted: {error}"
        self._log_line(self._log.error, text, error=error)
        self._happened(Input.FAULT, Failure(error))

    def _peer_ended(self) -> None:
        self._happened(Input.PEER_ENDED)
        if self._half_closeable is None:
            producing = self._producer is not None
            self._happened(Input.END_WITH_PRODUCER if producing else Input.END_WITH_PEER)

    def _cut(self) -> ConnectionCut | None:
        """The error of a connection whose end of stream is missing, where that can matter."""
        cut = self._connection.cut() if self._closing.state.delivers else None
        return None if cut is None else ConnectionCut.of(cut)

    def readConnectionLost(self) -> None:
        """The peer ended its half of the TCP connection."""
        if (cut := self._cut()) is not None:
            self._happened(Input.FAULT, Failure(cut))
        else:
            self._peer_ended()

    def writeConnectionLost(self) -> None:
        """All we had to send is sent, and our half of the TCP connection ended."""
        self._happened(Input.WRITTEN)

    def connectionLost(self, reason: Failure) -> None:
        """Tell the application, and why."""
        self._deliver_rest()
        if self._lifetime is not None:
            self._lifetime.stop()
            self._lifetime = None  # it holds us, which only the garbage collector would end
        if (cut := self._cut()) is not None:
            cut.__cause__ = reason.value
            reason = Failure(cut)
        self._happened(Input.GONE, reason)

    def _deliver_rest(self) -> None:
        """Deliver what has come before the end, to an application that has paused as well: there is
        no later.

        TLS reads on to its own end whatever it is told, so that the end comes while records wait.
        """
        while self._paused and self._closing.state.delivers:
            self._paused = False
            self.deliver()

    # The end

    @property
    def _half_closeable(self) -> Any:
        return IHalfCloseableProtocol(self._application, None)

    def _end(self, how: Input) -> None:
        self._happened(how)
        if self._producer is None:
            self._happened(Input.PRODUCED)

    def _happened(self, what: Input, reason: Failure | None = None) -> None:
        """Have it decided what is to be done now, and do it."""
        before = self._closing.state
        actions = self._closing.happened(what, reason)
        state = self._closing.state
        if state is not before:
            self._stop_lingering()
        for action in actions:
            # The application and the network may do the next thing while they are told of this one.
            if self._closing.state is state:
                self._perform(action)

    def _perform(self, action: Action) -> None:
        transport = self._transport
        match action:
            case Action.SEND_END:
                self._send_end()
            case Action.END_OUTPUT | Action.CLOSE_OUTPUT if can_half_close(transport):
                transport.loseWriteConnection()
            case Action.CLOSE | Action.CLOSE_OUTPUT:
                transport.loseConnection()
                if not can_half_close(transport):
                    self._happened(Input.WRITTEN)
            case Action.CLOSE_SOCKET:
                # Not aborted: the kernel may still be delivering what a slow peer has yet to read.
                # TLS waits for the peer's word, and the socket below it for the sending only.
                lowest(transport).loseConnection()
            case Action.ABORT:
                transport.abortConnection()
            case Action.STOP_PRODUCER:
                if (producer := self._producer) is not None:
                    self.unregisterProducer()
                    self._call(producer.stopProducing)
            case Action.READ_ON:
                if self._paused:
                    self.resumeProducing()
            case Action.START_LINGER:
                self._start_linger()
            case Action.START_LAST_LINGER:
                self._stop_lingering()
                self._linger = self._reactor.callLater(LINGER, self._happened, Input.LINGERED)
            case Action.TELL_PEER_ENDED:
                if (half_closeable := self._half_closeable) is not None:
                    self._call(half_closeable.readConnectionLost)
            case Action.TELL_WRITTEN:
                if (half_closeable := self._half_closeable) is not None:
                    self._call(half_closeable.writeConnectionLost)
            case Action.TELL_LOST:
                self._tell_lost()

    def _send_end(self) -> None:
        try:
            frame = self._connection.send_end()
        except MutualAuthError as error:  # the ticket has ended
            self.fail(error)
        else:
            if frame:
                self._transport.write(frame)

    def _start_linger(self) -> None:
        self._stop_lingering()
        self._linger_on(unsent(self._transport), self._reactor.seconds())

    def _linger_on(self, left: int, since: float) -> None:
        self._linger = self._reactor.callLater(LINGER, self._lingered, left, since)

    def _lingered(self, before: int, since: float) -> None:
        """See what the peer has taken.

        :param before: how many bytes were unsent the last time.
        :param since: when it last took some.
        """
        left = unsent(self._transport)
        if left < before:
            self._start_linger()
        elif left and self._reactor.seconds() - since < self._patience:
            self._linger_on(left, since)
        else:
            self._happened(Input.LINGERED, Failure(ConnectionAborted()) if left else None)

    def _stop_lingering(self) -> None:
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        self._linger = None

    def _tell_lost(self) -> None:
        application, self._application = cast(IProtocol, self._application), None
        try:
            application.connectionLost(cast(Failure, self._closing.reason))
        except Exception:
            text = "the application failed at the end of the connection with {principal}"
            self._log_failure(text, Failure())

    @property
    def reason(self) -> Failure | None:
        """Reason for which the connection ended, or is about to; None while it lasts."""
        return self._refused or self._closing.reason

    @property
    def network(self) -> Any:
        """The network's transport."""
        return self._transport

    # For the application

    @property
    def disconnecting(self) -> bool:
        """True if the application gets nothing more of the peer; see ITransport."""
        return not self._closing.state.delivers

    def write(self, data: bytes) -> None:
        """Protect and send; see ITransport."""
        if not self._closing.state.sends:
            return
        try:
            frames = self._connection.send(data)
        except MutualAuthError as error:
            self.fail(error)
            return
        if frames:
            self.sent += len(data)
            if self._linger is not None:  # else it is of no use, and each record costs
                self._happened(Input.WROTE)
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
        self._end(Input.CLOSE)

    def loseWriteConnection(self) -> None:
        """End our half of the stream after all that was written; the peer may go on; see
        ITCPTransport.
        """
        self._end(Input.HALF_CLOSE)

    def abortConnection(self) -> None:
        """Drop the connection at once; the peer sees its stream cut."""
        self._happened(Input.FAULT, Failure(ConnectionAborted()))

    def cutConnection(self) -> None:
        """End after all that was written, without our end of stream: the peer is to see that what
        is passed on to it was cut.  It has :data:`LINGER` to take some of what was written.
        """
        self._patience = LINGER
        self._happened(Input.CUT)

    def refuseSession(self, error: MutualAuthError) -> None:
        """End the session before any data: a mutauth client is told the error's code, any other
        sees the end.

        :param error: why; what :attr:`reason` is from now on.
        """
        self._connection.refuse(error.code)
        self._refused = Failure(error)
        self.loseConnection()

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
        """Tell whether small writes are sent at once; see ITCPTransport."""
        return (tcp := self._tcp()) is not None and bool(tcp.getTcpNoDelay())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Have TCP look after a silent connection, or not; see ITCPTransport."""
        if (tcp := self._tcp()) is not None:
            tcp.setTcpKeepAlive(enabled)

    def getTcpKeepAlive(self) -> bool:
        """Tell whether TCP looks after a silent connection; see ITCPTransport."""
        return (tcp := self._tcp()) is not None and bool(tcp.getTcpKeepAlive())

    def _tcp(self) -> Any:
        # A wrapper such as TLS passes these on to the socket below it.
        return self._transport if hasattr(self._transport, "setTcpNoDelay") else None

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Have the network pause and resume a producer; see IConsumer."""
        if not self._closing.state.sends:
            producer.stopProducing()
            return
        # First, as the network may have the producer say all it has to say at once.
        before, self._producer = self._producer, producer
        try:
            self._transport.registerProducer(_Guarded(self._call, producer), streaming)
        except BaseException:
            self._producer = before
            raise

    def unregisterProducer(self) -> None:
        """The producer is finished; see IConsumer."""
        if self._producer is None:
            return
        self._producer = None
        self._transport.unregisterProducer()
        self._happened(Input.PRODUCED)

    def pauseProducing(self) -> None:
        """Deliver nothing more, and read nothing more, until resumed; see IPushProducer."""
        if self._closing.state.delivers:
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
