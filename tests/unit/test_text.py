"""Text from outside: escaped, and short before it is escaped."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL.crypto import X509
from twisted.internet.task import Clock
from twisted.logger import LogEvent, eventAsText, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.access import AccessPolicy, Logon
from mutauth_twisted.directory.guidcache import GuidCache
from mutauth_twisted.directory.servicename import ServiceName
from mutauth_twisted.errors import AccessDenied, MutualAuthError, ProtocolViolation
from mutauth_twisted.kerberos.keytab import check_keytab
from mutauth_twisted.log import LimitedLog, Log
from mutauth_twisted.net.connectionlog import ConnectionLog
from mutauth_twisted.net.tls import _names_in, _not_for, server_layer
from mutauth_twisted.testing.fakes import captured_log
from mutauth_twisted.testing.hostile import HOSTILE, HOSTILE_NAME, raw_in
from mutauth_twisted.text import (
    LONGEST_LINE,
    LONGEST_NAME,
    LONGEST_STRANGER,
    one_line,
    printable,
    short_name,
)


class TextTests(SynchronousTestCase):
    """Escapes of names and lines."""

    def test_hostile(self) -> None:
        """Nothing that a terminal obeys, and nothing invisible, is left by any of them."""
        self.assertGreater(len(raw_in(HOSTILE)), 20)
        for shown in (
            printable(HOSTILE),
            short_name(HOSTILE),
            short_name(HOSTILE.encode()),
            one_line(HOSTILE),
        ):
            self.assertEqual(raw_in(shown), [])
            self.assertNotIn("\n", shown)
            self.assertIn("\\x1b[31m", shown)

    def test_letters_stay(self) -> None:
        """Names in any script are shown as they are."""
        for text in ("Bücher", "東京", "Ω-1", "श्री", "a b", "", "e\u0301"):
            self.assertEqual(
                (printable(text), short_name(text), one_line(text)), (text, text, text)
            )

    def test_cut_first(self) -> None:
        """A name is cut before it is escaped, so that a long one is no more work than a short
        one.
        """

        class Counted(str):
            """Says how much of it was taken."""

            def __getitem__(self, key: object) -> str:
                taken = str.__getitem__(self, key)  # type: ignore[index]
                sizes.append(len(taken))
                return taken

        sizes: list[int] = []
        shown = short_name(Counted("\x1b" * 60_000))
        self.assertEqual(sizes, [LONGEST_NAME])
        self.assertEqual(shown, "\\x1b" * (LONGEST_NAME // 4) + "...")
        self.assertEqual(short_name("x" * LONGEST_NAME), "x" * LONGEST_NAME)
        self.assertEqual(short_name("x" * 101), "x" * LONGEST_NAME + "...")

    def test_bytes(self) -> None:
        """Bytes that are no UTF-8 are shown escaped."""
        self.assertEqual(short_name(b"a\xff\x1b"), "a\\xff\\x1b")
        self.assertEqual(short_name("é".encode()), "é")
        self.assertLess(len(short_name(b"\xff" * 60_000)), LONGEST_NAME + 4)

    @given(text=st.text(), most=st.integers(1, 60))
    def test_bounds(self, text: str, most: int) -> None:
        """With any content, it is as long as it may be at most, printable, and the same when it is
        escaped again.
        """
        for shown in (short_name(text, most), one_line(text, most)):
            self.assertLessEqual(len(shown), most + 3)
            self.assertTrue(shown.isprintable(), shown)
            self.assertEqual(printable(shown), shown)

    def test_errors(self) -> None:
        """An error's line is bounded, whatever it quotes."""
        line = str(MutualAuthError("x" * 100_000, HOSTILE, HOSTILE * 100))
        self.assertLessEqual(len(line), LONGEST_LINE + 3)
        self.assertEqual(raw_in(str(MutualAuthError(HOSTILE, HOSTILE, HOSTILE))), [])


