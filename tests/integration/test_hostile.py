"""Text that others wrote into the directory, where commands and services show it."""

from __future__ import annotations

import json
import time
from uuid import uuid4

from twisted.internet import reactor

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.scp import read_scp
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.session import Change, LdapSession
from mutauth_twisted.testing.hostile import HOSTILE_NAME, raw_in
from tests.integration.commands import WAIT, CommandTestCase, Ended

#: What an attribute of the directory takes of it, a name in a DN escaped.
HOSTILE = HOSTILE_NAME.replace("\udcff", "")


class HostileDirectoryTests(CommandTestCase):
    """Every attribute that is shown, with what a terminal obeys and nobody sees in it."""

    def setUp(self) -> None:
        super().setUp()
        self.admin = Directory(
            reactor,
            DirectoryOptions(nameserver=self.lab.nameserver),
            credentials=ClientCredentials(ccache=self.lab.ccache("administrator")),
        )
        self.addCleanup(self.admin.close)

    async def write(self, dn: str, **attributes: str | tuple[str, ...]) -> None:
        changes = [
            Change("replace", name, (value,) if isinstance(value, str) else value)
            for name, value in attributes.items()
        ]
        await self.admin.run(lambda session: session.modify(dn, changes))

    def safe(self, ended: Ended) -> Ended:
        """Nothing raw in what a command printed, no line that others wrote, and no traceback."""
        for text in (ended.output, ended.errors):
            self.assertEqual(raw_in(text), [], ended)
            self.assertNotIn("Traceback", text)
            self.assertEqual(
                [line for line in text.splitlines() if line.startswith("2026-01-01T00:00:00 root")],
                [],
            )
        return ended

    async def scp(self) -> str:
        """This test's connection point."""
        installed = self.install()
        self.assertEqual(installed.code, 0, installed)
        found = self.mutauth("scp", "find", self.service_class, "--json", *self.directory[:2])
        return str(json.loads(found.output)[0]["dn"])

    async def test_connection_point(self) -> None:
        """The attributes of a connection point: in all commands, in a client's steps, and in a
        service's log.
        """
        dn = await self.scp()
        nameserver = self.directory[:2]
        for name in (
            "serviceBindingInformation",
            "serviceDNSName",
            "serviceDNSNameType",
            "serviceClassName",
            "keywords",
        ):
            before = await self.admin.run(lambda session, name=name: session.read(dn, [name]))
            value = (self.service_class, HOSTILE) if name == "keywords" else HOSTILE
            await self.write(dn, **{name: value})
            for words in (
                ("scp", "list", "--long"),
                ("scp", "list"),
                ("scp", "list", "--json"),
                ("scp", "find", self.service_class),
                ("scp", "find", self.service_class, "--json"),
                ("scp", "show", dn),
                ("scp", "show", dn, "--json"),
                ("scp", "find", HOSTILE),
                ("scp", "show", f"CN={HOSTILE}"),
                ("connect", "-v", self.endpoint),
            ):
                self.safe(self.mutauth(*words, *(nameserver if words[0] == "scp" else ())))
            shown = self.safe(self.mutauth("scp", "show", dn, *nameserver))
            if name != "serviceDNSNameType":  # of which only SRV is told
                self.assertIn("\\x1b[31m", shown.output + shown.errors, name)
            await self.write(dn, **{name: before.texts(name)})

    async def test_service(self) -> None:
        """A service says what it overwrites, whatever that was, in its log and on its status
        page.
        """
        dn = await self.scp()
        with self.service("--check-interval", "0.3") as service:
            await self.write(dn, serviceBindingInformation=HOSTILE, serviceDNSName=HOSTILE)
            give_up_at = time.monotonic() + WAIT
            while True:
                point = await self.admin.run(lambda session: read_scp(session, dn))
                if point.binding_text and "\x1b" not in point.binding_text:
                    break
                self.assertLess(time.monotonic(), give_up_at)
            service.stop()
        self.assertEqual(raw_in(service.log), [])
        self.assertIn("it said x\\x1b[31m", service.log)
        self.assertIn("published again", service.log)

    async def test_names(self) -> None:
        """Objects' names: a group that allows, a container, an account and its SPNs."""
        name = f"h{uuid4().hex[:8]}"
        hostile = f"{name}\x1b[31m\u202e\u200b"
        group = f"CN={hostile},CN=Users,{self.lab.base_dn}"
        user = f"CN={hostile}u,CN=Users,{self.lab.base_dn}"

        def make(session: LdapSession) -> None:
            session.add(group, {"objectClass": "group", "sAMAccountName": name})
            session.add(user, {"objectClass": "user", "sAMAccountName": f"{name}u"})

        def remove(session: LdapSession) -> None:
            session.delete(group)
            session.delete(user)

        await self.admin.run(make)
        self.addCleanup(lambda: self.admin.run(remove))
        self.assertEqual(self.install().code, 0)
        with self.service("--allow-group", name, "--deny-group", group) as service:
            connected = self.safe(self.mutauth("connect", "-v", self.endpoint, given="x"))
            self.assertEqual(connected.code, 0, connected)
            service.stop()
        self.assertEqual(raw_in(service.log), [])
        self.assertIn(f"group {name} is CN={name}\\x1b[31m", service.log)
        await self.write(user, servicePrincipalName=f"{self.service_class}/{hostile}")
        for words in (
            ("spn", "list", user),
            ("spn", "list", f"{name}u"),
            ("spn", "query", f"{self.service_class}/*"),
        ):
            self.safe(self.mutauth(*words, *self.directory[:2], user="administrator"))
