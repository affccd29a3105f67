"""Limits on the resources that a service spends on its peers: how many, for how long.

A socket that is not authenticated takes a slot among the handshakes, of which
there are few for one address; while there is none it waits, unread, for its
turn.  An authenticated session takes a slot among the sessions, which
unauthenticated peers can therefore not fill.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

from attrs import Factory, field, frozen
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from mutauth_twisted.access.decision import Grant
from mutauth_twisted.errors import AccessDenied, ServiceFull, SessionEnded, UsageError
from mutauth_twisted.findings import Finding
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.log import Log
from mutauth_twisted.net.waiting import WaitingQueue
from mutauth_twisted.text import short_name

if TYPE_CHECKING:
    from mutauth_twisted.net.tally import Tally  # needs fcntl, which Windows' clients have not

#: How long before its end a session is told of it, in seconds.
NOTICE = 60.0


def _positive(instance: object, attribute: Any, value: float | None) -> None:
    if value is not None and not 0 < value < float("inf"):
        raise UsageError(
            f"limit {attribute.name}", f"{value} is out of range", "give a number above 0"
        )


@frozen
class Limits:
    """The limits of a service; every one is a bound.

    :param handshakes: handshakes at once, over all addresses.
    :param handshakes_per_address: handshakes of one IPv4 address or
        one IPv6 network of 64 bits; by default 32, and no more than an eighth
        of all, so that one address cannot take every slot.
    :param connections: authenticated sessions at once.
    :param idle: seconds without a byte of either application after which a session ends.
    :param session: seconds after which a session ends; at the latest, and
        with None only then, it ends with its ticket.
    :param per_principal: sessions of one account at once; None: as many as there may be.
    :param waiting: connections at once that wait for their handshake, over all addresses.
    :param waiting_per_address: connections of one IPv4 address or IPv6 network
        that wait; by default 256, and no more than a quarter of all.
    :raises UsageError: for a limit that is not above 0.
    """

    handshakes: int = field(default=256, validator=_positive)
    handshakes_per_address: int = field(
        default=Factory(lambda self: min(32, max(1, self.handshakes // 8)), takes_self=True),
        validator=_positive,
    )
    connections: int = field(default=10_000, validator=_positive)
    idle: float = field(default=3600.0, validator=_positive)
    session: float | None = field(default=None, validator=_positive)
    waiting: int = field(default=1024, validator=_positive)
    waiting_per_address: int = field(
        default=Factory(lambda self: min(256, max(1, self.waiting // 4)), takes_self=True),
        validator=_positive,
    )
    per_principal: int | None = field(default=None, validator=_positive)


class Cap:
    """Counts what there may be so many of, and says once for each time of shortage that there was
    one.

    :param limit: how many there may be.
    :param what: what is counted, as the log names it.
    """

    _log = Log()

    def __init__(self, limit: int, what: str) -> None:
        self._what = what
        self._refused = 0
        self.count = 0
        self.resize(limit)

    def resize(self, limit: int) -> None:
        """Have another limit; who is there already stays."""
        self._limit = limit
        # A shortage is over only when a quarter is free again: at the edge it would be a line for
        # each socket.
        self._relaxed = limit - (limit + 3) // 4

    def has_room(self) -> bool:
        """Tell whether there may be one more; if not, that counts as a refusal."""
        if self.count < self._limit:
            return True
        if not self._refused:
            self._log.warn(
                "{what}: limit of {limit} reached, refusing more",
                what=self._what,
                limit=self._limit,
            )
        self._refused += 1
        return False

    def take(self) -> None:
        """There is one more."""
        self.count += 1

    def release(self) -> None:
        """There is one less."""
        self.count -= 1
        if self._refused and self.count <= self._relaxed:
            self._log.info(
                "{what}: there is room again; {refused} were refused",
                what=self._what,
                refused=self._refused,
            )
            self._refused = 0


def network_of(address: IAddress) -> str:
    """Network whose slots a connection takes: who has one IPv6 address has many."""
    host = str(getattr(address, "host", ""))
    if ":" not in host:
        return host
    try:
        parsed = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))


class Slots:
    """The slots of one service, over all its ports.

    :param limits: how many there are of each kind.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sessions = Cap(limits.connections, "sessions")
        self._networks: dict[str, int] = {}
        self._shares: Counter[Share] = Counter()
        self._waiting: WaitingQueue[Slot] = WaitingQueue(limits.waiting, limits.waiting_per_address)
        #: Counts sessions together with other processes; None: there are none.
        self.tally: Tally | None = None
        #: How many handshakes are under way.
        self.handshakes = 0

    @property
    def waiting(self) -> int:
        """Number of connections that wait for their handshake."""
        return self._waiting.count

    @property
    def sessions(self) -> int:
        """Number of sessions."""
        return self._sessions.count

    @property
    def figures(self) -> dict[str, float]:
        """Number of slots that are taken and that there may be of each kind, by the names of
        metrics.
        """
        limits = self._limits
        return {
            "sessions": self.sessions,
            "sessions_limit": limits.connections,
            "handshakes_in_progress": self.handshakes,
            "handshakes_limit": limits.handshakes,
            "connections_waiting": self.waiting,
            "connections_waiting_limit": limits.waiting,
        }

    @property
    def shortages(self) -> tuple[Finding, ...]:
        """Limits that keep new clients of any address from being served for now; none if they are
        served.
        """
        limits, found = self._limits, []
        if self.sessions >= limits.connections:
            cause = f"all {limits.connections} are taken, and new clients are refused"
            remedy = "raise max-connections if it can serve more"
            found.append(Finding("service-full", "sessions", cause, remedy))
        # With so many addresses to have their turns first, slots that are kept to the deadline are
        # too few for one more.
        if self.handshakes >= limits.handshakes and self._waiting.sources >= min(
            limits.handshakes, limits.waiting
        ):
            cause = (
                f"all {limits.handshakes} slots are taken, {self.waiting} connections of "
                f"{self._waiting.sources} addresses wait for one, and new clients may wait in vain"
            )
            remedy = "raise max-handshakes if it can serve more"
            found.append(Finding("connections-waiting", "handshakes", cause, remedy))
        return tuple(found)

    def resize(self, limits: Limits) -> None:
        """Have other limits; who is there already, or waits, stays."""
        self._limits = limits
        self._sessions.resize(limits.connections)
        self._waiting.resize(limits.waiting, limits.waiting_per_address)
        self._call_next()

    def take(self, address: IAddress) -> Slot | None:
        """Take a slot for a new connection: among the handshakes, or among those that wait for
        one.

        :return: None when there is neither.
        """
        network = network_of(address)
        slot = Slot(self, network)
        if self._has_slot(network):
            self._enter_handshake(slot)
            return slot
        loser = self._waiting.add(network, slot)
        if loser is slot:
            return None
        if loser is not None:
            loser.drop()
        return slot

    def _has_slot(self, network: str) -> bool:
        limits = self._limits
        own = self._networks.get(network, 0)
        return self.handshakes < limits.handshakes and own < limits.handshakes_per_address

    def _enter_handshake(self, slot: Slot) -> None:
        self.handshakes += 1
        self._networks[slot.network] = self._networks.get(slot.network, 0) + 1
        slot.enter_handshake()

    def leave_handshake(self, network: str) -> None:
        """A handshake is over: who waits has a turn."""
        self.handshakes -= 1
        self._networks[network] -= 1
        if not self._networks[network]:
            del self._networks[network]
        self._call_next()

    def _call_next(self) -> None:
        while (slot := self._waiting.next(self._has_slot)) is not None:
            self._enter_handshake(slot)

    def leave_queue(self, slot: Slot) -> None:
        """A connection waits no more."""
        self._waiting.discard(slot.network, slot)

    def shares_of(self, identity: PeerIdentity, grants: Iterable[Grant] = ()) -> tuple[Share, ...]:
        """Shares that a client's session takes of limits other than that of all sessions.

        :param grants: the access rules with limits that allow it.
        :raises AccessDenied: where accounts have limits, and nothing tells which one it is.
        :raises PeerNotAuthenticated: when its PAC cannot be read.
        """
        shares: list[Share] = []
        for rule, connections, per_principal in (
            ("", None, self._limits.per_principal),
            *((each.rule, each.limits.connections, each.limits.per_principal) for each in grants),
        ):
            if connections is not None:
                shares.append(Share(rule, "", connections))
            # Else the account does not matter, and reading it takes time.
            if per_principal is not None:
                shares.append(Share(rule, _account(identity), per_principal))
        return tuple(shares)

    def check_session(self, identity: PeerIdentity, shares: Iterable[Share] = ()) -> None:
        """Check that there is a slot for a session of this client.

        :param shares: what it takes besides.
        :raises ServiceFull: when there is none.
        """
        principal = short_name(identity.principal)
        for share in shares:
            if self._shares[share] >= share.most:
                raise ServiceFull(principal, share.cause, share.remedy)
        if not self._sessions.has_room():
            remedy = "raise max-connections if it can serve more"
            raise ServiceFull(principal, "all sessions of the service are taken", remedy)

    def enter_session(self, identity: PeerIdentity, shares: tuple[Share, ...]) -> None:
        """A client is authenticated and authorized, and its session begins.

        :raises ServiceFull: when other processes have what there was.
        """
        if self.tally is not None:
            self._take_together(self.tally, identity, (self._all, *shares))
        self._sessions.take()
        self._shares.update(shares)

    def _take_together(
        self, tally: Tally, identity: PeerIdentity, shares: tuple[Share, ...]
    ) -> None:
        for number, share in enumerate(shares):
            if not tally.take(share.key, share.most):
                for taken in shares[:number]:
                    tally.release(taken.key)
                raise ServiceFull(short_name(identity.principal), share.cause, share.remedy)

    @property
    def _all(self) -> Share:
        """The share of all sessions of the service."""
        return Share("", "", self._limits.connections)

    def leave_session(self, shares: tuple[Share, ...]) -> None:
        """A session is over."""
        self._sessions.release()
        if self.tally is not None:
            self.tally.release(self._all.key)
        self.release_shares(shares)

    def take_shares(self, shares: tuple[Share, ...]) -> None:
        """A session has these shares from now on."""
        self._shares.update(shares)
        if self.tally is not None:
            for share in shares:
                self.tally.take(share.key, share.most)

    def release_shares(self, shares: tuple[Share, ...]) -> None:
        """A session has these shares no more."""
        self._shares.subtract(shares)
        for share in shares:
            if self.tally is not None:
                self.tally.release(share.key)
            if not self._shares[share]:
                del self._shares[share]


