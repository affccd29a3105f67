"""Queue for what there is too little of, fair to each of those who wait."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class WaitingQueue(Generic[T]):
    """A bounded queue whose sources take turns; those of one source are served in the order they
    came.

    While it is full, a source with fewer waiting than another takes the last
    position of the one that has most, so that one that floods keeps no other out.

    :param most: how many may wait.
    :param most_of_one: how many of one source may.
    :ivar count: how many wait.
    """

    def __init__(self, most: int, most_of_one: int) -> None:
        self.resize(most, most_of_one)
        # In the order of the sources' turns; the inner ones are ordered sets.
        self._queues: dict[str, dict[T, None]] = {}
        self.count = 0

    def resize(self, most: int, most_of_one: int) -> None:
        """Have other bounds; those who wait already stay."""
        self._most = most
        self._most_of_one = most_of_one

    @property
    def sources(self) -> int:
        """Number of sources that have items that wait."""
        return len(self._queues)

    def add(self, source: str, item: T) -> T | None:
        """Have an item of a source wait.

        :return: who has to go: the item itself when there is no room for it,
            one that waited when it had to make room, None when there was room.
        """
        own = self._queues.get(source, {})
        if len(own) >= self._most_of_one:
            return item
        loser = None
        if self.count >= self._most:
            longest = max(self._queues, key=lambda each: len(self._queues[each]), default=source)
            if len(self._queues.get(longest, own)) <= len(own) + 1:
                return item
            loser = next(reversed(self._queues[longest]))
            self.discard(longest, loser)
        self._queues.setdefault(source, {})[item] = None
        self.count += 1
        return loser

    def discard(self, source: str, item: T) -> None:
        """An item waits no more; that of one that does not wait changes nothing."""
        queue = self._queues.get(source)
        if queue is None or item not in queue:
            return
        del queue[item]
        self.count -= 1
        if not queue:
            del self._queues[source]

    def next(self, may: Callable[[str], bool]) -> T | None:
        """Take out the first item of the source whose turn it is; None: there is none.

        :param may: whether a source may have a turn now; one that may not keeps its position.
        """
        source = next(filter(may, self._queues), None)
        if source is None:
            return None
        queue = self._queues.pop(source)
        item = next(iter(queue))
        del queue[item]
        self.count -= 1
        if queue:  # behind the others
            self._queues[source] = queue
        return item
