"""The gateway between plain clients and plain services: what goes through it, how connections end,
and what clients hear when there is nothing behind it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from mutauth_twisted.testing.certificates import Certificates
from tests.integration.commands import WAIT, CommandTestCase, Running
from tests.integration.reliability_case import (
    HOST,
    PIECE,
    Backend,
    ReliabilityTestCase,
    digest,
    echo,
    read_all,
    reset,
)

MEGABYTE = 1 << 20


def read(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or all up to the end of the stream."""
    pieces = []
    while size and (piece := connection.recv(min(size, PIECE))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def closed_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


class DownTests(ReliabilityTestCase):
    """A backend that cannot be reached."""

    def test_told(self) -> None:
        """The client is told so, in one line with a code; the service's log has the reason."""
        target = f"tcp:{HOST}:{closed_port()}"
        for options in ((), ("--protection", "tls"), ("--wire", "winsock")):
            with self.service("--forward", target, *options) as service:
                protection = ":protection=tls" if "tls" in options else ""
                ended = self.mutauth("connect", self.endpoint + protection, given="hello")
                self.refused(ended, 3, "[backend-unreachable]", "cannot reach the service behind")
                service.stop()
            self.assertIn("[backend-unreachable]", service.log)
            self.assertIn("connection refused", service.log)
            self.assertNotIn("Traceback", service.log)

    def test_counted(self) -> None:
        """Each such session is in the audit trail and in the metrics under the same code."""
        trail = Path(self.state, "audit.jsonl")
        status = ("--status", f"tcp:0:interface={HOST}", "--audit", str(trail))
        with self.service("--forward", f"tcp:{HOST}:{closed_port()}", *status) as service:
            service.read_on()
            for _ in range(3):
                self.refused(self.mutauth("connect", self.endpoint), 3, "[backend-unreachable]")
            line = next(line for line in service.lines if "status on" in line)
            where = line.rpartition(" ")[2].strip()
            with urlopen(f"http://{where}/metrics", timeout=WAIT) as answer:
                metrics = answer.read().decode()
            told = self.health(service)
            service.stop()
        counted = [line for line in metrics.splitlines() if "backend-unreachable" in line]
        self.assertTrue(any(line.endswith(" 3.0") for line in counted), metrics)
        self.assertIn("backend-unreachable", [each["code"] for each in told["wrong"]])
        events = [json.loads(line) for line in trail.read_text("utf-8").splitlines()]
        ends = [each for each in events if each.get("code") == "backend-unreachable"]
        self.assertEqual(len(ends), 3, events)

    def test_through_a_forwarder(self) -> None:
        """A plain client's connection is closed, and the forwarder says why."""
        with (
            self.service("--forward", f"tcp:{HOST}:{closed_port()}"),
            self.forwarder(self.endpoint) as forwarder,
        ):
            forwarder.read_on()
            with (
                socket.create_connection((HOST, forwarder.port), WAIT) as client,
                contextlib.suppress(ConnectionError),
            ):
                client.sendall(b"hello")
                self.assertEqual(client.recv(1), b"")
            self.until(lambda: "[backend-unreachable]" in forwarder.log)
            forwarder.stop()
        self.assertNotIn("Traceback", forwarder.log)

    def test_hangs(self) -> None:
        """One that does not answer is given up after --backend-timeout."""
        with socket.socket() as listener:
            listener.bind((HOST, 0))
            listener.listen(0)
            where = listener.getsockname()
            # The kernel drops the requests of those that have no room in the queue.
            filling = [socket.socket() for _ in range(4)]
            for each in filling:
                each.setblocking(False)
                each.connect_ex(where)
            options = ("--forward", f"tcp:{HOST}:{where[1]}", "--backend-timeout", "1")
            with self.service(*options) as service:
                ended = self.mutauth("connect", self.endpoint)
                self.refused(ended, 3, "[backend-unreachable]")
                service.stop()
            self.assertIn("did not answer within 1 s", service.log)
            for each in filling:
                each.close()

    def test_comes_back(self) -> None:
        """As soon as there is a backend again, clients are served."""
        port = closed_port()
        with self.service("--forward", f"tcp:{HOST}:{port}") as service:
            self.refused(self.mutauth("connect", self.endpoint), 3, "[backend-unreachable]")
            self.backend(port=port)
            ended = self.mutauth("connect", self.endpoint, given="hello")
            self.assertEqual((ended.code, ended.output), (0, "hello"), service.log)


class HealthTests(ReliabilityTestCase):
    """--backend-check."""

    def test_withdrawn(self) -> None:
        """While its backend is down a service is not published, and its status says why; with it,
        it is again.  Where it is down at the start, it is not published at all.
        """
        backend = self.backend()
        port = backend.port
        options = ("--backend-check", "0.3", "--status", f"tcp:0:interface={HOST}")
        with self.service("--forward", f"tcp:{HOST}:{port}", *options) as service:
            service.read_on()
            self.assertTrue(self.health(service)["healthy"])
            backend.close()
            self.until(lambda: "SCP withdrawn" in service.log)
            told = self.health(service)
            self.assertFalse(told["healthy"])
            self.assertEqual([each["code"] for each in told["wrong"]], ["backend-unreachable"])
            self.refused(self.mutauth("connect", self.endpoint), 1, "[address-not-published]")
            backend = self.backend(port=port)
            self.until(lambda: service.log.count("SCP updated") == 2)
            self.assertTrue(self.health(service)["healthy"])
            ended = self.mutauth("connect", self.endpoint, given="hello")
            self.assertEqual(ended.output, "hello", ended)
            self.assertEqual(service.log.count("SCP withdrawn"), 1)
            backend.close()
        with self.service("--forward", f"tcp:{HOST}:{port}", *options) as service:
            service.read_on()
            self.assertNotIn("SCP updated", service.log)
            self.backend(port=port)
            self.until(lambda: "SCP updated" in service.log)
            service.stop()
        self.assertNotIn("Traceback", service.log)


class BackendTests(ReliabilityTestCase):
    """Kinds of backends."""

    def ask(self, target: str, given: str = "hello") -> str:
        """Bytes that come back through a service in front of a backend, or the error's line."""
        with self.service("--forward", target) as service:
            ended = self.mutauth("connect", self.endpoint, given=given)
            service.stop()
        self.assertNotIn("Traceback", service.log)
        self.log = service.log
        return ended.output + ended.errors

    def test_unix(self) -> None:
        """A Unix socket."""
        path = os.path.join(self.state, "backend.sock")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()

            def serve() -> None:
                connection, _ = listener.accept()
                with connection:
                    echo(connection)

            threading.Thread(target=serve, daemon=True).start()
            self.assertEqual(self.ask(f"unix:{path}"), "hello")

    @contextlib.contextmanager
    def tls_server(self, certificate: str) -> Iterator[int]:
        """OpenSSL's server, which sends lines back reversed; its port."""
        port = closed_port()
        process = subprocess.Popen(
            [
                *("openssl", "s_server", "-accept", f"{HOST}:{port}", "-rev", "-quiet"),
                *("-cert", certificate, "-key", certificate),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def is_open() -> bool:
            with socket.socket() as knocking:
                return not knocking.connect_ex((HOST, port))

        try:
            self.until(is_open)
            yield port
        finally:
            process.kill()
            process.wait()

    def test_tls(self) -> None:
        """TLS to a server of another project, whose name and authority are verified before it hears
        anything; a certificate without names is not for any name.
        """
        made, others = (Certificates(Path(self.state, name)) for name in ("made", "others"))
        for each in (made, others):
            trusted = Path(self.state, "trusted-" + Path(each.ca_file).parent.name)
            trusted.mkdir()
            shutil.copy(each.ca_file, trusted)
        mine, theirs = (f"{self.state}/trusted-{name}" for name in ("made", "others"))
        good = made.issue("localhost")
        for certificate, trusted_by, answer, reason in (
            (good, mine, "olleh\n", ""),
            (good, theirs, "", "certificate verify failed"),
            (made.issue("other.example"), mine, "", "its certificate is not for localhost"),
            (made.issue("localhost", names=False), mine, "", "its certificate is not for localh"),
        ):
            with self.tls_server(certificate) as port:
                said = self.ask(f"tls:localhost:{port}:trustRoots={trusted_by}", given="hello\n")
            if answer:
                self.assertEqual(said, answer, self.log)
            else:
                self.assertIn("[backend-unreachable]", said)
                self.assertIn(reason, self.log)

    def test_not_protected(self) -> None:
        """Another machine is reached through TLS only, unless the operator accepts the risk."""
        elsewhere = f"tcp:192.0.2.1:{closed_port()}"
        for target in (elsewhere, elsewhere.replace("tcp:", "tcp:host="), "tcp:srv9.example:80"):
            ended = self.start_refused("--forward", target)
            self.refused(ended, 2, target, "not on this machine", "--unsafe-backend")
        with self.service("--forward", elsewhere, "--unsafe-backend", "--backend-timeout", "1"):
            self.refused(self.mutauth("connect", self.endpoint), 3, "[backend-unreachable]")

    def test_listener_not_protected(self) -> None:
        """So are plain clients of other machines."""
        words = ("connect", self.endpoint, "--listen", "tcp:0")
        self.refused(self.mutauth(*words), 2, "[listener-not-protected]", "--unsafe-listen")
        process = subprocess.Popen(
            [*self.program("mutauth"), *words, "--unsafe-listen"],
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment("alice"),
        )
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        process.terminate()
        process.wait(WAIT)
        process.stderr.close()
        self.assertIn("listening", lines[0])
        self.assertIn("connects as you, in the clear", lines[1])


class EndTests(ReliabilityTestCase):
    """Ends of connections through both ends."""

    def test_half_closed(self) -> None:
        """Either side may end first and the other go on for as long as it has something to say,
        longer than the time-out; and 4 MiB behind the first end come whole.
        """
        said = os.urandom(4 * MEGABYTE)

        def answer(connection: socket.socket) -> None:
            heard = digest(read_all(connection))
            for _ in range(6):
                threading.Event().wait(0.5)
                connection.sendall(b".")
            connection.sendall(heard.encode() + said)

        heard: list[str] = []

        def end_first(connection: socket.socket) -> None:
            connection.sendall(b"bye")
            connection.shutdown(socket.SHUT_WR)
            heard.append(digest(read_all(connection)))

        options = ("--half-closed-timeout", "1.5")
        with self.gateway(*options, backend=self.backend(answer)) as gateway:
            answered = gateway.ask(said)
            self.assertEqual(digest(answered), digest(b"......" + digest(said).encode() + said))
        with (
            self.gateway(*options, backend=self.backend(end_first)) as gateway,
            gateway.connect() as client,
        ):
            self.assertEqual(read_all(client), b"bye")
            for start in range(0, len(said), MEGABYTE):
                threading.Event().wait(0.5)
                client.sendall(said[start : start + MEGABYTE])
            client.shutdown(socket.SHUT_WR)
            self.until(lambda: heard)
            self.assertEqual(heard, [digest(said)])

    def test_half_closed_and_silent(self) -> None:
        """A half-closed connection on which nothing comes any more is cut, and is not an end."""
        ended = threading.Event()

        def silent(connection: socket.socket) -> None:
            connection.sendall(b"some of it")
            with contextlib.suppress(OSError):
                while connection.recv(PIECE) or not ended.wait(0.05):
                    connection.send(b"")
            ended.set()

        backend = self.backend(silent)
        with (
            self.gateway("--half-closed-timeout", "1", backend=backend) as gateway,
            gateway.connect() as client,
        ):
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(read(client, 10), b"some of it")
            with self.assertRaises(ConnectionResetError):
                client.recv(1)
            ended.set()
            self.until_idle(gateway)

    def test_backend_resets(self) -> None:
        """Bytes that the backend sent before it reset come, exactly, and then a reset and not an
        end; so it is in the other direction.
        """
        said = os.urandom(MEGABYTE)

        def reset_behind(connection: socket.socket) -> None:
            connection.sendall(said)
            read(connection, 2)  # the client has it all
            connection.sendall(b"last")
            threading.Event().wait(0.2)
            reset(connection)

        with (
            self.gateway(backend=self.backend(reset_behind)) as gateway,
            gateway.connect() as client,
        ):
            self.assertEqual(read(client, MEGABYTE), said)
            client.sendall(b"go")
            self.assertEqual(read(client, 4), b"last")
            with self.assertRaises(ConnectionResetError):
                client.recv(1)

    def test_client_resets(self) -> None:
        """The backend gets what a client had sent that reset, and sees a reset and not an end."""
        seen: list[object] = []

        def listen(connection: socket.socket) -> None:
            connection.sendall(b"go")
            heard = b""
            try:
                while data := connection.recv(PIECE):
                    heard += data
                    if len(heard) == MEGABYTE:
                        connection.sendall(b"ok")
                seen.append("an end")
            except ConnectionResetError:
                seen.append(heard)

        said = os.urandom(MEGABYTE)
        with self.gateway(backend=self.backend(listen)) as gateway:
            client = gateway.connect()
            self.assertEqual(read(client, 2), b"go")
            client.sendall(said)
            self.assertEqual(read(client, 2), b"ok")
            reset(client)
            self.until(lambda: seen)
            self.assertEqual(seen, [said])

    def test_slow_reader(self) -> None:
        """A client that does not read holds up the backend, and fills no memory; then it gets
        everything.
        """
        sent: list[int] = []
        piece = os.urandom(MEGABYTE)

        def pour(connection: socket.socket) -> None:
            for number in range(64):
                connection.sendall(piece)
                sent.append(number)

        with self.gateway(backend=self.backend(pour)) as gateway:
            before = [self.memory(each) for each in gateway.ends]
            with gateway.connect() as client:
                count = -1
                while count != len(sent):
                    count = len(sent)
                    threading.Event().wait(1)
                self.assertLess(count, 32)
                for each, had in zip(gateway.ends, before, strict=True):
                    self.assertLess(self.memory(each) - had, 8 * MEGABYTE)
                for _ in range(64):
                    self.assertEqual(read(client, MEGABYTE), piece)
                self.assertEqual(client.recv(1), b"")


class FailoverTests(CommandTestCase):
    """A forwarder that knows two replicas."""

    timeout = 180

    def setUp(self) -> None:
        super().setUp()
        for name in ("srv1", "srv2"):
            words = ("--service-class", self.service_class, "--host", self.lab.host(name))
            ended = self.mutauth(
                "install", *words, "--account", "svc-echo", *self.directory, user="administrator"
            )
            self.assertEqual(ended.code, 0, ended)
            self.addCleanup(
                self.mutauth, "uninstall", *words, *self.directory, user="administrator"
            )

    @contextlib.contextmanager
    def replica(self, name: str, port: int, *options: str) -> Iterator[Running]:
        """A replica on one of the lab's hosts, in front of a port of loopback."""
        words = (
            *("mutauth", "--service-class", self.service_class, "--host", self.lab.host(name)),
            *("--keytab", str(self.lab.keytab("svc-echo")), *self.directory),
            *("--listen", f"tcp:0:interface={self.lab.address_of(self.lab.host(name))}"),
            *("--allow", "*@LAB.EXAMPLE", "--forward", f"tcp:{HOST}:{port}", *options),
        )
        with self.twistd(words) as service:
            service.read_on()
            yield service

    def backend(self) -> Backend:
        """An echo."""
        backend = Backend()
        self.addCleanup(backend.close)
        return backend

    @staticmethod
    def ask(port: int, question: bytes) -> bytes:
        """The answer to a question."""
        with socket.create_connection((HOST, port), WAIT) as client:
            client.sendall(question)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def test_backend_down(self) -> None:
        """Clients of a replica without a backend get to the other one, with all that they have said
        meanwhile, once; afterwards they come there first.
        """
        backend = self.backend()
        with (
            self.replica("srv1", closed_port(), "--weight", "65535") as down,
            self.replica("srv2", backend.port, "--weight", "1"),
            self.forwarder(self.endpoint) as forwarder,
        ):
            question = os.urandom(100_000)
            for _ in range(10):
                self.assertEqual(self.ask(forwarder.port, question), question)
            self.assertEqual(backend.served, 10)
            down.stop()
        # Without a memory of it each of the ten would have come there.
        self.assertLess(down.log.count("authenticated as alice"), 4, down.log)

    def test_dies_before_a_byte(self) -> None:
        """A connection through which nothing has gone does not notice that its replica dies."""
        backends = [self.backend(), self.backend()]
        with (
            self.replica("srv1", backends[0].port, "--priority", "0") as first,
            self.replica("srv2", backends[1].port, "--priority", "1"),
            self.forwarder(self.endpoint) as forwarder,
            socket.create_connection((HOST, forwarder.port), WAIT) as waiting,
            socket.create_connection((HOST, forwarder.port), WAIT) as talking,
        ):
            talking.sendall(b"hello")
            self.assertEqual(read(talking, 5), b"hello")
            self.wait_until_served(backends[0], 2)
            first.process.send_signal(signal.SIGKILL)
            first.process.wait(WAIT)
            with self.assertRaises(ConnectionResetError):
                talking.recv(1)
            # Not before: what is said to a replica that has died is lost with it.
            self.wait_until_served(backends[1], 1)
            waiting.sendall(b"first words")
            self.assertEqual(read(waiting, 11), b"first words")
            self.assertEqual(backends[1].served, 1)

    def wait_until_served(self, backend: Backend, count: int) -> None:
        """Wait until a backend has had so many connections."""
        for _ in range(200):
            if backend.served == count:
                break
            threading.Event().wait(0.05)
        self.assertEqual(backend.served, count)
