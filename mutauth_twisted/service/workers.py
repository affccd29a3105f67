"""Workers: processes that share the sockets of a service and take its connections.

The parent checks the directory and publishes, reports the state of all, and starts a worker again
that has ended.  It takes no connection of a client itself.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from attrs import Factory, evolve, frozen
from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.files import memory_file
from mutauth_twisted.findings import Finding
from mutauth_twisted.log import Log
from mutauth_twisted.net.listening import Places
from mutauth_twisted.service.exitcode import CUT
from mutauth_twisted.service.messages import (
    OBEYS_NO_SIGNAL,
    TO_PARENT,
    Configuration,
    Groups,
    Lines,
    Renewal,
    Start,
    line_of,
)
from mutauth_twisted.service.privileges import Copy
from mutauth_twisted.status.snapshot import Snapshot, merge

#: Seconds in which all workers have to be ready.
START_DEADLINE: Final = 60.0
#: Seconds of silence after which a worker is taken to hang.
SILENCE: Final = 20.0
#: Seconds before a worker is started again; doubled with each that ends soon.
BACKOFF: Final = 0.25
#: Seconds after which a worker has not ended soon.
STABLE: Final = 60.0
#: How many that ended soon, one after the other, are too many.
MOST_CRASHES: Final = 4


@frozen
class Inherited:
    """Inheritance of every worker from its parent.

    :param words: the options of ``twistd mutauth``.
    :param copies: keys that were copied.
    :param configuration: what workers serve by until a reload: one that is started later has what
        the others have, whatever is in the files by then.
    :param sessions: the descriptor of the file in which workers count sessions together.
    """

    words: Sequence[str]
    copies: Sequence[Copy]
    configuration: Configuration
    sessions: int = Factory(lambda: memory_file("sessions", b""))


class _Worker(ProcessProtocol):
    """One worker, as long as its process lasts.

    :ivar is_ready: whether it takes connections.
    :ivar latest: its last snapshots.
    :ivar seen: how often clients came with the services' own accounts.
    """

    transport: Any

    def __init__(self, pool: Workers, number: int, start: Start) -> None:
        self._pool = pool
        self._start = start
        self.number = number
        self.began = pool.reactor.seconds()
        self.is_ready = False
        self.latest: tuple[Snapshot, ...] = ()
        self.seen: dict[str, int] = {}
        self.ended: Deferred[int] = Deferred()
        self._lines = Lines(self._take)
        self._silence: IDelayedCall = pool.reactor.callLater(START_DEADLINE, self.kill)
        self._applying: Deferred[bool] | None = None

    def connectionMade(self) -> None:
        self.send({"start": self._start.as_json()})

    def send(self, message: dict[str, Any]) -> None:
        with suppress(KeyError):  # its end of the pipe is closed: it ends, which will be told
            self.transport.writeToChild(0, line_of(message))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        try:
            self._lines.dataReceived(data)
        except (TypeError, ValueError, KeyError, AttributeError):
            self._pool.misunderstood(self)
            self.kill()

    def _take(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.is_ready = True
            self._pool.is_ready(self)
        elif "snapshots" in message:
            self.latest = tuple(map(Snapshot.from_json, message["snapshots"]))
            self.seen = {str(name): int(count) for name, count in message["seen"].items()}
            self._silence.reset(SILENCE)
        elif "applied" in message:
            self._answer(bool(message["applied"]))

    def _answer(self, is_applied: bool) -> None:
        if (applying := self._applying) is not None:
            self._applying = None
            applying.callback(is_applied)

    async def renew(self, renewal: Renewal) -> None:
        """Have it apply a reload.  One that does not may serve whom the parent now denies: it is
        ended, and another one begins with what is in force.
        """
        applying = self._applying = Deferred()
        self.send({"reload": renewal.as_json()})
        try:
            is_applied = await applying.addTimeout(SILENCE, self._pool.reactor)
        except TimeoutError:
            self._applying, is_applied = None, False
        if not is_applied:
            self._pool.has_not_applied(self)
            self.kill()

    def kill(self) -> None:
        """End it now; its sessions are cut."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def processEnded(self, reason: Failure) -> None:
        if self._silence.active():
            self._silence.cancel()
        error: Any = reason.value
        is_done = isinstance(error, ProcessDone)
        code = 0 if is_done else error.exitCode if error.exitCode is not None else -error.signal
        self._answer(True)  # there is nobody any more who has to
        self._pool.has_ended(self, code)
        self.ended.callback(code)


