"""The attack on the directory: whoever answers DNS, with one computer account, is not taken for a
domain controller.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import DirectoryUnreachable
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.session import LdapSession
from tests.integration.commands import CommandTestCase, Ended
from tests.integration.rogue import FORGED_SPN, RogueDirectory, RogueDNS

NOT_AUTHENTICATED = (
    "it is NOT AUTHENTICATED: the KDC of LAB.EXAMPLE knows no domain controller of this name in "
    "lab.example"
)


class RogueCase(CommandTestCase):
    """A rogue with the key of the lab's computer ``rogue``, which has registered itself."""

    def setUp(self) -> None:
        super().setUp()
        self.rogue_host = self.lab.host("rogue")
        here = self.lab.address_of(self.rogue_host)
        self.rogue, self.dns = RogueDirectory(self.lab, here), RogueDNS(self.lab, here)
        self.addCleanup(self.rogue.close)
        self.addCleanup(self.dns.close)
        self.ask_rogue = ("--nameserver", self.dns.nameserver)
        self.addCleanup(self.register, "delete")
        self.register("add")

    def environment(self, user: str, **changes: str) -> dict[str, str]:
        return super().environment(user, KRB5CCNAME=self.ccache(user), **changes)

    def ccache(self, user: str) -> str:
        """Somebody's tickets in a file of this test's own: one for the rogue must not stay
        behind.
        """
        mine = Path(self.state) / f"{user}.ccache"
        if not mine.exists():
            shutil.copyfile(self.lab.ccache(user).removeprefix("FILE:"), mine)
        return f"FILE:{mine}"

    def register(self, what: str) -> None:
        """The computer does this itself, by a validated write."""
        words = (
            "spn",
            what,
            "rogue$",
            f"ldap/{self.rogue_host}",
            "--nameserver",
            self.lab.nameserver,
        )
        ended = self.mutauth(*words, user="rogue")
        self.assertEqual(ended.code, 0, ended)

    def attack(self, *behind: tuple[int, bytes, int]) -> None:
        """Answer DNS: the domain controllers and the global catalogs are the rogue, and after it
        those given.
        """
        domain, here = self.lab.realm.lower(), (0, self.rogue_host.encode(), self.rogue.port)
        self.dns.srv[f"_ldap._tcp.dc._msdcs.{domain}"] = [here, *behind]
        catalogs = [(priority, host, 3268) for priority, host, _ in behind]
        self.dns.srv[f"_gc._tcp.{domain}"] = [here, *catalogs]

    def assert_refused(self, ended: Ended) -> None:
        """The command failed because the controller is not authenticated, and asked it nothing."""
        line = next(
            (
                each
                for each in (ended.output + ended.errors).splitlines()
                if NOT_AUTHENTICATED in each
            ),
            None,
        )
        self.assertIsNotNone(line, ended)
        self.assertIn(f"domain controller {self.rogue_host}:{self.rogue.port}", line or "")
        self.assertIn(f"no account holds the SPN ldap/{self.rogue_host}/lab.example", line or "")
        self.assertIn("find out who answers DNS for _ldap._tcp.dc._msdcs.lab.example", line or "")
        self.assertNotIn("or name one with directory", line or "")
        self.assertNotIn("Traceback", ended.output + ended.errors)
        self.assertEqual((ended.code, self.rogue.operations, self.rogue.tokens), (3, [], 0), ended)


