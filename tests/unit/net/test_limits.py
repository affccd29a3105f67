"""Limits: what strangers and clients may cost, and for how long."""

from __future__ import annotations

from typing import Any, cast

from attrs import evolve
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mutauth_twisted.access import AccessPolicy, no_logon
from mutauth_twisted.core.channelbinding import ChannelBinding
from mutauth_twisted.core.records import EndOfStream, Records
from mutauth_twisted.errors import (
    AccessDenied,
    PeerNotAuthenticated,
    ServiceFull,
    SessionEnded,
    UsageError,
)
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.interfaces import ISessionEnding
from mutauth_twisted.log import LimitedLog
from mutauth_twisted.net.connectionlog import LINES_OF_ONE
from mutauth_twisted.net.limits import NOTICE, Limits, Slots
from mutauth_twisted.net.server import MutualAuthServerFactory
from mutauth_twisted.net.transport import LINGER, ProtectedTransport
from mutauth_twisted.protection import Protection
from mutauth_twisted.testing.connections import established
from mutauth_twisted.testing.fakes import (
    FakeContext,
    FakeTransport,
    Recorder,
    RecorderFactory,
    ThreadedReactor,
    captured_log,
)
from mutauth_twisted.wire import NNS
from tests.unit.net.service_case import TIMEOUT, TOKEN_1, ServiceCase, address


def lines(events: list[LogEvent], text: str) -> list[str]:
    """The lines of a log with this text."""
    return [line for event in events if (line := formatEvent(event)) and text in line]


@implementer(ISessionEnding)
class Foresighted(Recorder):
    """An application that is told of its end beforehand."""

    def sessionEnding(self, seconds: float) -> None:
        self.events.append(f"{seconds:.0f} s left")


class WithoutPac(FakeContext):
    """A context of a client whose ticket has no PAC."""

    def verify(self, protection: Protection) -> PeerIdentity:
        return evolve(super().verify(protection), read_logon=no_logon)


class ValueTests(SynchronousTestCase):
    """Limits are numbers above nothing."""

    def test_defaults(self) -> None:
        """Every limit that is not given is there."""
        self.assertEqual(Limits(), Limits(256, 32, 10_000, 3600.0, None, 1024, 256, None))

    def test_share_of_one_address(self) -> None:
        """One address gets an eighth of few handshakes and a quarter of few positions, unless it is
        given; never more.
        """
        for handshakes, share in ((1000, 32), (256, 32), (255, 31), (32, 4), (2, 1), (1, 1)):
            self.assertEqual(
                Limits(handshakes=handshakes).handshakes_per_address,
                share,
            )
        for waiting, share in ((5000, 256), (1024, 256), (24, 6), (1, 1)):
            self.assertEqual(Limits(waiting=waiting).waiting_per_address, share)
        self.assertEqual(Limits(handshakes=8, handshakes_per_address=8).handshakes_per_address, 8)

    def test_refused(self) -> None:
        """A limit that bounds nothing is not a limit."""
        for value in (0, -1, float("nan"), float("inf")):
            self.assertRaises(UsageError, Limits, idle=value)


