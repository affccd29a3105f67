"""SPNs on several accounts."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.admin import duplicates
from mutauth_twisted.admin.duplicates import Duplicate, Holder, duplicates_among
from mutauth_twisted.errors import MutualAuthError

_SPNS = st.sampled_from(["a/x", "A/X", "b/y", "b/y/CN=ü, \" '", "B/Y/cn=Ü, \" '", "malformed"])


class DuplicateTests(SynchronousTestCase):
    """Finding them, exactly, in little memory."""

    def test_table(self) -> None:
        """Case does not count; twice on one account is not a duplicate; three holders are one."""
        found = duplicates_among(
            [
                ("one", "CN=one", ["HTTP/web", "b/only", "b/ONLY"]),
                ("two", "CN=two", ["http/WEB", "c/y"]),
                ("none", "CN=none", []),
                ("three", "CN=three", ["C/Y", "hTTP/web"]),
            ]
        )
        self.assertEqual(
            found,
            [
                Duplicate(
                    "C/Y", (Holder("three", "CN=three", "C/Y"), Holder("two", "CN=two", "c/y"))
                ),
                Duplicate(
                    "HTTP/web",
                    (
                        Holder("one", "CN=one", "HTTP/web"),
                        Holder("three", "CN=three", "hTTP/web"),
                        Holder("two", "CN=two", "http/WEB"),
                    ),
                ),
            ],
        )

    @given(st.lists(st.sets(_SPNS), max_size=6))
    def test_as_by_hand(self, held: list[set[str]]) -> None:
        """The search finds what counting by hand finds."""
        accounts = [
            (f"a{number}", f"CN=a{number}", sorted(spns)) for number, spns in enumerate(held)
        ]
        everything = {spn.casefold() for spns in held for spn in spns}
        counted = {
            name: sum(name in {spn.casefold() for spn in spns} for spns in held)
            for name in everything
        }
        self.assertEqual(
            [found.spn.casefold() for found in duplicates_among(accounts)],
            sorted(name for name, count in counted.items() if count > 1),
        )

    def test_memory_does_not_grow_with_the_number(self) -> None:
        """Ten times the accounts need no more memory of Python's."""

        def accounts(count: int) -> Iterator[tuple[str, str, list[str]]]:
            for number in range(count):
                yield (
                    f"a{number}",
                    f"CN=a{number}",
                    [f"host/a{number}", f"HTTP/{number % (count - 1)}"],
                )

        peaks = []
        for count in (1000, 10_000):
            tracemalloc.start()
            self.assertEqual([each.spn for each in duplicates_among(accounts(count))], ["HTTP/0"])
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        self.assertLess(peaks[1], 2 * peaks[0])

    def test_progress(self) -> None:
        """It is told along the way and at the end."""
        told: list[tuple[int, int]] = []
        duplicates_among(
            ((f"a{n}", f"CN=a{n}", ["x/y", "x/z"]) for n in range(250)),
            lambda *counts: told.append(counts),
        )
        self.assertEqual(told, [(100, 200), (200, 400), (250, 500)])

    def test_no_room(self) -> None:
        """A full disk is one line that says where else it could be."""
        self.patch(duplicates, "_PREPARE", duplicates._PREPARE + "PRAGMA max_page_count = 20;")
        accounts = ((f"a{n}", f"CN=a{n}", [f"x/{'y' * 100}{n}"]) for n in range(10_000))
        error = self.assertRaises(MutualAuthError, duplicates_among, accounts)
        self.assertIn("SQLITE_TMPDIR", str(error))
        self.assertIsInstance(error.__cause__, sqlite3.Error)
