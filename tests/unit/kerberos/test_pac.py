"""The account and the groups in a PAC: a real one's, made ones', and those of whoever means
harm.
"""

from __future__ import annotations

import contextlib
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.kerberos.pac import read_logon
from mutauth_twisted.testing.pacs import DOMAIN, ENABLED, REAL, pac, sid_bytes, upn_information


class GroupTests(SynchronousTestCase):
    """SIDs that count, and those that do not."""

    def test_real(self) -> None:
        """A real domain controller's."""
        self.assertEqual(read_logon(REAL).groups, (f"{DOMAIN}-513", f"{DOMAIN}-1110", "S-1-18-1"))

    def test_kept_once(self) -> None:
        """Thousands of sessions whose accounts are in the same groups share the texts of these."""
        for one, other in zip(read_logon(REAL).groups, read_logon(REAL).groups, strict=True):
            self.assertIs(one, other)

    def test_all_kinds(self) -> None:
        """The domain's groups, others' SIDs and domain-local groups, with names of odd length
        before them.
        """
        data = pac(
            groups=[(513, ENABLED), (1104, ENABLED)],
            others=[("S-1-5-21-7-8-9-500", ENABLED), ("S-1-18-1", ENABLED)],
            resource=("S-1-5-21-4-5-6", [(1200, ENABLED | 0x20000000)]),
            name="bob",
        )
        own = ("S-1-5-21-1-2-3-513", "S-1-5-21-1-2-3-1104")
        self.assertEqual(
            read_logon(data).groups, (*own, "S-1-5-21-7-8-9-500", "S-1-18-1", "S-1-5-21-4-5-6-1200")
        )

    def test_what_does_not_count(self) -> None:
        """A group that is not enabled, or that only denials may look at, allows no client."""
        attributes = (0, 1, 3, ENABLED, ENABLED | 0x10, 0x10)
        data = pac(
            groups=[(number, each) for number, each in enumerate(attributes)],
            others=[(f"S-1-5-{number}", each) for number, each in enumerate(attributes)],
            resource=("S-1-5-21-4", [(number, each) for number, each in enumerate(attributes)]),
        )
        self.assertEqual(read_logon(data).groups, ("S-1-5-21-1-2-3-3", "S-1-5-3", "S-1-5-21-4-3"))

    def test_none(self) -> None:
        """A client without groups, and group numbers without a domain to complete them."""
        self.assertEqual(read_logon(pac()).groups, ())
        self.assertEqual(read_logon(pac(domain=None, groups=[(513, ENABLED)])).groups, ())

    def test_account(self) -> None:
        """The account's name and SID, its domain's name, and its UPN where it is told."""
        self.assertEqual(
            (read_logon(REAL).name, read_logon(REAL).domain, read_logon(REAL).sid),
            ("alice", "LAB", f"{DOMAIN}-1103"),
        )
        logon = read_logon(
            pac(name="zo\u00eb $", user=0xFFFFFFFF), upn_information("zo\u00eb@example.com")
        )
        self.assertEqual(
            (logon.account, logon.upn), ("zo\u00eb $\\zo\u00eb $", "zo\u00eb@example.com")
        )
        self.assertEqual(logon.sid, "S-1-5-21-1-2-3-4294967295")

    def test_no_account(self) -> None:
        """Without a number, or without a domain, there is no SID; without a name, none."""
        for data in (pac(user=0), pac(domain=None)):
            logon = read_logon(data)
            self.assertEqual((logon.name, logon.sid, logon.upn), ("", None, None))

    def test_for_denials_only(self) -> None:
        """SIDs that only denials may look at are kept for them."""
        logon = read_logon(pac(groups=[(1, ENABLED), (2, 0x10), (3, ENABLED | 0x10), (4, 3)]))
        self.assertEqual(logon.deny_only, ("S-1-5-21-1-2-3-2", "S-1-5-21-1-2-3-3"))

    sids = st.builds(
        lambda authority, parts: "-".join(map(str, ("S-1", authority, *parts))),
        st.integers(0, 2**48 - 1),
        st.lists(st.integers(0, 2**32 - 1), max_size=14),
    )
    numbers = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.just(ENABLED)), max_size=20)

    @settings(max_examples=150, deadline=None)
    @given(
        domain=sids,
        groups=numbers,
        others=st.lists(st.tuples(sids, st.just(ENABLED)), max_size=5),
        resource=st.tuples(sids, numbers),
        name=st.text(st.characters(max_codepoint=0xD7FF), max_size=9),
    )
    def test_anything_serialized(
        self,
        domain: str,
        groups: list[tuple[int, int]],
        others: list[tuple[str, int]],
        resource: tuple[str, list[tuple[int, int]]],
        name: str,
    ) -> None:
        """Everything that was put in comes out."""
        wanted = [f"{domain}-{number}" for number, _ in groups] + [sid for sid, _ in others]
        wanted += [f"{resource[0]}-{number}" for number, _ in resource[1]]
        self.assertEqual(
            read_logon(pac(domain, groups, others, resource, name)).groups, tuple(wanted)
        )


