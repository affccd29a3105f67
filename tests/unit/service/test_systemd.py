"""Messages to systemd, read from a socket such as systemd has."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.service.systemd import ServiceManager
from mutauth_twisted.testing.fakes import captured_log


class NotifyTests(SynchronousTestCase):
    """A socket in the file system, and one in the abstract namespace."""

    def manager(self, name: str, **environ: str) -> tuple[ServiceManager, Clock]:
        where = f"\0{name[1:]}" if name.startswith("@") else name
        self.reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.reader.close)
        self.reader.bind(where)
        self.reader.setblocking(False)
        clock = Clock()
        environment = {"NOTIFY_SOCKET": name, **environ}
        manager = ServiceManager(clock, environment)
        self.assertEqual(environment, {}, "it would be told by other processes too")
        return manager, clock

    def path(self) -> str:
        directory = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, directory)
        path = Path(directory, "notify")
        self.addCleanup(path.unlink)
        return str(path)

    def read(self) -> list[str]:
        said = []
        while True:
            try:
                said.append(self.reader.recv(1000).decode())
            except BlockingIOError:
                return said

    def test_states(self) -> None:
        """Each state is one datagram of assignments, on both kinds of sockets."""
        for name in (self.path(), f"@mutauth-test-{os.getpid()}"):
            manager, _ = self.manager(name)
            manager.ready()
            manager.reloading()
            manager.stopping(12.5)
            ready, reloading, stopping = self.read()
            self.assertEqual(ready, "READY=1")
            self.assertRegex(reloading, r"\ARELOADING=1\nMONOTONIC_USEC=[0-9]+\Z")
            self.assertEqual(stopping, "STOPPING=1\nEXTEND_TIMEOUT_USEC=12500000")

    def test_status(self) -> None:
        """A status is told once, and cut where it is too long, never within a character."""
        manager, _ = self.manager(self.path())
        for _ in range(2):
            manager.status("3 sessions")
        manager.status("ä" * 1000)
        self.assertEqual(self.read(), ["STATUS=3 sessions", f"STATUS={'ä' * 250}"])

    def test_watchdog(self) -> None:
        """The reactor says that it turns twice within the time, as sd_watchdog_enabled(3) asks for;
        one that does not turn says nothing.
        """
        pid = str(os.getpid())
        manager, clock = self.manager(self.path(), WATCHDOG_USEC="10000000", WATCHDOG_PID=pid)
        manager.start()
        self.assertEqual(self.read(), ["WATCHDOG=1"])
        clock.pump([5.0, 5.0])
        self.assertEqual(self.read(), ["WATCHDOG=1"] * 2)
        clock.advance(4.9)
        self.assertEqual(self.read(), [])

    def test_not_for_us(self) -> None:
        """The watchdog of another process, and none at all, are left alone."""
        manager, clock = self.manager(self.path(), WATCHDOG_USEC="10000000", WATCHDOG_PID="1")
        manager.start()
        self.assertEqual((self.read(), clock.getDelayedCalls()), ([], []))
        silent = ServiceManager(clock, {})
        silent.start()
        silent.ready()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_gone(self) -> None:
        """A manager that cannot be told anything is a line in the log, once, and no more."""
        manager, _ = self.manager(self.path())
        self.reader.close()
        with captured_log() as events:
            for _ in range(2):
                manager.ready()
        (line,) = [formatEvent(event) for event in events]
        self.assertIn("the service manager cannot be told READY=1: Connection refused", line)
