"""The status port of a real service: what it tells, and what anybody who reaches it can send."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

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


class FigureTests(CommandTestCase):
    """Status of a service and of its directory."""

    def figures(self, service: Running) -> dict[str, float]:
        """Metrics by name and by the label beside the service."""
        port = re.findall(r"status on \S+:([0-9]+)", service.log)[-1]
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = {**sample.labels}
                service_label = labels.pop("service", "")
                if service_label in ("", self.service_class):
                    name = sample.name.removeprefix("mutauth_")
                    found[":".join((name, *labels.values()))] = sample.value
        return found

    def await_figures(
        self, service: Running, since: dict[str, float] | None = None, **wanted: float
    ) -> dict[str, float]:
        """Ask until the figures are these.

        :param since: times that have to be past.
        """
        give_up_at = time.monotonic() + 30
        while True:
            found = self.figures(service)
            seen = {name: found.get(name) for name in wanted}
            if seen == wanted and all(found[name] > at for name, at in (since or {}).items()):
                return found
            self.assertLess(time.monotonic(), give_up_at, (seen, since))
            time.sleep(0.1)

    def test_life(self) -> None:
        """Publications, keys and visitors are told truly, and follow what an administrator
        breaks.
        """
        began = time.time()
        installed = self.install()
        status = ("--status", "tcp:0:interface=127.0.0.1", "--check-interval", "0.3")
        with self.service(*status, "--allow", "alice@*") as service:
            service.read_on()
            found = self.figures(service)
            for name, value in (
                *(("ready", 1), ("published", 1), ("spns_registered", 1)),
                *(("directory_check_success", 1), ("sessions_limit", 10000)),
                *(("handshakes_total:allowed", 0), ("sessions", 0)),
            ):
                self.assertEqual(found[name], value, name)
            self.assertGreater(found["directory_check_timestamp_seconds"], began)
            self.assertGreater(found["ticket_end_timestamp_seconds"], time.time() + 600)
            keytab = self.lab.keytab("svc-echo")
            self.assertEqual(found["keytab_modified_timestamp_seconds"], keytab.stat().st_mtime)
            self.assertGreaterEqual(found["keytab_kvno"], 1)

            self.assertEqual(self.mutauth("connect", self.endpoint, given="hello").output, "hello")
            self.assertEqual(self.mutauth("connect", self.endpoint, user="bob").code, 4)
            wanted = {"handshakes_total:allowed": 1.0, "handshakes_total:access-denied": 1.0}
            found = self.await_figures(service, **wanted, **{"sessions_ended_total:clean": 1.0})
            self.assertEqual((found["received_bytes_total"], found["sent_bytes_total"]), (5, 5))
            self.assertEqual(found["handshake_duration_seconds_count"], 1)
            self.assertEqual(found["sessions"], 0)

            self.assertEqual(found["reload_success"], 1)
            service.process.send_signal(signal.SIGHUP)
            read = {"reload_timestamp_seconds": found["reload_timestamp_seconds"]}
            self.await_figures(service, read, reload_success=1.0, ready=1.0)

            spn = installed.output.partition("added SPN ")[2].partition(" to ")[0]
            words = ("spn", "delete", "svc-echo", spn, "--nameserver", self.lab.nameserver)
            self.assertEqual(self.mutauth(*words, user="administrator").code, 0)
            broken = {"ready": 0.0, "spns_registered": 0.0, "directory_check_success": 0.0}
            self.await_figures(service, **broken, **{"problems:spn-missing": 1.0, "published": 1.0})

    def test_workers(self) -> None:
        """Workers' figures are added up, their limits as well, and what one that was killed has
        counted stays.
        """
        self.install()
        words = ("--workers", "2", "--status", "tcp:0:interface=127.0.0.1")
        with self.service(*words) as service:
            service.read_on()
            for _ in range(3):
                self.assertEqual(self.mutauth("connect", self.endpoint).code, 0)
            counted = {"handshakes_total:allowed": 3.0, "handshake_duration_seconds_count": 3.0}
            limits = {"sessions_limit": 10000.0, "handshakes_limit": 256.0}
            found = self.await_figures(service, **counted, **limits, published=1.0)
            for number in (1, 2):
                memory = found[f"worker_process_resident_memory_bytes:{number}"]
                self.assertGreater(memory, 10 * MEGABYTE)
            children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
            killed = children.read_text().split()
            for pid in killed:
                os.kill(int(pid), signal.SIGKILL)
            # Not the figures of between: a page is kept for a second, and they may be over then.
            give_up_at = time.monotonic() + 30
            while len(now := children.read_text().split()) < 2 or {*now} & {*killed}:
                self.assertLess(time.monotonic(), give_up_at, (killed, now))
                time.sleep(0.05)
            found = self.await_figures(service, **counted, **limits, ready=1.0)
            self.assertEqual(found["sessions"], 0)

    def test_backend(self) -> None:
        """A backend that is down is told, and that the address was withdrawn for it, however often
        the directory is checked meanwhile.
        """
        self.install()
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        words = ("--forward", f"tcp:127.0.0.1:{port}", "--backend-check", "0.2")
        status = ("--status", "tcp:0:interface=127.0.0.1", "--check-interval", "0.2")
        with self.service(*words, *status) as service:
            service.read_on()
            up = {"backend_up": 1.0, "published": 1.0, "ready": 1.0}
            down = {"backend_up": 0.0, "published": 0.0, "ready": 0.0}
            self.await_figures(service, **up)
            listener.close()
            found = self.await_figures(service, **down)
            for _ in range(2):
                name = "directory_check_timestamp_seconds"
                found = self.await_figures(service, {name: found[name]}, **down)
            self.assertGreater(found["backend_connections_total:failed"], 1)
            self.assertEqual(found["problems:backend-unreachable"], 1)
            with socket.create_server(("127.0.0.1", port)):
                self.await_figures(service, **up)

    def test_unix(self) -> None:
        """A UNIX socket has the mode that is asked for, and the same pages."""
        path = Path(self.state) / "status.sock"
        bare = ("--publish", "none", "--spn-check", "off")
        with self.service(*bare, "--status", f"unix:{path}:mode=600") as service:
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
            self.assertNotIn("status-exposed", service.log)
            for page in ("healthz", "readyz", "metrics"):
                with socket.socket(socket.AF_UNIX) as watcher:
                    watcher.settimeout(10)
                    watcher.connect(str(path))
                    watcher.sendall(f"GET /{page} HTTP/1.1\r\nHost: any\r\n\r\n".encode())
                    first = watcher.makefile("rb").readline()
                self.assertEqual(first, b"HTTP/1.1 200 OK\r\n")
        self.assertFalse(path.exists())

    def test_exposed(self) -> None:
        """A port that other machines reach is warned of, with the risk, in the log and on the
        page.
        """
        bare = ("--publish", "none", "--spn-check", "off")
        with self.service(*bare, "--status", "tcp:0") as service:
            port = re.findall(r"status on 0\.0\.0\.0:([0-9]+)", service.log)[-1]
            self.assertIn("[status-exposed] status on 0.0.0.0:", service.log)
            self.assertIn("without authentication and in the clear", service.log)
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
                told = json.load(answer)
            self.assertEqual([one["code"] for one in told["warnings"]], ["status-exposed"])
