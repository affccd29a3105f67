"""The look at the directory from time to time: how often, and what is said of it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.directory.published.base import Inspection
from mutauth_twisted.errors import DirectoryUnreachable
from mutauth_twisted.findings import Finding
from mutauth_twisted.service.watch import Watch

ONE, TWO = (Finding("spn-missing", f"SPN {name}", "it is gone") for name in ("a/b", "c/d"))
BROKEN = Inspection((ONE,))
FINE = Inspection(())


class WatchTests(SynchronousTestCase):
    """A watch with an interval of ten seconds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.answers: list[Any] = []
        self.asked = 0
        self.watch = Watch(self.clock, 10, self.inspect)

    def inspect(self) -> Awaitable[Inspection]:
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else FINE
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Deferred) else succeed(answer)

    def lines(self, *answers: Any) -> list[str]:
        """Lines of the log while these answers come, one after the other."""
        self.answers = list(answers)
        with capturedLogs() as logged:
            for _ in answers:
                self.clock.advance(10)
        return [f"{event['log_level'].name} {formatEvent(event)}" for event in logged]

    def test_first_look_after_one_interval(self) -> None:
        """The start has just checked everything."""
        self.watch.start()
        self.clock.advance(9)
        self.assertEqual(self.asked, 0)
        self.clock.advance(1)
        self.assertEqual(self.asked, 1)

    def test_each_change_is_logged_once(self) -> None:
        """A fault that stays is not repeated; what is right again is said."""
        self.watch.start()
        self.assertEqual(
            self.lines(FINE, BROKEN, BROKEN, FINE, FINE),
            [
                "error [spn-missing] SPN a/b: it is gone",
                "info no longer: [spn-missing] SPN a/b: it is gone",
                "info all directory checks pass again",
            ],
        )
        self.assertEqual(self.watch.wrong, ())

    def test_one_of_two_is_fixed(self) -> None:
        """All is right only when nothing is wrong any more."""
        self.watch.start()
        both = Inspection((ONE, TWO))
        self.assertEqual(
            self.lines(both, Inspection((TWO,))),
            [f"error {ONE.coded}", f"error {TWO.coded}", f"info no longer: {ONE.coded}"],
        )
        self.assertEqual(self.watch.wrong, (TWO,))

    def test_the_same_in_other_words(self) -> None:
        """A fault for another cause is news, and does not count as right in between."""
        self.watch.start()
        other = evolve(ONE, cause="it is on another account")
        self.assertEqual(
            self.lines(BROKEN, Inspection((other,))),
            [f"error {ONE.coded}", f"error {other.coded}"],
        )

    def test_fixed_by_ourselves(self) -> None:
        """A publication is said, and that all is right."""
        self.watch.start()
        self.assertEqual(
            self.lines(Inspection((), (ONE,))),
            [f"warn {ONE.coded}", "info all directory checks pass again"],
        )

    def test_unreachable_directory(self) -> None:
        """A directory that cannot be asked is a finding like any other."""
        self.watch.start()
        gone = DirectoryUnreachable("directory", "gone")
        self.assertEqual(
            self.lines(gone, gone, FINE),
            [
                "error [directory-unreachable] directory: gone",
                "info no longer: [directory-unreachable] directory: gone",
                "info all directory checks pass again",
            ],
        )

    def test_goes_on_after_a_bug(self) -> None:
        """An internal error is logged with its traceback, is no sign of health, and the next look
        takes place.
        """
        self.watch.start()
        lines = self.lines(ZeroDivisionError(), BROKEN)
        failed = (
            "[internal-error] the directory: the checks ended with an internal error; see the log"
        )
        self.assertEqual(
            lines,
            [
                "critical internal error while the directory was checked",
                f"error {failed}",
                "error [spn-missing] SPN a/b: it is gone",
                f"info no longer: {failed}",
            ],
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_never_two_at_once(self) -> None:
        """While one look takes long there is no other."""
        slow: Deferred[Inspection] = Deferred()
        self.answers = [slow]
        self.watch.start()
        self.clock.pump([10] * 4)
        self.assertEqual(self.asked, 1)
        slow.callback(FINE)
        self.clock.advance(10)
        self.assertEqual(self.asked, 2)

    def test_stop_waits_for_what_may_still_write(self) -> None:
        """Stopping ends when the look under way has ended, of which nothing is said."""
        slow: Deferred[Inspection] = Deferred()
        self.answers = [slow]
        self.watch.start()
        self.clock.advance(10)
        stopping = Deferred.fromCoroutine(self.watch.stop())
        self.assertNoResult(stopping)
        with capturedLogs() as logged:
            slow.callback(BROKEN)
        self.assertEqual(logged, [])
        self.successResultOf(stopping)
        self.clock.advance(100)
        self.assertEqual(self.asked, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_without_start(self) -> None:
        """A service that did not start has nothing to stop."""
        self.successResultOf(Deferred.fromCoroutine(self.watch.stop()))
