"""Instances that a client found in the directory are kept for a while: how often it searches, and
when it searches again.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.protocol import Factory, Protocol

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.location import Selection
from mutauth_twisted.directory.scp import update_binding
from mutauth_twisted.directory.spns import add_spns, find_account, remove_spns
from mutauth_twisted.endpoints import located
from mutauth_twisted.endpoints.located import LocatedEndpoint
from mutauth_twisted.errors import MutualAuthError, PeerRefused
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.spn import SPN
from tests.integration.commands import WAIT, CommandTestCase
from tests.integration.serving_case import ServingTestCase


class Stranger(Protocol):
    """Speaks another protocol."""

    def connectionMade(self) -> None:
        self.transport.write(b"SSH-2.0-OpenSSH_9.2\r\n")  # type: ignore[union-attr]


class SearchTests(ServingTestCase):
    """Number of times that one endpoint asks the directory."""

    def setUp(self) -> None:
        super().setUp()
        self.searches = 0
        search = located.locate

        def counted(*args: Any, **options: Any) -> Deferred[Any]:
            self.searches += 1
            return search(*args, **options)

        self.patch(located, "locate", counted)

    def kept(self, seconds: float) -> LocatedEndpoint:
        credentials = ClientCredentials(ccache=self.lab.ccache("alice"))
        return LocatedEndpoint(
            reactor, self.as_user("alice"), Selection(self.service_class), credentials, keep=seconds
        )

    async def test_one_search_for_all(self) -> None:
        """Those that start together share one; those that follow use what it found."""
        found = await self.install()
        await self.serve("srv1", 9431)
        await self.publish(found, binding=BindingInformation(9431))
        endpoint = self.endpoint()
        for _ in range(3):
            answers = await gatherResults(
                [Deferred.fromCoroutine(self.talk(endpoint)) for _ in range(20)]
            )
            self.assertEqual(set(answers), {f"{self.lab.address_of('srv1')}:9431"})
        self.assertEqual(self.searches, 1)

    async def test_not_kept(self) -> None:
        """With cache=0 each connection asks, and goes where the service is now; with the default it
        stays.
        """
        found = await self.install()
        endpoints = {keep: self.kept(keep) for keep in (0.0, 60.0)}
        places: dict[float, list[str]] = {keep: [] for keep in endpoints}
        for port in (9432, 9433):
            await self.serve("srv1", port)
            await self.publish(found, binding=BindingInformation(port))
            for keep, endpoint in endpoints.items():
                places[keep].append((await self.talk(endpoint)).rpartition(":")[2])
        self.assertEqual(places, {0.0: ["9432", "9433"], 60.0: ["9432", "9432"]})
        self.assertEqual(self.searches, 3)

    async def test_weights_count_for_each_connection(self) -> None:
        """Instances of one priority take turns by their weights, and one of a later priority has
        none, after one search.
        """
        first = await self.install()
        hosts = {"srv2": (9435, 0), "rogue": (9436, 1)}
        await self.serve("srv1", 9434)
        await self.publish(first, binding=BindingInformation(9434))
        for name, (port, priority) in hosts.items():
            place = {
                "host": self.lab.host(name),
                "scp_parent": f"CN={name},CN=Computers,{self.lab.base_dn}",
            }
            found = await self.install(**place)
            await self.serve(name, port)
            await self.publish(
                found, binding=BindingInformation(port, priority=priority), host=place["host"]
            )
        endpoint = self.endpoint()
        ports = [(await self.talk(endpoint)).rpartition(":")[2] for _ in range(40)]
        self.assertEqual(set(ports), {"9434", "9435"})
        self.assertEqual(self.searches, 1)

    async def test_what_a_moved_service_would_cause(self) -> None:
        """A port where nobody, another protocol, or another account's service is, and an SPN that
        is gone: found again.
        """
        found = await self.install(spn_forms=["guid", "dn"])

        async def nobody(port: int) -> None:
            """Nothing listens there any more."""

        async def stranger(port: int) -> None:
            address = self.lab.address_of("srv1")
            other = reactor.listenTCP(port, Factory.forProtocol(Stranger), interface=address)  # type: ignore[attr-defined]
            self.addCleanup(other.stopListening)

        async def other_account(port: int) -> None:
            await self.serve("srv1", port, keytab="svc-other")

        for number, successor in enumerate((nobody, stranger, other_account)):
            old, new = 9440 + 2 * number, 9441 + 2 * number
            service = await self.serve("srv1", old)
            await self.publish(found, binding=BindingInformation(old))
            endpoint = self.endpoint()
            await self.talk(endpoint)
            await service.stopListening()
            await successor(old)
            await self.serve("srv1", new)
            await self.publish(found, binding=BindingInformation(new))
            before = self.searches
            answers = await gatherResults(
                [Deferred.fromCoroutine(self.talk(endpoint)) for _ in range(10)]
            )
            self.assertEqual(
                set(answers), {f"{self.lab.address_of('srv1')}:{new}"}, successor.__name__
            )
            self.assertEqual(self.searches, before + 1, successor.__name__)

    async def test_an_address_that_has_changed(self) -> None:
        """A host's addresses are looked up once for many connections, and anew when a connection
        fails.
        """
        found = await self.install()
        service = await self.serve("srv1", 9453)
        await self.publish(found, binding=BindingInformation(9453))
        resolver = self.resolver
        lookup, where, asked = resolver.lookup_addresses, self.lab.address_of("srv1"), [""]

        def answer(host: str) -> Deferred[list[str]]:
            if host != self.host:
                return lookup(host)
            asked.append(where)
            return succeed([where])

        self.patch(resolver, "lookup_addresses", answer)
        endpoint = self.endpoint()
        for _ in range(5):
            self.assertEqual(await self.talk(endpoint), f"{where}:9453")
        self.assertEqual(len(asked), 2)
        await service.stopListening()
        where = self.lab.address_of("srv2")
        await self.serve("srv2", 9453)
        for _ in range(5):
            self.assertEqual(await self.talk(endpoint), f"{where}:9453")
        self.assertEqual(asked[-2:], [self.lab.address_of("srv1"), where])
        self.assertEqual(self.searches, 2)

    async def test_an_spn_that_is_gone(self) -> None:
        """A KDC that does not know the SPN any more has the directory asked for the one that there
        is now.
        """
        found = await self.install()
        await self.serve("srv1", 9450)
        await self.publish(found, binding=BindingInformation(9450, spn_form="dn"))
        endpoint = self.endpoint()
        moved = SPN(self.service_class, self.host, found.dn)
        instances = await located.locate(self.as_user("alice"), Selection(self.service_class))
        self.assertEqual(instances[0].spn, moved)

        def rename(session: LdapSession) -> None:
            remove_spns(session, find_account(session, "svc-echo"), [moved])

        # Kept from before; no ticket was fetched for it.
        known = await endpoint._locations.find()
        self.assertEqual(known.items[0].spn, moved)
        await self.do("administrator", rename)
        guid_form = BindingInformation(9450, spn_form="guid")
        await self.do(
            "svc-echo", lambda session: update_binding(session, found.scp, self.host, guid_form)
        )
        self.assertEqual(await self.talk(endpoint), f"{self.lab.address_of('srv1')}:9450")
        await self.do(
            "administrator",
            lambda session: add_spns(session, find_account(session, "svc-echo"), [moved]),
        )

    async def test_a_refusal_is_no_move(self) -> None:
        """A service that does not allow this client is the right one: it is not looked for
        again.
        """
        found = await self.install()
        await self.serve("srv1", 9451, access="allow=bob@LAB.EXAMPLE")
        await self.publish(found, binding=BindingInformation(9451))
        endpoint = self.endpoint()
        for _ in range(3):
            await self.failure_of(self.talk(endpoint), PeerRefused)
        self.assertEqual(self.searches, 1)

    async def test_a_service_that_is_down(self) -> None:
        """Connections that fail together ask once, whether they or others found it."""
        found = await self.install()
        service = await self.serve("srv1", 9452)
        await self.publish(found, binding=BindingInformation(9452))
        endpoint = self.endpoint()
        await self.talk(endpoint)
        await service.stopListening()
        for _ in range(2):
            failing = [
                Deferred.fromCoroutine(self.failure_of(self.talk(endpoint), MutualAuthError))
                for _ in range(50)
            ]
            lines = await gatherResults(failing)
            self.assertEqual(len([line for line in lines if "srv1.lab.example:9452" in line]), 50)
        self.assertLessEqual(self.searches, 3)


class ForwarderTests(CommandTestCase):
    """The real ``mutauth connect --listen``."""

    def test_500_connections(self) -> None:
        """They cost at most 10 searches, and all are served."""
        self.install()
        forward = ("connect", "-v", self.endpoint, "--listen", "tcp:0:interface=127.0.0.1")
        with (
            self.logging([*self.program("twistd"), *self.service_words()], "serving .* on "),
            self.logging([*self.program("mutauth"), *forward], "listening on ") as (port, log),
        ):
            for _ in range(20):
                self.assertEqual(self.ask(port, 25), 25)
        said = log.read_text()
        self.assertEqual(said.count("authenticated as"), 500)
        searches = said.count(f"found CN={self.service_class},")
        self.assertTrue(1 <= searches <= 10, searches)

    @contextlib.contextmanager
    def logging(self, words: list[str], sign: str) -> Iterator[tuple[int, Path]]:
        """A command whose output goes into a file; gives the port that it names with this sign, and
        the file.
        """
        log = Path(self.state) / f"{sign.partition(' ')[0]}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                words,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment("alice"),
                cwd=self.state,
            )
            try:
                give_up_at = time.monotonic() + WAIT
                while (named := re.search(sign + r"[0-9.]+:([0-9]+)\n", log.read_text())) is None:
                    self.assertTrue(
                        process.poll() is None and time.monotonic() < give_up_at, log.read_text()
                    )
                    time.sleep(0.05)
                yield int(named[1]), log
            finally:
                process.terminate()
                process.wait(WAIT)

    def ask(self, port: int, count: int) -> int:
        """Number of answers that so many connections at once get."""
        answered = 0
        with contextlib.ExitStack() as stack:
            opened = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), WAIT))
                for _ in range(count)
            ]
            for each in opened:
                each.sendall(b"hello")
                each.shutdown(socket.SHUT_WR)
            for each in opened:
                with contextlib.suppress(ConnectionResetError):
                    answered += each.recv(16) == b"hello"
        return answered
