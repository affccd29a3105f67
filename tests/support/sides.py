"""The package's own two sides, in memory: bare connections (:class:`Bare`), without a clock or a
transport, and such that run under the Twisted driver (:class:`Peer`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from mutauth_twisted.core.connection import Connection, Established
from mutauth_twisted.core.context import SecurityContext
from mutauth_twisted.core.handshake import Failed, Send
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.core.records import Data, EndOfStream
from mutauth_twisted.errors import MutualAuthError, StreamCut
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.net.protocol import HandshakeProtocol, HandshakeRole
from mutauth_twisted.testing.connections import events
from mutauth_twisted.testing.fakes import FakeTransport, Recorder, RecorderFactory, ThreadedReactor


class _AtOnce:
    """Workers that need no thread: nothing here asks a KDC."""

    def run(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        return maybeDeferred(function, *args)


#: After how many seconds of silence a service ends a session here.
IDLE: Final = 60.0


@frozen
class Script:
    """Script of an application.

    :param greeting: what it says first.
    :param answers: whether it answers all that it receives.
    :param closes: whether it closes after what it received.
    """

    greeting: bytes = b""
    answers: bool = False
    closes: bool = False


class Side(Protocol):
    """One side of a conversation."""

    #: Whether its network connection is gone.
    lost: bool

    @property
    def leaving(self) -> bool:
        """True if it has closed its network connection, behind its last write."""

    @property
    def aborted(self) -> bool:
        """True if it has dropped its network connection."""

    @property
    def half_closed(self) -> bool:
        """True if it has ended its half of the network connection."""

    @property
    def identity(self) -> PeerIdentity | None:
        """The other side, once the two are connected."""

    @property
    def received(self) -> bytes:
        """Bytes that its application received."""

    @property
    def error(self) -> BaseException | None:
        """Why it got no connection, or lost it; None where it ended well."""

    def take(self) -> bytes:
        """Return the bytes written since the last time."""

    def receive(self, data: bytes) -> None:
        """Have bytes come in, as long as the connection is read."""

    def other_ended(self) -> None:
        """The other side has ended its half."""

    def written(self) -> None:
        """Its own half is ended, and all is sent."""

    def lose(self, reason: BaseException | None = None) -> None:
        """Have the connection end."""

    def give_up(self) -> bool:
        """Have the application close, if it has not yet; whether there was anything to close."""

    def advance(self, seconds: float) -> None:
        """Let time pass."""


class Bare:
    """One side of a connection that runs bare: a Connection, and what its events ask for.

    :param context: the side's security context.
    :param security: what was agreed on.
    :param script: what its application does.
    :param authorize: has the last word on the other side.
    :param size: how many bytes it is given at a time; None: as they come.
    """

    def __init__(
        self,
        context: SecurityContext,
        security: SecurityOptions,
        script: Script,
        authorize: Callable[[PeerIdentity], None] = lambda identity: None,
        size: int | None = None,
    ) -> None:
        self._timeout = security.timeout
        self._script = script
        self._size = size
        self._written = b""
        self._waited = 0.0
        self.identity: PeerIdentity | None = None
        self.received = b""
        self.error: BaseException | None = None
        self.lost = self.leaving = self.aborted = self.half_closed = False
        self._connection = Connection(
            security,
            initiator=isinstance(context, KerberosInitiator),
            peer="peer",
            authorize=authorize,
        )
        self._connection.begin(context)
        self._perform()

    def _perform(self) -> None:
        for event in events(self._connection):
            assert not self.leaving, f"{event} after the end"
            if isinstance(event, Send):
                assert self.identity is None, "a frame of the handshake follows its end"
                self._written += event.data
            elif isinstance(event, Established):
                assert self.identity is None, "established twice"
                self.identity = event.identity
                self._written += event.opening + b"".join(
                    self._connection.send(self._script.greeting)
                )
            elif isinstance(event, Data):
                self._receive(event.data)
            elif isinstance(event, EndOfStream):
                self._close()
                self.leaving = True
            elif isinstance(event, Failed):
                self._failed(event.error)

    def _receive(self, data: bytes) -> None:
        assert self.identity is not None, "bytes are delivered before there is a connection"
        assert data, "no bytes are delivered"
        if self.half_closed:
            return
        self.received += data
        if self._script.answers:
            self._written += b"".join(self._connection.send(data.upper()))
        if self._script.closes:
            self._close()

    def _close(self) -> None:
        if not self.half_closed:
            self.half_closed = True
            self._written += self._connection.send_end()

    def _failed(self, error: MutualAuthError) -> None:
        self.leaving = True
        # What follows its own end an application has not waited for.
        if not (self.half_closed and isinstance(error, StreamCut)):
            self.error, self.aborted = error, self.identity is not None

    def take(self) -> bytes:
        """See Side."""
        written, self._written = self._written, b""
        return written

    def receive(self, data: bytes) -> None:
        """See Side."""
        size = self._size or len(data) or 1
        for start in range(0, len(data), size):
            if not (self.lost or self.leaving):
                self._connection.receive(data[start : start + size])
                self._perform()

    def other_ended(self) -> None:
        """See Side."""
        if not self.leaving:
            self._connection.connection_lost()
            self._perform()

    def written(self) -> None:
        """See Side."""

    def lose(self, reason: BaseException | None = None) -> None:
        """See Side."""
        if not self.lost:
            self.other_ended()
            self.lost = True
            assert self.identity is not None or self.error is not None, "it does not say why"

    def give_up(self) -> bool:
        """See Side."""
        if self.identity is None or self.lost or self.leaving or self.half_closed:
            return False
        self._close()
        return True

    def advance(self, seconds: float) -> None:
        """See Side."""
        self._waited += seconds
        if self.identity is None and not self.leaving and self._waited >= self._timeout:
            self._connection.timed_out(self._timeout)
            self._perform()
        # As long as its driver waits for the other side's end.
        self.leaving = self.leaving or self.half_closed


class Peer:
    """One side of a connection: the Twisted driver on a transport in memory, with a real context.

    :param context: the side's security context.
    :param security: what was agreed on.
    :param prepare: called with the application before it is connected.
    :param authorize: has the last word on the other side.
    """

    def __init__(
        self,
        context: SecurityContext,
        security: SecurityOptions,
        prepare: Callable[[Recorder], object],
        authorize: Callable[[PeerIdentity], None] = lambda identity: None,
    ) -> None:
        self.factory = RecorderFactory(prepare)
        self.reactor = ThreadedReactor()
        self.transport = FakeTransport()
        initiator = isinstance(context, KerberosInitiator)
        limits = None if initiator else Limits(idle=IDLE)
        role = HandshakeRole(
            initiator, lambda peer, security: context, authorize, self.factory.buildProtocol, limits
        )
        self.protocol = HandshakeProtocol(self.reactor, cast(Any, _AtOnce()), security, role)
        #: What `authenticated` fired with.
        self.results: list[Any] = []
        #: Whether its transport is gone.
        self.lost = False
        self.protocol.authenticated.addBoth(self.results.append)
        self.protocol.makeConnection(self.transport)

    def receive(self, data: bytes) -> None:
        """See Side."""
        if data and not self.lost and not self.transport.disconnecting:
            self.protocol.dataReceived(data)

    def lose(self, reason: BaseException | None = None) -> None:
        """See Side."""
        if not self.lost:
            self.lost = True
            self.protocol.connectionLost(Failure(reason or ConnectionDone()))

    @property
    def leaving(self) -> bool:
        """See Side."""
        return self.transport.disconnecting

    @property
    def aborted(self) -> bool:
        """See Side."""
        return self.transport.aborted

    @property
    def half_closed(self) -> bool:
        """See Side."""
        return self.transport.write_closing

    @property
    def identity(self) -> PeerIdentity | None:
        """See Side."""
        application: Any = self.application
        return None if application is None else application.transport.peer_identity

    @property
    def received(self) -> bytes:
        """See Side."""
        return b"" if self.application is None else b"".join(self.application.received)

    def take(self) -> bytes:
        """See Side."""
        return self.transport.take()

    def other_ended(self) -> None:
        """See Side."""
        self.protocol.readConnectionLost()

    def written(self) -> None:
        """See Side."""
        self.protocol.writeConnectionLost()

    def give_up(self) -> bool:
        """See Side."""
        application: Any = self.application
        if application is None or self.lost or application.transport.disconnecting:
            return False
        application.transport.loseConnection()
        return True

    def advance(self, seconds: float) -> None:
        """See Side."""
        self.reactor.advance(seconds)

    @property
    def application(self) -> Recorder | None:
        """Its application, if there is one."""
        return self.factory.built[0] if self.factory.built else None

    @property
    def error(self) -> BaseException | None:
        """See Side."""
        (result,) = self.results
        if isinstance(result, Failure):
            assert not self.factory.built, "an application without a proof"
            return result.value
        return (
            None
            if isinstance(result.reason, ConnectionDone)
            else cast(BaseException, result.reason)
        )
