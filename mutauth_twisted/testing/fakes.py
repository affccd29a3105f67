"""Stand-ins for what the units under test meet: a security context, a reactor's transport, an
application.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHalfCloseableDescriptor, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.access import Logon
from mutauth_twisted.core.context import Outcome, StepFailed
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import MutualAuthError, PeerNotAuthenticated, RecordError
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.names import split_principal
from mutauth_twisted.net.protocol import HandshakeProtocol, HandshakeRole
from mutauth_twisted.protection import Flag, Protection, flag_names
from mutauth_twisted.spn import SPN

SPN_ASKED = SPN.parse("echoSvc/srv1.test.example")
ALL_FLAGS = Protection.SEAL.requested_flags
#: What a log must never show: the start of every fake token and every fake key.
SECRET = b"secret-"

_RECORD = struct.Struct(">cQ16s")


class FakeContext:
    """A security context whose tokens are ``secret-token N``, counted from 1 over both directions.

    Its records carry a sequence number and a digest, so that like real ones
    they are good for one direction and one place only.

    :param legs: how many tokens the handshake takes altogether.
    :param initiator: whether this side makes the first one.
    :param spn: on an initiator, what it asks for.
    :param mutauth: on an acceptor, whether the client is another mutauth peer.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        legs: int = 2,
        flags: int = ALL_FLAGS,
        package: str = "kerberos",
        principal: str = "alice@TEST.EXAMPLE",
        spn: SPN = SPN_ASKED,
        blocking: bool = False,
        lifetime: float = 36_000.0,
        groups: tuple[str, ...] = (),
        mutauth: bool = False,
    ) -> None:
        self.initiator = initiator
        self.mutauth = mutauth
        self.legs = legs
        self.flags = Flag(flags)
        self.package = package
        self.principal = principal
        self.spn = spn
        self.blocking = blocking
        self.lifetime = lifetime
        self.groups = groups
        self.fails: MutualAuthError | Exception | None = None
        self.error_token = b""
        self.steps: list[bytes | None] = []
        self.verified = 0
        self.sent = 0
        self.received = 0
        self._next = 1 if initiator else 2

    def token(self, number: int) -> bytes:
        """The token of one leg."""
        return SECRET + f"token {number}".encode()

    def step(self, token: bytes | None) -> Outcome:
        self.steps.append(token)
        if isinstance(self.fails, MutualAuthError):
            raise StepFailed(self.fails, self.error_token)
        if self.fails is not None:
            raise self.fails
        expected = self.token(self._next - 1) if self._next > 1 else None
        if token != expected:
            raise StepFailed(PeerNotAuthenticated("peer", "its token is wrong"))
        mine, self._next = self._next, self._next + 2
        return Outcome(self.token(mine) if mine <= self.legs else b"", mine >= self.legs)

    def verify(self, protection: Protection) -> PeerIdentity:
        self.verified += 1
        if missing := protection.required_flags & ~self.flags:
            raise PeerNotAuthenticated("peer", f"the handshake ended without {flag_names(missing)}")
        if self.package != "kerberos":
            raise PeerNotAuthenticated("peer", "the handshake did not end with Kerberos")
        spn = self.spn if self.initiator else None
        expires = time.time() + self.lifetime
        logon = Logon(split_principal(self.principal)[0], "TEST", groups=self.groups)
        return PeerIdentity(
            self.principal,
            spn,
            self.package,
            protection,
            self.flags,
            expires,
            mutauth=self.mutauth,
            read_logon=lambda: logon,
        )

    def _digest(self, kind: bytes, initiators: bool, number: int, data: bytes) -> bytes:
        return hashlib.sha256(
            SECRET + kind + struct.pack(">?Q", initiators, number) + data
        ).digest()[:16]

    def wrap(self, data: bytes, *, seal: bool) -> bytes:
        assert isinstance(data, bytes)
        kind, number = (b"E" if seal else b"S"), self.sent
        self.sent += 1
        return _RECORD.pack(kind, number, self._digest(kind, self.initiator, number, data)) + data

    signature_size = _RECORD.size

    def wrap_apart(self, data: bytes, *, seal: bool) -> tuple[bytes, bytes]:
        body = self.wrap(data, seal=seal)
        return body[: _RECORD.size], body[_RECORD.size :]

    def unwrap_apart(self, trailer: bytes, data: bytes, *, seal: bool) -> tuple[bytes, bool]:
        if len(trailer) != _RECORD.size:
            raise RecordError("peer", "a record has no trailer")
        return self.unwrap(trailer + data)

    def unwrap(self, body: bytes) -> tuple[bytes, bool]:
        if len(body) < _RECORD.size:
            raise RecordError("peer", "a record is too short")
        kind, number, digest = _RECORD.unpack_from(body)
        data = body[_RECORD.size :]
        expected = self._digest(kind, not self.initiator, number, data)
        # Not by ==: a fuzzer learns what bytes are compared with.
        if number != self.received or not hmac.compare_digest(digest, expected):
            raise RecordError("peer", "record rejected: bad MAC, replayed or out of order")
        self.received += 1
        return data, kind == b"E"


