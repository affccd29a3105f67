"""The closing line of a test run is trial's own count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import run
from tests.run import PATIENT, Counts, modules, parse_closing_line, verdict


class ParsingTests(SynchronousTestCase):
    """Trial's closing line, in all its forms."""

    def test_all_passed(self) -> None:
        """Successes alone are passed tests."""
        self.assertEqual(parse_closing_line("PASSED (successes=12)\n"), Counts(12, 0, 0))

    def test_failures_and_errors_add_up(self) -> None:
        """A failure and an error are both failed tests."""
        line = "FAILED (skips=4, failures=2, errors=3, successes=7)"
        self.assertEqual(parse_closing_line(line), Counts(7, 5, 4))

    def test_todo(self) -> None:
        """An expected failure has passed, an unexpected success has failed."""
        line = "PASSED (expectedFailures=2, unexpectedSuccesses=1, successes=5)"
        self.assertEqual(parse_closing_line(line), Counts(7, 1, 0))

    def test_nothing_ran(self) -> None:
        """Without parentheses no test ran."""
        self.assertEqual(parse_closing_line("PASSED"), Counts(0, 0, 0))

    def test_other_lines_are_not_taken_for_it(self) -> None:
        """A test may print something similar."""
        for line in ("PASSED by a friend", "test_PASSED ... [OK]", "Ran 3 tests in 0.1s", ""):
            self.assertIsNone(parse_closing_line(line))

    def test_written_out(self) -> None:
        """The counts read as one plain line."""
        self.assertEqual(str(Counts(3, 1, 2)), "3 passed, 1 failed, 2 skipped")


class VerdictTests(SynchronousTestCase):
    """The exit code of a run."""

    def test_passed(self) -> None:
        """Passed and skipped tests are fine as long as skips are."""
        self.assertEqual(verdict(Counts(3, 0, 2), 0, no_skips=False), (0, ""))

    def test_trials_code_is_kept(self) -> None:
        """Trial's own verdict goes first."""
        self.assertEqual(verdict(Counts(3, 1, 0), 1, no_skips=True), (1, ""))
        self.assertEqual(verdict(None, 143, no_skips=True)[0], 143)

    def test_skips_where_none_may_be(self) -> None:
        """A skipped test ends a complete run badly."""
        self.assertEqual(verdict(Counts(3, 0, 1), 0, no_skips=True)[0], 1)

    def test_no_test_at_all(self) -> None:
        """A run of nothing proves nothing."""
        self.assertEqual(verdict(Counts(0, 0, 0), 0, no_skips=False)[0], 1)

    def test_no_closing_line(self) -> None:
        """A trial that broke off is a failure whatever it returned."""
        self.assertEqual(verdict(None, 0, no_skips=False)[0], 1)

    def test_unexpected_success(self) -> None:
        """Trial passes over an unexpected success; this run does not."""
        self.assertEqual(verdict(Counts(3, 1, 0), 0, no_skips=False)[0], 1)


class LabsTests(SynchronousTestCase):
    """Modules run one by one in several labs; here they are labs by name only."""

    def run_modules(self, *names: str) -> subprocess.CompletedProcess[str]:
        """A run in two labs."""
        directory = Path(self.mktemp())
        directory.mkdir()
        lab = directory / "mutauth"
        lab.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
        lab.chmod(0o755)
        return subprocess.run(
            [
                sys.executable,
                run.__file__,
                "--no-skips",
                "--lab",
                "--x 1",
                "--lab",
                "--x 2",
                *names,
            ],
            env={**os.environ, "PATH": f"{directory.resolve()}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_sum(self) -> None:
        """Each module is run once, and the counts are summed up."""
        names = [f"tests.unit.test_run.{each}" for each in ("ParsingTests", "VerdictTests")]
        ended = self.run_modules(*names)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertEqual(ended.stdout.splitlines()[-1], "12 passed, 0 failed, 0 skipped")
        self.assertEqual(ended.stdout.count("PASSED (successes=6)"), 2)

    def test_module_that_fails(self) -> None:
        """A module that does not even load fails the run."""
        ended = self.run_modules("tests.unit.test_run.VerdictTests", "tests.unit.no_such_module")
        self.assertEqual(ended.returncode, 1)
        self.assertEqual(ended.stdout.splitlines()[-1], "6 passed, 1 failed, 0 skipped")

    def test_every_module_is_run(self) -> None:
        """Without names it is the unit tests and each integration module."""
        root = Path(run.__file__).parent
        found = {path.stem for path in (root / "integration").glob("test_*.py")}
        expected = {"tests.unit", *(f"tests.integration.{stem}" for stem in found)}
        self.assertEqual(set(modules(())), expected)
        self.assertFalse(list(root.glob("test_*.py")))

    def test_patient_first(self) -> None:
        """Modules that wait are begun first, so that nothing waits for them at the end."""
        first, *others = modules(())
        self.assertEqual(first, "tests.unit")
        early = {name.rpartition(".")[2] for name in others[: len(PATIENT)]}
        self.assertEqual(early, PATIENT)
