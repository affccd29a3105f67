"""Blocking calls in threads, without a real reactor."""

from __future__ import annotations

import gc
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import ThreadsUsedUp
from mutauth_twisted.threads import Workers


class _Reactor:
    """Keeps what threads hand over until it is asked to run it."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], Any]] = queue.Queue()

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        self._calls.put(lambda: function(*args))

    def turn(self) -> None:
        """Wait for one call and make it."""
        self._calls.get(timeout=5)()


class _Held:
    """An argument and a result."""

    def give(self, fails: bool) -> _Held:
        if fails:
            raise ValueError(self)
        return self


class WorkersTests(SynchronousTestCase):
    """The promises of Workers."""

    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.workers = Workers(self.reactor, 1, "test")  # type: ignore[arg-type]

    def test_result(self) -> None:
        """The result arrives in the reactor; the call ran elsewhere, in a daemon thread."""
        result = self.workers.run(
            lambda: (threading.current_thread().daemon, threading.current_thread().name)
        )
        self.assertNoResult(result)
        self.reactor.turn()
        self.assertEqual(self.successResultOf(result), (True, "test"))

    def test_failure(self) -> None:
        """So does a failure."""
        result = self.workers.run(int, "x")
        self.reactor.turn()
        self.failureResultOf(result, ValueError)

    def test_threads_are_used_again(self) -> None:
        """Calls one after the other run in one thread; one beside a stuck one runs in another, and
        both go on.
        """
        self.workers = Workers(self.reactor, 2, "test")  # type: ignore[arg-type]
        seen = []
        for _ in range(5):
            result = self.workers.run(threading.current_thread)
            self.reactor.turn()
            seen.append(self.successResultOf(result))
        self.assertEqual(len(set(seen)), 1)
        gate = threading.Event()
        stuck, other = self.workers.run(gate.wait), self.workers.run(threading.current_thread)
        self.reactor.turn()
        self.assertIsNot(self.successResultOf(other), seen[0])
        gate.set()
        self.reactor.turn()
        self.successResultOf(stuck)

    def test_idle_threads_end(self) -> None:
        """A thread without work ends after a while, and the next call has one of its own, whenever
        it comes.
        """
        self.workers = Workers(self.reactor, 1, "test", idle=0.0)  # type: ignore[arg-type]
        for _ in range(200):  # some come at the very moment when the thread gives up
            result = self.workers.run(threading.current_thread)
            self.reactor.turn()
            last = self.successResultOf(result)
        last.join(5)
        self.assertFalse(last.is_alive())

    def test_no_thread_to_be_had(self) -> None:
        """Where no thread can be started each call fails in words, however many wait, and no slot
        is lost.
        """

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with mock.patch.object(threading.Thread, "start", refuse):
            results = [self.workers.run(int) for _ in range(2000)]
            for _ in results:
                self.reactor.turn()
        for result in results:
            line = str(self.failureResultOf(result, ThreadsUsedUp).value)
            self.assertTrue(
                line.startswith("thread test: can't start new thread; raise TasksMax="), line
            )
        again = self.workers.run(int)
        self.reactor.turn()
        self.assertEqual(self.successResultOf(again), 0)

    def test_nothing_is_kept(self) -> None:
        """A thread that waits holds on to neither the call nor its result."""
        for fails in (False, True):
            held = _Held()
            seen = weakref.ref(held)
            result = self.workers.run(_Held.give, held, fails)
            self.reactor.turn()
            (self.failureResultOf if fails else self.successResultOf)(result)
            del held, result
            again = self.workers.run(int)  # in the same thread, which has let go by now
            self.reactor.turn()
            self.successResultOf(again)
            gc.collect()
            self.assertIsNone(seen())

    def test_limit(self) -> None:
        """A call beyond the limit waits for a place."""
        gate = threading.Event()
        first, second = self.workers.run(gate.wait), self.workers.run(lambda: "second")
        gate.set()
        self.reactor.turn()
        self.assertTrue(self.successResultOf(first))
        self.assertNoResult(second)
        self.reactor.turn()
        self.assertEqual(self.successResultOf(second), "second")

    def test_cancelled_call_keeps_its_place(self) -> None:
        """Nobody waits for a cancelled call, but its place stays taken until it ends."""
        gate = threading.Event()
        first, second = self.workers.run(gate.wait), self.workers.run(lambda: "second")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        gate.set()
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(self.successResultOf(second), "second")

    def test_cancelled_in_the_queue(self) -> None:
        """A call that is cancelled while it waits never runs, and takes no place."""
        gate = threading.Event()
        ran: list[int] = []
        first = self.workers.run(gate.wait)
        second, third = self.workers.run(ran.append, 2), self.workers.run(ran.append, 3)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        gate.set()
        self.reactor.turn()
        self.reactor.turn()
        self.successResultOf(first)
        self.successResultOf(third)
        self.assertEqual(ran, [3])
