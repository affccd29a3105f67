"""Attacks on what clients find: a host that poses as another service, and DNS that names another
host.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.names import client, dns, server

from mutauth_twisted.admin import scpadmin
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.location import Instance, Selection, locate
from mutauth_twisted.directory.scp import (
    ServiceConnectionPoint,
    create_scp,
    delete_scp,
    list_scps,
    read_scp,
    update_binding,
)
from mutauth_twisted.directory.spns import add_spns, find_account, remove_spns
from mutauth_twisted.errors import MutualAuthError, ServiceCheckFailed, UsageError
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.dn import child_dn, parent_of
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.session import Change, LdapSession
from mutauth_twisted.spn import SPN
from tests.integration.commands import WAIT, CommandTestCase, Running
from tests.integration.directory_case import DirectoryTestCase
from tests.integration.rogue import RogueDNS


class TakeoverCase(CommandTestCase):
    """With the directory as any of the lab's accounts."""

    def as_user(self, name: str) -> Directory:
        """The directory with the ticket of one account, which is all that it has."""
        credentials = ClientCredentials(ccache=self.lab.ccache(name))
        directory = Directory(
            reactor, DirectoryOptions(nameserver=self.lab.nameserver), credentials=credentials
        )
        self.addCleanup(directory.close)
        return directory


class KeywordTests(TakeoverCase):
    """A host with an installed service of its own, which makes its SCP anew with the keyword of
    another one.
    """

    def setUp(self) -> None:
        super().setUp()
        self.menu = "menu" + self.service_class
        self.rogue = self.lab.host("rogue")
        self.theirs = ("--service-class", self.menu, "--host", self.rogue)

    def uninstall_menu(self) -> None:
        ended = self.mutauth("uninstall", *self.theirs, *self.directory, user="administrator")
        self.assertEqual(ended.code, 0, ended)

    def recreate(self, session: LdapSession, dn: str, port: int, service_class: str) -> None:
        """Delete the SCP that an administrator made, and make one at the same DN that draws all
        clients.
        """
        before = read_scp(session, dn)
        delete_scp(session, before)
        keywords = [self.service_class, self.menu]
        point = create_scp(
            session, dn, service_class=service_class, dns_name=self.rogue, keywords=keywords
        )
        assert (point.dn, point.guid == before.guid) == (before.dn, False)
        update_binding(session, point, self.rogue, BindingInformation(port, weight=65535))

    async def test_an_scp_made_anew(self) -> None:
        """No client of the keyword reaches it, whatever class it says it is of; the honest service
        still serves.
        """
        self.install()
        self.addCleanup(self.uninstall_menu)
        words = ("install", *self.theirs, "--account", "rogue$", *self.directory)
        installed = self.mutauth(*words, user="administrator")
        self.assertEqual(installed.code, 0, installed)
        dn = installed.output.partition("created SCP ")[2].partition(" (GUID")[0]
        self.assertEqual(parent_of(dn), f"CN=rogue,CN=Computers,{self.lab.base_dn}")
        listen = f"tcp:0:interface={self.lab.address_of('rogue')}"
        keytab = str(self.lab.keytab("rogue"))
        words = (
            "mutauth",
            *self.theirs,
            "--keytab",
            keytab,
            "--listen",
            listen,
            "--allow-all",
            "--echo",
            *self.directory,
        )
        by_keyword = (
            f"mutauth:keyword={self.service_class}:class={self.service_class}:"
            f"nameserver={self.lab.nameserver}"
        )
        rogue = self.as_user("rogue")
        with (
            self.twistd((*words, "--publish", "none", "--spn-check", "off")) as attacker,
            self.service() as honest,
        ):
            for service_class in (self.menu, self.service_class):
                await rogue.run(
                    lambda session, name=service_class: self.recreate(
                        session, dn, attacker.port, name
                    )  # type: ignore[misc]
                )
                for endpoint in (self.endpoint, by_keyword):
                    connected = self.mutauth("connect", "-v", endpoint, given="hello\n")
                    self.assertEqual((connected.code, connected.output), (0, "hello\n"), connected)
                    self.assertIn(
                        f"authenticated as {self.service_class}/{self.host}/", connected.errors
                    )
            # It does serve what an administrator let it serve.
            mine = f"mutauth:scp={dn}:class={self.menu}:nameserver={self.lab.nameserver}"
            await rogue.run(lambda session: self.recreate(session, dn, attacker.port, self.menu))
            self.assertEqual(
                self.mutauth("connect", mine, given="menu\n", user="bob").output, "menu\n"
            )
            self.assertEqual(honest.stop(), 0)
            self.refused(self.mutauth("connect", self.endpoint, given="hello\n"), 1)
            attacker.stop()
        self.assertNotIn("alice", attacker.log)
        self.assertIn("bob", attacker.log)
        self.assertEqual(honest.log.count("alice@LAB.EXAMPLE"), 4)

    def test_install_says_what_clients_write(self) -> None:
        """Where no keyword is the class, clients have to name it: install says so, and find and
        show as well.
        """
        installed = self.install("--keyword", "product:one")
        string = f"mutauth:keyword=product\\:one:class={self.service_class}"
        self.assertIn(f"clients connect with {string}\n", installed.output)
        self.assertIn(f"clients need class={self.service_class}", installed.errors)
        again = self.install("--keyword", self.service_class)
        self.assertIn(
            f"clients connect with mutauth:scp={self.service_class} or {string}\n", again.output
        )
        self.assertNotIn("class=", again.errors)
        dn = installed.output.partition("created SCP ")[2].partition(" (GUID")[0]
        shown = self.mutauth("scp", "show", dn, *self.directory[:2])
        self.assertIn(f"mutauth:scp={self.service_class}\n", shown.output)
        self.assertIn(string, shown.output)
        for name, code in ((self.service_class, 0), ("other", 1)):
            found = self.mutauth(
                "scp", "find", "product:one", "--service-class", name, *self.directory[:2]
            )
            self.assertEqual((found.code, dn in found.output), (code, code == 0), found)

    def test_no_class(self) -> None:
        """A name that is not a service class is refused by every command, before anything is
        asked.
        """
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


