"""Ident queries of a backend, and all who would have an answer that is not for them."""

from __future__ import annotations

from typing import Any, cast
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.access.logon import Logon
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.gateway.backend import Introduction
from mutauth_twisted.gateway.ident import LONGEST, MOST_QUERIES, PATIENCE, IdentFactory, user_id
from mutauth_twisted.testing.fakes import captured_log
from tests.unit.gateway.client_case import client, identity

OWN, BACKEND = "127.0.0.5", "127.0.0.1"


class QueryTests(SynchronousTestCase):
    """Queries over the network's bytes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = IdentFactory(self.clock, OWN)

    def connect(
        self, name: str = "alice", *, port: int = 40000, backend: str = BACKEND, to: int = 5432
    ) -> Introduction:
        """A client's connection to its backend."""
        who = identity(f"{name}@EXAMPLE.COM", Logon(name, "EXAMPLE"))
        introduction = self.factory.introduce(client(who))
        transport = StringTransport(
            hostAddress=IPv4Address("TCP", OWN, port),
            peerAddress=IPv4Address("TCP", backend, to),
        )
        self.assertEqual(introduction.connected(transport), b"")
        return introduction

    def ask(self, *pieces: bytes, peer: str = BACKEND) -> bytes:
        """The answer to a query that comes in pieces."""
        protocol: Any = self.factory.buildProtocol(None)
        transport = StringTransport(
            hostAddress=IPv4Address("TCP", OWN, 113), peerAddress=IPv4Address("TCP", peer, 50000)
        )
        protocol.callLater = self.clock.callLater
        protocol.makeConnection(transport)
        for piece in pieces:
            protocol.dataReceived(piece)
        if transport.disconnecting:
            protocol.connectionLost()
        self.protocol, self.transport = protocol, transport
        return transport.value()

    def test_answer(self) -> None:
        """A backend that asks about its connection gets the client's name, and the connection is
        closed.
        """
        self.connect()
        for pieces in ((b"40000,5432\r\n",), (b" 40000 ,", b"\t5432 ", b"\r", b"\n")):
            self.assertEqual(
                self.ask(*pieces), b"40000 , 5432 : USERID : UNIX : alice@EXAMPLE.COM\r\n"
            )
            self.assertTrue(self.transport.disconnecting)

    def test_not_ascii(self) -> None:
        """A name beyond ASCII is announced as UTF-8 (RFC 1413, section 6)."""
        self.connect("jürgen")
        answer = "40000 , 5432 : USERID : UNIX,UTF-8 : jürgen@EXAMPLE.COM\r\n"
        self.assertEqual(self.ask(b"40000,5432\r\n"), answer.encode())

    def test_no_user(self) -> None:
        """Ports that are not those of a client's connection, and askers who are not its backend."""
        self.connect()
        for query, peer in (
            (b"40001,5432", BACKEND),
            (b"40000,5433", BACKEND),
            (b"5432,40000", BACKEND),
            (b"40000,5432", "127.0.0.2"),
            (b"40000,5432", OWN),
        ):
            answer = self.ask(query + b"\r\n", peer=peer)
            self.assertTrue(answer.endswith(b" : ERROR : NO-USER\r\n"), answer)
            self.assertNotIn(b"alice", answer)

    def test_invalid_port(self) -> None:
        """Numbers that are not ports."""
        for query in (b"0,5432", b"40000,0", b"65536,5432", b"40000,99999"):
            self.assertIn(b"ERROR : INVALID-PORT", self.ask(query + b"\r\n"))

    def test_garbage(self) -> None:
        """Bytes that are not a query get no answer, and the connection's end; nothing of it is
        kept.
        """
        self.connect()
        for data in (
            b"\r\n",
            b"40000\r\n",
            b"40000,5432,1\r\n",
            b"-1,5432\r\n",
            b"4e4,5432\r\n",
            "٤٠٠٠٠,5432\r\n".encode(),
            b"GET / HTTP/1.0\r\n",
            b"x" * 65,
            b"1" * 100000 + b"\r\n",
        ):
            self.assertEqual(self.ask(data), b"", data)
            self.assertTrue(self.transport.disconnecting, data)

    def test_one_query(self) -> None:
        """A second query in the same connection is not answered."""
        self.connect()
        self.assertEqual(self.ask(b"40000,5432\r\n40000,5432\r\n").count(b"USERID"), 1)

    def test_patience(self) -> None:
        """A backend that does not ask is not waited for."""
        self.ask(b"40000")
        self.clock.advance(PATIENCE)
        self.assertTrue(self.transport.disconnecting)

    def test_as_long_as_the_connection(self) -> None:
        """The answer ends with the connection, and with that one only."""
        first, second = self.connect("alice"), self.connect("bob", port=40001)
        first.closed()
        self.assertIn(b"NO-USER", self.ask(b"40000,5432\r\n"))
        self.assertIn(b"bob@EXAMPLE.COM", self.ask(b"40001,5432\r\n"))
        second.closed()
        self.assertIn(b"NO-USER", self.ask(b"40001,5432\r\n"))

    def come(self, host: str) -> tuple[Any, StringTransport]:
        """A connection from an address, that asks nothing yet."""
        peer = IPv4Address("TCP", host, 50000)
        protocol: Any = self.factory.buildProtocol(peer)
        transport = StringTransport(hostAddress=IPv4Address("TCP", OWN, 113), peerAddress=peer)
        protocol.callLater = self.clock.callLater
        protocol.makeConnection(transport)
        return protocol, transport

    def test_silence(self) -> None:
        """While others hold all that there may be and ask nothing, from the backend's address or
        from many, the backend is answered, in the place of the oldest of theirs.
        """
        self.connect()
        for hosts in ([BACKEND] * MOST_QUERIES, [f"127.0.1.{n}" for n in range(MOST_QUERIES)]):
            idle = [self.come(host) for host in hosts]
            asking, transport = self.come(BACKEND)
            self.assertEqual(len(self.factory.queries), MOST_QUERIES)
            self.assertEqual(
                [gone.disconnected for _, gone in idle], [True] + [False] * (len(hosts) - 1)
            )
            asking.dataReceived(b"40000,5432\r\n")
            self.assertIn(b"alice@EXAMPLE.COM", transport.value())
            # Another that comes before it is gone displaces one that has not asked.
            late, _ = self.come(BACKEND)
            self.assertFalse(transport.disconnected)
            for protocol in (late, asking, *(each for each, _ in idle)):
                protocol.connectionLost()
            self.assertEqual(len(self.factory.queries), 0)

    def test_log(self) -> None:
        """A query about no client's port is logged, but not as often as anyone likes."""
        with captured_log() as events:
            for port in range(1, 1000):
                self.ask(b"%d,5432\r\n" % port)
        lines = [formatEvent(event) for event in events]
        self.assertIn(f"127.0.0.1 asks about port 1 of {OWN}", lines[0])
        self.assertLess(len(lines), 100)

    def test_from_elsewhere(self) -> None:
        """A connection whose queries would come to another place is refused."""
        introduction = self.factory.introduce(client(identity()))
        for host in (IPv4Address("TCP", "127.0.0.1", 40000), UNIXAddress(b"/run/s")):
            transport = StringTransport(
                hostAddress=cast(Any, host), peerAddress=IPv4Address("TCP", BACKEND, 5432)
            )
            error = self.assertRaises(MutualAuthError, introduction.connected, transport)
            self.assertEqual(error.code, "identity-not-forwardable")
            introduction.closed()

    @given(st.binary(max_size=80), st.integers(1, 79))
    def test_any_bytes(self, data: bytes, cut: int) -> None:
        """On any input: one line at most, and never a name that the asker did not name by its
        ports.
        """
        self.factory = IdentFactory(self.clock, OWN)
        self.connect()
        answer = self.ask(data[:cut], data[cut:])
        self.assertLessEqual(answer.count(b"\n"), 1)
        self.assertLess(len(answer), 100)
        if b"alice" in answer:
            self.assertEqual(data.split(b"\r\n")[0].replace(b" ", b""), b"40000,5432")


