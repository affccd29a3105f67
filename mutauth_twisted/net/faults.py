"""Faults of the service itself that make it refuse every client: its keys, or its replay cache."""

from __future__ import annotations

from typing import Any

from mutauth_twisted.errors import CredentialError
from mutauth_twisted.findings import Finding
from mutauth_twisted.log import Log

#: Seconds between two lines of one kind in the log: every client fails alike; and for which a
#: failure of the replay cache counts, whoever gets in meanwhile: on a disk that is nearly full one
#: in ten fails.
AGAIN = 60.0
#: After how many seconds without another failure a fault is over that only clients can show: to a
#: service that is not healthy none may come any more.
FORGOTTEN = 600.0


class OwnFaults:
    """Decides which failures of clients are news about the service itself, and remembers the last.

    Some are seen on this machine: a keytab that is gone.  Others are told by
    the client's ticket: a key version that the keytab lacks.  Nothing protects
    what a ticket says there, so that any client may say it: such a fault is
    worth a line in the log, and does not make the service an unhealthy one.

    :param clock: provides IReactorTime.
    :ivar standing: the last fault of the keys that was seen here; None since a client's ticket
        could be read.
    """

    _log = Log()

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._said: dict[str | None, float] = {}
        self._replay_cache: tuple[Finding, float] | None = None
        #: Whether a client has been authenticated since the replay cache failed last.
        self._written_since = False
        self.standing: Finding | None = None

    @property
    def elsewhere(self) -> Finding | None:
        """The last fault of the replay cache, which keys that can be used say nothing of; None:
        there is none now.
        """
        if self._replay_cache is None:
            return None
        fault, when = self._replay_cache
        if self._clock.seconds() - when < (AGAIN if self._written_since else FORGOTTEN):
            return fault
        self._log.info("no longer: {standing}", standing=fault)
        self._replay_cache = None
        return None

    def noted(self, error: CredentialError, seen_here: bool) -> bool:
        """Take a fault; whether it is to be logged as an error, which it is once a minute.

        :param error: what a client failed for.
        :param seen_here: whether it was seen here, and not told by the client's ticket.
        """
        now = self._clock.seconds()
        if seen_here and error.code == "replay-cache-unusable":
            self._replay_cache, self._written_since = (error.finding, now), False
        elif seen_here:
            self.standing = error.finding
        kind = (
            error.subject if seen_here else None
        )  # those seen here have few subjects: the keytab, the cache
        before = self._said.get(kind)
        if before is not None and now - before < AGAIN:
            return False
        self._said[kind] = now
        return True

    def usable(self) -> None:
        """The keys can be used."""
        if self.standing is not None:
            self._log.info("no longer: {standing}", standing=self.standing)
            self.standing = None

    def over(self) -> None:
        """A client has authenticated itself."""
        self.usable()
        self._written_since = True
