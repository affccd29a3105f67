"""Run every test with trial, and end with one plain line of counts.

    python tests/run.py [--no-skips] [TRIAL ARGUMENT...]

The counts are those of trial's own closing line.  The exit code is trial's;
it is 1 as well when no test ran, when trial's closing line is missing, and with
``--no-skips`` when a test was skipped.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

#: An interrupted trial may wait for a test's clean-up for ever.
_GRACE_SECONDS = 5

_CLOSING = re.compile(r"^(?:PASSED|FAILED)(?: \((?P<counts>[^()]*)\))?$")
_COUNT = re.compile(r"(\w+)=(\d+)")


@dataclass(frozen=True)
class Counts:
    """What became of the tests of one run."""

    passed: int
    failed: int
    skipped: int

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def parse_closing_line(line: str) -> Counts | None:
    """The counts in trial's closing line, or None for any other line.

    A test that fails as expected has passed; one that was expected to fail and
    did not has failed.
    """
    match = _CLOSING.match(line.strip())
    if match is None:
        return None
    found = {name: int(count) for name, count in _COUNT.findall(match["counts"] or "")}
    return Counts(
        passed=found.get("successes", 0) + found.get("expectedFailures", 0),
        failed=found.get("failures", 0)
        + found.get("errors", 0)
        + found.get("unexpectedSuccesses", 0),
        skipped=found.get("skips", 0),
    )


def verdict(counts: Counts | None, code: int, *, no_skips: bool) -> tuple[int, str]:
    """The exit code of the run, and the complaint about it (empty: none)."""
    if counts is None:
        return code or 1, "trial ended without its closing line"
    if code:
        return code, ""
    if counts.failed:
        return 1, "trial reported failures and yet ended with 0"
    if not counts.passed + counts.skipped:
        return 1, "no test ran"
    if no_skips and counts.skipped:
        return 1, "tests were skipped, and here none may be"
    return 0, ""


def main(arguments: Sequence[str]) -> int:
    """Run trial, pass its output through, and print the counts."""
    no_skips = "--no-skips" in arguments
    passed_on = [argument for argument in arguments if argument != "--no-skips"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "twisted.trial", *(passed_on or ["tests"])],
        cwd=Path(__file__).resolve().parent.parent,
        stdout=subprocess.PIPE,
    )

    def end(signum: int, frame: FrameType | None) -> None:
        # A terminal sends its SIGINT to trial as well.
        if signum == signal.SIGTERM or not sys.stdin.isatty():
            process.send_signal(signum)
        signal.alarm(_GRACE_SECONDS)

    def kill(signum: int, frame: FrameType | None) -> None:
        process.kill()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGALRM, kill)
    counts = None
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        counts = parse_closing_line(line.decode("utf-8", "replace")) or counts
    code = process.wait()
    code, complaint = verdict(counts, code if code >= 0 else 128 - code, no_skips=no_skips)
    if complaint:
        print(f"tests: {complaint}", flush=True)
    print(counts or Counts(0, 0, 0), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
