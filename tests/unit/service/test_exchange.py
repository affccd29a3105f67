"""Services that take each other's place in a running process, on real sockets."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import formatEvent

from mutauth_twisted.errors import NetworkError
from mutauth_twisted.net import listening
from mutauth_twisted.service import process as process_module
from mutauth_twisted.service.assembly import make_process
from mutauth_twisted.service.exitcode import CUT
from mutauth_twisted.service.reload import Reloader
from mutauth_twisted.service.server import MutualAuthService
from mutauth_twisted.settings.mistakes import Collector
from mutauth_twisted.settings.process import ProcessSettings
from mutauth_twisted.settings.service import Settings
from mutauth_twisted.settings.twistd import TWISTD, Options
from mutauth_twisted.status.pages import pages
from mutauth_twisted.testing.certificates import Certificates
from mutauth_twisted.testing.fakes import captured_log
from tests.unit.kerberos_case import Case

#: The header of a balancer's client (PROXY protocol, version 2): 192.0.2.7 to 192.0.2.8.
HEADER = bytes.fromhex("0d0a0d0a000d0a515549540a 2111000c c0000207 c0000208 0001 0002")


#: An address that no connection of others is dialled from, as those of 127.0.0.1 are.
HOST = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255 | 1}"


def free_ports(count: int) -> list[int]:
    """Ports that nobody has."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in found]


class ExchangeCase(Case):
    """A process, a reactor that turns when it is told to, and reloads whose source is the test."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor: Any = SelectReactor()
        self.reactor.stop = mock.Mock()
        self.codes: list[int] = []
        self.patch(process_module, "end_with", lambda code, reactor: self.codes.append(code))
        self.keytab = Path(self.realm.keytab("svc-echo")).absolute()
        self.keytab.chmod(0o600)
        self.port, self.other_port, self.third_port = free_ports(3)
        self.events: Any = self.enterContext(captured_log())

    def one(self, name: str, *words: str, port: int | None = None, **changes: Any) -> Settings:
        """A service of this name."""
        serve = () if any("forward" in word for word in words) else ("--echo",)
        options = Options()
        options.parseOptions(
            (
                *("--service-class=echoSvc", "--host=srv1.example.com", *serve, *words),
                *("--allow-all", "--publish=none", "--spn-check=off", "--accept-replays"),
                *("--drain-timeout=30", f"--keytab={self.keytab}"),
                f"--listen=tcp:{port or self.port}:interface={HOST}",
            )
        )
        return evolve(options.settings.services[0], name=name, **changes)

    def start(self, *services: Settings) -> None:
        """Start a process with these."""
        self.now, self.mistakes = ProcessSettings(services, TWISTD), Collector()
        self.process = make_process(self.reactor, self.now)
        self.reloader = Reloader(self.reactor, self.process, lambda: (self.now, self.mistakes))
        self.process.reloads = self.reloader
        self.process.running = 1
        starting = Deferred.fromCoroutine(self.process._start())
        self.wait(lambda: starting.called)
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """End it."""
        if self.process.running:
            with mock.patch.object(process_module, "expect_no_more"):
                stopping = self.process.stopService()
            self.wait(lambda: stopping.called)
            self.turn()

    def turn(self, times: int = 5) -> None:
        for _ in range(times):
            self.reactor.iterate(0.005)

    def wait(self, condition: Callable[[], object]) -> None:
        """Turn until it is so."""
        give_up_at = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), give_up_at, self.lines())
            self.reactor.iterate(0.01)

    def lines(self) -> list[str]:
        return [str(formatEvent(event)) for event in self.events]

    def reload(self, *services: Settings) -> None:
        """Reload with these services."""
        self.now = evolve(self.now, services=services)
        self.reloader.request("SIGHUP")
        self.wait(lambda: self.reloader._running is None)

    def connect(self, port: int | None = None) -> socket.socket:
        """A connection that says nothing."""
        made = socket.create_connection((HOST, port or self.port), 5)
        self.addCleanup(made.close)
        made.settimeout(5)
        self.turn()
        return made

    def count(self, name: str) -> int:
        """Connections that a service has."""
        return len(self.process.services[name]._factory._live)

    def assert_served(self, name: str, port: int | None = None) -> None:
        """A new connection is this service's."""
        before = self.count(name)
        self.connect(port)
        self.assertEqual(self.count(name), before + 1, self.lines())

    def assert_applied(self) -> None:
        self.assertEqual(self.reloader.last.result, "applied", self.lines())
        self.assertIsNone(self.reloader.last.finding)


