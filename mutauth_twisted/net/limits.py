"""What a service spends on its peers: how many, for how long.

A socket that has proven nothing takes a place among the half-open exchanges,
of which there are few for one address; a proven session takes a place among
the sessions, which strangers can therefore not fill.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address
from typing import Any

from attrs import field, frozen
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from mutauth_twisted.errors import ServiceFull, SessionEnded, UsageError
from mutauth_twisted.log import Log

#: How long before its end a session is told of it, in seconds.
NOTICE = 60.0


def _positive(instance: object, attribute: Any, value: float | None) -> None:
    if value is not None and not 0 < value < float("inf"):
        raise UsageError(f"limit {attribute.name}", f"{value} is out of range", "give a number above 0")


@frozen
class Limits:
    """The limits of a service; every one is a bound.

    :param handshakes: half-open exchanges at once, over all addresses.
    :param handshakes_per_address: half-open exchanges of one IPv4 address or
        one IPv6 network of 64 bits.
    :param connections: proven sessions at once.
    :param idle: seconds without a byte of either application after which a session ends.
    :param session: seconds after which a session ends; at the latest, and
        with None only then, it ends with its ticket.
    :raises UsageError: for a limit that is not above 0.
    """

    handshakes: int = field(default=256, validator=_positive)
    handshakes_per_address: int = field(default=32, validator=_positive)
    connections: int = field(default=10_000, validator=_positive)
    idle: float = field(default=3600.0, validator=_positive)
    session: float | None = field(default=None, validator=_positive)


class Cap:
    """Counts what there may be so many of, and says once for each time of shortage that there was one.

    :param limit: how many there may be.
    :param what: what is counted, as the log names it.
    """

    _log = Log()

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        # A shortage is over only when a quarter is free again: at the edge it would be a line for each socket.
        self._relaxed = limit - (limit + 3) // 4
        self._refused = 0
        self.count = 0

    def has_room(self) -> bool:
        """Whether there may be one more; if not, that counts as a refusal."""
        if self.count < self._limit:
            return True
        if not self._refused:
            self._log.warn("{what}: there are {limit}, and no more are taken", what=self._what, limit=self._limit)
        self._refused += 1
        return False

    def take(self) -> None:
        """There is one more."""
        self.count += 1

    def give_back(self) -> None:
        """There is one less."""
        self.count -= 1
        if self._refused and self.count <= self._relaxed:
            self._log.info("{what}: there is room again; {refused} were refused", what=self._what, refused=self._refused)
            self._refused = 0


def network_of(address: IAddress) -> str:
    """Whose places a connection takes: who has one IPv6 address has a network of them."""
    host = str(getattr(address, "host", ""))
    if ":" not in host:
        return host
    try:
        parsed = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))


class Places:
    """The places of one service, over all its ports.

    :param limits: how many there are of each kind.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._handshakes = Cap(limits.handshakes, "half-open exchanges")
        self._sessions = Cap(limits.connections, "sessions")
        self._networks: dict[str, Cap] = {}

    @property
    def handshakes(self) -> int:
        """How many exchanges are half-open."""
        return self._handshakes.count

    @property
    def sessions(self) -> int:
        """How many sessions there are."""
        return self._sessions.count

    def take(self, address: IAddress) -> Place | None:
        """A place for a new connection, or None when there is none."""
        network = network_of(address)
        cap = self._networks.get(network)
        if cap is None:
            cap = Cap(self._limits.handshakes_per_address, f"half-open exchanges of {network or 'local sockets'}")
        if not (cap.has_room() and self._handshakes.has_room()):
            return None
        self._networks[network] = cap
        cap.take()
        self._handshakes.take()
        return Place(self, network)

    def leave_handshake(self, network: str) -> None:
        """An exchange is over."""
        self._handshakes.give_back()
        cap = self._networks[network]
        cap.give_back()
        if not cap.count:
            del self._networks[network]

    def check_session(self, principal: str) -> None:
        """Whether there is a place for a session of this principal.

        :raises ServiceFull: when there is none.
        """
        if not self._sessions.has_room():
            remedy = "raise max-connections if it can serve more"
            raise ServiceFull(principal, "all sessions of the service are taken", remedy)

    def enter_session(self) -> None:
        """A client has proven itself."""
        self._sessions.take()

    def leave_session(self) -> None:
        """A session is over."""
        self._sessions.give_back()