class OwnAccountTests(ServiceCase):
    """A client with the service's own account that opens a session."""

    def test_unreadable_groups(self) -> None:
        """Where nothing can be said about it for sure it is refused as any other, and that is no
        internal error.
        """

        class Unproven(AccessPolicy):
            def decide(self, principal: str, read_logon: Any) -> Any:
                raise PeerNotAuthenticated(principal, "its PAC cannot be read", "see its log")

        self.factory = MutualAuthServerFactory(
            self.reactor,
            cast(Any, self.applications),
            cast(Any, self),
            Unproven(allow=("alice@*",)),
            limits=self.limits,
            own=self.principal,
        )
        with captured_log() as events:
            transport = self.prove(1)
        self.assertEqual(self.factory.own_seen, 1)
        self.assertEqual(self.applications.built, [])
        self.assertTrue(transport.disconnecting)
        self.assertEqual(len(lines(events, "its PAC cannot be read")), 1)
        self.assertEqual([event for event in events if "log_failure" in event], [])
        self.lose()
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class StrangerTests(ServiceCase):
    """Unauthenticated sockets."""

    def reads(self) -> list[bool]:
        """Which of the open connections are read."""
        return [transport.producerState == "producing" for _, transport in self.open]

    def test_half_open(self) -> None:
        """When all slots are taken new sockets wait unread, and one that ends has the first of them
        read.
        """
        for number in range(6):
            self.connect(number)
        self.assertEqual(self.reads(), [True] * 4 + [False] * 2)
        self.assertEqual((self.factory.slots.handshakes, self.factory.slots.waiting), (4, 2))
        self.lose()
        self.assertEqual(self.reads(), [True] * 4 + [False])
        self.lose(4)
        self.assertEqual((self.factory.slots.handshakes, self.factory.slots.waiting), (4, 0))

    def test_a_session_makes_room(self) -> None:
        """A client that is authenticated has left the handshakes, so that the next one is read."""
        for number in range(5):
            self.connect(number)
        self.open[0][0].dataReceived(TOKEN_1)
        self.assertEqual(self.reads(), [True] * 5)
        self.open[4][0].dataReceived(TOKEN_1)
        self.assertEqual(len(self.applications.built), 2)

    def test_one_address(self) -> None:
        """One address gets its share of slots and of waiting; others are neither denied nor held
        up.
        """
        self.assertNotIn(None, [self.connect(1) for _ in range(5)])
        self.assertEqual(self.reads(), [True] * 2 + [False] * 3)
        self.assertIsNone(self.connect(1))
        self.connect(2)
        self.assertEqual(self.reads(), [True] * 2 + [False] * 3 + [True])
        self.lose()
        self.assertEqual(self.reads(), [True] * 2 + [False] * 2 + [True])

    def test_turns(self) -> None:
        """Addresses take turns: who came later than many of one address is not behind all of
        them.
        """
        for number in (1, 1, 2, 2, 3, 3, 3, 4):
            self.connect(number)
        order = []
        waiting = dict(enumerate(self.open[4:], 4))
        for _ in range(4):
            self.lose()
            order += [
                each
                for each, pair in waiting.items()
                if pair[1].producerState == "producing" and each not in order
            ]
        self.assertEqual(order, [4, 7, 5])  # the last of address 3 has to wait for one of its own
        self.lose()
        self.assertEqual(self.reads(), [True] * 3)

    def test_full_queue(self) -> None:
        """In a full queue the address with the most waiting makes room for one with fewer."""
        for number in (1, 1, 2, 2, 3, 3, 3, 4, 4, 4):
            self.connect(number)
        self.assertEqual(self.factory.slots.waiting, 6)
        transport = self.connect(5)
        self.assertIsNotNone(transport)
        self.assertEqual(
            [transport.aborted for _, transport in self.open], [*[False] * 6, True, *[False] * 4]
        )
        self.lose(6)
        self.assertEqual(self.factory.slots.waiting, 6)
        self.connect(6)
        self.assertEqual(self.factory.slots.waiting, 6)
        # Now there are two waiting of two addresses and one each of others: who has one already
        # displaces nobody.
        self.assertIsNone(self.connect(5))

    def test_dropped_before_it_is_connected(self) -> None:
        """One that has lost its slot before its transport is there is closed then."""
        for number in (1, 1, 2, 2, 3, 3):
            self.connect(number)
        late: Any = self.factory.buildProtocol(address(3))
        for number in (4, 4, 4, 5):
            self.connect(number)
        transport = FakeTransport()
        late.makeConnection(transport)
        self.assertTrue(transport.aborted)
        late.connectionLost()
        self.assertEqual(self.factory.slots.waiting, 6)

    def test_what_is_refused_takes_no_slot(self) -> None:
        """Refused sockets leave nothing behind, neither for their address nor for all."""
        for number in range(10):
            self.connect(number)
        for _ in range(50):
            for number in range(10, 60):
                self.assertIsNone(self.connect(number))
        self.assertEqual(len(self.factory.slots._networks), 4)
        while self.open:
            self.lose()
        slots = self.factory.slots
        self.assertEqual(
            (slots.handshakes, slots._networks, slots.waiting, slots._waiting._queues),
            (0, {}, 0, {}),
        )
        self.assertIsNotNone(self.connect(5))

    def test_wrapped(self) -> None:
        """Behind one of Twisted's wrappers a socket too many waits, or is closed at once, as
        well.
        """
        wrapping = WrappingFactory(cast(Any, self.factory))
        for number in range(9):
            self.connect(number)
        for _ in range(2):
            protocol: Any = wrapping.buildProtocol(address(9))
            transport = FakeTransport()
            protocol.makeConnection(transport)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.factory.slots.waiting, 6)

    def test_deadline(self) -> None:
        """At the deadline silent and dripping sockets go, and a client gets in."""
        for number in range(4):
            self.connect(number)
        for _ in range(9):
            self.reactor.advance(TIMEOUT / 10)
            self.open[0][0].dataReceived(
                TOKEN_1[:1] if not self.open[0][0]._connection.pending else b"\x01"
            )
        self.connect(9)
        self.reactor.advance(TIMEOUT / 10)
        self.assertTrue(all(transport.disconnecting for _, transport in self.open[:4]))
        # A stranger that was told to leave has its slot until it is gone.
        self.assertEqual(self.reads()[4], False)
        self.reactor.advance(LINGER)
        self.assertTrue(all(transport.aborted for _, transport in self.open[:4]))
        while len(self.open) > 1:
            self.lose()
        self.assertEqual(self.reads(), [True])
        self.open[0][0].dataReceived(TOKEN_1)
        self.assertEqual(len(self.applications.built), 1)

    def test_deadline_of_who_waits(self) -> None:
        """The deadline runs from the start, whether it is a connection's turn or not."""
        self.reactor.advance(1)
        for number in range(5):
            self.connect(number)
            self.reactor.advance(1)
        _, transport = self.open[4]
        with captured_log() as events:
            self.reactor.advance(TIMEOUT - 1)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(
            len(lines(events, f"no slot for its handshake became free within {TIMEOUT:g} s")), 1
        )
        self.lose(4)
        self.assertEqual(self.factory.slots.waiting, 0)
        # Its turn came late: what is left of its time is all that it has.
        self.connect(5)
        self.reactor.advance(TIMEOUT - 1)
        self.lose(0)
        self.assertEqual(self.reads()[-1], True)
        self.assertFalse(self.open[-1][1].disconnecting)
        self.reactor.advance(1)
        self.assertTrue(self.open[-1][1].disconnecting)


