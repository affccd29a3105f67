"""Rotate the keys of a service's account."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from twisted.internet.threads import blockingCallFromThread, deferToThread

from mutauth_twisted.admin.keyrotation import (
    LIFETIME,
    Rotated,
    Rotation,
    prune,
)
from mutauth_twisted.cli.directory import directory_of
from mutauth_twisted.cli.group import OneLineGroup
from mutauth_twisted.cli.options import options
from mutauth_twisted.cli.output import json_option, note, result
from mutauth_twisted.cli.reactor import begin_logging, run_in_reactor
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.accountkeys import AccountKeys, read_account_keys
from mutauth_twisted.errors import CredentialError, UsageError
from mutauth_twisted.files import read_file
from mutauth_twisted.kerberos.keytab import keytab_path, keytab_principal
from mutauth_twisted.kerberos.keytabfile import Key, locked
from mutauth_twisted.kerberos.passwords import (
    administrators_change,
    own_change,
    random_password,
)
from mutauth_twisted.ldap.connection import Directory


@click.group(cls=OneLineGroup)
def key() -> None:
    """Rotate the keys of a service's account."""


@key.command()
@click.option("--keytab", metavar="FILE", required=True, help="The service's keytab.")
@click.option(
    "--account", metavar="NAME", help="Whose (the keytab's one entry that is not an SPN)."
)
@click.option(
    "--set",
    "as_administrator",
    is_flag=True,
    help="Set the password as an administrator, with the ticket of --ccache.",
)
@click.option(
    "--password-file",
    metavar="FILE",
    help="Take the new password from this file, or - for standard input (a random one).",
)
@click.option("--add", is_flag=True, help="Only add the new key; --finish does the rest.")
@click.option("--finish", is_flag=True, help="Change the password to that of the key of --add.")
@click.option("--prune", "pruning", is_flag=True, help="Remove old keys once no ticket needs them.")
@click.option(
    "--lifetime",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=LIFETIME,
    show_default=True,
    help="The longest time for which a ticket of the domain is valid.",
)
@json_option
@options("ccache", "directory", "directory-ca", "nameserver", "realm")
def rotate(
    keytab: str,
    account: str | None,
    as_administrator: bool,
    password_file: str | None,
    add: bool,
    finish: bool,
    pruning: bool,
    lifetime: float,
    **given: Any,
) -> None:
    """Give a service's account a new password, and its keytab the new keys.

    The service goes on, and no client is turned away.  The account changes its own
    password, with its key in the keytab; --set does it as an administrator.  A
    rotation that was interrupted is ended, or taken back, by the next one.

    A service that has a copy of the keytab, as by LoadCredential of systemd, is
    restarted between --add and --finish.  Meanwhile the new password is in
    KEYTAB.next, which only the keytab's owner may read.

    With --prune nothing is rotated: keys are removed whose tickets have expired.
    """
    # The file itself: a link to it would be replaced otherwise, and the file keep the old keys.
    path, principal = Path(keytab_path(keytab)).resolve(), keytab_principal(keytab, account)
    if pruning:
        with locked(path):
            removed = prune(path, principal, time.time(), lifetime)
        result({"principal": principal, "removed": removed}, f"{removed} old key(s) removed")
        return
    pending = path.with_name(f"{path.name}.next")
    if finish:
        password = _password_in(str(pending))
    elif pending.exists():
        cause = "a key was added to the keytab, and is not the KDC's yet"
        raise UsageError(str(pending), cause, "run --finish; or remove this file, and start anew")
    else:
        password = random_password() if password_file is None else _password_in(password_file)
    begin_logging(verbose=False)
    where = directory_of({**given})

    async def main(reactor: Any) -> Rotated:
        own = ClientCredentials(principal=principal, keytab=str(path))
        setting = ClientCredentials(ccache=given["ccache"])
        directory = Directory(reactor, where, setting if as_administrator else own)

        def look() -> AccountKeys:
            def read() -> Any:
                return directory.run(lambda session: read_account_keys(session, principal))

            return blockingCallFromThread(reactor, read)  # type: ignore[no-any-return]

        def change(current: Key | None) -> Callable[[str], None]:
            if as_administrator:
                return administrators_change(principal, given["ccache"])
            if current is None:
                cause = "the KDC does not take the account's key in it"
                remedy = "export it again, or have an administrator rotate with --set"
                raise CredentialError(f"keytab {path}", cause, remedy, code="keytab-outdated")
            return own_change(principal, current)

        rotation = Rotation(path, principal, look, change, note)
        with locked(path):
            if add:
                _keep(pending, password, path)
                return Rotated(await deferToThread(rotation.add, password))
            work = rotation.finish if finish else rotation.rotate
            rotated = await deferToThread(work, password)
            pending.unlink(missing_ok=True)
            return rotated

    rotated = run_in_reactor(main, to_the_end=True)
    line = f"{principal} has a new key, version {rotated.version}"
    if add:
        line = (
            f"{path} has a new key, version {rotated.version}; restart the services that have a "
            "copy of it, and then run --finish"
        )
    if rotated.resumed:
        line = f"{line}, of a rotation that was interrupted"
    result({"principal": principal, "version": rotated.version, "resumed": rotated.resumed}, line)


def _keep(pending: Path, password: str, keytab: Path) -> None:
    """Write the new password beside the keytab, for its owner alone.

    :raises UsageError: when that cannot be done.
    """
    try:
        handle = os.open(pending, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(handle, "wb") as file:
            owner = keytab.stat()
            os.fchown(handle, owner.st_uid, owner.st_gid)
            file.write(f"{password}\n".encode())
            file.flush()
            os.fsync(handle)
    except OSError as error:
        cause = f"it cannot be written: {error.strerror}"
        raise UsageError(str(pending), cause, "run this as the keytab's owner") from error


def _password_in(file: str) -> str:
    """The first line of a file.

    :raises UsageError: when there is none, or others may read it.
    """
    try:
        text = (
            sys.stdin.readline()
            if file == "-"
            else read_file(file, private=True).decode().partition("\n")[0]
        )
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UsageError(
            f"--password-file {file}", cause, "give a file that its owner alone may read"
        ) from error
    if not (password := text.rstrip("\r\n")):
        raise UsageError(f"--password-file {file}", "its first line is empty", "write it there")
    return password
