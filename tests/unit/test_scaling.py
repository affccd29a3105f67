"""The simulation of a large deployment, against the page that shows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[2]


def cells(lines: list[str]) -> list[list[str]]:
    """Those of a table, without what is around them."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


class ScaleTests(SynchronousTestCase):
    """``benchmarks/scale.py``, with few of everything."""

    def simulate(self, *words: str) -> list[list[str]]:
        """The table's cells."""
        command = [sys.executable, "benchmarks/scale.py", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return cells(done.stdout.splitlines())

    def test_page(self) -> None:
        """docs/scaling.md shows the rows that there are."""
        rows = self.simulate("--services", "20", "--connections", "2000", "--clients", "50")
        page = (ROOT / "docs/scaling.md").read_text("utf-8")
        shown = page.partition("\n## Ten thousand services\n")[2]
        table = [line for line in shown.splitlines() if line.startswith("|")]
        self.assertEqual([row[0] for row in cells(table)], [row[0] for row in rows])

    def test_sums(self) -> None:
        """One client of one service: a search a minute at the most, and a ticket in ten hours."""
        words = ("--services", "1", "--clients", "1", "--peak-factor", "1")
        rows = {row[0]: row[1] for row in self.simulate(*words, "--connections", "5000")}
        self.assertEqual(rows["connections"], "5,000")
        self.assertEqual(rows["service tickets (TGS)"], "3")
        self.assertEqual(rows["first tickets (AS)"], "3")
        self.assertLess(int(rows["searches for a service"].replace(",", "")), 1441)
