"""Kerberos failures in one line."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gssapi
from gssapi.raw.misc import GSSError
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.context import StepFailed
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import (
    REPLAY_CACHE,
    AuthenticationError,
    CredentialError,
    KDCError,
    KDCRefused,
    KDCUnreachable,
    MutualAuthError,
    PeerError,
    PeerNotAuthenticated,
    PeerRefused,
    ProtocolViolation,
    RecordError,
    ToldByTicket,
    UsageError,
)
from mutauth_twisted.kerberos import errors as gsserrors
from mutauth_twisted.kerberos import refusals as gssrefusals
from mutauth_twisted.kerberos.errors import TicketLabel, explain, minor_code
from mutauth_twisted.kerberos.keytab import keytab_keys
from mutauth_twisted.kerberos.refusals import Acceptor, explain_token
from mutauth_twisted.mechanisms import KERBEROS, NEGOTIATE
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator, ServiceKeys
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.forge import Realm, make_realm, set_clock, third_party_initiator

FAILURE = 0xD0000  # GSS_S_FAILURE


def gss(minor: int, major: int = FAILURE) -> GSSError:
    """Error of GSSAPI: the minor code is unsigned there."""
    return GSSError(major, minor & 0xFFFFFFFF)


class _Krb5Error(Exception):
    err_code = -1765328360


class ExplainTests(SynchronousTestCase):
    """Codes become classes, causes and next steps."""

    def test_table(self) -> None:
        """The failures that people meet."""
        for minor, kind, words in (
            (-1765328189, CredentialError, "there is no Kerberos ticket"),
            (-1765328243, CredentialError, "there is no Kerberos ticket"),
            (-1765328352, CredentialError, "has expired"),
            (-1765328360, CredentialError, "refused the key"),
            (-1765328366, CredentialError, "disabled"),
            (-1765328378, CredentialError, "does not know the principal"),
            (-1765328377, KDCRefused, "no such service"),
            (-1765328343, PeerNotAuthenticated, "another key"),
            (-1765328353, PeerNotAuthenticated, "another key"),
            (-1765328347, AuthenticationError, "clocks"),
            (-1765328228, KDCUnreachable, "no KDC answers"),
            (-1765328230, KDCUnreachable, "no KDC of the realm"),
            (-1765328372, KDCRefused, "policy"),
            (-1765328364, CredentialError, "no longer accepts the ticket"),
            (-1765328351, AuthenticationError, "not valid yet"),
            (-1765328324, AuthenticationError, "gave no reason"),
            (-1765328184, CredentialError, "no encryption type"),
            (-1765328174, CredentialError, "no key of an encryption type"),
            (39756032, CredentialError, "another principal"),
            (39756033, CredentialError, "no such key"),
        ):
            error = explain(gss(minor), "thing")
            self.assertIsInstance(error, kind, minor)
            self.assertTrue(str(error).startswith("thing: "), str(error))
            self.assertIn(words, str(error))
            self.assertNotIn("\n", str(error))

    def test_refused_by_the_kdc(self) -> None:
        """Refusals of the KDC are neither the peer's doing nor our own, and tell whether the
        service's account is at fault.
        """
        for code, of_service in (
            (2, True),
            (7, True),
            (8, True),
            (9, False),
            (12, False),
            (19, True),
        ):
            error = explain(gss(-1765328384 + code), "svc/host")
            assert isinstance(error, KDCRefused), error
            self.assertIsInstance(error, KDCError)
            self.assertIsInstance(error, AuthenticationError)
            self.assertNotIsInstance(error, (PeerError, CredentialError))
            self.assertEqual(
                (error.krb_error, error.of_service, error.exit_code), (code, of_service, 4)
            )

    def test_major_codes(self) -> None:
        """Meaning of the major code alone."""
        for major, kind in (
            (0x60000, RecordError),
            (0x70000, CredentialError),
            (0x90000, ProtocolViolation),
            (0xB0000, CredentialError),
            (0x2, RecordError),
            (0x10, RecordError),
        ):
            self.assertIsInstance(explain(gss(0, major), "x"), kind, hex(major))

    def test_krb5_errors(self) -> None:
        """The krb5 library's own exceptions have the same codes."""
        self.assertEqual(minor_code(_Krb5Error()), -1765328360)
        self.assertIsInstance(explain(_Krb5Error(), "x"), CredentialError)

    def test_anything_else_is_the_token(self) -> None:
        """A hostile token can raise anything; the text of it is not shown."""
        error = explain(ValueError("secret"), "peer")
        self.assertIsInstance(error, ProtocolViolation)
        self.assertNotIn("secret", str(error))

    def test_unknown_codes_are_quoted(self) -> None:
        """A code without a meaning here is an authentication error in the library's words."""
        self.assertIs(type(explain(gss(-1765328000), "x")), AuthenticationError)

    def test_our_own_errors_pass(self) -> None:
        """An error that is explained already stays as it is."""
        error = UsageError("a", "b")
        self.assertIs(explain(error, "x"), error)

    def test_codes_are_what_the_library_means(self) -> None:
        """Every krb5 code in the table exists in this machine's libkrb5, under a text that fits."""
        library = ctypes.CDLL("libkrb5.so.3")  # python-gssapi is linked with it
        library.krb5_get_error_message.restype = ctypes.c_char_p
        context = ctypes.c_void_p()
        library.krb5_init_context(ctypes.byref(context))
        fitting = {
            "_EXPIRED": "expired",
            "_NO_KDC": ("KDC", "not available"),
            "_NO_TICKET": ("redential",),
            "_BAD_CACHE": ("redential",),
            "_REVOKED": ("expired", "revoked"),
            "_UNKNOWN_SERVICE": ("Server not found",),
            "_NO_REALM": ("KDC", "network address"),
            "_ACCOUNT_EXPIRED": "expired",
            "_SERVICE_REVOKED": ("expired", "revoked"),
            "_NO_ENCTYPE": "ncryption type",
            "_NO_KIND_OF_KEY": "preauthentication",
            "_NOT_YET": "not yet valid",
            "_UNSAID": "Generic",
            "_SKEW": "skew",
            "_NO_REPLAY_CACHE": ("eplay", "RC"),
            "_NO_MATCH": ("integrity", "match"),
            "_OLD_TICKET": "expired",
        }
        for code, meaning in (*gsserrors.MINOR.items(), *gssrefusals._MINOR.items()):
            if code > 0:
                continue  # the mechanism's own two, which libkrb5 does not know
            text = library.krb5_get_error_message(context, ctypes.c_int32(code)).decode()
            self.assertNotIn("Unknown code", text)
            for name, words in fitting.items():
                if meaning is {**vars(gsserrors), **vars(gssrefusals)}[name]:
                    self.assertTrue(
                        any(
                            word in text for word in ([words] if isinstance(words, str) else words)
                        ),
                        text,
                    )


