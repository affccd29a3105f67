"""List, find and fix service connection points."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

import click

from mutauth_twisted.admin import scpadmin
from mutauth_twisted.admin.scpadmin import Grant, ScpReport
from mutauth_twisted.cli.directory import directory_options, in_directory
from mutauth_twisted.cli.group import OneLineGroup
from mutauth_twisted.cli.options import options
from mutauth_twisted.cli.output import json_option, note, result, rows, tell
from mutauth_twisted.directory.binding import BindingError
from mutauth_twisted.directory.scp import ServiceConnectionPoint, client_strings, list_scps
from mutauth_twisted.errors import UsageError
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.dn import domain_of
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.names import fold_ascii

T = TypeVar("T")
#: Work with a domain controller of the object's own domain, a global catalog, and the object's DN
#: or GUID.
Work = Callable[[LdapSession, LdapSession, str | UUID], T]


@click.group(cls=OneLineGroup)
def scp() -> None:
    """List, find and fix service connection points.

    NAME is an object's DN or GUID.
    """


def _at_home(given: dict[str, Any], name: str, work: Work[T]) -> T:
    async def run(directory: Directory) -> T:
        where, domain = await scpadmin.find_home(directory, name)
        return await directory.run_with_catalog(
            lambda session, catalog: work(session, catalog, where), domain=domain
        )

    return in_directory(given, run, writes=True, whole=True)


@scp.command("list")
@options("base")
@json_option
@directory_options
def list_points(base: str | None, **given: Any) -> None:
    """List the service connection points of the domain, or below --base."""
    domain = domain_of(base) if base else None
    found = in_directory(
        given,
        lambda directory: directory.run(
            lambda session: list(list_scps(session, base)), domain=domain
        ),
    )
    _print_points(found)
    if not found:
        note(f"there is no service connection point {f'below {base}' if base else 'in the domain'}")


@scp.command()
@click.argument("keyword")
@options("service-class", help="Only those whose service class is this one (any).")
@options("base")
@json_option
@directory_options
def find(keyword: str, service_class: str | None, base: str | None, **given: Any) -> None:
    """Find service connection points by keyword, in the whole forest; exit code 1: there is none.

    What is listed is not authenticated: any computer may publish any keyword.
    Clients of mutauth:scp=KEYWORD believe services of the class KEYWORD only;
    those of mutauth:keyword=KEYWORD:class=CLASS of that class only.
    """
    found = in_directory(given, lambda directory: scpadmin.find_in_forest(directory, keyword, base))
    if service_class is not None:
        wanted = fold_ascii(service_class)
        found = [point for point in found if fold_ascii(point.service_class or "") == wanted]
    _print_points(found)
    if not found:
        of_class = f" and is of service class {service_class}" if service_class is not None else ""
        note(f"no service connection point has the keyword {keyword}{of_class}")
        sys.exit(1)


@scp.command()
@click.argument("name")
@click.option(
    "--account",
    "accounts",
    multiple=True,
    help="Account that must run it; repeatable (those that hold its SPNs).",
)
@options("spn-form", default=None, help="SPNs that must be registered: guid, dn, host (any).")
@json_option
@directory_options
def show(
    name: str,
    accounts: tuple[str, ...],
    spn_form: tuple[str, ...] | None,
    **given: Any,
) -> None:
    """Show one with its rights and SPNs; exit code 1: something is wrong with it."""
    found = _at_home(
        given,
        name,
        lambda session, catalog, where: scpadmin.inspect(
            session, catalog, where, accounts=accounts, spn_forms=spn_form or ()
        ),
    )
    rows(_report_json(found), ("what", "value"), _report_rows(found))
    for problem in found.problems:
        tell(problem)
    sys.exit(1 if found.problems else 0)


@scp.command()
@click.argument("name")
@options("host", default=None, help="The host.")
@click.option(
    "--srv",
    metavar="RECORD",
    help="A DNS SRV record that names the hosts, such as _echo._tcp.example.com.",
)
@options("port", "priority", "weight", "wire", "protection", default=None, show_default=False)
@click.option(
    "--spn-form", type=click.Choice(("guid", "dn", "host")), help="The SPN that clients ask for."
)
@json_option
@directory_options
def publish(
    name: str,
    host: str | None,
    srv: str | None,
    port: int | None,
    priority: int | None,
    weight: int | None,
    wire: str | None,
    protection: str | None,
    spn_form: str | None,
    **given: Any,
) -> None:
    """Change by hand what one publishes; the rest of it stays as it is.

    A service that publishes for itself (--publish scp) overwrites it at its
    next start.
    """
    published = {
        "port": port,
        "priority": priority,
        "weight": weight,
        "wire": wire,
        "protection": protection,
        "spn_form": spn_form,
    }
    changes = {field: value for field, value in published.items() if value is not None}
    if host and srv:
        raise UsageError(f"SCP {name}", "it has one serviceDNSName", "use either --host or --srv")
    if not (changes or host or srv):
        raise UsageError(
            f"SCP {name}", "there is nothing to change", "see mutauth scp publish --help"
        )
    point, written = _at_home(
        given,
        name,
        lambda session, catalog, where: scpadmin.set_published(
            session, where, host=host, srv=srv, changes=changes
        ),
    )
    lines = [f"wrote {attribute} of {point.dn}" for attribute in written]
    nothing = f"{point.dn} publishes that already"
    result({**_point_json(point), "written": written}, *(lines or [nothing]))


@scp.command()
@click.argument("name")
@click.option(
    "--leave-spns", is_flag=True, help="Remove it even if SPNs carry its GUID or DN; keep these."
)
@json_option
@directory_options
def remove(name: str, leave_spns: bool, **given: Any) -> None:
    """Delete one that no SPN carries; mutauth uninstall removes SPNs and all."""
    point = _at_home(
        given,
        name,
        lambda session, catalog, where: scpadmin.remove(
            session, catalog, where, leave_spns=leave_spns
        ),
    )
    result(_point_json(point), f"deleted SCP {point.dn}")


def _print_points(points: Sequence[ServiceConnectionPoint]) -> None:
    points = sorted(
        points, key=lambda point: ((point.service_class or "").casefold(), point.dn.casefold())
    )
    cells = [
        (
            point.service_class or "-",
            point.dns_name or "-",
            point.binding_text or "-",
            " ".join(point.keywords),
            str(point.guid),
            point.dn,
        )
        for point in points
    ]
    titles = ("class", "host", "binding", "keywords", "guid", "dn")
    rows(list(map(_point_json, points)), titles, cells)


def _point_json(point: ServiceConnectionPoint) -> dict[str, Any]:
    return {
        "dn": point.dn,
        "guid": str(point.guid),
        "class": point.service_class,
        "dns_name": point.dns_name,
        "dns_name_type": point.dns_name_type,
        "keywords": point.keywords,
        "binding": point.binding_text,
        "published": _binding_json(point),
    }


def _binding_json(point: ServiceConnectionPoint) -> dict[str, Any] | None:
    try:
        binding = point.binding
    except BindingError:
        return None
    if binding is None:
        return None
    return {
        "port": binding.port,
        "priority": binding.priority,
        "weight": binding.weight,
        "wire": binding.wire,
        "protection": binding.protection,
        "spn_form": binding.spn_form,
        "extra": dict(binding.extra),
    }


def _report_json(found: ScpReport) -> dict[str, Any]:
    grants = (
        None
        if found.grants is None
        else [
            {
                "sid": grant.sid,
                "account": grant.holder and grant.holder.name,
                "complete": grant.complete,
            }
            for grant in found.grants
        ]
    )
    return {
        **_point_json(found.scp),
        "grants": grants,
        "spns": [
            {"spn": str(spn), "account": holder.name, "dn": holder.dn} for holder, spn in found.spns
        ],
        "endpoints": client_strings(found.scp),
        "advertised_spn": str(found.advertised) if found.advertised else None,
        "stale_spns": [
            {"spn": text, "account": holder.name, "dn": holder.dn} for holder, text in found.stale
        ],
        "problems": [problem.as_json() for problem in found.problems],
    }


def _report_rows(found: ScpReport) -> list[tuple[str, str]]:
    point = found.scp
    cells = [
        ("dn", point.dn),
        ("guid", str(point.guid)),
        ("class", point.service_class or "-"),
        ("host" if point.dns_name_type != "SRV" else "SRV record", point.dns_name or "-"),
        *(("keyword", keyword) for keyword in point.keywords),
        ("binding", point.binding_text or "-"),
    ]
    published = _binding_json(point) or {"extra": {}}
    others = published.pop("extra")
    cells += [(f"  {key}", str(value)) for key, value in published.items()]
    cells += [(f"  unknown {key}", value) for key, value in others.items()]
    if found.grants is None:
        cells.append(("may update", "this account may not read the rights"))
    cells += [("may update", _grant_text(grant)) for grant in found.grants or ()]
    cells += [("clients connect with", text) for text in client_strings(point)]
    if found.advertised is not None:
        cells.append(("clients ask for", str(found.advertised)))
    cells += [("SPN", f"{spn} on {holder.name}") for holder, spn in found.spns]
    cells += [("stale SPN", f"{text} on {holder.name}") for holder, text in found.stale]
    return cells


def _grant_text(grant: Grant) -> str:
    return grant.name if grant.complete else f"{grant.name}, but one of the two attributes only"
