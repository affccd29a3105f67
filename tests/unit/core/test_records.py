"""Application bytes as records: what is delivered, what is refused, what counts as cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.records import Data, EndOfStream, Records, Refused
from mutauth_twisted.errors import ProtocolViolation, RecordError, StreamCut
from mutauth_twisted.protection import Protection
from mutauth_twisted.testing.fakes import FakeContext, chunked
from mutauth_twisted.wire import NNS


def records(
    initiator: bool, protection: Protection = Protection.SEAL, *, mutauth: bool = True
) -> Records:
    """One side of an established connection."""
    context = FakeContext(initiator=initiator)
    return Records(
        context, protection, NNS, NNS.reader(), "peer", initiator=initiator, mutauth=mutauth
    )


def events(side: Records, data: bytes) -> list[Data | EndOfStream | Refused]:
    """Events of a side for received bytes."""
    side.feed(data)
    found = []
    while (event := side.next_event()) is not None:
        found.append(event)
    return found


class StreamTests(SynchronousTestCase):
    """Two mutauth peers."""

    def setUp(self) -> None:
        self.sender, self.receiver = records(True), records(False)

    def test_data(self) -> None:
        """Bytes arrive as they were sent, record by record."""
        data = b"".join(self.sender.protect(b"one") + self.sender.protect(b"two"))
        self.assertEqual(events(self.receiver, data), [Data(b"one"), Data(b"two")])

    def test_nothing_to_send(self) -> None:
        """No bytes make no record: an empty one would end the stream."""
        self.assertEqual(self.sender.protect(b""), [])

    def test_large_data(self) -> None:
        """Data that exceed one record are cut into records of at most what .NET takes."""
        data = bytes(range(256)) * 600
        frames = self.sender.protect(data)
        self.assertEqual(len(frames), 3)
        self.assertTrue(all(len(frame) <= 4 + 65536 for frame in frames))
        found = events(self.receiver, b"".join(frames))
        self.assertEqual(b"".join(event.data for event in found if isinstance(event, Data)), data)

    def test_any_buffer(self) -> None:
        """A bytearray or memoryview is taken as well as bytes."""
        frames = self.sender.protect(bytearray(b"abc"))  # type: ignore[arg-type]
        frames += self.sender.protect(memoryview(b"def" * 30_000))  # type: ignore[arg-type]
        found = events(self.receiver, b"".join(frames))
        self.assertEqual(
            b"".join(e.data for e in found if isinstance(e, Data)), b"abc" + b"def" * 30_000
        )

    def test_end_of_stream(self) -> None:
        """The end of the stream is seen after all data, and then the connection is no cut one."""
        data = self.sender.protect(b"x")[0] + self.sender.end_of_stream()
        self.assertEqual(events(self.receiver, data), [Data(b"x"), EndOfStream()])
        self.assertTrue(self.receiver.ended)
        self.assertIsNone(self.receiver.cut())

    def test_end_without_data(self) -> None:
        """A stream without data ends too."""
        self.assertEqual(events(self.receiver, self.sender.end_of_stream()), [EndOfStream()])

    def test_nothing_follows_the_end(self) -> None:
        """A record after the end of the stream is refused, even a genuine one."""
        events(self.receiver, self.sender.end_of_stream())
        with self.assertRaisesRegex(RecordError, "follows the end"):
            events(self.receiver, self.sender.protect(b"more")[0])

    def test_cut_everywhere(self) -> None:
        """A stream that stops at any byte before its end is a cut one."""
        data = self.sender.protect(b"some data")[0] + self.sender.end_of_stream()
        for end in range(len(data)):
            receiver = records(False)
            found = events(receiver, data[:end])
            self.assertNotIn(EndOfStream(), found)
            self.assertIsInstance(receiver.cut(), StreamCut, f"cut after {end} bytes")

    @settings(max_examples=100, deadline=None)
    @given(
        pieces=st.lists(st.binary(min_size=1, max_size=200), max_size=6),
        cuts=st.lists(st.integers(0, 1500), max_size=20),
    )
    def test_any_chunks(self, pieces: list[bytes], cuts: list[int]) -> None:
        """Any data in any chunks arrives whole, in order and with its end."""
        sender, receiver = records(True), records(False)
        stream = b""
        for piece in pieces:
            stream += b"".join(sender.protect(piece))
        stream += sender.end_of_stream()
        found = [event for chunk in chunked(stream, cuts) for event in events(receiver, chunk)]
        self.assertEqual(found, [*map(Data, pieces), EndOfStream()])


class RefusalTests(SynchronousTestCase):
    """A service that ends its stream before any data."""

    def setUp(self) -> None:
        self.client, self.service = records(True), records(False)

    def test_why(self) -> None:
        """The client is told why, and the stream is ended."""
        self.service.refuse("backend-unreachable")
        told = events(self.client, self.service.end_of_stream())
        self.assertEqual(told, [Refused("backend-unreachable")])
        self.assertIsNone(self.client.cut())
        with self.assertRaisesRegex(RecordError, "follows the end"):
            events(self.client, self.service.protect(b"more")[0])

    def test_without_a_reason(self) -> None:
        """Where there is none, the stream just ends."""
        self.assertEqual(events(self.client, self.service.end_of_stream()), [EndOfStream()])
        self.assertIsNone(self.client.cut())

    def test_never_an_end(self) -> None:
        """Wherever it is cut, it is neither an end, nor data, nor a refusal."""
        self.service.refuse("backend-unreachable")
        data = self.service.end_of_stream()
        for end in range(len(data)):
            client = records(True)
            self.assertEqual(events(client, data[:end]), [])
            self.assertIsInstance(client.cut(), StreamCut, f"cut after {end} bytes")

    def test_not_a_code(self) -> None:
        """Words that could be anything are not passed on."""
        for words in ("It\nis", "x" * 65, "-", "Ä"):
            client = records(True)
            sender = records(False)
            sender._refusal = words.encode()
            with self.assertRaises(ProtocolViolation):
                events(client, sender.end_of_stream())

    def test_only_before_data(self) -> None:
        """Neither a client refuses, nor a service that has sent something."""
        with self.assertRaises(AssertionError):
            self.client.refuse("backend-unreachable")
        self.service.protect(b"x")
        with self.assertRaises(AssertionError):
            self.service.refuse("backend-unreachable")

    def test_third_party(self) -> None:
        """One that is not a mutauth peer gets no record that it may not know."""
        service = records(False, mutauth=False)
        service.refuse("backend-unreachable")
        self.assertEqual(service.end_of_stream(), b"")


class AttackTests(SynchronousTestCase):
    """Somebody on the way, who has no key."""

    def setUp(self) -> None:
        self.sender, self.receiver = records(True), records(False)
        self.frames = [
            frame for data in (b"zero", b"one", b"two") for frame in self.sender.protect(data)
        ]

    def refused(self, *frames: bytes) -> None:
        """The last of the frames is refused, and those before are not."""
        for frame in frames[:-1]:
            events(self.receiver, frame)
        with self.assertRaises(RecordError):
            events(self.receiver, frames[-1])

    def test_repeated(self) -> None:
        """A record that comes twice is refused."""
        self.refused(self.frames[0], self.frames[1], self.frames[1])

    def test_dropped(self) -> None:
        """A record whose predecessor is missing is refused."""
        self.refused(self.frames[0], self.frames[2])

    def test_dropped_first(self) -> None:
        """The first record cannot be taken away either."""
        self.refused(self.frames[1])

    def test_reflected(self) -> None:
        """A record that a side sent itself is not one of its peer."""
        self.refused(self.receiver.protect(b"mine")[0])

    def test_flipped(self) -> None:
        """A record with any bit of its body changed is refused."""
        frame = self.frames[0]
        for position in range(4, len(frame)):
            self.receiver = records(False)
            self.refused(frame[:position] + bytes([frame[position] ^ 1]) + frame[position + 1 :])

    def test_signed_where_sealed_was_agreed(self) -> None:
        """A record that is only signed is refused when sealing was agreed, genuine as it is."""
        with self.assertRaisesRegex(RecordError, "signed only where sealed"):
            events(self.receiver, records(True, Protection.SIGN).protect(b"zero")[0])

    def test_sealed_where_signed_was_agreed(self) -> None:
        """A sealed record where signing was agreed tells that the sides were set up differently."""
        with self.assertRaisesRegex(RecordError, "sealed where signed"):
            events(records(False, Protection.SIGN), self.frames[0])

    def test_no_record_at_all(self) -> None:
        """A size outside the wire's limits is another protocol's."""
        with self.assertRaises(ProtocolViolation):
            events(self.receiver, b"\x00\x00\x00\x00")

    def test_flood(self) -> None:
        """Bytes that nobody takes are taken in up to a limit."""
        with self.assertRaises(ProtocolViolation):
            for _ in range(100):
                self.receiver.feed(bytes(16384))


class SignedTests(SynchronousTestCase):
    """Signing instead of sealing."""

    def test_data(self) -> None:
        """Signed records carry data between two sides that agreed to sign."""
        sender, receiver = records(True, Protection.SIGN), records(False, Protection.SIGN)
        found = events(receiver, sender.protect(b"open")[0] + sender.end_of_stream())
        self.assertEqual(found, [Data(b"open"), EndOfStream()])


class OpeningTests(SynchronousTestCase):
    """A mutauth client's first record, with which it shows that it holds the key."""

    def setUp(self) -> None:
        self.client, self.service = records(True), records(False)

    def test_opening(self) -> None:
        """It comes in any pieces, once, and is not taken for the end of the stream; what follows is
        data.
        """
        opening, (data,) = self.client.opening(), self.client.protect(b"hello")
        for byte in opening[:-1]:
            self.service.feed(bytes([byte]))
            self.assertFalse(self.service.take_opening())
        self.service.feed(opening[-1:] + data)
        self.assertTrue(self.service.take_opening())
        self.assertFalse(self.service.ended)
        self.assertEqual(self.service.next_event(), Data(b"hello"))

    def test_cut_behind_it(self) -> None:
        """A stream that ends behind the opening, or before it, was cut."""
        self.assertIsInstance(self.service.cut(), StreamCut)
        self.service.feed(self.client.opening())
        self.assertTrue(self.service.take_opening())
        self.assertIsInstance(self.service.cut(), StreamCut)

    def test_something_else(self) -> None:
        """Data instead of it says that the client does not know this service for a mutauth one."""
        self.service.feed(records(True, mutauth=False).protect(b"hello")[0])
        error = self.assertRaises(RecordError, self.service.take_opening)
        self.assertIn("something on the way has removed this service's mark", str(error))

    def test_not_the_clients(self) -> None:
        """A record that nobody with the key made is not an opening, nor is one that is protected
        otherwise or no record at all.
        """
        for frame in (
            NNS.record(bytes(60)),
            self.service.opening(),
            NNS.record(FakeContext(initiator=True).wrap(b"", seal=False)),
            bytes(4),
        ):
            self.service = records(False)
            self.service.feed(frame)
            self.assertRaises((RecordError, ProtocolViolation), self.service.take_opening)


