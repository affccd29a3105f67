"""Reaching a domain controller from the reactor: found, tried in turn, and never waited for."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.commands import reach_of
from mutauth_twisted.directory.names import domain_of
from mutauth_twisted.directory.sealing import open_sealed
from mutauth_twisted.directory.session import Session
from mutauth_twisted.directory.tls import Authority
from mutauth_twisted.dns import Resolver
from mutauth_twisted.errors import (
    CredentialError,
    DirectoryRefused,
    DirectoryUnreachable,
    KDCRefused,
    MutualAuthError,
    NetworkError,
    NotFound,
    PeerNotProven,
    UsageError,
)
from mutauth_twisted.threads import Workers
from mutauth_twisted.tickets import tickets_for

T = TypeVar("T")

LDAP_PORT, LDAPS_PORT = 389, 636
GLOBAL_CATALOG_PORT, GLOBAL_CATALOG_TLS_PORT = 3268, 3269
_DEFAULT_CREDENTIALS = ClientCredentials()
_THREADS = 8  # operations under way in one Directory; each has one connection
_SERVER = re.compile(r"(?:(?P<scheme>[A-Za-z]+)://)?(?P<host>[^:/\s]+)(?::(?P<port>[0-9]{1,5}))?/?")


@frozen
class Server:
    """A domain controller to try.

    :param host: its DNS name, which makes its SPN; an address will not do.
    :param tls: whether to use TLS instead of sealing with Kerberos.
    """

    host: str
    port: int
    tls: bool = False

    @property
    def catalog(self) -> Server:
        """Its global catalog."""
        return Server(self.host, GLOBAL_CATALOG_TLS_PORT if self.tls else GLOBAL_CATALOG_PORT, self.tls)


def parse_server(text: str) -> Server:
    """Read ``ldap://HOST[:PORT]``, ``ldaps://HOST[:PORT]`` or ``HOST[:PORT]``.

    :raises UsageError: for anything else.
    """
    match = _SERVER.fullmatch(text)
    if match is None:
        raise UsageError(f"directory {text!r}", "it is no LDAP server", "write ldap://HOST or ldap://HOST:PORT")
    scheme = (match["scheme"] or "ldap").lower()
    if scheme not in ("ldap", "ldaps"):
        raise UsageError(f"directory {text!r}", f"{scheme} is no directory protocol", "write ldap://HOST or ldaps://HOST")
    tls = scheme == "ldaps"
    host, port = match["host"], int(match["port"] or (LDAPS_PORT if tls else LDAP_PORT))
    if re.fullmatch(r"[0-9.]+", host):
        raise UsageError(f"directory {text!r}", "an address cannot prove who it is", "write the server's DNS name")
    if not 0 < port < 65536:
        raise UsageError(f"directory {text!r}", f"port {port} is out of range", "use 1 to 65535")
    return Server(host.rstrip("."), port, tls)


def _authority(servers: Sequence[Server], ca_file: str | None) -> Authority | None:
    """Who vouches for the servers with TLS, which has to be said by the user: the system trusts too many."""
    with_tls = next((server for server in servers if server.tls), None)
    if with_tls is not None and ca_file is None:
        raise UsageError(
            f"directory ldaps://{with_tls.host}",
            "no certificate authority is named that may vouch for it",
            "give --directory-ca FILE (ca=FILE in an endpoint), or write ldap://, which is sealed with Kerberos",
        )
    if with_tls is None and ca_file is not None:
        raise UsageError(f"CA file {ca_file}", "no directory server uses TLS", "name one: ldaps://HOST")
    return None if ca_file is None else Authority(ca_file)


class _IdleSessions:
    """Open sessions waiting for their next use, for a short time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._idle: dict[tuple[Server, str], list[tuple[float, Session]]] = {}
        self._lock = Lock()
        self._closed = False

    def take(self, server: Server, address: str) -> Session | None:
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

    def give(self, server: Server, address: str, session: Session) -> None:
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
    :param realm: the realm, whose name in lower case is the domain; None: the
        realm of the credentials.
    :param servers: domain controllers to use, ``ldap://HOST[:PORT]`` or
        ``ldaps://HOST[:PORT]``, in this order; none: those that DNS names for the
        domain.
    :param ca_file: the certificates (PEM) that may vouch for ``ldaps`` servers,
        which are not used without.
    :param resolver: None: the system's DNS.
    :param credentials: whose tickets to use.
    :param timeout: seconds to wait for a connection, and for each answer.
    :param keep: seconds for which an idle connection is kept for the next operation.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        realm: str | None = None,
        servers: Sequence[str] = (),
        ca_file: str | None = None,
        resolver: Resolver | None = None,
        credentials: ClientCredentials = _DEFAULT_CREDENTIALS,
        timeout: float = 10.0,
        keep: float = 5.0,
    ) -> None:
        self._reactor = reactor
        #: The options with which a command reaches the same directory.
        self.reach = tuple(reach_of(servers, ca_file, realm, resolver.nameserver if resolver is not None else None))
        self._realm = realm
        self._servers = [parse_server(text) for text in servers]
        self._authority = _authority(self._servers, ca_file)
        self.resolver = resolver or Resolver(reactor)
        self._tickets = tickets_for(credentials)
        self._timeout = timeout
        self._keep = keep
        self._workers = Workers(reactor, _THREADS, "mutauth-directory")
        self._idle = _IdleSessions(keep)
        self._sweep: Any = None
        self._closed = False
        self._forests: dict[str, str] = {}

    def command(self, *words: str) -> str:
        """See :meth:`Session.command`."""
        return shlex.join(["mutauth", *words, *self.reach])

    def run(
        self,
        work: Callable[[Session], T],
        *,
        global_catalog: bool = False,
        domain: str | None = None,
    ) -> Deferred[T]:
        """Do blocking work with a sealed connection, in a thread.

        The domain controllers are tried in turn.  When one goes away before
        the work has changed anything, the work starts again on the next one:
        it must bear that.

        :param work: gets a :class:`Session`, which is its own only while it runs.
        :param global_catalog: whether to use the global catalog of the forest.
        :param domain: the DNS name of the domain; None: our own.
        :return: fires with what the work returned.
        :raises DirectoryUnreachable: when no domain controller answers; each
            one that was tried is named.
        :raises CredentialError: without a usable ticket.
        :raises KDCUnreachable: when a ticket cannot be fetched.
        :raises KDCRefused: when the KDC grants us none, whichever domain controller it is for.
        """
        return Deferred.fromCoroutine(self._run(work, global_catalog, domain))

    def run_with_catalog(self, work: Callable[[Session, Session], T], *, domain: str | None = None) -> Deferred[T]:
        """Do blocking work with a domain controller and a global catalog, in a thread.

        As :meth:`run` does; the work gets two sessions.
        """
        return Deferred.fromCoroutine(self._run_with_catalog(work, domain))

    async def _run_with_catalog(self, work: Callable[[Session, Session], T], domain: str | None) -> T:
        routes: list[tuple[Server, str]] = []
        failures: list[str] = []
        for server in await self._find(True, None):
            try:
                routes += [(server, address) for address in await self.resolver.lookup_addresses(server.host)]
            except NetworkError as error:
                failures.append(f"{error.subject}: {error.cause}")

        def with_catalog(session: Session) -> T:
            for server, address in routes:
                try:
                    return self._attempt(server, address, lambda catalog: work(session, catalog))
                except _ServerFailedError as reason:
                    failures.append(str(reason))
                    if session.wrote:
                        break
            raise self._unreachable(True, domain, failures)

        return await self._run(with_catalog, False, domain)

    async def _run(self, work: Callable[[Session], T], global_catalog: bool, domain: str | None) -> T:
        failures: list[str] = []
        for server in await self._find(global_catalog, domain):
            try:
                addresses = await self.resolver.lookup_addresses(server.host)
            except NetworkError as error:
                failures.append(f"{error.subject}: {error.cause}")
                continue
            for address in addresses:
                try:
                    return await self._workers.run(self._attempt, server, address, work)
                except _ServerFailedError as reason:
                    failures.append(str(reason))
                finally:
                    self._schedule_sweep()
        raise self._unreachable(global_catalog, domain, failures)

    def _unreachable(self, global_catalog: bool, domain: str | None, failures: Sequence[str]) -> DirectoryUnreachable:
        return DirectoryUnreachable(
            self._subject(global_catalog, domain),
            "no domain controller could be used: " + ", ".join(failures),
            "check that one runs and is not behind a firewall, or name one with directory",
        )

    def _subject(self, global_catalog: bool, domain: str | None) -> str:
        kind = "global catalog" if global_catalog else "directory"
        name = domain or self._realm or self._tickets.credentials.principal
        return f"{kind} of {name}" if name else f"the {kind}"

    def _attempt(self, server: Server, address: str, work: Callable[[Session], T]) -> T:
        """In a thread: one try with one address of one server."""
        session = self._idle.take(server, address) or self._open(server, address)
        try:
            result = work(session)
        except DirectoryUnreachable as error:
            if session.usable:  # it was another connection of the work that was lost
                self._idle.give(server, address, session)
                raise
            session.close()
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

    def _open(self, server: Server, address: str) -> Session:
        try:
            connection = open_sealed(
                address,
                server.port,
                server.host,
                self._tickets.acquire(),
                connect_timeout=self._timeout,
                receive_timeout=self._timeout,
                authority=self._authority if server.tls else None,
            )
        except CredentialError as error:
            raise CredentialError(self._tickets.subject, error.cause, error.remedy) from error
        except (DirectoryUnreachable, DirectoryRefused, PeerNotProven, KDCRefused) as error:
            if isinstance(error, KDCRefused) and not error.of_service:
                raise
            raise _ServerFailedError(f"{error.subject}: {error.cause}") from error
        is_catalog = server.port in (GLOBAL_CATALOG_PORT, GLOBAL_CATALOG_TLS_PORT)
        return Session(connection, server.host, catalog=is_catalog, reach=self.reach)

    async def domain(self) -> str:
        """The DNS name of our own domain.

        :raises CredentialError: when no realm is known.
        """
        if self._realm:
            return self._realm.lower()
        return (await self._workers.run(self._tickets.realm)).lower()

    async def _find(self, global_catalog: bool, domain: str | None) -> list[Server]:
        """The servers to try, in order."""
        if self._servers and (global_catalog or domain is None or domain in await self._given_domains()):
            if not global_catalog:
                return self._servers
            return [given.catalog for given in self._servers]
        name = domain or await self.domain()
        if global_catalog:
            return await self._find_global_catalogs(name)
        return await self._from_dns(f"_ldap._tcp.dc._msdcs.{name}")

    async def _given_domains(self) -> set[str]:
        """The domains for which the given servers stand: that of the realm, and those in their names."""
        return {await self.domain()} | {server.host.partition(".")[2].lower() for server in self._servers}

    async def _find_global_catalogs(self, domain: str) -> list[Server]:
        """Global catalogs are registered below the forest's name, which may be that of another domain."""
        if domain not in self._forests:
            try:
                return await self._from_dns(f"_gc._tcp.{domain}")
            except NotFound:
                forest = await self.run(lambda session: session.forest_dn, domain=domain)
                self._forests[domain] = domain_of(forest)
        return await self._from_dns(f"_gc._tcp.{self._forests[domain]}")

    async def _from_dns(self, name: str) -> list[Server]:
        targets = await self.resolver.lookup_srv(name)
        if not targets:
            raise NotFound(name, "DNS says that the service is not offered", "name a server with directory")
        return [Server(target.host, target.port) for target in targets]

    def _schedule_sweep(self) -> None:
        if self._sweep is None and not self._closed:
            self._sweep = self._reactor.callLater(self._keep, self._swept)

    def _swept(self) -> None:
        self._sweep = None
        # Closing sends a farewell into the socket's buffer; it waits for nobody.
        if self._idle.clear(older_than=self._keep):
            self._schedule_sweep()

    def close(self) -> None:
        """Close idle connections, and those in use as soon as they are not."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._idle.clear(for_good=True)


class _ServerFailedError(Exception):
    """This server cannot be used for the work; another one may."""
