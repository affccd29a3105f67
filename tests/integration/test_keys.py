"""Keys that change while the service and its clients live, against a real KDC."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import gssapi
import krb5
from attrs import evolve
from gssapi.raw import accept_sec_context
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import CredentialError, PeerNotAuthenticated, PeerRefused, ToldByTicket
from mutauth_twisted.kerberos.tickets import tickets_for
from mutauth_twisted.spn import SPN
from tests.integration.commands import CommandTestCase
from tests.integration.kerberos_case import Account, KerberosTestCase, Key, keytab

REFUSED = (
    PeerRefused,
    ("the service refused the ticket: the ticket was made for another key", "kinit"),
)


class AcceptorFacts(KerberosTestCase):
    """Treatment of a keytab by MIT's acceptor; the package relies on it."""

    async def test_the_file_is_read_for_each_client(self) -> None:
        """One credential takes tickets for whatever keys the file holds at the time, with a
        principal named or not.
        """
        old = self.account
        for name in (None, gssapi.Name(old.principal, gssapi.NameType.kerberos_principal)):
            self.put(self.file, old.key())
            held = gssapi.Credentials(name=name, usage="accept", store={"keytab": str(self.file)})

            def accepted(held: gssapi.Credentials = held, **ticket: Any) -> bool:
                credentials = gssapi.Credentials(
                    usage="initiate", store={"ccache": self.fresh().ccache or ""}
                )
                target = gssapi.Name(str(self.spn), gssapi.NameType.kerberos_principal)
                token = gssapi.SecurityContext(
                    name=target, creds=credentials, usage="initiate"
                ).step()
                try:
                    accept_sec_context(token, acceptor_creds=held)
                except gssapi.exceptions.GSSError:
                    return False
                return True

            self.assertTrue(await deferToThread(accepted))
            new = await self.new_password(old)
            self.assertFalse(await deferToThread(accepted))
            self.put(self.file, new.key())
            self.assertTrue(await deferToThread(accepted))
            self.file.unlink()
            self.assertFalse(await deferToThread(accepted))
            self.file.write_bytes(keytab([new.key()]))
            self.assertTrue(await deferToThread(accepted))
            old = new


class RotatingTestCase(KerberosTestCase):
    """The service's key changes while clients connect one after another."""

    async def rotate(
        self, port: int, write: Callable[..., Any]
    ) -> tuple[ClientCredentials, Account]:
        """Change the key; who should come in does so all the while.

        :param write: puts keys into the keytab, in the place of those that are there.
        :return: a client that kept its ticket for the old key, which the keytab holds no more, and
            the account.
        """
        holder = self.fresh()
        stop, counts = False, [0, 0]

        async def connect(which: int) -> None:
            while not stop:
                client = await self.connect(port, self.spn, self.fresh() if which else holder)
                client.protected.loseConnection()
                await client.ended
                counts[which] += 1

        clients = gatherResults(
            [self.coroutine(connect(which)) for which in (0, 1)], consumeErrors=True
        )

        async def some_more() -> None:
            seen = list(counts)
            while not clients.called and not all(
                now >= before + 3 for now, before in zip(counts, seen, strict=True)
            ):
                await deferLater(cast(IReactorTime, reactor), 0.002)

        await some_more()
        # Who knows the password beforehand puts the next key into the keytab first, and then
        # changes it.
        password = "Aa1-" + os.urandom(12).hex()
        new = evolve(self.account, password=password, version=self.account.version + 1)
        write(new.key(), self.account.key())
        await some_more()
        self.assertEqual(await self.new_password(self.account, password), new)
        await some_more()
        write(self.account.key(), new.key())
        await some_more()
        stop = True
        await clients
        self.servers.clear()
        write(new.key())
        return holder, new


