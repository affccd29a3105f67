"""Costs of the parts of a deployment, each in CPU time or bytes, for ``scale.py``.

    mutauth lab run -- python benchmarks/costs.py [--connections N]

A lab's domain controller is one process, whose CPU time is what the directory
and the KDC cost.  The gateway is the real commands.  Prints one object of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from measure import ROOT

from mutauth_twisted.lab import Lab
from mutauth_twisted.lab.state import ProcessIdentity, identity_file

_SERVICE = "benchCosts"
_HOST = "127.0.0.1"
_TWISTD = ("-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "mutauth")
_MUTAUTH = ("-m", "mutauth_twisted.cli")
_AT_ONCE = 8


def clock(pid: int) -> float:
    """The CPU seconds that a process has used."""
    return time.clock_gettime(~pid << 3 | 2)


def resident(pid: int) -> int:
    """The bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Costs:
    """Costs that are measured, in one lab."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        controller = ProcessIdentity.read(identity_file(lab.directory))
        assert controller is not None
        self.controller = controller.pid
        self.host = lab.host("srv1")
        self.found: dict[str, float] = {}
        self.common = ("--service-class", _SERVICE, "--host", self.host)
        self.where = ("--nameserver", lab.nameserver, "--state-dir", str(directory))

    def environment(self, user: str, **changes: str) -> dict[str, str]:
        """The variables of a program."""
        return {
            **os.environ,
            **self.lab.environment(user),
            "KRB5RCACHEDIR": str(self.directory),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            **changes,
        }

    def run(self, *words: str, user: str = "administrator", **changes: str) -> None:
        """Run a program to its end."""
        subprocess.run(
            words,
            env=self.environment(user, **changes),
            check=True,
            capture_output=True,
            cwd=self.directory,
        )

    def mutauth(self, *words: str) -> None:
        """Run ``mutauth``."""
        self.run(sys.executable, *_MUTAUTH, *words)

    @contextmanager
    def started(self, words: Sequence[str], sign: str, log: Path) -> Iterator[tuple[int, int]]:
        """A program for the time of a block: its process number, and its port."""
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, *words],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment("alice"),
                cwd=self.directory,
            )
            try:
                while not (
                    lines := [each for each in log.read_text().splitlines() if sign in each]
                ):
                    if process.poll() is not None:
                        raise SystemExit(f"{words}: it ended: {log.read_text()}")
                    time.sleep(0.05)
                yield process.pid, int(lines[0].rsplit(":", 1)[1])
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait()

    def per(self, count: int, work: Callable[[], object]) -> float:
        """The controller's CPU seconds for one of so many."""
        before = clock(self.controller)
        work()
        return (clock(self.controller) - before) / count

    def tickets(self, count: int) -> None:
        """Costs of a service's ticket to the KDC, and of a first one."""
        spn = f"cifs/{self.lab.dc_host}"
        cache = self.directory / "ccache"

        def fetch() -> None:
            for _ in range(count):
                shutil.copy(self.lab.ccache("alice").removeprefix("FILE:"), cache)
                self.run("kvno", spn, user="alice", KRB5CCNAME=f"FILE:{cache}")

        self.found["service ticket, KDC CPU s"] = self.per(count, fetch)
        keytab, principal = str(self.lab.keytab("alice")), self.lab.principal("alice")

        def log_in() -> None:
            for _ in range(count):
                self.run("kinit", "-k", "-t", keytab, "-c", f"FILE:{cache}", principal)

        self.found["first ticket, KDC CPU s"] = self.per(count, log_in)

    def starts(self, count: int) -> None:
        """Costs to the directory of a service that starts, checks, publishes and withdraws."""
        words = self.service_words("--echo")

        def start_and_stop() -> None:
            for _ in range(count):
                with self.started(words, "serving", self.directory / "start.log"):
                    pass

        self.found["service start and stop, directory CPU s"] = self.per(count, start_and_stop)
        interval = 0.25
        checked = self.service_words("--echo", "--check-interval", str(interval))
        with self.started(checked, "serving", self.directory / "start.log"):
            self.found["check, directory CPU s"] = self.per(
                int(10 / interval), lambda: time.sleep(10)
            )

    def service_words(self, *options: str) -> tuple[str, ...]:
        """The service's command line."""
        address = self.lab.address_of(self.host)
        return (
            *_TWISTD,
            *self.common,
            *self.where,
            *("--keytab", str(self.lab.keytab("svc-echo")), "--allow-all"),
            *("--listen", f"tcp:0:interface={address}", *options),
        )

    def connections(self, count: int) -> None:
        """Costs of a connection through both ends to each of them, and what it leaves in files."""
        plain = socket.create_server((_HOST, 0), backlog=1024)
        threading.Thread(target=echo, args=(plain,), daemon=True).start()
        log, audit = self.directory / "service.log", self.directory / "audit.log"
        target = f"tcp:{_HOST}:{plain.getsockname()[1]}"
        words = self.service_words("--forward", target, "--audit", str(audit))
        endpoint = f"mutauth:scp={_SERVICE}:nameserver={self.lab.nameserver}"
        connect = (*_MUTAUTH, "connect", endpoint, "--listen", f"tcp:0:interface={_HOST}")
        with (
            self.started(words, "serving", log) as (service, _),
            self.started(connect, "listening", self.directory / "forwarder.log") as (client, port),
            ThreadPoolExecutor(_AT_ONCE) as pool,
        ):
            # Of one client's connections, only the first hundred have a line each.
            first_lines, few = log.stat().st_size, 90
            list(pool.map(lambda _: ask(port), range(few)))
            self.found["connection, log bytes"] = (log.stat().st_size - first_lines) / few
            before = [clock(service), clock(client), self.replays(), audit.stat().st_size]
            list(pool.map(lambda _: ask(port), range(count)))
            after = [clock(service), clock(client), self.replays(), audit.stat().st_size]
            names = (
                "connection, gateway CPU s",
                "connection, client's forwarder CPU s",
                "connection, replay cache bytes",
                "connection, audit bytes",
            )
            for name, early, late in zip(names, before, after, strict=True):
                self.found[name] = (late - early) / count
            with ExitStack() as held:
                first = resident(service)
                for _ in range(count // 2):
                    held.enter_context(ask(port, keep=True))
                self.found["session, gateway bytes"] = (resident(service) - first) / (count // 2)

    def replays(self) -> int:
        """The size of the replay cache, in bytes."""
        return sum(each.stat().st_size for each in self.directory.glob("**/*rcache*"))

    def searches(self, count: int) -> None:
        """Costs to the directory of a client that finds the service by its keyword."""
        endpoint = f"mutauth:scp={_SERVICE}:nameserver={self.lab.nameserver}:cache=0"
        connect = (*_MUTAUTH, "connect", endpoint, "--listen", f"tcp:0:interface={_HOST}")
        with (
            self.started(self.service_words("--echo"), "serving", self.directory / "a.log"),
            self.started(connect, "listening", self.directory / "b.log") as (_, port),
        ):
            ask(port)

            def find() -> None:
                for _ in range(count):
                    ask(port)

            self.found["search, directory CPU s"] = self.per(count, find)


def echo(plain: socket.socket) -> None:
    """Echo on every connection."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(100):
                connection.sendall(data)

    while True:
        threading.Thread(target=serve, args=(plain.accept()[0],), daemon=True).start()


def ask(port: int, *, keep: bool = False) -> Any:
    """Ask one question on a connection of its own."""
    client = socket.create_connection((_HOST, port), 60)
    client.sendall(b"ping")
    if client.recv(4, socket.MSG_WAITALL) != b"ping":
        raise SystemExit("a connection failed")
    if not keep:
        client.close()
    return client


def main() -> None:
    """Carry the command line out."""
    options = argparse.ArgumentParser()
    options.add_argument("--connections", type=int, default=2000)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        costs = Costs(Lab.current(), Path(name))
        costs.mutauth("install", *costs.common, *costs.where, "--account", "svc-echo")
        try:
            costs.tickets(100)
            costs.starts(5)
            costs.searches(100)
            costs.connections(given.connections)
        finally:
            costs.mutauth("uninstall", *costs.common, *costs.where)
    print(json.dumps(costs.found, indent=1))


if __name__ == "__main__":
    main()
