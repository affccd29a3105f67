"""Records changed, cut off, dropped, repeated, moved and put in by an attacker in the middle;
with real contexts.

Both directions of every wire and protection.  The side that closes first is
the one whose records are touched: its end of stream then counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, product
from typing import Any

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.core.records import Data
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import (
    AuthenticationError,
    NetworkError,
    ProtocolViolation,
    RecordError,
    SessionEnded,
    StreamCut,
)
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.wire import NNS, WINSOCK
from tests.support.middle import Conversation, MiddleCase, answering, asking
from tests.support.records import records_on
from tests.support.sides import Peer
from tests.support.tampering import (
    ALICE,
    ANSWER,
    CHANNELS,
    DATA,
    DOWN,
    END,
    OPENING,
    QUESTION,
    RECORDS,
    TOKEN,
    UP,
    Attempt,
    Tamper,
    cut,
    flip,
    flipped,
    name,
    reflect,
    replace,
    silence,
)
from tests.unread import HEADER, Bit, unread_in_record

SAID = {UP: QUESTION, DOWN: ANSWER}
#: How a receiver ends that got what its peer did not send so.
NOTICED = (RecordError, ProtocolViolation, StreamCut)
#: The same for a service without the client's opening, which is not a session yet: that the client
#: left, or that time is up.
UNOPENED = (RecordError, ProtocolViolation, NetworkError)
EVERYWHERE = tuple(product(CHANNELS, (UP, DOWN)))
EVERY_RECORD = tuple(
    (security, direction, number)
    for security, direction in EVERYWHERE
    for number in RECORDS[direction]
)
#: The bytes of which every bit is changed: a record's size, a trailer's size, and a token's header
#: (RFC 4121 4.2.6).
HEADERS = 4 + 4 + 16


class RecordCase(MiddleCase):
    """Common ground of all records."""

    def received(self, attempt: Attempt, direction: str) -> tuple[bytes, BaseException | None]:
        """Bytes that the receiver of a direction got, and how it ended."""
        return (
            (attempt.server, attempt.server_error)
            if direction == UP
            else (attempt.client, attempt.error)
        )

    def noticed(
        self,
        security: SecurityOptions,
        direction: str,
        number: int,
        tamper: Tamper,
        what: str,
        said: bytes,
    ) -> Attempt:
        """The receiver notices at this message, and got so much before; without an opening there is
        no application.
        """
        attempt = self.attempt(security, tamper, f"{direction}: {what}", closes=direction)
        where = (name(security), direction, number, what)
        received, error = self.received(attempt, direction)
        self.assertEqual(received, said, where)
        self.assertIsInstance(error, UNOPENED if number == OPENING else NOTICED, where)
        if number == OPENING:
            self.assertEqual(attempt.principals, (), where)
        return attempt

    def contexts(self, security: SecurityOptions) -> dict[str, tuple[Any, Any]]:
        """The sender and the receiver of each direction."""
        client, server = self.initiator(security), self.keys.acceptor("client")
        client.step(server.step(client.step(None).token).token)
        return {UP: (client, server), DOWN: (server, client)}


class FlipTests(RecordCase):
    """One bit changed."""

    def test_every_byte(self) -> None:
        """Every byte of the opening, of data and of the end of stream; what means the same goes
        unnoticed.
        """
        for security, direction, number in EVERY_RECORD:
            frame = self.messages(security, closes=direction)[direction, number]
            unnoticed: set[Bit] = set()
            for position in range(len(frame)):
                for bit in range(8) if number == DATA and position < HEADERS else (position % 8,):
                    tamper = replace(direction, number, flip(position, bit))
                    what = f"message {number}, byte {position}, bit {bit}"
                    attempt = self.attempt(
                        security, tamper, f"{direction}: {what}", closes=direction
                    )
                    if attempt.harmless:
                        unnoticed.add((position, bit))
                        continue
                    received, error = self.received(attempt, direction)
                    self.assertEqual(
                        received, SAID[direction] if number == END else b"", (name(security), what)
                    )
                    self.assertIsInstance(
                        error, UNOPENED if number == OPENING else NOTICED, (name(security), what)
                    )
                    if number == OPENING:
                        self.assertEqual(attempt.principals, (), (name(security), what))
            self.assertEqual(
                unnoticed,
                unread_in_record(frame, security.wire) if number == DATA else set(),
                name(security),
            )

    def test_every_bit(self) -> None:
        """Every bit of a record; and after all that was refused the genuine one is still the
        next.
        """
        for security, direction in EVERYWHERE:
            sender, receiver = self.contexts(security)[direction]
            sealed = security.protection is Protection.SEAL
            frame = security.wire.protect(sender, QUESTION, sealed)
            unread = unread_in_record(frame, security.wire)
            for position, bit in product(range(len(frame)), range(8)):
                if (position, bit) not in unread:
                    event = self.read(security, receiver, flipped(frame, position, bit))
                    # A greater size: the rest never comes.
                    self.assertTrue(
                        event is RecordError or position < 4,
                        (name(security), direction, position, bit),
                    )
            self.assertEqual(self.read(security, receiver, frame), Data(QUESTION))

    def read(self, security: SecurityOptions, context: Any, frame: bytes) -> Any:
        """Result of a frame at a receiver: an event, None where it waits for more, or RecordError
        for what is refused.
        """
        records = records_on(context, security)
        records.feed(frame)
        try:
            event = records.next_event()
        except (RecordError, ProtocolViolation):
            return RecordError
        self.assertIn(event, (None, Data(QUESTION)))
        return event


class CutTests(RecordCase):
    """A stream of which the end does not come."""

    def places(self) -> Iterator[tuple[SecurityOptions, str, int, int, bytes]]:
        """Every byte at which a stream can be cut, and what was said before."""
        for security, direction in EVERYWHERE:
            messages = self.messages(security, closes=direction)
            for number in RECORDS[direction]:
                for end in range(len(messages[direction, number])):
                    yield (
                        security,
                        direction,
                        number,
                        end,
                        SAID[direction] if number == END else b"",
                    )

    def test_closed(self) -> None:
        """A connection that ends before the end of stream is a cut one, at whatever byte."""
        for security, direction, number, end, said in self.places():
            attempt = self.attempt(
                security, cut(direction, number, end), f"{number} cut at {end}", closes=direction
            )
            received, error = self.received(attempt, direction)
            self.assertEqual(received, said)
            expected = NetworkError if number == OPENING else StreamCut
            self.assertIsInstance(error, expected, (name(security), direction, number, end))
            self.assertIs(isinstance(error, StreamCut), number != OPENING)
            self.assertEqual(attempt.principals, () if number == OPENING else (ALICE,))


class OrderTests(RecordCase):
    """Genuine records, where they do not belong."""

    def everywhere(self, what: str, make: Callable[[str, int], Tamper], *numbers: int) -> None:
        """Every one of these records, in both directions, is missed or refused."""
        for security, direction, number in EVERY_RECORD:
            if number in numbers:
                said = SAID[direction] if number == END else b""
                self.noticed(security, direction, number, make(direction, number), what, said)

    def test_dropped(self) -> None:
        """A record that does not come is missed."""
        self.everywhere(
            "dropped",
            lambda where, number: replace(where, number, lambda m: []),
            OPENING,
            DATA,
            END,
        )

    def test_swapped(self) -> None:
        """Of two records that come in the other order neither is delivered."""

        def swap(direction: str, number: int) -> Tamper:
            held: list[bytes | None] = []

            def tamper(where: str, which: int, message: bytes) -> list[bytes | None]:
                if where != direction or which not in (number, number + 1):
                    return [message]
                held.append(message)
                return held[::-1] if which == number + 1 else []

            return tamper

        self.everywhere("swapped", swap, OPENING, DATA)

    def test_repeated(self) -> None:
        """A record that comes again is delivered once, and ends the connection; nothing is read
        after the end.
        """
        for security, direction, number in EVERY_RECORD:
            if number != END:
                twice = replace(direction, number, lambda message: [message, message])
                # Behind the opening, which has come once, there is a session.
                said = SAID[direction] if number == DATA else b""
                self.noticed(security, direction, DATA, twice, f"{number} repeated", said)
        for security, direction in EVERYWHERE:
            twice = replace(direction, END, lambda message: [message, message])
            self.assertTrue(
                self.attempt(security, twice, "repeated end", closes=direction).harmless
            )

    def test_from_before(self) -> None:
        """An earlier record of the session cannot stand for a later one: an opening is not an end
        of stream.
        """

        def old(direction: str, number: int) -> Tamper:
            first: list[bytes | None] = []

            def tamper(where: str, which: int, message: bytes) -> list[bytes | None]:
                if where == direction and not first and which != TOKEN:
                    first.append(message)
                return first if (where, which) == (direction, number) else [message]

            return tamper

        for security, direction in EVERYWHERE:
            for number in RECORDS[direction][1:]:
                said = SAID[direction] if number == END else b""
                self.noticed(
                    security, direction, number, old(direction, number), "from before", said
                )

    def test_reflected(self) -> None:
        """A side's own words are nothing that its peer said."""

        self.everywhere("reflected", reflect, OPENING, DATA, END)

    def test_from_another_session(self) -> None:
        """A record of another session of the same client and service, in the same place, is
        refused.
        """
        for security, direction in EVERYWHERE:
            others = self.messages(security, closes=direction)
            for number in RECORDS[direction]:
                other = others[direction, number]
                said = SAID[direction] if number == END else b""
                tamper = replace(direction, number, lambda message, other=other: [other])  # type: ignore[misc]
                self.noticed(security, direction, number, tamper, "another session's", said)

    def test_of_the_other_protection(self) -> None:
        """A genuine record with less protection than agreed is refused, and so is one with more."""
        for security, direction in EVERYWHERE:
            sender, receiver = self.contexts(security)[direction]
            seal = security.protection is Protection.SIGN
            records = records_on(receiver, security)
            records.feed(security.wire.protect(sender, QUESTION, seal))
            with self.assertRaises((RecordError, ProtocolViolation)):
                records.next_event()

    def test_plain_text(self) -> None:
        """Bytes that nobody protected are no record."""
        for security, direction in EVERYWHERE:
            plain = security.wire.record(
                b"what is the question, in the clear, and long enough for a header and a signature?"
            )
            tamper = replace(direction, DATA, lambda message, plain=plain: [plain, message])  # type: ignore[misc]
            self.noticed(security, direction, DATA, tamper, "plain text", b"")


