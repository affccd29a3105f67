"""Accounts whose tickets are not AES, against a real KDC: refused by clients, services, commands,
and for controllers.
"""

from __future__ import annotations

import socket
from typing import Any

import gssapi
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread

from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.directory.spns import find_account
from mutauth_twisted.errors import AuthenticationError, CredentialError
from mutauth_twisted.kerberos import enctypes
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.session import Change, LdapSession
from mutauth_twisted.mechanisms import NEGOTIATE
from mutauth_twisted.mechanisms.kerberos import ServiceKeys
from mutauth_twisted.testing.fakes import captured_log
from mutauth_twisted.testing.forge import DCE_STYLE, Realm, set_environment
from mutauth_twisted.testing.hostile import with_decoy
from tests.integration.commands import CommandTestCase
from tests.integration.handshake_case import LOOPBACK
from tests.integration.kerberos_case import AES128, AES256, RC4, RC4_ONLY, KerberosTestCase
from tests.integration.nns_peer import ALL_FLAGS, NNSPeer, Refused


class FloorTests(KerberosTestCase):
    """A service whose account gets RC4 tickets, with a keytab that has all of its keys."""

    async def _register(self) -> None:
        await super()._register()
        self.put(self.file, self.account.key(), self.account.key(AES128), self.account.key(RC4))

    async def test_client(self) -> None:
        """Our client does not even send such a ticket, and says what an administrator has to do."""
        port = await self.listen(self.service_keys())
        name = "msDS-SupportedEncryptionTypes"
        for change in (Change("replace", name, (str(RC4_ONLY),)), Change("delete", name, ())):
            await self.do(lambda session, change=change: session.modify(self.account.dn, [change]))
            error = await self.assertFailure(
                self.connect(port, self.spn, self.fresh()), AuthenticationError
            )
            self.assertIn(
                f"{self.spn}: the KDC encrypts tickets for it with arcfour-hmac", str(error)
            )
            self.assertIn("msDS-SupportedEncryptionTypes", str(error))
        self.assertEqual(self.servers, [])

    async def test_fixed(self) -> None:
        """A client with a keytab gets a new ticket once the account has been put right."""
        port = await self.listen(self.service_keys())
        client = self.client_keytab(await self.create("client"))
        await self.change(self.account, msDS_SupportedEncryptionTypes=RC4_ONLY)
        await self.assertFailure(self.connect(port, self.spn, client), AuthenticationError)
        await self.change(self.account, msDS_SupportedEncryptionTypes=24)
        await self.served(port, credentials=client)

    async def test_service(self) -> None:
        """Our service refuses such a ticket of a third-party client, and its log says why."""
        await self.change(self.account, msDS_SupportedEncryptionTypes=RC4_ONLY)
        port = await self.listen(self.service_keys())

        def come() -> None:
            peer = NNSPeer(socket.create_connection((LOOPBACK, port), 10))
            try:
                peer.authenticate_as_client(str(self.spn), str(self.fresh().ccache))
            finally:
                peer.close()

        with captured_log():
            refused: Any = await self.assertFailure(deferToThread(come), Refused)
        self.assertEqual(refused.code, 1326)
        (error,) = self.heard
        self.assertIsInstance(error, CredentialError)
        self.assertIn(
            f"its ticket for {self.spn} is encrypted with arcfour-hmac, and only AES is accepted",
            str(error),
        )
        self.assertEqual(self.servers, [])

    async def test_forged(self) -> None:
        """An attacker with its RC4 key, which a guessed password gives, opens no session with
        what it forges.

        Its ticket is of RC4 and its session of AES; it hides behind another ticket, or asks for
        DCE's three legs.
        """
        account = evolve(self.account, version=1)
        self.put(self.file, account.key(), account.key(RC4))
        directory = self.here / "forged"
        directory.mkdir()
        realm = Realm(str(directory), self.lab.realm)
        realm.set_key("svc", account.key().value)
        realm.set_key("svc", account.key(RC4).value, RC4)
        name = gssapi.Name(str(self.spn), gssapi.NameType.kerberos_principal)

        def client(kind: int, flags: int = ALL_FLAGS) -> gssapi.SecurityContext:
            ccache = realm.ccache("administrator", str(self.spn), "svc", kind=kind)
            own = gssapi.Credentials(
                usage="initiate", mechs=[gssapi.MechType.kerberos], store={"ccache": ccache}
            )
            return gssapi.SecurityContext(name=name, creds=own, usage="initiate", flags=flags)

        port = await self.listen(
            ServiceKeys(ServiceCredentials(str(self.file)), self.spn.service_class, NEGOTIATE)
        )

        def attack(context: gssapi.SecurityContext, token: bytes) -> None:
            peer = NNSPeer(socket.create_connection((LOOPBACK, port), 10))
            try:
                while True:
                    peer.send_frame(0x16, token)
                    kind, answer = peer.read_frame()
                    if kind == 0x15:
                        raise Refused(int.from_bytes(answer, "big"), b"")
                    if kind == 0x14:
                        return
                    token = context.step(answer) or b""
            finally:
                peer.close()

        def as_it_is(kind: int, flags: int = ALL_FLAGS) -> None:
            context = client(kind, flags)
            attack(context, context.step())

        def hidden() -> None:
            context = client(RC4)
            attack(context, with_decoy(context.step(), client(AES256).step()))

        await deferToThread(
            as_it_is, AES256
        )  # what is forged with the AES key is as good as genuine
        for attempt, words in (
            (lambda: as_it_is(RC4), "encrypted with arcfour-hmac"),
            (hidden, "its request cannot be read"),
            (lambda: as_it_is(RC4, ALL_FLAGS | DCE_STYLE), "it asks for the three legs of DCE RPC"),
            (
                lambda: as_it_is(AES256, ALL_FLAGS | DCE_STYLE),
                "it asks for the three legs of DCE RPC",
            ),
        ):
            self.heard.clear()
            with captured_log():
                await self.assertFailure(deferToThread(attempt), Refused)
            (error,) = self.heard
            self.assertIn(words, str(error))

    async def test_keytab(self) -> None:
        """A service whose keytab has no AES key does not start."""
        self.put(self.file, self.account.key(RC4))
        error = self.assertRaises(CredentialError, self.service_keys)
        self.assertIn(
            f"keytab {self.file}: it holds no AES key, only arcfour-hmac; set msDS-Supported",
            str(error),
        )
        self.put(self.file, self.account.key(RC4), self.account.key(AES256))
        self.service_keys()

    async def test_directory(self) -> None:
        """A domain controller is not asked anything either when its tickets are of another type
        than is accepted.
        """
        other = Directory(
            reactor,
            DirectoryOptions(nameserver=self.lab.nameserver),
            credentials=ClientCredentials(ccache=self.lab.ccache("alice")),
        )
        self.addCleanup(other.close)
        # Samba gives its controllers AES tickets whatever their attribute says: what is not
        # accepted is that here.
        self.patch(enctypes, "AES_TYPES", frozenset((AES128,)))
        error = await self.assertFailure(
            other.run(lambda session: session.domain_dn), AuthenticationError
        )
        self.assertIn("the KDC encrypts tickets for it with aes256-cts-hmac-sha1-96", str(error))


