"""The acceptor's word that it sees the same TLS channel: real contexts, and contexts of several
legs.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, cast

import gssapi
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.channelbinding import (
    TLS_EXPORTER,
    TLS_SERVER_END_POINT,
    ChannelBinding,
    server_end_point,
)
from mutauth_twisted.core.confirmation import Confirmed, Confirming
from mutauth_twisted.core.context import Outcome, StepFailed
from mutauth_twisted.core.mechanism import Mechanism
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import AuthenticationError, PeerNotAuthenticated, ProtocolViolation
from mutauth_twisted.mechanisms import KERBEROS, NEGOTIATE
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator, ServiceKeys
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.fakes import FakeContext
from mutauth_twisted.testing.forge import make_realm, third_party_initiator

CHANNEL = ChannelBinding(TLS_EXPORTER, bytes(range(32)))
OTHER = ChannelBinding(TLS_EXPORTER, bytes(32))
SERVICE = SPN.parse("echoSvc/srv1.test.example")


class Case(SynchronousTestCase):
    """Real contexts on two ends of a channel."""

    def setUp(self) -> None:
        self.realm = make_realm(self)
        self.keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")), None, NEGOTIATE)

    def initiator(
        self, channel: ChannelBinding | None, package: Mechanism = KERBEROS
    ) -> KerberosInitiator:
        """A client with a ticket."""
        ccache = self.realm.ccache("alice", str(SERVICE), "svc-echo")
        protection = Protection.SIGN if channel is None else Protection.TLS
        return KerberosInitiator(
            SERVICE, ClientCredentials(ccache=ccache), protection, package, channel
        )

    def third_party(self, application_data: bytes | None) -> gssapi.SecurityContext:
        """A client of GSSAPI's own, with such bindings or none."""
        ccache = self.realm.ccache("alice", str(SERVICE), "svc-echo")
        return third_party_initiator(SERVICE, ccache, application_data)

    def refused(
        self, context: Any, token: bytes, kind: type[AuthenticationError], text: str
    ) -> None:
        """A step fails for this reason."""
        error = self.assertRaises(StepFailed, context.step, token).error
        self.assertIsInstance(error, kind)
        self.assertIn(text, str(error))


class BindingTests(Case):
    """Bindings of Kerberos itself."""

    def test_bound(self) -> None:
        """Both see one channel: the service's flags say so, with either package."""
        for package in (KERBEROS, NEGOTIATE):
            client, server = self.initiator(CHANNEL, package), self.keys.acceptor("client", CHANNEL)
            self.assertTrue(client.step(server.step(client.step(None).token).token).complete)
            known = server.verify(Protection.TLS)
            self.assertIn(Flag.CHANNEL_BOUND, known.flags)
            self.assertEqual((known.protection, known.package), (Protection.TLS, package.name))
            self.assertIs(client.verify(Protection.TLS).protection, Protection.TLS)

    def test_another_channel(self) -> None:
        """A client of another channel is refused at its token."""
        for package in (KERBEROS, NEGOTIATE):
            token = self.initiator(OTHER, package).step(None).token
            self.refused(
                self.keys.acceptor("client", CHANNEL), token, AuthenticationError, "channel"
            )

    def test_no_bindings(self) -> None:
        """A client that sends none passes MIT's own check, and not ours."""
        server = self.keys.acceptor("client", CHANNEL)
        self.assertTrue(server.step(self.third_party(None).step()).complete)
        error = self.assertRaises(PeerNotAuthenticated, server.verify, Protection.TLS)
        self.assertIn("its ticket is not bound to this TLS channel", str(error))

    def test_bindings_of_no_channel(self) -> None:
        """Inside TLS the word that a client is a mutauth one is bindings as any other wrong ones,
        sent twice or not.
        """
        token = self.initiator(None).step(None).token
        self.refused(
            self.keys.acceptor("client", CHANNEL),
            token,
            AuthenticationError,
            "bound to another TLS channel",
        )
        self.refused(self.keys.acceptor("client", CHANNEL), token, AuthenticationError, "replay")

    def test_protection_and_channel_go_together(self) -> None:
        """Neither is TLS verified without a channel nor a channel without TLS."""
        server = self.keys.acceptor("client")
        server.step(self.initiator(None).step(None).token)
        self.assertRaises(PeerNotAuthenticated, server.verify, Protection.TLS)
        bound = self.keys.acceptor("client", CHANNEL)
        bound.step(self.initiator(CHANNEL).step(None).token)
        self.assertRaises(PeerNotAuthenticated, bound.verify, Protection.SIGN)

    def test_another_make_is_sealed_inside(self) -> None:
        """Towards a third-party service, which may ignore bindings, records are sealed inside
        TLS as well.
        """
        channel = ChannelBinding(TLS_SERVER_END_POINT, bytes(32))
        client, server = self.initiator(channel), self.keys.acceptor("client", channel)
        client.step(server.step(client.step(None).token).token)
        self.assertIn(Flag.CONFIDENTIALITY, client.verify(Protection.TLS).flags)
        self.assertIn(Flag.CONFIDENTIALITY, server.verify(Protection.TLS).flags)

    def test_the_servers_certificate(self) -> None:
        """The binding to a certificate is its hash, by the signature's own where that is good
        enough.
        """
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "service")])
        now = datetime.now(UTC)
        for key, algorithm, expected in (
            (ec.generate_private_key(ec.SECP256R1()), hashes.SHA256(), "sha256"),
            (ec.generate_private_key(ec.SECP256R1()), hashes.SHA384(), "sha384"),
            (ed25519.Ed25519PrivateKey.generate(), None, "sha256"),
        ):
            builder = (
                x509.CertificateBuilder()
                .subject_name(name)
                .issuer_name(name)
                .public_key(key.public_key())
            )
            builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now)
            certificate = builder.sign(key, cast(Any, algorithm))
            digest = hashlib.new(expected, certificate.public_bytes(Encoding.DER)).digest()
            self.assertEqual(
                server_end_point(certificate).application_data, b"tls-server-end-point:" + digest
            )


