"""The format of the Windows SDK's sample of SSPI over sockets.

Source: *Using SSPI with a Windows Sockets client* and *... server*.  Every
message is ``length(4, little-endian) body``, as the sample's ``SendMsg`` sends
it, which sends nothing at all for an empty body.  A token is a message; nothing
says that a handshake is done or has failed: each side has finished when its
own context is complete, and who refuses closes.

A sealed record's body is ``size(4, little-endian) trailer ciphertext``, what
EncryptMessage makes in its two buffers; a signed one's is ``signature data``,
as MakeSignature has it.  The sample sends its one record without a length
before it; for a stream of them each is a message.

The sample has no version.  A mutauth service marks its last token to another
mutauth peer in the highest bit of the length, which no other peer ever gets.
"""

from __future__ import annotations

import struct
from typing import ClassVar, Final

from mutauth_twisted.wire._base import BufferedReader, Fault, FrameError, Token, Wrapping

_SIZE: Final = struct.Struct("<I")

#: The most a message may hold, in bytes; the sample's own buffers take 12,000.
MAX_MESSAGE: Final = 0xFFFF
_MUTAUTH: Final = 0x80000000
# The last of a length's four bytes, where it has that bit.
_MARKED: Final = b"\x80"


class WinsockReader(BufferedReader):
    """Finds messages; see :class:`mutauth_twisted.wire.Reader`."""

    __slots__ = ()

    def _message(self, marked: bool = False) -> bytes | None:
        """The next message's body.

        :param marked: whether its length has the mark's bit.
        """
        buffer = self._buffer
        # A length within the limit has two bytes: a stranger is known before it has sent four.
        if any(buffer[2:3] if marked else buffer[2:4]):
            raise FrameError(f"a message claims more than {MAX_MESSAGE} bytes")
        if len(buffer) < _SIZE.size:
            return None
        size = _SIZE.unpack_from(buffer)[0] & MAX_MESSAGE
        if not size:
            raise FrameError("a message claims to be empty")
        return self._take(_SIZE.size, size)

    def next_frame(self) -> Token | Fault | None:
        marked = self._buffer[3:4] == _MARKED
        payload = self._message(marked)
        return None if payload is None else Token(payload, done=False, mutauth=marked)

    def next_record(self) -> bytes | None:
        return self._message()


class WinsockWire:
    """Makes messages; see :class:`mutauth_twisted.wire.Wire`."""

    name: ClassVar[str] = "winsock"
    says_done: ClassVar[bool] = False
    flags_decide: ClassVar[bool] = False
    max_token: ClassVar[int] = MAX_MESSAGE
    # With its trailer it fits into the sample's buffer.
    max_plaintext: ClassVar[int] = 11_900

    def reader(self) -> WinsockReader:
        return WinsockReader()

    def token(self, payload: bytes, done: bool, mutauth: bool = False) -> bytes:
        return _SIZE.pack(len(payload) | (_MUTAUTH if mutauth else 0)) + payload if payload else b""

    def fault(self, code: int) -> bytes:
        return b""

    def record(self, body: bytes) -> bytes:
        return _SIZE.pack(len(body)) + body

    def protect(self, context: Wrapping, data: bytes, seal: bool) -> bytes:
        trailer, body = context.wrap_apart(data, seal=seal)
        return self.record(_SIZE.pack(len(trailer)) + trailer + body if seal else trailer + body)

    def unprotect(self, context: Wrapping, body: bytes, seal: bool) -> tuple[bytes, bool]:
        start, size = 0, context.signature_size
        if seal:
            start = _SIZE.size
            size = _SIZE.unpack_from(body)[0] if len(body) >= start else len(body)
        end = start + size
        if end > len(body):
            what = "trailer" if seal else "signature"
            cause = f"a record of {len(body)} bytes has no room for its {what}"
            raise FrameError(f"{cause}; give both sides the same protection")
        return context.unwrap_apart(body[start:end], body[end:], seal=seal)


WINSOCK: Final = WinsockWire()
