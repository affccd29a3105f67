"""Time that a client waits for the first byte of an application's answer.

    mutauth lab run -- python benchmarks/latency.py [--rounds N] [--connections N]

From the call that connects to the first byte of an echo's answer, one
connection after the other: through the directory (``mutauth:scp=``), to an
address with ``spn=``, and over the local port of ``mutauth connect --listen``
through the directory; plain TCP and Twisted's mutual TLS 1.3 beside them.  The
service and the forwarder are the real commands.  Tickets are there and what is
found once may be kept: a warm client.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from certificates import make_certificates
from measure import ROOT, Asking, Figure, Server, conclude, ratio
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import react

from mutauth_twisted.lab import Lab

_SERVICE = "benchLatency"
_TWISTD = [
    sys.executable,
    "-c",
    "from twisted.scripts.twistd import run; run()",
    "-n",
    "--pidfile=",
]
_MUTAUTH = [sys.executable, "-m", "mutauth_twisted.cli"]


class Timed(Asking):
    """Notes when the first byte of the answer came."""

    first = 0.0

    def dataReceived(self, data: bytes) -> None:
        self.first = self.first or time.perf_counter()
        super().dataReceived(data)


@contextmanager
def started(
    command: Sequence[str], sign: str, environment: dict[str, str], log: Path
) -> Iterator[int]:
    """A command that runs for the time of a block; gives the port in the first line with this
    sign.
    """
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while (
                line := next((each for each in log.read_text().splitlines() if sign in each), None)
            ) is None:
                if process.poll() is not None:
                    raise SystemExit(f"{' '.join(command)}: it ended: {log.read_text()}")
                time.sleep(0.02)
            yield int(line.rsplit(":", 1)[1])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


@contextmanager
def endpoints(
    reactor: Any, lab: Lab, directory: Path
) -> Iterator[dict[str, IStreamClientEndpoint]]:
    """Endpoints by which a client reaches each of the servers, which run for the time of the
    block.
    """

    def environment(user: str) -> dict[str, str]:
        return {
            **os.environ,
            **lab.environment(user),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }

    host = lab.host("srv1")
    address = lab.address_of(host)
    named = [
        "--service-class",
        _SERVICE,
        "--host",
        host,
        "--nameserver",
        lab.nameserver,
        "--state-dir",
        str(directory),
    ]
    located = f"mutauth:scp={_SERVICE}:nameserver={lab.nameserver}"
    make_certificates(directory)
    with ExitStack() as stack:
        administrator = environment("administrator")
        subprocess.run(
            [*_MUTAUTH, "install", *named, "--account", "svc-echo"], env=administrator, check=True
        )
        stack.callback(
            subprocess.run, [*_MUTAUTH, "uninstall", *named], env=administrator, check=True
        )
        keytab = ["--keytab", str(lab.keytab("svc-echo"))]
        listen = ["--listen", f"tcp:0:interface={address}"]
        service = [
            *_TWISTD,
            "mutauth",
            *named,
            *keytab,
            *listen,
            "--allow",
            f"*@{lab.realm}",
            "--echo",
        ]
        port = stack.enter_context(
            started(service, "serving", environment("alice"), directory / "service.log")
        )
        spn = f"{_SERVICE}/{host}/CN={_SERVICE},CN=srv1,CN=Computers,{lab.base_dn}"
        forward = [*_MUTAUTH, "connect", located, "--listen", "tcp:0:interface=127.0.0.1"]
        local = stack.enter_context(
            started(forward, "listening", environment("alice"), directory / "forwarder.log")
        )
        plain, tls = Server("plain", directory), Server("twisted-tls", directory)
        for server in (plain, tls):
            stack.callback(server.stop)
        os.environ.update(lab.environment("alice"))
        quoted = f"tcp\\:{address}\\:{port}"
        yield {
            "plain TCP": plain.endpoint(reactor, directory),
            "mutual TLS 1.3": tls.endpoint(reactor, directory),
            "spn=": clientFromString(reactor, f"mutauth:{quoted}:spn={spn}"),
            "scp=": clientFromString(reactor, located),
            "connect --listen": clientFromString(reactor, f"tcp:127.0.0.1:{local}"),
        }


async def first_byte(endpoint: IStreamClientEndpoint) -> float:
    """Milliseconds until the first byte of the answer."""
    began = time.perf_counter()
    client: Any = await endpoint.connect(Factory.forProtocol(Timed))
    await client.gone
    return (client.first - began) * 1000


async def compare(reactor: Any, given: argparse.Namespace) -> None:
    lab = Lab.current()
    with (
        tempfile.TemporaryDirectory(prefix="mutauth-bench-") as made,
        endpoints(reactor, lab, Path(made)) as kinds,
    ):
        waits: dict[str, list[float]] = {kind: [] for kind in kinds}
        for endpoint in kinds.values():
            await first_byte(endpoint)
        for _ in range(given.rounds):
            for kind, endpoint in kinds.items():
                waits[kind] += [await first_byte(endpoint) for _ in range(given.connections)]
    for kind, each in waits.items():
        percentile = statistics.quantiles(each, n=100, method="inclusive")
        print(f"{kind:>22}  p50 {percentile[49]:7.2f} ms   p99 {percentile[98]:7.2f} ms")
    print(
        "connect --listen against mutual TLS 1.3: "
        f"{ratio(waits, 'connect --listen', 'mutual TLS 1.3'):.2f}"
    )
    conclude(
        Figure(
            "milliseconds to the first byte through connect --listen",
            statistics.median(waits[kind]),
            3.0,
        )
    )


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--connections", type=int, default=30)
    react(lambda reactor: Deferred.fromCoroutine(compare(reactor, options.parse_args())))