class ConfirmationTests(Case):
    """Additions of this package."""

    def handshake(self, seen_by_server: ChannelBinding = CHANNEL) -> tuple[Confirmed, bytes]:
        """A client that waits, and the token of a service that insists on nothing and sees some
        channel.
        """
        inner = self.initiator(CHANNEL)
        client = Confirmed(inner, CHANNEL, "service")
        server = Confirming(self.keys.acceptor("client", None), seen_by_server)
        return client, server.step(client.step(None).token).token

    def test_confirmed(self) -> None:
        """With the service's confirmation the client is complete."""
        client, token = self.handshake()
        self.assertTrue(client.step(token).complete)

    def test_of_another_channel(self) -> None:
        """A confirmation of the relay's channel is not valid."""
        client, token = self.handshake(OTHER)
        self.refused(client, token, PeerNotAuthenticated, "has not confirmed this TLS channel")

    def test_none(self) -> None:
        """A bare token, as a service without TLS sends it, and one with an empty confirmation."""
        for bare in (True, False):
            client, token = self.handshake()
            size = 2 + int.from_bytes(token[:2], "big")
            self.refused(
                client,
                token[size:] if bare else bytes(2) + token[size:],
                AuthenticationError,
                "service",
            )

    def test_handed_back(self) -> None:
        """Words that the client itself has signed are not a confirmation."""
        inner = self.initiator(CHANNEL)
        client = Confirmed(inner, CHANNEL, "service")
        server = self.keys.acceptor("client", None)
        reply = server.step(client.step(None).token).token
        inner.step(reply)
        signature, _ = inner.wrap_apart(client._statement, seal=False)
        again = Confirmed(inner, CHANNEL, "service")
        with self.assertRaises(StepFailed) as caught:
            again.step(len(signature).to_bytes(2, "big") + signature + reply)
        self.assertIsInstance(caught.exception.error, AuthenticationError)

    def test_every_bit(self) -> None:
        """No bit of the confirmation can be changed."""
        for position in range(2, 30):
            client, token = self.handshake()
            changed = (
                token[:position]
                + bytes([token[position] ^ 1 << position % 8])
                + token[position + 1 :]
            )
            self.refused(client, changed, PeerNotAuthenticated, "has not confirmed")

    def test_cut(self) -> None:
        """A token that is cut within its confirmation is not valid."""
        for end in (0, 1, 2, 29):
            client, token = self.handshake()
            self.refused(client, token[:end], ProtocolViolation, "no room for a confirmation")

    def test_error_tokens(self) -> None:
        """A refusal's error token reaches the client's context, which reads it."""
        client = Confirmed(self.initiator(CHANNEL), CHANNEL, "service")
        server = Confirming(self.keys.acceptor("client", OTHER), OTHER)
        failed = self.assertRaises(StepFailed, server.step, client.step(None).token)
        self.assertEqual(failed.token[:2], bytes(2))
        self.refused(client, failed.token, AuthenticationError, "the service refused")

    def test_several_legs(self) -> None:
        """The confirmation comes with the acceptor's last token, whoever has the last word; the
        client waits for it.
        """
        for legs in (5, 6):
            client = Confirmed(FakeContext(initiator=True, legs=legs), CHANNEL, "service")
            server = Confirming(FakeContext(initiator=False, legs=legs), CHANNEL)
            token: bytes | None = None
            for _ in range(2):
                asked = client.step(token)
                token = server.step(asked.token).token
                self.assertEqual((asked.complete, token[:2]), (False, bytes(2)))
            last = client.step(token)
            self.assertFalse(last.complete)
            answer = server.step(last.token)
            self.assertTrue(answer.complete)
            self.assertEqual(client.step(answer.token), Outcome(b"", True))

    @settings(deadline=None)
    @given(st.binary(max_size=200))
    def test_anything(self, token: bytes) -> None:
        """On any input, the step fails in an orderly way."""
        client = Confirmed(FakeContext(initiator=True), CHANNEL, "service")
        client.step(None)
        self.assertRaises(StepFailed, client.step, token)
