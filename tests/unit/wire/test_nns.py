"""MS-NNS frames and records, byte for byte."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.testing.fakes import chunked
from mutauth_twisted.wire import NNS, WIRES, Fault, FrameError, Token

Frame = Token | Fault


def read_frames(data: bytes, cuts: tuple[int, ...] = ()) -> list[Frame]:
    """The frames a reader finds when the data comes in pieces; nothing may be left."""
    reader, frames = NNS.reader(), []
    for chunk in chunked(data, cuts):
        reader.feed(chunk)
        while (frame := reader.next_frame()) is not None:
            frames.append(frame)
    assert reader.pending == 0
    return frames


def read_records(data: bytes, cuts: tuple[int, ...] = ()) -> list[bytes]:
    """The records a reader finds when the data comes in pieces; nothing may be left."""
    reader, records = NNS.reader(), []
    for chunk in chunked(data, cuts):
        reader.feed(chunk)
        while (record := reader.next_record()) is not None:
            records.append(record)
    assert reader.pending == 0
    return records


class FrameTests(SynchronousTestCase):
    """Frames of the handshake, as MS-NNS 2.2.1 lays them out."""

    def test_in_progress(self) -> None:
        """A token that is not the last goes out with id 0x16, version 1.0 and a big-endian size."""
        self.assertEqual(NNS.token(b"abc", False), b"\x16\x01\x00\x00\x03abc")

    def test_done(self) -> None:
        """The last token goes out with id 0x14; it may be empty."""
        self.assertEqual(NNS.token(b"xy", True), b"\x14\x01\x00\x00\x02xy")
        self.assertEqual(NNS.token(b"", True), b"\x14\x01\x00\x00\x00")

    def test_fault(self) -> None:
        """An error frame carries its code as eight big-endian bytes, as .NET sends it."""
        self.assertEqual(NNS.fault(1790), b"\x15\x01\x00\x00\x08\x00\x00\x00\x00\x00\x00\x06\xfe")

    def test_received(self) -> None:
        """Every kind of frame is read back for what it is."""
        for data, frame in (
            (b"\x16\x01\x00\x00\x03abc", Token(b"abc", False)),
            (b"\x14\x01\x00\x00\x02xy", Token(b"xy", True)),
            (b"\x14\x01\x00\x00\x00", Token(b"", True)),
            (b"\x15\x01\x00\x00\x08\x00\x00\x00\x00\x00\x00\x06\xfe", Fault(1790)),
        ):
            self.assertEqual(read_frames(data), [frame])

    def test_negative_hresult(self) -> None:
        """An HRESULT that .NET widened to eight bytes with its sign is the code it was."""
        data = b"\x15\x01\x00\x00\x08\xff\xff\xff\xff\x80\x09\x03\x0c"
        self.assertEqual(read_frames(data), [Fault(0x8009030C)])

    def test_version_is_ignored(self) -> None:
        """The version bytes mean nothing to a receiver."""
        self.assertEqual(read_frames(b"\x16\x09\xff\x00\x01a"), [Token(b"a", False)])

    def test_largest_token(self) -> None:
        """A token of 65535 bytes passes in both directions."""
        payload = bytes(NNS.max_token)
        data = NNS.token(payload, False)
        self.assertEqual(data[:5], b"\x16\x01\x00\xff\xff")
        self.assertEqual(read_frames(data), [Token(payload, False)])

    def test_too_large_to_send(self) -> None:
        """A token that no frame can hold is never sent in part."""
        with self.assertRaises(struct.error):
            NNS.token(bytes(NNS.max_token + 1), False)

    def test_byte_by_byte(self) -> None:
        """Frames that drip in are the same frames."""
        data = NNS.token(b"first", False) + NNS.fault(5) + NNS.token(b"", True)
        self.assertEqual(
            read_frames(data, tuple(range(len(data)))),
            [Token(b"first", False), Fault(5), Token(b"", True)],
        )

    def test_incomplete(self) -> None:
        """No frame comes out before its last byte came in."""
        data = NNS.token(b"token", False)
        for end in range(len(data)):
            reader = NNS.reader()
            reader.feed(data[:end])
            self.assertIsNone(reader.next_frame())
            self.assertEqual(reader.pending, end)

    def test_error_frame_of_another_size(self) -> None:
        """An error frame that does not hold eight bytes is refused at its header."""
        reader = NNS.reader()
        reader.feed(b"\x15\x01\x00\x00\x02")
        with self.assertRaisesRegex(FrameError, "2 bytes instead of 8"):
            reader.next_frame()

    def test_tls(self) -> None:
        """A peer that speaks TLS is named for what it is: its records count their kinds as MS-NNS
        does.
        """
        for start, said in (
            (b"\x15\x03\x03\x00\x02", "TLS alert"),
            (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xfc", "TLS"),
        ):
            reader = NNS.reader()
            reader.feed(start)
            with self.assertRaisesRegex(FrameError, said):
                reader.next_frame()

    def test_foreign_protocols(self) -> None:
        """A peer of another protocol is found out at its first byte."""
        for first in set(range(256)) - {0x14, 0x15, 0x16}:
            reader = NNS.reader()
            reader.feed(bytes([first]))
            with self.assertRaisesRegex(FrameError, f"0x{first:02x}"):
                reader.next_frame()

    def test_tokens_stay_out_of_sight(self) -> None:
        """A token's value is not in its representation, which may end in a log."""
        self.assertNotIn("secret", repr(Token(b"secret", True)))


