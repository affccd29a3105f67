"""Service connection points: the objects that say where a service is and what it is called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from attrs import frozen
from twisted.internet.endpoints import quoteStringArgument

from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.servicename import SPN_FORMS, ServiceName
from mutauth_twisted.errors import (
    DirectoryRefused,
    NotFound,
    OtherObject,
    UsageError,
)
from mutauth_twisted.ldap.dn import child_dn, parent_of
from mutauth_twisted.ldap.filter import all_of, equals
from mutauth_twisted.ldap.session import NO_SUCH_ATTRIBUTE, Change, Entry, LdapSession
from mutauth_twisted.names import check_host_name, fold_ascii
from mutauth_twisted.spn import SPN, check_service_class

OBJECT_CLASS = "serviceConnectionPoint"
_IS_SCP = equals("objectClass", OBJECT_CLASS)
_ATTRIBUTES = (
    "objectClass",
    "objectGUID",
    "cn",
    "serviceClassName",
    "serviceDNSName",
    "serviceDNSNameType",
    "serviceBindingInformation",
    "keywords",
)


@frozen
class ServiceConnectionPoint:
    """One service connection point as it was read.

    :param dn: where it is now.
    :param guid: what it is wherever it is moved.
    :param service_class: the first part of its SPNs, or None.
    :param dns_name: the host, or the SRV record's name, or None.
    :param dns_name_type: ``A`` or ``SRV``.
    :param keywords: what clients find it by.
    :param binding_text: serviceBindingInformation as it stands, or None when
        nothing is published.
    """

    dn: str
    guid: UUID
    service_class: str | None = None
    dns_name: str | None = None
    dns_name_type: str = "A"
    keywords: tuple[str, ...] = ()
    binding_text: str | None = None

    @property
    def binding(self) -> BindingInformation | None:
        """Binding information as published; None if nothing is.

        :raises BindingError: when it cannot be read.
        """
        return None if self.binding_text is None else BindingInformation.parse(self.binding_text)

    def spn(self, form: str, host: str | None = None, service_class: str | None = None) -> SPN:
        """The SPN of this service in one form (DsMakeSpn for a service with an object).

        :param form: ``guid``, ``dn`` or ``host``.
        :param host: instead of serviceDNSName.
        :param service_class: instead of serviceClassName.
        :raises UsageError: when a part is not known, or cannot stand in an SPN, or the host is not
            a valid (ASCII) name.
        """
        host, service_class = host or self.dns_name, service_class or self.service_class
        if not host or not service_class:
            what = "serviceDNSName" if not host else "serviceClassName"
            raise UsageError(f"SCP {self.dn}", f"it has no {what}", "install it again")
        if form not in SPN_FORMS:
            raise UsageError(
                f"SPN form {form!r}", "it is unknown", f"use one of {', '.join(SPN_FORMS)}"
            )
        names = {"guid": str(self.guid), "dn": self.dn, "host": None}
        return SPN(
            service_class, check_host_name(host, f"SCP {self.dn}, host {host!r}"), names[form]
        )

    def spns_of(self, service: ServiceName) -> tuple[SPN, ...]:
        """The SPNs of a service that this object stands for.

        :raises UsageError: as :meth:`spn` does.
        """
        return tuple(
            self.spn(form, service.host, service.service_class) for form in service.spn_forms
        )


def client_strings(point: ServiceConnectionPoint) -> list[str]:
    """The client endpoint strings that find this service, one for each of its keywords.

    By keyword a client has to know the service class, which is what an
    administrator registered; that may be the keyword itself.  None where it is
    not a valid one.
    """
    try:
        name = check_service_class(point.service_class or "")
    except UsageError:
        return []
    others = [keyword for keyword in point.keywords if fold_ascii(keyword) != fold_ascii(name)]
    strings = [f"mutauth:keyword={quoteStringArgument(keyword)}:class={name}" for keyword in others]
    return strings if len(others) == len(point.keywords) else [f"mutauth:scp={name}", *strings]


def _scp(entry: Entry) -> ServiceConnectionPoint:
    return ServiceConnectionPoint(
        dn=entry.dn,
        guid=entry.guid,
        service_class=entry.text("serviceClassName"),
        dns_name=entry.text("serviceDNSName"),
        dns_name_type=(entry.text("serviceDNSNameType") or "A").upper(),
        keywords=entry.texts("keywords"),
        binding_text=entry.text("serviceBindingInformation"),
    )


def read_scp(session: LdapSession, name: str | UUID) -> ServiceConnectionPoint:
    """Read one service connection point by its DN, or by its GUID wherever it is.

    :raises NotFound: when there is no such object.
    :raises OtherObject: when it is something else.
    """
    subject = f"SCP {name}"
    try:
        entry = session.read(name, _ATTRIBUTES)
    except NotFound as error:
        remedy = (
            "check the name; ",
            session.options.command("scp", "list"),
            " names those that are there",
        )
        raise NotFound(subject, error.cause, remedy, code="scp-not-found") from error
    if OBJECT_CLASS.casefold() not in (kind.casefold() for kind in entry.texts("objectClass")):
        raise OtherObject(subject, "it is not a service connection point", "check the name")
    return _scp(entry)


def list_scps(session: LdapSession, base: str | None = None) -> Iterator[ServiceConnectionPoint]:
    """Every service connection point below a DN; None: in the domain."""
    return map(_scp, session.search(session.root if base is None else base, _IS_SCP, _ATTRIBUTES))


def find_by_keyword(
    session: LdapSession, keyword: str, *, base: str | None = None
) -> Iterator[ServiceConnectionPoint]:
    """The service connection points with a keyword.

    On a global catalog the whole forest is searched, and what it does not
    replicate (serviceDNSName, serviceDNSNameType, serviceClassName) is None:
    read those from a domain controller of the object's domain.

    :param base: search only below this DN.
    """
    wanted = all_of(_IS_SCP, equals("keywords", keyword))
    return map(_scp, session.search(session.root if base is None else base, wanted, _ATTRIBUTES))


def find_computer(session: LdapSession, host: str) -> str:
    """The DN of the computer object whose dNSHostName is this host.

    :raises NotFound: when there is none.
    :raises UsageError: when there are several.
    """
    wanted = all_of(equals("objectCategory", "computer"), equals("dNSHostName", host))
    found = [entry.dn for entry in session.search(session.domain_dn, wanted)]
    if len(found) > 1:
        raise UsageError(
            f"host {host}",
            f"{len(found)} computer objects have this dNSHostName",
            "name one with --scp-parent",
            code="ambiguous-name",
        )
    if not found:
        remedy = (
            "join the host, or name the SCP's parent with --scp-parent, to install and to serve"
        )
        raise NotFound(
            f"host {host}",
            "no computer object has this dNSHostName",
            remedy,
            code="computer-not-found",
        )
    return found[0]


def create_scp(
    session: LdapSession,
    dn: str,
    *,
    service_class: str,
    dns_name: str,
    keywords: Sequence[str],
    dns_name_type: str = "A",
) -> ServiceConnectionPoint:
    """Create a service connection point without binding information; the service publishes that.

    :param dn: its DN, from :func:`~mutauth_twisted.ldap.dn.child_dn`.
    :raises NotFound: when there is nothing to put it below.
    """
    attributes = {
        "objectClass": OBJECT_CLASS,
        "serviceClassName": service_class,
        "serviceDNSName": dns_name,
        "serviceDNSNameType": dns_name_type,
        "keywords": list(keywords),
    }
    try:
        session.add(dn, attributes)
    except NotFound as error:
        raise NotFound(
            parent_of(dn), "there is no such object to put the SCP below", "check --scp-parent"
        ) from error
    return read_scp(session, dn)


def update_binding(
    session: LdapSession, scp: ServiceConnectionPoint, dns_name: str, binding: BindingInformation
) -> list[str]:
    """Make the service connection point say where the service is now.

    :return: the names of the attributes that were written; none when all was right.
    :raises DirectoryRefused: without the right to write them.
    """
    changes = []
    if fold_ascii(scp.dns_name or "") != fold_ascii(dns_name):
        changes.append(Change("replace", "serviceDNSName", (dns_name,)))
    if scp.binding_text != str(binding):
        changes.append(Change("replace", "serviceBindingInformation", (str(binding),)))
    if changes:
        session.modify(scp.guid, changes)
    return [change.attribute for change in changes]


def withdraw(session: LdapSession, guid: UUID, binding: BindingInformation) -> bool:
    """Take back what was published, unless another instance has published since.

    :return: whether it was taken back.
    """
    try:
        session.modify(guid, [Change("delete", "serviceBindingInformation", (str(binding),))])
    except NotFound:
        return False
    except DirectoryRefused as error:
        if error.result == NO_SUCH_ATTRIBUTE:  # there is nothing, or what another one published
            return False
        raise
    return True


def delete_scp(session: LdapSession, scp: ServiceConnectionPoint) -> None:
    """Delete a service connection point."""
    session.delete(scp.dn)


def scp_dn(session: LdapSession, service: ServiceName) -> str:
    """Where the service's connection point is put: below the host's computer object, unless said
    otherwise.

    :raises NotFound: when the host has no computer object.
    """
    if service.container is not None:
        parent = child_dn(service.container, f"CN=System,{session.domain_dn}")
    else:
        parent = service.scp_parent or find_computer(session, service.host)
    return child_dn(service.common_name, parent)