class FewSlotsTests(ServiceCase):
    """A service with few slots, for which nobody said how many one address gets."""

    limits = Limits(handshakes=16, waiting=16)

    def test_one_address_blocks_no_other(self) -> None:
        """However many connections one address opens and keeps, another's is read at once."""
        for _ in range(100):
            self.connect(1)
        self.assertEqual((self.factory.slots.handshakes, self.factory.slots.waiting), (2, 4))
        self.prove(2)
        self.assertEqual(len(self.applications.built), 1)

    def test_warning(self) -> None:
        """A service that gives one address all slots is warned at the start; nobody else is."""
        text = "one address can take all 16 handshake slots and keep every other client out"
        for of_one, warned in ((15, 0), (16, 1), (32, 1)):
            self.limits = Limits(handshakes=16, handshakes_per_address=of_one)
            self.setUp()
            with captured_log() as events:
                self.factory.doStart()
            self.assertEqual(
                len(lines(events, f"max-handshakes-per-address {of_one}: {text}")), warned
            )


class StatusTests(ServiceCase):
    """Status of limits that are reached."""

    limits = Limits(
        handshakes=4, handshakes_per_address=2, connections=3, waiting=20, waiting_per_address=5
    )

    def short_of(self) -> list[str]:
        return [each.subject for each in self.factory.slots.shortages]

    def test_sessions(self) -> None:
        """It is wrong while every session is taken, whether or not somebody was refused, and no
        longer.
        """
        for number in range(3):
            self.assertEqual(self.short_of(), [])
            self.prove(number)
        self.assertEqual(self.short_of(), ["sessions"])
        self.prove(9)
        self.lose()
        self.assertEqual(self.short_of(), [])

    def test_handshakes(self) -> None:
        """It is wrong when so many addresses wait that another's turn may come too late; few that
        flood do not matter.
        """
        for number in (1, 2, 3, 3):
            for _ in range(10):
                self.connect(number)
        self.assertEqual((self.factory.slots.handshakes, self.factory.slots.waiting), (4, 15))
        self.assertEqual(self.short_of(), [])
        self.connect(4)
        self.assertEqual(self.short_of(), ["handshakes"])
        while self.open:
            self.lose()
        self.assertEqual(self.short_of(), [])

    def test_short_queue(self) -> None:
        """So it is when no newcomer may even wait."""
        self.limits = Limits(
            handshakes=4, handshakes_per_address=2, waiting=2, waiting_per_address=2
        )
        self.setUp()
        for number in (1, 1, 2, 2, 3, 3):
            self.connect(number)
        self.assertEqual(self.short_of(), [])
        self.connect(4)  # in the slot of one of the others
        self.assertEqual(self.short_of(), ["handshakes"])
        self.assertIsNone(self.connect(5))


