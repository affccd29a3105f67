"""Kerberos failures in one line."""

from __future__ import annotations

import ctypes

from gssapi.raw.misc import GSSError
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted import gsserrors
from mutauth_twisted.errors import (
    AuthenticationError,
    CredentialError,
    KDCUnreachable,
    PeerNotProven,
    ProtocolViolation,
    RecordError,
    UsageError,
)
from mutauth_twisted.gsserrors import explain, minor_code

FAILURE = 0xD0000  # GSS_S_FAILURE


def gss(minor: int, major: int = FAILURE) -> GSSError:
    """What GSSAPI raises: the minor code is unsigned there."""
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
            (-1765328377, PeerNotProven, "no such service"),
            (-1765328343, PeerNotProven, "another key"),
            (-1765328353, PeerNotProven, "another key"),
            (-1765328347, AuthenticationError, "clocks"),
            (-1765328228, KDCUnreachable, "no KDC answers"),
            (-1765328230, KDCUnreachable, "no KDC answers"),
            (39756032, CredentialError, "another principal"),
            (39756033, CredentialError, "no such key"),
        ):
            error = explain(gss(minor), "thing")
            self.assertIsInstance(error, kind, minor)
            self.assertTrue(str(error).startswith("thing: "), str(error))
            self.assertIn(words, str(error))
            self.assertNotIn("\n", str(error))

    def test_major_codes(self) -> None:
        """What the major code alone tells."""
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
        """What is explained already stays as it is."""
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
            "_NO_TICKET": ("credential", "Credential"),
            "_BAD_CACHE": ("redential",),
            "_REVOKED": ("expired", "revoked"),
            "_UNKNOWN_SERVICE": ("Server not found",),
            "_SKEW": ("skew", "yet valid"),
        }
        for code, meaning in gsserrors._MINOR.items():
            if code > 0:
                continue  # the mechanism's own two, which libkrb5 does not know
            text = library.krb5_get_error_message(context, ctypes.c_int32(code)).decode()
            self.assertNotIn("Unknown code", text)
            for name, words in fitting.items():
                if meaning is getattr(gsserrors, name):
                    self.assertTrue(any(word in text for word in ([words] if isinstance(words, str) else words)), text)
