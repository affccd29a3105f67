"""Live connections, and the wait for their end when a program stops."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, TimeoutError


class Abortable(Protocol):
    """A connection that can be cut."""

    def abort(self) -> None:
        """End it at once."""


T = TypeVar("T", bound=Abortable)


class Live(Generic[T]):
    """Connections that are there now.

    :param reactor: for the deadline.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._all: set[T] = set()
        self._drained: Deferred[None] | None = None

    def __iter__(self) -> Any:
        return iter(tuple(self._all))

    def __len__(self) -> int:
        return len(self._all)

    def add(self, connection: T) -> None:
        """There is one more."""
        self._all.add(connection)

    def discard(self, connection: T) -> None:
        """One has ended."""
        self._all.discard(connection)
        if not self._all and self._drained is not None:
            drained, self._drained = self._drained, None
            drained.callback(None)

    async def drain(self, seconds: float) -> int:
        """Wait until the last connection has ended; when time is up, or the wait is cancelled,
        abort those that are left.

        :param seconds: how long they may take.
        :return: how many had to be aborted.
        """
        if not self._all:
            return 0
        drained: Deferred[None] = Deferred()
        self._drained = drained
        drained.addTimeout(seconds, self._reactor)
        try:
            await drained
        except TimeoutError:
            pass
        finally:
            self._drained = None
            left = tuple(self._all)
            for connection in left:
                connection.abort()
        return len(left)
