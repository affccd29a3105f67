"""Sockets that exist before a service listens on them.

They are bound while the process still may (ports below 1024), come from systemd, or are inherited
by a worker from its parent.  The service listens on them when it is ready to serve: until then a
client of a TCP port that is only bound is refused, and goes on to another replica.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection
from typing import Any, Final

from twisted.internet import unix
from twisted.internet.abstract import isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, ILoggingContext, IProtocol, IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from mutauth_twisted.errors import NetworkError, UsageError
from mutauth_twisted.net.descriptors import guard
from mutauth_twisted.net.plain import BACKLOG, listen_on, parse_server

#: Endpoints whose socket can be bound before anything listens on it; others listen at once.
_HELD = re.compile(r"(?:haproxy:)*(?:tcp6?|ssl|unix|systemd):")
_PASSED = re.compile(r"\bsystemd:.*")
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


@implementer(IProtocolFactory, ILoggingContext)
class _Later:
    """A factory that is known when the service listens, and another one when another service takes
    its place.
    """

    noisy = False

    def __init__(self) -> None:
        self._factory: IProtocolFactory | None = None
        self._started = False

    def use(self, factory: IProtocolFactory | None) -> None:
        before, self._factory = self._factory, factory
        if self._started:
            if factory is not None:
                factory.doStart()
            if before is not None:
                before.doStop()

    def logPrefix(self) -> str:
        return type(self._factory or self).__name__

    def doStart(self) -> None:
        self._started = True
        if self._factory is not None:
            self._factory.doStart()

    def doStop(self) -> None:
        self._started = False
        if self._factory is not None:
            self._factory.doStop()

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        return None if self._factory is None else self._factory.buildProtocol(addr)


class _Held:
    """A socket with the factory that an endpoint has wrapped for it.

    :param port: Twisted's port of it, which accepts nothing; None: it has none yet.
    """

    def __init__(self, sock: socket.socket, factory: Any, backlog: int, port: Any = None) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.factory = factory
        self.backlog = backlog
        self.port = port

    def listen(self, reactor: Any) -> Any:
        if self.port is not None:
            self.port.startReading()
            return self.port
        self.socket.listen(self.backlog)
        with self.socket as sock:  # the port has a copy of its own
            if sock.family == socket.AF_UNIX:
                return _adopt_unix(reactor, sock.fileno(), self.factory)
            return reactor.adoptStreamPort(sock.fileno(), sock.family, self.factory)


def _adopt_unix(reactor: Any, descriptor: int, factory: Any) -> Any:
    """Accept connections of a UNIX socket that is not ours: its file's mode stays, and at the end
    the file, and the socket as others have it.

    Twisted's own adoptStreamPort() has everybody write to the file (mode 0666) and removes it at
    the end, unless its name is an abstract one, which begins with a NUL; and it shuts the socket
    down for all that have it, which it does not do with TCP.
    """
    port = unix.Port._fromListeningDescriptor(reactor, descriptor, factory)
    port._bindPath = b"\0" + port._bindPath
    port._shouldShutdown = False
    port.backlog = BACKLOG
    port.startListening()
    return port


class _Binding:
    """Stands in for the reactor of a server endpoint, whose listen() gets a bound socket.

    :param inherited: the socket, where there is one already.
    """

    def __init__(self, reactor: Any, inherited: socket.socket | None) -> None:
        self._reactor = reactor
        self._inherited = inherited

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> _Held:
        """See IReactorTCP."""
        return _Held(self._inherited or _bound(interface, port), factory, backlog)

    def listenSSL(
        self,
        port: int,
        factory: IProtocolFactory,
        contextFactory: Any,
        backlog: int = 50,
        interface: str = "",
    ) -> _Held:
        """See IReactorSSL."""
        wrapped = TLSMemoryBIOFactory(contextFactory, False, factory)
        return self.listenTCP(port, wrapped, backlog, interface)

    def listenUNIX(
        self,
        address: str,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: int = 0,
    ) -> _Held:
        """See IReactorUNIX."""
        if self._inherited is not None:
            return _Held(self._inherited, factory, backlog)
        # Twisted knows how to take over the file of a process that was killed.
        port = self._reactor.listenUNIX(address, factory, backlog, mode, wantPID)
        port.stopReading()
        return _Held(port.socket, factory, backlog, port)

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> _Held:
        """See IReactorSocket."""
        inherited = self._inherited
        if inherited is None:
            inherited = socket.socket(fileno=os.dup(fileDescriptor))
            _check(inherited, addressFamily or inherited.family)
        return _Held(inherited, factory, BACKLOG)


def _bound(interface: str, port: int) -> socket.socket:
    """A TCP socket that is bound, as Twisted binds its own, and does not listen."""
    family = socket.AF_INET6 if isIPv6Address(interface) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        flags = socket.AI_PASSIVE | socket.AI_NUMERICHOST
        found = socket.getaddrinfo(interface or None, port, family, socket.SOCK_STREAM, 0, flags)
        sock.bind(found[0][4])
    except OSError as error:
        sock.close()
        raise CannotListenError(interface, port, error) from error
    return sock


def _check(sock: socket.socket, family: int) -> None:
    """See that a socket that was passed is of the kind that the endpoint says.

    :raises ValueError: when it is not.
    """
    if sock.family != family or sock.family not in _FAMILIES:
        is_of = socket.AddressFamily(sock.family).name.removeprefix("AF_")
        raise ValueError(f"its domain is {is_of}")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError("it is not a listening stream socket (a unit with Accept=yes, or UDP)")


class Listener:
    """The place of a server endpoint, at which nothing listens yet.

    :param text: the endpoint string.
    :ivar socket: its socket; None: this endpoint makes one when it listens.
    """

    def __init__(self, reactor: Any, text: str, inherited: socket.socket | None = None) -> None:
        """Bind its socket.

        :param inherited: the socket, where there is one already.
        :raises UsageError: when the string is not an endpoint, or not one for this socket.
        :raises NetworkError: when the place is taken or not ours.
        """
        self.text = text
        self._reactor = reactor
        self._later = _Later()
        self._held: _Held | None = None
        # A worker was passed nothing by systemd: its parent was.
        parsed = text if inherited is None else _PASSED.sub("tcp:0", text)
        endpoint = parse_server(_Binding(reactor, inherited), parsed)
        if not _HELD.match(text):
            if inherited is not None:
                raise _not_shared(text)
            return
        found: list[Any] = []
        binding: Deferred[Any] = maybeDeferred(endpoint.listen, self._later)
        binding.addBoth(found.append)
        held = found[0]
        if isinstance(held, _Held):
            self._held = held
        elif held.check(CannotListenError, OSError):
            raise _cannot_listen(text, held.value) from held.value
        elif held.check(ValueError, TypeError, OverflowError):
            remedy = "write a server endpoint that fits, such as systemd:domain=INET6:name=shop"
            raise UsageError(f"endpoint {text}", str(held.value), remedy) from held.value
        else:
            held.raiseException()

    @property
    def socket(self) -> socket.socket | None:
        """Its socket; None: this endpoint makes one when it listens."""
        return self._held.socket if self._held is not None else None

    async def listen(self, factory: IProtocolFactory) -> Any:
        """Listen.

        :return: the IListeningPort.
        :raises NetworkError: when another program listens there by now.
        """
        if self._held is None:
            return await listen_on(self._reactor, self.text, factory)
        self._later.use(factory)
        try:
            return guard(self._held.listen(self._reactor), self._reactor)
        except (CannotListenError, OSError) as error:
            raise _cannot_listen(self.text, error) from error

    def share(self) -> Shared:
        """Have the kernel queue connections for those who inherit the socket, and accept none.

        :raises UsageError: when this endpoint has no socket yet.
        :raises NetworkError: when another program listens there by now.
        """
        if self._held is None:
            raise _not_shared(self.text)
        try:
            self._held.socket.listen(self._held.backlog)
        except OSError as error:
            raise _cannot_listen(self.text, error) from error
        return Shared(self)

    def close(self) -> None:
        """Give the place up; one at which a service listens is given up by its port."""
        if self._held is not None:
            if self._held.port is not None:
                self._held.port.stopListening()
            else:
                self._held.socket.close()


class Shared:
    """The port of a listening socket whose connections other processes accept."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        sock: Any = listener.socket
        where = sock.getsockname()
        self._host: IAddress
        if sock.family == socket.AF_UNIX:
            self._host = UNIXAddress(os.fsencode(where))
        else:
            kind = IPv6Address if sock.family == socket.AF_INET6 else IPv4Address
            self._host = kind("TCP", where[0], where[1])

    def getHost(self) -> IAddress:
        """See IListeningPort."""
        return self._host

    def stopListening(self) -> None:
        """See IListeningPort; those who have inherited the socket have it still."""
        self._listener.close()


