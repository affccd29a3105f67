"""What all sub-commands share: errors as one line, exit codes, and running the reactor."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
from twisted.internet.defer import Deferred
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

from mutauth_twisted.cli.output import note
from mutauth_twisted.errors import MutualAuthError

T = TypeVar("T")


class OneLineGroup(click.Group):
    """A command group that ends on any foreseeable error with one line and its exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; see click's Group.main."""
        kwargs["standalone_mode"] = False
        try:
            result = super().main(*args, **kwargs)
        except MutualAuthError as error:
            self._leave(str(error), error.exit_code)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "mutauth"
            self._leave(f"{error.format_message().rstrip('.')}; see {command} --help", 2)
        except click.ClickException as error:
            self._leave(error.format_message(), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            self._leave("interrupted", 130)
        sys.exit(result if isinstance(result, int) else 0)

    @staticmethod
    def _leave(line: str, code: int) -> None:
        note(line)
        sys.exit(code)


@implementer(ILogObserver)
class _Lines:
    """Prints log events as plain lines on standard error."""

    def __call__(self, event: LogEvent) -> None:
        failure: Failure | None = event.get("log_failure")
        note(f"{formatEvent(event)}{f': {failure.value}' if failure else ''}")


def begin_logging(verbose: bool) -> None:
    """Show what happens on standard error: every step, or only what should never happen."""
    level = LogLevelFilterPredicate(defaultLogLevel=LogLevel.critical)
    if verbose:
        level.setLogLevelForNamespace("mutauth_twisted", LogLevel.debug)
    globalLogBeginner.beginLoggingTo([FilteringLogObserver(_Lines(), [level])], redirectStandardIO=False)


def run_in_reactor(main: Callable[[Any], Coroutine[Deferred[Any], Any, T]]) -> T:
    """Run the reactor until the coroutine ends; returns its result or raises its error."""
    from twisted.internet import reactor

    outcome: list[Any] = []

    def ended(result: Any) -> None:
        outcome.append(result)
        if reactor.running:
            reactor.stop()

    def begin() -> None:
        Deferred.fromCoroutine(main(reactor)).addBoth(ended)

    reactor.callWhenRunning(begin)
    reactor.run()
    if not outcome:
        raise KeyboardInterrupt
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]  # type: ignore[no-any-return]
