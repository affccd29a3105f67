"""Closing with much unsent to a peer that stalls: real endpoints, real TCP and TLS, contexts that
are made up.
"""

from __future__ import annotations

from typing import Any, cast
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import StreamCut
from mutauth_twisted.mechanisms import kerberos
from mutauth_twisted.net import transport
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.net.server import MutualAuthServerEndpoint
from mutauth_twisted.net.sockets import unsent
from mutauth_twisted.protection import Protection
from mutauth_twisted.testing.fakes import SPN_ASKED, FakeContext

HOST = "127.0.0.1"
SIZE = 24 << 20
LINGER = 0.2
CLOCK = cast(IReactorTime, reactor)


@implementer(IPushProducer)
class Echo(Protocol):
    """A service that stalls, and then echoes as fast as its client reads: its own producer."""

    def __init__(self) -> None:
        self.taken = 0
        self.lost: Deferred[BaseException] = Deferred()

    def connectionMade(self) -> None:
        self.network: Any = self.transport
        self.network.registerProducer(self, True)
        self.pauseProducing()

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self.network.pauseProducing()

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self.network.resumeProducing()

    def stopProducing(self) -> None:
        """See IProducer."""

    def dataReceived(self, data: bytes) -> None:
        self.taken += len(data)
        self.network.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.value)


class Writer(Protocol):
    """A client that says all it has to say at once, and closes."""

    def __init__(self) -> None:
        self.lost: Deferred[BaseException] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.value)


class StalledTests(TestCase):
    """A service that stalls for longer than the linger."""

    timeout = 60

    async def close(self, protection: Protection, *, half: bool) -> tuple[Echo, Writer]:
        """Have a client write much to a service that stalls, and close; time passes."""
        self.patch(transport, "LINGER", LINGER)
        keys = mock.Mock(accepts_replays=False, authenticates_service=True)
        keys.acceptor = lambda peer, bound=None: FakeContext(initiator=False, mutauth=True)
        self.patch(
            kerberos, "KerberosInitiator", lambda *_: FakeContext(initiator=True, mutauth=True)
        )
        security = SecurityOptions(protection=protection)
        echo, writer = Echo(), Writer()
        served, asking = Factory(), Factory()
        served.buildProtocol = lambda addr: echo  # type: ignore[method-assign]
        asking.buildProtocol = lambda addr: writer  # type: ignore[method-assign]
        policy = AccessPolicy(("alice@TEST.EXAMPLE",))
        inner = TCP4ServerEndpoint(reactor, 0, interface=HOST)
        service = MutualAuthServerEndpoint(reactor, inner, keys, policy, security)
        port: Any = await service.listen(served)
        self.addCleanup(port.stopListening)
        way = TCP4ClientEndpoint(reactor, HOST, port.getHost().port)
        client = MutualAuthClientEndpoint(reactor, way, SPN_ASKED, security=security)
        await client.connect(asking)
        network: Any = writer.transport
        network.write(bytes(SIZE))
        if half:
            network.loseWriteConnection()
        network.loseConnection()
        await deferLater(CLOCK, 3 * LINGER)
        self.assertGreater(unsent(network.network), 0)
        return echo, writer

    async def assert_all_comes(self, protection: Protection, *, half: bool) -> None:
        """All of it arrives, and both ends are in order."""
        echo, writer = await self.close(protection, half=half)
        echo.resumeProducing()
        self.assertIsInstance(await echo.lost, ConnectionDone)
        self.assertEqual(echo.taken, SIZE)
        self.assertIsInstance(await writer.lost, ConnectionDone)

    async def test_tls(self) -> None:
        """Of TLS, which has no halves."""
        await self.assert_all_comes(Protection.TLS, half=False)

    async def test_tls_by_halves(self) -> None:
        """Of TLS, half by half."""
        await self.assert_all_comes(Protection.TLS, half=True)

    async def test_tcp(self) -> None:
        """Of TCP."""
        await self.assert_all_comes(Protection.SEAL, half=False)

    async def test_tcp_by_halves(self) -> None:
        """Of TCP, half by half."""
        await self.assert_all_comes(Protection.SEAL, half=True)

    async def test_for_good(self) -> None:
        """A service that never goes on is given up, and both applications are told of the loss."""
        self.patch(transport, "STALLED", 5 * LINGER)
        for protection in (Protection.TLS, Protection.SEAL):
            echo, writer = await self.close(protection, half=False)
            self.assertIsInstance(await writer.lost, ConnectionAborted)
            echo.resumeProducing()
            self.assertIsInstance(await echo.lost, StreamCut)
            self.assertLess(echo.taken, SIZE)