class TokenTests(MiddleCase):
    """A client's token again, or more than one of them."""

    def test_replayed(self) -> None:
        """All that a client said opens nothing when another says it again."""
        for security in CHANNELS:
            messages = self.messages(security)
            server = answering(self.keys.acceptor("client"), security)
            for number in (TOKEN, OPENING, DATA, END):
                server.receive(messages[UP, number])
            self.assertEqual(server.factory.built, [])
            self.assertIn("the same request was seen before (replay)", str(server.error))
            self.assertTrue(server.transport.disconnecting)

    def test_on_the_same_connection(self) -> None:
        """A token that comes twice on one connection ends the session it opened, before a byte of
        it.
        """
        for security in CHANNELS:
            twice = replace(UP, TOKEN, lambda message: [message, message])
            attempt = self.attempt(security, twice, "token twice")
            self.assertEqual(attempt.server, b"", name(security))
            self.assertIsInstance(attempt.server_error, NOTICED)

    def test_of_another_session(self) -> None:
        """A service's token for another client, or for an earlier connection of this one, proves
        nothing.
        """
        for security in CHANNELS:
            other = self.messages(security)[DOWN, TOKEN]
            attempt = self.attempt(
                security,
                replace(DOWN, TOKEN, lambda message, other=other: [other]),
                "another's reply",
            )
            self.assertEqual(
                (attempt.spn, attempt.client, attempt.server), (None, b"", b""), name(security)
            )


