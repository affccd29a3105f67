"""When servers fail, stall, lie or are busy: the directory's, DNS's replicas, a KDC, a whole domain
controller.
"""

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
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import deferLater

from mutauth_twisted import lab as laboratory
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.location import Selection, locate
from mutauth_twisted.directory.scp import ServiceConnectionPoint, create_scp
from mutauth_twisted.directory.spns import add_spns, find_account, remove_spns
from mutauth_twisted.dns import Resolver
from mutauth_twisted.endpoints.located import LocatedEndpoint
from mutauth_twisted.errors import (
    DirectoryUnreachable,
    MutualAuthError,
    NetworkError,
    ServiceCheckFailed,
    UsageError,
)
from mutauth_twisted.lab.state import ProcessIdentity, identity_file
from mutauth_twisted.ldap import sealing
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.dn import child_dn
from mutauth_twisted.ldap.session import Change, LdapSession
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing._ber import element, elements
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
        """What may have been written is not written again: the error says so, and the write took
        place once.
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


class HostileServerTests(DirectoryTestCase):
    """A server that has not authenticated anything."""

    def hostile(self, talk: Any) -> str:
        """A server at the domain controller's address that talks in its own way; its URL."""
        listener = socket.create_server((self.lab.nameserver, 0))
        self.addCleanup(listener.close)

        def serve() -> None:
            try:
                connection, _ = listener.accept()
                with connection:
                    self.request = connection.recv(65536)
                    talk(connection)
            except OSError:
                pass

        threading.Thread(target=serve, daemon=True).start()
        return f"ldap://{self.lab.dc_host}:{listener.getsockname()[1]}"

    async def refusal(self, talk: Any, timeout: float = 5.0) -> str:
        directory = self.directory(
            servers=[self.hostile(talk)],
            timeout=timeout,
            credentials=ClientCredentials(ccache=self.lab.ccache("alice")),
        )
        return await self.failure_of(
            directory.run(lambda session: session.domain_dn), DirectoryUnreachable
        )

    async def test_endless_answer(self) -> None:
        """An answer without end is cut off after a mebibyte."""
        sent = 0

        def flood(connection: socket.socket) -> None:
            nonlocal sent
            connection.sendall(bytes.fromhex("30847fffffff"))
            while True:
                sent += connection.send(bytes(65536))

        self.assertIn("too large", await self.refusal(flood))
        self.assertLess(sent, 16 * sealing.LOGIN_LIMIT)

    async def test_dripping_answer(self) -> None:
        """A byte now and then does not hold a thread for ever."""

        def drip(connection: socket.socket) -> None:
            connection.sendall(bytes.fromhex("3084000fffff"))
            while True:
                connection.sendall(b"\0")
                time.sleep(0.05)

        began = time.monotonic()
        line = await self.refusal(drip, timeout=0.2)
        self.assertIn("no answer in time", line)
        self.assertLess(time.monotonic() - began, 5.0)

    async def test_long_words(self) -> None:
        """What a stranger says of a refused login is cut and escaped."""

        def talk(connection: socket.socket) -> None:
            number = elements(elements(self.request)[0][1])[0][1]
            words = element(0x04, b"\x1b[31mno\n" + b"x" * 500_000)
            refusal = element(0x61, element(0x0A, b"\x31"), element(0x04), words)
            connection.sendall(element(0x30, element(0x02, number), refusal))

        line = await self.refusal(talk)
        self.assertIn("it refused the login: invalidCredentials \\x1b[31mno", line)
        self.assertLess(len(line), 600)

    async def test_garbage(self) -> None:
        """What is not LDAP is refused with one line."""
        for answer in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            bytes(100),
            b"\x30\x03\x02\x01\x01",
            b"\xff" * 64,
            b"",
        ):
            line = await self.refusal(
                lambda connection, answer=answer: connection.sendall(answer), timeout=1.0
            )
            self.assertIn(self.lab.dc_host, line)


