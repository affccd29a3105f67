"""Services and forwarders that may have few file descriptors."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import urlopen

from twisted.internet import reactor
from twisted.internet.defer import DeferredList, ensureDeferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.integration.commands import CommandTestCase, Running
from tests.integration.handshake_case import Application, one

#: At once: no more than one address may have of the few handshakes that fit.
CROWD = 4
#: What a client is told that is one too many.
FULL = "as many sessions as it can take"
#: What a client without an echo says.
ENDED = "ended by the service"
CLOCK = cast(IReactorTime, reactor)


def descriptors(running: Running) -> int:
    """Number of descriptors that a process has open."""
    return len(os.listdir(f"/proc/{running.process.pid}/fd"))


class DescriptorCase(CommandTestCase):
    """Commands with a limit of their own."""

    preloaded = False
    timeout = 120
    nofile = "256"

    def program(self, name: str) -> list[str]:  # type: ignore[override]
        """Words that start a command: with that limit."""
        return ["prlimit", f"--nofile={self.nofile}", *CommandTestCase.program(name)]


class ServiceTests(DescriptorCase):
    """``twistd mutauth`` with 256 descriptors."""

    def setUp(self) -> None:
        super().setUp()
        self.installed = self.install()
        self.clients: list[Application] = []
        self.addCleanup(self.leave)

    async def leave(self) -> None:
        """Have all clients go."""
        for client in self.clients:
            client.protected.abortConnection()
        await DeferredList([client.ended for client in self.clients])

    def endpoint_at(self, port: int, user: str) -> str:
        """Endpoint string by which a user reaches the service, without a search."""
        name = (
            f"{self.service_class}/{self.host}/CN={self.service_class},CN=srv1,"
            f"CN=Computers,{self.lab.base_dn}"
        )
        ccache = self.lab.ccache(user).replace(":", "\\:")
        return (
            f"mutauth:tcp\\:{self.lab.address_of(self.host)}\\:{port}:spn={name}:"
            f"ccache={ccache}:timeout=20"
        )

    async def come(self, port: int, user: str = "alice") -> str:
        """Connect and stay; why not, or nothing when an echo has come back.

        Of those who come at once, and are one too many, the last is told when it is authenticated
        already: it is ended.
        """
        client = Application()
        try:
            await cast(Any, clientFromString(reactor, self.endpoint_at(port, user))).connect(
                one(client)
            )
        except Exception as error:
            return str(error)
        client.protected.write(b"hello")
        answer = await client.wait_for(5)
        if answer == b"hello":
            self.clients.append(client)
            return ""
        await client.ended
        return f"{ENDED}, after {answer!r}"

    async def crowd(self, port: int, count: int) -> list[str]:
        """So many of one user, some at a time."""
        said: list[str] = []
        while len(said) < count:
            results = await DeferredList(
                [ensureDeferred(self.come(port)) for _ in range(min(CROWD, count - len(said)))]
            )
            said += [cast(str, text) for _, text in cast(Any, results)]
        return said

    @contextlib.contextmanager
    def small(self, *options: str) -> Iterator[Running]:
        """Such a service, whose log is read on."""
        with self.service(*options) as service:
            service.read_on()
            yield service

    async def test_one_client_takes_all(self) -> None:
        """A client that opens sessions without end gets those that fit and is told then; the status
        page answers, the directory is checked, and when a session ends another begins.
        """
        words = ("--status", "tcp:0:interface=127.0.0.1", "--check-interval", "1")
        with self.small(*words) as service:
            said = await self.crowd(service.port, 160)
            served = said.count("")
            lowered = re.search(r"may have 256 descriptors, .* max-connections (\d+);", service.log)
            self.assertEqual(served, int(cast(Any, lowered)[1]))
            lost = [text for text in said if text == f"{ENDED}, after b''"]
            self.assertLess(len(lost), CROWD)
            self.assertTrue(
                all(FULL in text for text in said if text and text not in lost), set(said)
            )
            self.assertIn(FULL, await self.come(service.port))  # alone, it hears why
            page = (
                next(line for line in service.lines if "status on" in line)
                .rsplit(" ", 1)[1]
                .strip()
            )
            await self.until(page, lambda health: health["sessions"] == served)
            await self.until(page, lambda health: f"all {served} are taken" in str(health["wrong"]))
            # The directory is looked at: what an administrator breaks now shows, and that it is
            # right again.
            spn = self.installed.output.partition("added SPN ")[2].partition(" to ")[0]
            for verb, shown in (("delete", True), ("add", False)):
                words = ("spn", verb, "svc-echo", spn, "--nameserver", self.lab.nameserver)
                ended = await deferToThread(self.mutauth, *words, user="administrator")
                self.assertEqual(ended.code, 0, ended)
                await self.until(
                    page, lambda health, shown=shown: (spn in str(health["wrong"])) is shown
                )
            self.clients[0].protected.loseConnection()
            await self.clients[0].ended
            await self.until(
                page, lambda health: health["sessions"] == served - 1 and health["healthy"]
            )
            self.assertEqual(await self.come(service.port), "")
        self.assertNotIn("keytab", service.log)
        self.assertNotIn("EMFILE", service.log)
        self.assertNotIn("cannot be reached", service.log)

    async def until(self, page: str, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until a service's status page says something."""
        give_up_at = time.monotonic() + 30
        while not condition(
            health := json.loads(await deferToThread(self.read, f"http://{page}/health"))
        ):
            self.assertLess(time.monotonic(), give_up_at, health)
            await deferLater(CLOCK, 0.1)

    @staticmethod
    def read(url: str) -> bytes:
        """Body at a URL, whatever its code."""
        try:
            with urlopen(url, timeout=10) as answer:
                return cast(bytes, answer.read())
        except HTTPError as error:
            return error.read()

    async def test_forward(self) -> None:
        """A session with a plain service behind it counts twice: each that is allowed is served."""
        with socket.create_server(("127.0.0.1", 0), backlog=200) as plain:
            serving = deferToThread(self.echo, plain)
            try:
                with self.small("--forward", f"tcp:127.0.0.1:{plain.getsockname()[1]}") as service:
                    said = await self.crowd(service.port, 100)
                    lowered = re.search(r"max-connections (\d+);", service.log)
                    self.assertEqual(said.count(""), int(cast(Any, lowered)[1]))
                    self.assertLessEqual(descriptors(service), 256)
                    await self.leave()
                    self.clients.clear()
                    self.assertEqual(set(await self.crowd(service.port, 20)), {""})
                self.assertNotIn("keytab", service.log)
            finally:
                plain.shutdown(socket.SHUT_RDWR)
                await serving

    @staticmethod
    def echo(plain: socket.socket) -> None:
        """Be a plain echo until the listening socket is shut down."""
        ready = selectors.DefaultSelector()
        ready.register(plain, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                connection: Any = key.fileobj
                if connection is plain:
                    try:
                        accepted, _ = plain.accept()
                    except OSError:
                        for each in list(ready.get_map().values()):
                            cast(Any, each.fileobj).close()
                        return
                    ready.register(accepted, selectors.EVENT_READ)
                    continue
                try:
                    data = connection.recv(100)
                except ConnectionError:
                    data = b""
                if data:
                    connection.send(data)
                else:
                    ready.unregister(connection)
                    connection.close()

    async def test_of_one_account(self) -> None:
        """One account gets as many sessions as it may have; another is allowed."""
        with self.small("--max-connections-per-principal", "5") as service:
            self.assertEqual((await self.crowd(service.port, 20)).count(""), 5)
            self.assertEqual(await self.come(service.port, "bob"), "")
            self.assertIn(
                "its account has 5 session(s), as many as one account may have", service.log
            )

    def test_given(self) -> None:
        """Limits that cannot be had are refused at the start, in words."""
        forward = ("--forward", "tcp:127.0.0.1:9")
        for options, cause in (
            (
                ("--max-connections", "1000"),
                "--max-connections 1000: 1066 descriptors are needed, 1 for a session",
            ),
            (
                ("--max-connections", "150", *forward),
                "--max-connections 150: 366 descriptors are needed, 2 for a session",
            ),
        ):
            line = self.refused(self.start_refused(*options), 2, cause)
            self.assertIn(
                "and this process may have 256; raise LimitNOFILE= (or ulimit -n), or lower it",
                line,
            )

    def test_soft_limit(self) -> None:
        """The soft limit is raised to the hard one."""
        self.nofile = "100:3000"
        with self.service() as service:
            limits = Path(f"/proc/{service.process.pid}/limits").read_text()
            self.assertRegex(limits, r"Max open files +3000 +3000")
        self.assertIn("may have 3000 descriptors", service.log)


class ForwarderTests(DescriptorCase):
    """``mutauth connect --listen`` with 100 descriptors, behind which nobody answers."""

    nofile = "100"

    def test_more_than_it_can_have(self) -> None:
        """It takes as many as it can, says so once, does not spin, and takes the others when the
        first are given up.
        """
        self.install()
        name = (
            f"{self.service_class}/{self.host}/CN={self.service_class},CN=srv1,"
            f"CN=Computers,{self.lab.base_dn}"
        )
        with socket.create_server(("127.0.0.1", 0), backlog=500) as silent:
            endpoint = f"mutauth:tcp\\:127.0.0.1\\:{silent.getsockname()[1]}:spn={name}:timeout=4"
            with self.forwarder(endpoint) as forwarder:
                forwarder.read_on()
                address = ("127.0.0.1", forwarder.port)
                clients = [socket.create_connection(address) for _ in range(90)]
                text = (
                    "this process has no file descriptor left for another connection, accepting "
                    "none for now"
                )
                self.await_(lambda: text in forwarder.log)
                before = self.cpu(forwarder)
                time.sleep(1)
                self.assertLess(self.cpu(forwarder) - before, 0.5)
                self.assertEqual(forwarder.log.count(text), 1)
                self.assertLess(descriptors(forwarder), 100)
                # Each is taken, and given up after its 4 seconds: one that was not taken would wait
                # on.
                for each in clients:
                    each.settimeout(30)
                    with each, contextlib.suppress(ConnectionResetError):
                        self.assertEqual(each.recv(1), b"")
                # Those that got their ticket in time, which on a busy machine not all do, had a
                # connection of their own.
                silent.settimeout(20)
                silent.accept()[0].close()

    def await_(self, condition: Any) -> None:
        """Wait until something holds."""
        until = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), until)
            time.sleep(0.05)

    @staticmethod
    def cpu(running: Running) -> float:
        """The CPU seconds that a process has used."""
        return time.clock_gettime(~running.process.pid << 3 | 2)