class ShortageTests(ServiceCase):
    """Lines of the log in floods."""

    limits = Limits(handshakes=8, waiting=2)

    def test_few_lines(self) -> None:
        """However many sockets are refused, the log has few lines of them, and a count of the
        others.
        """
        with captured_log() as events:
            for number in range(10):
                self.connect(number)
            for _ in range(1000):
                self.assertIsNone(self.connect(9))
            refused = lines(
                events,
                "as many connections as may are waiting for their handshake; raise max-waiting or",
            )
            self.assertEqual(len(refused), LimitedLog.LINES_OF_ONE)
            self.reactor.advance(LimitedLog.INTERVAL)
        (summary,) = lines(events, "more unauthenticated connections failed")
        self.assertIn(f"{1000 - LimitedLog.LINES_OF_ONE} more", summary)


class NetworkTests(SynchronousTestCase):
    """Which addresses are one."""

    def test_networks(self) -> None:
        """An IPv6 network of 64 bits counts as one address, a mapped IPv4 address as itself, and a
        UNIX socket too.
        """
        for first, second, same in (
            (
                IPv6Address("TCP", "2001:db8::1", 1),
                IPv6Address("TCP", "2001:db8::ffff:0:0:2", 1),
                True,
            ),
            (IPv6Address("TCP", "2001:db8::1", 1), IPv6Address("TCP", "2001:db8:0:1::1", 1), False),
            (IPv6Address("TCP", "fe80::1%eth0", 1), IPv6Address("TCP", "fe80::2%eth0", 1), True),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 1), IPv4Address("TCP", "192.0.2.1", 1), True),
            (
                IPv6Address("TCP", "::ffff:192.0.2.1", 1),
                IPv6Address("TCP", "::ffff:192.0.2.2", 1),
                False,
            ),
            (UNIXAddress(b"/a"), UNIXAddress(None), True),
        ):
            slots = Slots(Limits(handshakes_per_address=1))
            self.assertIsNotNone(slots.take(cast(Any, first)))
            self.assertEqual(cast(Any, slots.take(cast(Any, second))).waits, same, (first, second))


