"""Blocking calls in threads, without a real reactor."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

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


class WorkersTests(SynchronousTestCase):
    """The promises of Workers."""

    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.workers = Workers(self.reactor, 1, "test")  # type: ignore[arg-type]

    def test_result(self) -> None:
        """The result arrives in the reactor; the call ran elsewhere, in a daemon thread."""
        result = self.workers.run(lambda: (threading.current_thread().daemon, threading.current_thread().name))
        self.assertNoResult(result)
        self.reactor.turn()
        self.assertEqual(self.successResultOf(result), (True, "test"))

    def test_failure(self) -> None:
        """So does a failure."""
        result = self.workers.run(int, "x")
        self.reactor.turn()
        self.failureResultOf(result, ValueError)

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
