"""Fuzz every target for a while, a few at a time, and say in one line each what was done.

    python -m fuzz [--seconds SECONDS] [--jobs JOBS] [TARGET...]

The exit code is 1 when something was found: the input is kept in
``build/fuzz/findings``, and the command that has it checked again is printed.
Inputs that reach new code are kept in ``build/fuzz/corpus`` for the next run.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from attrs import frozen

from fuzz import seeds
from fuzz.targets import TARGETS

ROOT = seeds.KEPT.parent.parent
WORK = Path("build", "fuzz")  # below the root
#: One input may take so many seconds: more is a finding.
_LONGEST = 10
#: So many MiB may the process take: more is a finding.
_MOST_MEMORY = 1024

_RUNS = re.compile(r"^Done (\d+) runs", re.MULTILINE)
_COVERAGE = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)/(\S+)")
_KEPT = re.compile(r"Test unit written to (\S+)")
_SHOWN_LINES = 30


@frozen
class Report:
    """Figures in the log of one target.

    :param runs: how many inputs were checked.
    :param branches: how many places of the package they reached.
    :param inputs: how many of them are worth keeping.
    :param size: how large those are together, as libFuzzer writes it.
    :param kept: the file with the input that was found, or None.
    """

    runs: int
    branches: int
    inputs: int
    size: str
    kept: str | None


def parse_log(text: str) -> Report | None:
    """Read libFuzzer's log; None: it did not get as far as checking anything."""
    runs, coverage, kept = _RUNS.search(text), _COVERAGE.findall(text), _KEPT.search(text)
    if kept is None and (runs is None or not coverage):
        return None
    branches, _, inputs, size = coverage[-1] if coverage else ("0", "0", "0", "0b")
    return Report(
        int(runs[1]) if runs else 0, int(branches), int(inputs), size, kept[1] if kept else None
    )


def _traceback(text: str) -> str:
    """The part of a log that tells what went wrong."""
    _, mark, after = text.partition("=== Uncaught Python exception: ===")
    lines = (after.partition("\n==")[0] if mark else text).strip().splitlines()
    return "\n".join(f"    {line}" for line in lines[-_SHOWN_LINES:])


class _Run:
    """One target's process.

    :param seconds: how long it goes on.
    :param scratch: a directory for temporary files, which somebody else removes.
    """

    def __init__(self, name: str, seconds: int, scratch: str) -> None:
        self.name = name
        self._log = ROOT / WORK / "logs" / f"{name}.log"
        corpus = ROOT / WORK / "corpus" / name
        begins = ROOT / WORK / "seeds" / name
        seeds.write(name, begins)
        for directory in (self._log.parent, corpus, ROOT / WORK / "findings"):
            directory.mkdir(parents=True, exist_ok=True)
        arguments = [
            f"-max_total_time={seconds}",
            f"-timeout={_LONGEST}",
            f"-rss_limit_mb={_MOST_MEMORY}",
            f"-artifact_prefix={WORK}/findings/{name}-",
            str(corpus),  # what is new goes here
            str(begins),
        ]
        self._started = time.monotonic()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fuzz.engine", name, *arguments],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": scratch},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # a terminal's Ctrl-C is for the runner, which ends them all
                start_new_session=True,
            )

    def report(self) -> bool:
        """Say what came of it; whether all was well."""
        text = self._log.read_text("utf-8", "replace")
        report = parse_log(text)
        seconds = time.monotonic() - self._started
        if report is not None:
            _say(
                f"{self.name:<12} {report.runs:>8} runs {seconds:5.1f} s  "
                f"coverage {report.branches:>4}  corpus {report.inputs:>4} inputs, {report.size}"
                + ("" if report.kept is None else "  FINDING")
            )
        if report is None or report.kept is None:
            if self.process.returncode == 0 and report is not None:
                return True
            _say(
                f"{self.name}: it ended with code {self.process.returncode} (whole log: "
                f"{self._log})"
            )
            _say(_traceback(text))
            return False
        _say(_traceback(text))
        _say(f"    reproduce: python -m fuzz.replay {self.name} {report.kept}")
        return False

    def kill(self) -> None:
        """End it at once."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _say(line: str) -> None:
    print(line, flush=True)


def _interrupted(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _fuzz(names: Sequence[str], seconds: int, jobs: int, scratch: str) -> list[str]:
    """Run targets, so many at a time; the names of those in which something was found."""
    waiting, running, failed = list(names), list[_Run](), list[str]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Run(waiting.pop(0), seconds, scratch))
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            for run in [each for each in running if each.process.poll() is not None]:
                running.remove(run)
                if not run.report():
                    failed.append(run.name)
    finally:
        for run in running:
            run.kill()
    return failed


def main(arguments: Sequence[str]) -> int:
    """Run the targets named, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("--seconds", type=int, default=5, help="how long for each target (5)")
    parser.add_argument("--jobs", type=int, default=2, help="how many targets at a time (2)")
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(TARGETS)} (all)"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; the targets are {', '.join(TARGETS)}")
    if options.seconds < 1 or options.jobs < 1:
        parser.error("--seconds and --jobs are at least 1")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    names = options.targets or list(TARGETS)
    with TemporaryDirectory(prefix="mutauth-fuzz-") as scratch:
        failed = _fuzz(names, options.seconds, options.jobs, scratch)
    _say(
        f"fuzz: {len(names)} targets, "
        + (f"findings in {', '.join(failed)}" if failed else "nothing found")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
