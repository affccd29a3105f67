"""The directory side on a real Active Directory: what it can do, and who may do what."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol

from mutauth_twisted import dns
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory import installation, security
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.location import Instance, locate
from mutauth_twisted.directory.names import child_dn, equals, parent_of
from mutauth_twisted.directory.scp import (
    create_scp,
    delete_scp,
    find_by_keyword,
    read_scp,
    update_binding,
    withdraw,
)
from mutauth_twisted.directory.session import Change, Session
from mutauth_twisted.directory.spns import add_spns, find_account, find_holders, remove_spns, replace_spns
from mutauth_twisted.directory.undo import Undo
from mutauth_twisted.dns import Resolver
from mutauth_twisted.errors import (
    CredentialError,
    DirectoryRefused,
    DirectoryUnreachable,
    KDCUnreachable,
    MutualAuthError,
    NetworkError,
    NotFound,
    ServiceCheckFailed,
    UsageError,
)
from mutauth_twisted.spn import SPN
from tests.integration.directory_case import BINDING, DirectoryTestCase, Started


class ConnectionTests(DirectoryTestCase):
    """Reaching a domain controller, and saying why it cannot be reached."""

    async def test_large_sealed_answers_arrive(self) -> None:
        """An answer that spans many sealed buffers arrives whole."""

        def read_schema(session: Session) -> int:
            base = "CN=Schema," + (session.root_dse.text("configurationNamingContext") or "")
            return sum(1 for _ in session.search(base, "(objectClass=*)", ["*"], page_size=5000))

        in_one = await self.do("administrator", read_schema)
        self.assertGreater(in_one, 1500)

    async def test_more_than_two_thousand_objects(self) -> None:
        """Thousands of objects arrive, in pages and in one answer."""

        def count(session: Session) -> tuple[int, int]:
            return tuple(  # type: ignore[return-value]
                sum(1 for _ in session.search("", "(objectClass=*)", ["objectGUID"], page_size=size)) for size in (5000, 250)
            )

        whole, paged = await self.do("administrator", count, global_catalog=True)
        self.assertEqual(whole, paged)
        self.assertGreater(whole, 2000)

    async def test_global_catalog_searches_the_forest(self) -> None:
        """The global catalog is found in DNS, and has an object of the domain."""
        found = await self.do(
            "alice",
            lambda session: [entry.dn for entry in session.search("", equals("dNSHostName", self.host))],
            global_catalog=True,
        )
        self.assertEqual(found, [f"CN=srv1,CN=Computers,{self.lab.base_dn}"])

    async def test_idle_connections_are_used_again_but_not_dead_ones(self) -> None:
        """A connection serves several operations; a broken one is replaced unnoticed."""
        first = await self.do("alice", lambda session: session)
        self.assertIs(await self.do("alice", lambda session: session), first)
        first._connection.socket.shutdown(2)
        second = await self.do("alice", lambda session: session)
        self.assertIsNot(second, first)

    async def test_work_starts_again_when_the_connection_breaks_before_a_write(self) -> None:
        """With nothing written, work whose connection broke is done again on the next server."""
        directory = self.directory(
            servers=[f"ldap://{self.lab.dc_host}"] * 2,
            credentials=ClientCredentials(ccache=self.lab.ccache("alice")),
        )
        sessions: list[Session] = []

        def work(session: Session) -> str:
            sessions.append(session)
            if len(sessions) == 1:
                session._connection.socket.shutdown(2)
            return session.domain_dn

        self.assertEqual(await directory.run(work), self.lab.base_dn)
        self.assertEqual(len(sessions), 2)

    async def test_next_server_is_tried(self) -> None:
        """A server that is down, or unknown, is passed over."""
        directory = self.directory(
            servers=[f"ldap://{self.lab.dc_host}:9", "ldap://nowhere.lab.example", f"ldap://{self.lab.dc_host}"],
            credentials=ClientCredentials(ccache=self.lab.ccache("alice")),
        )
        self.assertEqual(await directory.run(lambda session: session.domain_dn), self.lab.base_dn)

    async def test_every_server_that_failed_is_named(self) -> None:
        """When none answers, the error names each and why."""
        directory = self.directory(
            servers=[f"ldap://{self.lab.dc_host}:9", "ldap://nowhere.lab.example"],
            credentials=ClientCredentials(ccache=self.lab.ccache("alice")),
        )
        line = await self.failure_of(directory.run(lambda session: None), DirectoryUnreachable)
        self.assertIn(f"{self.lab.dc_host}:9: {self.lab.nameserver}: connection refused", line)
        self.assertIn("nowhere.lab.example", line)

    async def test_refused_operations_have_hints(self) -> None:
        """A result code becomes a line that says what to do."""
        dn = f"CN=srv1,CN=Computers,{self.lab.base_dn}"
        change = [Change("replace", "description", ("mine",))]
        line = await self.failure_of(self.do("alice", lambda session: session.modify(dn, change)), DirectoryRefused)
        self.assertIn("this account may not do that", line)
        missing = f"CN=nothing,{self.lab.base_dn}"
        line = await self.failure_of(self.do("alice", lambda session: session.read(missing, ["cn"])), NotFound)
        self.assertIn("no such object", line)
        line = await self.failure_of(self.do("alice", lambda session: session.read("no dn", ["cn"])), DirectoryRefused)
        self.assertIn("no valid DN", line)

    async def test_foreign_text_in_a_filter_finds_nothing(self) -> None:
        """A keyword that looks like a filter is only a keyword."""
        for keyword in ("*", "*)(objectClass=*", "\\2a", "a\0b", "(", "ü*"):
            found = await self.do("alice", lambda session, keyword=keyword: list(find_by_keyword(session, keyword)))
            self.assertEqual(found, [])


class CredentialTests(DirectoryTestCase):
    """Our own credentials: each fault has its line."""

    async def refused(self, kind: type[MutualAuthError] = CredentialError, **credentials: Any) -> str:
        directory = self.directory(realm=self.lab.realm, credentials=ClientCredentials(**credentials))
        return await self.failure_of(directory.run(lambda session: None), kind)

    async def test_keytab(self) -> None:
        """A keytab is enough, and the process's environment stays as it is."""
        directory = self.directory(credentials=ClientCredentials(keytab=str(self.lab.keytab("svc-echo"))))
        before = dict(os.environ)
        self.assertEqual(await directory.run(lambda session: session.domain_dn), self.lab.base_dn)
        self.assertEqual(dict(os.environ), before)

    async def test_no_ticket(self) -> None:
        """Without a ticket the line names the cache."""
        line = await self.refused(ccache=f"FILE:{self.mktemp()}")
        self.assertIn("there is no Kerberos ticket", line)

    async def test_no_ticket_in_the_default_cache(self) -> None:
        """The same for the default cache."""
        self.set_environment("KRB5CCNAME", f"FILE:{self.mktemp()}")
        line = await self.refused()
        self.assertIn(f"the default ticket cache, {os.environ['KRB5CCNAME']}: there is no Kerberos ticket", line)

    async def test_expired_ticket(self) -> None:
        """An expired ticket is told apart from none."""
        cache = os.path.abspath(self.mktemp())
        subprocess.run(
            ["kinit", "-l", "1", "-k", "-t", self.lab.keytab("alice"), "-c", cache, self.lab.principal("alice")],
            check=True,
            capture_output=True,
        )
        time.sleep(2)
        line = await self.refused(ccache=cache)
        self.assertIn("the Kerberos ticket has expired", line)

    async def test_keytab_faults(self) -> None:
        """Missing, no keytab, and without the principal."""
        line = await self.refused(keytab="/nowhere/echo.keytab")
        self.assertIn("keytab /nowhere/echo.keytab: there is no such file", line)
        junk = Path(self.mktemp())
        junk.write_text("junk")
        line = await self.refused(keytab=str(junk.absolute()))
        self.assertIn("the keytab cannot be used", line)
        line = await self.refused(keytab=str(self.lab.keytab("svc-echo")), principal=self.lab.principal("alice"))
        self.assertIn("it has no key of alice@", line)

    async def test_cache_of_another_principal(self) -> None:
        """A cache that is not the principal's is not used."""
        line = await self.refused(ccache=self.lab.ccache("alice"), principal=self.lab.principal("svc-echo"))
        self.assertIn("belongs to another principal", line)

    async def test_kdc_down(self) -> None:
        """With a keytab and no KDC, the KDC is blamed."""
        config = Path(self.mktemp())
        config.write_text(self.lab.krb5_conf.read_text().replace(self.lab.nameserver, "127.0.0.253"))
        self.set_environment("KRB5_CONFIG", str(config.absolute()))
        line = await self.refused(KDCUnreachable, keytab=str(self.lab.keytab("svc-echo")))
        self.assertIn("no KDC answers", line)

    async def test_unknown_domain_controller(self) -> None:
        """A host that holds no ldap SPN is no domain controller, whatever listens there."""
        self.resolver.lookup_addresses = lambda host: _fired([self.lab.nameserver])  # type: ignore[method-assign]
        directory = self.directory(
            servers=["ldap://rogue.lab.example"], credentials=ClientCredentials(ccache=self.lab.ccache("alice"))
        )
        line = await self.failure_of(directory.run(lambda session: None), DirectoryUnreachable)
        self.assertIn("ldap/rogue.lab.example: the KDC knows no such service", line)


