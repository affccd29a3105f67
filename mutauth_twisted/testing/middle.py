"""An attacker in the middle, who can do anything to the bytes and has no key.

:class:`Conversation` puts one between the package's own two sides, in memory and with real Kerberos
contexts: a client that asks a question, a service that answers, and both closing in order.  The
sides are bare connections (:class:`Bare`), without a clock or a transport, or run under the Twisted
driver (:class:`Peer`).  The integration tests do
the same over TCP (``tests/integration/handshake_case.py``).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final, Protocol, cast

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.connection import Connection, Established
from mutauth_twisted.core.context import SecurityContext
from mutauth_twisted.core.handshake import Failed, Send
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.core.records import Data, EndOfStream
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import MutualAuthError, StreamCut
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator, ServiceKeys
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.net.protocol import HandshakeProtocol, HandshakeRole
from mutauth_twisted.net.transport import LINGER
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.connections import events
from mutauth_twisted.testing.fakes import FakeTransport, Recorder, RecorderFactory, ThreadedReactor
from mutauth_twisted.testing.forge import make_realm
from mutauth_twisted.wire import NNS, WINSOCK, Wire

UP, DOWN = "to the service", "to the client"
#: Which of each side's messages is which, between two mutauth peers that say one thing each; only
#: the client opens.
TOKEN, OPENING, DATA, END = range(4)
#: The records of each direction.
RECORDS = {UP: (OPENING, DATA, END), DOWN: (DATA, END)}
#: What becomes of one message on its way: none, one or more in its place; a None among them closes
#: the connection.
Change = Callable[[bytes], list[bytes | None]]
#: The same for every message: takes the direction, the message's number in it and the message.
Tamper = Callable[[str, int, bytes], list[bytes | None]]

#: Every wire with every protection whose records Kerberos makes.
_KERBEROS = (Protection.SEAL, Protection.SIGN)
CHANNELS: Final = tuple(
    SecurityOptions(wire, protection) for wire in (NNS, WINSOCK) for protection in _KERBEROS
)

SPN_ASKED: Final = SPN.parse("echoSvc/srv1.test.example")
ALICE: Final = "alice@TEST.EXAMPLE"
#: Of a length that makes the part of a record that is rotated 64 bytes long when sealed, and 32
#: when signed.
QUESTION: Final = b"what is the question"
ANSWER: Final = QUESTION.upper()


def name(security: SecurityOptions) -> str:
    """A channel as a test's message names it."""
    return f"{security.wire.name}, {security.protection.value}"


def flipped(message: bytes, position: int, bit: int) -> bytes:
    """The message with one bit changed."""
    return message[:position] + bytes([message[position] ^ 1 << bit]) + message[position + 1 :]


def untouched(direction: str, number: int, message: bytes) -> list[bytes | None]:
    """The message as it is."""
    return [message]


def replace(direction: str, number: int, change: Change) -> Tamper:
    """Change one message only."""

    def tamper(where: str, which: int, message: bytes) -> list[bytes | None]:
        return change(message) if (where, which) == (direction, number) else [message]

    return tamper


def flip(position: int, bit: int) -> Change:
    """A change of one bit; of the last byte, in a token that has come out a byte or two shorter
    than usual.
    """
    return lambda message: [flipped(message, min(position, len(message) - 1), bit)]


def cut(direction: str, number: int, end: int) -> Tamper:
    """Let a message through up to this byte, and close the connection."""
    return replace(direction, number, lambda message: [message[:end], None])


def silence(direction: str, number: int, end: int) -> Tamper:
    """Let a message through up to this byte, and nothing after it."""

    def tamper(where: str, which: int, message: bytes) -> list[bytes | None]:
        if where != direction or which < number:
            return [message]
        return [message[:end]] if which == number else []

    return tamper


def numbers(direction: str) -> Iterator[int]:
    """The numbers of a direction's messages, in their order."""
    return (number for number in count() if direction == UP or number != OPENING)


class Splitter:
    """Finds the messages of one direction.

    :param wire: the format; only its header sizes are used here.
    :param direction: :data:`UP` or :data:`DOWN`.
    """

    def __init__(self, wire: Wire, direction: str) -> None:
        self._records = wire is WINSOCK  # its frames look like its records
        self._direction = direction
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that the data completes."""
        self._buffer += data
        while (size := self._size()) is not None and len(self._buffer) >= size:
            message, self._buffer = self._buffer[:size], self._buffer[size:]
            # With Kerberos a client's first message is its only frame, and a service's first done
            # its last.
            self._records = self._records or message[0] == 0x14 or self._direction == UP
            yield message

    def rest(self) -> bytes:
        """Return the bytes left, which are no whole message, and forget them."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _size(self) -> int | None:
        if self._records:  # on winsock the highest bit may be the service's mark
            return (
                4 + (struct.unpack_from("<I", self._buffer)[0] & 0x7FFFFFFF)
                if len(self._buffer) >= 4
                else None
            )
        return 5 + struct.unpack_from(">H", self._buffer, 3)[0] if len(self._buffer) >= 5 else None


