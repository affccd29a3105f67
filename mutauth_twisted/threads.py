"""Blocking calls (LDAP, KDC) in threads that nothing has to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import (
    IReactorFromThreads,
)
from twisted.python.failure import Failure

from mutauth_twisted.errors import (
    ThreadsUsedUp,
)

P = ParamSpec("P")
T = TypeVar("T")
#: A call, which returns what hands its result over to the reactor.
_Work = Callable[[], Callable[[], None]]

_IDLE = 5.0  # seconds; to start a thread takes longer than most calls


class Workers:
    """Runs blocking functions in at most ``limit`` threads, off the reactor.

    A thread waits for its next call for some seconds.  The threads are daemons: a KDC that never
    answers holds up neither the reactor nor the end of the process.  Cancelling the Deferred gives
    up on the result at once, but the call's slot stays taken until the call ends, so that a stuck
    server cannot make threads pile up.

    :param reactor: provides IReactorFromThreads.
    :param limit: how many calls may be under way; further ones queue.
    :param name: the threads' name, for debuggers.
    :param idle: seconds for which a thread waits for its next call.
    """

    def __init__(
        self, reactor: IReactorFromThreads, limit: int, name: str, idle: float = _IDLE
    ) -> None:
        self._reactor = reactor
        self._slots = DeferredSemaphore(limit)
        self._name = name
        self._keep = idle
        self._lock = threading.Lock()
        #: Where the threads that have nothing to do wait for work, the one that waits longest
        #: first.
        self._idle: list[SimpleQueue[_Work]] = []

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call the function in a thread; fires in the reactor with its result.

        :raises ThreadsUsedUp: when the system allows this process no further thread.
        """
        waiting = self._slots.acquire()
        # A call cancelled in the queue does not run at all; one under way has no slot to release
        # yet.
        result: Deferred[T] = Deferred(lambda _: waiting.cancel())
        waiting.addCallbacks(lambda _: self._start(result, function, args, kwargs), lambda _: None)
        return result

    def _start(
        self,
        result: Deferred[Any],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        def work() -> Callable[[], None]:
            outcome: Any
            try:
                outcome = function(*args, **kwargs)
            except BaseException:
                outcome = Failure()
            return lambda: self._reactor.callFromThread(done, outcome)

        def done(outcome: Any) -> None:
            self._slots.release()
            if not result.called:
                result.callback(outcome)

        with self._lock:
            mailbox = self._idle.pop() if self._idle else None
        is_new = mailbox is None
        mailbox = mailbox or SimpleQueue()
        mailbox.put(work)  # and not to the thread itself, which would keep it
        if is_new:
            try:
                threading.Thread(
                    target=self._thread, args=(mailbox,), name=self._name, daemon=True
                ).start()
            except RuntimeError as error:
                # Not at once: each call that waits would fail inside the one before it.
                self._reactor.callFromThread(
                    done, Failure(ThreadsUsedUp(f"thread {self._name}", str(error)))
                )

    def _thread(self, mailbox: SimpleQueue[_Work]) -> None:
        """Do work after work, as long as there is some."""
        while (work := self._next(mailbox)) is not None:
            hand_over = work()
            with self._lock:
                self._idle.append(mailbox)  # before the reactor hears of it, and has the next call
            hand_over()
            del work, hand_over  # a thread that waits keeps no objects

    def _next(self, mailbox: SimpleQueue[_Work]) -> _Work | None:
        try:
            return mailbox.get(timeout=self._keep)
        except Empty:
            with self._lock:
                if mailbox in self._idle:
                    self._idle.remove(mailbox)
                    return None
            return mailbox.get()  # it was given some this very moment


#: KDC look-ups under way at once for one domain; further connections queue for their ticket.
_KDC_THREADS = 16


_workers: WeakKeyDictionary[Any, dict[str, Workers]] = WeakKeyDictionary()


def workers_for(reactor: Any, host: str = "") -> Workers:
    """The threads in which clients of a reactor wait for KDCs.

    :param host: where the service is: each domain has threads of its own, so
        that one whose KDC is stuck holds up no other.
    """
    domain = host.partition(".")[2].lower()
    domains = _workers.setdefault(reactor, {})
    workers = domains.get(domain)
    if workers is None:
        workers = domains[domain] = Workers(reactor, _KDC_THREADS, "mutauth-kdc")
    return workers
