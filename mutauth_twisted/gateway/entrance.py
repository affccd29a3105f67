"""The local entrance to an authenticated service: each plain connection that is accepted gets a
session of its own.

A session that leads nowhere is replaced by another one, of another instance where the endpoint
knows several, as long as that repeats nothing:

- the service has refused it (:class:`~mutauth_twisted.errors.SessionRefused`): the refusal is
  authenticated, and says that nothing of what was sent was used; that is kept until the service's
  first byte;
- it has ended in any other way before a byte of either side went through it.

Anything later is the end of the plain connection, too: whether the service has used the last bytes
is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress, IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from mutauth_twisted.errors import SessionRefused
from mutauth_twisted.gateway.relay import Accepted, HalfClosed, Relay, RelayFactory
from mutauth_twisted.log import Log
from mutauth_twisted.net.draining import Live

#: The most bytes of a plain connection that are kept until the service's first.
KEPT: Final = 0x40000
#: How many sessions a plain connection may have, one after the other.
SESSIONS: Final = 4


class Shunning(Protocol):
    """An endpoint that may know several instances of its service."""

    def shun(self, connected: IProtocol) -> bool:
        """Prefer others for a while to the instance that a protocol was connected to; True if there
        are any.
        """


class _SessionFactory(Factory):
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Relay:
        return Relay()


class _Entered(Accepted):
    """A plain connection; it is settled when only one session can be its own."""

    _log = Log()
    _factory: EntranceFactory

    def __init__(self, factory: EntranceFactory) -> None:
        super().__init__(factory)
        #: What was passed on and may have to be repeated; None: it is settled.
        self._kept: list[bytes] | None = []
        self._size = 0
        self._sessions = 0
        self._session: Relay | None = None

    def _connected(self, target: Relay) -> None:
        self._session = target
        self._sessions += 1
        if self._kept is not None:
            self._kept.extend(self._early)
        super()._connected(target)
        if self._kept is not None:
            self.dataReceived = self._asked  # type: ignore[method-assign]
            target.dataReceived = self._answered  # type: ignore[method-assign]

    def _asked(self, data: bytes) -> None:
        if self._kept is not None:
            self._kept.append(data)
            self._size += len(data)
            if self._size > KEPT:
                self._settle()
        if self._session is not None:
            self._session.send(data)

    def _answered(self, data: bytes) -> None:
        self._settle()
        self.send(data)

    def _settle(self) -> None:
        if self._kept is None or self._session is None:
            return
        self._kept = None
        # What waits for silence may stand between.
        if self.dataReceived == self._asked:
            self.dataReceived = self._session.send  # type: ignore[method-assign]
        if self._session.dataReceived == self._answered:
            self._session.dataReceived = self.send  # type: ignore[method-assign]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._kept = self._session = None
        super().connectionLost(reason)

    def abort(self) -> None:
        """See :class:`Relay`."""
        self._kept = None
        super().abort()

    def other_lost(self, reason: Failure, *, ended: bool) -> None:
        """See :class:`Relay`: another session may follow."""
        session, self._session = self._session, None
        kept = self._kept
        if session is None or kept is None or ended or self._sessions >= SESSIONS:
            self._give_up(reason, ended)
            return
        others = self._factory.shun(session)
        refused = reason.check(SessionRefused) is not None
        is_over = reason.check(ConnectionDone, ConnectionAborted)
        if others if refused else not (kept or is_over):
            self._log.info("{why}; trying again", why=reason.value)
            self._again(kept)
        else:
            self._give_up(reason, ended)

    def _give_up(self, reason: Failure, ended: bool) -> None:
        if reason.check(SessionRefused):
            self._factory.refused(reason)
        super().other_lost(reason, ended=ended)

    def _again(self, kept: list[bytes]) -> None:
        self._part()
        transport: Any = self.transport
        transport.unregisterProducer()
        self._early, self._kept = kept, []
        del self.dataReceived  # what still comes is early, too
        self._connect()


class EntranceFactory(RelayFactory):
    """Gives each plain connection a session with a service.

    :param endpoint: makes authenticated connections; one that is :class:`Shunning` is told of
        instances that are of no use.
    :param refused: is told why a connection has no session; it is aborted then.
    :param live: gets both sides of each, from when it is there.
    :param half_closed: how long they may be half-closed; None: for ever.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        refused: Callable[[Failure], None],
        live: Live[Relay] | None = None,
        half_closed: HalfClosed | None = None,
    ) -> None:
        super().__init__(self._dial, refused, live, half_closed)
        self._endpoint: Any = endpoint

    def _dial(self, accepted: Any) -> Deferred[Any]:
        return maybeDeferred(self._endpoint.connect, _SessionFactory())

    def shun(self, session: Relay) -> bool:
        """See :class:`Shunning`."""
        return hasattr(self._endpoint, "shun") and bool(self._endpoint.shun(session))

    def buildProtocol(self, addr: IAddress | None) -> Relay:
        """The relay for one plain connection."""
        return _Entered(self)
