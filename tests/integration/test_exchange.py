"""The exchange against a real KDC and over real TCP, with somebody in the middle who means harm."""

from __future__ import annotations

import os
import random
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from attrs import define
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mutauth_twisted.core.context import ServiceKeys
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.directory.connection import Directory
from mutauth_twisted.directory.spns import add_spns, find_account, remove_spns
from mutauth_twisted.dns import Resolver
from mutauth_twisted.errors import (
    CredentialError,
    KDCUnreachable,
    MutualAuthError,
    NetworkError,
    PeerNotProven,
    PeerRefused,
    ProtocolViolation,
    RecordError,
    StreamCut,
)
from mutauth_twisted.net.endpoints import MutualAuthClientEndpoint, MutualAuthServerEndpoint
from mutauth_twisted.net.protocol import Channel
from mutauth_twisted.policy import AccessPolicy, Package, Protection
from mutauth_twisted.spn import SPN
from tests.integration.nns_peer import ALL_FLAGS, NNSPeer, Refused
from tests.integration.support import require_lab

LOOPBACK = "127.0.0.1"
UP, DOWN = "to the service", "to the client"
#: What becomes of one message on its way: none, one or more in its place; a None among them closes the connection.
Change = Callable[[bytes], list[bytes | None]]
Tamper = Callable[[str, int, bytes], list[bytes | None]]


class Application(Protocol):
    """Remembers what it got and how it ended; a service's answers."""

    def __init__(self, answer: Callable[[bytes], bytes] | None = None) -> None:
        self.received = b""
        self.answer = answer
        self.ended: Deferred[BaseException] = Deferred()
        self._wanted: list[tuple[int, Deferred[bytes]]] = []

    @property
    def protected(self) -> Any:
        """The transport."""
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self.answer is not None:
            self.protected.write(self.answer(data))
        self._check()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(cast(BaseException, reason.value))
        self._check()

    def _check(self) -> None:
        for size, wanted in list(self._wanted):
            if len(self.received) >= size or self.ended.called:
                self._wanted.remove((size, wanted))
                if not wanted.called:
                    wanted.callback(self.received)

    def wait_for(self, size: int) -> Deferred[bytes]:
        """Fires when this much has come, or with what has when the connection is lost, or when it is cancelled."""
        wanted: Deferred[bytes] = Deferred(lambda wanted: wanted.callback(self.received))
        self._wanted.append((size, wanted))
        self._check()
        return wanted