class ThirdPartyTests(SynchronousTestCase):
    """A peer such as .NET's, which knows neither opening nor end of stream."""

    def setUp(self) -> None:
        self.context = FakeContext(initiator=True)
        self.receiver = records(False, mutauth=False)

    def frame(self, data: bytes) -> bytes:
        """A record as such a peer makes it."""
        return NNS.record(self.context.wrap(data, seal=True))

    def test_plain_close(self) -> None:
        """Its close between two records is a clean end."""
        self.assertEqual(events(self.receiver, self.frame(b"hello")), [Data(b"hello")])
        self.assertIsNone(self.receiver.cut())

    def test_close_within_a_record(self) -> None:
        """Its close within a record is a cut."""
        frame = self.frame(b"hello") + self.frame(b"world")[:-1]
        self.assertEqual(events(self.receiver, frame), [Data(b"hello")])
        self.assertIsInstance(self.receiver.cut(), StreamCut)

    def test_silent_close(self) -> None:
        """A close before any record may be an attacker's, and counts as a cut."""
        self.assertIsInstance(self.receiver.cut(), StreamCut)

    def test_nothing_empty_for_it(self) -> None:
        """It gets no empty record, at the start or at the end: .NET Framework and .NET Core 3.1
        hang on one.
        """
        side = self.receiver
        self.assertEqual((side.opening(), side.protect(b""), side.end_of_stream()), (b"", [], b""))

    def test_empty_records(self) -> None:
        """Empty records between its data mean nothing."""
        data = self.frame(b"a") + self.frame(b"") + self.frame(b"") + self.frame(b"b")
        self.assertEqual(events(self.receiver, data), [Data(b"a"), Data(b"b")])
        self.assertFalse(self.receiver.ended)
