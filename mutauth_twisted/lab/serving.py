"""A service in the lab, from its installation in the directory to its end."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mutauth_twisted.lab.state import Lab, LabError

#: Seconds for a service to serve, or to end.
_PATIENCE = 30.0


@dataclass
class Service:
    """A running ``twistd mutauth``.

    :ivar lab: where it runs.
    :ivar service_class: the first part of its SPNs, by which clients find it.
    :ivar process: its process.
    :ivar lines: what it has printed so far.
    """

    lab: Lab
    service_class: str
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        """The endpoint string of a client in the lab's environment."""
        return f"mutauth:scp={self.service_class}"

    @property
    def log(self) -> str:
        """Everything that it has printed so far."""
        return "".join(self.lines)

    def wait_for(self, text: str) -> str:
        """Wait for a line with a text in it; returns the line.

        :raises LabError: when it does not come, or the service has ended without it.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            is_over = self.process.poll() is not None or time.monotonic() > deadline
            for line in tuple(self.lines):
                if text in line:
                    return line
            if is_over:
                cause = f"no line has {text!r}; its last one: {_last(self.lines)}"
                raise LabError("twistd mutauth", cause, "fix the cause")
            time.sleep(0.01)

    def stop(self) -> int:
        """End it as a service manager does; returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


@contextlib.contextmanager
def serving(
    lab: Lab, service_class: str, *options: str, host: str = "srv1", account: str = "svc-echo"
) -> Iterator[Service]:
    """Serve for the time of a ``with`` block, which begins when clients can connect.

    The directory is prepared as by ``mutauth install``, and everything is taken back at the end.

    :param lab: a running lab.
    :param service_class: such as ``shop``; tests that run at the same time need different ones.
    :param options: more of ``twistd mutauth``: what to serve, and whom.
    :param host: which of the lab's hosts it is on.
    :param account: which of the lab's accounts runs it.
    :raises LabError: when it cannot be installed or does not serve; its last line is the cause.
    """
    name = ("--service-class", service_class, "--host", lab.host(host))
    _run(lab, "install", *name, "--account", account)
    try:
        listen = f"tcp:0:interface={lab.address_of(host)}"
        words = (*name, "--keytab", str(lab.keytab(account)), "--listen", listen, *options)
        with _started(lab, service_class, words) as service:
            yield service
    finally:
        _run(lab, "uninstall", *name)


def _environment(lab: Lab, user: str) -> dict[str, str]:
    # Python finds this very package, also where it is not installed.
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, **lab.environment(user), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def _run(lab: Lab, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mutauth_twisted.cli", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=_environment(lab, "administrator"),
        check=False,
    )
    if done.returncode:
        raise LabError(f"mutauth {words[0]}", _last(done.stderr.splitlines()), "fix the cause")


def _last(lines: list[str]) -> str:
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].removeprefix("mutauth: ") if said else "it failed without a word"


@contextlib.contextmanager
def _started(lab: Lab, service_class: str, words: tuple[str, ...]) -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="mutauth-") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
    ):
        # The service says when it serves, as it says it to systemd; see sd_notify(3).
        path = Path(directory) / "notify"
        notified.bind(str(path))
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()"),
                *("-n", "--pidfile=", "mutauth", *words),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**_environment(lab, "alice"), "NOTIFY_SOCKET": str(path)},
            cwd=directory,
        )
        service = Service(lab, service_class, process)
        reading = threading.Thread(target=_read, args=(service,), daemon=True)
        reading.start()
        try:
            if not _is_ready(notified, process):
                service.stop()
                reading.join(_PATIENCE)
                raise LabError("twistd mutauth", _last(service.lines), "fix the cause")
            yield service
        finally:
            service.stop()
            reading.join(_PATIENCE)


def _read(service: Service) -> None:
    assert service.process.stdout is not None
    with service.process.stdout as output:
        service.lines.extend(iter(output.readline, ""))


def _is_ready(notified: socket.socket, process: subprocess.Popen[str]) -> bool:
    """Wait until the service serves, or has ended."""
    ended = os.pidfd_open(process.pid)
    try:
        while True:
            found, _, _ = select.select([notified.fileno(), ended], [], [], _PATIENCE)
            if notified.fileno() not in found:
                return False
            if b"READY=1" in notified.recv(4096).splitlines():
                return True
    finally:
        os.close(ended)
