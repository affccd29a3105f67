"""Privileges of root: used first, and then given up for good.

A process that was started as root binds its ports and reads its keys, becomes the user that it
is to run as, and stays that user: no part of it remains root.  So a key file that this user may not
read is copied into memory once, and stays as it was at the start.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from attrs import evolve, frozen

from mutauth_twisted.errors import CredentialError, UsageError
from mutauth_twisted.files import MOST, OPEN_FILE, memory_file
from mutauth_twisted.findings import Finding
from mutauth_twisted.kerberos.keytab import keytab_file
from mutauth_twisted.log import Log
from mutauth_twisted.settings.process import ProcessSettings
from mutauth_twisted.settings.service import Settings

_log = Log()


@frozen
class Copy:
    """A key file that was read when the process started, and is not read again.

    :param path: the file.
    :param descriptor: its copy in memory.
    :param state: what tells whether another file has come to its place.
    """

    path: str
    descriptor: int
    state: tuple[int, ...] | None

    @property
    def name(self) -> str:
        """The copy's path, for this process and those that inherit it."""
        return OPEN_FILE.format(self.descriptor)

    @property
    def finding(self) -> Finding:
        """The state of the copy."""
        is_replaced = self.state != _state(self.path)
        cause = "it was read at the start, as this user may not read it"
        if is_replaced:
            cause = "it has been replaced since it was read at the start"
        remedy = "let the service's user read it, or restart the service when its keys change"
        return Finding("keys-copied", f"key file {self.path}", cause, remedy)


def shed(settings: ProcessSettings) -> tuple[ProcessSettings, tuple[Copy, ...]]:
    """Become the user that the settings name, and keep the keys.

    :return: the settings, in which keys that this user may not read are their copies.
    :raises UsageError: when there is no such user or group, or this process is not root.
    :raises CredentialError: when root cannot read a key either.
    """
    _tell_of_credentials(settings)
    if settings.user is None:
        return settings, ()
    account, group = find_user(settings.user)
    if os.getuid() == account.pw_uid and os.geteuid() == account.pw_uid:
        return settings, ()  # as under a service manager that has done it
    if os.geteuid() != 0:
        subject = f"user {settings.user}"
        raise UsageError(subject, "only root can become another user", "start it as root")
    with ExitStack() as opened:
        files = {path: _open(path, opened) for path in dict.fromkeys(_key_files(settings))}
        _become(account, group)
        copies = {
            path: _copy(path, descriptor)
            for path, descriptor in files.items()
            if not os.access(path, os.R_OK)
        }
    return with_copies(settings, copies), tuple(copies.values())


def find_user(user: str) -> tuple[pwd.struct_passwd, int]:
    """The account and the number of the group that a process may become.

    :param user: ``NAME`` or ``NAME:GROUP``.
    :raises UsageError: when there is no such user or group, or it is root.
    """
    name, _, group = user.partition(":")
    try:
        account = pwd.getpwnam(name)
        number = grp.getgrnam(group).gr_gid if group else account.pw_gid
    except KeyError as error:
        cause = "there is no such user" if name in str(error) else "there is no such group"
        raise UsageError(f"user {user}", cause, "name one of this machine's") from None
    if not account.pw_uid:
        raise UsageError(f"user {user}", "it is root", "name a user without privileges")
    return account, number


def _become(account: pwd.struct_passwd, group: int) -> None:
    os.initgroups(account.pw_name, group)
    os.setresgid(group, group, group)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    os.environ.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name)
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise RuntimeError("the process could still become root")


def _key_files(settings: ProcessSettings) -> Iterator[str]:
    for service in settings.services:
        if "keytab" in service.package_options:
            yield keytab_file(service.keytab)
        if service.tls_files is not None:
            yield from filter(None, service.tls_files)


def _tell_of_credentials(settings: ProcessSettings) -> None:
    """Say which keys are systemd's copies (LoadCredential=, systemd.exec(5)), made at the start."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    for path in _key_files(settings) if directory else ():
        if os.path.dirname(path) == directory:
            text = "key file {path}: systemd's copy; restart the service when its keys change"
            _log.info(text, path=path)


def _open(path: str, opened: ExitStack) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        cause = f"it cannot be read: {(error.strerror or '').lower()}"
        remedy = "name the file with the service's keys"
        raise CredentialError(f"key file {path}", cause, remedy, code="keytab-unusable") from error
    opened.callback(os.close, descriptor)
    return descriptor


def _copy(path: str, descriptor: int) -> Copy:
    """Copy a file that is open and that this user could not open."""
    with open(descriptor, "rb", closefd=False) as file:
        content = file.read(MOST + 1)
    if len(content) > MOST:
        cause, remedy = f"it has more than {MOST} bytes", "name the file with the service's keys"
        raise CredentialError(f"key file {path}", cause, remedy, code="keytab-unusable")
    return Copy(path, memory_file(os.path.basename(path), content), _state(path))


def _state(path: str) -> tuple[int, ...] | None:
    """Inode and time of a file; None where its directory is closed to this user."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def still_needed(copies: Iterable[Copy]) -> dict[str, Copy]:
    """The copies of keys that this user may still not read, by their files.

    :param copies: those of the start.
    """
    return {each.path: each for each in copies if not os.access(each.path, os.R_OK)}


def with_copies(settings: ProcessSettings, copies: Mapping[str, Copy]) -> ProcessSettings:
    """Settings in which the copies stand for the files."""
    return evolve(
        settings, services=tuple(_with_copies(each, copies) for each in settings.services)
    )


def _with_copies(service: Settings, copies: Mapping[str, Copy]) -> Settings:
    changes: dict[str, Any] = {}
    if "keytab" in service.package_options and (path := keytab_file(service.keytab)) in copies:
        changes["keytab"] = name = copies[path].name
        changes["package_options"] = {**service.package_options, "keytab": name}
    if service.tls_files is not None:
        certificate, key = service.tls_files
        changes["tls_files"] = _name(certificate, copies), key and _name(key, copies)
    return evolve(service, **changes)


def _name(path: str, copies: Mapping[str, Copy]) -> str:
    return copies[path].name if path in copies else path
