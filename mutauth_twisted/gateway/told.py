"""Servers behind a gateway, which are told who their clients are.

For a Twisted application behind ``twistd mutauth --forward --proxy-protocol``: the header in front
of each connection is parsed, and the application's protocol sees the connection as the client's.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.logger import LogLevel
from zope.interface import Attribute, alsoProvides, implementer

from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.gateway.balancer import (
    UNIX,
    BalancedConnection,
    BalancedFactory,
    Balancers,
    check_balancer,
)
from mutauth_twisted.gateway.forwarded import ForwardedIdentity
from mutauth_twisted.gateway.proxyprotocol import InvalidHeader, ProxyHeader
from mutauth_twisted.log import LimitedLog, Log

#: Whose headers are believed unless it is said otherwise: programs of the same machine.
SAME_MACHINE: Final = ("127.0.0.0/8", "::1", UNIX)
#: Seconds that a header may take.
TIMEOUT: Final = 10.0
#: Connections at once whose header has not come.
_MOST_AWAITED: Final = 1000

_log = Log()


class IForwardedTransport(ITransport):
    """Transport of a connection that a gateway has forwarded.

    ``getPeer()`` is the client's address, and ``getHost()`` the one that it connected to.
    """

    proxy_header: ProxyHeader = Attribute("The :class:`ProxyHeader` of the connection.")

    client_identity: ForwardedIdentity | None = Attribute(
        "The client, a :class:`ForwardedIdentity`; None, where that is accepted: unknown."
    )


class _ForwardedConnection(BalancedConnection):
    factory: ForwardedFactory

    tells_local = True

    def __init__(self, factory: ForwardedFactory, *, is_trusted: bool) -> None:
        super().__init__(factory, has_room=factory.has_room)
        self._is_trusted = is_trusted

    def makeConnection(self, transport: Any) -> None:
        """See IProtocol."""
        super().makeConnection(transport)
        if not self._is_trusted:
            self._settled()
            self._refuse("headers of this address are not believed")

    def introduced(self, header: ProxyHeader) -> None:
        """See :class:`BalancedConnection`."""
        super().introduced(header)
        self.proxy_header = header
        self.client_identity = ForwardedIdentity.told(header)
        if self.client_identity is None and self.factory.needs_identity and not header.local:
            raise InvalidHeader("it does not tell who the client is")
        alsoProvides(self, IForwardedTransport)

    def _begin(self) -> None:
        if self.proxy_header.local and self.factory.needs_identity:
            # A gateway that sees whether this server is there; it has no client to serve.
            self._below.loseConnection()
        else:
            super()._begin()


class ForwardedFactory(BalancedFactory):
    """Wrapper of a server's factory, which serves the clients of gateways only.

    The transport of its protocols provides :class:`IForwardedTransport`.

    :param reactor: provides IReactorTime.
    :param wrapped: the application's factory; it is given the clients' own addresses.
    :param trusted: whose headers are believed: addresses, networks, and ``unix`` for whoever
        connects to a UNIX socket.  All others are refused.
    :param needs_identity: whether connections are refused whose header tells no identity, as those
        of other proxies; those of a gateway itself (LOCAL) are then closed without a word.
    :raises UsageError: for what is not an address.
    """

    remedy = "connect through twistd mutauth --proxy-protocol on a trusted address"

    def __init__(
        self,
        reactor: Any,
        wrapped: IProtocolFactory,
        trusted: Collection[str] = SAME_MACHINE,
        *,
        needs_identity: bool = True,
        timeout: float = TIMEOUT,
    ) -> None:
        trusted = tuple(map(check_balancer, trusted))
        self._trusted = Balancers(trusted)
        self.needs_identity = needs_identity
        self._refusals = LimitedLog(reactor, _log, "forwarded connections refused")
        super().__init__(reactor, wrapped, self._trusted, timeout, _MOST_AWAITED, self._refused)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """The protocol for one connection; see IProtocolFactory."""
        is_trusted = addr is not None and addr in self._trusted
        return _ForwardedConnection(self, is_trusted=is_trusted)

    def _refused(self, address: IAddress, error: MutualAuthError) -> None:
        source = getattr(address, "host", UNIX)
        self._refusals.line(error.code, source, lambda: error.coded, LogLevel.warn)


@implementer(IStreamServerEndpoint)
class ForwardedServerEndpoint:
    """Listen where the inner endpoint does, for the clients of gateways.

    See :class:`ForwardedFactory` for the parameters.

    :param inner: where to listen, on loopback or at a UNIX socket.
    """

    def __init__(
        self,
        reactor: Any,
        inner: IStreamServerEndpoint,
        trusted: Collection[str] = SAME_MACHINE,
        *,
        needs_identity: bool = True,
        timeout: float = TIMEOUT,
    ) -> None:
        self._inner = inner
        self._wrap = lambda factory: ForwardedFactory(
            reactor, factory, trusted, needs_identity=needs_identity, timeout=timeout
        )
        self._wrap(None)  # what is wrong with the parameters is said here

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Start listening; see IStreamServerEndpoint."""
        return self._inner.listen(self._wrap(protocolFactory))
