"""A gateway under what networks, clients and services do to it for years; docs/reliability.md has
the list.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from tests.integration.commands import WAIT, Running
from tests.integration.reliability_case import (
    HOST,
    PIECE,
    Backend,
    Gateway,
    ReliabilityTestCase,
    digest,
    echo,
    pump,
    read_all,
    reset,
)

MEGABYTE = 1 << 20


class FloodTests(ReliabilityTestCase):
    """Peers that never authenticate."""

    silent, garbage, honest = 40, 20, 100
    #: As many of the silent as have a slot among the handshakes.
    silent_at_once = silent

    def flood(self, gateway: Gateway, source: str) -> contextlib.ExitStack:
        """The connections of an address that say nothing, or nothing of use, until they are
        closed.
        """
        strangers = contextlib.ExitStack()
        self.addCleanup(strangers.close)
        where = (self.lab.address_of(self.host), gateway.service.port)
        for number in range(self.silent + self.garbage):
            stranger = strangers.enter_context(
                socket.create_connection(where, WAIT, source_address=(source, 0))
            )
            if number >= self.silent:
                stranger.sendall(os.urandom(64))
        return strangers

    def serve_honest(self, source: str, *options: str) -> None:
        """100 clients are served at once beside strangers, who leave nothing behind."""
        with self.gateway(*options) as gateway:
            self.assertEqual(gateway.ask(), b"hello")
            before = self.descriptors(gateway.service)
            strangers = self.flood(gateway, source)
            questions = [b"%d" % number for number in range(self.honest)]
            answers = self.at_once(self.honest, lambda number: gateway.ask(questions[number]))
            self.assertEqual(answers, questions)
            # The silent ones are there still, so nobody was served after their deadline only.
            count = self.silent_at_once
            # Garbage that looks like the beginning of a message is there as well.
            self.until(lambda: count <= self.health(gateway.service)["handshakes"])
            strangers.close()
            self.until_idle(gateway)
            self.until(lambda: self.descriptors(gateway.service) <= before)
            self.assertEqual(gateway.ask(), b"hello")

    def test_of_another_address(self) -> None:
        """40 silent sockets and 20 that send garbage keep none of 100 clients of another address
        waiting, with the limits as they are by default.
        """
        self.silent_at_once = 32
        self.serve_honest("127.0.0.77", "--handshake-timeout", "120")

    def test_of_the_same_address(self) -> None:
        """Nor those of their own address, where one address may have as many handshakes, as a
        balancer in front needs it.
        """
        options = ("--handshake-timeout", "120", "--max-handshakes-per-address", "150")
        self.serve_honest(HOST, *options)


class DescriptorTests(ReliabilityTestCase):
    """A limit that an administrator, or a container, lowers below what is open already."""

    def test_taken_away_and_given_back(self) -> None:
        """Without a descriptor for one more connection the service neither ends nor spins, its
        sessions go on, and those who wait are served when there are some again.
        """
        with self.gateway() as gateway:
            pid = gateway.service.process.pid
            with gateway.connect() as session:
                session.sendall(b"before")
                self.assertEqual(session.recv(6, socket.MSG_WAITALL), b"before")
                usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (20, usual[1]))
                late = [gateway.connect() for _ in range(30)]
                for client in late:
                    client.sendall(b"late")
                self.until(lambda: "no file descriptor left" in gateway.service.log)
                begun = self.cpu(gateway.service)
                for _ in range(20):
                    threading.Event().wait(0.05)
                    session.sendall(b"during")
                    self.assertEqual(session.recv(6, socket.MSG_WAITALL), b"during")
                self.assertLess(self.cpu(gateway.service) - begun, 0.5)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
                for client in late:
                    self.assertEqual(client.recv(4, socket.MSG_WAITALL), b"late")
                    client.close()
            self.assertEqual(gateway.service.log.count("no file descriptor left"), 1)
            self.until_idle(gateway)


class ResetTests(ReliabilityTestCase):
    """Ends that come as RST, in the middle of a transfer."""

    times = 40

    def test_mid_transfer(self) -> None:
        """40 resets, by the client and by the service behind in turn: the other side's connection
        ends as well, what came before is no byte wrong, nothing stays open, and others are served.
        """
        text = os.urandom(MEGABYTE)
        heard: list[tuple[bytes, bool]] = []

        def talk(connection: socket.socket) -> None:
            order = connection.recv(1)
            if order == b"e":
                echo(connection)
            elif order == b"r":  # reset by the service, in the middle of its answer
                connection.sendall(text[: 3 * PIECE])
                reset(connection)
            else:  # reset by the client, in the middle of its question
                data, clean = b"", True
                try:
                    while more := connection.recv(PIECE):
                        data += more
                except ConnectionError:
                    clean = False
                heard.append((data, clean))

        with self.gateway(backend=self.backend(talk)) as gateway:
            self.assertEqual(gateway.ask(b"ehello"), b"hello")
            before = [self.descriptors(each) for each in gateway.ends]
            for number in range(self.times):
                client = gateway.connect()
                if number % 2:
                    client.sendall(b"q" + text[: number * 7919])
                    self.until(lambda number=number: gateway.backend.served == number + 2)
                    reset(client)
                    continue
                with client:
                    client.sendall(b"r")
                    got = b""
                    with self.assertRaises(ConnectionResetError):
                        while more := client.recv(PIECE):
                            got += more
                    self.assertTrue(text.startswith(got))
            self.until(lambda: len(heard) == self.times // 2)
            for data, clean in heard:
                self.assertTrue(text.startswith(data))
                self.assertFalse(clean, "a stream that was cut looks like a finished one")
            self.until_idle(gateway)
            for end, held in zip(gateway.ends, before, strict=True):
                self.until(lambda end=end, held=held: self.descriptors(end) <= held)
            self.assertEqual(gateway.ask(b"ehello"), b"hello")


class StoppingTests(ReliabilityTestCase):
    """The end of either process while it is busy."""

    transfers, size = 5, 8 * MEGABYTE

    def transfer(self, gateway: Gateway, begun: threading.Barrier, text: bytes) -> str:
        """Send a text and read its echo at the same time; the echo's digest."""
        with gateway.connect() as client:
            under_way = threading.Event()

            def send() -> None:
                with contextlib.suppress(OSError):  # then the echo is incomplete
                    client.sendall(text[:MEGABYTE])
                    under_way.wait(WAIT)
                    begun.wait(WAIT)
                    client.sendall(text[MEGABYTE:])
                    client.shutdown(socket.SHUT_WR)

            sending = threading.Thread(target=send)
            sending.start()
            # What is still in the kernel's queue has not been accepted.
            first = client.recv(1)
            under_way.set()
            received = first + read_all(client)
            sending.join()
            return digest(received)

    def stopped(self, which: str) -> None:
        """SIGTERM to one end in the middle of the transfers."""
        text = os.urandom(self.size)
        with self.gateway() as gateway:
            self.assertEqual(gateway.ask(), b"hello")
            end = getattr(gateway, which)
            begun = threading.Barrier(
                self.transfers, lambda: end.process.send_signal(signal.SIGTERM)
            )
            digests = self.at_once(self.transfers, lambda _: self.transfer(gateway, begun, text))
            self.assertEqual(digests, [digest(text)] * self.transfers)
            end.process.wait(WAIT)
            end.stop()
            self.assertNotIn("were cut", end.log)

    def test_service(self) -> None:
        """SIGTERM to the service in the middle of 5 x 8 MiB each way: every byte arrives."""
        self.stopped("service")

    def test_forwarder(self) -> None:
        """SIGTERM to the forwarder in the middle of 5 x 8 MiB each way: every byte arrives."""
        self.stopped("forwarder")

    def test_forwarder_connecting(self) -> None:
        """A client that was accepted, and whose session is still to come, is served to its end."""
        opened = threading.Event()
        with self.service() as service:
            service.read_on()

            def gate(connection: socket.socket) -> None:
                opened.wait(WAIT)
                where = (self.lab.address_of(self.host), service.port)
                with socket.create_connection(where, WAIT) as onwards:
                    answering = threading.Thread(target=pump, args=(onwards, connection))
                    answering.start()
                    pump(connection, onwards)
                    answering.join(WAIT)

            gates = self.backend(gate)
            name = f"{self.service_class}/{self.host}/CN={self.service_class},CN=srv1,CN=Computers"
            endpoint = f"mutauth:tcp\\:{HOST}\\:{gates.port}:spn={name},{self.lab.base_dn}"
            with self.forwarder(endpoint, "--drain-timeout", "20") as forwarder:
                forwarder.read_on()
                with socket.create_connection((HOST, forwarder.port), WAIT) as client:
                    client.sendall(b"hello")
                    client.shutdown(socket.SHUT_WR)
                    self.until(lambda: gates.served == 1)
                    forwarder.process.send_signal(signal.SIGTERM)
                    self.until(lambda: "interrupt again" in forwarder.log)
                    opened.set()
                    self.assertEqual(read_all(client), b"hello")

    def test_forwarder_twice(self) -> None:
        """A second signal to the forwarder cuts a connection that would have gone on."""
        with self.gateway() as gateway, gateway.connect() as client:
            client.sendall(b"hello")
            self.assertEqual(client.recv(5, socket.MSG_WAITALL), b"hello")
            forwarder = gateway.forwarder
            forwarder.process.send_signal(signal.SIGTERM)
            self.until(lambda: "interrupt again" in forwarder.log)
            client.sendall(b"still")
            self.assertEqual(client.recv(5, socket.MSG_WAITALL), b"still")
            self.assertIsNone(forwarder.process.poll())
            forwarder.process.send_signal(signal.SIGTERM)
            self.assertEqual(forwarder.process.wait(WAIT), 130)
            with self.assertRaises(ConnectionResetError):
                client.recv(1)

    def test_readiness(self) -> None:
        """From the signal on the service is not ready, and never again; it is alive to the end."""
        with self.gateway() as gateway, gateway.connect() as client:
            client.sendall(b"hello")
            self.assertEqual(client.recv(5, socket.MSG_WAITALL), b"hello")
            self.assertEqual(self.probe(gateway.service, "readyz")[0], 200)
            gateway.service.process.send_signal(signal.SIGTERM)
            self.until(lambda: self.probe(gateway.service, "readyz")[0] == 503)
            for _ in range(40):
                code, text = self.probe(gateway.service, "readyz")
                self.assertEqual(code, 503)
                self.assertIn("stopping", text)
                self.assertEqual(self.probe(gateway.service, "healthz")[0], 200)
            client.sendall(b"still")
            self.assertEqual(client.recv(5, socket.MSG_WAITALL), b"still")
            client.close()
            self.assertEqual(gateway.service.process.wait(WAIT), 0)


