"""The audit trail: what stands in it, and what happens when it cannot be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost

from mutauth_twisted.access import AccessPolicy, Logon
from mutauth_twisted.audit import trail
from mutauth_twisted.audit.sinks import LONGEST
from mutauth_twisted.audit.trail import STRANGERS_OF_ONE, AuditTrail, _end
from mutauth_twisted.errors import SessionEnded
from mutauth_twisted.net.events import ConnectionRecord
from mutauth_twisted.testing.fakes import SECRET
from tests.unit.net.service_case import ServiceCase

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "audit.schema.json").read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


class MemorySink:
    """Keeps lines, unless it is full."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.full = False

    def write(self, line: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.lines.append(line)

    def close(self) -> None:
        """There is nothing to close."""

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events, each of which the schema allows."""
        found = [json.loads(line) for line in self.lines]
        for each in found:
            VALIDATOR.validate(each)
        return found

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [each["event"] for each in self.events]


class TrailCase(ServiceCase):
    """A service with an audit trail."""

    required = False

    def setUp(self) -> None:
        super().setUp()
        self.sink = MemorySink()
        self.trail = AuditTrail(
            self.reactor, self.sink, "shop", "/var/log/shop", required=self.required
        )
        self.factory.observers.add(self.trail)


class EventTests(TrailCase):
    """Each event."""

    def test_session(self) -> None:
        """A session is told from its connection to its end."""
        self.prove(1)
        (record,) = self.factory.sessions
        assert record.session is not None
        record.session.write(b"12345")
        self.reactor.advance(2.5)
        record.session.loseConnection()
        self.lose()
        self.assertEqual(self.sink.names, ["opened", "authenticated", "allowed", "closed"])
        _, authenticated, _, closed = self.sink.events
        for event in self.sink.events:
            self.assertEqual((event["connection"], event["service"]), (record.id, "shop"))
        self.assertEqual(authenticated["principal"], self.principal)
        self.assertEqual(
            {name: closed[name] for name in ("received", "sent", "seconds", "code")},
            {"received": 0, "sent": 5, "seconds": 2.5, "code": "closed"},
        )

    def test_refused(self) -> None:
        """A client that is denied is told with its name and the code, and a stranger with the
        code.
        """
        self.principal = "bob@TEST.EXAMPLE"
        self.prove(1)
        self.lose()
        self.connect(2)
        self.lose()
        self.assertEqual(
            self.sink.names, ["opened", "authenticated", "refused", "opened", "refused"]
        )
        self.assertEqual(self.sink.events[2]["code"], "access-denied")
        self.assertEqual(self.sink.events[4]["code"], "handshake-cut")

    def test_rules(self) -> None:
        """The rule that decides is told; a client that is allowed and finds no room is denied by
        none.
        """
        self.factory.policy = AccessPolicy(["*@*"], ["bob@*"])
        for name in ("bob", "alice", "alice", "alice", "alice"):
            self.principal = f"{name}@TEST.EXAMPLE"
            self.prove(1)
        told = {
            event["event"]: (event.get("code"), event.get("rule"))
            for event in self.sink.events
            if event["event"] in ("allowed", "refused") and event.get("code") != "service-full"
        }
        self.assertEqual(
            told,
            {"refused": ("access-denied", "--deny bob@*"), "allowed": (None, "--allow *@*")},
        )
        full = [event for event in self.sink.events if event.get("code") == "service-full"]
        self.assertEqual([event.get("rule") for event in full], [None])

    def test_no_slot(self) -> None:
        """A connection that got no slot is one line, which has the address."""
        for _ in range(6):
            self.connect(1)
        event = self.sink.events[-1]
        self.assertEqual((event["event"], event["code"]), ("refused", "connections-waiting"))
        self.assertEqual(event["client"], {"address": "192.0.2.1", "port": 1024})

    def test_ends(self) -> None:
        """Each end has a code."""
        ends = {
            "closed": ConnectionDone(),
            "aborted": ConnectionAborted(),
            "connection-lost": ConnectionLost(),
            "application-failed": ZeroDivisionError("secret"),
            "session-ended": SessionEnded("session", "idle"),
        }
        for code, error in ends.items():
            self.assertEqual(_end(error)["code"], code)
            self.assertNotIn("secret", json.dumps(_end(error)))

    def test_no_secrets(self) -> None:
        """No token is in any line."""
        self.prove(1)
        self.lose()
        self.assertNotIn(SECRET, b"".join(self.sink.lines))

    @given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
    def test_hostile_names(self, principal: str, account: str, spn: str) -> None:
        """With any names, a line is one line, not too long, and valid; what the client
        claims is marked.
        """
        self.setUp()
        self.prove(1)
        (record,) = self.factory.sessions
        assert record.identity is not None
        logon = Logon(account, account, sid="S-1-5-21-1-2-3-4")
        record.identity = evolve(
            record.identity, principal=principal, claimed_spn=spn, read_logon=lambda: logon
        )
        del self.sink.lines[:]
        self.trail.authenticated(record)
        (line,) = self.sink.lines
        self.assertEqual(len(line.decode().splitlines()), 1)
        self.assertLessEqual(len(line), LONGEST)
        (event,) = self.sink.events
        self.assertEqual("spn" in event.get("unverified", {}), bool(spn))


class FloodTests(TrailCase):
    """Strangers without end."""

    def test_strangers_are_counted(self) -> None:
        """Those of one network are written so often, counted then, and hide no client."""
        for _ in range(STRANGERS_OF_ONE + 50):
            self.connect(1)
            self.lose()
        self.assertEqual(self.sink.names.count("opened"), STRANGERS_OF_ONE)
        self.assertEqual(self.sink.names.count("refused"), STRANGERS_OF_ONE)
        del self.sink.lines[:]
        self.prove(1)
        self.lose()
        self.assertEqual(self.sink.names, ["opened", "authenticated", "allowed", "closed"])
        self.reactor.advance(10)
        omitted = self.sink.events[-1]
        self.assertEqual((omitted["event"], omitted["count"]), ("omitted", 51))
        self.assertEqual(self.trail._untold, set())


class FailingTests(TrailCase):
    """A trail that cannot be written, and need not be."""

    def test_survived(self) -> None:
        """Clients are served, the fault stands in the status, and what was lost is told
        afterwards.
        """
        self.sink.full = True
        self.prove(1)
        fault = self.trail.fault
        assert fault is not None
        self.assertIn("3 event(s) lost", str(fault))
        self.assertEqual(fault.code, "audit-failing")
        self.assertEqual(len(self.factory.sessions), 1)
        self.sink.full = False
        self.lose()
        self.assertEqual(self.sink.names, ["lost", "closed"])
        self.assertEqual(self.sink.events[0]["count"], 3)
        self.assertIsNone(self.trail.fault)
        self.assertEqual(self.trail.lost, 3)


class RequiredTests(TrailCase):
    """A trail without which nobody is served."""

    required = True

    def test_what_cannot_be_written(self) -> None:
        """An event that has no line is a lost event, whatever the reason is."""
        for principal in ("\ud800@TEST.EXAMPLE", "alice@" + "T" * 6000):
            self.patch(trail, "short_name", lambda name: name)
            self.principal = principal
            transport = self.prove(1)
            self.assertTrue(transport.disconnecting)
            self.lose()
            self.assertEqual(self.factory.sessions, ())
        self.assertNotIn("allowed", self.sink.names)

    def test_refuses(self) -> None:
        """Meanwhile no session begins, older ones go on, and later clients are served again."""
        self.prove(1)
        self.sink.full = True
        transport = self.prove(2)
        self.assertTrue(transport.disconnecting)
        self.lose(1)
        self.assertEqual(len(self.factory.sessions), 1)
        self.assertIn("new clients are refused", str(self.trail.fault))
        self.sink.full = False
        self.prove(3)
        self.assertEqual(len(self.factory.sessions), 2)

    def test_fails_in_between(self) -> None:
        """A session whose beginning cannot be written is ended at once."""
        ended: list[ConnectionRecord] = []
        self.factory.observers.add(
            type("Last", (type(self.trail).__mro__[1],), {"closed": lambda _, r: ended.append(r)})()
        )
        write = self.sink.write
        self.sink.write = (  # type: ignore[method-assign]
            lambda line: write(line) if b'"allowed"' not in line else self._full()
        )
        self.prove(1)
        self.lose()
        (record,) = ended
        error: Any = record.error
        self.assertEqual(error.code, "audit-failing")

    def _full(self) -> None:
        raise OSError(28, "No space left on device")
