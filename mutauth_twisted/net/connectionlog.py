"""Log of a service's connections, successful or not: a flood of them must not fill it."""

from __future__ import annotations

from typing import Any, Final

from twisted.python.failure import Failure

from mutauth_twisted.errors import AccessDenied, MutualAuthError, ServiceFull
from mutauth_twisted.log import LimitedLog, Log

#: Lines in full about the connections of authenticated clients in :data:`LimitedLog.INTERVAL`, and
#: about those of one principal.  Each connection is worth a line, but whoever has one ticket can
#: open hundreds a second.
LINES: Final = 1000
LINES_OF_ONE: Final = 100


class ConnectionLog:
    """Logs what became of connections, only so many of them in full.

    Strangers, clients that did authenticate and were refused, sessions, their
    ends, and internal errors are counted apart, so that a flood of one kind
    hides none of the others.

    :param clock: provides IReactorTime.
    """

    _log = Log()

    def __init__(self, clock: Any) -> None:
        self._unauthenticated = LimitedLog(clock, self._log, "unauthenticated connections failed")
        self._clients = LimitedLog(
            clock, self._log, "authenticated clients were refused", firsts=LINES
        )
        self._internal = LimitedLog(clock, self._log, "internal errors")
        many = {"lines": LINES, "lines_of_one": LINES_OF_ONE, "firsts": LINES}
        self._sessions = LimitedLog(clock, self._log, "clients were authenticated", **many)
        self._ends = LimitedLog(
            clock, self._log, "lines about sessions that this side ended", **many
        )

    def refused(self, error: MutualAuthError, source: str, text: str) -> None:
        """A connection ended with an error.

        :param source: the network that the peer is in.
        :param text: the line's beginning.
        """
        is_client = isinstance(error, (AccessDenied, ServiceFull))
        limited = self._clients if is_client else self._unauthenticated
        who = error.subject.casefold() if is_client else source
        limited.line(error.code, who, lambda: f"{text}: {error.coded}", error=error)

    def authenticated(self, principal: str) -> bool:
        """Count a new session of this principal; return True if its line is to be logged in
        full.
        """
        # A KDC gives tickets for a name in any mix of cases.
        return self._sessions.allows(principal, principal.casefold())

    def ended(self, principal: str) -> bool:
        """Count a line about the end of one of its sessions; return True if it is to be logged in
        full.
        """
        return self._ends.allows(principal, principal.casefold())

    def broken(self, failure: Failure, source: str) -> bool:
        """An internal error ended a connection; whether it is to be logged in full."""
        return self._internal.allows(type(failure.value).__name__, source)

    def flush(self) -> None:
        """Write what was only counted so far."""
        for limited in (
            self._unauthenticated,
            self._clients,
            self._internal,
            self._sessions,
            self._ends,
        ):
            limited.flush()
