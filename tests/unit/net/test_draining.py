"""Live connections and their end."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.net.draining import Live


class Connection:
    """One that ends when it is cut."""

    def __init__(self, live: Live[Connection]) -> None:
        self.live = live
        self.aborted = False
        live.add(self)

    def abort(self) -> None:
        """See Abortable."""
        self.aborted = True
        self.live.discard(self)


class LiveTests(SynchronousTestCase):
    """Calls that wait for the last one."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.live: Live[Connection] = Live(self.clock)

    def test_none(self) -> None:
        """Nothing is waited for where there is nothing."""
        self.assertEqual(self.successResultOf(ensureDeferred(self.live.drain(5))), 0)

    def test_all_end(self) -> None:
        """The last to end is the end, and none is cut."""
        connections = [Connection(self.live) for _ in range(3)]
        drained = ensureDeferred(self.live.drain(5))
        for each in connections:
            self.assertNoResult(drained)
            self.live.discard(each)
        self.assertEqual(self.successResultOf(drained), 0)
        self.assertEqual([each.aborted for each in connections], [False] * 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_time_is_up(self) -> None:
        """Those that are left are cut and counted; those that came meanwhile among them."""
        gone, early = Connection(self.live), Connection(self.live)
        drained = ensureDeferred(self.live.drain(5))
        late = Connection(self.live)
        self.live.discard(gone)
        self.clock.advance(4.9)
        self.assertNoResult(drained)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(drained), 2)
        self.assertEqual([each.aborted for each in (gone, early, late)], [False, True, True])
        self.assertEqual(list(self.live), [])

    def test_cancelled(self) -> None:
        """A wait that is given up cuts at once."""
        connection = Connection(self.live)
        drained = ensureDeferred(self.live.drain(5))
        drained.cancel()
        self.failureResultOf(drained, CancelledError)
        self.assertTrue(connection.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])
