"""The directory side on a real Active Directory: what it can do, and who may do what."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol

from mutauth_twisted import dns
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory import acl as security
from mutauth_twisted.directory.scp import (
    find_by_keyword,
)
from mutauth_twisted.dns import Resolver
from mutauth_twisted.errors import (
    CredentialError,
    DirectoryRefused,
    DirectoryUnreachable,
    KDCUnreachable,
    MutualAuthError,
    NetworkError,
    NotFound,
)
from mutauth_twisted.ldap.filter import equals
from mutauth_twisted.ldap.session import Change, LdapSession
from tests.cases.accounts import AccountCases
from tests.integration.directory_case import DirectoryTestCase


class ConnectionTests(DirectoryTestCase):
    """Reaching a domain controller, and saying why it cannot be reached."""

    async def test_large_sealed_answers_arrive(self) -> None:
        """An answer that spans many sealed buffers arrives whole."""

        def read_schema(session: LdapSession) -> int:
            base = "CN=Schema," + (session.root_dse.text("configurationNamingContext") or "")
            return sum(1 for _ in session.search(base, "(objectClass=*)", ["*"], page_size=5000))

        in_one = await self.do("administrator", read_schema)
        self.assertGreater(in_one, 1500)

    async def test_more_than_two_thousand_objects(self) -> None:
        """Thousands of objects arrive, in pages and in one answer."""

        def count(session: LdapSession) -> tuple[int, int]:
            return tuple(  # type: ignore[return-value]
                sum(
                    1 for _ in session.search("", "(objectClass=*)", ["objectGUID"], page_size=size)
                )
                for size in (5000, 250)
            )

        whole, paged = await self.do("administrator", count, global_catalog=True)
        self.assertEqual(whole, paged)
        self.assertGreater(whole, 2000)

    async def test_global_catalog_searches_the_forest(self) -> None:
        """The global catalog is found in DNS, and has an object of the domain."""
        found = await self.do(
            "alice",
            lambda session: [
                entry.dn for entry in session.search("", equals("dNSHostName", self.host))
            ],
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
        sessions: list[LdapSession] = []

        def work(session: LdapSession) -> str:
            sessions.append(session)
            if len(sessions) == 1:
                session._connection.socket.shutdown(2)
            return session.domain_dn

        self.assertEqual(await directory.run(work), self.lab.base_dn)
        self.assertEqual(len(sessions), 2)

    async def test_next_server_is_tried(self) -> None:
        """A server that is down, or unknown, is passed over."""
        directory = self.directory(
            servers=[
                f"ldap://{self.lab.dc_host}:9",
                "ldap://nowhere.lab.example",
                f"ldap://{self.lab.dc_host}",
            ],
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
        line = await self.failure_of(
            self.do("alice", lambda session: session.modify(dn, change)), DirectoryRefused
        )
        self.assertIn("this account may not do that", line)
        missing = f"CN=nothing,{self.lab.base_dn}"
        line = await self.failure_of(
            self.do("alice", lambda session: session.read(missing, ["cn"])), NotFound
        )
        self.assertIn("no such object", line)
        line = await self.failure_of(
            self.do("alice", lambda session: session.read("no dn", ["cn"])), DirectoryRefused
        )
        self.assertIn("not a valid DN", line)

    async def test_foreign_text_in_a_filter_finds_nothing(self) -> None:
        """A keyword that looks like a filter is only a keyword."""
        for keyword in ("*", "*)(objectClass=*", "\\2a", "a\0b", "(", "ü*"):
            found = await self.do(
                "alice", lambda session, keyword=keyword: list(find_by_keyword(session, keyword))
            )
            self.assertEqual(found, [])


class CredentialTests(DirectoryTestCase):
    """Our own credentials: each fault has its line."""

    async def refused(
        self, kind: type[MutualAuthError] = CredentialError, **credentials: Any
    ) -> str:
        directory = self.directory(
            realm=self.lab.realm, credentials=ClientCredentials(**credentials)
        )
        return await self.failure_of(directory.run(lambda session: None), kind)

    async def test_keytab(self) -> None:
        """A keytab is enough, and the process's environment stays as it is."""
        directory = self.directory(
            credentials=ClientCredentials(keytab=str(self.lab.keytab("svc-echo")))
        )
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
        self.assertIn(
            f"the default ticket cache, {os.environ['KRB5CCNAME']}: there is no Kerberos ticket",
            line,
        )

    async def test_expired_ticket(self) -> None:
        """An expired ticket is told apart from none."""
        cache = os.path.abspath(self.mktemp())
        subprocess.run(
            [
                "kinit",
                "-l",
                "1",
                "-k",
                "-t",
                self.lab.keytab("alice"),
                "-c",
                cache,
                self.lab.principal("alice"),
            ],
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
        line = await self.refused(
            keytab=str(self.lab.keytab("svc-echo")), principal=self.lab.principal("alice")
        )
        self.assertIn("it has no key of alice@", line)

    async def test_cache_of_another_principal(self) -> None:
        """A cache that is not the principal's is not used."""
        line = await self.refused(
            ccache=self.lab.ccache("alice"), principal=self.lab.principal("svc-echo")
        )
        self.assertIn("belongs to another principal", line)

    async def test_kdc_down(self) -> None:
        """With a keytab and no KDC, the KDC is blamed."""
        config = Path(self.mktemp())
        config.write_text(
            self.lab.krb5_conf.read_text().replace(self.lab.nameserver, "127.0.0.253")
        )
        self.set_environment("KRB5_CONFIG", str(config.absolute()))
        line = await self.refused(KDCUnreachable, keytab=str(self.lab.keytab("svc-echo")))
        self.assertIn("no KDC answers", line)

    async def test_unknown_domain_controller(self) -> None:
        """A host that holds no ldap SPN is not a domain controller, whatever listens there."""
        self.resolver.lookup_addresses = lambda host: _fired([self.lab.nameserver])  # type: ignore[method-assign]
        directory = self.directory(
            servers=["ldap://rogue.lab.example"],
            credentials=ClientCredentials(ccache=self.lab.ccache("alice")),
        )
        line = await self.failure_of(directory.run(lambda session: None), DirectoryUnreachable)
        self.assertIn("ldap/rogue.lab.example@LAB.EXAMPLE: the KDC knows no such service", line)


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
        line = await self.failure_of(
            self.resolver.lookup_addresses("none.lab.example"), NetworkError
        )
        self.assertIn("knows no such name", line)

    async def test_silent_server(self) -> None:
        """A server that does not answer is given up on, and named."""
        self.patch(dns, "_TIMEOUT", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            server = f"127.0.0.1:{silent.getsockname()[1]}"
            line = await self.failure_of(
                Resolver(reactor, server).lookup_srv("x.example"), NetworkError
            )
            self.assertIn(f"DNS ({server}) does not answer", line)
        line = await self.failure_of(
            Resolver(reactor, server).lookup_srv("x.example"), NetworkError
        )
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

        def descriptors(session: LdapSession) -> list[bytes]:
            found = session.search(session.domain_dn, "(objectClass=*)", ["nTSecurityDescriptor"])
            return [value for entry in found for value in entry.values("nTSecurityDescriptor")]

        seen = set(await self.do("administrator", descriptors))
        self.assertGreater(len(seen), 20)
        for descriptor in seen:
            self.assertEqual(security._parse(descriptor).to_bytes(), descriptor)


class AccountTests(AccountCases, DirectoryTestCase):
    """Finding accounts, and writing their SPNs."""
