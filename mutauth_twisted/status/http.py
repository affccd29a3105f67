"""A small HTTP server for the pages of a status port.

Whoever reaches the port can send anything, so it speaks as little of HTTP
(RFC 9112) as watchers need: GET and HEAD, one request for each connection,
headers of a few KB, never a body, and five seconds for everything.  Twisted's own server keeps
connections, queues requests and takes bodies; bounding all that would be more code than this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final

from attrs import frozen
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from mutauth_twisted.findings import Finding
from mutauth_twisted.log import Log
from mutauth_twisted.net.crowd import Crowd
from mutauth_twisted.net.limits import network_of
from mutauth_twisted.net.protocol import describe

#: Seconds from the connection to its end, whatever is sent or read meanwhile.
PATIENCE: Final = 5.0
#: Watchers at once, over all addresses; each asks for a moment only.
AT_ONCE: Final = 32
#: The most bytes of a request: its line and its headers.
LONGEST_REQUEST: Final = 8192
_END = re.compile(rb"\r?\n\r?\n")
_REQUEST = re.compile(rb"([!-~]{1,32}) (/[!-~]*) HTTP/1\.[01]", re.ASCII)
_PORT = re.compile(r":[0-9]*\Z")
TEXT: Final = "text/plain; charset=utf-8"


@frozen
class Response:
    """Answer to a request.

    :param body: what a GET is given.
    :param kind: its media type.
    :param code: the status code.
    :param headers: further ones.
    """

    body: str
    kind: str = TEXT
    code: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = {}

    def encoded(self, *, with_body: bool = True) -> bytes:
        """Encode it for the wire."""
        body = self.body.encode()
        headers = {
            "Content-Type": self.kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Connection": "close",
            **self.headers,
        }
        lines = (f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {self.code.value} {self.code.phrase}\r\n{''.join(lines)}\r\n"
        return head.encode() + (body if with_body else b"")


#: A page: makes a response for the media types that the watcher accepts (RFC 9110 12.5.1).
Page = Callable[[str], Response]


def _refusal(code: HTTPStatus, **headers: str) -> Response:
    return Response(f"{code.phrase}\n", code=code, headers=headers)


#: Headers that decide something: given twice, each reader would believe another one.
_DECIDING: Final = frozenset({"host", "content-length", "transfer-encoding"})


def _headers(lines: list[bytes]) -> dict[str, str] | None:
    """Headers by their names; None where one that decides is given twice."""
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        name = name.strip().lower()
        if name in headers and name in _DECIDING:
            return None
        headers[name] = value.strip()
    return headers


def _names_loopback(host: str) -> bool:
    """Tell whether a Host header (RFC 9112 3.2) names this machine without a look at DNS."""
    name = _PORT.sub("", host).strip("[]").lower()
    if name in ("", "localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Tell whether an address is one of loopback."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def exposure(address: IAddress) -> Finding | None:
    """The risk of a status port at an address; None: only this machine reaches it."""
    host = getattr(address, "host", None)
    if host is None or is_loopback(str(host)):
        return None
    return Finding(
        "status-exposed",
        f"status on {describe(address)}",
        "whoever reaches it reads which accounts come from where, and the names of objects in the "
        "directory, without authentication and in the clear",
        "listen on 127.0.0.1 or a UNIX socket, or have a firewall say who reaches it",
    )


def answer(request: bytes, pages: Mapping[str, Page], *, on_loopback: bool = False) -> bytes:
    """The response to a request.

    :param request: its line and its headers.
    :param pages: what there is, by path.
    :param on_loopback: whether it came to an address of loopback.  Names there are those of DNS
        rebinding: a page from elsewhere, in an operator's browser, that would read this one.
    """
    first, *lines = request.splitlines() or [b""]
    parsed = _REQUEST.fullmatch(first)
    headers = _headers(lines)
    if parsed is None or headers is None:
        return _refusal(HTTPStatus.BAD_REQUEST).encoded()
    method, target = parsed.group(1), parsed.group(2).decode("ascii").partition("?")[0]
    if method not in (b"GET", b"HEAD"):
        return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, Allow="GET, HEAD").encoded()
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        return _refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE).encoded()
    if on_loopback and not _names_loopback(headers.get("host", "")):
        return _refusal(HTTPStatus.MISDIRECTED_REQUEST).encoded()
    if target not in pages:
        return _refusal(HTTPStatus.NOT_FOUND).encoded()
    response = pages[target](headers.get("accept", ""))
    return response.encoded(with_body=method == b"GET")


class _Watcher(Protocol):
    """One connection: a request, its answer, the end."""

    _log = Log()

    def __init__(self, factory: StatusFactory, network: str) -> None:
        self._factory = factory
        #: Whose slots it takes.
        self.network = network
        self._request = b""
        self._deadline: IDelayedCall | None = None
        #: Whether the whole request has come.
        self.has_asked = False

    def connectionMade(self) -> None:
        self._deadline = self._factory.reactor.callLater(PATIENCE, self.drop)
        self._factory.watchers.add(self)

    def drop(self) -> None:
        """End it now."""
        transport: Any = self.transport
        transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        if self.has_asked:
            return
        seen, self._request = len(self._request), self._request + data
        end = _END.search(self._request, max(0, seen - 3))
        if end is not None and end.start() <= LONGEST_REQUEST:
            self._end(self._answer(self._request[: end.start()]))
        elif len(self._request) > LONGEST_REQUEST:
            self._end(_refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE).encoded())

    def _answer(self, request: bytes) -> bytes:
        transport: Any = self.transport
        host = str(getattr(transport.getHost(), "host", ""))
        try:
            return answer(request, self._factory.pages, on_loopback=is_loopback(host))
        except Exception:
            self._log.failure("internal error of a status page")
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR).encoded()

    def _end(self, response: bytes) -> None:
        self.has_asked, self._request = True, b""
        transport: Any = self.transport
        transport.write(response)
        transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._factory.watchers.discard(self)


class StatusFactory(Factory):
    """Pages for a few watchers at once: none of them is authenticated.

    :param reactor: provides IReactorTime.
    :param pages: what there is to see, by path.
    """

    noisy = False

    def __init__(self, reactor: Any, pages: Mapping[str, Page]) -> None:
        self.reactor = reactor
        self.pages = pages
        #: Who is there.
        self.watchers: Crowd[_Watcher] = Crowd(AT_ONCE)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """One watcher's connection; see IProtocolFactory."""
        return _Watcher(self, network_of(addr) if addr is not None else "")
