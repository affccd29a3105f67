"""A client endpoint that finds its service in the directory first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.connection import Directory
from mutauth_twisted.directory.location import Instance, Selection, in_order, locate
from mutauth_twisted.errors import (
    AuthenticationError,
    KDCError,
    KDCRefused,
    KDCUnreachable,
    MutualAuthError,
    NetworkError,
    PeerNotProven,
    UsageError,
)
from mutauth_twisted.log import Log
from mutauth_twisted.net.endpoints import MutualAuthClientEndpoint
from mutauth_twisted.net.protocol import Channel
from mutauth_twisted.net.tls import Authority, Layer, checking_layer
from mutauth_twisted.policy import Protection
from mutauth_twisted.wire import WIRES


def _kind(failures: Sequence[MutualAuthError]) -> type[MutualAuthError]:
    """The class that stands for several failures: a KDC's where none is another's."""
    for kind in (KDCRefused, KDCUnreachable):
        if all(isinstance(error, kind) for error in failures):
            return kind
    return AuthenticationError if any(isinstance(error, AuthenticationError) for error in failures) else NetworkError


# What a client adds where the SCP offers another protection.
_REMEDIES = {
    Protection.SEAL.value: "add protection=seal",
    Protection.SIGN.value: "allow it with protection=sign if everybody may read what is sent",
    Protection.TLS.value: "add protection=tls",
}
_SHORTEST = 0.5  # seconds; less than that no instance is worth trying


@implementer(IStreamClientEndpoint)
class LocatedEndpoint:
    """Finds a service's instances in the directory and connects to the first that proves itself.

    :param reactor: Twisted's reactor.
    :param directory: where to look, and with whose tickets.
    :param selection: what to look for.
    :param credentials: who this client is towards the service.
    :param channel: protection and package, and the one deadline of search,
        connection and exchange.  What the SCP offers cannot lower the protection.
    :param wire: the wire's name, which has to be what the SCP says; None: that.
    :param authority: who has to vouch for a TLS certificate in addition; None: nobody.
    :param keep: seconds for which what was found is used again.  When nothing
        of it can be used any more, it is looked for anew.
    :raises UsageError: when the package proves no service.
    """

    _log = Log()

    def __init__(
        self,
        reactor: Any,
        directory: Directory,
        selection: Selection,
        credentials: ClientCredentials,
        *,
        channel: Channel = Channel(),
        wire: str | None = None,
        authority: Authority | None = None,
        keep: float = 5.0,
    ) -> None:
        if not channel.package.proves_service:
            cause = "it proves no service, and what is found in the directory has to be proven"
            raise UsageError(f"package {channel.package.value}", cause, "name an address instead, or use kerberos")
        self._reactor = reactor
        self._directory = directory
        self._selection = selection
        self._credentials = credentials
        self._channel = channel
        self._timeout = channel.timeout
        self._wire = wire
        self._authority = authority
        if authority is not None:
            checking_layer(authority, "localhost")  # what the user gave wrong shows before the search
        self._keep = keep
        self._known: list[Instance] = []
        self._known_since = 0.0

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Find, connect and authenticate; see IStreamClientEndpoint.

        Fires with the factory's protocol once both sides are proven, and fails
        with a MutualAuthError otherwise.
        """
        failures: list[MutualAuthError] = []
        connecting = Deferred.fromCoroutine(self._connect(protocolFactory, failures))
        return connecting.addTimeout(self._timeout, self._reactor, lambda _, seconds: self._too_late(seconds, failures))

    def _too_late(self, seconds: float, failures: list[MutualAuthError]) -> Failure:
        tried = f": {' | '.join(map(str, failures))}" if failures else ""
        return Failure(
            NetworkError(
                self._selection.selector,
                f"not found and proven within {seconds:g} s{tried}",
                "check that the directory, the KDC and the service answer, or allow more with timeout",
            )
        )

    async def _connect(self, factory: IProtocolFactory, failures: list[MutualAuthError]) -> IProtocol:
        known = self._known if time.monotonic() - self._known_since < self._keep else []
        # A little before the deadline of all this, so that what ends an attempt can say whom it was with.
        deadline = self._reactor.seconds() + self._timeout * 0.97
        if known:
            connected = await self._try(in_order(known), factory, failures, deadline)
            if connected is not None:
                return connected
        # They may have moved since.
        found = [each for each in await self._find() if each not in known]
        connected = await self._try(found, factory, failures, deadline)
        if connected is not None:
            return connected
        self._known = []
        if len(failures) == 1:
            raise failures[0]
        worst = next((error for error in failures if isinstance(error, AuthenticationError)), failures[0])
        raise _kind(failures)(
            self._selection.selector,
            f"none of its {len(failures)} instances could be used: " + " | ".join(map(str, failures)),
        ) from worst

    async def _find(self) -> list[Instance]:
        found = await locate(self._directory, self._selection)
        self._known, self._known_since = found, time.monotonic()
        return found

    async def _try(
        self, instances: list[Instance], factory: IProtocolFactory, failures: list[MutualAuthError], deadline: float
    ) -> IProtocol | None:
        """Connect to the first instance that proves itself; None: none did, and why is in the failures.

        Each gets its share of the time that is left: a silent one must not use up that of the others.
        """
        for place, instance in enumerate(instances):
            share = max(_SHORTEST, (deadline - self._reactor.seconds()) / (len(instances) - place))
            self._log.info(
                "found {dn}: {host}:{port}, SPN {spn}",
                dn=instance.dn,
                host=instance.host,
                port=instance.port,
                spn=instance.spn,
            )
            try:
                connected: IProtocol = await self._endpoint(instance, share).connect(factory)
            # A KDC's error too: another instance may have another SPN, a KDC of its own domain, or a ticket already.
            except (NetworkError, AuthenticationError, KDCError) as error:
                self._known = []
                failures.append(error)
            else:
                return connected
        return None

    def _endpoint(self, instance: Instance, timeout: float) -> MutualAuthClientEndpoint:
        where = f"{instance.host}:{instance.port}"
        if self._wire not in (None, instance.binding.wire):
            cause = f"it speaks wire {instance.binding.wire!r}, and {self._wire!r} was asked for"
            raise AuthenticationError(where, cause, "leave wire out: it comes from the SCP")
        wire = WIRES.get(instance.binding.wire)
        if wire is None:
            cause, choices = f"its wire {instance.binding.wire!r} is not known here", " or ".join(WIRES)
            raise AuthenticationError(where, cause, f"have its SCP say {choices}, with mutauth scp publish --wire")
        offered, asked = instance.binding.protection, self._channel.protection
        sealed_if_asked = wire.flags_decide and (offered, asked) == (Protection.SIGN.value, Protection.SEAL)
        if offered != asked.value and not sealed_if_asked:
            raise AuthenticationError(
                where,
                f"it offers protection {offered!r}, and {asked.value!r} was asked for",
                _REMEDIES.get(offered, "have its SCP corrected, with mutauth scp publish --protection"),
            )
        reactor = self._directory.resolver.reactor_for_endpoints()
        return MutualAuthClientEndpoint(
            self._reactor,
            HostnameEndpoint(reactor, instance.host, instance.port),
            instance.spn,
            self._credentials,
            evolve(self._channel, wire=wire, timeout=timeout),
            where=where,
            tls=self._layer(instance, where),
        )

    def _layer(self, instance: Instance, where: str) -> Layer | None:
        if self._authority is None:
            return None
        try:
            return checking_layer(self._authority, instance.host)
        except UsageError as error:  # of the SCP's host: a name that the user gave was looked at before
            raise PeerNotProven(where, "its host's name can be in no certificate", "name another with tls-name") from error
