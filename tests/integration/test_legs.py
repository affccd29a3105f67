"""Packages of five and six tokens, end to end: real endpoints, real TCP and TLS, contexts that are
made up.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any, cast
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.core import connection
from mutauth_twisted.core.channelbinding import TLS_EXPORTER, ChannelBinding
from mutauth_twisted.core.confirmation import Confirming
from mutauth_twisted.core.context import Outcome
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import MutualAuthError, NetworkError, PeerNotAuthenticated
from mutauth_twisted.mechanisms import kerberos
from mutauth_twisted.net import client
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.net.server import MutualAuthServerEndpoint
from mutauth_twisted.protection import Protection
from mutauth_twisted.testing.fakes import SPN_ASKED, FakeContext
from mutauth_twisted.wire import NNS, WINSOCK
from tests.integration.handshake_case import LOOPBACK, Application, Filter, MiddleFactory

TLS = Protection.TLS
CHANNELS = tuple(
    SecurityOptions(wire, protection) for wire in (NNS, WINSOCK) for protection in Protection
)
LEGS = (5, 6)


class Watched(FakeContext):
    """A context that notes at each of its steps whose applications there are, and fails at one."""

    def __init__(
        self, test: LegsTests, *, initiator: bool, legs: int, fails_at: int | None, blocking: bool
    ) -> None:
        super().__init__(initiator=initiator, legs=legs, blocking=blocking)
        self.test = test
        self.fails_at = fails_at
        self.security: ChannelBinding | None = None

    def step(self, token: bytes | None) -> Outcome:
        self.test.steps.append(
            (self.initiator, len(self.steps) + 1, len(self.test.clients), len(self.test.servers))
        )
        if len(self.steps) + 1 == self.fails_at:
            self.fails = PeerNotAuthenticated("the peer", "its token is not liked")
        return super().step(token)


def _confirming(seen: ChannelBinding, context: Any, channel: ChannelBinding) -> Confirming:
    return Confirming(context, seen)


def cut_at(last: int, turns: list[str]) -> Filter:
    """Pass bytes on until it is the turn of what must not arrive."""

    def change(direction: str, data: bytes) -> list[bytes | None]:
        # Both sides speak in turn, so that what comes from the other one now is the next leg.
        if turns[-1:] != [direction]:
            turns.append(direction)
        return [data if len(turns) < last else None]

    return change


class LegsTests(TestCase):
    """Handshakes of a package with any number of tokens."""

    timeout = 60

    def setUp(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget everything."""
        client._fetched.clear()
        self.steps: list[tuple[bool, int, int, int]] = []
        self.clients: list[Application] = []
        self.servers: list[Application] = []
        self.contexts: list[Watched] = []

    async def listen(
        self, security: SecurityOptions, legs: int, fails_at: int | None = None
    ) -> int:
        """Serve through the real endpoint; the port."""
        test = self

        class Keys:
            accepts_replays = False
            authenticates_service = True

            def acceptor(self, peer: str, security: ChannelBinding | None = None) -> Watched:
                made = Watched(test, initiator=False, legs=legs, fails_at=fails_at, blocking=False)
                made.security = security
                test.contexts.append(made)
                return made

        class Served(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> Application:
                test.servers.append(Application(answer=bytes.upper))
                return test.servers[-1]

        inner = TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK)
        policy = AccessPolicy(("alice@TEST.EXAMPLE",))
        endpoint = MutualAuthServerEndpoint(reactor, inner, cast(Any, Keys()), policy, security)
        port: Any = await endpoint.listen(Served())
        self.addCleanup(port.stopListening)
        return cast(int, port.getHost().port)

    def connect(
        self,
        port: int,
        security: SecurityOptions,
        legs: int,
        fails_at: int | None = None,
        *,
        blocking: bool = False,
    ) -> Deferred[Application]:
        """Connect through the real endpoint."""
        test = self

        def initiator(
            spn: object, credentials: object, protection: object, package: object, bound: Any
        ) -> Watched:
            made = Watched(test, initiator=True, legs=legs, fails_at=fails_at, blocking=blocking)
            made.security = bound
            test.contexts.append(made)
            return made

        class Client(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> Application:
                test.clients.append(Application())
                return test.clients[-1]

        self.patch(kerberos, "KerberosInitiator", initiator)
        inner = TCP4ClientEndpoint(reactor, LOOPBACK, port)
        endpoint = MutualAuthClientEndpoint(reactor, inner, SPN_ASKED, security=security)
        return cast("Deferred[Application]", endpoint.connect(Client()))

    def assert_nothing_early(self, what: object) -> None:
        """At no step of either side was there an application on it, nor on the client's before the
        service's last.
        """
        for initiator, number, clients, servers in self.steps:
            self.assertEqual(clients if initiator else servers, 0, (what, initiator, number))

    async def test_all_the_way(self) -> None:
        """Every leg is carried, in order, on either wire and with every protection; only then there
        are applications.
        """
        for security, legs, blocking in product(CHANNELS, LEGS, (False, True)):
            what = (security.wire.name, security.protection.value, legs, blocking)
            self.begin()
            port = await self.listen(security, legs)
            client = await self.connect(port, security, legs, blocking=blocking)
            client.protected.write(b"question")
            self.assertEqual(await client.wait_for(8), b"QUESTION", what)
            self.assertEqual(
                self.servers[0].protected.peer_identity.principal, "alice@TEST.EXAMPLE"
            )
            self.assertEqual(client.protected.peer_identity.protection, security.protection)
            self.assert_nothing_early(what)
            # The initiator's and the acceptor's steps take turns, and each makes the next token.
            order = [(initiator, number) for initiator, number, _, _ in self.steps]
            # Inside TLS, to which the handshake is bound, a context of its own fetches the ticket
            # before the connection.
            fetching = [(True, 1)] * (security.protection is TLS and blocking)
            legs_taken = [(not leg % 2, leg // 2 + 1) for leg in range(6)] + [(True, 4)] * (
                legs == 6
            )
            self.assertEqual(order, fetching + legs_taken, what)
            used = self.contexts[security.protection is TLS :]
            self.assertEqual([context.verified for context in used], [1, 1])
            self.assertEqual(
                [context.verified for context in self.contexts[:-2]], [0] * (len(self.contexts) - 2)
            )
            self.assertEqual(len({context.security for context in used}), 1)
            self.assertIs(used[0].security is None, security.protection is not TLS)
            client.protected.loseConnection()
            reasons = await gatherResults([client.ended, self.servers[0].ended])
            self.assertEqual(
                [type(reason) for reason in reasons], [ConnectionDone, ConnectionDone], what
            )

    async def test_failed(self) -> None:
        """A context that fails at any of its steps has no application, and the peer none that needs
        that step.
        """
        for security, legs, fails in product(CHANNELS, LEGS, ("the client", "the service")):
            for number in range(1, 4 + (legs == 6 and fails == "the client")):
                what = (security.wire.name, security.protection.value, legs, fails, number)
                self.begin()
                at_service = fails == "the service"
                port = await self.listen(security, legs, number if at_service else None)
                connecting = self.connect(port, security, legs, None if at_service else number)
                # A client of five tokens has the last word.  Where nothing says done, and nothing
                # has to be confirmed, that completes it.
                has_last_word = (at_service, legs, number) == (True, 5, 3)
                if has_last_word and security.wire is WINSOCK and security.protection is not TLS:
                    client = await connecting
                    await client.ended
                    self.assertEqual(client.received, b"", what)
                else:
                    await self.assertFailure(connecting, MutualAuthError)
                    self.assertEqual(self.clients, [], what)
                # A service of six tokens has the last word.
                self.assertEqual(len(self.servers), int(not at_service and number == 4), what)
                self.assert_nothing_early(what)
                for server in self.servers:
                    await server.ended
                    self.assertEqual(server.received, b"", what)

    async def test_cut(self) -> None:
        """A connection that is cut at any leg gives nobody an application who still had to hear
        something.
        """
        for security, legs in product(
            (each for each in CHANNELS if each.protection is not TLS), LEGS
        ):
            port = await self.listen(security, legs)
            for last in range(1, 7):
                self.begin()
                what = (security.wire.name, security.protection.value, legs, last)
                turns: list[str] = []
                middle = await self.middle(port, turns, last)
                connecting = self.connect(middle, security, legs)
                # Its own fourth token is what a client still waits for, or the service's word that
                # all is done.
                if security.wire is WINSOCK and legs == 5 and last > 4:
                    client = await connecting
                    client.protected.write(
                        b"question"
                    )  # the service has no word to say before that
                    await client.ended
                    self.assertEqual(client.received, b"", what)
                else:
                    await self.assertFailure(connecting, NetworkError)
                    self.assertEqual(self.clients, [], what)
                self.assertEqual(len(turns), last, what)
                self.assertEqual(len(self.servers), int(last > 5), what)
                self.assert_nothing_early(what)

    async def middle(self, port: int, turns: list[str], last: int) -> int:
        """Somebody who passes on what is said, until it is this one's turn; the port."""
        factory = MiddleFactory(port, lambda: cut_at(last, turns))
        listening: Any = await TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK).listen(factory)
        self.addCleanup(listening.stopListening)
        return cast(int, listening.getHost().port)

    async def test_confirmed_with_the_last_token(self) -> None:
        """With TLS the service's confirmation comes with its last token, and a client without it
        has no application.
        """
        for wire, legs in product((NNS, WINSOCK), LEGS):
            security = SecurityOptions(wire, TLS)
            self.begin()
            port = await self.listen(security, legs)
            # As a relay does: its handshake with the service is bound to its other channel.
            elsewhere = ChannelBinding(TLS_EXPORTER, bytes(32))
            confirming = partial(_confirming, elsewhere)
            with mock.patch.object(connection, "Confirming", confirming):
                error = await self.assertFailure(
                    self.connect(port, security, legs), PeerNotAuthenticated
                )
            self.assertIn("has not confirmed this TLS channel", str(error))
            self.assertEqual(self.clients, [], (wire.name, legs))
            self.assert_nothing_early((wire.name, legs))
