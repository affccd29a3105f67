"""Servers behind a gateway, and those who would pass for one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mutauth_twisted import (
    ForwardedFactory,
    ForwardedIdentity,
    ForwardedServerEndpoint,
    IForwardedTransport,
    ProxyHeader,
    UsageError,
)
from mutauth_twisted.gateway.forwarded import Tlv
from mutauth_twisted.gateway.told import TIMEOUT
from mutauth_twisted.testing.fakes import captured_log
from tests.unit.gateway.client_case import CLIENT, DOMAIN_SID, SERVICE, SPN

GATEWAY = IPv4Address("TCP", "127.0.0.1", 50000)
WHO = ForwardedIdentity(
    "alice@EXAMPLE.COM",
    "EXAMPLE.COM",
    "kerberos",
    SPN,
    "EXAMPLE\\alice",
    f"{DOMAIN_SID}-1104",
    connection_id="c-1",
)
HEADER = WHO.header(CLIENT, SERVICE).encode()


class Application(Protocol):
    """Remembers who was there, and what was said."""

    def __init__(self) -> None:
        self.said = b""
        self.lost = False
        self.seen: Any = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self.seen = (transport.client_identity, transport.getPeer(), transport.getHost())

    def dataReceived(self, data: bytes) -> None:
        self.said += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class ForwardedCase(SynchronousTestCase):
    """A server behind a gateway."""

    options: dict[str, Any] = {}

    def setUp(self) -> None:
        self.clock = Clock()
        self.built: list[tuple[Any, Application]] = []

    def connect(self, *pieces: bytes, peer: Any = GATEWAY, **options: Any) -> Any:
        """A connection that brings pieces; its protocol."""
        test = self

        class Served(Factory[Application]):
            def buildProtocol(self, addr: Any) -> Application:
                application = Application()
                test.built.append((addr, application))
                return application

        factory = ForwardedFactory(self.clock, Served(), **options)
        protocol = factory.buildProtocol(peer)
        self.transport = StringTransport(peerAddress=peer, hostAddress=SERVICE)
        protocol.makeConnection(self.transport)
        for piece in pieces:
            protocol.dataReceived(piece)
        return protocol

    def refused(self, *pieces: bytes, **options: Any) -> str:
        """The line that is logged about a connection that is refused before there is a protocol."""
        with captured_log() as events:
            self.connect(*pieces, **options)
        self.assertEqual(self.built, [])
        self.assertTrue(self.transport.disconnecting or self.transport.disconnected)
        (line,) = (formatEvent(event) or "" for event in events)
        self.assertIn("[proxy-header-invalid]", line)
        return line


class ForwardedTests(ForwardedCase):
    """Connections of gateways, and others."""

    def test_told(self) -> None:
        """The protocol sees the client, its address, and what it says; not the header."""
        self.connect(HEADER + b"hello")
        ((address, application),) = self.built
        self.assertEqual(address, CLIENT)
        self.assertEqual(application.seen, (WHO, CLIENT, SERVICE))
        self.assertEqual(application.said, b"hello")

    @given(st.lists(st.integers(1, len(HEADER) + 4), max_size=5))
    def test_in_pieces(self, cuts: list[int]) -> None:
        """Wherever the network cuts, in the first bytes too."""
        self.built.clear()
        data, bounds = HEADER + b"hello", [0, *sorted(set(cuts))]
        self.connect(*(data[a:b] for a, b in zip(bounds, [*bounds[1:], len(data)], strict=True)))
        self.assertEqual([(who.seen[0], who.said) for _, who in self.built], [(WHO, b"hello")])

    def test_second_header(self) -> None:
        """A client's words are data, whatever they look like."""
        mallory = HEADER.replace(b"alice", b"admin")
        self.connect(HEADER, mallory)
        ((_, application),) = self.built
        self.assertEqual((application.seen[0], application.said), (WHO, mallory))

    def test_transport(self) -> None:
        """Its transport provides the interface, and passes on what is written."""
        protocol = self.connect(HEADER)
        ((_, application),) = self.built
        transport: Any = application.transport
        self.assertTrue(verifyObject(IForwardedTransport, transport))
        self.assertEqual(transport.proxy_header.value(Tlv.SID), f"{DOMAIN_SID}-1104".encode())
        transport.write(b"hello")
        self.assertEqual(self.transport.value(), b"hello")
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(application.lost)

    def test_trusted(self) -> None:
        """Programs of this machine are believed by default, and otherwise who is named."""
        for peer in (
            GATEWAY,
            IPv6Address("TCP", "::1", 1),
            IPv6Address("TCP", "::ffff:127.0.0.1", 1),
            UNIXAddress(None),
        ):
            self.connect(HEADER, peer=peer)
            self.assertEqual(len(self.built), 1, peer)
            self.built.clear()
        other = IPv4Address("TCP", "10.0.0.5", 1)
        self.connect(HEADER, peer=other, trusted=("10.0.0.0/28",))
        self.assertEqual(len(self.built), 1)

    def test_not_trusted(self) -> None:
        """Others are refused, with a header and without."""
        for peer, options in (
            (IPv4Address("TCP", "192.0.2.1", 1), {}),
            (IPv6Address("TCP", "2001:db8::1", 1), {}),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 1), {}),
            (GATEWAY, {"trusted": ("unix",)}),
            (UNIXAddress(None), {"trusted": ("127.0.0.1",)}),
        ):
            for pieces in ((HEADER,), (b"hello",), ()):
                self.assertIn("not believed", self.refused(*pieces, peer=peer, **options))

    def test_no_header(self) -> None:
        """Bytes that are no header are not data either."""
        self.assertIn("signature", self.refused(b"GET / HTTP/1.1\r\n\r\n"))
        self.assertIn("signature", self.refused(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n"))

    def test_no_identity(self) -> None:
        """Connections without an identity are refused, unless the application takes them."""
        header = ProxyHeader(CLIENT, SERVICE, [(Tlv.UNIQUE_ID, b"c-1")])
        self.assertIn("does not tell who the client is", self.refused(header.encode()))
        for header, peer in (
            (ProxyHeader(CLIENT, SERVICE), CLIENT),
            (ProxyHeader(local=True), GATEWAY),
        ):
            self.connect(header.encode(), needs_identity=False)
            ((address, application),) = self.built
            self.assertEqual((address, application.seen), (peer, (None, peer, SERVICE)))
            self.built.clear()

    def test_probe(self) -> None:
        """A gateway that only sees whether the server is there gets no protocol, and no line."""
        with captured_log() as events:
            self.connect(ProxyHeader(local=True).encode() + b"hello")
        self.assertEqual((self.built, events), ([], []))
        self.assertTrue(self.transport.disconnecting)

    def test_half_an_identity(self) -> None:
        """One that is not whole is refused in any case."""
        header = ProxyHeader(CLIENT, SERVICE, [(Tlv.ACCOUNT, b"EXAMPLE\\alice")])
        for needs_identity in (True, False):
            line = self.refused(header.encode(), needs_identity=needs_identity)
            self.assertIn("without its principal", line)

    def test_too_late(self) -> None:
        """A balancer that sends no header is not waited for."""
        self.connect(HEADER[:-1])
        self.assertFalse(self.transport.disconnecting)
        with captured_log():
            self.clock.advance(TIMEOUT)
        self.assertTrue(self.transport.disconnecting or self.transport.disconnected)
        self.assertEqual(self.built, [])

    def test_wrong_parameters(self) -> None:
        """Text that is not an address is said when the endpoint is made."""
        inner: Any = None
        self.assertRaises(UsageError, ForwardedServerEndpoint, self.clock, inner, ("localhost",))
