"""Connections that balancers have accepted."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mutauth_twisted.errors import MutualAuthError, UsageError
from mutauth_twisted.gateway.balancer import BalancedFactory, Balancers, check_balancer
from mutauth_twisted.gateway.proxyprotocol import ProxyHeader

BALANCER = IPv4Address("TCP", "10.0.0.5", 40000)
CLIENT = IPv4Address("TCP", "192.0.2.7", 50000)
VIRTUAL = IPv4Address("TCP", "192.0.2.1", 9000)
HEADER = ProxyHeader(CLIENT, VIRTUAL).encode()


@implementer(IHalfCloseableProtocol)
class Served(Protocol):
    """Protocol that serves clients; it may wait unread for its turn."""

    waits = False

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.ends: list[str] = []

    def connectionMade(self) -> None:
        if self.waits:
            self.network.pauseProducing()

    @property
    def network(self) -> Any:
        """Its transport."""
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        self.said.append(data)

    def readConnectionLost(self) -> None:
        self.ends.append("read")

    def writeConnectionLost(self) -> None:
        self.ends.append("write")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ends.append("lost")


class Waiting(Served):
    """Such a one."""

    waits = True


class BalancerTests(SynchronousTestCase):
    """A factory that is given its clients' addresses."""

    most = 3
    trusted: ClassVar[tuple[str, ...]] = ("10.0.0.0/28", "2001:db8::/64")

    def setUp(self) -> None:
        self.clock = Clock()
        self.built: list[tuple[Any, Served]] = []
        self.errors: list[MutualAuthError] = []
        self.protocol = Served

    def connect(self, peer: Any = BALANCER, trusted: tuple[str, ...] = trusted) -> Any:
        """A connection from an address; its protocol, and its transport."""
        test = self

        class Wrapped(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Served:
                test.built.append((addr, test.protocol()))
                return test.built[-1][1]

        if not hasattr(self, "factory"):
            self.factory = BalancedFactory(
                self.clock,
                Wrapped(),
                Balancers(trusted),
                10,
                self.most,
                lambda _, error: self.errors.append(error),
            )
        transport: Any = StringTransport(peerAddress=peer)
        protocol = self.factory.buildProtocol(peer)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return protocol, transport

    def test_header(self) -> None:
        """The client's protocol gets what is behind the header, and sees the client's addresses."""
        protocol, transport = self.connect()
        for number in range(len(HEADER)):
            self.assertEqual(self.built, [])
            protocol.dataReceived(HEADER[number : number + 1])
        ((address, served),) = self.built
        protocol.dataReceived(b"hello")
        self.assertEqual((address, served.said), (CLIENT, [b"hello"]))
        self.assertEqual((served.network.getPeer(), served.network.getHost()), (CLIENT, VIRTUAL))
        served.network.write(b"answer")
        self.assertEqual(transport.value(), b"answer")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.factory.awaited, 0)

    def test_ends(self) -> None:
        """Halves and ends come to the client's protocol, if it has halves."""
        protocol, _ = self.connect()
        self.assertFalse(IHalfCloseableProtocol.providedBy(protocol))
        protocol.dataReceived(HEADER)
        self.assertTrue(IHalfCloseableProtocol.providedBy(protocol))
        protocol.readConnectionLost()
        protocol.writeConnectionLost()
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.built[0][1].ends, ["read", "write", "lost"])

    def test_with_the_header(self) -> None:
        """Bytes that come in the header's segment are kept from a protocol that waits its turn."""
        self.protocol = Waiting
        protocol, transport = self.connect()
        protocol.dataReceived(HEADER + b"hello")
        served = self.built[0][1]
        self.assertEqual((served.said, transport.producerState), ([], "paused"))
        served.network.resumeProducing()
        self.assertEqual(served.said, [])  # not from within the turn of another
        self.clock.advance(0)
        self.assertEqual((served.said, transport.producerState), ([b"hello"], "producing"))

    def test_lost_while_it_waits(self) -> None:
        """They are dropped when the connection ends before the turn comes."""
        self.protocol = Waiting
        protocol, _ = self.connect()
        protocol.dataReceived(HEADER + b"hello")
        served = self.built[0][1]
        served.network.resumeProducing()
        protocol.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(0)
        self.assertEqual((served.said, served.ends), ([], ["lost"]))

    def test_others(self) -> None:
        """Those who are no balancers are themselves, and a header of theirs is nothing but data."""
        for peer in (CLIENT, IPv6Address("TCP", "2001:db9::1", 1), UNIXAddress(b"/x")):
            protocol, _ = self.connect(peer)
            protocol.dataReceived(HEADER)
            address, served = self.built.pop()
            self.assertEqual((address, served.said), (peer, [HEADER]))

    def test_unix(self) -> None:
        """All who connect to a UNIX socket are believed where that is said."""
        protocol, _ = self.connect(UNIXAddress(None), ("unix",))
        protocol.dataReceived(HEADER)
        self.assertEqual(self.built[0][0], CLIENT)

    def test_mapped(self) -> None:
        """An IPv4 balancer is the same on a listener for both versions of IP."""
        protocol, _ = self.connect(IPv6Address("TCP", "::ffff:10.0.0.5", 1))
        protocol.dataReceived(HEADER)
        self.assertEqual(self.built[0][0], CLIENT)

    def test_own(self) -> None:
        """A balancer that connects for itself, to see whether it works, is itself."""
        protocol, _ = self.connect()
        protocol.dataReceived(ProxyHeader(local=True).encode())
        self.assertEqual(self.built, [])
        protocol.dataReceived(b"token")
        self.assertEqual(self.built[0][0], BALANCER)
        self.assertEqual((self.factory.awaited, self.clock.getDelayedCalls()), (0, []))

    def test_probe(self) -> None:
        """One that says nothing and leaves, or stays until the deadline, is not worth a word."""
        for leaves in (True, False):
            protocol, transport = self.connect()
            protocol.dataReceived(ProxyHeader(local=True).encode())
            if not leaves:
                self.clock.advance(self.factory.timeout)
                self.assertTrue(transport.disconnecting)
            protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.built, self.errors), ([], []))
        self.assertEqual((self.factory.awaited, self.clock.getDelayedCalls()), (0, []))

    def test_no_header(self) -> None:
        """Anything else of a balancer's is refused with the first byte that shows it."""
        for data in (b"\x16\x01", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", HEADER[:12] + b"\x31"):
            protocol, transport = self.connect()
            protocol.dataReceived(data)
            self.assertTrue(transport.disconnected)
            protocol.dataReceived(HEADER)
            protocol.connectionLost(Failure(ConnectionDone()))
            error = self.errors.pop()
            self.assertEqual(error.code, "proxy-header-invalid")
            self.assertIn("PROXY header of 10.0.0.5: ", str(error))
        self.assertEqual((self.built, self.errors), ([], []))
        self.assertEqual((self.factory.awaited, self.clock.getDelayedCalls()), (0, []))

    def test_silence(self) -> None:
        """A header has a deadline, which bytes of it do not move."""
        protocol, transport = self.connect()
        for byte in HEADER[:9]:
            protocol.dataReceived(bytes([byte]))
            self.clock.advance(1)
        self.assertFalse(transport.disconnected)
        self.clock.advance(1)
        self.assertTrue(transport.disconnected)
        self.assertIn("none came within 10 s", str(self.errors))
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.factory.awaited, 0)

    def test_left(self) -> None:
        """One that connects and leaves, as balancers do to see whether it listens, is no error."""
        protocol, _ = self.connect()
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((self.errors, self.factory.awaited), ([], 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_many(self) -> None:
        """So many headers are waited for, and no more."""
        kept = [self.connect() for _ in range(self.most)]
        _, transport = self.connect()
        self.assertTrue(transport.disconnected)
        self.assertEqual(len(self.errors), 1)
        kept[0][0].connectionLost(Failure(ConnectionDone()))
        _, transport = self.connect()
        self.assertFalse(transport.disconnected)


class TextTests(SynchronousTestCase):
    """Balancers as they are written."""

    def test_right(self) -> None:
        """Addresses, networks, and UNIX sockets."""
        for text in ("10.0.0.5", "10.0.0.0/28", "2001:db8::5", "2001:db8::/64", "unix"):
            self.assertEqual(check_balancer(text), text)

    def test_wrong(self) -> None:
        """Names, and networks with bits of a host, whose writer may have meant something else."""
        for text in ("", "lb.example.com", "10.0.0.5/28", "10.0.0", "UNIX"):
            self.assertRaises(UsageError, check_balancer, text)
