"""An echo server for the benchmarks, which prints its port.

    python benchmarks/serve.py plain|messages|twisted-tls|PROTECTION DIRECTORY [PROFILE]

``messages`` is plain TCP that says as much, in as many turns, as a sealed
connection.  With PROFILE, a file's name, cProfile's figures are left there.

The log goes to a file, as a service's does.
"""

from __future__ import annotations

import cProfile
import sys
from pathlib import Path
from typing import Any

from certificates import server_options
from measure import ACCOUNT, MESSAGES, raise_file_limit
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.protocols.wire import Echo
from twisted.python.failure import Failure

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ServiceCredentials
from mutauth_twisted.mechanisms.kerberos import ServiceKeys
from mutauth_twisted.net.server import MutualAuthServerFactory
from mutauth_twisted.protection import Protection
from mutauth_twisted.status.counting import Counting

reactor: Any = _reactor


class QuietEcho(Echo):
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted's own waits for nothing either."""


class Answering(Protocol):
    """The other side of ``measure.Talking``."""

    def __init__(self) -> None:
        self._turns = list(MESSAGES)
        self._missing = self._turns.pop(0)

    def dataReceived(self, data: bytes) -> None:
        self._missing -= len(data)
        if not self._missing:
            transport: Any = self.transport
            transport.write(bytes(self._turns.pop(0)))
            if self._turns:
                self._missing = self._turns.pop(0)
            else:
                transport.loseConnection()


def make_factory(kind: str, directory: Path) -> Any:
    factory: Any = Factory.forProtocol(Answering if kind == "messages" else QuietEcho)
    factory.noisy = False
    if kind in ("plain", "messages"):
        return factory
    if kind == "twisted-tls":
        options: CertificateOptions = server_options(directory)
        return TLSMemoryBIOFactory(options, False, factory)
    keys = ServiceKeys(ServiceCredentials(str(directory / f"{ACCOUNT}.keytab")))
    policy = AccessPolicy(allow=("*@TEST.EXAMPLE",))
    made = MutualAuthServerFactory(
        reactor, factory, keys, policy, SecurityOptions(protection=Protection(kind))
    )
    made.observers.add(Counting(reactor))  # as a service does
    return made


def main(kind: str, directory: str, profile: str = "") -> None:
    raise_file_limit()
    where = Path(directory)
    log = (where / f"{kind}.log").open("w")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(log)], redirectStandardIO=False)
    port = reactor.listenTCP(0, make_factory(kind, where), interface="127.0.0.1", backlog=1024)
    print(port.getHost().port, flush=True)
    if profile:
        profiler = cProfile.Profile()
        profiler.runcall(reactor.run)
        profiler.dump_stats(profile)
    else:
        reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
