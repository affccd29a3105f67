"""The supervision of workers, by a clock of the test's own; real ones are in integration."""

from __future__ import annotations

import json
from typing import Any

from attrs import asdict
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.net.listening import Places
from mutauth_twisted.service.messages import TO_PARENT, Configuration
from mutauth_twisted.service.workers import (
    BACKOFF,
    MOST_CRASHES,
    SILENCE,
    STABLE,
    START_DEADLINE,
    Inherited,
    Workers,
)
from mutauth_twisted.status.snapshot import Snapshot
from mutauth_twisted.testing.fakes import captured_log

BEFORE = Configuration({"/etc/policy.toml": "YQ=="}, {})
AFTER = Configuration({"/etc/policy.toml": "Yg=="}, {})


class Spawned:
    """A process that was started: what it is told, and how it ends."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.told: list[Any] = []
        self.is_killed = False

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        self.told += map(json.loads, data.splitlines())

    def signalProcess(self, name: str) -> None:
        self.is_killed = True
        self.ends(signal=9)

    def says(self, **message: Any) -> None:
        self.protocol.childDataReceived(TO_PARENT, json.dumps(message).encode() + b"\n")

    def ends(self, code: int | None = None, signal: int | None = None) -> None:
        error = ProcessDone(0) if code == 0 else ProcessTerminated(code, signal)
        self.protocol.processEnded(Failure(error))


class Reactor(Clock):
    """A clock that starts processes."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[Spawned] = []

    def spawnProcess(self, protocol: Any, *words: Any, **how: Any) -> None:
        process = Spawned(protocol)
        self.spawned.append(process)
        protocol.transport = process
        protocol.connectionMade()


