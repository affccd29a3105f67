"""Passwords of accounts: their keys, and changing them at the KDC (RFC 3244)."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable, Sequence

import krb5

from mutauth_twisted.errors import CredentialError, KDCRefused
from mutauth_twisted.kerberos.codes import KRB5, Krb5
from mutauth_twisted.kerberos.errors import explain, minor_code
from mutauth_twisted.kerberos.keytab import krb5_context
from mutauth_twisted.kerberos.keytabfile import Key
from mutauth_twisted.names import split_principal
from mutauth_twisted.text import one_line

#: AES-256 and AES-128 with SHA-1 (RFC 3962), which every version of Active Directory has.
KINDS = (18, 17)
_CHANGE = b"kadmin/changepw"
_numbers = itertools.count(1)


def random_password() -> str:
    """A password of 256 bits, with characters of every kind that policies ask for."""
    return f"Aa1-{secrets.token_urlsafe(32)}"


def salt_of(principal: str) -> bytes | None:
    """The salt of an account's keys, as the KDC tells it; None: it tells none.

    :raises MutualAuthError: when the KDC does not answer, or does not know the account.
    """
    context = krb5_context()
    try:
        name = krb5.parse_name_flags(context, principal.encode())
        return krb5.get_etype_info(context, name).salt
    except krb5.Krb5Error as error:
        raise explain(error, principal) from error


def likely_salts(principal: str, names: Sequence[str], host: str | None) -> tuple[bytes, ...]:
    """The salts that a new password's keys can have: an account may have been renamed since its
    last one (MS-KILE 3.1.1.2; Samba takes the UPN's prefix).

    :param principal: the account's, whose realm counts.
    :param names: its sAMAccountName and the prefix of its UPN, if it has one.
    :param host: a computer's name; None: it is a user's account.
    """
    realm = split_principal(principal)[1].upper()
    salts = [f"{realm}{name}" for name in names]
    if host is not None:
        short = host.partition(".")[0].lower()
        salts = [f"{realm}host{short}.{realm.lower()}"]
    return tuple(dict.fromkeys(salt.encode() for salt in salts))


def keys_of(
    password: str, principals: Sequence[str], salts: Sequence[bytes], version: int, now: int
) -> list[Key]:
    """The keys of a password, of every kind, for each principal and each salt.

    :param version: their key version.
    :param now: when those of the first salt are added, seconds since 1970; those of each other one
        are a second later, by which they are told apart.
    """
    context = krb5.init_context()
    return [
        Key(principal, version, now + number, kind, _key(context, kind, password, salt))
        for principal in principals
        for number, salt in enumerate(salts)
        for kind in KINDS
    ]


def _key(context: krb5.Context, kind: int, password: str, salt: bytes) -> bytes:
    return bytes(krb5.c_string_to_key(context, kind, password.encode(), salt).data)


def current_key(principal: str, keys: Sequence[Key]) -> Key | None:
    """The one of some keys that the KDC takes as the account's own; None: it takes none.

    :param keys: those to try, in this order; each one that is not is a wrong password.
    :raises MutualAuthError: when the KDC does not answer, or refuses the account itself.
    """
    return next((key for key in keys if _log_on(principal, key, None) is not None), None)


def _log_on(principal: str, key: Key, service: bytes | None) -> krb5.Creds | None:
    """Credentials that one key gets; None: it is not the account's."""
    context = krb5_context()
    options = krb5.get_init_creds_opt_alloc(context)
    # The KDC chooses among these, and another type's key is not there.
    krb5.get_init_creds_opt_set_etype_list(options, [key.kind])
    try:
        name = krb5.parse_name_flags(context, principal.encode())
        # A keytab of its own: of several keys of one kind libkrb5 takes the first only.
        keytab = krb5.kt_resolve(context, _memory_keytab())
        block = krb5.init_keyblock(context, key.kind, key.secret)
        krb5.kt_add_entry(context, keytab, name, key.version, key.added, block)
        return krb5.get_init_creds_keytab(context, name, options, keytab, 0, service)
    except krb5.Krb5Error as error:
        if minor_code(error) in _WRONG_KEY:
            return None
        raise explain(error, principal) from error


def _memory_keytab() -> bytes:
    return f"MEMORY:mutauth-{os.getpid()}-{next(_numbers)}".encode()


#: The KDC's word for it, and libkrb5's where the reply is encrypted with another key.
_WRONG_KEY = frozenset({KRB5 + Krb5.KDC_ERR_PREAUTH_FAILED, KRB5 + Krb5.KRB_AP_ERR_BAD_INTEGRITY})


def own_change(principal: str, key: Key) -> Callable[[str], None]:
    """Log on to change an account's own password, and return what changes it.

    :param key: a present one of it.
    :raises MutualAuthError: when the KDC does not answer, or refuses the account.
    """
    credentials = _log_on(principal, key, _CHANGE)
    if credentials is None:
        cause, remedy = "the KDC does not take its present key", "export its keytab again"
        raise CredentialError(principal, cause, remedy, code="keytab-outdated")

    def change(password: str) -> None:
        context = krb5_context()
        try:
            result = krb5.set_password(context, credentials, password.encode(), None)
        except krb5.Krb5Error as error:
            raise explain(error, principal) from error
        _check(principal, result)

    return change


def administrators_change(principal: str, ccache: str | None) -> Callable[[str], None]:
    """Setter of an account's password, for an administrator.

    :param ccache: the ticket cache of the administrator; None: the default one.
    """

    def change(password: str) -> None:
        context = krb5_context()
        try:
            cache = (
                krb5.cc_resolve(context, ccache.encode()) if ccache else krb5.cc_default(context)
            )
            name = krb5.parse_name_flags(context, principal.encode())
            result = krb5.set_password_using_ccache(context, cache, password.encode(), name)
        except krb5.Krb5Error as error:
            raise explain(error, principal) from error
        _check(principal, result)

    return change


def _check(principal: str, result: krb5.SetPasswordResult) -> None:
    """See that a password was changed.

    :raises KDCRefused: when it was not.
    """
    code = result.result_code
    if code == krb5.SetPasswordResultCode.SUCCESS:
        return
    if code == krb5.SetPasswordResultCode.ACCESSDENIED:
        cause, remedy = "you may not set its password", "use an administrator's ticket"
    else:
        said = krb5.chpw_message(krb5.init_context(), result.server_response)
        cause = f"the domain refuses the new password: {one_line(said.decode(errors='replace'))}"
        remedy = "wait until its minimum age is over, or have an administrator run this with --set"
    raise KDCRefused(principal, cause, remedy, code="password-refused")
