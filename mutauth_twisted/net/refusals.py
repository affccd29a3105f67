"""What a service's log says of connections that became no session: a flood of them must not fill it."""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure

from mutauth_twisted.errors import AccessDenied, MutualAuthError, ServiceFull
from mutauth_twisted.log import LimitedLog, Log


class Refusals:
    """Logs why connections ended before they were sessions, few of them in full.

    Strangers, clients that did authenticate, and internal errors are counted
    apart, so that a flood of strangers hides neither of the others.

    :param clock: provides IReactorTime.
    """

    _log = Log()

    def __init__(self, clock: Any) -> None:
        self._strangers = LimitedLog(clock, self._log, "connections of strangers failed")
        self._clients = LimitedLog(clock, self._log, "authenticated clients were refused")
        self._internal = LimitedLog(clock, self._log, "internal errors")

    def refused(self, error: MutualAuthError, source: str, text: str) -> None:
        """A connection ended with an error.

        :param source: the network that the peer is in.
        :param text: the line's beginning.
        """
        is_client = isinstance(error, (AccessDenied, ServiceFull))
        limited = self._clients if is_client else self._strangers
        who = error.subject if is_client else source
        limited.line(error.kind, who, lambda: f"{text}: {error}", error=error)

    def broken(self, failure: Failure, source: str) -> bool:
        """An internal error ended a connection; whether it is to be logged in full."""
        return self._internal.admits(type(failure.value).__name__, source)

    def flush(self) -> None:
        """Write what was only counted so far."""
        for limited in (self._strangers, self._clients, self._internal):
            limited.flush()
