"""A gateway as operators run it, ``mutauth connect --listen`` in front of ``twistd mutauth
--forward``, between plain clients and a plain service that are the test's own threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import urlopen

from attrs import frozen

from tests.integration.commands import WAIT, CommandTestCase, Running

HOST = "127.0.0.1"
PIECE = 65_536
T = TypeVar("T")


def echo(connection: socket.socket) -> None:
    """Send back what comes, and end when it ends."""
    while data := connection.recv(PIECE):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes, and its end."""
    with contextlib.suppress(OSError):
        while data := source.recv(PIECE):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    """End a connection with RST and not with FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_all(connection: socket.socket) -> bytes:
    """All that comes until the end of the stream."""
    return b"".join(iter(lambda: connection.recv(PIECE), b""))


class Backend:
    """A plain service with a thread for each connection.

    :param talk: what it does with one; the connection is closed when that returns.
    :param port: where it listens; 0: any free port.
    :ivar served: how many connections it has accepted.
    """

    def __init__(self, talk: Callable[[socket.socket], None] = echo, port: int = 0) -> None:
        self.talk = talk
        self.served = 0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((HOST, port), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                self.served += 1
                connection.settimeout(WAIT)
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # what clients see of it is what tests check
            self.talk(connection)
        self._open.discard(connection)

    def close(self) -> None:
        """Listen no more, and close what is open."""
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@frozen
class Gateway:
    """Both ends, and the plain service behind them."""

    service: Running
    forwarder: Running
    backend: Backend

    def connect(self, timeout: float = WAIT) -> socket.socket:
        """A plain client's connection, which may still turn out to lead nowhere."""
        return socket.create_connection((HOST, self.forwarder.port), timeout)

    def ask(self, question: bytes = b"hello") -> bytes:
        """Answer of the service to one question, on a connection of its own.

        :raises OSError: the connection was reset, or nothing came.
        """
        with self.connect() as client:
            client.sendall(question)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    @property
    def ends(self) -> tuple[Running, Running]:
        """The two processes."""
        return self.service, self.forwarder


class ReliabilityTestCase(CommandTestCase):
    """With an installed service."""

    timeout = 180

    def setUp(self) -> None:
        super().setUp()
        installed = self.install()
        self.assertEqual(installed.code, 0, installed)

    def backend(self, talk: Callable[[socket.socket], None] = echo, port: int = 0) -> Backend:
        """A plain service until the end of the test."""
        backend = Backend(talk, port)
        self.addCleanup(backend.close)
        return backend

    @contextlib.contextmanager
    def gateway(self, *options: str, backend: Backend | None = None) -> Iterator[Gateway]:
        """Both ends, with a status port, in front of a backend: an echo by default."""
        backend = backend or self.backend()
        words = ("--forward", f"tcp:{HOST}:{backend.port}", "--status", f"tcp:0:interface={HOST}")
        with (
            self.service(*words, "--drain-timeout", f"{WAIT:g}", *options) as service,
            self.forwarder(self.endpoint, "--drain-timeout", f"{WAIT:g}") as forwarder,
        ):
            service.read_on()
            forwarder.read_on()
            yield Gateway(service, forwarder, backend)
            for each in (service, forwarder):
                each.stop()
        for each in (service, forwarder):
            for word in ("Traceback", "Unhandled", "internal error"):
                self.assertNotIn(word, each.log)

    def probe(self, service: Running, path: str) -> tuple[int, str]:
        """Answer of its status port: the code and the text."""
        line = next(line for line in service.lines if "status on" in line)
        where = line.rpartition(" ")[2].strip()
        try:
            with urlopen(f"http://{where}/{path}", timeout=WAIT) as answer:
                return int(answer.status), answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def health(self, service: Running) -> dict[str, Any]:
        """Figures of its status port for programs."""
        return dict(json.loads(self.probe(service, "health")[1]))

    def counted(self, service: Running, metric: str, **labels: str) -> float:
        """A figure for Prometheus; 0 where there is none."""
        text = self.probe(service, "metrics")[1]
        for line in text.splitlines():
            name, _, rest = line.partition("{")
            told, _, value = rest.rpartition("} ")
            wanted = [f'{label}="{each}"' for label, each in labels.items()]
            if name == metric and all(each in told for each in wanted):
                return float(value)
        return 0.0

    def refusals(self, service: Running, code: str) -> float:
        """Number of connections it has refused with a code."""
        return self.counted(service, "mutauth_handshakes_total", result=code)

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait until something holds; only what is broken takes so long as to fail."""
        give_up_at = time.monotonic() + WAIT
        while not condition():
            self.assertLess(time.monotonic(), give_up_at, what)
            time.sleep(0.05)

    def until_idle(self, gateway: Gateway) -> None:
        """Wait until the service has neither sessions nor handshakes."""
        seen: dict[str, Any] = {}

        def is_idle() -> bool:
            seen.update(self.health(gateway.service))
            return not any(seen[name] for name in ("sessions", "handshakes", "waiting"))

        self.until(is_idle, f"it still has connections: {seen}")

    @staticmethod
    def descriptors(running: Running) -> int:
        """Number of descriptors that a process has open."""
        return len(os.listdir(f"/proc/{running.process.pid}/fd"))

    @staticmethod
    def memory(running: Running) -> int:
        """The bytes of memory that a process has."""
        status = Path(f"/proc/{running.process.pid}/status").read_text("utf-8")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    @staticmethod
    def cpu(running: Running) -> float:
        """The CPU seconds that a process has used."""
        return time.clock_gettime(~running.process.pid << 3 | 2)

    @staticmethod
    def at_once(count: int, work: Callable[[int], T]) -> list[T]:
        """Do something so many times at the same time; the results in order."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(work, range(count)))


def digest(data: bytes) -> str:
    """Differences of two long texts."""
    return hashlib.sha256(data).hexdigest()
