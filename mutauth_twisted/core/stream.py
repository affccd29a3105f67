"""Application bytes inside a TLS channel that the handshake was bound to, without I/O.

TLS protects them, and they travel as they are: a size before each piece would
cost a record of TLS's own for the few bytes that no longer fit.  What is still
to be said is where a direction ends, so that it can end alone, and be seen to
end; TLS as Twisted has it ends both at once.

That is said by a *mark* in the stream: a secret that both sides draw from the
channel, one for each direction, which no application knows, and a byte that
says what the mark means::

    END     nothing follows
    GO_ON   what looked like the beginning of a mark was not one
    REFUSE  a service refuses the session before any data: up to the END, the reason's code follows

A receiver keeps back the last bytes of what came where they may be the
beginning of a mark; a sender whose bytes end like that lets a GO_ON follow at
once, so that nothing waits for bytes that never come.
"""

from __future__ import annotations

from typing import Final

from mutauth_twisted.core.records import Data, EndOfStream, Refused, reason
from mutauth_twisted.errors import ProtocolViolation, RecordError, StreamCut

#: How many bytes to draw from the channel for a direction's secret.
DRAWN: Final = 32
# Four bits make one symbol.  bytes.find() goes on by the length of its pattern where it meets a
# byte with other low six bits than the pattern's: with symbols that text, zeros and nearly all else
# do not have, it is through with a piece of 16 KiB in a microsecond.
_SYMBOLS: Final = bytes(
    high | low for high in (0x00, 0x40, 0x80, 0xC0) for low in (0x1C, 0x1D, 0x1E, 0x1F)
)
_GO_ON, _END, _REFUSE = b"\0", b"\1", b"\2"
_LONGEST_REASON: Final = 64
# What one read of the socket brings, and what TLS held of a record begun before; see wire/_base.py.
_MAX_PENDING: Final = 2 * 0x10000


def secret(drawn: bytes) -> bytes:
    """A direction's secret, twice as long as what was drawn for it."""
    return bytes(_SYMBOLS[half] for byte in drawn for half in (byte >> 4, byte & 15))


class Stream:
    """The two directions of one connection; see :class:`mutauth_twisted.core.records.Records`.

    :param own: the secret of this side's direction.
    :param theirs: the secret of the peer's.
    :param rest: what came behind the handshake's last frame.
    :param peer: the peer as errors name it.
    :param initiator: whether this side is the client.
    """

    def __init__(
        self, own: bytes, theirs: bytes, rest: bytes, peer: str, *, initiator: bool
    ) -> None:
        self._own = own
        self._theirs = theirs
        self._waiting = rest
        self._peer = peer
        self._initiator = initiator
        self._sent_any = self._received_any = False
        self._refusal = b""
        #: What has come of a refusal's code; None: it is none.
        self._reason: bytes | None = None
        #: Whether the peer's end of stream was seen.
        self.ended = False

    def opening(self) -> bytes:
        """A client's opening: nothing, as its token was made for this channel alone."""
        return b""

    def refuse(self, code: str) -> None:
        """Have a service's end of stream tell why there is no session.

        :raises AssertionError: when data were sent, or by a client.
        """
        if self._initiator or self._sent_any:
            raise AssertionError("a service refuses a session before any data")
        self._refusal = self._own + _REFUSE + code.encode("ascii")

    def end_of_stream(self) -> bytes:
        """Bytes to send after all else."""
        return self._refusal + self._own + _END

    def protect(self, data: bytes) -> list[bytes]:
        """Return the frames that carry these application bytes."""
        if not data:
            return []
        self._sent_any = True
        return [data, self._own + _GO_ON] if _begins(data, self._own) else [data]

    def feed(self, data: bytes) -> None:
        """Take received bytes.

        :raises ProtocolViolation: when far more is waiting than reading had asked for.
        """
        if len(self._waiting) > _MAX_PENDING:
            raise ProtocolViolation(
                self._peer, f"bytes go on coming while {len(self._waiting)} of them wait"
            )
        self._waiting = self._waiting + data if self._waiting else data

    def next_event(self) -> Data | EndOfStream | Refused | None:
        """The next bytes of the peer, or None while there are none that are certain.

        :raises RecordError: for bytes behind the end of the stream.
        :raises ProtocolViolation: for a mark that means nothing.
        """
        while waiting := self._waiting:
            if self.ended:
                raise RecordError(self._peer, "bytes follow the end of the stream")
            at = waiting.find(self._theirs)
            if at < 0:
                at = len(waiting) - _begins(waiting, self._theirs)
            if at:
                self._waiting = waiting[at:]
                if self._reason is None:
                    self._received_any = True
                    return Data(waiting[:at] if self._waiting else waiting)
                self._reason += waiting[:at]
                if len(self._reason) > _LONGEST_REASON:
                    raise ProtocolViolation(self._peer, "its refusal has no end")
                continue
            if len(waiting) <= len(self._theirs):
                return None
            meaning = waiting[len(self._theirs) :][:1]
            self._waiting = waiting[len(self._theirs) + 1 :]
            if meaning == _END:
                self.ended = True
                return EndOfStream() if self._reason is None else reason(self._peer, self._reason)
            if meaning == _REFUSE and self._may_refuse:
                self._reason = b""
            elif meaning != _GO_ON:
                raise ProtocolViolation(self._peer, "its stream has an unknown mark")
        return None

    @property
    def _may_refuse(self) -> bool:
        """True on a client, to which no byte of data has come."""
        return self._initiator and not self._received_any and self._reason is None

    def cut(self) -> StreamCut | None:
        """Return the error of a connection that ends now; None if it was finished."""
        return None if self.ended else StreamCut(self._peer)


def _begins(data: bytes, secret: bytes) -> int:
    """Number of the last bytes that are the beginning of a secret, but not all of it."""
    end = len(data)
    at = data.find(secret[:1], max(0, end - len(secret) + 1))
    while at >= 0:
        if secret.startswith(data[at:]):
            return end - at
        at = data.find(secret[:1], at + 1)
    return 0
