"""Search of a client for a service in the directory, and the entries that it does not believe."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.location import Instance, Selection, locate
from mutauth_twisted.directory.scp import (
    create_scp,
    update_binding,
)
from mutauth_twisted.directory.spns import add_spns, find_account, remove_spns
from mutauth_twisted.errors import (
    NotFound,
    OtherObject,
    ServiceCheckFailed,
    UsageError,
)
from mutauth_twisted.ldap.dn import child_dn, parent_of
from mutauth_twisted.ldap.session import Change, LdapSession
from mutauth_twisted.spn import SPN
from tests.cases.world import DirectoryWorld


class LocationCases(DirectoryWorld):
    """The client's side: what is found, what is believed, and why not."""

    async def located(self, selector: str, **options: Any) -> list[Instance]:
        return await locate(self.as_user("alice"), Selection(selector, **options))

    async def rogue_publishes(self, dns_name: str | None = None) -> None:
        """A rogue computer puts the same keyword below itself and registers what it can."""
        host = self.place.host("rogue")

        def publish(session: LdapSession) -> None:
            dn = child_dn(self.service_class, f"CN=rogue,CN=Computers,{self.place.base_dn}")
            point = create_scp(
                session,
                dn,
                service_class=self.service_class,
                dns_name=dns_name or host,
                keywords=[self.service_class],
            )
            update_binding(
                session, point, dns_name or host, BindingInformation(666, spn_form="host")
            )
            add_spns(session, find_account(session, "rogue$"), [SPN(self.service_class, host)])

        await self.do("rogue", publish)

    async def test_by_keyword_dn_and_guid(self) -> None:
        """All three selectors find the same instance, with the SPN form that was published or asked
        for.
        """
        found = await self.install()
        await self.publish(found)
        for selector in (
            self.service_class,
            self.service_class.upper(),
            found.dn,
            str(found.guid),
            f"{{{found.guid}}}",
        ):
            (instance,) = await self.located(selector)
            self.assertEqual((instance.host, instance.port), (self.host, 9000))
            self.assertEqual(instance.spn, SPN(self.service_class, self.host, found.dn))
        (instance,) = await self.located(
            self.service_class, spn_form="guid", service_class=self.service_class
        )
        self.assertEqual(instance.spn, SPN(self.service_class, self.host, str(found.guid)))
        await self.publish(found, binding=BindingInformation(9000, spn_form="guid"))
        (instance,) = await self.located(self.service_class)
        self.assertEqual(instance.spn.service_name, str(found.guid))

    async def test_a_guid_stays_one(self) -> None:
        """A selector that looks like a GUID is an objectGUID, and one that looks like a DN a DN:
        never keywords.
        """
        product = str(uuid4())
        dn = f"CN={product},{self.place.base_dn}"
        found = await self.install(keywords=[self.service_class, product, dn])
        await self.publish(found)
        for selector in (product, f"{{{product}}}"):
            line = await self.failure_of(
                self.located(selector, service_class=self.service_class), NotFound
            )
            self.assertIn(f"is written keyword={product}:class=CLASS", line)
        await self.failure_of(self.located(dn, service_class=self.service_class), NotFound)
        for keyword in (product, dn, self.service_class):
            (instance,) = await self.located(
                keyword, kind="keyword", service_class=self.service_class
            )
            self.assertEqual(instance.guid, found.guid)

    async def test_another_class(self) -> None:
        """By keyword the class is the keyword, or the one that the client names; by DN it is the
        object's own.
        """
        keyword = self.service_class + "-other"
        found = await self.install(keywords=[keyword])
        await self.publish(found)
        line = await self.failure_of(self.located(keyword), ServiceCheckFailed)
        self.assertIn(f"it is of service class {self.service_class}, not {keyword}", line)
        self.assertIn("class=CLASS", line)
        for kind in ("scp", "keyword"):
            (instance,) = await self.located(
                keyword, kind=kind, service_class=self.service_class.upper()
            )
            self.assertEqual(instance.spn, SPN(self.service_class, self.host, found.dn))
        for kind in ("scp", "keyword"):
            line = await self.failure_of(
                self.located(keyword, kind=kind, service_class="other"), ServiceCheckFailed
            )
            self.assertIn(f"it is of service class {self.service_class}, not other", line)
        (instance,) = await self.located(found.dn)
        self.assertEqual(instance.spn.service_class, self.service_class)

    async def test_a_rogue_computer_is_never_located(self) -> None:
        """A computer that publishes the keyword and registers its own SPN stays unseen."""
        await self.rogue_publishes()
        line = await self.failure_of(self.located(self.service_class), ServiceCheckFailed)
        self.assertIn("no account holds the SPN that vouches for it", line)
        found = await self.install()
        await self.publish(found)
        for options in ({}, {"spn_form": "guid"}, {"service_class": self.service_class}):
            (instance,) = await self.located(self.service_class, **options)
            self.assertEqual(instance.guid, found.guid)
        await self.failure_of(self.located(self.service_class, spn_form="host"), UsageError)
        (instance,) = await self.located(
            self.service_class, spn_form="host", hosts="srv*.lab.example"
        )
        self.assertEqual(instance.host, self.host)
        base = parent_of(found.dn)
        await self.failure_of(
            self.located(self.service_class, spn_form="host", base=base), UsageError
        )
        (instance,) = await self.located(self.service_class, base=base)
        self.assertEqual(instance.host, self.host)

    async def test_an_spn_in_another_spelling(self) -> None:
        """A DN with a capital umlaut is another name to clients, and installing again registers the
        right one.
        """
        found = await self.install(scp_name="m\u00fcller")
        await self.publish(found)
        right = SPN(self.service_class, self.host, found.dn)
        wrong = SPN(self.service_class, self.host, found.dn.replace("\u00fc", "\u00dc"))
        self.assertNotEqual(right, wrong)

        def respell(session: LdapSession) -> None:
            remove_spns(session, find_account(session, "svc-echo"), [right])
            add_spns(session, find_account(session, "svc-echo"), [wrong])

        await self.do("administrator", respell)
        line = await self.failure_of(self.located(self.service_class), ServiceCheckFailed)
        self.assertIn(f"no account holds the SPN that vouches for it, {right}", line)
        await self.install(scp_name="m\u00fcller")
        (instance,) = await self.located(self.service_class)
        self.assertEqual(instance.spn, right)

    async def test_a_rogue_computer_cannot_pose_as_another_host(self) -> None:
        """Naming the true host does not help the rogue: its object's SPN is nobody's."""
        await self.rogue_publishes(dns_name=self.host)
        found = await self.install()
        await self.publish(found)
        (instance,) = await self.located(self.service_class)
        self.assertEqual((instance.guid, instance.port), (found.guid, 9000))

    async def test_replicas_are_ordered(self) -> None:
        """Priority first, then weight."""
        first = await self.install()
        second = await self.install(
            host=self.place.host("srv2"), scp_parent=f"CN=srv2,CN=Computers,{self.place.base_dn}"
        )
        await self.publish(first, binding=BindingInformation(9001, priority=2))
        await self.publish(
            second, binding=BindingInformation(9002, priority=1), host=self.place.host("srv2")
        )
        self.assertEqual(
            [each.port for each in await self.located(self.service_class)], [9002, 9001]
        )

    async def test_nothing_found(self) -> None:
        """Selections that are not there are named, as they were given."""
        for selector in ("no-such-keyword", str(UUID(int=7))):
            line = await self.failure_of(self.located(selector), NotFound)
            self.assertIn(selector, line)
        line = await self.failure_of(self.located("*)(objectClass=*", service_class="x"), NotFound)
        self.assertIn("*)(objectClass=*", line)
        dn = f"CN=nothing,{self.place.base_dn}"
        self.assertIn(dn, await self.failure_of(self.located(dn), NotFound))
        line = await self.failure_of(
            self.located("no-such-keyword", base=self.place.base_dn), NotFound
        )
        self.assertIn(f"below {self.place.base_dn}", line)

    async def test_unusable(self) -> None:
        """Not published, of another class, malformed, and no connection point at all."""
        found = await self.install()
        line = await self.failure_of(self.located(self.service_class), ServiceCheckFailed)
        self.assertIn("it has published no port; is the service running?", line)
        await self.publish(found)
        line = await self.failure_of(
            self.located(self.service_class, service_class="other"), ServiceCheckFailed
        )
        self.assertIn(f"it is of service class {self.service_class}, not other", line)
        change = [Change("replace", "serviceBindingInformation", ("ninety",))]
        await self.do("svc-echo", lambda session: session.modify(found.guid, change))
        line = await self.failure_of(self.located(self.service_class), ServiceCheckFailed)
        self.assertIn("'ninety'", line)
        line = await self.failure_of(self.located(parent_of(found.dn)), OtherObject)
        self.assertIn("not a service connection point", line)
