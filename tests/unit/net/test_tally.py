"""Counts that several processes keep together."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.net.tally import Tally

#: Takes places of a limit of 5, says how many it has got, and waits to be ended.
_OTHER = """
import sys
from mutauth_twisted.net.tally import Tally
tally = Tally(int(sys.argv[1]), "echo", 0.5, float)
print(sum(tally.take("alice", 5) for _ in range(int(sys.argv[2]))), flush=True)
sys.stdin.read()
"""


class TallyTests(SynchronousTestCase):
    """This process and another one."""

    def setUp(self) -> None:
        self.file = os.memfd_create("sessions")
        self.addCleanup(os.close, self.file)
        self.time = 1.0
        self.tally = Tally(self.file, "echo", 0.0, lambda: self.time)

    def other(self, wanted: int) -> subprocess.Popen[bytes]:
        """Another process that has taken places."""
        process = subprocess.Popen(
            [sys.executable, "-c", _OTHER, str(self.file), str(wanted)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self.file],
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def taken(self, process: subprocess.Popen[bytes]) -> int:
        assert process.stdout is not None
        return int(process.stdout.readline())

    def test_alone(self) -> None:
        """A limit is kept, each by itself, and what was given back can be taken again."""
        self.assertEqual([self.tally.take("alice", 2) for _ in range(3)], [True, True, False])
        self.assertTrue(self.tally.take("bob", 2))
        self.tally.release("alice")
        self.assertTrue(self.tally.take("alice", 2))
        self.tally.release("carol")  # who has none

    def test_together(self) -> None:
        """Both have no more than the limit; who is killed gives all back."""
        other = self.other(3)
        self.assertEqual(self.taken(other), 3)
        taken = [self.tally.take("alice", 5) for _ in range(4)]
        self.assertEqual(taken, [True, True, False, False])
        other.kill()
        other.wait()
        self.time += 1.0
        self.assertEqual(sum(self.tally.take("alice", 5) for _ in range(9)), 3)
        self.assertEqual(self.taken(self.other(5)), 0)

    def test_services(self) -> None:
        """Another service's clients are counted by themselves."""
        self.assertTrue(self.tally.take("alice", 1))
        self.assertFalse(self.tally.take("alice", 1))
        elsewhere = Tally(self.file, "other", 0.0, lambda: self.time)
        self.assertTrue(elsewhere.take("alice", 1))

    def test_full_costs_little(self) -> None:
        """A limit that was reached is not looked at again for a moment, whoever keeps coming."""
        other = self.other(5)
        self.assertEqual(self.taken(other), 5)
        self.assertFalse(self.tally.take("alice", 5))
        other.kill()
        other.wait()
        self.assertFalse(self.tally.take("alice", 5))
        self.time += 0.1
        self.assertTrue(self.tally.take("alice", 5))
