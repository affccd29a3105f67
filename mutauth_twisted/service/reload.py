"""Reload of a running process: all files are read and validated, and applied whole or not at all.

A reload reads everything again: the configuration, policies, keytabs, certificates.  Whatever is
wrong with any of it leaves the process as it is, with a finding that says so.  A service that only
changes what it does keeps its ports and connections; one that becomes another one is stopped and
started; the others notice nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from attrs import Factory, evolve, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from mutauth_twisted.errors import (
    DirectoryUnreachable,
    KDCUnreachable,
    MutualAuthError,
    UsageError,
)
from mutauth_twisted.files import digest, keep_what_is_read
from mutauth_twisted.findings import Finding
from mutauth_twisted.gateway.backend import tls_files
from mutauth_twisted.gateway.ident import ident_endpoint
from mutauth_twisted.kerberos.keytab import keytab_file
from mutauth_twisted.log import Log
from mutauth_twisted.net.listening import Place
from mutauth_twisted.service.assembly import configuration_of, fitting, make_service
from mutauth_twisted.service.filewatch import FileWatch
from mutauth_twisted.service.groups import NamedGroups
from mutauth_twisted.service.privileges import Copy, still_needed, with_copies
from mutauth_twisted.service.process import Process, Reload
from mutauth_twisted.service.server import MutualAuthService
from mutauth_twisted.settings.mistakes import Collector, errors_in
from mutauth_twisted.settings.process import ProcessSettings
from mutauth_twisted.settings.service import Settings
from mutauth_twisted.settings.twistd import Source

#: Seconds after which a reload is tried again that the directory did not answer.
RETRY: Final = 30.0


def files_of(settings: Settings) -> list[str]:
    """The files that a service is made of, besides the one that describes it."""
    found = [settings.policy_file, settings.directory.ca_file, *(settings.tls_files or ())]
    if settings.serve[0] == "forward":
        found += tls_files(settings.serve[1])
    if "keytab" in settings.package_options:
        with suppress(MutualAuthError):  # a name that is no file's is an error elsewhere
            found.append(keytab_file(settings.keytab))
    found.append(settings.package_options.get("ntlm-users"))
    return [path for path in found if path is not None]


def _contents(settings: Settings) -> Mapping[str, bytes | None]:
    return {path: digest(path) for path in files_of(settings)}


@frozen
class _Plan:
    """All that a reload changes.

    :param settings: those that it makes valid.
    :param contents: digests of the files of each service.
    :param read: the contents of all files that were read.
    :param copies: the copies of keys in the place of files, by these.
    :param changed: services that stay, each with the one that it becomes.
    :param ended: services that stop.
    :param begun: services that start.
    :param places: those that are bound for it, or kept.
    """

    settings: ProcessSettings
    contents: Mapping[str, Mapping[str, bytes | None]]
    read: Mapping[str, bytes]
    copies: Mapping[str, Copy]
    changed: list[tuple[MutualAuthService, MutualAuthService]] = Factory(list)
    ended: list[MutualAuthService] = Factory(list)
    begun: list[MutualAuthService] = Factory(list)
    places: list[Place] = Factory(list)


class Reloader:
    """Reloads a process when it is asked to, and when a file changes; one reload at a time.

    :param reactor: Twisted's reactor.
    :param process: the process, which does not run yet.
    :param source: reads what describes it.
    :param config: the configuration file; None: there is none.
    :ivar last: the last reload, or the start.
    """

    _log = Log()

    def __init__(
        self, reactor: Any, process: Process, source: Source, config: str | None = None
    ) -> None:
        self._reactor = reactor
        self._process = process
        self._source = source
        self._config = config
        self._watch = FileWatch(reactor, self._files, self._changed)
        self._contents = {each.name: _contents(each) for each in process.settings.services}
        self._wanted = ""
        self._is_started = self._is_stopped = self._is_applying = False
        self._running: Deferred[None] | None = None
        self._retry: IDelayedCall | None = None
        self.last = Reload("applied")

    def _files(self) -> list[str]:
        services = self._process.settings.services
        found = [path for service in services for path in files_of(service)]
        copied = {copy.name: copy.path for copy in self._process.copies}
        return [*([self._config] if self._config else []), *(copied.get(p, p) for p in found)]

    def _changed(self, files: list[str]) -> None:
        self.request(", ".join(files))

    def start(self) -> None:
        """The process serves: a reload that was asked for meanwhile begins, and files are watched
        from now on.
        """
        self._is_started = True
        self._watch.start()
        self._next()

    def request(self, cause: str) -> None:
        """Have a reload, soon; one that waits already does for both.

        :param cause: the signal, or the files that have changed.
        """
        if self._is_stopped:
            self._log.info("{cause}: stopping already, nothing is reloaded", cause=cause)
            return
        self._wanted = cause
        self._next()

    def _next(self) -> None:
        if self._wanted and self._is_started and self._running is None and not self._is_stopped:
            cause, self._wanted = self._wanted, ""
            self._retry_no_more()
            self._running = Deferred.fromCoroutine(self._reload(cause))
            self._running.addErrback(self._failed).addCallback(self._ended)

    def _failed(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            self._log.failure("internal error while files were reloaded", failure)

    def _ended(self, _: object) -> None:
        self._running = None
        self._next()

    async def stop(self) -> None:
        """Begin no reload any more; what is being applied is applied first."""
        self._is_stopped = True
        self._retry_no_more()
        self._watch.stop()
        if (running := self._running) is not None:
            if not self._is_applying:
                running.cancel()
            waiting: Deferred[None] = Deferred()
            running.addBoth(lambda _: waiting.callback(None))
            await waiting

    async def _reload(self, cause: str) -> None:
        # Before they are read: what changes meanwhile is another change.
        self._watch.accept()
        self._process.manager.reloading()
        try:
            self.last = result = await self._try(cause)
        except CancelledError:
            raise
        except Exception:
            self._log.failure("internal error while files were reloaded")
            text = "it ended with an internal error"
            error = MutualAuthError("reload", text, "see the log", code="internal-error")
            self.last = result = self._reject(cause, error)
        finally:
            self._is_applying = False
            if not self._is_stopped:  # of a stopping process the manager is told nothing else
                self._process.manager.ready()
                self._process.tell_manager()
        self._process.tell_reload(result)

    def _try_later(self, cause: str, error: MutualAuthError) -> None:
        """Have another reload, if what has kept this one from succeeding ends by itself."""
        if any(
            isinstance(each, (DirectoryUnreachable, KDCUnreachable)) for each in errors_in(error)
        ):
            self._log.info("the reload is tried again in {seconds:g} s", seconds=RETRY)
            self._retry = self._reactor.callLater(RETRY, self._again, cause)

    def _again(self, cause: str) -> None:
        self._retry = None
        self.request(cause)

    def _retry_no_more(self) -> None:
        retry, self._retry = self._retry, None
        if retry is not None:
            retry.cancel()

    async def _try(self, cause: str) -> Reload:
        try:
            plan = self._plan()
        except MutualAuthError as error:
            return self._reject(cause, error)
        try:
            prepared = await self._prepare(plan)
        except MutualAuthError as error:
            self._give_up(plan)
            self._try_later(cause, error)
            return self._reject(cause, error)
        except BaseException:
            self._give_up(plan)
            raise
        if not self._has_changes(plan):
            self._log.info("reload ({cause}): nothing has changed", cause=cause)
            return Reload("unchanged")
        self._is_applying = True
        wrong = await self._apply(plan, prepared)
        self._log.info(
            "reload ({cause}) applied: {names}",
            cause=cause,
            names="; ".join(
                f"{word} {', '.join(each.name for each in services)}"
                for word, services in (
                    ("changed", [running for running, _ in plan.changed]),
                    ("started", plan.begun),
                    ("stopped", plan.ended),
                )
                if services
            )
            or "the process alone",
        )
        return Reload("applied", _incomplete(wrong) if wrong else None)

    def _reject(self, cause: str, error: MutualAuthError) -> Reload:
        errors = errors_in(error)
        for each in errors:
            self._log.error("{error}", error=each)
        self._log.error("reload ({cause}) rejected: what was in force stays in force", cause=cause)
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        first = errors[0].finding
        finding = Finding(
            "reload-rejected",
            "reload",
            f"{first.subject}: {first.cause}{more}; what was read before is in force",
            first.remedy,
        )
        return Reload("rejected", finding)

    def _plan(self) -> _Plan:
        """Read everything, and make what is new; nothing runs yet.

        :raises MutualAuthError: for all that is wrong.
        """
        read: dict[str, bytes] = {}
        with keep_what_is_read(read):
            return self._plan_of(read)

    def _plan_of(self, read: Mapping[str, bytes]) -> _Plan:
        process, told = self._process, Collector()
        settings, mistakes = self._source()
        mistakes.settle()
        copies = still_needed(process.copies)
        settings = with_copies(settings, copies)
        with told.taking():
            self._check_process(settings)
        services = tuple(fitting(settings))
        plan = _Plan(settings, {each.name: _contents(each) for each in services}, read, copies)
        running = dict(process.services)
        for each in services:
            old = running.pop(each.name, None)
            # What has failed is tried anew.
            is_kept = old is not None and old.failure is None and not old.moved_by(each)
            if old is not None and is_kept and self._is_same(old, each, plan):
                continue
            with told.taking():
                if not is_kept:
                    self._check_alone(each, old)
                fresh = make_service(self._reactor, each, process.places, before=old)
                if old is not None and is_kept:
                    plan.changed.append((old, fresh))
                else:
                    plan.begun.append(fresh)
                    plan.ended.extend(filter(None, [old]))
        for old in running.values():
            with told.taking():
                self._check_alone(None, old)
            plan.ended.append(old)
        leaving = (*plan.ended, *process.leaving)
        left = [place for service in leaving for place in service.places]
        wanted = [
            (fresh.settings.front.origin("listen"), text)
            for fresh in plan.begun
            for text in _endpoints(fresh.settings)
        ]
        if settings.status is not None and settings.status != process.settings.status:
            wanted.append((settings.front.origin("status"), settings.status))
        if settings.status != process.settings.status:
            left += process.status_places
        for origin, text in wanted:
            with told.taking(origin):
                plan.places.append(self._place(text, left))
        try:
            told.settle()
        except MutualAuthError:
            self._give_up(plan)
            raise
        return plan

    def _place(self, text: str, left: list[Place]) -> Place:
        """A place for a service that begins: one that is left stays, any other is bound.

        :param left: places that services leave; without it afterwards.
        :raises MutualAuthError: when it cannot be bound.
        """
        for place in left:
            if place.text == text:
                left.remove(place)
                return self._process.places.keep(place)
        return self._process.places.bind(text)

    def _is_same(self, old: MutualAuthService, now: Settings, plan: _Plan) -> bool:
        return old.settings == now and self._contents.get(now.name) == plan.contents[now.name]

    def _check_process(self, settings: ProcessSettings) -> None:
        for name in self._process.settings.fixed(settings):
            subject = settings.front.origin(name) or f"--{name}: "
            cause = "it cannot change while the process runs"
            raise UsageError(subject.removesuffix(": "), cause, "restart the process")

    def _check_alone(self, now: Settings | None, old: MutualAuthService | None) -> None:
        """See that no workers have the sockets of the start, and so the services.

        :raises UsageError: when there are.
        """
        if self._process.settings.workers == 1:
            return
        subject, cause = "", "it cannot be added while there are workers"
        if now is None and old is not None:
            subject, cause = f"service {old.name}", "it cannot be removed while there are workers"
        elif now is not None and old is not None:
            option = old.moved_by(now)[0]
            subject = (now.front.origin(option) or f"--{option}: ").removesuffix(": ")
            cause = "it cannot change while there are workers"
        elif now is not None:
            subject = f"service {now.name}"
        raise UsageError(subject, cause, "restart the process")

    def _has_changes(self, plan: _Plan) -> bool:
        lists = (plan.changed, plan.ended, plan.begun)
        return any(lists) or plan.settings.status != self._process.settings.status

    async def _prepare(self, plan: _Plan) -> list[NamedGroups | None]:
        """Ask the directory what has to be asked.

        :raises MutualAuthError: for all that is wrong.
        """
        asked: list[Coroutine[Any, Any, Any]] = [
            running.prepare(fresh) for running, fresh in plan.changed
        ]
        asked += [fresh.check() for fresh in plan.begun]
        told, found = Collector(), []
        for is_done, result in await _together(asked):
            with told.taking():
                if not is_done:
                    result.raiseException()
                found.append(result)
        told.settle()
        return found[: len(plan.changed)]

    def _give_up(self, plan: _Plan) -> None:
        """Leave nothing behind of a plan."""
        for place in plan.places:
            self._process.places.give_up(place)
        for service in (*(fresh for _, fresh in plan.changed), *plan.begun):
            service.discard()

    async def _apply(
        self, plan: _Plan, prepared: Collection[NamedGroups | None]
    ) -> list[MutualAuthError]:
        """Apply a plan; return what has failed all the same."""
        process, before = self._process, self._process.settings
        # The digests are of what was read, or of what came after it, which is noticed as another
        # change.
        self._contents = dict(plan.contents)
        process.settings = plan.settings
        fresh = [*process.services.values(), *plan.begun]
        named = {each.name: each for each in fresh}
        process.services = {each.name: named[each.name] for each in plan.settings.services}
        becoming = [
            running.become(other, groups)
            for (running, other), groups in zip(plan.changed, prepared, strict=True)
        ]
        groups = {
            running.name: running.group_sids if found is None else found.sids
            for (running, _), found in zip(plan.changed, prepared, strict=True)
        }
        configuration = configuration_of(plan.settings, plan.read, plan.copies)
        names = [running.name for running, _ in plan.changed]
        workers = process.renew_workers(configuration, groups, names)
        exchanging = process.exchange(plan.ended, plan.begun)
        *became, (_, done), (_, renewed) = await _together([*becoming, exchanging, workers])
        wrong = [self._tell("the services", done)] if isinstance(done, Failure) else list(done)
        if isinstance(renewed, Failure):
            wrong.append(self._tell("the workers", renewed))
        for (running, _), (is_done, result) in zip(plan.changed, became, strict=True):
            if not is_done:
                error = self._tell(running.name, result)
                running.failure = error.finding
                wrong.append(error)
        if before.status != plan.settings.status:
            try:
                await process.move_status()
            except MutualAuthError as error:
                wrong.append(self._tell("the status", Failure(error)))
                process.settings = evolve(process.settings, status=before.status)
        for place in plan.places:
            process.places.give_up(place)
        return wrong

    def _tell(self, name: str, failure: Failure) -> MutualAuthError:
        """Log why something was not applied."""
        if isinstance(failure.value, MutualAuthError):
            self._log.error("{name}: {error}", name=name, error=failure.value)
            return failure.value
        self._log.failure("internal error while files were reloaded", failure)
        cause = "it ended with an internal error"
        return MutualAuthError(name, cause, "see the log", code="internal-error")


def _incomplete(wrong: Sequence[MutualAuthError]) -> Finding:
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    first = wrong[0].finding
    cause = f"{first.subject}: {first.cause}{more}; all else is in force"
    remedy = f"{first.remedy}, and reload again"
    return Finding("reload-incomplete", "reload", cause, remedy)


def _endpoints(settings: Settings) -> list[str]:
    ident = settings.ident_address
    return [*settings.listen, *([ident_endpoint(*ident)] if ident is not None else [])]


def _together(
    coroutines: Iterable[Coroutine[Any, Any, Any]],
) -> Deferred[list[tuple[bool, Any]]]:
    found: Any = DeferredList(
        [Deferred.fromCoroutine(each) for each in coroutines], consumeErrors=True
    )
    return found  # type: ignore[no-any-return]
