"""Access rules of a running service: their limits, and other rules while sessions are under way."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent

from mutauth_twisted.access import AccessPolicy, Logon, Rule, SessionLimits
from mutauth_twisted.errors import PeerNotAuthenticated, ServiceFull, SessionEnded
from mutauth_twisted.net.limits import NOTICE, Limits
from mutauth_twisted.net.server import _AT_ONCE
from mutauth_twisted.testing.fakes import FakeContext, Recorder, captured_log
from mutauth_twisted.wire import NNS
from tests.unit.net.service_case import ServiceCase

FULL = NNS.fault(71)
OPENING = NNS.protect(FakeContext(initiator=True), b"", True)


def allow(*accounts: str, source: str = "p.toml:1 [[allow]]", **limits: float) -> Rule:
    """An allowance with limits."""
    return Rule("allow", source, accounts, limits=SessionLimits(**limits))  # type: ignore[arg-type]


def lines(events: list[LogEvent], words: str) -> list[str]:
    """The lines with these words."""
    shown = (formatEvent(event) for event in events)
    return [line for line in shown if words in line]


class RulesCase(ServiceCase):
    """A service whose rules change."""

    limits = Limits(handshakes=256, handshakes_per_address=256, connections=1000)

    def use(self, *rules: Rule, **options: Any) -> int:
        """Have other rules decide; how many sessions that ends."""
        result: Deferred[int] = Deferred.fromCoroutine(
            self.factory.use_policy(AccessPolicy(rules=rules, **options))
        )
        ended: list[Any] = []
        result.addBoth(ended.append)
        while not ended:
            self.reactor.advance(0)
        return cast(int, ended[0])

    def come(self, name: str, times: int = 1) -> list[bool]:
        """Have an account connect so many times; whether each has a session."""
        self.principal = name if "@" in name else f"{name}@TEST.EXAMPLE"
        before = len(self.applications.built)
        got = []
        for _ in range(times):
            self.prove(1)
            got.append(len(self.applications.built) > before)
            before = len(self.applications.built)
        return got

    def session(self, which: int = -1) -> Recorder:
        """One application protocol."""
        return self.applications.built[which]

    def leave(self) -> None:
        """All go, and leave nothing behind."""
        while self.open:
            self.lose()
        self.factory.doStop()  # what was counted is logged
        slots = self.factory.slots
        self.assertEqual((slots.handshakes, slots.sessions, slots._shares), (0, 0, {}))
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class LimitTests(RulesCase):
    """Limits of one rule."""

    def test_all_of_a_rule(self) -> None:
        """A rule has so many sessions, of all accounts together; those of another rule are not
        counted, and one that ends makes room.
        """
        self.use(
            allow("a*@*", connections=3),
            allow("b*@*", source="p.toml:9 [[allow]]", connections=1),
            allow=["carol@*"],
        )
        self.assertEqual(self.come("alice", 2), [True, True])
        self.assertEqual(self.come("anne", 1), [True])
        with captured_log() as events:
            self.assertEqual(self.come("alice"), [False])
        self.assertEqual(self.open[-1][1].value(), FULL)
        cause = "p.toml:1 [[allow]] has 3 session(s), as many as it may have; raise max-connections"
        self.assertEqual(len(lines(events, cause)), 1)
        self.assertEqual(self.come("bob", 2), [True, False])
        self.assertEqual(self.come("carol", 3), [True, True, True])
        self.lose()
        self.assertEqual(self.come("anne", 2), [True, False])
        self.leave()

    def test_each_account_of_a_rule(self) -> None:
        """Each account has so many, under whichever of its names."""
        self.use(allow("a*@*", connections=4, per_principal=2))
        self.assertEqual(self.come("alice", 3), [True, True, False])
        self.assertEqual(self.come("ALICE@test.example"), [False])
        with captured_log() as events:
            self.assertEqual(self.come("alice"), [False])
        cause = (
            "its account has 2 session(s), as many as one account may have by p.toml:1 [[allow]]; "
            "raise max-connections-per-principal there"
        )
        self.assertEqual(len(lines(events, cause)), 1)
        self.assertEqual(self.come("anne", 2), [True, True])
        self.assertEqual(self.come("andy"), [False])
        self.leave()

    def test_several_rules(self) -> None:
        """A client that several rules allow keeps the limits of all of them, in either order."""
        wide = allow("*@TEST.EXAMPLE", source="wide", connections=5)
        narrow = allow("alice@*", source="narrow", per_principal=1)
        for rules in ((wide, narrow), (narrow, wide)):
            self.use(*rules, allow=["alice@*"])
            self.assertEqual(self.come("alice", 2), [True, False])
            self.assertEqual(self.come("bob", 5), [True] * 4 + [False])
            self.leave()

    def test_parallel(self) -> None:
        """Of 100 clients that were all allowed while there was room, only so many get in."""
        self.use(allow("*@*", connections=7), allow("a*@*", source="other", per_principal=5))
        self.mutauth = True
        for number in range(100):
            self.principal = f"{'ab'[number % 2]}@TEST.EXAMPLE"
            self.prove(number % 250)
        self.assertEqual((self.factory.slots.handshakes, self.factory.slots.sessions), (100, 0))
        for protocol, _ in self.open:
            protocol.dataReceived(OPENING)
        self.assertEqual((len(self.applications.built), self.factory.slots.sessions), (7, 7))
        errors = [protocol.record.error for protocol, _ in self.open]
        self.assertEqual(sum(isinstance(error, ServiceFull) for error in errors), 93)
        self.leave()

    def test_parallel_of_one(self) -> None:
        """The same with all of one account."""
        self.use(allow("*@*", connections=50, per_principal=5))
        self.mutauth = True
        for number in range(100):
            self.prove(number)
        for protocol, _ in self.open:
            protocol.dataReceived(OPENING)
        self.assertEqual((len(self.applications.built), self.factory.slots.sessions), (5, 5))
        self.leave()

    def test_duration(self) -> None:
        """A session ends after the least of its times."""
        self.use(
            allow("*@*", session=500), allow("alice@*", source="x", session=300), allow=["*@*"]
        )
        self.come("alice")
        self.come("bob")
        self.reactor.advance(299)
        self.assertFalse(self.open[0][1].disconnecting)
        self.reactor.advance(1)
        self.assertTrue(self.open[0][1].disconnecting)
        self.assertFalse(self.open[1][1].disconnecting)
        self.lose()
        self.assertIn("it has lasted 300 s", str(self.applications.built[0].reason))
        self.reactor.advance(200)
        self.assertTrue(self.open[0][1].disconnecting)
        self.leave()


class OwnLimitTests(RulesCase):
    """A service that limits its sessions itself."""

    limits = Limits(session=100, per_principal=2)

    def test_more(self) -> None:
        """A rule cannot give more than the service."""
        self.use(allow("*@*", session=500, per_principal=3, connections=20_000))
        self.assertEqual(self.come("alice", 3), [True, True, False])
        self.reactor.advance(100)
        self.assertTrue(self.open[0][1].disconnecting)
        self.leave()


class WithdrawnTests(RulesCase):
    """Other rules for sessions that are under way."""

    def setUp(self) -> None:
        super().setUp()
        self.use(allow("*@*"))

    def test_forbidden(self) -> None:
        """Sessions that the new rules forbid are ended, with a code, a line and the rule; the
        others go on.
        """
        for name in ("alice", "bob", "carol", "bob"):
            self.come(name)
        self.session(0).transport.write(b"hello")  # type: ignore[union-attr]
        with captured_log() as events:
            self.assertEqual(self.use(allow("*@*"), deny=["bob@*"]), 2)
        self.assertEqual(
            [transport.disconnecting for _, transport in self.open], [False, True, False, True]
        )
        line = (
            "the session with bob@TEST.EXAMPLE is over: [access-withdrawn] session: the access "
            "policy does not allow this principal: denied by --deny bob@*"
        )
        self.assertEqual(len(lines(events, line)), 2, [formatEvent(event) for event in events])
        record = self.open[1][0].record
        self.lose(1)
        reason: Any = self.session(1).reason
        self.assertIsInstance(reason, SessionEnded)
        self.assertEqual((reason.code, record.error), ("access-withdrawn", reason))
        self.assertEqual(record.decision.rule, "--deny bob@*")
        self.assertEqual(self.come("bob"), [False])
        self.assertEqual(self.come("alice"), [True])
        self.assertEqual(self.use(allow("*@*"), deny=["bob@*"]), 0)
        self.leave()

    def test_forbidden_gets_nothing(self) -> None:
        """Bytes that a client sends that is forbidden now are not delivered any more."""
        self.mutauth = True
        self.prove(1)
        protocol = self.open[0][0]
        context = FakeContext(initiator=True)
        protocol.dataReceived(NNS.protect(context, b"", True))
        self.assertEqual(len(self.applications.built), 1)
        self.use(allow("bob@*"))
        protocol.dataReceived(NNS.protect(context, b"delete everything", True))
        self.assertEqual(self.session().received, [])
        self.leave()

    def test_in_mid_handshake(self) -> None:
        """A client that was allowed by the rules before, and whose session begins after they are
        gone, is refused.
        """
        self.mutauth = True
        self.prove(1)
        self.assertEqual(self.use(allow("bob@*")), 0)
        with captured_log() as events:
            self.open[0][0].dataReceived(OPENING)
        self.assertEqual(self.applications.built, [])
        self.assertEqual(len(lines(events, "does not allow this principal")), 1)
        self.leave()

    def test_limits_in_mid_handshake(self) -> None:
        """It has the limits of the new rules."""
        self.mutauth = True
        self.prove(1)
        self.use(allow("*@*", session=50))
        self.open[0][0].dataReceived(OPENING)
        self.assertEqual(len(self.applications.built), 1)
        self.reactor.advance(50)
        self.assertTrue(self.open[0][1].disconnecting)
        self.leave()

    def test_other_duration(self) -> None:
        """A session gets the limit of the new rules, counted from its beginning, and loses that of
        those before.
        """
        self.come("alice")
        self.reactor.advance(100)
        self.use(allow("*@*", session=150))
        self.assertFalse(self.open[0][1].disconnecting)
        self.use(allow("*@*", session=400))
        self.reactor.advance(100)
        self.assertFalse(self.open[0][1].disconnecting)
        self.use(allow("*@*"))
        self.reactor.advance(300)
        self.assertFalse(self.open[0][1].disconnecting)
        self.use(allow("*@*", session=450))
        self.reactor.advance(0)
        self.assertTrue(self.open[0][1].disconnecting)
        self.lose()
        self.assertIn("it has lasted 450 s", str(self.session().reason))
        self.leave()

    def test_announced_again(self) -> None:
        """An end that was announced and put off is announced again before it comes."""
        self.use(allow("*@*", session=100))
        with captured_log() as events:
            self.come("alice")
            self.reactor.advance(100 - NOTICE)
            self.use(allow("*@*", session=400))
            self.assertEqual(len(lines(events, "will end in 60 s")), 1)
            self.reactor.advance(300 - 1)
            self.assertEqual(len(lines(events, "will end in 60 s")), 1)
            self.reactor.advance(1)
            self.assertEqual(len(lines(events, "will end in 60 s")), 2)
        self.leave()

    def test_fewer_sessions(self) -> None:
        """Where a rule has more sessions already than it allows now these stay, and no more
        begin until there is room.
        """
        self.come("alice", 3)
        self.assertEqual(self.use(allow("*@*", connections=2)), 0)
        self.assertEqual(self.come("bob"), [False])
        self.lose(0)
        self.assertEqual(self.come("bob"), [False])
        self.lose(0)
        self.assertEqual(self.come("bob"), [True])
        # The same rule on another line, and then none.
        self.use(allow("*@*", source="p.toml:7 [[allow]]", connections=2))
        self.assertEqual(self.come("bob"), [False])
        self.use(allow("*@*"))
        self.assertEqual(self.come("bob"), [True])
        self.leave()

    def test_unreadable(self) -> None:
        """A client of which nothing can be said any more is ended."""
        self.come("alice")
        record = self.open[0][0].record

        def broken() -> Logon:
            raise PeerNotAuthenticated("10.0.0.1", "its PAC cannot be read", "see its log")

        object.__setattr__(record.identity, "read_logon", broken)
        self.assertEqual(self.use(allow("a*@*")), 1)
        self.lose()
        self.assertIn("its PAC cannot be read", str(self.session().reason))
        self.leave()

    def test_many(self) -> None:
        """Many sessions are decided about in turns, and a policy that comes meanwhile decides about
        the rest of them.
        """
        for number in range(_AT_ONCE + 10):
            self.come(f"u{number}")
        first = Deferred.fromCoroutine(self.factory.use_policy(AccessPolicy(["nobody@*"])))
        self.assertFalse(first.called)
        over = sum(transport.disconnecting for _, transport in self.open)
        self.assertEqual(over, _AT_ONCE)
        second = Deferred.fromCoroutine(self.factory.use_policy(AccessPolicy(["*@*"])))
        while not (first.called and second.called):
            self.reactor.advance(0)
        over = sum(transport.disconnecting for _, transport in self.open)
        self.assertEqual(over, _AT_ONCE)
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (_AT_ONCE, 0))
        self.leave()

    def test_what_is_no_session(self) -> None:
        """Connections that are no sessions are left alone."""
        self.connect(1)
        self.mutauth = True
        self.prove(2)
        self.assertEqual(self.use(allow("bob@*")), 0)
        self.assertEqual([transport.disconnecting for _, transport in self.open], [False, False])
        self.leave()
