"""The status pages: what they say, and with which code."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from mutauth_twisted.service.status import Status, StatusFactory, StatusSite

GOOD = Status("echoSvc", ("127.0.0.1:9000",), 1, 2, ())


class StatusTests(SynchronousTestCase):
    """One service, healthy and not."""

    def get(self, status: Status, *path: bytes) -> tuple[int, str]:
        site = StatusSite(lambda: status)
        request: Any = DummyRequest(list(path))
        request.postpath, request.prepath = list(path), []
        body = site.getResourceFor(request).render(request)
        return request.responseCode or 200, body.decode()

    def test_healthy(self) -> None:
        """Code 200, for people and for programs."""
        code, text = self.get(GOOD, b"")
        self.assertEqual(code, 200)
        self.assertIn("echoSvc: healthy\nserving on 127.0.0.1:9000\n2 session(s), 1 exchange(s)", text)
        code, text = self.get(GOOD, b"health")
        self.assertEqual(code, 200)
        self.assertEqual(json.loads(text)["healthy"], True)
        self.assertEqual(json.loads(text)["sessions"], 2)

    def test_wrong(self) -> None:
        """Code 503 and what is wrong, without anything a terminal obeys."""
        wrong = Status("echoSvc", ("127.0.0.1:9000",), 0, 0, ("SPN x\x1b[2J: it is gone",))
        code, text = self.get(wrong, b"")
        self.assertEqual(code, 503)
        self.assertIn("NOT healthy", text)
        self.assertIn("wrong: SPN x\\x1b[2J: it is gone", text)
        code, text = self.get(wrong, b"health")
        self.assertEqual((code, json.loads(text)["healthy"]), (503, False))

    def test_not_serving(self) -> None:
        """A service that starts or stops is not healthy."""
        self.assertEqual(self.get(Status("echoSvc", (), 0, 0, ()), b"health")[0], 503)

    def test_too_many(self) -> None:
        """Watchers beyond the few that may ask at once are turned away, until one of those has gone."""
        factory = StatusFactory(lambda: GOOD)

        def come() -> tuple[Any, StringTransport]:
            protocol, transport = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1)), StringTransport()
            protocol.makeConnection(transport)
            return protocol, transport

        watchers = [come() for _ in range(32)]
        self.assertEqual([transport.disconnecting for _, transport in watchers], [False] * 32)
        self.assertTrue(come()[1].disconnecting)
        gone = watchers.pop()[0]
        gone.connectionLost(Failure(ConnectionDone()))
        again, transport = come()
        again.dataReceived(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 200 "), transport.value())
        for protocol, _ in (*watchers, (again, transport)):
            protocol.connectionLost(Failure(ConnectionDone()))

    def test_nothing_else(self) -> None:
        """There are no other pages."""
        self.assertEqual(self.get(GOOD, b"etc")[0], 404)