@implementer(IHalfCloseableProtocol)
class _Middle(Protocol):
    """One of the two connections of the one in the middle."""

    def __init__(self, direction: str, tamper: Tamper) -> None:
        self.direction = direction
        self.tamper = tamper
        self.other: Any = None
        self._buffer = b""
        self._early: list[bytes | None] = []
        self._records = False
        self._closed = False
        self.ended = False
        self._numbers = count()

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while (size := self._message_size()) is not None and len(self._buffer) >= size:
            message, self._buffer = self._buffer[:size], self._buffer[size:]
            self._records = self._records or message[0] == 0x14 or self.direction == UP
            for piece in self.tamper(self.direction, next(self._numbers), message):
                self._pass_on(piece)

    def _message_size(self) -> int | None:
        # With Kerberos a client's first message is its only frame, and a service's first done its last.
        if self._records:
            return 4 + struct.unpack_from("<I", self._buffer)[0] if len(self._buffer) >= 4 else None
        return 5 + struct.unpack_from(">H", self._buffer, 3)[0] if len(self._buffer) >= 5 else None

    def join(self, other: Any) -> None:
        """Know the other connection."""
        self.other = other
        for data in self._early:
            self._pass_on(data)

    def _pass_on(self, data: bytes | None) -> None:
        if self.other is None:
            self._early.append(data)
        elif data is None:
            self._closed = True
            self.other.transport.loseConnection()
            cast(Any, self.transport).loseConnection()
        elif not self._closed:
            self.other.transport.write(data)

    def readConnectionLost(self) -> None:
        # What came incomplete goes nowhere; an end here is an end there.
        self.ended = True
        if self.other is None or self.other.ended:
            self.connectionLost()
            cast(Any, self.transport).loseConnection()
        else:
            self.other.transport.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        """Part of the interface."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.other is not None:
            self.other.transport.loseConnection()


class _MiddleFactory(Factory):
    """Takes clients' connections and makes each one's to the service."""

    noisy = False

    def __init__(self, port: int, tamper: Tamper) -> None:
        self.port = port
        self.tamper = tamper

    def buildProtocol(self, addr: object) -> Protocol:
        near, far = _Middle(UP, self.tamper), _Middle(DOWN, self.tamper)

        def join(_: object) -> None:
            near.join(far)
            far.join(near)

        connecting: Deferred[Any] = TCP4ClientEndpoint(reactor, LOOPBACK, self.port).connect(_one(far))
        connecting.addCallbacks(join, lambda _: cast(Any, near.transport).abortConnection())
        return near


def _one(protocol: Protocol) -> Factory[Any]:
    factory: Factory[Any] = Factory.forProtocol(cast(Any, lambda: protocol))
    factory.noisy = False
    return factory


@define
class Attempt:
    """How one connection through the one in the middle went.

    :ivar error: why the client got no connection, or lost it; None where it ended well.
    :ivar server_error: the same for the service, as far as it let somebody in.
    :ivar spn: what the client holds proven.
    :ivar client: what the client received.
    :ivar principals: whom the service let in.
    :ivar server: what the service received.
    """

    error: BaseException | None = None
    server_error: BaseException | None = None
    spn: SPN | None = None
    client: bytes = b""
    principals: tuple[str, ...] = ()
    server: bytes = b""


class ExchangeTestCase(TestCase):
    """A service with real SPNs and keys, and alice with a real ticket."""

    timeout = 60

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        self.lab = require_lab()
        self.set_environment(**self.lab.environment("alice"))
        # A cache of our own: the tickets of one test are no other's.
        self.ccache = Path(self.mktemp()).absolute()
        shutil.copy(self.lab.ccache("alice").removeprefix("FILE:"), self.ccache)
        self.alice = ClientCredentials(ccache=f"FILE:{self.ccache}")
        service, host = f"exchange{uuid4().hex[:8]}", self.lab.host("srv1")
        self.by_host = SPN(service, host)
        self.by_dn = SPN(service, host, f"CN={service},CN=SRV1,CN=Computers,{self.lab.base_dn}")
        self.by_guid = SPN(service, host, str(uuid4()))
        self.keys = ServiceKeys(ServiceCredentials(str(self.lab.keytab("svc-echo"))))
        self.servers: list[Application] = []
        return ensureDeferred(self._register())

    async def _register(self) -> None:
        resolver = Resolver(reactor, self.lab.nameserver)
        directory = Directory(
            reactor, resolver=resolver, credentials=ClientCredentials(ccache=self.lab.ccache("administrator"))
        )
        self.addCleanup(directory.close)
        spns = (self.by_host, self.by_dn, self.by_guid)
        await directory.run(lambda session: add_spns(session, find_account(session, "svc-echo"), spns))
        self.addCleanup(
            lambda: ensureDeferred(
                directory.run(lambda session: remove_spns(session, find_account(session, "svc-echo"), spns))
            )
        )

    def set_environment(self, **variables: str) -> None:
        """Set variables of this process until the test ends."""
        for name, value in variables.items():
            before = os.environ.get(name)
            os.environ[name] = value
            self.addCleanup(os.environ.pop if before is None else os.environ.__setitem__, name, before or "")

    def keys_for(self, package: Package) -> ServiceKeys:
        """The service's keys, for a package."""
        return ServiceKeys(ServiceCredentials(str(self.lab.keytab("svc-echo"))), None, package)

    def listen(
        self, keys: ServiceKeys | None = None, application: type[Application] = Application, **options: Any
    ) -> Deferred[int]:
        """Serve; fires with the port."""

        class Served(Factory):
            noisy = False

            def buildProtocol(factory, addr: object) -> Application:  # noqa: N805
                made = application(answer=bytes.upper)
                self.servers.append(made)
                return made

        inner = TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK)
        policy = AccessPolicy(allow=(f"*@{self.lab.realm}",))
        listening = MutualAuthServerEndpoint(reactor, inner, keys or self.keys, policy, **options).listen(Served())
        return listening.addCallback(self._listening)

    def _listening(self, port: Any) -> int:
        self.addCleanup(port.stopListening)
        return cast(int, port.getHost().port)

    def listen_plainly(self, factory: Factory) -> Deferred[int]:
        """Serve something else."""
        factory.noisy = False
        listening: Deferred[Any] = TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK).listen(factory)
        return listening.addCallback(self._listening)

    def connect(
        self,
        port: int,
        spn: SPN | None = None,
        credentials: ClientCredentials | None = None,
        channel: Channel = Channel(),
    ) -> Deferred[Application]:
        """Connect and authenticate."""
        inner = TCP4ClientEndpoint(reactor, LOOPBACK, port)
        endpoint = MutualAuthClientEndpoint(reactor, inner, spn or self.by_dn, credentials or self.alice, channel)
        return cast("Deferred[Application]", endpoint.connect(_one(Application())))

    async def refused(self, connecting: Deferred[Any], kind: type[MutualAuthError], *texts: str) -> MutualAuthError:
        """The connection is refused with one line of this kind, and no application heard of it."""
        error = (await self.assertFailure(connecting, kind)).with_traceback(None)
        self.assertIs(type(error), kind)
        for text in texts:
            self.assertIn(text, str(error))
        self.assertNotIn("\n", str(error))
        self.assertEqual(self.servers, [])
        return cast(MutualAuthError, error)

    async def close(self, client: Application) -> None:
        """Close, and see both ends close."""
        client.protected.loseConnection()
        await gatherResults([client.ended, *(server.ended for server in self.servers)])


