"""Run a program inside a lab: signals passed on, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

LAUNCHER = Path(__file__).with_name("_launch.py")

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Long enough for a service to drain; then the program is killed.
_GRACE_SECONDS = 15.0
# siginfo_t.si_code of a signal the kernel sent, as a terminal's Ctrl-C is (sigaction(2)).
_SI_KERNEL = 0x80


def launch(command: Sequence[str], *, record: Path | None = None, tied: bool = True) -> list[str]:
    """The command line that starts *command* through the launcher.

    :param record: the file that gets the process' identity.
    :param tied: whether the program dies with the calling thread.
    """
    parent = str(os.getpid()) if tied else "0"
    return [sys.executable, "-I", "-S", str(LAUNCHER), str(record or "-"), parent, *command]


def run_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run *command* to its end and return its exit code (128 + n for signal n).

    SIGINT, SIGTERM and SIGHUP are passed on; a Ctrl-C on the terminal reaches the
    program by itself and is not doubled.  When it does not end within 15 s of a
    SIGTERM or SIGHUP it is killed; it is killed as well when this process is.

    :param environment: variables added to this process' own, from which
        everything that configures Kerberos is dropped first.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("KRB5")}
    waited_for = {*_PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    try:
        process = subprocess.Popen(launch(command), env={**inherited, **environment})
        try:
            code = _wait(process, waited_for)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return code if code >= 0 else 128 - code


def _wait(process: subprocess.Popen[bytes], waited_for: set[signal.Signals]) -> int:
    deadline: float | None = None
    while (code := process.poll()) is None:
        remaining = 3600.0 if deadline is None else max(0.0, deadline - time.monotonic())
        received = signal.sigtimedwait(waited_for, remaining)
        if received is None:
            if deadline is not None:
                process.kill()
                return process.wait()
        elif received.si_signo != signal.SIGCHLD and received.si_code != _SI_KERNEL:
            process.send_signal(received.si_signo)
            if received.si_signo != signal.SIGINT:
                deadline = deadline or time.monotonic() + _GRACE_SECONDS
    return code