class DNSTests(DirectoryTestCase):
    """Names resolved by the lab's own DNS server."""

    async def test_srv_and_addresses(self) -> None:
        """The domain controller is found by its SRV record and has an address."""
        (target,) = await self.resolver.lookup_srv(f"_ldap._tcp.dc._msdcs.{self.lab.realm.lower()}")
        self.assertEqual((target.host, target.port), (self.lab.dc_host, 389))
        self.assertEqual(await self.resolver.lookup_addresses(target.host), [self.lab.nameserver])

    async def test_unknown_names(self) -> None:
        """A name that is not there is one line, of the class that says who asked."""
        line = await self.failure_of(self.resolver.lookup_srv("_none._tcp.lab.example"), NotFound)
        self.assertIn("knows no such name", line)
        line = await self.failure_of(self.resolver.lookup_addresses("none.lab.example"), NetworkError)
        self.assertIn("knows no such name", line)

    async def test_silent_server(self) -> None:
        """A server that does not answer is given up on, and named."""
        self.patch(dns, "_TIMEOUT", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            server = f"127.0.0.1:{silent.getsockname()[1]}"
            line = await self.failure_of(Resolver(reactor, server).lookup_srv("x.example"), NetworkError)
            self.assertIn(f"DNS ({server}) does not answer", line)
        line = await self.failure_of(Resolver(reactor, server).lookup_srv("x.example"), NetworkError)
        self.assertIn(f"DNS ({server}) does not answer", line)

    async def test_endpoints_resolve_through_it(self) -> None:
        """HostnameEndpoint connects to a name that only this DNS server knows."""
        endpoint = HostnameEndpoint(self.resolver.reactor_for_endpoints(), self.lab.dc_host, 389)
        protocol = await endpoint.connect(Factory.forProtocol(Protocol))
        self.assertEqual(protocol.transport.getPeer().host, self.lab.nameserver)
        gone: Deferred[None] = Deferred()
        protocol.connectionLost = lambda reason: gone.callback(None)  # type: ignore[method-assign]
        protocol.transport.loseConnection()
        await gone


def _fired(value: Any) -> Deferred[Any]:
    result: Deferred[Any] = Deferred()
    result.callback(value)
    return result


class SecurityDescriptorTests(DirectoryTestCase):
    """Real security descriptors survive being read and written."""

    async def test_round_trip(self) -> None:
        """Every kind of descriptor in the directory is written as it was read, byte for byte."""

        def descriptors(session: Session) -> list[bytes]:
            found = session.search(session.domain_dn, "(objectClass=*)", ["nTSecurityDescriptor"])
            return [value for entry in found for value in entry.values("nTSecurityDescriptor")]

        seen = set(await self.do("administrator", descriptors))
        self.assertGreater(len(seen), 20)
        for descriptor in seen:
            self.assertEqual(security._parse(descriptor).to_bytes(), descriptor)


class AccountTests(DirectoryTestCase):
    """Finding accounts, and writing their SPNs."""

    async def test_find_account_by_every_name(self) -> None:
        """The same account by sAMAccountName, UPN, DN and down-level name; a computer without its $."""
        by_name = await self.do("alice", lambda session: find_account(session, "svc-echo"))
        self.assertTrue(by_name.sid.startswith("S-1-5-21-"))
        for name in ("SVC-ECHO", f"svc-echo@{self.lab.realm}", by_name.dn, f"{self.lab.domain}\\svc-echo"):
            found = await self.do("alice", lambda session, name=name: find_account(session, name))
            self.assertEqual(found, by_name)
        computer = await self.do("alice", lambda session: find_account(session, "srv1"))
        self.assertEqual((computer.name, computer.is_computer, computer.dns_host_name), ("srv1$", True, self.host))
        for name in ("nobody", f"nobody@{self.lab.realm}", f"CN=nobody,{self.lab.base_dn}", "*"):
            line = await self.failure_of(self.do("alice", lambda session, name=name: find_account(session, name)), NotFound)
            self.assertIn("nobody" if "nobody" in name else "account *", line)

    async def test_writing_spns_is_idempotent(self) -> None:
        """Adding what is there and removing what is not succeed, and say that nothing was done."""
        spn = SPN(self.service_class, self.host)

        def twice(session: Session) -> list[list[SPN]]:
            account = find_account(session, "svc-echo")
            return [
                add_spns(session, account, [spn]),
                add_spns(session, account, [spn]),
                add_spns(session, find_account(session, "svc-echo"), [spn]),
                remove_spns(session, account, [spn]),
                remove_spns(session, account, [spn]),
            ]

        self.assertEqual(await self.do("administrator", twice), [[spn], [], [], [spn], []])

    async def test_replacing_spns(self) -> None:
        """Replacing leaves exactly what was given; nothing clears."""

        def work(session: Session) -> tuple[set[str], set[str]]:
            account = find_account(session, "svc-other")
            replace_spns(session, account, [SPN(self.service_class, "a"), SPN(self.service_class, "b")])
            both = set(find_account(session, "svc-other").spns)
            replace_spns(session, account, [])
            return both, set(find_account(session, "svc-other").spns)

        both, none = await self.do("administrator", work)
        self.assertEqual((both, none), ({f"{self.service_class}/a", f"{self.service_class}/b"}, set()))

    async def test_who_may_write_which_spn(self) -> None:
        """The table of validated writes: only an administrator registers a three-part SPN."""
        two, three = SPN(self.service_class, self.lab.host("rogue")), SPN(self.service_class, self.host, "name")
        foreign = SPN(self.service_class, self.host)
        table = [
            ("administrator", "rogue$", three, True),
            ("rogue", "rogue$", two, True),
            ("rogue", "rogue$", three, False),
            ("rogue", "rogue$", foreign, False),
            ("rogue", "svc-echo", two, False),
            ("svc-echo", "svc-echo", foreign, False),
            ("alice", "svc-echo", foreign, False),
        ]
        for user, name, spn, allowed in table:

            def write(session: Session, name: str = name, spn: SPN = spn) -> list[SPN]:
                return add_spns(session, find_account(session, name), [spn])

            if allowed:
                self.assertEqual(await self.do(user, write), [spn])
                await self.do("administrator", lambda s, n=name, p=spn: remove_spns(s, find_account(s, n), [p]))
            else:
                line = await self.failure_of(self.do(user, write), DirectoryRefused)
                self.assertIn(f"SPN {spn} on {name}", line)
                self.assertIn("administrator", line)

    async def test_a_taken_spn_is_refused_by_the_directory_too(self) -> None:
        """The directory's own uniqueness check becomes a clear line, whatever the case of letters."""
        spn = SPN(self.service_class, self.host)
        await self.do("administrator", lambda session: add_spns(session, find_account(session, "svc-other"), [spn]))
        upper = SPN(self.service_class.upper(), self.host.upper())
        line = await self.failure_of(
            self.do("administrator", lambda session: add_spns(session, find_account(session, "svc-echo"), [upper])),
            DirectoryRefused,
        )
        self.assertIn("mutauth spn query", line)
        holders = await self.do("alice", lambda session: find_holders(session, upper), global_catalog=True)
        self.assertEqual([holder.name for holder in holders], ["svc-other"])


class InstallationTests(DirectoryTestCase):
    """The administrator's step: all of it, or nothing."""

    async def test_install_again_and_uninstall(self) -> None:
        """Installing makes everything, again changes nothing, and uninstalling leaves nothing."""
        lines: list[str] = []
        found = await self.install(report=lines.append)
        self.assertTrue(found.created)
        self.assertEqual(found.dn, child_dn(self.service_class, f"CN=srv1,CN=Computers,{self.lab.base_dn}"))
        wanted = {f"{self.service_class}/{self.host}/{part}" for part in (found.guid, found.dn)}
        self.assertEqual(await self.spns_of("svc-echo"), wanted)
        self.assertEqual(found.scp.keywords, (self.service_class,))
        self.assertEqual(len(lines), 4)
        lines.clear()
        again = await self.install(report=lines.append)
        self.assertEqual((again.guid, again.created, lines), (found.guid, False, []))
        removed = await self.as_user("administrator").run_with_catalog(
            lambda session, catalog: installation.uninstall(
                session, catalog, service_class=self.service_class, host=self.host
            )
        )
        self.assertEqual(len(removed), 3)
        self.assertEqual(await self.spns_of("svc-echo"), set())
        await self.failure_of(self.do("alice", lambda session: read_scp(session, found.guid)), NotFound)

    async def test_what_is_missing_is_mended(self) -> None:
        """Installing again puts back a lost right, a lost SPN and a new keyword."""
        found = await self.install()
        sid = found.account.sid

        def damage(session: Session) -> None:
            before = installation.read_dacl(session, found.guid)
            installation.write_dacl(session, found.guid, security.revoke(before, sid))
            remove_spns(session, found.account, found.spns[:1])

        await self.do("administrator", damage)
        lines: list[str] = []
        await self.install(report=lines.append, keywords=[self.service_class, "new"])
        self.assertEqual(len(lines), 3, lines)
        after = await self.do("administrator", lambda session: installation.read_dacl(session, found.guid))
        self.assertTrue(security.granted_to(after)[sid])

    async def test_every_failure_undoes_what_was_done(self) -> None:
        """Whichever write fails, the directory is as it was before."""
        for failing in range(1, 5):
            lines: list[str] = []

            def work(
                session: Session, catalog: Session, failing: int = failing, lines: list[str] = lines
            ) -> installation.Installation:
                broken: Any = _FailingSession(session, failing)
                return installation.install(
                    broken,
                    catalog,
                    service_class=self.service_class,
                    host=self.host,
                    account="svc-echo",
                    report=lines.append,
                )

            line = await self.failure_of(self.as_user("administrator").run_with_catalog(work), DirectoryRefused)
            self.assertIn("injected", line)
            self.assertEqual(sum(text.startswith("undone") for text in lines), failing - 1, lines)
            self.assertEqual(await self.spns_of("svc-echo"), set())
            left = await self.do("administrator", lambda session: list(find_by_keyword(session, self.service_class)))
            self.assertEqual(left, [])

    async def test_lost_connection(self) -> None:
        """When the answer to any write is lost with the connection, another connection takes everything back."""
        for losing in (1, 2, 3, 4):
            lines: list[str] = []

            def work(session: Session, catalog: Session, undo: Undo, losing: int = losing) -> installation.Installation:
                broken: Any = _LosingSession(session, losing)
                return installation.install(
                    broken, catalog, service_class=self.service_class, host=self.host, account="svc-echo", undo=undo
                )

            waiting = installation.all_or_nothing(self.as_user("administrator"), work, lines.append)
            line = await self.failure_of(waiting, DirectoryUnreachable)
            self.assertIn(f"domain controller {self.lab.dc_host}: the answer was lost", line)
            self.assertNotIn("left behind", line)
            self.assertEqual(len(lines), losing, lines)
            self.assertEqual(await self.spns_of("svc-echo"), set())
            left = await self.do("administrator", lambda session: list(find_by_keyword(session, self.service_class)))
            self.assertEqual(left, [])

    async def test_what_somebody_else_made_is_not_undone(self) -> None:
        """An object that another administrator made a moment before us is refused, and stays."""
        found = await self.install()

        def work(session: Session, catalog: Session) -> None:
            undo = Undo(lambda _: None)
            with undo.around("SCP", lambda session: bool(session.delete(found.dn) is None)):
                create_scp(session, found.dn, service_class="x", dns_name=self.host, keywords=["x"])

        line = await self.failure_of(self.as_user("administrator").run_with_catalog(work), DirectoryRefused)
        self.assertIn(found.dn, line)
        point = await self.do("alice", lambda session: read_scp(session, found.guid))
        self.assertEqual(point.dn, found.dn)

    async def test_uninstall_keeps_what_others_use(self) -> None:
        """An SCP of several hosts goes with the last of them; the wrong account is refused before anything is removed."""
        place = f"CN=srv1,CN=Computers,{self.lab.base_dn}"
        found = await self.install(scp_parent=place)
        other = self.lab.host("srv2")
        await self.install(host=other, scp_parent=place)

        def uninstall(host: str, **options: Any) -> Any:
            given = {"service_class": self.service_class, "host": host, "scp_parent": place, **options}
            return self.as_user("administrator").run_with_catalog(
                lambda session, catalog: installation.uninstall(session, catalog, **given)
            )

        line = await self.failure_of(uninstall(self.host, account="svc-other"), ServiceCheckFailed)
        self.assertIn("it is on svc-echo, not on svc-other", line)
        self.assertEqual(len(await self.spns_of("svc-echo")), 4)
        removed = await uninstall(self.host)
        self.assertFalse(any("deleted SCP" in text for text in removed), removed)
        self.assertEqual((await self.do("alice", lambda session: read_scp(session, found.guid))).dn, found.dn)
        removed = await uninstall(other)
        self.assertTrue(any("deleted SCP" in text for text in removed), removed)
        self.assertEqual(await self.spns_of("svc-echo"), set())

    async def test_failure_on_the_second_run_keeps_the_first(self) -> None:
        """Undoing takes back what this run did, and nothing of an earlier one."""
        found = await self.install(spn_forms=["guid"])

        def work(session: Session, catalog: Session) -> installation.Installation:
            broken: Any = _FailingSession(session, 2)
            return installation.install(
                broken,
                catalog,
                service_class=self.service_class,
                host=self.host,
                account="svc-echo",
                keywords=["extra"],
            )

        await self.failure_of(self.as_user("administrator").run_with_catalog(work), DirectoryRefused)
        self.assertEqual(await self.spns_of("svc-echo"), {f"{self.service_class}/{self.host}/{found.guid}"})
        point = await self.do("alice", lambda session: read_scp(session, found.guid))
        self.assertEqual(point.keywords, (self.service_class,))

    async def test_a_taken_spn_stops_it_before_anything_is_written(self) -> None:
        """An SPN on another account is found first; nothing is created."""
        dn = child_dn(self.service_class, f"CN=srv1,CN=Computers,{self.lab.base_dn}")
        spn = SPN(self.service_class, self.host, dn)
        await self.do("administrator", lambda session: add_spns(session, find_account(session, "svc-other"), [spn]))
        lines: list[str] = []
        line = await self.failure_of(self.install(report=lines.append), DirectoryRefused)
        self.assertIn("it is on another account already, svc-other", line)
        self.assertEqual(lines, [])

    async def test_unknown_host_account_and_place(self) -> None:
        """What does not exist is named."""
        for options, words in (
            ({"host": "nohost.lab.example"}, "no computer object has this dNSHostName"),
            ({"account": "nobody"}, "account nobody"),
            ({"scp_parent": f"CN=nothing,{self.lab.base_dn}"}, "no such object to put the SCP below"),
        ):
            line = await self.failure_of(self.install(**options), NotFound)
            self.assertIn(words, line)

    async def test_a_plain_user_may_not(self) -> None:
        """Without the right nothing happens, and the line says who can."""
        line = await self.failure_of(
            self.as_user("alice").run_with_catalog(
                lambda session, catalog: installation.install(
                    session, catalog, service_class=self.service_class, host=self.host, account="svc-echo"
                )
            ),
            DirectoryRefused,
        )
        self.assertIn("run it as an administrator", line)

    async def test_names_with_every_special_character(self) -> None:
        """A connection point's name is escaped, and is found by the DN that results."""
        name = ' #a,b+c"d\\e<f>g;h=i ü '
        found = await self.install(scp_name=name)
        (instance,) = await self._published(found)
        self.assertEqual(instance.spn.service_name, found.dn)
        again = await self.install(scp_name=name)
        self.assertEqual(again.guid, found.guid)

    async def _published(self, found: installation.Installation) -> list[Instance]:
        await self.publish(found)
        return await locate(self.as_user("alice"), found.dn)


class _FailingSession:
    """A session whose n-th write is refused."""

    def __init__(self, session: Session, failing: int) -> None:
        self._session = session
        self._left = failing

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._session, name)
        if name not in ("add", "modify"):
            return method

        def write(*args: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                raise DirectoryRefused("object", "injected")
            return method(*args)

        return write


class _LosingSession(_FailingSession):
    """A session whose connection is lost with the answer to the n-th write."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._session, name)
        if name not in ("add", "modify"):
            return method

        def write(*args: Any) -> Any:
            result = method(*args)
            self._left -= 1
            if self._left == 0:
                self._session.close()
                raise DirectoryUnreachable(f"domain controller {self._session.server}", "the answer was lost")
            return result

        return write


class StartupTests(DirectoryTestCase):
    """What a service checks and publishes when it starts."""

    async def test_publish_and_withdraw(self) -> None:
        """The service brings its connection point up to date once, and takes back only its own."""
        found = await self.install()
        first = await self.publish(found)
        self.assertEqual(first.changed, ("serviceBindingInformation",))
        self.assertEqual(first.scp.binding, BINDING)
        second = await self.publish(found)
        self.assertEqual(second, Started((), (), first.scp))
        other = evolve(BINDING, port=9001)
        self.assertFalse(await self.do("svc-echo", lambda session: withdraw(session, found.guid, other)))
        self.assertTrue(await self.do("svc-echo", lambda session: withdraw(session, found.guid, BINDING)))
        self.assertFalse(await self.do("svc-echo", lambda session: withdraw(session, found.guid, BINDING)))

    async def test_only_the_granted_account_may_publish(self) -> None:
        """The two rights are what lets the account publish: before, after, and nobody else."""

        def update(session: Session) -> list[str]:
            return update_binding(session, read_scp(session, guid), "other.lab.example", evolve(BINDING, port=9999))

        created = await self.do(
            "administrator",
            lambda session: create_scp(
                session,
                child_dn(self.service_class, f"CN=srv1,CN=Computers,{self.lab.base_dn}"),
                service_class=self.service_class,
                dns_name=self.host,
                keywords=[self.service_class],
            ),
        )
        guid = created.guid
        for user in ("svc-echo", "svc-other", "rogue", "alice"):
            await self.failure_of(self.do(user, update), DirectoryRefused)
        await self.install()
        for user in ("svc-other", "rogue", "alice"):
            await self.failure_of(self.do(user, update), DirectoryRefused)
        self.assertEqual(await self.do("svc-echo", update), ["serviceDNSName", "serviceBindingInformation"])
        keywords = [Change("add", "keywords", ("more",))]
        await self.failure_of(self.do("svc-echo", lambda session: session.modify(guid, keywords)), DirectoryRefused)

    async def test_missing_spn(self) -> None:
        """A missing SPN is refused before anything is published, with the command that mends it."""
        found = await self.install()
        await self.do("administrator", lambda session: remove_spns(session, found.account, found.spns[:1]))
        line = await self.failure_of(self.publish(found), ServiceCheckFailed)
        self.assertIn(f"SPN {found.spns[0]}: it is not on account svc-echo", line)
        self.assertIn(
            f"run mutauth install --service-class {self.service_class} --host {self.host} --account svc-echo", line
        )
        point = await self.do("alice", lambda session: read_scp(session, found.guid))
        self.assertIsNone(point.binding)
        warned = await self.publish(found, spn_check="warn")
        self.assertEqual(len(warned.warnings), 1)
        unchecked = await self.publish(found, spn_check="off")
        self.assertEqual(unchecked.warnings, ())

    async def test_wrong_account(self) -> None:
        """A service under another account hears who holds its SPNs."""
        found = await self.install()
        line = await self.failure_of(self.publish(found, user="svc-other", account="svc-other"), ServiceCheckFailed)
        self.assertIn("it is on svc-echo (", line)
        self.assertIn("this service runs as svc-other", line)

    async def test_moved(self) -> None:
        """The GUID finds a moved connection point; the SPN with its DN is stale and that is said."""
        found = await self.install()
        place = f"CN=srv2,CN=Computers,{self.lab.base_dn}"
        new_dn = await self.do("administrator", lambda session: session.move(found.dn, place))
        line = await self.failure_of(self.publish(found), ServiceCheckFailed)
        self.assertIn(f"the SCP was moved, it was {found.dn}", line)
        self.assertIn(f"--scp-parent {place}", line)
        mended = await self.install(scp_parent=place)
        self.assertEqual((mended.guid, mended.created), (found.guid, False))
        self.assertEqual((await self.publish(found)).warnings, ())
        by_guid = await self.publish(found, spn_forms=["guid"])
        self.assertEqual(by_guid.scp.dn, new_dn)
        self.assertEqual(by_guid.scp.guid, found.guid)

    async def test_renamed_host(self) -> None:
        """SPNs of the host's old name are told apart."""
        found = await self.install()
        line = await self.failure_of(self.publish(found, host="new.lab.example"), ServiceCheckFailed)
        self.assertIn(f"the host was renamed, it was {self.host}", line)

    async def test_lost_right(self) -> None:
        """A lost right is told apart from a missing SPN."""
        found = await self.install()

        def damage(session: Session) -> None:
            before = installation.read_dacl(session, found.guid)
            installation.write_dacl(session, found.guid, security.revoke(before, found.account.sid))

        await self.do("administrator", damage)
        line = await self.failure_of(self.publish(found), ServiceCheckFailed)
        self.assertIn("svc-echo may not write serviceDNSName and serviceBindingInformation", line)
        self.assertIn("run mutauth install", line)

    async def test_gone(self) -> None:
        """A connection point that was deleted is reported by its GUID."""
        found = await self.install()
        await self.do("administrator", lambda session: delete_scp(session, found.scp))
        line = await self.failure_of(self.publish(found), NotFound)
        self.assertIn(str(found.guid), line)


class LocationTests(DirectoryTestCase):
    """The client's side: what is found, what is believed, and why not."""

    async def located(self, selector: str, **options: Any) -> list[Instance]:
        return await locate(self.as_user("alice"), selector, **options)

    async def rogue_publishes(self, dns_name: str | None = None) -> None:
        """A rogue computer puts the same keyword below itself and registers what it can."""
        host = self.lab.host("rogue")

        def publish(session: Session) -> None:
            dn = child_dn(self.service_class, f"CN=rogue,CN=Computers,{self.lab.base_dn}")
            point = create_scp(
                session,
                dn,
                service_class=self.service_class,
                dns_name=dns_name or host,
                keywords=[self.service_class],
            )
            update_binding(session, point, dns_name or host, BindingInformation(666, spn_form="host"))
            add_spns(session, find_account(session, "rogue$"), [SPN(self.service_class, host)])

        await self.do("rogue", publish)

    async def test_by_keyword_dn_and_guid(self) -> None:
        """All three selectors find the same instance, with the SPN form that was published or asked for."""
        found = await self.install()
        await self.publish(found)
        for selector in (self.service_class, self.service_class.upper(), found.dn, str(found.guid), f"{{{found.guid}}}"):
            (instance,) = await self.located(selector)
            self.assertEqual((instance.host, instance.port), (self.host, 9000))
            self.assertEqual(instance.spn, SPN(self.service_class, self.host, found.dn))
        (instance,) = await self.located(self.service_class, spn_form="guid", service_class=self.service_class)
        self.assertEqual(instance.spn, SPN(self.service_class, self.host, str(found.guid)))
        await self.publish(found, binding=BindingInformation(9000, spn_form="guid"))
        (instance,) = await self.located(self.service_class)
        self.assertEqual(instance.spn.service_name, str(found.guid))

    async def test_a_guid_may_be_a_keyword(self) -> None:
        """Product GUIDs are keywords too."""
        product = str(uuid4())
        found = await self.install(keywords=[self.service_class, product])
        await self.publish(found)
        (instance,) = await self.located(product)
        self.assertEqual(instance.guid, found.guid)

    async def test_a_rogue_computer_is_never_located(self) -> None:
        """A computer that publishes the keyword and registers its own SPN stays unseen."""
        await self.rogue_publishes()
        line = await self.failure_of(self.located(self.service_class), ServiceCheckFailed)
        self.assertIn("no account holds the SPN that vouches for it", line)
        found = await self.install()
        await self.publish(found)
        for options in ({}, {"spn_form": "guid"}, {"service_class": self.service_class}):
            (instance,) = await self.located(self.service_class, **options)
            self.assertEqual(instance.guid, found.guid)
        await self.failure_of(self.located(self.service_class, spn_form="host"), UsageError)
        (instance,) = await self.located(self.service_class, spn_form="host", hosts="srv*.lab.example")
        self.assertEqual(instance.host, self.host)
        base = parent_of(found.dn)
        (instance,) = await self.located(self.service_class, spn_form="host", base=base)
        self.assertEqual(instance.host, self.host)

    async def test_a_rogue_computer_cannot_pose_as_another_host(self) -> None:
        """Naming the true host does not help the rogue: its object's SPN is nobody's."""
        await self.rogue_publishes(dns_name=self.host)
        found = await self.install()
        await self.publish(found)
        (instance,) = await self.located(self.service_class)
        self.assertEqual((instance.guid, instance.port), (found.guid, 9000))

    async def test_replicas_are_ordered(self) -> None:
        """Priority first, then weight."""
        first = await self.install()
        second = await self.install(host=self.lab.host("srv2"), scp_parent=f"CN=srv2,CN=Computers,{self.lab.base_dn}")
        await self.publish(first, binding=BindingInformation(9001, priority=2))
        await self.publish(second, binding=BindingInformation(9002, priority=1), host=self.lab.host("srv2"))
        self.assertEqual([each.port for each in await self.located(self.service_class)], [9002, 9001])

    async def test_nothing_found(self) -> None:
        """What is not there is named, as it was selected."""
        for selector in ("no-such-keyword", "*)(objectClass=*", str(UUID(int=7))):
            line = await self.failure_of(self.located(selector), NotFound)
            self.assertIn(selector, line)
        dn = f"CN=nothing,{self.lab.base_dn}"
        self.assertIn(dn, await self.failure_of(self.located(dn), NotFound))
        line = await self.failure_of(self.located("no-such-keyword", base=self.lab.base_dn), NotFound)
        self.assertIn(f"below {self.lab.base_dn}", line)

    async def test_unusable(self) -> None:
        """Not published, of another class, malformed, and no connection point at all."""
        found = await self.install()
        line = await self.failure_of(self.located(self.service_class), ServiceCheckFailed)
        self.assertIn("it has published no port; is the service running?", line)
        await self.publish(found)
        line = await self.failure_of(self.located(self.service_class, service_class="other"), ServiceCheckFailed)
        self.assertIn(f"it is of service class {self.service_class}, not other", line)
        change = [Change("replace", "serviceBindingInformation", ("ninety",))]
        await self.do("svc-echo", lambda session: session.modify(found.guid, change))
        line = await self.failure_of(self.located(self.service_class), ServiceCheckFailed)
        self.assertIn("'ninety'", line)
        line = await self.failure_of(self.located(parent_of(found.dn)), NotFound)
        self.assertIn("no service connection point", line)

    async def test_warm_location_is_quick(self) -> None:
        """Locating a service again takes no new connection."""
        found = await self.install()
        await self.publish(found)
        await self.located(self.service_class)
        began = time.monotonic()
        await self.located(self.service_class)
        self.assertLess(time.monotonic() - began, 1.0)
