"""Records that a TLS channel protects: ``size(4, little-endian) data``.

Not a wire that anybody may choose: it follows an exchange that was bound to
the channel below it.  It frames the data so that a stream can end, and be seen
to end, in one direction alone.
"""

from __future__ import annotations

import struct
from typing import ClassVar, Final

from mutauth_twisted.wire._base import BufferedReader, Fault, FrameError, Token, Wrapping

_SIZE: Final = struct.Struct("<I")

#: The most a record may hold, in bytes.
MAX_RECORD: Final = 0x10000


class PlainReader(BufferedReader):
    """Finds records; see :class:`mutauth_twisted.wire.Reader`."""

    __slots__ = ()

    def next_frame(self) -> Token | Fault | None:
        raise AssertionError("this wire has no exchange")

    def next_record(self) -> bytes | None:
        if len(self._buffer) < _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(self._buffer)
        if size > MAX_RECORD:
            raise FrameError(f"a record claims {size} bytes, more than {MAX_RECORD}")
        return self._take(_SIZE.size, size)


class PlainWire:
    """Makes records; see :class:`mutauth_twisted.wire.Wire`."""

    name: ClassVar[str] = "plain"
    says_done: ClassVar[bool] = False
    flags_decide: ClassVar[bool] = False
    max_token: ClassVar[int] = 0
    # With its size four full TLS records (RFC 8446 5.1).
    max_plaintext: ClassVar[int] = 4 * 0x4000 - _SIZE.size

    def reader(self) -> PlainReader:
        return PlainReader()

    def token(self, payload: bytes, done: bool) -> bytes:
        raise AssertionError("this wire has no exchange")

    def fault(self, code: int) -> bytes:
        return b""

    def record(self, body: bytes) -> bytes:
        return _SIZE.pack(len(body)) + body

    def protect(self, context: Wrapping, data: bytes, seal: bool) -> bytes:
        return self.record(data)

    def unprotect(self, context: Wrapping, body: bytes, seal: bool) -> tuple[bytes, bool]:
        return body, seal


PLAIN: Final = PlainWire()
