"""Names on tickets: accounts that come under other names than their own, or under somebody else's,
at a real KDC.
"""

from __future__ import annotations

from typing import TypeVar

from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.directory.spns import find_account
from mutauth_twisted.errors import DirectoryRefused, MutualAuthError
from mutauth_twisted.gateway.ident import user_id
from mutauth_twisted.ldap.session import Change
from tests.integration.account_case import AccountCase

T = TypeVar("T")


class AccountTests(AccountCase):
    """Names that a client chooses."""

    async def test_a_free_name(self) -> None:
        """An account whose UPN has an allowed name that is nobody's is not allowed by it, with a
        PAC or without.
        """
        await self.add(self.mallory, f"{self.ghost}@lab.example")
        ghost = AccessPolicy(allow=[self.named(self.ghost)])
        for options in ((), ("--no-request-pac",)):
            who = self.as_name(self.ghost, *options)
            await self.kept_out(ghost, who)
            identity = await self.allowed(AccessPolicy(allow=[self.named("*")]), who)
            self.assertEqual(identity.principal, self.named(self.ghost))
            self.assertEqual(
                identity.account, None if options else f"{self.lab.domain}\\{self.mallory}"
            )
            # A backend is not told the name either.
            if options:
                self.assertRaises(MutualAuthError, user_id, identity)
            else:
                self.assertEqual(user_id(identity), self.named(self.mallory))

    async def test_a_taken_name(self) -> None:
        """An account whose UPN begins with another's sAMAccountName is not allowed for that
        account, which is.
        """
        victim = f"vic-{self.tag}"
        await self.add(victim, f"{victim}.smith@lab.example")
        dn = await self.add(self.mallory, f"{victim}@other.example")
        policy = AccessPolicy(allow=[self.named(victim)])
        await self.kept_out(policy, self.as_name(f"{victim}@other.example", "-E"))
        identity = await self.allowed(policy, self.as_name(f"{victim}.smith"))
        self.assertEqual(identity.account, f"{self.lab.domain}\\{victim}")
        # The very name is refused by this domain controller; by older ones it is not.
        upn = Change("replace", "userPrincipalName", (f"{victim}@lab.example",))
        with self.assertRaises(DirectoryRefused):
            await self.do(lambda session: session.modify(dn, [upn]))

    async def test_the_account_itself(self) -> None:
        """An allowed account comes in under each of its names, and is known by its own."""
        await self.add(self.mallory, f"{self.ghost}@lab.example")
        sid = (await self.do(lambda session: find_account(session, self.mallory))).sid
        policy = AccessPolicy(allow=[self.named(self.mallory)])
        for name, *options in (
            (self.mallory,),
            (self.mallory.upper(),),
            (self.ghost,),
            (self.ghost, "-C"),
            (f"{self.ghost}@lab.example", "-E"),
            (f"{self.mallory}@{self.lab.domain}", "-E"),
        ):
            identity = await self.allowed(policy, self.as_name(name, *options))
            self.assertEqual(
                (identity.account, identity.sid), (f"{self.lab.domain}\\{self.mallory}", sid)
            )
            self.assertEqual(user_id(identity), self.named(self.mallory))

    async def test_denied(self) -> None:
        """A denied account stays out under each of its names, and without a PAC; others come in."""
        await self.add(self.mallory, f"{self.ghost}@lab.example")
        for denied in (self.mallory, self.ghost):
            policy = AccessPolicy(allow_all=True, deny=[self.named(denied)])
            for name, *options in (
                (self.mallory,),
                (self.mallory.upper(),),
                (self.mallory, "--no-request-pac"),
                (self.ghost,),
                (self.ghost, "-C"),
                (self.ghost, "--no-request-pac"),
                (f"{self.ghost}@lab.example", "-E"),
                (f"{self.ghost}@lab.example", "-E", "--no-request-pac"),
                (f"{self.mallory}@{self.lab.domain}", "-E"),
            ):
                await self.kept_out(policy, self.as_name(name, *options))
            await self.allowed(policy, self.alice)

    async def test_as_the_log_has_it(self) -> None:
        """DOMAIN\\name allows and denies that account, under each of its names; without a PAC
        nobody comes in.
        """
        await self.add(self.mallory, f"{self.ghost}@lab.example")
        for typed in (self.mallory, self.ghost):
            who = self.as_name(typed)
            for domain in (self.lab.domain, self.lab.domain.lower(), self.lab.realm):
                account = f"{domain}\\{self.mallory}"
                identity = await self.allowed(AccessPolicy(allow=[account]), who)
                self.assertEqual(identity.account, f"{self.lab.domain}\\{self.mallory}")
                denied = AccessPolicy(allow_all=True, deny=[account])
                await self.kept_out(denied, who)
                await self.allowed(denied, self.alice)
                for policy in (denied, AccessPolicy(allow=[account])):
                    await self.kept_out(policy, self.as_name(typed, "--no-request-pac"))
            await self.kept_out(AccessPolicy(allow=[f"{self.lab.domain}\\{self.ghost}"]), who)

    async def test_computer(self) -> None:
        """A computer that leaves its $ out is not a user of that name, and is denied by its own."""
        password = self.lab.password("srv1")
        for name in ("srv1", "SRV1", "srv1$"):
            who = self.as_name(name, password=password)
            await self.kept_out(AccessPolicy(allow=[self.named("srv1")]), who)
            for denied in (
                self.named("SRV1$"),
                self.named("Srv1"),
                f"{self.lab.domain}\\srv1",
                "lab.example\\SRV1$",
            ):
                await self.kept_out(AccessPolicy(allow_all=True, deny=[denied]), who)
            identity = await self.allowed(AccessPolicy(allow=[self.named("srv1$")]), who)
            self.assertEqual(identity.account, f"{self.lab.domain}\\srv1$")

    async def test_letters(self) -> None:
        """Beyond A to Z too the account's own spelling counts, not the client's."""
        name = f"zo\u00eb-{self.tag}"
        await self.add(name)
        policy = AccessPolicy(allow=[self.named(name)])
        for typed in (name, name.upper()):
            identity = await self.allowed(policy, self.as_name(typed))
            self.assertEqual(identity.account, f"{self.lab.domain}\\{name}")
        denied = AccessPolicy(allow_all=True, deny=[self.named(name.upper())])
        for typed in (name, name.upper()):
            await self.kept_out(denied, self.as_name(typed))

    async def test_the_log_names_the_account(self) -> None:
        """Why a client with an allowed name was refused is told to the service."""
        await self.add(self.mallory, f"{self.ghost}@lab.example")
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        policy = AccessPolicy(allow=[self.named(self.ghost)])
        account = (
            f"no rule allows it; its account is {self.named(self.mallory)} "
            f"({self.lab.domain}\\{self.mallory})"
        )
        for options, reason in (((), account), (("--no-request-pac",), "has no PAC")):
            lines.clear()
            await self.kept_out(policy, self.as_name(self.ghost, *options))
            self.assertTrue(
                any(self.named(self.ghost) in line and reason in line for line in lines), lines
            )
