"""How a running service is, for people and for what watches over services.

``/`` is a few lines of text, ``/health`` the same as JSON, with code 200 when
all is right and 503 when it is not.  Nobody is asked who he is: nothing is
told that the directory does not tell every account anyway, and whoever may see it
is for the listening address to say.

Whoever reaches the port can send anything, so it speaks as little of HTTP
(RFC 9112) as watchers need: GET and HEAD, one request for each connection,
headers of a few KB, never a body.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from attrs import asdict, frozen
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from mutauth_twisted.findings import Finding
from mutauth_twisted.net.limits import network_of
from mutauth_twisted.text import printable


@frozen
class Status:
    """How a service is at one moment.

    :param service: its class.
    :param serving: where it listens; none while it starts or stops.
    :param handshakes: handshakes under way.
    :param waiting: connections that wait for their handshake.
    :param sessions: authenticated clients that are connected.
    :param wrong: what is wrong with it in the directory, with its own keys or
        replay cache, or with its limits.
    :param warnings: what keeps no client from it, and should be put right.
    """

    service: str
    serving: tuple[str, ...]
    handshakes: int
    waiting: int
    sessions: int
    wrong: tuple[Finding, ...]
    warnings: tuple[Finding, ...] = ()

    @property
    def healthy(self) -> bool:
        """Nothing is known to keep a new, authorized client from finding it, authenticating it and
        being served.

        The directory is as it was found at the last check, the keys as they
        are now, the replay cache as clients have found it.
        """
        return bool(self.serving) and not self.wrong


def _as_text(status: Status) -> str:
    lines = [
        f"{status.service}: {'healthy' if status.healthy else 'NOT healthy'}",
        f"serving on {', '.join(status.serving) or 'nothing'}",
        f"{status.sessions} session(s), {status.handshakes} handshake(s) under way, "
        f"{status.waiting} connection(s) waiting",
        *(f"wrong: {finding.coded}" for finding in status.wrong),
        *(f"warning: {finding.coded}" for finding in status.warnings),
    ]
    return "".join(f"{printable(line)}\n" for line in lines)


def _as_json(status: Status) -> str:
    findings = {
        name: [finding.as_json() for finding in getattr(status, name)]
        for name in ("wrong", "warnings")
    }
    return json.dumps({"healthy": status.healthy, **asdict(status, recurse=False), **findings})


#: Seconds from the connection to its end, whatever is sent or read meanwhile.
PATIENCE: Final = 5.0
#: Watchers at once, over all addresses; each asks for a moment only.
AT_ONCE: Final = 32
#: The most bytes of a request: its line and its headers.
LONGEST_REQUEST: Final = 8192
_END = re.compile(rb"\r?\n\r?\n")
_REQUEST = re.compile(rb"([!-~]{1,32}) (/[!-~]*) HTTP/1\.[01]", re.ASCII)
_PAGES: Final[dict[str, tuple[str, Callable[[Status], str]]]] = {
    "/": ("text/plain", _as_text),
    "/health": ("application/json", _as_json),
}


def _announces_body(headers: list[bytes]) -> bool:
    for header in headers:
        name, _, value = header.partition(b":")
        name, value = name.strip().lower(), value.strip()
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False


def _response(code: HTTPStatus, kind: str, body: str, *, with_body: bool = True) -> bytes:
    encoded = body.encode()
    lines = [
        f"HTTP/1.1 {code.value} {code.phrase}",
        f"Content-Type: {kind}; charset=utf-8",
        f"Content-Length: {len(encoded)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if code is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    head = "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return head.encode() + (encoded if with_body else b"")


def answer(request: bytes, look: Callable[[], Status]) -> bytes:
    """The response to a request.

    :param request: its line and its headers.
    :param look: says how the service is.
    """
    first, *headers = request.splitlines() or [b""]
    parsed = _REQUEST.fullmatch(first)
    if parsed is None:
        return _refusal(HTTPStatus.BAD_REQUEST)
    method, target = parsed.group(1), parsed.group(2).decode("ascii").partition("?")[0]
    if method not in (b"GET", b"HEAD"):
        return _refusal(HTTPStatus.METHOD_NOT_ALLOWED)
    if _announces_body(headers):
        return _refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    if target not in _PAGES:
        return _refusal(HTTPStatus.NOT_FOUND)
    kind, render = _PAGES[target]
    status = look()
    code = HTTPStatus.OK if status.healthy else HTTPStatus.SERVICE_UNAVAILABLE
    return _response(code, kind, render(status), with_body=method == b"GET")


def _refusal(code: HTTPStatus) -> bytes:
    return _response(code, "text/plain", f"{code.phrase}\n")


class _Watcher(Protocol):
    """One connection: a request, its answer, the end."""

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
        self._factory.came(self)

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
            self._end(answer(self._request[: end.start()], self._factory.look))
        elif len(self._request) > LONGEST_REQUEST:
            self._end(_refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))

    def _end(self, response: bytes) -> None:
        self.has_asked, self._request = True, b""
        transport: Any = self.transport
        transport.write(response)
        transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._factory.left(self)


class StatusFactory(Factory):
    """The pages of one service, for a few watchers at once: none of them is authenticated.

    One watcher too many takes the place of the oldest one that has not asked yet,
    of the address with the most: whoever floods displaces its own.

    :param reactor: provides IReactorTime.
    :param look: says how the service is.
    """

    noisy = False

    def __init__(self, reactor: Any, look: Callable[[], Status]) -> None:
        self.reactor = reactor
        self.look = look
        # In the order in which they came.
        self._watchers: dict[_Watcher, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """One watcher's connection; see IProtocolFactory."""
        return _Watcher(self, network_of(addr) if addr is not None else "")

    def came(self, watcher: _Watcher) -> None:
        """There is one more."""
        if len(self._watchers) >= AT_ONCE:
            oldest = self._oldest_of_most(watcher.network)
            del self._watchers[oldest]
            oldest.drop()
        self._watchers[watcher] = None

    def _oldest_of_most(self, newcomer: str) -> _Watcher:
        counts = Counter(each.network for each in self._watchers)
        counts[newcomer] += 1
        most = max(counts.values())
        crowd = [each for each in self._watchers if counts[each.network] == most]
        return next((each for each in crowd if not each.has_asked), crowd[0])

    def left(self, watcher: _Watcher) -> None:
        """There is one less."""
        self._watchers.pop(watcher, None)
