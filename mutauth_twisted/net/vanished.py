"""Peers that have reset a connection that is not read.

A transport of Twisted's that is paused and has nothing to write is not watched
by the reactor, so that its peer's reset goes unnoticed for as long as it is
paused: behind a service that has stopped reading, for ever.
"""

from __future__ import annotations

import select
from typing import Any, Final
from weakref import WeakKeyDictionary

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

#: How often all connections are looked at, in seconds.
PERIOD: Final = 1.0


class Watcher:
    """Ends the connections of one reactor whose peers have reset them, with one timer and one call
    of poll(2) for all.

    A peer that has only finished what it says is none of them.

    :param reactor: provides IReactorTime.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._descriptors: dict[Connection, int] = {}
        self._connections: dict[int, Connection] = {}
        self._poll = select.poll()
        self._suspects: set[Connection] = set()
        self._timer: IDelayedCall | None = None

    def add(self, connection: Connection) -> None:
        """Watch a connection until it is removed."""
        descriptor = connection.fileno()
        self._descriptors[connection] = descriptor
        self._connections[descriptor] = connection
        # For no event: errors are told without being asked for.
        self._poll.register(descriptor, 0)
        if self._timer is None:
            self._timer = self._reactor.callLater(PERIOD, self._look)

    def remove(self, connection: Connection) -> None:
        """Watch it no more; one that is not watched changes nothing."""
        descriptor = self._descriptors.pop(connection, None)
        if descriptor is None:
            return
        self._suspects.discard(connection)
        if self._connections.get(descriptor) is connection:
            del self._connections[descriptor]
            self._poll.unregister(descriptor)
        if not self._descriptors and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._reactor.callLater(PERIOD, self._look)
        # Not POLLHUP: with both directions finished there may be bytes that a paused reader has yet
        # to take.
        reset = {
            self._connections[each] for each, event in self._poll.poll(0) if event & select.POLLERR
        }
        # One that is read is the reactor's, which delivers first what came before the reset: it has
        # had time to.
        over, self._suspects = reset & self._suspects, reset - self._suspects
        for connection in over:
            connection.connectionLost(Failure(ConnectionLost("the peer has reset the connection")))


_watchers: WeakKeyDictionary[Any, Watcher] = WeakKeyDictionary()


def watcher_for(reactor: Any) -> Watcher | None:
    """The watcher of a reactor's connections; None: this system has no poll(2)."""
    if not hasattr(select, "poll"):
        return None
    watcher = _watchers.get(reactor)
    if watcher is None:
        watcher = _watchers[reactor] = Watcher(reactor)
    return watcher
