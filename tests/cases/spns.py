"""``mutauth spn`` on a real directory: what each caller may do, and what each is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from winacl.dtyp.ace import (
    ACCESS_ALLOWED_OBJECT_ACE,
    ACE_OBJECT_PRESENCE,
    ADS_ACCESS_MASK,
    AceFlags,
)
from winacl.dtyp.guid import GUID
from winacl.dtyp.security_descriptor import SECURITY_DESCRIPTOR
from winacl.dtyp.sid import SID

from mutauth_twisted.admin import spnadmin
from mutauth_twisted.admin.duplicates import Duplicate, find_duplicates
from mutauth_twisted.admin.scpadmin import read_dacl, write_dacl
from mutauth_twisted.admin.spnadmin import Written
from mutauth_twisted.directory.spns import find_account, find_by_sid
from mutauth_twisted.errors import DirectoryRefused
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.names import fold_ascii
from mutauth_twisted.spn import SPN
from tests.cases.world import DirectoryWorld


class SPNCases(DirectoryWorld):
    """Writes SPNs of this test's class only; they are gone after the test."""

    def name(self, rest: str) -> SPN:
        """An SPN of this test's class."""
        return SPN.parse(f"{self.service_class}/{rest}")

    async def add(self, user: str, account: str, spns: Iterable[SPN], **options: Any) -> Written:
        return await self.as_user(user).run_with_catalog(
            lambda session, catalog: spnadmin.add(session, catalog, account, list(spns), **options)
        )

    async def replace(
        self, user: str, account: str, spns: Iterable[SPN], **options: Any
    ) -> Written:
        return await self.as_user(user).run_with_catalog(
            lambda session, catalog: spnadmin.replace(
                session, catalog, account, list(spns), **options
            )
        )

    async def delete(self, user: str, account: str, *texts: str) -> Written:
        return await self.do(user, lambda session: spnadmin.delete(session, account, texts))


class CallerCases(SPNCases):
    """The four callers, and the three rules of writing SPNs."""

    async def test_who_may_what(self) -> None:
        """An administrator anything; a computer two-part names of its own host; a user nothing, not
        even for itself.
        """
        own, short = self.place.host("rogue"), "rogue"
        table = {
            # caller, account: what is allowed of (own host, own short name, own port, foreign host,
            # three-part)
            ("administrator", "rogue$"): "yes yes yes yes yes",
            ("administrator", "svc-echo"): "yes yes yes yes yes",
            ("rogue", "rogue$"): "yes yes rule rule rule",
            ("rogue", "svc-echo"): "right right right right right",
            ("rogue", "srv1$"): "right right right right right",
            ("svc-echo", "svc-echo"): "right right right right right",
            ("svc-echo", "rogue$"): "right right right right right",
            ("alice", "svc-echo"): "right right right right right",
        }
        spns = [self.name(rest) for rest in (own, short, f"{own}:80", self.host, f"{own}/name")]
        for (user, account), answers in table.items():
            for spn, answer in zip(spns, answers.split(), strict=True):
                if answer == "yes":
                    self.assertEqual((await self.add(user, account, [spn])).added, (str(spn),))
                    self.assertEqual(
                        (await self.delete(user, account, str(spn))).removed, (str(spn),)
                    )
                    continue
                line = await self.failure_of(self.add(user, account, [spn]), DirectoryRefused)
                self.assertIn(f"SPN {spn} on {account}", line)
                self.assertIn("an administrator runs mutauth spn add", line)
                self.assertIn(str(spn), line.partition("mutauth spn add")[2])
                if answer == "rule":
                    self.assertIn(f"two-part SPNs of {own} or rogue without a port only", line)
                else:
                    self.assertIn("'Write servicePrincipalName'", line)
                    self.assertEqual(
                        "'Validated write to service principal name'" in line,
                        account.endswith("$"),
                        line,
                    )

    async def test_deleting_and_replacing_need_the_right_too(self) -> None:
        """The other two operations are refused with their own command."""
        spn = self.name("h/x")
        await self.add("administrator", "svc-echo", [spn])
        line = await self.failure_of(self.delete("alice", "svc-echo", str(spn)), DirectoryRefused)
        self.assertIn(f"an administrator runs mutauth spn delete svc-echo {spn}", line)
        other = self.name("i/x")
        line = await self.failure_of(
            self.replace("svc-echo", "svc-echo", [other]), DirectoryRefused
        )
        self.assertIn(f"an administrator runs mutauth spn replace svc-echo {other}", line)
        line = await self.failure_of(self.replace("alice", "svc-echo", []), DirectoryRefused)
        self.assertIn("mutauth spn replace svc-echo --clear", line)
        self.assertEqual(await self.spns_of("svc-echo"), {str(spn)})

    async def test_delegated(self) -> None:
        """The right that the message names is the one that helps."""

        def grant(session: LdapSession) -> tuple[Any, bytes]:
            entry = session.read(find_account(session, "svc-other").dn, ["objectGUID"])
            before = read_dacl(session, entry.guid)
            parsed = SECURITY_DESCRIPTOR.from_bytes(before)
            ace = ACCESS_ALLOWED_OBJECT_ACE()
            ace.AceFlags, ace.Mask = AceFlags(0), int(ADS_ACCESS_MASK.WRITE_PROP)
            ace.Flags = ACE_OBJECT_PRESENCE.ACE_OBJECT_TYPE_PRESENT
            ace.ObjectType = GUID.from_string(
                "f3a64788-5306-11d1-a9c5-0000f80367c1"
            )  # servicePrincipalName
            ace.Sid = SID.from_string(find_account(session, "alice").sid)
            parsed.Dacl.aces.insert(0, ace)
            write_dacl(session, entry.guid, parsed.to_bytes())
            return entry.guid, before

        guid, before = await self.do("administrator", grant)
        try:
            spn = self.name("h/x")
            self.assertEqual((await self.add("alice", "svc-other", [spn])).added, (str(spn),))
            self.assertEqual(
                (await self.delete("alice", "svc-other", str(spn))).removed, (str(spn),)
            )
        finally:
            await self.do("administrator", lambda session: write_dacl(session, guid, before))


