"""Throughput of an echo server, against Twisted's TLS 1.3.

    python benchmarks/throughput.py [--protection NAME] [--size BYTES] [--megabytes N] [--rounds N]

The same client sends the same pieces to both servers and takes them back, with
so many of them under way that neither side waits for the other.  Throughput is
bytes for each second of the server's CPU, which is what limits it where the
client has a processor of its own; the bytes of each second that went by are
shown beside it.  For seal and sign the bare calls of GSSAPI are a third figure.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable, Callable
from typing import Any

from measure import ACCOUNT, Figure, Server, conclude, ratio, realm, rounds, servers, show
from records import bare
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import react
from twisted.python.failure import Failure

from mutauth_twisted.credentials import ServiceCredentials
from mutauth_twisted.mechanisms.kerberos import ServiceKeys
from mutauth_twisted.protection import Protection

#: The protections whose records are GSSAPI's; any other is TLS.
_WRAPPED = (Protection.SEAL.value, Protection.SIGN.value)
#: Bytes under way.
_WINDOW = 1 << 18


class Sender(Protocol):
    """Sends pieces, as many more as come back, until all have."""

    def __init__(self, piece: bytes, total: int) -> None:
        self._piece = piece
        self._unsent = self._missing = total
        self.done: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()

    def start(self) -> None:
        self._fill()

    def _fill(self) -> None:
        transport: Any = self.transport
        while self._unsent and self._missing - self._unsent <= _WINDOW:
            self._unsent -= len(self._piece)
            transport.write(self._piece)

    def dataReceived(self, data: bytes) -> None:
        self._missing -= len(data)
        self._fill()
        if not self._missing:
            self.done.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._missing:
            self.done.errback(reason)
        self.gone.callback(None)


def measured(
    server: Server, endpoint: IStreamClientEndpoint, piece: bytes, total: int, passed: list[float]
) -> Callable[[], Awaitable[float]]:
    """Measures megabytes for each of the server's CPU seconds; ``passed`` takes those for each
    second.
    """

    async def measure() -> float:
        sender: Any = await endpoint.connect(_Senders(piece, total))
        before, began = server.clock(), time.perf_counter()
        sender.start()
        await sender.done
        spent = server.clock() - before
        passed.append(total / (time.perf_counter() - began) / 1e6)
        sender.transport.loseConnection()
        await sender.gone
        return total / spent / 1e6

    return measure


class _Senders(Factory):
    noisy = False

    def __init__(self, piece: bytes, total: int) -> None:
        self._arguments = piece, total

    def buildProtocol(self, addr: object) -> Sender:
        return Sender(*self._arguments)


async def compare(reactor: Any, given: argparse.Namespace) -> None:
    piece = bytes(given.size)
    total = given.megabytes * 1_000_000 // given.size * given.size
    with (
        realm() as (made, directory),
        servers(made, directory, "twisted-tls", given.protection) as running,
    ):
        passed: dict[str, list[float]] = {kind: [] for kind in running}
        kinds = {
            kind: measured(server, server.endpoint(reactor, directory), piece, total, passed[kind])
            for kind, server in running.items()
        }
        if given.protection in _WRAPPED:
            keys = ServiceKeys(ServiceCredentials(made.keytab(ACCOUNT)))
            seconds = bare(keys, Protection(given.protection), piece)

            async def without_sockets() -> float:
                return given.size / await seconds() / 1e6

            kinds["bare unwrap and wrap"] = without_sockets
        figures = await rounds(given.rounds, kinds)
    show(figures, "MB there and back in a second of the server's CPU")
    show({kind: each[1:] for kind, each in passed.items()}, "MB there and back in a second")
    what = f"throughput of {given.protection} against TLS 1.3, pieces of {given.size} bytes"
    seen = ratio(figures, given.protection, "twisted-tls")
    if given.protection in _WRAPPED:
        print(f"{what}: {seen:.2f} (no goal: GSSAPI's own cipher is the limit)")
        cost = ratio(figures, "bare unwrap and wrap", given.protection)
        conclude(
            Figure("CPU for each byte, sockets included, against bare unwrap and wrap", cost, 1.15)
        )
    else:
        conclude(Figure(what, seen, 0.9, least=True))


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument(
        "--protection", default="seal", choices=[each.value for each in Protection]
    )
    options.add_argument("--size", type=int, default=16384)
    options.add_argument("--megabytes", type=int, default=16)
    options.add_argument("--rounds", type=int, default=9)
    react(lambda reactor: Deferred.fromCoroutine(compare(reactor, options.parse_args())))
