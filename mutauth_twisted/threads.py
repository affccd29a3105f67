"""Blocking calls (LDAP, KDC) in threads that nobody has to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """Runs blocking functions in at most ``limit`` threads, off the reactor.

    The threads are daemons: a KDC that never answers holds up neither the
    reactor nor the end of the process.  Cancelling the Deferred gives up on
    the result at once, but the call's slot stays taken until the call ends,
    so that a stuck server cannot make threads pile up.

    :param reactor: provides IReactorFromThreads.
    :param limit: how many calls may be under way; further ones queue.
    :param name: the threads' name, for debuggers.
    """

    def __init__(self, reactor: IReactorFromThreads, limit: int, name: str) -> None:
        self._reactor = reactor
        self._slots = DeferredSemaphore(limit)
        self._name = name

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call the function in a thread; fires in the reactor with its result."""
        waiting = self._slots.acquire()
        # A call cancelled in the queue does not run at all; one under way has no slot to give back yet.
        result: Deferred[T] = Deferred(lambda _: waiting.cancel())
        waiting.addCallbacks(lambda _: self._start(result, function, args, kwargs), lambda _: None)
        return result

    def _start(
        self, result: Deferred[Any], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        def work() -> None:
            outcome: Any
            try:
                outcome = function(*args, **kwargs)
            except BaseException:
                outcome = Failure()
            self._reactor.callFromThread(done, outcome)

        def done(outcome: Any) -> None:
            self._slots.release()
            if not result.called:
                result.callback(outcome)

        threading.Thread(target=work, name=self._name, daemon=True).start()
