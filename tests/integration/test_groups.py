"""Groups that an administrator names: found in the directory, seen in tickets, and watched while a
service runs.
"""

from __future__ import annotations

import re
from typing import Any
from unittest import mock
from uuid import uuid4

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.directory.acl import parse_sid
from mutauth_twisted.errors import (
    DirectoryRefused,
    DirectoryUnreachable,
)
from mutauth_twisted.ldap.session import Change, LdapSession
from mutauth_twisted.service import groups
from tests.cases.groups import GLOBAL, LOCAL, SECURITY, UNIVERSAL, FindCases, add_group, remove
from tests.integration.account_case import AccountCase
from tests.integration.commands import CommandTestCase
from tests.integration.directory_case import DirectoryTestCase
from tests.integration.maintenance_case import RIGHT, MaintenanceCase


def sids(policy: AccessPolicy, effect: str) -> tuple[str, ...]:
    """The groups of a policy that are allowed or denied."""
    return tuple(sid for rule in policy.every_rule if rule.effect == effect for sid in rule.groups)


class TicketTests(AccountCase):
    """Groups that a KDC puts into tickets."""

    async def test_in_tickets(self) -> None:
        """Global, universal and domain-local security groups, nested ones too, are in tickets; mail
        groups are not.
        """
        user = await self.add(self.mallory)
        kinds = {
            f"{kind}{self.tag}": SECURITY | scope
            for kind, scope in (("g", GLOBAL), ("l", LOCAL), ("u", UNIVERSAL))
        }
        kinds[f"m{self.tag}"] = GLOBAL
        sids = {}
        for name, group_type in kinds.items():
            dn, sids[name] = await self.add_group(name, group_type, user)
            if name.startswith("u"):
                _, sids[f"o{self.tag}"] = await self.add_group(f"o{self.tag}", SECURITY | LOCAL, dn)
        identity = await self.allowed(AccessPolicy(allow_all=True), self.as_name(self.mallory))
        seen = {name[0] for name, sid in sids.items() if sid in identity.groups}
        self.assertEqual(seen, {"g", "l", "u", "o"})
        self.assertFalse([sid for sid in identity.groups if sid.startswith("S-1-5-32-")])
        await self.kept_out(
            AccessPolicy(allow_all=True, deny_groups=[sids[f"o{self.tag}"]]),
            self.as_name(self.mallory),
        )

    async def add_group(self, name: str, group_type: int, member: str) -> tuple[str, str]:
        """A new group; its DN and its SID."""
        dn = await self.do(lambda session: add_group(session, name, group_type, (member,)))
        self.addCleanup(lambda: self.administrator.run(lambda session: remove(session, dn)))
        entry = await self.do(lambda session: session.read(dn, ["objectSid"]))
        return dn, parse_sid(entry.values("objectSid")[0])


class NameTests(MaintenanceCase):
    """Accounts that a service's rules name, at its start."""

    async def test_names(self) -> None:
        """A name that nobody has is told in a line, with who may have been meant; other names are
        not.
        """
        user = f"u (\u00eb) {uuid4().hex[:8]}"
        dn = f"CN={user},CN=Users,{self.lab.base_dn}"
        upn = f"robert-{uuid4().hex[:8]}"
        attributes = {
            "objectClass": "user",
            "sAMAccountName": user,
            "userPrincipalName": f"{upn}@lab.example",
        }
        await self.as_administrator(lambda session: session.add(dn, attributes))
        self.addCleanup(self.as_administrator, lambda session: remove(session, dn))
        missed = "no account has this sAMAccountName; did you mean"
        cases = (
            ("--allow", "srv1@LAB.EXAMPLE", f"{missed} srv1$@LAB.EXAMPLE?"),
            ("--allow", "LAB\\srv1", f"{missed} LAB\\srv1$?"),
            ("--allow", f"{upn}@lab.example", f"{missed} {user}@lab.example?"),
            (
                "--deny",
                "nobody\\/x@LAB.EXAMPLE",
                "no account has this name; check its sAMAccountName",
            ),
            ("--deny", "lab\\bobby", "no account has this name"),
            (
                "--deny",
                "Echo-Users@LAB.EXAMPLE",
                "it is a group, not an account; --deny-group echo-users",
            ),
        )
        silent = (
            *(
                ("--allow", "ALICE@lab.example"),
                ("--allow", f"{user}@LAB.EXAMPLE"),
                ("--allow", "LAB\\srv1$"),
            ),
            *(
                ("--deny", "srv1@LAB.EXAMPLE"),
                ("--deny", f"{upn}@LAB.EXAMPLE"),
                ("--deny", "lab.example\\SRV1$"),
            ),
            *(
                ("--allow", "nob?dy@LAB.EXAMPLE"),
                ("--deny", "nobody@OTHER.EXAMPLE"),
                ("--deny", "OTHER\\nobody"),
            ),
        )
        options = [word for option, pattern, *_ in (*cases, *silent) for word in (option, pattern)]
        await self.started(
            "--spn-check", "off", "--publish", "none", "--allow-group", "echo-users", *options
        )
        lines = [line for line in self.lines if re.match(r"\[account-[a-z-]+\] --", line)]
        self.assertEqual(len(lines), len(cases), lines)
        for line, (option, pattern, words) in zip(lines, cases, strict=True):
            self.assertIn(f"] {option} {pattern}: {words}", line)


