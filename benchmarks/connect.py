"""Time that a client takes to be connected to an authenticated service.

    python benchmarks/connect.py ENDPOINT [COUNT]

ENDPOINT is a client endpoint string of a running service.  Each connection is
made from nothing but the ticket cache: a new endpoint, so that the search, the
reading of the SCP, the connection and the handshake are all in the figure.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import react
from twisted.python.failure import Failure


class Guest(Protocol):
    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)


async def main(reactor: Any, endpoint: str, count: str = "50") -> None:
    figures = []
    for _ in range(int(count) + 1):
        began = time.perf_counter()
        guest: Any = await clientFromString(reactor, endpoint).connect(Factory.forProtocol(Guest))
        figures.append((time.perf_counter() - began) * 1000)
        guest.transport.loseConnection()
        await guest.gone
    first, *warm = figures
    print(
        f"first {first:.1f} ms, then min {min(warm):.1f}, median {statistics.median(warm):.1f}, "
        f"max {max(warm):.1f} ms"
    )


if __name__ == "__main__":
    react(
        lambda reactor, *arguments: Deferred.fromCoroutine(main(reactor, *arguments)), sys.argv[1:]
    )