class WritingCases(SPNCases):
    """DsWriteAccountSpn's three operations, and what is looked at before."""

    async def test_idempotence(self) -> None:
        """Adding what is there, deleting what is not, and replacing by the same succeed and say
        so.
        """
        # The whole list is replaced: what a run that was killed left on the account would be named
        # as removed.
        await self.replace("administrator", "svc-echo", [])
        one, two = self.name("h"), self.name("h/CN=a\\, ü *(),DC=x")
        self.assertEqual(
            (await self.add("administrator", "svc-echo", [one, two, one])).added,
            (str(one), str(two)),
        )
        again = await self.add("administrator", "svc-echo", [one, SPN.parse(fold_ascii(str(two)))])
        self.assertEqual((again.added, len(again.unchanged)), ((), 2))
        same = await self.replace("administrator", "svc-echo", [two, one])
        self.assertEqual((same.added, same.removed, len(same.unchanged)), ((), (), 2))
        gone = await self.delete(
            "administrator", "svc-echo", str(two).upper(), "no/such", "malformed"
        )
        self.assertEqual((gone.removed, gone.unchanged), ((str(two),), ("no/such", "malformed")))
        other = await self.replace("administrator", "svc-echo", [self.name("i")])
        self.assertEqual((other.added, other.removed), ((f"{self.service_class}/i",), (str(one),)))
        cleared = await self.replace("administrator", "svc-echo", [])
        self.assertEqual(cleared.removed, (f"{self.service_class}/i",))
        self.assertEqual(await self.spns_of("svc-echo"), set())

    async def test_taken(self) -> None:
        """An SPN on another account is found in the forest first, whatever its case and its
        characters.
        """
        spn = self.name('h/CN=a\\, "b" ü*,DC=x')
        await self.add("administrator", "svc-other", [spn, self.name("i")])
        upper = [SPN.parse(str(each).upper()) for each in (spn, self.name("i"))]
        for operation in (self.add, self.replace):
            line = await self.failure_of(
                operation("administrator", "svc-echo", upper), DirectoryRefused
            )
            self.assertIn("it is on another account already, svc-other (CN=svc-other,", line)
            # One command frees all of them.
            self.assertIn("mutauth spn delete svc-other '", line)
            self.assertIn(str(upper[1]), line.partition("mutauth spn delete")[2])
        self.assertEqual(await self.spns_of("svc-echo"), set())

    async def test_taken_meanwhile(self) -> None:
        """Past our own search the domain controller's refusal is understood."""
        spn = self.name("h/x")

        def race(session: LdapSession, catalog: LdapSession) -> Written:
            class Blind:
                root = catalog.root

                def search(self, *arguments: Any, **options: Any) -> Iterable[Any]:
                    return ()

            blind: Any = Blind()
            return spnadmin.add(session, blind, "svc-echo", [spn])

        await self.add("administrator", "svc-other", [spn])
        line = await self.failure_of(
            self.as_user("administrator").run_with_catalog(race), DirectoryRefused
        )
        self.assertIn(
            f"mutauth spn query '*/h/x' --nameserver {self.place.nameserver} tells who holds it",
            line,
        )

    async def test_aliases(self) -> None:
        """HTTP/h is refused while another account holds host/h; allowed it warns.  On one account
        nothing clashes.
        """
        plain, alias = self.alias_pair()
        await self.add("administrator", "svc-other", [plain])
        self.assertEqual((await self.add("administrator", "svc-other", [alias])).warnings, ())
        await self.delete("administrator", "svc-other", str(alias))
        line = await self.failure_of(
            self.add("administrator", "svc-echo", [alias]), DirectoryRefused
        )
        self.assertIn(
            f"SPN {alias}: svc-other (CN=svc-other,CN=Users,{self.place.base_dn}) holds {plain}",
            line,
        )
        self.assertIn(f"mutauth spn add svc-echo {alias} --allow-alias", line)
        line = await self.failure_of(
            self.replace("administrator", "svc-echo", [alias]), DirectoryRefused
        )
        self.assertIn(f"mutauth spn replace svc-echo {alias} --allow-alias", line)
        written = await self.add("administrator", "svc-echo", [alias], allow_alias=True)
        self.assertEqual((written.added, len(written.warnings)), ((str(alias),), 1))

    async def test_aliases_the_other_way_round(self) -> None:
        """host/h is refused while another account holds HTTP/h; a domain controller insists on that
        itself.
        """
        plain, alias = self.alias_pair()
        await self.add("administrator", "svc-other", [alias])
        line = await self.failure_of(
            self.add("administrator", "svc-echo", [plain]), DirectoryRefused
        )
        self.assertIn(f"holds {str(alias).replace('HTTP', 'http')}", line)
        line = await self.failure_of(
            self.add("administrator", "svc-echo", [plain], allow_alias=True), DirectoryRefused
        )
        reach = f"--nameserver {self.place.nameserver}"
        self.assertIn(
            f"mutauth spn query '*/{plain.host}' {reach} tells who holds it or an alias of it", line
        )

    def alias_pair(self) -> tuple[SPN, SPN]:
        """Two SPNs of a host of our own, gone after the test."""
        host = f"{self.service_class}.lab.example"
        pair = SPN("host", host), SPN("HTTP", host)

        def forget(session: LdapSession) -> None:
            for account in ("svc-echo", "svc-other"):
                spnadmin.delete(session, account, list(map(str, pair)))

        self.addCleanup(self.as_user("administrator").run, forget)
        return pair