@implementer(IHalfCloseableDescriptor)
class FakeTransport(StringTransport):
    """A TCP transport that remembers how it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.write_closing = False
        self.aborted = False

    def loseWriteConnection(self) -> None:
        self.write_closing = True

    def writeConnectionLost(self, reason: Failure) -> None:
        """Part of the interface; tests tell the protocol themselves."""

    def readConnectionLost(self, reason: Failure) -> None:
        """Part of the interface; tests tell the protocol themselves."""

    def abortConnection(self) -> None:
        super().abortConnection()
        self.aborted = True

    def take(self) -> bytes:
        """Return the bytes written since the last time."""
        written = bytes(self.value())
        self.clear()
        return written


class Recorder(Protocol):
    """An application that remembers what happens to it, and calls what it is given."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received: list[bytes] = []
        self.reason: BaseException | None = None
        self.on_connect: Callable[[Any], object] = lambda transport: None
        self.on_data: Callable[[Any, bytes], object] = lambda transport, data: None

    def connectionMade(self) -> None:
        self.events.append("made")
        self.on_connect(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.events.append("data")
        self.received.append(data)
        self.on_data(self.transport, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append("lost")
        self.reason = reason.value


class RecorderFactory:
    """Builds recorders, and counts them.

    :param prepare: called with each before it is connected.
    """

    noisy = False

    def __init__(self, prepare: Callable[[Recorder], object] = lambda recorder: None) -> None:
        self.prepare = prepare
        self.built: list[Recorder] = []

    def doStart(self) -> None:
        """Part of IProtocolFactory."""

    def doStop(self) -> None:
        """Part of IProtocolFactory."""

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        recorder = Recorder()
        self.prepare(recorder)
        self.built.append(recorder)
        return recorder


class ThreadedReactor(MemoryReactorClock):
    """A reactor whose threads' results arrive when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Callable[[], object]] = []

    def callFromThread(
        self, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> None:
        self.asked.append(lambda: callable(*args, **kwargs))

    def run_calls(self) -> None:
        """Do what threads have asked for."""
        asked, self.asked = self.asked, []
        for call in asked:
            call()


def chunked(data: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    """The data in pieces that end at the cuts (in any order, repeated or beyond the end)."""
    start = 0
    for end in [*sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]:
        if end > start:
            yield data[start:end]
        start = end


@contextmanager
def captured_log() -> Iterator[list[LogEvent]]:
    """Every event of Twisted's log, of any level, for the time of a ``with`` block."""
    events: list[LogEvent] = []
    observer = cast(ILogObserver, events.append)
    globalLogPublisher.addObserver(observer)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(observer)


class HeldWorkers:
    """Workers whose calls end when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def run(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Keep the call; like a thread's, its result comes even when nothing waits for it any
        more.
        """
        result: Deferred[Any] = Deferred()

        def end() -> None:
            try:
                outcome: Any = function(*args)
            except Exception:
                outcome = Failure()
            if not result.called:
                result.callback(outcome)

        self.waiting.append(end)
        return result

    def finish(self) -> None:
        """Let every call end."""
        waiting, self.waiting = self.waiting, []
        for end in waiting:
            end()


class Player:
    """One side of a connection: a handshake on a fake transport.

    :param context: the side's security context.
    :param factory: the application's.
    """

    def __init__(
        self,
        context: FakeContext,
        factory: RecorderFactory | None = None,
        *,
        authorize: Callable[[PeerIdentity], None] = lambda identity: None,
        workers: Any = None,
        reactor: ThreadedReactor | None = None,
        security: SecurityOptions = SecurityOptions(),
        start: bool = True,
    ) -> None:
        self.context = context
        self.factory = factory or RecorderFactory()
        self.workers = workers or HeldWorkers()
        self.reactor = reactor or ThreadedReactor()
        role = HandshakeRole(
            initiator=context.initiator,
            new_context=lambda peer, security: context,
            authorize=authorize,
            build_application=self.factory.buildProtocol,
        )
        self.protocol = HandshakeProtocol(self.reactor, cast(Any, self.workers), security, role)
        self.transport = FakeTransport()
        #: What `authenticated` fired with.
        self.results: list[Any] = []
        self.protocol.authenticated.addBoth(self.results.append)
        if start:
            self.start()

    def start(self) -> None:
        """Connect."""
        self.protocol.makeConnection(self.transport)

    def receive(self, data: bytes, *, bytewise: bool = False) -> None:
        """Have bytes come in, as long as the connection is read."""
        for chunk in [data[i : i + 1] for i in range(len(data))] if bytewise else [data]:
            if chunk and not self.transport.disconnecting:
                self.protocol.dataReceived(chunk)

    def lose(self, reason: BaseException | None = None) -> None:
        """Have the connection end."""
        self.protocol.connectionLost(Failure(reason or ConnectionDone()))

    @property
    def application(self) -> Recorder:
        """The one application protocol that was built."""
        (recorder,) = self.factory.built
        return recorder

    @property
    def error(self) -> Any:
        """Error that `authenticated` failed with."""
        (failure,) = self.results
        assert isinstance(failure, Failure), failure
        return failure.value


def converse(one: Player, other: Player, *, bytewise: bool = False) -> None:
    """Carry bytes between two sides until neither has any."""
    while True:
        pieces = one.transport.take(), other.transport.take()
        if not any(pieces):
            return
        other.receive(pieces[0], bytewise=bytewise)
        one.receive(pieces[1], bytewise=bytewise)
