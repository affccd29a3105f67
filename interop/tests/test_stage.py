"""The stage's own report of a failure."""

from __future__ import annotations

import contextlib
import io
import time

from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase

from interop import stage


class StageTestCaseTests(SynchronousTestCase):
    """What a failed test is followed by."""

    def said(self, *, fail: bool) -> str:
        """What is written when a test ends."""

        class Tests(stage.StageTestCase):
            def test_it(self) -> None:
                stage.SAID.append("heimdal[1]: lost a process: Segmentation fault")
                if fail:
                    raise ConnectionResetError

        self.patch(stage, "SAID", ["heimdal[1]: ended"])
        self.patch(time, "sleep", lambda seconds: None)
        written = io.StringIO()
        with contextlib.redirect_stdout(written):
            Tests("test_it").run(TestResult())
        return written.getvalue()

    def test_failed(self) -> None:
        """What the programs said during a test that fails is written, and nothing of before."""
        written = self.said(fail=True)
        self.assertIn("test_it failed", written)
        self.assertIn("Segmentation fault", written)
        self.assertNotIn("ended", written)

    def test_passed(self) -> None:
        """A test that passes is followed by nothing."""
        self.assertEqual(self.said(fail=False), "")
