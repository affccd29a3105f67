"""Reaching a domain controller from the reactor: found, tried in turn, and never waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from threading import Lock
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.dns import Resolver
from mutauth_twisted.errors import (
    CredentialError,
    DirectoryRefused,
    DirectoryUnreachable,
    KDCRefused,
    MutualAuthError,
    NetworkError,
    NotFound,
    PeerNotAuthenticated,
)
from mutauth_twisted.kerberos.codes import Krb5
from mutauth_twisted.kerberos.tickets import tickets_for
from mutauth_twisted.ldap.controllers import Role, Server
from mutauth_twisted.ldap.forest import Forest, read_forest
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.sealing import Target, open_sealed
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.ldap.tls import LdapsAuthority
from mutauth_twisted.names import is_host_name
from mutauth_twisted.threads import Workers

T = TypeVar("T")

_DEFAULT_OPTIONS = DirectoryOptions()
_DEFAULT_CREDENTIALS = ClientCredentials()
_THREADS = 8  # operations under way in one Directory; each has one connection
#: How long a server may take for its connection, and again for the login, in seconds; both take
#: milliseconds.
_LOGIN_TIMEOUT = 5.0
#: A server that failed is tried after the others for this time, in seconds.
_DEMOTED = 60.0
#: What was learnt of the forest is asked anew after this time, in seconds: it may get another
#: domain.
_FOREST_KEPT = 600.0


class _IdleSessions:
    """Open sessions waiting for their next use, for a short time.

    A :class:`Server` holds what it authenticated as: a session with a host that the user named
    is never lent where DNS named it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._idle: dict[tuple[Server, str], list[tuple[float, LdapSession]]] = {}
        self._lock = Lock()
        self._closed = False

    def take(self, server: Server, address: str) -> LdapSession | None:
        """A session to this server that is still good; closes those that are not."""
        while True:
            with self._lock:
                waiting = self._idle.get((server, address))
                if not waiting:
                    return None
                since, session = waiting.pop()
            if time.monotonic() - since < self._seconds and session.usable:
                session.wrote = False
                return session
            session.close()

    def give(self, server: Server, address: str, session: LdapSession) -> None:
        """Keep a session for the next use."""
        with self._lock:
            if not self._closed and session.usable:
                self._idle.setdefault((server, address), []).append((time.monotonic(), session))
                return
        session.close()

    def clear(self, *, for_good: bool = False, older_than: float = 0.0) -> bool:
        """Close sessions that have been idle that long; whether any are left."""
        now = time.monotonic()
        with self._lock:
            self._closed = self._closed or for_good
            everything = [(key, entry) for key, entries in self._idle.items() for entry in entries]
            old = [entry for entry in everything if now - entry[1][0] >= older_than]
            kept = [entry for entry in everything if now - entry[1][0] < older_than]
            self._idle = {}
            for key, entry in kept:
                self._idle.setdefault(key, []).append(entry)
        for _, (_, session) in old:
            session.close()
        return bool(kept)


