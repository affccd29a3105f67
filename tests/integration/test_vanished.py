"""Clients that are gone behind a service that has stopped reading, with real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.integration.commands import CommandTestCase, Running
from tests.integration.reliability_case import reset

HOST = "127.0.0.1"


def fill(client: socket.socket) -> int:
    """Send until nothing is taken any more; returns how much was."""
    client.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            sent += client.send(bytes(65536))
    return sent


class CommandTests(CommandTestCase):
    """``twistd mutauth --forward`` and ``mutauth connect --listen``."""

    timeout = 180
    clients = 10

    def descriptors(self, *processes: Running) -> list[int]:
        """Number of descriptors that each has open."""
        return [len(os.listdir(f"/proc/{each.process.pid}/fd")) for each in processes]

    def settled(self, *processes: Running) -> list[int]:
        """Number of descriptors that each has open when that changes no more."""
        seen: list[list[int]] = []

        def is_settled() -> bool:
            seen.append(self.descriptors(*processes))
            return len(seen) > 9 and seen[-10:] == seen[-1:] * 10

        self.assertTrue(self.await_(is_settled))
        return seen[-1]

    def await_(self, condition: Callable[[], bool]) -> bool:
        """Wait until something holds; whether it does."""
        until = time.monotonic() + 60
        while not (holds := condition()) and time.monotonic() < until:
            time.sleep(0.1)
        return holds

    def test_reset(self) -> None:
        """Clients that reset while the plain service does not read keep nothing open, in neither
        process.
        """
        self.leave(reset)

    def test_close_with_bytes_unsent(self) -> None:
        """Those that close look like others that wait, as their kernel goes on for them: idle-
        timeout ends both.
        """
        self.clients = 3
        self.leave(socket.socket.close, "--idle-timeout", "10")

    def leave(self, leave: Callable[[socket.socket], None], *options: str) -> None:
        """Have clients leave so, and see that nothing stays open."""
        self.install()
        with socket.create_server((HOST, 0), backlog=100) as plain:
            target = f"tcp:{HOST}:{plain.getsockname()[1]}"
            with (
                self.service("--forward", target, *options) as service,
                self.forwarder(self.endpoint) as forwarder,
            ):
                with socket.create_connection((HOST, forwarder.port)):  # what is found once is kept
                    plain.accept()[0].close()
                clients = [
                    socket.create_connection((HOST, forwarder.port)) for _ in range(self.clients)
                ]
                unread = [plain.accept()[0] for _ in clients]
                with ThreadPoolExecutor(self.clients) as pool:
                    for sent in pool.map(fill, clients):
                        self.assertGreater(sent, 65536)
                held = self.settled(service, forwarder)
                left = [count - 2 * self.clients for count in held]
                self.assertTrue(all(count > 0 for count in left), held)
                for client in clients:
                    leave(client)
                gone = self.await_(
                    lambda: all(map(int.__le__, self.descriptors(service, forwarder), left))
                )
                self.assertTrue(gone, (held, left, self.descriptors(service, forwarder)))
                for each in unread:
                    each.close()