class TLSTests(DirectoryTestCase):
    """LDAPS, with the lab's own authority."""

    def secured(self, *hosts: str, ca_file: str | None = None, user: str = "alice") -> Directory:
        return self.directory(
            servers=[f"ldaps://{host}" for host in hosts],
            ca_file=ca_file or str(self.lab.ca_file),
            credentials=ClientCredentials(ccache=self.lab.ccache(user)),
        )

    async def test_search_and_write(self) -> None:
        """Everything works inside TLS, on a domain controller and on a global catalog."""
        found = await self.install()
        await self.publish(found)
        directory = self.secured(self.lab.dc_host, user="administrator")
        (instance,) = await locate(directory, Selection(self.service_class))
        self.assertEqual((instance.guid, instance.port), (found.guid, 9000))
        change = [Change("replace", "description", ("over TLS",))]
        await directory.run(lambda session: session.modify(found.guid, change))
        whole = await directory.run(
            lambda session: sum(
                1 for _ in session.search("", "(objectClass=*)", ["*"], page_size=5000)
            ),
            global_catalog=True,
        )
        self.assertGreater(whole, 2000)

    async def test_name_not_in_the_certificate(self) -> None:
        """A certificate of the right authority is no good for another name."""
        line = await self.failure_of(
            self.secured(self.lab.realm.lower()).run(lambda session: None), DirectoryUnreachable
        )
        self.assertIn("its certificate is not for this name", line)

    async def test_another_authority(self) -> None:
        """A certificate that another authority signed is refused."""
        other = self.lab.directory / "tls" / "dc1.pem"
        line = await self.failure_of(
            self.secured(self.lab.dc_host, ca_file=str(other)).run(lambda session: None),
            DirectoryUnreachable,
        )
        self.assertIn("its certificate is not one of CA file", line)

    async def test_no_tls_there(self) -> None:
        """A port that speaks plain LDAP is not spoken to."""
        line = await self.failure_of(
            self.secured(f"{self.lab.dc_host}:389").run(lambda session: None), DirectoryUnreachable
        )
        self.assertIn(self.lab.dc_host, line)

    def test_what_has_to_be_said(self) -> None:
        """TLS without an authority, an authority without TLS, and a file that is invalid."""
        junk = Path(self.mktemp())
        junk.write_text("junk")
        for servers, ca_file, words in (
            (["ldaps://dc1.lab.example"], None, "no certificate authority is named"),
            (["ldap://dc1.lab.example"], str(self.lab.ca_file), "no directory server uses TLS"),
            (["ldaps://dc1.lab.example"], str(junk), "no certificates in PEM form"),
            (["ldaps://dc1.lab.example"], "/nowhere/ca.pem", "no such file"),
        ):
            error = self.assertRaises(UsageError, self.directory, servers=servers, ca_file=ca_file)
            self.assertIn(words, str(error))

    def test_through_the_strings(self) -> None:
        """An endpoint string takes the authority as ca=."""
        text = f"mutauth:scp=x:directory=ldaps\\://{self.lab.dc_host}:ca={self.lab.ca_file}"
        clientFromString(reactor, text)
        self.assertRaises(UsageError, clientFromString, reactor, text.partition(":ca=")[0])


class StuckKDCTests(DirectoryTestCase):
    """A KDC that takes connections and never answers."""

    async def test_others_go_on(self) -> None:
        """Whoever waits for it holds up neither the reactor nor another directory."""
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