class ServiceTests(ExchangeTestCase):
    """Both sides as they should be."""

    async def test_names(self) -> None:
        """The service proves its two-part SPN, and the three-part ones by DN and by GUID; data flows sealed."""
        port = await self.listen()
        for spn in (self.by_host, self.by_dn, self.by_guid):
            client = await self.connect(port, spn)
            client.protected.write(b"hello")
            self.assertEqual(await client.wait_for(5), b"HELLO")
            service, caller = client.protected.peer_identity, self.servers[-1].protected.peer_identity
            self.assertEqual((service.spn, service.principal), (spn, f"{spn}@{self.lab.realm}"))
            self.assertEqual(caller.principal, self.lab.principal("alice"))
            for identity in (service, caller):
                self.assertIs(identity.protection, Protection.SEAL)
                self.assertEqual(identity.flags & Protection.SEAL.required_flags, Protection.SEAL.required_flags)
            await self.close(client)
            self.assertIsInstance(await self.servers[-1].ended, ConnectionDone)

    async def test_signed(self) -> None:
        """Where both sides agreed to sign only, data flows in the clear and protected."""
        channel = Channel(protection=Protection.SIGN)
        seen: list[bytes] = []

        def note(direction: str, number: int, message: bytes) -> list[bytes | None]:
            seen.append(message)
            return [message]

        port = await self.proxy(await self.listen(channel=channel), note)
        client = await self.connect(port, channel=channel)
        client.protected.write(b"for all to read")
        self.assertEqual(await client.wait_for(15), b"FOR ALL TO READ")
        self.assertTrue(any(b"for all to read" in message for message in seen))
        await self.close(client)

    async def test_more_than_the_least(self) -> None:
        """A client that seals meets a service that signs: sealed is what they agree on, as with .NET."""
        seen: list[bytes] = []

        def note(direction: str, number: int, message: bytes) -> list[bytes | None]:
            seen.append(message)
            return [message]

        port = await self.proxy(await self.listen(channel=Channel(protection=Protection.SIGN)), note)
        client = await self.connect(port)
        client.protected.write(b"for us alone")
        self.assertEqual(await client.wait_for(12), b"FOR US ALONE")
        for end in (client, self.servers[0]):
            self.assertEqual(end.protected.peer_identity.protection, Protection.SEAL)
        self.assertFalse(any(b"for us alone" in message for message in seen))
        await self.close(client)

    async def test_large_data(self) -> None:
        """Much data written at once, and closed behind at once, arrives whole at a reader that pauses."""
        data = random.Random(1).randbytes(6_000_000)
        port = await self.listen()
        client = await self.connect(port)
        server = self.servers[0]
        server.answer = None

        def slowly(piece: bytes) -> None:
            server.received += piece
            server.protected.pauseProducing()
            reactor_time = cast(IReactorTime, reactor)
            reactor_time.callLater(0, server.protected.resumeProducing)

        self.patch(server, "dataReceived", slowly)
        client.protected.write(data)
        client.protected.loseConnection()
        self.assertIsInstance(await server.ended, ConnectionDone)
        await client.ended
        self.assertEqual(len(server.received), len(data))
        self.assertTrue(server.received == data)

    async def test_keytab_clients(self) -> None:
        """Many connections at once with a client's keytab share one ticket, and all succeed."""
        bob = ClientCredentials(principal=self.lab.principal("bob"), keytab=str(self.lab.keytab("bob")))
        port = await self.listen()
        clients = await gatherResults([self.connect(port, credentials=bob) for _ in range(8)])
        principals = {server.protected.peer_identity.principal for server in self.servers}
        self.assertEqual(principals, {self.lab.principal("bob")})
        for client in clients:
            client.protected.loseConnection()
        await gatherResults([peer.ended for peer in (*clients, *self.servers)])

    def proxy(self, port: int, tamper: Tamper) -> Deferred[int]:
        """Put somebody in the middle; fires with the port to connect to."""
        return self.listen_plainly(_MiddleFactory(port, tamper))