class AcceptorTests(SynchronousTestCase):
    """Meaning of the same numbers to a service."""

    def setUp(self) -> None:
        realm = make_realm(self)
        self.path = Path(realm.keytab("svc-echo"))
        self.name = "echoSvc/srv1.test.example"

    def said(
        self, minor: int = -1765328349, major: int = FAILURE, **ticket: int | None
    ) -> MutualAuthError:
        """Error token of the service: of no key for the ticket (KRB_AP_ERR_NOT_US), if no other
        number is given.
        """
        label = (
            TicketLabel(self.name, **{"kind": 18, "version": 1, "session": 18, **ticket})
            if ticket
            else None
        )  # type: ignore[arg-type]
        error = explain_token(gss(minor, major), "client", Acceptor(str(self.path), label))
        self.assertNotIn("\n", str(error))
        self.assertTrue(error.remedy, str(error))
        return error

    def assert_said(self, error: MutualAuthError, kind: type[MutualAuthError], *words: str) -> None:
        """It is of this class, and its line holds these words."""
        self.assertIs(type(error), kind, str(error))
        for each in words:
            self.assertIn(each, str(error))

    def test_table(self) -> None:
        """An expired ticket, a wrong clock, an altered request are the client's."""
        for minor, kind, words in (
            (-1765328352, PeerNotAuthenticated, "its ticket has expired"),
            (-1765328351, AuthenticationError, "the ticket is not valid yet"),
            (-1765328347, AuthenticationError, "the clocks of both sides"),
            (-1765328353, PeerNotAuthenticated, "does not fit its ticket"),
            (-1765328350, PeerNotAuthenticated, "replay"),
            (-1765328148, ToldByTicket, "not permitted here"),
        ):
            self.assert_said(self.said(minor), kind, "client: ", words)

    def test_no_kerberos(self) -> None:
        """An empty token, another package, and bytes that are invalid are the client's, and no
        ticket of ours is missing.
        """
        for major in (0x10000, 0x70000):
            self.assert_said(
                self.said(0, major),
                ProtocolViolation,
                "takes Kerberos' own only",
                "package=kerberos",
            )
            both = explain_token(gss(0, major), "client", Acceptor(str(self.path), negotiates=True))
            self.assert_said(both, ProtocolViolation, "bare or inside SPNEGO", "gets a ticket")
        for minor, major in ((0, 0x90000), (100001, FAILURE)):
            self.assert_said(self.said(minor, major), ProtocolViolation, "its token cannot be read")
        # To a client the same code says that it has no ticket.
        self.assertIsInstance(explain(gss(0, 0x70000), "x"), CredentialError)

    def test_unknown_codes_are_quoted(self) -> None:
        """A code of Kerberos without a meaning here is quoted."""
        self.assertIs(
            type(explain_token(gss(-1765328000), "x", Acceptor(str(self.path)))),
            AuthenticationError,
        )

    def test_key_versions(self) -> None:
        """A ticket for an older key is the client's to renew, one for a newer key ours to
        export.
        """
        self.assert_said(
            self.said(version=0), PeerNotAuthenticated, "version 0", "holds 1", "kinit", self.name
        )
        self.assert_said(
            self.said(version=2), ToldByTicket, "version 2", "holds 1", "export the keytab again"
        )

    def test_key_kinds(self) -> None:
        """A ticket of an encryption type that the keytab lacks names it; a number that is invalid
        is no other error.
        """
        self.assert_said(
            self.said(kind=23), ToldByTicket, "arcfour-hmac", "msDS-SupportedEncryptionTypes"
        )
        for kind in (0, -1, 12345, 1 << 40):
            self.assert_said(self.said(kind=kind), ToldByTicket, f"encryption type {kind}")

    def test_wrong_key(self) -> None:
        """A key that should fit and does not is another account's."""
        for version in (1, None):
            self.assert_said(
                self.said(version=version),
                PeerNotAuthenticated,
                "another key",
                str(self.path),
                "mutauth spn query",
            )
        self.assert_said(
            self.said(), PeerNotAuthenticated, "made for another key", "mutauth spn query"
        )

    def test_keytab_at_fault(self) -> None:
        """A keytab that is away, unreadable, empty or none is ours, whatever number MIT has for
        it.
        """
        content = self.path.read_bytes()
        for change, words in (
            (self.path.unlink, "it does not exist"),
            (self.path.mkdir, "it cannot be read: it is not a regular file"),
            (self.path.rmdir, "it does not exist"),
            (lambda: self.path.write_bytes(b""), "it cannot be used"),
            (lambda: self.path.write_bytes(b"garbage"), "it cannot be used"),
            (lambda: self.path.write_bytes(b"\x05\x02"), "it holds no keys"),
        ):
            change()
            for minor in (-1765328349, -1765328339, -1765328171, 2, 21):
                self.assert_said(
                    self.said(minor, version=1), CredentialError, f"keytab {self.path}: ", words
                )
        self.path.write_bytes(content)
        # Root, as whom tests run, may read all.
        self.patch(os, "access", lambda *_: False)
        self.assert_said(self.said(), CredentialError, "it cannot be read by this user")

    def test_one_principal(self) -> None:
        """Where one principal's keys count, the others' in the keytab do not."""
        label = TicketLabel(self.name, 18, 1, 18)
        for principal in ("svc-echo@TEST.EXAMPLE", "svc-echo"):
            error = explain_token(
                gss(-1765328349), "client", Acceptor(str(self.path), label, principal)
            )
            self.assert_said(error, PeerNotAuthenticated, "made for another key")
        error = explain_token(
            gss(-1765328349), "client", Acceptor(str(self.path), label, "svc-other@TEST.EXAMPLE")
        )
        self.assert_said(
            error, CredentialError, "it holds no keys of svc-other@TEST.EXAMPLE; export"
        )

    def test_other_keytabs(self) -> None:
        """A keytab that is not a file, and one whose type is spelt out."""
        label = TicketLabel(self.name, 18, 1, 18)
        error = explain_token(gss(-1765328349), "client", Acceptor("MEMORY:nothing", label))
        self.assert_said(error, CredentialError, "keytab MEMORY:nothing: it is of type 'MEMORY'")
        for kind in ("FILE", "WRFILE"):
            error = explain_token(
                gss(-1765328349), "client", Acceptor(f"{kind}:{self.path}", label)
            )
            self.assert_said(error, PeerNotAuthenticated, "made for another key")
            error = explain_token(gss(-1765328349), "client", Acceptor(f"{kind}:/nowhere", label))
            self.assert_said(error, CredentialError, "keytab /nowhere: it does not exist")

    def test_replay_cache(self) -> None:
        """A number of the system's with a keytab that is fine is about the replay cache."""
        for number in (13, 28, -1765328220):
            error = self.said(number)
            self.assert_said(error, CredentialError, "which requests it has seen", "KRB5RCACHEDIR")
            self.assertEqual(error.subject, REPLAY_CACHE)
        # What a token that cannot be read may be refused with says nothing about this machine.
        for number in (12, 22, 34):
            self.assertEqual(self.said(number).subject, "client")

    def test_the_default_keytab(self) -> None:
        """Without a path it is the default keytab that counts."""
        os.environ["KRB5_KTNAME"] = f"FILE:{self.path}"
        error = explain_token(
            gss(-1765328349), "client", Acceptor(None, TicketLabel(self.name, 18, 7, 18))
        )
        self.assert_said(error, ToldByTicket, "version 7", f"{self.path} holds 1")

    def test_keytab_keys(self) -> None:
        """Content of a keytab, without the keys."""
        (key,) = keytab_keys(str(self.path))
        self.assertEqual((key.principal, key.version, key.kind), ("svc-echo@TEST.EXAMPLE", 1, 18))

    def test_strangers_names(self) -> None:
        """A name that a stranger wrote on its ticket is shown escaped, in one line."""
        self.name = "a\nb\x1b[2J"
        self.assertNotIn("\x1b", str(self.said(version=1)))


