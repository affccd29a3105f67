"""A test in a domain in memory, which has the lab's accounts and hosts."""

from __future__ import annotations

from uuid import uuid4

from twisted.trial.unittest import TestCase

from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.testing import Domain
from tests.cases.world import DirectoryWorld, Place

_NAMESERVER = "192.0.2.53"


class MemoryTestCase(DirectoryWorld, TestCase):
    """A test with a domain of its own."""

    is_samba = False

    def setUp(self) -> None:
        self.domain = Domain("lab.example")
        for user in ("alice", "bob", "svc-echo", "svc-other"):
            self.domain.add_user(user)
        for host in ("srv1", "srv2", "rogue"):
            self.domain.add_computer(host)
        self.place = Place(
            self.domain.dn, self.domain.name, "LAB", self.domain.controller, _NAMESERVER
        )
        self.service_class = f"test{uuid4().hex[:10]}"

    def as_user(self, user: str) -> Directory:
        return self.domain.directory(user, options=DirectoryOptions(nameserver=_NAMESERVER))

    def smuggle(self, account: str, spn: str) -> None:
        dn = f"CN={account},CN=Users,{self.domain.dn}"
        self.domain.add_raw_value(dn, "servicePrincipalName", spn.encode())
