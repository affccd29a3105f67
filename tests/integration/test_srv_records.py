"""One connection point whose hosts are in DNS: which is taken, and which is believed."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.location import Selection, locate
from mutauth_twisted.directory.scp import ServiceConnectionPoint, create_scp
from mutauth_twisted.directory.spns import add_spns, find_account, remove_spns
from mutauth_twisted.endpoints.located import LocatedEndpoint
from mutauth_twisted.errors import (
    MutualAuthError,
    NetworkError,
    ServiceCheckFailed,
)
from mutauth_twisted.ldap.dn import child_dn
from mutauth_twisted.ldap.session import Change, LdapSession
from mutauth_twisted.spn import SPN
from tests.integration.serving_case import ServingTestCase


class ReplicaTests(ServingTestCase):
    """One connection point whose hosts are in DNS: _echo._tcp, srv1 before srv2."""

    name = "_echo._tcp.lab.example"

    async def installed(self, hosts: tuple[str, ...] = ("srv1", "srv2")) -> ServiceConnectionPoint:
        """An SCP of the SRV kind, with the SPNs of its hosts on svc-echo."""

        def work(session: LdapSession) -> ServiceConnectionPoint:
            point = create_scp(
                session,
                child_dn(self.service_class, f"CN=srv1,CN=Computers,{self.lab.base_dn}"),
                service_class=self.service_class,
                dns_name=self.name,
                dns_name_type="SRV",
                keywords=[self.service_class],
            )
            add_spns(session, find_account(session, "svc-echo"), self.spns(point, hosts))
            return point

        return await self.do("administrator", work)

    async def test_by_priority_then_the_next(self) -> None:
        """The first in DNS is taken; when it is down, and when it is an impostor, the next one."""
        await self.installed()
        instances = await locate(self.as_user("alice"), Selection(self.service_class))
        places = [(each.host, each.port) for each in instances]
        self.assertEqual(places, [("srv1.lab.example", 9401), ("srv2.lab.example", 9402)])
        first, second = await self.serve("srv1", 9401), await self.serve("srv2", 9402)
        self.assertEqual(await self.talk(self.endpoint()), f"{self.lab.address_of('srv1')}:9401")
        await first.stopListening()
        self.assertEqual(await self.talk(self.endpoint()), f"{self.lab.address_of('srv2')}:9402")
        await self.serve("srv1", 9401, keytab="rogue")
        self.assertEqual(await self.talk(self.endpoint()), f"{self.lab.address_of('srv2')}:9402")
        await second.stopListening()
        line = await self.failure_of(self.talk(self.endpoint()), MutualAuthError)
        self.assertIn("none of its 2 instances could be used", line)

    async def test_a_host_that_only_dns_vouches_for(self) -> None:
        """A replica without an SPN is left out, whatever DNS says."""
        await self.installed(("srv2",))
        (instance,) = await locate(self.as_user("alice"), Selection(self.service_class))
        self.assertEqual(instance.host, "srv2.lab.example")

    async def test_no_such_record(self) -> None:
        """A name that DNS does not have is named."""
        point = await self.installed()
        change = [Change("replace", "serviceDNSName", ("_none._tcp.lab.example",))]
        await self.do("administrator", lambda session: session.modify(point.guid, change))
        line = await self.failure_of(self.talk(self.endpoint()), MutualAuthError)
        self.assertIn("_none._tcp.lab.example", line)

    async def test_spoilt_records_of_another(self) -> None:
        """A rogue computer with the same keyword, whose DNS records lead nowhere, keeps nobody from
        the service.
        """
        found = await self.install()
        await self.serve("srv1", 9415)
        await self.publish(found, binding=BindingInformation(9415))
        dn = child_dn(self.service_class, f"CN=rogue,CN=Computers,{self.lab.base_dn}")

        def rogue(session: LdapSession) -> None:
            create_scp(
                session,
                dn,
                service_class=self.service_class,
                dns_name="_x._tcp.nowhere.invalid",
                dns_name_type="SRV",
                keywords=[self.service_class],
            )

        await self.do("rogue", rogue)
        self.assertEqual(await self.talk(self.endpoint()), f"{self.lab.address_of('srv1')}:9415")

    async def test_records_that_nobody_vouches_for(self) -> None:
        """A rogue computer that publishes many SRV records has no client ask DNS for one of
        them.
        """
        point = await self.installed()
        await self.serve("srv1", 9401)
        container = f"CN=rogue,CN=Computers,{self.lab.base_dn}"

        def rogue(session: LdapSession) -> None:
            for number in range(60):
                create_scp(
                    session,
                    child_dn(f"{self.service_class}*{number}", container),
                    service_class=self.service_class,
                    dns_name=f"_x{number}._tcp.nowhere.invalid",
                    dns_name_type="SRV",
                    keywords=[self.service_class],
                )

        await self.do("rogue", rogue)
        asked: list[str] = []
        lookup = self.resolver.lookup_srv

        def noted(name: str) -> Any:
            asked.append(name)
            return lookup(name)

        self.patch(self.resolver, "lookup_srv", noted)
        self.assertEqual(await self.talk(self.endpoint()), f"{self.lab.address_of('srv1')}:9401")
        self.assertEqual(
            [name for name in asked if "_msdcs" not in name and "_gc" not in name], [self.name]
        )
        gone = self.spns(point)
        await self.do(
            "administrator",
            lambda session: remove_spns(session, find_account(session, "svc-echo"), gone),
        )
        line = await self.failure_of(
            locate(self.as_user("alice"), Selection(self.service_class)), ServiceCheckFailed
        )
        self.assertIn(
            f"no account holds an SPN of class {self.service_class} that vouches for it", line
        )

    def spns(
        self, point: ServiceConnectionPoint, hosts: tuple[str, ...] = ("srv1", "srv2")
    ) -> list[SPN]:
        return [point.spn("dn", self.lab.host(host)) for host in hosts]

    async def test_silent_instance(self) -> None:
        """An instance that accepts and says nothing uses up its own share of the time, and not that
        of the next.
        """
        await self.installed()
        with socket.create_server((self.lab.address_of("srv1"), 9401)):
            await self.serve("srv2", 9402)
            endpoint = LocatedEndpoint(
                reactor,
                self.as_user("alice"),
                Selection(self.service_class),
                ClientCredentials(ccache=self.lab.ccache("alice")),
                security=SecurityOptions(timeout=2.0),
            )
            self.assertEqual(await self.talk(endpoint), f"{self.lab.address_of('srv2')}:9402")

    async def test_found_a_moment_ago(self) -> None:
        """An instance that was found is used again without a search, until a connection fails; then
        it is looked for anew.
        """
        found = await self.install()
        service = await self.serve("srv1", 9411)
        await self.publish(found, binding=BindingInformation(9411))
        endpoint = self.endpoint()
        first = await self.talk(endpoint)
        await self.publish(found, binding=BindingInformation(9412))
        self.assertEqual(await self.talk(endpoint), first)
        await service.stopListening()
        await self.serve("srv1", 9412)
        self.assertEqual(await self.talk(endpoint), f"{self.lab.address_of('srv1')}:9412")

    async def test_found_anew_and_still_gone(self) -> None:
        """When nothing has changed, the failure is the connection's."""
        found = await self.install()
        service = await self.serve("srv1", 9413)
        await self.publish(found, binding=BindingInformation(9413))
        endpoint = self.endpoint()
        await self.talk(endpoint)
        await service.stopListening()
        line = await self.failure_of(self.talk(endpoint), NetworkError)
        self.assertIn("srv1.lab.example:9413", line)
