"""What the tests of the directory side start from: a service of their own in the lab, and its
callers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from attrs import fields
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mutauth_twisted.admin import installation
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.published import scp as startup
from mutauth_twisted.directory.scp import (
    ServiceConnectionPoint,
    delete_scp,
    find_by_keyword,
    read_scp,
)
from mutauth_twisted.directory.servicename import ServiceName
from mutauth_twisted.directory.spns import find_account
from mutauth_twisted.dns import Resolver
from mutauth_twisted.errors import (
    MutualAuthError,
)
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.session import Change, LdapSession
from tests.integration.support import require_lab

T = TypeVar("T")
BINDING = BindingInformation(9000)


class Started(NamedTuple):
    """What a start found to warn of, the attributes it had to write, and what stands there then."""

    warnings: tuple[str, ...]
    changed: tuple[str, ...]
    scp: ServiceConnectionPoint


def taken(kind: type[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that are fields of an attrs class; they are taken out."""
    names = [each.name for each in fields(kind) if each.name in options]
    taken = {name: options.pop(name) for name in names}
    return {name: tuple(it) if isinstance(it, list) else it for name, it in taken.items()}


class DirectoryTestCase(TestCase):
    """A test with the lab's directory, as any of its accounts, leaving nothing behind in it."""

    def setUp(self) -> None:
        self.lab = require_lab()
        self.set_environment("KRB5_CONFIG", str(self.lab.krb5_conf))
        self.resolver = Resolver(reactor, self.lab.nameserver)
        self.host = self.lab.host("srv1")
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

    async def do(self, user: str, work: Callable[[LdapSession], T], **options: Any) -> T:
        """Do blocking work as one of the lab's accounts."""
        return await self.as_user(user).run(work, **options)

    async def install(self, **options: Any) -> installation.Installation:
        """Install this test's service as the administrator."""
        service = self.service(**taken(ServiceName, options))
        given: dict[str, Any] = {"account": "svc-echo", **options}
        return await self.as_user("administrator").run_with_catalog(
            lambda session, catalog: installation.install(session, catalog, service, **given)
        )

    def service(self, **names: Any) -> ServiceName:
        """This test's service, but for the names given."""
        return ServiceName(**{"service_class": self.service_class, "host": self.host, **names})

    async def publish(
        self,
        found: installation.Installation,
        user: str = "svc-echo",
        binding: BindingInformation = BINDING,
        **options: Any,
    ) -> Started:
        """Start this test's service as far as the directory goes."""
        service = self.service(**taken(ServiceName, options))
        given: dict[str, Any] = {"guid": found.guid, "account": "svc-echo", **options}

        def start(session: LdapSession, catalog: LdapSession) -> Started:
            checked = startup.check(session, catalog, service, **given)
            changed = startup.publish(session, checked, service.host, binding, lambda there: False)
            return Started(checked.warnings, tuple(changed), read_scp(session, checked.scp.guid))

        return await self.as_user(user).run_with_catalog(start)

    async def spns_of(self, name: str) -> set[str]:
        """The SPNs of this test's service class on an account."""
        account = await self.do("administrator", lambda session: find_account(session, name))
        return {spn for spn in account.spns if spn.startswith(self.service_class + "/")}

    async def failure_of(self, waiting: Any, kind: type[MutualAuthError]) -> str:
        """The one line of the error that something must end with."""
        try:
            result = await waiting
        except kind as error:
            line = str(error)
            self.assertNotIn("\n", line)
            self.assertNotIn("Traceback", line)
            return line
        raise self.failureException(f"it returned {result!r}")

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
