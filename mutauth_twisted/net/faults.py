"""What keeps a service from letting anybody in, and is its own fault: its keys."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from mutauth_twisted.errors import CredentialError

#: Seconds between two lines of one kind in the log: every client fails alike.
AGAIN = 60.0


class OwnFaults:
    """Decides which failures of clients are news about the service itself, and remembers the last.

    Some are seen on this machine: a keytab that is gone.  Others are told by
    the client's ticket: a key version that the keytab lacks.  Nothing protects
    what a ticket says there, so that any stranger may say it: such a fault is
    worth a line in the log, and does not make the service an unhealthy one.

    :param clock: provides IReactorTime.
    :ivar standing: the last fault that was seen here; None since a client's ticket could be read.
    """

    _log = Logger()

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._said: dict[bool, float] = {}
        self.standing: str | None = None

    def noted(self, error: CredentialError, seen_here: bool) -> bool:
        """Take a fault; whether it is to be logged as an error, which it is once a minute.

        :param error: what a client failed for.
        :param seen_here: whether it was seen here, and not told by the client's ticket.
        """
        if seen_here:
            self.standing = str(error)
        now, before = self._clock.seconds(), self._said.get(seen_here)
        if before is not None and now - before < AGAIN:
            return False
        self._said[seen_here] = now
        return True

    def over(self) -> None:
        """The keys can be used."""
        if self.standing is not None:
            self._log.info("no longer: {standing}", standing=self.standing)
            self.standing = None
