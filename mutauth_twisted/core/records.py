"""Application bytes as protected records, without I/O.

Every application byte travels in a record that the context wrapped; the
context's sequence numbers make any record that was dropped, repeated or
reordered show.  Two empty records frame the stream between peers of this
package, and mean nothing to others (a .NET reader skips an empty record):

- the *announcement*, the first record of a direction, says that its sender
  ends its stream with
- the *end of stream*, after which no record follows.

A connection that ends without the end of stream an announcement promised was
cut, whoever cut it: both records are protected like any other, so nobody on
the way can add or remove them.
"""

from __future__ import annotations

from attrs import field, frozen

from mutauth_twisted.errors import ProtocolViolation, RecordError, StreamCut
from mutauth_twisted.policy import Protection
from mutauth_twisted.wire import FrameError, Reader, Wire, Wrapping


@frozen
class Data:
    """Verified application bytes; never empty."""

    data: bytes = field(repr=False)


@frozen
class EndOfStream:
    """The peer has said all it had to say."""


class Records:
    """The two directions of one established connection.

    :param context: the established context.
    :param protection: what was agreed; a record with less is refused.
    :param wire: the format of the frames.
    :param reader: the connection's reader, which may hold the first records already.
    :param peer: the peer as errors name it.
    """

    def __init__(self, context: Wrapping, protection: Protection, wire: Wire, reader: Reader, peer: str) -> None:
        self._context = context
        self._seal = protection is Protection.SEAL
        self._wire = wire
        self._reader = reader
        self._peer = peer
        self._received_any = False
        self._peer_announced = False
        #: Whether the peer's end of stream was seen.
        self.ended = False

    def _record(self, data: bytes) -> bytes:
        return self._wire.protect(self._context, data, self._seal)

    def announcement(self) -> bytes:
        """The frame to send before any other."""
        return self._record(b"")

    def end_of_stream(self) -> bytes:
        """The frame to send after all others."""
        return self._record(b"")

    def protect(self, data: bytes) -> list[bytes]:
        """The frames that carry these application bytes, in send order; none for no bytes.

        :raises AuthenticationError: when the context can protect nothing any more.
        """
        size = self._wire.max_plaintext
        if len(data) <= size:
            return [self._record(bytes(data))] if data else []
        view = memoryview(data)
        return [self._record(bytes(view[start : start + size])) for start in range(0, len(data), size)]

    def feed(self, data: bytes) -> None:
        """Take received bytes.

        :raises ProtocolViolation: when far more is waiting than reading had asked for.
        """
        try:
            self._reader.feed(data)
        except FrameError as error:
            raise ProtocolViolation(self._peer, str(error)) from error

    def next_event(self) -> Data | EndOfStream | None:
        """The next bytes of the peer, verified, or None while its next record is incomplete.

        :raises RecordError: for a record that was altered, repeated, reordered,
            less protected than agreed, or that follows the end of stream.
        :raises ProtocolViolation: for what is no record at all.
        """
        while (record := self._next_record()) is not None:
            plaintext, sealed = record
            if sealed is not self._seal:
                got, agreed = ("sealed", "signed") if sealed else ("signed only", "sealed")
                raise RecordError(
                    self._peer,
                    f"a record is {got} where {agreed} records were agreed",
                    "give both sides the same protection",
                )
            if self.ended:
                raise RecordError(self._peer, "a record follows the end of the stream")
            first, self._received_any = not self._received_any, True
            if plaintext:
                return Data(plaintext)
            if first:
                self._peer_announced = True
            elif self._peer_announced:
                self.ended = True
                return EndOfStream()
        return None

    def _next_record(self) -> tuple[bytes, bool] | None:
        try:
            body = self._reader.next_record()
            return None if body is None else self._wire.unprotect(self._context, body, self._seal)
        except FrameError as error:
            raise ProtocolViolation(self._peer, str(error)) from error

    def cut(self) -> StreamCut | None:
        """What a connection that ends now was: None if it was finished, else the error.

        A peer that never announces (.NET) can only be caught in the middle of
        a record, and a stream without any record counts as cut: whether its
        end was announced cannot be known.
        """
        other_peer_finished = self._received_any and not self._peer_announced and not self._reader.pending
        if self.ended or other_peer_finished:
            return None
        return StreamCut(
            self._peer,
            "the connection was cut before the peer's end of stream",
            "what came before is genuine; the peer was stopped, or the network cut it: connect again",
        )
