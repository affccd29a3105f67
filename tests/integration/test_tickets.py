"""A client's shared tickets while others say that they refuse them, and while its key changes,
against a real KDC.
"""

from __future__ import annotations

import gc
import shutil
import struct
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import gssapi
import krb5
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import DeferredList
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.spns import find_account
from mutauth_twisted.errors import CredentialError, PeerRefused
from mutauth_twisted.kerberos.keytab import keytab_keys
from mutauth_twisted.kerberos.tickets import tickets_for
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.mechanisms.kerberos import kerberos_name
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.forge import _integer, _name, _sequence, _string, _time, der
from tests.integration.kerberos_case import KerberosTestCase

_MODIFIED = 41  # KRB_AP_ERR_MODIFIED (RFC 4120 7.5.9)
_IN_PROGRESS = 0x16  # MS-NNS 2.2.1


def forged_refusal(realm: str) -> bytes:
    """A frame with a KRB-ERROR (RFC 4120 5.9.1), as anybody can write it."""
    fields = [
        (0, _integer(5)),
        (1, _integer(30)),
        (4, _time(time.time())),
        (5, _integer(0)),
        (6, _integer(_MODIFIED)),
    ]
    body = der(0x7E, _sequence(*fields, (9, _string(realm)), (10, _name(["x"]))))
    # RFC 4121 4.1: the mechanism, and the identifier of a KRB-ERROR.
    token = der(0x60, bytes.fromhex("06092a864886f712010202") + b"\x03\x00" + body)
    return struct.pack(">BBBH", _IN_PROGRESS, 1, 0, len(token)) + token


def tickets_in(cache: str) -> dict[str, bytes]:
    """The tickets of a cache in memory by the service that they are for; none: there is no such
    cache.
    """
    try:
        return {
            str(each.server): each.ticket
            for each in krb5.cc_resolve(krb5.init_context(), cache.encode())
        }
    except krb5.Krb5Error:
        return {}


