"""Other instances of a service: whether somebody accepts connections where the directory says so."""

from __future__ import annotations

import socket
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import blockingCallFromThread

from mutauth_twisted.dns import Resolver
from mutauth_twisted.errors import MutualAuthError

#: Seconds for a connection: a host that is there answers at once, and one that is not may keep silent.
_PATIENCE: Final = 3.0
_EVERY_ADDRESS: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound


class Neighbours:
    """Knocks, and leaves again before anything is said.

    :param reactor: Twisted's reactor.
    :param resolver: finds hosts.
    :ivar found: where somebody was found when asked last; None: nobody was.
    :ivar own: addresses and TCP ports on which this service listens, which is no neighbour of itself.
    """

    def __init__(self, reactor: Any, resolver: Resolver) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self.own: frozenset[tuple[str, int]] = frozenset()
        self.found: tuple[str, int] | None = None

    def answers(self, host: str, port: int) -> bool:
        """Whether somebody else accepts connections there; blocks, so not in the reactor's thread."""
        ask: Any = blockingCallFromThread
        answered = bool(ask(self._reactor, self.knock, host, port))
        self.found = (host, port) if answered else None
        return answered

    def knock(self, host: str, port: int) -> Deferred[bool]:
        """The same, without blocking."""
        return Deferred.fromCoroutine(self._knock(host, port))

    async def _knock(self, host: str, port: int) -> bool:
        endpoint = HostnameEndpoint(self._resolver.reactor_for_endpoints(), host, port, timeout=_PATIENCE)
        knocker = Factory.forProtocol(Protocol)
        knocker.noisy = False
        try:
            connected: Any = await endpoint.connect(knocker)
        except (ConnectError, DNSLookupError, MutualAuthError, ValueError):  # the last: what is no name of a host
            return False
        address = connected.transport.getPeer().host
        connected.transport.abortConnection()
        return not self._is_own(address, port)

    def _is_own(self, address: str, port: int) -> bool:
        if (address, port) in self.own:
            return True
        return any((every, port) in self.own for every in _EVERY_ADDRESS) and _is_local(address)


def _is_local(address: str) -> bool:
    """Whether the address is one of this machine's: only such can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
