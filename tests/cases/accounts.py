"""Finding accounts, and writing their SPNs."""

from __future__ import annotations

from mutauth_twisted.directory.accounts import find_namesakes, netbios_name
from mutauth_twisted.directory.spns import (
    add_spns,
    find_account,
    find_holders,
    remove_spns,
    replace_spns,
)
from mutauth_twisted.errors import DirectoryRefused, NotFound
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.spn import SPN
from tests.cases.world import DirectoryWorld


class AccountCases(DirectoryWorld):
    """Finding accounts, and writing their SPNs."""

    async def test_find_account_by_every_name(self) -> None:
        """The same account by sAMAccountName, UPN, DN and down-level name; a computer without its
        $.
        """
        by_name = await self.do("alice", lambda session: find_account(session, "svc-echo"))
        self.assertTrue(by_name.sid.startswith("S-1-5-21-"))
        for name in (
            "SVC-ECHO",
            f"svc-echo@{self.place.realm}",
            by_name.dn,
            f"{self.place.netbios}\\svc-echo",
        ):
            found = await self.do("alice", lambda session, name=name: find_account(session, name))
            self.assertEqual(found, by_name)
        computer = await self.do("alice", lambda session: find_account(session, "srv1"))
        self.assertEqual(
            (computer.name, computer.is_computer, computer.dns_host_name),
            ("srv1$", True, self.host),
        )
        for name in (
            "nobody",
            f"nobody@{self.place.realm}",
            f"CN=nobody,{self.place.base_dn}",
            "*",
        ):
            line = await self.failure_of(
                self.do("alice", lambda session, name=name: find_account(session, name)), NotFound
            )
            self.assertIn("nobody" if "nobody" in name else "account *", line)

    async def test_writing_spns_is_idempotent(self) -> None:
        """Adding what is there and removing what is not succeed, and say that nothing was done."""
        spn = SPN(self.service_class, self.host)

        def twice(session: LdapSession) -> list[list[SPN]]:
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

        def work(session: LdapSession) -> tuple[set[str], set[str]]:
            account = find_account(session, "svc-other")
            replace_spns(
                session, account, [SPN(self.service_class, "a"), SPN(self.service_class, "b")]
            )
            both = set(find_account(session, "svc-other").spns)
            replace_spns(session, account, [])
            return both, set(find_account(session, "svc-other").spns)

        both, none = await self.do("administrator", work)
        self.assertEqual(
            (both, none), ({f"{self.service_class}/a", f"{self.service_class}/b"}, set())
        )

    async def test_who_may_write_which_spn(self) -> None:
        """The table of validated writes: only an administrator registers a three-part SPN."""
        two, three = (
            SPN(self.service_class, self.place.host("rogue")),
            SPN(self.service_class, self.host, "name"),
        )
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

            def write(session: LdapSession, name: str = name, spn: SPN = spn) -> list[SPN]:
                return add_spns(session, find_account(session, name), [spn])

            if allowed:
                self.assertEqual(await self.do(user, write), [spn])
                await self.do(
                    "administrator",
                    lambda s, n=name, p=spn: remove_spns(s, find_account(s, n), [p]),
                )
            else:
                line = await self.failure_of(self.do(user, write), DirectoryRefused)
                self.assertIn(f"SPN {spn} on {name}", line)
                self.assertIn("administrator", line)

    async def test_a_taken_spn_is_refused_by_the_directory_too(self) -> None:
        """The directory's own uniqueness check becomes a clear line, whatever the case of
        letters.
        """
        spn = SPN(self.service_class, self.host)
        await self.do(
            "administrator",
            lambda session: add_spns(session, find_account(session, "svc-other"), [spn]),
        )
        upper = SPN(self.service_class.upper(), self.host.upper())
        line = await self.failure_of(
            self.do(
                "administrator",
                lambda session: add_spns(session, find_account(session, "svc-echo"), [upper]),
            ),
            DirectoryRefused,
        )
        self.assertIn("mutauth spn query", line)
        holders = await self.do(
            "alice", lambda session: find_holders(session, upper), global_catalog=True
        )
        self.assertEqual([holder.name for holder in holders], ["svc-other"])

    async def test_namesakes(self) -> None:
        """Accounts that may have been meant: accounts and groups of this name, with a ``$``, or in
        a UPN.
        """
        table = {
            "alice": ("alice", False),
            "SRV1": ("srv1$", False),
            "Domain Users": ("Domain Users", True),
        }
        for name, (meant, is_group) in table.items():
            (found,) = await self.do(
                "alice", lambda session, name=name: find_namesakes(session, name)
            )
            self.assertEqual(
                (found.name.casefold(), found.is_group), (meant.casefold(), is_group), name
            )
        for name in ("nobody", "*", "a*e"):
            self.assertEqual(
                await self.do("alice", lambda session, name=name: find_namesakes(session, name)), ()
            )
        self.assertEqual(await self.do("alice", netbios_name), self.place.netbios)