class WorkersTests(SynchronousTestCase):
    """Two workers."""

    def setUp(self) -> None:
        self.reactor: Any = Reactor()
        self.given_up: list[MutualAuthError] = []
        self.groups = {"echo": {"allow staff": ["S-1-5-21-1"]}}
        self.workers = Workers(
            self.reactor,
            2,
            Inherited(("--echo",), (), BEFORE, 9),
            Places(self.reactor),
            lambda: self.groups,
            self.given_up.append,
        )
        self.starting = Deferred.fromCoroutine(self.workers.start())

    @property
    def last(self) -> Spawned:
        spawned: list[Spawned] = self.reactor.spawned
        return spawned[-1]

    def begin(self) -> tuple[Spawned, Spawned]:
        one, other = self.reactor.spawned
        one.says(ready=True)
        self.assertNoResult(self.starting)
        other.says(ready=True)
        self.successResultOf(self.starting)
        return one, other

    def say_more(self, process: Spawned, sessions: int = 0, ended: int = 0) -> None:
        values = {"sessions": sessions, "connections_total": ended}
        snapshot = Snapshot("echo", ("127.0.0.1:1",), values=values)
        process.says(snapshots=[snapshot.as_json()], seen={"echo": ended})

    def test_start(self) -> None:
        """Each is told everything at once, and the start waits for both."""
        one, other = self.begin()
        starts = [process.told[0]["start"] for process in (one, other)]
        self.assertEqual([start["number"] for start in starts], [1, 2])
        self.assertEqual([start["groups"] for start in starts], [self.groups] * 2)
        self.groups = {"echo": {"allow staff": ["S-1-5-21-2"]}}
        self.workers.tell_groups()
        self.assertEqual(one.told[1:], [{"groups": self.groups}])
        self.assertEqual(self.workers.wrong, ())

    def test_not_started(self) -> None:
        """One that ends before it is ready, or is not ready in time, ends the start."""
        self.last.ends(code=4)
        error = self.failureResultOf(self.starting, MutualAuthError).value
        self.assertIn("exit code 4", str(error))

    def test_not_in_time(self) -> None:
        """The same for one that hangs."""
        self.reactor.advance(START_DEADLINE)
        self.failureResultOf(self.starting, MutualAuthError)
        self.assertTrue(self.reactor.spawned[0].is_killed)

    def test_started_again(self) -> None:
        """After a pause, which grows while each ends soon; then there is no use in going on."""
        self.begin()
        for number in range(MOST_CRASHES):
            count = len(self.reactor.spawned)
            self.last.ends(signal=11)
            self.assertEqual(self.workers.wrong[0].code, "worker-failed")
            pause = BACKOFF * 2**number
            self.reactor.advance(pause * 0.99)
            self.assertEqual(len(self.reactor.spawned), count)
            self.reactor.advance(pause * 0.02)
            self.assertEqual(len(self.reactor.spawned), count + 1)
            self.last.says(ready=True)
            self.assertEqual(self.workers.wrong, ())
        self.assertEqual(self.given_up, [])
        self.last.ends(signal=11)
        (error,) = self.given_up
        self.assertIn("signal 11", str(error))

    def test_now_and_then(self) -> None:
        """One that has lasted is started again at once, however often that happens."""
        self.begin()
        for _ in range(2 * MOST_CRASHES):
            for _ in range(int(STABLE // SILENCE) + 1):
                self.reactor.advance(SILENCE * 0.9)
                for process in self.reactor.spawned:
                    if not process.protocol.ended.called:
                        self.say_more(process)
            self.last.ends(code=1)
            self.reactor.advance(BACKOFF)
            self.last.says(ready=True)
        self.assertEqual(self.given_up, [])

    def test_silent(self) -> None:
        """One that says nothing any more is killed, and started again."""
        one, other = self.begin()
        self.say_more(one)
        self.say_more(other)
        for _ in range(3):
            self.reactor.advance(SILENCE * 0.4)
            self.say_more(other)
        self.assertEqual((one.is_killed, other.is_killed), (True, False))
        self.reactor.advance(BACKOFF)
        self.assertEqual(self.last.told[0]["start"]["number"], 1)

    def test_nonsense(self) -> None:
        """One that says what none says is killed: it may be an attacker's by then."""
        one, other = self.begin()
        with captured_log() as events:
            one.protocol.childDataReceived(TO_PARENT, b'{"snapshots": [{"service": 1}]}\n')
            other.protocol.childDataReceived(TO_PARENT, b"not JSON\n")
        self.assertEqual((one.is_killed, other.is_killed), (True, True))
        self.assertTrue(events)
        self.flushLoggedErrors()

    def renew(self, *changed: str) -> Deferred[None]:
        """Reload, with another meaning of the groups."""
        self.groups = {"echo": {"allow staff": ["S-1-5-21-9"]}}
        return Deferred.fromCoroutine(self.workers.renew(AFTER, self.groups, changed))

    def configuration_of(self, process: Spawned) -> Any:
        """Configuration that a worker was started with."""
        return process.told[0]["start"]["configuration"]

    def test_reload(self) -> None:
        """All are told what their parent has read, and a worker that starts later is as well."""
        one, other = self.begin()
        self.assertEqual(self.configuration_of(one), asdict(BEFORE))
        renewing = self.renew("echo")
        told = {"configuration": asdict(AFTER), "groups": self.groups, "changed": ["echo"]}
        self.assertEqual([each.told[-1] for each in (one, other)], [{"reload": told}] * 2)
        one.says(applied=True)
        self.assertNoResult(renewing)
        other.ends(signal=11)
        self.successResultOf(renewing)
        self.reactor.advance(BACKOFF)
        self.assertEqual(self.configuration_of(self.last), asdict(AFTER))
        self.assertEqual(self.last.told[0]["start"]["groups"], self.groups)
        self.assertEqual((one.is_killed, other.is_killed), (False, False))

    def test_nothing_changes_for_workers(self) -> None:
        """They are told nothing, and one that starts later has the files of now."""
        one, other = self.begin()
        self.successResultOf(self.renew())
        self.assertEqual([len(each.told) for each in (one, other)], [1, 1])
        one.ends(signal=11)
        self.reactor.advance(BACKOFF)
        self.assertEqual(self.configuration_of(self.last), asdict(AFTER))

    def test_reload_not_applied(self) -> None:
        """A worker that cannot apply it, or does not answer, could serve whom the parent denies by
        now: it is ended, and replaced.
        """
        one, other = self.begin()
        with captured_log() as events:
            renewing = self.renew("echo")
            one.says(applied=False)
            self.assertTrue(one.is_killed)
            self.assertEqual(self.configuration_of(self.last), asdict(BEFORE))
            self.reactor.advance(BACKOFF)
            self.assertEqual(self.configuration_of(self.last), asdict(AFTER))
            self.last.says(ready=True)
            self.assertNoResult(renewing)
            self.reactor.advance(SILENCE / 2)
            self.say_more(other)  # it lives, and does not obey
            self.reactor.advance(SILENCE / 2)
            self.successResultOf(renewing)
        self.assertTrue(other.is_killed)
        lines = [formatEvent(event) for event in events]
        self.assertEqual(sum("it has not applied the reload" in line for line in lines), 2)
        self.reactor.advance(BACKOFF)
        self.assertEqual(self.last.told[0]["start"]["number"], 2)

    def test_answers_nobody_asked_for(self) -> None:
        """They change nothing."""
        one, other = self.begin()
        one.says(applied=True)
        other.says(applied=False)
        self.assertEqual((one.is_killed, other.is_killed), (False, False))

    def test_counters_never_go_back(self) -> None:
        """A count outlasts the worker that made it, and its sessions do not."""
        one, other = self.begin()
        self.say_more(one, sessions=3, ended=10)
        self.say_more(other, sessions=2, ended=5)
        one.ends(signal=9)
        values = [snapshot.values for snapshot in self.workers.snapshots()]
        self.assertEqual(sum(each.get("connections_total", 0) for each in values), 15)
        self.assertEqual(sum(each.get("sessions", 0) for each in values), 2)
        self.assertEqual(self.workers.own_seen("echo"), 15)

    def test_stop(self) -> None:
        """All are told to stop; one that does not end in time is killed, which is a cut."""
        one, other = self.begin()
        stopping = Deferred.fromCoroutine(self.workers.stop(10.0))
        self.assertEqual([each.told[-1] for each in (one, other)], [{"stop": True}] * 2)
        one.ends(code=0)
        self.assertNoResult(stopping)
        self.reactor.advance(10.0)
        self.assertTrue(other.is_killed)
        self.assertTrue(self.successResultOf(stopping))
        self.reactor.advance(100.0)
        self.assertEqual(len(self.reactor.spawned), 2)

    def test_drained(self) -> None:
        """Nothing is cut where all end by themselves."""
        one, other = self.begin()
        stopping = Deferred.fromCoroutine(self.workers.stop(10.0))
        one.ends(code=0)
        other.ends(code=0)
        self.assertFalse(self.successResultOf(stopping))
