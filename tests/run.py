"""Run every test with trial, and end with one plain line of counts.

    python tests/run.py [--no-skips] [TRIAL ARGUMENT...]
    python tests/run.py [--no-skips] --lab "LAB OPTIONS" [--lab ...] [MODULE...]

The counts are those of trial's own closing line.  The exit code is trial's;
it is 1 as well when no test ran, when trial's closing line is missing, and with
``--no-skips`` when a test was skipped.

With ``--lab`` the modules of the tests are run one by one, as many at a time as
there are labs, each in the lab that is free; the options are those of ``mutauth
lab run``.  The counts are the sums, and a module without a closing line fails.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

#: An interrupted trial may wait for a test's clean-up for ever.
_GRACE_SECONDS = 5
#: The longest that one module may take in a lab.
_MODULE_SECONDS = 600
#: Modules whose tests wait for half a minute, though there are few of them.
PATIENT = frozenset({"test_vanished", "test_relay_ends", "test_hung_controller", "test_stuck"})
_ROOT = Path(__file__).resolve().parent.parent

_CLOSING = re.compile(r"^(?:PASSED|FAILED)(?: \((?P<counts>[^()]*)\))?$")
_COUNT = re.compile(r"(\w+)=(\d+)")


@dataclass(frozen=True)
class Counts:
    """Result of the tests of one run."""

    passed: int
    failed: int
    skipped: int

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )


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


def conclude(counts: Counts | None, code: int, *, no_skips: bool) -> int:
    """Print the counts, and the complaint if there is one; return the exit code."""
    code, complaint = verdict(counts, code if code >= 0 else 128 - code, no_skips=no_skips)
    if complaint:
        print(f"tests: {complaint}", flush=True)
    print(counts or Counts(0, 0, 0), flush=True)
    return code


def pass_on(processes: Sequence[subprocess.Popen[bytes]], grace: int | None) -> None:
    """Pass signals on to the processes.

    :param grace: seconds after which they are killed; None: they look after that themselves.
    """

    def end(signum: int, frame: FrameType | None) -> None:
        # A terminal sends its SIGINT to them as well.
        if signum == signal.SIGTERM or not sys.stdin.isatty():
            for process in processes:
                process.send_signal(signum)
        if grace is not None:
            signal.alarm(grace)

    def kill(signum: int, frame: FrameType | None) -> None:
        for process in processes:
            process.kill()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGALRM, kill)


def trial(*arguments: str) -> list[str]:
    """The command that runs trial."""
    return [sys.executable, "-u", "-m", "twisted.trial", *arguments]


def run_here(arguments: Sequence[str], *, no_skips: bool) -> int:
    """Run trial and pass its output through."""
    process = subprocess.Popen(trial(*arguments), cwd=_ROOT, stdout=subprocess.PIPE)
    pass_on([process], _GRACE_SECONDS)
    counts = None
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        counts = parse_closing_line(line.decode("utf-8", "replace")) or counts
    return conclude(counts, process.wait(), no_skips=no_skips)


# Several labs


def modules(names: Sequence[str]) -> list[str]:
    """Tests that are run one by one: the unit tests at once, each integration module, those first
    that wait, and large ones.
    """
    if names:
        return list(names)
    paths = sorted(
        (_ROOT / "tests" / "integration").glob("test_*.py"),
        key=lambda path: (path.stem in PATIENT, path.stat().st_size),
        reverse=True,
    )
    return ["tests.unit", *(f"tests.integration.{path.stem}" for path in paths)]


def claimed(queue: Path) -> Iterator[Path]:
    """The queue's modules, each to the first process that takes it."""
    for entry in sorted(queue.glob("*.waiting")):
        taken = entry.with_suffix(f".{os.getpid()}")
        try:
            entry.rename(taken)
        except FileNotFoundError:
            continue
        yield taken


def run_claimed(queue: Path) -> int:
    """Run modules of the queue until there is none, each module's output in one piece."""
    for taken in claimed(queue):
        module = taken.read_text(encoding="utf-8")
        command = trial(f"--temp-directory=_trial_temp.{os.getpid()}", module)
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(command, cwd=_ROOT, stdout=output, stderr=output)
            pass_on([process], _GRACE_SECONDS)
            try:
                code = process.wait(_MODULE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            output.seek(0)
            text = output.read()
        counts = None
        for line in text.decode("utf-8", "replace").splitlines():
            counts = parse_closing_line(line) or counts
        with open(queue / "lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
        if counts is None or (code and not counts.failed):
            # Interrupted, or out of time: the module stays claimed, which the run reports.
            print(f"tests: {module}: trial ended with {code}", flush=True)
        else:
            taken.with_suffix(".done").write_text(
                f"{counts.passed} {counts.failed} {counts.skipped}", encoding="utf-8"
            )
    return 0


def run_in_labs(labs: Sequence[str], names: Sequence[str], *, no_skips: bool) -> int:
    """Run the modules in several labs, and sum up."""
    with tempfile.TemporaryDirectory(prefix="mutauth-tests-") as directory:
        queue = Path(directory)
        for number, module in enumerate(modules(names)):
            (queue / f"{number:03}.waiting").write_text(module, encoding="utf-8")
        worker = [sys.executable, str(Path(__file__).resolve()), "--queue", directory]
        processes = [
            subprocess.Popen(["mutauth", "lab", "run", *shlex.split(lab), "--", *worker], cwd=_ROOT)
            for lab in labs
        ]
        pass_on(processes, None)
        codes = [process.wait() for process in processes]
        total = Counts(0, 0, 0)
        for done in queue.glob("*.done"):
            total += Counts(*map(int, done.read_text(encoding="utf-8").split()))
        left = [
            entry.read_text(encoding="utf-8")
            for entry in sorted(queue.glob("[0-9]*"))
            if not (queue / f"{entry.stem}.done").exists()
        ]
    if left:
        print(f"tests: not run to the end: {', '.join(left)}", flush=True)
    code = next(filter(None, codes), 1 if left or total.failed else 0)
    return conclude(total, code, no_skips=no_skips)


def main(arguments: Sequence[str]) -> int:
    """Run trial, pass its output through, and print the counts."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--no-skips", action="store_true")
    parser.add_argument("--lab", action="append", default=[])
    parser.add_argument("--queue", type=Path)
    options, passed_on = parser.parse_known_args(arguments)
    if options.queue is not None:
        return run_claimed(options.queue)
    if options.lab:
        return run_in_labs(options.lab, passed_on, no_skips=options.no_skips)
    return run_here(passed_on or ["tests"], no_skips=options.no_skips)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
