"""Somebody in the middle of real TCP connections with real tickets: samples of what is exhaustive
in memory.

In memory see tests/unit/core/test_middle_handshake.py and tests/unit/core/test_middle_records.py;
what differs here is the tickets, which hold a PAC and are three times as long,
and the network, which is one.
"""

from __future__ import annotations

import struct
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import (
    AuthenticationError,
    MutualAuthError,
    NetworkError,
    ProtocolViolation,
    RecordError,
    StreamCut,
)
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator
from mutauth_twisted.testing.fakes import captured_log
from mutauth_twisted.wire import NNS, WINSOCK, Token, Wire
from tests.integration.handshake_case import (
    LOOPBACK,
    HandshakeTestCase,
    MiddleFactory,
    by_message,
    say,
)
from tests.support.middle import Conversation, answering, asking
from tests.support.sides import Peer
from tests.support.tampering import (
    CHANNELS,
    DATA,
    DOWN,
    END,
    OPENING,
    QUESTION,
    TOKEN,
    UP,
    Attempt,
    Change,
    Tamper,
    check,
    cut,
    flip,
    flipped,
    name,
    reflect,
    replace,
)
from tests.unread import HEADER, mark_in_token, unread_in_token

#: RFC 4121 4.1: a KRB-ERROR behind the mechanism's OID.
KRB_ERROR = b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x03\x00"
CLOCK = cast(IReactorTime, reactor)
#: After how many seconds a side that has not come to an end is taken to hang.
HANGS = 20.0
NOTICED = (RecordError, ProtocolViolation, StreamCut)


class MiddleCase(HandshakeTestCase):
    """Somebody who passes bytes on, or others."""

    async def attempt(self, port: int, tamper: Tamper, security: SecurityOptions) -> Attempt:
        """Connect through the middle, exchange a question and its answer, and close."""
        result, first = Attempt(), len(self.servers)
        waits: list[Deferred[bytes]] = []

        def watch(direction: str, number: int, message: bytes) -> list[bytes | None]:
            pieces = tamper(direction, number, message)
            if number == DATA and not pieces:
                # Nothing will come: a missing record shows when the next one does, the end of the
                # stream.
                CLOCK.callLater(0, waits[0].cancel)
            return pieces

        factory = MiddleFactory(port, by_message(security.wire, watch))
        middle = cast(Any, await TCP4ServerEndpoint(reactor, 0, interface=LOOPBACK).listen(factory))
        try:
            client = await self.connect_only(middle.getHost().port, security=security)
            identity = client.protected.peer_identity
            result.spn = identity.spn
            result.proofs.add((identity.protection, int(identity.flags)))
            client.protected.write(QUESTION)
            waits.append(client.wait_for(len(QUESTION)))
            result.client = await waits[0].addTimeout(HANGS, CLOCK)
            result.gave_up = not (result.client or client.ended.called)
            client.protected.loseConnection()
            result.error = self.unless_done(await client.ended.addTimeout(HANGS, CLOCK))
        except MutualAuthError as error:
            result.error = error
        finally:
            await middle.stopListening()
        servers = self.servers[first:]
        for server in servers:
            result.server_error = self.unless_done(await server.ended.addTimeout(HANGS, CLOCK))
            identity = server.protected.peer_identity
            result.proofs.add((identity.protection, int(identity.flags)))
        result.principals = tuple(server.protected.peer_identity.principal for server in servers)
        result.server = b"".join(server.received for server in servers)
        return result

    @staticmethod
    def unless_done(reason: BaseException) -> BaseException | None:
        """The reason, unless it is the usual one."""
        return None if isinstance(reason, ConnectionDone) else reason

    def check(self, result: Attempt, security: SecurityOptions, what: str) -> None:
        """In any case no peer was taken for another, and nothing wrong was delivered."""
        alice = self.lab.principal("alice")
        check(self, result, what, spn=self.by_dn, principal=alice, protection=security.protection)

    async def many(
        self, tampers: dict[Any, Tamper], security: SecurityOptions, seconds: float = 10.0
    ) -> dict[Any, Attempt]:
        """Try each, one after another.

        :param seconds: both sides' deadline.
        """
        security = SecurityOptions(security.wire, security.protection, seconds)
        port = await self.listen(security=security)
        results = {}
        for what, tamper in tampers.items():
            results[what] = await self.attempt(port, tamper, security)
            self.check(results[what], security, f"{name(security)}: {what}")
            self.servers.clear()
        return results

    async def messages(self, security: SecurityOptions) -> dict[tuple[str, int], bytes]:
        """Every message of a conversation that goes well."""
        messages: dict[tuple[str, int], bytes] = {}

        def note(direction: str, number: int, message: bytes) -> list[bytes | None]:
            messages[direction, number] = message
            return [message]

        (result,) = (await self.many({"untouched": note}, security)).values()
        self.assertTrue(result.harmless, result)
        return messages


