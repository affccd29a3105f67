"""A client endpoint that finds its service in the directory first."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.connection import Directory
from mutauth_twisted.directory.location import Instance, locate
from mutauth_twisted.errors import AuthenticationError, MutualAuthError, NetworkError
from mutauth_twisted.net.endpoints import MutualAuthClientEndpoint
from mutauth_twisted.net.protocol import Channel
from mutauth_twisted.policy import Protection
from mutauth_twisted.wire import WIRES


@frozen
class Selection:
    """Which service connection point to look for.

    :param selector: a keyword, a DN, or an objectGUID.
    :param service_class: what its serviceClassName has to be; None: anything.
    :param base: the DN below which to look; None: the whole forest.
    :param spn_form: ``guid``, ``dn`` or ``host``; None: what the SCP advertises.
    :param hosts: a shell pattern its host has to match; None: anything.
    """

    selector: str
    service_class: str | None = None
    base: str | None = None
    spn_form: str | None = None
    hosts: str | None = None


@implementer(IStreamClientEndpoint)
class LocatedEndpoint:
    """Finds a service's instances in the directory and connects to the first that proves itself.

    :param reactor: Twisted's reactor.
    :param directory: where to look, and with whose tickets.
    :param selection: what to look for.
    :param credentials: who this client is towards the service.
    :param timeout: the one deadline of search, connection and exchange, in seconds.
    :param wire: the wire's name; None: what the SCP says.
    :param protection: what is done to every byte; an SCP that offers another is refused.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        directory: Directory,
        selection: Selection,
        credentials: ClientCredentials,
        *,
        timeout: float = 10.0,
        wire: str | None = None,
        protection: Protection = Protection.SEAL,
    ) -> None:
        self._reactor = reactor
        self._directory = directory
        self._selection = selection
        self._credentials = credentials
        self._timeout = timeout
        self._wire = wire
        self._protection = protection

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Find, connect and authenticate; see IStreamClientEndpoint.

        Fires with the factory's protocol once both sides are proven, and fails
        with a MutualAuthError otherwise.
        """
        connecting = Deferred.fromCoroutine(self._connect(protocolFactory))
        return connecting.addTimeout(self._timeout, self._reactor, self._too_late)

    def _too_late(self, result: object, timeout: float) -> Failure:
        return Failure(
            NetworkError(
                self._selection.selector,
                f"not found and proven within {timeout:g} s",
                "check that the directory, the KDC and the service answer, or allow more with timeout",
            )
        )

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        selection = self._selection
        instances = await locate(
            self._directory,
            selection.selector,
            service_class=selection.service_class,
            base=selection.base,
            spn_form=selection.spn_form,
            hosts=selection.hosts,
        )
        failures: list[MutualAuthError] = []
        for instance in instances:
            self._log.info(
                "found {dn}: {host}:{port}, SPN {spn}",
                dn=instance.scp.dn,
                host=instance.host,
                port=instance.port,
                spn=instance.spn,
            )
            try:
                return await self._endpoint(instance).connect(factory)
            except (NetworkError, AuthenticationError) as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        worst = next((error for error in failures if isinstance(error, AuthenticationError)), failures[0])
        raise type(worst)(
            selection.selector,
            f"none of its {len(failures)} instances could be used: " + " | ".join(map(str, failures)),
        ) from worst

    def _endpoint(self, instance: Instance) -> MutualAuthClientEndpoint:
        where = f"{instance.host}:{instance.port}"
        wire = WIRES.get(self._wire or instance.binding.wire)
        if wire is None:
            raise AuthenticationError(where, f"its wire {instance.binding.wire!r} is not known here", "name one with wire")
        if instance.binding.protection != self._protection.value:
            raise AuthenticationError(
                where,
                f"it offers protection {instance.binding.protection!r}, and {self._protection.value!r} was asked for",
                f"allow it with protection={instance.binding.protection} if you mean to",
            )
        reactor = self._directory.resolver.reactor_for_endpoints()
        return MutualAuthClientEndpoint(
            self._reactor,
            HostnameEndpoint(reactor, instance.host, instance.port),
            instance.spn,
            self._credentials,
            Channel(wire=wire, protection=self._protection, timeout=self._timeout),
            where=where,
        )
