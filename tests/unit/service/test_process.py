"""Several services in one process: started together or not at all, stopped together."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent

from mutauth_twisted.errors import CredentialError, MutualAuthError, NotFound
from mutauth_twisted.service import process as module
from mutauth_twisted.service.assembly import _fitting_and_told, fitting, make_service
from mutauth_twisted.service.process import Process
from mutauth_twisted.service.server import MutualAuthService
from mutauth_twisted.settings.mistakes import Collector
from mutauth_twisted.settings.process import ProcessSettings
from mutauth_twisted.settings.twistd import TWISTD, Options
from mutauth_twisted.testing.fakes import captured_log
from tests.unit.kerberos_case import Case

NAMES = ("echo", "other")


class Unchecked(MutualAuthService):
    """A service whose check of the directory the test ends."""

    checked: Deferred[None]

    async def check(self) -> None:
        """Wait for the test."""
        await self.checked


class ProcessTests(Case):
    """Two services with the keytabs of two accounts."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor: Any = MemoryReactorClock()
        self.reactor.hasRun = True
        self.reactor.stop = mock.Mock()
        self.codes: list[int] = []
        self.patch(module, "end_with", lambda code, reactor: self.codes.append(code))
        services = []
        for number, name in enumerate(NAMES, 1):
            options = Options()
            options.parseOptions(
                (
                    *("--service-class=echoSvc", "--host=srv1.example.com", "--echo"),
                    *("--allow-all", "--publish=none", "--spn-check=off", "--accept-replays"),
                    f"--keytab={Path(self.realm.keytab(f'svc-{name}')).absolute()}",
                    *(f"--listen=tcp:{number}", "--status=tcp:99"),
                )
            )
            services.append(evolve(options.settings.services[0], name=name))
        self.settings = ProcessSettings(tuple(services), TWISTD, "tcp:99")
        self.services: list[Any] = []
        for each in fitting(self.settings):
            service: Any = make_service(self.reactor, each)
            service.__class__, service.checked = Unchecked, Deferred()
            self.services.append(service)
        self.process = Process(self.reactor, self.settings, self.services)

    def ports(self) -> list[int]:
        """Where it listens."""
        return [each[0] for each in self.reactor.tcpServers]

    def start(self, *ends: MutualAuthError | None) -> list[str]:
        """Start them, let the checks end so, and return what the log says."""
        with captured_log() as events:
            self.process.startService()
            for service, end in zip(self.services, ends, strict=True):
                self.assertEqual(self.ports(), [])
                if end is None:
                    service.checked.callback(None)
                else:
                    service.checked.errback(end)
        return [formatEvent(event) for event in events]

    def test_start(self) -> None:
        """No port is open before the last check has passed, and then all are."""
        lines = self.start(None, None)
        self.assertEqual(self.ports(), [1, 2, 99])
        where = [line.split()[1] for line in lines if line.startswith("serving ")]
        self.assertEqual(where, list(NAMES))
        self.assertEqual(self.codes, [])
        told = [(one.service, len(one.serving), one.ready) for one in self.process.snapshots()]
        self.assertEqual(told, [("echo", 1, True), ("other", 1, True)])

    def test_by_name(self) -> None:
        """Each is found by its name, with keys of its own."""
        self.assertEqual(tuple(self.process.services), NAMES)
        files = [self.settings[name].keytab for name in NAMES]
        self.assertIn("svc-other", str(files[1]))
        self.assertNotEqual(files[0], files[1])

    def test_one_may_not_start(self) -> None:
        """None of them opens a port, and the process ends with the code of the error."""
        lines = self.start(None, NotFound("SCP", "it is gone", code="scp-not-found"))
        self.assertEqual(self.ports(), [])
        self.assertIn("other does not start: [scp-not-found] SCP: it is gone", lines)
        self.assertEqual(self.codes, [NotFound.exit_code])
        self.reactor.stop.assert_called_once_with()

    def test_all_mistakes_are_told(self) -> None:
        """Not only those of the first service."""
        lines = self.start(
            CredentialError("keytab K", "it is empty", code="keytab-lacks-key"),
            NotFound("SCP", "it is gone", code="scp-not-found"),
        )
        refusals = [line for line in lines if "does not start" in line]
        self.assertEqual([line.split()[0] for line in refusals], list(NAMES))
        self.assertEqual(self.codes, [CredentialError.exit_code])

    def test_stopped_meanwhile(self) -> None:
        """A process that is stopped while it checks opens no port, and refuses nothing."""
        self.process.startService()
        self.services[0].checked.callback(None)
        stopped = self.process.stopService()
        self.assertNoResult(stopped)
        self.reactor.advance(1)  # the check that is under way is given up
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual((self.ports(), self.codes), ([], [0]))

    def test_stop(self) -> None:
        """All ports are closed, the status last; a stopping process is not healthy."""
        closed = []

        def closer(port: Any) -> Any:
            return lambda: closed.append(port.getHost().port)

        self.start(None, None)
        for service in self.services:
            for port in service._ports:
                port.getHost = lambda number=service: IPv4Address("TCP", "127.0.0.1", 1)
                port.stopListening = closer(port)
        for port in self.process._status_ports:
            port.getHost = lambda: IPv4Address("TCP", "127.0.0.1", 99)
            port.stopListening = closer(port)
        self.successResultOf(self.process.stopService())
        self.assertEqual(closed, [1, 1, 99])
        told = [(one.ready, one.stopping) for one in self.process.snapshots()]
        self.assertEqual(told, [(False, True)] * 2)
        self.assertEqual(self.codes, [0])


class FittingTests(Case):
    """The descriptors of one process, for several services."""

    def test_shares(self) -> None:
        """Each has as many, and the log says so."""
        options = Options()
        options.parseOptions(("--service-class=x", "--host=h.example.com", "--echo", "--allow-all"))
        one = options.settings.services[0]
        two = ProcessSettings((evolve(one, name="a"), evolve(one, name="b")), TWISTD)
        with (
            mock.patch("mutauth_twisted.service.assembly.raise_limit", return_value=1064),
            captured_log() as events,
        ):
            fitted = list(_fitting_and_told(two, Collector()))
        for each in fitted:
            limits = each.limits
            self.assertLessEqual(limits.handshakes + limits.waiting + limits.connections, 500)
            self.assertGreater(limits.connections, 300)
        lines = [formatEvent(event) for event in events]
        self.assertIn("a: this process may have 1064 descriptors for its 2 services", lines[0])
        self.assertEqual(len(lines), 2)