def refusals(realm: Realm) -> dict[str, Callable[[gssapi.OID], MutualAuthError]]:
    """Failures at a service that negotiates, each by the way in which a client of this mechanism
    comes.
    """
    spn = SPN("echoSvc", "srv1.test.example")
    keys = ServiceKeys(ServiceCredentials(realm.keytab("svc-echo")), None, NEGOTIATE)

    def token(
        mechanism: gssapi.OID, skew: int = 0, account: str = "svc-echo", **ticket: float
    ) -> bytes:
        ccache = realm.ccache("alice", str(spn), account, **ticket)  # type: ignore[arg-type]
        if skew:
            set_clock(ccache, skew)
        return third_party_initiator(spn, ccache, mechanism=mechanism).step() or b""

    def said(request: bytes) -> MutualAuthError:
        try:
            keys.acceptor("client").step(request)
        except StepFailed as failed:
            return failed.error
        raise AssertionError("it was accepted")

    def replayed(mechanism: gssapi.OID) -> MutualAuthError:
        request = token(mechanism)
        keys.acceptor("client").step(request)
        return said(request)

    return {
        "replay": replayed,
        "clock skew": lambda mechanism: said(
            token(mechanism, skew=3600, lifetime=10_000, age=10_000)
        ),
        "wrong key": lambda mechanism: said(token(mechanism, account="svc-other")),
        "expired": lambda mechanism: said(token(mechanism, lifetime=-3600, age=7200, said=3600)),
        "altered": lambda mechanism: said(token(mechanism)[:-4] + bytes(4)),
    }


