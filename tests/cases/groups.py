"""Names of groups, as an administrator writes them down."""

from __future__ import annotations

from uuid import uuid4

from mutauth_twisted.directory.groups import Group, find_group
from mutauth_twisted.errors import MutualAuthError, NotFound, UsageError
from mutauth_twisted.ldap.session import LdapSession
from tests.cases.world import DirectoryWorld

SECURITY = -0x80000000
GLOBAL, LOCAL, UNIVERSAL = 2, 4, 8


def add_group(
    session: LdapSession,
    name: str,
    group_type: int = SECURITY | GLOBAL,
    members: tuple[str, ...] = (),
) -> str:
    """A new group; its DN."""
    dn = f"CN=group {name},CN=Users,{session.domain_dn}"
    attributes: dict[str, str | tuple[str, ...]] = {
        "objectClass": "group",
        "sAMAccountName": name,
        "groupType": str(group_type),
    }
    if members:
        attributes["member"] = members
    session.add(dn, attributes)
    return dn


def remove(session: LdapSession, dn: str) -> None:
    """A group that is not there any more is not an error."""
    try:
        session.delete(dn)
    except NotFound:
        return


class FindCases(DirectoryWorld):
    """Names of groups, as the service's own account looks for them."""

    async def add(self, name: str, group_type: int = SECURITY | GLOBAL) -> str:
        dn = await self.do("administrator", lambda session: add_group(session, name, group_type))
        self.addCleanup(
            lambda: self.as_user("administrator").run(lambda session: remove(session, dn))
        )
        return dn

    async def find(self, name: str) -> Group:
        return await self.as_user("svc-echo").run_with_catalog(
            lambda own, catalog: find_group(own, catalog, name)
        )

    async def not_found(self, name: str, kind: type[MutualAuthError], *words: str) -> None:
        line = await self.failure_of(self.find(name), kind)
        self.assertTrue(line.startswith(f"group {name}: "), line)
        for word in words:
            self.assertIn(word, line)

    async def test_names(self) -> None:
        """A group is found by each of its names, in whatever case, and is the same each time."""
        name = f"g (\u00eb) {uuid4().hex[:8]}"
        dn = await self.add(name)
        found = await self.find(name)
        self.assertEqual(found.dn, dn)
        self.assertTrue(found.sid.startswith("S-1-5-21-"), found)
        for other in (
            name.upper(),
            f"LAB\\{name}",
            f"lab\\{name}",
            f"{name}@lab.example",
            f"{name}@LAB",
            dn,
            dn.upper(),
        ):
            self.assertEqual((await self.find(other)).sid, found.sid, other)

    async def test_kinds(self) -> None:
        """Security groups of every scope are found, the domain's own ones too; a distribution group
        is refused.
        """
        for scope in (GLOBAL, LOCAL, UNIVERSAL):
            name = f"g{uuid4().hex[:8]}"
            await self.add(name, SECURITY | scope)
            self.assertTrue((await self.find(name)).sid.startswith("S-1-5-21-"))
            mail = f"m{uuid4().hex[:8]}"
            dn = await self.add(mail, scope)
            await self.not_found(
                mail, UsageError, f"it is a distribution group ({dn})", "make it a security group"
            )
        self.assertTrue((await self.find("Domain Users")).sid.endswith("-513"))

    async def test_refused(self) -> None:
        """Anything that is not a group, is not there, or is in no ticket, is refused with the next
        step.
        """
        await self.not_found("alice", UsageError, "it is a user (", "--allow")
        await self.not_found("srv1$", UsageError, "it is a computer (")
        await self.not_found(f"CN=Users,{self.place.base_dn}", UsageError, "it is not a group (")
        await self.not_found("no such", NotFound, "lab.example has no such group", "sAMAccountName")
        await self.not_found(f"CN=none,{self.place.base_dn}", NotFound, "no such object")
        await self.not_found("CN=none,DC=elsewhere,DC=example", MutualAuthError)
        for text in ("OTHER\\x", "x@other.example", "\\x", "x@"):
            await self.not_found(text, NotFound, "the forest has no such domain; its domains: LAB")
        for text in (
            "Administrators",
            "LAB\\Administrators",
            f"CN=Administrators,CN=Builtin,{self.place.base_dn}",
        ):
            await self.not_found(
                text, UsageError, "no ticket names it", "take a group of the domain"
            )
        await self.not_found(
            "BUILTIN\\Users",
            UsageError,
            "groups that every machine has",
            "take a group of the domain",
        )
