"""docs/interop.md says what is tested, and with which versions."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from interop import table


class TableTests(SynchronousTestCase):
    """The document against the tests."""

    def test_document(self) -> None:
        """The table in the document is the one that the tests make; `python -m interop.table`
        renews it.

        Versions differ with the distribution in their last part.
        """
        self.maxDiff = None
        _, written, _ = table.parts(table.DOCUMENT.read_text("utf-8"))
        self.assertEqual(_without_patches(written), _without_patches(table.generated()))

    def test_gaps_are_explained(self) -> None:
        """A row that lacks something is explained below the table."""
        before, _, after = table.parts(table.DOCUMENT.read_text("utf-8"))
        for who, _, *cells in table.rows():
            if "-" in cells:
                self.assertIn(f"**{who}**", before + after)


def _without_patches(text: str) -> str:
    return re.sub(r"(\| \d+\.\d+)[\d.]*", r"\1", text)