class Place:
    """One connection's place: first among the exchanges, then among the sessions."""

    __slots__ = ("_give_back", "_places")

    def __init__(self, places: Places, network: str) -> None:
        self._places = places
        self._give_back: Callable[[], None] | None = lambda: places.leave_handshake(network)

    def promote(self) -> None:
        """The exchange has become a session."""
        self.give_back()
        self._places.enter_session()
        self._give_back = self._places.leave_session

    def give_back(self) -> None:
        """The connection is over; further calls do nothing."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


class Lifetime:
    """Ends a session that is idle, or that has lasted as long as it may.

    One timer serves both; a byte that flows only notes the time.

    :param reactor: the clock.
    :param limits: how long.
    :param expires: when the session's ticket ends, seconds since 1970; infinite: never.
    :param announce: is told so many seconds before the session has lasted as long as it may.
    :param end: is told why the session is over.
    """

    __slots__ = ("_announce", "_announced", "_cause", "_end", "_idle", "_over", "_timer", "reactor", "touched")

    def __init__(
        self,
        reactor: IReactorTime,
        limits: Limits,
        expires: float,
        announce: Callable[[float], None],
        end: Callable[[SessionEnded], None],
    ) -> None:
        self.reactor = reactor
        self._idle = limits.idle
        self._announce = announce
        self._end = end
        self._announced = False
        self._cause = "its Kerberos ticket has ended"
        left = max(0.0, expires - time.time())
        if limits.session is not None and limits.session < left:
            left, self._cause = limits.session, f"it has lasted {limits.session:g} s"
        #: When the last byte of an application flowed, on the reactor's clock.
        self.touched: float = reactor.seconds()
        self._over = self.touched + left
        self._timer: IDelayedCall | None = None
        self._wait()

    def _wait(self) -> None:
        now = self.reactor.seconds()
        planned = self._over if self._announced else self._over - NOTICE
        self._timer = self.reactor.callLater(max(0.0, min(planned, self.touched + self._idle) - now), self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = self.reactor.seconds()
        if now >= self._over:
            self._end(SessionEnded("session", self._cause, "connect again"))
            return
        if now >= self.touched + self._idle:
            cause = f"no byte has flowed for {self._idle:g} s"
            self._end(SessionEnded("session", cause, "raise idle-timeout if it should live longer"))
            return
        # Before the announcement, in which the application may end the session.
        announce = not self._announced and now >= self._over - NOTICE
        self._announced = self._announced or announce
        self._wait()
        if announce:
            self._announce(self._over - now)

    def stop(self) -> None:
        """The session is over."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


#: The limits by the names that options and endpoint strings use: attribute, most, and what it is for.
LIMITS: dict[str, tuple[str, float, str]] = {
    "max-handshakes": ("handshakes", 100_000, "Half-open exchanges at once."),
    "max-handshakes-per-address": ("handshakes_per_address", 100_000, "Half-open exchanges of one address at once."),
    "max-connections": ("connections", 1_000_000, "Sessions at once."),
    "idle-timeout": ("idle", 604_800, "Seconds without a byte after which a session ends."),
    "max-session": ("session", 604_800, "Seconds after which a session ends (when its ticket does)."),
}


def limits_of(given: Mapping[str, str], named: str) -> Limits:
    """Limits as options or an endpoint string give them.

    :param given: texts by their names in :data:`LIMITS`; others are left alone.
    :param named: how errors show one, with ``name`` and ``value`` in it.
    :raises UsageError: for what is no number or out of range.
    """
    values: dict[str, Any] = {}
    for name in LIMITS.keys() & given.keys():
        attribute, most, _ = LIMITS[name]
        try:
            value = float(given[name]) if attribute in ("idle", "session") else int(given[name])
        except ValueError:
            value = 0
        if not 0 < value <= most:
            subject = named.format(name=name, value=given[name])
            raise UsageError(subject, "it is out of range", f"give a number above 0, up to {most:g}")
        values[attribute] = value
    return Limits(**values)
