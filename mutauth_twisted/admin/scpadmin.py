"""Administration of service connection points: list them, fix them by hand, remove them.

A connection point is right when the account that runs the service may keep it
up to date, and when the SPNs that carry its GUID or DN are registered on that account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from attrs import evolve, frozen

from mutauth_twisted.admin.spnadmin import query
from mutauth_twisted.directory import acl as security
from mutauth_twisted.directory.binding import BindingError, BindingInformation, advertised_form
from mutauth_twisted.directory.scp import (
    ServiceConnectionPoint,
    delete_scp,
    find_by_keyword,
    read_scp,
)
from mutauth_twisted.directory.servicename import ServiceName
from mutauth_twisted.directory.spns import Account, find_account, find_by_sid, spn_command
from mutauth_twisted.errors import NotFound, ServiceCheckFailed, UsageError
from mutauth_twisted.findings import Command, Finding, either
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.dn import common_name, domain_of, is_dn, parse_guid, same_dn
from mutauth_twisted.ldap.session import Change, LdapSession
from mutauth_twisted.names import check_host_name, fold_ascii, is_host_name
from mutauth_twisted.spn import SPN


@frozen
class Grant:
    """Account with rights of the kind that lets a service update its connection point.

    :param holder: None: no object in the forest has this SID any more.
    :param complete: whether both rights stand, not just one.
    """

    sid: str
    holder: Account | None
    complete: bool

    @property
    def name(self) -> str:
        """The account's name, or its SID."""
        return self.holder.name if self.holder else self.sid


@frozen
class ScpReport:
    """One service connection point, and what belongs to it.

    :param grants: None: this account may not read the security descriptor.
    :param spns: the SPNs that carry its GUID or DN, and who holds them.
    :param advertised: the SPN that clients are told to ask for, which has to stand; None: there is
        none yet.
    :param stale: the SPNs that carry a DN it had before it was moved.
    :param problems: what is wrong; none: it is as it must be.
    """

    scp: ServiceConnectionPoint
    grants: tuple[Grant, ...] | None
    spns: tuple[tuple[Account, SPN], ...]
    stale: tuple[tuple[Account, str], ...]
    problems: tuple[Finding, ...]
    advertised: SPN | None = None


def read_dacl(session: LdapSession, guid: UUID) -> bytes:
    """An object's security descriptor without owner and auditing part.

    :raises NotFound: when this account may not read it.
    """
    values = session.read(guid, ["nTSecurityDescriptor"]).values("nTSecurityDescriptor")
    if not values:
        raise NotFound(
            f"object with GUID {guid}",
            "this account may not read its security descriptor",
            code="rights-unreadable",
        )
    return values[0]


def write_dacl(session: LdapSession, guid: UUID, descriptor: bytes) -> None:
    """Replace an object's access control list."""
    session.modify(guid, [Change("replace", "nTSecurityDescriptor", (descriptor,))])


def spns_naming(catalog: LdapSession, point: ServiceConnectionPoint) -> list[tuple[Account, SPN]]:
    """The SPNs in the forest whose third part is this object's GUID or DN, whatever their host
    is.
    """
    found = []
    for name in (str(point.guid), point.dn):
        for holder, text in query(catalog, f"{point.service_class or '*'}/*/{name}"):
            spn = parse_or_none(text)
            # A star in a DN is a wildcard to the search.
            if spn is not None and (spn.service_name or "").casefold() == name.casefold():
                found.append((holder, spn))
    return found


def parse_or_none(text: str) -> SPN | None:
    """An SPN as it stands in the directory; None when it is malformed."""
    try:
        return SPN.parse(text)
    except UsageError:
        return None


