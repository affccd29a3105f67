"""Keytabs: what is in them, whether they can be used, and a service's credentials from one."""

from __future__ import annotations

import errno
import os
import re

import gssapi
import krb5
from attrs import frozen
from gssapi.raw import set_neg_mechs
from gssapi.raw.misc import GSSError

from mutauth_twisted.credentials import ServiceCredentials, exposed
from mutauth_twisted.errors import CredentialError
from mutauth_twisted.files import check_regular, read_file
from mutauth_twisted.kerberos.enctypes import AES_TYPES
from mutauth_twisted.kerberos.errors import AES_FOR_ACCOUNT, explain, kind_name
from mutauth_twisted.kerberos.replaycache import NONE, replay_cache
from mutauth_twisted.log import Log
from mutauth_twisted.names import fold_ascii, split_principal
from mutauth_twisted.text import short_name

_log = Log()

_DRIVE = re.compile(r"[A-Za-z]")  # what libkrb5 takes for one, on every system


def krb5_context() -> krb5.Context:
    """A new context of libkrb5, which reads krb5.conf.

    :raises CredentialError: when that cannot be used.
    """
    try:
        return krb5.init_context()
    except krb5.Krb5Error as error:
        subject = os.environ.get("KRB5_CONFIG", "krb5.conf")
        cause = "it cannot be used: " + str(error).rpartition(" ")[0].lower()
        raise CredentialError(
            subject,
            cause,
            "check that this user may read it, and what KRB5_CONFIG says",
            code="kerberos-failed",
        ) from error


def keytab_path(name: str) -> str:
    """The path of a keytab's file, by the keytab's name as libkrb5 reads it (``krb5_kt_resolve``).

    :param name: a path, or one with its type, ``FILE:`` or ``WRFILE:``.
    :raises CredentialError: when it is of another type, such as ``MEMORY:``, and so no file that
        could be looked at.
    """
    kind, colon, rest = name.partition(":")
    if not colon or name.startswith("/") or _DRIVE.fullmatch(kind):
        return name
    if kind in ("FILE", "WRFILE"):
        return rest
    cause = (
        f"it is of type {short_name(kind)!r}, and a service's or client's keytab has to be a file"
    )
    raise CredentialError(f"keytab {name}", cause, "name one as FILE:PATH", code="keytab-unusable")


@frozen
class KeytabKey:
    """One entry of a keytab, without the key itself."""

    principal: str
    version: int
    kind: int


def keytab_keys(path: str) -> tuple[KeytabKey, ...]:
    """Entries of a keytab, in its order.

    :param path: the file.
    :raises krb5.Krb5Error: when the file is not a keytab, or cannot be read.
    """
    entries = krb5.kt_resolve(krb5.init_context(), f"FILE:{path}".encode())
    return tuple(
        KeytabKey(str(entry.principal), entry.kvno, entry.key.enctype) for entry in entries
    )


def versions_of(principal: str, path: str) -> frozenset[int]:
    """Versions of an account's keys in a keytab.

    :param path: the file.
    :raises CredentialError: when it cannot be read.
    """
    wanted = fold_ascii(principal)
    try:
        keys = keytab_keys(path)
    except krb5.Krb5Error as error:
        raise explain(error, f"keytab {path}") from error
    return frozenset(key.version for key in keys if fold_ascii(key.principal) == wanted)


def highest_version(path: str) -> int | None:
    """Highest version of the keys in a keytab; None where it cannot be used.

    :param path: the file.
    """
    try:
        check_regular(path)  # libkrb5 would wait for what is in its place
        return max((key.version for key in keytab_keys(path)), default=None)
    except (CredentialError, OSError, krb5.Krb5Error):
        return None


def check_keytab(keytab: str, principal: str | None = None) -> tuple[str, ...]:
    """The principals a keytab holds keys of, in its order.

    :param keytab: its name, with or without its type.
    :param principal: who must be among them, with or without a realm.
    :raises CredentialError: when it is not a file, or the file is missing, unreadable,
        no keytab, or without a key of the principal.
    """
    path = keytab_path(keytab)
    subject = f"keytab {path}"
    try:
        content = read_file(path)
    except FileNotFoundError:
        raise CredentialError(
            subject, "there is no such file", "name the account's keytab", code="keytab-unusable"
        ) from None
    except OSError as error:
        reason = (error.strerror or os.strerror(error.errno or 0)).lower()
        raise CredentialError(
            subject,
            f"it cannot be read: {reason}",
            "give this user the right to read it",
            code="keytab-unusable",
        ) from None
    try:
        krb5_context()  # whose failure has a cause of its own
        # libkrb5 says of an empty file that its version is unknown.
        names = dict.fromkeys(key.principal for key in keytab_keys(path)) if content else {}
    except krb5.Krb5Error as error:
        raise explain(error, subject) from error
    if not names:
        raise CredentialError(
            subject, "it holds no keys", "export the account's keys again", code="keytab-lacks-key"
        )
    if principal is not None and not any(is_principal(principal, name) for name in names):
        holders = ", ".join(names)
        raise CredentialError(
            subject,
            f"it has no key of {principal}, only of {holders}",
            "export the right account's",
            code="keytab-lacks-key",
        )
    return tuple(names)


def is_principal(wanted: str, name: str) -> bool:
    """True when a principal is the wanted one, given with or without its realm."""
    return wanted in (name, split_principal(name)[0])


def keytab_file(keytab: str | None) -> str:
    """The path of a keytab's file.

    :param keytab: its name, with or without its type; None: KRB5_KTNAME, then the system's.
    :raises CredentialError: when it is not a file.
    """
    return keytab_path(keytab or krb5.kt_default_name(krb5_context()).decode())


