"""The SDK sample's messages: byte for byte, as a handshake, and as records of real contexts."""

from __future__ import annotations

import struct
from itertools import product
from typing import Any, cast

from gssapi.raw import IOV, IOVBufferType, wrap_iov
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.core.records import Data, EndOfStream
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import (
    AccessDenied,
    MutualAuthError,
    NetworkError,
    PeerNotAuthenticated,
    ProtocolViolation,
    RecordError,
)
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator, ServiceKeys
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.testing.fakes import (
    ALL_FLAGS,
    SECRET,
    SPN_ASKED,
    FakeContext,
    Player,
    chunked,
    converse,
)
from mutauth_twisted.testing.forge import make_realm
from mutauth_twisted.wire import WINSOCK, WIRES, FrameError, Token
from tests.support.records import records_on

CHANNEL = SecurityOptions(wire=WINSOCK)
TOKEN_1 = WINSOCK.token(SECRET + b"token 1", False)
TOKEN_2 = WINSOCK.token(SECRET + b"token 2", True)


def read(kind: str, data: bytes, cuts: tuple[int, ...] = ()) -> list[Any]:
    """The frames or records a reader finds when the data comes in pieces; nothing may be left."""
    reader, found = WINSOCK.reader(), []
    for chunk in chunked(data, cuts):
        reader.feed(chunk)
        while (one := getattr(reader, kind)()) is not None:
            found.append(one)
    assert reader.pending == 0
    return found


class MessageTests(SynchronousTestCase):
    """Messages on the wire."""

    def test_layout(self) -> None:
        """A message is its length in four little-endian bytes and its body; nothing is sent for an
        empty token.
        """
        self.assertEqual(WINSOCK.token(b"abc", False), b"\x03\x00\x00\x00abc")
        self.assertEqual(WINSOCK.token(b"abc", True), b"\x03\x00\x00\x00abc")
        self.assertEqual(WINSOCK.record(b"abcde"), b"\x05\x00\x00\x00abcde")
        self.assertEqual((WINSOCK.token(b"", True), WINSOCK.fault(5)), (b"", b""))

    def test_received(self) -> None:
        """Tokens and records are read back; none of them says that it is the last."""
        self.assertEqual(
            read("next_frame", b"\x03\x00\x00\x00abc\x01\x00\x00\x00d"),
            [Token(b"abc", False), Token(b"d", False)],
        )
        self.assertEqual(read("next_record", b"\x03\x00\x00\x00abc"), [b"abc"])

    def test_limits(self) -> None:
        """Bodies of 1 to 65535 bytes pass; none, or one byte more, is refused at the length, or
        before it is there.
        """
        for kind in ("next_frame", "next_record"):
            for size in (1, 65535):
                (found,) = read(kind, struct.pack("<I", size) + bytes(size))
                self.assertEqual(getattr(found, "payload", found), bytes(size))
            for start in (
                bytes(4),
                b"\x00\x00\x01",
                struct.pack("<I", 0xFFFFFFFF),
                b"\x05\x00\x00\x01",
            ):
                reader = WINSOCK.reader()
                reader.feed(start)
                self.assertRaises(FrameError, getattr(reader, kind))

    def test_incomplete(self) -> None:
        """Nothing comes out before its last byte came in."""
        data = WINSOCK.record(b"token")
        for kind in ("next_frame", "next_record"):
            for end in range(len(data)):
                reader = WINSOCK.reader()
                reader.feed(data[:end])
                self.assertIsNone(getattr(reader, kind)())
                self.assertEqual(reader.pending, end)

    def test_foreign_protocols(self) -> None:
        """A peer of another protocol is found out at its fourth byte, at the latest."""
        for banner in (
            b"SSH-2.0",
            b"GET /",
            b"220 x",
            b"\x16\x03\x01\x02\x00",
            b"\x16\x01\x00\x03\xff",
            b"\0\0\0\0",
        ):
            reader = WINSOCK.reader()
            reader.feed(banner[:4])
            self.assertRaises(FrameError, reader.next_frame)

    def test_unread_bytes_are_bounded(self) -> None:
        """A peer that goes on sending while nobody takes its messages is stopped."""
        reader, fed = WINSOCK.reader(), 0
        with self.assertRaisesRegex(FrameError, "go on coming"):
            for _ in range(100):
                reader.feed(bytes(16384))
                fed += 16384
        self.assertLess(fed, 160 * 1024)

    def test_fits_the_sample(self) -> None:
        """The largest record we send fits into the sample's 12,000 bytes, with the trailer of
        AES-256.
        """
        self.assertLessEqual(4 + 60 + WINSOCK.max_plaintext, 12_000)

    @settings(max_examples=150, deadline=None)
    @given(
        bodies=st.lists(st.binary(min_size=1, max_size=300), max_size=8),
        cuts=st.lists(st.integers(0, 3000), max_size=30).map(tuple),
    )
    def test_chunks(self, bodies: list[bytes], cuts: tuple[int, ...]) -> None:
        """Any messages in any chunks come out as they went in."""
        data = b"".join(map(WINSOCK.record, bodies))
        self.assertEqual(read("next_record", data, cuts), bodies)
        self.assertEqual(read("next_frame", data, cuts), [Token(body, False) for body in bodies])

    @settings(max_examples=300, deadline=None)
    @given(
        data=st.binary(max_size=100)
        | st.binary(max_size=50).map(lambda tail: b"\x20\x00\x00\x00" + tail)
    )
    def test_anything(self, data: bytes) -> None:
        """On any input, a reader returns a message, waits, or raises a FrameError."""
        for kind in ("next_frame", "next_record"):
            reader = WINSOCK.reader()
            reader.feed(data)
            try:
                while getattr(reader, kind)() is not None:
                    pass
            except FrameError as error:
                self.assertNotEqual(str(error), "")
            else:
                self.assertLess(reader.pending, 4 + 65535)

    def test_the_table_of_wires(self) -> None:
        """Options find this wire by its name."""
        self.assertIs(WIRES["winsock"], WINSOCK)


