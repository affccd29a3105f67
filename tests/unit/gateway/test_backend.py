"""The backend's connection, and what it is told before the client's first byte."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import AccessDenied
from mutauth_twisted.gateway.backend import Backend, Introduction, backend_endpoint
from mutauth_twisted.gateway.relay import RelayFactory


class _Transport(StringTransport):
    """Remembers that it was aborted."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class _Endpoint:
    """A client endpoint whose connections the test makes."""

    def __init__(self) -> None:
        self.factory: Any = None
        self.connecting: Deferred[Any] = Deferred()
        self.transport = _Transport()

    def connect(self, factory: Any) -> Deferred[Any]:
        self.factory = factory
        return self.connecting

    def succeed(self) -> Any:
        service = self.factory.buildProtocol(None)
        service.makeConnection(self.transport)
        self.connecting.callback(service)
        return service


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
    """What goes before the client's bytes."""

    def setUp(self) -> None:
        self.endpoint = _Endpoint()
        self.notes: list[Any] = []
        self.refusals: list[Failure] = []
        self.transport = _Transport()

    def connect(self, *introducers: Any) -> Any:
        """A client's side of the relay."""
        backend = Backend(cast(Any, self.endpoint), introducers)
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
        backend = Backend(backend_endpoint(reactor, "tcp:127.0.0.1:5432", "127.0.0.5"))
        self.assertNoResult(backend.connect(self.transport))
        self.assertEqual(reactor.tcpClients[0][:2], ("127.0.0.1", 5432))
        self.assertEqual(reactor.tcpClients[0][4], ("127.0.0.5", 0))
