"""Common ground of the tests of keys and of Kerberos' refusals: accounts of their own, and keytabs
they write themselves.

Whoever knows an account's password knows its keys (RFC 3962, section 4; MS-KILE
3.1.1.2 for the salt), so a keytab of any version is written without asking
the domain controller's database.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

import krb5
from attrs import evolve, frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher

from mutauth_twisted.core.mechanism import Mechanism
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.directory.spns import add_spns, find_account
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.session import Change, LdapSession
from mutauth_twisted.mechanisms import KERBEROS
from mutauth_twisted.mechanisms.kerberos import ServiceKeys
from mutauth_twisted.spn import SPN
from mutauth_twisted.text import printable
from tests.integration.handshake_case import HandshakeTestCase

T = TypeVar("T")
AES128, AES256, RC4 = 17, 18, 23
#: msDS-SupportedEncryptionTypes (MS-KILE 2.2.7).
RC4_ONLY, AES128_ONLY, AES_ONLY = 4, 8, 24
#: userAccountControl (MS-ADTS 2.2.16): an ordinary account, and a disabled one.
NORMAL, DISABLED = 0x200, 0x202
_PRINCIPAL = 1  # KRB_NT_PRINCIPAL


@frozen
class Key:
    """One key in a keytab."""

    principal: str
    version: int
    kind: int
    value: bytes


@frozen
class Account:
    """A user's account under one of its passwords.

    :ivar version: the number of its key, which each new password raises.
    """

    name: str
    realm: str
    dn: str
    password: str
    version: int = 0

    @property
    def principal(self) -> str:
        """Its name for Kerberos."""
        return f"{self.name}@{self.realm}"

    def key(self, kind: int = AES256) -> Key:
        """Its key under this password."""
        context = krb5.init_context()
        block = krb5.c_string_to_key(
            context, kind, self.password.encode(), f"{self.realm}{self.name}".encode()
        )
        return Key(self.principal, self.version, kind, bytes(block.data))


def keytab(keys: Iterable[Key]) -> bytes:
    """A keytab of version 2 (MIT's keytab file format)."""
    content = b"\x05\x02"
    for key in keys:
        name, _, realm = key.principal.rpartition("@")
        parts = [realm, *name.split("/")]
        entry = struct.pack(">H", len(parts) - 1)
        entry += b"".join(struct.pack(">H", len(part)) + part.encode() for part in parts)
        entry += struct.pack(
            ">IIBHH", _PRINCIPAL, int(time.time()), key.version & 0xFF, key.kind, len(key.value)
        )
        entry += key.value + struct.pack(">I", key.version)
        content += struct.pack(">i", len(entry)) + entry
    return content


def _new_password() -> str:
    # The prefix satisfies the domain's complexity rule whatever the rest is.
    return "Aa1-" + os.urandom(12).hex()


def _as_stored(password: str) -> bytes:
    """A value of unicodePwd (MS-ADTS 3.1.1.3.1.5)."""
    return f'"{password}"'.encode("utf-16-le")


def _key_version(session: LdapSession, dn: str) -> int:
    return int(session.read(dn, ["msDS-KeyVersionNumber"]).text("msDS-KeyVersionNumber") or 0)


class KerberosTestCase(HandshakeTestCase):
    """A service with an account of its own, ``self.account``, whose keys the test may change."""

    async def _register(self) -> None:
        self._directory = Directory(
            reactor,
            DirectoryOptions(nameserver=self.lab.nameserver),
            credentials=ClientCredentials(ccache=self.lab.ccache("administrator")),
        )
        self.addCleanup(self._directory.close)
        self.here = Path(self.mktemp()).absolute()
        self.here.mkdir()
        self.heard: list[MutualAuthError] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)
        self.account = await self.create("svc")
        self.spn = SPN(self.by_host.service_class, self.by_host.host)
        await self.register(self.account, self.spn)
        self.file = self.here / "service.keytab"
        self.put(self.file, self.account.key())

    def _observe(self, event: dict[str, Any]) -> None:
        is_failure = re.match(
            "(handshake (with .+ )?failed|not connecting to .+?): ", formatEvent(event)
        )
        if is_failure and isinstance(event["error"], MutualAuthError):
            self.heard.append(event["error"])

    def coroutine(self, work: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run a coroutine beside the test."""
        return ensureDeferred(work)

    async def do(self, work: Callable[[LdapSession], T]) -> T:
        """Do blocking work in the directory as the administrator."""
        return cast(T, await self._directory.run(work))

    async def create(self, prefix: str, **attributes: Any) -> Account:
        """A new user, who is gone after the test."""
        name = f"{prefix}-{uuid4().hex[:8]}"
        dn = f"CN={name},CN=Users,{self.lab.base_dn}"
        self.addCleanup(lambda: ensureDeferred(self.do(lambda session: session.delete(dn))))
        return await self.recreate(Account(name, self.lab.realm, dn, ""), **attributes)

    async def recreate(self, account: Account, **attributes: Any) -> Account:
        """Create the account; with the password it has, if it has one."""
        password = account.password or _new_password()
        values = {
            "objectClass": "user",
            "sAMAccountName": account.name,
            "userAccountControl": str(NORMAL),
            "msDS-SupportedEncryptionTypes": str(AES_ONLY),
            "unicodePwd": _as_stored(password),
            **attributes,
        }

        def add(session: LdapSession) -> int:
            session.add(account.dn, values)
            return _key_version(session, account.dn)

        return evolve(account, password=password, version=await self.do(add))

    async def change(self, account: Account, **attributes: Any) -> None:
        """Set attributes; ``-`` in their names is written ``_``."""
        changes = [
            Change(
                "replace",
                name.replace("_", "-"),
                (value if isinstance(value, bytes) else str(value),),
            )
            for name, value in attributes.items()
        ]
        await self.do(lambda session: session.modify(account.dn, changes))

    async def lock_after(self, account: Account, failures: int) -> None:
        """Have the domain count the account's wrong passwords, and lock it after that many (MS-ADTS
        6.1.1.4.11.2).
        """
        name = f"CN={account.name},CN=Password Settings Container,CN=System,{self.lab.base_dn}"
        hour = -36_000_000_000  # in units of 100 ns
        values = {
            "objectClass": "msDS-PasswordSettings",
            "msDS-PasswordSettingsPrecedence": "1",
            "msDS-PasswordReversibleEncryptionEnabled": "FALSE",
            "msDS-PasswordHistoryLength": "0",
            "msDS-PasswordComplexityEnabled": "FALSE",
            "msDS-MinimumPasswordLength": "0",
            "msDS-MinimumPasswordAge": "0",
            "msDS-MaximumPasswordAge": str(hour * 1000),
            "msDS-LockoutThreshold": str(failures),
            "msDS-LockoutObservationWindow": str(hour),
            "msDS-LockoutDuration": str(hour),
            "msDS-PSOAppliesTo": account.dn,
        }
        await self.do(lambda session: session.add(name, values))
        self.addCleanup(lambda: ensureDeferred(self.do(lambda session: session.delete(name))))

    async def new_password(self, account: Account, chosen: str = "") -> Account:
        """The account under a new password, and with that a new key."""
        password = chosen or _new_password()

        def change(session: LdapSession) -> int:
            session.modify(account.dn, [Change("replace", "unicodePwd", (_as_stored(password),))])
            return _key_version(session, account.dn)

        return evolve(account, password=password, version=await self.do(change))

    async def register(self, account: Account, *spns: SPN) -> None:
        """Give the account SPNs."""
        await self.do(lambda session: add_spns(session, find_account(session, account.name), spns))

    def put(self, path: Path, *keys: Key) -> str:
        """Write a keytab and put it in the place of another, as one step."""
        new = path.with_suffix(".new")
        new.write_bytes(keytab(keys))
        new.replace(path)
        return str(path)

    def service_keys(
        self,
        path: Path | None = None,
        principal: str | None = None,
        package: Mechanism = KERBEROS,
    ) -> ServiceKeys:
        """The keys in a keytab, the service's own if not another is named."""
        return ServiceKeys(ServiceCredentials(str(path or self.file), principal), package=package)

    def client_keytab(self, account: Account, *keys: Key) -> ClientCredentials:
        """An account by a keytab of its own, with its AES-256 key if no others are given."""
        path = self.put(
            self.here / f"{account.name}-{uuid4().hex[:4]}.keytab", *(keys or (account.key(),))
        )
        return ClientCredentials(principal=account.principal, keytab=path)

    def fresh(self, user: str = "alice") -> ClientCredentials:
        """One of the lab's users with no tickets but the first: the KDC makes what else is needed
        anew.
        """
        path = self.here / f"ccache-{uuid4().hex}"
        shutil.copy(self.lab.ccache(user).removeprefix("FILE:"), path)
        return ClientCredentials(ccache=f"FILE:{path}")

    async def kinit(self, account: Account, path: Path, *options: str) -> ClientCredentials:
        """A ticket got with the password, in a cache."""
        await deferToThread(
            subprocess.run,
            ["kinit", *options, "-c", str(path), account.principal],
            input=account.password + "\n",
            text=True,
            capture_output=True,
            check=True,
        )
        return ClientCredentials(ccache=f"FILE:{path}")

    async def served(
        self, port: int, spn: SPN | None = None, credentials: ClientCredentials | None = None
    ) -> str:
        """Connect, exchange a word, and close; returns whom the service saw."""
        client = await self.connect(port, spn or self.spn, credentials or self.fresh())
        client.protected.write(b"hello")
        self.assertEqual(await client.wait_for(5), b"HELLO")
        seen = cast(str, self.servers[-1].protected.peer_identity.principal)
        await self.close(client)
        self.servers.clear()
        return seen

    async def both(
        self,
        port: int,
        client: tuple[type[MutualAuthError], tuple[str, ...]],
        service: tuple[type[MutualAuthError], tuple[str, ...]] | None,
        spn: SPN | None = None,
        credentials: ClientCredentials | None = None,
        security: SecurityOptions = SecurityOptions(),
    ) -> None:
        """The connection is refused, and each side says why: a line of this class with these words,
        and what to do.

        :param service: None: the service hears nothing of this client.
        """
        self.heard.clear()
        error = await self.assertFailure(
            self.connect(port, spn or self.spn, credentials or self.fresh(), security),
            MutualAuthError,
        )
        while len(self.heard) < (1 if service is None else 2):
            await deferLater(cast(IReactorTime, reactor), 0.002)
        if service is None:
            await deferLater(cast(IReactorTime, reactor), 0.02)
        expected = [(cast(MutualAuthError, error), client)]
        for its in self.heard:
            if its is not error:
                assert service is not None, f"the service heard of it: {its}"
                expected.append((its, service))
        for said, (kind, words) in expected:
            line = str(said)
            self.assertIs(type(said), kind, line)
            for word in words:
                self.assertIn(word, line)
            self.assertEqual(line, f"{printable(said.subject)}: {said.cause}; {said.remedy}")
            self.assertTrue(
                said.subject and said.cause and said.remedy and line.isprintable(), line
            )
        self.assertEqual(self.servers, [])
