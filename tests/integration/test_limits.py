"""Limits and backpressure with real sockets and real Kerberos."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import NetworkError, PeerRefused, SessionEnded
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.net.transport import LINGER
from mutauth_twisted.protection import Protection
from mutauth_twisted.testing.fakes import captured_log
from tests.integration.handshake_case import LOOPBACK, Application, HandshakeTestCase, one

CLOCK = cast(IReactorTime, reactor)
MEGABYTE = 1 << 20


def memory() -> int:
    """Memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@implementer(IPushProducer)
class Source:
    """Writes as fast as it may.

    :param transport: where to.
    :param total: how many bytes.
    """

    piece = os.urandom(65_536)

    def __init__(self, transport: Any, total: int) -> None:
        self.transport = transport
        self.left = total
        self.paused = False
        self.pauses = 0
        transport.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self.paused = True
        self.pauses += 1

    def resumeProducing(self) -> None:
        self.paused = False
        while self.left > 0 and not self.paused:
            self.left -= len(self.piece)
            self.transport.write(self.piece)
        if self.left <= 0 and self.transport is not None:
            transport, self.transport = self.transport, None
            transport.unregisterProducer()
            transport.loseConnection()

    def stopProducing(self) -> None:
        """Part of the interface."""


class Stranger(Protocol):
    """A socket that authenticates nobody: it is silent, or it drips."""

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()

    def drip(self, byte: bytes) -> None:
        """Send a byte."""
        cast(Any, self.transport).write(byte)

    def leave(self) -> None:
        """Go without a word."""
        cast(Any, self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)


class Flood:
    """So many strangers of each address at any time, until it is stopped: one that was closed comes
    back.

    :ivar open: those that are connected.
    :ivar lived: how long those were that are not any more, in seconds.
    """

    def __init__(self, port: int, hosts: Sequence[str], each: int) -> None:
        self.open: set[Stranger] = set()
        self.lived: list[float] = []
        self._port = port
        self._going_on = True
        self._all = gatherResults(
            [ensureDeferred(self._come(host)) for host in hosts for _ in range(each)]
        )

    async def _come(self, host: str) -> None:
        endpoint = TCP4ClientEndpoint(reactor, LOOPBACK, self._port, bindAddress=(host, 0))
        while self._going_on:
            stranger: Stranger = await endpoint.connect(one(Stranger()))
            began = CLOCK.seconds()
            self.open.add(stranger)
            if not self._going_on:
                stranger.leave()
            await stranger.gone
            self.open.remove(stranger)
            self.lived.append(CLOCK.seconds() - began)
            await deferLater(CLOCK, 0.05)  # service and clients share this process with it

    async def stop(self) -> None:
        """Have them all go for good."""
        self._going_on = False
        for stranger in tuple(self.open):
            stranger.leave()
        await self._all


class CrowdCase(HandshakeTestCase):
    """Honest clients, many at once."""

    timeout = 120
    security = SecurityOptions()

    async def serve(self, port: int, host: str) -> bool:
        """Be an honest client of an address, for one question; whether it was answered."""
        inner = TCP4ClientEndpoint(reactor, LOOPBACK, port, bindAddress=(host, 0))
        endpoint = MutualAuthClientEndpoint(reactor, inner, self.by_dn, self.alice, self.security)
        try:
            client: Any = await endpoint.connect(one(Application()))
        except NetworkError:
            return False
        client.protected.write(b"hello")
        answered: bool = await client.wait_for(5) == b"HELLO"
        client.protected.loseConnection()
        await client.ended
        return answered

    def crowd(self, port: int, hosts: Iterable[str]) -> Deferred[list[bool]]:
        """Honest clients of these addresses, all at once."""
        return gatherResults([ensureDeferred(self.serve(port, host)) for host in hosts])


