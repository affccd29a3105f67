"""Small questions through both ends of a gateway: pgbench -S and PostgreSQL.

    python benchmarks/forward.py [--protection NAME] [--clients N] [--seconds N] [--rounds N]
                                 [--profile DIRECTORY]

The same pgbench asks the same PostgreSQL (of Debian, a cluster of its own, as the user of its
package) directly, through a pair of Twisted's own port forwarders, and through ``mutauth connect
--listen`` and ``twistd mutauth --forward``, in turns.  A pair of forwarders without cryptography is
what Python and Twisted cost; the goal is a ratio to that.

With ``--profile``, cProfile's figures of both ends are left in a directory; a profiled end is slow.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from measure import ACCOUNT, ROOT, Figure, conclude, environment, process_clock, realm, show
from measure import ratio as median_ratio

from mutauth_twisted.protection import Protection

HOST, USER = "127.0.0.1", "postgres"
_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


def program(name: str) -> str:
    """A program of the newest PostgreSQL that is installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: path.parts[4]
    )
    if not found:
        raise SystemExit("PostgreSQL is not installed: run tools/bootstrap interop")
    return str(found[-1])


def as_postgres(*command: str) -> list[str]:
    """A command as PostgreSQL's own user, which root is not."""
    if os.geteuid():
        return list(command)
    group = str(pwd.getpwnam(USER).pw_gid)
    return ["setpriv", "--reuid", USER, "--regid", group, "--clear-groups", *command]


@contextmanager
def postgresql() -> Iterator[int]:
    """A cluster with pgbench's tables; its port."""
    with socket.create_server((HOST, 0)) as listener:
        port = int(listener.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="mutauth-bench-pg-") as directory:
        if not os.geteuid():
            shutil.chown(directory, USER)
        data = f"{directory}/data"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": directory}
        initdb = (program("initdb"), "--no-sync", "-A", "trust", "-U", USER, "-D", data)
        subprocess.run(as_postgres(*initdb), check=True, **quiet)
        settings = (
            *("-c", f"listen_addresses={HOST}", "-c", f"unix_socket_directories={directory}"),
            *("-c", "fsync=off", "-c", "max_connections=120"),
        )
        server = subprocess.Popen(
            as_postgres(program("postgres"), "-D", data, "-p", str(port), *settings), **quiet
        )
        try:
            words = (program("pgbench"), "-h", HOST, "-p", str(port), "-U", USER)
            for _ in range(100):
                made = subprocess.run([*words, "-i", "-q", "postgres"], check=False, **quiet)
                if not made.returncode:
                    break
                time.sleep(0.1)
            else:
                raise SystemExit("PostgreSQL did not start")
            yield port
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()


class Forwarder:
    """One end in a process of its own; see ``forwarder.py``."""

    def __init__(
        self, kind: str, protection: str, port: int, directory: Path, profile: str
    ) -> None:
        script = str(ROOT / "benchmarks" / "forwarder.py")
        words = [sys.executable, script, kind, protection, str(port), str(directory)]
        if profile:
            words.append(f"{profile}/{kind}.prof")
        self._process = subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, env=environment()
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    @property
    def clock(self) -> float:
        """CPU seconds."""
        return process_clock(self._process.pid)

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


def pgbench(port: int, clients: int, seconds: int) -> float:
    """Transactions each second."""
    words = (program("pgbench"), "-h", HOST, "-p", str(port), "-U", USER, "-S", "-n")
    done = subprocess.run(
        [*words, "-c", str(clients), "-j", "2", "-T", str(seconds), "postgres"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PGGSSENCMODE": "disable"},
    )
    found = _TPS.search(done.stdout)
    if found is None or "number of failed transactions: 0 " not in done.stdout:
        raise SystemExit(f"pgbench: {done.stdout}")
    return float(found.group(1))


def main() -> None:
    """Take turns measuring."""
    options = argparse.ArgumentParser()
    options.add_argument("--protection", default=Protection.SEAL.value)
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--seconds", type=int, default=3)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--profile", default="")
    given = options.parse_args()
    with realm() as (made, directory), postgresql() as port, ExitStack() as stack:
        made.keytab(ACCOUNT)

        def forwarder(kind: str, target: int) -> Forwarder:
            profile = given.profile if kind != "plain" else ""
            running = Forwarder(kind, given.protection, target, directory, profile)
            stack.callback(running.stop)
            return running

        far = forwarder("plain", port)
        pair = forwarder("plain", far.port), far
        service = forwarder("service", port)
        ours = forwarder("entrance", service.port), service
        ways = {"direct": (), "pair of plain ones": pair, "both ends": ours}
        ports = {"direct": port, "pair of plain ones": pair[0].port, "both ends": ours[0].port}
        figures: dict[str, list[float]] = {name: [] for name in ways}
        spent: dict[str, list[float]] = {name: [] for name, ends in ways.items() if ends}
        for number in range(given.rounds + 1):
            for name, ends in ways.items():
                before = [end.clock for end in ends]
                tps = pgbench(ports[name], given.clients, given.seconds)
                if number:
                    figures[name].append(tps)
                    if ends:
                        used = sum(end.clock - had for end, had in zip(ends, before, strict=True))
                        spent[name].append(used / (tps * given.seconds))
    show(figures, "tps")
    show(spent, "us of both ends' CPU", 1e6)
    conclude(
        Figure(
            "transactions each second against a pair of plain forwarders",
            median_ratio(figures, "both ends", "pair of plain ones"),
            0.8,
            least=True,
        )
    )


if __name__ == "__main__":
    main()
