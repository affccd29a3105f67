"""When servers fail, stall or are busy: the directory's, a KDC, a whole domain controller."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from mutauth_twisted import lab as laboratory
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.location import Selection, locate
from mutauth_twisted.directory.spns import find_account
from mutauth_twisted.dns import Resolver
from mutauth_twisted.errors import (
    DirectoryUnreachable,
    MutualAuthError,
)
from mutauth_twisted.lab.state import ProcessIdentity, identity_file
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.session import Change, LdapSession
from tests.integration.directory_case import DirectoryTestCase
from tests.integration.serving_case import ServingTestCase


class Proxy:
    """A TCP server on a thread in front of a domain controller, which it may cut off or stall.

    :param target: where the domain controller is; the proxy is at the same address.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server((target[0], 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self.answered = 0
        self.cut_after: int | None = None
        self.stalled = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            self._open += [client, server]
            for source, sink, is_answer in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._pump, args=(source, sink, is_answer), daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        try:
            while data := source.recv(4096):
                if self.stalled.is_set():
                    continue
                if is_answer:
                    self.answered += len(data)
                    if self.cut_after is not None and self.answered > self.cut_after:
                        break
                sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            with_shutdown(each)

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with_shutdown(each)
            each.close()


def with_shutdown(connection: socket.socket) -> None:
    """End both directions, whatever state they are in."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class FailoverTestCase(DirectoryTestCase):
    """With a proxy as the first of two servers."""

    def proxied(
        self, timeout: float = 10.0, user: str = "administrator"
    ) -> tuple[Proxy, Directory]:
        proxy = Proxy((self.lab.nameserver, 389))
        self.addCleanup(proxy.close)
        servers = [f"ldap://{self.lab.dc_host}:{proxy.port}", f"ldap://{self.lab.dc_host}"]
        return proxy, self.directory(
            servers=servers,
            timeout=timeout,
            credentials=ClientCredentials(ccache=self.lab.ccache(user)),
        )


class BrokenConnectionTests(FailoverTestCase):
    """A domain controller that goes away in the middle."""

    async def test_cut_in_the_middle_of_an_answer(self) -> None:
        """A search that was cut off is done again on the next server; nothing is missing, and
        nothing there twice.
        """
        proxy, directory = self.proxied()
        tries = 0

        def search(session: LdapSession) -> list[str]:
            nonlocal tries
            tries += 1
            proxy.cut_after = proxy.answered + 60_000
            found = session.search(
                f"CN=Schema,CN=Configuration,{self.lab.base_dn}", "(objectClass=*)", ["cn"]
            )
            return [entry.dn for entry in found]

        found = await directory.run(search)
        self.assertEqual(tries, 2)
        self.assertEqual(len(found), len(set(found)))
        self.assertGreater(len(found), 1500)

    async def test_cut_after_a_write(self) -> None:
        """A change that may have been written is not written again: the error says so, and the
        write took place once.
        """
        proxy, directory = self.proxied()
        dn = f"CN=bob,CN=Users,{self.lab.base_dn}"
        before = await self.do(
            "administrator", lambda session: session.read(dn, ["uSNChanged"]).text("uSNChanged")
        )
        tries = 0

        def write(session: LdapSession) -> None:
            nonlocal tries
            tries += 1
            session.read(dn, ["cn"])
            proxy.cut_after = (
                proxy.answered
            )  # the answer to what follows is lost, and with it the connection
            session.modify(dn, [Change("replace", "info", (str(time.time()),))])

        line = await self.failure_of(directory.run(write), DirectoryUnreachable)
        self.assertIn("the connection was lost", line)
        self.assertEqual(tries, 1)
        after = await self.do(
            "administrator", lambda session: session.read(dn, ["uSNChanged"]).text("uSNChanged")
        )
        self.assertGreater(int(after or 0), int(before or 0))

    async def test_stalled(self) -> None:
        """A server that falls silent is left after the time limit, at the login and in the middle
        of work.
        """
        proxy, directory = self.proxied(timeout=0.4)

        def search(session: LdapSession) -> str:
            proxy.stalled.set()
            return session.read(self.lab.base_dn, ["dc"]).text("dc") or ""

        began = time.monotonic()
        self.assertEqual(await directory.run(search), "lab")
        self.assertEqual(await directory.run(search), "lab")
        self.assertLess(time.monotonic() - began, 3.0)


class StuckKDCTests(DirectoryTestCase):
    """A KDC that takes connections and never answers."""

    async def test_others_go_on(self) -> None:
        """A wait for it holds up neither the reactor nor another directory."""
        with socket.create_server((self.lab.nameserver, 0)) as silent:
            config = Path(self.mktemp())
            stuck = (
                "\n[realms]\n STUCK.EXAMPLE = "
                f"{{\n kdc = {self.lab.nameserver}:{silent.getsockname()[1]}\n }}\n"
            )
            config.write_text(self.lab.krb5_conf.read_text() + stuck)
            self.set_environment("KRB5_CONFIG", str(config.absolute()))
            keytab = Path(self.mktemp()).absolute()
            keytab.write_bytes(
                self.lab.keytab("svc-echo").read_bytes().replace(b"LAB.EXAMPLE", b"BAD.EXAMPLE")
            )
            waiting = self.directory(
                realm="BAD.EXAMPLE",
                servers=[f"ldap://{self.lab.dc_host}"],
                credentials=ClientCredentials(keytab=str(keytab)),
            )
            config.write_text(config.read_text().replace("STUCK.EXAMPLE", "BAD.EXAMPLE"))
            stuck_work = waiting.run(lambda session: session.domain_dn)
            self.addCleanup(stuck_work.addErrback, lambda failure: failure.trap(MutualAuthError))
            silent.setblocking(False)
            connection = await self.accepted(silent)
            began = time.monotonic()
            for user in ("alice", "bob"):
                self.assertEqual(
                    await self.do(user, lambda session: session.domain_dn), self.lab.base_dn
                )
            self.assertLess(time.monotonic() - began, 2.0)
            self.assertFalse(stuck_work.called)
            connection.close()

    async def accepted(self, listener: socket.socket) -> socket.socket:
        """The next connection, for which the reactor does not wait either."""
        for _ in range(100):
            try:
                return listener.accept()[0]
            except BlockingIOError:
                await deferLater(reactor, 0.05)
        raise self.failureException("nobody came")


class SecondControllerTests(ServingTestCase):
    """A lab with two domain controllers, one of which dies."""

    async def test_replication_and_failover(self) -> None:
        """Entries written on one are read on the other, and everything goes on when the first is
        gone.
        """
        mine = Path(tempfile.mkdtemp(prefix="mutauth-lab-"))
        self.addCleanup(laboratory.down, mine)
        self.lab = laboratory.up(
            mine, f"127.{100 + os.getpid() % 100}.0.10", second_dc=True, owned=True
        )
        self.set_environment("KRB5_CONFIG", str(self.lab.krb5_conf))
        self.set_environment("KRB5RCACHEDIR", str(self.lab.directory / "rcache"))
        self.set_environment("KRB5CCNAME", self.lab.ccache("alice"))
        self.resolver = Resolver(reactor, self.lab.second_address)
        self._directories = {}
        found = await self.install()
        # DNS gives both domain controllers, so this one too may be the one that has yet to hear of
        # it.
        await self.eventually(lambda: self.publish(found, binding=BindingInformation(9421)))
        second = self.directory(
            servers=[f"ldap://{self.lab.host('dc2')}"],
            credentials=ClientCredentials(ccache=self.lab.ccache("alice")),
        )
        (instance,) = await self.eventually(lambda: locate(second, Selection(self.service_class)))
        self.assertEqual((instance.guid, instance.port), (found.guid, 9421))
        await self.eventually(lambda: second.run(self.knows_its_name))
        first = ProcessIdentity.read(identity_file(mine))
        assert first is not None
        os.kill(first.pid, signal.SIGKILL)
        await self.serve("srv1", 9421)
        fresh = self.directory(credentials=ClientCredentials(keytab=str(self.lab.keytab("bob"))))
        answered = await self.eventually(lambda: self.talk(self.endpoint_in(fresh)))
        self.assertEqual(answered, f"{self.lab.address_of('srv1')}:9421")
        self.assertEqual(await fresh.run(lambda session: session.server), self.lab.host("dc2"))

    def knows_its_name(self, session: LdapSession) -> None:
        """Its SPNs were registered on the first one: without them nobody gets a ticket for it once
        that is gone.
        """
        host = self.lab.host("dc2")
        if f"ldap/{host}" not in find_account(session, "dc2$").spns:
            raise MutualAuthError(host, "its SPN has not been replicated to it yet")

    async def eventually(self, attempt: Callable[[], Any]) -> Any:
        """Result of an attempt once replication has caught up."""
        give_up_at = time.monotonic() + 60
        while True:
            try:
                return await attempt()
            except MutualAuthError:
                if time.monotonic() > give_up_at:
                    raise
                await deferLater(reactor, 0.1)

    def _forget_service(self) -> Any:
        """The lab is thrown away."""