class HandshakeTests(MiddleCase):
    """Tokens."""

    async def test_flipped(self) -> None:
        """A byte changed in either side's token gives no connection, except where nobody reads
        it.
        """
        for wire in (NNS, WINSOCK):
            security = SecurityOptions(wire)
            messages = await self.messages(security)
            tampers: dict[Any, Tamper] = {}
            expected = set()
            for direction, step in ((UP, 29), (DOWN, 11)):
                frame = messages[direction, TOKEN]
                unread = unread_in_token(frame, wire, from_service=direction == DOWN)
                for position in sorted({*range(0, 48, 3), *range(48, len(frame), step)}):
                    # A changed size makes the receiver wait for the deadline: test_wrong_sizes.
                    if position not in ((3, 4) if wire is NNS else (0, 1, 2, 3)):
                        tampers[direction, position] = replace(direction, TOKEN, flip(position, 3))
                        if (position, 3) in unread:
                            expected.add((direction, position))
            results = await self.many(tampers, security)
            self.assertEqual(
                {what for what, result in results.items() if result.harmless}, expected
            )

    async def test_every_byte(self) -> None:
        """Every byte of a real ticket, which holds a PAC, and of all around it, opens nothing when
        changed; in memory.
        """
        await self.close(await self.connect(await self.listen()))  # the ticket is in the cache now
        for wire in (NNS, WINSOCK):
            security = SecurityOptions(wire)
            client = self.client(security)
            frame = client.transport.take()
            self.assertGreater(len(frame), 1200)
            unread = unread_in_token(frame, wire)
            for position in range(len(frame)):
                bit = position % 8
                data, what = (
                    flipped(frame, position, bit),
                    f"{wire.name}, byte {position}, bit {bit}",
                )
                if (position, bit) in unread:
                    self.assertTrue(
                        self.converse(
                            security, replace(UP, TOKEN, flip(position, bit)), what
                        ).harmless,
                        what,
                    )
                    continue
                service = answering(self.keys.acceptor("client"), security)
                service.receive(data)
                service.reactor.advance(security.timeout)
                self.assertEqual(service.factory.built, [], what)
                self.assertIsInstance(service.error, (AuthenticationError, NetworkError), what)
                self.assertTrue(service.transport.disconnecting, what)
            # Nothing that was refused was remembered.
            service = answering(self.keys.acceptor("client"), security)
            service.receive(frame)
            client.receive(service.transport.take())
            service.receive(client.transport.take())
            self.assertEqual(len(service.factory.built), 1)

    def client(self, security: SecurityOptions) -> Peer:
        """A client in memory."""
        return asking(KerberosInitiator(self.by_dn, self.alice, security.protection), security)

    def converse(self, security: SecurityOptions, tamper: Tamper, what: str) -> Attempt:
        """A conversation in memory."""
        service = answering(self.keys.acceptor("client"), security)
        result = Conversation(self.client(security), service, security, tamper).hold()
        self.check(result, security, what)
        return result

    async def test_wrong_sizes(self) -> None:
        """A token whose size was changed ends at the deadline at the latest."""

        def resize(wire: Wire, size: int) -> Change:
            if wire is WINSOCK:
                return lambda message: [struct.pack("<I", size) + message[4:]]
            return lambda message: [message[:3] + struct.pack(">H", size) + message[5:]]

        for wire in (NNS, WINSOCK):
            tampers: dict[Any, Tamper] = {
                (direction, size): replace(direction, TOKEN, resize(wire, size))
                for direction in (UP, DOWN)
                for size in (0, 1, 65535)
            }
            results = await self.many(tampers, SecurityOptions(wire), 0.5)
            self.assertEqual(
                [what for what, result in results.items() if result.spn is not None], []
            )

    async def test_truncated(self) -> None:
        """A connection that is cut within a token ends at once."""
        for wire in (NNS, WINSOCK):
            security = SecurityOptions(wire)
            messages = await self.messages(security)
            port = await self.listen(security=security)
            for direction in (UP, DOWN):
                size = len(messages[direction, TOKEN])
                for end in (0, 1, HEADER[wire.name], HEADER[wire.name] + 1, size // 2, size - 10):
                    what = f"{wire.name}, {direction} {end}"
                    result = await self.attempt(port, cut(direction, TOKEN, end), security)
                    self.check(result, security, what)
                    self.assertIsInstance(result.error, NetworkError, what)
                    self.assertEqual(result.principals, ())
                    self.servers.clear()

    async def test_replayed(self) -> None:
        """A client's whole side of a conversation, sent again by another, opens nothing."""
        for wire in (NNS, WINSOCK):
            security, said = SecurityOptions(wire), list[bytes]()

            def listen(
                direction: str, number: int, message: bytes, said: list[bytes] = said
            ) -> list[bytes | None]:
                if direction == UP:
                    said.append(message)
                return [message]

            port = await self.listen(security=security)
            self.assertTrue((await self.attempt(port, listen, security)).harmless)
            self.servers.clear()
            with captured_log() as events:
                answer = await deferToThread(say, port, b"".join(said))
            if wire is NNS:
                self.assertEqual(answer[-13:], NNS.fault(1326))
                answer = answer[:-13]
            self.assertIn(KRB_ERROR, answer[:24])
            self.assertEqual(self.servers, [])
            (line,) = [
                formatEvent(event) for event in events if "handshake failed: " in formatEvent(event)
            ]
            self.assertIn("the same request was seen before (replay)", line)

    async def test_replayed_on_the_same_connection(self) -> None:
        """A token that comes again on its own connection, where the opening should, opens
        nothing.
        """
        twice = replace(UP, TOKEN, lambda message: [message, message])
        for wire in (NNS, WINSOCK):
            (result,) = (await self.many({"twice": twice}, SecurityOptions(wire))).values()
            self.assertEqual((result.principals, result.client), ((), b""))
            self.assertIsInstance(result.error, StreamCut)

    async def test_marks(self) -> None:
        """A service's mark that is removed opens nothing on its side; the client, which sees none,
        is told of a cut.

        What else there is in the version, in either direction, is read by nobody.
        """
        for security in CHANNELS:
            removed = {
                (DOWN, bit): replace(DOWN, TOKEN, flip(*bit))
                for bit in mark_in_token(security.wire)
            }
            for what, result in (await self.many(removed, security)).items():
                self.assertEqual(
                    (result.principals, result.client), ((), b""), (name(security), what)
                )
                self.assertIsInstance(result.error, StreamCut, (name(security), what))
            unread = {
                (UP, bit): replace(UP, TOKEN, flip(*bit)) for bit in mark_in_token(security.wire)
            }
            for what, result in (await self.many(unread, security)).items():
                self.assertTrue(result.harmless, (name(security), what, result))

    async def test_copied(self) -> None:
        """A token, copied to a replica with the same key and a replay cache of its own, opens
        nothing there.
        """
        self.set_environment(KRB5RCACHENAME="none:")
        for security in CHANNELS:
            said: list[bytes] = []

            def listen(
                direction: str, number: int, message: bytes, said: list[bytes] = said
            ) -> list[bytes | None]:
                if (direction, number) == (UP, TOKEN):
                    said.append(message)
                return [message]

            brief = SecurityOptions(security.wire, security.protection, 0.5)
            port, replica = await self.listen(security=security), await self.listen(security=brief)
            self.assertTrue((await self.attempt(port, listen, security)).harmless)
            self.servers.clear()
            with captured_log() as events:
                for rest in (b"", security.wire.record(bytes(60))):
                    reader = security.wire.reader()
                    reader.feed(await deferToThread(say, replica, said[0] + rest))
                    # The service has answered, as it does to its own clients, and said nothing
                    # more.
                    answer = reader.next_frame()
                    assert isinstance(answer, Token)
                    self.assertTrue(answer.mutauth)
                    self.assertEqual(reader.pending, 0)
            self.assertEqual(self.servers, [])
            lines = [formatEvent(event) for event in events]
            self.assertEqual([line for line in lines if "authenticated as" in line], [])
            self.assertEqual(
                len(
                    [
                        line
                        for line in lines
                        if "a mutauth client's first record did not come" in line
                    ]
                ),
                1,
            )


class RecordTests(MiddleCase):
    """Records."""

    async def test_changed(self) -> None:
        """Records that were changed, dropped, repeated, swapped or invented are never delivered, in
        either direction.
        """

        def swap(direction: str) -> Tamper:
            held: list[bytes | None] = []

            def tamper(where: str, number: int, message: bytes) -> list[bytes | None]:
                if where != direction or number not in (OPENING, DATA):
                    return [message]
                held.append(message)
                return held[::-1] if number == DATA else []

            return tamper

        for security in CHANNELS:
            others = await self.messages(security)
            changes: dict[str, Change] = {
                "dropped": lambda message: [],
                "repeated": lambda message: [message, message],
                "invented before": lambda message: [struct.pack("<I", 60) + bytes(60), message],
                "empty": lambda message: [bytes(4)],
                "too large": lambda message: [struct.pack("<I", 65537)],
                "of plain text": lambda message: [struct.pack("<I", 20) + QUESTION],
                **{
                    f"flipped at {position}": flip(position, 3)
                    for position in (4, 6, 8, 12, 15, 20, 30, 40, 47)
                },
            }
            tampers: dict[Any, Tamper] = {}
            for direction in (UP, DOWN):
                other = others[direction, DATA]
                tampers |= {
                    (direction, what): replace(direction, DATA, change)
                    for what, change in changes.items()
                }
                tampers[direction, "reflected"] = reflect(direction, DATA)
                tampers[direction, "of another session"] = replace(
                    direction, DATA, lambda _, other=other: [other]
                )  # type: ignore[misc]
            unopened: dict[Any, Tamper] = {
                "swapped": swap(UP),
                "dropped": replace(UP, OPENING, lambda message: []),
                "flipped": replace(UP, OPENING, flip(20, 3)),
                "of another session": replace(
                    UP, OPENING, lambda _, other=others[UP, OPENING]: [other]
                ),  # type: ignore[misc]
            }
            for what, result in (await self.many(unopened, security)).items():
                self.assertEqual(
                    (result.principals, result.client), ((), b""), (name(security), what)
                )
                self.assertIsInstance(result.error, StreamCut, (name(security), what))
            for (direction, what), result in (await self.many(tampers, security)).items():
                where = (name(security), direction, what)
                receiver = (
                    (result.server, result.server_error)
                    if direction == UP
                    else (result.client, result.error)
                )
                # What came once is genuine; its repetition is not delivered, and ends the
                # connection.
                said = (
                    {UP: QUESTION, DOWN: QUESTION.upper()}[direction] if what == "repeated" else b""
                )
                self.assertEqual(receiver[0], said, where)
                self.assertIsInstance(receiver[1], (RecordError, ProtocolViolation), where)

    async def test_cut_streams(self) -> None:
        """A stream that is cut between two records is told apart from one that ended, on both
        sides.
        """
        for security in CHANNELS:
            port = await self.listen(security=security)
            for direction in (UP, DOWN):
                end = replace(direction, END, lambda message: [None])
                client = await self.connect(
                    await self.proxy(port, end, security.wire), security=security
                )
                server = self.servers[-1]
                client.protected.write(QUESTION)
                await client.wait_for(len(QUESTION))
                # The next message is the end of the stream, which never arrives.
                (client if direction == UP else server).protected.loseConnection()
                other = server if direction == UP else client
                self.assertIsInstance(await other.ended, StreamCut)
                await gatherResults([client.ended, server.ended])