class Attached:
    """The port of one service at a place, which may outlast it: an IListeningPort."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._host = place.port.getHost()

    def getHost(self) -> Any:
        """See IListeningPort."""
        return self._host

    def stopListening(self) -> Deferred[None] | None:
        """See IListeningPort; nothing happens when another service listens there by now."""
        return self.place.leave(self)


class Place:
    """Where an endpoint string says.  Services come and go; its socket stays as long as it is
    wanted.

    :param text: the endpoint string.
    :param inherited: its socket, where there is one already.
    :param is_bound: whether its socket is bound now, and not when a service listens.
    :raises UsageError: when the string is not an endpoint.
    :raises NetworkError: when the place is taken or not ours.
    :ivar wanted: how many services are going to listen there.
    :ivar port: Twisted's port; None: nobody has listened yet.
    """

    def __init__(
        self,
        reactor: Any,
        text: str,
        inherited: socket.socket | None = None,
        *,
        is_bound: bool = True,
        is_shared: bool = False,
    ) -> None:
        self.text = text
        self.wanted = 0
        self.port: Any = None
        self._reactor = reactor
        self._is_shared = is_shared
        self._listener = Listener(reactor, text, inherited) if is_bound else None
        self._later = _Later()
        self._attached: Attached | None = None

    @property
    def socket(self) -> socket.socket | None:
        """Its socket, where it is bound before anything listens on it."""
        return self._listener.socket if self._listener is not None else None

    @property
    def is_open(self) -> bool:
        """True while a service is there, or is going to be."""
        return self._attached is not None or self.wanted > 0

    @property
    def factory(self) -> IProtocolFactory | None:
        """The factory that serves there now."""
        return self._later._factory

    async def listen(self, factory: IProtocolFactory) -> Attached:
        """Serve there from now on; a service that did so before does not any more.

        :raises NetworkError: when another program listens there by now.
        """
        self._later.use(factory)
        if self.port is None:
            self.port = await self._begin()
        attached = self._attached = Attached(self)
        return attached

    async def _begin(self) -> Any:
        if self._listener is None:
            return await listen_on(self._reactor, self.text, self._later)
        if self._is_shared:
            return self._listener.share()
        return await self._listener.listen(self._later)

    def leave(self, attached: Attached) -> Deferred[None] | None:
        """Serve no more, unless another one does by now."""
        if attached is not self._attached:
            return None
        self._attached = None
        if self.wanted:
            self._later.use(None)
            return None
        return self.close()

    def close(self) -> Deferred[None] | None:
        """Give the place up, unless a service is there."""
        if self.is_open:
            return None
        if self.port is not None:
            return maybeDeferred(self.port.stopListening)
        if self._listener is not None:
            self._listener.close()
        return None


class Places:
    """The places of endpoints: bound before a service listens there, and handed over from one that
    leaves to one that comes.

    :param reactor: Twisted's reactor.
    :param shared: those endpoints whose connections other processes accept.
    """

    def __init__(self, reactor: Any, shared: Collection[str] = ()) -> None:
        self._reactor = reactor
        self._wanted: list[Place] = []
        self._shared = shared
        self._listening: list[Place] = []

    @property
    def sockets(self) -> list[tuple[str, int]]:
        """Each endpoint whose connections others accept, and its socket's descriptor."""
        return [
            (each.text, each.socket.fileno())
            for each in self._listening
            if each.socket is not None and each.is_open
        ]

    def bind(self, text: str, inherited: socket.socket | None = None) -> Place:
        """Bind the place of an endpoint, at which a service is going to listen.

        :raises UsageError: when the string is not an endpoint, or not one for this socket.
        :raises NetworkError: when the place is taken or not ours.
        """
        place = Place(self._reactor, text, inherited, is_shared=text in self._shared)
        return self.keep(place)

    def keep(self, place: Place) -> Place:
        """Have a place stay as it is when its service leaves, for another one that comes."""
        place.wanted += 1
        self._wanted.append(place)
        return place

    def give_up(self, place: Place) -> None:
        """Want a place no more, at which nothing has come to listen."""
        if place in self._wanted:
            self._wanted.remove(place)
            place.wanted -= 1
            place.close()

    def at(self, text: str) -> IProtocolFactory | None:
        """The factory that serves at a place where another one is going to; None: none does."""
        return next((each.factory for each in self._wanted if each.text == text), None)

    async def listen(self, text: str, factory: IProtocolFactory) -> Attached:
        """Listen where an endpoint string says, at the place that was bound or kept for it if there
        is one.

        :return: the IListeningPort.
        :raises UsageError: when the string is not an endpoint.
        :raises NetworkError: when the place is taken or not ours.
        """
        place = next((each for each in self._wanted if each.text == text), None)
        if place is None:
            is_bound = _PASSED.search(text) is not None
            place = self.keep(Place(self._reactor, text, is_bound=is_bound))
        self._wanted.remove(place)
        place.wanted -= 1
        try:
            attached = await place.listen(factory)
        except BaseException:
            place.close()
            raise
        if place.text in self._shared and place not in self._listening:
            self._listening.append(place)
        return attached


def _not_shared(text: str) -> UsageError:
    cause = "processes cannot share its socket"
    return UsageError(f"endpoint {text}", cause, "use tcp:, unix: or systemd:")


def _cannot_listen(text: str, error: CannotListenError | OSError) -> NetworkError:
    cause = error.socketError if isinstance(error, CannotListenError) else error
    return NetworkError(
        f"endpoint {text}",
        str(cause),
        "choose another port or address",
        code="cannot-listen",
    )
