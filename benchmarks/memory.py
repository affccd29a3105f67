"""Memory that an idle session costs the server.

    python benchmarks/memory.py [--protection NAME] [--sessions N]

So many clients connect and stay.  A first hundred fill what is filled once.
"""

from __future__ import annotations

import argparse
from typing import Any

from measure import Figure, conclude, raise_file_limit, realm, resident, servers
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater, react

from mutauth_twisted.protection import Protection

_FIRST = 100


async def compare(reactor: Any, given: argparse.Namespace) -> None:
    raise_file_limit()
    with (
        realm() as (made, directory),
        servers(made, directory, "plain", given.protection) as running,
    ):
        sizes = {}
        for kind, server in running.items():
            endpoint = server.endpoint(reactor, directory)
            before = 0
            for number in range(_FIRST + given.sessions):
                await endpoint.connect(Factory.forProtocol(Protocol))
                if number + 1 == _FIRST:
                    before = resident(server.pid)
            await deferLater(reactor, 1, lambda: None)
            sizes[kind] = (resident(server.pid) - before) / given.sessions / 1024
            print(f"{kind:>22}  {sizes[kind]:8.1f} KiB of the server's memory for an idle session")
        conclude(Figure(f"KiB of an idle session, {given.protection}", sizes[given.protection], 24))


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument(
        "--protection", default="seal", choices=[each.value for each in Protection]
    )
    options.add_argument("--sessions", type=int, default=1000)
    react(lambda reactor: Deferred.fromCoroutine(compare(reactor, options.parse_args())))