class SessionTests(ServiceCase):
    """Sessions, and those who want one."""

    def test_full(self) -> None:
        """An authenticated client too many is told that there is no room, and gets in when there
        is.
        """
        for number in range(3):
            self.prove(number)
        refused = self.prove(9)
        self.assertEqual(refused.value(), NNS.fault(71))
        self.assertTrue(refused.disconnecting)
        self.assertEqual(len(self.applications.built), 3)
        self.lose()
        self.prove(10)
        self.assertEqual(len(self.applications.built), 4)

    def test_taken_meanwhile(self) -> None:
        """A client that was allowed and finds the last slot taken since is dropped, and leaves
        nothing behind.
        """
        transport = self.connect(1)
        assert transport is not None
        protocol = self.open[0][0]

        def slow(identity: PeerIdentity) -> None:
            for number in range(2, 5):
                self.prove(number)

        protocol._connection._authorize = slow
        protocol.dataReceived(TOKEN_1)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(len(self.applications.built), 3)
        self.assertEqual((self.factory.slots.handshakes, self.factory.slots.sessions), (1, 3))
        while self.open:
            self.lose()
        self.assertEqual((self.factory.slots.handshakes, self.factory.slots.sessions), (0, 0))

    def test_one_client_does_not_fill_the_log(self) -> None:
        """One who comes without end, and breaks the protocol each time, has some lines and a count;
        another has its.
        """
        with captured_log() as events:
            for number in range(1000):
                self.principal = ("alice@TEST.EXAMPLE", "ALICE@TEST.EXAMPLE")[number % 2]
                self.prove(1)
                self.open[0][0].dataReceived(bytes(100))
                self.assertTrue(self.open[0][1].aborted)
                self.lose()
            self.principal = "alice@OTHER.EXAMPLE"
            self.prove(1)
            self.reactor.advance(LimitedLog.INTERVAL)
        self.assertEqual(len(lines(events, "alice@OTHER.EXAMPLE (")), 1)
        self.assertEqual(len(lines(events, "authenticated as")), LINES_OF_ONE + 1)
        self.assertEqual(len(lines(events, "aborted: ")), LINES_OF_ONE)
        for text in ("clients were authenticated", "lines about sessions that this side ended"):
            left = (1000 - LINES_OF_ONE) // 2
            said = f"{2 * left} more {text} in 10 s, of 1 source(s): "
            (line,) = lines(events, said)
            counts = {f"{each}@TEST.EXAMPLE {left}" for each in ("alice", "ALICE")}
            self.assertEqual(set(line[len(said) :].split(", ")), counts)

    def test_many_clients(self) -> None:
        """Each of many clients has its line, whatever one of them does."""
        with captured_log() as events:
            for number in range(500):
                self.principal = f"alice@REALM{number}"
                self.prove(1)
                self.lose()
        self.assertEqual(len(lines(events, "authenticated as")), 500)

    def test_the_unauthenticated_fill_no_session(self) -> None:
        """Unauthenticated sockets, or whom the policy denies, leave all slots of sessions
        free.
        """
        self.principal = "eve@TEST.EXAMPLE"
        for _ in range(20):
            transport = self.prove(1)
            self.assertEqual(transport.value(), NNS.fault(5))
            self.lose()
        self.assertEqual((self.factory.slots.handshakes, self.factory.slots.sessions), (0, 0))

    def test_sessions_take_no_slot_of_handshakes(self) -> None:
        """A client of an address that has authenticated itself does not count against it."""
        for _ in range(3):
            self.prove(1)
        self.assertEqual((self.factory.slots.handshakes, self.factory.slots.sessions), (0, 3))
        self.assertIsNotNone(self.connect(1))
        while self.open:
            self.lose()
        self.assertEqual((self.factory.slots.handshakes, self.factory.slots.sessions), (0, 0))

    def test_without_an_opening(self) -> None:
        """A mutauth client takes a session's slot with its opening, and a handshake's until then;
        there is one for each.
        """
        self.mutauth = True
        opening = NNS.protect(FakeContext(initiator=True), b"", True)
        with captured_log() as events:
            for number in range(4):
                self.prove(number)
            self.assertEqual((self.factory.slots.handshakes, self.factory.slots.sessions), (4, 0))
            self.assertEqual((self.applications.built, lines(events, "authenticated as")), ([], []))
            for protocol, _ in self.open:
                protocol.dataReceived(opening)
        self.assertEqual((self.factory.slots.handshakes, self.factory.slots.sessions), (1, 3))
        self.assertEqual(
            (len(self.applications.built), len(lines(events, "authenticated as"))), (3, 3)
        )
        self.assertEqual(
            len(lines(events, "all sessions of the service are taken; raise max-connections")), 1
        )
        self.assertTrue(self.open[-1][1].disconnecting)

    def test_application_that_fails(self) -> None:
        """A connection that the application does not take releases its slot, once."""

        def fail(recorder: Recorder) -> None:
            raise ZeroDivisionError

        self.applications.prepare = fail
        self.prove(1)
        self.flushLoggedErrors(ZeroDivisionError)
        self.lose()
        self.assertEqual((self.factory.slots.handshakes, self.factory.slots.sessions), (0, 0))

    def test_errors(self) -> None:
        """Being denied and being one too many are told apart in the log."""
        with captured_log() as events:
            for number in range(4):
                self.prove(number)
        self.assertEqual(
            len(lines(events, "all sessions of the service are taken; raise max-connections")), 1
        )
        self.assertNotIsInstance(ServiceFull("a", "b"), AccessDenied)


