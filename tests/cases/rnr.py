"""RnR services end to end: published by an administrator, served, found, authenticated, removed."""

from __future__ import annotations

import os
from typing import Any

from mutauth_twisted.directory import rnr
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.location import Instance, Selection, locate
from mutauth_twisted.directory.rnr import Address
from mutauth_twisted.directory.spns import add_spns, find_account
from mutauth_twisted.errors import DirectoryRefused, NotFound, OtherObject, ServiceCheckFailed
from mutauth_twisted.ldap.session import Change, LdapSession
from mutauth_twisted.spn import SPN
from tests.cases.world import DirectoryWorld

#: Outside the range of ports that are given out, and other than those of the lab's SRV records.
PORT = 9000 + os.getpid() % 300


class RnrDirectoryCases(DirectoryWorld):
    """The objects, and who may write them."""

    def setUp(self) -> None:
        super().setUp()
        self.dn = f"CN={self.service_class},CN=WinsockServices,CN=System,{self.place.base_dn}"
        self.addCleanup(self.remove)

    async def remove(self) -> None:
        def work(session: LdapSession) -> None:
            if any(each.name == self.service_class for each in rnr.list_instances(session)):
                rnr.remove(session, self.service_class)

        await self.do("administrator", work)

    async def publish(
        self, *addresses: Address, user: str = "administrator"
    ) -> rnr.ServiceInstance:  # type: ignore[override]
        """Publish, and have an administrator register the SPNs."""
        instance = await self.do(
            user,
            lambda session: rnr.publish(session, self.service_class, self.service_class, addresses),
        )
        spns = [instance.spn(each.host) for each in addresses]
        await self.do(
            "administrator",
            lambda session: add_spns(session, find_account(session, "svc-echo"), spns),
        )
        return instance

    async def located(self, name: str | None = None, **options: Any) -> list[Instance]:
        return await locate(
            self.as_user("alice"), Selection(name or self.service_class, kind="rnr", **options)
        )

    async def test_publish_find_and_remove(self) -> None:
        """A service is created with its class, found by name and DN, and removed with its class."""
        first = Address(self.host, BindingInformation(9001, priority=2))
        second = Address(self.place.host("srv2"), BindingInformation(9002, priority=1))
        instance = await self.publish(first, second)
        self.assertEqual((instance.dn, instance.service_class), (self.dn, self.service_class))
        for name in (self.service_class, self.service_class.upper(), self.dn):
            found = await self.located(name)
            self.assertEqual(
                [(each.host, each.port) for each in found],
                [(second.host, 9002), (first.host, 9001)],
            )
            self.assertEqual(found[0].spn, SPN(self.service_class, second.host, self.dn))
        (only,) = await self.located(hosts="srv1.*", service_class=self.service_class)
        self.assertEqual(only.host, self.host)
        await self.remove()
        line = await self.failure_of(self.located(), NotFound)
        self.assertIn("mutauth rnr list --nameserver", line)
        class_dn = (
            f"CN={self.service_class}-class,CN=WinsockServices,CN=System,{self.place.base_dn}"
        )
        await self.failure_of(
            self.do("alice", lambda session: session.read(class_dn, ["cn"])), NotFound
        )

    async def test_an_spn_that_nobody_holds(self) -> None:
        """An address without its SPN is refused, and the line says what an administrator runs;
        others are found.
        """
        await self.publish(Address(self.host, BindingInformation(9001)))
        rogue = Address(self.place.host("rogue"), BindingInformation(666))
        await self.do(
            "administrator",
            lambda session: rnr.publish(session, self.dn, self.service_class, [rogue]),
        )
        (instance,) = await self.located()
        self.assertEqual(instance.host, self.host)
        line = await self.failure_of(self.located(hosts="rogue.*"), ServiceCheckFailed)
        self.assertIn(
            "no account holds the SPN that vouches for it, "
            f"{self.service_class}/{rogue.host}/{self.dn}",
            line,
        )
        self.assertIn("an administrator runs mutauth rnr publish", line)
        self.assertIn("--account ACCOUNT", line)

    async def test_another_port_takes_the_place_of_the_old_one(self) -> None:
        """A host has one address; other hosts' stay, and so does what others have encoded."""
        foreign = bytes.fromhex("02002328c0000201") + bytes(8)
        other = Address(self.place.host("srv2"), BindingInformation(9002))
        await self.publish(Address(self.host, BindingInformation(9001)), other)
        change = [Change("add", "winsockAddresses", (foreign,))]
        await self.do("administrator", lambda session: session.modify(self.dn, change))
        moved = Address(self.host.upper(), BindingInformation(9003))
        instance = await self.publish(moved)
        self.assertEqual((set(instance.addresses), instance.foreign), ({other, moved}, 1))
        self.assertEqual(len(await self.located()), 2)

    async def test_only_an_administrator_may_publish(self) -> None:
        """Computers and services may not create one, nor change one that is there; the line says
        who may.
        """
        address = Address(self.host, BindingInformation(9001))
        for user in ("srv1", "rogue", "svc-echo", "alice"):
            line = await self.failure_of(self.publish(address, user=user), DirectoryRefused)
            self.assertIn("only administrators may create services there", line)
            self.assertIn("run mutauth rnr publish as an administrator", line)
        await self.publish(address)
        evil = Address(self.place.host("rogue"), BindingInformation(666))
        for user in ("srv1", "rogue", "svc-echo", "alice"):
            await self.failure_of(self.publish(evil, user=user), DirectoryRefused)
        self.assertEqual([each.host for each in await self.located()], [self.host])

    async def test_unusable(self) -> None:
        """Of another class, without an address that can be read, on other hosts, or another kind of
        object.
        """
        await self.publish(Address(self.host, BindingInformation(9001)))
        line = await self.failure_of(self.located(service_class="other"), ServiceCheckFailed)
        self.assertIn(f"it is of service class {self.service_class}, not other", line)
        line = await self.failure_of(self.located(hosts="nowhere.*"), NotFound)
        self.assertIn("none of its hosts matches", line)
        foreign = [Change("replace", "winsockAddresses", (b"\x02\x00#(",))]
        await self.do("administrator", lambda session: session.modify(self.dn, foreign))
        line = await self.failure_of(self.located(), ServiceCheckFailed)
        self.assertIn("no address that can be read here (1 others)", line)
        line = await self.failure_of(
            self.located(f"CN=srv1,CN=Computers,{self.place.base_dn}"), OtherObject
        )
        self.assertIn("is not a serviceInstance", line)
        for name in ("*", "a,b=c/d", "x)(cn=*"):
            await self.failure_of(self.located(name), NotFound)