class HandshakeTests(SynchronousTestCase):
    """A handshake in which nobody says that it is done."""

    def test_any_number_of_tokens(self) -> None:
        """One to seven tokens end with both applications, and data flows, in one chunk and byte by
        byte.
        """
        for legs, bytewise, mutauth in product(range(1, 8), (False, True), (False, True)):
            client = Player(FakeContext(initiator=True, legs=legs), security=CHANNEL)
            server = Player(
                FakeContext(initiator=False, legs=legs, mutauth=mutauth), security=CHANNEL
            )
            converse(client, server, bytewise=bytewise)
            self.assertEqual(
                (client.results, server.results), ([client.application], [server.application])
            )
            self.assertEqual((client.context.verified, server.context.verified), (1, 1))
            for side in (client, server):
                # Where the client has the last token there is none of the service's that could be
                # marked.
                identity = cast(Any, side.application.transport).peer_identity
                self.assertIs(identity.mutauth, mutauth and legs % 2 == 0, (legs, mutauth))
            cast(Any, client.application.transport).write(b"question")
            cast(Any, server.application.transport).write(b"answer")
            converse(client, server, bytewise=bytewise)
            self.assertEqual(
                (server.application.received, client.application.received),
                ([b"question"], [b"answer"]),
            )

    def test_nothing_early(self) -> None:
        """Neither side builds an application or says more before the other's last byte."""
        for initiator, token in ((False, TOKEN_1), (True, TOKEN_2)):
            side = Player(FakeContext(initiator=initiator), security=CHANNEL)
            side.transport.take()
            for byte in token[:-1]:
                side.receive(bytes([byte]))
                self.assertEqual(
                    (side.factory.built, side.transport.take(), side.results), ([], b"", [])
                )
            side.receive(token[-1:])
            self.assertEqual(side.results, [side.application])

    def test_missing_flags(self) -> None:
        """Without any one of the flags required neither side has a connection, nor gets the other a
        last token.
        """
        for flag in (Flag.MUTUAL, Flag.CONFIDENTIALITY, Flag.INTEGRITY):
            for initiator, token in ((False, TOKEN_1), (True, TOKEN_2)):
                side = Player(
                    FakeContext(initiator=initiator, flags=ALL_FLAGS & ~flag), security=CHANNEL
                )
                side.transport.take()
                side.receive(token)
                self.assertIsInstance(side.error, PeerNotAuthenticated)
                self.assertEqual((side.factory.built, side.transport.take()), ([], b""))
                self.assertTrue(side.transport.disconnecting)

    def test_wrong_lengths(self) -> None:
        """A token whose length was changed gives no connection, and ends at the deadline at the
        latest.
        """
        for initiator, token in ((False, TOKEN_1), (True, TOKEN_2)):
            for size in (0, 1, len(token) - 5, len(token) - 3, 65535, 65536, 0xFFFFFFFF):
                side = Player(FakeContext(initiator=initiator), security=CHANNEL)
                side.receive(struct.pack("<I", size) + token[4:])
                side.reactor.advance(CHANNEL.timeout)
                self.assertIsInstance(side.error, MutualAuthError, size)
                self.assertEqual((side.factory.built, side.context.verified), ([], 0))
                self.assertTrue(side.transport.disconnecting)

    def test_one_way(self) -> None:
        """A service that sends records at once, without a token of its own, has authenticated
        nothing.
        """
        client, impostor = (
            Player(FakeContext(initiator=True), security=CHANNEL),
            FakeContext(initiator=False),
        )
        client.receive(WINSOCK.protect(impostor, b"welcome", True))
        self.assertIsInstance(client.error, MutualAuthError)
        self.assertEqual(client.factory.built, [])

    def test_denied(self) -> None:
        """A client that is denied sees the connection close, and no token that would have completed
        its side.
        """

        def authorize(identity: PeerIdentity) -> None:
            raise AccessDenied(identity.principal, "not allowed")

        client = Player(FakeContext(initiator=True), security=CHANNEL)
        server = Player(FakeContext(initiator=False), security=CHANNEL, authorize=authorize)
        converse(client, server)
        self.assertIsInstance(server.error, AccessDenied)
        client.lose()
        self.assertIsInstance(client.error, NetworkError)

    def test_error_token(self) -> None:
        """A service that does not accept a token sends its error token; a client's reaches
        nobody.
        """
        for initiator, token in ((False, TOKEN_1), (True, TOKEN_2)):
            context = FakeContext(initiator=initiator)
            side = Player(context, security=CHANNEL)
            side.transport.take()
            context.fails, context.error_token = PeerNotAuthenticated("peer", "no"), b"because"
            side.receive(token)
            self.assertEqual(
                side.transport.take(), b"" if initiator else WINSOCK.token(b"because", False)
            )
            self.assertIsInstance(side.error, PeerNotAuthenticated)