class PrincipalTests(ServiceCase):
    """Sessions of one account."""

    limits = Limits(handshakes=8, per_principal=2)
    #: Whether the tickets of clients from now on have a PAC.
    has_pac = True

    def acceptor(self, peer: str, security: ChannelBinding | None = None) -> FakeContext:
        context = FakeContext if self.has_pac else WithoutPac
        return context(initiator=False, principal=self.principal)

    def test_one_account(self) -> None:
        """One account gets its share, under whatever case of its name; others are allowed, and a
        session that ends makes
        room for another."""
        for name in ("alice@TEST.EXAMPLE", "Alice@TEST.EXAMPLE"):
            self.principal = name
            self.prove(1)
        with captured_log() as events:
            self.assertEqual(self.prove(2).value(), NNS.fault(71))
        cause = (
            "its account has 2 session(s), as many as one account may have; raise "
            "max-connections-per-principal"
        )
        self.assertEqual(len(lines(events, cause)), 1)
        self.principal = "alice@OTHER.EXAMPLE"
        self.prove(3)
        self.assertEqual(len(self.applications.built), 3)
        self.principal = "alice@TEST.EXAMPLE"
        self.lose()
        self.prove(4)
        self.assertEqual(len(self.applications.built), 4)
        while self.open:
            self.lose()
        self.assertEqual((self.factory.slots.sessions, self.factory.slots._shares), (0, {}))

    def test_name_of_its_choice(self) -> None:
        """A client whose name nothing vouches for, and that therefore has many, gets in under none
        of them; others do.
        """
        self.factory.policy = AccessPolicy(allow_all=True)
        self.has_pac = False
        names = ("bob", "bob ", r"bob\\@LAB", r"bob\\@lab.example", "BOB")
        with captured_log() as events:
            for number, name in enumerate(names):
                self.principal = f"{name}@TEST.EXAMPLE"
                self.assertEqual(self.prove(number).value(), NNS.fault(5))
        self.assertEqual(self.applications.built, [])
        self.assertEqual(len(lines(events, "its ticket has no PAC")), len(names))
        self.has_pac = True
        self.prove(9)
        self.assertEqual(len(self.applications.built), 1)

    def test_a_limit_by_account_comes(self) -> None:
        """A session that is under way without a PAC ends when accounts are limited from now on;
        one with a PAC goes on, and is counted.
        """
        self.factory.policy = AccessPolicy(allow_all=True)
        self.factory.slots.resize(Limits(handshakes=8))
        for self.has_pac in (True, False):
            self.prove(1)
        self.factory.slots.resize(self.limits)
        vouched, other = (protocol for protocol, _ in self.open)
        self.assertEqual([vouched.is_withdrawn(), other.is_withdrawn()], [False, True])
        self.assertIn("its ticket has no PAC", str(other.record.session.reason))
        self.assertEqual(sum(self.factory.slots._shares.values()), 1)
        while self.open:
            self.lose()
        self.assertEqual((self.factory.slots.sessions, self.factory.slots._shares), (0, {}))


