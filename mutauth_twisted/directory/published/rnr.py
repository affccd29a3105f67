"""What a service checks and publishes as an RnR service, as :mod:`.startup` does for connection
points.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from mutauth_twisted.directory.published.scp import SpnCheck, check_spns
from mutauth_twisted.directory.rnr import (
    Address,
    ServiceInstance,
    check_class,
    read_instance,
    update_address,
)
from mutauth_twisted.directory.servicename import ServiceName
from mutauth_twisted.directory.spns import Account, find_account
from mutauth_twisted.errors import DirectoryRefused, NotFound, ServiceCheckFailed
from mutauth_twisted.ldap.session import INSUFFICIENT_RIGHTS, LdapSession
from mutauth_twisted.spn import SPN


@frozen
class CheckedRnr:
    """What the directory says of a service that may start.

    :param instance: the RnR service.
    :param account: the account that runs the service.
    :param spn: what clients ask for.
    :param warnings: what is wrong with the SPN, when that is no reason to stop.
    :param command: what puts the service right, for an administrator, given the port.
    """

    instance: ServiceInstance
    account: Account
    spn: SPN
    warnings: tuple[str, ...]
    command: Callable[[int | None], str]


def check(
    session: LdapSession,
    catalog: LdapSession,
    service: ServiceName,
    account: str,
    *,
    name: str,
    spn_check: SpnCheck = "refuse",
    port: int | None = None,
) -> CheckedRnr:
    """Find an RnR service and check its SPN; blocks and changes nothing.

    :param name: its name or DN.
    :param port: where it is going to listen; None: nobody knows yet.
    :raises NotFound: when the service or the account is not there; the remedy
        is the command for an administrator.
    :raises ServiceCheckFailed: when the SPN is missing, likewise.
    """

    def command(port: int | None) -> str:
        words = service.publish_words(name, port=port, account=account)
        return session.options.command(*words)

    try:
        instance = read_instance(session, name)
    except NotFound as error:
        raise NotFound(error.subject, error.cause, f"run {command(port)}") from error
    check_class(session, instance, service.service_class)
    holder = find_account(session, account)
    spn = instance.spn(service.host, service.service_class)
    failures = (
        [] if spn_check == "off" else check_spns(catalog, instance.dn, holder, [spn], command(port))
    )
    if failures and spn_check == "refuse":
        raise failures[0]
    return CheckedRnr(instance, holder, spn, tuple(map(str, failures)), command)


def publish(session: LdapSession, checked: CheckedRnr, address: Address) -> bool:
    """Make the RnR service say where we are; blocks.

    :return: whether anything had to be written; without the right, what an
        administrator has published is enough.
    :raises ServiceCheckFailed: without the right to write what is not there;
        the remedy is the command for an administrator.
    """
    try:
        return update_address(session, read_instance(session, checked.instance.dn), address)
    except DirectoryRefused as error:
        if error.code != INSUFFICIENT_RIGHTS:
            raise
        raise ServiceCheckFailed(
            f"RnR service {checked.instance.dn}",
            f"it does not say {address.host} {address.binding}, and {checked.account.name} may not "
            "write winsockAddresses",
            f"run {checked.command(address.binding.port)}, and listen on a fixed port; or delegate "
            "the right",
        ) from error


def inspect(
    session: LdapSession, checked: CheckedRnr, address: Address | None
) -> tuple[list[str], list[str]]:
    """What has become wrong with a running service; what of it we may mend is mended; blocks.

    :param address: what the service has published; None: it publishes nothing.
    :return: what is wrong, and what was wrong and is right again, a line each.
    """
    wrong = list(checked.warnings)
    if address is None or address in checked.instance.addresses:
        return wrong, []
    try:
        publish(session, checked, address)
    except ServiceCheckFailed as error:
        return [*wrong, str(error)], []
    return wrong, [
        f"RnR service {checked.instance.dn}: it did not say {address.host} {address.binding}; "
        "published again"
    ]