#: In every process of these tests: what it holds, on request.
_ACCOUNT = """
import collections, gc, json, os, signal, sys, threading
def account(*_):
    gc.collect()
    kinds = collections.Counter(type(each).__name__ for each in gc.get_objects())
    told = {"threads": threading.active_count(), "kinds": kinds}
    path = os.environ["ACCOUNT_OF_OBJECTS"] + str(os.getpid())
    with open(path + ".new", "w") as file:
        json.dump(told, file)
    os.replace(path + ".new", path)
signal.signal(signal.SIGUSR2, account)
"""


@frozen
class Holdings:
    """Resources that a process holds at one moment."""

    descriptors: int
    memory: int
    threads: int
    kinds: dict[str, int]


class ChurnTests(ReliabilityTestCase):
    """Connections that come and go."""

    rounds, clients, each = 4, 10, 50

    def environment(self, user: str, **changes: str) -> dict[str, str]:
        usual = super().environment(user, **changes)
        Path(self.state, "sitecustomize.py").write_text(_ACCOUNT, "utf-8")
        path = os.pathsep.join((self.state, usual["PYTHONPATH"]))
        return {**usual, "PYTHONPATH": path, "ACCOUNT_OF_OBJECTS": f"{self.state}/account-"}

    def holdings(self, running: Running) -> Holdings:
        """Resources that one of a test's processes holds."""
        pid = running.process.pid
        account = Path(f"{self.state}/account-{pid}")
        account.unlink(missing_ok=True)
        running.process.send_signal(signal.SIGUSR2)
        self.until(account.exists, "it does not give account")
        told = json.loads(account.read_text("utf-8"))
        return Holdings(
            self.descriptors(running),
            self.memory(running),
            told["threads"],
            told["kinds"],
        )

    def churn(self, gateway: Gateway) -> None:
        """500 connections, ten at a time, each with a question."""

        def client(number: int) -> None:
            for turn in range(self.each):
                question = b"%d %d" % (number, turn)
                self.assertEqual(gateway.ask(question), question)

        self.at_once(self.clients, client)
        self.until_idle(gateway)

    def replays(self) -> int:
        """The size of the replay caches, in bytes."""
        caches = Path(self.lab.environment("alice")["KRB5RCACHEDIR"]).iterdir()
        return sum(each.stat().st_size for each in caches)

    def test_nothing_is_left(self) -> None:
        """2,000 connections are opened and closed: neither end has more descriptors, threads,
        objects or memory than after the first 500, and the replay cache grows by what RFC 4120
        asks for, and no more.
        """
        with self.gateway() as gateway:
            self.churn(gateway)
            cached = self.replays()
            before = [self.holdings(end) for end in gateway.ends]
            for _ in range(self.rounds - 1):
                self.churn(gateway)
            self.assertEqual(gateway.backend.served, self.rounds * self.clients * self.each)
            for end, held in zip(gateway.ends, before, strict=True):
                self.until(lambda end=end, held=held: self.descriptors(end) <= held.descriptors)
                self.assert_no_more(self.holdings(end), held)
            # A record has 16 bytes of tag and 8 of time, in a table that doubles when it is full.
            self.assertLess(self.replays() - cached, 2 * 1500 * 64)

    def assert_no_more(self, now: Holdings, before: Holdings) -> None:
        """Objects that 1,500 connections left, one each at the least."""
        grown = {
            kind: (before.kinds.get(kind, 0), count)
            for kind, count in now.kinds.items()
            if count - before.kinds.get(kind, 0) > 150
        }
        self.assertEqual(grown, {})
        self.assertLessEqual(now.threads, before.threads + 1)
        self.assertLess(now.memory - before.memory, 4 * MEGABYTE)


