"""Several processes behind one socket, and what happens to each of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mutauth_twisted.service.exitcode import CRASHING, CUT
from tests.integration.commands import WAIT, CommandTestCase, Ended, Running, children


def sockets(pid: int) -> set[str]:
    """The sockets that a process has open, by their inodes."""
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(os.readlink(each))
    return {each for each in found if each.startswith("socket:")}


class WorkerTests(CommandTestCase):
    """A service with two workers."""

    def setUp(self) -> None:
        super().setUp()
        self.assertEqual(self.install().code, 0)

    @contextlib.contextmanager
    def workers(self, *more: str) -> Iterator[Running]:
        """A service with two workers, whose log is read on."""
        words = ("--workers", "2", "--status", "tcp:0:interface=127.0.0.1", *more)
        with self.service(*words) as service:
            service.read_on()
            yield service

    @contextlib.contextmanager
    def client(self, user: str = "alice") -> Iterator[subprocess.Popen[bytes]]:
        """A client with a session, which ends it when its standard input is closed."""
        pipes = {"stdin": subprocess.PIPE, "text": False}
        client = self.begin("mutauth", "connect", self.endpoint, user=user, **pipes)
        with client:
            client.stdin.write(b"hello\n")  # type: ignore[union-attr]
            client.stdin.flush()  # type: ignore[union-attr]
            self.assertEqual(client.stdout.readline(), b"hello\n")  # type: ignore[union-attr]
            yield client

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

    def serving(self, service: Running) -> dict[int, int]:
        """Number of sockets of each worker, besides those it has without a session."""
        return {pid: len(sockets(pid)) for pid in children(service.process.pid)}

    def test_share(self) -> None:
        """Clients are served by both, and the parent by no means; one status adds them up, and the
        stop is drained.
        """
        # Which group that is, the parent alone asks the directory.
        words = ("--drain-timeout", "30", "--allow", "nobody@*", "--allow-group", "echo-users")
        with self.workers(*words) as service, contextlib.ExitStack() as clients:
            self.assertNotEqual(self.talk("bob").code, 0)
            parent = len(sockets(service.process.pid))
            alone = self.serving(service)
            self.assertEqual(len(alone), 2)

            def both() -> bool:
                clients.enter_context(self.client())
                return all(count > alone[pid] for pid, count in self.serving(service).items())

            self.wait_for(both, "one worker takes all")
            self.assertLessEqual(len(sockets(service.process.pid)), parent)
            here = sum(self.serving(service).values()) - sum(alone.values())
            self.wait_for(
                lambda: (
                    str(here) in re.findall(r'"sessions": (\d+)', json.dumps(self.health(service)))
                ),
                f"the status does not count {here}",
            )
            self.assertEqual(self.health(service)[0], 200)
            service.process.send_signal(signal.SIGTERM)
            self.wait_for(lambda: "SCP withdrawn" in service.log, "it does not stop")
            self.assertEqual(self.health(service)[0], 503)
            self.assertIsNone(service.process.poll())
            clients.close()
            self.assertEqual(service.process.wait(WAIT), 0, service.log)

    def test_killed(self) -> None:
        """A worker leaves signals to its parent, which a service manager sends to all at once.  One
        that is killed is started again; meanwhile the other one serves.
        """
        with self.workers() as service:
            first, other = children(service.process.pid)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(first, number)
            self.assertEqual(self.talk().output, "hello\n")
            self.assertEqual(children(service.process.pid), [first, other])
            os.kill(first, signal.SIGKILL)
            self.wait_for(lambda: "worker-failed" in service.log, "it was not noticed")
            self.assertEqual(self.talk().output, "hello\n")
            self.wait_for(
                lambda: (
                    len(children(service.process.pid)) == 2
                    and self.health(service)[0] == 200
                    and service.log.count("is ready") == 3
                ),
                "it was not started again",
            )
            self.assertIn(other, children(service.process.pid))
            self.assertEqual(service.stop(), 0, service.log)
        self.assertIn("it has ended (signal 9)", service.log)

    def test_parent_killed(self) -> None:
        """Workers end with their parent, and leave no port behind."""
        with self.workers() as service:
            workers = children(service.process.pid)
            service.process.kill()
            self.wait_for(
                lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers),
                "they go on",
            )
            with socket.socket() as client:
                where = (self.lab.address_of(self.host), service.port)
                self.assertRaises(ConnectionRefusedError, client.connect, where)

    def test_crash_loop(self) -> None:
        """Workers that end again and again end the service, in order and with a code."""
        with self.workers() as service:
            until = time.monotonic() + 4 * WAIT
            while service.process.poll() is None:
                self.assertLess(time.monotonic(), until, service.log)
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    for worker in children(service.process.pid):
                        os.kill(worker, signal.SIGKILL)
                time.sleep(0.05)
            self.assertEqual(service.stop(), CRASHING, service.log)
        self.assertIn("SCP withdrawn", service.log)

    def test_backend(self) -> None:
        """One probe decides for all: the parent's.  Workers neither probe nor contradict it."""
        backend = socket.create_server(("127.0.0.1", 0))
        port = backend.getsockname()[1]
        words = ("--forward", f"tcp:127.0.0.1:{port}", "--backend-check", "0.2")
        with self.workers(*words) as service:
            self.assertEqual(self.health(service)[0], 200)
            backend.close()
            self.wait_for(lambda: "SCP withdrawn" in service.log, "it is still published")
            self.assertEqual(self.health(service)[0], 503)
            with socket.create_server(("127.0.0.1", port)) as backend:
                self.wait_for(lambda: service.log.count("SCP updated") == 2, "it is not published")
                self.assertEqual(self.health(service)[0], 200)
                for pid in children(service.process.pid):
                    os.kill(pid, signal.SIGSTOP)
                backend.settimeout(WAIT)
                for _ in range(3):  # what waits there is from one process, and goes on
                    backend.accept()[0].close()
                for pid in children(service.process.pid):
                    os.kill(pid, signal.SIGCONT)
                self.assertEqual(service.stop(), 0, service.log)
        self.assertEqual(service.log.count("[backend-unreachable]"), 1, service.log)
        self.assertEqual(service.log.count("answers again"), 1, service.log)

    def test_limits(self) -> None:
        """One account's sessions are limited over all workers, whichever of them it comes to; one
        that does not end is cut, whichever worker has it.
        """
        words = ("--max-connections-per-principal", "2", "--drain-timeout", "1")
        with self.workers(*words) as service:
            one, other = children(service.process.pid)
            with contextlib.ExitStack() as clients:
                for silent, serving in ((one, other), (other, one)):
                    os.kill(silent, signal.SIGSTOP)
                    clients.enter_context(self.client())
                    if silent == other:
                        refused = self.talk()
                        self.assertNotEqual((refused.code, refused.output), (0, "hello\n"))
                    os.kill(silent, signal.SIGCONT)
                    self.assertIn(serving, children(service.process.pid))
                self.assertEqual(self.talk("bob").output, "hello\n")
            self.wait_for(lambda: self.talk().output == "hello\n", "no session was given back")
            with self.client():
                self.assertEqual(service.stop(), CUT, service.log)
        self.assertIn("1 had not ended within 1 s, and were cut", service.log)
        self.assertIn("its account has 2 session(s), as many as one account may", service.log)