class WatchTests(MaintenanceCase):
    """Groups that change while a service runs, which asks the directory for nothing else."""

    async def add(self, name: str) -> str:
        dn = await self.as_administrator(lambda session: add_group(session, name))
        self.addCleanup(self.as_administrator, lambda session: remove(session, dn))
        return dn

    async def test_renamed_and_back(self) -> None:
        """A group whose name is gone still counts; that it is gone is said, with the error of a
        start.
        """
        name = f"g{uuid4().hex[:8]}"
        dn = await self.add(name)
        publisher = await self.started(
            "--spn-check", "off", "--publish", "none", "--allow-group", name
        )
        (policy,) = self.policies
        (sid,) = sids(policy, "allow")
        await self.logged(f"group {name} is {dn}, {sid}")
        for text in (f"{name}x", name):
            change = Change("replace", "sAMAccountName", (text,))
            await self.as_administrator(lambda session, change=change: session.modify(dn, [change]))
            if text != name:
                await self.logged(
                    f"group {name}: lab.example has no such group",
                    f"it was {sid}, which still counts",
                )
                self.assertEqual(len(publisher.wrong), 1)
        await self.logged(RIGHT)
        self.assertEqual((publisher.wrong, self.policies), ((), [policy]))

    async def test_created_anew(self) -> None:
        """Members of a new group of the same name are not allowed, and are denied where it is
        denied.
        """
        allowed, denied = f"a{uuid4().hex[:8]}", f"d{uuid4().hex[:8]}"
        dns = [await self.add(allowed), await self.add(denied)]
        options = (
            "--spn-check",
            "off",
            "--publish",
            "none",
            "--allow-group",
            allowed,
            "--deny-group",
            denied,
        )
        publisher = await self.started(*options)
        (first,) = self.policies
        self.assertEqual((len(sids(first, "allow")), len(sids(first, "deny"))), (1, 1))
        for dn in dns:
            await self.as_administrator(lambda session, dn=dn: session.delete(dn))
        for name in (allowed, denied):
            await self.add(name)
        await self.logged(
            f"group {allowed}: it is another group now", "its members are not allowed"
        )
        await self.logged(
            f"group {denied}: it is another group now", "members of either are denied"
        )
        last = self.policies[-1]
        self.assertEqual(sids(last, "allow"), sids(first, "allow"))
        self.assertEqual(
            (len(sids(last, "deny")), sids(last, "deny")[:1]), (2, sids(first, "deny"))
        )
        self.assertEqual(len(publisher.wrong), 2)

    async def test_beside_an_entry(self) -> None:
        """A group that is gone is told beside what is wrong with the SCP."""
        name = f"g{uuid4().hex[:8]}"
        dn = await self.add(name)
        found = await self.install()
        publisher = await self.started("--allow-group", name, found=found)
        await self.as_administrator(lambda session: session.delete(dn))
        await self.as_administrator(lambda session: session.delete(found.dn))
        await self.logged(f"group {name}: lab.example has no such group")
        await self.logged(f"SCP {found.guid}: the directory has no such object")
        self.assertEqual(len(publisher.wrong), 2)

    async def test_unreadable(self) -> None:
        """A group that cannot be read is told beside what is wrong with the others and the SCP, and
        keeps its SID.
        """
        first, second = f"g{uuid4().hex[:8]}", f"g{uuid4().hex[:8]}"
        dns = [await self.add(name) for name in (first, second)]
        found = await self.install()
        publisher = await self.started("--allow-group", first, "--allow-group", second, found=found)
        (policy,) = self.policies
        right = groups.find_group

        def refused(session: LdapSession, catalog: LdapSession, name: str) -> groups.Group:
            if name == first:
                raise DirectoryRefused(
                    dns[0], "insufficient access rights", "ask an administrator", result=50
                )
            return right(session, catalog, name)

        self.patch(groups, "find_group", refused)
        await self.as_administrator(lambda session: session.delete(dns[1]))
        await self.as_administrator(lambda session: session.delete(found.dn))
        await self.logged(
            f"group {first}: it cannot be read: insufficient access rights; at the start",
            "still counts",
        )
        await self.logged(f"group {second}: lab.example has no such group")
        await self.logged(f"SCP {found.guid}: the directory has no such object")
        self.assertEqual((len(publisher.wrong), self.policies), (3, [policy]))

    async def test_nobody_to_ask(self) -> None:
        """Where the groups cannot be looked up at all the SCP is inspected all the same, and one
        fault is one line.
        """
        name = f"g{uuid4().hex[:8]}"
        await self.add(name)
        found = await self.install()
        publisher = await self.started("--allow-group", name, found=found)
        gone = DirectoryUnreachable("domain controller dc1", "it went away", "try again")
        run = publisher._directory.run_with_catalog

        async def broken(work: Any) -> Any:
            if getattr(work, "__func__", None) is groups.NamedGroups.look:
                raise gone
            return await run(work)

        self.patch(publisher._directory, "run_with_catalog", broken)
        await self.as_administrator(lambda session: session.delete(found.dn))
        await self.logged(str(gone))
        await self.logged(f"SCP {found.guid}: the directory has no such object")
        self.assertEqual(len(publisher.wrong), 2)
        self.patch(publisher._directory, "run_with_catalog", mock.AsyncMock(side_effect=gone))
        await self.logged(f"no longer: [scp-not-found] SCP {found.guid}")
        self.assertEqual(publisher.wrong, (gone.finding,))


