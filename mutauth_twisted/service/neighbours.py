"""Other instances of a service: whether one authenticates itself where the directory says it is.

Nothing that an instance writes into the directory can tell this.  A mark of its own stays behind
when it is killed, and a lease that it renews is a write to every domain controller each time.
Until the lease ends, clients find an address that does not answer.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.published.base import Elsewhere
from mutauth_twisted.dns import Resolver
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.log import Log
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.protection import Protection
from mutauth_twisted.wire import WIRES

#: Seconds for a connection and its handshake: an instance that is there answers at once, and
#: any peer may keep silent.
_PATIENCE: Final = 3.0
_EVERY_ADDRESS: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound


class _Visitor(Factory):
    """Wants to know who is there, and no session.

    :ivar address: where the service has authenticated itself; None: it has not.
    """

    noisy = False

    def __init__(self) -> None:
        self.address: str | None = None

    def buildProtocol(self, addr: IAddress | None) -> None:
        self.address = str(getattr(addr, "host", ""))


class Neighbours:
    """Knocks as a client of the service, and leaves again once the service is authenticated.

    Whoever only accepts connections is not a neighbour: any user of a host can have a port that an
    instance has left behind, and would keep clients away for good.

    :param reactor: Twisted's reactor.
    :param resolver: finds hosts.
    :param credentials: the service's own, which every service accepts for this (``own`` of its
        factory).
    :ivar seen: says how often this service was come to with its own account.
    :ivar own: addresses and TCP ports on which this service listens, which is not a neighbour of
        itself.
    """

    _log = Log()

    def __init__(self, reactor: Any, resolver: Resolver, credentials: ClientCredentials) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._credentials = credentials
        self.own: frozenset[tuple[str, int]] = frozenset()
        self.seen: Callable[[], int] = int

    async def knock(self, there: Elsewhere) -> bool:
        """Tell whether another instance authenticates itself there."""
        host, port, visitor = there.host, there.binding.port, _Visitor()
        try:
            security = SecurityOptions(
                WIRES[there.binding.wire], Protection(there.binding.protection), _PATIENCE
            )
            inner = HostnameEndpoint(
                self._resolver.reactor_for_endpoints(), host, port, timeout=_PATIENCE
            )
        except (KeyError, ValueError):  # what no client knows either, or no host's name
            return False
        where, seen = f"{host}:{port}", self.seen()
        endpoint = MutualAuthClientEndpoint(
            self._reactor, inner, there.spn, self._credentials, security, where
        )
        try:
            await endpoint.connect(visitor)
        except MutualAuthError as error:
            if visitor.address is None:
                self._log.info(
                    "no other instance runs at {where}: {cause}", where=where, cause=error.cause
                )
                return False
        if visitor.address is None or self._is_own(visitor.address, port):
            return False
        if (
            self.seen() != seen
        ):  # whoever listens there has passed on what we ourselves have answered
            self._log.info("no other instance runs at {where}: it leads here", where=where)
            return False
        return True

    def _is_own(self, address: str, port: int) -> bool:
        if (address, port) in self.own:
            return True
        return any((every, port) in self.own for every in _EVERY_ADDRESS) and _is_local(address)


def _is_local(address: str) -> bool:
    """Tell whether the address is one of this machine's: only such can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
