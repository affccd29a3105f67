"""Common ground of the tests of the handshake over TCP: a service, its clients, and somebody in the
middle.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.core.mechanism import Mechanism
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.directory.spns import add_spns, find_account, remove_spns
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.mechanisms.kerberos import ServiceKeys
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.net.server import MutualAuthServerEndpoint
from mutauth_twisted.spn import SPN
from mutauth_twisted.wire import NNS, Wire
from tests.integration.support import require_lab
from tests.support.tampering import DOWN, UP, Splitter, Tamper, numbers

LOOPBACK = "127.0.0.1"


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
        """Fires when this much has come, or with what has when the connection is lost, or when it
        is cancelled.
        """
        wanted: Deferred[bytes] = Deferred(lambda wanted: wanted.callback(self.received))
        self._wanted.append((size, wanted))
        self._check()
        return wanted


#: What becomes of bytes on their way, which takes their direction and gives what is passed on in
#: their place; a None in it closes both connections.
Filter = Callable[[str, bytes], Iterable[bytes | None]]


def by_message(wire: Wire, tamper: Tamper) -> Callable[[], Filter]:
    """A filter of whole messages, for each connection anew."""

    def begin() -> Filter:
        splitters = {each: Splitter(wire, each) for each in (UP, DOWN)}
        counted = {each: numbers(each) for each in (UP, DOWN)}

        def filtered(direction: str, data: bytes) -> Iterator[bytes | None]:
            for message in splitters[direction].feed(data):
                yield from tamper(direction, next(counted[direction]), message)

        return filtered

    return begin


@implementer(IHalfCloseableProtocol)
class _Half(Protocol):
    """One of the two connections of the one in the middle."""

    def __init__(self, direction: str, passed: Filter) -> None:
        self._direction = direction
        self._filter = passed
        self.other: Any = None
        self._early: list[bytes | None] = []
        self._closed = False
        self.ended = False

    def dataReceived(self, data: bytes) -> None:
        for piece in self._filter(self._direction, data):
            self._pass_on(piece)

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


class MiddleFactory(Factory):
    """Takes clients' connections and makes each one's to the service.

    :param begin: gives the filter of a connection.
    """

    noisy = False

    def __init__(self, port: int, begin: Callable[[], Filter]) -> None:
        self._port = port
        self._begin = begin

    def buildProtocol(self, addr: object) -> Protocol:
        passed = self._begin()
        near, far = _Half(UP, passed), _Half(DOWN, passed)

        def join(_: object) -> None:
            near.join(far)
            far.join(near)

        connecting: Deferred[Any] = TCP4ClientEndpoint(reactor, LOOPBACK, self._port).connect(
            one(far)
        )
        connecting.addCallbacks(join, lambda _: cast(Any, near.transport).abortConnection())
        return near


def one(protocol: Protocol) -> Factory[Any]:
    """A factory for a single connection."""
    factory: Factory[Any] = Factory.forProtocol(cast(Any, lambda: protocol))
    factory.noisy = False
    return factory


def say(port: int, data: bytes) -> bytes:
    """Say something on a new connection, and hear the answer to its end; blocks."""
    with socket.create_connection((LOOPBACK, port), 10) as connection:
        connection.settimeout(10)
        connection.sendall(data)
        heard = b""
        while more := connection.recv(65_536):
            heard += more
        return heard


class HandshakeTestCase(TestCase):
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
        self._listens, self._built, self._connected = False, 0, 0
        return ensureDeferred(self._register())

    async def _register(self) -> None:
        directory = Directory(
            reactor,
            DirectoryOptions(nameserver=self.lab.nameserver),
            credentials=ClientCredentials(ccache=self.lab.ccache("administrator")),
        )
        self.addCleanup(directory.close)
        spns = (self.by_host, self.by_dn, self.by_guid)
        await directory.run(
            lambda session: add_spns(session, find_account(session, "svc-echo"), spns)
        )
        self.addCleanup(
            lambda: ensureDeferred(
                directory.run(
                    lambda session: remove_spns(session, find_account(session, "svc-echo"), spns)
                )
            )
        )

    def set_environment(self, **variables: str) -> None:
        """Set variables of this process until the test ends."""
        for name, value in variables.items():
            before = os.environ.get(name)
            os.environ[name] = value
            self.addCleanup(
                os.environ.pop if before is None else os.environ.__setitem__, name, before or ""
            )

    def keys_for(self, package: Mechanism) -> ServiceKeys:
        """The service's keys, for a package."""
        return ServiceKeys(ServiceCredentials(str(self.lab.keytab("svc-echo"))), None, package)

    def listen(
        self,
        keys: ServiceKeys | None = None,
        policy: AccessPolicy | None = None,
        application: type[Application] = Application,
        **options: Any,
    ) -> Deferred[int]:
        """Serve; fires with the port."""

        class Served(Factory):
            noisy = False

            def buildProtocol(factory, addr: object) -> Application:  # noqa: N805
                made = application(answer=bytes.upper)
                self.servers.append(made)
                self._built += 1
                return made

        self._listens = True
        inner = TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK)
        policy = policy or AccessPolicy(allow=(f"*@{self.lab.realm}",))
        listening = MutualAuthServerEndpoint(
            reactor, inner, keys or self.keys, policy, **options
        ).listen(Served())
        return listening.addCallback(self._listening)

    def _listening(self, port: Any) -> int:
        self.addCleanup(port.stopListening)
        return cast(int, port.getHost().port)

    def listen_plainly(self, factory: Factory) -> Deferred[int]:
        """Serve something else."""
        factory.noisy = False
        listening: Deferred[Any] = TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK).listen(
            factory
        )
        return listening.addCallback(self._listening)

    def connect(
        self,
        port: int,
        spn: SPN | None = None,
        credentials: ClientCredentials | None = None,
        security: SecurityOptions = SecurityOptions(),
    ) -> Deferred[Application]:
        """Connect and authenticate, and see a mutauth service have its application too, which takes
        this side's opening.
        """
        return ensureDeferred(self._connect(port, spn, credentials, security))

    async def _connect(self, *arguments: Any) -> Application:
        client = await self.connect_only(*arguments)
        self._connected += 1
        number, mutauth = self._connected, client.protected.peer_identity.mutauth
        while self._listens and mutauth and self._built < number and not client.ended.called:
            await deferLater(cast(IReactorTime, reactor), 0.002)
        return client

    def connect_only(
        self,
        port: int,
        spn: SPN | None = None,
        credentials: ClientCredentials | None = None,
        security: SecurityOptions = SecurityOptions(),
    ) -> Deferred[Application]:
        """Connect and authenticate."""
        inner = TCP4ClientEndpoint(reactor, LOOPBACK, port)
        endpoint = MutualAuthClientEndpoint(
            reactor, inner, spn or self.by_dn, credentials or self.alice, security
        )
        return cast("Deferred[Application]", endpoint.connect(one(Application())))

    async def refused(
        self, connecting: Deferred[Any], kind: type[MutualAuthError], *texts: str
    ) -> MutualAuthError:
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

    def proxy(self, port: int, tamper: Tamper, wire: Wire = NNS) -> Deferred[int]:
        """Put somebody in the middle; fires with the port to connect to."""
        return self.listen_plainly(MiddleFactory(port, by_message(wire, tamper)))