class RotationTests(RotatingTestCase):
    """The same in this process, by each way to write a file."""

    async def rotated(self, write: Callable[..., Any], principal: str | None = None) -> None:
        """The key changes, and then the old one goes."""
        port = await self.listen(self.service_keys(principal=principal))
        holder, new = await self.rotate(port, write)
        versions = (
            f"is for key version {self.account.version}",
            f"holds {new.version}",
            "new tickets with kinit",
        )
        await self.both(
            port,
            REFUSED,
            (PeerNotAuthenticated, (str(self.spn), str(self.file), *versions)),
            credentials=holder,
        )
        await self.served(port)

    async def test_replaced(self) -> None:
        """A keytab that is replaced by another one as a whole."""
        await self.rotated(lambda *keys: self.put(self.file, *keys))

    async def test_replaced_for_one_principal(self) -> None:
        """The same, where the service names its principal."""
        await self.rotated(lambda *keys: self.put(self.file, *keys), self.account.principal)

    async def test_rewritten(self) -> None:
        """A keytab that is written anew in its place."""
        await self.rotated(lambda *keys: self.file.write_bytes(keytab(keys)))

    async def test_old_keytab(self) -> None:
        """A service that kept its keytab when the password changed is told to export it again."""
        port = await self.listen(self.service_keys())
        new = await self.new_password(self.account)
        versions = (
            f"is for key version {new.version}",
            f"holds {self.account.version}",
            "export the keytab again",
        )
        await self.both(port, REFUSED, (ToldByTicket, (str(self.file), *versions)))

    async def test_keytab_away(self) -> None:
        """A keytab that is away, empty, or none: both sides say so, and with the file back clients
        come in again.
        """
        unsaid = (PeerRefused, ("the other side failed and gave no reason", "its log"))
        # GSSAPI, which would say more, is not asked to open what it might wait for.
        unasked = (PeerRefused, ("it did not accept the ticket", "the service's log says why"))
        for principal, of_garbage in ((None, REFUSED), (self.account.principal, unsaid)):
            port = await self.listen(self.service_keys(principal=principal))
            for change, words, seen in (
                (self.file.unlink, "it does not exist; put it back", REFUSED),
                (
                    self.file.mkdir,
                    "it cannot be read: it is not a regular file; put the keytab back",
                    unasked,
                ),
                (self.file.rmdir, "it does not exist; put it back", REFUSED),
                (
                    lambda: self.file.write_bytes(b"garbage"),
                    "it cannot be used: Unsupported key table",
                    of_garbage,
                ),
                (lambda: self.file.write_bytes(keytab([])), "it holds no keys", REFUSED),
            ):
                change()
                await self.both(port, seen, (CredentialError, (f"keytab {self.file}: ", words)))
            self.put(self.file, self.account.key())
            await self.served(port)


class ServicesTests(KerberosTestCase):
    """Several services in one process."""

    async def test_a_keytab_each(self) -> None:
        """Three services take the tickets for their own account, and no other's."""
        accounts = [self.account, await self.create("two"), await self.create("three")]
        accounts[2] = await self.new_password(
            accounts[2]
        )  # versions that differ, and two that are the same
        spns = [
            self.spn,
            SPN(f"{self.spn.service_class}b", self.spn.host),
            SPN(f"{self.spn.service_class}c", self.spn.host),
        ]
        ports = []
        for account, spn in zip(accounts, spns, strict=True):
            if account is not self.account:
                await self.register(account, spn)
            path = self.here / f"{account.name}.keytab"
            self.put(path, account.key())
            ports.append(await self.listen(self.service_keys(path)))
        for which, port in enumerate(ports):
            for spn in spns:
                if spn is spns[which]:
                    self.assertEqual(await self.served(port, spn), self.lab.principal("alice"))
                else:
                    await self.refused(
                        self.connect(port, spn, self.fresh()), PeerRefused, "another key"
                    )


