"""Handshakes of ``twistd mutauth`` with one process and with workers, of many clients at once.

    python benchmarks/workers.py [--workers N] [--rounds N] [--handshakes N]

Clients are processes of their own, which have made their requests before the clock runs: then they
only send and read.  They need the cores too, so two workers on two cores do not double the
handshakes.
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

#: A client: requests (MS-NNS) that are made first, and then sent one after the other.
_CLIENT = """
import socket, struct, sys
import gssapi
port, name = int(sys.argv[1]), gssapi.Name(sys.argv[3], gssapi.NameType.kerberos_principal)
tokens = [
    gssapi.SecurityContext(name=name, usage="initiate", flags=62).step()
    for _ in range(int(sys.argv[2]))
]
print("ready", flush=True)
sys.stdin.readline()
for token in tokens:
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(struct.pack(">BBBH", 22, 1, 0, len(token)) + token)
        header = connection.recv(5, socket.MSG_WAITALL)
        if header[0] == 21:
            raise SystemExit("refused")
        connection.recv(int.from_bytes(header[3:5], "big"), socket.MSG_WAITALL)
"""
_CLIENTS = 6


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
    port: int, processes: list[int], count: int, costs: list[float]
) -> Callable[[], Awaitable[float]]:
    """Measures handshakes a second, and notes the CPU seconds of each."""

    async def measure() -> float:
        clients = [
            subprocess.Popen(
                [sys.executable, "-c", _CLIENT, str(port), str(count // _CLIENTS), SERVICE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for _ in range(_CLIENTS)
        ]
        for client in clients:
            client.stdout.readline()  # type: ignore[union-attr]
        before, began = sum(map(cpu, processes)), time.monotonic()
        for client in clients:
            client.stdin.write(b"\n")  # type: ignore[union-attr]
            client.stdin.flush()  # type: ignore[union-attr]
        if sum(client.wait() for client in clients):
            raise SystemExit("a client was refused")
        seconds = time.monotonic() - began
        costs.append((sum(map(cpu, processes)) - before) / count)
        return count / seconds

    return measure


async def compare(reactor: Any, given: argparse.Namespace) -> None:
    with realm() as (made, directory):
        keytab = made.keytab(ACCOUNT)
        several = f"{given.workers} workers"
        costs: dict[str, list[float]] = {"one process": [], several: []}
        with served(keytab, directory, 1) as one, served(keytab, directory, given.workers) as more:
            kinds = {
                kind: measured(*service, given.handshakes, costs[kind])
                for kind, service in (("one process", one), (several, more))
            }
            figures = await rounds(given.rounds, kinds)
    show(figures, "handshakes a second")
    show(costs, "us of CPU for a connection", 1e6)
    print(f"{several} take {ratio(figures, several, 'one process'):.2f} times as many")
    conclude(
        Figure(f"CPU of {several} against one process", ratio(costs, several, "one process"), 1.3)
    )


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--handshakes", type=int, default=3000)
    react(lambda reactor: Deferred.fromCoroutine(compare(reactor, options.parse_args())))
