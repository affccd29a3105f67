"""List, find and write the service principal names of accounts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from mutauth_twisted.admin import spnadmin
from mutauth_twisted.admin.duplicates import Duplicate, find_duplicates
from mutauth_twisted.admin.spnadmin import Written
from mutauth_twisted.cli.directory import directory_of, directory_options, in_directory
from mutauth_twisted.cli.group import OneLineGroup
from mutauth_twisted.cli.output import json_option, note, progress_bar, result, rows, tell
from mutauth_twisted.directory.spns import Account, find_account
from mutauth_twisted.errors import UsageError
from mutauth_twisted.spn import SPN


@click.group(cls=OneLineGroup)
def spn() -> None:
    """List, find and write the service principal names of accounts.

    ACCOUNT is a sAMAccountName, a UPN or a DN.  An SPN is
    class/host[:port][/name]; case does not count.
    """


@spn.command("list")
@click.argument("accounts", metavar="ACCOUNT...", nargs=-1, required=True)
@json_option
@directory_options
def list_spns(accounts: tuple[str, ...], **given: Any) -> None:
    """List the SPNs registered on accounts."""
    found: list[Account] = in_directory(
        given,
        lambda directory: directory.run(
            lambda session: [find_account(session, name) for name in accounts]
        ),
    )
    spns = {account.dn: sorted(account.spns, key=str.casefold) for account in found}
    rows(
        [{**_account_json(account), "spns": spns[account.dn]} for account in found],
        ("account", "spn"),
        [(account.name, text) for account in found for text in spns[account.dn]],
    )
    for account in found:
        if not account.spns:
            note(f"{account.name} has no SPN")


@spn.command()
@click.argument("patterns", metavar="PATTERN...", nargs=-1, required=True)
@json_option
@directory_options
def query(patterns: tuple[str, ...], **given: Any) -> None:
    """Find the holders of SPNs, in the whole forest; exit code 1: there are none.

    In a PATTERN * stands for any text, as in 'HTTP/*.example.com'.
    """
    if not all(patterns):
        raise UsageError("pattern ''", "it is empty", "write '*' for every SPN")
    found: list[tuple[Account, str]] = in_directory(
        given,
        lambda directory: directory.run(
            lambda catalog: [
                each for pattern in patterns for each in spnadmin.query(catalog, pattern)
            ],
            global_catalog=True,
        ),
    )
    found.sort(key=lambda each: (each[1].casefold(), each[0].dn))
    rows(
        [{"spn": text, **_account_json(account)} for account, text in found],
        ("spn", "account", "dn"),
        [(text, account.name, account.dn) for account, text in found],
    )
    if not found:
        note(f"no account in the forest holds {' or '.join(patterns)}")
        sys.exit(1)


_allow_alias = click.option(
    "--allow-alias",
    is_flag=True,
    help="Take over an SPN that another account holds through an alias, such as HTTP for host.",
)


@spn.command()
@click.argument("account")
@click.argument("spns", metavar="SPN...", nargs=-1, required=True)
@_allow_alias
@json_option
@directory_options
def add(account: str, spns: tuple[str, ...], allow_alias: bool, **given: Any) -> None:
    """Add SPNs to an account, unless another one in the forest holds them."""
    _write(spnadmin.add, account, spns, allow_alias, given, "is on {} already")


@spn.command()
@click.argument("account")
@click.argument("spns", metavar="[SPN]...", nargs=-1)
@click.option("--clear", is_flag=True, help="Leave the account without any SPN.")
@_allow_alias
@json_option
@directory_options
def replace(
    account: str,
    spns: tuple[str, ...],
    clear: bool,
    allow_alias: bool,
    **given: Any,
) -> None:
    """Make exactly these SPNs the account's, or none of all with --clear."""
    if clear == bool(spns):
        raise UsageError(
            f"account {account}",
            "it needs either SPNs or --clear",
            "see mutauth spn replace --help",
        )
    _write(spnadmin.replace, account, spns, allow_alias, given, "stays on {}")


@spn.command()
@click.argument("account")
@click.argument("spns", metavar="SPN...", nargs=-1, required=True)
@json_option
@directory_options
def delete(account: str, spns: tuple[str, ...], **given: Any) -> None:
    """Delete SPNs from an account, malformed ones too."""
    written = in_directory(
        given,
        lambda directory: directory.run(lambda session: spnadmin.delete(session, account, spns)),
        writes=True,
    )
    _print_written(written, "is not on {}")


@spn.command()
@json_option
@directory_options
def duplicates(**given: Any) -> None:
    """Find SPNs registered on several accounts, in the whole forest; exit code 1: there are
    some.
    """
    with progress_bar("searching the forest") as progress:
        found: list[Duplicate] = in_directory(
            given,
            lambda directory: directory.run(
                lambda catalog: find_duplicates(catalog, progress), global_catalog=True
            ),
        )
    rows(
        list(map(_duplicate_json, found)),
        ("spn", "account", "dn"),
        [
            (holder.spn, holder.name, holder.dn)
            for duplicate in found
            for holder in duplicate.holders
        ],
    )
    if not found:
        note("no SPN is registered on several accounts")
        return
    remedy = directory_of(given).command("spn", "delete", "ACCOUNT", "SPN")
    note(
        f"{len(found)} SPN(s) are registered on several accounts; delete each from all but one "
        f"with {remedy}"
    )
    sys.exit(1)


def _account_json(account: Account) -> dict[str, str]:
    return {"account": account.name, "dn": account.dn}


def _duplicate_json(duplicate: Duplicate) -> dict[str, Any]:
    holders = [
        {"account": holder.name, "dn": holder.dn, "spn": holder.spn} for holder in duplicate.holders
    ]
    return {"spn": duplicate.spn, "holders": holders}


def _write(
    change: Callable[..., Written],
    account: str,
    spns: tuple[str, ...],
    allow_alias: bool,
    given: dict[str, Any],
    unchanged: str,
) -> None:
    wanted = [SPN.parse(text) for text in spns]
    written = in_directory(
        given,
        lambda directory: directory.run_with_catalog(
            lambda session, catalog: change(
                session, catalog, account, wanted, allow_alias=allow_alias
            )
        ),
        writes=True,
    )
    _print_written(written, unchanged)


def _print_written(written: Written, unchanged: str) -> None:
    """Say what became of the account's SPNs; ``unchanged`` has a place for its name."""
    name = written.account.name
    for warning in written.warnings:
        tell(warning)
    parts = {"added": written.added, "removed": written.removed, "unchanged": written.unchanged}
    result(
        {**_account_json(written.account), **parts},
        *(f"deleted SPN {text} from {name}" for text in written.removed),
        *(f"added SPN {text} to {name}" for text in written.added),
        *(f"SPN {text} {unchanged.format(name)}" for text in written.unchanged),
    )