class LogTests(SynchronousTestCase):
    """The one way into the log."""

    log = Log()

    def shown(self, events: list[LogEvent]) -> list[str]:
        return [str(formatEvent(event)) for event in events]

    def test_every_field(self) -> None:
        """A field is escaped and bounded, and may hold braces; the event keeps it as it was."""
        with captured_log() as events:
            self.log.info("{one} and {two}", one=HOSTILE, two="{brace} " * 5000)
        (line,) = self.shown(events)
        self.assertEqual(raw_in(line), [])
        self.assertIn("{brace} {brace}", line)
        self.assertLess(len(line), LONGEST_LINE + 4)
        self.assertEqual(events[0]["one"], HOSTILE)

    def test_failures(self) -> None:
        """The line of an internal error is as safe, and has its traceback."""
        with captured_log() as events:
            self.log.failure("it broke for {who}", Failure(ZeroDivisionError()), who=HOSTILE)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(raw_in(self.shown(events)[0]), [])

    def test_tracebacks(self) -> None:
        """A traceback as the log shows it names its frames, and the exception's text can neither
        colour nor forge a line.
        """
        forged = "2026-01-01T00:00:00+0000 [-] mutauth: all is well"
        with captured_log() as events:
            try:
                raise ValueError(f"{HOSTILE}\n{forged}")
            except ValueError:
                self.log.failure("it broke")
        (seen,) = self.flushLoggedErrors(ValueError)
        self.assertIn(forged, str(seen.value))
        for shown in (eventAsText(events[0]), str(seen.getTraceback())):
            lines = shown.splitlines()
            self.assertEqual([raw_in(line) for line in lines], [[]] * len(lines))
            self.assertIn(" test_tracebacks", shown)
            self.assertIn("\\x1b[31m", lines[-1])
            self.assertNotIn(forged, lines)
            self.assertTrue(lines[-1].startswith("builtins.ValueError: "), lines[-1])


