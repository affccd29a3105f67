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

Inside TLS, "connected" is when the handshake is done and the backend's name was found in its
certificate.  A backend that is not TLS has to be on this machine, unless its owner accepts the risk
by an option; that is seen to at the start, and again in each connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from itertools import chain
from pathlib import Path
from typing import Any, Final, cast

from OpenSSL.SSL import Error as TLSError
from service_identity import CertificateError, VerificationError
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IAddress, IHandshakeListener, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.errors import NetworkError, UsageError
from mutauth_twisted.files import digest
from mutauth_twisted.findings import Finding
from mutauth_twisted.gateway.relay import HalfClosed, Relay, RelayFactory
from mutauth_twisted.net.plain import parse_client, split_endpoint
from mutauth_twisted.net.tls import named_client, verify_name

#: What a backend that cannot be reached may fail with.
_FAILURES: Final = (
    ConnectError,
    ConnectionClosed,
    DNSLookupError,
    TimeoutError,
    TLSError,
    CertificateError,
    VerificationError,
)
#: For how many seconds a failed connection is what is known of a backend.
FORGOTTEN: Final = 60.0
#: Seconds that a connection may take, unless said otherwise.
TIMEOUT: Final = 10.0


def is_local(host: str) -> bool:
    """True for an address or name that does not leave this machine (RFC 6761 6.3)."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host.rstrip(".").lower() == "localhost"
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


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
    """A backend's connection, which starts with its introductions.

    :ivar ready: fires with it when they are said, and fails with why they are not.
    """

    def __init__(self, backend: Backend, introductions: Sequence[Introduction]) -> None:
        super().__init__()
        self._backend = backend
        self._introductions = introductions
        self._introduced: list[Introduction] = []
        self.ready: Deferred[Relay] = Deferred(lambda _: self.abort())

    def connectionMade(self) -> None:
        super().connectionMade()
        self._begin()

    def _begin(self) -> None:
        self._introduce()

    def _introduce(self) -> None:
        transport: Any = self.transport
        try:
            self._backend.verify(transport)
            for introduction in self._introductions:
                self._introduced.append(introduction)
                if first := introduction.connected(transport):
                    transport.write(first)
        except Exception:
            transport.abortConnection()
            self._settle(Failure())
        else:
            self._settle(self)

    def _settle(self, result: Any) -> None:
        if not self.ready.called:
            self.ready.callback(result)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        introduced, self._introduced = self._introduced, []
        try:
            self._settle(reason)
            super().connectionLost(reason)
        finally:
            for introduction in introduced:
                introduction.closed()


# A class of its own: of the interfaces that they know, Twisted's endpoints pass on the last only.
# With this one IHalfCloseableProtocol is lost, for which TLS has no use.
@implementer(IHandshakeListener)
class _TLSBackendRelay(_BackendRelay):
    """The same inside TLS."""

    def _begin(self) -> None:
        """Wait for TLS."""

    def handshakeCompleted(self) -> None:
        """TLS is there; see IHandshakeListener."""
        self._introduce()


class _BackendFactory(Factory):
    noisy = False

    def __init__(self, backend: Backend, introductions: Sequence[Introduction]) -> None:
        self._backend = backend
        self._introductions = introductions

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        made = _TLSBackendRelay if self._backend.is_tls else _BackendRelay
        return made(self._backend, self._introductions)


class _Greeting(Introduction):
    """The bytes that a connection without a client begins with."""

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting

    def connected(self, backend: Any) -> bytes:
        """See :class:`Introduction`."""
        return self._greeting


def _timed_out(*_: object) -> Failure:
    # Endpoints have errors of their own for an attempt that was given up.
    return Failure(TimeoutError())


class Backend:
    """Makes a connection to the plain service for each authenticated client.

    :param reactor: provides IReactorTime.
    :param endpoint: where the service is.
    :param where: the same for errors.
    :param introducers: what it is told of each client, in this order.
    :param timeout: seconds that a connection may take, its TLS included.
    :param name: inside TLS, the name that its certificate has to have; None: there is no TLS.
    :param local: whether it has to be on this machine.
    :param greeting: what a connection without a client begins with; see :meth:`probe`.
    :param contents: the digests of the files that its TLS was made of.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        where: str = "the backend",
        introducers: Sequence[Introducer] = (),
        *,
        timeout: float = TIMEOUT,
        name: str | None = None,
        local: bool = False,
        greeting: bytes = b"",
        contents: Mapping[str, bytes | None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._introducers = tuple(introducers)
        self._timeout = timeout
        self._name = name
        self._local = local
        self._greeting = greeting
        self._contents = contents or {}
        self.where = where
        #: How many connections there were, and how many could not be made.
        self.connected = self.failed = 0
        self._fault: Finding | None = None
        self._fault_at = 0.0

    @property
    def is_tls(self) -> bool:
        """True if it is inside TLS."""
        return self._name is not None

    @property
    def is_as_read(self) -> bool:
        """True while the files that its TLS was made of have the same content."""
        return self._contents == _contents_of(self.where)

    @property
    def fault(self) -> Finding | None:
        """Why it could not be reached, the last time and not long ago; None: nothing is known."""
        is_old = self._reactor.seconds() - self._fault_at > FORGOTTEN
        return None if is_old else self._fault

    def connect(self, client: Any) -> Deferred[Relay]:
        """Connect for a client.

        :param client: its transport.
        :return: fires with the backend's side of the relay, to be joined with the client's; fails
            with why there is none, a NetworkError ``backend-unreachable`` where it is the
            backend's doing.
        """
        try:
            introductions = [introduce(client) for introduce in self._introducers]
        except Exception:
            return fail(Failure())
        return self._connect(introductions)

    def probe(self) -> Deferred[None]:
        """Connect for no client, and leave again; fails as :meth:`connect` does."""

        def leave(relay: Relay) -> None:
            transport: Any = relay.transport
            transport.loseConnection()

        return self._connect([_Greeting(self._greeting)]).addCallback(leave)

    def _connect(self, introductions: Sequence[Introduction]) -> Deferred[Relay]:
        factory = _BackendFactory(self, introductions)
        connecting: Deferred[Any] = maybeDeferred(self._endpoint.connect, factory)
        connecting.addCallback(lambda relay: relay.ready)
        connecting.addTimeout(self._timeout, self._reactor, _timed_out)
        return connecting.addCallbacks(self._reached, self._failed)

    def _reached(self, relay: Relay) -> Relay:
        self.connected += 1
        self._fault = None
        return relay

    def _failed(self, failure: Failure) -> Failure:
        if failure.check(CancelledError):  # the client has left
            return failure
        if not failure.check(*_FAILURES):
            return failure
        error = NetworkError(
            f"backend {self.where}",
            self._cause(cast(Exception, failure.value)),
            "check that it runs, and its address",
            code="backend-unreachable",
        )
        error.__cause__ = failure.value
        self.failed += 1
        self._fault, self._fault_at = error.finding, self._reactor.seconds()
        return Failure(error)

    def _cause(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"it did not answer within {self._timeout:g} s"
        if isinstance(error, Refused):
            return "nothing listens there (connection refused)"
        if isinstance(error, (CertificateError, VerificationError)):
            return f"its certificate is not for {self._name}"
        if isinstance(error, TLSError):
            reasons = [each[-1] for each in (error.args or [[]])[0] if each]
            return f"the TLS handshake failed: {', '.join(reasons) or 'it was cut'}"
        return str(error).rstrip(".")

    def verify(self, transport: Any) -> None:
        """See that a connection leads where it may: to the right name, or to this machine.

        :raises CertificateError: for a certificate without names, which Twisted lets pass.
        :raises VerificationError: for one with others.
        :raises UsageError: when it is not on this machine, and has to be.
        """
        if self._name is not None:
            verify_name(transport.getHandle(), self._name)
        host = getattr(transport.getPeer(), "host", None)
        if self._local and host is not None and not is_local(host):
            raise _not_local(self.where)


class GatewayFactory(RelayFactory):
    """Connects each authenticated client to a backend.

    :param backend: the backend.
    :param refused: is told why a client has no connection to it.
    :param half_closed: how long the two connections may be half-closed.
    """

    def __init__(
        self, backend: Backend, refused: Callable[[Failure], None], half_closed: HalfClosed
    ) -> None:
        super().__init__(backend.connect, refused, half_closed=half_closed)
        self.backend = backend


def _not_local(where: str) -> UsageError:
    return UsageError(
        f"backend {where}",
        "it is not on this machine, and nothing protects what goes there",
        "use tls:, or --unsafe-backend if only trusted people can reach that network",
        code="backend-not-protected",
    )


def make_backend(
    reactor: Any,
    text: str,
    introducers: Sequence[Introducer] = (),
    *,
    bind: str | None = None,
    timeout: float = TIMEOUT,
    unsafe: bool = False,
    greeting: bytes = b"",
) -> Backend:
    """Make the backend at an address.

    :param text: a client endpoint string, such as ``tcp:127.0.0.1:5432``.
    :param bind: the local IP address to dial from; None: the system's choice.
    :param unsafe: whether it may be anywhere, though it is not TLS.
    :raises UsageError: when it is not an endpoint, or one that is not protected.
    """
    contents = _contents_of(text)
    kind, arguments, keywords = split_endpoint(text)
    if bind is not None:
        text = f"{text}:bindAddress={bind}"
    host = (keywords.get("host") or next(iter(arguments), "")).strip("[]")
    endpoint = _tls_endpoint(reactor, text) if kind == "tls" else parse_client(reactor, text)
    is_protected = kind in ("tls", "mutauth")
    if not (unsafe or is_protected or kind == "unix" or (kind == "tcp" and is_local(host))):
        raise _not_local(text)
    return Backend(
        reactor,
        endpoint,
        text,
        introducers,
        timeout=timeout,
        name=host if kind == "tls" else None,
        local=not (unsafe or is_protected),
        greeting=greeting,
        contents=contents,
    )


#: Keywords of ``tls:HOST:PORT`` that name files; all names are those of Twisted's own.
_TLS_FILES: Final = ("trustRoots", "certificate", "privateKey")
_TLS: Final = frozenset({"host", "port", "bindAddress", *_TLS_FILES})


def tls_files(text: str) -> list[str]:
    """The files that the TLS of a backend at this address is made of."""
    kind, _, given = split_endpoint(text)
    found = [Path(given[key]) for key in _TLS_FILES if key in given] if kind == "tls" else []
    inside = chain.from_iterable(path.glob("*.pem") for path in found if path.is_dir())
    return sorted(map(str, chain(found, inside)))


def _contents_of(text: str) -> Mapping[str, bytes | None]:
    return {path: digest(path) for path in tls_files(text)}


def _tls_endpoint(reactor: Any, text: str) -> IStreamClientEndpoint:
    # Not Twisted's own: it takes a certificate without names for one of any name, and logs that
    # with a traceback.
    _, arguments, keywords = split_endpoint(text)
    given = dict(zip(("host", "port"), arguments, strict=False)) | keywords
    remedy = "write tls:HOST:PORT, and :trustRoots=FILE for an authority of your own"
    if len(arguments) > 2 or not given.keys() <= _TLS or not {"host", "port"} <= given.keys():
        raise UsageError(f"endpoint {text}", "a part of it is missing, or one too many", remedy)
    host, port = given["host"], given["port"]
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise UsageError(f"endpoint {text}", "its port is invalid", remedy)
    creator = named_client(
        host.strip("[]"),
        given.get("trustRoots"),
        given.get("certificate"),
        given.get("privateKey"),
    )
    bind = given.get("bindAddress")
    inner = HostnameEndpoint(
        reactor, host.strip("[]"), int(port), bindAddress=None if bind is None else (bind, 0)
    )
    return wrapClientTLS(creator, inner)
