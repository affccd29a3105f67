"""Snapshots: through JSON without a loss, and put together."""

from __future__ import annotations

import json

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.status.history import Minute
from mutauth_twisted.status.snapshot import MOST_SESSIONS, Snapshot, merge
from tests.unit.status.sample import FULL


class SnapshotTests(SynchronousTestCase):
    """Values."""

    def test_json(self) -> None:
        """Nothing is lost, commands among text neither."""
        again = Snapshot.from_json(json.loads(json.dumps(FULL.as_json())))
        self.assertEqual(again, FULL)
        self.assertEqual(
            Snapshot.from_json(json.loads(json.dumps(Snapshot("x").as_json()))), Snapshot("x")
        )

    def test_not_ours(self) -> None:
        """Bytes that are no snapshot are an error, not a half one."""
        good = FULL.as_json()
        for spoilt in (
            {},
            {**good, "wrong": [{}]},
            {**good, "sessions": [{"id": "x"}]},
            {**good, "history": [[1, 2, 3, 4]]},
            {**good, "facts": ["x"]},
        ):
            with self.assertRaises((TypeError, ValueError, KeyError, AttributeError)):
                Snapshot.from_json(spoilt)

    def test_ready(self) -> None:
        """It listens, nothing is wrong, and it does not stop."""
        good = evolve(FULL, wrong=())
        self.assertTrue(good.ready)
        for other in (FULL, evolve(good, serving=()), evolve(good, stopping=True)):
            self.assertFalse(other.ready)

    def test_merge(self) -> None:
        """Counts add up, times and states take the one that matters, faults are all there once."""
        other = evolve(
            FULL,
            serving=("127.0.0.1:9000", "127.0.0.1:9001"),
            values={
                **FULL.values,
                "handshakes_total": {"allowed": 1, "peer-refused": 1},
                "keytab_kvno": 3,
                "published": 1,
                "directory_check_timestamp_seconds": 900.0,
                "received_bytes_total": 7,
            },
            sessions=tuple(
                evolve(FULL.sessions[0], id=f"b-{at}", at=float(at)) for at in range(MOST_SESSIONS)
            ),
        )
        (both,) = merge([FULL, other])
        self.assertEqual(both.serving, ("127.0.0.1:9000", "127.0.0.1:9001"))
        self.assertEqual(
            (both.wrong, both.warnings, both.facts), (FULL.wrong, FULL.warnings, FULL.facts)
        )
        expected = {
            **{"sessions": 4, "sessions_limit": 10, "keytab_kvno": 3, "published": 1},
            "handshakes_total": {"allowed": 4, "access-denied": 1, "peer-refused": 1},
            **{"directory_check_timestamp_seconds": 1000.5, "received_bytes_total": 7},
        }
        self.assertEqual({name: both.values[name] for name in expected}, expected)
        self.assertEqual(both.history, (Minute(1, 4, 6, 8),))
        self.assertEqual((len(both.sessions), both.sessions[0].at), (MOST_SESSIONS, 199.0))
        self.assertFalse(both.ready)

    def test_merge_services(self) -> None:
        """Different services stay apart, in order."""
        found = merge([FULL, evolve(FULL, service="other"), FULL])
        self.assertEqual([each.service for each in found], ["echoSvc", "other"])
        self.assertEqual([each.number("sessions") for each in found], [4, 2])

    def test_idle(self) -> None:
        """Of a process that takes no connections the limits do not count."""
        values = {"handshakes_limit": 256, "sessions_limit": 10}
        worker = evolve(FULL, values={**FULL.values, **values})
        (both,) = merge([worker.idle, worker, worker])
        self.assertEqual(
            (both.number("handshakes_limit"), both.number("sessions_limit")), (512, 10)
        )

    def test_remains(self) -> None:
        """Of a process that has ended the counters stay, and nothing that it was or had."""
        left = FULL.remains
        self.assertEqual(set(left.values), {"handshakes_total", "handshake_duration_seconds"})
        self.assertEqual((left.sessions, left.wrong, left.serving), ((), (), ()))
        (both,) = merge([evolve(FULL, wrong=()), left])
        self.assertTrue(both.ready)
        self.assertEqual(both.number("sessions"), 2)
