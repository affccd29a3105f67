"""An initiator's credentials as GSSAPI objects, without touching the process's environment.

Everything here may read files and, with a keytab, ask the KDC: call it in a
thread.
"""

from __future__ import annotations

import itertools
import os
from functools import lru_cache
from pathlib import Path

import gssapi
import krb5
from gssapi.raw.misc import GSSError

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import CredentialError
from mutauth_twisted.gsserrors import explain
from mutauth_twisted.policy import split_principal

_memory_caches = itertools.count(1)


def check_keytab(path: str, principal: str | None = None) -> tuple[str, ...]:
    """The principals a keytab holds keys of, in its order.

    :param path: the file, with or without ``FILE:``.
    :param principal: who must be among them, with or without a realm.
    :raises CredentialError: when the file is missing, unreadable, no keytab,
        or without a key of the principal.
    """
    file = Path(path.removeprefix("FILE:"))
    subject = f"keytab {file}"
    try:
        with file.open("rb"):
            pass
    except FileNotFoundError:
        raise CredentialError(subject, "there is no such file", "name the account's keytab") from None
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise CredentialError(subject, f"it cannot be read: {reason}", "give this user the right to read it") from None
    try:
        context = _krb5()
        names = dict.fromkeys(str(entry.principal) for entry in krb5.kt_resolve(context, f"FILE:{file}".encode()))
    except krb5.Krb5Error as error:
        raise explain(error, subject) from error
    if principal is not None and not any(_same(principal, name) for name in names):
        holders = ", ".join(names) or "nobody"
        raise CredentialError(subject, f"it has no key of {principal}, only of {holders}", "export the right account's")
    return tuple(names)


def _same(wanted: str, name: str) -> bool:
    return wanted in (name, split_principal(name)[0])


def keytab_principal(keytab: str | None, account: str | None) -> str:
    """The principal under whose keys a service runs.

    :param keytab: None: KRB5_KTNAME, then the system's.
    :param account: sAMAccountName or UPN; None, or a DN: the keytab must hold
        one principal only.
    :raises CredentialError: when the keytab cannot be used, has no such key,
        or leaves a choice.
    """
    path = keytab or krb5.kt_default_name(_krb5()).decode()
    names = check_keytab(path)
    wanted = None if account is None or "=" in account else account.rpartition("\\")[2].casefold()
    found = [name for name in names if wanted is None or wanted in _ways_to_name(name)]
    if len(found) == 1:
        return found[0]
    holders = ", ".join(names) or "nobody"
    if found:
        raise CredentialError(f"keytab {path}", f"it has keys of several: {holders}", "choose one with --account")
    raise CredentialError(f"keytab {path}", f"it has no key of {account}, only of {holders}", "export the right account's")


def _ways_to_name(principal: str) -> tuple[str, ...]:
    """A principal in full, without its realm, and a computer's without its ``$``."""
    full, name = principal.casefold(), split_principal(principal)[0].casefold()
    return full, name, name.removesuffix("$")


def _krb5() -> krb5.Context:
    try:
        return krb5.init_context()
    except krb5.Krb5Error as error:
        subject = os.environ.get("KRB5_CONFIG", "krb5.conf")
        cause = "it cannot be used: " + str(error).rpartition(" ")[0].lower()
        raise CredentialError(subject, cause, "check that this user may read it, and what KRB5_CONFIG says") from error


class TicketSource:
    """Where one client's tickets come from, for any number of connections and threads.

    With a keytab the tickets are kept in memory and shared by all
    connections of this source, so the KDC is asked once.
    """

    def __init__(self, credentials: ClientCredentials) -> None:
        self.credentials = credentials
        self._memory = f"MEMORY:mutauth-{os.getpid()}-{next(_memory_caches)}"

    @property
    def subject(self) -> str:
        """How errors name these credentials."""
        chosen = self.credentials
        if chosen.keytab:
            return f"keytab {chosen.keytab}"
        return f"ticket cache {chosen.ccache}" if chosen.ccache else chosen.principal or "the default ticket cache"

    def acquire(self, mechanism: gssapi.OID = gssapi.MechType.kerberos) -> gssapi.Credentials:
        """The credentials to initiate with; each call makes new ones, whose options the caller may set.

        :param mechanism: the GSSAPI mechanism that they are for.
        :raises CredentialError: without a ticket or a usable keytab.
        :raises KDCUnreachable: when the keytab's ticket cannot be fetched.
        """
        chosen = self.credentials
        store: dict[str | bytes, str | bytes] = {}
        if chosen.keytab is not None:
            check_keytab(chosen.keytab, chosen.principal)
            store["client_keytab"] = chosen.keytab
            store["ccache"] = chosen.ccache or self._memory
        elif chosen.ccache is not None:
            store["ccache"] = chosen.ccache
        try:
            name = None
            if chosen.principal is not None:
                name = gssapi.Name(chosen.principal, gssapi.NameType.kerberos_principal)
            return gssapi.Credentials(name=name, usage="initiate", mechs=[mechanism], store=store or None)
        except GSSError as error:
            raise explain(error, self.subject) from error

    def realm(self) -> str:
        """The realm of whoever these credentials make us, or else krb5.conf's default.

        :raises CredentialError: when neither is known.
        """
        chosen = self.credentials
        realm = split_principal(chosen.principal)[1] if chosen.principal else ""
        if not realm and chosen.keytab is not None:
            realm = split_principal(next(iter(check_keytab(chosen.keytab)), ""))[1]
        return realm or self._cache_realm() or self._default_realm()

    def _cache_realm(self) -> str:
        context = _krb5()
        name = self.credentials.ccache
        try:
            cache = krb5.cc_resolve(context, name.encode()) if name else krb5.cc_default(context)
            return split_principal(str(cache.principal))[1] if cache.principal else ""
        except krb5.Krb5Error:
            return ""

    def _default_realm(self) -> str:
        try:
            return krb5.get_default_realm(_krb5()).decode()
        except krb5.Krb5Error as error:
            raise explain(error, self.subject) from error


@lru_cache(maxsize=256)
def tickets_for(credentials: ClientCredentials) -> TicketSource:
    """The one source of all that use these credentials: what it got with a keytab is kept in memory."""
    return TicketSource(credentials)
