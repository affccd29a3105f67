"""Events of a service's connections: one record for each connection, told to observers.

Audit, metrics, the status page and the reload of an access policy all need the same: which
connections there were and are, who is at their other ends, and how they ended.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IAddress

from mutauth_twisted.access import Decision
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.log import Log
from mutauth_twisted.net.transport import ProtectedTransport

# Unlike in any other process: what several processes and hosts report can be put together.
_PROCESS: Final = secrets.token_hex(6)
_numbers = itertools.count(1)


def _new_id() -> str:
    return f"{_PROCESS}-{next(_numbers):x}"


@define(eq=False)
class ConnectionRecord:
    """One connection of a service.

    :ivar peer: the address of the client.
    :ivar host: the service's own address; None for a connection that was given no slot.
    :ivar began: seconds on the reactor's clock when the connection was accepted.
    :ivar id: name of the connection, unlike that of any other of any process: ASCII, no blanks.
    :ivar opened_at: when it was accepted, seconds since 1970.
    :ivar identity: the client, once it is authenticated, whether or not it is allowed; None before.
    :ivar decision: what the access policy has decided about it, last; None before.
    :ivar session: the application's transport; None before there is a session.
    :ivar session_began: seconds on the reactor's clock when the session began.
    :ivar error: why the connection was refused, or how its session ended (``ConnectionDone`` for a
        clean end); None while it lasts.
    """

    peer: IAddress
    host: IAddress | None
    began: float
    id: str = field(factory=_new_id)
    opened_at: float = field(factory=time.time)
    identity: PeerIdentity | None = None
    decision: Decision | None = None
    session: ProtectedTransport | None = None
    session_began: float | None = None
    error: BaseException | None = None

    @property
    def received(self) -> int:
        """Number of bytes that the application was given."""
        return self.session.received if self.session is not None else 0

    @property
    def sent(self) -> int:
        """Number of bytes that the application has written."""
        return self.session.sent if self.session is not None else 0


class ConnectionObserver:
    """Observer of the connections of a service; a subclass overrides what it is interested in.

    A connection that was given no slot is only refused; any other is opened first.  Of those that
    were opened each is refused or established, and one that was established is closed.

    Each method is called in the reactor's thread.  An exception of an observer is logged and
    changes nothing, except where it says so.
    """

    def opened(self, record: ConnectionRecord) -> None:
        """A connection was accepted and has a slot; its handshake begins, or waits for its turn."""

    def authenticated(self, record: ConnectionRecord) -> None:
        """The client is authenticated, and about to be authorized.

        :raises MutualAuthError: to refuse the client, which is told the error's code.
        """

    def established(self, record: ConnectionRecord) -> None:
        """The client is allowed, and its session begins."""

    def refused(self, record: ConnectionRecord) -> None:
        """There will be no session: :attr:`ConnectionRecord.error` is why."""

    def closed(self, record: ConnectionRecord) -> None:
        """The session is over: :attr:`ConnectionRecord.error` is how."""


class Observers(ConnectionObserver):
    """Several observers as one.

    :param observers: those that are told, in this order.
    """

    _log = Log()

    def __init__(self, observers: Iterable[ConnectionObserver] = ()) -> None:
        self._observers = list(observers)

    def add(self, observer: ConnectionObserver) -> None:
        """Tell one more, from now on."""
        self._observers.append(observer)

    def discard(self, observer: ConnectionObserver) -> None:
        """Tell this one no more, if it was told."""
        self._observers = [each for each in self._observers if each is not observer]

    def _tell(
        self,
        which: Callable[[ConnectionObserver], Callable[[ConnectionRecord], None]],
        record: ConnectionRecord,
    ) -> None:
        for observer in self._observers:
            try:
                which(observer)(record)
            except Exception:
                self._log.failure("internal error of an observer of connections")

    def opened(self, record: ConnectionRecord) -> None:
        """See :class:`ConnectionObserver`."""
        self._tell(lambda observer: observer.opened, record)

    def authenticated(self, record: ConnectionRecord) -> None:
        """See :class:`ConnectionObserver`."""
        for observer in self._observers:
            try:
                observer.authenticated(record)
            except MutualAuthError:
                raise
            except Exception:
                self._log.failure("internal error of an observer of connections")

    def established(self, record: ConnectionRecord) -> None:
        """See :class:`ConnectionObserver`."""
        self._tell(lambda observer: observer.established, record)

    def refused(self, record: ConnectionRecord) -> None:
        """See :class:`ConnectionObserver`."""
        self._tell(lambda observer: observer.refused, record)

    def closed(self, record: ConnectionRecord) -> None:
        """See :class:`ConnectionObserver`."""
        self._tell(lambda observer: observer.closed, record)
