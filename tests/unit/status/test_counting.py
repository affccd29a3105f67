"""Counts of connections: every one once, and nothing that a client could let grow."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from mutauth_twisted.codes import CODES
from mutauth_twisted.errors import AccessDenied, NetworkError, SessionEnded
from mutauth_twisted.net.events import ConnectionRecord
from mutauth_twisted.status.counting import Counting, sessions
from mutauth_twisted.status.metrics import exposition
from mutauth_twisted.status.page import page
from mutauth_twisted.status.snapshot import MOST_REFUSALS, MOST_SESSIONS, Snapshot
from mutauth_twisted.testing.hostile import HOSTILE, raw_in
from tests.unit.net.service_case import TIMEOUT, TOKEN_1, ServiceCase, address


class CountingCase(ServiceCase):
    """A service whose connections are counted."""

    def setUp(self) -> None:
        super().setUp()
        self.now = 1_800_000_000.0
        self.counting = Counting(self.reactor, lambda: self.now)
        self.factory.observers.add(self.counting)

    def values(self) -> dict[str, Any]:
        """The figures."""
        return self.counting.values(self.factory.sessions)

    def snapshot(self) -> Snapshot:
        """Everything that is told of the service."""
        return Snapshot(
            "echoSvc",
            ("127.0.0.1:1",),
            self.values(),
            sessions=sessions(self.factory.sessions),
            refusals=self.counting.refusals(),
            history=self.counting.hour(),
        )


class CountingTests(CountingCase):
    """Events of connections."""

    def test_session(self) -> None:
        """A session counts when it begins, its bytes at once, and its end with its result."""
        self.connect(1)
        self.reactor.advance(0.03)
        self.open[-1][0].dataReceived(TOKEN_1)
        (record,) = self.factory.sessions
        assert record.session is not None
        record.session.write(b"12345")
        values = self.values()
        self.assertEqual(values["connections_total"], 1)
        self.assertEqual(values["handshakes_total"], {"allowed": 1})
        self.assertEqual(values["sent_bytes_total"], 5)
        # 25 ms < 30 ms <= 50 ms
        self.assertEqual(values["handshake_duration_seconds"][3], 1)
        self.assertAlmostEqual(values["handshake_duration_seconds"][-1], 0.03)
        self.assertEqual(values["sessions_ended_total"], {"clean": 0})
        (session,) = sessions(self.factory.sessions)
        self.assertEqual(
            (session.principal, session.peer, session.sent, session.id),
            (self.principal, "192.168.1.1:54321", 5, record.id),
        )
        self.reactor.advance(20)
        record.session.loseConnection()
        self.lose()
        values = self.values()
        self.assertEqual(values["sent_bytes_total"], 5)
        self.assertEqual(values["sessions_ended_total"], {"clean": 1})
        self.assertEqual(values["session_duration_seconds"][2], 1)
        minute = self.counting.hour()[-1]
        self.assertEqual((minute.allowed, minute.refused, minute.sessions), (1, 0, 1))

    def test_ends(self) -> None:
        """A session that was ended has its code; one that broke is the network's."""
        self.prove(1)
        self.prove(2)
        (first, second) = self.factory.sessions
        for each in (first, second):
            assert each.session is not None
        ended = next(one for one, _ in self.open[:1])
        ended.record.session.end_session(SessionEnded("session", "it is over", "connect again"))
        self.lose()
        self.open.pop()[0].connectionLost(Failure(OSError("gone")))
        ends = self.values()["sessions_ended_total"]
        self.assertEqual(ends["session-ended"], 1)
        self.assertEqual(sum(ends.values()), 2)
        self.assertLessEqual(set(ends) - {"clean"}, set(CODES))

    def test_refusals(self) -> None:
        """Refusals count by code, also of connections that were given no slot."""
        self.principal = "bob@TEST.EXAMPLE"
        self.prove(1)
        self.connect(2)
        self.reactor.advance(TIMEOUT)
        for _ in range(20):
            self.connect(9)
        results = self.values()["handshakes_total"]
        self.assertEqual((results["access-denied"], results["handshake-timeout"]), (1, 1))
        self.assertGreater(results["connections-waiting"], 10)
        self.assertEqual(results["allowed"], 0)
        self.assertEqual(self.values()["connections_total"], 22)
        refusals = {each.finding.code: each for each in self.counting.refusals()}
        self.assertEqual(refusals["access-denied"].principal, "bob@TEST.EXAMPLE")
        self.assertEqual(refusals["handshake-timeout"].principal, "")
        self.assertEqual(refusals["handshake-timeout"].peer, "192.168.1.1:54321")
        self.assertEqual(refusals["handshake-timeout"].at, self.now)

    def test_bug(self) -> None:
        """An error that is nobody's on purpose is a code too."""
        record = ConnectionRecord(address(1), None, 0.0, error=ZeroDivisionError("x"))
        self.counting.refused(record)
        self.assertEqual(self.values()["handshakes_total"]["internal-error"], 1)


