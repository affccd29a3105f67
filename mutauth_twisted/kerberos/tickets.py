"""An initiator's credentials as GSSAPI objects, without touching the process's environment.

Everything here may read files and, with a keytab, ask the KDC: call it in a
thread.
"""

from __future__ import annotations

import itertools
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from threading import Lock, Thread

import gssapi
import krb5
from gssapi.raw.misc import GSSError

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import CredentialError, MutualAuthError
from mutauth_twisted.kerberos.codes import KRB5, Krb5
from mutauth_twisted.kerberos.errors import explain, minor_code
from mutauth_twisted.kerberos.keytab import check_keytab, is_principal, keytab_path, krb5_context
from mutauth_twisted.names import split_principal

#: A ticket that is refused is fetched anew at most once in this time, in seconds.
REPLACE_INTERVAL = 30.0
#: GSS_KRB5_CRED_NO_CI_FLAGS_X of MIT, for set_cred_option(): ask for confidentiality and integrity
#: only where they are asked for.  Otherwise MIT asks for both always, which Active Directory
#: refuses inside TLS.
NO_CI_FLAGS = gssapi.OID.from_int_seq("1.2.752.43.13.29")
#: How long a connection waits for that, in seconds; then it goes on with the old one.
_PATIENCE = 2.0
#: How many are fetched anew at once for one client; a KDC that does not answer keeps each of these
#: threads.
_MOST_FETCHING = 2
#: How many refused tickets are remembered; each is one that this client asked for, and the oldest
#: is forgotten.
_MOST_SUSPECTS = 256
#: How many older keys are tried: each is a wrong password to a KDC that counts them.
_OLDER_KEYS = 2
_numbers = itertools.count(1)


def _default_cache() -> str:
    name = krb5.cc_default_name(krb5_context()).decode(errors="replace")
    return f"the default ticket cache, {name}"


def _file_state(path: str) -> tuple[int, ...] | None:
    """State of a file, which changes when it is replaced or rewritten; None: it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class _Memory:
    """A ticket cache in memory, which is there for as long as this object lives."""

    def __init__(self) -> None:
        self.name = f"MEMORY:mutauth-{os.getpid()}-{next(_numbers)}"
        weakref.finalize(self, _destroy, self.name).atexit = False


def _destroy(cache: str) -> None:
    with suppress(krb5.Krb5Error):  # nothing was ever put into it
        context = krb5.init_context()
        krb5.cc_destroy(context, krb5.cc_resolve(context, cache.encode()))


class _Credentials(gssapi.Credentials):
    """GSSAPI's own, which keep the cache that their tickets are in."""

    memory: _Memory | None = None