class Workers:
    """The workers of a process.

    :param reactor: Twisted's reactor.
    :param count: how many.
    :param inherited: what they get.
    :param places: those of the endpoints, which are bound.
    :param groups: says what the names of groups stand for.
    :param give_up: is told why there is no use in going on.
    """

    _log = Log()

    def __init__(
        self,
        reactor: Any,
        count: int,
        inherited: Inherited,
        places: Places,
        groups: Callable[[], Groups],
        give_up: Callable[[MutualAuthError], None],
    ) -> None:
        self.reactor = reactor
        self._count = count
        self._inherited = inherited
        self._configuration = inherited.configuration
        self._places = places
        self._groups = groups
        self._give_up = give_up
        self._live: dict[int, _Worker] = {}
        self._crashes = dict.fromkeys(range(1, count + 1), 0)
        self._restarts: dict[int, IDelayedCall] = {}
        self._starting: Deferred[None] | None = None
        self._is_stopping = False
        self._cut = False
        #: What those that have ended leave behind: counters never go back.
        self._remains: tuple[Snapshot, ...] = ()
        self._seen: dict[str, int] = {}

    async def start(self) -> None:
        """Start all; returns when all take connections.

        :raises MutualAuthError: when one does not.
        """
        self._starting = Deferred()
        for number in range(1, self._count + 1):
            self._spawn(number)
        await self._starting

    def _spawn(self, number: int) -> None:
        self._restarts.pop(number, None)
        inherited = self._inherited
        sockets = self._places.sockets
        start = Start(
            number,
            self._count,
            list(inherited.words),
            [list(each) for each in sockets],
            inherited.sessions,
            self._configuration,
            self._groups(),
        )
        worker = self._live[number] = _Worker(self, number, start)
        passed = [
            inherited.sessions,
            *(descriptor for _, descriptor in sockets),
            *(copy.descriptor for copy in inherited.copies),
        ]
        # It begins with them blocked, until it ignores them: no moment is left to be ended by one.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, OBEYS_NO_SIGNAL)
        try:
            self.reactor.spawnProcess(
                worker,
                sys.executable,
                [sys.executable, "-P", "-m", "mutauth_twisted.service.worker"],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                childFDs={0: "w", 1: 1, 2: 2, TO_PARENT: "r", **{each: each for each in passed}},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def is_ready(self, worker: _Worker) -> None:
        """A worker takes connections."""
        self._log.info("worker {number} is ready", number=worker.number)
        starting = self._starting
        are_ready = [each.is_ready for each in self._live.values()]
        if starting is not None and not starting.called and all(are_ready):
            starting.callback(None)

    def misunderstood(self, worker: _Worker) -> None:
        """A worker says what none says."""
        self._log.failure("worker {number} is not understood", number=worker.number)

    def has_not_applied(self, worker: _Worker) -> None:
        """A worker does not serve as it is to from now on."""
        cause = "it has not applied the reload; another one takes its place"
        remedy = "see what the log says before"
        error = MutualAuthError(f"worker {worker.number}", cause, remedy, code="worker-failed")
        self._log.error("{finding}", finding=error.finding)

    def has_ended(self, worker: _Worker, code: int) -> None:
        """A worker's process has ended."""
        number = worker.number
        del self._live[number]
        self._remains = merge((*self._remains, *(each.remains for each in worker.latest)))
        for name, count in worker.seen.items():
            self._seen[name] = self._seen.get(name, 0) + count
        if self._is_stopping:
            self._cut = self._cut or code != 0
            return
        cause = f"it has ended ({_how(code)}), and its sessions were cut"
        remedy = "see what the log says before"
        error = MutualAuthError(f"worker {number}", cause, remedy, code="worker-failed")
        self._log.error("{finding}", finding=error.finding)
        if self._starting is not None and not self._starting.called:
            self._starting.errback(Failure(error))
            return
        lasted = self.reactor.seconds() - worker.began
        self._crashes[number] = self._crashes[number] + 1 if lasted < STABLE else 1
        if self._crashes[number] > MOST_CRASHES:
            self._give_up(error)
        else:
            seconds = BACKOFF * 2 ** (self._crashes[number] - 1)
            self._restarts[number] = self.reactor.callLater(seconds, self._spawn, number)

    async def renew(
        self, configuration: Configuration, groups: Groups, changed: Sequence[str]
    ) -> None:
        """Have all serve by another configuration, those that start later as well; returns when
        they do, or have ended.

        :param groups: what the names of groups stand for.
        :param changed: the services that change.
        """
        self._configuration = configuration
        renewal = Renewal(configuration, groups, list(changed))
        live = tuple(self._live.values()) if changed else ()
        await DeferredList([Deferred.fromCoroutine(each.renew(renewal)) for each in live])

    def tell_groups(self) -> None:
        """Tell what the names of groups stand for now."""
        for worker in self._live.values():
            worker.send({"groups": self._groups()})

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """Workers that are missing."""
        missing = self._count - sum(each.is_ready for each in self._live.values())
        if not missing or self._is_stopping:
            return ()
        cause = f"{missing} of {self._count} do not run, and are started again"
        return (Finding("worker-failed", "workers", cause, "see the log for why"),)

    @property
    def pids(self) -> dict[str, int]:
        """The process ids, by the workers' numbers."""
        return {str(each.number): each.transport.pid for each in self._live.values()}

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Snapshots of all, also of those that have ended."""
        live = [snapshot for each in self._live.values() for snapshot in each.latest]
        return (*self._remains, *(evolve(each, serving=()) for each in live))

    def own_seen(self, name: str) -> int:
        """Number of times that clients came with a service's own account."""
        return self._seen.get(name, 0) + sum(each.seen.get(name, 0) for each in self._live.values())

    async def stop(self, seconds: float) -> bool:
        """Have all stop listening, and let their sessions end.

        :param seconds: how long they may take.
        :return: whether sessions were cut.
        """
        self._is_stopping = True
        for restart in self._restarts.values():
            restart.cancel()
        live = tuple(self._live.values())
        for worker in live:
            worker.send({"stop": True})
        ends = [Deferred.fromCoroutine(self._end(worker, seconds)) for worker in live]
        for end in ends:
            await end
        return self._cut

    async def _end(self, worker: _Worker, seconds: float) -> None:
        try:
            await _or_timeout(worker.ended, seconds, self.reactor)
        except TimeoutError:
            worker.kill()
            await _or_timeout(worker.ended, seconds, self.reactor)


def _or_timeout(ended: Deferred[int], seconds: float, reactor: Any) -> Deferred[int]:
    """Wait for a Deferred of which others wait too."""
    waiting: Deferred[int] = Deferred()

    def fired(result: int) -> int:
        if not waiting.called:
            waiting.callback(result)
        return result

    ended.addCallback(fired)
    return waiting.addTimeout(seconds, reactor)


def _how(code: int) -> str:
    if code == CUT:
        return "sessions were cut"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
