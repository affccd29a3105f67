"""Answers of a search: kept, shared, and never past its time."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.endpoints.locations import Answer, Locations
from mutauth_twisted.errors import DescriptorsUsedUp, DirectoryRefused, DirectoryUnreachable


class Searches:
    """Searches that end when the test says so."""

    def __init__(self) -> None:
        self.begun: list[Deferred[list[str]]] = []
        self.cancelled = 0

    def __call__(self) -> Deferred[list[str]]:
        search: Deferred[list[str]] = Deferred(self._cancelled)
        self.begun.append(search)
        return search

    def _cancelled(self, search: Deferred[list[str]]) -> None:
        self.cancelled += 1


class LocationsTests(SynchronousTestCase):
    """One service's locations, 60 seconds long."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.searches = Searches()
        self.locations = self.made(60.0)

    def made(self, keep: float) -> Locations[str]:
        return Locations(self.clock, self.searches, keep, self.clock.seconds)

    def found(self, *items: str) -> Answer[str]:
        """The answer of a search that nobody else waits for."""
        waiting = self.locations.find()
        self.searches.begun[-1].callback(list(items))
        return self.successResultOf(waiting)

    def test_kept(self) -> None:
        """An answer is known until its time is over, which began with the search."""
        self.assertIsNone(self.locations.known)
        waiting = self.locations.find()
        self.clock.advance(10)
        self.searches.begun[0].callback(["a", "b"])
        found = self.successResultOf(waiting)
        self.assertEqual((found.items, found.since), (("a", "b"), 0.0))
        self.clock.advance(49.9)
        self.assertIs(self.locations.known, found)
        self.assertIs(self.successResultOf(self.locations.find()), found)
        self.clock.advance(0.1)
        self.assertIsNone(self.locations.known)
        self.assertEqual(len(self.searches.begun), 1)

    def test_never_past_its_time(self) -> None:
        """When the directory cannot be reached then, the search fails: what was known is no
        substitute.
        """
        self.found("a")
        self.clock.advance(60)
        waiting = self.locations.find()
        self.searches.begun[1].errback(DirectoryUnreachable("the directory", "gone"))
        self.failureResultOf(waiting, DirectoryUnreachable)
        self.assertIsNone(self.locations.known)

    def test_shared(self) -> None:
        """Connections that start together share one search, and each its failure."""
        waiting = [self.locations.find() for _ in range(500)]
        self.assertEqual(len(self.searches.begun), 1)
        self.searches.begun[0].callback(["a"])
        self.assertEqual(len({id(self.successResultOf(each)) for each in waiting}), 1)
        self.clock.advance(60)
        waiting = [self.locations.find() for _ in range(500)]
        error = DirectoryRefused("the directory", "no", result=50)
        self.searches.begun[1].errback(error)
        failures = [self.failureResultOf(each, DirectoryRefused).value for each in waiting]
        self.assertEqual(
            {(str(each), each.result, each.__cause__) for each in failures},
            {("the directory: no", 50, error)},
        )
        self.assertEqual(len(set(map(id, failures))), 500)

    def test_descriptors_used_up(self) -> None:
        """A search for which this process has no descriptor left fails for all who wait."""
        waiting = [self.locations.find() for _ in range(3)]
        self.searches.begun[0].errback(DescriptorsUsedUp("the directory"))
        for each in waiting:
            self.failureResultOf(each, DescriptorsUsedUp)

    def test_one_leaves(self) -> None:
        """A connection that leaves does not take the search from the others; the last one ends
        it.
        """
        first, second = self.locations.find(), self.locations.find()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.searches.cancelled, 0)
        self.searches.begun[0].callback(["a"])
        self.assertEqual(self.successResultOf(second).items, ("a",))
        self.clock.advance(60)
        waiting = [self.locations.find(), self.locations.find()]
        for each in waiting:
            each.cancel()
            self.failureResultOf(each, CancelledError)
        self.assertEqual(self.searches.cancelled, 1)

    def test_left_late(self) -> None:
        """The answer of an abandoned search is nobody's, and the next search is one of its own."""
        late: Deferred[list[str]] = Deferred()
        stubborn: Deferred[list[str]] = Deferred()
        stubborn.addErrback(lambda failure: late)  # cancelled, it goes on
        searches: Any = iter((succeed(None).addCallback(lambda _: stubborn), self.searches()))
        locations: Locations[str] = Locations(
            self.clock, lambda: next(searches), 60.0, self.clock.seconds
        )
        first = locations.find()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second = locations.find()
        self.clock.advance(1)
        late.callback(["old"])
        self.assertNoResult(second)
        self.assertIsNone(locations.known)
        self.searches.begun[0].callback(["new"])
        self.assertEqual(self.successResultOf(second).items, ("new",))

    def test_cancelled_by_another(self) -> None:
        """One that is told may have the others leave."""
        first, second = self.locations.find(), self.locations.find()
        first.addCallback(lambda _: second.cancel())
        self.searches.begun[0].callback(["a"])
        self.successResultOf(first)
        self.failureResultOf(second, CancelledError)
        self.assertIsNotNone(self.locations.known)

    def test_doubted(self) -> None:
        """After a failure the directory is asked again, once for all who failed, and at most once a
        second.
        """
        found = self.found("a")
        self.clock.advance(0.5)
        self.locations.doubt(found)
        self.assertIs(
            self.locations.known, found
        )  # half a second ago it was what the directory says
        waiting = [self.locations.find(newer_than=found) for _ in range(100)]
        self.assertEqual(len(self.searches.begun), 1)
        self.clock.advance(0.5)
        self.assertEqual(len(self.searches.begun), 2)
        self.assertIsNone(self.locations.known)
        self.searches.begun[1].callback(["b"])
        (newer,) = {self.successResultOf(each) for each in waiting}
        self.assertEqual(newer.items, ("b",))
        self.locations.doubt(found)  # by a connection that was slow to fail
        self.clock.advance(1)
        self.assertIs(self.locations.known, newer)
        self.assertIs(self.successResultOf(self.locations.find(newer_than=found)), newer)
        self.locations.doubt(newer)
        self.assertIsNone(self.locations.known)
        self.locations.find()
        self.assertEqual(len(self.searches.begun), 3)

    def test_a_storm_of_failures(self) -> None:
        """A directory that answers no at once, and a service that is down, are asked once a
        second.
        """
        for _ in range(2000):  # ten seconds
            waiting = self.locations.find()
            waiting.addErrback(lambda failure: failure.trap(DirectoryUnreachable))
            for search in self.searches.begun:
                if not search.called:
                    search.errback(DirectoryUnreachable("the directory", "gone"))
            self.clock.advance(0.005)
        self.assertLessEqual(len(self.searches.begun), 11)
        self.assertGreaterEqual(len(self.searches.begun), 9)

    def test_waiting_for_a_search_that_is_due(self) -> None:
        """When all leave who wait for the next search, it does not take place."""
        found = self.found("a")
        waiting = self.locations.find(newer_than=found)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.searches.begun), 1)

    def test_a_failed_search_keeps_what_is_good(self) -> None:
        """While the directory is away, what is known is used until its time is over, and asked for
        every second.
        """
        found = self.found("a")
        self.locations.doubt(found)
        self.clock.advance(1)
        waiting = self.locations.find()
        self.searches.begun[1].errback(DirectoryUnreachable("the directory", "gone"))
        self.failureResultOf(waiting, DirectoryUnreachable)
        self.assertIs(self.locations.known, found)
        self.clock.advance(1)
        self.assertIsNone(self.locations.known)

    def test_off(self) -> None:
        """With 0 seconds nothing is known, and nobody waits for the next second."""
        self.locations = self.made(0.0)
        for number in range(3):
            self.assertEqual(self.found(f"{number}").items, (f"{number}",))
            self.assertIsNone(self.locations.known)
        self.assertEqual(len(self.searches.begun), 3)

    def test_a_search_that_is_over_at_once(self) -> None:
        """It may fire before anybody waits for it."""
        ready: Any = Deferred()
        ready.callback(["a"])
        locations: Locations[str] = Locations(self.clock, lambda: ready, 60.0, self.clock.seconds)
        self.assertEqual(self.successResultOf(locations.find()).items, ("a",))

    def test_the_clock(self) -> None:
        """Setting the machine's clock does not make an answer older or younger."""
        locations: Locations[str] = Locations(self.clock, self.searches, 60.0)
        locations.find()
        self.searches.begun[0].callback(["a"])
        year = 366 * 86400
        for moved in (time.time() + year, time.time() - year):
            self.patch(time, "time", lambda moved=moved: moved)
            self.assertIsNotNone(locations.known)