class TicketSource:
    """Where one client's tickets come from, for any number of connections and threads.

    With a keytab the tickets are kept in memory and shared by all
    connections of this source, so the KDC is asked once; MIT asks it again when
    half of the ticket's time is over.  A keytab that was replaced is used at
    once; one that the KDC refuses is tried once, and the tickets that are there
    serve on.  Of a key that the KDC does not know yet, the older ones beside it
    in the keytab are tried.

    A ticket that is refused is replaced by a new one, once that is there, and
    each not more often than :data:`REPLACE_INTERVAL`: whoever listens somewhere
    can say, without any proof, that it refuses one.
    """

    def __init__(self, credentials: ClientCredentials) -> None:
        self.credentials = credentials
        self._lock = Lock()
        self._memory = _Memory()
        self._keytab_state: tuple[int, ...] | None = None
        # What was refused, and when each was last fetched anew for that; "": the client's own
        # tickets.
        self._suspects: dict[str, None] = {}
        self._replaced: dict[str, float] = {}
        self._fetching: dict[str, Thread] = {}

    @property
    def subject(self) -> str:
        """Name of these credentials in errors."""
        chosen = self.credentials
        if chosen.keytab:
            return f"keytab {chosen.keytab}"
        return (
            f"ticket cache {chosen.ccache}"
            if chosen.ccache
            else chosen.principal or _default_cache()
        )

    @property
    def cache(self) -> str:
        """The name of the cache in memory that is in use."""
        return self._memory.name

    def acquire(
        self, mechanism: gssapi.OID = gssapi.MechType.kerberos, service: gssapi.Name | None = None
    ) -> gssapi.Credentials:
        """The credentials to initiate with; each call makes new ones, whose options the caller may
        set.

        :param mechanism: the GSSAPI mechanism that they are for.
        :param service: for whom a ticket will be needed, if there is one that :meth:`discard` may
            be told of.
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
        self._replace_suspects(service)
        try:
            return self._open(mechanism, chosen.ccache or self._memory)
        except MutualAuthError:
            check_keytab(
                chosen.keytab, chosen.principal
            )  # has better words where the file is at fault
            raise

    def discard(self, service: gssapi.Name | None = None) -> None:
        """Have a new ticket fetched for the next connection, as the one that is there was refused.

        Only in memory: a cache that has a name is its owner's.

        :param service: who refused its ticket; None: the KDC refused our own.
        """
        if self.credentials.keytab is None or self.credentials.ccache is not None:
            return
        name = "" if service is None else str(service)
        now = time.monotonic()
        with self._lock:
            self._replaced = {
                each: when for each, when in self._replaced.items() if now - when < REPLACE_INTERVAL
            }
            if name not in self._replaced:
                self._suspects[name] = None
                while len(self._suspects) > _MOST_SUSPECTS:
                    del self._suspects[next(iter(self._suspects))]

    def _replace_suspects(self, service: gssapi.Name | None) -> None:
        """Fetch anew what was refused, of what this service needs; the old tickets serve until
        then, and if it fails.

        Anybody can say that a ticket is refused: while a KDC does not answer
        there is one thread for each ticket, and :data:`_MOST_FETCHING` in all.
        """
        work: dict[str, Callable[[], None]] = {"": self._renew_quietly}
        if service is not None:
            work[str(service)] = lambda: self._replace(service)
        for name, fetch in work.items():
            if (fetching := self._start(name, fetch)) is not None:
                # A KDC that does not answer must not keep the connection from what is there.
                fetching.join(_PATIENCE)

    def _start(self, name: str, fetch: Callable[[], None]) -> Thread | None:
        """The thread that fetches a ticket anew; None: it is not refused, or its turn has not
        come.
        """
        with self._lock:
            self._fetching = {
                each: thread for each, thread in self._fetching.items() if thread.is_alive()
            }
            if (
                name not in self._suspects
                or name in self._fetching
                or len(self._fetching) >= _MOST_FETCHING
            ):
                return None
            fetching = Thread(
                target=fetch, name=f"new ticket for {name or self.subject}", daemon=True
            )
            try:
                fetching.start()
            except (
                RuntimeError
            ):  # no thread can be had: the old ticket serves, and its turn comes again
                return None
            self._fetching[name] = fetching
            del self._suspects[name]
            self._replaced[name] = time.monotonic()
            return fetching

    def _keytab_replaced(self, keytab: str) -> bool:
        """True when the file is another than the last one tried, once for each."""
        state = _file_state(keytab_path(keytab))
        with self._lock:
            before, self._keytab_state = self._keytab_state, state or self._keytab_state
        return state is not None and before is not None and before != state

    def _renew_quietly(self) -> None:
        with suppress(MutualAuthError):  # whoever needs them hears what is wrong
            self._renew(gssapi.MechType.kerberos)

    def _renew(self, mechanism: gssapi.OID) -> gssapi.Credentials | None:
        """Tickets of the keytab as it is now; None when it cannot be used and the old ones still
        can.
        """
        old, new = self._memory, _Memory()
        chosen = self.credentials
        try:
            check_keytab(chosen.keytab or "", chosen.principal)
            credentials = self._open(mechanism, new)
        except MutualAuthError:
            if not _holds_ticket(old.name):
                raise
            return None
        with self._lock:
            if self._memory is old:
                self._memory = new
        return credentials

    def _replace(self, service: gssapi.Name) -> None:
        """Put a new ticket for a service into the cache, in the place of the old one; nothing
        happens if there is none.
        """
        memory, scratch, wanted = self._memory, _Memory(), str(service)
        try:
            context = krb5_context()
            cache, new = (
                krb5.cc_resolve(context, each.name.encode()) for each in (memory, scratch)
            )
            old = [each for each in cache if _is_for(each, wanted)]
            if not old or cache.principal is None:
                return
            krb5.cc_initialize(context, new, cache.principal)
            for each in cache:
                if not _is_for(each, wanted):
                    krb5.cc_store_cred(context, new, each)
            credentials = self._open(gssapi.MechType.kerberos, scratch)
            # Its token goes nowhere: what counts is the ticket that it leaves in the cache.
            gssapi.SecurityContext(
                name=service, creds=credentials, usage="initiate", mech=gssapi.MechType.kerberos
            ).step()
            fetched = [each for each in new if _is_for(each, wanted)]
            for each in old:
                krb5.cc_remove_cred(context, cache, 0, each)
            for each in fetched:
                krb5.cc_store_cred(context, cache, each)
        except (MutualAuthError, GSSError, krb5.Krb5Error):
            return  # no new one can be had: whoever is refused again hears of it

    def _open(self, mechanism: gssapi.OID, cache: _Memory | str | None) -> gssapi.Credentials:
        keytab = self.credentials.keytab
        try:
            return self._open_with(keytab, mechanism, cache)
        except CredentialError as error:
            if keytab is None or not _is_key_refused(error):
                raise
            for older in self._older_keys(keytab):
                try:
                    return self._open_with(older, mechanism, cache)
                except CredentialError as again:
                    if not _is_key_refused(again):
                        raise
            raise

    def _older_keys(self, keytab: str) -> Iterator[str]:
        """Keytabs in memory, each with an older version of our key; each is there while the next is
        not asked for.
        """
        try:
            context = krb5_context()
            entries = list(krb5.kt_resolve(context, f"FILE:{keytab_path(keytab)}".encode()))
            wanted = self.credentials.principal or str(entries[0].principal)
            entries = [each for each in entries if is_principal(wanted, str(each.principal))]
            for version in sorted({each.kvno for each in entries}, reverse=True)[
                1 : 1 + _OLDER_KEYS
            ]:
                scratch_name = f"MEMORY:mutauth-{os.getpid()}-{next(_numbers)}"
                scratch = krb5.kt_resolve(context, scratch_name.encode())
                for each in entries:
                    if each.kvno == version:
                        krb5.kt_add_entry(
                            context, scratch, each.principal, version, each.timestamp, each.key
                        )
                yield scratch_name
        except krb5.Krb5Error as error:
            raise explain(error, self.subject) from error

    def _open_with(
        self, keytab: str | None, mechanism: gssapi.OID, cache: _Memory | str | None
    ) -> gssapi.Credentials:
        chosen = self.credentials
        store: dict[str | bytes, str | bytes] = {}
        if keytab is not None:
            store["client_keytab"] = keytab
        if cache is not None:
            store["ccache"] = cache.name if isinstance(cache, _Memory) else cache
        try:
            name = None
            if chosen.principal is not None:
                name = gssapi.Name(chosen.principal, gssapi.NameType.kerberos_principal)
            opened = _Credentials(
                name=name, usage="initiate", mechs=[mechanism], store=store or None
            )
        except GSSError as error:
            raise explain(error, self.subject) from error
        if isinstance(cache, _Memory):
            opened.memory = cache
        return opened

    @property
    def end(self) -> float | None:
        """End of the ticket for the KDC that was got with the keytab, seconds since 1970; None:
        there is none.
        """
        memory = self._memory  # which would be gone with its last reference
        return max(_ends(memory.name), default=None)

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
        context = krb5_context()
        name = self.credentials.ccache
        try:
            cache = krb5.cc_resolve(context, name.encode()) if name else krb5.cc_default(context)
            return split_principal(str(cache.principal))[1] if cache.principal else ""
        except krb5.Krb5Error:
            return ""

    def _default_realm(self) -> str:
        try:
            return krb5.get_default_realm(krb5_context()).decode()
        except krb5.Krb5Error as error:
            raise explain(error, self.subject) from error


def _is_key_refused(error: CredentialError) -> bool:
    refused = KRB5 + Krb5.KDC_ERR_PREAUTH_FAILED
    return error.__cause__ is not None and minor_code(error.__cause__) == refused


def _is_for(ticket: krb5.Creds, service: str) -> bool:
    """True when a ticket is for a service, ``class/host[/name]``; its realm does not count."""
    names = (split_principal(text)[0].casefold() for text in (str(ticket.server), service))
    return len(set(names)) == 1


def _ends(cache: str) -> list[float]:
    """Ends of the tickets for the KDC that a cache in memory has."""
    try:
        tickets = list(krb5.cc_resolve(krb5_context(), cache.encode()))
    except (MutualAuthError, krb5.Krb5Error):
        return []
    return [each.times.endtime for each in tickets if str(each.server).startswith("krbtgt/")]


def _holds_ticket(cache: str) -> bool:
    """True when a cache in memory has a ticket for the KDC that has not ended."""
    return any(end > time.time() for end in _ends(cache))


@lru_cache(maxsize=256)
def tickets_for(credentials: ClientCredentials) -> TicketSource:
    """The one source of all that use these credentials: what it got with a keytab is kept in
    memory.
    """
    return TicketSource(credentials)