class SearchCases(SPNCases):
    """Looking for SPNs."""

    async def test_query(self) -> None:
        """Case does not count, only the star is special, and only SPNs that fit are given."""
        texts = [
            f"{self.service_class}/{rest}" for rest in ("a(b", "a/CN=x\\, y,DC=z", "ab:1", "b")
        ]
        await self.add("administrator", "svc-echo", map(SPN.parse, texts))
        for pattern, found in (
            ("/*", texts),
            ("/A*", texts[:3]),
            ("/*\\, Y,*", texts[1:2]),
            ("/a(*", texts[:1]),
            ("/*:1", texts[2:3]),
            ("/b", texts[3:]),
            ("/a", []),
            ("/*)(objectClass=*", []),
            ("/?", []),
        ):

            def ask(
                catalog: LdapSession, pattern: str = self.service_class.upper() + pattern
            ) -> list[str]:
                return [text for _, text in spnadmin.query(catalog, pattern)]

            self.assertEqual(await self.do("alice", ask, global_catalog=True), found, pattern)

    async def test_sid(self) -> None:
        """Accounts and groups are found by SID; an unknown SID is nobody."""

        def ask(catalog: LdapSession) -> list[str | None]:
            echo = find_account(catalog, "svc-echo") if not catalog.catalog else None
            sids = [echo.sid if echo else "", "S-1-5-32-544", "S-1-5-21-1-2-3-4"]
            return [
                holder and holder.name for holder in (find_by_sid(catalog, sid) for sid in sids)
            ]

        self.assertEqual(await self.do("alice", ask), ["svc-echo", "Administrators", None])

    async def test_duplicates(self) -> None:
        """A duplicate that went past the domain controller's check is found, and every SPN was
        looked at.
        """
        spn = self.name("h/CN=a\\, ü,DC=x")
        await self.add("administrator", "svc-other", [spn, self.name("once")])
        self.smuggle("svc-echo", str(spn).upper())
        self.addCleanup(
            self.do_deferred, lambda session: spnadmin.delete(session, "svc-echo", [str(spn)])
        )
        told: list[tuple[int, int]] = []

        def ask(catalog: LdapSession) -> tuple[list[Duplicate], int]:
            found = find_duplicates(catalog, lambda *counts: told.append(counts))
            return found, sum(1 for _ in spnadmin.query(catalog, "*"))

        found, spns = await self.do("alice", ask, global_catalog=True)
        ours = [each for each in found if each.spn.casefold() == str(spn).casefold()]
        self.assertEqual(
            [[holder.name for holder in each.holders] for each in ours], [["svc-echo", "svc-other"]]
        )
        self.assertNotIn(str(self.name("once")), [each.spn for each in found])
        self.assertEqual(told[-1][1], spns)
        await self.add("administrator", "svc-echo", [self.name("kept")])
        await self.delete("administrator", "svc-echo", str(spn))
        self.assertEqual(await self.spns_of("svc-echo"), {str(self.name("kept"))})
        found, _ = await self.do("alice", ask, global_catalog=True)
        self.assertNotIn(str(spn).casefold(), [each.spn.casefold() for each in found])

    def do_deferred(self, work: Callable[[LdapSession], object]) -> Deferred[object]:
        """Do blocking work as the administrator, in a clean-up."""
        return self.as_user("administrator").run(work)