@define
class Attempt:
    """How one conversation through the one in the middle went.

    :ivar error: why the client got no connection, or lost it; None where it ended well.
    :ivar server_error: the same for the service; over TCP as far as it allows a client.
    :ivar spn: what the client takes as authenticated.
    :ivar client: what the client's application received.
    :ivar principals: whom the service allowed.
    :ivar server: what the service's application received.
    :ivar proofs: what each side takes as authenticated: protection and flags.
    :ivar gave_up: whether the client closed because what it waited for did not come: an end that no
        side calls an error.
    """

    error: BaseException | None = None
    server_error: BaseException | None = None
    spn: SPN | None = None
    client: bytes = b""
    principals: tuple[str, ...] = ()
    server: bytes = b""
    proofs: set[tuple[Protection, int]] = field(factory=set)
    gave_up: bool = False

    @property
    def harmless(self) -> bool:
        """True if neither side noticed anything."""
        return self.error is None and self.server_error is None and not self.gave_up


def check(
    test: SynchronousTestCase,
    attempt: Attempt,
    what: str,
    *,
    spn: SPN = SPN_ASKED,
    principal: str = ALICE,
    protection: Protection = Protection.SEAL,
    question: bytes = QUESTION,
) -> None:
    """Whatever happened: no peer was taken for another, no protection was lost, and nothing wrong
    was delivered.
    """
    answer = question.upper()
    test.assertIn(attempt.spn, (None, spn), what)
    test.assertTrue(set(attempt.principals) <= {principal}, what)
    # MIT's contexts can always seal, where signing was agreed as well.
    test.assertTrue(
        attempt.proofs <= {(protection, int(protection.requested_flags))}, (what, attempt.proofs)
    )
    test.assertIn(attempt.server, (b"", question), what)
    test.assertIn(attempt.client, (b"", answer), what)
    for error in (attempt.error, attempt.server_error):
        if error is not None:
            test.assertIsInstance(error, (MutualAuthError, ConnectionLost), what)
            test.assertNotIn("\n", str(error), what)
    if attempt.harmless:
        test.assertEqual(
            (attempt.spn, attempt.client, attempt.server), (spn, answer, question), what
        )
        test.assertEqual(attempt.principals, (principal,), what)


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


def asking(context: SecurityContext, security: SecurityOptions, *, closes: bool = True) -> Peer:
    """A client that asks its question.

    :param closes: whether it closes when it has its answer.
    """

    def prepare(application: Recorder) -> None:
        application.on_connect = lambda transport: transport.write(QUESTION)
        if closes:
            application.on_data = lambda transport, data: transport.loseConnection()

    return Peer(context, security, prepare)


def answering(
    context: SecurityContext, security: SecurityOptions, *, closes: bool = False, **options: Any
) -> Peer:
    """A service that answers.

    :param closes: whether it closes behind its answer.
    :param options: of :class:`Peer`.
    """

    def answer(transport: Any, data: bytes) -> None:
        transport.write(data.upper())
        if closes:
            transport.loseConnection()

    return Peer(
        context, security, lambda application: setattr(application, "on_data", answer), **options
    )