class ClientTests(KerberosTestCase):
    """A client's tickets and keys change while its endpoint lives."""

    async def _register(self) -> None:
        await super()._register()
        self.port = await self.listen(self.service_keys())
        self.user = await self.create("user")

    async def new_ticket_needed(self) -> SPN:
        """An SPN for which no client has a ticket yet."""
        spn = SPN(f"{self.spn.service_class}{os.urandom(2).hex()}", self.spn.host)
        await self.register(self.account, spn)
        return spn

    async def test_ccache_replaced(self) -> None:
        """A cache that someone else's tickets were put into makes the same client somebody
        else.
        """
        path = self.here / "ccache"
        credentials = ClientCredentials(ccache=f"FILE:{path}")
        missing = (
            CredentialError,
            (f"ticket cache FILE:{path}", "there is no Kerberos ticket", "kinit"),
        )
        await self.both(self.port, missing, None, credentials=credentials)
        for user in ("alice", "bob", "alice"):
            new = self.here / "new"
            shutil.copy(self.lab.ccache(user).removeprefix("FILE:"), new)
            new.replace(path)
            self.assertEqual(
                await self.served(self.port, credentials=credentials), self.lab.principal(user)
            )
        # kinit writes into the file that is there.
        await self.kinit(self.user, path)
        self.assertEqual(await self.served(self.port, credentials=credentials), self.user.principal)
        renewed = await deferToThread(
            subprocess.run, ["kinit", "-R", "-c", str(path)], capture_output=True, check=False
        )
        self.assertEqual(renewed.returncode, 0, renewed)
        self.assertEqual(await self.served(self.port, credentials=credentials), self.user.principal)

    async def test_default_ccache_replaced(self) -> None:
        """So does the default cache."""
        path = self.here / "default"
        self.set_environment(KRB5CCNAME=f"FILE:{path}")
        for user in ("alice", "bob"):
            shutil.copy(self.lab.ccache(user).removeprefix("FILE:"), path)
            self.assertEqual(
                await self.served(self.port, credentials=ClientCredentials()),
                self.lab.principal(user),
            )

    async def test_old_keytab(self) -> None:
        """A keytab of before the password was changed is refused with what to do; once it is
        exported again, all is well.
        """
        old, new = self.user, await self.new_password(self.user)
        credentials = self.client_keytab(old)
        words = (
            f"keytab {credentials.keytab}: ",
            "the KDC refused the key",
            "export the keytab again",
        )
        await self.both(self.port, (CredentialError, words), None, credentials=credentials)
        self.put(Path(credentials.keytab or ""), new.key())
        self.assertEqual(await self.served(self.port, credentials=credentials), self.user.principal)

    async def test_keytab_replaced(self) -> None:
        """A keytab that is replaced is used for the next connection, although the old tickets have
        hours to go.
        """
        credentials = self.client_keytab(self.user)
        await self.served(self.port, credentials=credentials)
        other = await self.create("other")
        anybody = ClientCredentials(keytab=credentials.keytab)
        self.assertEqual(await self.served(self.port, credentials=anybody), self.user.principal)
        self.put(Path(credentials.keytab or ""), other.key())
        self.assertEqual(await self.served(self.port, credentials=anybody), other.principal)

    async def test_keytab_spoilt(self) -> None:
        """A new keytab that is of no use is tried once, and the tickets that are there serve on; so
        do they without any.
        """
        credentials = self.client_keytab(self.user)
        file = Path(credentials.keytab or "")
        await self.lock_after(self.user, 20)
        source = tickets_for(credentials)
        await self.served(self.port, credentials=credentials)
        cache = source.cache
        for content in (
            keytab([evolve(self.user, password="wrong").key()]),
            b"garbage",
            keytab([]),
            None,
        ):
            file.unlink() if content is None else file.write_bytes(content)
            for _ in range(3):
                spn = await self.new_ticket_needed()
                self.assertEqual(
                    await self.served(self.port, spn, credentials), self.user.principal
                )
        tries = await self.do(
            lambda session: session.read(self.user.dn, ["badPwdCount"]).text("badPwdCount")
        )
        self.assertEqual((tries, source.cache), ("1", cache))

    async def test_expired_in_memory(self) -> None:
        """A ticket in memory that has ended is fetched again."""
        credentials = self.client_keytab(self.user)
        short = self.here / "krb5.conf"
        short.write_text(
            self.lab.krb5_conf.read_text().replace(
                "[libdefaults]", "[libdefaults]\n    ticket_lifetime = 1s"
            )
        )
        os.environ["KRB5_CONFIG"] = str(short)
        source = tickets_for(credentials)
        self.assertLessEqual(cast(Any, await deferToThread(source.acquire)).lifetime, 1)
        os.environ["KRB5_CONFIG"] = str(self.lab.krb5_conf)
        tickets = list(krb5.cc_resolve(krb5.init_context(), source.cache.encode()))
        await deferLater(cast(IReactorTime, reactor), 1.1)
        self.assertEqual(await self.served(self.port, credentials=credentials), self.user.principal)
        self.assertGreater(
            len(list(krb5.cc_resolve(krb5.init_context(), source.cache.encode()))), len(tickets)
        )

    async def test_refused_tickets_are_not_kept(self) -> None:
        """A ticket that the KDC or the service refuses is fetched again for the next connection,
        not kept until it ends.
        """
        credentials = self.client_keytab(self.user)
        await self.served(self.port, credentials=credentials)
        # The service's key changes: the ticket in memory is for the old one.
        new = await self.new_password(self.account)
        self.put(self.file, new.key())
        old = (
            PeerNotAuthenticated,
            (f"is for key version {self.account.version}", f"holds {new.version}"),
        )
        await self.both(self.port, REFUSED, old, credentials=credentials)
        self.assertEqual(await self.served(self.port, credentials=credentials), self.user.principal)
        # An account of the same name and password takes the place of this one: the KDC takes its
        # old tickets no more.
        await self.do(lambda session: session.delete(self.user.dn))
        await self.recreate(self.user)
        revoked = (CredentialError, ("the KDC no longer accepts the ticket", "kinit"))
        await self.both(self.port, revoked, None, await self.new_ticket_needed(), credentials)
        self.assertEqual(await self.served(self.port, credentials=credentials), self.user.principal)

    async def test_keytab_of_another(self) -> None:
        """A keytab without the client's key is named, with whose keys it holds."""
        credentials = evolve(self.client_keytab(self.user), principal=self.account.principal)
        words = (
            f"it has no key of {self.account.principal}, only of {self.user.principal}",
            "right account's",
        )
        await self.both(self.port, (CredentialError, words), None, credentials=credentials)