def find_stale(
    catalog: LdapSession,
    point: ServiceConnectionPoint,
    holder: Account,
    service_class: str,
    host: str,
) -> list[str]:
    """The SPNs on an account that carry a DN which the object had before it was moved.

    Those of the same class and host, with a DN of the same common name at
    which there is no object any more.
    """
    return [
        text
        for text in holder.spns
        if (spn := parse_or_none(text)) is not None
        and spn.service_name is not None
        and SPN(spn.service_class, spn.host) == SPN(service_class, host)
        and is_dn(spn.service_name)
        and fold_ascii(common_name(spn.service_name)) == fold_ascii(common_name(point.dn))
        and not same_dn(spn.service_name, point.dn)
        and not _exists(catalog, spn.service_name)
    ]


def _exists(catalog: LdapSession, dn: str) -> bool:
    try:
        catalog.read(dn, ["objectGUID"])
    except NotFound:
        return False
    return True


def read_grants(
    session: LdapSession, catalog: LdapSession, point: ServiceConnectionPoint
) -> list[Grant]:
    """Read which accounts may update a connection point by ACEs of its own, as installation writes
    them.

    :raises NotFound: when this account may not read the security descriptor.
    """
    granted = security.granted_to(read_dacl(session, point.guid))
    return [Grant(sid, find_by_sid(catalog, sid), complete) for sid, complete in granted.items()]


def inspect(
    session: LdapSession,
    catalog: LdapSession,
    name: str | UUID,
    *,
    accounts: Sequence[str] = (),
    spn_forms: Sequence[str] = (),
) -> ScpReport:
    """Read one connection point with all that belongs to it; blocks and changes nothing.

    :param session: a domain controller of the object's domain.
    :param name: its DN or GUID.
    :param accounts: those that must be able to update it and hold its SPNs;
        none: those that hold its SPNs.
    :param spn_forms: the SPNs that must stand; none: any that carries its GUID or DN.
    """
    point = read_scp(session, name)
    naming = spns_naming(catalog, point)
    holders = {holder.dn: holder for holder, _ in naming}
    expected = [find_account(session, each) for each in accounts] or list(holders.values())
    try:
        grants = read_grants(session, catalog, point)
    except NotFound:
        grants = None
    stale = [
        (holder, text) for holder in holders.values() for text in _stale_of(catalog, point, holder)
    ]
    problems = [
        *_host_problems(point),
        *_binding_problems(point),
        *_grant_problems(session, point, naming, expected, grants),
        *_spn_problems(session, point, naming, expected if accounts else [], spn_forms),
        *(
            Finding(
                "spn-stale",
                f"SPN {text}",
                f"on {holder.name}, it carries a DN that the SCP had before it was moved",
                spn_command(session, "delete", holder, text),
            )
            for holder, text in stale
        ),
    ]
    told = None if grants is None else tuple(grants)
    return ScpReport(point, told, tuple(naming), tuple(stale), tuple(problems), _advertised(point))


def _stale_of(catalog: LdapSession, point: ServiceConnectionPoint, holder: Account) -> list[str]:
    if not point.service_class or not point.dns_name:
        return []
    return find_stale(catalog, point, holder, point.service_class, point.dns_name)


def _host_problems(point: ServiceConnectionPoint) -> list[Finding]:
    if not point.dns_name or is_host_name(point.dns_name.removesuffix(".")):
        return []
    cause = f"its host {point.dns_name!r} is not a valid host name: clients refuse it"
    return [Finding("dns-name-invalid", f"SCP {point.dn}", cause)]


def _binding_problems(point: ServiceConnectionPoint) -> list[Finding]:
    try:
        if point.binding:
            return []
    except BindingError as error:
        return [error.finding]
    cause = "it has published no port: the service is not running, or has never run"
    return [Finding("address-not-published", f"SCP {point.dn}", cause)]


def _service(point: ServiceConnectionPoint, naming: Sequence[tuple[Account, SPN]]) -> ServiceName:
    """The service that it is for, on the host that its SPNs name where itself it names a DNS record
    instead, as that of a replicated service does.
    """
    own = point.dns_name if point.dns_name_type == "A" else None
    host = own or next((spn.host for _, spn in naming), None)
    return ServiceName.for_remedy(point.service_class, host).at(point.dn)