class UserIdTests(SynchronousTestCase):
    """The name that a backend is told."""

    def refused(self, who: Any) -> str:
        """The cause for which a client's name is not told."""
        error = self.assertRaises(MutualAuthError, user_id, who)
        self.assertEqual(error.code, "identity-not-forwardable")
        self.assertTrue(error.coded.isprintable(), error.coded)
        return error.cause

    def test_account(self) -> None:
        """It is the account of the PAC in the realm of the ticket, whatever name the client took
        for its ticket.
        """
        self.assertEqual(user_id(identity("root@EXAMPLE.COM")), "alice@EXAMPLE.COM")
        who = identity("root@EXAMPLE.COM", Logon("root$", "EXAMPLE"))
        self.assertEqual(user_id(who), "root$@EXAMPLE.COM")

    def test_realms(self) -> None:
        """Namesakes of two realms have two names."""
        self.assertEqual(user_id(identity("alice@OTHER.EXAMPLE")), "alice@OTHER.EXAMPLE")

    def test_no_pac(self) -> None:
        """Without a PAC the client's name is its own choice."""
        self.assertIn("no PAC", self.refused(identity(logon=None)))
        self.assertIn("no PAC", self.refused(identity(logon=Logon("", ""))))

    def test_refused(self) -> None:
        """Names that a line, a backend's parser or its map could take for others."""
        for name in (
            "alice\r\n1,2:USERID:UNIX:root",
            "alice\nroot",
            "alice\0root",
            " alice",
            "alice ",
            "\talice",
            "\u00a0alice",
            "ali\u200bce",
            "root : UNIX",
            "a,b",
            "root@EXAMPLE.COM",
            "EXAMPLE\\root",
            "a/b",
            "a*",
            "ali\udc80ce",
        ):
            cause = self.refused(identity(logon=Logon(name, "EXAMPLE")))
            self.assertIn("a character that an account's name cannot have", cause)

    def test_realm(self) -> None:
        """Realms that are not DNS names could be taken for part of a name."""
        for realm in ("A@EXAMPLE.COM", "EXAMPLE.COM:x", "EXAMPLE COM", "EXAMPLE.COM ", "", "É.COM"):
            self.assertIn("realm", self.refused(identity(f"alice@{realm}")))

    def test_too_long(self) -> None:
        """A name that PostgreSQL would cut is not told."""
        realm = "EXAMPLE.COM"
        longest = "a" * (LONGEST - len(realm) - 1)
        who = identity(f"a@{realm}", Logon(longest, "EXAMPLE"))
        self.assertEqual(len(user_id(who)), LONGEST)
        who = identity(f"a@{realm}", Logon(longest + "b", "EXAMPLE"))
        self.assertIn("longer than", self.refused(who))

    @given(st.text(max_size=40), st.text(max_size=20))
    def test_one_line(self, name: str, realm: str) -> None:
        """With any names: the answer is one line, whose last part is the account and its
        realm, whole.
        """
        who = identity("x@EXAMPLE.COM", Logon(name, "EXAMPLE"))
        with mock.patch.object(type(who), "realm", realm):
            try:
                told = user_id(who)
            except MutualAuthError:
                return
        self.assertEqual(told.split("@"), [name, realm])
        self.assertEqual(told.splitlines(), [told])
        self.assertEqual(told.strip(), told)
        self.assertNotIn(":", told)
