"""Health of a backend: probes from time to time, and what follows from them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall

from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.findings import Finding
from mutauth_twisted.gateway.backend import Backend
from mutauth_twisted.log import Log

#: How many probes on end have to fail, or to succeed, for a backend to count as down, or as up
#: again: each change is written to the directory, which replicates it.
CHANGES: Final = 2


class Health:
    """Probes a backend, one probe at a time.

    :param clock: provides IReactorTime.
    :param backend: the backend.
    :param interval: seconds from the start of one probe to that of the next.
    :param tell: acts on the backend being down (False) or up again (True).  Where it fails with a
        MutualAuthError it is asked again after the next probe.
    :ivar fault: why the backend is down; None: it is up.
    """

    _log = Log()

    def __init__(
        self,
        clock: Any,
        backend: Backend,
        interval: float,
        tell: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._backend = backend
        self._interval = interval
        self._tell = tell
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        self._running: Deferred[None] | None = None
        self._odd = 0
        self._is_told_up = True
        self._complaint = ""
        self.fault: Finding | None = None

    async def start(self) -> None:
        """Probe now, which decides by itself; and again and again from now on."""
        self._odd = CHANGES - 1
        await self._once()
        self._odd = 0
        self._loop.start(self._interval, now=False)

    async def stop(self) -> None:
        """End; returns when nothing is under way any more."""
        if self._loop.running:
            self._loop.stop()
        if self._running is not None and not self._running.called:
            self._running.cancel()
            await self._running

    def _look(self) -> Deferred[None]:
        self._running = Deferred.fromCoroutine(self._once())
        return self._running.addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            self._log.failure("internal error while the backend was probed", failure)

    async def _once(self) -> None:
        fault: Finding | None = None
        try:
            await self._backend.probe()
        except MutualAuthError as error:
            fault = error.finding
        self._count(fault)
        await self._act()

    def _count(self, fault: Finding | None) -> None:
        if (fault is None) is (self.fault is None):
            self._odd = 0
            if fault is not None:
                self.fault = fault
            return
        self._odd += 1
        if self._odd < CHANGES:
            return
        self._odd = 0
        if fault is not None:
            self._log.error("{fault}", fault=fault)
        else:
            self._log.info("backend {where} answers again", where=self._backend.where)
        self.fault = fault

    async def _act(self) -> None:
        is_up = self.fault is None
        if is_up is self._is_told_up:
            return
        try:
            await self._tell(is_up)
        except MutualAuthError as error:
            if error.coded != self._complaint:
                self._complaint = error.coded
                self._log.error("{error}", error=error)
        else:
            self._is_told_up, self._complaint = is_up, ""