def _account(identity: PeerIdentity) -> str:
    """Account whose session it is: a client may come under several names of one account.

    :raises AccessDenied: when nothing tells it: the name on a ticket without a PAC is of the
        client's choice, which could have it counted as many accounts.
    """
    logon = identity.read_logon()
    if logon is None or not logon.name:
        raise AccessDenied(
            short_name(identity.principal),
            "its ticket has no PAC, which tells whose it is, and sessions are limited by account",
            "have the client ask for a ticket with one, or do without "
            "max-connections-per-principal",
        )
    return logon.sid or f"{logon.account}@{identity.realm}".casefold()


@frozen
class Share:
    """Share that a session takes of a limit; sessions with equal ones are counted together.

    :param rule: the access rule whose limit it is; empty: the service's own.
    :param account: the account whose limit it is; empty: that of all accounts together.
    :param most: how many sessions may have it at once.
    """

    rule: str
    account: str
    most: int = field(eq=False)

    @property
    def key(self) -> str:
        """Name of what is counted."""
        return f"{self.rule}\0{self.account}"

    @property
    def cause(self) -> str:
        """Reason why there is none left."""
        if not self.rule and not self.account:
            return "all sessions of the service are taken"
        whose = f"{self.rule} has" if not self.account else "its account has"
        by_rule = f" by {self.rule}" if self.account and self.rule else ""
        of_one = " one account" if self.account else ""
        return f"{whose} {self.most} session(s), as many as{of_one or ' it'} may have{by_rule}"

    @property
    def remedy(self) -> str:
        """The option that would allow more."""
        option = "max-connections-per-principal" if self.account else "max-connections"
        return f"raise {option}{' there' if self.rule else ''} if it should have more"


