"""Requests to a status port."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from fuzz.inputs import Choices
from mutauth_twisted.status.http import Response, StatusFactory
from mutauth_twisted.status.pages import pages
from mutauth_twisted.status.snapshot import Snapshot
from mutauth_twisted.testing.fakes import FakeTransport, captured_log, chunked

_PLACE: Final = IPv4Address("TCP", "127.0.0.1", 8081)
_SERVICES: Final = (Snapshot("x", ("127.0.0.1:1",)),)
#: But for the metrics, which tell the time.
_PAGES: Final = {
    **pages(lambda: _SERVICES, "h", lambda: 0.0),
    "/metrics": lambda _: Response("metrics"),
}
_CODES: Final = frozenset({200, 400, 404, 405, 413, 421, 431})


class _Transport(FakeTransport):
    def getHost(self) -> Any:
        return _PLACE


def check(data: bytes) -> None:
    """One answer, the same for all pieces, or none as long as the request is not complete; and a
    name that DNS would have to know gets no page.
    """
    choices = Choices(data)
    cuts = choices.cuts()
    request = choices.rest()
    answer = _answer([request])
    assert _answer(chunked(request, cuts)) == answer, "pieces are read as something else"
    if not answer:
        assert not re.search(rb"\r?\n\r?\n", request), "a complete request has no answer"
        return
    head, _, body = answer.partition(b"\r\n\r\n")
    code = int(re.match(rb"HTTP/1\.1 ([0-9]{3}) ", head)[1])  # type: ignore[index]
    assert code in _CODES, code
    assert answer.count(b"HTTP/1.1 ") == 1, "there are several answers"
    (length,) = re.findall(rb"Content-Length: ([0-9]+)", head)
    assert len(body) in (0, int(length))
    assert code != 200 or not re.search(rb"(?im)^host:.*evil", request.partition(b"\r\n\r\n")[0])


def _answer(chunks: Iterable[bytes]) -> bytes:
    factory = StatusFactory(Clock(), _PAGES)
    protocol, transport = factory.buildProtocol(_PLACE), _Transport()
    with captured_log() as events:
        protocol.makeConnection(transport)
        for chunk in chunks:
            protocol.dataReceived(chunk)
    assert not events, f"a page failed: {events}"
    return bytes(transport.value())
