"""Cache of what a search in the directory found, shared by the connections that need it for a short
time.

A connection uses what is known.  One that fails in a way that a moved service
would cause asks for a newer answer; so does one that finds nothing known.  All
that ask at the same time share one search, and the next search starts at the
earliest a moment after the last one ended: a storm of connections, to a service
that is down or in a directory that is, is not a storm of searches.

What is known is never used past its time.  When the directory cannot be reached
then, the search fails, and with it the connection: an old answer is not a substitute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Generic, TypeVar

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

from mutauth_twisted.errors import MutualAuthError

T = TypeVar("T")

#: Seconds between two searches; several a second would be a load that no move of a service is
#: worth.
_MOMENT = 1.0
# No clock that can be set, and where there is one, one that goes on while the machine sleeps.
_CLOCK = (
    getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    if hasattr(time, "clock_gettime")
    else None
)


def _now() -> float:
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


@frozen(eq=False)
class Answer(Generic[T]):
    """The answer of one search.

    :param items: what was found, at least one.
    :param since: when the search began; the answer may be as old as that.
    """

    items: Sequence[T]
    since: float


class Locations(Generic[T]):
    """The answer of the last search while it is good, and one search at a time for a newer one.

    :param reactor: provides IReactorTime.
    :param search: starts a search; its Deferred fires with what was found.
    :param keep: seconds for which an answer is good, from the beginning of its
        search; 0: for those only who waited for it.
    :param now: seconds on a monotonic clock.
    """

    def __init__(
        self,
        reactor: Any,
        search: Callable[[], Deferred[list[T]]],
        keep: float,
        now: Callable[[], float] = _now,
    ) -> None:
        self._reactor = reactor
        self._search = search
        self._keep = keep
        self._pause = min(_MOMENT, keep)
        self._now = now
        self._found: Answer[T] | None = None
        #: Whether a connection has failed since, in a way that a moved service would cause.
        self._doubted = False
        #: No search starts before this time.
        self._earliest = float("-inf")
        #: Those who wait for the search under way, or for the one that is due.
        self._waiting: list[Deferred[Answer[T]]] = []
        #: The search under way.
        self._searching: Deferred[list[T]] | None = None
        #: The call that starts the search that is due.
        self._due: Any = None

    @property
    def known(self) -> Answer[T] | None:
        """Result that can be used without a search, if there is one."""
        found, now = self._found, self._now()
        if found is None or (self._doubted and now >= self._earliest):
            return None
        if now - found.since < self._keep:
            return found
        self._found = None
        return None

    @property
    def undoubted(self) -> Answer[T] | None:
        """The same, unless a connection has failed with it."""
        return None if self._doubted else self.known

    def doubt(self, found: Answer[T]) -> None:
        """Have the directory asked again soon: something of this answer did not lead where it
        should.
        """
        if found is self._found:
            self._doubted = True

    def find(self, newer_than: Answer[T] | None = None) -> Deferred[Answer[T]]:
        """Fire with an answer of the directory; fail as the search does.

        Cancelling it ends the search when nothing else waits for that.

        :param newer_than: an answer that will not do.
        """
        known = self.known
        if known is not None and known is not newer_than:
            return succeed(known)
        waiting: Deferred[Answer[T]] = Deferred(self._left)
        self._waiting.append(waiting)
        if self._searching is None and self._due is None:
            pause = self._earliest - self._now()
            if pause > 0:
                self._due = self._reactor.callLater(pause, self._begin)
            else:
                self._begin()
        return waiting

    def _left(self, waiting: Deferred[Answer[T]]) -> None:
        if waiting not in self._waiting:  # it is being told this very moment, with others before it
            return
        self._waiting.remove(waiting)
        if self._waiting:
            return
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if (searching := self._over()) is not None:
            searching.cancel()

    def _begin(self) -> None:
        self._due = None
        since = self._now()
        searching = self._searching = self._search()
        searching.addBoth(self._ended, searching, since)

    def _over(self) -> Deferred[list[T]] | None:
        """No search is under way any more; returns the one that was."""
        searching, self._searching = self._searching, None
        if searching is not None:
            self._earliest = self._now() + self._pause
        return searching

    def _ended(
        self, result: list[T] | Failure, searching: Deferred[list[T]], since: float
    ) -> Failure | None:
        if searching is not self._searching:  # all have left
            is_expected = not isinstance(result, Failure) or result.check(
                CancelledError, MutualAuthError
            )
            return None if is_expected else result  # type: ignore[return-value]
        self._over()
        waiting, self._waiting = self._waiting, []
        if not isinstance(result, Failure):
            found = self._found = Answer(tuple(result), since)
            self._doubted = False
        for each in waiting:
            if each.called:  # cancelled by what one before it did
                continue
            if isinstance(result, Failure):
                each.errback(_own(result))
            else:
                each.callback(found)
        return None


def _own(failure: Failure) -> Failure:
    """The failure for one of several: an error that is raised in many places must not collect all
    their tracebacks.
    """
    error = failure.value
    if not isinstance(error, MutualAuthError):
        return failure
    own = copy(error)
    own.__cause__ = error
    return Failure(own)
