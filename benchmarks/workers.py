"""Handshakes of ``twistd mutauth`` with one process and with workers, of many clients at once.

    python benchmarks/workers.py [--workers N] [--rounds N] [--seconds S]

Each kind serves for so many seconds, in turns.  The clients are processes of their own with a
bare GSSAPI loop, which costs a tenth of what the service does; they need a core too, so that two
workers on two cores do not double the handshakes.  That two workers spend no more CPU time on a
connection than one process is what tells how they would scale.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measure import ACCOUNT, SERVICE, Figure, conclude, ratio, realm, rounds, show
from twisted.internet.defer import Deferred
from twisted.internet.task import react

#: A client: as many handshakes (MS-NNS) as it can until a time; says how many.
_CLIENT = """
import socket, struct, sys, time
import gssapi
port, end, done = int(sys.argv[1]), float(sys.argv[2]), 0
name = gssapi.Name(sys.argv[3], gssapi.NameType.kerberos_principal)
while time.time() < end:
    token = gssapi.SecurityContext(name=name, usage="initiate", flags=62).step()
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(struct.pack(">BBBH", 22, 1, 0, len(token)) + token)
        kind, size = 22, 0
        header = connection.recv(5, socket.MSG_WAITALL)
        kind, size = header[0], int.from_bytes(header[3:5], "big")
        connection.recv(size, socket.MSG_WAITALL)
        if kind == 21:
            raise SystemExit("refused")
    done += 1
print(done)
"""
_CLIENTS = 3


def cpu(pid: int) -> float:
    """The CPU seconds that a process has used."""
    return time.clock_gettime(~pid << 3 | 2)


@contextmanager
def served(keytab: str, directory: Path, workers: int) -> Iterator[tuple[int, list[int]]]:
    """A service: its port and its processes."""
    log = directory / f"workers-{workers}.log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()"),
                *("-n", "--pidfile=", "mutauth", "--service-class", SERVICE.partition("/")[0]),
                *("--host", "localhost", "--keytab", keytab, "--echo", "--allow-all"),
                *(
                    "--publish",
                    "none",
                    "--spn-check",
                    "off",
                    "--listen",
                    "tcp:0:interface=127.0.0.1",
                ),
                *("--workers", str(workers), "--state-dir", str(directory)),
                *("--max-handshakes-per-address", "255"),
            ],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        while not (found := re.search(r"serving \S+ on \S+:(\d+)", log.read_text())):
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield int(found[1]), [process.pid, *map(int, listed)]
    finally:
        process.terminate()
        process.wait()


def measured(
    port: int, processes: list[int], seconds: float, costs: list[float]
) -> Callable[[], Awaitable[float]]:
    """Measures handshakes a second, and notes the CPU seconds of each."""

    async def measure() -> float:
        before, end = sum(map(cpu, processes)), time.time() + seconds
        clients = [
            subprocess.Popen(
                [sys.executable, "-c", _CLIENT, str(port), str(end), SERVICE],
                stdout=subprocess.PIPE,
            )
            for _ in range(_CLIENTS)
        ]
        done = sum(int(client.communicate()[0]) for client in clients)
        costs.append((sum(map(cpu, processes)) - before) / done)
        return done / seconds

    return measure


async def compare(reactor: Any, given: argparse.Namespace) -> None:
    with realm() as (made, directory):
        keytab = made.keytab(ACCOUNT)
        several = f"{given.workers} workers"
        costs: dict[str, list[float]] = {"one process": [], several: []}
        with served(keytab, directory, 1) as one, served(keytab, directory, given.workers) as more:
            kinds = {
                kind: measured(*service, given.seconds, costs[kind])
                for kind, service in (("one process", one), (several, more))
            }
            figures = await rounds(given.rounds, kinds)
    show(figures, "handshakes a second")
    show(costs, "us of CPU for a connection", 1e6)
    print(f"{several} take {ratio(figures, several, 'one process'):.2f} times as many")
    conclude(
        Figure(f"CPU of {several} against one process", ratio(costs, several, "one process"), 1.2)
    )


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=5.0)
    react(lambda reactor: Deferred.fromCoroutine(compare(reactor, options.parse_args())))
