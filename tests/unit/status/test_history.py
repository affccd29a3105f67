"""The last hour: every minute of it, and no more than that."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.status.history import MINUTES, History, Minute, add_up

#: A minute, in seconds since 1970.
START = 30_000_000 * 60.0


class HistoryTests(SynchronousTestCase):
    """One service's hour."""

    def setUp(self) -> None:
        self.history = History()

    def hour(self, now: float) -> list[tuple[int, int, int, int]]:
        """The minutes from the first one that counted on: number, allowed, refused, sessions."""
        return [
            (each.number - 30_000_000, each.allowed, each.refused, each.sessions)
            for each in self.history.hour(now)
            if each.number >= 30_000_000
        ]

    def test_nothing(self) -> None:
        """An hour in which nothing happened has its minutes all the same."""
        found = self.history.hour(START)
        self.assertEqual(len(found), MINUTES)
        self.assertEqual(found[-1], Minute(30_000_000))
        self.assertEqual([each.number for each in found], sorted({each.number for each in found}))

    def test_sessions_last(self) -> None:
        """A session counts in every minute until it ends, that of its end included."""
        self.history.began(START + 59)
        self.history.began(START + 61)
        self.history.refused(START + 62)
        self.history.ended(START + 300)
        expected = [(0, 1, 0, 1), (1, 1, 1, 2), (2, 0, 0, 2), (3, 0, 0, 2), (4, 0, 0, 2)]
        self.assertEqual(self.hour(START + 240), [*expected, (5, 0, 0, 2)])
        self.assertEqual(self.hour(START + 360), [*expected, (5, 0, 0, 2), (6, 0, 0, 1)])

    def test_older_than_an_hour(self) -> None:
        """Figures that are older are forgotten, but for the sessions that last."""
        self.history.began(START)
        self.history.refused(START)
        later = self.history.hour(START + 2 * 3600)
        self.assertEqual(
            {(each.allowed, each.refused, each.sessions) for each in later}, {(0, 0, 1)}
        )
        self.assertEqual(len(later), MINUTES)

    def test_bounded(self) -> None:
        """Years cost no more than an hour."""
        for number in range(5000):
            self.history.refused(START + number * 60)
        self.assertEqual(len(self.history._minutes), MINUTES)
        self.assertEqual(len(self.history.hour(START + 5000 * 60)), MINUTES)

    def test_clock_set_back(self) -> None:
        """Time never goes back: what happens meanwhile counts in the last minute there was."""
        self.history.began(START + 600)
        self.history.refused(START)
        self.assertEqual(self.hour(START)[-1], (10, 1, 1, 1))

    def test_processes(self) -> None:
        """Hours of several processes are added, minute by minute."""
        other = (Minute(1, 1, 2, 3), Minute(2, 1, 1, 1))
        self.assertEqual(
            add_up([other, (Minute(2, 5, 5, 5),)]), (Minute(1, 1, 2, 3), Minute(2, 6, 6, 6))
        )
        self.assertEqual(len(add_up([map(Minute, range(100))])), MINUTES)
