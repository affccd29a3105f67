"""Cuts that the network makes in a stream of bytes do not matter: whole conversations in any
pieces.

Frames and messages by themselves are in tests/unit/wire/test_nns.py and
tests/unit/wire/test_winsock.py; here they meet the handshake, the records and real
contexts on both wires.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.core.records import Data, EndOfStream, Records
from mutauth_twisted.errors import MutualAuthError, StreamCut
from mutauth_twisted.testing.fakes import FakeContext, chunked
from tests.support.middle import MiddleCase, answering, asking
from tests.support.records import records_on
from tests.support.tampering import ANSWER, CHANNELS, DOWN, QUESTION, UP

securities = st.sampled_from(CHANNELS)
cuts = st.lists(st.integers(0, 1500), max_size=20)
pieces = st.lists(st.binary(min_size=1, max_size=200), max_size=6)


def read(
    context: Any, security: SecurityOptions, data: bytes, cuts: Sequence[int]
) -> tuple[list[Data | EndOfStream], Records]:
    """The events of a stream that comes in pieces, and what read it."""
    records = records_on(context, security)
    events = []
    for chunk in chunked(data, cuts):
        records.feed(chunk)
        while (event := records.next_event()) is not None:
            events.append(event)
    return events, records


def stream(context: Any, security: SecurityOptions, pieces: Sequence[bytes]) -> bytes:
    """A whole stream of records."""
    records = records_on(context, security, initiator=True)
    frames = [frame for piece in pieces for frame in records.protect(piece)]
    return b"".join((*frames, records.end_of_stream()))


class RecordTests(SynchronousTestCase):
    """Records with contexts that only count: many of them."""

    @settings(max_examples=200, deadline=None)
    @given(security=securities, pieces=pieces, cuts=cuts)
    def test_any_chunks(
        self, security: SecurityOptions, pieces: list[bytes], cuts: list[int]
    ) -> None:
        """Any data in any chunks arrives whole, in order and with its end, on every wire."""
        data = stream(FakeContext(initiator=True), security, pieces)
        events, records = read(FakeContext(initiator=False), security, data, cuts)
        self.assertEqual(events, [*map(Data, pieces), EndOfStream()])
        self.assertIsNone(records.cut())

    @settings(max_examples=200, deadline=None)
    @given(security=securities, pieces=pieces, cuts=cuts, end=st.integers(0, 1500))
    def test_any_cut(
        self, security: SecurityOptions, pieces: list[bytes], cuts: list[int], end: int
    ) -> None:
        """A stream that ends early, in any chunks, gives whole pieces from its start, and is known
        to be cut.
        """
        data = stream(FakeContext(initiator=True), security, pieces)
        events, records = read(
            FakeContext(initiator=False), security, data[: min(end, len(data) - 1)], cuts
        )
        self.assertEqual(events, [*map(Data, pieces)][: len(events)])
        self.assertIsInstance(records.cut(), StreamCut)

    @settings(max_examples=300, deadline=None)
    @given(
        security=securities,
        pieces=pieces.filter(bool),
        cuts=cuts,
        position=st.integers(0, 1 << 20),
        change=st.integers(1, 255),
    )
    def test_any_change(
        self,
        security: SecurityOptions,
        pieces: list[bytes],
        cuts: list[int],
        position: int,
        change: int,
    ) -> None:
        """Of a stream in which one byte was changed to any other, nothing is delivered from there
        on.
        """
        data = bytearray(stream(FakeContext(initiator=True), security, pieces))
        data[position % len(data)] ^= change
        seen: list[Data | EndOfStream] = []
        records = records_on(FakeContext(initiator=False), security)
        try:
            for chunk in chunked(bytes(data), cuts):
                records.feed(chunk)
                while (event := records.next_event()) is not None:
                    seen.append(event)
        except MutualAuthError as error:
            self.assertNotIn("\n", str(error))
        self.assertNotIn(EndOfStream(), seen)
        self.assertEqual(seen, [*map(Data, pieces)][: len(seen)])
        self.assertIsInstance(records.cut(), StreamCut)


class ConversationTests(MiddleCase):
    """Tokens and records with real contexts."""

    @settings(max_examples=60, deadline=None)
    @given(security=securities, pieces=pieces, cuts=cuts)
    def test_records(self, security: SecurityOptions, pieces: list[bytes], cuts: list[int]) -> None:
        """Data of any size in any chunks arrives whole, in both directions."""
        client: Any = self.initiator(security)
        server: Any = self.keys.acceptor("client")
        client.step(server.step(client.step(None).token).token)
        for sender, receiver in ((client, server), (server, client)):
            events, _ = read(receiver, security, stream(sender, security, pieces), cuts)
            self.assertEqual(events, [*map(Data, pieces), EndOfStream()])

    @settings(max_examples=100, deadline=None)
    @given(security=securities, cuts=st.fixed_dictionaries({UP: cuts, DOWN: cuts}))
    def test_conversations(self, security: SecurityOptions, cuts: dict[str, list[int]]) -> None:
        """Tokens and the records behind them may come together or apart: the last token with the
        first records too.
        """
        client = asking(self.initiator(security), security)
        server = answering(self.keys.acceptor("client"), security)
        # Each side's bytes in as few turns as there can be, so that a turn holds frames and records
        # alike.
        while any((said := {UP: client.transport.take(), DOWN: server.transport.take()}).values()):
            for direction, target in ((UP, server), (DOWN, client)):
                for chunk in chunked(said[direction], cuts[direction]):
                    target.receive(chunk)
        for peer, said_to_it in ((client, ANSWER), (server, QUESTION)):
            application = peer.application
            assert application is not None
            self.assertEqual(b"".join(application.received), said_to_it)
            identity = application.transport.peer_identity  # type: ignore[union-attr]
            self.assertEqual(identity.protection, security.protection)
            self.assertEqual(int(identity.flags), int(security.protection.requested_flags))
