"""A protocol is tested with an authenticated peer, as the kit's page says."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mutauth_twisted import testing
from mutauth_twisted.errors import MutualAuthError, SessionEnded
from mutauth_twisted.interfaces import IMutualAuthTransport, ISessionEnding
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.testing import Recorder, RecorderFactory, authenticated_pair


class Greeter(Protocol):
    """Greets whoever speaks."""

    def dataReceived(self, data: bytes) -> None:
        identity = self.transport.peer_identity
        self.transport.write(data + b", " + identity.principal.encode())


class PairTests(SynchronousTestCase):
    """Both sides of an authenticated connection."""

    def test_the_page(self) -> None:
        """The example of the kit's page."""
        pair = authenticated_pair(
            Factory.forProtocol(Greeter), RecorderFactory(), principal="bob@EXAMPLE.COM"
        )
        pair.client.transport.write(b"hello")
        self.assertEqual(pair.client.received, [])
        pair.flush()
        self.assertEqual(pair.client.received, [b"hello, bob@EXAMPLE.COM"])

    def test_names(self) -> None:
        """Names on the page are there, and those that are there are on the page."""
        for name in testing.__all__:
            self.assertTrue(hasattr(testing, name), name)
            self.assertIn(name.removeprefix("Authenticated").lower(), str(testing.__doc__).lower())
        self.assertFalse(hasattr(testing, "nothing"))

    def test_identities(self) -> None:
        """Each side is told of the other what the test has chosen."""
        pair = authenticated_pair(
            RecorderFactory(),
            RecorderFactory(),
            principal="bob@EXAMPLE.COM",
            groups=("S-1-5-21-1-2-3-1104",),
            spn="echo/srv9.example.com/x",
        )
        for side in (pair.server, pair.client):
            verifyObject(IMutualAuthTransport, side.transport)
        client, service = (side.transport.peer_identity for side in (pair.server, pair.client))
        self.assertEqual((client.principal, client.spn), ("bob@EXAMPLE.COM", None))
        self.assertEqual(client.groups, ("S-1-5-21-1-2-3-1104",))
        self.assertEqual(str(service.spn), "echo/srv9.example.com/x")
        self.assertEqual(service.principal, "echo/srv9.example.com/x@EXAMPLE.COM")

    def test_endings(self) -> None:
        """A side that ends is told apart from a connection that breaks."""
        pair = authenticated_pair(RecorderFactory(), RecorderFactory())
        pair.server.transport.write(b"last words")
        pair.server.transport.loseConnection()
        pair.flush()
        self.assertEqual(pair.client.received, [b"last words"])
        for side in (pair.server, pair.client):
            self.assertIsInstance(side.reason, ConnectionDone)
        pair = authenticated_pair(RecorderFactory(), RecorderFactory())
        pair.cut()
        for side in (pair.server, pair.client):
            self.assertEqual(side.events[-1], "lost")
            self.assertNotIsInstance(side.reason, ConnectionDone)

    def test_limits(self) -> None:
        """A server's limits hold, and tell the application beforehand."""

        @implementer(ISessionEnding)
        class Told(Recorder):
            def sessionEnding(self, seconds: float) -> None:
                self.events.append(f"{seconds:.0f} s")

        pair = authenticated_pair(
            Factory.forProtocol(Told), RecorderFactory(), limits=Limits(session=600)
        )
        pair.advance(540)
        self.assertEqual(pair.server.events, ["made", "60 s"])
        pair.advance(60)
        self.assertIsInstance(pair.server.reason, SessionEnded)
        self.assertEqual(pair.client.events, ["made", "lost"])

    def test_turned_away(self) -> None:
        """A factory that builds no protocol fails the test with what the client is told."""

        class Refusing(RecorderFactory):
            def buildProtocol(self, addr: Any) -> None:
                return None

        self.assertRaises(MutualAuthError, authenticated_pair, Refusing(), RecorderFactory())
