"""Connecting to a host whose addresses are looked up once."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.endpoints.hosts import HostEndpoint
from mutauth_twisted.endpoints.locations import Locations
from mutauth_twisted.errors import NetworkError


class HostTests(SynchronousTestCase):
    """One host's port."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.lookups = 0
        self.answer = ["192.0.2.1"]
        self.addresses: Locations[str] = Locations(
            self.reactor, self.lookup, 60.0, self.reactor.seconds
        )

    def lookup(self) -> Deferred[list[str]]:
        self.lookups += 1
        return succeed(self.answer)

    def endpoint(self, host: str = "srv1.example.com", **options: bool) -> HostEndpoint:
        return HostEndpoint(self.reactor, host, 9000, self.addresses, **options)

    def asked(self, endpoint: HostEndpoint) -> list[tuple[Any, Any]]:
        """Where a connection that begins now is tried."""
        before = len(self.reactor.tcpClients)
        connecting = endpoint.connect(Factory.forProtocol(Protocol))
        self.addCleanup(connecting.addErrback, lambda _: None)
        self.addCleanup(connecting.cancel)
        self.reactor.advance(1)
        return [call[:2] for call in self.reactor.tcpClients[before:]]

    def test_one_lookup(self) -> None:
        """Connections share an answer; one that did not do is asked for again."""
        for _ in range(3):
            self.assertEqual(self.asked(self.endpoint()), [("192.0.2.1", 9000)])
        self.assertEqual(self.lookups, 1)
        endpoint = self.endpoint()
        endpoint.doubt()  # it has not even been tried
        self.asked(endpoint)
        self.assertEqual(self.lookups, 1)
        self.answer = ["2001:db8::1"]
        endpoint.doubt()
        self.assertEqual(self.asked(self.endpoint()), [("2001:db8::1", 9000)])
        self.assertEqual(self.lookups, 2)

    def test_a_second_attempt(self) -> None:
        """It does not use the answer of a moment ago with which the first one has failed, but waits
        for another.
        """
        endpoint = self.endpoint()
        connecting = endpoint.connect(Factory.forProtocol(Protocol))
        self.answer = ["192.0.2.2"]
        endpoint.doubt()
        connecting.cancel()
        self.failureResultOf(connecting)
        before = len(self.reactor.tcpClients)
        again = self.endpoint(again=True).connect(Factory.forProtocol(Protocol))
        self.assertEqual((self.lookups, len(self.reactor.tcpClients)), (1, before))
        self.reactor.advance(1)
        self.assertEqual(self.reactor.tcpClients[-1][:2], ("192.0.2.2", 9000))
        again.cancel()
        self.failureResultOf(again)

    def test_several_addresses(self) -> None:
        """All of them are tried, without another lookup."""
        self.answer = ["192.0.2.1", "2001:db8::1"]
        self.assertEqual(
            set(self.asked(self.endpoint())), {("192.0.2.1", 9000), ("2001:db8::1", 9000)}
        )
        self.assertEqual(self.lookups, 1)

    def test_tried(self) -> None:
        """The addresses are told where the host is a name, and once they are known."""
        endpoint = self.endpoint()
        self.assertEqual(endpoint.tried, "")
        self.asked(endpoint)
        self.assertEqual(endpoint.tried, "192.0.2.1")
        literal = self.endpoint("192.0.2.1")
        self.asked(literal)
        self.assertEqual(literal.tried, "")

    def test_patience(self) -> None:
        """Connecting has no deadline of its own, with one address or several: whoever connects has
        one.
        """
        for self.answer in (["192.0.2.1"], ["192.0.2.1", "2001:db8::1"]):
            self.addresses = Locations(self.reactor, self.lookup, 60.0, self.reactor.seconds)
            before = len(self.reactor.tcpClients)
            self.assertEqual(len(self.asked(self.endpoint())), len(self.answer))
            self.assertEqual({call[3] for call in self.reactor.tcpClients[before:]}, {3600})

    def test_invalid_names(self) -> None:
        """A name that cannot be in DNS is an error, and nothing is asked."""
        for host in ("bad..example.com", "x" * 64 + ".example.com"):
            failed = self.endpoint(host).connect(Factory.forProtocol(Protocol))
            self.assertIn(
                "invalid host name", str(self.failureResultOf(failed, NetworkError).value)
            )
        self.assertEqual(self.lookups, 0)