class CommandTests(CommandTestCase):
    """``twistd mutauth`` with groups by name."""

    NOTHING = ("--spn-check", "off", "--publish", "none")

    def direct(self, port: int) -> str:
        """The endpoint of a service that nothing was published for."""
        return (
            rf"mutauth:tcp\:{self.lab.address_of(self.host)}\:{port}:"
            rf"spn={self.service_class}/{self.host}"
        )

    def add_spn(self) -> None:
        """Register the service's SPN until the test ends."""
        spn = f"{self.service_class}/{self.host}"
        words = ("svc-echo", spn, "--nameserver", self.lab.nameserver)
        self.assertEqual(self.mutauth("spn", "add", *words, user="administrator").code, 0)
        self.addCleanup(self.mutauth, "spn", "delete", *words, user="administrator")

    def test_members(self) -> None:
        """alice is in echo-users and gets in; bob is not."""
        self.add_spn()
        options = (
            "--allow",
            "nobody@LAB.EXAMPLE",
            "--allow-group",
            "LAB\\echo-users",
            *self.NOTHING,
        )
        with self.service(*options) as service:
            alice = self.mutauth("connect", self.direct(service.port), given="hello\n")
            bob = self.mutauth("connect", self.direct(service.port), given="hello\n", user="bob")
        self.assertEqual((alice.code, alice.output), (0, "hello\n"), alice)
        self.refused(bob, 4, "its access policy does not allow this principal")
        self.assertIn(
            "no rule allows it; its account is bob@LAB.EXAMPLE (LAB\\bob); --allow that",
            service.log,
        )

    def test_denied(self) -> None:
        """Everyone but the members."""
        self.add_spn()
        with self.service("--deny-group", "echo-users@lab.example", *self.NOTHING) as service:
            alice = self.mutauth("connect", self.direct(service.port), given="hello\n")
            bob = self.mutauth("connect", self.direct(service.port), given="hello\n", user="bob")
        self.refused(alice, 4, "its access policy does not allow this principal")
        self.assertNotIn("echo-users", alice.errors)
        self.assertIn(
            "denied by --deny-group echo-users@lab.example; its account is LAB\\alice",
            service.log,
        )
        self.assertEqual((bob.code, bob.output), (0, "hello\n"), bob)

    def test_without_a_tcp_port(self) -> None:
        """A service that publishes nothing may listen where there is no TCP, and still looks at
        the directory.
        """
        self.assertEqual(self.install().code, 0)
        options = (
            "--publish",
            "none",
            "--allow-group",
            "echo-users",
            "--listen",
            f"unix:{self.state}/socket",
        )
        with self.service(*options) as service:
            self.assertIn("group echo-users is CN=echo-users,", service.log)
            self.assertIn("and no other account does", service.log)

    def test_no_start(self) -> None:
        """A service whose group is not there does not start, and says so in one line."""
        for name, code, words in (
            ("no such", 1, "group no such: lab.example has no such group; check its name"),
            ("alice", 2, "group alice: it is a user ("),
            ("Administrators", 2, "group Administrators: no ticket names it"),
        ):
            ended = self.start_refused("--allow-group", name, *self.NOTHING)
            self.assertEqual(ended.code, code, ended)
            self.assertIn(f"{self.service_class} does not start: [group-", ended.output)
            self.assertIn(f"] {words}", ended.output)
            self.assertNotIn("Traceback", ended.output + ended.errors)


class FindTests(FindCases, DirectoryTestCase):
    """Names of groups, as the service's own account looks for them."""