class RecordCase(SynchronousTestCase):
    """Both ends of a stream between real Kerberos contexts."""

    security = SecurityOptions(WINSOCK, Protection.SEAL)

    def setUp(self) -> None:
        realm = make_realm(self)
        ccache = realm.ccache("alice", str(SPN_ASKED), "svc-echo")
        client: Any = KerberosInitiator(
            SPN_ASKED, ClientCredentials(ccache=ccache), self.security.protection
        )
        server: Any = ServiceKeys(ServiceCredentials(realm.keytab("svc-echo"))).acceptor("client")
        client.step(server.step(client.step(None).token).token)
        self.client, self.server = client, server
        self.sender = records_on(client, self.security, initiator=True)
        self.receiver = records_on(server, self.security)

    def receive(self, data: bytes) -> list[Any]:
        """Bytes that come out at the other end."""
        self.receiver.feed(data)
        events = []
        while (event := self.receiver.next_event()) is not None:
            events.append(event)
        return events


class SealedTests(RecordCase):
    """``size trailer ciphertext``."""

    def test_layout(self) -> None:
        """The trailer's size comes first; what follows is the trailer and as many bytes as there
        were, sealed.
        """
        frame = WINSOCK.protect(self.client, b"for your eyes", True)
        self.assertEqual(struct.unpack_from("<II", frame), (4 + 60 + 13, 60))
        self.assertNotIn(b"eyes", frame)
        self.assertEqual(frame[8:10], b"\x05\x04")  # RFC 4121 4.2.6.2: a wrap token
        self.assertEqual(WINSOCK.unprotect(self.server, frame[4:], True), (b"for your eyes", True))

    def test_stream(self) -> None:
        """Data of any size, one byte among them, and the end arrive."""
        data = bytes(range(256)) * 200
        frames = [*self.sender.protect(b"x"), *self.sender.protect(data)]
        self.assertEqual(len(frames), 1 + -(-len(data) // WINSOCK.max_plaintext))
        events = self.receive(b"".join(frames) + self.sender.end_of_stream())
        self.assertEqual(events[0], Data(b"x"))
        self.assertEqual(b"".join(event.data for event in events[1:-1]), data)
        self.assertEqual(events[-1], EndOfStream())
        self.assertEqual(b"x", bytes([120]))

    def test_flipped(self) -> None:
        """A record with any bit changed, in its length, its trailer's size or anywhere else, is not
        delivered.
        """
        (frame,) = self.sender.protect(b"genuine")
        for position in range(len(frame)):
            for bit in (0, 7):
                changed = (
                    frame[:position] + bytes([frame[position] ^ 1 << bit]) + frame[position + 1 :]
                )
                receiver = records_on(self.server, self.security)
                receiver.feed(changed)
                try:
                    event = receiver.next_event()
                except (RecordError, ProtocolViolation):
                    continue
                # Longer than what came: it waits for the rest, which is never right.
                self.assertIsNone(event, (position, bit))
                self.assertLess(position, 4)
        self.assertEqual(self.receive(frame), [Data(b"genuine")])

    def test_order(self) -> None:
        """Records that are dropped, repeated or swapped are not delivered."""
        first, second = (self.sender.protect(data)[0] for data in (b"one", b"two"))
        self.assertRaises(RecordError, self.receive, second)
        self.setUp()
        first, second = (self.sender.protect(data)[0] for data in (b"one", b"two"))
        self.assertEqual(self.receive(first), [Data(b"one")])
        self.assertRaises(RecordError, self.receive, first)

    def test_less_than_agreed(self) -> None:
        """A record that is signed and not sealed, in either layout, is refused."""
        parts = IOV(IOVBufferType.header, b"for all", IOVBufferType.padding, std_layout=False)
        wrap_iov(self.client._context, parts, confidential=False)
        header, data = (part.value or b"" for part in parts[:2])
        body = struct.pack("<I", len(header)) + header + data
        with self.assertRaisesRegex(RecordError, "signed only where sealed"):
            self.receive(WINSOCK.record(body))
        with self.assertRaises((RecordError, ProtocolViolation)):
            self.receive(WINSOCK.protect(self.client, b"for all", False))

    def test_short(self) -> None:
        """A body without room for a trailer is not a record."""
        for body in (
            b"x",
            bytes(3),
            struct.pack("<I", 1),
            struct.pack("<I", 0xFFFFFFFF) + bytes(60),
        ):
            receiver = records_on(self.server, self.security)
            receiver.feed(WINSOCK.record(body))
            self.assertRaises(ProtocolViolation, receiver.next_event)


class SignedTests(RecordCase):
    """``signature data``."""

    security = SecurityOptions(WINSOCK, Protection.SIGN)

    def test_layout(self) -> None:
        """The signature comes first, then the data as it is."""
        frame = WINSOCK.protect(self.client, b"for all to read", False)
        self.assertEqual(
            frame[:6], struct.pack("<I", 28 + 15) + b"\x04\x04"
        )  # RFC 4121 4.2.6.1: a MIC token
        self.assertTrue(frame.endswith(b"for all to read"))
        self.assertEqual(
            WINSOCK.unprotect(self.server, frame[4:], False), (b"for all to read", False)
        )

    def test_stream(self) -> None:
        """Data and the end arrive."""
        frames = [*self.sender.protect(b"hello"), self.sender.end_of_stream()]
        self.assertEqual(self.receive(b"".join(frames)), [Data(b"hello"), EndOfStream()])

    def test_attacks(self) -> None:
        """Records that are changed, repeated or dropped are not delivered."""
        frames = [
            frame for data in (b"zero", b"one", b"two") for frame in self.sender.protect(data)
        ]
        self.assertEqual(self.receive(frames[0]), [Data(b"zero")])
        for position in range(4, len(frames[1])):
            changed = (
                frames[1][:position] + bytes([frames[1][position] ^ 1]) + frames[1][position + 1 :]
            )
            self.assertRaises(RecordError, self.receive, changed)
        self.assertRaises(RecordError, self.receive, frames[0])
        self.assertRaises(RecordError, self.receive, frames[2])

    def test_short(self) -> None:
        """A body shorter than a signature is not a record."""
        with self.assertRaisesRegex(
            ProtocolViolation, "no room for its signature; give both sides the same protection"
        ):
            self.receive(WINSOCK.record(bytes(27)))