class PinnedTests(TakeoverCase):
    """A pinned SCP whose content, or whose hosts in DNS, an attacker has chosen.

    Samba's KDC answers ``http/any-host/anything`` with the key of ``host/any-host`` (sPNMappings,
    any third part), so that its ticket says nothing of who registered what.
    """

    def setUp(self) -> None:
        super().setUp()
        self.rogue = self.lab.host("rogue")

    @contextlib.contextmanager
    def attacker(self, service_class: str) -> Iterator[Running]:
        """The rogue's service, with the keys of its computer account."""
        listen = f"tcp:0:interface={self.lab.address_of('rogue')}"
        who = (
            "--service-class",
            service_class,
            "--host",
            self.rogue,
            "--keytab",
            str(self.lab.keytab("rogue")),
        )
        unchecked = ("--publish", "none", "--spn-check", "off")
        with self.twistd(
            (
                "mutauth",
                *who,
                "--listen",
                listen,
                "--allow-all",
                "--echo",
                *unchecked,
                *self.directory,
            )
        ) as running:
            yield running
        self.assertNotIn("alice", running.log)

    def assert_the_kdc_is_no_help(self, service_class: str) -> None:
        """Without this there would be nothing to withstand."""
        name = f"{service_class}/{self.rogue}/CN=whatever"
        asked = subprocess.run(
            ["kvno", name],
            env=self.environment("alice"),
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )
        self.assertEqual(asked.returncode, 0, asked)

    async def test_an_srv_record_of_an_aliased_class(self) -> None:
        """Class http, an SRV-type SCP that is pinned and held, and DNS that names the rogue."""
        record = f"_{self.service_class}._tcp.lab.example"
        dn = child_dn(self.service_class, f"CN=srv1,CN=Computers,{self.lab.base_dn}")
        administrator = self.as_user("administrator")
        self.assert_the_kdc_is_no_help("http")

        def publish(session: LdapSession) -> ServiceConnectionPoint:
            point = create_scp(
                session,
                dn,
                service_class="http",
                dns_name=record,
                dns_name_type="SRV",
                keywords=[self.service_class],
            )
            spns = [point.spn(form, self.host) for form in ("dn", "guid")]
            self.addCleanup(
                lambda: administrator.run(
                    lambda again: remove_spns(again, find_account(again, "svc-echo"), spns)
                )
            )
            self.addCleanup(lambda: administrator.run(lambda again: delete_scp(again, point)))
            add_spns(session, find_account(session, "svc-echo"), spns)
            return point

        point = await administrator.run(publish)
        liar = RogueDNS(self.lab, self.lab.address_of("rogue"))
        self.addCleanup(liar.close)
        with self.attacker("http") as attacker:
            liar.srv[record] = [(0, self.rogue.encode(), attacker.port)]
            for selector in (dn, str(point.guid)):
                for options in ("", ":class=http", ":spn-form=guid"):
                    string = (
                        f"mutauth:scp={selector}:nameserver={liar.address}\\:{liar.port}{options}"
                    )
                    ended = self.mutauth("connect", string, given="hello\n")
                    self.refused(
                        ended,
                        1,
                        f"no account holds the SPN that vouches for it, http/{self.rogue}/",
                    )
            self.assertIn(record, liar.asked)

    async def test_an_scp_made_anew(self) -> None:
        """The SCP's host computer makes it anew at the pinned DN, of an aliased class and with the
        rogue as its host.
        """
        self.assert_the_kdc_is_no_help("www")
        installed = self.install()
        dn = installed.output.partition("created SCP ")[2].partition(" (GUID")[0]
        host = self.as_user("srv1")
        pinned = f"mutauth:scp={dn}:nameserver={self.lab.nameserver}"

        def made_anew(session: LdapSession, service_class: str, port: int) -> None:
            delete_scp(session, read_scp(session, dn))
            keywords = [self.service_class]
            point = create_scp(
                session, dn, service_class=service_class, dns_name=self.rogue, keywords=keywords
            )
            update_binding(session, point, self.rogue, BindingInformation(port))

        with self.attacker("www") as attacker:
            await host.run(lambda session: made_anew(session, "www", attacker.port))
            for options in ("", ":spn-form=guid"):
                ended = self.mutauth("connect", pinned + options, given="hello\n")
                self.refused(
                    ended, 1, f"no account holds the SPN that vouches for it, www/{self.rogue}/"
                )
            self.refused(
                self.mutauth("connect", f"{pinned}:spn-form=host"),
                2,
                "name the hosts to be believed",
            )
            named = f"{pinned}:spn-form=host:hosts={self.host}"
            self.refused(self.mutauth("connect", named, given="hello\n"), 1, "of these hosts")
            await host.run(lambda session: made_anew(session, self.service_class, attacker.port))
            ended = self.mutauth("connect", pinned, given="hello\n")
            self.refused(
                ended,
                1,
                f"no account holds the SPN that vouches for it, {self.service_class}/{self.rogue}/",
            )


