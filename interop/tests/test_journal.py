"""systemd's own journal takes the audit trail, and finds its events by their fields."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from interop.programs import PLAIN, run
from interop.stage import WAIT, Program
from mutauth_twisted.audit.sinks import Journal

DAEMON = Path("/lib/systemd/systemd-journald")


class JournalTests(SynchronousTestCase):
    """A journal of its own, in a name space."""

    def setUp(self) -> None:
        self.namespace = f"mutauth-{os.urandom(4).hex()}"
        self.runtime = Path(f"/run/systemd/journal.{self.namespace}")
        self.addCleanup(self._remove)
        daemon = Program((str(DAEMON), self.namespace), PLAIN, "/")
        self.addCleanup(daemon.stop)
        deadline = time.monotonic() + WAIT
        while not (self.runtime / "socket").exists():
            self.assertLess(time.monotonic(), deadline, "the journal does not start")
            time.sleep(0.02)

    def _remove(self) -> None:
        machine = Path("/etc/machine-id").read_text().strip()
        shutil.rmtree(self.runtime, ignore_errors=True)
        for root in ("/var/log/journal", "/run/log/journal"):
            shutil.rmtree(f"{root}/{machine}.{self.namespace}", ignore_errors=True)

    def test_fields(self) -> None:
        """The line is the message, unchanged, and the event, service and connection are fields."""
        line = json.dumps(
            {"event": "closed", "service": "shop", "connection": "ab-1", "cause": "ü\n\x1b"}
        )
        sink = Journal(self.runtime / "socket")
        self.addCleanup(sink.close)
        sink.write(b"%s\n" % json.dumps({"event": "opened", "service": "shop"}).encode())
        sink.write(f"{line}\n".encode())
        words = ("journalctl", f"--namespace={self.namespace}", "-o", "json", "--no-pager")
        deadline = time.monotonic() + WAIT
        while not (found := run(*words, "MUTAUTH_CONNECTION=ab-1").output.splitlines()):
            self.assertLess(time.monotonic(), deadline, "the event is not in the journal")
            time.sleep(0.05)
        (entry,) = map(json.loads, found)
        self.assertEqual(entry["MESSAGE"], line)
        self.assertEqual((entry["MUTAUTH_EVENT"], entry["MUTAUTH_SERVICE"]), ("closed", "shop"))
        self.assertEqual((entry["SYSLOG_IDENTIFIER"], entry["PRIORITY"]), ("mutauth", "6"))
