"""Two instances of a service that were given one service connection point."""

from __future__ import annotations

import time

from tests.integration.commands import WAIT, CommandTestCase


class InstanceTests(CommandTestCase):
    """Two processes with the same options, but for the ports they get."""

    def test_later_one(self) -> None:
        """The later one leaves clients to the first, says so, and follows it when it stops."""
        self.assertEqual(self.install().code, 0)
        often = ("--check-interval", "0.2")
        with self.service(*often) as first:
            with self.service(*often) as second:
                taken = f"it points to {self.host} {first.port}, where another instance runs"
                self.assertIn(taken, second.log)
                self.assertIn("--scp-name", second.log)
                time.sleep(1)  # several looks of both
                self.assertEqual(self.leads_to(), first.port)
                first.stop()
                give_up_at = time.monotonic() + WAIT
                while self.leads_to() != second.port and time.monotonic() < give_up_at:
                    time.sleep(0.2)
                self.assertEqual(self.leads_to(), second.port)
                second.stop()
            self.assertIn("SCP withdrawn", first.log)
            self.assertNotIn("another instance", first.log)
            self.assertIn("published again", second.log)
        self.assertIsNone(self.leads_to())

    def leads_to(self) -> int | None:
        """The port to which the SCP leads a client; None: it leads nowhere."""
        connected = self.mutauth("connect", "-v", self.endpoint, given="hello\n")
        if connected.output != "hello\n":
            return None
        self.assertEqual(connected.code, 0, connected)
        return next(port for port in self.ports(connected.errors))

    def ports(self, told: str) -> list[int]:
        """The ports of the host that ``-v`` names."""
        words = told.replace(",", " ").split()
        return [int(word.rpartition(":")[2]) for word in words if word.startswith(f"{self.host}:") and word[-1].isdecimal()]
