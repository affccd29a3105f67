"""Answers of a nameserver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from fuzz.inputs import Choices
from fuzz.targets.names import one_line
from mutauth_twisted.dns import MAX_MESSAGE, Resolver, is_address
from mutauth_twisted.errors import MutualAuthError, UsageError
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.fakes import captured_log, chunked

_MOST = 65535
_WHOLE = 2  # of the first byte: the header and the question are made, so that the records are read


def check(data: bytes) -> None:
    """Records that can be used, or an error of ours, whatever the bytes; and no connection is left
    waiting.
    """
    choices = Choices(data)
    first, cuts, answer = choices.number(), choices.cuts(), choices.rest()
    srv = bool(first & 1)
    reactor = MemoryReactorClock()
    resolver = Resolver(reactor, "127.0.0.1", randrange=lambda limit: limit - 1)
    asked: Deferred[Any] = (
        resolver.lookup_srv("_x._tcp.test.example")
        if srv
        else resolver.lookup_addresses("h.example")
    )
    results: list[Any] = []
    asked.addBoth(results.append)
    with captured_log():
        for _, _, factory, _, _ in reactor.tcpClients:
            protocol: Any = factory.buildProtocol(None)
            protocol.makeConnection(StringTransport())
            _answer(protocol, answer, cuts, whole=bool(first & _WHOLE))
    reactor.advance(60)
    (result,) = results
    assert len(answer) <= MAX_MESSAGE or isinstance(result, Failure), (
        "an answer was read that is too large"
    )
    if isinstance(result, Failure):
        if not isinstance(result.value, MutualAuthError):
            result.raiseException()
        one_line(result.value)
    elif srv:
        _check_targets(result)
    else:
        assert result and all(is_address(each) for each in result), f"{result} are no addresses"
    assert not [call for call in reactor.getDelayedCalls() if call.active()]


def _answer(protocol: Any, answer: bytes, cuts: Sequence[int], *, whole: bool) -> None:
    """Answer the question with the identifier it has, in pieces; a reader that raises loses its
    connection.
    """
    asked = protocol.transport.value()
    if whole:  # the number of records is the input's, as are they
        header = b"\x85\x80\0\1" + answer[:2].ljust(2, b"\0") + bytes(4)
        answer = header + asked[14:] + answer[2:]
    message = asked[2:4] + answer[: _MOST - 2]
    reason: BaseException = ConnectionError("closed")
    try:
        for chunk in chunked(len(message).to_bytes(2, "big") + message, cuts):
            if not protocol.transport.disconnecting:
                protocol.dataReceived(chunk)
    except Exception as error:  # Twisted's reactor does the same
        reason = error
    protocol.connectionLost(Failure(reason))


def _check_targets(targets: Sequence[Any]) -> None:
    priorities = [target.priority for target in targets]
    assert priorities == sorted(priorities), "the order is wrong"
    for target in targets:
        assert target.host.isascii() and not target.host.endswith("."), f"{target.host!r}"
        assert 0 <= target.port < 65536 and 0 <= target.weight < 65536
        try:
            SPN("echoSvc", target.host)
        except UsageError as error:
            one_line(error)
