"""The status port: what it answers, and to whom."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.findings import Command, Finding
from mutauth_twisted.status.http import (
    AT_ONCE,
    LONGEST_REQUEST,
    PATIENCE,
    Page,
    StatusFactory,
)
from mutauth_twisted.status.pages import KEPT, bounded, pages
from mutauth_twisted.status.snapshot import Snapshot
from mutauth_twisted.testing.fakes import FakeTransport
from mutauth_twisted.testing.hostile import HOSTILE, raw_in

GOOD = Snapshot(
    "echoSvc",
    ("127.0.0.1:9000",),
    {"handshakes_in_progress": 1, "connections_waiting": 3, "sessions": 2},
)


class StatusCase(SynchronousTestCase):
    """Watchers of one service."""

    #: The address of the port.
    own = "127.0.0.1"

    def setUp(self) -> None:
        self.clock = Clock()
        self.status: tuple[Snapshot, ...] = (GOOD,)
        self.looked = 0
        self.factory = StatusFactory(self.clock, self.pages())

    def pages(self) -> Mapping[str, Page]:
        """The pages, for which looking takes no time."""
        self.patch(time, "perf_counter", self.clock.seconds)
        return pages(self.look, "srv1", self.clock.seconds)

    def look(self) -> tuple[Snapshot, ...]:
        self.looked += 1
        return self.status

    def come(self, number: int = 1) -> tuple[Any, FakeTransport]:
        """One more watcher of one of many addresses, with its connection."""
        protocol = self.factory.buildProtocol(IPv4Address("TCP", f"192.0.2.{number}", 1))
        transport = FakeTransport()
        transport.getHost = lambda: IPv4Address("TCP", self.own, 8081)  # type: ignore[method-assign]
        protocol.makeConnection(transport)
        return protocol, transport

    def ask(self, request: bytes, *, bytewise: bool = False) -> tuple[int, dict[str, str], str]:
        """Code, headers and body for a request, after which the connection ends."""
        protocol, transport = self.come()
        for piece in (
            [request[at : at + 1] for at in range(len(request))] if bytewise else [request]
        ):
            protocol.dataReceived(piece)
        self.assertTrue(transport.disconnecting, request[:100])
        head, _, body = transport.value().decode().partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        protocol.connectionLost(Failure(ConnectionDone()))
        return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body

    def get(self, path: str) -> tuple[int, str]:
        code, headers, body = self.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.assertEqual(
            (int(headers["Content-Length"]), headers["Connection"]), (len(body.encode()), "close")
        )
        return code, body


class PageTests(StatusCase):
    """One service, healthy and not."""

    def test_healthy(self) -> None:
        """Code 200, for people and for programs."""
        code, text = self.get("/")
        self.assertEqual(code, 200)
        self.assertEqual(
            text,
            "echoSvc: healthy\nserving on 127.0.0.1:9000\n"
            "2 session(s), 1 handshake(s) under way, 3 connection(s) waiting\n",
        )
        code, text = self.get("/health?from=nagios")
        self.assertEqual(code, 200)
        self.assertEqual(json.loads(text)["healthy"], True)
        counts = {name: json.loads(text)[name] for name in ("sessions", "handshakes", "waiting")}
        self.assertEqual(counts, {"sessions": 2, "handshakes": 1, "waiting": 3})

    def test_wrong(self) -> None:
        """Code 503 and what is wrong, without anything a terminal obeys."""
        gone = Finding("spn-missing", f"SPN {HOSTILE}", "it is gone", Command("mutauth", "x y"))
        self.status = (evolve(GOOD, wrong=(gone,)),)
        code, text = self.get("/")
        self.assertEqual((code, raw_in(text)), (200, []))
        self.assertIn("NOT healthy", text)
        self.assertIn("wrong: [spn-missing] SPN x\\x1b[31m", text)
        code, text = self.get("/health")
        self.assertEqual((code, json.loads(text)["healthy"], raw_in(text)), (503, False, []))
        (told,) = json.loads(text)["wrong"]
        self.assertEqual((told["code"], told["commands"]), ("spn-missing", [["mutauth", "x y"]]))

    def test_warnings(self) -> None:
        """They are told, and the service is healthy all the same."""
        readable = Finding("keys-exposed", "keytab /k", "all can read it", "chmod it")
        self.status = (evolve(GOOD, warnings=(readable,)),)
        code, text = self.get("/")
        self.assertEqual(code, 200)
        self.assertIn("echoSvc: healthy\n", text)
        self.assertIn("warning: [keys-exposed] keytab /k: all can read it; chmod it\n", text)
        code, text = self.get("/health")
        (told,) = json.loads(text)["warnings"]
        self.assertEqual((code, told["code"], told["severity"]), (200, "keys-exposed", "warning"))

    def test_not_serving(self) -> None:
        """A service that starts or stops is not healthy."""
        self.status = (evolve(GOOD, serving=()),)
        self.assertEqual([self.get(path)[0] for path in ("/health", "/readyz")], [503, 503])
        self.assertEqual(self.get("/healthz"), (200, "ok\n"))

    def test_readiness(self) -> None:
        """Ready, or why not; a service that stops is never ready again, although it serves on."""
        self.assertEqual(self.get("/readyz"), (200, "ready\nechoSvc: serving\n"))
        gone = Finding("backend-down", "tcp:127.0.0.1:5432", HOSTILE, severity="error")
        self.status = (GOOD, evolve(GOOD, service="other", wrong=(gone,)))
        code, text = self.get("/readyz")
        self.assertEqual((code, raw_in(text)), (503, []))
        self.assertEqual(text.splitlines()[:3], ["NOT ready", "echoSvc: serving", "other: serving"])
        self.assertIn("other: [backend-down] tcp:127.0.0.1:5432: x\\x1b[31m", text)
        self.status = (evolve(GOOD, stopping=True),)
        self.assertEqual(self.get("/readyz"), (503, "NOT ready\nechoSvc: stopping\n"))
        self.status = ()
        self.assertEqual(self.get("/readyz")[0], 503)

    def test_several(self) -> None:
        """Services together and by themselves."""
        self.status = (GOOD, evolve(GOOD, service="other", serving=()))
        told = json.loads(self.get("/health")[1])
        self.assertEqual((told["healthy"], told["service"]), (False, "echoSvc, other"))
        self.assertEqual((told["sessions"], told["serving"]), (4, ["127.0.0.1:9000"]))
        each = [(one["service"], one["healthy"], one["sessions"]) for one in told["services"]]
        self.assertEqual(each, [("echoSvc", True, 2), ("other", False, 2)])
        self.assertIn("echoSvc: healthy", self.get("/")[1])
        self.assertIn("other: NOT healthy", self.get("/")[1])

    def test_people_and_programs(self) -> None:
        """A browser is given the page, whoever does not ask for HTML the text."""
        for accept, kind in (
            ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
            ("*/*", "text/plain; charset=utf-8"),
        ):
            request = f"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"
            code, headers, _ = self.ask(request.encode())
            self.assertEqual((code, headers["Content-Type"]), (200, kind))
            self.assertEqual(headers["Vary"], "Accept")
            self.assertEqual(headers["Cache-Control"], "no-store")
            self.assertEqual(headers["X-Content-Type-Options"], "nosniff")

    def test_costly_pages(self) -> None:
        """The page and the metrics are made once a second at most, however often they are asked
        for; a probe tells how it is now.
        """
        page = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n"
        for request in (page, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            self.looked = 0
            for _ in range(100):
                self.assertEqual(self.ask(request)[0], 200)
            self.assertEqual(self.looked, 1)
            self.clock.advance(KEPT)
            self.status = (evolve(GOOD, service=f"other-{len(request)}"),)
            self.assertIn(f"other-{len(request)}", self.ask(request)[2])
        self.assertEqual(self.get("/readyz")[0], 200)
        self.status = (evolve(GOOD, stopping=True),)
        self.assertEqual(self.get("/readyz")[0], 503)

    def test_costly_probes(self) -> None:
        """Services that take long to look at are looked at for a twentieth of the time."""
        clock, looks = Clock(), []

        def look() -> tuple[Snapshot, ...]:
            looks.append(clock.seconds())
            clock.advance(0.004)
            return (GOOD,)

        bound = bounded(look, clock.seconds)
        while clock.seconds() < 1:
            bound()
            clock.advance(0.001)
        self.assertLessEqual(len(looks) * 0.004, 0.055)
        self.assertGreater(len(looks), 10)

    def test_broken_page(self) -> None:
        """A bug in a page is an answer and a line in the log, not a connection that hangs."""
        self.status = ("no snapshot",)  # type: ignore[assignment]
        self.assertEqual(self.get("/readyz"), (500, "Internal Server Error\n"))
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_head(self) -> None:
        """HEAD is GET without the body."""
        code, headers, body = self.ask(b"HEAD /health HTTP/1.0\r\n\r\n")
        self.assertEqual((code, body), (200, ""))
        self.assertEqual(int(headers["Content-Length"]), len(self.get("/health")[1]))

    def test_bytewise(self) -> None:
        """A request may come in pieces, and with bare line feeds."""
        for request in (
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET / HTTP/1.1\nHost: localhost\n\n",
        ):
            self.assertEqual(self.ask(request, bytewise=True)[0], 200)


class RefusalTests(StatusCase):
    """Requests that watchers do not send."""

    def test_codes(self) -> None:
        """Everything else is refused, whatever may come behind it."""
        get = b"GET / HTTP/1.1\r\n"
        for request, code in (
            (b"GET /etc HTTP/1.1\r\n\r\n", 404),
            (b"GET //health HTTP/1.1\r\n\r\n", 404),
            (b"POST / HTTP/1.1\r\nContent-Length: 33554432\r\n\r\n" + b"x" * 1000, 405),
            (b"CONNECT x:1 HTTP/1.1\r\n\r\n", 400),
            (b"TRACE / HTTP/1.1\r\n\r\n", 405),
            (get + b"Content-Length: 33554432\r\n\r\n" + b"x" * 1000, 413),
            (get + b"content-length : 5\r\n\r\nhello", 413),
            (get + b"Content-Length: nonsense\r\n\r\n", 413),
            (get + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 413),
            (get + b"Content-Length: 0\r\n\r\n", 200),
            (b"GET / HTTP/2.0\r\n\r\n", 400),
            (b"GET /\r\n\r\n", 400),
            (b"\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\n\n", 400),
            (b"GET /\x1b[2J HTTP/1.1\r\n\r\n", 400),
            (get + b"Host: evil.example\r\n\r\n", 421),
            (get + b"Host: 127.0.0.1.evil.example:80\r\n\r\n", 421),
            (get + b"Host: localhost.\r\n\r\n", 421),
            (get + b"Host: LOCALHOST:8081\r\n\r\n", 200),
            (get + b"Host: 127.0.0.1:8081\r\n\r\n", 200),
            (get + b"Host: [::1]:8081\r\n\r\n", 200),
            (b"GET / HTTP/1.0\r\n\r\n", 200),
            (get + b"Host: evil.example\r\nHost: localhost\r\n\r\n", 400),
            (get + b"Content-Length: 5\r\ncontent-length:0\r\n\r\nhello", 400),
        ):
            self.assertEqual(self.ask(request)[0], code, request)

    def test_names_elsewhere(self) -> None:
        """A port off loopback has names that nobody told it."""
        self.own = "192.0.2.1"
        self.assertEqual(self.ask(b"GET / HTTP/1.1\r\nHost: srv1.example\r\n\r\n")[0], 200)

    def test_long(self) -> None:
        """Headers are bounded, in one piece or many, and no more than that is ever kept."""
        request = b"GET / HTTP/1.1\r\nCookie: " + b"x" * LONGEST_REQUEST
        self.assertEqual(self.ask(request + b"\r\n\r\n")[0], 431)
        self.assertEqual(self.ask(request, bytewise=False)[0], 431)
        protocol, transport = self.come()
        for _ in range(200):
            protocol.dataReceived(b"x" * 1000)
            self.assertLess(len(protocol._request), LONGEST_REQUEST + 1000)
        self.assertEqual(transport.value().count(b"HTTP/1.1 "), 1)

    def test_one_request(self) -> None:
        """A second request on the connection is not even read."""
        protocol, transport = self.come()
        protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n" * 50)
        protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n" * 50)
        self.assertEqual(transport.value().count(b"HTTP/1.1 "), 1)


class WatcherTests(StatusCase):
    """Watchers that take their time."""

    def test_deadline(self) -> None:
        """A connection ends in time, whether it drips, is silent, or does not read its answer."""
        silent, dripping, deaf = (self.come() for _ in range(3))
        deaf[0].dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        for _ in range(int(PATIENCE) - 1):
            self.clock.advance(1)
            dripping[0].dataReceived(b"x")
        self.assertEqual([each[1].aborted for each in (silent, dripping, deaf)], [False] * 3)
        self.clock.advance(1)
        self.assertEqual([each[1].aborted for each in (silent, dripping, deaf)], [True] * 3)

    def test_no_timer_stays(self) -> None:
        """One that has ended is not waited for any more."""
        protocol, _ = self.come()
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_room(self) -> None:
        """One too many takes the place of the oldest that has not asked; one that waits for its
        answer's way out stays.
        """
        watchers = [self.come() for _ in range(AT_ONCE)]
        watchers[0][0].dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        for number in range(1, AT_ONCE):
            later = self.come()
            later[0].dataReceived(b"GET / HTTP/1.1\r\n\r\n")
            self.assertTrue(later[1].value().startswith(b"HTTP/1.1 200 "))
            self.assertEqual([transport.aborted for _, transport in watchers].count(True), number)
        self.assertFalse(watchers[0][1].aborted)
        # Nobody is left who has not asked.
        self.come()
        self.assertTrue(watchers[0][1].aborted)

    def test_room_of_others(self) -> None:
        """A watcher that floods, before or after, displaces its own and no watcher of another
        address, however late that one asks.
        """
        early = [self.come(number) for number in (1, 2)]
        flood = [self.come(9) for _ in range(500)]
        late = [self.come(number) for number in (3, 4)]
        flood += [self.come(9) for _ in range(500)]
        self.assertEqual([transport.aborted for _, transport in (*early, *late)], [False] * 4)
        self.assertEqual([transport.aborted for _, transport in flood].count(False), AT_ONCE - 4)
        self.assertEqual(len(self.factory.watchers), AT_ONCE)
        for protocol, transport in (*early, *late):
            protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
            self.assertTrue(transport.value().startswith(b"HTTP/1.1 200 "))

    def test_room_among_many(self) -> None:
        """When each is of another address it is the oldest that has to go."""
        watchers = [self.come(number) for number in range(AT_ONCE)]
        self.come(AT_ONCE)
        self.assertEqual(
            [transport.aborted for _, transport in watchers], [True] + [False] * (AT_ONCE - 1)
        )
