"""The floor for encryption types: sessions and tickets that are not AES throughout are refused, by either side."""

from __future__ import annotations

from typing import Any

import gssapi
from gssapi.raw import get_mic

from mutauth_twisted.core import kerberos
from mutauth_twisted.core.context import StepFailed
from mutauth_twisted.core.enctypes import check_keys
from mutauth_twisted.core.kerberos import KerberosInitiator, ServiceKeys, kerberos_name
from mutauth_twisted.core.lucid import LucidContext
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import AuthenticationError, CredentialError, ProtocolViolation
from mutauth_twisted.policy import AES_TYPES, Package
from tests.forge import AES128, AES256, RC4, der
from tests.hostile import ap_req
from tests.test_kerberos import BY_HOST, SEAL, Case

_KERBEROS = b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"
_NTLM = b"\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a"


class FloorCase(Case):
    """A service whose keytab has keys of every type."""

    def setUp(self) -> None:
        super().setUp()
        keytab = self.realm.keytab("svc-echo", (AES256, AES128, RC4))
        self.keys = ServiceKeys(ServiceCredentials(keytab), None, Package.NEGOTIATE)

    def third_party(self, kind: int, session: int) -> gssapi.SecurityContext:
        """A client of GSSAPI's own, with a ticket of these types."""
        ccache = self.realm.ccache("alice", str(BY_HOST), "svc-echo", kind=kind, session=session)
        credential = gssapi.Credentials(usage="initiate", store={"ccache": ccache})
        name = kerberos_name(BY_HOST)
        return gssapi.SecurityContext(name=name, creds=credential, usage="initiate", flags=int(SEAL.requested_flags))


class FloorTests(FloorCase):
    """Tickets and sessions of each type."""

    def test_aes(self) -> None:
        """AES sessions of either size are served."""
        for session in (AES128, AES256):
            client, server = self.established(session=session)
            self.assertEqual(server.judge(SEAL).principal, "alice@TEST.EXAMPLE")
            self.assertEqual(server.unwrap(client.wrap(b"data", seal=True)), (b"data", True))

    def test_service(self) -> None:
        """A service refuses what is not, and says which key it is about, and how to put it right."""
        for kind, session, error, text, remedy in (
            (RC4, AES256, CredentialError, "encrypted with arcfour-hmac", "msDS-SupportedEncryptionTypes"),
            (RC4, RC4, CredentialError, "encrypted with arcfour-hmac", "export its keytab"),
            (AES256, RC4, AuthenticationError, "key is of type arcfour-hmac", "permitted_enctypes"),
        ):
            request = self.third_party(kind, session).step()
            failed = self.step_fails(self.keys.acceptor("client"), request)
            self.assertIs(type(failed.error), error)
            self.assertIn(text, str(failed.error))
            self.assertIn(remedy, failed.error.remedy)
            # Without the floor MIT takes it.
            own = gssapi.Credentials(usage="accept", store={"keytab": self.realm.keytab("svc-echo", (AES256, RC4))})
            request = self.third_party(kind, session).step()
            accepted = gssapi.SecurityContext(creds=own, usage="accept")
            self.assertNotEqual(accepted.step(request), b"")
            self.assertTrue(accepted.complete)

    def test_client(self) -> None:
        """A client refuses what is not before it sends anything."""
        for kind, session, text in (
            (RC4, AES256, "the KDC encrypts tickets for it with arcfour-hmac"),
            (RC4, RC4, "the KDC encrypts tickets for it with arcfour-hmac"),
            (AES256, RC4, "key is of type arcfour-hmac"),
        ):
            for package in (Package.KERBEROS, Package.NEGOTIATE):
                ccache = self.realm.ccache("alice", str(BY_HOST), "svc-echo", kind=kind, session=session)
                client = KerberosInitiator(BY_HOST, ClientCredentials(ccache=ccache), SEAL, package)
                failed = self.step_fails(client, None)
                self.assertEqual((type(failed.error), failed.token), (AuthenticationError, b""))
                self.assertIn(text, str(failed.error))
                self.assertIn("msDS-SupportedEncryptionTypes", failed.error.remedy)

    def test_keys(self) -> None:
        """Each of an established context's keys counts, an acceptor's subkey too, and so does the kind of its messages."""

        def lucid(*types: int, rfc4121: bool = True) -> LucidContext:
            return LucidContext(True, 0, 0, 0, rfc4121, types)

        for kind in AES_TYPES:
            check_keys(lucid(kind, kind), "peer")
        for types in ((RC4,), (AES256, RC4), (RC4, AES256), (16, 16), (0,), (AES256, 25)):
            self.assertRaises(AuthenticationError, check_keys, lucid(*types), "peer")
        self.assertRaises(AuthenticationError, check_keys, lucid(AES256, rfc4121=False), "peer")

    def test_keys_of_the_context(self) -> None:
        """The established context is asked, whatever the request said: on both sides."""
        for side in (0, 1):
            client, server = self.client(), self.keys.acceptor("client")
            with_rc4 = LucidContext(side == 0, 2**32 - 1, 0, 0, True, (AES256, RC4))
            context: Any = (client, server)[side]
            request = client.step(None).token
            self.patch(kerberos, "read_lucid", lambda _, with_rc4=with_rc4: with_rc4)
            if side == 1:
                self.step_fails(context, request)
            else:
                own = gssapi.Credentials(usage="accept", store={"keytab": self.realm.keytab("svc-echo")})
                self.step_fails(context, gssapi.SecurityContext(creds=own, usage="accept").step(request))


