"""Cost of a connection to the server: accept, handshake, an echo of four bytes, close.

    python benchmarks/connections.py [--protection NAME] [--rounds N] [--connections N] [--at-once
    N]

The same clients do the same to a plain Twisted server, to one with mutual TLS
1.3, and to one of this package.  The bare GSSAPI calls of such a connection,
made from a loop, and as many messages of the same sizes over plain TCP, show
together what no implementation in Twisted could go below.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable, Callable
from typing import Any

import gssapi
from gssapi.raw import accept_sec_context, inquire_context, unwrap, wrap
from measure import (
    ACCOUNT,
    SERVICE,
    Asking,
    Figure,
    Server,
    Talking,
    conclude,
    ratio,
    realm,
    rounds,
    servers,
    show,
)
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react

from mutauth_twisted.protection import Protection

#: What the client sends: the opening, the data, the end of stream.  The server sends no opening.
_RECORDS = (b"", b"ping", b"")


async def connect_often(
    endpoint: IStreamClientEndpoint, count: int, protocol: type[Protocol] = Asking
) -> None:
    """So many connections, one after the other."""
    for _ in range(count):
        client: Any = await endpoint.connect(Factory.forProtocol(protocol))
        await client.gone


def measured(
    server: Server, endpoint: IStreamClientEndpoint, count: int, at_once: int
) -> Callable[[], Awaitable[float]]:
    """Measures the server's CPU seconds for one connection."""

    async def measure() -> float:
        before = server.clock()
        each = count // at_once
        protocol = Talking if server.kind == "messages" else Asking
        everybody = [
            ensureDeferred(connect_often(endpoint, each, protocol)) for _ in range(at_once)
        ]
        await DeferredList(everybody, fireOnOneErrback=True, consumeErrors=True)
        return (server.clock() - before) / (each * at_once)

    return measure


def bare(keytab: str, seal: bool, count: int) -> Callable[[], Awaitable[float]]:
    """Measures the CPU seconds of one connection's GSSAPI calls on a server."""
    credential = gssapi.Credentials(usage="accept", store={"keytab": keytab})
    flags = int(Protection.SEAL.requested_flags if seal else Protection.SIGN.requested_flags)
    name = gssapi.Name(SERVICE, gssapi.NameType.kerberos_principal)

    async def measure() -> float:
        spent = 0.0
        for _ in range(count):
            client = gssapi.SecurityContext(
                name=name, usage="initiate", mech=gssapi.MechType.kerberos, flags=flags
            )
            token = client.step()
            before = time.process_time()
            accepted = accept_sec_context(token, acceptor_creds=credential)
            context = accepted.context
            inquire_context(context)
            spent += time.process_time() - before
            client.step(accepted.token)
            sent = [wrap(client, data, seal).message for data in _RECORDS]
            before = time.process_time()
            for number, body in enumerate(sent):
                message = unwrap(context, body).message
                if number:
                    wrap(context, message, seal)
            del context, accepted
            spent += time.process_time() - before
        return spent / count

    return measure


async def compare(reactor: Any, given: argparse.Namespace) -> None:
    names = ("plain", "messages", "twisted-tls", given.protection)
    with realm() as (made, directory), servers(made, directory, *names) as running:
        kinds = {
            kind: measured(
                server, server.endpoint(reactor, directory), given.connections, given.at_once
            )
            for kind, server in running.items()
        }
        seal = given.protection != Protection.SIGN.value
        kinds["bare GSSAPI calls"] = bare(made.keytab(ACCOUNT), seal, given.connections)
        figures = await rounds(given.rounds, kinds)
    show(figures, "us of the server's CPU for a connection", 1e6)
    least = [
        sum(both) for both in zip(figures["messages"], figures["bare GSSAPI calls"], strict=True)
    ]
    bound = {**figures, "least": least}
    print(
        f"its messages over plain TCP and the bare calls, and nothing else:"
        f" {ratio(bound, 'least', 'plain'):.2f} of plain TCP, "
        f"{ratio(bound, 'least', 'twisted-tls'):.2f} of mutual TLS 1.3"
    )
    conclude(
        Figure(
            f"{given.protection} against plain TCP", ratio(figures, given.protection, "plain"), 3.0
        ),
        Figure(
            f"{given.protection} against mutual TLS 1.3",
            ratio(figures, given.protection, "twisted-tls"),
            0.4,
        ),
    )


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument(
        "--protection", default="seal", choices=[each.value for each in Protection]
    )
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--connections", type=int, default=200)
    options.add_argument("--at-once", type=int, default=1)
    react(lambda reactor: Deferred.fromCoroutine(compare(reactor, options.parse_args())))
