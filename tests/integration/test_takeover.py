"""Attacks on what clients find: a host that poses as another service, and DNS that names another host."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import succeed
from twisted.names import client, dns, server

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.connection import Directory
from mutauth_twisted.directory.location import Selection, locate
from mutauth_twisted.directory.names import child_dn, parent_of
from mutauth_twisted.directory.scp import ServiceConnectionPoint, create_scp, delete_scp, read_scp, update_binding
from mutauth_twisted.directory.session import Session
from mutauth_twisted.directory.spns import add_spns, find_account
from mutauth_twisted.dns import Resolver
from mutauth_twisted.errors import MutualAuthError, UsageError
from mutauth_twisted.spn import SPN
from tests.integration.commands import CommandTestCase
from tests.integration.directory_case import DirectoryTestCase


class KeywordTests(CommandTestCase):
    """A host with an installed service of its own, which makes its SCP anew with the keyword of another one."""

    def setUp(self) -> None:
        super().setUp()
        self.menu = "menu" + self.service_class
        self.rogue = self.lab.host("rogue")
        self.theirs = ("--service-class", self.menu, "--host", self.rogue)

    def as_rogue(self) -> Directory:
        """The directory with the ticket of the rogue's computer account, which is all that it has."""
        credentials = ClientCredentials(ccache=self.lab.ccache("rogue"))
        rogue = Directory(reactor, resolver=Resolver(reactor, self.lab.nameserver), credentials=credentials)
        self.addCleanup(rogue.close)
        return rogue

    def uninstall_menu(self) -> None:
        ended = self.mutauth("uninstall", *self.theirs, *self.directory, user="administrator")
        self.assertEqual(ended.code, 0, ended)

    def recreate(self, session: Session, dn: str, port: int, service_class: str) -> None:
        """Delete the SCP that an administrator made, and make one at the same DN that draws all clients."""
        before = read_scp(session, dn)
        delete_scp(session, before)
        keywords = [self.service_class, self.menu]
        point = create_scp(session, dn, service_class=service_class, dns_name=self.rogue, keywords=keywords)
        assert (point.dn, point.guid == before.guid) == (before.dn, False)
        update_binding(session, point, self.rogue, BindingInformation(port, weight=65535))

    async def test_an_scp_made_anew(self) -> None:
        """No client of the keyword reaches it, whatever class it says it is of; the honest service still serves."""
        self.install()
        self.addCleanup(self.uninstall_menu)
        words = ("install", *self.theirs, "--account", "rogue$", *self.directory)
        installed = self.mutauth(*words, user="administrator")
        self.assertEqual(installed.code, 0, installed)
        dn = installed.output.partition("created SCP ")[2].partition(" (GUID")[0]
        self.assertEqual(parent_of(dn), f"CN=rogue,CN=Computers,{self.lab.base_dn}")
        listen = f"tcp:0:interface={self.lab.address_of('rogue')}"
        keytab = str(self.lab.keytab("rogue"))
        words = ("mutauth", *self.theirs, "--keytab", keytab, "--listen", listen, "--allow-all", "--echo", *self.directory)
        by_keyword = f"mutauth:keyword={self.service_class}:class={self.service_class}:nameserver={self.lab.nameserver}"
        rogue = self.as_rogue()
        with self.twistd((*words, "--publish", "none", "--spn-check", "off")) as attacker, self.service() as honest:
            for service_class in (self.menu, self.service_class):
                await rogue.run(
                    lambda session, name=service_class: self.recreate(session, dn, attacker.port, name)  # type: ignore[misc]
                )
                for endpoint in (self.endpoint, by_keyword):
                    connected = self.mutauth("connect", "-v", endpoint, given="hello\n")
                    self.assertEqual((connected.code, connected.output), (0, "hello\n"), connected)
                    self.assertIn(f"to be {self.service_class}/{self.host}/", connected.errors)
            # It does serve what an administrator let it serve.
            mine = f"mutauth:scp={dn}:class={self.menu}:nameserver={self.lab.nameserver}"
            await rogue.run(lambda session: self.recreate(session, dn, attacker.port, self.menu))
            self.assertEqual(self.mutauth("connect", mine, given="menu\n", user="bob").output, "menu\n")
            self.assertEqual(honest.stop(), -15)
            self.refused(self.mutauth("connect", self.endpoint, given="hello\n"), 1)
            attacker.stop()
        self.assertNotIn("alice", attacker.log)
        self.assertIn("bob", attacker.log)
        self.assertEqual(honest.log.count("alice@LAB.EXAMPLE"), 4)

    def test_install_says_what_clients_write(self) -> None:
        """Where no keyword is the class, clients have to name it: install says so, and find and show as well."""
        installed = self.install("--keyword", "product:one")
        string = f"mutauth:keyword=product\\:one:class={self.service_class}"
        self.assertIn(f"clients connect with {string}\n", installed.output)
        self.assertIn(f"clients need class={self.service_class}", installed.errors)
        again = self.install("--keyword", self.service_class)
        self.assertIn(f"clients connect with mutauth:scp={self.service_class} or {string}\n", again.output)
        self.assertNotIn("class=", again.errors)
        dn = installed.output.partition("created SCP ")[2].partition(" (GUID")[0]
        shown = self.mutauth("scp", "show", dn, *self.directory[:2])
        self.assertIn(f"mutauth:scp={self.service_class}\n", shown.output)
        self.assertIn(string, shown.output)
        for name, code in ((self.service_class, 0), ("other", 1)):
            found = self.mutauth("scp", "find", "product:one", "--service-class", name, *self.directory[:2])
            self.assertEqual((found.code, dn in found.output), (code, code == 0), found)

    def test_no_class(self) -> None:
        """What is no service class is refused by every command, before anything is asked."""
        for name in ("*", ")(cn=*"):
            common = ("--service-class", name, "--host", self.host)
            for command, words in (
                ("mutauth", ("install", *common, "--account", "svc-echo", *self.directory)),
                ("mutauth", ("uninstall", *common, *self.directory)),
                ("mutauth", ("rnr", "publish", "x", *common, *self.directory[:2])),
                ("mutauth", ("spn", "add", "svc-echo", f"{name}/{self.host}", *self.directory[:2])),
                ("mutauth", ("connect", f"mutauth:scp={name}")),
                ("mutauth", ("connect", f"mutauth:scp=x:class={name}")),
                ("mutauth", ("connect", f"mutauth:keyword=x:class={name}")),
                ("mutauth", ("connect", f"mutauth:tcp\\:a\\:1:spn={name}/a")),
                ("twistd", ("mutauth", *common, "--echo", "--allow-all", *self.directory)),
            ):
                ended = self.command(command, *words, user="administrator")
                self.refused(ended, 2, "valid service class")
        self.refused(self.mutauth("connect", "mutauth:keyword=x"), 2, "class=CLASS")


