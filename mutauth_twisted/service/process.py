"""One process with all its services, from its start to its orderly stop.

They start together or not at all: what is wrong with any of them is found before the first of them
takes a connection, and all of it is said.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from operator import methodcaller
from typing import Any, Literal, Protocol

from attrs import Factory, evolve, frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.python.failure import Failure

from mutauth_twisted.errors import DirectoryError, MutualAuthError
from mutauth_twisted.findings import Finding
from mutauth_twisted.log import Log
from mutauth_twisted.net.listening import Place, Places
from mutauth_twisted.net.protocol import describe
from mutauth_twisted.service.exitcode import CRASHING, CUT, end_with
from mutauth_twisted.service.messages import Configuration, Groups, Renewal
from mutauth_twisted.service.privileges import Copy
from mutauth_twisted.service.publisher import START_DEADLINE
from mutauth_twisted.service.server import WITHDRAWAL, MutualAuthService, Stopped
from mutauth_twisted.service.systemd import ServiceManager
from mutauth_twisted.service.workers import Inherited, Workers
from mutauth_twisted.settings.process import ProcessSettings
from mutauth_twisted.signals import expect_no_more, stop_on_hangup, take_no_more
from mutauth_twisted.status.http import StatusFactory, exposure
from mutauth_twisted.status.pages import pages
from mutauth_twisted.status.snapshot import Snapshot, merge

#: What the end of a process may take besides what it waits for, in seconds.
MARGIN = 5.0
#: What a reload may take that is being applied, in seconds.
APPLYING = WITHDRAWAL + 2 * START_DEADLINE


@frozen
class Reload:
    """Result of a reload, or of the start.

    :param result: as the audit trail has it.
    :param finding: why it was rejected.
    :param at: when, seconds since 1970.
    """

    result: Literal["applied", "unchanged", "rejected"]
    finding: Finding | None = None
    at: float = Factory(time.time)

    @property
    def figures(self) -> dict[str, float]:
        """Figures of :data:`~mutauth_twisted.status.metrics.METRICS`."""
        return {
            "reload_timestamp_seconds": self.at,
            "reload_success": int(self.finding is None),
        }

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """When it was and how it went, for people."""
        moment = datetime.fromtimestamp(self.at, UTC)
        return (("Files read", f"{moment:%Y-%m-%d %H:%M:%S} UTC, {self.result}"),)


class Reloads(Protocol):
    """Reloads of a process."""

    @property
    def last(self) -> Reload:
        """The last one, or the start."""

    def start(self) -> None:
        """All services serve."""

    def request(self, cause: str) -> None:
        """Have one, soon."""

    async def stop(self) -> None:
        """The process stops."""


class _Refused(Exception):
    """Some service does not start, and the log says why.

    :ivar exit_code: that of the first error.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Process(Service):
    """Starts and stops services together, and reports their state at one place.

    A process that may not start stops the reactor, and ends with the error's exit code.

    :param reactor: Twisted's reactor.
    :param settings: what is said once for the process.
    :param services: its services, none of which runs yet.
    :param places: those of its endpoints that are bound already.
    :param copies: its keys that are copies of files.
    :param inherited: what its workers get; None: it takes connections itself.
    :ivar services: them, by name, in order.
    """

    _log = Log()

    def __init__(
        self,
        reactor: Any,
        settings: ProcessSettings,
        services: Iterable[MutualAuthService],
        places: Places | None = None,
        copies: Iterable[Copy] = (),
        inherited: Inherited | None = None,
    ) -> None:
        self._reactor = reactor
        self.settings = settings
        self.services: Mapping[str, MutualAuthService] = {each.name: each for each in services}
        self.places = places or Places(reactor)
        self.copies = tuple(copies)
        self.manager = ServiceManager(reactor)
        self._status_ports: list[Any] = []
        #: Reloads it; None: nothing does.
        self.reloads: Reloads | None = None
        #: Services that were replaced or are gone, and still drain.
        self._leaving: dict[MutualAuthService, Deferred[Stopped]] = {}
        self._workers: Workers | None = None
        if inherited is not None:
            workers = self._workers = Workers(
                reactor, settings.workers, inherited, self.places, self._groups, self._give_up
            )
            for service in self.services.values():
                service.groups_changed = workers.tell_groups
                service.seen_elsewhere = partial(workers.own_seen, service.name)

    def _groups(self) -> Groups:
        """Meaning of the names of groups."""
        return {name: service.group_sids for name, service in self.services.items()}

    async def renew_workers(
        self, configuration: Configuration, groups: Groups, changed: Sequence[str]
    ) -> None:
        """Have the workers, if there are any, serve by another configuration; see Workers."""
        if self._workers is not None:
            await self._workers.renew(configuration, groups, changed)

    def _give_up(self, error: MutualAuthError) -> None:
        """End, as the workers do."""
        self._log.critical("the workers end again and again; giving up: {error}", error=error)
        end_with(CRASHING, self._reactor)
        self._reactor.stop()

    def startService(self) -> None:
        """Start; see IService."""
        super().startService()
        self.manager.start()
        for copy in self.copies:
            self._log.warn("{finding}", finding=copy.finding)
        if self.reloads is None:
            stop_on_hangup(self._reactor)
        # Not before: a signal that comes earlier would end the process at once.
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if self.running:
            Deferred.fromCoroutine(self._start()).addErrback(self._refuse)

    async def _start(self) -> None:
        for step in (
            partial(self._each, methodcaller("check")),
            partial(self._each, methodcaller("listen")),
            self._start_workers,
            # A port that is taken is noticed before anything is published.
            self._listen_for_watchers,
            partial(self._each, methodcaller("publish")),
        ):
            await step()
            if not self.running:  # stopped in the meantime
                return
        self._announce()

    async def _start_workers(self) -> None:
        if self._workers is None:
            return
        try:
            await self._workers.start()
        except MutualAuthError as error:
            raise _Refused(self._tell("a worker", Failure(error))) from error

    def _announce(self) -> None:
        """Say that all services serve."""
        for service in self.services.values():
            service.tell_where()
        self.manager.ready()
        self.tell_manager()
        if self.reloads is not None:
            self.reloads.start()

    def tell_manager(self) -> None:
        """Tell the service manager what is served."""
        failed = [each.name for each in self.services.values() if each.failure is not None]
        line = f"serving {', '.join(self.services)}"
        self.manager.status(f"{line}; see the log for {', '.join(failed)}" if failed else line)

    async def _each(self, step: Callable[[MutualAuthService], Coroutine[Any, Any, None]]) -> None:
        """Let all services take a step, and see that it went well with all.

        :raises _Refused: when it did not.
        """
        services = tuple(self.services.values())
        results: Any = await DeferredList(
            [service.begin(step) for service in services], consumeErrors=True
        )
        failures = [
            (service.name, result)
            for service, (is_done, result) in zip(services, results, strict=True)
            if not is_done and not result.check(CancelledError)
        ]
        if failures and self.running:
            codes = [self._tell(name, failure) for name, failure in failures]
            raise _Refused(codes[0])

    async def _listen_for_watchers(self) -> None:
        try:
            await self._report()
        except MutualAuthError as error:
            raise _Refused(self._tell("the status", Failure(error))) from error

    async def _report(self) -> None:
        if self.settings.status is None:
            return
        workers = self._workers
        pids = (lambda: workers.pids) if workers is not None else dict
        shown = pages(self.snapshots, platform.node(), workers=pids)
        factory = StatusFactory(self._reactor, shown)
        port = await self.places.listen(self.settings.status, factory)
        self._status_ports.append(port)
        self._log.info("status on {where}", where=describe(port.getHost()))
        if (finding := exposure(port.getHost())) is not None:
            self._log.warn("{finding}", finding=finding)

    def _tell(self, name: str, failure: Failure) -> int:
        """Log why something does not start, and return the exit code."""
        if isinstance(failure.value, MutualAuthError):
            self._log.critical("{name} does not start: {error}", name=name, error=failure.value)
            self.manager.status(f"{name} does not start: {failure.value}")
            return failure.value.exit_code
        self._log.failure("internal error at start", failure)
        return 1

    def _refuse(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if not isinstance(failure.value, _Refused):
            self._log.failure("internal error at start", failure)
        end_with(getattr(failure.value, "exit_code", 1), self._reactor)
        self._reactor.stop()

    def snapshots(self) -> tuple[Snapshot, ...]:
        """State of each service now; what the process is warned of stands with the first."""
        all_of = [service.snapshot() for service in self.services.values()]
        own = [copy.finding for copy in self.copies]
        if self._workers is not None:
            idle = (each.idle for each in all_of)
            all_of = list(merge((*idle, *self._workers.snapshots())))
            all_of[0] = evolve(all_of[0], wrong=(*all_of[0].wrong, *self._workers.wrong))
        # Those that nobody succeeds: their sessions are shown until they end.
        all_of += [each.snapshot() for each in self._leaving if not self._is_taken_over(each)]
        first, *others = all_of
        own += filter(None, (exposure(port.getHost()) for port in self._status_ports))
        last = self.reloads.last if self.reloads is not None else None
        if last is not None:
            own += filter(None, [last.finding])
            first, *others = (
                evolve(
                    each, values={**each.values, **last.figures}, facts=(*each.facts, *last.facts)
                )
                for each in (first, *others)
            )
        return (evolve(first, warnings=(*first.warnings, *own)), *others)

    def tell_reload(self, reload: Reload) -> None:
        """Note in every audit trail how a reload went."""
        for service in self.services.values():
            service.tell_reload(reload.result, reload.finding)

    async def exchange(
        self, ended: Iterable[MutualAuthService], begun: Iterable[MutualAuthService]
    ) -> list[MutualAuthError]:
        """Stop services and start others, whose check has passed; the connections of the old ones
        have their time to end meanwhile.

        A place that one leaves and another one comes to is never empty: the other one listens
        there first.  It publishes when all that leave have withdrawn.

        :return: why some do not run, or are not published.
        """
        ended, begun = tuple(ended), tuple(begun)
        wrong = await self._all_of(begun, methodcaller("listen"))
        for service, error in wrong:
            self._log.critical("{name} does not start: {error}", name=service.name, error=error)
            await service.fail(error.finding)
        for old in (*ended, *self._leaving):
            new = _successor(old, begun)
            if new is not None and not self._is_taken_over(old):
                await new.succeed(old)
        leaving = [Deferred.fromCoroutine(old.leave()) for old in ended]
        results: Any = await DeferredList(leaving, consumeErrors=True)
        for old, (is_done, result) in zip(ended, results, strict=True):
            if not is_done:
                self._log.failure("internal error at stop", result)
            self._let_drain(old, stale=result if is_done else True)
        serving = [each for each in begun if each.failure is None]
        if self.running:
            for service, error in await self._all_of(serving, methodcaller("publish")):
                text = "{name} serves, and could not be published: {error}"
                self._log.critical(text, name=service.name, error=error)
                wrong.append((service, error))
            for each in serving:
                each.tell_where()
        return [error for _, error in wrong]

    async def _all_of(
        self,
        services: Iterable[MutualAuthService],
        step: Callable[[MutualAuthService], Coroutine[Any, Any, None]],
    ) -> list[tuple[MutualAuthService, MutualAuthError]]:
        """Let services take a step; return those that fail."""
        services = tuple(services)
        taken: Any = await DeferredList([each.begin(step) for each in services], consumeErrors=True)
        wrong = []
        for service, (is_done, result) in zip(services, taken, strict=True):
            if is_done or result.check(CancelledError):
                continue
            error = result.value
            if not isinstance(error, MutualAuthError):
                self._log.failure("internal error while files were reloaded", result)
                cause = "it ended with an internal error"
                error = MutualAuthError(service.name, cause, "see the log", code="internal-error")
            service.failure = error.finding
            wrong.append((service, error))
        return wrong

    def _is_taken_over(self, old: MutualAuthService) -> bool:
        return any(each.succeeds(old) for each in (*self.services.values(), *self._leaving))

    def _let_drain(self, old: MutualAuthService, *, stale: bool) -> None:
        leaving = Deferred.fromCoroutine(old.drain(stale=stale))
        self._leaving[old] = leaving
        leaving.addBoth(partial(self._left, old))

    def _left(self, service: MutualAuthService, result: Any) -> Any:
        del self._leaving[service]
        for each in self.services.values():
            each.forget(service)
        if isinstance(result, Failure):
            self._log.failure("internal error at stop", result)
            return Stopped(0, stale=False)
        self._log.info("{name}: stopped", name=service.name)
        return result

    @property
    def leaving(self) -> tuple[MutualAuthService, ...]:
        """Services that were replaced or are gone, and still drain."""
        return tuple(self._leaving)

    @property
    def status_places(self) -> list[Place]:
        """Those where the state is reported."""
        return [port.place for port in self._status_ports]

    async def move_status(self) -> None:
        """Report the state where the settings say now.

        :raises MutualAuthError: when it cannot be; it is reported where it was.
        """
        ports, self._status_ports = self._status_ports, []
        try:
            await self._report()
        except MutualAuthError:
            self._status_ports = ports
            raise
        for port in ports:
            await maybeDeferred(port.stopListening)

    def stopService(self) -> Deferred[None]:
        """Stop all services, each in its own order; see IService."""
        super().stopService()
        self.manager.stopping(APPLYING + WITHDRAWAL + self._drain + 2 * MARGIN)
        expect_no_more(
            self._reactor, lambda name: self._log.info("{name} again: stopping already", name=name)
        )
        return Deferred.fromCoroutine(self._stop())

    @property
    def _drain(self) -> float:
        leaving = (service.settings for service in self._leaving)
        return max(each.drain_timeout for each in (*self.settings.services, *leaving))

    async def _stop(self) -> None:
        end_with(0, self._reactor)
        if self.reloads is not None:
            await self.reloads.stop()
        # Again: the reload that was being applied has taken its time.
        self.manager.stopping(WITHDRAWAL + self._drain + 2 * MARGIN)
        stopping = [Deferred.fromCoroutine(each.stop()) for each in self.services.values()]
        stopping += [_after(each) for each in self._leaving.values()]
        results: Any = await DeferredList(stopping, consumeErrors=True)
        for is_done, result in results:
            if not is_done:
                self._log.failure("internal error at stop", result)
                end_with(1, self._reactor)
            elif result.stale:
                end_with(DirectoryError.exit_code, self._reactor)
            elif result.cut:
                end_with(CUT, self._reactor)
        if self._workers is not None and await self._workers.stop(self._drain + MARGIN):
            end_with(CUT, self._reactor)
        for port in self._status_ports:
            await maybeDeferred(port.stopListening)
        take_no_more()


class WorkerProcess(Process):
    """A worker's services, whose parent does the rest.

    :param make: makes services again, of another configuration; its arguments are that, the names
        of the services, and those that there are.
    :ivar serving: fires when all take connections.
    """

    def __init__(
        self,
        reactor: Any,
        settings: ProcessSettings,
        services: Iterable[MutualAuthService],
        places: Places,
        make: Callable[..., tuple[ProcessSettings, list[MutualAuthService]]],
    ) -> None:
        super().__init__(reactor, settings, services, places)
        self._make = make
        self.serving: Deferred[None] = Deferred()

    def _announce(self) -> None:
        self.serving.callback(None)

    def use_groups(self, groups: Groups) -> None:
        """Have the names of groups stand for what the parent has found."""
        for name, service in self.services.items():
            service.use_groups(groups.get(name, {}))

    async def renew(self, renewal: Renewal) -> None:
        """Serve as the parent says from now on.

        :raises MutualAuthError: when that cannot be done here.
        """
        self.settings, services = self._make(renewal.configuration, renewal.changed, self.services)
        for fresh in services:
            fresh.use_groups(renewal.groups.get(fresh.name, {}))
            await self.services[fresh.name].become(fresh, None)


def _successor(
    old: MutualAuthService, begun: Iterable[MutualAuthService]
) -> MutualAuthService | None:
    """The service that an old one's clients find from now on: the one of its name, or else one at
    its place; None: none is there.
    """
    begun = tuple(begun)
    same = (each for each in begun if each.name == old.name)
    there = (each for each in begun if {*each.settings.listen} & {*old.settings.listen})
    return next(chain(same, there), None)


def _after(deferred: Deferred[Any]) -> Deferred[Any]:
    """Fires with another one's result, and leaves it that."""
    after: Deferred[Any] = Deferred()

    def pass_on(result: Any) -> Any:
        after.callback(result)
        return result

    deferred.addBoth(pass_on)
    return after
