"""A running service notices what an administrator breaks, says how to fix it, and fixes what it
may.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from mutauth_twisted.admin.installation import Installation
from mutauth_twisted.admin.scpadmin import read_dacl, write_dacl
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory import acl as security
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.guidcache import GuidCache
from mutauth_twisted.directory.published.base import Elsewhere
from mutauth_twisted.directory.rnr import Address, list_instances, publish, remove
from mutauth_twisted.directory.scp import delete_scp, read_scp
from mutauth_twisted.directory.spns import add_spns, find_account, remove_spns
from mutauth_twisted.ldap.session import Change, LdapSession
from mutauth_twisted.service.neighbours import Neighbours
from tests.integration.maintenance_case import RIGHT, MaintenanceCase


class MaintenanceTests(MaintenanceCase):
    """Mistakes that come into the service's object and its SPNs."""

    async def test_spn_gone_and_moved(self) -> None:
        """A lost SPN, and one that is on another account, are told apart, once, until they are
        back.
        """
        found = await self.install()
        publisher = await self.started(found=found)
        spn = found.spns[0]
        await self.as_administrator(lambda session: remove_spns(session, found.account, [spn]))
        await self.logged(
            f"SPN {spn}: it is not on account svc-echo", "run mutauth install --service-class"
        )
        await self.as_administrator(
            lambda session: add_spns(session, find_account(session, "svc-other"), [spn])
        )
        await self.logged(f"SPN {spn}: it is on svc-other", "mutauth spn delete svc-other")
        assert publisher.watch is not None
        self.assertEqual(len(publisher.watch.wrong), 1)
        self.lines.clear()
        await deferLater(reactor, 0.5)
        self.assertEqual(self.lines, [])
        await self.as_administrator(
            lambda session: remove_spns(session, find_account(session, "svc-other"), [spn])
        )
        await self.install()
        await self.logged(RIGHT)
        self.assertEqual(publisher.watch.wrong, ())

    async def test_binding_overwritten(self) -> None:
        """Values that somebody else wrote are named, and replaced."""
        found = await self.install()
        await self.started(found=found)
        changes = [
            Change("replace", "serviceBindingInformation", ("666",)),
            Change("replace", "serviceDNSName", ("rogue.lab.example",)),
        ]
        await self.as_administrator(lambda session: session.modify(found.guid, changes))
        await self.logged(
            f"it said rogue.lab.example 666 instead of {self.host} 9000; published again"
        )
        await self.logged(RIGHT)
        point = await self.do("alice", lambda session: read_scp(session, found.guid))
        self.assertEqual((point.dns_name, point.binding_text), (self.host, "9000"))

    async def neighbour(self, host: str, user: str | None = "svc-echo") -> Any:
        """Another instance on a host, with a user's key, or a program that only accepts
        connections; its port.
        """
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        where = f"tcp:0:interface={self.lab.address_of(host)}"
        if user is not None:
            inner = where.replace(":", "\\:").replace("=", "\\=")
            where = f"mutauth:{inner}:keytab={self.lab.keytab(user)}:allow-all=yes"
        port: Any = await serverFromString(reactor, where).listen(factory)
        self.addCleanup(port.stopListening)
        return port

    async def install_everywhere(self) -> Installation:
        """For instances on two hosts."""
        found = await self.install()
        spns = [found.scp.spn("dn", self.lab.host("srv2"))]
        await self.as_administrator(lambda session: add_spns(session, found.account, spns))
        return found

    async def test_a_squatter(self) -> None:
        """A server in an instance's old place that does not authenticate itself keeps nobody away,
        at the start or later.
        """
        found = await self.install()
        for user in (None, "svc-other"):
            squatter = await self.neighbour(self.host, user)
            says = str(squatter.getHost().port)
            change = [Change("replace", "serviceBindingInformation", (says,))]
            await self.as_administrator(
                lambda session, change=change: session.modify(found.guid, change)
            )
            publisher = await self.started(found=found)
            await self.logged(f"no other instance runs at {self.host}:{says}: ")
            self.assertEqual(
                (await self.published(found), publisher.wrong), ((self.host, "9000"), ())
            )
            await self.as_administrator(
                lambda session, change=change: session.modify(found.guid, change)
            )
            await self.logged("published again")
            self.assertEqual(await self.published(found), (self.host, "9000"))
            await publisher.withdraw()

    async def test_another_instance(self) -> None:
        """Nobody publishes over an instance that runs, at the start and later; when it has gone,
        its place is taken.
        """
        found = await self.install_everywhere()
        for host in (self.host, self.lab.host("srv2")):
            other = await self.neighbour(host)
            says = f"{other.getHost().port};priority=7"
            changes = [
                Change("replace", "serviceBindingInformation", (says,)),
                Change("replace", "serviceDNSName", (host,)),
            ]
            await self.as_administrator(
                lambda session, changes=changes: session.modify(found.guid, changes)
            )
            publisher = await self.started(found=found)
            taken = f"it points to {host} {other.getHost().port}, where another instance runs"
            await self.logged(f"SCP {found.dn}: {taken}", "--scp-name")
            self.assertEqual([taken in str(each) for each in publisher.wrong], [True])
            await deferLater(reactor, 0.3)
            self.assertEqual([taken in str(each) for each in publisher.wrong], [True])
            self.assertEqual(await self.published(found), (host, says))
            await other.stopListening()
            await self.logged("published again")
            await self.logged(RIGHT)
            self.assertEqual(await self.published(found), (self.host, "9000"))
            await publisher.withdraw()

    async def test_two_instances(self) -> None:
        """The instance that has published last is left alone by the first, and by its end."""
        found = await self.install_everywhere()
        first = await self.started(found=found)
        host = self.lab.host("srv2")
        other = await self.neighbour(host)
        changes = [
            Change("replace", "serviceBindingInformation", (str(other.getHost().port),)),
            Change("replace", "serviceDNSName", (host,)),
        ]
        await self.as_administrator(lambda session: session.modify(found.guid, changes))
        await self.logged("where another instance runs")
        await deferLater(reactor, 0.3)
        await first.withdraw()
        self.assertEqual(await self.published(found), (host, str(other.getHost().port)))
        # On the same port, which is all that the two have in common.
        changes[0] = Change("replace", "serviceBindingInformation", ("9000",))
        await self.as_administrator(lambda session: session.modify(found.guid, changes[:1]))
        second = await self.started("--check-interval", "0", found=found)
        await self.as_administrator(lambda session: session.modify(found.guid, changes[1:]))
        await second.withdraw()
        self.assertEqual(await self.published(found), (host, "9000"))

    async def test_own_ports(self) -> None:
        """A port on which the service itself listens is no other instance's, under whatever name of
        the host.
        """
        found = await self.install()
        own = await self.neighbour(self.host)
        number = own.getHost().port
        change = [Change("replace", "serviceBindingInformation", (str(number),))]
        for address in (self.lab.address_of(self.host), "0.0.0.0"):
            await self.as_administrator(lambda session: session.modify(found.guid, change))
            publisher = await self.started(found=found, own=((address, number),))
            self.assertEqual(
                (await self.published(found), publisher.wrong), ((self.host, "9000"), ())
            )
            await publisher.withdraw()
        await self.as_administrator(lambda session: session.modify(found.guid, change))
        for own in (
            (self.lab.address_of(self.host), number + 1),
            (self.lab.address_of(self.lab.host("srv2")), number),
        ):
            publisher = await self.started(found=found, own=(own,))
            self.assertEqual(
                (await self.published(found), len(publisher.wrong)), ((self.host, str(number)), 1)
            )
            await publisher.withdraw()

    async def test_nobody_there(self) -> None:
        """A host that is unknown, or is not a host's name, and a port that is closed, are no other
        instance.
        """
        found = await self.install()
        credentials = ClientCredentials(
            principal=self.lab.principal("svc-echo"), keytab=str(self.lab.keytab("svc-echo"))
        )
        neighbours = Neighbours(reactor, self.resolver, credentials)

        def at(host: str, **says: str) -> Elsewhere:
            return Elsewhere(host, BindingInformation(number, **says), found.spns[0])  # type: ignore[arg-type]

        port = await self.neighbour(self.host)
        number = port.getHost().port
        self.assertTrue(await neighbours.knock(at(self.host)))
        for host in (
            "unknown.lab.example",
            "-",
            "",
            "a..b",
            "x" * 70 + ".example",
            "\u2603.example",
        ):
            self.assertFalse(await neighbours.knock(at(host)), host)
        for key in ("wire", "protection"):
            self.assertFalse(await neighbours.knock(at(self.host, **{key: "unknown"})), key)
        await port.stopListening()
        self.assertFalse(await neighbours.knock(at(self.host)))

    async def published(self, found: Installation) -> tuple[str | None, str | None]:
        """Where the SCP points to."""
        point = await self.do("alice", lambda session: read_scp(session, found.guid))
        return point.dns_name, point.binding_text

    async def test_right_lost(self) -> None:
        """A lost right is noticed before it is needed; granted again, all is right."""
        found = await self.install()
        await self.started(found=found)

        def revoke(session: LdapSession) -> None:
            write_dacl(
                session,
                found.guid,
                security.revoke(read_dacl(session, found.guid), found.account.sid),
            )

        await self.as_administrator(revoke)
        await self.logged(
            "svc-echo may not write serviceDNSName", "any more; run mutauth install --service-class"
        )
        change = [Change("replace", "serviceBindingInformation", ("666",))]
        await self.as_administrator(lambda session: session.modify(found.guid, change))
        await self.logged(
            f"it said {self.host} 666 instead of {self.host} 9000, and svc-echo may not write",
            "run mutauth install",
        )
        await self.install()
        await self.logged("published again")
        await self.logged(RIGHT)

    async def test_moved(self) -> None:
        """A moved SCP is found by its GUID, and its stale SPN is named."""
        found = await self.install()
        await self.started(found=found)
        place = f"CN=srv2,CN=Computers,{self.lab.base_dn}"
        moved = await self.as_administrator(lambda session: session.move(found.dn, place))
        await self.logged(
            f"/{moved}: it is not on account svc-echo", f"the SCP was moved, it was {found.dn}"
        )
        await self.as_administrator(
            lambda session: session.move(moved, f"CN=srv1,CN=Computers,{self.lab.base_dn}")
        )
        await self.logged(RIGHT)

    async def test_deleted_and_installed_anew(self) -> None:
        """A deleted SCP is missed; a new one is published in as soon as its GUID is cached."""
        found = await self.install()
        await self.started(found=found)
        await self.as_administrator(lambda session: delete_scp(session, found.scp))
        await self.logged(
            f"SCP {found.guid}: the directory has no such object; run mutauth install"
        )
        anew = await self.install()
        GuidCache(self.state).write(self.service(), anew.guid, anew.dn)
        await self.logged("it said", "(no port)", "published again")
        await self.logged(RIGHT)

    async def test_withdrawn_at_the_end(self) -> None:
        """After the stop nothing is published any more, whatever was under way."""
        found = await self.install()
        publisher = await self.started(found=found)
        await deferLater(reactor, 0.15)
        await publisher.withdraw()
        await deferLater(reactor, 0.3)
        point = await self.do("alice", lambda session: read_scp(session, found.guid))
        self.assertIsNone(point.binding_text)

    async def test_rnr(self) -> None:
        """An RnR service that an administrator changes or removes is missed, with the command that
        fixes it.
        """
        address = Address(self.host, BindingInformation(9000))

        def publish_all(session: LdapSession) -> None:
            instance = publish(session, self.service_class, self.service_class, [address])
            add_spns(session, find_account(session, "svc-echo"), [instance.spn(self.host)])

        def remove_again(session: LdapSession) -> None:
            if any(each.name == self.service_class for each in list_instances(session)):
                remove(session, self.service_class)

        self.addCleanup(self.as_administrator, remove_again)
        await self.as_administrator(publish_all)
        await self.started("--publish", "rnr")
        dn = f"CN={self.service_class},CN=WinsockServices,CN=System,{self.lab.base_dn}"
        clear = [Change("replace", "winsockAddresses", ())]
        await self.as_administrator(lambda session: session.modify(dn, clear))
        await self.logged(
            f"it did not say {self.host} 9000, and svc-echo may not write", "--port 9000"
        )
        await self.as_administrator(remove_again)
        await self.logged(
            f"RnR service {self.service_class}: the directory has no such object; run mutauth rnr "
            "publish"
        )
        await self.as_administrator(publish_all)
        await self.logged(RIGHT)
