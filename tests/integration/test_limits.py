"""Limits and backpressure with real sockets and real Kerberos."""

from __future__ import annotations

import os
import resource
import socket
import time
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent
from zope.interface import implementer

from mutauth_twisted.errors import NetworkError, PeerRefused, SessionEnded
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.net.protocol import Channel
from mutauth_twisted.net.transport import LINGER
from mutauth_twisted.policy import Protection
from tests.fakes import captured_log
from tests.integration.exchange_case import LOOPBACK, ExchangeTestCase

CLOCK = cast(IReactorTime, reactor)
MEGABYTE = 1 << 20


def memory() -> int:
    """What this process holds in memory, in bytes."""
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


class FloodTests(ExchangeTestCase):
    """Many who prove nothing."""

    def flood(self, port: int, count: int) -> list[socket.socket]:
        """Sockets that say nothing, from ten addresses."""
        sockets = []
        for number in range(count):
            connection = socket.create_connection((LOOPBACK, port), 5, (f"127.77.0.{1 + number % 10}", 0))
            connection.setblocking(False)
            sockets.append(connection)
            time.sleep(0.001)  # the kernel keeps only so many until they are accepted
        return sockets

    @staticmethod
    def closed(connection: socket.socket) -> bool:
        """Whether the service has closed it."""
        try:
            return connection.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    async def test_half_open_sockets(self) -> None:
        """500 silent or dripping sockets leave the service alive, a proven client undisturbed, and go at the deadline."""
        port = await self.listen(channel=Channel(timeout=3.0))
        early = await self.connect(port)
        with captured_log() as events:
            began = CLOCK.seconds()
            sockets = await deferToThread(self.flood, port, 500)
            for connection in sockets:
                self.addCleanup(connection.close)
            await deferLater(CLOCK, 0.3)
            alive = [connection for connection in sockets if not self.closed(connection)]
            self.assertEqual(len(alive), 256)
            await self.assertFailure(self.connect(port), NetworkError)
            early.protected.write(b"still here")
            self.assertEqual(await early.wait_for(10), b"STILL HERE")
            for byte in b"\x16\x01\x00\x0f\xff" + bytes(8):
                for connection in alive[:50]:
                    if not self.closed(connection):
                        connection.send(bytes([byte]))
                await deferLater(CLOCK, 0.1)
            while len([connection for connection in alive if not self.closed(connection)]):
                self.assertLess(CLOCK.seconds() - began, 3.0 + LINGER)
                await deferLater(CLOCK, 0.05)
        late = await self.connect(port)
        late.protected.write(b"hello")
        self.assertEqual(await late.wait_for(5), b"HELLO")
        shortages = [line for event in events if "no more are taken" in (line := formatEvent(event))]
        self.assertEqual(shortages, ["half-open exchanges: there are 256, and no more are taken"])
        for client in (early, late):
            client.protected.loseConnection()
        await gatherResults([early.ended, late.ended])

    async def test_one_address(self) -> None:
        """One address cannot keep the others out."""
        port = await self.listen(limits=Limits(handshakes_per_address=5))
        sockets = [socket.create_connection((LOOPBACK, port), 5, ("127.77.0.1", 0)) for _ in range(20)]
        for connection in sockets:
            self.addCleanup(connection.close)
            connection.setblocking(False)
        await deferLater(CLOCK, 0.1)
        self.assertEqual(len([connection for connection in sockets if not self.closed(connection)]), 5)
        client = await self.connect(port)
        await self.close(client)


class SessionTests(ExchangeTestCase):
    """Proven clients."""

    async def test_full(self) -> None:
        """A client too many is told so, and gets in when another has left."""
        port = await self.listen(limits=Limits(connections=1))
        first = await self.connect(port)
        error: Any = await self.assertFailure(self.connect(port), PeerRefused)
        self.assertIn("as many sessions as it can take", str(error))
        await self.close(first)
        await self.close(await self.connect(port))

    async def test_idle(self) -> None:
        """An idle session ends in order: the client sees the end of the stream, the service's application why."""
        port = await self.listen(limits=Limits(idle=0.4))
        client = await self.connect(port)
        client.protected.write(b"hello")
        await client.wait_for(5)
        self.assertIsInstance(await client.ended, ConnectionDone)
        self.assertIsInstance(await self.servers[0].ended, SessionEnded)

    async def test_small_writes(self) -> None:
        """Neither side's small records wait for an acknowledgement, inside TLS as well."""
        for protection in (Protection.SEAL, Protection.TLS):
            channel = Channel(protection=protection)
            client = await self.connect(await self.listen(channel=channel), channel=channel)
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
            self.assertEqual((transport.getTcpNoDelay(), transport.getTcpKeepAlive()), (value, value))
        await self.close(client)


class BackpressureTests(ExchangeTestCase):
    """A slow reader and a fast writer."""

    timeout = 120

    async def test_sealed(self) -> None:
        """200 MiB through real sockets to a reader that keeps pausing: the writer waits, and memory stays flat."""
        await self.pour(Channel())

    async def test_inside_tls(self) -> None:
        """So it is where TLS has buffers of its own."""
        await self.pour(Channel(protection=Protection.TLS))

    async def pour(self, channel: Channel, total: int = 200 * MEGABYTE) -> None:
        """Send that much to a slow reader."""
        port = await self.listen(channel=channel)
        client = await self.connect(port, channel=channel)
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
