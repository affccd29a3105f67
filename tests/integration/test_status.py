"""The status port of a real service, under what anybody who reaches it can send."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.integration.commands import CommandTestCase, Running

WATCHERS = 32
MEGABYTE = 1 << 20


class StatusPortTests(CommandTestCase):
    """Attacks on the port, and what an honest watcher sees meanwhile."""

    @contextlib.contextmanager
    def watched(self, *options: str) -> Iterator[tuple[Running, tuple[str, int]]]:
        """A service, and where its status is."""
        bare = (
            "--publish",
            "none",
            "--spn-check",
            "off",
            "--status",
            "tcp:0:interface=127.0.0.1",
            *options,
        )
        with self.service(*bare) as service:
            line = next(line for line in service.lines if "status on" in line)
            yield service, ("127.0.0.1", int(line.rpartition(":")[2]))

    def health(self, where: tuple[str, int]) -> int:
        try:
            with urlopen(f"http://{where[0]}:{where[1]}/health", timeout=10) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code

    @staticmethod
    def resident(service: Running) -> int:
        """The bytes of memory that the process has had at most."""
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        return (
            int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])
            * 1024
        )

    def test_counts(self) -> None:
        """Connections that wait for their handshake are counted beside those that have it, for
        people and programs.
        """
        words = ("--max-handshakes", "2", "--max-handshakes-per-address", "2")
        with self.watched(*words) as (service, where), contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(
                    socket.create_connection((self.lab.address_of(self.host), service.port), 10)
                )
            give_up_at, counts = time.monotonic() + 20, {}
            while counts.get("waiting") != 3 and time.monotonic() < give_up_at:
                with urlopen(f"http://{where[0]}:{where[1]}/health", timeout=10) as answer:
                    counts = json.load(answer)
            self.assertEqual(
                [counts[name] for name in ("sessions", "handshakes", "waiting")], [0, 2, 3]
            )
            with urlopen(f"http://{where[0]}:{where[1]}/", timeout=10) as answer:
                self.assertIn(
                    b"0 session(s), 2 handshake(s) under way, 3 connection(s) waiting",
                    answer.read(),
                )

    def test_bodies(self) -> None:
        """32 MiB of body, with a length or in chunks, are not taken: memory does not grow and
        watchers are served.
        """
        with self.watched() as (service, where):
            self.assertEqual(self.health(where), 200)
            before = self.resident(service)
            for head in (
                b"POST / HTTP/1.1\r\nContent-Length: 33554432\r\n\r\n",
                b"GET / HTTP/1.1\r\nContent-Length: 33554432\r\n\r\n",
                b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2000000\r\n",
                b"GET / HTTP/1.1\r\nX: ",
            ):
                with socket.create_connection(where, 10) as attacker, contextlib.suppress(OSError):
                    attacker.sendall(head + bytes(32 * MEGABYTE))
                self.assertEqual(self.health(where), 200)
            self.assertLess(self.resident(service) - before, 4 * MEGABYTE)

    def test_drips(self) -> None:
        """Many that drip, and come again when they are dropped, keep no watcher out; each ends
        within its deadline.
        """
        with self.watched() as (_, where), contextlib.ExitStack() as stack:
            dripping = [
                stack.enter_context(socket.create_connection(where, 10))
                for _ in range(WATCHERS + 8)
            ]
            for _ in range(3):
                for each in dripping:
                    with contextlib.suppress(OSError):
                        each.sendall(b"GET / HTTP/1.1\r\nX: y")
                self.assertEqual(self.health(where), 200)
            give_up_at = time.monotonic() + 30
            for each in dripping:
                each.settimeout(max(0.1, give_up_at - time.monotonic()))
                with contextlib.suppress(ConnectionError):
                    self.assertEqual(
                        each.recv(1), b""
                    )  # a TimeoutError says that it is still there

    def test_flood_of_another_address(self) -> None:
        """However fast one address connects, a watcher of another that asks a moment after it
        connected is answered.
        """
        stop = threading.Event()

        def flood() -> None:
            held: list[socket.socket] = []
            while not stop.is_set():
                attacker = socket.socket()
                attacker.bind(("127.0.0.9", 0))
                attacker.setblocking(False)
                attacker.connect_ex(where)
                held.append(attacker)
                if len(held) > 4 * WATCHERS:
                    held.pop(0).close()
            for attacker in held:
                attacker.close()

        with self.watched() as (_, where):
            flooding = threading.Thread(target=flood)
            flooding.start()
            try:
                for _ in range(40):
                    with socket.create_connection(where, 10) as watcher:
                        time.sleep(0.03)
                        watcher.sendall(b"GET /health HTTP/1.1\r\n\r\n")
                        self.assertTrue(watcher.recv(1000).startswith(b"HTTP/1.1 200 "))
            finally:
                stop.set()
                flooding.join()