class ProcessTests(RotatingTestCase, CommandTestCase):
    """The real service, in a process of its own, and the real client."""

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        CommandTestCase.setUp(self)
        return super().setUp()

    def edit(self, *keys: Key) -> None:
        """Add and remove single keys as ktutil and kadmin do, which lock the file."""
        context = krb5.init_context()
        file = krb5.kt_resolve(context, f"FILE:{self.file}".encode())
        gone = list(file)
        for key in keys:
            scratch = self.here / "scratch"
            scratch.write_bytes(keytab([key]))
            (entry,) = krb5.kt_resolve(context, f"FILE:{scratch}".encode())
            krb5.kt_add_entry(
                context, file, entry.principal, entry.kvno, entry.timestamp, entry.key
            )
        wanted = {(key.version, key.kind) for key in keys}
        for entry in gone:
            if (entry.kvno, entry.key.enctype) not in wanted:
                krb5.kt_remove_entry(context, file, entry)

    async def test_rotation(self) -> None:
        """The key changes in the file and no client notices; an old ticket is refused, and both
        sides say why.
        """
        self.common = ("--service-class", self.spn.service_class, "--host", self.spn.host)
        alone = ("--publish", "none", "--spn-check", "off")
        with self.service(
            *alone, "--keytab", str(self.file), "--listen", "tcp:0:interface=127.0.0.1"
        ) as running:
            holder, new = await self.rotate(running.port, self.edit)
            endpoint = f"mutauth:tcp\\:127.0.0.1\\:{running.port}:spn={self.spn}:ccache="
            ended = self.mutauth(
                "connect", endpoint + (holder.ccache or "").removeprefix("FILE:"), given="hello"
            )
            CommandTestCase.refused(
                self, ended, 4, str(self.spn), "made for another key", "get new tickets with kinit"
            )
            ended = self.mutauth(
                "connect",
                endpoint + (self.fresh().ccache or "").removeprefix("FILE:"),
                given="hello",
            )
            self.assertEqual((ended.code, ended.output, ended.errors), (0, "hello", ""))
            self.file.unlink()
            ended = self.mutauth(
                "connect",
                endpoint + (self.fresh().ccache or "").removeprefix("FILE:"),
                given="hello",
            )
            CommandTestCase.refused(self, ended, 4, str(self.spn), "made for another key")
            running.stop()
        refused = [
            line
            for line in running.log.splitlines()
            if re.search("handshake (with .+ )?failed: ", line)
        ]
        self.assertEqual(len(refused), 2, running.log)
        self.assertIn(
            f"is for key version {self.account.version}, and {self.file} holds {new.version}; ",
            refused[0],
        )
        self.assertIn(f"keytab {self.file}: it does not exist; put it back", refused[1])
