"""Remove what install made: the SPNs, the service connection point, the cached GUID."""

from __future__ import annotations

from typing import Any

import click

from mutauth_twisted.admin import installation
from mutauth_twisted.cli.directory import (
    directory_options,
    in_directory,
    service_of,
    service_options,
)
from mutauth_twisted.cli.options import options
from mutauth_twisted.cli.output import json_option, steps
from mutauth_twisted.directory.done import Done
from mutauth_twisted.directory.guidcache import GuidCache
from mutauth_twisted.ldap.session import LdapSession


@click.command()
@options("service-class", required=True)
@service_options
@options(
    "account", help="Remove the SPNs from this account only (from every account that holds them)."
)
@json_option
@directory_options
def uninstall(state_dir: str, account: str | None, **given: Any) -> None:
    """Remove what install made: the SPNs, the service connection point, the cached GUID."""
    service, cache = service_of(given), GuidCache(state_dir)
    cached = cache.read(service)

    with steps() as (report, end):

        def work(session: LdapSession, catalog: LdapSession) -> list[Done]:
            return installation.uninstall(
                session,
                catalog,
                service,
                account,
                guid=cached.guid if cached else None,
                report=report,
            )

        removed = in_directory(
            given, lambda directory: directory.run_with_catalog(work), writes=True, whole=True
        )
        if cache.remove(service):
            report(Done("removed", "file", str(cache.path(service))))
        elif not removed:
            end(f"nothing of {service.service_class} on {service.host} was there")