class PlaceTests(ExchangeCase):
    """Places that go from one service to another, while an idle connection is there."""

    def test_renamed(self) -> None:
        """A service with another name keeps the port open."""
        self.start(self.one("a"))
        self.connect()
        self.reload(self.one("b"))
        self.assert_applied()
        self.assert_served("b")
        self.assertEqual(list(self.process.leaving), [mock.ANY])
        self.reload(self.one("a"))
        self.assert_applied()
        self.assert_served("a")

    def test_moved(self) -> None:
        """A port goes from one service to another, and two services swap theirs."""
        other = self.third_port
        first, second = self.one("a"), self.one("b", port=self.other_port)
        self.start(first, second)
        self.connect()
        self.connect(self.other_port)
        self.reload(self.one("a", port=other), self.one("b"))
        self.assert_applied()
        self.assert_served("a", other)
        self.assert_served("b")
        self.assertRaises(ConnectionRefusedError, self.connect, self.other_port)
        self.reload(self.one("a"), self.one("b", port=other))
        self.assert_applied()
        self.assert_served("a")
        self.assert_served("b", other)

    def test_ident(self) -> None:
        """Ident queries are answered while a service is replaced, also about the clients of the one
        before; and when it comes back while that drains.
        """
        words = ("--forward=tcp:127.0.0.1:9",)
        ident = {"ident_address": (HOST, self.other_port)}
        self.start(self.one("a", *words, **ident))
        old: Any = self.process.services["a"]
        self.connect()
        old._ident._names[("127.0.0.1", 40000, 9)] = "alice@TEST.EXAMPLE"
        self.reload(self.one("a", *words, **ident, account="svc-echo"))
        self.assert_applied()
        self.assertEqual(self.ask(), b"40000 , 9 : USERID : UNIX : alice@TEST.EXAMPLE\r\n")
        new: Any = self.process.services["a"]
        self.assertIsNot(new, old)
        self.connect()
        # Without it the one that drains keeps it, from which it is had back.
        self.reload(self.one("a"))
        self.assert_applied()
        self.assertEqual(self.ask(), b"40000 , 9 : USERID : UNIX : alice@TEST.EXAMPLE\r\n")
        self.reload(self.one("a", *words, **ident))
        self.assert_applied()
        self.assertEqual(self.ask(), b"40000 , 9 : USERID : UNIX : alice@TEST.EXAMPLE\r\n")

    def ask(self) -> bytes:
        question = self.connect(self.other_port)
        question.sendall(b"40000, 9\r\n")
        self.turn()
        return question.recv(4096)

    def test_without_rights(self) -> None:
        """Nothing is bound again that is bound: a process that is not root any more could not, be
        it a port below 1024 or a UNIX socket in a directory of root's.
        """
        directory = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, directory)
        path = Path(directory, "socket")
        both = (*self.one("a").listen, f"unix:{path}")
        self.start(self.one("a", listen=both))
        self.connect()
        inode = path.stat().st_ino
        refusal = listening.CannotListenError("127.0.0.1", 1, PermissionError(13, "denied"))
        self.patch(listening, "_bound", mock.Mock(side_effect=refusal))
        self.patch(self.reactor, "listenUNIX", mock.Mock(side_effect=refusal))
        for account in ("svc-echo", None):
            self.reload(self.one("a", listen=both, account=account))
            self.assert_applied()
            self.assert_served("a")
            self.assertEqual(path.stat().st_ino, inode)
        self.reload(self.one("a", port=self.other_port))
        self.assertEqual(self.reloader.last.result, "rejected")
        self.assertIn("denied", str(self.reloader.last.finding))
        self.assert_served("a")

    def test_rejected(self) -> None:
        """A reload that is rejected leaves every place as it was, and no descriptor."""
        self.start(self.one("a"))
        self.connect()
        trail = Path(self.mktemp()).absolute()
        open_before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with socket.create_server((HOST, self.other_port)):
                bad = (f"tcp:{self.other_port}:interface={HOST}",)
                self.reload(self.one("b", listen=self.one("a").listen + bad, audit=str(trail)))
            self.assertEqual(self.reloader.last.result, "rejected")
            self.keytab.rename(f"{self.keytab}.gone")
            self.reload(self.one("a", audit=str(trail)))
            Path(f"{self.keytab}.gone").rename(self.keytab)
            self.assertEqual(self.reloader.last.result, "rejected")
        self.assertEqual(len(os.listdir("/proc/self/fd")), open_before)
        self.assert_served("a")

    def test_taken_meanwhile(self) -> None:
        """A place that another program has taken in the last moment is told, and the reload after
        it tries again.
        """
        self.start(self.one("a"))
        failing = mock.Mock(side_effect=NetworkError("endpoint X", "it is taken", "choose another"))
        with mock.patch.object(listening.Listener, "listen", failing):
            self.reload(self.one("a", port=self.other_port))
        finding = self.reloader.last.finding
        assert finding is not None
        self.assertEqual(
            (finding.code, self.reloader.last.result), ("reload-incomplete", "applied")
        )
        self.assertFalse(self.process.snapshots()[0].ready)
        self.reload(self.one("a", port=self.other_port))
        self.assert_applied()
        self.assert_served("a", self.other_port)
        self.assertTrue(self.process.snapshots()[0].ready)

    def test_not_published(self) -> None:
        """A service that could not be published serves, says so, and is tried again."""
        self.start(self.one("a"))
        error = NetworkError("SCP", "it cannot be written", "wait")
        with mock.patch.object(MutualAuthService, "_publish", side_effect=error):
            self.reload(self.one("b"))
        finding = self.reloader.last.finding
        assert finding is not None
        self.assertEqual(finding.code, "reload-incomplete")
        self.assert_served("b")
        (shown, *_) = self.process.snapshots()
        self.assertTrue(shown.serving)
        self.assertFalse(shown.ready)
        self.reload(self.one("b"))
        self.assert_applied()
        self.assert_served("b")
        self.assertTrue(self.process.snapshots()[0].ready)