def _install(
    session: LdapSession,
    point: ServiceConnectionPoint,
    naming: Sequence[tuple[Account, SPN]],
    account: str,
    spn_forms: Sequence[str] = (),
) -> Command:
    """The installation of this very object, for an account."""
    service = _service(point, naming)
    if spn_forms:
        service = evolve(service, spn_forms=tuple(spn_forms))
    return session.options.command(*service.install_words(account))


def _grant_problems(
    session: LdapSession,
    point: ServiceConnectionPoint,
    naming: Sequence[tuple[Account, SPN]],
    expected: Sequence[Account],
    grants: Sequence[Grant] | None,
) -> list[Finding]:
    if grants is None:
        return []
    able = {grant.sid for grant in grants if grant.complete}
    return [
        Finding(
            "no-right-to-publish",
            f"SCP {point.dn}",
            f"{account.name} may not update serviceDNSName and serviceBindingInformation",
            _install(session, point, naming, account.name),
        )
        for account in expected
        if account.sid not in able
    ]


def _advertised(point: ServiceConnectionPoint) -> SPN | None:
    """SPN that clients are told to ask for; None: nothing is published, or the hosts are in DNS."""
    try:
        form = advertised_form(point.binding) if point.binding else None
        return point.spn(form) if form and point.dns_name_type == "A" else None
    except UsageError:  # a problem of its own
        return None


def _spn_problems(
    session: LdapSession,
    point: ServiceConnectionPoint,
    naming: Sequence[tuple[Account, SPN]],
    expected: Sequence[Account],
    spn_forms: Sequence[str],
) -> list[Finding]:
    anybody = (
        expected[0].name if expected else next((holder.name for holder, _ in naming), "ACCOUNT")
    )
    command = _install(session, point, naming, anybody, spn_forms)
    if not naming:
        cause = "no account holds an SPN with its GUID or DN: clients do not trust it"
        return [Finding("spn-not-vouched-for", f"SCP {point.dn}", cause, command)]
    problems = []
    required = [point.spn(form) for form in spn_forms]
    advertised = _advertised(point)
    for spn in dict.fromkeys([*required, *([advertised] if advertised else [])]):
        if not any(standing == spn for _, standing in naming):
            problems.append(Finding("spn-missing", f"SPN {spn}", "no account holds it", command))
    wanted = {account.dn for account in expected}
    for holder, spn in naming:
        if wanted and holder.dn not in wanted:
            free = spn_command(session, "delete", holder, spn)
            cause = f"it is on {holder.name}"
            problems.append(Finding("spn-on-other-account", f"SPN {spn}", cause, free))
    for account in expected:
        if account.dn not in {holder.dn for holder, _ in naming}:
            command = _install(session, point, naming, account.name, spn_forms)
            cause = f"{account.name} holds no SPN with its GUID or DN"
            problems.append(Finding("spn-missing", f"SCP {point.dn}", cause, command))
    return problems


def set_published(
    session: LdapSession,
    name: str | UUID,
    *,
    host: str | None = None,
    srv: str | None = None,
    changes: Mapping[str, Any],
) -> tuple[ServiceConnectionPoint, list[str]]:
    """Change by hand what a connection point publishes; blocks.

    What is not named stays as it is, keys of later versions included.

    :param host: the host's name, for serviceDNSName.
    :param srv: an SRV record's name instead.
    :param changes: fields of :class:`BindingInformation`, by name.
    :return: the object as it is now, and the attributes that were written.
    :raises BindingError: for a value that cannot be published, or without a port.
    :raises UsageError: when the host or the record has no DNS name.
    """
    for what, given in (("host", host), ("SRV record", srv)):
        if given:
            check_host_name(given, f"{what} {given!r}")
    point = read_scp(session, name)
    wanted: dict[str, str] = {}
    if host or srv:
        wanted["serviceDNSName"] = host or srv or ""
        wanted["serviceDNSNameType"] = "SRV" if srv else "A"
    if changes:
        wanted["serviceBindingInformation"] = str(_changed(point, changes))
    standing = {
        "serviceDNSName": point.dns_name,
        "serviceDNSNameType": point.dns_name_type,
        "serviceBindingInformation": point.binding_text,
    }
    written = [attribute for attribute, text in wanted.items() if standing[attribute] != text]
    if written:
        session.modify(
            point.guid,
            [Change("replace", attribute, (wanted[attribute],)) for attribute in written],
        )
    return read_scp(session, point.guid), written


