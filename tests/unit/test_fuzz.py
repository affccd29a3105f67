"""The fuzzer's targets over their seeds, without a fuzzer, and what its runner reads."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fuzz.__main__ import Report, parse_log
from fuzz.inputs import Choices, edited
from fuzz.seeds import KEPT, inputs, write
from fuzz.targets import TARGETS
from mutauth_twisted.access import patterns
from mutauth_twisted.core import handshake
from mutauth_twisted.core.confirmation import Confirmed
from mutauth_twisted.core.connection import Connection
from mutauth_twisted.core.context import Outcome
from mutauth_twisted.core.records import Records
from mutauth_twisted.core.stream import Stream
from mutauth_twisted.directory import binding
from mutauth_twisted.gateway.proxyprotocol import HeaderParser, InvalidHeader
from mutauth_twisted.kerberos import pac
from mutauth_twisted.ldap import dn as names
from mutauth_twisted.mechanisms import kerberos
from mutauth_twisted.net.protocol import HandshakeProtocol
from mutauth_twisted.testing.fakes import FakeContext
from mutauth_twisted.wire._base import BufferedReader

README = KEPT.parent / "README.md"
#: Each target's inputs, made before any fault is planted.
SEEDS = {name: inputs(name) for name in TARGETS}


class SeedTests(SynchronousTestCase):
    """Every input that was ever worth keeping: one test for each target, made below."""

    def test_every_target_has_one(self) -> None:
        """No target is without seeds, and what was kept belongs to a target."""
        self.assertLessEqual({path.name for path in KEPT.glob("*")}, set(TARGETS))
        for name in TARGETS:
            self.assertNotEqual(SEEDS[name], {}, name)

    def test_files(self) -> None:
        """The engine gets the seeds of today, and none of those that an older run wrote."""
        directory = Path(self.mktemp()) / "pac"
        for name in ("dn", "pac"):
            write(name, directory)
        found = {path.name: path.read_bytes() for path in directory.iterdir()}
        self.assertEqual(found, SEEDS["pac"])

    def test_every_target_is_described(self) -> None:
        """The README's table has every target once, and no other."""
        rows = [
            line.split("|")[1] for line in README.read_text().splitlines() if line.startswith("| `")
        ]
        self.assertEqual(
            sorted(name for row in rows for name in re.findall("`([^`]+)`", row)), sorted(TARGETS)
        )

    def check(self, name: str) -> None:
        """Every seed keeps what must hold for any input."""
        with TARGETS[name].open() as check:
            for what, data in SEEDS[name].items():
                try:
                    check(data)
                except Exception as error:
                    raise self.failureException(f"python -m fuzz.replay {name} {what}") from error


def _test_of(name: str) -> Callable[[SeedTests], None]:
    def test(self: SeedTests) -> None:
        self.check(name)

    test.__doc__ = f"The seeds of {name}."
    return test


for _name in TARGETS:
    setattr(SeedTests, f"test_{_name.replace('-', '_')}", _test_of(_name))