class SizeTests(RecordCase):
    """The largest there may be, and one byte more."""

    #: What protection adds to the plaintext of a record's body: RFC 4121 with AES-256; winsock says
    #: the trailer's size.
    ADDED = {
        (NNS, Protection.SEAL): 60,
        (NNS, Protection.SIGN): 28,
        (WINSOCK, Protection.SEAL): 64,
        (WINSOCK, Protection.SIGN): 28,
    }
    LARGEST = {NNS: 65_536, WINSOCK: 65_535}

    def test_records(self) -> None:
        """A genuine record with the largest body is delivered, and one with a byte more is refused
        for its size.
        """
        for security, direction in EVERYWHERE:
            wire, seal = security.wire, security.protection is Protection.SEAL
            sender, receiver = self.contexts(security)[direction]
            most = self.LARGEST[wire] - self.ADDED[wire, security.protection]
            for size in (most, most + 1):
                records = records_on(receiver, security)
                frame = wire.protect(sender, bytes(size), seal)
                self.assertEqual(len(frame), 4 + self.LARGEST[wire] + size - most, name(security))
                records.feed(frame)
                if size == most:
                    self.assertEqual(records.next_event(), Data(bytes(size)))
                else:
                    with self.assertRaisesRegex(
                        ProtocolViolation, r"claims (65537|more than 65535) bytes"
                    ):
                        records.next_event()

    def clients(self, security: SecurityOptions, size: int) -> Iterator[Peer]:
        """Clients whose tokens have this many bytes, or nearly: their name, on the ticket and
        beside it, is very long.
        """
        named, filled = (size - 1000) // 2, 1
        while True:
            spn = SPN("echoSvc", "srv1.test.example", "x" * filled)
            credentials = ClientCredentials(
                ccache=self.realm.ccache("a" * named, str(spn), "svc-echo")
            )
            yield asking(KerberosInitiator(spn, credentials, security.protection), security)
            found = len(KerberosInitiator(spn, credentials, security.protection).step(None).token)
            filled += size - found

    def test_largest_token(self) -> None:
        """A token of 65,535 bytes authenticates its client as any other."""
        for security in (SecurityOptions(NNS), SecurityOptions(WINSOCK)):
            # Numbers in it now and then take a byte less than usual.
            for client in islice(self.clients(security, 65_535), 20):
                server = answering(self.keys.acceptor("client"), security)
                seen: list[int] = []

                def note(
                    direction: str, number: int, message: bytes, seen: list[int] = seen
                ) -> list[bytes | None]:
                    seen.append(len(message))
                    return [message]

                attempt = Conversation(client, server, security, note).hold()
                if seen and seen[0] == HEADER[security.wire.name] + 65_535:
                    break
            else:
                self.fail("no token came out that large")
            self.assertTrue(attempt.harmless)
            self.assertEqual((attempt.client, attempt.server), (ANSWER, QUESTION))
            self.assertRegex(attempt.principals[0], "^a{32000,}@TEST.EXAMPLE$")

    def test_too_large_a_token(self) -> None:
        """A client whose token fits into no frame says so, and sends nothing of it."""
        for security in (SecurityOptions(NNS), SecurityOptions(WINSOCK)):
            *_, client = islice(self.clients(security, 65_540), 4)
            self.assertEqual(client.factory.built, [])
            self.assertRegex(
                str(client.error), "a token of 655[34][0-9] bytes is too large to send"
            )
            sent = client.transport.take()
            self.assertLess(len(sent), 20)
            self.assertTrue(client.transport.disconnecting)

    def test_largest_junk(self) -> None:
        """As large a token that is invalid is refused by either side at once."""
        for security in (SecurityOptions(NNS), SecurityOptions(WINSOCK)):
            for peer in (
                asking(self.initiator(security), security),
                answering(self.keys.acceptor("client"), security),
            ):
                peer.transport.take()
                peer.receive(security.wire.token(b"\x60" * 65_535, True))
                self.assertEqual(peer.factory.built, [])
                self.assertIsInstance(peer.error, AuthenticationError)
                self.assertTrue(peer.transport.disconnecting)


