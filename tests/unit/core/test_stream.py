"""Bytes inside TLS: whatever they are and however they are cut, they arrive, at once, and so does
the end.
"""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.records import Data, EndOfStream, Refused
from mutauth_twisted.core.stream import Stream, secret
from mutauth_twisted.errors import ProtocolViolation, RecordError, StreamCut
from mutauth_twisted.testing.fakes import chunked

UP, DOWN = secret(bytes(range(16))), secret(bytes(range(16, 32)))


def pair(up: bytes = UP, down: bytes = DOWN, rest: bytes = b"") -> tuple[Stream, Stream]:
    """Both sides."""
    client = Stream(up, down, b"", "service", initiator=True)
    return client, Stream(down, up, rest, "client", initiator=False)


def read(stream: Stream) -> list[bytes | EndOfStream | Refused]:
    """Everything that is certain by now."""
    found: list[bytes | EndOfStream | Refused] = []
    while (event := stream.next_event()) is not None:
        found.append(event.data if isinstance(event, Data) else event)
    return found


class StreamTests(SynchronousTestCase):
    """One direction."""

    def test_as_it_is(self) -> None:
        """Bytes travel as they are, without a copy of their own."""
        client, service = pair()
        data = bytes(20_000)
        (sent,) = client.protect(data)
        self.assertIs(sent, data)
        service.feed(sent)
        event = service.next_event()
        assert isinstance(event, Data)
        self.assertIs(event.data, data)
        self.assertEqual((client.protect(b""), client.opening()), ([], b""))

    def test_end(self) -> None:
        """The end is seen, and anything behind it is an error."""
        client, service = pair()
        service.feed(b"last" + client.end_of_stream())
        self.assertIsInstance(service.cut(), StreamCut)
        self.assertEqual(read(service), [b"last", EndOfStream()])
        self.assertIsNone(service.cut())
        service.feed(b"more")
        self.assertRaises(RecordError, service.next_event)

    def test_refusal(self) -> None:
        """A service's reason comes whole or not at all, in any pieces, and only before data."""
        client, service = pair()
        service.refuse("backend-unreachable")
        said = service.end_of_stream()
        for end in range(len(said)):
            client, _ = pair()
            for byte in said[:end]:
                client.feed(bytes([byte]))
                self.assertEqual(read(client), [])
            self.assertIsInstance(client.cut(), StreamCut)
        client.feed(said[-1:])
        self.assertEqual(read(client), [Refused("backend-unreachable")])
        self.assertIsNone(client.cut())
        client, service = pair()
        client.feed(service.protect(b"data")[0] + said)
        with self.assertRaises(ProtocolViolation):
            read(client)
        with self.assertRaises(AssertionError):
            service.refuse("backend-unreachable")
        with self.assertRaises(AssertionError):
            client.refuse("backend-unreachable")

    def test_refusal_without_an_end(self) -> None:
        """A reason is a code, and so has few bytes."""
        for words in (b"x" * 65, b"It is\n" + DOWN + b"\1"):
            client, _ = pair()
            client.feed(DOWN + b"\2" + words)
            with self.assertRaises(ProtocolViolation):
                read(client)

    def test_refused_by_a_client(self) -> None:
        """A client has nothing to refuse."""
        _, service = pair()
        service.feed(UP + b"\2backend-unreachable" + UP + b"\1")
        with self.assertRaises(ProtocolViolation):
            read(service)

    def test_the_other_direction(self) -> None:
        """Bytes that a peer gets sent are not an end when they come back, as from an echo."""
        _, service = pair()
        service.feed(service.end_of_stream())
        self.assertEqual(read(service), [DOWN + b"\1"])
        self.assertFalse(service.ended)

    def test_unknown_mark(self) -> None:
        """A mark of another meaning ends the connection."""
        _, service = pair()
        service.feed(UP + b"\2")
        self.assertRaises(ProtocolViolation, service.next_event)

    def test_secrets(self) -> None:
        """Every bit that was drawn counts, and a secret has none of the bytes that data is full
        of.
        """
        secrets = {secret(bytes((value, 0))) for value in range(256)}
        self.assertEqual((len(secrets), {len(each) for each in secrets}), (256, {4}))
        self.assertFalse(
            set(secret(bytes(range(256))))
            & {*b"\0\n\r \xff", *b"abcdefghijklmnopqrstuvwxyz0123456789"}
        )

    def test_flood(self) -> None:
        """Bytes that come unasked while nobody reads are bounded."""
        _, service = pair()
        service.feed(bytes(0x20001))
        self.assertRaises(ProtocolViolation, service.feed, b"x")

    def test_what_the_handshake_left(self) -> None:
        """Bytes that came with the handshake's last frame are the first."""
        _, service = pair(rest=b"first")
        self.assertEqual(read(service), [b"first"])

    @settings(deadline=None, max_examples=400)
    @given(
        st.sampled_from((b"\0\1", b"\0\0\1", b"\0\1\1", b"\0\0\1\1", b"\1\0\0\0", b"\1\2\0")),
        st.lists(st.lists(st.integers(0, 2), max_size=12).map(bytes), max_size=8),
        st.lists(st.integers(0, 200), max_size=20),
    )
    @example(b"\0\1", [b"\0", b"\1"], [])
    def test_any_cut(self, mark: bytes, pieces: list[bytes], cuts: list[int]) -> None:
        """With a secret so short that everything may begin one: nothing is lost, added, or kept
        back.
        """
        client, service = pair(up=mark)
        # A piece with the secret in it is what no application can say.  Two that make one together
        # it may.
        pieces = [piece for piece in pieces if mark not in piece]
        for piece in pieces:
            service.feed(b"".join(client.protect(piece)))
            self.assertEqual(
                b"".join(each for each in read(service) if isinstance(each, bytes)), piece
            )
        wire = (
            b"".join(b"".join(client.protect(piece)) for piece in pieces) + client.end_of_stream()
        )
        _, service = pair(up=mark)
        received: list[bytes | EndOfStream | Refused] = []
        for chunk in chunked(wire, tuple(cuts)):
            service.feed(chunk)
            received += read(service)
        self.assertEqual(
            b"".join(each for each in received if isinstance(each, bytes)), b"".join(pieces)
        )
        self.assertEqual(received[-1:], [EndOfStream()])
