"""Destinations of an audit trail: real files, pipes and sockets."""

from __future__ import annotations

import os
import resource
import socket
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.audit.sinks import (
    LONGEST,
    AuditFile,
    Journal,
    StandardOutput,
    open_sink,
)


class FileTests(SynchronousTestCase):
    """A file."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.sink = AuditFile(self.path)
        self.addCleanup(self.sink.close)

    def test_appends(self) -> None:
        """Lines come after what is there, also those of several processes."""
        other = AuditFile(self.path)
        self.addCleanup(other.close)
        for sink, line in ((self.sink, b"1\n"), (other, b"2\n"), (self.sink, b"3\n")):
            sink.write(line)
        self.assertEqual(self.path.read_bytes(), b"1\n2\n3\n")

    def test_mode(self) -> None:
        """Others have no right to it."""
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode) & 0o137, 0)

    def test_rotation(self) -> None:
        """A file that was renamed or removed is made anew before the next line."""
        self.sink.write(b"1\n")
        old = self.path.rename(f"{self.path}.1")
        self.sink.write(b"2\n")
        self.assertEqual((old.read_bytes(), self.path.read_bytes()), (b"1\n", b"2\n"))
        self.path.unlink()
        self.sink.write(b"3\n")
        self.assertEqual(self.path.read_bytes(), b"3\n")

    def test_replaced_by_something_else(self) -> None:
        """A path that is no file is not written to, and nothing waits for its reader."""
        self.path.unlink()
        os.mkfifo(self.path)
        self.assertRaises(OSError, self.sink.write, b"1\n")
        self.path.unlink()
        self.sink.write(b"2\n")
        self.assertEqual(self.path.read_bytes(), b"2\n")

    def test_cut_line(self) -> None:
        """A line that only fits in part is an error, and the next begins on a line of its own."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, before)
        self.sink.write(b"1" * 50 + b"\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, before[1]))
        try:
            self.assertRaises(OSError, self.sink.write, b"2" * 50 + b"\n")
            self.assertRaises(OSError, self.sink.write, b"3" * 50 + b"\n")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        other = AuditFile(self.path)
        self.addCleanup(other.close)
        other.write(b"4\n")
        lines = self.path.read_bytes().splitlines()
        self.assertEqual([line[:1] for line in lines], [b"1", b"2", b"4"])


class StandardOutputTests(SynchronousTestCase):
    """A pipe."""

    def test_never_waits(self) -> None:
        """A reader that does not keep up costs lines and no time, and what it gets is whole."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        sink, line = StandardOutput(writing), b"x" * (LONGEST - 1) + b"\n"
        taken = 0
        with self.assertRaises(OSError):
            for _ in range(1000):
                sink.write(line)
                taken += 1
        self.assertGreater(taken, 1)
        got = os.read(reading, 1 << 22)
        self.assertEqual(got, line * taken)
        sink.write(line)

    def test_file(self) -> None:
        """Where standard output is a file on a full disk, a line that is cut is an error."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, before)
        path = Path(self.mktemp())
        with path.open("wb") as file:
            sink = StandardOutput(file.fileno())
            resource.setrlimit(resource.RLIMIT_FSIZE, (60, before[1]))
            try:
                sink.write(b"1" * 50 + b"\n")
                self.assertRaises(OSError, sink.write, b"2" * 50 + b"\n")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            sink.write(b"3\n")
        self.assertEqual([each[:1] for each in path.read_bytes().splitlines()], [b"1", b"2", b"3"])


class JournalTests(SynchronousTestCase):
    """The protocol of the journal."""

    def listen(self) -> socket.socket:
        """A journal's socket."""
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(found.close)
        found.bind(str(self.path))
        return found

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        os.symlink(self.path.parent.absolute(), f"/tmp/mutauth-test-{os.getpid()}")
        self.addCleanup(os.unlink, f"/tmp/mutauth-test-{os.getpid()}")
        # The path of a socket has at most 107 bytes.
        self.path = Path(f"/tmp/mutauth-test-{os.getpid()}") / self.path.name

    def test_fields(self) -> None:
        """A datagram has the line and what people search for, and survives a restart."""
        journal = self.listen()
        sink = Journal(self.path)
        self.addCleanup(sink.close)
        line = b'{"event":"closed","service":"shop","connection":"ab-1"}\n'
        sink.write(line)
        expected = {
            b"MESSAGE=" + line[:-1],
            b"PRIORITY=6",
            b"SYSLOG_IDENTIFIER=mutauth",
            b"MUTAUTH_EVENT=closed",
            b"MUTAUTH_SERVICE=shop",
            b"MUTAUTH_CONNECTION=ab-1",
        }
        self.assertEqual(set(journal.recv(4096).splitlines()), expected)
        journal.close()
        self.path.unlink()
        self.assertRaises(OSError, sink.write, line)
        journal = self.listen()
        sink.write(line)
        self.assertEqual(set(journal.recv(4096).splitlines()), expected)

    def test_full(self) -> None:
        """A journal that takes nothing is an error at once."""
        self.listen()
        sink = Journal(self.path)
        self.addCleanup(sink.close)
        with self.assertRaises(OSError):
            for _ in range(10_000):
                sink.write(b'{"event":"closed","service":"shop"}\n')

    def test_absent(self) -> None:
        """Without a journal there is no sink."""
        self.assertRaises(OSError, Journal, self.path)


class DestinationTests(SynchronousTestCase):
    """Meanings of the option."""

    def test_destinations(self) -> None:
        """Words are words, and anything else is a file."""
        self.assertIsInstance(open_sink("stdout"), StandardOutput)
        path = Path(self.mktemp()).absolute()
        sink = open_sink(str(path))
        self.addCleanup(sink.close)
        self.assertIsInstance(sink, AuditFile)