class CommandTests(RogueCase):
    """Each command, with a rogue in the place of the domain controllers."""

    def test_believed_by_name(self) -> None:
        """The rogue works: named by the user it is believed, and its lies come out.  So the others
        can fail.
        """
        self.dns.hosts[self.rogue_host] = self.rogue.address
        named = ("--directory", f"ldap://{self.rogue_host}:{self.rogue.port}")
        ended = self.mutauth("spn", "list", "alice", *named, *self.ask_rogue)
        self.assertEqual(ended.code, 0, ended)
        self.assertIn(FORGED_SPN, ended.output)
        self.assertTrue(self.rogue.operations)

    def test_commands(self) -> None:
        """Commands of administrators and users refuse it before they ask it anything."""
        self.attack()
        state = ("--state-dir", self.state)
        for words, user in (
            (("install", *self.common, "--account", "svc-echo", *state), "administrator"),
            (("uninstall", *self.common, *state), "administrator"),
            (("spn", "list", "alice"), "alice"),
            (("spn", "query", "host/*"), "alice"),
            (("spn", "add", "svc-echo", f"{self.service_class}/x"), "administrator"),
            (("spn", "duplicates"), "alice"),
            (("scp", "list"), "alice"),
            (("scp", "find", "anything"), "alice"),
            (("scp", "show", f"CN=x,{self.lab.base_dn}"), "alice"),
            (("rnr", "list"), "alice"),
            (
                (
                    "connect",
                    f"mutauth:scp=anything:nameserver={self.dns.address}\\:{self.dns.port}",
                ),
                "alice",
            ),
            (
                (
                    "connect",
                    f"mutauth:scp=CN=x,{self.lab.base_dn}:spn-form=host:hosts=*:nameserver={self.dns.address}\\:{self.dns.port}".replace(
                        "CN=x", "CN\\=x"
                    ).replace("DC=", "DC\\="),
                ),
                "alice",
            ),
        ):
            options = () if words[0] == "connect" else self.ask_rogue
            self.assert_refused(self.mutauth(*words, *options, user=user))

    def test_its_names_as_a_global_catalog(self) -> None:
        """With honest domain controllers, a global catalog that DNS names is refused as well."""
        self.dns.srv["_gc._tcp.lab.example"] = [(0, self.rogue_host.encode(), self.rogue.port)]
        ended = self.mutauth("spn", "query", "host/*", *self.ask_rogue)
        self.assertEqual(ended.code, 3, ended)
        self.assertIn("knows no global catalog of this name in lab.example", ended.errors)
        self.assertIn(f"no account holds the SPN GC/{self.rogue_host}/lab.example", ended.errors)
        self.assertEqual((self.rogue.operations, self.rogue.tokens), ([], 0))

    def test_the_controllers_name_at_its_address(self) -> None:
        """The true name with the rogue's address gets it a ticket that it cannot open."""
        self.attack((0, self.lab.dc_host.encode(), self.rogue.port))
        del self.dns.srv["_ldap._tcp.dc._msdcs.lab.example"][0]
        self.dns.hosts[self.lab.dc_host] = self.rogue.address
        ended = self.mutauth("spn", "list", "alice", *self.ask_rogue)
        self.assertEqual((ended.code, self.rogue.operations), (3, []), ended)
        self.assertEqual(self.rogue.tokens, 1)
        self.assertNotIn("Traceback", ended.errors)

    def test_names_that_are_read_otherwise(self) -> None:
        """A target that would end the principal early, or name another realm in it, is not a host
        name.
        """
        for target in (
            self.rogue_host.encode() + b"@LAB\\",
            b"rogue.lab.example@LAB.EXAMPLE\0",
            b"rogue/x",
            b"rogue.lab.example@LAB.EXAMPLE",
        ):
            self.attack()
            self.dns.srv["_ldap._tcp.dc._msdcs.lab.example"] = [(0, target, self.rogue.port)]
            ended = self.mutauth("spn", "list", "alice", *self.ask_rogue)
            self.assertEqual(
                (ended.code, self.rogue.operations, self.rogue.tokens), (3, [], 0), ended
            )
            self.assertEqual(len(ended.errors.splitlines()), 1, ended)
            self.assertIn("host name", ended.errors)


