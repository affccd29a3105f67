"""Processes that begin with the project's modules imported: their start is a fork.

Most of what a command costs is an interpreter's start and its imports.  A test of anything else
than that start need not pay for it each time.
"""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pkgutil import iter_modules
from typing import Any

from mutauth_twisted.cli import commands

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        *(f"{commands.__name__}.{each.name}" for each in iter_modules(commands.__path__)),
        *("mutauth_twisted.service.tap", "mutauth_twisted.service.assembly"),
        *("mutauth_twisted.endpoints.strings", "mutauth_twisted.endpoints.located"),
        *("twisted.scripts.twistd", "twisted.scripts.trial", "twisted.application.app"),
    ]
)


def _run(words: Sequence[str], environment: dict[str, str], ends: Sequence[Connection]) -> None:
    """Be the command, in the new process."""
    # Nothing outlives a test run that is killed; prctl(2), PR_SET_PDEATHSIG.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    assert "twisted.internet.reactor" not in sys.modules, "two processes cannot share a reactor"
    for number, end in enumerate(ends):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", 1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", closefd=False)
    os.chdir(environment["PWD"])
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(words)
    if words[0] == "twistd":
        from twisted.scripts.twistd import run
    else:
        from mutauth_twisted.cli.__main__ import run
    try:
        run()
    finally:
        # As at the end of an interpreter; multiprocessing leaves out what is registered for that.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


class Preloaded(subprocess.Popen[Any]):
    """One of them, to be used like any other process.

    How Popen starts a process and learns of its end it keeps to itself; here multiprocessing's
    server of forks does that.  Each test that uses it tells whether that still holds.

    :param args: ``mutauth`` or ``twistd``, and its words.
    """

    def _execute_child(self, args: Any, *details: Any) -> None:
        cwd, env = details[4:6]
        stdin, _, _, stdout, _, stderr = pipes = details[9:15]
        ends = [
            Connection(os.dup(number if end == -1 else end))
            for number, end in enumerate((stdin, stdout, stderr))
        ]
        self._forked = _CONTEXT.Process(
            target=_run, args=(args, {**env, "PWD": str(cwd)}, ends), daemon=True
        )
        self._forked.start()
        assert self._forked.pid is not None
        self.pid = self._forked.pid
        self._child_created = True
        for end in ends:
            end.close()
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        with self._waitpid_lock:  # type: ignore[attr-defined]
            if self.returncode is None:
                self.returncode = self._forked.exitcode  # type: ignore[assignment]
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        wait([self._forked.sentinel], timeout)
        code = self._internal_poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code