class FloodTests(CountingCase):
    """Text that strangers and clients may write, and how often."""

    def refuse_often(self, count: int) -> None:
        """Refusals of strangers from many addresses, and of many names."""
        for number in range(count):
            record = ConnectionRecord(address(number % 250), address(0), 0.0)
            self.principal = f"{HOSTILE}<script>{number}</script>@TEST.EXAMPLE"
            cause = f"peer said {HOSTILE} {number} " * 50
            record.error = (
                NetworkError(self.principal, cause, "", code=f"made-up-{number}")
                if number % 2
                else AccessDenied(self.principal, cause)
            )
            self.counting.refused(record)

    def test_labels(self) -> None:
        """No name, address or text of a client becomes a label, and there are no more series than
        codes.
        """
        self.refuse_often(10)
        before = exposition((self.snapshot(),))
        self.refuse_often(3000)
        after = exposition((self.snapshot(),))
        own = [line for line in after.splitlines() if line.startswith("mutauth_")]
        self.assertEqual(
            len(own), len([line for line in before.splitlines() if line.startswith("mutauth_")])
        )
        self.assertLessEqual(set(self.values()["handshakes_total"]), {"allowed", *CODES})
        for text in ("TEST.EXAMPLE", "192.0.2", "made-up", "<script"):
            self.assertNotIn(text, after)

    def test_page(self) -> None:
        """The page stays small, and shows what is hostile escaped."""
        self.refuse_often(3000)
        snapshot = self.snapshot()
        self.assertLessEqual(len(snapshot.refusals), MOST_REFUSALS)
        shown = page((snapshot,), "srv1", self.now)
        self.assertLess(len(shown), 300_000)
        self.assertEqual(raw_in(shown), [])
        self.assertEqual(shown.count("<script>"), 1)

    def test_other_kinds_stay(self) -> None:
        """A flood of one kind hides no refusal of another."""
        denied = ConnectionRecord(address(1), address(0), 0.0)
        denied.error = AccessDenied("bob@TEST.EXAMPLE", "the access policy does not allow it")
        self.counting.refused(denied)
        for _ in range(1000):
            self.now += 1
            record = ConnectionRecord(address(2), address(0), 0.0)
            record.error = NetworkError("192.0.2.2:1", "it closed the connection")
            self.counting.refused(record)
        codes = [each.finding.code for each in self.counting.refusals()]
        self.assertIn("access-denied", codes)
        self.assertLess(len(codes), 20)

    def test_sessions(self) -> None:
        """Thousands of sessions are counted, and the latest of them shown."""
        records = []
        for number in range(3 * MOST_SESSIONS):
            record = ConnectionRecord(address(number % 250), address(0), 0.0)
            record.opened_at = number
            records.append(record)
        shown = sessions(records)
        self.assertEqual(len(shown), MOST_SESSIONS)
        self.assertEqual(shown[0].at, 3 * MOST_SESSIONS - 1)

    def test_clean(self) -> None:
        """An end that both sides wanted is clean."""
        record = ConnectionRecord(address(1), address(0), 0.0, session_began=0.0)
        record.error = ConnectionDone()
        self.counting.closed(record)
        self.assertEqual(self.values()["sessions_ended_total"], {"clean": 1})