class Directory:
    """An Active Directory seen with one client's tickets.

    :param reactor: provides TCP, UDP, time, threads and name resolution.
    :param options: which directory, and how to find its domain controllers.
    :param credentials: whose tickets to use.
    :param resolver: None: one that asks the nameserver of the options.
    :param timeout: seconds to wait for each answer; for a connection and for the login at most
        five.
    :param keep: seconds for which an idle connection is kept for the next operation.
    """

    def __init__(
        self,
        reactor: Any,
        options: DirectoryOptions = _DEFAULT_OPTIONS,
        credentials: ClientCredentials = _DEFAULT_CREDENTIALS,
        *,
        resolver: Resolver | None = None,
        timeout: float = 10.0,
        keep: float = 5.0,
    ) -> None:
        self._reactor = reactor
        #: How it is reached.
        self.options = options
        self._realm = options.realm
        self._servers = options.controllers
        self._authority = LdapsAuthority(options.ca_file) if options.ca_file is not None else None
        self.resolver = resolver or Resolver(reactor, options.nameserver)
        self._tickets = tickets_for(credentials)
        self._timeout = timeout
        self._keep = keep
        self._workers = Workers(reactor, _THREADS, "mutauth-directory")
        self._idle = _IdleSessions(keep)
        self._sweep: Any = None
        self._closed = False
        self._forest_of: dict[str, tuple[float, Forest]] = {}
        self._failed: dict[str, float] = {}

    def run(
        self,
        work: Callable[[LdapSession], T],
        *,
        global_catalog: bool = False,
        domain: str | None = None,
        deadline: float | None = None,
    ) -> Deferred[T]:
        """Do blocking work with a sealed connection, in a thread.

        The domain controllers are tried in turn.  When one goes away before
        the work has changed anything, the work starts again on the next one:
        it must bear that.

        Cancelling it gives the work up: a thread that goes on writes nothing any more.

        :param work: gets a :class:`LdapSession`, which is its own only while it runs.
        :param global_catalog: whether to use the global catalog of the forest.
        :param domain: the DNS name of the domain; None: our own.
        :param deadline: when to give up, on the reactor's clock, which several operations
            can have together; None: when every domain controller has had its time.
        :return: fires with what the work returned.
        :raises DirectoryUnreachable: when no domain controller answers, in time, or
            authenticates; each one that was tried is named.
        :raises CredentialError: without a usable ticket.
        :raises KDCUnreachable: when a ticket cannot be fetched.
        :raises KDCRefused: when the KDC grants us none, whichever domain controller it is for.
        """
        subject = self._subject(global_catalog, domain)
        return self._timed(
            lambda progress: self._run(work, global_catalog, domain, progress), subject, deadline
        )

    def run_with_catalog(
        self,
        work: Callable[[LdapSession, LdapSession], T],
        *,
        domain: str | None = None,
        deadline: float | None = None,
    ) -> Deferred[T]:
        """Do blocking work with a domain controller and a global catalog, in a thread.

        As :meth:`run` does; the work gets two sessions.
        """
        subject = self._subject(False, domain)
        return self._timed(
            lambda progress: self._run_with_catalog(work, domain, progress), subject, deadline
        )

    def _timed(
        self,
        start: Callable[[_Progress], Coroutine[Deferred[Any], Any, T]],
        subject: str,
        deadline: float | None,
    ) -> Deferred[T]:
        progress = _Progress()
        work: Deferred[T] = Deferred.fromCoroutine(start(progress))
        began = self._reactor.seconds()

        def stop() -> None:
            # Before the work hears of it, which may go on for all that: its thread does until the
            # server answers.
            progress.given_up = True
            if timer is not None and timer.active():
                timer.cancel()

        def cancelled(_: Deferred[T]) -> None:
            stop()
            work.cancel()

        def too_late() -> None:
            stop()
            failed = ", ".join([*progress.failures, f"{progress.waiting_for} does not answer"])
            cause = f"gave up after {self._reactor.seconds() - began:.0f} s: {failed}"
            result.errback(
                DirectoryUnreachable(subject, cause, "check that it runs and is not overloaded")
            )
            work.cancel()

        def ended(outcome: T | Failure) -> None:
            if not progress.given_up:
                stop()
                result.callback(outcome)

        # Not addTimeout, which waits until what it cancels has ended.
        result: Deferred[T] = Deferred(cancelled)
        timer = (
            None
            if deadline is None
            else self._reactor.callLater(max(0.0, deadline - began), too_late)
        )
        work.addBoth(ended)
        return result

    async def _run_with_catalog(
        self, work: Callable[[LdapSession, LdapSession], T], domain: str | None, progress: _Progress
    ) -> T:
        routes: list[tuple[Server, str]] = []
        for server in await self._find(True, None, progress):
            routes += [(server, address) for address in await self._addresses(server, progress)]

        def with_catalog(session: LdapSession) -> T:
            for server, address in sorted(
                routes, key=lambda route: any(map(self._has_failed, (route[0].host, route[1])))
            ):
                try:
                    return self._attempt(
                        server, address, lambda catalog: work(session, catalog), progress
                    )
                except _ServerFailedError as reason:
                    progress.failures.append(str(reason))
                    if session.wrote:
                        break
            raise self._unreachable(True, domain, progress)

        return await self._run(with_catalog, False, domain, progress)

    async def _run(
        self,
        work: Callable[[LdapSession], T],
        global_catalog: bool,
        domain: str | None,
        progress: _Progress,
    ) -> T:
        for server in await self._find(global_catalog, domain, progress):
            for address in await self._addresses(server, progress):
                try:
                    return await self._workers.run(self._attempt, server, address, work, progress)
                except _ServerFailedError as reason:
                    progress.failures.append(str(reason))
                finally:
                    self._schedule_sweep()
        raise self._unreachable(global_catalog, domain, progress)

    async def _addresses(self, server: Server, progress: _Progress) -> list[str]:
        """A server's addresses; none when DNS has none, which is a failure of that server's."""
        progress.waiting_for = f"DNS (for {server.host})"
        try:
            return sorted(await self.resolver.lookup_addresses(server.host), key=self._has_failed)
        except NetworkError as error:
            progress.failures.append(f"{error.subject}: {error.cause}")
            return []

    def _unreachable(
        self, global_catalog: bool, domain: str | None, progress: _Progress
    ) -> DirectoryUnreachable:
        return DirectoryUnreachable(
            self._subject(global_catalog, domain),
            "no domain controller could be used: " + ", ".join(dict.fromkeys(progress.failures)),
            progress.remedy,
        )

    def _subject(self, global_catalog: bool, domain: str | None) -> str:
        kind = "global catalog" if global_catalog else "directory"
        name = domain or self._realm or self._tickets.credentials.principal
        return f"{kind} of {name}" if name else f"the {kind}"

    def _attempt(
        self, server: Server, address: str, work: Callable[[LdapSession], T], progress: _Progress
    ) -> T:
        """In a thread: one try with one address of one server."""
        session = self._idle.take(server, address) or self._open(server, address, progress)
        progress.waiting_for = f"{server} ({address})"
        session.given_up = lambda: progress.given_up
        try:
            result = work(session)
        except DirectoryUnreachable as error:
            if session.usable:  # it was another connection of the work that was lost
                self._idle.give(server, address, session)
                raise
            session.close()
            self._demote(server, address)
            if session.wrote:
                raise
            raise _ServerFailedError(f"{error.subject}: {error.cause}") from error
        except MutualAuthError:
            self._idle.give(server, address, session)
            raise
        except BaseException:
            session.close()
            raise
        self._idle.give(server, address, session)
        return result

    def _open(self, server: Server, address: str, progress: _Progress) -> LdapSession:
        try:
            target = self._target(server, address)
            progress.wait_for(f"the KDC of {target.realm}")
            connection = open_sealed(
                target,
                self._tickets.acquire(),
                login_timeout=min(self._timeout, _LOGIN_TIMEOUT),
                receive_timeout=self._timeout,
                authority=self._authority if server.tls else None,
                waiting_for=progress.wait_for,
            )
        except CredentialError as error:
            raise CredentialError(
                self._tickets.subject, error.cause, error.remedy, code=error.code
            ) from error
        except (DirectoryUnreachable, DirectoryRefused, PeerNotAuthenticated, KDCRefused) as error:
            if isinstance(error, KDCRefused) and not error.of_service:
                raise
            self._demote(server, address)
            raise _ServerFailedError(progress.explain(server, error)) from error
        return LdapSession(connection, server.host, catalog=server.is_catalog, options=self.options)

    def _target(self, server: Server, address: str) -> Target:
        if server.role is None:
            # Its KDC refers us where the host is of another realm; DNS has no say in it (RFC 6806).
            principal, realms = f"{server.spn}@{self._own_realm()}", None
        else:
            principal, realms = f"{server.spn}@{server.role.realm}", server.role.realms
        return Target(address, server.port, server.host, principal, realms)

    def _demote(self, server: Server, address: str) -> None:
        now = time.monotonic()
        # Rebuilt, so that names made up by whoever answers DNS do not pile up.
        kept = {each: when for each, when in self._failed.items() if now - when < _DEMOTED}
        self._failed = {**kept, server.host: now, address: now}

    def _has_failed(self, host: str) -> bool:
        """Tell whether a host, or an address of one, failed a short while ago, in whatever role."""
        when = self._failed.get(host)
        return when is not None and time.monotonic() - when < _DEMOTED

    def _best_first(self, servers: Sequence[Server]) -> list[Server]:
        """The order given, with those last that failed a short while ago."""
        return sorted(servers, key=lambda server: self._has_failed(server.host))

    def _own_realm(self) -> str:
        """In a thread: the realm of our own domain.

        :raises CredentialError: when none is known.
        """
        return (self._realm or self._tickets.realm()).upper()

    async def domain(self) -> str:
        """The DNS name of our own domain.

        :raises CredentialError: when no realm is known.
        """
        if self._realm:
            return self._realm.lower()
        return (await self._workers.run(self._own_realm)).lower()

    async def _find(
        self, global_catalog: bool, domain: str | None, progress: _Progress
    ) -> list[Server]:
        """The servers to try, in order."""
        progress.waiting_for = "DNS"
        if self._servers and (
            global_catalog or domain is None or domain in await self._given_domains()
        ):
            return self._best_first(
                [given.catalog if global_catalog else given for given in self._servers]
            )
        own = await self.domain()
        if not global_catalog:
            role = Role.of_domain(domain or own)
            return await self._from_dns(
                f"_ldap._tcp.dc._msdcs.{role.of}", lambda host: role, progress
            )
        forest = await self._forest(own, progress)
        return await self._from_dns(
            f"_gc._tcp.{forest.name}", lambda host: forest.catalog_role(host, own), progress
        )

    async def _given_domains(self) -> set[str]:
        """The domains for which the given servers stand: that of the realm, and those in their
        names.
        """
        return {await self.domain()} | {
            server.host.partition(".")[2].lower() for server in self._servers
        }

    async def _forest(self, own: str, progress: _Progress) -> Forest:
        """Our own domain's forest, as an authenticated domain controller of ours names it, and not
        DNS.
        """
        asked, forest = self._forest_of.get(own, (0.0, None))
        if forest is None or self._reactor.seconds() - asked > _FOREST_KEPT:
            forest = await self._run(read_forest, False, own, progress)
            self._forest_of[own] = self._reactor.seconds(), forest
            progress.failures.clear()  # of domain controllers; the catalogs are others
        return forest

    async def _from_dns(
        self, name: str, role: Callable[[str], Role], progress: _Progress
    ) -> list[Server]:
        progress.srv_name = name
        targets = await self.resolver.lookup_srv(name)
        if not targets:
            raise NotFound(
                name,
                "DNS says that the service is not offered",
                "name a server with directory",
                code="dns-name-unknown",
            )
        servers = []
        for target in targets:
            if is_host_name(target.host):
                servers.append(Server(target.host, target.port, role=role(target.host)))
            else:  # it could be read as another principal: "rogue.example@REALM"
                progress.failures.append(f"{target.host!r} is not a valid host name")
        return self._best_first(servers)

    def _schedule_sweep(self) -> None:
        if self._sweep is None and not self._closed:
            self._sweep = self._reactor.callLater(self._keep, self._swept)

    def _swept(self) -> None:
        self._sweep = None
        # Closing sends a farewell into the socket's buffer; it does not wait.
        if self._idle.clear(older_than=self._keep):
            self._schedule_sweep()

    @property
    def ticket_end(self) -> float | None:
        """End of the ticket that was got with a keytab; see
        :attr:`~mutauth_twisted.kerberos.tickets.TicketSource.end`.
        """
        return self._tickets.end

    def close(self) -> None:
        """Close idle connections, and those in use as soon as they are not."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._idle.clear(for_good=True)


class _ServerFailedError(Exception):
    """This server cannot be used for the work; another one may."""


class _Progress:
    """Progress of one operation: for its error, when it fails or takes too long.

    :ivar waiting_for: who is waited for.
    :ivar failures: the servers that could not be used, and why.
    :ivar given_up: whether nothing waits for the operation any more.
    :ivar srv_name: the SRV records that named the servers, if DNS did.
    """

    def __init__(self) -> None:
        self.waiting_for = "DNS"
        self.failures: list[str] = []
        self.given_up = False
        self.srv_name = ""
        self._impostor = False

    def wait_for(self, whom: str) -> None:
        """Note who is waited for next."""
        self.waiting_for = whom

    def explain(self, server: Server, error: MutualAuthError) -> str:
        """One server's failure in words."""
        if server.role is not None and isinstance(error, (KDCRefused, PeerNotAuthenticated)):
            self._impostor = True
            if (
                isinstance(error, KDCRefused)
                and error.krb_error == Krb5.KDC_ERR_S_PRINCIPAL_UNKNOWN
            ):
                kind = "domain controller" if server.role.service == "ldap" else "global catalog"
                return (
                    f"{server}: it is NOT AUTHENTICATED: the KDC of {server.role.realm} knows no "
                    f"{kind} "
                    f"of this name in {server.role.of} (no account holds the SPN {server.spn})"
                )
        return f"{error.subject}: {error.cause}"

    @property
    def remedy(self) -> str:
        """The next step when no server could be used."""
        if self._impostor:
            return (
                f"find out who answers DNS for {self.srv_name}; a domain controller of yours that "
                "lacks this SPN "
                "registers it itself (Samba: samba_spnupdate)"
            )
        return "check that one runs and is not behind a firewall, or name one with directory"