class Slot:
    """One connection's slot: among those who wait, then among the handshakes, then among the
    sessions.

    :param network: whose it is.
    """

    __slots__ = ("_dropped", "_held", "_leave", "_shares", "_slots", "network")

    def __init__(self, slots: Slots, network: str) -> None:
        self.network = network
        self._slots = slots
        self._shares: tuple[Share, ...] = ()
        #: The transport of a connection that waits.
        self._held: Any = None
        self._dropped: Callable[[], None] | None = None
        #: None when it has no slot any more.
        self._leave: Callable[[], None] | None = self._leave_queue

    def _leave_queue(self) -> None:
        self._slots.leave_queue(self)

    def _leave_handshake(self) -> None:
        self._slots.leave_handshake(self.network)

    def _leave_session(self) -> None:
        self._slots.leave_session(self._shares)

    @property
    def waits(self) -> bool:
        """True until it is its turn."""
        return self._leave == self._leave_queue

    def hold(self, transport: Any, dropped: Callable[[], None]) -> None:
        """Read nothing of the connection until it is its turn.

        :param transport: provides IPushProducer.
        :param dropped: is called when it has to make room for another.
        """
        if self._leave is None:
            dropped()
        elif self.waits:
            self._held, self._dropped = transport, dropped
            transport.pauseProducing()

    def enter_handshake(self) -> None:
        """It is its turn."""
        self._leave = self._leave_handshake
        if (held := self._unhold()[0]) is not None:
            held.resumeProducing()

    def drop(self) -> None:
        """It has to make room for another that waits."""
        self._leave = None
        if (dropped := self._unhold()[1]) is not None:
            dropped()

    def _unhold(self) -> tuple[Any, Callable[[], None] | None]:
        released = self._held, self._dropped
        self._held = self._dropped = None
        return released

    def promote(self, identity: PeerIdentity, grants: Iterable[Grant] = ()) -> None:
        """The handshake has become a session.

        :param grants: the access rules with limits that allow it.
        :raises ServiceFull: when others have taken the last slot since
            :meth:`Slots.check_session`.
        :raises AccessDenied: see :meth:`Slots.shares_of`.
        """
        shares = self._slots.shares_of(identity, grants)
        self._slots.check_session(identity, shares)
        self.release()
        self._shares = shares
        self._slots.enter_session(identity, shares)
        self._leave = self._leave_session

    def regrant(self, identity: PeerIdentity, grants: Iterable[Grant]) -> None:
        """Other access rules allow a session: count it among theirs, even where these have as many
        as they may.

        :raises AccessDenied: see :meth:`Slots.shares_of`.
        """
        if self._leave == self._leave_session:
            shares = self._slots.shares_of(identity, grants)
            self._slots.release_shares(self._shares)
            self._shares = shares
            self._slots.take_shares(shares)

    def release(self) -> None:
        """The connection is over; further calls do nothing."""
        release, self._leave = self._leave, None
        self._unhold()
        if release is not None:
            release()


