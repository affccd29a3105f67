"""The backend's connection, and what it is told before the client's first byte."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import AccessDenied, MutualAuthError, NetworkError, UsageError
from mutauth_twisted.gateway.backend import (
    FORGOTTEN,
    Backend,
    Introduction,
    is_local,
    make_backend,
)
from mutauth_twisted.gateway.relay import RelayFactory
from tests.unit.gateway.memory import MemoryEndpoint, MemoryTransport


class _Told(Introduction):
    """Notes what happens to it, and says a line."""

    def __init__(self, name: str, notes: list[object], *, fails: bool = False) -> None:
        self.name, self.notes, self.fails = name, notes, fails

    def connected(self, backend: Any) -> bytes:
        self.notes.append((self.name, "connected", backend))
        if self.fails:
            raise AccessDenied("alice", "she cannot be told of")
        return self.name.encode()

    def closed(self) -> None:
        self.notes.append((self.name, "closed"))


class IntroductionTests(SynchronousTestCase):
    """Bytes that go before the client's."""

    def setUp(self) -> None:
        self.endpoint = MemoryEndpoint()
        self.notes: list[Any] = []
        self.refusals: list[Failure] = []
        self.transport = MemoryTransport()

    def connect(self, *introducers: Any) -> Any:
        """A client's side of the relay."""
        backend = Backend(Clock(), cast(Any, self.endpoint), introducers=introducers)
        client: Any = RelayFactory(backend.connect, self.refusals.append).buildProtocol(None)
        client.makeConnection(self.transport)
        return client

    def test_first(self) -> None:
        """Introductions go first, in their order, each made for this client; then its bytes."""
        seen: list[Any] = []

        def introducer(name: str) -> Any:
            return lambda client: seen.append(client) or _Told(name, self.notes)

        client = self.connect(introducer("one "), introducer("two "))
        client.dataReceived(b"early")
        backend = self.endpoint.succeed()
        self.assertEqual(seen, [self.transport, self.transport])
        self.assertEqual(self.endpoint.transport.value(), b"one two early")
        self.assertEqual(
            self.notes,
            [(name, "connected", self.endpoint.transport) for name in ("one ", "two ")],
        )
        self.notes.clear()
        backend.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.notes, [("one ", "closed"), ("two ", "closed")])

    def test_refused_before(self) -> None:
        """An introduction that cannot be made keeps the backend from being dialled."""

        def refuse(client: Any) -> Introduction:
            raise AccessDenied("alice", "she cannot be told of")

        self.connect(lambda client: _Told("one", self.notes), refuse)
        self.assertIsNone(self.endpoint.factory)
        self.assertTrue(self.transport.aborted)
        self.assertTrue(self.refusals[0].check(AccessDenied))
        self.assertEqual(self.notes, [])

    def test_refused_after(self) -> None:
        """One that fails when the backend is there has both connections aborted, and each that was
        told of it is told of the end.
        """
        client = self.connect(
            lambda client: _Told("one", self.notes),
            lambda client: _Told("two", self.notes, fails=True),
            lambda client: _Told("three", self.notes),
        )
        client.dataReceived(b"secret")
        backend = self.endpoint.succeed()
        self.assertTrue(self.endpoint.transport.aborted and self.transport.aborted)
        self.assertTrue(self.refusals[0].check(AccessDenied))
        self.assertEqual(self.endpoint.transport.value(), b"one")
        self.notes.clear()
        backend.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.notes, [("one", "closed"), ("two", "closed")])

    def test_bind(self) -> None:
        """The backend is dialled from the address that was asked for."""
        reactor = MemoryReactorClock()
        backend = make_backend(reactor, "tcp:127.0.0.1:5432", bind="127.0.0.5")
        self.assertNoResult(backend.connect(self.transport))
        self.assertEqual(reactor.tcpClients[0][:2], ("127.0.0.1", 5432))
        self.assertEqual(reactor.tcpClients[0][4], ("127.0.0.5", 0))