class ServiceTests(RogueCase):
    """A service's start, its groups, and its look at the directory while it runs."""

    def test_start(self) -> None:
        """It does not start by the rogue's word."""
        self.assertEqual(self.install().code, 0)
        self.attack()
        self.assert_refused(self.start_refused(*self.ask_rogue))

    def test_groups(self) -> None:
        """The name of a group that is allowed is not looked up there."""
        self.attack()
        options = ("--publish", "none", "--spn-check", "off", "--allow-group", "echo-users")
        self.assert_refused(self.start_refused(*options, *self.ask_rogue))

    def test_periodic_check(self) -> None:
        """A running service says that it found no domain controller, asks the rogue nothing, and
        serves on.
        """
        self.assertEqual(self.install().code, 0)
        with self.service("--check-interval", "0.5", *self.ask_rogue) as running:
            self.attack()
            line = self.line_with(running, NOT_AUTHENTICATED)
            self.assertIn(self.rogue_host, line)
            ended = self.mutauth("connect", self.endpoint, given="still here\n")
            self.assertEqual((ended.code, ended.output), (0, "still here\n"), ended)
            self.dns.srv.clear()
            running.stop()
        self.assertEqual((self.rogue.operations, self.rogue.tokens), ([], 0))

    def line_with(self, running: Any, words: str) -> str:
        """The first line of the log with these words; the block's timer ends a log without."""
        for line in running.process.stdout:
            running.lines.append(line)
            if words in line:
                return str(line)
        raise self.failureException(running.log)

    def test_an_honest_one_behind_it(self) -> None:
        """With the rogue first and a domain controller second, everything is served, by the
        second.
        """
        self.attack((10, self.lab.dc_host.encode(), 389))
        self.addCleanup(self._uninstall)
        words = ("install", *self.common, "--account", "svc-echo", "--state-dir", self.state)
        ended = self.mutauth(*words, *self.ask_rogue, user="administrator")
        self.assertEqual(ended.code, 0, ended)
        with self.service("--allow-group", "echo-users", *self.ask_rogue):
            endpoint = (
                f"mutauth:scp={self.service_class}:nameserver={self.dns.address}\\:{self.dns.port}"
            )
            ended = self.mutauth("connect", endpoint, given="hello\n")
            self.assertEqual((ended.code, ended.output), (0, "hello\n"), ended)
        ended = self.mutauth("scp", "find", self.service_class, *self.ask_rogue)
        self.assertIn(self.host, ended.output)
        ended = self.mutauth(
            "uninstall",
            *self.common,
            "--state-dir",
            self.state,
            *self.ask_rogue,
            user="administrator",
        )
        self.assertEqual(ended.code, 0, ended)
        self.assertEqual((self.rogue.operations, self.rogue.tokens), ([], 0))


class SessionTests(RogueCase):
    """Connections that were made under a weaker name."""

    def as_alice(self, *servers: str, keep: float = 5.0) -> Directory:
        """The directory as the rogue's DNS has it."""
        credentials = ClientCredentials(ccache=self.ccache("alice"))
        directory = Directory(
            reactor,
            DirectoryOptions(servers, nameserver=self.dns.nameserver),
            credentials,
            keep=keep,
        )
        self.addCleanup(directory.close)
        return directory

    async def test_not_lent(self) -> None:
        """A connection to a host that the user named is not used for one that DNS named, even if it
        is the same.
        """
        self.dns.hosts[self.rogue_host] = self.rogue.address
        directory = self.as_alice(f"ldap://{self.rogue_host}:{self.rogue.port}")
        first = await directory.run(lambda session: (session, session.domain_dn))
        self.assertEqual(first[1], self.lab.base_dn)
        self.assertIs(
            await directory.run(lambda session: session), first[0]
        )  # it is kept, and lent again
        asked = len(self.rogue.operations)
        self.attack()
        directory._servers = []  # as for another domain, which given servers do not stand for
        with self.assertRaises(DirectoryUnreachable) as refused:
            await directory.run(lambda session: session)
        self.assertIn(NOT_AUTHENTICATED, str(refused.exception))
        self.assertEqual(len(self.rogue.operations), asked)

    async def test_after_a_while_the_first_is_tried_first_again(self) -> None:
        """A server that failed comes last for a while, so that each operation does not wait for it
        again.
        """
        self.attack((10, self.lab.dc_host.encode(), 389))
        directory = self.as_alice(keep=0.0)

        def server(session: LdapSession) -> str:
            return session.server

        for _ in range(2):
            self.assertEqual(await directory.run(server), self.lab.dc_host)
        self.assertEqual(self.dns.asked.count(self.rogue_host), 2)  # A and AAAA, once
        directory._failed = {key: when - 61 for key, when in directory._failed.items()}
        self.assertEqual(await directory.run(server), self.lab.dc_host)
        self.assertEqual(self.dns.asked.count(self.rogue_host), 4)