class Lifetime:
    """Ends a session that is idle, or that has lasted as long as it may.

    One timer serves both; a byte that flows only notes the time.

    :param reactor: the clock.
    :param limits: how long.
    :param most: a further limit of the whole session, in seconds; None: there is none.
    :param expires: when the session's ticket ends, seconds since 1970; infinite: never.
    :param announce: is told so many seconds before the session has lasted as long as it may.
    :param end: is told why the session is over.
    """

    __slots__ = (
        "_announce",
        "_announced",
        "_began",
        "_cause",
        "_end",
        "_idle",
        "_over",
        "_session",
        "_ticket_over",
        "_timer",
        "reactor",
        "touched",
    )

    def __init__(
        self,
        reactor: IReactorTime,
        limits: Limits,
        expires: float,
        announce: Callable[[float], None],
        end: Callable[[SessionEnded], None],
        most: float | None = None,
    ) -> None:
        self.reactor = reactor
        self._idle = limits.idle
        self._announce = announce
        self._end = end
        self._announced = False
        self._session = limits.session
        #: When the last byte of an application flowed, on the reactor's clock.
        self.touched: float = reactor.seconds()
        self._began = self.touched
        self._ticket_over = self._began + max(0.0, expires - time.time())
        self._timer: IDelayedCall | None = None
        self.limit(most)

    def limit(self, most: float | None) -> None:
        """Have the session last no longer than the service allows, than its ticket, and than this.

        :param most: seconds since its beginning; None: there is no such limit.
        """
        self._over, self._cause = self._ticket_over, "its Kerberos ticket has ended"
        for seconds in (self._session, most):
            if seconds is not None and self._began + seconds < self._over:
                self._over, self._cause = self._began + seconds, f"it has lasted {seconds:g} s"
        if self._over - NOTICE > self.reactor.seconds():
            self._announced = False
        self.stop()
        self._wait()

    def _wait(self) -> None:
        now = self.reactor.seconds()
        planned = self._over if self._announced else self._over - NOTICE
        self._timer = self.reactor.callLater(
            max(0.0, min(planned, self.touched + self._idle) - now), self._wake
        )

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