class MadeUpTests(SynchronousTestCase):
    """Numbers that MIT makes up for a mechanism when another one has returned the same code
    before.
    """

    WORDS = {
        "replay": "seen before (replay)",
        "clock skew": "the clocks of both sides differ",
        "wrong key": "made for another key",
        "expired": "its ticket has expired",
        "altered": "does not fit its ticket",
    }

    def test_orders(self) -> None:
        """In a new process each failure is told in the same words, bare and inside SPNEGO,
        whichever comes first.
        """
        for order in ("bare first", "SPNEGO first"):
            directory = self.mktemp()
            os.makedirs(directory)
            command = [
                sys.executable,
                "-m",
                "tests.unit.kerberos.test_errors",
                os.path.abspath(directory),
                order,
            ]
            root = Path(__file__).resolve().parents[3]
            ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
            self.assertEqual((ended.returncode, ended.stderr), (0, ""))
            lines = ended.stdout.splitlines()
            self.assertEqual(lines[::2], lines[1::2], order)
            self.assertEqual([line.partition(": ")[0] for line in lines[::2]], list(self.WORDS))
            for line in lines:
                self.assertIn(self.WORDS[line.partition(": ")[0]], line, order)

    def test_a_client(self) -> None:
        """So are a client's failures before it sends anything."""
        make_realm(self)
        spn = SPN("echoSvc", "srv1.test.example")
        credentials = ClientCredentials(ccache="FILE:/nonexistent/ccache")
        for package in (KERBEROS, NEGOTIATE, KERBEROS):
            client = KerberosInitiator(spn, credentials, Protection.SEAL, package)
            failed = self.assertRaises(StepFailed, client.step, None).error
            self.assertIsInstance(failed, CredentialError)
            self.assertIn("there is no Kerberos ticket", str(failed))

    def test_told(self) -> None:
        """A refusal of a client's ticket is the service's word, bare and inside SPNEGO."""
        realm = make_realm(self)
        spn = SPN("echoSvc", "srv1.test.example")
        keys = ServiceKeys(ServiceCredentials(realm.keytab("svc-echo")), None, NEGOTIATE)
        expired: dict[str, float] = {"lifetime": -3600, "age": 7200, "said": 3600}
        for account, ticket, words in (
            ("svc-other", {}, "made for another key"),
            ("svc-echo", expired, "has expired"),
        ):
            said = []
            for package in (KERBEROS, NEGOTIATE, KERBEROS):
                ccache = realm.ccache("alice", str(spn), account, **ticket)  # type: ignore[arg-type]
                client = KerberosInitiator(
                    spn, ClientCredentials(ccache=ccache), Protection.SEAL, package
                )
                request = client.step(None).token
                failed = self.assertRaises(StepFailed, keys.acceptor("client").step, request)
                told = self.assertRaises(StepFailed, client.step, failed.token).error
                self.assertIs(type(told), PeerRefused)
                self.assertIn(
                    f"the service refused the ticket: the {'Kerberos ' * bool(ticket)}ticket",
                    str(told),
                )
                self.assertIn(words, str(told))
                said.append(str(told))
            self.assertEqual(len(set(said)), 1)

    def test_looked_for_once(self) -> None:
        """A number is looked for once, and one that stands for no code of Kerberos stays what it
        is.
        """
        asked: list[int] = []

        class Asked(GSSError):  # type: ignore[misc]
            def get_all_statuses(self, code: int, is_maj: bool) -> list[str]:
                asked.append(code)
                return [f"text {0xFFFFFFFF & -1765328350}" if code == 100_777 else f"text {code}"]

        self.patch(gsserrors, "_ORIGINAL", {})
        known, unknown = Asked(FAILURE, 100_777), Asked(FAILURE, 100_778)
        asked.clear()  # GSSAPI's own class asks for its text
        for _ in range(2):
            self.assertEqual((minor_code(known), minor_code(unknown)), (-1765328350, 100_778))
        self.assertEqual((asked.count(100_777), asked.count(100_778)), (1, 1))


def main(directory: str, order: str) -> None:
    """Print what is said of each failure, by clients of both mechanisms in this order."""
    realm = Realm(directory)
    os.environ.update(realm.environment())
    mechanisms = [gssapi.MechType.kerberos, gssapi.OID.from_int_seq("1.3.6.1.5.5.2")]
    if order == "SPNEGO first":
        mechanisms.reverse()
    for name, refused in refusals(realm).items():
        for mechanism in mechanisms:
            error = refused(mechanism)
            print(f"{name}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
