"""How a running service is, for people and for what watches over services.

``/`` is a few lines of text, ``/health`` the same as JSON, with code 200 when
all is right and 503 when it is not.  Nobody is asked who he is: nothing is
told that the directory does not tell everybody anyway, and whoever may see it
is for the listening address to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import asdict, frozen
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import WrappingFactory
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

from mutauth_twisted.text import printable


@frozen
class Status:
    """How a service is at one moment.

    :param service: its class.
    :param serving: where it listens; none while it starts or stops.
    :param handshakes: exchanges under way.
    :param sessions: proven clients that are connected.
    :param wrong: what is wrong with it in the directory, or with its own keys, a line each.
    """

    service: str
    serving: tuple[str, ...]
    handshakes: int
    sessions: int
    wrong: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether clients can find it, prove it, and be served."""
        return bool(self.serving) and not self.wrong


class _Page(Resource):
    isLeaf = True

    def __init__(self, look: Callable[[], Status], kind: str, render: Callable[[Status], str]) -> None:
        super().__init__()
        self._look = look
        self._kind = kind
        self._render = render

    def render_GET(self, request: Any) -> bytes:
        status = self._look()
        request.setResponseCode(200 if status.healthy else 503)
        request.setHeader("content-type", f"{self._kind}; charset=utf-8")
        request.setHeader("cache-control", "no-store")
        return self._render(status).encode()


def _as_text(status: Status) -> str:
    lines = [
        f"{status.service}: {'healthy' if status.healthy else 'NOT healthy'}",
        f"serving on {', '.join(status.serving) or 'nothing'}",
        f"{status.sessions} session(s), {status.handshakes} exchange(s) under way",
        *(f"wrong: {line}" for line in status.wrong),
    ]
    return "".join(f"{printable(line)}\n" for line in lines)


def _as_json(status: Status) -> str:
    return json.dumps({"healthy": status.healthy, **asdict(status)})


_PATIENCE = 10  # seconds without a byte after which a watcher is not waited for any more
_AT_ONCE = 32  # watchers; each asks for a moment only


class StatusSite(Site):
    """The pages of one service.

    :param look: says how the service is.
    """

    noisy = False
    displayTracebacks = False

    def __init__(self, look: Callable[[], Status]) -> None:
        root = Resource()
        root.putChild(b"", _Page(look, "text/plain", _as_text))
        root.putChild(b"health", _Page(look, "application/json", _as_json))
        super().__init__(root, timeout=_PATIENCE)

    def log(self, request: Request) -> None:
        """Nothing: a watcher that asks every second is no news."""


class _TooMany(Protocol):
    """A watcher too many."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()


class StatusFactory(WrappingFactory):
    """The pages of one service, for a few watchers at once: nobody of them has to prove anything.

    :param look: says how the service is.
    """

    noisy = False

    def __init__(self, look: Callable[[], Status]) -> None:
        super().__init__(StatusSite(look))

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """One watcher's connection, or while there are too many its end; see IProtocolFactory."""
        return _TooMany() if len(self.protocols) >= _AT_ONCE else super().buildProtocol(addr)
