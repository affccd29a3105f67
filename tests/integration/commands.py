"""Runs the project's commands as a user does: another process, its output, its exit code."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.trial.unittest import TestCase

from mutauth_twisted.lab import Lab
from tests.integration.preloaded import Preloaded
from tests.integration.support import require_lab

CHECKOUT = Path(__file__).parents[2]
WAIT = 30.0  # only a broken command takes that long
#: A stop has 5 s for the directory and 5 s for the connections; with the end of the process this is
#: what a service manager sees at most.
STOPPED = 15.0
#: Before a command that is not to outlive a test run that is killed.
TIED = ("setpriv", "--pdeathsig", "KILL")
#: What the environment says of the directory; tests say it themselves, or mean to leave it out.
DEFAULTS = ("MUTAUTH_NAMESERVER", "MUTAUTH_STATE_DIR")
#: Before a command that a test interrupts: whoever runs the tests may ignore SIGINT, as nohup and
#: background jobs do, and commands inherit that.
INTERRUPTIBLE = ("env", "--default-signal=INT")


def children(pid: int) -> list[int]:
    """The processes that a process has started (proc(5))."""
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


@frozen
class Ended:
    """End of a command."""

    code: int
    output: str
    errors: str


class Running:
    """A service in another process, which is past its start."""

    def __init__(
        self, process: subprocess.Popen[str], lines: list[str], sign: str = "serving"
    ) -> None:
        self.process = process
        self.lines = lines
        self.sign = sign
        self._reading: threading.Thread | None = None

    @property
    def log(self) -> str:
        """Output so far."""
        return "".join(self.lines)

    @property
    def port(self) -> int:
        """Where it serves."""
        return int(next(line for line in self.lines if self.sign in line).rsplit(":", 1)[1])

    def read_on(self) -> None:
        """Take what it prints from now on: a pipe that nobody reads holds up who writes much into
        it.
        """

        def read() -> None:
            assert self.process.stdout is not None
            self.lines.extend(iter(self.process.stdout.readline, ""))

        self._reading = threading.Thread(target=read, daemon=True)
        self._reading.start()

    def stop(self) -> int:
        """End it as a service manager does; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        if self._reading is not None:
            self.process.wait(WAIT)
            self._reading.join(WAIT)
            return self.process.returncode
        rest, _ = self.process.communicate(timeout=WAIT)
        self.lines.extend(rest.splitlines(keepends=True))
        return self.process.returncode


def _python_path() -> str:
    """Where commands are imported from."""
    return os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(CHECKOUT))))


