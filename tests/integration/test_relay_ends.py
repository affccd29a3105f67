"""A relay whose client or service is gone, or takes nothing more, with real sockets."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.base import BaseConnector
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from mutauth_twisted.gateway.backend import Backend
from mutauth_twisted.gateway.relay import Relay, RelayFactory
from mutauth_twisted.net import sockets
from mutauth_twisted.testing.fakes import FakeTransport
from tests.integration.reliability_case import reset

CLOCK = cast(IReactorTime, reactor)
HOST = "127.0.0.1"


class RelayTests(TestCase):
    """A relay in this process, between a client and a service whose sockets are the test's."""

    timeout = 60

    def note_ends(self) -> None:
        """Have the legs that are over in ``self.over``."""
        self.over: list[str] = []
        lost = Relay.connectionLost

        def noted(leg: Relay, reason: Any) -> None:
            is_service = isinstance(
                getattr(leg.transport, "connector", leg.transport), BaseConnector
            )
            self.over.append("service" if is_service else "client")
            lost(leg, reason)

        self.patch(Relay, "connectionLost", noted)

    def listening(self) -> socket.socket:
        """Where the service listens."""
        plain = socket.create_server((HOST, 0))
        self.addCleanup(plain.close)
        return plain

    async def relay(self) -> tuple[socket.socket, socket.socket]:
        """The client and the service."""
        self.note_ends()
        plain = self.listening()
        target = TCP4ClientEndpoint(reactor, HOST, plain.getsockname()[1])
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface=HOST).listen(
            RelayFactory(Backend(reactor, target).connect, lambda failure: None)
        )
        self.addCleanup(port.stopListening)
        client = socket.create_connection((HOST, port.getHost().port))
        plain.setblocking(False)
        await self.until(lambda: bool(select.select([plain], [], [], 0)[0]))
        service, _ = plain.accept()
        for each in (client, service):
            each.setblocking(False)
            self.addCleanup(each.close)
        return client, service

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds."""
        while not condition():
            await deferLater(CLOCK, 0.05)

    async def fill(self, client: socket.socket) -> int:
        """Send until nothing is taken any more."""
        sent = blocked = 0
        while blocked < 5:
            try:
                sent += client.send(bytes(65536))
                blocked = 0
            except BlockingIOError:
                blocked += 1
                await deferLater(CLOCK, 0.02)
        return sent

    async def test_reset(self) -> None:
        """A client that has reset is noticed though nobody reads what it sent, and ends the
        connection to the service, which has some time to take it.
        """
        client, _ = await self.relay()
        await self.fill(client)
        reset(client)
        await self.until(lambda: sorted(self.over) == ["client", "service"])

    async def test_reset_by_the_service(self) -> None:
        """So is a service whose answers the client does not take."""
        _, service = await self.relay()
        await self.fill(service)
        reset(service)
        await self.until(lambda: sorted(self.over) == ["client", "service"])

    async def test_closed(self) -> None:
        """A client that has closed in order, and expects no answer, is noticed though the service
        takes nothing.
        """
        self.patch(sockets, "_KEEPALIVE", {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3})
        client, _ = await self.relay()
        # Its kernel forgets the connection after a second, and not after a minute.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)
        client.send(b"all that it says")
        client.close()
        await self.until(lambda: sorted(self.over) == ["client", "service"])

    async def left(self) -> tuple[Relay, socket.socket]:
        """The leg to a service which has yet to take what a client said that has left in order, and
        the service.
        """
        plain = self.listening()
        leg: Relay = await TCP4ClientEndpoint(reactor, HOST, plain.getsockname()[1]).connect(
            Factory.forProtocol(Relay)
        )
        service, _ = plain.accept()
        self.addCleanup(service.close)
        client = Relay()
        client.makeConnection(FakeTransport())
        client.join(leg)
        client.dataReceived(bytes(self.said))
        client.connectionLost(Failure(ConnectionDone()))
        return leg, service

    said = 4 << 20

    async def test_stalled(self) -> None:
        """Bytes of a client that has left, to a service that takes nothing more, are given up after
        a while.
        """
        self.patch(sockets, "STALLED", 2)
        self.note_ends()
        _, service = await self.left()
        await self.until(lambda: self.over == ["client", "service"])
        service.setblocking(True)
        taken = 0
        with contextlib.suppress(ConnectionResetError):
            while data := service.recv(1 << 20):
                taken += len(data)
        self.assertLess(taken, self.said)

    async def test_slow(self) -> None:
        """As long as the service takes something, however slowly, it gets all."""
        self.patch(sockets, "STALLED", 2)
        self.note_ends()
        _, service = await self.left()
        service.setblocking(False)
        taken = 0
        while taken < self.said:
            with contextlib.suppress(BlockingIOError):
                taken += len(service.recv(65536))
            await deferLater(CLOCK, 0.08)
        await self.until(lambda: self.over == ["client", "service"])
        self.assertEqual(service.recv(1), b"")