class UnixTests(ReliabilityTestCase):
    """PROXY protocol headers where a listener is a UNIX socket."""

    signature = bytes.fromhex("0d0a0d0a000d0a515549540a")

    def backend_of(self, headers: list[bytes]) -> Backend:
        """An echo that takes a header first."""

        def talk(connection: socket.socket) -> None:
            fixed = connection.recv(16, socket.MSG_WAITALL)
            rest = connection.recv(int.from_bytes(fixed[14:], "big"), socket.MSG_WAITALL)
            headers.append(fixed + rest)
            echo(connection)

        return self.backend(talk)

    @contextlib.contextmanager
    def on_unix(self, backend: Backend, *options: str) -> Iterator[tuple[Running, str]]:
        """A service on a UNIX socket that tells its backend who comes; its path."""
        path = f"{self.state}/listener.sock"
        words = ("--listen", f"unix:{path}", "--publish", "none", "--spn-check", "off")
        forward = ("--forward", f"tcp:{HOST}:{backend.port}", "--proxy-protocol")
        with self.service(*words, *forward, *options) as service:
            service.read_on()
            yield service, path

    def ask_at(self, endpoint: str) -> None:
        """A question through a forwarder."""
        name = f"{self.service_class}/{self.host}/CN={self.service_class},CN=srv1,CN=Computers"
        with (
            self.forwarder(f"mutauth:{endpoint}:spn={name},{self.lab.base_dn}") as forwarder,
            socket.create_connection((HOST, forwarder.port), WAIT) as client,
        ):
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(read_all(client), b"hello")

    def test_told_to_the_backend(self) -> None:
        """A client of a UNIX socket has no address to tell, and is told of nevertheless."""
        headers: list[bytes] = []
        with self.on_unix(self.backend_of(headers)) as (_, path):
            self.ask_at(f"unix\\:{path}")
        (header,) = headers
        self.assertEqual(header[:13], self.signature + b"\x21")
        self.assertIn(header[13], (0x00, 0x31))  # UNSPEC, or AF_UNIX and STREAM
        self.assertIn(b"\xe0\x00\x11alice@LAB.EXAMPLE", header)

    def test_told_by_a_balancer(self) -> None:
        """Addresses that a balancer tells over a UNIX socket are told to the backend."""
        addresses = bytes.fromhex("c0000207c0000201c3502328")  # 192.0.2.7:50000 to 192.0.2.1:9000
        header = self.signature + b"\x21\x11\x00\x0c" + addresses
        headers: list[bytes] = []

        def balance(connection: socket.socket) -> None:
            with socket.socket(socket.AF_UNIX) as service:
                service.connect(path)
                for byte in header:
                    service.sendall(bytes([byte]))
                answering = threading.Thread(target=pump, args=(service, connection))
                answering.start()
                pump(connection, service)
                answering.join(WAIT)

        with self.on_unix(self.backend_of(headers), "--proxy-from", "unix") as (service, path):
            balancer = self.backend(balance)
            self.ask_at(f"tcp\\:{HOST}\\:{balancer.port}")
            self.until(lambda: "192.0.2.7:50000 authenticated as alice" in service.log)
        self.assertEqual(headers[0][13], 0x11)
        self.assertEqual(headers[0][16:28], addresses)


