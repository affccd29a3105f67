"""Messages to systemd about the process: sd_notify(3) and the watchdog."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Any, Final

from twisted.internet.task import LoopingCall

from mutauth_twisted.log import Log

#: The most of a status that is told, in bytes: it is one line in ``systemctl status``.
_LONGEST: Final = 500


class ServiceManager:
    """The service manager that has started this process, if it is one that wants to be told.

    :param reactor: provides IReactorTime.
    :param environ: the environment; what is meant for this process alone is removed from it.
    """

    _log = Log()

    def __init__(self, reactor: Any, environ: MutableMapping[str, str] = os.environ) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        interval, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        #: Where it listens; empty: there is none. An abstract socket's name begins with a NUL.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status = ""
        self._failed = False
        #: Seconds after which a process that does not say that it is alive is killed; 0: never.
        self.watchdog = 0.0
        if interval.isdecimal() and pid in ("", str(os.getpid())):
            self.watchdog = int(interval) / 1e6
        # Told from the reactor: a reactor that does not turn says nothing, and is restarted.
        self._alive = LoopingCall(self._tell, "WATCHDOG=1")
        self._alive.clock = reactor

    def start(self) -> None:
        """Begin to say that the reactor turns, where that is wanted."""
        if self._address and self.watchdog:
            self._alive.start(self.watchdog / 2)

    def ready(self) -> None:
        """All services serve; or a reload is over."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """A reload begins; :meth:`ready` ends it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, seconds: float) -> None:
        """The process ends, and may take so long."""
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def status(self, line: str) -> None:
        """Tell how it goes, in one line; what has been told already is not told again."""
        if line != self._status:
            self._status = line
            self._tell(f"STATUS={line.encode()[:_LONGEST].decode(errors='ignore')}")

    def _tell(self, *assignments: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            if not self._failed:  # else it would be a line for each sign of life
                self._log.error(
                    "the service manager cannot be told {what}: {cause}",
                    what=assignments[0],
                    cause=error.strerror,
                )
            self._failed = True
        else:
            self._failed = False
