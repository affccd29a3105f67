"""The main job from beginning to end, on a real Active Directory, with the real commands.

Run by ``make demo`` inside the lab (``mutauth lab run -- python demo/main_job.py``).
Every step prints the command, what it printed, and what it proved; a step that
does not end as it must ends the demonstration with exit code 1.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mutauth_twisted.lab import Lab

BIN = Path(sys.executable).parent
HOST = "srv1.lab.example"
WAIT = 30.0
BEGAN = time.monotonic()
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+ \[")
TTY = sys.stdout.isatty()


class Failed(Exception):
    """A step did not end as it must."""


def bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if TTY else text


def step(who: str, what: str) -> None:
    print(f"\n{bold(f'{time.monotonic() - BEGAN:5.1f} s  {who}:')} {what}", flush=True)


def show(text: str) -> None:
    for line in text.rstrip().splitlines():
        print(f"    {line}", flush=True)


def proved(what: str) -> None:
    print(f"  {bold('=>')} {what}", flush=True)


def without_origin(line: str) -> str:
    """A log line of this package without its time and origin; others are left out, and other output
    is left alone.
    """
    if not LOG_LINE.match(line):
        return line
    _, of_ours, message = line.partition("[mutauth_twisted.")
    return "| " + message.partition("] ")[2] if of_ours else ""


class ServiceLog(threading.Thread):
    """Shows what a service logs, as it logs it: the lines of this package, without their time and
    origin.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._news = threading.Condition()
        self._text = ""
        self._ended = False
        self.start()

    def run(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            show(without_origin(line))
            with self._news:
                self._text += line
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for(self, words: str) -> str:
        """The line that holds these words, as soon as it is there."""
        with self._news:
            self._news.wait_for(lambda: words in self._text or self._ended, WAIT)
        for line in self._text.splitlines():
            if words in line:
                return line
        raise Failed(f"the service did not say {words!r}:\n{self._text}")


class Stage:
    """The lab, a state directory, and the commands run there."""

    def __init__(self, lab: Lab, state: Path) -> None:
        self.lab = lab
        self.state = state

    def environment(self, user: str) -> dict[str, str]:
        return {**os.environ, **self.lab.environment(user), "PYTHONUNBUFFERED": "1"}

    def announce(self, words: list[str]) -> None:
        show("$ " + shlex.join(words))

    def run(self, user: str, *words: str, given: str = "", expect: int = 0) -> str:
        """Run a command to its end; its output is shown."""
        self.announce(list(words))
        done = subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment(user),
            cwd=self.state,
            timeout=WAIT,
            check=False,
        )
        show("".join(map(without_origin, done.stdout.splitlines(keepends=True))))
        if done.returncode != expect:
            raise Failed(
                f"{words[0]} {words[1]} ended with code {done.returncode} instead of {expect}"
            )
        return done.stdout

    @contextlib.contextmanager
    def service(self, *options: str) -> Iterator[ServiceLog]:
        """Run a service until it serves, and to the end of the block."""
        words = ["twistd", "-n", "--pidfile=", "mutauth", *options]
        self.announce(words)
        with subprocess.Popen(
            [str(BIN / words[0]), *words[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment("alice"),
            cwd=self.state,
        ) as process:
            log = ServiceLog(process)
            try:
                log.wait_for("serving")
                yield log
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(WAIT)
                except subprocess.TimeoutExpired:
                    process.kill()
                log.join(WAIT)

    def in_directory(self, *words: str) -> str:
        """Change the directory with an administrator's rights, as an attacker or a mishap would."""
        show("$ " + shlex.join(["python", "demo/tamper.py", *words]))
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("tamper.py")), *words],
            capture_output=True,
            text=True,
            env=self.environment("administrator"),
            timeout=WAIT,
            check=False,
        )
        show(done.stdout + done.stderr)
        if done.returncode:
            raise Failed("the directory could not be changed")
        return done.stdout


def main_job(stage: Stage) -> None:
    lab = stage.lab
    dns = lab.nameserver
    state = ["--state-dir", str(stage.state)]
    common = ["--service-class", "echoSvc", "--host", HOST]
    directory = ["--nameserver", dns, *state]
    address = lab.address_of(HOST)
    serve = [*common, "--keytab", str(lab.keytab("svc-echo")), "--allow", "*@LAB.EXAMPLE", "--echo"]
    listen = ["--listen", f"tcp:0:interface={address}"]
    endpoint = f"mutauth:scp=echoSvc:nameserver={dns}"

    step("administrator", "prepares the directory for a service on srv1 that runs as svc-echo")
    stage.run("administrator", "mutauth", "install", *common, "--account", "svc-echo", *directory)
    proved(
        "the SCP stands below srv1's computer object, svc-echo may update two attributes of it, "
        "and holds the SPNs"
    )

    step("svc-echo", "starts the service; no port is configured anywhere")
    with stage.service(*serve, *listen, *directory) as service:
        proved("the SCP was found by its GUID, svc-echo has its SPNs, the port is published")

        step("alice", "connects knowing one word, echoSvc")
        answer = stage.run(
            "alice",
            "mutauth",
            "connect",
            "-v",
            endpoint,
            given="hello, whoever you authenticated as\n",
        )
        if "hello, whoever you authenticated as" not in answer:
            raise Failed("the echo did not come back")
        service.wait_for("authenticated as alice@")
        proved("each side knows who the other is; the line went there and back sealed")

        step("impostor", "listens on the same host with the key of another account, svc-other")
        imposture = [
            "--service-class",
            "otherSvc",
            "--host",
            HOST,
            "--keytab",
            str(lab.keytab("svc-other")),
        ]
        unchecked = ["--publish", "none", "--spn-check", "off", "--allow-all", "--echo", *listen]
        with stage.service(*imposture, *unchecked, *directory) as impostor:
            port = impostor.wait_for("serving").rsplit(":", 1)[1]
            step("attacker", f"makes the directory point to the impostor's port {port}")
            stage.in_directory("point", dns, "echoSvc", port)

            step("alice", "connects again")
            stage.run("alice", "mutauth", "connect", endpoint, given="a secret\n", expect=4)
            impostor.wait_for("failed: ")
            proved(
                "the impostor cannot open the ticket: alice refuses it, and has sent it nothing "
                "else"
            )

    step("administrator", "removes the SPNs by mistake")
    stage.in_directory("unregister", dns, "svc-echo")
    step("svc-echo", "starts the service again")
    refused = stage.run(
        "alice", "twistd", "-n", "--pidfile=", "mutauth", *serve, *listen, *directory, expect=1
    )
    fix = shlex.split(refused.partition("; run ")[2].partition("\n")[0])
    if fix[:2] != ["mutauth", "install"]:
        raise Failed("the refusal does not say what to do")
    proved("it refuses to start, and prints the command that fixes it")

    step("administrator", "runs just that command")
    stage.run("administrator", *fix)
    with stage.service(*serve, *listen, *directory) as service:
        proved("the service starts again")
    service.wait_for("SCP withdrawn")
    proved("stopped, it has withdrawn what it published")
    step("administrator", "takes everything down at the end of the day")
    stage.run("administrator", "mutauth", "uninstall", *common, *directory)
    proved("nothing is left in the directory")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mutauth-demo-") as state:
        try:
            main_job(Stage(Lab.current(), Path(state)))
        except (Failed, subprocess.TimeoutExpired) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
    print(f"\n{bold('done')} in {time.monotonic() - BEGAN:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
