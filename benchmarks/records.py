"""Cost of protecting data beside GSSAPI itself.

    python benchmarks/records.py [--protection seal|sign] [--size BYTES] [--rounds N]

A client's records, in chunks as a socket delivers them, go through
``ProtectedTransport`` to an application that writes them back; a loop of bare
unwrap and wrap, over contexts of the same kind and pieces of the same size, is
what it is compared with.  No sockets: see ``throughput.py``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable, Callable
from typing import Any

from gssapi.raw import unwrap, wrap
from measure import ACCOUNT, SERVICE, Figure, conclude, ratio, realm, rounds, show
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock, react

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator, ServiceKeys
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.net.transport import ProtectedTransport
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.connections import established

#: What Twisted reads off a socket at most, in bytes.
_READ = 1 << 16
_PIECES = 100


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)


class Nowhere:
    """A network's transport that forgets what is written."""

    def write(self, data: bytes) -> None:
        pass

    def writeSequence(self, data: list[bytes]) -> None:
        pass


def contexts(keys: ServiceKeys, protection: Protection) -> tuple[Any, Any]:
    """A client's context and a service's."""
    initiator = KerberosInitiator(SPN.parse(SERVICE), ClientCredentials(), protection)
    return initiator, keys.acceptor("client")


def echo(keys: ServiceKeys, protection: Protection, piece: bytes) -> Callable[[], Awaitable[float]]:
    """Measures the CPU seconds of one piece there and back, through the package."""
    (sender, _), (connection, event) = established(
        *contexts(keys, protection), SecurityOptions(protection=protection)
    )
    transport = ProtectedTransport(Clock(), Nowhere(), connection, event.identity, Limits())
    transport.start(Echo())

    async def measure() -> float:
        stream = b"".join(frame for _ in range(_PIECES) for frame in sender.send(piece))
        chunks = [stream[start : start + _READ] for start in range(0, len(stream), _READ)]
        before = time.process_time()
        for chunk in chunks:
            transport.dataReceived(chunk)
        return (time.process_time() - before) / _PIECES

    return measure


def bare(keys: ServiceKeys, protection: Protection, piece: bytes) -> Callable[[], Awaitable[float]]:
    """Measures the CPU seconds of one piece unwrapped and wrapped."""
    client, service = contexts(keys, protection)
    client.step(service.step(client.step(None).token).token)
    seal, context = protection is Protection.SEAL, service._context

    async def measure() -> float:
        bodies = [client.wrap(piece, seal=seal) for _ in range(_PIECES)]
        before = time.process_time()
        for body in bodies:
            wrap(context, unwrap(context, body).message, seal)
        return (time.process_time() - before) / _PIECES

    return measure


async def compare(given: argparse.Namespace) -> None:
    protection, piece = Protection(given.protection), bytes(given.size)
    with realm() as (made, _):
        keys = ServiceKeys(ServiceCredentials(made.keytab(ACCOUNT)))
        kinds = {
            "records": echo(keys, protection, piece),
            "bare unwrap and wrap": bare(keys, protection, piece),
        }
        figures = await rounds(given.rounds, kinds)
    show(figures, f"us of CPU for {given.size} bytes there and back", 1e6)
    what = f"echo of {given.size} bytes against bare unwrap and wrap"
    conclude(Figure(what, ratio(figures, "records", "bare unwrap and wrap"), 1.15))


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--protection", default="seal", choices=["seal", "sign"])
    options.add_argument("--size", type=int, default=16384)
    options.add_argument("--rounds", type=int, default=21)
    react(lambda reactor: Deferred.fromCoroutine(compare(options.parse_args())))