class HiddenTests(FloorCase):
    """Requests that show one ticket and use another: SPNEGO has room for tokens at which no mechanism looks."""

    def offer(self, token: bytes) -> bytes:
        """A NegTokenInit that guesses wrong: its token is for NTLM."""
        mechanisms = der(0xA0, der(0x30, _NTLM, _KERBEROS))
        return der(0x60, b"\x06\x06\x2b\x06\x01\x05\x05\x02", der(0xA0, der(0x30, mechanisms, der(0xA2, der(0x04, token)))))

    @staticmethod
    def answer(*fields: bytes) -> bytes:
        """A NegTokenResp."""
        return der(0xA1, der(0x30, *fields))

    def decoy(self) -> bytes:
        """A request that looks like one with AES."""
        name = der(0x30, der(0xA0, b"\x02\x01\x01"), der(0xA1, der(0x30, der(0x1B, b"echoSvc"), der(0x1B, b"srv1"))))
        return ap_req(name)

    def test_in_the_first_token(self) -> None:
        """A decoy in SPNEGO's first token does not stand for the request in its second."""
        server, client = self.keys.acceptor("client"), self.third_party(RC4, AES256)
        self.assertFalse(server.step(self.offer(self.decoy())).complete)
        failed = self.step_fails(server, self.answer(der(0xA2, der(0x04, client.step()))))
        self.assertIn("encrypted with arcfour-hmac", str(failed.error))

    def test_in_the_last_token(self) -> None:
        """Nor does one beside the signature in its last."""
        server, client = self.keys.acceptor("client"), self.third_party(RC4, AES256)
        self.assertFalse(server.step(self.offer(b"x")).complete)
        with self.assertRaises(StepFailed):
            server.step(self.answer(der(0xA2, der(0x04, client.step()))))
            signature = get_mic(client, der(0x30, _NTLM, _KERBEROS))
            server.step(self.answer(der(0xA2, der(0x04, self.decoy())), der(0xA3, der(0x04, signature))))

    def test_unreadable(self) -> None:
        """A request that GSSAPI takes and nobody here can read is refused."""
        server = self.keys.acceptor("client")
        request = self.client().step(None).token

        def unreadable(token: bytes) -> Any:
            raise ValueError("planted")

        self.patch(kerberos, "ticket_label", unreadable)
        failed = self.step_fails(server, request)
        self.assertIs(type(failed.error), ProtocolViolation)
        self.assertIn("cannot be read", str(failed.error))
