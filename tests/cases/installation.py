"""Effects of an administrator's installation on the directory, and what a service finds of it at
its start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import evolve

from mutauth_twisted.admin import installation
from mutauth_twisted.admin.scpadmin import spns_naming
from mutauth_twisted.admin.undo import Undo
from mutauth_twisted.directory import acl as security
from mutauth_twisted.directory.done import Done
from mutauth_twisted.directory.location import Instance, Selection, locate
from mutauth_twisted.directory.scp import (
    create_scp,
    delete_scp,
    find_by_keyword,
    read_scp,
    scp_dn,
    update_binding,
    withdraw,
)
from mutauth_twisted.directory.spns import add_spns, find_account, remove_spns
from mutauth_twisted.errors import (
    DirectoryRefused,
    DirectoryUnreachable,
    NotFound,
    ServiceCheckFailed,
)
from mutauth_twisted.ldap.dn import child_dn
from mutauth_twisted.ldap.session import Change, Entry, LdapSession
from mutauth_twisted.spn import SPN
from tests.cases.world import BINDING, DirectoryWorld, Started


class InstallationCases(DirectoryWorld):
    """The administrator's step: all of it, or nothing."""

    async def test_install_again_and_uninstall(self) -> None:
        """Installing makes everything, again changes nothing, and uninstalling leaves nothing."""
        lines: list[Done] = []
        found = await self.install(report=lines.append)
        self.assertTrue(found.created)
        self.assertEqual(
            found.dn, child_dn(self.service_class, f"CN=srv1,CN=Computers,{self.place.base_dn}")
        )
        wanted = {f"{self.service_class}/{self.host}/{part}" for part in (found.guid, found.dn)}
        self.assertEqual(await self.spns_of("svc-echo"), wanted)
        self.assertEqual(found.scp.keywords, (self.service_class,))
        self.assertEqual(len(lines), 4)
        lines.clear()
        again = await self.install(report=lines.append)
        self.assertEqual((again.guid, again.created, lines), (found.guid, False, []))
        removed = await self.as_user("administrator").run_with_catalog(
            lambda session, catalog: installation.uninstall(session, catalog, self.service())
        )
        self.assertEqual(len(removed), 3)
        self.assertEqual(await self.spns_of("svc-echo"), set())
        await self.failure_of(
            self.do("alice", lambda session: read_scp(session, found.guid)), NotFound
        )

    async def test_what_is_missing_is_fixed(self) -> None:
        """Installing again puts back a lost right, a lost SPN and a new keyword."""
        found = await self.install()
        sid = found.account.sid

        def damage(session: LdapSession) -> None:
            before = installation.read_dacl(session, found.guid)
            installation.write_dacl(session, found.guid, security.revoke(before, sid))
            remove_spns(session, found.account, found.spns[:1])

        await self.do("administrator", damage)
        lines: list[Done] = []
        await self.install(report=lines.append, keywords=[self.service_class, "new"])
        self.assertEqual(len(lines), 3, lines)
        after = await self.do(
            "administrator", lambda session: installation.read_dacl(session, found.guid)
        )
        self.assertTrue(security.granted_to(after)[sid])

    async def test_every_failure_undoes_what_was_done(self) -> None:
        """Whichever write fails, the directory is as it was before."""
        for failing in range(1, 5):
            lines: list[Done] = []

            def work(
                session: LdapSession,
                catalog: LdapSession,
                failing: int = failing,
                lines: list[Done] = lines,
            ) -> installation.Installation:
                broken: Any = _FailingSession(session, failing)
                return installation.install(
                    broken,
                    catalog,
                    self.service(),
                    "svc-echo",
                    report=lines.append,
                )

            line = await self.failure_of(
                self.as_user("administrator").run_with_catalog(work), DirectoryRefused
            )
            self.assertIn("injected", line)
            self.assertEqual(sum(each.action == "undone" for each in lines), failing - 1, lines)
            self.assertEqual(await self.spns_of("svc-echo"), set())
            left = await self.do(
                "administrator", lambda session: list(find_by_keyword(session, self.service_class))
            )
            self.assertEqual(left, [])

    async def test_lost_connection(self) -> None:
        """When the answer to any write is lost with the connection, another connection takes
        everything back.
        """
        for losing in (1, 2, 3, 4):
            lines: list[Done] = []

            def work(
                session: LdapSession, catalog: LdapSession, undo: Undo, losing: int = losing
            ) -> installation.Installation:
                broken: Any = _LosingSession(session, losing)
                return installation.install(
                    broken,
                    catalog,
                    self.service(),
                    "svc-echo",
                    undo=undo,
                )

            waiting = installation.all_or_nothing(self.as_user("administrator"), work, lines.append)
            line = await self.failure_of(waiting, DirectoryUnreachable)
            self.assertIn(f"domain controller {self.place.controller}: the answer was lost", line)
            self.assertNotIn("left behind", line)
            undone = [each for each in lines if each.action == "undone"]
            self.assertEqual(len(undone), losing, lines)
            self.assertEqual(await self.spns_of("svc-echo"), set())
            left = await self.do(
                "administrator", lambda session: list(find_by_keyword(session, self.service_class))
            )
            self.assertEqual(left, [])

    async def test_what_somebody_else_made_is_not_undone(self) -> None:
        """An object that another administrator made a moment before us is refused, and stays."""
        found = await self.install()

        def work(session: LdapSession, catalog: LdapSession) -> None:
            undo = Undo(lambda _: None)
            with undo.around("SCP", lambda session: bool(session.delete(found.dn) is None)):
                create_scp(session, found.dn, service_class="x", dns_name=self.host, keywords=["x"])

        line = await self.failure_of(
            self.as_user("administrator").run_with_catalog(work), DirectoryRefused
        )
        self.assertIn(found.dn, line)
        point = await self.do("alice", lambda session: read_scp(session, found.guid))
        self.assertEqual(point.dn, found.dn)

    async def test_uninstall_keeps_what_others_use(self) -> None:
        """An SCP of several hosts goes with the last of them; the wrong account is refused before
        anything is removed.
        """
        place = f"CN=srv1,CN=Computers,{self.place.base_dn}"
        found = await self.install(scp_parent=place)
        other = self.place.host("srv2")
        await self.install(host=other, scp_parent=place)

        def uninstall(host: str, **options: Any) -> Any:
            service = self.service(host=host, scp_parent=place)
            return self.as_user("administrator").run_with_catalog(
                lambda session, catalog: installation.uninstall(
                    session, catalog, service, **options
                )
            )

        line = await self.failure_of(uninstall(self.host, account="svc-other"), ServiceCheckFailed)
        self.assertIn("it is on svc-echo, not on svc-other", line)
        self.assertEqual(len(await self.spns_of("svc-echo")), 4)
        removed = await uninstall(self.host)
        self.assertEqual([each.kind for each in removed], ["SPN", "SPN"])
        self.assertEqual(
            (await self.do("alice", lambda session: read_scp(session, found.guid))).dn, found.dn
        )
        removed = await uninstall(other)
        self.assertEqual([each.kind for each in removed], ["SPN", "SPN", "SCP"])
        self.assertEqual(await self.spns_of("svc-echo"), set())

    async def test_uninstall_with_words_of_its_own_in_the_dn(self) -> None:
        """A DN may hold any words, and the catalog may lag behind: what was removed is known all
        the same.
        """
        for name in ("goods from abroad on rails", " SPN x from svc-echo, with"):
            found = await self.install(scp_name=name)
            lines: list[Done] = []

            def work(
                session: LdapSession,
                catalog: LdapSession,
                name: str = name,
                lines: list[Done] = lines,
            ) -> Any:
                lagging: Any = _LaggingCatalog(catalog)
                self.assertEqual(
                    len(spns_naming(lagging, read_scp(session, name_dn(session, name)))), 2
                )
                service = self.service(scp_name=name)
                return installation.uninstall(session, lagging, service, report=lines.append)

            def name_dn(session: LdapSession, name: str) -> str:
                return scp_dn(session, self.service(scp_name=name))

            removed = await self.as_user("administrator").run_with_catalog(work)
            self.assertEqual([each.kind for each in removed], ["SPN", "SPN", "SCP"])
            self.assertEqual([each.name for each in removed], [*map(str, found.spns), found.dn])
            self.assertEqual(lines, removed)
            self.assertEqual(await self.spns_of("svc-echo"), set())
            reading = self.do("alice", lambda session, guid=found.guid: read_scp(session, guid))
            await self.failure_of(reading, NotFound)

    async def test_what_is_left_behind_is_named(self) -> None:
        """Changes that cannot be taken back are in the error as values, and in its line."""

        def refuse(session: LdapSession) -> bool:
            raise DirectoryRefused("object", "injected")

        def work(session: LdapSession, catalog: LdapSession, undo: Undo) -> None:
            undo.before("SCP of one; or two", refuse)
            raise DirectoryRefused("object", "it failed", "try again")

        waiting = installation.all_or_nothing(self.as_user("administrator"), work)
        line = await self.failure_of(waiting, DirectoryRefused)
        self.assertEqual(line, "object: it failed; left behind: SCP of one; or two; try again")

    async def test_failure_on_the_second_run_keeps_the_first(self) -> None:
        """Undoing takes back what this run did, and nothing of an earlier one."""
        found = await self.install(spn_forms=["guid"])

        def work(session: LdapSession, catalog: LdapSession) -> installation.Installation:
            broken: Any = _FailingSession(session, 2)
            return installation.install(
                broken,
                catalog,
                self.service(),
                "svc-echo",
                keywords=["extra"],
            )

        await self.failure_of(
            self.as_user("administrator").run_with_catalog(work), DirectoryRefused
        )
        self.assertEqual(
            await self.spns_of("svc-echo"), {f"{self.service_class}/{self.host}/{found.guid}"}
        )
        point = await self.do("alice", lambda session: read_scp(session, found.guid))
        self.assertEqual(point.keywords, (self.service_class,))

    async def test_a_taken_spn_stops_it_before_anything_is_written(self) -> None:
        """An SPN on another account is found first; nothing is created."""
        dn = child_dn(self.service_class, f"CN=srv1,CN=Computers,{self.place.base_dn}")
        spn = SPN(self.service_class, self.host, dn)
        await self.do(
            "administrator",
            lambda session: add_spns(session, find_account(session, "svc-other"), [spn]),
        )
        lines: list[Done] = []
        line = await self.failure_of(self.install(report=lines.append), DirectoryRefused)
        self.assertIn("it is on another account already, svc-other", line)
        self.assertEqual(lines, [])

    async def test_unknown_host_account_and_place(self) -> None:
        """Names that do not exist are in the error."""
        for options, words in (
            ({"host": "nohost.lab.example"}, "no computer object has this dNSHostName"),
            ({"account": "nobody"}, "account nobody"),
            (
                {"scp_parent": f"CN=nothing,{self.place.base_dn}"},
                "no such object to put the SCP below",
            ),
        ):
            line = await self.failure_of(self.install(**options), NotFound)
            self.assertIn(words, line)

    async def test_a_plain_user_may_not(self) -> None:
        """Without the right nothing happens, and the line says who can."""
        line = await self.failure_of(
            self.as_user("alice").run_with_catalog(
                lambda session, catalog: installation.install(
                    session,
                    catalog,
                    self.service(),
                    "svc-echo",
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
        return await locate(self.as_user("alice"), Selection(found.dn))


class _FailingSession:
    """A session whose n-th write is refused."""

    def __init__(self, session: LdapSession, failing: int) -> None:
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


class _LaggingCatalog:
    """A global catalog that has yet to hear of anything that happens after the first look at it."""

    def __init__(self, session: LdapSession) -> None:
        self._session = session
        self._seen: dict[str, list[Entry]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def search(self, base: str, filter: str, *rest: Any, **options: Any) -> Iterator[Entry]:
        if filter not in self._seen:
            self._seen[filter] = list(self._session.search(base, filter, *rest, **options))
        return iter(self._seen[filter])


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
                raise DirectoryUnreachable(
                    f"domain controller {self._session.server}", "the answer was lost"
                )
            return result

        return write


class StartupCases(DirectoryWorld):
    """Checks and publications of a service at its start."""

    async def test_publish_and_withdraw(self) -> None:
        """The service brings its connection point up to date once, and takes back only its own."""
        found = await self.install()
        first = await self.publish(found)
        self.assertEqual(first.changed, ("serviceBindingInformation",))
        self.assertEqual(first.scp.binding, BINDING)
        second = await self.publish(found)
        self.assertEqual(second, Started((), (), first.scp))
        other = evolve(BINDING, port=9001)
        self.assertFalse(
            await self.do("svc-echo", lambda session: withdraw(session, found.guid, other))
        )
        self.assertTrue(
            await self.do("svc-echo", lambda session: withdraw(session, found.guid, BINDING))
        )
        self.assertFalse(
            await self.do("svc-echo", lambda session: withdraw(session, found.guid, BINDING))
        )

    async def test_only_the_granted_account_may_publish(self) -> None:
        """The two rights are what lets the account publish: before, after, and nobody else."""

        def update(session: LdapSession) -> list[str]:
            return update_binding(
                session, read_scp(session, guid), "other.lab.example", evolve(BINDING, port=9999)
            )

        created = await self.do(
            "administrator",
            lambda session: create_scp(
                session,
                child_dn(self.service_class, f"CN=srv1,CN=Computers,{self.place.base_dn}"),
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
        self.assertEqual(
            await self.do("svc-echo", update), ["serviceDNSName", "serviceBindingInformation"]
        )
        keywords = [Change("add", "keywords", ("more",))]
        await self.failure_of(
            self.do("svc-echo", lambda session: session.modify(guid, keywords)), DirectoryRefused
        )

    async def test_missing_spn(self) -> None:
        """A missing SPN is refused before anything is published, with the command that fixes it."""
        found = await self.install()
        await self.do(
            "administrator", lambda session: remove_spns(session, found.account, found.spns[:1])
        )
        line = await self.failure_of(self.publish(found), ServiceCheckFailed)
        self.assertIn(f"SPN {found.spns[0]}: it is not on account svc-echo", line)
        self.assertIn(
            f"run mutauth install --service-class {self.service_class} --host {self.host} "
            "--account svc-echo",
            line,
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
        line = await self.failure_of(
            self.publish(found, user="svc-other", account="svc-other"), ServiceCheckFailed
        )
        self.assertIn("it is on svc-echo (", line)
        self.assertIn("this service runs as svc-other", line)

    async def test_moved(self) -> None:
        """The GUID finds a moved connection point; the SPN with its DN is stale and that is
        said.
        """
        found = await self.install()
        place = f"CN=srv2,CN=Computers,{self.place.base_dn}"
        new_dn = await self.do("administrator", lambda session: session.move(found.dn, place))
        line = await self.failure_of(self.publish(found), ServiceCheckFailed)
        self.assertIn(f"the SCP was moved, it was {found.dn}", line)
        self.assertIn(f"--scp-parent {place}", line)
        fixed = await self.install(scp_parent=place)
        self.assertEqual((fixed.guid, fixed.created), (found.guid, False))
        self.assertEqual((await self.publish(found)).warnings, ())
        by_guid = await self.publish(found, spn_forms=["guid"])
        self.assertEqual(by_guid.scp.dn, new_dn)
        self.assertEqual(by_guid.scp.guid, found.guid)

    async def test_renamed_host(self) -> None:
        """SPNs of the host's old name are told apart."""
        found = await self.install()
        line = await self.failure_of(
            self.publish(found, host="new.lab.example"), ServiceCheckFailed
        )
        self.assertIn(f"the host was renamed, it was {self.host}", line)

    async def test_lost_right(self) -> None:
        """A lost right is told apart from a missing SPN."""
        found = await self.install()

        def damage(session: LdapSession) -> None:
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
