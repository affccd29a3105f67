"""Common ground of the tests of the directory side: a service of their own in the lab, and its
callers.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any, TypeVar
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.scp import (
    delete_scp,
    find_by_keyword,
)
from mutauth_twisted.dns import Resolver
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.session import Change, LdapSession
from tests.cases.world import DirectoryWorld, Place, taken
from tests.integration.support import require_lab

T = TypeVar("T")


class DirectoryTestCase(DirectoryWorld, TestCase):
    """A test with the lab's directory, as any of its accounts, leaving nothing behind in it."""

    is_samba = True

    def setUp(self) -> None:
        self.lab = require_lab()
        self.set_environment("KRB5_CONFIG", str(self.lab.krb5_conf))
        self.resolver = Resolver(reactor, self.lab.nameserver)
        lab = self.lab
        self.place = Place(lab.base_dn, lab.realm.lower(), lab.domain, lab.dc_host, lab.nameserver)
        self.service_class = f"test{uuid4().hex[:10]}"
        self._directories: dict[str, Directory] = {}
        self.addCleanup(self._forget_service)

    def set_environment(self, name: str, value: str) -> None:
        """Set a variable for this test only."""
        before = os.environ.get(name)
        os.environ[name] = value
        self.addCleanup(
            lambda: os.environ.pop(name) if before is None else os.environ.__setitem__(name, before)
        )

    def directory(self, **options: Any) -> Directory:
        """A directory that is closed after the test."""
        where = DirectoryOptions(
            nameserver=self.resolver.nameserver, **taken(DirectoryOptions, options)
        )
        directory = Directory(reactor, where, resolver=self.resolver, **options)
        self.addCleanup(directory.close)
        return directory

    def as_user(self, user: str) -> Directory:
        """The directory with the tickets of one of the lab's accounts."""
        if user not in self._directories:
            self._directories[user] = self.directory(
                credentials=ClientCredentials(ccache=self.lab.ccache(user))
            )
        return self._directories[user]

    def smuggle(self, account: str, spn: str) -> None:
        """Write an SPN into the controller's database file, below all of its checks."""
        base = self.lab.base_dn
        database = self.lab.directory / "samba/private/sam.ldb.d" / f"{base.upper()}.ldb"
        subprocess.run(
            ["/usr/bin/python3", "-c", _SMUGGLE, database, f"CN={account},CN=Users,{base}", spn],
            check=True,
            capture_output=True,
        )

    def _forget_service(self) -> Deferred[Any]:
        def forget(session: LdapSession) -> None:
            for entry in list(
                session.search(
                    session.domain_dn,
                    f"(servicePrincipalName={self.service_class}/*)",
                    ["servicePrincipalName"],
                )
            ):
                ours = [
                    spn
                    for spn in entry.texts("servicePrincipalName")
                    if spn.startswith(self.service_class)
                ]
                session.modify(entry.dn, [Change("delete", "servicePrincipalName", tuple(ours))])
            for keyword in (self.service_class, self.service_class + "-other"):
                for point in list(find_by_keyword(session, keyword)):
                    delete_scp(session, point)

        return Deferred.fromCoroutine(self.do("administrator", forget))


_SMUGGLE = """
import ldb, sys
path, dn, spn = sys.argv[1:]
database = ldb.Ldb(path)
message = ldb.Message(ldb.Dn(database, dn))
message["spn"] = ldb.MessageElement([spn.encode()], ldb.FLAG_MOD_ADD, "servicePrincipalName")
database.modify(message)
"""