class SilenceTests(CutTests):
    """A stream that goes silent, and one that is cut, on the Twisted driver, with its limits."""

    driver = True

    def test_silent(self) -> None:
        """A service from whose client nothing more comes ends the session when it has been idle; a
        client waits.
        """
        for security, direction, number, end, said in self.places():
            tamper = silence(direction, number, end)
            attempt = self.attempt(
                security, tamper, f"{number} silent from {end}", closes=direction, mute=direction
            )
            received, error = self.received(attempt, direction)
            self.assertEqual(received, said)
            if number == OPENING:
                self.assertIs(type(error), NetworkError)
                self.assertIn(
                    "a mutauth client's first record did not come within 10 s", str(error)
                )
                self.assertEqual(attempt.principals, ())
            elif direction == UP:
                self.assertIs(type(error), SessionEnded, (name(security), number, end))
            else:
                self.assertTrue(attempt.gave_up)


class BytewiseFlipTests(FlipTests):
    """The same, where all comes a byte at a time."""

    size = 1


class BytewiseCutTests(CutTests):
    """The same, where all comes a byte at a time."""

    size = 1


class BytewiseOrderTests(OrderTests):
    """The same, where all comes a byte at a time."""

    size = 1


class DriverOrderTests(OrderTests):
    """The same on the Twisted driver."""

    driver = True