class RecordTests(SynchronousTestCase):
    """Protected records, as MS-NNS 2.2.2 lays them out."""

    def test_layout(self) -> None:
        """A record is its size in four little-endian bytes and its body."""
        self.assertEqual(NNS.record(b"abcde"), b"\x05\x00\x00\x00abcde")

    def test_limits(self) -> None:
        """Bodies of 5 to 65536 bytes pass, as with .NET; one byte less or more is refused at the
        size.
        """
        for size in (5, 65536):
            self.assertEqual(read_records(struct.pack("<I", size) + bytes(size)), [bytes(size)])
        for size in (0, 4, 65537, 0x01000000, 0xFFFFFFFF):
            reader = NNS.reader()
            reader.feed(struct.pack("<I", size))
            with self.assertRaisesRegex(FrameError, str(size)):
                reader.next_record()

    def test_incomplete(self) -> None:
        """No record comes out before its last byte came in."""
        data = NNS.record(b"record")
        for end in range(len(data)):
            reader = NNS.reader()
            reader.feed(data[:end])
            self.assertIsNone(reader.next_record())

    def test_after_frames(self) -> None:
        """Records may follow the last frame in the same chunk."""
        reader = NNS.reader()
        reader.feed(NNS.token(b"t", True) + NNS.record(b"first") + NNS.record(b"second"))
        self.assertEqual(reader.next_frame(), Token(b"t", True))
        self.assertEqual(
            [reader.next_record(), reader.next_record(), reader.next_record()],
            [b"first", b"second", None],
        )

    def test_plaintext_fits(self) -> None:
        """The most plaintext we put in a record leaves room for any wrapping that .NET accepts."""
        self.assertEqual(NNS.max_plaintext, 64_500)
        self.assertLess(NNS.max_plaintext + 1000, 65536)


class FeedTests(SynchronousTestCase):
    """Bytes that wait in a reader."""

    def test_one_large_read(self) -> None:
        """One read of the connection may bring many records."""
        record = NNS.record(bytes(60_000))
        self.assertEqual(read_records(record * 20), [bytes(60_000)] * 20)

    def test_unread_bytes_are_bounded(self) -> None:
        """A peer that goes on sending while nobody takes its frames is stopped."""
        reader, fed = NNS.reader(), 0
        with self.assertRaisesRegex(FrameError, "go on coming"):
            for _ in range(100):
                reader.feed(bytes(16384))
                fed += 16384
        self.assertLess(fed, 160 * 1024)

    def test_pausing_application(self) -> None:
        """Two TLS-sized pieces on top of almost a whole record still find room."""
        reader = NNS.reader()
        for size in (65_539, 32_768, 32_768):
            reader.feed(bytes(size))
        self.assertEqual(reader.pending, 65_539 + 65_536)


class ChunkingTests(SynchronousTestCase):
    """Cuts that the network makes in the stream do not matter."""

    frames = st.lists(
        st.builds(Token, st.binary(max_size=300), st.booleans())
        | st.builds(Fault, st.integers(0, 0xFFFFFFFF)),
        max_size=8,
    )
    cuts = st.lists(st.integers(0, 3000), max_size=30).map(tuple)

    @settings(max_examples=150, deadline=None)
    @given(frames=frames, cuts=cuts)
    def test_frames(self, frames: list[Frame], cuts: tuple[int, ...]) -> None:
        """Any frames in any chunks come out as they went in."""
        data = b"".join(
            NNS.token(frame.payload, frame.done)
            if isinstance(frame, Token)
            else NNS.fault(frame.code)
            for frame in frames
        )
        self.assertEqual(read_frames(data, cuts), frames)

    @settings(max_examples=150, deadline=None)
    @given(records=st.lists(st.binary(min_size=5, max_size=300), max_size=8), cuts=cuts)
    def test_records(self, records: list[bytes], cuts: tuple[int, ...]) -> None:
        """Any records in any chunks come out as they went in."""
        self.assertEqual(read_records(b"".join(map(NNS.record, records)), cuts), records)

    @settings(max_examples=300, deadline=None)
    @given(
        data=st.binary(max_size=200)
        | st.binary(max_size=50).map(lambda tail: b"\x16\x01\x00\x00\x20" + tail)
    )
    def test_anything(self, data: bytes) -> None:
        """On any input, a reader returns a frame, waits, or raises a FrameError."""
        for read in ("next_frame", "next_record"):
            reader = NNS.reader()
            reader.feed(data)
            try:
                while getattr(reader, read)() is not None:
                    pass
            except FrameError as error:
                self.assertNotEqual(str(error), "")
            else:
                self.assertLess(reader.pending, 5 + 65536)

    def test_the_table_of_wires(self) -> None:
        """Options find this wire by its name."""
        self.assertIs(WIRES["nns"], NNS)
