"""One end of a pair of forwarders for ``forward.py``, which prints its port.

    python benchmarks/forwarder.py plain|service|entrance PROTECTION PORT DIRECTORY [PROFILE]

``plain`` is Twisted's own port forwarder; ``service`` what ``twistd mutauth --forward`` runs, and
``entrance`` what ``mutauth connect --listen`` does; PORT is where each leads.
"""

from __future__ import annotations

import cProfile
import sys
from pathlib import Path
from typing import Any

from measure import ACCOUNT, SERVICE, raise_file_limit
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.protocols.portforward import ProxyFactory
from twisted.python.failure import Failure

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.gateway.backend import GatewayFactory, make_backend
from mutauth_twisted.gateway.entrance import EntranceFactory
from mutauth_twisted.gateway.relay import HalfClosed
from mutauth_twisted.mechanisms.kerberos import ServiceKeys
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.net.server import MutualAuthServerFactory
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.status.counting import Counting

reactor: Any = _reactor
HOST = "127.0.0.1"


def refused(failure: Failure) -> None:
    """Nothing must fail here."""
    failure.printTraceback()


def make_factory(kind: str, protection: str, port: int, directory: Path) -> Factory:
    """The factory of one end."""
    if kind == "plain":
        return ProxyFactory(HOST, port)
    security, patience = (
        SecurityOptions(protection=Protection(protection)),
        HalfClosed(reactor, 600),
    )
    if kind == "entrance":
        endpoint = MutualAuthClientEndpoint(
            reactor,
            TCP4ClientEndpoint(reactor, HOST, port),
            SPN.parse(SERVICE),
            ClientCredentials(),
            security,
        )
        return EntranceFactory(endpoint, refused, half_closed=patience)
    gateway = GatewayFactory(make_backend(reactor, f"tcp:{HOST}:{port}"), refused, patience)
    keys = ServiceKeys(ServiceCredentials(str(directory / f"{ACCOUNT}.keytab")))
    made: Any = MutualAuthServerFactory(
        reactor, gateway, keys, AccessPolicy(allow=("*@TEST.EXAMPLE",)), security
    )
    made.observers.add(Counting(reactor))  # as a service does
    return made


def main(kind: str, protection: str, port: str, directory: str, profile: str = "") -> None:
    """Serve until the end."""
    raise_file_limit()
    where = Path(directory)
    log = (where / f"forwarder-{kind}.log").open("w")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(log)], redirectStandardIO=False)
    factory = make_factory(kind, protection, int(port), where)
    listening = reactor.listenTCP(0, factory, interface=HOST, backlog=1024)
    print(listening.getHost().port, flush=True)
    if profile:
        profiler = cProfile.Profile()
        profiler.runcall(reactor.run)
        profiler.dump_stats(profile)
    else:
        reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