def _changed(point: ServiceConnectionPoint, changes: Mapping[str, Any]) -> BindingInformation:
    try:
        before = point.binding
    except BindingError:
        if "port" not in changes:
            raise
        before = None
    if before is not None:
        return evolve(before, **changes)
    if "port" not in changes:
        raise BindingError(
            f"SCP {point.dn}",
            "it has published no port yet",
            "give --port too",
            code="address-not-published",
        )
    return BindingInformation(**changes)


def remove(
    session: LdapSession, catalog: LdapSession, name: str | UUID, *, leave_spns: bool = False
) -> ServiceConnectionPoint:
    """Delete a connection point that no SPN carries; blocks.

    :param leave_spns: delete it even though SPNs carry its GUID or DN.
    :raises ServiceCheckFailed: naming those SPNs and how to remove them.
    """
    point = read_scp(session, name)
    naming = [] if leave_spns else spns_naming(catalog, point)
    if naming:
        holders = {holder.dn: holder for holder, _ in naming}.values()
        commands = [
            spn_command(
                session, "delete", holder, *(spn for other, spn in naming if other.dn == holder.dn)
            )
            for holder in holders
        ]
        whole = session.options.command(*_service(point, naming).uninstall_words())
        raise ServiceCheckFailed(
            f"SCP {point.dn}",
            f"{len(naming)} SPN(s) of {', '.join(holder.name for holder in holders)} carry its "
            "GUID or DN",
            (whole, " removes all of it; or first ", *either(commands), "; or use --leave-spns"),
            code="spn-names-scp",
        )
    delete_scp(session, point)
    return point


async def find_in_forest(
    directory: Directory, keyword: str, base: str | None = None
) -> list[ServiceConnectionPoint]:
    """Every connection point with a keyword, read in full from its own domain."""
    found = await directory.run(
        lambda catalog: [
            (point.guid, domain_of(point.dn))
            for point in find_by_keyword(catalog, keyword, base=base)
        ],
        global_catalog=True,
    )
    points: list[ServiceConnectionPoint] = []
    for domain in dict.fromkeys(each for _, each in found):
        guids = [guid for guid, each in found if each == domain]
        points += await directory.run(
            lambda session, guids=guids: _read_all(session, guids),  # type: ignore[misc]
            domain=domain,
        )
    return points


def _read_all(session: LdapSession, guids: Sequence[UUID]) -> list[ServiceConnectionPoint]:
    points = []
    for guid in guids:
        try:
            points.append(read_scp(session, guid))
        except NotFound:
            continue  # deleted since the global catalog heard of it
    return points


async def find_home(directory: Directory, name: str) -> tuple[str | UUID, str]:
    """Resolve a user's name for a connection point to its DN or GUID, and the DNS name of its
    domain.

    :raises UsageError: when the name is neither.
    :raises NotFound: when nothing in the forest has this GUID.
    """
    guid = parse_guid(name)
    if guid is not None:
        point = await directory.run(lambda catalog: read_scp(catalog, guid), global_catalog=True)
        return guid, domain_of(point.dn)
    if is_dn(name):
        return name, domain_of(name)
    raise UsageError(
        f"SCP {name}",
        "it is neither a DN nor a GUID",
        (directory.options.command("scp", "find", name), " tells both"),
        code="scp-not-named",
    )
