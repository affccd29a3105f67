"""Authenticated facts: flags, and how principals are written."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.names import split_principal
from mutauth_twisted.protection import Flag, Protection, flag_names


class FlagTests(SynchronousTestCase):
    """The flags of a finished context."""

    def test_required_flags(self) -> None:
        """Sealing asks for confidentiality in addition to what signing asks for; a client for
        detection in addition.
        """
        self.assertEqual(int(Protection.SIGN.required_flags), 2 | 32)
        self.assertEqual(
            Protection.SEAL.required_flags, Protection.SIGN.required_flags | Flag.CONFIDENTIALITY
        )
        for protection in Protection:
            self.assertEqual(int(protection.requested_flags ^ protection.required_flags), 4 | 8)

    def test_names(self) -> None:
        """Known flags have names, others numbers, none a word."""
        self.assertEqual(flag_names(2 | 32), "mutual, integrity")
        self.assertEqual(flag_names(0x1002), "mutual, 0x1000")
        self.assertEqual(flag_names(0), "none")


class PrincipalTests(SynchronousTestCase):
    """Principals taken apart."""

    def test_split(self) -> None:
        """An escaped @ belongs to the name."""
        for text, parts in (
            ("alice@R", ("alice", "R")),
            ("alice", ("alice", "")),
            ("a\\@b@R", ("a\\@b", "R")),
            ("host/h@", ("host/h", "")),
            ("a\\\\@R", ("a\\\\", "R")),
            ("a\\\\\\@b@R", ("a\\\\\\@b", "R")),
            ("", ("", "")),
        ):
            self.assertEqual(split_principal(text), parts)