class CommandTests(CommandTestCase):
    """Lines of the commands about accounts."""

    async def types(self, value: str | None) -> None:
        """Set what the service's account supports; None: nothing is said."""
        name = "msDS-SupportedEncryptionTypes"
        change = Change("delete", name, ()) if value is None else Change("replace", name, (value,))

        def work(session: LdapSession) -> None:
            session.modify(find_account(session, "svc-echo").dn, [change])

        await self.directory_as_administrator.run(work)

    async def test_warned(self) -> None:
        """Installation and start warn of an account without AES; installation of a user's password
        besides.
        """
        set_environment(self, {"KRB5_CONFIG": str(self.lab.krb5_conf)})
        self.directory_as_administrator = Directory(
            reactor,
            DirectoryOptions(nameserver=self.lab.nameserver),
            credentials=ClientCredentials(ccache=self.lab.ccache("administrator")),
        )
        self.addCleanup(self.directory_as_administrator.close)
        well = await deferToThread(self.install)
        self.assertEqual(well.code, 0, well)
        self.assertNotIn("msDS-SupportedEncryptionTypes", well.errors)
        self.assertIn("account svc-echo: it is a user's", well.errors)
        self.addCleanup(lambda: ensureDeferred(self.types("24")))
        for value, text in (("4", "allows no AES"), (None, "is not set")):
            await self.types(value)
            ended = await deferToThread(self.install)
            self.assertEqual(ended.code, 0, ended)
            self.assertIn(f"account svc-echo: msDS-SupportedEncryptionTypes {text}", ended.errors)
        log = await deferToThread(self.started)
        self.assertIn("account svc-echo: msDS-SupportedEncryptionTypes is not set", log)
        self.assertNotIn("is a user's", log)

    def started(self) -> str:
        """The log of a service that was started and stopped."""
        with self.service() as running:
            running.stop()
        return running.log
