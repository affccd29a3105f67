"""List, publish and remove RnR services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from mutauth_twisted.cli.directory import directory_options, in_directory
from mutauth_twisted.cli.group import OneLineGroup
from mutauth_twisted.cli.options import options
from mutauth_twisted.cli.output import json_option, note, rows, steps, tell
from mutauth_twisted.directory import rnr as services
from mutauth_twisted.directory.accountkeys import account_warnings
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.done import Done
from mutauth_twisted.directory.rnr import Address, ServiceInstance
from mutauth_twisted.directory.spns import (
    add_spns,
    check_free,
    find_account,
    find_holders,
    remove_spns,
)
from mutauth_twisted.ldap.session import LdapSession

T = TypeVar("T")


@click.group(cls=OneLineGroup)
def rnr() -> None:
    """List, publish and remove RnR services.

    They are in CN=WinsockServices,CN=System of the domain, where only
    administrators write.  NAME is a service's common name or DN.
    """


def _do(given: dict[str, Any], work: Callable[[LdapSession, LdapSession], T]) -> T:
    return in_directory(
        given, lambda directory: directory.run_with_catalog(work), writes=True, whole=True
    )


@rnr.command("list")
@json_option
@directory_options
def list_services(**given: Any) -> None:
    """List the RnR services of the domain."""
    found = _do(given, lambda session, catalog: services.list_instances(session))
    cells = [
        (each.name, each.service_class or "", address.host, str(address.binding))
        for each in found
        for address in each.addresses
    ]
    silent = [(each.name, each.service_class or "", "", "") for each in found if not each.addresses]
    rows(list(map(_as_json, found)), ("name", "class", "host", "binding"), cells + silent)
    for each in found:
        if each.foreign:
            note(
                f"{each.name} has {each.foreign} address(es) in an encoding that is not known here"
            )
    if not found:
        note("the domain has no RnR service")


def _as_json(found: ServiceInstance) -> dict[str, Any]:
    return {
        "name": found.name,
        "dn": found.dn,
        "guid": str(found.guid),
        "class": found.service_class,
        "addresses": [
            {"host": each.host, "binding": str(each.binding)} for each in found.addresses
        ],
        "foreign_addresses": found.foreign,
    }


@rnr.command()
@click.argument("name")
@options("service-class", required=True)
@options("host")
@options("port", help="Port that the service listens on (it publishes that itself).")
@options("priority", "weight")
@options("account", help="Also register the SPN, which clients require, on this account.")
@json_option
@directory_options
def publish(
    name: str,
    service_class: str,
    host: str,
    port: int | None,
    priority: int,
    weight: int,
    account: str | None,
    **given: Any,
) -> None:
    """Publish where a host offers a service (an administrator's step).

    What is missing of the service is created.  Addresses of other hosts stay.
    """
    addresses = (
        [Address(host, BindingInformation(port, priority, weight))] if port is not None else []
    )

    with steps() as (report, end):

        def work(session: LdapSession, catalog: LdapSession) -> ServiceInstance:
            holder = find_account(session, account) if account else None
            spn = services.spn_of(session, name, service_class, host)
            if holder is not None:
                check_free(catalog, [spn], holder)
            instance = services.publish(session, name, service_class, addresses, report)
            if holder is not None and add_spns(session, holder, [spn]):
                report(Done("added", "SPN", str(spn), holder))
            for warning in account_warnings(holder) if holder is not None else ():
                tell(warning)
            return instance

        instance = _do(given, work)
        hosts = ", ".join(each.host for each in instance.addresses)
        end(f"{instance.name} is offered by {hosts or 'no host yet'}", **_as_json(instance))


@rnr.command()
@click.argument("name")
@click.option("--leave-spns", is_flag=True, help="Keep the SPNs with its DN on their accounts.")
@json_option
@directory_options
def remove(name: str, leave_spns: bool, **given: Any) -> None:
    """Remove a service, the SPNs that name it, and its class when nothing else is of it."""

    with steps() as (report, _):

        def work(session: LdapSession, catalog: LdapSession) -> None:
            instance = services.read_instance(session, name)
            if instance.service_class and not leave_spns:
                for spn in (instance.spn(each.host) for each in instance.addresses):
                    for holder in find_holders(catalog, spn):
                        for removed in remove_spns(session, holder, [spn]):
                            report(Done("removed", "SPN", str(removed), holder))
            services.remove(session, instance.dn, report)

        _do(given, work)
