"""The stage's own report of a failure."""

from __future__ import annotations

import contextlib
import io
import time

from twisted.trial.reporter import TestResult
from twisted.trial.unittest import SynchronousTestCase

from interop import stage


class StageTestCaseTests(SynchronousTestCase):
    """Output that follows a failed test."""

    def said(self, *, fail: bool) -> str:
        """Text that is written when a test ends."""

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
        """Output of the programs during a test that fails is written, and nothing of before."""
        written = self.said(fail=True)
        self.assertIn("test_it failed", written)
        self.assertIn("Segmentation fault", written)
        self.assertNotIn("ended", written)

    def test_passed(self) -> None:
        """A test that passes is followed by nothing."""
        self.assertEqual(self.said(fail=False), "")