class BackendTests(ReliabilityTestCase):
    """A plain service that fails its gateway."""

    def refused(self, gateway: Gateway) -> None:
        """A client is told that there is nothing for it, by a reset or by an end."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            self.assertEqual(gateway.ask(), b"")

    def test_flapping(self) -> None:
        """A service that is down, then resets whoever comes, then works: clients are told at once
        each time, and served as soon as it works.
        """
        backend = self.backend()
        backend.close()
        with self.gateway(backend=backend) as gateway:
            self.refused(gateway)
            before = [self.descriptors(each) for each in gateway.ends]
            for _ in range(9):
                self.refused(gateway)
            self.assertIn("[backend-unreachable]", gateway.service.log)
            counted = self.counted(
                gateway.service, "mutauth_sessions_ended_total", result="backend-unreachable"
            )
            self.assertEqual(counted, 10)
            resetting = self.backend(reset, backend.port)
            for _ in range(20):
                self.refused(gateway)
            self.assertEqual(resetting.served, 20)
            resetting.close()
            self.backend(port=backend.port)
            for number in range(10):
                self.assertEqual(gateway.ask(b"%d" % number), b"%d" % number)
            self.until_idle(gateway)
            for end, held in zip(gateway.ends, before, strict=True):
                self.until(lambda end=end, held=held: self.descriptors(end) <= held)

    def test_silent(self) -> None:
        """A service that accepts and says nothing costs its clients their idle time-out, and nobody
        else anything.
        """
        silent = threading.Event()
        self.addCleanup(silent.set)

        def talk(connection: socket.socket) -> None:
            if connection.recv(1) == b"s":
                silent.wait(WAIT)
            else:
                echo(connection)

        with self.gateway("--idle-timeout", "2", backend=self.backend(talk)) as gateway:
            waiting = [gateway.connect() for _ in range(10)]
            for client in waiting:
                client.sendall(b"s")
            self.assertEqual(gateway.ask(b"ehello"), b"hello")
            for client in waiting:
                with client, contextlib.suppress(ConnectionResetError):
                    self.assertEqual(client.recv(1), b"")
            self.until_idle(gateway)

    def test_client_killed(self) -> None:
        """A client whose machine takes it away in the middle of a transfer ends what it had at the
        service behind, which can tell that from a finished one.
        """
        heard: list[bool] = []

        def talk(connection: socket.socket) -> None:
            try:
                while connection.recv(PIECE):
                    pass
                heard.append(True)
            except ConnectionError:
                heard.append(False)

        with self.gateway(backend=self.backend(talk)) as gateway:
            clients = [gateway.connect() for _ in range(5)]
            for client in clients:
                client.sendall(bytes(PIECE))
            self.until(lambda: gateway.backend.served == 5)
            gateway.forwarder.process.kill()
            self.until(lambda: len(heard) == 5)
            self.assertEqual(heard, [False] * 5)
            self.until_idle(gateway)
            for client in clients:
                client.close()
            with self.forwarder(self.endpoint) as another:
                with socket.create_connection((HOST, another.port), WAIT) as client:
                    client.shutdown(socket.SHUT_WR)
                    self.assertEqual(read_all(client), b"")
                self.assertEqual(heard[5:], [True])


class MisfortuneTests(ReliabilityTestCase):
    """Changes of a service's files and ports by administrators and other programs."""

    def test_keytab_emptied(self) -> None:
        """A keytab that is truncated keeps new clients out, says so in the log and on the status
        port, ends no session, and serves again when its content is back.
        """
        keytab = Path(self.state, "service.keytab")
        content = self.lab.keytab("svc-echo").read_bytes()
        keytab.write_bytes(content)
        with self.gateway("--keytab", str(keytab)) as gateway, gateway.connect() as session:
            session.sendall(b"before")
            self.assertEqual(session.recv(6, socket.MSG_WAITALL), b"before")
            os.truncate(keytab, 0)
            self.until(lambda: not self.health(gateway.service)["healthy"])
            (wrong,) = self.health(gateway.service)["wrong"]
            self.assertEqual(wrong["code"], "keytab-lacks-key")
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(gateway.ask(), b"")
            self.assertIn("[keytab-unusable]", gateway.service.log)
            self.assertLessEqual(1, self.refusals(gateway.service, "keytab-unusable"))
            session.sendall(b"during")
            self.assertEqual(session.recv(6, socket.MSG_WAITALL), b"during")
            keytab.write_bytes(content)
            self.until(lambda: self.health(gateway.service)["healthy"])
            self.assertEqual(gateway.ask(), b"hello")

    def test_policy_unreadable(self) -> None:
        """A policy file that is missing, unreadable, no TOML, or has a key that is none, is told in
        one line with its place; the service does not start, and allows nobody meanwhile.
        """
        policy = Path(self.state, "policy.toml")
        # Root may read everything; root without these two capabilities may not.
        limited = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
        for content, mode, words in (
            (None, 0, "no such file"),
            ("", 0, "cannot be read by this user"),
            ("[[allow]\n", 0o600, ":1"),
            ('[[allow]]\nacounts = ["*@LAB.EXAMPLE"]\n', 0o600, "did you mean accounts"),
        ):
            if content is not None:
                policy.unlink(missing_ok=True)
                policy.write_text(content, "utf-8")
                policy.chmod(mode)
            ended = self.start_refused("--policy", str(policy), prefix=limited)
            line = self.refused(ended, ended.code, f"{policy}", words)
            self.assertIn(ended.code, (2, 4), line)
            self.assertNotIn("serving", ended.output)

    def test_status_port_taken(self) -> None:
        """A status port that is taken is told in one line; the service does not start, holds no
        port, and no client finds it.
        """
        with socket.create_server((HOST, 0)) as taken:
            port = taken.getsockname()[1]
            ended = self.start_refused("--status", f"tcp:{port}:interface={HOST}")
        self.refused(ended, 3, f"[cannot-listen] endpoint tcp:{port}:interface={HOST}: ")
        found = self.mutauth("connect", self.endpoint)
        self.refused(found, 1, self.service_class, "published")