class SharedCase(KerberosTestCase):
    """A client with a keytab of its own."""

    async def _register(self) -> None:
        await super()._register()
        self.port = await self.listen(
            self.service_keys(), limits=Limits(handshakes=1000, handshakes_per_address=1000)
        )
        self.user = await self.create("user")
        self.credentials = self.client_keytab(self.user)
        self.source = tickets_for(self.credentials)

    def ticket(self, spn: SPN | None = None) -> bytes:
        """The ticket that is kept for a service."""
        (found,) = [
            ticket
            for name, ticket in tickets_in(self.source.cache).items()
            if name.partition("@")[0] == str(spn or self.spn)
        ]
        return found

    async def rogue(self) -> int:
        """A listener that proves nothing and refuses everybody; its port."""
        frame = forged_refusal(self.lab.realm)

        class Rogue(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(frame)
                self.transport.loseConnection()

        return await self.listen_plainly(Factory.forProtocol(Rogue))

    def lose_kdc(self) -> None:
        """From now on no KDC answers."""
        conf = self.here / "away.conf"
        text = self.lab.krb5_conf.read_text()
        conf.write_text(text.replace(f"kdc = {self.lab.nameserver}", "kdc = 127.0.0.99"))
        self.assertNotEqual(conf.read_text(), text)
        self.set_environment(KRB5_CONFIG=str(conf))

    async def refuse(self, port: int, spn: SPN | None = None) -> None:
        """Have the client be told that its ticket is refused."""
        connecting = self.connect(port, spn or self.spn, self.credentials)
        await self.assertFailure(connecting, PeerRefused)


class ForgeryTests(SharedCase):
    """A server that has authenticated nothing says that it refuses a ticket."""

    async def test_kdc_away(self) -> None:
        """Without a KDC the tickets that are there serve on, this service's too."""
        await self.served(self.port, credentials=self.credentials)
        before, cache = tickets_in(self.source.cache), self.source.cache
        await self.refuse(await self.rogue())
        self.lose_kdc()
        for _ in range(2):
            self.assertEqual(
                await self.served(self.port, credentials=self.credentials), self.user.principal
            )
        self.assertEqual((tickets_in(self.source.cache), self.source.cache), (before, cache))

    async def test_one_ticket(self) -> None:
        """The next connection brings a new ticket for this service, and the same for all else; more
        words change nothing.
        """
        other = SPN(f"{self.spn.service_class}b", self.spn.host)
        await self.register(self.account, other)
        for spn in (self.spn, other):
            await self.served(self.port, spn, self.credentials)
        first, before = self.ticket(), tickets_in(self.source.cache)
        rogue = await self.rogue()
        await self.refuse(rogue)
        await self.served(self.port, credentials=self.credentials)
        second, after = self.ticket(), tickets_in(self.source.cache)
        self.assertNotEqual(first, second)
        self.assertEqual(
            {name for name, ticket in after.items() if before.get(name) != ticket},
            {name for name, ticket in after.items() if ticket == second},
        )
        self.assertEqual(after.keys(), before.keys())
        await self.refuse(rogue)
        await self.served(self.port, credentials=self.credentials)
        self.assertEqual(tickets_in(self.source.cache), after)

    async def test_beside_good_connections(self) -> None:
        """While strangers refuse the same client's tickets, no good connection fails."""
        rogue = await self.rogue()
        for _ in range(8):
            good = [self.connect(self.port, self.spn, self.credentials) for _ in range(12)]
            bad = DeferredList(
                [self.connect(rogue, self.spn, self.credentials) for _ in range(6)],
                consumeErrors=True,
            )
            for connecting in good:
                (await connecting).protected.abortConnection()
            for succeeded, failure in await bad:
                self.assertFalse(succeeded)
                self.assertIsInstance(failure.value, PeerRefused)  # type: ignore[union-attr]
        self.servers.clear()

    async def test_retired_caches(self) -> None:
        """Tickets that were replaced are there as long as somebody may use them, and no longer."""
        source = self.source
        held = await deferToThread(source.acquire)
        first = source.cache
        self.assertTrue(tickets_in(first))
        caches = [first]
        for _ in range(3):
            self.put(Path(self.credentials.keytab or ""), self.user.key())
            await deferToThread(source.acquire)
            caches.append(source.cache)
        gc.collect()
        self.assertEqual(len(set(caches)), 4)
        self.assertEqual([bool(tickets_in(cache)) for cache in caches], [True, False, False, True])
        context = gssapi.SecurityContext(name=kerberos_name(self.spn), creds=held, usage="initiate")
        self.assertTrue(await deferToThread(context.step))
        del held, context
        gc.collect()
        self.assertEqual([bool(tickets_in(cache)) for cache in caches], [False, False, False, True])


class NextKeyTests(SharedCase):
    """The next key is in the keytab, beside the one that the KDC knows."""

    async def failures(self) -> str | None:
        """Number of wrong passwords that the KDC has counted."""
        return await self.do(
            lambda session: session.read(self.user.dn, ["badPwdCount"]).text("badPwdCount")
        )

    async def test_before_the_password(self) -> None:
        """A client that starts before the password is changed gets its tickets, and one that starts
        afterwards too.
        """
        password = "Aa1-" + "e" * 20
        following = evolve(self.user, password=password, version=self.user.version + 1)
        for principal in (self.user.principal, None):
            keytab = self.client_keytab(self.user, following.key(), self.user.key()).keytab
            credentials = ClientCredentials(principal=principal, keytab=keytab)
            self.assertEqual(
                await self.served(self.port, credentials=credentials), self.user.principal
            )
        self.assertEqual(await self.new_password(self.user, password), following)
        keytab = self.client_keytab(self.user, following.key(), self.user.key()).keytab
        after = ClientCredentials(principal=self.user.principal, keytab=keytab)
        self.assertEqual(await self.served(self.port, credentials=after), self.user.principal)

    async def test_as_the_readme_says(self) -> None:
        """MIT's ktutil makes the next key; with both in the file there are tickets before the
        change and after.
        """
        path = Path(self.client_keytab(self.user).keytab or "")
        password = "Aa1-" + uuid4().hex
        entry = (
            f"addent -password -p {self.user.principal} -k {self.user.version + 1} -e "
            "aes256-cts-hmac-sha1-96 -f"
        )
        new = path.with_name("new.keytab")
        shutil.copy(path, new)
        words = f"{entry}\n{password}\nwkt {new}\n"
        await deferToThread(
            subprocess.run, ["ktutil"], input=words, text=True, check=True, capture_output=True
        )
        new.replace(path)
        following = evolve(self.user, password=password, version=self.user.version + 1)
        held = [(each.principal, each.version) for each in keytab_keys(str(path))]
        self.assertEqual(held, [(each.principal, each.version) for each in (self.user, following)])
        for changed in (False, True):
            if changed:
                self.assertEqual(await self.new_password(self.user, password), following)
            again = shutil.copy(path, path.with_name(f"{changed}.keytab"))
            credentials = ClientCredentials(principal=self.user.principal, keytab=str(again))
            self.assertEqual(
                await self.served(self.port, credentials=credentials), self.user.principal
            )

    async def test_directory(self) -> None:
        """A service that starts in between reaches the directory."""
        following = evolve(self.user, password="Aa1-next", version=self.user.version + 1)
        credentials = self.client_keytab(self.user, following.key(), self.user.key())
        directory = Directory(
            reactor, DirectoryOptions(nameserver=self.lab.nameserver), credentials=credentials
        )
        self.addCleanup(directory.close)
        self.assertEqual(
            await directory.run(lambda session: find_account(session, self.user.name).dn),
            self.user.dn,
        )

    async def test_how_many(self) -> None:
        """Two older versions are tried and no more, each once; what a key is wrong for is said as
        ever.
        """
        await self.lock_after(self.user, 20)
        wrong = [
            evolve(self.user, password=f"Aa1-{age}", version=self.user.version + 5 - age)
            for age in range(5)
        ]
        for versions, failures in (
            ((wrong[0],), 1),
            ((wrong[0], wrong[1]), 2),
            (wrong[:4], 3),
            (wrong, 3),
        ):
            before = int(await self.failures() or 0)
            credentials = self.client_keytab(self.user, *(each.key() for each in versions))
            words = (
                f"keytab {credentials.keytab}: ",
                "the KDC refused the key",
                "export the keytab again",
            )
            await self.both(self.port, (CredentialError, words), None, credentials=credentials)
            self.assertEqual(int(await self.failures() or 0) - before, failures)

    async def test_of_others(self) -> None:
        """Older keys of other principals in the keytab are not tried."""
        other = await self.create("other")
        newer = evolve(
            self.user, password="Aa1-wrong", version=self.user.version + other.version + 1
        )
        credentials = self.client_keytab(self.user, newer.key(), other.key())
        words = ("the KDC refused the key",)
        await self.both(self.port, (CredentialError, words), None, credentials=credentials)