class FaultTests(SynchronousTestCase):
    """Targets find what they are there to find: each fault planted here shows in the seeds
    already.
    """

    def assert_found(self, name: str, error: type[BaseException] = AssertionError) -> None:
        """Some seed fails."""
        with TARGETS[name].open() as check:
            for data in SEEDS[name].values():
                try:
                    check(data)
                except error:
                    return
        self.fail(f"{name} found nothing")

    def test_a_reader_that_loses_bytes(self) -> None:
        """The wires' targets see that pieces are read as something else."""
        right = BufferedReader.feed
        self.patch(
            BufferedReader,
            "feed",
            lambda reader, data: right(reader, data[:-1] if len(data) == 4 else data),
        )
        for name in ("wire-nns", "wire-winsock"):
            self.assert_found(name)

    def test_a_reader_without_bounds(self) -> None:
        """The wires' targets see that bytes pile up."""

        def feed(reader: Any, data: bytes) -> None:
            reader._buffer += data

        self.patch(BufferedReader, "feed", feed)
        self.assert_found("wire-nns")

    def test_established_without_verification(self) -> None:
        """The machine's target and the connection's see it."""

        def conclude(core: Any, inputs: Any, last_token: bytes | None) -> None:
            inputs.verified("anybody", False)

        self.patch(handshake._Core, "conclude", conclude)
        self.assert_found("handshake")

    def test_established_without_an_opening(self) -> None:
        """The machine's target and the connection's see a copied token that is taken for its
        client.
        """
        right = handshake.Handshake.stepped

        def stepped(machine: Any, token: bytes, complete: bool) -> Any:
            events = right(machine, token, complete)
            return [*events, *(machine.opened() if machine.wants_opening else [])]

        self.patch(handshake.Handshake, "stepped", stepped)
        self.assert_found("handshake")
        self.assert_found("connection")
        self.assert_found("driver")

    def test_nobody_asked(self) -> None:
        """The connection's target sees a peer that nobody has authorized."""

        def verify(connection: Any) -> Any:
            return connection._authentication.verify(connection._security.protection)

        self.patch(Connection, "_verify", verify)
        self.assert_found("connection")

    def test_any_token(self) -> None:
        """The connection's target sees a context that takes any token."""
        self.patch(FakeContext, "step", lambda context, token: Outcome(b"anything", True))
        self.assert_found("connection")

    def test_an_application_too_early(self) -> None:
        """The driver's target sees an application without an authenticated peer."""

        def perform(protocol: Any, events: Any) -> None:
            protocol._role.build_application(None)

        self.patch(HandshakeProtocol, "_perform", perform)
        self.assert_found("driver")

    def test_a_stranger_that_stays(self) -> None:
        """The driver's target sees a deadline that ends nothing, and the connection's one that is
        not heard.
        """
        self.patch(HandshakeProtocol, "_timed_out", lambda protocol: None)
        self.assert_found("driver")
        self.patch(Connection, "timed_out", lambda connection, seconds: None)
        self.assert_found("connection")

    def test_a_stream_that_was_cut(self) -> None:
        """The records' target sees a cut stream that is taken for a finished one."""
        self.patch(Records, "cut", lambda records: None)
        self.assert_found("records")
        self.assert_found("connection")
        self.assert_found("driver")

    def test_bytes_kept_back(self) -> None:
        """The target of streams sees bytes that wait because they look like the beginning of a
        mark.
        """
        self.patch(Stream, "protect", lambda stream, data: [data] if data else [])
        self.assert_found("stream")

    def test_an_unconfirmed_channel(self) -> None:
        """The target of confirmations sees a client that does not compare them with its channel."""
        self.patch(Confirmed, "_verify", lambda confirmed, confirmation: None)
        self.assert_found("confirmation")

    def test_any_error(self) -> None:
        """The contexts' targets see an error that is none of those promised."""

        def broken(*arguments: object) -> Any:
            raise KeyError("planted")

        self.patch(kerberos, "ticket_label", broken)
        self.assert_found("acceptor", KeyError)
        self.patch(kerberos.KerberosInitiator, "_explain", broken)
        self.assert_found("initiator", KeyError)

    def test_a_header_in_pieces(self) -> None:
        """A parser that wants the first bytes of a header together, and one that loses what follows
        it.
        """
        right = HeaderParser.feed

        def impatient(parser: HeaderParser, data: bytes) -> Any:
            if len(parser._data) + len(data) < 16:
                raise InvalidHeader("it is cut")
            return right(parser, data)

        def greedy(parser: HeaderParser, data: bytes) -> Any:
            found = right(parser, data)
            return found and (found[0], b"")

        for wrong in (impatient, greedy):
            self.patch(HeaderParser, "feed", wrong)
            self.assert_found("proxy-header")

    def test_names_that_only_look_alike(self) -> None:
        """The policy's target sees that one realm is taken for another."""
        self.patch(patterns, "fold_ascii", str.casefold)
        self.assert_found("policy")

    def test_a_pac_that_is_cut(self) -> None:
        """The target of PACs sees a reader that goes beyond the end."""

        def take_array(reader: Any, count: int, size: int) -> bytes:
            start, reader._at = reader._at, reader._at + count * size
            return bytes(reader._data[start : reader._at])

        self.patch(pac._Reader, "take_array", take_array)
        self.assert_found("pac", struct.error)

    def test_a_value_that_is_no_word(self) -> None:
        """The target of binding information sees what is written in one way and read in another."""
        self.patch(binding, "_is_plain", lambda text: True)
        self.assert_found("binding")

    def test_a_value_that_is_not_escaped(self) -> None:
        """The target of DNs sees one that reaches into the next component."""
        self.patch(names, "_SPECIAL", '"+;<>\\=')
        self.assert_found("dn")


class InputTests(SynchronousTestCase):
    """From bytes to decisions."""

    def test_choices(self) -> None:
        """They are taken from the front, and are zero behind the end."""
        choices = Choices(b"\x01\x02\x03\x05abcde")
        self.assertEqual(
            (choices.flag(), choices.number(2), choices.text()), (True, 0x0203, "abcde")
        )
        self.assertFalse(choices)
        self.assertEqual(
            (choices.number(2), choices.below(3), choices.rest(), choices.cuts()), (0, 0, b"", [])
        )

    def test_edits(self) -> None:
        """Flipped, set, inserted, removed, cut; from the front and from the end."""
        for edit, result in (
            (b"", b"abcdef"),
            (b"\0\0\1\x20", b"aBcdef"),
            (b"\1\xff\xffZ", b"abcdeZ"),
            (b"\2\0\2\2xy", b"abxycdef"),
            (b"\3\0\1\2", b"adef"),
            (b"\4\xff\xfe\0", b"abcd"),
            (b"\4\0\0\0\1\0\0x", b""),
        ):
            self.assertEqual(edited(b"abcdef", Choices(edit)), result)


class LogTests(SynchronousTestCase):
    """Logs that libFuzzer writes."""

    def test_done(self) -> None:
        """The last figures count."""
        log = (
            "#2\tINITED cov: 9 ft: 9 corp: 1/1b exec/s: 0 rss: 53Mb\n"
            "#512\tDONE   cov: 56 ft: 163 corp: 30/8629b lim: 1456 exec/s: 19176 rss: 53Mb\nDone "
            "512 runs in 7 second(s)\n"
        )
        self.assertEqual(parse_log(log), Report(512, 56, 30, "8629b", None))

    def test_finding(self) -> None:
        """The file is named, even when no figures were written yet."""
        log = (
            "artifact_prefix='x-'; Test unit written to build/fuzz/findings/pac-crash-1\nBase64: "
            "AA==\n"
        )
        self.assertEqual(parse_log(log), Report(0, 0, 0, "0b", "build/fuzz/findings/pac-crash-1"))

    def test_nothing(self) -> None:
        """An engine that did not start has nothing to tell."""
        self.assertIsNone(parse_log("ModuleNotFoundError: No module named 'atheris'\n"))
