"""A test in the domain in memory, which has the lab's accounts and hosts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import uuid4

from twisted.trial.unittest import TestCase

from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.testing.directory import Domain

T = TypeVar("T")


class MemoryTestCase(TestCase):
    """A test with a domain of its own."""

    is_samba = False

    def setUp(self) -> None:
        self.domain = Domain("lab.example")
        for user in ("alice", "bob", "svc-echo", "svc-other"):
            self.domain.add_user(user)
        for host in ("srv1", "srv2", "rogue"):
            self.domain.add_computer(host)
        self.base_dn = self.domain.dn
        self.service_class = f"test{uuid4().hex[:10]}"

    def host_of(self, name: str) -> str:
        return f"{name}.{self.domain.name}"

    async def do(self, user: str, work: Callable[[LdapSession], T], **options: Any) -> T:
        """Do work as one of the accounts."""
        return await self.domain.directory(user).run(work, **options)
