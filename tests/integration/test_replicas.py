"""One service on several hosts, each with a connection point of its own, and what clients see when
they come and go.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from math import sqrt

from attrs import frozen

from tests.integration.commands import WAIT, CommandTestCase, Running
from tests.integration.reliability_case import HOST, PIECE, Backend

#: Further off its expectation a fair choice is in one of 500 million runs.
SIGMAS = 6


@frozen
class Replica:
    """One of them, behind which a plain service says first where a client has come to."""

    name: str
    service: Running


class ReplicaTests(CommandTestCase):
    """Clients that know the keyword alone, and go through one forwarder."""

    timeout = 180

    def install_on(self, name: str) -> None:
        """The administrator's step for one host."""
        words = ("--service-class", self.service_class, "--host", self.lab.host(name))
        ended = self.mutauth(
            "install", *words, "--account", "svc-echo", *self.directory, user="administrator"
        )
        self.assertEqual(ended.code, 0, ended)
        self.addCleanup(self.mutauth, "uninstall", *words, *self.directory, user="administrator")

    @contextlib.contextmanager
    def replica(self, name: str, priority: int = 0, weight: int = 100) -> Iterator[Replica]:
        """A replica on one of the lab's hosts."""

        def talk(connection: socket.socket) -> None:
            connection.sendall(f"{name:8}".encode())
            while data := connection.recv(PIECE):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        backend = Backend(talk)
        self.addCleanup(backend.close)
        words = (
            *("mutauth", "--service-class", self.service_class, "--host", self.lab.host(name)),
            *("--keytab", str(self.lab.keytab("svc-echo")), *self.directory),
            *("--listen", f"tcp:0:interface={self.lab.address_of(self.lab.host(name))}"),
            *("--allow", "*@LAB.EXAMPLE", "--forward", f"tcp:{HOST}:{backend.port}"),
            *("--priority", str(priority), "--weight", str(weight)),
        )
        with self.twistd(words) as service:
            service.read_on()
            yield Replica(name, service)

    @staticmethod
    def visit(port: int) -> tuple[socket.socket, str]:
        """Come through the forwarder: the connection, and the replica it leads to."""
        client = socket.create_connection((HOST, port), WAIT)
        return client, client.recv(8, socket.MSG_WAITALL).decode().strip()

    def visits(self, port: int, count: int) -> Counter[str]:
        """Number of connections, of so many one after the other, that come to each."""
        seen: Counter[str] = Counter()
        for _ in range(count):
            client, name = self.visit(port)
            client.close()
            seen[name] += 1
        return seen

    def test_shares(self) -> None:
        """Replicas of the first priority share the clients by weight, as RFC 2782 has it; one of a
        later priority serves when all of the first are gone, and no longer than that.
        """
        for name in ("srv1", "srv2", "rogue"):
            self.install_on(name)
        with (
            self.replica("srv1", weight=300) as first,
            self.replica("rogue", priority=1),
            self.replica("srv2", weight=100) as second,
            self.forwarder(f"{self.endpoint}:cache=1") as forwarder,
        ):
            count, share = 300, 0.75
            seen = self.visits(forwarder.port, count)
            self.assertEqual(set(seen), {"srv1", "srv2"})
            spread = SIGMAS * sqrt(count * share * (1 - share))
            self.assertLess(abs(seen["srv1"] - count * share), spread, seen)
            for each in (first, second):
                each.service.process.send_signal(signal.SIGKILL)
                each.service.process.wait(WAIT)
            self.assertEqual(self.visits(forwarder.port, 20), {"rogue": 20})
            with self.replica("srv2"):
                seen = Counter()
                while not seen["srv2"]:
                    seen += self.visits(forwarder.port, 1)
                self.assertLessEqual(set(seen), {"rogue", "srv2"})
                self.assertEqual(self.visits(forwarder.port, 20), {"srv2": 20})

    def test_killed_under_load(self) -> None:
        """A replica that is killed ends its own connections and no other: its clients come again at
        once, and none of them fails, nor does any who comes for the first time.
        """
        for name in ("srv1", "srv2"):
            self.install_on(name)
        with (
            self.replica("srv1") as doomed,
            self.replica("srv2"),
            self.forwarder(self.endpoint) as forwarder,
        ):
            over = threading.Event()
            ready = threading.Barrier(13)
            stories: list[list[str]] = [[] for _ in range(12)]

            def pump(story: list[str]) -> None:
                while not over.is_set():
                    client, name = self.visit(forwarder.port)
                    story.append(name)
                    with client, contextlib.suppress(ConnectionError):
                        if len(story) == 1:
                            ready.wait(WAIT)
                        for number in range(1 << 30):
                            question = b"%032d" % number * 64
                            client.sendall(question)
                            answer = client.recv(len(question), socket.MSG_WAITALL)
                            if answer != question:
                                break
                            if over.is_set():
                                story.append("to the end")
                                break

            clients = [threading.Thread(target=pump, args=(story,)) for story in stories]
            for each in clients:
                each.start()
            ready.wait(WAIT)
            first = [story[0] for story in stories]
            doomed.service.process.send_signal(signal.SIGKILL)
            self.assertEqual(self.visits(forwarder.port, 30), {"srv2": 30})
            over.set()
            for each in clients:
                each.join(WAIT)
            self.assertEqual(
                stories,
                [
                    [name, "srv2", "to the end"] if name == "srv1" else [name, "to the end"]
                    for name in first
                ],
            )