class Conversation:
    """One connection between two sides in memory, with an attacker in the middle.

    :param client: see :func:`asking`.
    :param server: see :func:`answering`.
    :param security: what both have agreed on.
    :param tamper: what the one in the middle does to messages.
    :param mute: a direction in which ends of connections do not arrive.
    """

    def __init__(
        self,
        client: Side,
        server: Side,
        security: SecurityOptions,
        tamper: Tamper = untouched,
        mute: str | None = None,
    ) -> None:
        self.client, self.server = client, server
        self._ways = {UP: (client, server), DOWN: (server, client)}
        self._security = security
        self._tamper = tamper
        self._mute = mute
        self._splitters = {
            direction: Splitter(security.wire, direction) for direction in self._ways
        }
        self._numbers = {direction: numbers(direction) for direction in self._ways}
        self._ended: set[str] = set()
        self._gave_up = False

    def hold(self) -> Attempt:
        """Carry it to its end, which has to come when every deadline has passed.

        :raises AssertionError: when a side hangs.
        """
        self._carry()
        # A client's application that waits in vain closes.
        if self.client.give_up():
            self._gave_up = True
            self._carry()
        for wait in (self._security.timeout, LINGER, IDLE, LINGER):
            if not (self.client.lost and self.server.lost):
                self.client.advance(wait)
                self.server.advance(wait)
                self._carry()
        assert self.client.lost, "the client hangs"
        assert self.server.lost, "the service hangs"
        return self._attempt()

    def _carry(self) -> None:
        while self._move(UP) | self._move(DOWN) or self._flush(UP) | self._flush(DOWN):
            pass

    def _move(self, direction: str) -> bool:
        """Carry what one side has written, and its end; whether there was anything."""
        source, target = self._ways[direction]
        data = source.take()
        for message in self._splitters[direction].feed(data):
            for piece in self._tamper(direction, next(self._numbers[direction]), message):
                if piece is None:
                    source.lose()
                    target.lose()
                    return True
                target.receive(piece)
        return self._move_end(direction) or bool(data)

    def _flush(self, direction: str) -> bool:
        """Carry what is not a message: one side read what it got in another way."""
        rest = self._splitters[direction].rest()
        self._ways[direction][1].receive(rest)
        return bool(rest)

    def _move_end(self, direction: str) -> bool:
        """Carry the end of one side's half, and of its connection; whether there was any."""
        source, target = self._ways[direction]
        moved = False
        if source.leaving and not source.lost:
            self._flush(direction)
            source.lose()
            if source.aborted and direction != self._mute:
                target.lose(ConnectionLost())
            moved = True
        if (source.half_closed or source.lost) and direction not in self._ended:
            self._flush(direction)
            self._ended.add(direction)
            if not source.lost:
                source.written()
            if direction != self._mute and not target.lost:
                target.other_ended()
            moved = True
        return moved

    def _attempt(self) -> Attempt:
        attempt = Attempt(self.client.error, self.server.error, gave_up=self._gave_up)
        for peer in (self.client, self.server):
            if (identity := peer.identity) is None:
                continue
            attempt.proofs.add((identity.protection, int(identity.flags)))
            if peer is self.client:
                attempt.spn, attempt.client = identity.spn, peer.received
            else:
                attempt.principals, attempt.server = (identity.principal,), peer.received
        return attempt


class MiddleCase(SynchronousTestCase):
    """A service ``svc-echo`` with its keys, and alice with a ticket for it; no KDC.

    :cvar driver: whether both sides run under the Twisted driver, or bare.
    :cvar size: how many bytes a bare side is given at a time; None: as they come.
    """

    driver = False
    size: int | None = None

    def setUp(self) -> None:
        self.realm = make_realm(self)
        self.keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")))
        self.ccache = self.realm.ccache("alice", str(SPN_ASKED), "svc-echo")

    def initiator(self, security: SecurityOptions) -> KerberosInitiator:
        """Alice's context."""
        return KerberosInitiator(
            SPN_ASKED, ClientCredentials(ccache=self.ccache), security.protection
        )

    def conversation(
        self,
        security: SecurityOptions,
        tamper: Tamper = untouched,
        *,
        mute: str | None = None,
        closes: str = UP,
        keys: ServiceKeys | None = None,
        **options: Any,
    ) -> Conversation:
        """A mutauth client and service.

        :param closes: the direction of whoever closes first.
        :param options: of :class:`Bare` and :class:`Peer`, for the service.
        """
        initiator, acceptor = self.initiator(security), (keys or self.keys).acceptor("client")
        client: Side
        server: Side
        if self.driver:
            client = asking(initiator, security, closes=closes == UP)
            server = answering(acceptor, security, closes=closes == DOWN, **options)
        else:
            client = Bare(
                initiator, security, Script(QUESTION, closes=closes == UP), size=self.size
            )
            answers = Script(answers=True, closes=closes == DOWN)
            server = Bare(acceptor, security, answers, size=self.size, **options)
        return Conversation(client, server, security, tamper, mute)

    def attempt(
        self, security: SecurityOptions, tamper: Tamper = untouched, what: str = "", **options: Any
    ) -> Attempt:
        """Hold a conversation, and see that nothing went wrong that must not."""
        attempt = self.conversation(security, tamper, **options).hold()
        check(self, attempt, f"{name(security)}: {what}", protection=security.protection)
        return attempt

    def messages(self, security: SecurityOptions, **options: Any) -> dict[tuple[str, int], bytes]:
        """Every message of an undisturbed conversation."""
        found: dict[tuple[str, int], bytes] = {}

        def note(direction: str, number: int, message: bytes) -> list[bytes | None]:
            found[direction, number] = message
            return [message]

        self.conversation(security, note, **options).hold()
        return found