class LifetimeCase(SynchronousTestCase):
    """One session of a service."""

    limits = Limits(idle=100.0)
    lifetime = 36_000.0
    application_class: type[Recorder] = Recorder

    def setUp(self) -> None:
        self.reactor = ThreadedReactor()
        self.application = self.application_class()
        applications = cast(Any, RecorderFactory())
        self.patch(applications, "buildProtocol", lambda addr: self.application)
        keys = cast(Any, self)
        self.factory = MutualAuthServerFactory(
            self.reactor, applications, keys, AccessPolicy(allow_all=True), limits=self.limits
        )
        self.protocol: Any = self.factory.buildProtocol(address(1))
        self.network = FakeTransport()
        self.protocol.makeConnection(self.network)
        self.protocol.dataReceived(TOKEN_1)
        self.network.take()
        self.peer = Records(
            FakeContext(initiator=True),
            Protection.SEAL,
            NNS,
            NNS.reader(),
            "service",
            initiator=True,
            mutauth=True,
        )
        self.protocol.dataReceived(self.peer.opening())

    accepts_replays = False
    authenticates_service = True

    def acceptor(self, peer: str, security: ChannelBinding | None = None) -> FakeContext:
        """The context; the service's keys are this test's."""
        return FakeContext(initiator=False, lifetime=self.lifetime, mutauth=True)

    @property
    def transport(self) -> Any:
        """The application's."""
        return self.application.transport

    def assert_over(self, cause: str, last: float = 0.0) -> None:
        """The session was closed, as its peer reads; the application learns why; no timer is
        left.
        """
        self.assertTrue(self.network.disconnecting)
        self.assertFalse(self.network.aborted)
        self.reactor.advance(LINGER)
        self.assertTrue(self.network.aborted)
        self.protocol.connectionLost()
        self.assertIsInstance(self.application.reason, SessionEnded)
        self.assertIn(cause, str(self.application.reason))
        self.assertEqual(self.application.events.count("lost"), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class IdleTests(LifetimeCase):
    """Sessions in which nothing happens."""

    def test_ending_for_ever(self) -> None:
        """A session that is ending already, to a peer that reads nothing, is ended by its limits
        all the same.
        """
        self.application.transport.loseConnection()
        self.protocol.writeConnectionLost()
        self.reactor.advance(LINGER)
        self.assertFalse(self.network.aborted)
        self.reactor.advance(100)
        self.assertTrue(self.network.aborted)

    def test_silence(self) -> None:
        """A session without a byte ends, with an end of stream that its peer can tell from a
        cut.
        """
        self.reactor.advance(99)
        self.assertFalse(self.network.disconnecting)
        self.reactor.advance(1)
        self.peer.feed(self.network.value())
        self.assertEqual(self.peer.next_event(), EndOfStream())
        self.assert_over("no byte has flowed for 100 s")

    def test_bytes(self) -> None:
        """A byte in either direction, delivered or written, is life; an incomplete record is
        none.
        """
        for _ in range(3):
            self.reactor.advance(99)
            self.protocol.dataReceived(b"".join(self.peer.protect(b"x")))
            self.reactor.advance(99)
            self.transport.write(b"y")
            self.assertFalse(self.network.disconnecting)
        self.network.take()
        frame = b"".join(self.peer.protect(b"z"))
        for number in range(10):
            self.reactor.advance(9)
            self.protocol.dataReceived(frame[number : number + 1])
        self.reactor.advance(10)
        self.assert_over("no byte has flowed")

    def test_end(self) -> None:
        """A session that ends by itself leaves no timer."""
        self.transport.loseConnection()
        self.protocol.dataReceived(self.peer.end_of_stream())
        self.protocol.connectionLost()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertNotIsInstance(self.application.reason, SessionEnded)

    def test_stuck_producer(self) -> None:
        """A session whose application waits for a peer that reads nothing ends as well."""

        class Stuck:
            stopped = False

            def stopProducing(self) -> None:
                self.stopped = True

            def pauseProducing(self) -> None:
                """Part of the interface."""

            def resumeProducing(self) -> None:
                """Part of the interface."""

        producer = Stuck()
        self.transport.registerProducer(producer, True)
        self.transport.loseConnection()
        self.reactor.advance(100)
        self.assertTrue(producer.stopped)
        self.assert_over("no byte has flowed")


class TicketTests(LifetimeCase):
    """Sessions end with their ticket."""

    limits = Limits()
    lifetime = 600.0
    application_class = Foresighted

    def test_ticket(self) -> None:
        """The end is announced, in the log and to the application, and then it comes, whatever
        flows.
        """
        with captured_log() as events:
            self.reactor.advance(600 - NOTICE - 2)
            self.assertEqual(lines(events, "will end"), [])
            self.reactor.advance(2)
        self.assertEqual(
            lines(events, "will end"), ["the session with alice@TEST.EXAMPLE will end in 60 s"]
        )
        self.assertEqual(
            [event for event in self.application.events if "left" in event], ["60 s left"]
        )
        for _ in range(6):
            self.protocol.dataReceived(b"".join(self.peer.protect(b"x")))
            self.assertFalse(self.network.disconnecting)
            self.reactor.advance(NOTICE / 6)
        self.assert_over("its Kerberos ticket has ended")

    def test_application_ends_it(self) -> None:
        """An application that closes when it is told leaves nothing behind."""
        self.patch(
            self.application, "sessionEnding", lambda seconds: self.transport.loseConnection()
        )
        self.reactor.advance(600 - NOTICE)
        self.protocol.dataReceived(self.peer.end_of_stream())
        self.protocol.connectionLost()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_application_fails(self) -> None:
        """An application that fails when it is told loses its connection, and nobody else's."""

        def fail(seconds: float) -> None:
            raise ZeroDivisionError

        self.patch(self.application, "sessionEnding", fail)
        self.reactor.advance(600 - NOTICE)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(self.network.aborted)
        self.protocol.connectionLost()
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class ShortTicketTests(LifetimeCase):
    """A ticket that ends before it could be announced in time."""

    lifetime = 10.0
    application_class = Foresighted

    def test_short(self) -> None:
        """It is announced at once."""
        self.reactor.advance(0)
        self.assertEqual(len([event for event in self.application.events if "left" in event]), 1)
        self.reactor.advance(10)
        self.assert_over("its Kerberos ticket has ended")


class LongestTests(LifetimeCase):
    """Sessions end when they have lasted as long as they may."""

    limits = Limits(session=300.0)

    def test_longest(self) -> None:
        """Before the ticket does."""
        self.reactor.advance(299)
        self.assertFalse(self.network.disconnecting)
        self.reactor.advance(1)
        self.assert_over("it has lasted 300 s")


class TcpTests(SynchronousTestCase):
    """Options that only TCP has."""

    def test_without_tcp(self) -> None:
        """On a transport that knows nothing of it, asking changes nothing and says no."""
        _, (connection, event) = established(
            FakeContext(initiator=True), FakeContext(initiator=False)
        )
        transport = ProtectedTransport(Clock(), FakeTransport(), connection, event.identity)
        transport.start(Protocol())
        transport.setTcpKeepAlive(True)
        transport.setTcpNoDelay(True)
        self.assertEqual((transport.getTcpKeepAlive(), transport.getTcpNoDelay()), (False, False))
