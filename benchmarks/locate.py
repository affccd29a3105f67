"""Time that it takes to find one service among many.

    mutauth lab run -- python benchmarks/locate.py SCPS [COUNT]

The lab holds the SCPs of ``populate.py --scps SCPS``.  Each search goes through
everything a client does: the global catalog for the keyword, a domain
controller for the rest, and the global catalog again for who holds the SPN.
Beside it stands the time of one plain read of an object, three of which are the
least that it can take.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from mutauth_twisted.directory.location import Selection, locate
from mutauth_twisted.lab import Lab
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions


async def timed(count: int, work: Callable[[int], Awaitable[Any]]) -> list[float]:
    """Milliseconds of each piece of work, the first one apart."""
    figures = []
    for number in range(count + 1):
        began = time.perf_counter()
        await work(number)
        figures.append((time.perf_counter() - began) * 1000)
    return figures


async def main(reactor: Any, scps: str, count: str = "100") -> None:
    lab = Lab.current()
    directory = Directory(reactor, DirectoryOptions(nameserver=lab.nameserver))
    step = max(1, int(scps) // (int(count) + 1))

    async def find(number: int) -> None:
        wanted = number * step % int(scps)
        (instance,) = await locate(directory, Selection(f"bench-{wanted}", "benchSvc"))
        assert instance.host == f"h{wanted:05}.lab.example"

    async def read(number: int) -> None:
        await directory.run(lambda session: session.read(lab.base_dn, ["dc"]))

    first, *warm = await timed(int(count), find)
    _, *reads = await timed(int(count), read)
    directory.close()
    median, least = statistics.median(warm), statistics.median(reads)
    print(
        f"locate among {scps} SCPs: first {first:.1f} ms, then median {median:.1f}, max "
        f"{max(warm):.1f} ms"
    )
    print(f"one read: median {least:.1f} ms; locate costs {median / least:.1f} of them")


if __name__ == "__main__":
    react(
        lambda reactor, *arguments: Deferred.fromCoroutine(main(reactor, *arguments)), sys.argv[1:]
    )