class RefusalTests(ExchangeTestCase):
    """One side is not what the other wants."""

    async def test_impostor(self) -> None:
        """A service with another account's key is refused, and its own words say why."""
        port = await self.listen(ServiceKeys(ServiceCredentials(str(self.lab.keytab("svc-other")))))
        await self.refused(self.connect(port), PeerRefused, str(self.by_dn), "the service refused the ticket", "another key")

    async def test_silent_impostor(self) -> None:
        """A service without any key that simply says done is refused."""

        class Impostor(Protocol):
            def dataReceived(self, data: bytes) -> None:
                cast(Any, self.transport).write(b"\x14\x01\x00\x00\x00")

        port = await self.listen_plainly(Factory.forProtocol(Impostor))
        error: Any = await self.assertFailure(self.connect(port), MutualAuthError)
        self.assertEqual(error.exit_code, 4)

    async def test_unknown_service(self) -> None:
        """An SPN that nobody registered is refused by the KDC; the service hears nothing of it."""
        port = await self.listen()
        spn = SPN("nobodys", self.lab.host("srv1"))
        await self.refused(self.connect(port, spn), PeerNotProven, "the KDC knows no such service", str(spn))

    async def test_no_ticket(self) -> None:
        """Without a ticket the client is told to get one."""
        port = await self.listen()
        nobody = ClientCredentials(ccache="FILE:/nonexistent/ccache")
        await self.refused(self.connect(port, credentials=nobody), CredentialError, "no Kerberos ticket", "kinit")

    async def test_expired_ticket(self) -> None:
        """With an expired ticket the client is told so."""
        # A domain controller grants no service ticket for one that has less than two minutes left.
        await deferToThread(
            subprocess.run,
            ["kinit", "-l", "5s", "-c", str(self.ccache), self.lab.principal("alice")],
            input=self.lab.password("alice") + "\n",
            text=True,
            capture_output=True,
            check=True,
        )
        port = await self.listen()
        await self.refused(self.connect(port), CredentialError, "expired", "kinit")

    async def test_keytab_of_another(self) -> None:
        """A service whose keytab lacks its principal does not start."""
        with self.assertRaises(CredentialError) as caught:
            ServiceKeys(ServiceCredentials(str(self.lab.keytab("svc-other")), self.lab.principal("svc-echo")))
        self.assertIn("svc-echo", str(caught.exception))

    async def test_kdc_down(self) -> None:
        """A KDC that is down is named as the cause."""
        port = await self.listen()
        self.use_kdc(1)
        await self.refused(self.connect(port), KDCUnreachable, "no KDC answers")

    def use_kdc(self, port: int) -> None:
        """Have new contexts look for the KDC on this port."""
        conf = Path(self.mktemp()).absolute()
        text = self.lab.krb5_conf.read_text().replace(f"kdc = {self.lab.nameserver}", f"kdc = {LOOPBACK}:{port}")
        conf.write_text(text)
        self.set_environment(KRB5_CONFIG=str(conf))

    async def test_stuck_kdc(self) -> None:
        """A KDC that accepts and never answers holds up the client that asked it, and nobody else."""
        asked: Deferred[None] = Deferred()
        kdc: list[Any] = []

        class Stuck(Protocol):
            def connectionMade(self) -> None:
                kdc.append(self.transport)

            def dataReceived(self, data: bytes) -> None:
                if not asked.called:
                    asked.callback(None)

        stuck_port = await self.listen_plainly(Factory.forProtocol(Stuck))
        port = await self.listen()
        self.use_kdc(stuck_port)
        # A service ticket that is in no cache yet, so that the KDC has to be asked.
        stuck = self.connect(port, self.by_guid, channel=Channel(timeout=5))
        results: list[Any] = []
        stuck.addBoth(results.append)
        await asked
        os.environ["KRB5_CONFIG"] = str(self.lab.krb5_conf)
        client = await self.connect(port)
        client.protected.write(b"quick")
        self.assertEqual(await client.wait_for(5), b"QUICK")
        self.assertEqual(results, [])
        stuck.cancel()
        self.assertIsInstance(results[0], Failure)
        self.assertEqual(len(self.servers), 1)
        for transport in kdc:
            transport.abortConnection()
        client.protected.loseConnection()
        await client.ended

    async def test_missing_flags(self) -> None:
        """A client whose context lacks a flag is refused with code 1790, whichever it is."""
        port = await self.listen()
        for flags, unprotected in (
            (ALL_FLAGS & ~2, False),
            (ALL_FLAGS & ~4, False),
            (ALL_FLAGS & ~8, False),
            (ALL_FLAGS & ~16, True),
            (ALL_FLAGS & ~48, True),
        ):
            refused: Any = await self.assertFailure(
                deferToThread(self._raw_client, port, flags=flags, unprotected=unprotected), Refused
            )
            self.assertEqual(refused.code, 1790)
        self.assertEqual(self.servers, [])

    def _raw_client(self, port: int, **options: Any) -> NNSPeer:
        peer = NNSPeer(socket.create_connection((LOOPBACK, port), 10))
        try:
            peer.authenticate_as_client(str(self.by_dn), f"FILE:{self.ccache}", **options)
        except BaseException:
            peer.close()
            raise
        return peer

    async def test_other_protocols(self) -> None:
        """A peer that speaks something else is named as such."""
        for banner in (b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 ESMTP\r\n"):

            class Other(Protocol):
                greeting = banner

                def connectionMade(self) -> None:
                    cast(Any, self.transport).write(self.greeting)

            port = await self.listen_plainly(Factory.forProtocol(Other))
            await self.refused(self.connect(port), ProtocolViolation, "speaks another protocol")

    async def test_peer_closes(self) -> None:
        """A peer that closes in the middle of the exchange is named as such."""

        class Closing(Protocol):
            def dataReceived(self, data: bytes) -> None:
                cast(Any, self.transport).write(b"\x14\x01\x00")
                cast(Any, self.transport).loseConnection()

        port = await self.listen_plainly(Factory.forProtocol(Closing))
        await self.refused(self.connect(port), NetworkError, "closed the connection during the exchange")

    async def test_peer_is_silent(self) -> None:
        """A peer that never answers is given up at the deadline."""
        port = await self.listen_plainly(Factory.forProtocol(Protocol))
        await self.refused(self.connect(port, channel=Channel(timeout=0.3)), NetworkError, "within 0.3 s")

    async def test_nobody_listens(self) -> None:
        """A closed port is named as such."""
        with socket.create_server((LOOPBACK, 0)) as reserved:
            port = reserved.getsockname()[1]
        await self.refused(self.connect(port), NetworkError, "nothing listens there")


class MiddleTests(ExchangeTestCase):
    """Somebody in the middle who can do anything to the bytes, and has no key."""

    async def attempt(self, port: int, tamper: Tamper, *, seconds: float = 5.0) -> Attempt:
        """Connect through the middle, exchange ``question`` and ``QUESTION``, and close."""
        result, first = Attempt(), len(self.servers)
        middle = cast(Any, await TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK).listen(_MiddleFactory(port, tamper)))
        try:
            client = await self.connect(middle.getHost().port, channel=Channel(timeout=seconds))
            result.spn = client.protected.peer_identity.spn
            client.protected.write(b"question")
            waiting = client.wait_for(8)
            # A record that is missing shows when the next one comes: the end of the stream.
            give_up = cast(IReactorTime, reactor).callLater(0.2, waiting.cancel)
            result.client = await waiting
            if give_up.active():
                give_up.cancel()
            client.protected.loseConnection()
            result.error = self.unless_done(await client.ended.addTimeout(seconds, cast(IReactorTime, reactor)))
        except MutualAuthError as error:
            result.error = error
        finally:
            await middle.stopListening()
        servers = self.servers[first:]
        for server in servers:
            result.server_error = self.unless_done(await server.ended.addTimeout(seconds, cast(IReactorTime, reactor)))
        result.principals = tuple(server.protected.peer_identity.principal for server in servers)
        result.server = b"".join(server.received for server in servers)
        return result

    @staticmethod
    def unless_done(reason: BaseException) -> BaseException | None:
        """The reason, unless it is the usual one."""
        return None if isinstance(reason, ConnectionDone) else reason

    def assert_harmless(self, result: Attempt, what: str) -> None:
        """Whatever happened: nobody was taken for another, and nothing wrong was delivered."""
        self.assertIn(result.spn, (None, self.by_dn), what)
        self.assertTrue(set(result.principals) <= {self.lab.principal("alice")}, what)
        self.assertIn(result.server, (b"", b"question"), what)
        self.assertIn(result.client, (b"", b"QUESTION"), what)
        if result.error is None and result.server_error is None:
            self.assertEqual((result.spn, result.client, result.server), (self.by_dn, b"QUESTION", b"question"), what)

    async def many(self, tampers: dict[Any, Tamper]) -> dict[Any, Attempt]:
        """Try each; a few at a time, one after another for the service."""
        port = await self.listen(channel=Channel(timeout=1.0))
        results = {}
        for name, tamper in tampers.items():
            results[name] = await self.attempt(port, tamper, seconds=1.0)
            self.assert_harmless(results[name], str(name))
            self.servers.clear()
        return results

    @staticmethod
    def replace(direction: str, number: int, change: Change) -> Tamper:
        """Change one message only."""

        def tamper(where: str, which: int, message: bytes) -> list[bytes | None]:
            return change(message) if (where, which) == (direction, number) else [message]

        return tamper

    async def tokens(self) -> dict[str, bytes]:
        """Each side's first frame."""
        tokens: dict[str, bytes] = {}

        def note(direction: str, number: int, message: bytes) -> list[bytes | None]:
            tokens.setdefault(direction, message)
            return [message]

        result = await self.attempt(await self.listen(), note)
        self.assertIsNone(result.error)
        self.assertEqual((result.spn, result.client, result.server), (self.by_dn, b"QUESTION", b"question"))
        self.servers.clear()
        return tokens

    @staticmethod
    def flip(position: int, bit: int = 0x08) -> Change:
        """A change of one bit."""

        def change(message: bytes) -> list[bytes | None]:
            # A token's length varies by a byte or two.
            position_in = min(position, len(message) - 1)
            return [message[:position_in] + bytes([message[position_in] ^ bit]) + message[position_in + 1 :]]

        return change

    async def test_flipped_tokens(self) -> None:
        """A byte changed in either side's token gives no connection, except where it means nothing."""
        tokens = await self.tokens()
        tampers: dict[Any, Tamper] = {}
        for direction, step in ((UP, 19), (DOWN, 5)):
            for position in sorted({*range(48), *range(48, len(tokens[direction]), step)}):
                # A changed size makes the receiver wait for the deadline: test_wrong_sizes.
                if position not in (3, 4):
                    tampers[direction, position] = self.replace(direction, 0, self.flip(position))
        results = await self.many(tampers)
        request, reply = tokens[UP], tokens[DOWN]
        meaningless = {
            # MS-NNS ignores the version.
            *((direction, position) for direction in (UP, DOWN) for position in (1, 2)),
            # The message type inside says what the token's identifier said already: MIT does not read it.
            (UP, request.index(b"\xa1\x03\x02\x01\x0e") + 4),
            (DOWN, reply.index(b"\xa1\x03\x02\x01\x0f") + 4),
            # The ticket's name of the service is in the clear; what counts is the key it was made for.
            *((UP, position) for position in range(request.index(b"\xa2\x07\x03\x05\x00"), self._ciphertext(request))),
        }
        passed = {name for name, result in results.items() if result.error is None}
        self.assertEqual(passed - meaningless, set())

    @staticmethod
    def _ciphertext(request: bytes) -> int:
        # The ticket's encryption type (AES-256) and key version, right before what is encrypted.
        return request.index(b"\xa0\x03\x02\x01\x12\xa1\x03\x02\x01") + 10

    async def test_wrong_sizes(self) -> None:
        """A token whose size was changed ends at the deadline at the latest."""

        def resize(size: int) -> Change:
            return lambda message: [message[:3] + struct.pack(">H", size) + message[5:]]

        tampers: dict[Any, Tamper] = {
            (direction, size): self.replace(direction, 0, resize(size)) for direction in (UP, DOWN) for size in (0, 1, 65535)
        }
        results = await self.many(tampers)
        self.assertEqual([name for name, result in results.items() if result.error is None], [])

    async def test_truncated_tokens(self) -> None:
        """A connection that is cut within a token ends at once."""

        def truncate(end: int) -> Change:
            return lambda message: [message[:end], None]

        tokens = await self.tokens()
        port = await self.listen()
        for direction in (UP, DOWN):
            for end in (0, 1, 5, 6, len(tokens[direction]) // 2, len(tokens[direction]) - 10):
                result = await self.attempt(port, self.replace(direction, 0, truncate(end)))
                self.assert_harmless(result, f"{direction} {end}")
                self.assertIsInstance(result.error, NetworkError, f"{direction} {end}")
                self.assertEqual(result.principals, () if direction == UP else (self.lab.principal("alice"),))
                self.servers.clear()

    async def test_replayed_token(self) -> None:
        """A client's whole side of the exchange, sent again by another, opens nothing."""
        said: list[bytes] = []

        def listen(direction: str, number: int, message: bytes) -> list[bytes | None]:
            if direction == UP:
                said.append(message)
            return [message]

        port = await self.listen()
        self.assertIsNone((await self.attempt(port, listen)).error)
        self.servers.clear()

        def replay() -> list[tuple[int, bytes]]:
            peer = NNSPeer(socket.create_connection((LOOPBACK, port), 10))
            peer.socket.sendall(b"".join(said))
            try:
                return [peer.read_frame(), peer.read_frame()]
            finally:
                peer.close()

        frames = await deferToThread(replay)
        self.assertEqual([kind for kind, _ in frames], [0x16, 0x15])
        self.assertEqual(frames[1][1], struct.pack(">Q", 1326))
        self.assertEqual(self.servers, [])

    async def test_records(self) -> None:
        """Records that were changed, dropped, repeated, swapped or invented are never delivered, in either direction."""

        def swap(direction: str) -> Tamper:
            held: list[bytes] = []

            def tamper(where: str, number: int, message: bytes) -> list[bytes | None]:
                if where != direction or number not in (1, 2):
                    return [message]
                held.append(message)
                return [*reversed(held)] if number == 2 else []

            return tamper

        # Of each side's messages the first is its token, the second its announcement, the third its data.
        changes: dict[str, Change] = {
            "dropped": lambda message: [],
            "repeated": lambda message: [message, message],
            "invented before": lambda message: [struct.pack("<I", 60) + bytes(60), message],
            "too small": lambda message: [struct.pack("<I", 4) + bytes(4)],
            "too large": lambda message: [struct.pack("<I", 65537)],
            "of plain text": lambda message: [struct.pack("<I", 8) + b"question"],
            **{f"flipped at {position}": self.flip(position) for position in (4, 5, 6, 8, 12, 20, 30, 50, 67)},
        }
        tampers: dict[Any, Tamper] = {
            (direction, name): self.replace(direction, 2, change)
            for direction in (UP, DOWN)
            for name, change in changes.items()
        }
        for direction in (UP, DOWN):
            tampers[direction, "swapped"] = swap(direction)
            tampers[direction, "announcement dropped"] = self.replace(direction, 1, lambda message: [])
        results = await self.many(tampers)
        for (direction, name), result in results.items():
            if name == "repeated":
                # What came once is genuine; its repetition is not delivered, and ends the connection.
                self.assertIsInstance(result.server_error if direction == UP else result.error, RecordError, direction)
                continue
            receiver = (result.server, result.server_error) if direction == UP else (result.client, result.error)
            self.assertEqual(receiver[0], b"", (direction, name))
            self.assertIsInstance(receiver[1], (RecordError, ProtocolViolation), (direction, name))

    async def test_cut_streams(self) -> None:
        """A stream that is cut between two records is told apart from one that ended, on both sides."""
        for direction, number in ((UP, 3), (DOWN, 3)):
            port = await self.listen()
            middle = await self.listen_plainly(_MiddleFactory(port, self.replace(direction, number, lambda message: [None])))
            client = await self.connect(middle)
            server = self.servers[-1]
            client.protected.write(b"question")
            await client.wait_for(8)
            # The next message is the end of the stream, which never arrives.
            (client if direction == UP else server).protected.loseConnection()
            other = server if direction == UP else client
            self.assertIsInstance(await other.ended, StreamCut)
            await gatherResults([client.ended, server.ended])


class OtherPeerTests(ExchangeTestCase):
    """A peer of another make, as a .NET one: see tests/integration/nns_peer.py."""

    async def test_its_client(self) -> None:
        """Our service serves it; its plain close is a clean end, and our empty records mean nothing to it."""
        port = await self.listen()

        def talk() -> tuple[list[bytes], int]:
            peer = NNSPeer(socket.create_connection((LOOPBACK, port), 10))
            peer.authenticate_as_client(str(self.by_dn), f"FILE:{self.ccache}")
            answers = []
            for question in (b"one", b"two" * 20_000):
                peer.send(question)
                answer = peer.receive()
                while len(answer) < len(question):
                    answer += peer.receive()
                answers.append(answer)
            peer.close()
            return answers, peer.empty_records

        answers, empty = await deferToThread(talk)
        self.assertEqual(answers, [b"ONE", b"TWO" * 20_000])
        self.assertEqual(empty, 1)
        self.assertIsInstance(await self.servers[0].ended, ConnectionDone)
        self.assertEqual(self.servers[0].protected.peer_identity.principal, self.lab.principal("alice"))

    async def test_our_end_to_its_client(self) -> None:
        """When our service closes, it reads the end of the stream."""
        port = await self.listen()

        def talk() -> tuple[bytes, bytes]:
            peer = NNSPeer(socket.create_connection((LOOPBACK, port), 10))
            peer.authenticate_as_client(str(self.by_dn), f"FILE:{self.ccache}")
            peer.send(b"bye")
            answers = peer.receive(), peer.receive()
            peer.close()
            return answers

        talking = deferToThread(talk)
        while not self.servers or not self.servers[0].received:
            await deferLater(cast(IReactorTime, reactor), 0.005)
        self.servers[0].protected.loseConnection()
        self.assertEqual(await talking, (b"BYE", b""))
        await self.servers[0].ended

    async def test_its_service(self) -> None:
        """Our client uses it; its plain close is a clean end."""
        with socket.create_server((LOOPBACK, 0)) as listening:
            listening.settimeout(10)

            def serve() -> tuple[list[bytes], str, int]:
                peer = NNSPeer(listening.accept()[0])
                peer.authenticate_as_server(str(self.lab.keytab("svc-echo")))
                received = [peer.receive()]
                peer.send(received[0].upper())
                peer.send(b"")
                received.append(peer.receive())
                peer.send(received[1].upper())
                name = str(peer.context.initiator_name).rstrip("\0")
                peer.close()
                return received, name, peer.empty_records

            serving = deferToThread(serve)
            client = await self.connect(listening.getsockname()[1])
            for question in (b"one", b"two"):
                client.protected.write(question)
                await client.wait_for(len(client.received) + 3)
            received, name, empty = await serving
        self.assertEqual((received, name, empty), ([b"one", b"two"], self.lab.principal("alice"), 1))
        self.assertEqual(client.received, b"ONETWO")
        self.assertIsInstance(await client.ended, ConnectionDone)
        self.assertEqual(client.protected.peer_identity.spn, self.by_dn)
