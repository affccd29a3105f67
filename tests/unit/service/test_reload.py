"""Decisions of a reload: which service is the same, changes, or becomes another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent

from mutauth_twisted.errors import DirectoryUnreachable, UsageError
from mutauth_twisted.service.assembly import make_process
from mutauth_twisted.service.messages import Configuration
from mutauth_twisted.service.reload import Reloader
from mutauth_twisted.service.server import MutualAuthService
from mutauth_twisted.settings.mistakes import Collector
from mutauth_twisted.settings.process import ProcessSettings
from mutauth_twisted.settings.service import Settings
from mutauth_twisted.settings.twistd import Options
from mutauth_twisted.testing.fakes import captured_log
from tests.unit.kerberos_case import Case


class ReloadCase(Case):
    """A process with one service, whose source is the test."""

    what: tuple[str, ...] = ("--echo",)

    def setUp(self) -> None:
        super().setUp()
        self.reactor: Any = MemoryReactorClock()
        self.reactor.hasRun = True
        self.reactor.stop = mock.Mock()
        self.keytab = Path(self.realm.keytab("svc-echo")).absolute()
        self.keytab.chmod(0o600)
        options = Options()
        options.parseOptions(
            (
                *("--service-class=echoSvc", "--host=srv1.example.com", "--allow-all", *self.what),
                *("--publish=none", "--spn-check=off", "--accept-replays"),
                *("--listen=unix:" + self.mktemp(), f"--keytab={self.keytab}"),
            )
        )
        self.settings: ProcessSettings = options.settings
        self.now, self.wrong = self.settings, Collector()
        with mock.patch("mutauth_twisted.service.assembly.Places"):
            self.process = make_process(self.reactor, self.settings)
        self.service = self.process.services["echoSvc"]
        self.reloader = Reloader(self.reactor, self.process, lambda: (self.now, self.wrong))
        self.process.reloads = self.reloader
        self.reloader.start()
        self.addCleanup(self.reloader._watch.stop)

    def one(self, **changes: Any) -> Settings:
        return evolve(self.settings.services[0], **changes)

    def reload(self, *services: Settings) -> list[str]:
        """Reload with these services; the lines of the log."""
        self.now = evolve(self.settings, services=services or self.settings.services)
        with captured_log() as events:
            self.reloader.request("SIGHUP")
        return [formatEvent(event) for event in events]


class ReloadTests(ReloadCase):
    """The decisions."""

    def test_nothing(self) -> None:
        """The same again changes nothing."""
        self.assertEqual(self.reload(), ["reload (SIGHUP): nothing has changed"])
        self.assertEqual(self.reloader.last.result, "unchanged")
        self.assertIsNone(self.reloader.last.finding)

    def test_in_place(self) -> None:
        """The service goes on, and has the limits, the drain timeout and the rules of now."""
        limits = evolve(self.settings.services[0].limits, connections=7)
        explicit = frozenset({"max-connections"})
        now = self.one(limits=limits, explicit_limits=explicit, drain_timeout=9.0)
        *_, line = self.reload(now)
        self.assertEqual(line, "reload (SIGHUP) applied: changed echoSvc")
        self.assertIs(self.process.services["echoSvc"], self.service)
        self.assertEqual(self.service.settings.drain_timeout, 9.0)
        self.assertEqual(self.service.snapshot().values["sessions_limit"], 7)
        self.assertEqual(self.process.settings.services[0].drain_timeout, 9.0)

    def test_keytab(self) -> None:
        """A keytab with other content is a change, and an empty one is refused."""
        content = self.keytab.read_bytes()
        self.keytab.write_bytes(b"")
        lines = self.reload()
        self.assertIn(f"keytab {self.keytab}: it holds no keys", lines[0])
        finding = self.reloader.last.finding
        assert finding is not None
        self.assertEqual(finding.code, "reload-rejected")
        self.assertEqual(self.reloader.last.figures["reload_success"], 0)
        self.assertIn(finding, self.process.snapshots()[0].warnings)
        self.keytab.write_bytes(content)
        self.assertEqual(self.reload(), ["reload (SIGHUP): nothing has changed"])
        self.assertEqual(self.reloader.last.figures["reload_success"], 1)
        self.keytab.write_bytes(Path(self.realm.keytab("svc-other")).read_bytes())
        self.assertEqual(self.reload()[-1], "reload (SIGHUP) applied: changed echoSvc")

    def test_all_mistakes(self) -> None:
        """Each has its line, and the last good settings stay."""
        self.wrong.add(UsageError("F:1: key a", "it is wrong", "correct it"))
        self.wrong.add(UsageError("F:2: key b", "it is wrong", "correct it"))
        lines = self.reload(self.one(drain_timeout=9.0))
        self.assertEqual(lines[0], "[invalid-option] F:1: key a: it is wrong; correct it")
        self.assertEqual(lines[1], "[invalid-option] F:2: key b: it is wrong; correct it")
        self.assertIn("what was in force stays in force", lines[2])
        self.assertIn("F:1: key a: it is wrong (and 1 more)", str(self.reloader.last.finding))
        self.assertEqual(self.service.settings, self.settings.services[0])

    def test_what_cannot_change(self) -> None:
        """The user of a process is refused, and named."""
        self.settings = evolve(self.settings, user="nobody")
        lines = self.reload()
        self.assertIn("--user: it cannot change while the process runs; restart the pro", lines[0])
        self.assertEqual(self.reloader.last.result, "rejected")

    def test_bug(self) -> None:
        """An internal error rejects the reload and stops nothing."""
        with mock.patch.object(self.reloader, "_source", side_effect=ZeroDivisionError):
            self.reload()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.reloader.last.result, "rejected")
        self.assertEqual(self.reload(), ["reload (SIGHUP): nothing has changed"])

    def test_directory_down(self) -> None:
        """A reload that the directory did not answer is tried again by itself, once."""
        error = DirectoryUnreachable("directory D", "it does not answer", "see that it runs")
        down = mock.patch.object(MutualAuthService, "prepare", side_effect=error)
        with down:
            lines = self.reload(self.one(drain_timeout=9.0))
        self.assertIn("the reload is tried again in 30 s", lines)
        self.assertEqual(self.reloader.last.result, "rejected")
        self.reactor.advance(29)
        self.assertEqual(self.reloader.last.result, "rejected")
        self.reactor.advance(1)
        self.assertEqual(self.reloader.last.result, "applied")
        self.assertEqual(self.service.settings.drain_timeout, 9.0)
        with down:
            self.reload(self.one(drain_timeout=8.0))
        self.successResultOf(_deferred(self.reloader.stop()))
        self.assertIsNone(self.reloader._retry)

    def test_told_to_the_manager(self) -> None:
        """The service manager is told of the end of a reload and what is served; of one that a stop
        ends it is told no more.
        """
        manager = self.process.manager = mock.Mock()
        self.reload()
        told = [name for name, *_ in manager.method_calls]
        self.assertEqual(told, ["reloading", "ready", "status"])
        waiting: Deferred[None] = Deferred()
        manager.reset_mock()

        async def prepare(*_: object) -> None:
            await waiting

        with mock.patch.object(MutualAuthService, "prepare", prepare):
            self.reload(self.one(drain_timeout=9.0))
            self.successResultOf(_deferred(self.reloader.stop()))
        self.assertEqual([name for name, *_ in manager.method_calls], ["reloading"])

    def test_stopping(self) -> None:
        """A process that stops reloads nothing any more."""
        self.successResultOf(_deferred(self.reloader.stop()))
        lines = self.reload(self.one(drain_timeout=9.0))
        self.assertEqual(lines, ["SIGHUP: stopping already, nothing is reloaded"])
        self.assertEqual(self.service.settings, self.settings.services[0])


class GatewayTests(ReloadCase):
    """A service that tells its backend who its clients are."""

    what = ("--forward=tcp:127.0.0.1:5432", "--ident-address=127.0.0.5:1113")

    def test_proxy_protocol(self) -> None:
        """The service stays, new connections are introduced otherwise, and those that are there can
        be asked about still.
        """
        before, ident = self.service._factory.wrapped, self.service._ident
        *_, line = self.reload(self.one(proxy_protocol=True))
        self.assertEqual(line, "reload (SIGHUP) applied: changed echoSvc")
        self.assertIs(self.process.services["echoSvc"], self.service)
        now: Any = self.service._factory.wrapped
        self.assertIsNot(now, before)
        self.assertEqual(len(now.backend._introducers), 2)
        self.assertEqual(now.backend._introducers[0], ident.introduce)


class WorkersTests(ReloadCase):
    """A process with workers, of which none runs."""

    what = ("--echo", "--workers=2")

    def configuration(self) -> Configuration:
        """Configuration of the workers of now."""
        workers: Any = self.process._workers
        found: Configuration = workers._configuration
        return found

    def test_what_workers_get(self) -> None:
        """They get the last valid contents that were read, and no keys."""
        policy = Path(self.mktemp()).absolute()
        policy.write_bytes(b"one")
        self.reload(self.one(policy_file=str(policy)))
        self.assertEqual(self.configuration().contents, {str(policy): b"one"})
        policy.write_bytes(b"two")
        self.wrong.add(UsageError("F:1: key a", "it is wrong", "correct it"))
        self.reload(self.one(policy_file=str(policy)))
        self.assertEqual(self.configuration().contents, {str(policy): b"one"})
        self.wrong = Collector()
        self.reload(self.one(policy_file=str(policy)))
        self.assertEqual(self.configuration().contents, {str(policy): b"two"})
        self.assertEqual(self.reloader.last.result, "applied")

    def test_refused(self) -> None:
        """A change that workers cannot follow is refused, named, and changes nothing."""
        elsewhere = self.one(listen=("unix:" + self.mktemp(),))
        more = self.one(name="more", listen=("unix:" + self.mktemp(),))
        for services, words in (
            ([elsewhere], "--listen: it cannot change while there are workers"),
            ([self.one(), more], "service more: it cannot be added while there are workers"),
            ([more], "service echoSvc: it cannot be removed while there are workers"),
        ):
            before = self.configuration()
            lines = self.reload(*services)
            self.assertTrue(any(words in line for line in lines), lines)
            self.assertTrue(all("restart the process" in line for line in lines[:-1]), lines)
            self.assertEqual(self.reloader.last.result, "rejected")
            self.assertIs(self.configuration(), before)
            self.assertIs(self.process.services["echoSvc"], self.service)


def _deferred(coroutine: Any) -> Any:

    return Deferred.fromCoroutine(coroutine)