class LocalTests(SynchronousTestCase):
    """Where a plain backend may be."""

    def test_addresses(self) -> None:
        """Loopback in all its forms, and no address or name that may lead elsewhere."""
        for host in (
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "localhost",
            "LocalHost.",
        ):
            self.assertTrue(is_local(host), host)
        for host in ("0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "localhost.example", "", "1"):
            self.assertFalse(is_local(host), host)

    def test_strings(self) -> None:
        """However it is written, a plain backend elsewhere is refused."""
        reactor = MemoryReactorClock()
        for text in (
            "tcp:127.0.0.1:80",
            "tcp:host=localhost:port=80",
            "tcp:\\:\\:1:80",
            "unix:/run/app.sock",
            "tls:db.example:5433",
        ):
            make_backend(reactor, text)
        for text in (
            "tcp:10.0.0.1:80",
            "tcp:host=10.0.0.1:port=80",
            "TCP:db.example:80",
            "tcp:port=80:host=db.example",
            "ssl:db.example:80",
        ):
            error = self.assertRaises(UsageError, make_backend, reactor, text)
            self.assertEqual(error.code, "backend-not-protected", text)
            make_backend(reactor, text, unsafe=True)

    def test_name_that_leads_elsewhere(self) -> None:
        """A local name that is not resolved to this machine is found out before a byte is sent."""
        reactor = MemoryReactorClock()
        backend = make_backend(reactor, "tcp:127.0.0.1:80", [lambda client: _Told("one", [])])
        connecting = backend.connect(MemoryTransport())
        service: Any = reactor.tcpClients[0][2].buildProtocol(None)
        elsewhere = MemoryTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", 80))
        service.makeConnection(elsewhere)
        self.assertTrue(elsewhere.aborted)
        self.assertEqual(elsewhere.value(), b"")
        self.failureResultOf(connecting, UsageError)

    def test_tls_strings(self) -> None:
        """Mistakes in one are said."""
        missing = self.mktemp()
        for text, cause in (
            ("tls:db.example", "a part of it is missing"),
            ("tls:db.example:5433:5434", "one too many"),
            ("tls:db.example:5433:trustRoot=x", "one too many"),
            ("tls:db.example:postgres", "its port is invalid"),
            ("tls:db..example:5433", "not a DNS name"),
            (f"tls:db.example:5433:trustRoots={missing}", "cannot be read"),
        ):
            error = self.assertRaises(MutualAuthError, make_backend, MemoryReactorClock(), text)
            self.assertIn(cause, str(error), text)


class FaultTests(SynchronousTestCase):
    """Knowledge about a backend."""

    def test_counted(self) -> None:
        """Failures are counted, and stand for a while, unless a connection is made."""
        clock, endpoint = Clock(), MemoryEndpoint()
        backend = Backend(clock, cast(Any, endpoint), "tcp:127.0.0.1:80", timeout=3)
        self.assertIsNone(backend.fault)
        for number in (1, 2):
            endpoint.connecting = Deferred()
            connecting = backend.connect(MemoryTransport())
            clock.advance(3)
            error = self.failureResultOf(connecting, NetworkError).value
            self.assertIn("did not answer within 3 s", str(error))
            self.assertEqual((backend.connected, backend.failed), (0, number))
        assert backend.fault is not None
        self.assertEqual(backend.fault.code, "backend-unreachable")
        clock.advance(FORGOTTEN + 1)
        self.assertIsNone(backend.fault)
        endpoint.connecting = Deferred()
        self.failureResultOf(self.failed(backend, endpoint), NetworkError)
        self.assertIsNotNone(backend.fault)
        endpoint.connecting = Deferred()
        backend.connect(MemoryTransport())
        endpoint.succeed()
        self.assertIsNone(backend.fault)
        self.assertEqual((backend.connected, backend.failed), (1, 3))

    def failed(self, backend: Backend, endpoint: MemoryEndpoint) -> Deferred[Any]:
        """A connection that cannot be made."""
        connecting = backend.connect(MemoryTransport())
        endpoint.connecting.errback(ConnectionRefusedError())
        return connecting

    def test_probe(self) -> None:
        """A probe says what it has to without a client, and leaves."""
        endpoint = MemoryEndpoint()
        backend = Backend(Clock(), cast(Any, endpoint), greeting=b"nobody")
        probing = backend.probe()
        endpoint.succeed()
        self.assertIsNone(self.successResultOf(probing))
        self.assertEqual(endpoint.transport.value(), b"nobody")
        self.assertTrue(endpoint.transport.disconnecting)

    def test_gone_before_ready(self) -> None:
        """A connection that ends within its TLS handshake was none."""
        endpoint = MemoryEndpoint()
        backend = Backend(Clock(), cast(Any, endpoint), name="db.example")
        connecting = backend.connect(MemoryTransport())
        service = endpoint.succeed()
        self.assertNoResult(connecting)
        service.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(connecting, NetworkError)
