"""Common start of the cases of the directory side: a service of their own, and its callers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from attrs import fields, frozen

from mutauth_twisted.admin import installation
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.guidcache import GuidCache
from mutauth_twisted.directory.published.base import Registration, TakenByAnother
from mutauth_twisted.directory.published.scp import ScpEntry
from mutauth_twisted.directory.scp import ServiceConnectionPoint, read_scp, update_binding
from mutauth_twisted.directory.servicename import ServiceName
from mutauth_twisted.directory.spns import find_account
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.session import LdapSession

T = TypeVar("T")
BINDING = BindingInformation(9000)


@frozen
class Place:
    """A domain with the users administrator, alice, svc-echo and svc-other and the hosts srv1, srv2
    and rogue.

    :param base_dn: its DN.
    :param name: its DNS name.
    :param netbios: its NetBIOS name.
    :param controller: the domain controller's DNS name.
    :param nameserver: the address of its DNS.
    """

    base_dn: str
    name: str
    netbios: str
    controller: str
    nameserver: str

    @property
    def realm(self) -> str:
        """Its Kerberos realm."""
        return self.name.upper()

    def host(self, name: str) -> str:
        """The DNS name of a host."""
        return f"{name}.{self.name}"


class Started(NamedTuple):
    """Warnings of a start, the attributes it had to write, and what stands there then."""

    warnings: tuple[str, ...]
    changed: tuple[str, ...]
    scp: ServiceConnectionPoint


def taken(kind: type[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that are fields of an attrs class; they are taken out."""
    names = [each.name for each in fields(kind) if each.name in options]
    taken = {name: options.pop(name) for name in names}
    return {name: tuple(it) if isinstance(it, list) else it for name, it in taken.items()}


class DirectoryWorld:
    """A test in a domain, as any of its accounts; mixed into a TestCase.

    :ivar service_class: one that no other test has.
    :ivar is_samba: whether this is Samba, where it is known to differ from Windows.
    """

    place: Place
    service_class: str
    is_samba: bool
    failureException: Any
    addCleanup: Callable[..., object]
    mktemp: Callable[[], str]
    assertEqual: Callable[..., object]
    assertIn: Callable[..., object]
    assertNotIn: Callable[..., object]
    assertTrue: Callable[..., object]

    def as_user(self, user: str) -> Directory:
        """The directory as one of the accounts sees it."""
        raise NotImplementedError

    def smuggle(self, account: str, spn: str) -> None:
        """Register an SPN past all of the domain controller's checks."""
        raise NotImplementedError

    @property
    def host(self) -> str:
        """The host that this test's service is on."""
        return self.place.host("srv1")

    async def do(self, user: str, work: Callable[[LdapSession], T], **options: Any) -> T:
        """Do blocking work as one of the accounts."""
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
        state = Path(self.mktemp()).absolute()
        GuidCache(state).write(service, found.guid)
        options = {"account": "svc-echo", "state_dir": state, **options}
        entry = ScpEntry(Registration(service, **options))

        def start(session: LdapSession, catalog: LdapSession) -> Started:
            standing = entry.check(session, catalog)
            try:
                changed = entry.publish(session, binding)
            except TakenByAnother as error:  # a service asks there; here each takes over
                changed = entry.publish(session, binding, (error.there,))
            point = read_scp(session, found.guid)
            if point.binding_text != str(binding):  # a form that the service does not choose
                update_binding(session, point, service.host, binding)
            warnings = tuple(map(str, standing.warnings))
            return Started(warnings, tuple(changed), read_scp(session, found.guid))

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
