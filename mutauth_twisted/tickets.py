"""An initiator's credentials as GSSAPI objects, without touching the process's environment.

Everything here may read files and, with a keytab, ask the KDC: call it in a
thread.
"""

from __future__ import annotations

import itertools
import os
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock

import gssapi
import krb5
from gssapi.raw.misc import GSSError

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import CredentialError, MutualAuthError
from mutauth_twisted.gsserrors import explain, keytab_keys
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
        _krb5()  # whose failure has a cause of its own
        names = dict.fromkeys(key.principal for key in keytab_keys(str(file)))
    except krb5.Krb5Error as error:
        raise explain(error, subject) from error
    if not names:
        raise CredentialError(subject, "it holds no keys", "export the account's keys again")
    if principal is not None and not any(_same(principal, name) for name in names):
        holders = ", ".join(names)
        raise CredentialError(subject, f"it has no key of {principal}, only of {holders}", "export the right account's")
    return tuple(names)


def _same(wanted: str, name: str) -> bool:
    return wanted in (name, split_principal(name)[0])


def check_service_keytab(keytab: str | None, principal: str | None = None) -> None:
    """See whether a service's keytab can be used.

    :param keytab: None: KRB5_KTNAME, then the system's.
    :param principal: as for :func:`check_keytab`.
    :raises CredentialError: as :func:`check_keytab` does.
    """
    check_keytab(keytab or krb5.kt_default_name(_krb5()).decode(), principal)


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
    holders = ", ".join(names)
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


def _file_state(path: str) -> tuple[int, ...] | None:
    """What changes when a file is replaced or rewritten; None: it is not there."""
    try:
        found = os.stat(path.removeprefix("FILE:"))
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class TicketSource:
    """Where one client's tickets come from, for any number of connections and threads.

    With a keytab the tickets are kept in memory and shared by all
    connections of this source, so the KDC is asked once; MIT asks it again when
    half of the ticket's time is over.  A keytab that was replaced is used at
    once; one that the KDC refuses is tried once, and the tickets that are there
    serve on.
    """

    def __init__(self, credentials: ClientCredentials) -> None:
        self.credentials = credentials
        self._lock = Lock()
        self._cache = self._new_cache()
        self._retired = ""
        self._keytab_state: tuple[int, ...] | None = None

    @staticmethod
    def _new_cache() -> str:
        return f"MEMORY:mutauth-{os.getpid()}-{next(_memory_caches)}"

    @property
    def subject(self) -> str:
        """How errors name these credentials."""
        chosen = self.credentials
        if chosen.keytab:
            return f"keytab {chosen.keytab}"
        return f"ticket cache {chosen.ccache}" if chosen.ccache else chosen.principal or "the default ticket cache"

    @property
    def cache(self) -> str:
        """The name of the cache in memory that is in use: what :meth:`discard` takes."""
        return self._cache

    def acquire(self, mechanism: gssapi.OID = gssapi.MechType.kerberos) -> gssapi.Credentials:
        """The credentials to initiate with; each call makes new ones, whose options the caller may set.

        :param mechanism: the GSSAPI mechanism that they are for.
        :raises CredentialError: without a ticket or a usable keytab.
        :raises KDCUnreachable: when the keytab's ticket cannot be fetched.
        """
        chosen = self.credentials
        if chosen.keytab is None:
            return self._open(mechanism, chosen.ccache)
        if chosen.ccache is None and self._keytab_replaced(chosen.keytab):
            renewed = self._renew(mechanism)
            if renewed is not None:
                return renewed
        try:
            return self._open(mechanism, chosen.ccache or self._cache)
        except MutualAuthError:
            check_keytab(chosen.keytab, chosen.principal)  # has better words where the file is at fault
            raise

    def discard(self, cache: str) -> None:
        """Fetch new tickets for the next connection, as those in this cache were refused.

        Only those in memory: a cache that has a name is its owner's.

        :param cache: :attr:`cache`, as it was when they were acquired; nothing
            happens when they are replaced already.
        """
        self._switch(cache, self._new_cache())

    def _switch(self, old: str, new: str) -> None:
        with self._lock:
            if self._cache != old:
                return
            # One generation stays for the connections that are about to use it.
            retired, self._retired, self._cache = self._retired, old, new
        if retired:
            context = _krb5()
            with suppress(krb5.Krb5Error):  # nothing was ever put into it
                krb5.cc_destroy(context, krb5.cc_resolve(context, retired.encode()))

    def _keytab_replaced(self, keytab: str) -> bool:
        """Whether the file is another than the last one tried; true once for each."""
        state = _file_state(keytab)
        with self._lock:
            before, self._keytab_state = self._keytab_state, state or self._keytab_state
        return state is not None and before is not None and before != state

    def _renew(self, mechanism: gssapi.OID) -> gssapi.Credentials | None:
        """Tickets of the keytab as it is now; None when it cannot be used and the old ones still can."""
        old, new = self._cache, self._new_cache()
        chosen = self.credentials
        try:
            check_keytab(chosen.keytab or "", chosen.principal)
            credentials = self._open(mechanism, new)
        except MutualAuthError:
            if not _holds_ticket(old):
                raise
            return None
        self._switch(old, new)
        return credentials

    def _open(self, mechanism: gssapi.OID, ccache: str | None) -> gssapi.Credentials:
        chosen = self.credentials
        store: dict[str | bytes, str | bytes] = {}
        if chosen.keytab is not None:
            store["client_keytab"] = chosen.keytab
        if ccache is not None:
            store["ccache"] = ccache
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


def _holds_ticket(cache: str) -> bool:
    """Whether a cache in memory has a ticket for the KDC that has not ended."""
    try:
        tickets = list(krb5.cc_resolve(_krb5(), cache.encode()))
    except krb5.Krb5Error:
        return False
    return any(str(each.server).startswith("krbtgt/") and each.times.endtime > time.time() for each in tickets)


@lru_cache(maxsize=256)
def tickets_for(credentials: ClientCredentials) -> TicketSource:
    """The one source of all that use these credentials: what it got with a keytab is kept in memory."""
    return TicketSource(credentials)
