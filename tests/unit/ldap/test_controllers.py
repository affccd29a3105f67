"""Names that a domain controller has to authenticate as, by where its own name came from."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.dns import SRVTarget
from mutauth_twisted.errors import (
    CredentialError,
    DirectoryRefused,
    DirectoryUnreachable,
    NotFound,
    PeerNotAuthenticated,
    UsageError,
)
from mutauth_twisted.kerberos.tickets import tickets_for
from mutauth_twisted.ldap.connection import Directory, _IdleSessions, _Progress
from mutauth_twisted.ldap.controllers import Role, Server, parse_server
from mutauth_twisted.ldap.forest import Forest
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.sealing import Target, open_sealed
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.testing.fakes import HeldWorkers
from mutauth_twisted.testing.forge import make_realm

FOREST = Forest("lab.example", frozenset(("lab.example", "sub.lab.example", "other.example")))


class RoleTests(SynchronousTestCase):
    """SPNs and realms."""

    def test_domain_controller(self) -> None:
        """Three parts, the last of which is the domain asked for; the realm is that domain's and no
        other.
        """
        server = Server("dc1.lab.example", 389, role=Role.of_domain("Lab.Example"))
        self.assertEqual(server.spn, "ldap/dc1.lab.example/lab.example")
        assert server.role is not None
        self.assertEqual((server.role.realm, server.role.realms), ("LAB.EXAMPLE", {"LAB.EXAMPLE"}))
        self.assertFalse(Server("dc1.lab.example", 3268, role=server.role).is_catalog)

    def test_domains_that_are_none(self) -> None:
        """A domain that would end the principal early, or name another realm in it, is refused."""
        for domain in (
            "",
            "a b",
            "lab.example@EVIL",
            "lab/example",
            "lab.example\0",
            "a\\",
            "x" * 64 + ".example",
        ):
            self.assertRaises(UsageError, Role.of_domain, domain)

    def test_global_catalog(self) -> None:
        """GC/HOST/FOREST, in the realm of the domain of the forest that the host is in, or else in
        our own.
        """
        for host, realm in (
            ("dc1.lab.example", "LAB.EXAMPLE"),
            ("DC2.Sub.Lab.Example", "SUB.LAB.EXAMPLE"),
            ("dc3.other.example", "OTHER.EXAMPLE"),
            ("dc4.elsewhere.example", "SUB.LAB.EXAMPLE"),
            ("notlab.example", "SUB.LAB.EXAMPLE"),
        ):
            role = FOREST.catalog_role(host, "sub.lab.example")
            self.assertEqual(Server(host, 3268, role=role).spn, f"GC/{host}/lab.example")
            self.assertEqual(role.realm, realm)
            self.assertEqual(role.realms, {"LAB.EXAMPLE", "SUB.LAB.EXAMPLE", "OTHER.EXAMPLE"})
            self.assertTrue(Server(host, 389, role=role).is_catalog)

    def test_named_by_the_user(self) -> None:
        """Two parts are enough."""
        self.assertEqual(parse_server("ldap://dc1.lab.example").spn, "ldap/dc1.lab.example")
        self.assertTrue(parse_server("ldap://dc1.lab.example:3268").is_catalog)
        for text in ("ldap://dc1@EVIL", "ldap://dc1\\x", "ldap://dc1\0x", "ldap://d%c1"):
            self.assertIn(
                "not a valid DNS name", str(self.assertRaises(UsageError, parse_server, text))
            )


class _Resolver:
    """Answers from a table."""

    nameserver = None

    def __init__(self, answers: dict[str, Sequence[str]]) -> None:
        self._answers = answers

    def lookup_srv(self, name: str) -> Deferred[list[SRVTarget]]:
        if name not in self._answers:
            raise NotFound(name, "no such name")
        return succeed([SRVTarget(0, 0, host, 389) for host in self._answers[name]])


class FindTests(SynchronousTestCase):
    """Where the names come from."""

    def directory(self, answers: dict[str, Sequence[str]], *servers: str) -> Directory:
        where = DirectoryOptions(realm="LAB.EXAMPLE", servers=servers)
        directory = Directory(Clock(), where, resolver=_Resolver(answers))  # type: ignore[arg-type]
        directory._forest_of["lab.example"] = 0.0, FOREST
        return directory

    def find(
        self, directory: Directory, catalog: bool, domain: str | None
    ) -> list[tuple[str, str | None]]:
        found = self.successResultOf(
            Deferred.fromCoroutine(directory._find(catalog, domain, _Progress()))
        )
        return [(each.spn, None if each.role is None else each.role.realm) for each in found]

    def test_own_domain_and_others(self) -> None:
        """A controller that DNS names has to be one of the domain that was asked for."""
        directory = self.directory(
            {f"_ldap._tcp.dc._msdcs.{each}": ["dc.x"] for each in ("lab.example", "other.example")}
        )
        self.assertEqual(
            self.find(directory, False, None), [("ldap/dc.x/lab.example", "LAB.EXAMPLE")]
        )
        self.assertEqual(
            self.find(directory, False, "other.example"),
            [("ldap/dc.x/other.example", "OTHER.EXAMPLE")],
        )

    def test_given_servers_and_another_domain(self) -> None:
        """Servers that the user named stand for their domain; another domain's come from DNS, and
        have to be of it.
        """
        answers = {"_ldap._tcp.dc._msdcs.other.example": ["dc1.lab.example"]}
        directory = self.directory(answers, "ldap://dc1.lab.example")
        self.assertEqual(
            self.find(directory, False, "lab.example"), [("ldap/dc1.lab.example", None)]
        )
        self.assertEqual(self.find(directory, True, None), [("ldap/dc1.lab.example", None)])
        self.assertEqual(
            self.find(directory, False, "other.example"),
            [("ldap/dc1.lab.example/other.example", "OTHER.EXAMPLE")],
        )

    def test_catalogs_of_the_forest(self) -> None:
        """They are looked up below the forest's name, as a domain controller told it."""
        directory = self.directory({"_gc._tcp.lab.example": ["dc.sub.lab.example"]})
        self.assertEqual(
            self.find(directory, True, None),
            [("GC/dc.sub.lab.example/lab.example", "SUB.LAB.EXAMPLE")],
        )

    def test_targets_that_are_no_host_names(self) -> None:
        """They are left out, and named."""
        names = ["rogue@EVIL", "rogue.x@LAB.EXAMPLE\0", "a/b", "a\\", "dc1.lab.example"]
        directory, progress = (
            self.directory({"_ldap._tcp.dc._msdcs.lab.example": names}),
            _Progress(),
        )
        found = self.successResultOf(Deferred.fromCoroutine(directory._find(False, None, progress)))
        self.assertEqual([each.host for each in found], ["dc1.lab.example"])
        self.assertEqual(len(progress.failures), 4)

    def test_those_that_failed_come_last(self) -> None:
        """For a while, in whatever way they were named, and then in the order given again."""
        directory = self.directory(
            {}, "ldap://a.lab.example", "ldap://b.lab.example", "ldap://c.lab.example"
        )
        directory._demote(Server("a.lab.example", 389), "10.0.0.1")
        order = [spn for spn, _ in self.find(directory, False, None)]
        self.assertEqual(order, ["ldap/b.lab.example", "ldap/c.lab.example", "ldap/a.lab.example"])
        self.assertTrue(directory._has_failed("10.0.0.1"))
        directory._failed = {key: when - 61 for key, when in directory._failed.items()}
        self.assertEqual(self.find(directory, False, None)[0][0], "ldap/a.lab.example")


