"""TLS below a handshake: what may be sent beside the data, what failures mean, and names."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from OpenSSL.SSL import Error, SysCallError
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import (
    CredentialError,
    NetworkError,
    PeerNotAuthenticated,
    PeerRefused,
    ProtocolViolation,
    UsageError,
)
from mutauth_twisted.net.keychanges import DATA_PER_CHANGE, MOST_CHANGES
from mutauth_twisted.net.protocol import HandshakeProtocol
from mutauth_twisted.net.tls import Authority, checking_layer, server_layer, trusting_layer
from mutauth_twisted.testing.certificates import Certificates
from tests.support.keyupdates import KeyChanger

KIB = 1024


class BoundTests(SynchronousTestCase):
    """A peer that goes on without saying anything."""

    def setUp(self) -> None:
        self.said: list[str] = []
        above: Any = Protocol()
        above.violated = self.said.append
        self.below: Any = server_layer().under(above)
        self.below.makeConnection(StringTransport())
        self.taken = 0
        self.aborted = 0
        self.patch(BufferingTLSTransport, "dataReceived", lambda below, data: self._take(len(data)))
        self.patch(BufferingTLSTransport, "abortConnection", lambda below: self._abort())

    def _take(self, size: int) -> None:
        self.taken += size

    def _abort(self) -> None:
        self.aborted += 1

    def test_nothing_but_keys(self) -> None:
        """Records that bring no data are taken up to 128 KiB, and not a byte more."""
        for _ in range(128):
            self.below.dataReceived(bytes(KIB))
        self.assertEqual((self.taken, self.aborted), (128 * KIB, 0))
        self.below.dataReceived(b"x")
        self.assertEqual((self.taken, self.aborted), (128 * KIB, 1))
        self.assertEqual(self.said, ["it has sent 131073 bytes on end that bring no data"])

    def test_small_records(self) -> None:
        """A stream of single bytes, each in a record of its own, is data."""
        for _ in range(100_000):
            self.below.dataReceived(bytes(23))
            self.below.said(1)
        self.assertEqual(self.aborted, 0)

    def test_a_little_data(self) -> None:
        """A byte now and then is no licence."""
        for _ in range(200):
            self.below.dataReceived(bytes(KIB))
            self.below.said(1)
        self.assertGreater(self.aborted, 0)


class KeyChangeTests(SynchronousTestCase):
    """A peer that changes its keys, on real TLS."""

    def setUp(self) -> None:
        self.violations: list[str] = []
        self.received = 0
        test = self

        class Above(Protocol):
            def dataReceived(self, data: bytes) -> None:
                test.received += len(data)
                self.transport.said(len(data))  # type: ignore[union-attr]

            def handshakeCompleted(self) -> None:
                """See IHandshakeListener."""

            def violated(self, cause: str) -> None:
                test.violations.append(cause)

        self.network = StringTransport()
        self.below: Any = server_layer().under(Above())
        self.below.makeConnection(self.network)
        directory = Path(self.mktemp())
        directory.mkdir()
        self.client = KeyChanger(directory)
        while not self.client.shake_hands():
            self.pass_on(self.client.sent)
            self.client.sent = b""
            self.client.feed(self.network.value())
            self.network.clear()
        self.pass_on(self.client.sent)
        self.network.clear()

    def pass_on(self, data: bytes, step: int = 1 << 16) -> None:
        """Have the service read it, in pieces."""
        for at in range(0, len(data), step):
            if not self.below.disconnecting:
                self.below.dataReceived(data[at : at + step])

    def test_with_data(self) -> None:
        """Data does not pay for changes of keys: 2,000 bytes for each 2,000 of them were a licence
        once.
        """
        for _ in range(20):
            self.pass_on(
                self.client.data(bytes(2000))
                + b"".join(self.client.key_update() for _ in range(2000))
            )
        self.assertTrue(self.below.disconnecting)
        (cause,) = self.violations
        self.assertEqual(
            cause, f"it has changed its keys {MOST_CHANGES + 1} times for 2000 bytes of data"
        )
        # What waits for a client that does not read is as little.
        self.assertLess(len(self.network.value()), 30 * (MOST_CHANGES + 2))

    def test_any_mixture(self) -> None:
        """Nor does it in any mixture, in any pieces, padded or not, with answers asked for or
        not.
        """
        for size, padding, step in product((1, 2000), (0, 300), (1000, 1 << 16)):
            self.setUp()
            for number in range(MOST_CHANGES + 8):
                record = self.client.data(bytes(size)) + self.client.key_update(
                    requested=number % 2 == 0, padding=padding
                )
                self.pass_on(record, step)
            self.assertTrue(self.below.disconnecting, (size, padding, step))
            self.assertLessEqual(self.received, (MOST_CHANGES + 8) * size)

    def test_few(self) -> None:
        """A peer may change its keys as any honest one does, at once and then every 4 MiB, and is
        answered.
        """
        self.pass_on(b"".join(self.client.key_update() for _ in range(MOST_CHANGES)))
        self.assertTrue(0 < len(self.network.value()) <= 27 * MOST_CHANGES)
        for _ in range(3):
            self.pass_on(
                b"".join(self.client.data(bytes(1 << 14)) for _ in range(DATA_PER_CHANGE >> 14))
            )
            self.pass_on(self.client.key_update())
        self.assertEqual((self.violations, self.received), ([], 3 * DATA_PER_CHANGE))
        self.pass_on(self.client.key_update())
        self.assertEqual(len(self.violations), 1)

    def test_padding(self) -> None:
        """A peer that pads its records changes no keys by that, however it sends them."""
        for step in (1, 700, 1 << 16):
            self.setUp()
            records = [self.client.data(b"x", padding=8) for _ in range(3 * MOST_CHANGES)]
            self.pass_on(b"".join(records), step)
            self.assertEqual((self.violations, self.received), ([], 3 * MOST_CHANGES), step)

    def test_ordinary(self) -> None:
        """Records of any size, in any pieces, count for nothing."""
        for step in (1, 7, 5000, 1 << 16):
            self.setUp()
            sizes = [1, 2, 5, 100, 1 << 14] * 3
            self.pass_on(b"".join(self.client.data(bytes(size)) for size in sizes), step)
            self.assertEqual((self.below._changes.count, self.received), (0, sum(sizes)), step)


class EndTests(SynchronousTestCase):
    """The end of TLS under a producer."""

    def test_producer(self) -> None:
        """A producer is stopped with TLS, so that the socket below need not wait for it."""
        told: list[str] = []

        class Producer:
            def stopProducing(self) -> None:
                told.append("stop")

        below: Any = server_layer().under(Protocol())
        below.makeConnection(StringTransport())
        below._producer = Producer()
        self.patch(below, "unregisterProducer", lambda: told.append("unregistered"))
        below._tlsShutdownFinished(None)
        self.assertEqual(told, ["stop", "unregistered"])

    def test_twisted(self) -> None:
        """Twisted says by this method that TLS has ended, whatever ended it: it is not a public
        one.
        """
        calls: list[Any] = []
        self.patch(
            TLSMemoryBIOProtocol, "_tlsShutdownFinished", lambda below, reason: calls.append(reason)
        )
        below: Any = server_layer().under(Protocol())
        below.makeConnection(StringTransport())
        below.dataReceived(b"GET / HTTP/1.0")
        self.assertEqual(len(calls), 1)


class LayerTests(SynchronousTestCase):
    """Results of a layer for what it meets."""

    def test_interfaces(self) -> None:
        """A handshake listens for TLS where there is TLS, and else is only asked for its half-
        close.

        Of the interfaces that Twisted's endpoints pass on, they pass on one.
        """
        handshake = HandshakeProtocol(
            cast(Any, None), cast(Any, None), SecurityOptions(), cast(Any, None)
        )
        self.assertTrue(IHalfCloseableProtocol.providedBy(handshake))
        self.assertFalse(IHandshakeListener.providedBy(handshake))
        trusting_layer().under(handshake)
        self.assertTrue(IHandshakeListener.providedBy(handshake))

    def test_ends(self) -> None:
        """Any end of a TLS handshake is one line."""
        layer = trusting_layer()
        for reason, kind, text in (
            (ConnectionDone(), NetworkError, "closed the connection during the TLS handshake"),
            (
                Error([("SSL routines", "", "wrong version number")]),
                ProtocolViolation,
                "failed: wrong version number",
            ),
            (Error(), ProtocolViolation, "no reason"),
            (SysCallError(104, "ECONNRESET"), ProtocolViolation, "ECONNRESET"),
            (SysCallError(-1, "Unexpected EOF"), ProtocolViolation, "Unexpected EOF"),
        ):
            error = layer.explain(reason, "peer")
            self.assertIs(type(error), kind)
            self.assertIn(text, str(error))

    def test_refused_certificates(self) -> None:
        """A client's words about a service's certificate are told as that; the service's own alerts
        are none of it.
        """
        for said in (
            "sslv3 alert bad certificate",
            "ssl/tls alert certificate expired",
            "sslv3 alert certificate unknown",
            "tlsv1 alert unknown ca",
            "tlsv1 unrecognized name",
        ):
            error = server_layer().explain(Error([("SSL routines", "", said)]), "peer")
            self.assertIs(type(error), PeerRefused)
            self.assertIn(
                f"peer: the client does not take this service's certificate ({said}); see its "
                "tls-ca",
                str(error),
            )
            self.assertIs(
                type(trusting_layer().explain(Error([("SSL routines", "", said)]), "peer")),
                ProtocolViolation,
            )
        other = server_layer().explain(
            Error([("SSL routines", "", "tlsv1 alert protocol version")]), "peer"
        )
        self.assertIs(type(other), ProtocolViolation)

    def test_odd_certificates(self) -> None:
        """A certificate that OpenSSL takes and cryptography does not read proves nothing, and is
        said to.
        """

        class Connection:
            def get_peer_certificate(self) -> Any:
                return self

            def to_cryptography(self) -> Any:
                raise x509.InvalidVersion("6 is not a valid X509 version", 6)

        class Transport:
            negotiatedProtocol = None

            def getHandle(self) -> Any:
                return Connection()

        directory = Path(self.mktemp())
        layer = checking_layer(Authority(Certificates(directory).ca_file), "srv1.example.com")
        error = self.assertRaises(PeerNotAuthenticated, layer.channel, Transport(), "peer")
        self.assertIn("its certificate cannot be read", str(error))
        error = self.assertRaises(
            PeerNotAuthenticated, trusting_layer().channel, Transport(), "peer"
        )
        self.assertIn("no authority is given to verify its certificate; give tls-ca", str(error))

    def test_names(self) -> None:
        """A name that no certificate can have is refused before anybody is asked; a dot at its end
        is none of it.
        """
        for name in ("a..b", "x" * 70 + ".example.com", "a b/c", ""):
            with self.assertRaises((UsageError, CredentialError)):
                checking_layer(Authority(os.devnull, name or " "), "srv1.example.com")