class SourceTests(SynchronousTestCase):
    """Errors and lines about names from everywhere: nothing raw, nothing long."""

    def assert_safe(self, line: str) -> None:
        self.assertEqual(raw_in(line), [], line)
        self.assertLess(len(line), LONGEST_STRANGER)
        self.assertIn("\\x1b[31m", line)

    def test_certificates(self) -> None:
        """The names in a certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [
            x509.DNSName(each)
            for each in ("x\x1b[31m\r\n\x07" + "a" * 300, "b" * 5000, "\x7f\x1b[2J", "c")
        ]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
        begin = datetime(2020, 1, 1)
        certificate = (
            x509.CertificateBuilder(
                subject, subject, key.public_key(), 1, begin, begin + timedelta(days=9)
            )
            .add_extension(x509.SubjectAlternativeName(names), False)
            .sign(key, hashes.SHA256())
        )
        connection = SimpleNamespace(
            get_peer_certificate=lambda: X509.from_cryptography(certificate)
        )
        self.assert_safe(
            str(_not_for("srv1.example.com", _names_in(cast(Any, connection)), "10.0.0.1:1"))
        )

    def test_principals(self) -> None:
        """The principal that a client chose, its account and its rule, in the line about its
        refusal.
        """
        connection_log, logon = ConnectionLog(Clock()), Logon(HOSTILE * 50, HOSTILE * 50)
        for principal in (HOSTILE * 500, f"alice@{HOSTILE * 50}"):
            refusal = AccessPolicy(allow=["bob@*"]).decide(f"{principal}@R", lambda: logon)
            self.assertFalse(refusal.allowed)
            error = AccessDenied(short_name(principal), refusal.cause, refusal.remedy)
            with captured_log() as events:
                connection_log.refused(error, "10.0.0.1", "handshake with 10.0.0.1:1 failed")
            (line,) = [str(formatEvent(event)) for event in events]
            self.assertEqual(raw_in(line), [], line)
            self.assertLessEqual(len(line), LONGEST_STRANGER + 3)

    def test_files(self) -> None:
        """The name of a file."""
        for read in (
            check_keytab,
            server_layer,
            lambda path: GuidCache(path).read(ServiceName("echoSvc", "srv1")),
        ):
            path = f"{self.mktemp()}{HOSTILE_NAME[:60]}"
            if read in (check_keytab, server_layer):
                self.assert_safe(str(self.assertRaises(MutualAuthError, read, path)))
            else:
                Path(path).write_text("a file where a directory should be")
                self.assert_safe(str(self.assertRaises(MutualAuthError, read, path)))


class LimitedLogTests(SynchronousTestCase):
    """A flood of lines."""

    log = Log()

    def setUp(self) -> None:
        self.clock = Clock()
        self.limited = LimitedLog(self.clock, self.log, "strangers")

    def flood(
        self, count: int, kind: str = "noise", source: str = "10.0.0.1", length: int = 10
    ) -> list[str]:
        """Have so many lines logged; those that were."""
        with captured_log() as events:
            for number in range(count):
                self.limited.line(kind, source, lambda number=number: f"{number} " + "x" * length)
        return [str(formatEvent(event)) for event in events]

    def after(self, seconds: float) -> list[str]:
        """The lines that time brings."""
        with captured_log() as events:
            self.clock.advance(seconds)
        return [str(formatEvent(event)) for event in events]

    def test_first_in_full_and_then_counts(self) -> None:
        """The first lines of a source are there, the others in one summary; and then again."""
        for _ in range(2):
            lines = self.flood(1000)
            self.assertEqual(len(lines), LimitedLog.LINES_OF_ONE)
            self.assertEqual(self.after(LimitedLog.INTERVAL - 0.1), [])
            self.assertEqual(
                self.after(0.1), ["980 more strangers in 10 s, of 1 source(s): noise 980"]
            )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_others_are_seen(self) -> None:
        """A flood from one source leaves room for lines about others, until there are too many
        altogether.
        """
        self.flood(1000)
        self.assertEqual(len(self.flood(1, "timeout", "10.0.0.2")), 1)
        for number in range(3000):
            self.flood(1, f"kind {number}", f"192.0.2.{number}")
        (summary,) = self.after(LimitedLog.INTERVAL)
        self.assertRegex(summary, r"^39\d\d more strangers in 10 s, of 1000 or more source\(s\): ")
        self.assertIn("noise 980", summary)
        self.assertIn("other ", summary)
        self.assertLess(len(summary), 500)

    def test_some_hide_no_other(self) -> None:
        """When some sources have used up all lines the first one about another is logged, and one
        only.
        """
        for number in range(2):
            self.flood(25, source=f"10.0.0.{number}")
        for number in range(2, LimitedLog.FIRSTS + 2):
            self.assertEqual(len(self.flood(5, source=f"10.0.0.{number}")), 1, number)
        self.assertEqual(self.flood(5, source="10.0.1.1"), [])
        (summary,) = self.after(LimitedLog.INTERVAL)
        self.assertIn(f"{20 + 4 * LimitedLog.FIRSTS + 5} more strangers", summary)
        self.assertEqual(len(self.flood(25)), LimitedLog.LINES_OF_ONE)

    def test_lines_a_second(self) -> None:
        """An hour of flood from everywhere is a few lines a second, and work is done for those
        only.
        """
        lines = made = 0

        def render() -> str:
            nonlocal made
            made += 1
            return "line"

        with captured_log() as events:
            for number in range(36_000):
                self.limited.line("noise", str(number % 5000), render)
                self.clock.advance(0.1)
            lines = len(events)
        self.assertLessEqual(
            lines, 3600 / LimitedLog.INTERVAL * (LimitedLog.LINES + LimitedLog.FIRSTS + 1)
        )
        self.assertLess(made, lines)

    def test_short(self) -> None:
        """No line is longer than a line about a stranger may be."""
        (line,) = self.flood(1, length=100_000)
        self.assertEqual(len(line), LONGEST_STRANGER + 3)

    def test_flush(self) -> None:
        """Lines that were counted are written at the end, and no timer stays."""
        self.flood(22)
        with captured_log() as events:
            self.limited.flush()
            self.limited.flush()
        self.assertEqual(len(events), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_strangers_hide_nobody(self) -> None:
        """A flood of strangers leaves the lines about authenticated clients, and internal errors,
        alone.
        """
        connection_log = ConnectionLog(self.clock)
        with captured_log() as events:
            for number in range(1000):
                connection_log.refused(
                    ProtocolViolation("10.0.0.1:1", "it is noise"),
                    f"10.0.0.{number}",
                    "handshake failed",
                )
            connection_log.refused(
                AccessDenied("bob@TEST", "not allowed"),
                "10.0.0.1",
                "handshake with 10.0.0.1:1 failed",
            )
            self.assertTrue(connection_log.broken(Failure(ZeroDivisionError()), "10.0.0.1"))
        lines = [str(formatEvent(event)) for event in events]
        self.assertEqual(len(lines), LimitedLog.LINES + LimitedLog.FIRSTS + 1)
        self.assertEqual(
            lines[-1], "handshake with 10.0.0.1:1 failed: [access-denied] bob@TEST: not allowed"
        )
        connection_log.flush()

    def test_denied_hide_nobody(self) -> None:
        """Two denied accounts, however they are spelled, do not hide a third."""
        connection_log = ConnectionLog(self.clock)
        with captured_log() as events:
            for number in range(200):
                name = ("alice", "bob", "Alice", "BOB")[number % 4]
                connection_log.refused(
                    AccessDenied(f"{name}@TEST", "not allowed"), "10.0.0.1", "no connection"
                )
            connection_log.refused(
                AccessDenied("eve@TEST", "not allowed"), "10.0.0.1", "no connection"
            )
        self.assertEqual(len(events), LimitedLog.LINES + 1)
        self.assertEqual(
            formatEvent(events[-1]), "no connection: [access-denied] eve@TEST: not allowed"
        )
        connection_log.flush()