class BackendTests(ExchangeCase):
    """The backend of a gateway."""

    def test_certificate(self) -> None:
        """A backend's authority is read again when its file has changed, and the service stays."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        trusted = directory / "trusted.pem"
        first, second = (Certificates(directory / name) for name in ("first", "second"))
        trusted.write_bytes(Path(first.ca_file).read_bytes())
        one = self.one("a", f"--forward=tls:localhost:9:trustRoots={trusted}")
        self.start(one)
        service = self.process.services["a"]
        self.assertIn(str(trusted), self.reloader._files())
        application = service._factory.wrapped
        self.reload(one)
        self.assertEqual(self.reloader.last.result, "unchanged")
        trusted.write_bytes(Path(second.ca_file).read_bytes())
        self.reload(one)
        self.assert_applied()
        self.assertIs(self.process.services["a"], service)
        self.assertIsNot(service._factory.wrapped, application)
        self.assertIs(service._backend, service._factory.wrapped.backend)  # type: ignore[attr-defined]
        self.reload(self.one("a", f"--forward=tls:localhost:9:trustRoots={trusted}", "--deny=x@L"))
        self.assertIs(service._backend, service._factory.wrapped.backend)  # type: ignore[attr-defined]


class LeavingTests(ExchangeCase):
    """Services that have left, and their connections."""

    def test_rules(self) -> None:
        """The rules of a service decide about the connections of the one before, too."""
        self.start(self.one("a"))
        old: Any = self.process.services["a"]
        self.connect()
        self.reload(self.one("b", "--deny=x@LAB.EXAMPLE"))
        new: Any = self.process.services["b"]
        self.assertIs(old._factory.policy, new._factory.policy)
        self.reload(self.one("b", "--deny=y@LAB.EXAMPLE"))
        self.assertIs(self.process.services["b"], new)
        self.assertIs(old._factory.policy, new._factory.policy)

    def test_shown(self) -> None:
        """One that nobody succeeds is in the status as long as it drains, and does not count for
        readiness; what a stop cuts of it counts for the exit code.
        """
        self.start(self.one("a"), self.one("b", port=self.other_port, drain_timeout=0.2))
        self.connect(self.other_port)
        leaving: Any = self.process.services["b"]
        leaving.settings = evolve(leaving.settings, drain_timeout=0.3)
        self.reload(self.one("a"))
        self.assertEqual([each.service for each in self.process.snapshots()], ["a", "b"])
        ready = pages(self.process.snapshots, "srv1")["/readyz"]
        self.assertEqual(ready("").code, 200)
        self.stop()
        self.assertEqual(self.codes[-1], CUT)

    def test_header_that_comes_late(self) -> None:
        """A balancer's connection without its header is served still while its service drains, and
        is over when that has; nothing is written to the audit trail afterwards.
        """
        trail = Path(self.mktemp()).absolute()
        words = ("--proxy-from=127.0.0.1",)
        for drain, is_served in ((30.0, True), (0.1, False)):
            gone = self.one("b", *words, port=self.other_port, drain_timeout=drain)
            gone = evolve(gone, audit=str(trail))
            if is_served:
                self.start(self.one("a"), gone)
            else:
                self.reload(self.one("a"), gone)
            balancer = self.connect(self.other_port)
            self.reload(self.one("a"))
            if is_served:
                balancer.sendall(HEADER)
                self.turn()
                (leaving,) = self.process.leaving
                self.assertEqual(len(leaving._factory._live), 1)
                balancer.close()
            self.wait(lambda: not self.process.leaving)
            if not is_served:
                self.turn()
                self.assertRaises(ConnectionResetError, balancer.recv, 1)
            events = [json.loads(line)["event"] for line in trail.read_text().splitlines()]
            self.assertEqual(events[-1], "stopped")
