"""Applications that ``twistd mutauth`` serves: what can be made of a name, and what is said of one
that cannot.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.directory.servicename import ServiceName
from mutauth_twisted.errors import UsageError
from mutauth_twisted.gateway.forwarded import ForwardedIdentity
from mutauth_twisted.gateway.proxyprotocol import SIGNATURE, HeaderParser
from mutauth_twisted.log import LimitedLog
from mutauth_twisted.service.applications import application_factory
from mutauth_twisted.testing import authenticated_pair
from mutauth_twisted.testing.fakes import FakeTransport, captured_log

READY = Factory.forProtocol(Protocol)


class Greeting(Factory[Protocol]):
    """A factory that has to be told something."""

    def __init__(self, greeting: str) -> None:
        self.greeting = greeting


def failing() -> Factory[Protocol]:
    """Makes nothing."""
    raise OSError("no such table")


class FactoryTests(SynchronousTestCase):
    """``--factory NAME``."""

    def made(self, kind: str, argument: str) -> Any:
        """Applications that are served."""
        return application_factory(
            MemoryReactorClock(), mock.Mock(serve=(kind, argument), proxy_protocol=False)
        )

    def refusal(self, name: str, kind: str = "factory") -> str:
        """The one line that a name ends with."""
        line = str(self.assertRaises(UsageError, self.made, kind, name))
        self.assertNotIn("\\n", line)
        return line

    def test_taken(self) -> None:
        """A factory that is there, and what makes one."""
        self.assertIs(self.made("factory", f"{__name__}.READY"), READY)
        self.assertIsInstance(self.made("factory", "twisted.internet.protocol.Factory"), Factory)

    def test_refused(self) -> None:
        """Each mistake has its own words and its own next step."""
        for name, cause, remedy in (
            ("no.such.thing", "there is no such module", "PYTHONPATH"),
            ("..", "there is no such module", "PYTHONPATH"),
            (
                f"{__name__}.Nothing",
                "there is no such module, or nothing of this name in it",
                "PYTHONPATH",
            ),
            (
                f"{__name__}.__doc__",
                "it is neither a factory nor makes one",
                "name a Twisted factory",
            ),
            (
                f"{__name__}.Greeting",
                "it cannot be called without arguments: missing a required argument",
                "made already",
            ),
            (
                f"{__name__}.failing",
                "making it fails with OSError: no such table",
                "fix what makes it",
            ),
            (
                "builtins.int",
                "it makes no factory (IProtocolFactory) but an object of int",
                "name a Twisted factory",
            ),
        ):
            line = self.refusal(name)
            self.assertIn(f"--factory {name}: {cause}", line)
            self.assertIn(remedy, line.rpartition("; ")[2])

    def test_broken_module(self) -> None:
        """A module that fails while it is imported is not said to be missing."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "brokenmutauthmodule.py").write_text("1 / 0")
        self.patch(sys, "path", [str(directory), *sys.path])
        self.assertIn(
            "importing it fails with ZeroDivisionError", self.refusal("brokenmutauthmodule.Factory")
        )

    def test_plain_service(self) -> None:
        """A port that is not a number is said to be that."""
        line = self.refusal("tcp:localhost:x", "forward")
        self.assertIn(
            "its port or another number in it is invalid; write it in full, such as tcp:HOST:PORT",
            line,
        )


def forwarding(**options: object) -> Any:
    """Settings of a service in front of another one."""
    usual = {
        "serve": ("forward", "tcp:127.0.0.1:9"),
        "backend_timeout": 10.0,
        "half_closed_timeout": 600.0,
        "unsafe_backend": False,
        "proxy_protocol": False,
    }
    return mock.Mock(**{**usual, **options})


class ForwardTests(SynchronousTestCase):
    """``--forward ENDPOINT``."""

    def test_unreachable(self) -> None:
        """A plain service that is down is named in the log, but not once for each client that comes
        back.
        """
        reactor = MemoryReactorClock()
        factory = application_factory(reactor, forwarding())
        with captured_log() as events:
            for _ in range(100):
                client: Any = factory.buildProtocol(cast(Any, None))
                client.makeConnection(FakeTransport())
                refused = Failure(ConnectionRefusedError())
                reactor.tcpClients[-1][2].clientConnectionFailed(None, refused)
            lines = [formatEvent(event) for event in events]
            self.assertEqual(
                lines,
                [
                    "[backend-unreachable] backend tcp:127.0.0.1:9: nothing listens there "
                    "(connection refused); check that it runs, and its address"
                ]
                * len(lines),
            )
            self.assertTrue(0 < len(lines) <= LimitedLog.LINES)
            left_out = 100 - len(lines)
            reactor.advance(LimitedLog.INTERVAL)
        self.assertIn(
            f"{left_out} more connections to the plain service failed", formatEvent(events[-1])
        )

    def introduced(self, principal: str) -> tuple[MemoryReactorClock, list[str], Any]:
        """Backends that a client's connection leads to where they are told who it is."""
        reactor = MemoryReactorClock()
        settings = forwarding(
            proxy_protocol=True,
            proxy_groups=True,
            service=ServiceName("echoSvc", "srv1.example.com"),
        )
        factory = application_factory(reactor, settings)
        with captured_log() as events:
            pair = authenticated_pair(
                cast(Any, factory),
                Factory.forProtocol(Protocol),
                principal=principal,
                groups=("S-1-5-21-1-2-3-4",),
            )
            pair.flush()
            lines = [formatEvent(event) or "" for event in events]
        return reactor, lines, pair

    def test_told_who_it_is(self) -> None:
        """The header is the first that the backend gets, before what the client has said."""
        reactor, _, pair = self.introduced("alice@TEST.EXAMPLE")
        backend = StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 9))
        pair.client.transport.write(SIGNATURE + b" as a client says it")
        pair.flush()
        relay: Any = reactor.tcpClients[0][2].buildProtocol(None)
        relay.makeConnection(backend)
        pair.flush()
        header, rest = HeaderParser().feed(backend.value()) or self.fail("there is no header")
        told = ForwardedIdentity.told(header)
        assert told is not None
        self.assertEqual(
            (told.principal, told.realm, told.spn, told.groups),
            (
                "alice@TEST.EXAMPLE",
                "TEST.EXAMPLE",
                "echoSvc/srv1.example.com",
                ("S-1-5-21-1-2-3-4",),
            ),
        )
        self.assertEqual(rest, SIGNATURE + b" as a client says it")

    def test_not_to_be_told(self) -> None:
        """The backend is not even dialled for a client whose name cannot be told."""
        reactor, lines, pair = self.introduced("ali\0ce@TEST.EXAMPLE")
        self.assertEqual(reactor.tcpClients, [])
        self.assertTrue(pair.server.transport.disconnecting)
        self.assertTrue(any("[identity-not-forwardable]" in line for line in lines), lines)
