"""Shared parts of the benchmarks: servers in processes of their own, their CPU clocks, and ratios.

Machines differ, and this one may be busy: a figure is the CPU time of the
server's process alone, its goal a ratio of two figures of one run, whose
rounds take turns, and of which the median counts.
"""

from __future__ import annotations

import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # a script's own directory is what Python looks in

if (Path(sys.prefix) / ".unoptimised").exists():
    raise SystemExit(
        f"{sys.prefix}: gssapi and krb5 are compiled for tests; run tools/bootstrap bench, use "
        ".venv-bench"
    )

from mutauth_twisted.testing.forge import Realm  # noqa: E402

#: The service's account and SPN in a realm without a KDC.
ACCOUNT, SERVICE = "svc-bench", "bench/localhost"
#: What a sealed connection sends, client and server in turn, in bytes: tokens, data (the client's
#: with its opening), ends of stream.
MESSAGES = (538, 160, 132, 68, 64, 64)


@dataclass(frozen=True)
class Figure:
    """A ratio with its goal.

    :param what: what is compared with what.
    :param seen: the ratio.
    :param goal: the most it may be, or with ``least`` the least.
    """

    what: str
    seen: float
    goal: float
    least: bool = False

    @property
    def reached(self) -> bool:
        return self.seen >= self.goal if self.least else self.seen <= self.goal

    def __str__(self) -> str:
        bound = "at least" if self.least else "at most"
        return (
            f"{self.what}: {self.seen:.2f} (goal {bound} {self.goal:g}): "
            f"{'reached' if self.reached else 'NOT REACHED'}"
        )


def process_clock(pid: int) -> float:
    """The CPU seconds, user and system, that a process of this machine has used
    (clock_getcpuclockid(3)).
    """
    return time.clock_gettime(~pid << 3 | 2)


def resident(pid: int) -> int:
    """The bytes of memory that a process has of its own."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid}: it shows no memory")


def raise_file_limit() -> None:
    """As many sockets as the system lets this process and its children have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def realm() -> Iterator[tuple[Realm, Path]]:
    """A realm without a KDC, which this process and its children live in, and its directory.

    This process has a ticket for :data:`SERVICE`.
    """
    with tempfile.TemporaryDirectory(prefix="mutauth-bench-") as directory:
        made = Realm(directory)
        os.environ.update(made.environment())
        os.environ["KRB5CCNAME"] = made.ccache("alice", SERVICE, ACCOUNT)
        yield made, Path(directory)


class Server:
    """A server in a process of its own; see ``serve.py``.

    :param kind: ``plain``, ``messages``, ``twisted-tls``, or a protection of this package.
    :param directory: where certificates, keytab and log are.
    """

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        command = [sys.executable, str(ROOT / "benchmarks" / "serve.py"), kind, str(directory)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment()
        )
        assert self._process.stdout is not None
        try:
            self.port = int(self._process.stdout.readline())
        except ValueError:
            self.stop()
            raise SystemExit(f"server {kind}: it did not start; see what it said above") from None

    @property
    def pid(self) -> int:
        return self._process.pid

    def clock(self) -> float:
        """CPU seconds."""
        return process_clock(self.pid)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def endpoint(self, reactor: Any, directory: Path) -> IStreamClientEndpoint:
        """Endpoint by which a client reaches it."""
        inner = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        if self.kind in ("plain", "messages"):
            return inner
        if self.kind == "twisted-tls":
            from certificates import client_options

            return wrapClientTLS(client_options(directory), inner)
        security = SecurityOptions(protection=Protection(self.kind))
        return MutualAuthClientEndpoint(
            reactor, inner, SPN.parse(SERVICE), ClientCredentials(), security
        )


def environment() -> Mapping[str, str]:
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)}


@contextmanager
def servers(realm: Realm, directory: Path, *kinds: str) -> Iterator[dict[str, Server]]:
    """One server for each kind, until the block ends."""
    from certificates import make_certificates

    realm.keytab(ACCOUNT)
    make_certificates(directory)
    with ExitStack() as stack:
        running = {}
        for kind in kinds:
            running[kind] = Server(kind, directory)
            stack.callback(running[kind].stop)
        yield running


async def rounds(
    count: int, kinds: Mapping[str, Callable[[], Awaitable[float]]]
) -> dict[str, list[float]]:
    """Take turns measuring; a round more than asked for comes first and warms up.

    :param kinds: what measures each kind once.
    """
    figures: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(count + 1):
        for kind, measure in kinds.items():
            figure = await measure()
            if number:
                figures[kind].append(figure)
    return figures


def ratio(figures: Mapping[str, list[float]], one: str, other: str) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(figures[one], figures[other], strict=True))


def show(figures: Mapping[str, list[float]], unit: str, factor: float = 1.0) -> None:
    """Print each kind's median and range."""
    for kind, each in figures.items():
        low, middle, high = (
            factor * value for value in (min(each), statistics.median(each), max(each))
        )
        print(f"{kind:>22}  {middle:8.1f} {unit}  ({low:.1f} to {high:.1f})")


def conclude(*figures: Figure) -> None:
    """Print the ratios; exit code 1 when a goal is not reached."""
    for figure in figures:
        print(figure)
    if not all(figure.reached for figure in figures):
        raise SystemExit(1)


class Asking(Protocol):
    """A client that sends four bytes, waits for them to come back, and closes."""

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()
        self._missing = 4

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(b"ping")

    def dataReceived(self, data: bytes) -> None:
        self._missing -= len(data)
        if not self._missing:
            transport: Any = self.transport
            transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._missing:
            self.gone.errback(reason)
        else:
            self.gone.callback(None)


class Talking(Protocol):
    """A client that says as much as one of a sealed connection, and means nothing by it; see
    :data:`MESSAGES`.
    """

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()
        self._turns = list(MESSAGES)
        self._missing = 0

    def connectionMade(self) -> None:
        self._say()

    def _say(self) -> None:
        transport: Any = self.transport
        transport.write(bytes(self._turns.pop(0)))
        self._missing = self._turns.pop(0)

    def dataReceived(self, data: bytes) -> None:
        self._missing -= len(data)
        if not self._missing and self._turns:
            self._say()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._turns or self._missing:
            self.gone.errback(reason)
        else:
            self.gone.callback(None)
