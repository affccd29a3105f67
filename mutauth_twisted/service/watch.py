"""A look at the directory from time to time while a service runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall

from mutauth_twisted.directory.published.base import Inspection
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.findings import Finding
from mutauth_twisted.log import Log


class Watch:
    """Inspects again and again, one at a time, and logs each change once.

    :param clock: provides IReactorTime.
    :param interval: seconds from the start of one inspection to that of the
        next; when one takes longer, the next is left out.
    :param inspect: looks once.
    :ivar wrong: what is wrong by the last inspection.
    :ivar looked: whether there has been one.
    """

    _log = Log()

    def __init__(
        self, clock: Any, interval: float, inspect: Callable[[], Awaitable[Inspection]]
    ) -> None:
        self._inspect = inspect
        self._interval = interval
        self._loop = LoopingCall(self.look)
        self._loop.clock = clock
        self._running: Deferred[None] | None = None
        self.wrong: tuple[Finding, ...] = ()
        self.looked = False

    def start(self) -> None:
        """Begin; the first inspection is one interval from now."""
        self._loop.start(self._interval, now=False)

    async def stop(self) -> None:
        """End; returns when nothing is under way any more that could still write.

        Cancelled, it gives up the inspection that is under way.
        """
        if self._loop.running:
            self._loop.stop()
        if self._running is not None:
            await self._running

    async def settled(self) -> None:
        """Return when no inspection is under way."""
        if self._running is not None:
            await self._running

    def look(self) -> Deferred[None]:
        """Inspect now, unless an inspection is under way; fires when it has ended, whatever it
        ended with.
        """
        if self._running is None or self._running.called:
            self._running = Deferred.fromCoroutine(self._once()).addErrback(lambda _: None)
        return self._running

    async def _once(self) -> None:
        try:
            found = await self._inspect()
        except MutualAuthError as error:
            found = Inspection((error.finding,))
        except CancelledError:
            return
        except Exception:
            self._log.failure("internal error while the directory was checked")
            cause = "the checks ended with an internal error"
            found = Inspection((Finding("internal-error", "the directory", cause, "see the log"),))
        if self._loop.running:
            self._report(found)

    def _report(self, found: Inspection) -> None:
        before, self.wrong = self.wrong, found.wrong
        self.looked = True
        for finding in found.fixed:
            self._log.warn("{finding}", finding=finding)
        for finding in found.wrong:
            if finding not in before:
                self._log.error("{finding}", finding=finding)
        still = {finding.key for finding in found.wrong}
        for finding in before:
            if finding.key not in still:
                self._log.info("no longer: {finding}", finding=finding)
        if (before or found.fixed) and not found.wrong:
            self._log.info("all directory checks pass again")
