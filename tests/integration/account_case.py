"""Accounts of the domain that come and go, and a service that allows some of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import PeerRefused
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.session import LdapSession
from tests.integration.handshake_case import HandshakeTestCase

T = TypeVar("T")
PASSWORD = "Correct-horse-7"
NORMAL_ACCOUNT = "512"


class AccountCase(HandshakeTestCase):
    """mallory has an account of her own; each test has its own mallory."""

    def setUp(self) -> Deferred[None]:  # type: ignore[override]
        self.tag = uuid4().hex[:8]
        self.mallory, self.ghost = f"mal-{self.tag}", f"ghost-{self.tag}"
        return super().setUp().addCallback(lambda _: ensureDeferred(self._open()))

    async def _open(self) -> None:
        self.administrator = Directory(
            reactor,
            DirectoryOptions(nameserver=self.lab.nameserver),
            credentials=ClientCredentials(ccache=self.lab.ccache("administrator")),
        )
        self.addCleanup(self.administrator.close)

    async def do(self, work: Callable[[LdapSession], T]) -> T:
        """Blocking work in the directory as the administrator."""
        return await self.administrator.run(work)

    async def add(self, name: str, upn: str | None = None) -> str:
        """A new user; its DN."""
        dn = f"CN={name},CN=Users,{self.lab.base_dn}"
        attributes: dict[str, Any] = {
            "objectClass": "user",
            "sAMAccountName": name,
            "userAccountControl": NORMAL_ACCOUNT,
            "unicodePwd": f'"{PASSWORD}"'.encode("utf-16-le"),
        }
        if upn is not None:
            attributes["userPrincipalName"] = upn
        await self.do(lambda session: session.add(dn, attributes))
        self.addCleanup(lambda: ensureDeferred(self.do(lambda session: session.delete(dn))))
        return dn

    def as_name(self, name: str, *options: str, password: str = PASSWORD) -> ClientCredentials:
        """Credentials of a user who has typed this name; the KDC must let it pass."""
        cache = os.path.abspath(self.mktemp())
        words = ["kinit", *options, "-c", cache, name]
        subprocess.run(
            words, input=f"{password}\n", text=True, check=True, timeout=10, capture_output=True
        )
        return ClientCredentials(ccache=f"FILE:{cache}")

    async def kept_out(self, policy: AccessPolicy, who: ClientCredentials) -> None:
        """The service authenticates the client and refuses it."""
        await self.refused(
            self.connect(await self.listen(policy=policy), credentials=who),
            PeerRefused,
            "its access policy",
        )

    async def allowed(self, policy: AccessPolicy, who: ClientCredentials) -> Any:
        """The service allows the client; its identity there."""
        client = await self.connect(await self.listen(policy=policy), credentials=who)
        identity = self.servers[-1].protected.peer_identity
        identity.read_logon()  # while the connection is there
        await self.close(client)
        self.servers.clear()
        return identity

    def named(self, name: str) -> str:
        """The pattern for one name."""
        return f"{name}@{self.lab.realm}"