class LookAlikeTests(DirectoryTestCase):
    """A computer whose name Unicode folds into another one's, and a directory does not."""

    async def look_alike(self, name: str) -> Directory:
        """Its account, and the directory as itself."""
        dn = f"CN={name},CN=Computers,{self.lab.base_dn}"
        password = f"Aa1-{uuid4().hex}"

        def remove(session: LdapSession) -> None:
            for point in list(list_scps(session, dn)):
                delete_scp(session, point)
            session.delete(dn)

        def create(session: LdapSession) -> None:
            attributes = {
                "objectClass": "computer",
                "sAMAccountName": f"{name}$",
                "dNSHostName": f"{name}.lab.example",
                "userAccountControl": "4096",
                "unicodePwd": f'"{password}"'.encode("utf-16-le"),
            }
            session.add(dn, attributes)

        await self.do("administrator", create)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.do("administrator", remove)))
        ccache = f"FILE:{self.mktemp()}"
        words = ["kinit", "-c", ccache, f"{name}$@{self.lab.realm}"]
        subprocess.run(
            words, input=f"{password}\n", capture_output=True, text=True, timeout=WAIT, check=True
        )
        return self.directory(credentials=ClientCredentials(ccache=ccache))

    async def located(self, selector: str, **options: Any) -> list[Instance]:
        return await locate(self.as_user("alice"), Selection(selector, **options))

    async def test_the_long_s(self) -> None:
        """It is not believed with any form of SPN, whatever host it names, and the honest service
        stays found.
        """
        name = "\u017frv1"
        host = f"{name}.lab.example"
        found = await self.install(spn_forms=("guid", "dn", "host"))
        await self.publish(found, spn_forms=("guid", "dn", "host"))
        rogue = await self.look_alike(name)
        dn = child_dn(self.service_class, f"CN={name},CN=Computers,{self.lab.base_dn}")
        self.assertEqual(dn.casefold(), found.dn.casefold())

        def publish(session: LdapSession) -> None:
            add_spns(session, find_account(session, f"{name}$"), [SPN(self.service_class, host)])
            point = create_scp(
                session,
                dn,
                service_class=self.service_class,
                dns_name=host,
                keywords=[self.service_class],
            )
            update_binding(session, point, host, BindingInformation(666, weight=65535))

        await rogue.run(publish)
        asked: list[dict[str, Any]] = [
            {},
            {"spn_form": "guid"},
            {"spn_form": "host", "hosts": "srv1.lab.example"},
            {"spn_form": "host", "hosts": "*.lab.example"},
        ]
        for named in (host, self.host):
            await rogue.run(lambda session, named=named: self.name_host(session, dn, named))  # type: ignore[misc]
            for options in asked[: None if named == host else 2]:
                (instance,) = await self.located(self.service_class, **options)
                self.assertEqual(
                    (instance.guid, instance.host, instance.port), (found.guid, self.host, 9000)
                )
        line = await self.failure_of(self.located(dn), ServiceCheckFailed)
        self.assertIn("no account holds the SPN that vouches for it", line)
        await rogue.run(lambda session: self.name_host(session, dn, host))
        line = await self.failure_of(self.located(dn), UsageError)
        self.assertIn("it is not a valid host name", line)
        shown = await self.as_user("alice").run_with_catalog(
            lambda session, catalog: scpadmin.inspect(session, catalog, dn)
        )
        self.assertIn(
            f"its host {host!r} is not a valid host name: clients refuse it",
            [problem.cause for problem in shown.problems],
        )
        self.assertEqual((shown.advertised, shown.spns), (None, ()))

    @staticmethod
    def name_host(session: LdapSession, dn: str, host: str) -> None:
        session.modify(dn, [Change("replace", "serviceDNSName", (host,))])


