"""The queue whose sources take turns."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.net.waiting import WaitingQueue

_SOURCES = st.sampled_from("abcde")


def everybody(source: str) -> bool:
    """Tell whether a source may have a turn: each may."""
    return True


class QueueTests(SynchronousTestCase):
    """Turns and bounds."""

    def fill(
        self, most: int, most_of_one: int, sources: str
    ) -> tuple[WaitingQueue[tuple[str, int]], list[object]]:
        """A queue to which one item of each source was added, numbered; and who had to go for
        each.
        """
        queue: WaitingQueue[tuple[str, int]] = WaitingQueue(most, most_of_one)
        return queue, [queue.add(source, (source, number)) for number, source in enumerate(sources)]

    def test_turns(self) -> None:
        """Sources take turns, each with its first; one that joins late is not behind all of
        another's.
        """
        queue, _ = self.fill(10, 10, "aaab")
        self.assertEqual(
            [queue.next(everybody) for _ in range(5)],
            [("a", 0), ("b", 3), ("a", 1), ("a", 2), None],
        )

    def test_who_may_not(self) -> None:
        """A source that may have no turn keeps its position before the others."""
        queue, _ = self.fill(10, 10, "aabb")
        self.assertEqual(queue.next(lambda source: source == "b"), ("b", 2))
        self.assertEqual(queue.next(everybody), ("a", 0))
        self.assertIsNone(queue.next(lambda source: False))
        self.assertEqual(queue.count, 2)

    def test_bounds(self) -> None:
        """It is bounded in all and for each source; when it is full, who has most makes room for
        who has fewer.
        """
        _, losers = self.fill(10, 2, "aaab")
        self.assertEqual(losers, [None, None, ("a", 2), None])
        queue, losers = self.fill(4, 4, "aaaabbb")
        self.assertEqual(losers, [None] * 4 + [("a", 3), ("a", 2), ("b", 6)])
        self.assertEqual(queue.count, 4)

    def test_discard(self) -> None:
        """One that waits no more is not served, and discarding it again changes nothing."""
        queue, _ = self.fill(10, 10, "aab")
        for _ in range(2):
            queue.discard("a", ("a", 0))
        queue.discard("c", ("c", 9))
        self.assertEqual(queue.count, 2)
        self.assertEqual([queue.next(everybody) for _ in range(3)], [("a", 1), ("b", 2), None])

    @given(st.lists(_SOURCES, max_size=60), st.integers(1, 20), st.integers(1, 20))
    def test_fair(self, sources: list[str], most: int, most_of_one: int) -> None:
        """In any order: the bounds hold, nobody waits unknown, and no source is served twice
        before another that waits.
        """
        queue: WaitingQueue[tuple[str, int]] = WaitingQueue(most, most_of_one)
        waiting: dict[tuple[str, int], None] = {}
        for number, source in enumerate(sources):
            item = (source, number)
            before = Counter(each for each, _ in waiting)
            loser = queue.add(source, item)
            waiting[item] = None
            if loser is not None:
                del waiting[loser]
            if (
                loser == item
            ):  # it had its share: as many as others of its kind, or as many as one may have
                full = sum(before.values()) == most
                self.assertTrue(
                    before[source] == most_of_one
                    or (full and max(before.values()) <= before[source] + 1)
                )
            after = Counter(each for each, _ in waiting)
            self.assertEqual(queue.count, len(waiting))
            self.assertTrue(len(waiting) <= most and max(after.values()) <= most_of_one)
        served = [queue.next(everybody) for _ in range(len(waiting))]
        self.assertEqual(sorted(filter(None, served)), sorted(waiting))
        self.assertIsNone(queue.next(everybody))
        for source in {each for each, _ in waiting}:
            own = [number for each, number in filter(None, served) if each == source]
            self.assertEqual(own, sorted(own))
        left = Counter(each for each, _ in waiting)
        since: Counter[str] = Counter()
        for item in filter(None, served):
            since[item[0]] += 1
            left[item[0]] -= 1
            self.assertTrue(all(since[item[0]] <= since[each] + 1 for each in left if left[each]))
