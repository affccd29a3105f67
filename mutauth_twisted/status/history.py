"""The last hour of a service, minute by minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import chain
from typing import Final

from attrs import define, evolve, frozen

#: How many minutes are kept.
MINUTES: Final = 60


@frozen
class Minute:
    """One minute.

    :param number: minutes since 1970, so that processes agree on them.
    :param allowed: sessions that began.
    :param refused: connections that became no session.
    :param sessions: the most there were at once.
    """

    number: int
    allowed: int = 0
    refused: int = 0
    sessions: int = 0


@define
class _Counting:
    number: int
    allowed: int
    refused: int
    most: int
    #: Sessions at its end, or now.
    left: int


class History:
    """Counts what happens, minute by minute, for an hour."""

    def __init__(self) -> None:
        self._minutes: deque[_Counting] = deque(maxlen=MINUTES)
        self._sessions = 0

    def _at(self, now: float) -> _Counting:
        number, minutes = int(now // 60), self._minutes
        # A clock that is set back goes on in the minute that it has reached.
        if minutes and minutes[-1].number >= number:
            return minutes[-1]
        current = _Counting(number, 0, 0, self._sessions, self._sessions)
        minutes.append(current)
        return current

    def began(self, now: float) -> None:
        """A session begins.

        :param now: seconds since 1970, here as below.
        """
        current = self._at(now)
        current.allowed += 1
        self._sessions += 1
        current.left = self._sessions
        current.most = max(current.most, current.left)

    def ended(self, now: float) -> None:
        """A session is over."""
        current = self._at(now)
        self._sessions -= 1
        current.left = self._sessions

    def refused(self, now: float) -> None:
        """There will be no session."""
        self._at(now).refused += 1

    def hour(self, now: float) -> tuple[Minute, ...]:
        """Return the last hour, every minute of it, the current one last."""
        last = max(int(now // 60), self._minutes[-1].number if self._minutes else 0)
        counted = {each.number: each for each in self._minutes}
        first, left, found = last - MINUTES + 1, 0, []
        for each in self._minutes:
            if each.number < first:
                left = each.left
        for number in range(first, last + 1):
            each = counted.get(number) or _Counting(number, 0, 0, left, left)
            left = each.left
            found.append(Minute(number, each.allowed, each.refused, each.most))
        return tuple(found)


def add_up(hours: Iterable[Iterable[Minute]]) -> tuple[Minute, ...]:
    """Put hours of several processes together."""
    found: dict[int, Minute] = {}
    for each in chain.from_iterable(hours):
        other = found.get(each.number, Minute(each.number))
        found[each.number] = evolve(
            other,
            allowed=other.allowed + each.allowed,
            refused=other.refused + each.refused,
            sessions=other.sessions + each.sessions,
        )
    return tuple(found[number] for number in sorted(found)[-MINUTES:])