class _Liar:
    """Answers for one SRV name with a host of its choice, and asks the lab for the rest."""

    def __init__(self, name: str, host: str, port: int, address: str) -> None:
        self._name = name
        self._record = dns.Record_SRV(1, 65535, port, host)
        self._honest = client.Resolver(servers=[(address, 53)])

    def query(self, query: Any, timeout: Any = None) -> Any:
        if str(query.name).casefold() == self._name.casefold():
            return succeed(([dns.RRHeader(self._name, dns.SRV, ttl=60, payload=self._record)], [], []))
        return self._honest.query(query, timeout)


class SrvTests(DirectoryTestCase):
    """An attacker who answers DNS, and has a computer account with an SPN of two parts."""

    record = "_echo._tcp.lab.example"

    async def srv_point(self) -> ServiceConnectionPoint:
        """The SRV-type SCP of the honest replicas, with their SPNs."""

        def work(session: Session) -> ServiceConnectionPoint:
            dn = child_dn(self.service_class, f"CN=srv1,CN=Computers,{self.lab.base_dn}")
            keywords = [self.service_class]
            point = create_scp(
                session, dn, service_class=self.service_class, dns_name=self.record, dns_name_type="SRV", keywords=keywords
            )
            add_spns(session, find_account(session, "svc-echo"), [point.spn("dn", self.host)])
            return point

        return await self.do("administrator", work)

    async def test_two_parts_of_whatever_dns_says(self) -> None:
        """The rogue's own SPN is never asked for: not pinned, not by keyword, and not when the SCP itself says so."""
        point = await self.srv_point()
        rogue = self.lab.host("rogue")
        two_parts = SPN(self.service_class, rogue)
        await self.do("rogue", lambda session: add_spns(session, find_account(session, "rogue$"), [two_parts]))
        address = self.lab.address_of("rogue")
        liar = _Liar(self.record, rogue, 666, self.lab.nameserver)
        port = reactor.listenTCP(0, server.DNSServerFactory(clients=[liar]), interface=address)  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        deceived = Directory(
            reactor,
            servers=[f"ldap://{self.lab.dc_host}"],
            resolver=Resolver(reactor, f"{address}:{port.getHost().port}"),
            credentials=ClientCredentials(ccache=self.lab.ccache("alice")),
        )
        self.addCleanup(deceived.close)
        for selector in (point.dn, str(point.guid)):
            selection = Selection(selector, self.service_class, spn_form="host")
            line = await self.failure_of(locate(deceived, selection), UsageError)
            self.assertIn("its hosts come from DNS (_echo._tcp.lab.example)", line)
            self.assertIn("name the hosts to be believed with hosts", line)
            named = Selection(selector, self.service_class, spn_form="host", hosts="srv*.lab.example")
            await self.failure_of(locate(deceived, named), MutualAuthError)
        self.assertRaises(UsageError, Selection, self.service_class, spn_form="host")
        advertised = BindingInformation(666, spn_form="host")
        await self.do("administrator", lambda session: update_binding(session, point, self.record, advertised))
        (instance,) = await locate(deceived, Selection(point.dn))
        self.assertEqual((instance.host, instance.spn), (rogue, SPN(self.service_class, rogue, point.dn)))
        await self.failure_of(locate(deceived, Selection(self.service_class)), MutualAuthError)
        # With the lab's own DNS, and hosts that the client names, two parts may be asked for.
        named = Selection(point.dn, spn_form="host", hosts="srv1.lab.example")
        (instance,) = await locate(self.as_user("alice"), named)
        self.assertEqual(instance.spn, SPN(self.service_class, self.host))