class DeadlineTests(SynchronousTestCase):
    """A common deadline for several operations."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.waiting: Deferred[Any] = Deferred()
        resolver = _Resolver({"_ldap._tcp.dc._msdcs.lab.example": ["dc1.lab.example"]})
        resolver.lookup_addresses = lambda host: self.waiting  # type: ignore[attr-defined]
        self.directory = Directory(
            self.clock, DirectoryOptions(realm="LAB.EXAMPLE"), resolver=resolver
        )  # type: ignore[arg-type]

    def test_one_for_all(self) -> None:
        """Work that begins later has less time; the error names who is waited for."""
        self.clock.advance(10)
        found = self.directory.run(lambda session: None, deadline=15)
        self.clock.advance(4.9)
        self.assertNoResult(found)
        self.clock.advance(0.2)
        line = str(self.failureResultOf(found, DirectoryUnreachable).value)
        self.assertIn(
            "gave up after 5 s: DNS (for dc1.lab.example) does not answer; check that it runs", line
        )
        self.assertFalse(self.clock.getDelayedCalls())

    def test_what_cannot_be_cancelled(self) -> None:
        """A step that goes on when it is cancelled holds nothing up, and its late result goes
        nowhere.
        """
        self.waiting = Deferred(lambda waiting: waiting.callback([]))
        found = self.directory.run(lambda session: None, deadline=1)
        self.clock.advance(1)
        self.failureResultOf(found, DirectoryUnreachable)

    def test_cancelled(self) -> None:
        """A caller that cancels hears so at once, with a deadline and without; a step that goes on
        for all that writes nothing.

        No timer is left, which would find the operation over.
        """
        for deadline in (None, self.clock.seconds() + 15):
            threads = HeldWorkers()
            self.patch(self.directory, "_workers", threads)
            self.waiting = Deferred(lambda waiting: waiting.callback(["192.0.2.1"]))
            connection = mock.Mock(closed=True)  # for the idle sessions, which do not keep it then
            session, refused = LdapSession(connection, "dc1"), list[str]()
            self.patch(self.directory._idle, "take", lambda *_, session=session: session)

            def work(session: LdapSession, refused: list[str] = refused) -> None:
                refused.append(str(self.assertRaises(DirectoryRefused, session.delete, "CN=x")))

            found = self.directory.run(work, deadline=deadline)
            found.cancel()
            self.failureResultOf(found, CancelledError)
            threads.finish()
            self.assertEqual(
                refused, ["CN=x: it is not changed: the operation was given up; try again"]
            )
            connection.delete.assert_not_called()
            self.clock.advance(100)
            self.assertFalse(self.clock.getDelayedCalls())

    def test_in_time(self) -> None:
        """Work that ends by itself leaves no timer; other operations have no deadline."""
        found, first = self.directory.run(lambda session: None, deadline=1), self.waiting
        self.waiting = Deferred()
        other = self.directory.run(lambda session: None)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for waiting, each in ((first, found), (self.waiting, other)):
            waiting.callback([])
            self.failureResultOf(each, DirectoryUnreachable)
        self.assertFalse(self.clock.getDelayedCalls())
        self.waiting = Deferred()
        found = self.directory.run(lambda session: None)
        self.clock.advance(100)
        self.assertNoResult(found)
        self.assertFalse(self.clock.getDelayedCalls())
        found.cancel()
        self.failureResultOf(found, CancelledError)


class _Session:
    usable, wrote = True, False

    def close(self) -> None:
        pass


class IdleSessionTests(SynchronousTestCase):
    """Connections that wait for their next use."""

    def test_what_it_authenticated_as_counts(self) -> None:
        """A session with a host that the user named is not lent for the same host where DNS named
        it, nor for a catalog.
        """
        idle, session = _IdleSessions(60), _Session()
        given = Server("dc1.lab.example", 389)
        idle.give(given, "10.0.0.1", session)  # type: ignore[arg-type]
        for other in (
            Server("dc1.lab.example", 389, role=Role.of_domain("lab.example")),
            Server(
                "dc1.lab.example", 389, role=FOREST.catalog_role("dc1.lab.example", "lab.example")
            ),
            Server("dc1.lab.example", 389, tls=True),
        ):
            self.assertIsNone(idle.take(other, "10.0.0.1"))
        self.assertIsNone(idle.take(given, "10.0.0.2"))
        self.assertIs(idle.take(given, "10.0.0.1"), session)


class TargetTests(SynchronousTestCase):
    """A server is not connected to before there is a ticket for what it has to be."""

    def setUp(self) -> None:
        self.realm = make_realm(self)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        self.listener.setblocking(False)

    def open(
        self, spn: str, realms: frozenset[str] | None, ticket: str = "ldap/dc1.x/test.example"
    ) -> None:
        credentials = tickets_for(
            ClientCredentials(ccache=self.realm.ccache("alice", ticket, "dc1"))
        ).acquire()
        target = Target(
            "127.0.0.1", self.listener.getsockname()[1], "dc1.x", f"{spn}@{self.realm.name}", realms
        )
        open_sealed(target, credentials, login_timeout=0.1, receive_timeout=1)

    def test_the_right_ticket(self) -> None:
        """With it the server is connected to; it does not answer here."""
        error = self.assertRaises(
            DirectoryUnreachable,
            self.open,
            "ldap/dc1.x/test.example",
            frozenset((self.realm.name,)),
        )
        self.assertIn("no answer in time", str(error))
        self.listener.accept()[0].close()

    def test_another_realms_ticket(self) -> None:
        """A ticket of a realm that is not the domain's is not shown, however the KDC came to grant
        it.
        """
        error = self.assertRaises(
            PeerNotAuthenticated,
            self.open,
            "ldap/dc1.x/test.example",
            frozenset(("OTHER.EXAMPLE",)),
        )
        self.assertIn("NOT AUTHENTICATED", str(error))
        self.assertRaises(BlockingIOError, self.listener.accept)

    def test_no_ticket(self) -> None:
        """A ticket for two parts is not valid for three."""
        self.assertRaises(CredentialError, self.open, "ldap/dc1.x/test.example", None, "ldap/dc1.x")
        self.assertRaises(BlockingIOError, self.listener.accept)