class CommandTestCase(TestCase):
    """Tests of commands against the lab.

    :cvar preloaded: whether processes begin with their modules imported; not where their start is
        what is tested.
    """

    preloaded = True

    def setUp(self) -> None:
        self.lab: Lab = require_lab()
        self.state = tempfile.mkdtemp(prefix="mutauth-test-")
        self.addCleanup(shutil.rmtree, self.state)
        self.service_class = "t" + os.urandom(4).hex()
        self.host = self.lab.host("srv1")
        self.common = ("--service-class", self.service_class, "--host", self.host)
        self.directory = ("--nameserver", self.lab.nameserver, "--state-dir", self.state)
        self.endpoint = f"mutauth:scp={self.service_class}:nameserver={self.lab.nameserver}"

    def environment(self, user: str, **changes: str) -> dict[str, str]:
        variables = {**os.environ, **self.lab.environment(user)}
        for name in DEFAULTS:
            variables.pop(name, None)
        return {
            **variables,
            # What the tests are run with comes first, such as another version of a library.
            "PYTHONPATH": _python_path(),
            "PYTHONUNBUFFERED": "1",
            **changes,
        }

    @staticmethod
    def program(name: str) -> list[str]:
        """Words that start a command: by its module, so that the checkout is what is tested."""
        if name == "twistd":
            return [
                sys.executable,
                "-c",
                "from twisted.scripts.twistd import run; run()",
                "-n",
                "--pidfile=",
            ]
        return [sys.executable, "-m", "mutauth_twisted.cli"]

    def command(
        self,
        name: str,
        *words: str,
        user: str = "alice",
        given: str = "",
        prefix: tuple[str, ...] = (),
        **changes: str,
    ) -> Ended:
        """Run a command to its end."""
        begun = self.begin(
            name, *words, user=user, prefix=prefix, changes=changes, stdin=subprocess.PIPE
        )
        with begun as process:
            try:
                output, errors = process.communicate(given, WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Ended(process.returncode, output, errors)

    def begin(
        self,
        name: str,
        *words: str,
        user: str = "alice",
        prefix: tuple[str, ...] = (),
        changes: dict[str, str] | None = None,
        **pipes: Any,
    ) -> subprocess.Popen[Any]:
        """Start a command and go on; its output and errors are pipes, of text.

        :param pipes: what is otherwise, as for Popen.
        """
        environment = self.environment(user, **(changes or {}))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **pipes}
        # What comes before a command, or into its interpreter, needs one of its own.
        if self.preloaded and not prefix and environment["PYTHONPATH"] == _python_path():
            start = ("twistd", "-n", "--pidfile=") if name == "twistd" else ("mutauth",)
            return Preloaded([*start, *words], env=environment, cwd=self.state, **pipes)
        words = (*TIED, *prefix, *self.program(name), *words)
        return subprocess.Popen(words, env=environment, cwd=self.state, **pipes)

    def mutauth(self, *words: str, **how: str) -> Ended:
        return self.command("mutauth", *words, **how)  # type: ignore[arg-type]

    def refused(self, ended: Ended, code: int, *words: str) -> str:
        """The one line that a command must have ended with; it holds these words."""
        lines = ended.errors.splitlines()
        self.assertEqual((ended.code, len(lines)), (code, 1), ended)
        self.assertTrue(lines[0].startswith("mutauth: "), ended)
        self.assertNotIn("Traceback", ended.output + ended.errors)
        for word in words:
            self.assertIn(word, lines[0])
        return lines[0]

    def install(self, *options: str) -> Ended:
        """The administrator's step, taken back at the end of the test."""
        self.addCleanup(self._uninstall)
        words = ("install", *self.common, "--account", "svc-echo", *options, *self.directory)
        return self.mutauth(*words, user="administrator")

    def _uninstall(self) -> None:
        """Later tests find the accounts as they were."""
        ended = self.mutauth("uninstall", *self.common, *self.directory, user="administrator")
        self.assertEqual(ended.code, 0, ended)

    def service_words(self, *options: str) -> tuple[str, ...]:
        address = self.lab.address_of(self.host)
        keytab = () if "--keytab" in options else ("--keytab", str(self.lab.keytab("svc-echo")))
        what = () if {"--forward", "--factory"} & set(options) else ("--echo",)
        who = () if "--allow" in options else ("--allow", "*@LAB.EXAMPLE")
        listen = () if "--listen" in options else ("--listen", f"tcp:0:interface={address}")
        return ("mutauth", *self.common, *keytab, *what, *who, *listen, *self.directory, *options)

    def start_refused(self, *options: str, **how: str) -> Ended:
        """Start a service that must not start."""
        return self.command("twistd", *self.service_words(*options), **how)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def service(self, *options: str, user: str = "alice") -> Iterator[Running]:
        """A service that runs until the end of the block, at the latest."""
        with self.twistd(self.service_words(*options), user) as running:
            yield running

    @contextlib.contextmanager
    def twistd(self, words: tuple[str, ...], user: str = "alice") -> Iterator[Running]:
        """The same for all words of its command line."""
        process = self.begin("twistd", *words, user=user, stderr=subprocess.STDOUT)
        with self._running(process, "serving") as running:
            yield running

    @contextlib.contextmanager
    def forwarder(self, endpoint: str, *options: str) -> Iterator[Running]:
        """``mutauth connect --listen`` on a free local port, until the end of the block."""
        words = ("connect", endpoint, "--listen", "tcp:0:interface=127.0.0.1", *options)
        process = self.begin("mutauth", *words, stderr=subprocess.STDOUT)
        with self._running(process, "listening") as running:
            yield running

    @contextlib.contextmanager
    def _running(self, process: subprocess.Popen[str], sign: str) -> Iterator[Running]:
        running = Running(process, [], sign)
        killer = threading.Timer(WAIT, process.kill)
        killer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                running.lines.append(line)
                if sign in line:
                    break
            else:
                raise self.failureException(f"it ended: {running.log}")
            killer.cancel()
            yield running
        except BaseException:
            process.kill()  # nobody waits for sessions whose test has failed
            raise
        finally:
            killer.cancel()
            if process.poll() is None:
                running.stop()
            process.stdout.close()  # type: ignore[union-attr]

    @contextlib.contextmanager
    def peer(self, talk: Callable[[socket.socket], None]) -> Iterator[int]:
        """A server that answers one connection in its own way; gives its port on 127.0.0.1."""
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve() -> None:
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        talk(connection)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            try:
                yield listener.getsockname()[1]
            finally:
                # Wakes a server that nobody has called.
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                thread.join(WAIT)
