"""Several processes behind one socket, and what happens to each of them."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.commands import WAIT, CommandTestCase, Ended, Running


def children(pid: int) -> list[int]:
    """The processes that a process has started (proc(5))."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sorted(map(int, found))


class WorkerTests(CommandTestCase):
    """A service with two workers."""

    count = 2

    def setUp(self) -> None:
        super().setUp()
        self.assertEqual(self.install().code, 0)

    def words(self, *more: str) -> tuple[str, ...]:
        return ("--workers", str(self.count), "--status", "tcp:0:interface=127.0.0.1", *more)

    def talk(self, user: str = "alice") -> Ended:
        return self.mutauth("connect", self.endpoint, given="hello\n", user=user)

    def health(self, service: Running) -> tuple[int, Any]:
        """The code and the answer of a service's health."""
        line = next(line for line in service.lines if "status on" in line)
        port = int(re.findall(r":(\d+)", line)[-1])
        with socket.create_connection(("127.0.0.1", port), WAIT) as page:
            page.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            head, _, body = b"".join(iter(lambda: page.recv(65536), b"")).partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        give_up_at = time.monotonic() + WAIT
        while not condition():
            self.assertLess(time.monotonic(), give_up_at, what)
            time.sleep(0.05)

    def test_all_serve(self) -> None:
        """The parent takes no client, each worker does, and the status adds them up."""
        with self.service(*self.words()) as service:
            service.read_on()
            workers = children(service.process.pid)
            self.assertEqual(len(workers), self.count)
            served: set[str] = set()
            for _ in range(40):
                self.assertEqual(self.talk().output, "hello\n")
                served = set(re.findall(r"authenticated", service.log))
            self.assertEqual(service.stop(), 0, service.log)
        self.assertTrue(served)