class HostileTests(SynchronousTestCase):
    """A PAC is signed by the domain controller, and not believed for that."""

    def test_cut(self) -> None:
        """A PAC that is cut anywhere before its padding is refused."""
        end = len(REAL.rstrip(b"\0")) + 3  # of the last sub-authority, 1
        for size in range(end):
            self.assertRaises(ValueError, read_logon, REAL[:size])
        self.assertEqual(read_logon(REAL[:end]).groups, read_logon(REAL).groups)

    def test_counts(self) -> None:
        """Counts that lie - too large, or not what was announced - are refused and cost nothing."""
        data = pac(groups=[(513, ENABLED)], others=[("S-1-5-21-1", ENABLED)], name="x")
        self.assertEqual(len(read_logon(data).groups), 2)
        for position in range(16, len(data) - 3, 4):
            for lie in (0x7FFFFFFF, 0xFFFFFFFF):
                changed = data[:position] + struct.pack("<I", lie) + data[position + 4 :]
                with contextlib.suppress(ValueError):
                    self.assertLessEqual(len(read_logon(changed).groups), 2)

    def test_contradictions(self) -> None:
        """Facts that are said twice have to be the same, and versions the known ones."""
        data = pac(domain="S-1-5-21", groups=[(513, ENABLED)], name="ab")
        groups, sid = struct.pack("<III", 1, 513, ENABLED), sid_bytes("S-1-5-21")
        string = struct.pack("<III", 2, 0, 2) + "ab".encode("utf-16-le")
        for right, wrong in (
            (groups, struct.pack("<I", 2) + groups[4:]),
            (groups, struct.pack("<I", 0) + groups[4:]),
            (sid, sid[:4] + b"\2" + sid[5:]),
            (sid, sid[:5] + b"\2" + sid[6:]),
            (string, struct.pack("<III", 1, 0, 2) + string[12:]),
            (string, struct.pack("<III", 2, 1, 2) + string[12:]),
            (b"\x01\x10\x08\x00", b"\x01\x00\x08\x00"),
        ):
            self.assertIn(right, data)
            self.assertRaises(ValueError, read_logon, data.replace(right, wrong, 1))

    def test_upn(self) -> None:
        """A UPN that is cut anywhere, or that is not text, is refused."""
        data = upn_information("bob@example.com")
        for size in range(1, len(data)):
            self.assertRaises(ValueError, read_logon, REAL, data[:size])
        self.assertRaises(ValueError, read_logon, REAL, data[:16] + b"\0\xd8" * 15)
        self.assertRaises(ValueError, read_logon, REAL, b"\xff" * len(data))

    def test_size_of_a_name(self) -> None:
        """A name has the size that was announced for it."""
        data = pac(name="bob")
        self.assertEqual(read_logon(data).name, "bob")
        at = 16 + 4 + 48
        self.assertEqual(data[at : at + 2], b"\6\0")
        self.assertRaises(ValueError, read_logon, data[:at] + b"\4\0" + data[at + 2 :])

    def test_too_many_parts(self) -> None:
        """A SID has at most fifteen sub-authorities."""
        self.assertEqual(
            len(read_logon(pac(domain="S-1-5" + "-1" * 15, groups=[(1, ENABLED)])).groups), 1
        )
        self.assertRaises(
            ValueError, read_logon, pac(domain="S-1-5" + "-1" * 16, groups=[(1, ENABLED)])
        )

    @settings(max_examples=300, deadline=None)
    @given(
        data=st.binary(max_size=600),
        flips=st.lists(st.tuples(st.integers(0, len(REAL) - 1), st.integers(1, 255)), max_size=4),
    )
    def test_anything(self, data: bytes, flips: list[tuple[int, int]]) -> None:
        """Any bytes, and a real PAC with any of its bytes changed, give SIDs or a ValueError."""
        changed = bytearray(REAL)
        for position, mask in flips:
            changed[position] ^= mask
        for candidate in (data, REAL[:16] + data, bytes(changed)):
            try:
                logon = read_logon(candidate, data)
            except ValueError as error:
                self.assertNotEqual(str(error), "")
            else:
                self.assertTrue(
                    all(sid.startswith("S-1-") for sid in (*logon.groups, *logon.deny_only))
                )
