"""What a service checks and publishes before it takes connections.

Source: Microsoft, *Mutual authentication in a Windows Sockets service with an
SCP*, the service's start: the connection point is found by its GUID, brought
up to date, and the SPNs are looked for on the account that runs the service;
the service does not start when one is missing.  Here nothing is published
before the SPNs are known to be right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal
from uuid import UUID

from attrs import frozen

from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.scp import (
    ServiceConnectionPoint,
    read_scp,
    scp_dn,
    update_binding,
)
from mutauth_twisted.directory.servicename import SPN_FORMS, ServiceName
from mutauth_twisted.directory.spns import Account, find_account, find_holders, spn_command
from mutauth_twisted.errors import DirectoryRefused, NotFound, ServiceCheckFailed, UsageError
from mutauth_twisted.ldap.dn import is_dn, same_dn
from mutauth_twisted.ldap.session import INSUFFICIENT_RIGHTS, LdapSession
from mutauth_twisted.names import fold_ascii
from mutauth_twisted.spn import SPN

SpnCheck = Literal["refuse", "warn", "off"]


@frozen
class Elsewhere:
    """Where a connection point says that the service is.

    :param spn: what it has to prove to be, by what the connection point tells clients.
    """

    host: str
    binding: BindingInformation
    spn: SPN


#: Whether another instance of this service proves itself there; may block.
Answers = Callable[[Elsewhere], bool]


class TakenByAnother(ServiceCheckFailed):
    """The connection point says where another instance is, which runs."""


@frozen
class Checked:
    """What the directory says of a service that may start.

    :param scp: the connection point.
    :param account: the account that runs the service.
    :param spns: the SPNs that clients may ask for.
    :param by_guid: whether the connection point was found by its GUID.
    :param warnings: what is wrong with the SPNs, when that is no reason to stop.
    :param command: what puts the service right, for an administrator.
    """

    scp: ServiceConnectionPoint
    account: Account
    spns: tuple[SPN, ...]
    by_guid: bool
    warnings: tuple[str, ...]
    command: str


def check(
    session: LdapSession,
    catalog: LdapSession,
    service: ServiceName,
    account: str,
    *,
    guid: UUID | None,
    spn_check: SpnCheck = "refuse",
    state: Sequence[str] = (),
) -> Checked:
    """Find a service's connection point and check its SPNs; blocks and changes nothing.

    :param session: a domain controller, with the service account's tickets.
    :param catalog: a global catalog, to say who holds an SPN that is not ours.
    :param service: as it was given to ``mutauth install``.
    :param account: who runs the service: sAMAccountName, UPN or DN.
    :param guid: the connection point's GUID; None: it is looked for by its place.
    :param spn_check: what to do about an SPN that is missing or on another account.
    :param state: the options of ``mutauth install`` that say where the GUID is cached.
    :raises NotFound: when the connection point or the account is not there; the
        remedy is the command for an administrator.
    :raises ServiceCheckFailed: when an SPN is missing, likewise.
    """

    def command_for(service: ServiceName) -> str:
        return session.options.command(*service.install_words(account), *state)

    place: str | None = None
    mended = f"run {command_for(service)}"
    try:
        place = scp_dn(session, service)
    except (NotFound, UsageError) as error:
        if guid is None:  # a service that is found by its GUID may have lost its place
            raise
        mended = error.remedy  # what the installation would say next
    where = guid or place
    assert where is not None, "without a GUID the place is known"
    try:
        point = read_scp(session, where)
    except NotFound as error:
        raise NotFound(error.subject, error.cause, mended) from error
    # Run as it was, the installation would make a second object where the first one had been.
    is_moved = place is None or not same_dn(place, point.dn)
    command = command_for(service.at(point.dn) if is_moved else service)
    _check_class(point, service.service_class)
    holder = find_account(session, account)
    spns = point.spns_of(service)
    failures = [] if spn_check == "off" else check_spns(catalog, point.dn, holder, spns, command)
    if failures and spn_check == "refuse":
        raise failures[0]
    return Checked(point, holder, spns, guid is not None, tuple(map(str, failures)), command)


def publish(
    session: LdapSession, checked: Checked, host: str, binding: BindingInformation, answers: Answers
) -> list[str]:
    """Make a checked service's connection point say where it is; blocks.

    An SCP whose hosts are in DNS is left alone: nothing of one host is in it.

    :param answers: asked about what it says instead; nobody publishes over an instance that runs.
    :return: the attributes that had to be written.
    :raises TakenByAnother: when another instance runs where it points to.
    :raises ServiceCheckFailed: without the right to write them; the remedy is
        the command for an administrator.
    """
    try:
        point = read_scp(session, checked.scp.guid)
        if point.dns_name_type == "SRV":
            return []
        _check_free(point, host, binding, answers)
        return update_binding(session, point, host, binding)
    except DirectoryRefused as error:
        if error.code != INSUFFICIENT_RIGHTS:
            raise
        raise ServiceCheckFailed(
            f"SCP {checked.scp.dn}",
            f"{checked.account.name} may not write serviceDNSName and serviceBindingInformation of "
            "it",
            f"run {checked.command}",
        ) from error


def _check_free(
    point: ServiceConnectionPoint, host: str, binding: BindingInformation, answers: Answers
) -> None:
    name = point.dns_name or host
    try:
        theirs = BindingInformation.parse(point.binding_text or "")
        spn = point.spn(theirs.spn_form if theirs.spn_form in SPN_FORMS else "dn", name)
    except UsageError:  # no client gets there either
        return
    is_ours = (fold_ascii(name), theirs.port) == (fold_ascii(host), binding.port)
    if not is_ours and answers(Elsewhere(name, theirs, spn)):
        raise TakenByAnother(
            f"SCP {point.dn}",
            f"it points to {name} {theirs.port}, where another instance runs, and not to {host} "
            f"{binding.port}",
            "give each instance an SCP of its own: --scp-name, for mutauth install too; or stop "
            "that one",
        )


def inspect(
    session: LdapSession,
    checked: Checked,
    host: str,
    binding: BindingInformation | None,
    answers: Answers,
) -> tuple[list[str], list[str]]:
    """What has become wrong with a running service's connection point; what of it we may mend is
    mended; blocks.

    :param checked: from a :func:`check` just now, with ``spn_check`` at ``warn``.
    :param binding: what the service has published; None: it publishes nothing.
    :param answers: as for :func:`publish`.
    :return: what is wrong, and what was wrong and is right again, a line each.
    """
    wrong = list(checked.warnings)
    point = checked.scp
    if binding is None or point.dns_name_type == "SRV":
        return wrong, []
    subject = f"SCP {point.dn}"
    if not may_write(session, point.guid, ("serviceDNSName", "serviceBindingInformation")):
        cause = (
            f"{checked.account.name} may not write serviceDNSName and serviceBindingInformation of "
            "it any more"
        )
        wrong.append(str(ServiceCheckFailed(subject, cause, f"run {checked.command}")))
    said = f"{point.dns_name} {point.binding_text or '(no port)'}"
    if fold_ascii(point.dns_name or "") == fold_ascii(host) and point.binding_text == str(binding):
        return wrong, []
    overwritten = f"{subject}: it said {said} instead of {host} {binding}"
    try:
        publish(session, checked, host, binding, answers)
    except TakenByAnother as error:
        return [*wrong, str(error)], []
    except ServiceCheckFailed as error:
        return [*wrong, f"{overwritten}; {error.remedy}"], []
    return wrong, [f"{overwritten}; published again"]


def may_write(session: LdapSession, name: str | UUID, attributes: Sequence[str]) -> bool:
    """Whether we ourselves may write these attributes of an object.

    The domain controller answers by its own rules (allowedAttributesEffective,
    MS-ADTS 3.1.1.4.5.20), so the right may have come from anywhere.
    """
    allowed = session.read(name, ["allowedAttributesEffective"]).texts("allowedAttributesEffective")
    return {attribute.casefold() for attribute in attributes} <= {
        attribute.casefold() for attribute in allowed
    }


def _check_class(point: ServiceConnectionPoint, service_class: str) -> None:
    if fold_ascii(point.service_class or service_class) != fold_ascii(service_class):
        raise ServiceCheckFailed(
            f"SCP {point.dn}",
            f"it is of service class {point.service_class}, not {service_class}",
            "name the service's own SCP with --scp-name, or its class with --service-class",
        )


def check_spns(
    catalog: LdapSession,
    dn: str,
    account: Account,
    spns: Sequence[SPN],
    command: str,
) -> list[ServiceCheckFailed]:
    """What is wrong with the SPNs of a service; none when all stand on its account and nowhere
    else.

    :param dn: where the service's object is now.
    :param command: the remedy.
    """
    failures = []
    for spn in spns:
        others = [
            other for other in find_holders(catalog, spn) if not same_dn(other.dn, account.dn)
        ]
        if others:
            failures.append(_on_another(catalog, spn, account, others))
        elif not account.holds(spn):
            failures.append(
                ServiceCheckFailed(f"SPN {spn}", _why_missing(spn, dn, account), f"run {command}")
            )
    return failures


def _on_another(
    catalog: LdapSession, spn: SPN, account: Account, others: Sequence[Account]
) -> ServiceCheckFailed:
    names = ", ".join(f"{other.name} ({other.dn})" for other in others)
    where = "also on" if account.holds(spn) else "on"
    commands = " and ".join(spn_command(catalog, "delete", other, spn) for other in others)
    return ServiceCheckFailed(
        f"SPN {spn}",
        f"it is {where} {names}, and this service runs as {account.name}",
        f"run the service under that account, or remove the SPN: {commands}",
    )


def _why_missing(spn: SPN, dn: str, account: Account) -> str:
    cause = f"it is not on account {account.name}, under which the service runs"
    for text in account.spns:
        try:
            other = SPN.parse(text)
        except UsageError:
            continue
        if fold_ascii(other.service_class) != fold_ascii(spn.service_class):
            continue
        same_host = fold_ascii(other.host) == fold_ascii(spn.host)
        if not same_host and other.service_name == spn.service_name:
            return f"{cause}: the host was renamed, it was {other.host}"
        is_dn_form = spn.service_name == dn
        if same_host and is_dn_form and other.service_name and is_dn(other.service_name):
            return f"{cause}: the SCP was moved, it was {other.service_name}"
    return cause
