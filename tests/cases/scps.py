"""``mutauth scp``, and installation where it is undone, moved, or handed to another account."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from mutauth_twisted.admin import installation, scpadmin
from mutauth_twisted.admin.scpadmin import ScpReport, read_dacl
from mutauth_twisted.directory import acl as security
from mutauth_twisted.directory.binding import BindingError, BindingInformation
from mutauth_twisted.directory.done import Done
from mutauth_twisted.directory.scp import (
    create_scp,
    delete_scp,
    list_scps,
    read_scp,
    update_binding,
)
from mutauth_twisted.directory.servicename import ServiceName
from mutauth_twisted.directory.spns import add_spns, find_account, remove_spns
from mutauth_twisted.errors import (
    DirectoryRefused,
    MutualAuthError,
    NotFound,
    ServiceCheckFailed,
    UsageError,
)
from mutauth_twisted.ldap.dn import child_dn, parent_of
from mutauth_twisted.ldap.session import Change, LdapSession
from mutauth_twisted.spn import SPN
from tests.cases.world import DirectoryWorld, taken


def told(found: ScpReport) -> str:
    """The problems, a line each, as people read them."""
    return "\n".join(map(str, found.problems))


class SCPCases(DirectoryWorld):
    """Steps that these tests do again and again."""

    async def inspect(
        self, name: str | UUID, user: str = "administrator", **options: Any
    ) -> ScpReport:
        return await self.as_user(user).run_with_catalog(
            lambda session, catalog: scpadmin.inspect(session, catalog, name, **options)
        )

    async def uninstall(self, **options: Any) -> list[Done]:
        service = self.service(**taken(ServiceName, options))
        return await self.as_user("administrator").run_with_catalog(
            lambda session, catalog: installation.uninstall(session, catalog, service, **options)
        )

    async def published(
        self, name: str | UUID, user: str = "administrator", **given: Any
    ) -> list[str]:
        where = {key: given.pop(key) for key in ("host", "srv") if key in given}
        _, written = await self.do(
            user, lambda session: scpadmin.set_published(session, name, changes=given, **where)
        )
        return written

    async def granted(self, guid: UUID) -> set[str]:
        """Accounts that have both rights on an object, by name."""

        def read(session: LdapSession, catalog: LdapSession) -> set[str]:
            return {
                grant.name
                for grant in scpadmin.read_grants(session, catalog, read_scp(session, guid))
            }

        return await self.as_user("administrator").run_with_catalog(read)


class CallerCases(SCPCases):
    """The four callers."""

    async def test_who_may_what(self) -> None:
        """Rights to create below a host, to publish, to change what only an administrator may, and
        to delete.
        """
        found = await self.install()
        below_rogue = f"CN=rogue,CN=Computers,{self.place.base_dn}"
        dn = child_dn(self.service_class + "-x", below_rogue)

        def create(session: LdapSession) -> None:
            point = create_scp(session, dn, service_class="x", dns_name="x", keywords=["x"])
            delete_scp(session, point)

        def port(session: LdapSession) -> None:
            scpadmin.set_published(session, found.guid, changes={"port": 9100})
            scpadmin.set_published(session, found.guid, changes={"port": 9200})

        def srv(session: LdapSession) -> None:
            scpadmin.set_published(session, found.guid, srv="_x._tcp.lab.example", changes={})
            scpadmin.set_published(session, found.guid, host=self.host, changes={})

        def delete(session: LdapSession) -> None:
            delete_scp(session, read_scp(session, found.guid))

        operations: tuple[Callable[[LdapSession], None], ...] = (create, port, srv, delete)
        # Below rogue's computer object; the granted attributes; another attribute; the object.
        table = {
            "alice": "no no no no",
            "svc-other": "no no no no",
            "rogue": "yes no no no",
            "svc-echo": "no yes no no",
            "administrator": "yes yes yes yes",
        }
        for user, answers in table.items():
            for operation, answer in zip(operations, answers.split(), strict=True):
                if answer == "yes":
                    await self.do(user, operation)
                else:
                    line = await self.failure_of(self.do(user, operation), DirectoryRefused)
                    self.assertIn("run it as an administrator", line, (user, operation))

    async def test_everybody_may_look(self) -> None:
        """Any user lists, finds and shows."""
        found = await self.install()
        below = await self.do(
            "alice", lambda session: [each.guid for each in list_scps(session, parent_of(found.dn))]
        )
        self.assertIn(found.guid, below)
        self.assertIn(
            found.guid,
            await self.do("alice", lambda session: [each.guid for each in list_scps(session)]),
        )
        (point,) = await scpadmin.find_in_forest(self.as_user("alice"), self.service_class)
        self.assertEqual(point, found.scp)
        self.assertEqual((await self.inspect(found.dn, "alice")).scp, found.scp)

    async def test_names(self) -> None:
        """A DN or a GUID is a name; a keyword is not, nor a GUID of nothing."""
        found = await self.install()
        for name, where in ((found.dn, found.dn), (f"{{{found.guid}}}", found.guid)):
            self.assertEqual(
                await scpadmin.find_home(self.as_user("alice"), name), (where, "lab.example")
            )
        await self.failure_of(
            scpadmin.find_home(self.as_user("alice"), self.service_class), UsageError
        )
        await self.failure_of(scpadmin.find_home(self.as_user("alice"), str(UUID(int=5))), NotFound)

    async def test_strange_keywords(self) -> None:
        """A keyword of any characters is found, and by itself only."""
        keywords = ["*)(objectClass=*", "Dienst für Åse", " a\\2a ", "\u202eevil\x1b"]
        found = await self.install(keywords=[self.service_class, *keywords])
        for keyword in keywords:
            (point,) = await scpadmin.find_in_forest(self.as_user("alice"), keyword)
            self.assertEqual(point.guid, found.guid)
        self.assertEqual(await scpadmin.find_in_forest(self.as_user("alice"), "*"), [])


class ShowCases(SCPCases):
    """Mistakes in a connection point are found."""

    async def test_as_it_must_be(self) -> None:
        """Rights and SPNs of the installed account, nothing wrong but that it does not run yet."""
        found = await self.install()
        shown = await self.inspect(found.guid)
        self.assertEqual(
            [(grant.name, grant.complete) for grant in shown.grants or ()], [("svc-echo", True)]
        )
        self.assertEqual(
            {(holder.name, spn) for holder, spn in shown.spns},
            {("svc-echo", spn) for spn in found.spns},
        )
        self.assertEqual(len(shown.problems), 1)
        await self.published(found.guid, port=9000)
        shown = await self.inspect(found.guid, accounts=["svc-echo"], spn_forms=["guid", "dn"])
        self.assertEqual((shown.problems, shown.stale), ((), ()))
        self.assertEqual(shown.advertised, found.scp.spn("dn", self.host))

    async def test_advertised_and_not_there(self) -> None:
        """The SPN that clients are told to ask for has to stand, whatever else does."""
        found = await self.install(spn_forms=["guid"])
        await self.published(found.guid, port=9000, spn_form="dn")
        spn = found.scp.spn("dn", self.host)
        shown = await self.inspect(found.guid)
        self.assertEqual(shown.advertised, spn)
        self.assertIn(f"SPN {spn}: no account holds it; run mutauth install", told(shown))
        await self.published(found.guid, spn_form="guid")
        self.assertEqual((await self.inspect(found.guid)).problems, ())

    async def test_no_host_name(self) -> None:
        """Nobody can be sent to a name that is invalid."""
        found = await self.install()
        for given in (
            {"host": "bad..host"},
            {"host": "a b"},
            {"srv": "_x..example"},
            {"host": "x" * 64},
        ):
            await self.failure_of(self.published(found.guid, **given), UsageError)

    async def test_every_fault(self) -> None:
        """A lost right, lost SPNs, SPNs of another account, a move: each has its line."""
        found = await self.install()
        await self.published(found.guid, port=9000)
        administrator = "administrator"

        async def problems(**options: Any) -> str:
            return told(await self.inspect(found.guid, **options))

        self.assertIn(
            f"SPN {self.service_class}/{self.host}: no account holds it;",
            await problems(spn_forms=["host"]),
        )
        lines = await problems(accounts=["svc-other"])
        self.assertIn("svc-other may not update", lines)
        self.assertIn("svc-other holds no SPN", lines)
        self.assertIn(
            f"it is on svc-echo; run mutauth spn delete svc-echo {self.service_class}/", lines
        )

        def lose_right(session: LdapSession) -> None:
            before = read_dacl(session, found.guid)
            scpadmin.write_dacl(session, found.guid, security.revoke(before, found.account.sid))

        await self.do(administrator, lose_right)
        self.assertIn("svc-echo may not update", await problems())
        place = f"CN=srv2,CN=Computers,{self.place.base_dn}"
        await self.do(administrator, lambda session: session.move(found.dn, place))
        self.assertIn(
            f"{found.dn}: on svc-echo, it carries a DN that the SCP had before", await problems()
        )
        await self.do(
            administrator, lambda session: remove_spns(session, found.account, found.spns)
        )
        self.assertIn("no account holds an SPN with its GUID or DN", await problems())


class PublishCases(SCPCases):
    """Publishing by hand."""

    async def test_only_what_is_named_changes(self) -> None:
        """Fields come and stay, keys of later versions too; what is so already is not written."""
        found = await self.install()
        await self.failure_of(self.published(found.guid, weight=5), BindingError)
        self.assertEqual(
            await self.published(found.guid, port=9000, weight=5), ["serviceBindingInformation"]
        )
        self.assertEqual(await self.published(found.guid, weight=5), [])
        extended = BindingInformation.parse("9000;weight=5;later=1")
        point = await self.do("alice", lambda session: read_scp(session, found.guid))
        await self.do(
            "svc-echo", lambda session: update_binding(session, point, self.host, extended)
        )
        await self.published(found.guid, priority=2, spn_form="guid")
        written = await self.published(found.dn, srv="_e._tcp.lab.example")
        self.assertEqual(written, ["serviceDNSName", "serviceDNSNameType"])
        point = await self.do("alice", lambda session: read_scp(session, found.guid))
        self.assertEqual(point.binding_text, "9000;priority=2;weight=5;spn=guid;later=1")
        self.assertEqual((point.dns_name, point.dns_name_type), ("_e._tcp.lab.example", "SRV"))

    async def test_what_cannot_be_read_is_replaced_as_a_whole(self) -> None:
        """Broken text needs a port, and is gone then."""
        found = await self.install()
        change = [Change("replace", "serviceBindingInformation", ("ninety",))]
        await self.do("administrator", lambda session: session.modify(found.guid, change))
        await self.failure_of(self.published(found.guid, weight=5), BindingError)
        self.assertIn("'ninety'", told(await self.inspect(found.guid)))
        self.assertEqual(await self.published(found.guid, port=1), ["serviceBindingInformation"])

    async def test_remove(self) -> None:
        """One that SPNs carry is not removed unless that is said; what is left is named."""
        found = await self.install()

        async def remove(**options: Any) -> None:
            await self.as_user("administrator").run_with_catalog(
                lambda session, catalog: scpadmin.remove(session, catalog, found.guid, **options)
            )

        line = await self.failure_of(remove(), ServiceCheckFailed)
        for word in (
            "2 SPN(s) of svc-echo",
            "mutauth uninstall",
            "mutauth spn delete svc-echo",
            "--leave-spns",
        ):
            self.assertIn(word, line)
        await remove(leave_spns=True)
        await self.failure_of(remove(), NotFound)
        self.assertEqual(await self.spns_of("svc-echo"), set(map(str, found.spns)))
        self.assertEqual(len(await self.uninstall(guid=found.guid)), 2)
        self.assertEqual(await self.spns_of("svc-echo"), set())


class InstallationCases(SCPCases):
    """Installation over time."""

    async def test_another_account(self) -> None:
        """The new account gets the rights, the former one loses them, and no one else does."""
        first = await self.install()
        line = await self.failure_of(self.install(account="svc-other"), DirectoryRefused)
        self.assertIn("it is on another account already, svc-echo", line)
        self.assertEqual(await self.granted(first.guid), {"svc-echo"})
        await self.do(
            "administrator", lambda session: remove_spns(session, first.account, first.spns)
        )

        def grant_group(session: LdapSession) -> None:
            before = read_dacl(session, first.guid)
            scpadmin.write_dacl(
                session, first.guid, security.grant(before, "S-1-5-32-549")
            )  # Server Operators

        await self.do("administrator", grant_group)
        lines: list[Done] = []
        await self.install(account="svc-other", report=lines.append)
        self.assertIn(
            "revoked right to update serviceDNSName and serviceBindingInformation from svc-echo "
            "(which ran the service before)",
            map(str, lines),
        )
        self.assertEqual(await self.granted(first.guid), {"svc-other", "Server Operators"})
        lines.clear()
        await self.install(account="svc-other", report=lines.append)
        self.assertEqual(lines, [])

    async def test_another_account_undone(self) -> None:
        """When a later step fails the former account has its rights back."""
        first = await self.install()
        await self.do(
            "administrator", lambda session: remove_spns(session, first.account, first.spns)
        )

        def fail(done: installation.Installation) -> None:
            raise MutualAuthError("last step", "injected")

        lines: list[Done] = []
        before = await self.do("administrator", lambda session: read_dacl(session, first.guid))
        await self.failure_of(
            self.install(account="svc-other", finish=fail, report=lines.append),
            MutualAuthError,
        )
        self.assertIn("undone: revoking rights of svc-echo", map(str, lines))
        self.assertEqual(
            await self.do("administrator", lambda session: read_dacl(session, first.guid)), before
        )
        self.assertEqual(await self.spns_of("svc-other"), set())

    async def test_one_object_for_two_accounts(self) -> None:
        """An account that runs the service on another host keeps its rights."""
        place = {"container": f"{self.service_class}, replicated"}
        first = await self.install(**place)
        second = await self.install(host=self.place.host("srv2"), account="svc-other", **place)
        self.assertEqual((second.guid, second.created), (first.guid, False))
        self.assertEqual(await self.granted(first.guid), {"svc-echo", "svc-other"})
        await self.uninstall(host=self.place.host("srv2"), account="svc-other", **place)
        await self.uninstall(**place)

    async def test_container(self) -> None:
        """A container of its own is made below System, and goes when it is empty."""
        name = f"{self.service_class} ü, services"
        lines: list[Done] = []
        found = await self.install(container=name, report=lines.append)
        container = child_dn(name, f"CN=System,{self.place.base_dn}")
        self.assertEqual(found.dn, child_dn(self.service_class, container))
        self.assertEqual(str(lines[0]), f"created container {container}")
        second = await self.install(container=name, scp_name="second")
        removed = await self.uninstall(container=name)
        self.assertNotIn("container", [each.kind for each in removed])
        removed = await self.uninstall(container=name, scp_name="second", guid=second.guid)
        self.assertEqual(str(removed[-1]), f"deleted container {container}")
        await self.failure_of(
            self.do("alice", lambda session: session.read(container, ["cn"])), NotFound
        )

    async def test_container_refused(self) -> None:
        """Not with a parent too, with no name that no SPN carries, not something else's; undone on
        failure.
        """
        await self.failure_of(self.install(container="a", scp_parent="DC=x"), UsageError)
        line = await self.failure_of(self.install(container="a/b"), UsageError)
        self.assertIn("no SPN can carry", line)
        line = await self.failure_of(
            self.install(container="Password Settings Container"), UsageError
        )
        self.assertIn("msDS-PasswordSettingsContainer", line)

        def fail(done: installation.Installation) -> None:
            raise MutualAuthError("last step", "injected")

        lines: list[Done] = []
        await self.failure_of(
            self.install(
                container=self.service_class,
                finish=fail,
                report=lines.append,
            ),
            MutualAuthError,
        )
        self.assertEqual(
            str(lines[-1]),
            f"undone: container {child_dn(self.service_class, f'CN=System,{self.place.base_dn}')}",
        )

    async def test_a_moved_one_is_removed_with_its_former_names(self) -> None:
        """uninstall takes the SPN with the former DN, and none that is another service's."""
        found = await self.install()
        former = f"{self.service_class}/{self.host}/{found.dn}"
        await self.do(
            "administrator",
            lambda session: session.move(found.dn, f"CN=srv2,CN=Computers,{self.place.base_dn}"),
        )
        other_dn = child_dn(self.service_class, f"CN=rogue,CN=Computers,{self.place.base_dn}")
        other = await self.do(
            "administrator",
            lambda session: create_scp(
                session,
                other_dn,
                service_class=self.service_class,
                dns_name=self.host,
                keywords=[self.service_class],
            ),
        )
        keep = [
            SPN(self.service_class, self.host, other.dn),  # an object is there
            SPN(self.service_class, "other.lab.example", found.dn),  # another host
            SPN(
                self.service_class, self.host, child_dn("other", parent_of(found.dn))
            ),  # another name
            SPN(self.service_class, self.host),
        ]
        await self.do(
            "administrator",
            lambda session: add_spns(session, find_account(session, "svc-echo"), keep),
        )
        foreign = SPN(
            self.service_class,
            self.host,
            child_dn(self.service_class, f"OU=Gone,{self.place.base_dn}"),
        )
        await self.do(
            "administrator",
            lambda session: add_spns(session, find_account(session, "svc-other"), [foreign]),
        )
        removed = await self.uninstall(guid=found.guid)
        lines = [str(each) for each in removed]
        self.assertIn(
            f"removed SPN {former} from svc-echo (with a DN from before the SCP was moved)", lines
        )
        self.assertEqual(await self.spns_of("svc-echo"), set(map(str, keep)))
        self.assertEqual(await self.spns_of("svc-other"), {str(foreign)})