class FloodTests(CrowdCase):
    """Many unauthenticated clients, and honest clients beside them."""

    strangers = tuple(f"127.77.0.{number}" for number in range(1, 11))

    async def test_half_open_sockets(self) -> None:
        """500 silent or dripping sockets of ten addresses, which come back when they are closed,
        leave the service alive and a client undisturbed; each goes at its deadline, and honest
        clients of other addresses are all served."""
        timeout = 4.0
        port = await self.listen(security=SecurityOptions(timeout=timeout))
        early = await self.connect(port)
        flood = Flood(port, self.strangers, 50)
        self.addCleanup(flood.stop)
        with captured_log() as events:
            while len(flood.open) < 500:
                await deferLater(CLOCK, 0.01)
            early.protected.write(b"still here")
            self.assertEqual(await early.wait_for(10), b"STILL HERE")
            await deferLater(
                CLOCK, timeout / 2
            )  # slots become free at the strangers' deadline, which is before theirs
            honest = self.crowd(port, [f"127.78.0.{1 + number % 4}" for number in range(40)])
            same = self.crowd(port, self.strangers)
            for byte in b"\x16\x01\x00\x0f\xff" + bytes(8):
                for stranger in list(flood.open)[:50]:
                    stranger.drip(bytes([byte]))
                await deferLater(CLOCK, 0.1)
            self.assertEqual(await honest, [True] * 40)
            await same  # how many of these were served is a matter of the flood
            while len(flood.lived) < 250:
                await deferLater(CLOCK, 0.05)
            self.assertLess(max(flood.lived), timeout + LINGER)
        await flood.stop()
        late = await self.connect(port)
        late.protected.write(b"hello")
        self.assertEqual(await late.wait_for(5), b"HELLO")
        self.assertEqual(
            [
                line
                for event in events
                if "connections as may are waiting" in (line := formatEvent(event))
            ],
            [],
        )
        for client in (early, late):
            client.protected.loseConnection()
        await gatherResults([client.ended for client in (early, late)])

    async def test_more_than_may_wait(self) -> None:
        """Strangers that fill the queue are closed at once beyond their share, and displaced by
        honest clients of other addresses, who are all served."""
        limits = Limits(handshakes=20, handshakes_per_address=4, waiting=30, waiting_per_address=20)
        port = await self.listen(security=SecurityOptions(timeout=4.0), limits=limits)
        with captured_log() as events:
            flood = Flood(port, self.strangers[:5], 30)
            self.addCleanup(flood.stop)
            while not any(
                "connections as may are waiting" in formatEvent(event) for event in events
            ):
                await deferLater(CLOCK, 0.01)
            await deferLater(CLOCK, 2)
            self.assertEqual(
                await self.crowd(port, [f"127.78.0.{number}" for number in range(1, 21)]),
                [True] * 20,
            )
        await flood.stop()

    async def test_one_address(self) -> None:
        """One address, whatever it does, neither keeps the others out nor holds them up."""
        port = await self.listen(limits=Limits(handshakes_per_address=5, waiting_per_address=5))
        flood = Flood(port, self.strangers[:1], 20)
        self.addCleanup(flood.stop)
        while len(flood.open) < 10:
            await deferLater(CLOCK, 0.01)
        client = await self.connect(port)
        await self.close(client)
        await flood.stop()


class BurstTests(CrowdCase):
    """Honest clients that come together."""

    async def test_bursts(self) -> None:
        """200 clients of one address at once, three times in a row, are all served, inside TLS as
        well.
        """
        for protection in (Protection.SEAL, Protection.TLS):
            self.security = SecurityOptions(protection=protection)
            port = await self.listen(security=self.security)
            for _ in range(3):
                self.assertEqual(await self.crowd(port, [LOOPBACK] * 200), [True] * 200)


class SessionTests(HandshakeTestCase):
    """Authenticated clients."""

    async def test_full(self) -> None:
        """A client too many is told so, and gets in when another has left."""
        port = await self.listen(limits=Limits(connections=1))
        first = await self.connect(port)
        error: Any = await self.assertFailure(self.connect(port), PeerRefused)
        self.assertIn("as many sessions as it can take", str(error))
        await self.close(first)
        await self.close(await self.connect(port))

    async def test_idle(self) -> None:
        """An idle session ends in order: the client sees the end of the stream, the service's
        application why.
        """
        port = await self.listen(limits=Limits(idle=0.4))
        client = await self.connect(port)
        client.protected.write(b"hello")
        await client.wait_for(5)
        self.assertIsInstance(await client.ended, ConnectionDone)
        self.assertIsInstance(await self.servers[0].ended, SessionEnded)

    async def test_small_writes(self) -> None:
        """Neither side's small records wait for an acknowledgement, inside TLS as well."""
        for protection in (Protection.SEAL, Protection.TLS):
            security = SecurityOptions(protection=protection)
            client = await self.connect(await self.listen(security=security), security=security)
            for side in (client, *self.servers):
                self.assertTrue(side.protected.getTcpNoDelay())
            await self.close(client)
            self.servers.clear()

    async def test_tcp(self) -> None:
        """An application may set what TCP offers, and sees it set."""
        port = await self.listen()
        client = await self.connect(port)
        transport = client.protected
        for value in (True, False, True):
            transport.setTcpNoDelay(value)
            transport.setTcpKeepAlive(value)
            self.assertEqual(
                (transport.getTcpNoDelay(), transport.getTcpKeepAlive()), (value, value)
            )
        await self.close(client)


class BackpressureTests(HandshakeTestCase):
    """A slow reader and a fast writer."""

    timeout = 120

    async def test_sealed(self) -> None:
        """200 MiB through real sockets to a reader that keeps pausing: the writer waits, and memory
        stays flat.
        """
        await self.pour(SecurityOptions())

    async def test_inside_tls(self) -> None:
        """So it is where TLS has buffers of its own."""
        await self.pour(SecurityOptions(protection=Protection.TLS))

    async def pour(self, security: SecurityOptions, total: int = 200 * MEGABYTE) -> None:
        """Send that much to a slow reader."""
        port = await self.listen(security=security)
        client = await self.connect(port, security=security)
        server = self.servers[0]
        received, highest = 0, 0
        resuming: list[IDelayedCall] = []

        def slowly(piece: bytes) -> None:
            nonlocal received, highest
            before, received = received, received + len(piece)
            if received < total and before // (4 * MEGABYTE) != received // (4 * MEGABYTE):
                highest = max(highest, memory())
                server.protected.pauseProducing()
                resuming.append(CLOCK.callLater(0.02, server.protected.resumeProducing))

        self.patch(server, "dataReceived", slowly)
        before = memory()
        source = Source(client.protected, total)
        self.assertIsInstance(await server.ended, ConnectionDone)
        await client.ended
        for call in resuming:  # what TLS still held was delivered with the end
            if call.active():
                call.cancel()
        self.assertEqual(received, total)
        self.assertGreater(source.pauses, 50)
        self.assertLess(highest - before, 24 * MEGABYTE)