def check_service_keytab(keytab: str | None, principal: str | None = None) -> None:
    """See whether a service's keytab can be used.

    :param keytab: None: KRB5_KTNAME, then the system's.
    :param principal: as for :func:`check_keytab`.
    :raises CredentialError: as :func:`check_keytab` does, and when no key that counts is AES.
    """
    path = keytab_file(keytab)
    check_keytab(f"FILE:{path}", principal)
    kinds = {
        key.kind
        for key in keytab_keys(path)
        if principal is None or is_principal(principal, key.principal)
    }
    if not kinds & AES_TYPES:
        cause = f"it holds no AES key, only {', '.join(sorted(map(kind_name, kinds)))}"
        raise CredentialError(f"keytab {path}", cause, AES_FOR_ACCOUNT, code="weak-encryption")


def keytab_principal(keytab: str | None, account: str | None) -> str:
    """The principal as which a service asks the directory: the account whose keys are in its
    keytab.

    Tools write an account's keys under its own name and under its SPNs (msktutil,
    adcli, samba-tool, ``net ads keytab``), or under one SPN alone (ktpass, which
    makes that the account's UPN).

    :param keytab: None: KRB5_KTNAME, then the system's.
    :param account: sAMAccountName or UPN; None, or a DN: the one entry that is
        not an SPN, or else the only one.
    :raises CredentialError: when the keytab cannot be used, has no such key,
        or leaves a choice.
    """
    path = keytab_file(keytab)
    names = check_keytab(f"FILE:{path}")
    wanted = None if account is None or "=" in account else fold_ascii(account.rpartition("\\")[2])
    if wanted is None:
        found = [name for name in names if "/" not in split_principal(name)[0]] or list(names)
    else:
        found = [name for name in names if wanted in _ways_to_name(name)]
    if len(set(map(fold_ascii, found))) == 1:  # msktutil writes a computer's name in two ways
        return found[0]
    holders = ", ".join(names)
    if found:
        cause = f"it has keys of several accounts, or of SPNs only: {holders}"
        raise CredentialError(
            f"keytab {path}",
            cause,
            "choose one with --account, or export the account's own entry too",
            code="keytab-ambiguous",
        )
    raise CredentialError(
        f"keytab {path}",
        f"it has no key of {account}, only of {holders}",
        "export the right account's",
        code="keytab-lacks-key",
    )


def _ways_to_name(principal: str) -> tuple[str, ...]:
    """A principal in full, without its realm, and a computer's without its ``$``."""
    full, name = fold_ascii(principal), fold_ascii(split_principal(principal)[0])
    return full, name, name.removesuffix("$")


class ServiceKeytab:
    """A service's keytab, and GSSAPI's credentials from it.

    :param credentials: the keytab and the principal in it.
    :param mechanisms: those whose keys the keytab holds.
    :param negotiating: those that negotiate about them, as SPNEGO does.
    :raises CredentialError: when the keytab is missing, unreadable, or has no such key of AES, or
        when there is no replay cache that could be written.
    """

    def __init__(
        self,
        credentials: ServiceCredentials,
        mechanisms: list[gssapi.OID],
        negotiating: list[gssapi.OID],
    ) -> None:
        self._credentials = credentials
        self._mechanisms, self._negotiating = mechanisms, negotiating
        self._path = keytab_file(credentials.keytab)
        # GSSAPI does not tell a keytab that is missing from one that is none.
        self.check()
        #: Without a replay cache: for a token that :attr:`acquired` has just looked up in it, and
        #: for no other.
        self.acquired_again = self._acquire(NONE)
        if finding := exposed("keytab", self._path):
            _log.warn("{finding}", finding=finding)
        # Not before the keytab is known to be good: its file may be made here.
        cache = NONE if credentials.accept_replays else replay_cache(credentials.state_dir)
        #: GSSAPI's own; MIT reads a keytab's file anew for each client.
        self.acquired = self._acquire(cache)

    def _acquire(self, cache: str | None) -> gssapi.Credentials:
        keytab, principal = self._credentials.keytab, self._credentials.principal
        subject, name = f"keytab {keytab}" if keytab else "the default keytab", None
        store: dict[str | bytes, str | bytes] = {"keytab": keytab} if keytab else {}
        if cache is not None:
            store["rcache"] = cache
        if principal is not None:
            subject = f"{subject}, principal {principal}"
        try:
            if principal is not None:
                name = gssapi.Name(principal, gssapi.NameType.kerberos_principal)
            acquired = gssapi.Credentials(
                name=name,
                usage="accept",
                mechs=[*self._mechanisms, *self._negotiating],
                store=store or None,
            )
            if self._negotiating:
                set_neg_mechs(acquired, self._mechanisms)
        except GSSError as error:
            raise explain(error, subject) from error
        return acquired

    def check_file(self) -> None:
        """Check that GSSAPI, which reads the keytab anew for each client, does not wait for what is
        in its place.

        :raises CredentialError: when it is there, and not a regular file.
        """
        try:
            check_regular(self._path)
        except OSError as error:
            if error.errno == errno.EINVAL:
                cause = f"it cannot be read: {error.strerror}"
                raise CredentialError(
                    f"keytab {self._path}", cause, "put the keytab back", code="keytab-unusable"
                ) from error

    def check(self) -> None:
        """Check that the keytab can be used now.

        :raises CredentialError: when it is missing, unreadable, or has no such key of AES.
        """
        check_service_keytab(self._credentials.keytab, self._credentials.principal)
