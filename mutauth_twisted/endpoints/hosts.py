"""A client endpoint for a host whose addresses are looked up once for many connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from mutauth_twisted.dns import endpoint_at
from mutauth_twisted.endpoints.locations import Answer, Locations
from mutauth_twisted.errors import NetworkError
from mutauth_twisted.text import one_line

_TIMEOUT = 3600  # seconds; whoever connects has a deadline


@implementer(IStreamClientEndpoint)
class HostEndpoint:
    """Connects to a port of a host, at the addresses that were found last.

    :param reactor: provides IReactorTCP and IReactorTime.
    :param host: its DNS name, for errors.
    :param addresses: its addresses.
    :param again: whether this is a second attempt, which does not use what the first one failed
        with.
    :ivar used: the answer that :meth:`connect` uses; None before there is one.
    """

    def __init__(
        self, reactor: Any, host: str, port: int, addresses: Locations[str], *, again: bool = False
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._addresses = addresses
        self._again = again
        self.used: Answer[str] | None = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See IStreamClientEndpoint.

        Fails with a NetworkError when the host has no address.
        """
        self.used = self._addresses.undoubted if self._again else self._addresses.known
        if self.used is not None:
            return self._to(self.used.items).connect(protocolFactory)
        return Deferred.fromCoroutine(self._looked_up(protocolFactory))

    async def _looked_up(self, factory: IProtocolFactory) -> IProtocol:
        try:
            self._host.encode("idna")  # the system's resolver never answers where it could not ask
        except UnicodeError as error:
            cause = f"invalid host name ({one_line(str(error))})"
            raise NetworkError(
                f"host {self._host}",
                cause,
                "check the name in the directory",
                code="dns-name-invalid",
            ) from error
        self.used = await self._addresses.find(newer_than=self._addresses.known)
        connected: IProtocol = await self._to(self.used.items).connect(factory)
        return connected

    def _to(self, addresses: Sequence[str]) -> IStreamClientEndpoint:
        if len(addresses) > 1:
            return endpoint_at(self._reactor, self._host, addresses, self._port, _TIMEOUT)
        kind = TCP6ClientEndpoint if ":" in addresses[0] else TCP4ClientEndpoint
        return kind(self._reactor, addresses[0], self._port, timeout=_TIMEOUT)

    @property
    def tried(self) -> str:
        """The addresses that the host's name stood for; empty: there are no others to tell."""
        addresses = ", ".join(self.used.items) if self.used is not None else ""
        return "" if addresses == self._host else addresses

    def doubt(self) -> None:
        """The connection failed as it would if the host had other addresses now."""
        if self.used is not None:
            self._addresses.doubt(self.used)
