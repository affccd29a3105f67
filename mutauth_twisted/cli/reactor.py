"""Running the reactor for one command, and showing what happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    globalLogBeginner,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.cli.output import note, told
from mutauth_twisted.dns import install_resolver
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.signals import expect_no_more, stop_on_hangup

T = TypeVar("T")


@implementer(ILogObserver)
class _Lines:
    """Prints log events as plain lines on standard error."""

    def __call__(self, event: LogEvent) -> None:
        failure: Failure | None = event.get("log_failure")
        error = failure.value if failure else event.get("error")
        told(error.finding if isinstance(error, MutualAuthError) else None)
        note(f"{formatEvent(event)}{f': {failure.value}' if failure else ''}")


def begin_logging(verbose: bool) -> None:
    """Show what happens on standard error: every step, or only what should never happen."""
    level = LogLevelFilterPredicate(defaultLogLevel=LogLevel.critical)
    # What is wrong with this machine, and no step of anything.
    level.setLogLevelForNamespace("mutauth_twisted.net.descriptors", LogLevel.error)
    if verbose:
        level.setLogLevelForNamespace("mutauth_twisted", LogLevel.debug)
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(_Lines(), [level])], redirectStandardIO=False
    )


class _Run:
    """One coroutine, for which the reactor runs."""

    def __init__(
        self,
        reactor: Any,
        main: Callable[[Any], Coroutine[Deferred[Any], Any, Any]],
        to_the_end: bool,
    ) -> None:
        self._reactor = reactor
        self._main = main
        self._to_the_end = to_the_end
        self._running: Deferred[Any] | None = None
        self._interrupted = False
        #: What the coroutine returned, or the Failure it ended with.
        self.outcome: Any = Failure(KeyboardInterrupt())

    def begin(self) -> None:
        self._running = Deferred.fromCoroutine(self._main(self._reactor))
        self._running.addBoth(self._ended)

    def _ended(self, outcome: Any) -> None:
        if not (isinstance(outcome, Failure) and outcome.check(CancelledError)):
            self.outcome = outcome
        self._running = None
        if not self._interrupted:
            self._reactor.stop()

    def _again(self, name: str) -> None:
        if self._to_the_end:
            note(f"{name} again: finishing what was begun")
        elif self._running is not None:
            self._running.cancel()

    def interrupt(self) -> Deferred[Any] | None:
        """The reactor is to stop; it waits for the Deferred returned."""
        running = self._running
        if running is None:
            return None
        self._interrupted = True
        expect_no_more(self._reactor, self._again)
        if self._to_the_end:
            click.echo("mutauth: interrupted, finishing what was begun", err=True)
        else:
            running.cancel()
        return running


def run_in_reactor(
    main: Callable[[Any], Coroutine[Deferred[Any], Any, T]], *, to_the_end: bool = False
) -> T:
    """Run the reactor until the coroutine ends; returns its result or raises its error.

    :param to_the_end: whether an interrupt waits until the coroutine has
        ended, as what writes to the directory must; it is cancelled otherwise.
    :raises KeyboardInterrupt: when it was interrupted and has no result.
    """
    from twisted.internet import reactor as installed

    reactor: Any = installed
    install_resolver(reactor)
    run = _Run(reactor, main, to_the_end)
    reactor.callWhenRunning(run.begin)
    reactor.addSystemEventTrigger("before", "shutdown", run.interrupt)
    stop_on_hangup(reactor)  # a closed terminal interrupts as Ctrl-C does
    reactor.run()
    if isinstance(run.outcome, Failure):
        run.outcome.raiseException()
    return run.outcome  # type: ignore[no-any-return]
