"""Faults of the service's own: what is news, and what makes it unhealthy."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import REPLAY_CACHE, CredentialError, ToldByTicket
from mutauth_twisted.net.faults import AGAIN, FORGOTTEN, OwnFaults

GONE = CredentialError("keytab /k", "it does not exist", code="keytab-unusable")
UNWRITTEN = CredentialError(
    REPLAY_CACHE,
    "the service cannot note which requests it has seen (No space left)",
    code="replay-cache-unusable",
)
CLAIMED = ToldByTicket("192.0.2.1:9", "its ticket is for key version 9")


class OwnFaultsTests(SynchronousTestCase):
    """One service's faults on a clock of the test's."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.faults = OwnFaults(self.clock)

    def test_once_a_minute(self) -> None:
        """Of many clients that fail alike one a minute is an error."""
        self.assertEqual([self.faults.noted(GONE, True) for _ in range(3)], [True, False, False])
        self.clock.advance(AGAIN - 0.1)
        self.assertFalse(self.faults.noted(GONE, True))
        self.clock.advance(0.2)
        self.assertTrue(self.faults.noted(GONE, True))

    def test_strangers_hide_nothing(self) -> None:
        """A claim of a stranger is told apart: it neither silences what was seen here nor makes the
        service unhealthy.
        """
        self.assertTrue(self.faults.noted(CLAIMED, False))
        self.assertIsNone(self.faults.standing)
        self.assertTrue(self.faults.noted(GONE, True))
        self.assertFalse(self.faults.noted(CLAIMED, False))
        self.assertEqual(self.faults.standing, GONE.finding)

    def test_over(self) -> None:
        """A fault stands until it is over; one that comes and goes fills no log."""
        self.faults.over()
        self.faults.noted(GONE, True)
        self.faults.over()
        self.assertIsNone(self.faults.standing)
        self.assertFalse(self.faults.noted(GONE, True))
        self.assertIsNotNone(self.faults.standing)

    def test_replay_cache(self) -> None:
        """A fault that usable keys do not disprove stands for a minute once clients are in, and for
        longer while nobody comes.
        """
        self.assertTrue(self.faults.noted(GONE, True))
        self.assertTrue(self.faults.noted(UNWRITTEN, True))
        self.faults.usable()
        self.assertEqual((self.faults.standing, self.faults.elsewhere), (None, UNWRITTEN.finding))
        for _ in range(2):
            self.clock.advance(AGAIN - 1)
            self.faults.over()
            self.assertEqual(self.faults.elsewhere, UNWRITTEN.finding)
            self.faults.noted(UNWRITTEN, True)
        self.faults.over()
        self.clock.advance(AGAIN - 1)
        self.assertEqual(self.faults.elsewhere, UNWRITTEN.finding)
        self.clock.advance(1)
        self.assertIsNone(self.faults.elsewhere)
        for _ in range(2):
            self.faults.noted(UNWRITTEN, True)
            self.clock.advance(FORGOTTEN - 1)
            self.assertEqual(self.faults.elsewhere, UNWRITTEN.finding)
        self.clock.advance(1)
        self.assertIsNone(self.faults.elsewhere)

    def test_claimed_replay_cache(self) -> None:
        """The same words about a client make the service no unhealthy one."""
        self.assertTrue(self.faults.noted(CredentialError("192.0.2.1:9", UNWRITTEN.cause), False))
        self.assertIsNone(self.faults.elsewhere)
