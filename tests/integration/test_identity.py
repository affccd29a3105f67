"""Knowledge of a service about a client: its groups and the name on its ticket, from a real KDC."""

from __future__ import annotations

from twisted.internet import reactor

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.directory.acl import parse_sid
from mutauth_twisted.errors import PeerRefused
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.mechanisms.kerberos import ServiceKeys
from tests.integration.handshake_case import HandshakeTestCase


class IdentityTests(HandshakeTestCase):
    """alice is in echo-users, bob is not; both are domain users."""

    async def sid(self, group: str) -> str:
        """A group's SID, as the directory says it."""
        directory = Directory(
            reactor,
            DirectoryOptions(nameserver=self.lab.nameserver),
            credentials=ClientCredentials(ccache=self.lab.ccache("administrator")),
        )
        self.addCleanup(directory.close)

        def find(session: LdapSession) -> str:
            (entry,) = session.search(session.domain_dn, f"(sAMAccountName={group})", ["objectSid"])
            return parse_sid(entry.values("objectSid")[0])

        return await directory.run(find)

    def bob(self) -> ClientCredentials:
        """Another user."""
        return ClientCredentials(
            principal=self.lab.principal("bob"), keytab=str(self.lab.keytab("bob"))
        )

    async def test_groups(self) -> None:
        """The service knows its clients' groups, by the SIDs that the directory gives them."""
        users, everybody = await self.sid("echo-users"), await self.sid("Domain Users")
        port = await self.listen()
        alice, bob = await self.connect(port), await self.connect(port, credentials=self.bob())
        of_alice, of_bob = (server.protected.peer_identity.groups for server in self.servers)
        self.assertTrue({users, everybody} <= set(of_alice), of_alice)
        self.assertIn(everybody, of_bob)
        self.assertNotIn(users, of_bob)
        self.assertEqual(alice.protected.peer_identity.groups, ())
        for client in (alice, bob):
            client.protected.loseConnection()
            await client.ended

    async def test_allowed_by_group(self) -> None:
        """A service that allows a group allows its members, and no one else."""
        policy = AccessPolicy(allow_groups=[await self.sid("echo-users")])
        port = await self.listen(policy=policy)
        await self.refused(
            self.connect(port, credentials=self.bob()), PeerRefused, "its access policy"
        )
        await self.close(await self.connect(port))

    async def test_service_class(self) -> None:
        """A ticket for another service of the same account is refused; the name on it is known
        otherwise.
        """
        credentials = ServiceCredentials(str(self.lab.keytab("svc-echo")))
        other = await self.listen(ServiceKeys(credentials, "otherSvc"))
        await self.refused(self.connect(other), PeerRefused, "did not accept the target name")
        own = await self.listen(ServiceKeys(credentials, self.by_dn.service_class))
        client = await self.connect(own)
        self.assertEqual(self.servers[0].protected.peer_identity.claimed_spn, str(self.by_dn))
        await self.close(client)