class _Liar:
    """Answers for one SRV name with a host of its choice, and asks the lab for the rest."""

    def __init__(self, name: str, host: str, port: int, address: str) -> None:
        self._name = name
        self._record = dns.Record_SRV(1, 65535, port, host)
        self._honest = client.Resolver(servers=[(address, 53)])

    def query(self, query: Any, timeout: Any = None) -> Any:
        if str(query.name).casefold() == self._name.casefold():
            return succeed(
                ([dns.RRHeader(self._name, dns.SRV, ttl=60, payload=self._record)], [], [])
            )
        return self._honest.query(query, timeout)


class SrvTests(DirectoryTestCase):
    """An attacker who answers DNS, and has a computer account with an SPN of two parts."""

    record = "_echo._tcp.lab.example"

    async def srv_point(self) -> ServiceConnectionPoint:
        """The SRV-type SCP of the honest replicas, with their SPNs."""

        def work(session: LdapSession) -> ServiceConnectionPoint:
            dn = child_dn(self.service_class, f"CN=srv1,CN=Computers,{self.lab.base_dn}")
            keywords = [self.service_class]
            point = create_scp(
                session,
                dn,
                service_class=self.service_class,
                dns_name=self.record,
                dns_name_type="SRV",
                keywords=keywords,
            )
            add_spns(session, find_account(session, "svc-echo"), [point.spn("dn", self.host)])
            return point

        return await self.do("administrator", work)

    async def test_two_parts_of_whatever_dns_says(self) -> None:
        """The rogue's own SPN is never asked for: not pinned, not by keyword, and not when the SCP
        itself says so.
        """
        point = await self.srv_point()
        rogue = self.lab.host("rogue")
        two_parts = SPN(self.service_class, rogue)
        await self.do(
            "rogue", lambda session: add_spns(session, find_account(session, "rogue$"), [two_parts])
        )
        address = self.lab.address_of("rogue")
        liar = _Liar(self.record, rogue, 666, self.lab.nameserver)
        port = reactor.listenTCP(0, server.DNSServerFactory(clients=[liar]), interface=address)  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        deceived = Directory(
            reactor,
            DirectoryOptions(
                (f"ldap://{self.lab.dc_host}",), nameserver=f"{address}:{port.getHost().port}"
            ),
            credentials=ClientCredentials(ccache=self.lab.ccache("alice")),
        )
        self.addCleanup(deceived.close)
        for selector in (point.dn, str(point.guid)):
            error = self.assertRaises(
                UsageError, Selection, selector, self.service_class, spn_form="host"
            )
            self.assertIn("name the hosts to be believed with hosts", str(error))
            named = Selection(
                selector, self.service_class, spn_form="host", hosts="srv*.lab.example"
            )
            await self.failure_of(locate(deceived, named), MutualAuthError)
        self.assertRaises(UsageError, Selection, self.service_class, spn_form="host")
        advertised = BindingInformation(666, spn_form="host")
        await self.do(
            "administrator", lambda session: update_binding(session, point, self.record, advertised)
        )
        line = await self.failure_of(locate(deceived, Selection(point.dn)), ServiceCheckFailed)
        self.assertIn(
            "no account holds the SPN that vouches for it, "
            f"{SPN(self.service_class, rogue, point.dn)}",
            line,
        )
        await self.failure_of(locate(deceived, Selection(self.service_class)), MutualAuthError)
        # With the lab's own DNS, and hosts that the client names, two parts may be asked for.
        named = Selection(point.dn, spn_form="host", hosts="srv1.lab.example")
        (instance,) = await locate(self.as_user("alice"), named)
        self.assertEqual(instance.spn, SPN(self.service_class, self.host))
