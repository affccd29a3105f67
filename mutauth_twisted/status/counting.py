"""Counts of one service's connections, made as they come and go."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from attrs import frozen
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IReactorTime

from mutauth_twisted.codes import CODES
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.findings import Finding
from mutauth_twisted.net.events import ConnectionObserver, ConnectionRecord
from mutauth_twisted.net.protocol import describe
from mutauth_twisted.status.history import History, Minute
from mutauth_twisted.status.metrics import METRICS, Value
from mutauth_twisted.status.snapshot import MOST_REFUSALS, MOST_SESSIONS, Refusal, Session
from mutauth_twisted.text import short_name

#: Results that are no codes.
ALLOWED: Final = "allowed"
CLEAN: Final = "clean"
#: How many refusals of each code are remembered: a flood of one kind hides no other.
_OF_EACH: Final = 10
_HANDSHAKES: Final = METRICS["handshake_duration_seconds"]
_SESSIONS: Final = METRICS["session_duration_seconds"]


@frozen
class _Refused:
    """A refusal as it is remembered; its words are made when they are asked for."""

    id: str
    principal: str
    peer: IAddress
    at: float
    finding: Finding


def _finding(error: BaseException | None) -> Finding:
    if isinstance(error, MutualAuthError) and error.code in CODES:
        return error.finding
    return Finding("internal-error", "the connection", "an internal error ended it", "see the log")


def _code(error: BaseException | None) -> str:
    """The code of an error, as the value of a label: one of those that there are."""
    code = error.code if isinstance(error, MutualAuthError) else "network-failed"
    return code if code in CODES else "internal-error"


class Counting(ConnectionObserver):
    """Counts of one service; tells them as figures, and which sessions and refusals there were.

    :param reactor: the clock of the connections.
    :param now: gives seconds since 1970.
    """

    def __init__(self, reactor: IReactorTime, now: Callable[[], float] = time.time) -> None:
        self._reactor = reactor
        self._now = now
        self._opened = 0
        self._results: dict[str, int] = {ALLOWED: 0}
        self._ends: dict[str, int] = {CLEAN: 0}
        self._latency, self._durations = _HANDSHAKES.empty(), _SESSIONS.empty()
        #: Of the sessions that are over.
        self._received = self._sent = 0
        self._refusals: dict[str, deque[_Refused]] = {}
        self._history = History()

    def opened(self, record: ConnectionRecord) -> None:
        """See ConnectionObserver."""
        self._opened += 1

    def established(self, record: ConnectionRecord) -> None:
        """See ConnectionObserver."""
        self._results[ALLOWED] += 1
        if record.session_began is not None:
            _HANDSHAKES.observe(record.session_began - record.began, self._latency)
        self._history.began(self._now())

    def refused(self, record: ConnectionRecord) -> None:
        """See ConnectionObserver."""
        if record.host is None:  # it was given no slot, and never opened
            self._opened += 1
        finding = _finding(record.error)
        code = finding.code
        self._results[code] = self._results.get(code, 0) + 1
        principal = record.identity.principal if record.identity is not None else ""
        now = self._now()
        self._refusals.setdefault(code, deque(maxlen=_OF_EACH)).append(
            _Refused(record.id, principal, record.peer, now, finding)
        )
        self._history.refused(now)

    def closed(self, record: ConnectionRecord) -> None:
        """See ConnectionObserver."""
        result = CLEAN if isinstance(record.error, ConnectionDone) else _code(record.error)
        self._ends[result] = self._ends.get(result, 0) + 1
        if record.session_began is not None:
            _SESSIONS.observe(self._reactor.seconds() - record.session_began, self._durations)
        self._received += record.received
        self._sent += record.sent
        self._history.ended(self._now())

    def values(self, live: Iterable[ConnectionRecord]) -> dict[str, Value]:
        """Return the figures, by their names.

        :param live: the sessions that there are, whose bytes count too.
        """
        received, sent = self._received, self._sent
        for record in live:
            received += record.received
            sent += record.sent
        return {
            "connections_total": self._opened,
            "handshakes_total": dict(self._results),
            "handshake_duration_seconds": list(self._latency),
            "sessions_ended_total": dict(self._ends),
            "session_duration_seconds": list(self._durations),
            "received_bytes_total": received,
            "sent_bytes_total": sent,
        }

    def hour(self) -> tuple[Minute, ...]:
        """Return the last hour."""
        return self._history.hour(self._now())

    def refusals(self) -> tuple[Refusal, ...]:
        """Return the last refusals, some of each kind, the latest first."""
        kept = (each for kind in self._refusals.values() for each in kind)
        latest_first = sorted(kept, key=lambda each: each.at, reverse=True)[:MOST_REFUSALS]
        return tuple(
            Refusal(each.id, short_name(each.principal), _address(each.peer), each.at, each.finding)
            for each in latest_first
        )


def _address(peer: IAddress) -> str:
    return short_name(describe(peer))


def sessions(live: Iterable[ConnectionRecord]) -> tuple[Session, ...]:
    """Return the latest of the sessions that there are, the latest first."""
    newest = heapq.nlargest(MOST_SESSIONS, live, lambda record: record.opened_at)
    return tuple(
        Session(
            record.id,
            short_name(record.identity.principal) if record.identity is not None else "",
            _address(record.peer),
            record.opened_at,
            record.received,
            record.sent,
            record.identity.protection.value if record.identity is not None else "",
        )
        for record in newest
    )
