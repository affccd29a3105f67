"""Events: one record for each connection, and observers that are told of it."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import AccessDenied, NetworkError, ServiceFull, SessionEnded
from mutauth_twisted.net.events import ConnectionObserver, ConnectionRecord, Observers
from mutauth_twisted.testing.fakes import SECRET, captured_log
from tests.unit.net.service_case import TIMEOUT, ServiceCase


class Listing(ConnectionObserver):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ConnectionRecord]] = []

    def opened(self, record: ConnectionRecord) -> None:
        self.told.append(("opened", record))

    def authenticated(self, record: ConnectionRecord) -> None:
        self.told.append(("authenticated", record))

    def established(self, record: ConnectionRecord) -> None:
        self.told.append(("established", record))

    def refused(self, record: ConnectionRecord) -> None:
        self.told.append(("refused", record))

    def closed(self, record: ConnectionRecord) -> None:
        self.told.append(("closed", record))

    @property
    def names(self) -> list[str]:
        """The names of what was told."""
        return [name for name, _ in self.told]


class Failing(ConnectionObserver):
    """Has a bug in every method."""

    def _fail(self, record: ConnectionRecord) -> None:
        raise ZeroDivisionError(record.id)

    opened = authenticated = established = refused = closed = _fail


class EventTests(ServiceCase):
    """Connections of a service."""

    def setUp(self) -> None:
        super().setUp()
        self.listing = Listing()
        self.factory.observers.add(self.listing)

    def error(self) -> Any:
        """The error of the last record."""
        return self.listing.told[-1][1].error

    def test_session(self) -> None:
        """A session is opened, authenticated, established and closed, on one record, which knows
        the client, the bytes and the end.
        """
        self.prove(1)
        self.assertEqual(self.listing.names, ["opened", "authenticated", "established"])
        (record,) = {record for _, record in self.listing.told}
        assert record.identity is not None
        assert record.session is not None
        self.assertEqual(record.identity.principal, self.principal)
        self.assertEqual(record.session.connection_id, record.id)
        self.assertEqual(self.factory.sessions, (record,))
        record.session.write(b"12345")
        self.assertEqual((record.received, record.sent), (0, 5))
        record.session.loseConnection()
        self.lose()
        self.assertEqual(self.listing.names[3:], ["closed"])
        self.assertIsInstance(record.error, ConnectionDone)
        self.assertEqual(self.factory.sessions, ())

    def test_ids(self) -> None:
        """Each connection has a name of its own, which can stand in a header."""
        for number in range(4):
            self.connect(number)
        names = {record.id for _, record in self.listing.told}
        self.assertEqual(len(names), 4)
        for name in names:
            self.assertRegex(name, r"\A[0-9a-f]{12}-[0-9a-f]+\Z")

    def test_ended_session(self) -> None:
        """A session that is ended from outside is closed with that error."""
        self.prove(1)
        (record,) = self.factory.sessions
        assert record.session is not None
        record.session.end_session(SessionEnded("session", "the policy changed", "ask for access"))
        self.lose()
        self.assertEqual(self.listing.names[-1], "closed")
        self.assertIsInstance(self.error(), SessionEnded)

    def test_denied(self) -> None:
        """A client that the policy denies is refused, and the record knows who it was."""
        self.principal = "bob@TEST.EXAMPLE"
        self.prove(1)
        self.assertEqual(self.listing.names, ["opened", "authenticated", "refused"])
        self.assertIsInstance(self.error(), AccessDenied)
        identity = self.listing.told[-1][1].identity
        assert identity is not None
        self.assertEqual(identity.principal, self.principal)
        self.lose()
        self.assertEqual(len(self.listing.told), 3)

    def test_stranger(self) -> None:
        """A stranger that leaves, or says nothing, is refused once."""
        self.connect(1)
        self.lose()
        self.connect(2)
        self.reactor.advance(TIMEOUT)
        self.lose()
        self.assertEqual(self.listing.names, ["opened", "refused"] * 2)
        self.assertIsInstance(self.error(), NetworkError)
        self.assertIsNone(self.listing.told[-1][1].identity)

    def test_too_many(self) -> None:
        """A connection that gets no slot is refused only; one that loses its own is refused, and
        so is a client for which there is no session.
        """
        for _ in range(5):
            self.connect(1)
        del self.listing.told[:]
        self.assertIsNone(self.connect(1))
        self.assertEqual(self.listing.names, ["refused"])
        self.assertEqual(self.error().code, "connections-waiting")
        while self.open:
            self.lose()
        for number in range(4):
            self.prove(number)
        self.assertEqual(self.listing.names[-1], "refused")
        self.assertIsInstance(self.error(), ServiceFull)

    def test_failed_application(self) -> None:
        """A client whose application cannot be made is refused, and not established."""

        def fail(addr: object) -> None:
            raise ZeroDivisionError

        self.applications.buildProtocol = fail  # type: ignore[method-assign,assignment]
        self.factory = type(self.factory)(
            self.reactor,
            self.applications,
            self.factory._keys,
            self.factory.policy,
            limits=self.limits,
        )
        self.factory.observers.add(self.listing)
        self.prove(1)
        self.lose()
        self.assertEqual(self.listing.names, ["opened", "authenticated", "refused"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_observer_that_refuses(self) -> None:
        """An observer can refuse an authenticated client, and nobody else is asked then."""

        class Strict(ConnectionObserver):
            def authenticated(self, record: ConnectionRecord) -> None:
                raise ServiceFull("audit", "its disk is full", "make room")

        self.factory.observers.add(Strict())
        transport = self.prove(1)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.listing.names, ["opened", "authenticated", "refused"])
        self.assertEqual(self.applications.built, [])

    def test_observer_that_fails(self) -> None:
        """A bug of an observer is logged, and changes nothing for connections and others."""
        self.factory.observers = Observers([Failing(), self.listing])
        with captured_log() as events:
            self.prove(1)
            self.lose()
        self.assertEqual(self.listing.names, ["opened", "authenticated", "established", "closed"])
        failures = [event for event in events if "log_failure" in event]
        self.assertEqual(len(failures), 4)
        self.assertNotIn(SECRET.decode(), repr(failures))
        self.flushLoggedErrors(ZeroDivisionError)


class RecordTests(SynchronousTestCase):
    """Records by themselves."""

    def test_without_session(self) -> None:
        """No session has no bytes."""
        record: Any = ConnectionRecord(None, None, 0.0)  # type: ignore[arg-type]
        self.assertEqual((record.received, record.sent), (0, 0))
