"""The plain service behind a gateway, and what it is told of each client.

Theory of operation.  A :class:`Backend` makes one connection for each authenticated client, while
that client waits unread.  What the backend is to know of the client, such as a PROXY protocol
header, is an *introduction*: an object made by an :data:`Introducer` for each client.  The order of
events, which is the same for every introducer::

    introducer(client)       before the backend is dialled.  ``client`` is the client's transport,
                             with ``peer_identity``, ``getPeer()`` and ``getHost()``.  Raises a
                             MutualAuthError to refuse the client; the backend is not dialled then
    .connected(backend)      the backend is connected, and nothing was sent: ``backend`` is its
                             transport, with ``getHost()`` and ``getPeer()``.  Raises likewise; the
                             connection is aborted then.  Returns the bytes that go first, before
                             those of later introducers and of the client
    .closed()                the backend's connection is over; once for each that was connected

So an introduction that fails keeps its client from the backend: nothing is forwarded without it.
The local address from which the backend is dialled is part of the endpoint; see
:func:`backend_endpoint`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from mutauth_twisted.gateway.relay import Relay
from mutauth_twisted.net.plain import parse_client


class Introduction:
    """The introduction of one client to its backend: this one says nothing; see the module."""

    def connected(self, backend: Any) -> bytes:
        """Return the bytes that the backend gets before the client's.

        :param backend: the transport of the backend's connection.
        :raises MutualAuthError: to refuse the client.
        """
        return b""

    def closed(self) -> None:
        """The backend's connection is over."""


#: Makes the introduction of a client, which is given by its transport; see the module.
Introducer = Callable[[Any], Introduction]


class _BackendRelay(Relay):
    """A backend's connection, which starts with its introductions."""

    def __init__(self, introductions: Sequence[Introduction]) -> None:
        super().__init__()
        self._introductions = introductions
        self._introduced: list[Introduction] = []

    def connectionMade(self) -> None:
        super().connectionMade()
        self.fault: Failure | None = None
        transport: Any = self.transport
        try:
            for introduction in self._introductions:
                self._introduced.append(introduction)
                if first := introduction.connected(transport):
                    transport.write(first)
        except Exception:
            self.fault = Failure()
            transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        introduced, self._introduced = self._introduced, []
        try:
            super().connectionLost(reason)
        finally:
            for introduction in introduced:
                introduction.closed()


class _BackendFactory(Factory):
    noisy = False

    def __init__(self, introductions: Sequence[Introduction]) -> None:
        self._introductions = introductions

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _BackendRelay(self._introductions)


def _introduced(relay: _BackendRelay) -> Relay:
    if relay.fault is not None:
        relay.fault.raiseException()
    return relay


class Backend:
    """Makes a connection to the plain service for each authenticated client.

    :param endpoint: where the service is.
    :param introducers: what it is told of each client, in this order.
    """

    def __init__(
        self, endpoint: IStreamClientEndpoint, introducers: Sequence[Introducer] = ()
    ) -> None:
        self._endpoint = endpoint
        self._introducers = tuple(introducers)

    def connect(self, client: Any) -> Deferred[Relay]:
        """Connect for a client.

        :param client: its transport.
        :return: fires with the backend's side of the relay, to be joined with the client's; fails
            with why there is none.
        """
        try:
            introductions = [introduce(client) for introduce in self._introducers]
        except Exception:
            return fail(Failure())
        connecting: Deferred[Any] = maybeDeferred(
            self._endpoint.connect, _BackendFactory(introductions)
        )
        return connecting.addCallback(_introduced)


def backend_endpoint(reactor: Any, text: str, bind: str | None = None) -> IStreamClientEndpoint:
    """The endpoint of a backend.

    :param text: a client endpoint string, such as ``tcp:127.0.0.1:5432``.
    :param bind: the local IP address to dial from; None: the system's choice.
    :raises UsageError: when it is not an endpoint.
    """
    return parse_client(reactor, text if bind is None else f"{text}:bindAddress={bind}")
