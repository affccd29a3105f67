"""Records inside TLS: bounds, chunks, and what an exchange left behind."""

from __future__ import annotations

import struct
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.records import Data, EndOfStream, Records
from mutauth_twisted.policy import Protection
from mutauth_twisted.wire import NNS, PLAIN, WIRES, FrameError
from tests.fakes import chunked

NO_CONTEXT = cast(Any, None)  # nothing of it is used


def records() -> Records:
    """One side's records."""
    return Records(NO_CONTEXT, Protection.TLS, PLAIN, PLAIN.reader(), "peer")


class PlainTests(SynchronousTestCase):
    """The wire that nobody may choose."""

    def test_layout(self) -> None:
        """A record is its length in four little-endian bytes and the data; an empty one is one."""
        self.assertEqual(PLAIN.protect(NO_CONTEXT, b"abc", False), b"\x03\0\0\0abc")
        self.assertEqual(PLAIN.protect(NO_CONTEXT, b"", False), bytes(4))
        self.assertNotIn(PLAIN, WIRES.values())

    def test_limits(self) -> None:
        """65,536 bytes are taken, one more is refused at its length, before it comes."""
        reader = PLAIN.reader()
        reader.feed(struct.pack("<I", 0x10000) + bytes(0x10000) + struct.pack("<I", 0x10001))
        self.assertEqual(len(reader.next_record() or b""), 0x10000)
        self.assertRaises(FrameError, reader.next_record)

    def test_full_tls_records(self) -> None:
        """What is written at once fills TLS records of 16,384 bytes."""
        frames = records().protect(bytes(200_000))
        self.assertEqual({len(frame) for frame in frames[:-1]}, {4 * 0x4000})

    def test_what_the_exchange_left(self) -> None:
        """Records that came with the last frame of the exchange are handed over, and only once."""
        reader = NNS.reader()
        reader.feed(NNS.token(b"last", True) + PLAIN.record(b"first"))
        reader.next_frame()
        plain = PLAIN.reader()
        plain.feed(reader.take_rest())
        self.assertEqual((plain.next_record(), reader.take_rest(), reader.pending), (b"first", b"", 0))

    @settings(deadline=None)
    @given(st.lists(st.binary(max_size=300)), st.lists(st.integers(0, 3000)))
    def test_chunks(self, pieces: list[bytes], cuts: list[int]) -> None:
        """However the stream is cut, what was written is read, and then its end."""
        sender, receiver = records(), records()
        stream = sender.announcement() + b"".join(frame for piece in pieces for frame in sender.protect(piece))
        received = b""
        for chunk in chunked(stream + sender.end_of_stream(), tuple(cuts)):
            receiver.feed(chunk)
            while (event := receiver.next_event()) is not None:
                received += event.data if isinstance(event, Data) else b"" if isinstance(event, EndOfStream) else b"?"
        self.assertEqual(received, b"".join(pieces))
        self.assertTrue(receiver.ended)
        self.assertIsNone(receiver.cut())