class ReplicaTests(ServingTestCase):
    """One connection point whose hosts are in DNS: _echo._tcp, srv1 before srv2."""

    name = "_echo._tcp.lab.example"

    async def installed(self, hosts: tuple[str, ...] = ("srv1", "srv2")) -> ServiceConnectionPoint:
        """An SCP of the SRV kind, with the SPNs of its hosts on svc-echo."""

        def work(session: LdapSession) -> ServiceConnectionPoint:
            point = create_scp(
                session,
                child_dn(self.service_class, f"CN=srv1,CN=Computers,{self.lab.base_dn}"),
                service_class=self.service_class,
                dns_name=self.name,
                dns_name_type="SRV",
                keywords=[self.service_class],
            )
            add_spns(session, find_account(session, "svc-echo"), self.spns(point, hosts))
            return point

        return await self.do("administrator", work)

    async def test_by_priority_then_the_next(self) -> None:
        """The first in DNS is taken; when it is down, and when it is an impostor, the next one."""
        await self.installed()
        instances = await locate(self.as_user("alice"), Selection(self.service_class))
        places = [(each.host, each.port) for each in instances]
        self.assertEqual(places, [("srv1.lab.example", 9401), ("srv2.lab.example", 9402)])
        first, second = await self.serve("srv1", 9401), await self.serve("srv2", 9402)
        self.assertEqual(await self.talk(self.endpoint()), f"{self.lab.address_of('srv1')}:9401")
        await first.stopListening()
        self.assertEqual(await self.talk(self.endpoint()), f"{self.lab.address_of('srv2')}:9402")
        await self.serve("srv1", 9401, keytab="rogue")
        self.assertEqual(await self.talk(self.endpoint()), f"{self.lab.address_of('srv2')}:9402")
        await second.stopListening()
        line = await self.failure_of(self.talk(self.endpoint()), MutualAuthError)
        self.assertIn("none of its 2 instances could be used", line)

    async def test_a_host_that_only_dns_vouches_for(self) -> None:
        """A replica without an SPN is left out, whatever DNS says."""
        await self.installed(("srv2",))
        (instance,) = await locate(self.as_user("alice"), Selection(self.service_class))
        self.assertEqual(instance.host, "srv2.lab.example")

    async def test_no_such_record(self) -> None:
        """A name that DNS does not have is named."""
        point = await self.installed()
        change = [Change("replace", "serviceDNSName", ("_none._tcp.lab.example",))]
        await self.do("administrator", lambda session: session.modify(point.guid, change))
        line = await self.failure_of(self.talk(self.endpoint()), MutualAuthError)
        self.assertIn("_none._tcp.lab.example", line)

    async def test_spoilt_records_of_another(self) -> None:
        """A rogue computer with the same keyword, whose DNS records lead nowhere, keeps nobody from
        the service.
        """
        found = await self.install()
        await self.serve("srv1", 9415)
        await self.publish(found, binding=BindingInformation(9415))
        dn = child_dn(self.service_class, f"CN=rogue,CN=Computers,{self.lab.base_dn}")

        def rogue(session: LdapSession) -> None:
            create_scp(
                session,
                dn,
                service_class=self.service_class,
                dns_name="_x._tcp.nowhere.invalid",
                dns_name_type="SRV",
                keywords=[self.service_class],
            )

        await self.do("rogue", rogue)
        self.assertEqual(await self.talk(self.endpoint()), f"{self.lab.address_of('srv1')}:9415")

    async def test_records_that_nobody_vouches_for(self) -> None:
        """A rogue computer that publishes many SRV records has no client ask DNS for one of
        them.
        """
        point = await self.installed()
        await self.serve("srv1", 9401)
        container = f"CN=rogue,CN=Computers,{self.lab.base_dn}"

        def rogue(session: LdapSession) -> None:
            for number in range(60):
                create_scp(
                    session,
                    child_dn(f"{self.service_class}*{number}", container),
                    service_class=self.service_class,
                    dns_name=f"_x{number}._tcp.nowhere.invalid",
                    dns_name_type="SRV",
                    keywords=[self.service_class],
                )

        await self.do("rogue", rogue)
        asked: list[str] = []
        lookup = self.resolver.lookup_srv

        def noted(name: str) -> Any:
            asked.append(name)
            return lookup(name)

        self.patch(self.resolver, "lookup_srv", noted)
        self.assertEqual(await self.talk(self.endpoint()), f"{self.lab.address_of('srv1')}:9401")
        self.assertEqual(
            [name for name in asked if "_msdcs" not in name and "_gc" not in name], [self.name]
        )
        gone = self.spns(point)
        await self.do(
            "administrator",
            lambda session: remove_spns(session, find_account(session, "svc-echo"), gone),
        )
        line = await self.failure_of(
            locate(self.as_user("alice"), Selection(self.service_class)), ServiceCheckFailed
        )
        self.assertIn(
            f"no account holds an SPN of class {self.service_class} that vouches for it", line
        )

    def spns(
        self, point: ServiceConnectionPoint, hosts: tuple[str, ...] = ("srv1", "srv2")
    ) -> list[SPN]:
        return [point.spn("dn", self.lab.host(host)) for host in hosts]

    async def test_silent_instance(self) -> None:
        """An instance that accepts and says nothing uses up its own share of the time, and not that
        of the next.
        """
        await self.installed()
        with socket.create_server((self.lab.address_of("srv1"), 9401)):
            await self.serve("srv2", 9402)
            endpoint = LocatedEndpoint(
                reactor,
                self.as_user("alice"),
                Selection(self.service_class),
                ClientCredentials(ccache=self.lab.ccache("alice")),
                security=SecurityOptions(timeout=2.0),
            )
            self.assertEqual(await self.talk(endpoint), f"{self.lab.address_of('srv2')}:9402")

    async def test_found_a_moment_ago(self) -> None:
        """What was found is used again without a search, until a connection fails; then it is
        looked for anew.
        """
        found = await self.install()
        service = await self.serve("srv1", 9411)
        await self.publish(found, binding=BindingInformation(9411))
        endpoint = self.endpoint()
        first = await self.talk(endpoint)
        await self.publish(found, binding=BindingInformation(9412))
        self.assertEqual(await self.talk(endpoint), first)
        await service.stopListening()
        await self.serve("srv1", 9412)
        self.assertEqual(await self.talk(endpoint), f"{self.lab.address_of('srv1')}:9412")

    async def test_found_anew_and_still_gone(self) -> None:
        """When nothing has changed, the failure is the connection's."""
        found = await self.install()
        service = await self.serve("srv1", 9413)
        await self.publish(found, binding=BindingInformation(9413))
        endpoint = self.endpoint()
        await self.talk(endpoint)
        await service.stopListening()
        line = await self.failure_of(self.talk(endpoint), NetworkError)
        self.assertIn("srv1.lab.example:9413", line)


class SecondControllerTests(ServingTestCase):
    """A lab with two domain controllers, one of which dies."""

    async def test_replication_and_failover(self) -> None:
        """What is written on one is read on the other, and everything goes on when the first is
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
        """What an attempt gives once replication has caught up."""
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
