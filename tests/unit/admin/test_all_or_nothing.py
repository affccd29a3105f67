"""Installation in a domain in memory: whichever write fails, every object is as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mutauth_twisted.admin import installation
from mutauth_twisted.admin.undo import Undo
from mutauth_twisted.directory.servicename import ServiceName
from mutauth_twisted.errors import DirectoryRefused, DirectoryUnreachable, MutualAuthError
from mutauth_twisted.ldap.session import LdapSession
from tests.cases.scps import SCPCases
from tests.cases.world import taken
from tests.unit.memory_case import MemoryTestCase

#: What is installed, and how many writes that takes.
VARIANTS: tuple[tuple[dict[str, Any], int], ...] = (
    ({}, 4),
    ({"spn_forms": ["guid", "dn", "host"], "keywords": ["a", "b"]}, 5),
    ({"container": "services, all"}, 5),
    ({"scp_parent": "CN=srv2,CN=Computers,DC=lab,DC=example", "scp_name": 'a,"b" ü'}, 4),
)


class AllOrNothingTests(SCPCases, MemoryTestCase):
    """Each write in turn fails."""

    async def each_write_fails(
        self,
        disturb: Callable[[int], None],
        kind: type[MutualAuthError],
        install: Callable[[], Any],
        writes: int,
    ) -> None:
        """Nothing is left of an installation, whichever of its writes fails, and then it works."""
        before = self.domain.contents()
        for number in range(1, writes + 1):
            disturb(number)
            await self.failure_of(install(), kind)
            self.assertEqual(self.domain.contents(), before, number)
        disturb(writes + 1)
        await install()
        self.assertNotEqual(self.domain.contents(), before)
        self.domain.leave_alone()

    async def test_refused_writes(self) -> None:
        """Changes before a refused write are undone; uninstalling leaves nothing either."""
        before = self.domain.contents()
        for options, writes in VARIANTS:
            await self.each_write_fails(
                self.domain.refuse_write,
                DirectoryRefused,
                lambda options=options: self.install(**options),  # type: ignore[misc]
                writes,
            )
            names = {name: each for name, each in options.items() if name != "keywords"}
            await self.uninstall(**names)
            self.assertEqual(self.domain.contents(), before)

    async def test_lost_answers(self) -> None:
        """A write whose answer is lost with the connection is undone over another connection."""
        before = self.domain.contents()
        for options, writes in VARIANTS:

            def install(options: dict[str, Any] = options) -> Any:
                given = dict(options)
                service = self.service(**taken(ServiceName, given))

                def work(session: LdapSession, catalog: LdapSession, undo: Undo) -> Any:
                    return installation.install(
                        session, catalog, service, account="svc-echo", undo=undo, **given
                    )

                return installation.all_or_nothing(self.as_user("administrator"), work)

            await self.each_write_fails(
                self.domain.lose_answer, DirectoryUnreachable, install, writes
            )
            names = {name: each for name, each in options.items() if name != "keywords"}
            await self.uninstall(**names)
            self.assertEqual(self.domain.contents(), before)

    async def test_on_top_of_another_installation(self) -> None:
        """Entries that an earlier installation made stay when a later one fails, or is
        uninstalled.
        """
        await self.install(spn_forms=["guid"])
        await self.install(service_class="other", account="svc-other")
        before = self.domain.contents()
        await self.each_write_fails(
            self.domain.refuse_write,
            DirectoryRefused,
            lambda: self.install(keywords=["more"]),
            2,
        )
        await self.uninstall()
        await self.install(service_class="other", account="svc-other")
        after = self.domain.contents()
        (dn,) = set(before) - set(after)
        self.assertIn(self.service_class, dn)
        kept = {name: values for name, values in before.items() if name != dn}
        echo = f"CN=svc-echo,CN=Users,{self.place.base_dn}"
        self.assertNotIn("servicePrincipalName", after[echo])
        del kept[echo], after[echo]
        self.assertEqual(after, kept)
