"""Destinations of an audit trail: a file, standard output, the journal.

Each takes a whole line or raises OSError, and none ever waits: all of it happens in the reactor's
thread.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from mutauth_twisted.files import check_regular

#: The most bytes of a line: POSIX has a pipe take as many at once or none.
LONGEST: Final = 4096
#: The journal's socket (systemd's "Native Journal Protocol").
JOURNAL: Final = Path("/run/systemd/journal/socket")


class Sink(Protocol):
    """A destination."""

    def write(self, line: bytes) -> None:
        """Take one line, which ends with a line feed.

        :raises OSError: when it was not taken.
        """

    def close(self) -> None:
        """Take nothing more."""


class AuditFile:
    """A file, to which every process of the service appends whole lines.

    A file that was renamed or removed is made anew before the next line, so that rotation needs no
    signal.

    :param path: the file; those who are not its owner or in its group get no right to it.
    :raises OSError: when it cannot be opened, or is not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = -1
        self._key: tuple[int, int] | None = None
        self._open()

    def _open(self) -> None:
        with suppress(FileNotFoundError):
            check_regular(self._path)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        handle = os.open(self._path, flags, 0o640)
        self.close()
        found = os.fstat(handle)
        self._handle, self._key = handle, (found.st_dev, found.st_ino)

    def _has_moved(self) -> bool:
        try:
            found = os.stat(self._path)
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self._key

    def write(self, line: bytes) -> None:
        """See :class:`Sink`."""
        if self._handle < 0 or self._has_moved():
            self._open()
        # One process at a time: who finds a torn line ends it, whoever has torn it.  Not flock(),
        # by which everybody who may read the file could hold up the service.
        fcntl.lockf(self._handle, fcntl.LOCK_EX)
        try:
            self._append(line)
        finally:
            fcntl.lockf(self._handle, fcntl.LOCK_UN)

    def _append(self, line: bytes) -> None:
        size = os.fstat(self._handle).st_size
        if size and os.pread(self._handle, 1, size - 1) != b"\n":
            line = b"\n" + line
        if os.write(self._handle, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """See :class:`Sink`."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


class StandardOutput:
    """Standard output; a pipe whose reader does not keep up loses lines."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._torn = False

    def write(self, line: bytes) -> None:
        """See :class:`Sink`."""
        if not self._poll.poll(0):
            raise OSError(errno.EAGAIN, "its reader does not keep up")
        line = b"\n" + line if self._torn else line
        self._torn = os.write(self._descriptor, line) < len(line)
        if self._torn:  # it is a file after all, on a disk that is full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """See :class:`Sink`."""


class Journal:
    """The journal of systemd, which has each line as its message and the event and the connection
    as fields of their own.

    :param path: its socket.
    :raises OSError: when nothing listens there.
    """

    def __init__(self, path: Path = JOURNAL) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._connect()

    def _connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            made.connect(str(self._path))
        except OSError:
            made.close()
            raise
        self._socket = made
        return made

    def write(self, line: bytes) -> None:
        """See :class:`Sink`."""
        event = json.loads(line)
        fields = {
            "MESSAGE": line.decode().rstrip("\n"),
            "PRIORITY": "6",
            "SYSLOG_IDENTIFIER": "mutauth",
            "MUTAUTH_EVENT": event["event"],
            "MUTAUTH_SERVICE": event["service"],
            "MUTAUTH_CONNECTION": event.get("connection", ""),
        }
        # JSON escapes line feeds, and the names of services and connections have none.
        datagram = "".join(f"{name}={value}\n" for name, value in fields.items()).encode()
        connected = self._socket or self._connect()
        try:
            connected.send(datagram)
        except (ConnectionError, FileNotFoundError):  # it was restarted
            self.close()
            self._connect().send(datagram)

    def close(self) -> None:
        """See :class:`Sink`."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def open_sink(destination: str) -> Sink:
    """The sink that an option names.

    :param destination: ``stdout``, ``journald``, or a file's absolute path.
    :raises OSError: when it cannot be written to.
    """
    if destination == "stdout":
        return StandardOutput()
    if destination == "journald":
        return Journal()
    return AuditFile(Path(destination))


def check_sink(destination: str) -> None:
    """See that a sink can be opened; no file is made.

    :raises OSError: when it cannot be written to.
    """
    path = Path(destination)
    if not path.is_absolute():
        open_sink(destination).close()
        return
    if path.exists():
        check_regular(path)
    else:
        os.stat(path.parent)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), destination)
