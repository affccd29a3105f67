"""Prepare the directory for a service (an administrator's step)."""

from __future__ import annotations

from typing import Any

import click

from mutauth_twisted.admin import installation
from mutauth_twisted.admin.undo import Undo
from mutauth_twisted.cli.directory import (
    directory_options,
    in_directory,
    service_of,
    service_options,
)
from mutauth_twisted.cli.options import options
from mutauth_twisted.cli.output import json_option, note, steps, tell
from mutauth_twisted.cli.reactor import begin_logging
from mutauth_twisted.directory.accountkeys import account_warnings
from mutauth_twisted.directory.done import Done
from mutauth_twisted.directory.guidcache import GuidCache
from mutauth_twisted.directory.scp import client_strings
from mutauth_twisted.ldap.session import LdapSession


@click.command()
@options("service-class", required=True)
@service_options
@options("account", required=True, help="The account that runs the service: name, UPN or DN.")
@click.option(
    "--keyword",
    "keywords",
    multiple=True,
    help="Keyword by which clients find it, with class=; repeatable (the service class).",
)
@json_option
@directory_options
def install(state_dir: str, account: str, keywords: tuple[str, ...], **given: Any) -> None:
    """Prepare the directory for a service (an administrator's step).

    Creates the service connection point, lets the account keep it up to date,
    registers the SPNs on the account, and caches the object's GUID for the
    service.  What is there already stays; when anything fails, what was done
    is undone.
    """
    begin_logging(verbose=False)
    service, cache = service_of(given), GuidCache(state_dir)

    def work(session: LdapSession, catalog: LdapSession, undo: Undo) -> installation.Installation:
        return installation.install(
            session,
            catalog,
            service,
            account,
            keywords=keywords,
            finish=lambda done: cache.write(service, done.guid, done.dn),
            undo=undo,
        )

    with steps() as (report, end):
        done = in_directory(
            given,
            lambda directory: installation.all_or_nothing(directory, work, report),
            writes=True,
            whole=True,
        )
        report(Done("cached", "GUID", str(done.guid), detail=f"in {cache.path(service)}"))
        for warning in account_warnings(done.account):
            tell(warning)
        strings = client_strings(done.scp)
        end(
            f"{service.service_class} on {service.host} is ready to run as {done.account.name}",
            *([f"clients connect with {' or '.join(strings)}"] if strings else []),
            dn=done.dn,
            guid=str(done.guid),
            account=done.account.name,
            spns=[str(spn) for spn in done.spns],
            endpoints=strings,
        )
    if service.service_class.casefold() not in map(str.casefold, done.scp.keywords):
        needed = f"class={service.service_class}"
        note(f"the service class is not among the keywords: clients need {needed}; see --keyword")
