"""Application bytes as protected records, without I/O.

Every application byte travels in a record that the context wrapped; the
context's sequence numbers make any record that was dropped, repeated or
reordered show.  Two kinds of empty records mean something between two mutauth
peers, and are never sent to any other (.NET Framework and .NET Core up to 3.1
hang on an empty record):

- the *opening*, a client's first record, shows that who sent its token also
  holds the session's key;
- the *end of stream* is each direction's last record.

Both are protected like any other, so that they cannot be added or removed on the way:
between mutauth peers a connection that ends without the end of stream was cut.

A service that ends its stream before any data may *refuse* the session, and say why.  So its first
record, if it is empty, only announces the next one, which is the last: empty, the end of stream, or
the code of a reason.  A refusal that was cut short is so never taken for an end.
How they know each other: see :mod:`mutauth_twisted.core.handshake`.
"""

from __future__ import annotations

import re

from attrs import field, frozen

from mutauth_twisted.errors import ProtocolViolation, RecordError, StreamCut
from mutauth_twisted.protection import Protection
from mutauth_twisted.wire import FrameError, Reader, Wire, Wrapping


@frozen
class Data:
    """Verified application bytes; never empty."""

    data: bytes = field(repr=False)


@frozen
class EndOfStream:
    """The peer has said all it had to say."""


@frozen
class Refused:
    """A service has ended its stream before any data, for a reason.

    :param code: the reason; see :data:`~mutauth_twisted.codes.CODES`.
    """

    code: str


_REASON = re.compile(rb"[a-z][a-z-]{0,63}")


def reason(peer: str, code: bytes) -> Refused:
    """The refusal of these words of a peer.

    :raises ProtocolViolation: when they are no code.
    """
    if not _REASON.fullmatch(code):
        raise ProtocolViolation(peer, "it refuses the session with words that are not a code")
    return Refused(code.decode("ascii"))


class Records:
    """The two directions of one established connection.

    :param context: the established context.
    :param protection: what was agreed; a record with less is refused.
    :param wire: the format of the frames.
    :param reader: the connection's reader, which may hold the first records already.
    :param peer: the peer as errors name it.
    :param initiator: whether this side is the client.
    :param mutauth: whether the peer is another mutauth peer.
    """

    def __init__(
        self,
        context: Wrapping,
        protection: Protection,
        wire: Wire,
        reader: Reader,
        peer: str,
        *,
        initiator: bool,
        mutauth: bool,
    ) -> None:
        self._context = context
        self._seal = protection is Protection.SEAL
        self._wire = wire
        self._reader = reader
        self._peer = peer
        self._initiator = initiator
        self._mutauth = mutauth
        self._sent_any = self._received_any = False
        #: Whether a service has announced its last record with its first.
        self._announced = False
        self._refusal = b""
        #: Whether the peer's end of stream was seen.
        self.ended = False

    def _record(self, data: bytes) -> bytes:
        return self._wire.protect(self._context, data, self._seal)

    def opening(self) -> bytes:
        """The frame that a client sends before any other; no bytes for a third-party service.

        :raises AuthenticationError: when the context can protect nothing any more.
        """
        return self._record(b"") if self._mutauth else b""

    def refuse(self, code: str) -> None:
        """Have a service's end of stream tell why there is no session; a third-party peer just sees
        the end.

        :raises AssertionError: when data were sent, or by a client.
        """
        if self._initiator or self._sent_any:
            raise AssertionError("a service refuses a session before any data")
        self._refusal = code.encode("ascii")

    def end_of_stream(self) -> bytes:
        """The frames to send after all others; no bytes for a third-party peer, whose connection
        just ends.

        :raises AuthenticationError: when the context can protect nothing any more.
        """
        if not self._mutauth:
            return b""
        if self._initiator or self._sent_any:
            return self._record(b"")
        return self._record(b"") + self._record(self._refusal)

    def protect(self, data: bytes) -> list[bytes]:
        """The frames that carry these application bytes, in send order; none for no bytes.

        :raises AuthenticationError: when the context can protect nothing any more.
        """
        self._sent_any = True
        size = self._wire.max_plaintext
        if len(data) <= size:
            return [self._record(bytes(data))] if data else []
        view = memoryview(data)
        return [
            self._record(bytes(view[start : start + size])) for start in range(0, len(data), size)
        ]

    def feed(self, data: bytes) -> None:
        """Take received bytes.

        :raises ProtocolViolation: when far more is waiting than reading had asked for.
        """
        try:
            self._reader.feed(data)
        except FrameError as error:
            raise ProtocolViolation(self._peer, str(error)) from error

    def take_opening(self) -> bool:
        """Take and verify a mutauth client's opening; False while it is incomplete.

        :raises RecordError: for a first record that is anything else, or as :meth:`next_event`
            does.
        :raises ProtocolViolation: for what is not a record at all.
        """
        plaintext = self._next_plaintext()
        if plaintext:
            raise RecordError(
                self._peer,
                "its first record is not the opening that a mutauth client sends",
                "something on the way has removed this service's mark: look for what stands "
                "between both sides",
                code="opening-missing",
            )
        return plaintext is not None

    def next_event(self) -> Data | EndOfStream | Refused | None:
        """The next bytes of the peer, verified, or None while its next record is incomplete.

        :raises RecordError: for a record that was altered, repeated, reordered,
            less protected than agreed, or that follows the end of stream.
        :raises ProtocolViolation: for what is not a record at all.
        """
        first = not self._received_any
        while (plaintext := self._next_plaintext()) is not None:
            if self._announced:
                self.ended = True
                return reason(self._peer, plaintext) if plaintext else EndOfStream()
            if plaintext:
                return Data(plaintext)
            if self._mutauth:
                if not (self._initiator and first):
                    self.ended = True
                    return EndOfStream()
                self._announced = True
        return None

    def _next_plaintext(self) -> bytes | None:
        try:
            body = self._reader.next_record()
            if body is None:
                return None
            plaintext, sealed = self._wire.unprotect(self._context, body, self._seal)
        except FrameError as error:
            raise ProtocolViolation(self._peer, str(error)) from error
        if sealed is not self._seal:
            got, agreed = ("sealed", "signed") if sealed else ("signed only", "sealed")
            raise RecordError(
                self._peer,
                f"a record is {got} where {agreed} records were agreed",
                "give both sides the same protection",
                code="protection-mismatch",
            )
        if self.ended:
            raise RecordError(self._peer, "a record follows the end of the stream")
        self._received_any = True
        return plaintext

    def cut(self) -> StreamCut | None:
        """Return the error of a connection that ends now; None if it was finished.

        A third-party peer (.NET) can only be caught in the middle of a record.
        A stream of it without any record counts as cut: a mutauth service whose
        mark was removed on the way sends none.
        """
        third_party_finished = not self._mutauth and self._received_any and not self._reader.pending
        return None if self.ended or third_party_finished else StreamCut(self._peer)
