"""A service with small limits, to which a test connects without a network."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.core.channelbinding import ChannelBinding
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.net.server import MutualAuthServerFactory
from mutauth_twisted.testing.fakes import (
    SECRET,
    FakeContext,
    FakeTransport,
    RecorderFactory,
    ThreadedReactor,
)
from mutauth_twisted.wire import NNS

TIMEOUT = SecurityOptions().timeout
TOKEN_1 = NNS.token(SECRET + b"token 1", False)


def address(number: int) -> IAddress:
    """One of many peers."""
    return IPv4Address("TCP", f"192.0.2.{number}", 1024)


class ServiceCase(SynchronousTestCase):
    """A service with small limits."""

    limits = Limits(
        handshakes=4, handshakes_per_address=2, connections=3, waiting=6, waiting_per_address=3
    )

    def setUp(self) -> None:
        self.reactor = ThreadedReactor()
        self.applications = RecorderFactory()
        self.refuse = False
        self.mutauth = False
        keys = cast(Any, self)
        policy = AccessPolicy(allow=("alice@*",))
        self.factory = MutualAuthServerFactory(
            self.reactor, cast(Any, self.applications), keys, policy, limits=self.limits
        )
        self.principal = "alice@TEST.EXAMPLE"
        self.open: list[tuple[Any, FakeTransport]] = []

    accepts_replays = False
    authenticates_service = True

    def acceptor(self, peer: str, security: ChannelBinding | None = None) -> FakeContext:
        """A context; the service's keys are this test's."""
        return FakeContext(initiator=False, principal=self.principal, mutauth=self.mutauth)

    def connect(self, number: int) -> FakeTransport | None:
        """A connection from an address, that says nothing; None: it was closed at once."""
        protocol: Any = self.factory.buildProtocol(address(number))
        transport = FakeTransport()
        protocol.makeConnection(transport)
        if transport.disconnecting:
            protocol.connectionLost()
            return None
        self.open.append((protocol, transport))
        return transport

    def prove(self, number: int) -> FakeTransport:
        """A connection of an authenticated client."""
        transport = self.connect(number)
        assert transport is not None
        self.open[-1][0].dataReceived(TOKEN_1)
        return transport

    def lose(self, which: int = 0) -> None:
        """A connection is gone."""
        protocol, _ = self.open.pop(which)
        protocol.connectionLost()
