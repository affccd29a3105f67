"""A client endpoint that finds its service in the directory first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.core.handshake import ACCESS_DENIED, SERVICE_FULL
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import Credentials
from mutauth_twisted.directory.location import Instance, Selection, in_order, locate
from mutauth_twisted.endpoints.hosts import HostEndpoint
from mutauth_twisted.endpoints.locations import Answer, Locations
from mutauth_twisted.errors import (
    AuthenticationError,
    CredentialError,
    KDCError,
    KDCRefused,
    KDCUnreachable,
    MutualAuthError,
    NetworkError,
    PeerNotAuthenticated,
    PeerRefused,
    UsageError,
)
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.log import Log
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.net.tls import Authority, Layer, checking_layer
from mutauth_twisted.protection import Protection
from mutauth_twisted.text import one_line
from mutauth_twisted.wire import WIRES


def _kind(failures: Sequence[MutualAuthError]) -> type[MutualAuthError]:
    """The class that stands for several failures: a KDC's where none is another's."""
    for kind in (KDCRefused, KDCUnreachable):
        if all(isinstance(error, kind) for error in failures):
            return kind
    return (
        AuthenticationError
        if any(isinstance(error, AuthenticationError) for error in failures)
        else NetworkError
    )


def _may_have_moved(error: MutualAuthError) -> bool:
    """Tell whether a service that is elsewhere now would cause this failure of a connection.

    A client whose own credentials or KDC fail, whom the service's policy does not
    allow, or for whom it has no session left, has come to the right place.
    """
    if isinstance(error, KDCError):
        return isinstance(error, KDCRefused) and error.of_service
    if isinstance(error, PeerRefused):
        return error.status not in (ACCESS_DENIED, SERVICE_FULL)
    return not isinstance(error, CredentialError)


# What a client adds where the SCP offers another protection.
_REMEDIES = {
    Protection.SEAL.value: "add protection=seal",
    Protection.SIGN.value: "allow it with protection=sign if others may read what is sent",
    Protection.TLS.value: "add protection=tls",
}
#: Seconds for which what was found is used, unless said otherwise.
KEEP = 60.0
#: Seconds for which an instance that was of no use comes behind the others.
SHUNNED = 30.0
_SHORTEST = 0.5  # seconds; less than that no instance is worth trying


@implementer(IStreamClientEndpoint)
class LocatedEndpoint:
    """Finds a service's instances in the directory and connects to the first that authenticates
    itself.

    :param reactor: Twisted's reactor.
    :param directory: where to look, and with whose tickets.
    :param selection: what to look for.
    :param credentials: who this client is towards the service.
    :param security: protection and package, and the one deadline of search,
        connection and handshake.  What the SCP offers cannot lower the protection.
    :param wire: the wire's name, which has to be what the SCP says; None: that.
    :param authority: who has to vouch for a TLS certificate in addition; None: no authority.
    :param keep: seconds for which connections use what one search found
        (:mod:`~mutauth_twisted.endpoints.locations`), each in an order of its
        own; 0: only those that start together share a search.  A connection that
        fails with what was known, in a way that a moved service would cause,
        has it searched for again.
    :raises UsageError: when the package does not authenticate the service.
    """

    _log = Log()

    def __init__(
        self,
        reactor: Any,
        directory: Directory,
        selection: Selection,
        credentials: Credentials,
        *,
        security: SecurityOptions = SecurityOptions(),
        wire: str | None = None,
        authority: Authority | None = None,
        keep: float = KEEP,
    ) -> None:
        if not security.package.authenticates_service:
            cause = "it does not authenticate the service, and one found in the directory has to be"
            raise UsageError(
                f"package {security.package.name}",
                cause,
                "name an address instead, or use kerberos",
            )
        self._reactor = reactor
        self._directory = directory
        self._selection = selection
        self._credentials = credentials
        self._security = security
        self._timeout = security.timeout
        self._wire = wire
        self._authority = authority
        if authority is not None:
            checking_layer(
                authority, "localhost"
            )  # what the user gave wrong shows before the search
        self._keep = keep
        self._locations: Locations[Instance] = Locations(reactor, self._search, keep)
        #: By host, of those that were found last.
        self._addresses: dict[str, Locations[str]] = {}
        self._layers: dict[str, Layer] = {}
        #: Those that were found last; when each that was of no use may be the first again; and to
        #: which each protocol was connected.
        self._instances: Sequence[Instance] = ()
        self._shunned: dict[tuple[str, int], float] = {}
        self._used: WeakKeyDictionary[IProtocol, Instance] = WeakKeyDictionary()

    def shun(self, connected: IProtocol) -> bool:
        """Try others first, for a while, than the instance that a protocol was connected to.

        :param connected: what :meth:`connect` fired with.
        :return: whether there are others.
        """
        now, used = self._reactor.seconds(), self._used.get(connected)
        if used is not None:
            self._shunned[used.host, used.port] = now + SHUNNED
        return any(not self._is_shunned(each) for each in self._instances)

    def _is_shunned(self, instance: Instance) -> bool:
        until = self._shunned.get((instance.host, instance.port), 0.0)
        return until > float(self._reactor.seconds())

    def close(self) -> None:
        """Keep no connection to the directory any more; connections can be made all the same.

        Without it an idle one is closed some seconds after its last use, for which a timer is in
        the reactor.
        """
        self._directory.close()

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Find, connect and authenticate; see IStreamClientEndpoint.

        Fires with the factory's protocol once both sides are authenticated, and fails
        with a MutualAuthError otherwise.
        """
        failures: list[MutualAuthError] = []
        connecting = Deferred.fromCoroutine(self._connect(protocolFactory, failures))
        return connecting.addTimeout(
            self._timeout, self._reactor, lambda _, seconds: self._too_late(seconds, failures)
        )

    def _too_late(self, seconds: float, failures: list[MutualAuthError]) -> Failure:
        tried = f": {' | '.join(map(str, failures))}" if failures else ""
        return Failure(
            NetworkError(
                self._selection.selector,
                f"not found and authenticated within {seconds:g} s{tried}",
                "check that the directory, the KDC and the service answer, or allow more with "
                "timeout",
                code="handshake-timeout",
            )
        )

    async def _connect(
        self, factory: IProtocolFactory, failures: list[MutualAuthError]
    ) -> IProtocol:
        # A little before the deadline of all this, so that what ends an attempt can say whom it was
        # with.
        deadline = self._reactor.seconds() + self._timeout * 0.97
        known = self._locations.known
        if known is not None:
            connected = await self._try(known, factory, failures, deadline)
            if connected is not None:
                return connected
        if known is None or any(map(_may_have_moved, failures)):
            found = await self._locations.find(newer_than=known)
            failures.clear()  # those of now count, and an instance may have another address
            connected = await self._try(found, factory, failures, deadline, last=True)
            if connected is not None:
                return connected
        if len(failures) == 1:
            raise failures[0]
        worst = next(
            (error for error in failures if isinstance(error, AuthenticationError)), failures[0]
        )
        raise _kind(failures)(
            self._selection.selector,
            f"none of its {len(failures)} instances could be used: "
            + " | ".join(map(str, failures)),
        ) from worst

    def _search(self) -> Deferred[list[Instance]]:
        return locate(self._directory, self._selection).addCallback(self._told)

    def _told(self, found: list[Instance]) -> list[Instance]:
        hosts = {each.host for each in found}
        self._addresses = {
            host: addresses for host, addresses in self._addresses.items() if host in hosts
        }
        self._instances = found
        here = {(each.host, each.port) for each in found}
        self._shunned = {key: until for key, until in self._shunned.items() if key in here}
        self._layers.clear()  # the file of authorities may be another one
        for each in found:
            self._log.info(
                "found {dn}: {host}:{port}, SPN {spn}",
                dn=one_line(each.dn),
                host=each.host,
                port=each.port,
                spn=one_line(str(each.spn)),
            )
        return found

    async def _try(
        self,
        found: Answer[Instance],
        factory: IProtocolFactory,
        failures: list[MutualAuthError],
        deadline: float,
        *,
        last: bool = False,
    ) -> IProtocol | None:
        """Connect to the first instance that authenticates itself; None: none did, and why is in
        the failures.

        Each gets its share of the time that is left: a silent one must not use up that of the
        others.

        :param last: whether this is what a search has just found; otherwise time is needed for one
            as well.
        """
        shares = len(found.items) + (not last)
        for place, instance in enumerate(sorted(in_order(found.items), key=self._is_shunned)):
            share = max(_SHORTEST, (deadline - self._reactor.seconds()) / (shares - place))
            self._log.debug("trying {host}:{port}", host=instance.host, port=instance.port)
            addresses = self._addresses_of(instance.host)
            host = HostEndpoint(self._reactor, instance.host, instance.port, addresses, again=last)
            try:
                connected: IProtocol = await self._endpoint(instance, host, share).connect(factory)
            # A KDC's error too: another instance may have another SPN, a KDC of its own domain, or
            # a ticket already.
            except (NetworkError, AuthenticationError, KDCError) as error:
                if _may_have_moved(error):
                    self._locations.doubt(found)
                    host.doubt()
                if error.code == "connection-failed" and host.tried:
                    error.subject = f"{error.subject} ({host.tried})"
                failures.append(error)
            else:
                self._used[connected] = instance
                return connected
        return None

    def _addresses_of(self, host: str) -> Locations[str]:
        if host not in self._addresses:
            lookup = self._directory.resolver.lookup_addresses
            self._addresses[host] = Locations(self._reactor, lambda: lookup(host), self._keep)
        return self._addresses[host]

    def _endpoint(
        self, instance: Instance, host: HostEndpoint, timeout: float
    ) -> MutualAuthClientEndpoint:
        where = f"{instance.host}:{instance.port}"
        if self._wire not in (None, instance.binding.wire):
            cause = f"it speaks wire {instance.binding.wire!r}, and {self._wire!r} was asked for"
            raise AuthenticationError(
                where, cause, "leave wire out: it comes from the SCP", code="offer-mismatch"
            )
        wire = WIRES.get(instance.binding.wire)
        if wire is None:
            cause, choices = (
                f"its wire {instance.binding.wire!r} is not known here",
                " or ".join(WIRES),
            )
            raise AuthenticationError(
                where,
                cause,
                f"have its SCP say {choices}, with mutauth scp publish --wire",
                code="offer-mismatch",
            )
        offered, asked = instance.binding.protection, self._security.protection
        sealed_if_asked = wire.flags_decide and (offered, asked) == (
            Protection.SIGN.value,
            Protection.SEAL,
        )
        if offered != asked.value and not sealed_if_asked:
            raise AuthenticationError(
                where,
                f"it offers protection {offered!r}, and {asked.value!r} was asked for",
                _REMEDIES.get(
                    offered, "have its SCP corrected, with mutauth scp publish --protection"
                ),
                code="offer-mismatch",
            )
        return MutualAuthClientEndpoint(
            self._reactor,
            host,
            instance.spn,
            self._credentials,
            evolve(self._security, wire=wire, timeout=timeout),
            where=where,
            tls=self._layer(instance, where),
        )

    def _layer(self, instance: Instance, where: str) -> Layer | None:
        if self._authority is None:
            return None
        try:
            if instance.host not in self._layers:
                self._layers[instance.host] = checking_layer(self._authority, instance.host)
            return self._layers[instance.host]
        except (
            UsageError
        ) as error:  # of the SCP's host: a name that the user gave was looked at before
            raise PeerNotAuthenticated(
                where,
                "its host's name can be in no certificate",
                "name another with tls-name",
                code="certificate-wrong-name",
            ) from error
