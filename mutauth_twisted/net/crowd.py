"""Connections of strangers that are there for a moment only, to ask one thing."""

from __future__ import annotations

from collections import Counter
from typing import Generic, Protocol, TypeVar


class Asker(Protocol):
    """A connection of a crowd."""

    @property
    def network(self) -> str:
        """The network that it comes from."""

    @property
    def has_asked(self) -> bool:
        """True when its question has come whole."""

    def drop(self) -> None:
        """End it now."""


A = TypeVar("A", bound=Asker)


class Crowd(Generic[A]):
    """So many connections at once.

    One too many takes the place of the oldest one that has not asked yet, of the network with the
    most: whoever floods displaces its own, and silence keeps no other out.

    :param most: how many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # In the order in which they came.
        self._members: dict[A, None] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, newcomer: A) -> None:
        """There is one more."""
        if len(self._members) >= self._most:
            oldest = self._oldest_of_most(newcomer.network)
            del self._members[oldest]
            oldest.drop()
        self._members[newcomer] = None

    def _oldest_of_most(self, newcomer: str) -> A:
        counts = Counter(each.network for each in self._members)
        counts[newcomer] += 1
        most = max(counts.values())
        crowd = [each for each in self._members if counts[each.network] == most]
        return next((each for each in crowd if not each.has_asked), crowd[0])

    def discard(self, member: A) -> None:
        """It is gone."""
        self._members.pop(member, None)
