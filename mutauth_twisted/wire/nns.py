"""The .NET NegotiateStream protocol, MS-NNS.

A handshake frame is ``id(1) major(1) minor(1) size(2, big-endian) payload``
(MS-NNS 2.2.1), a record ``size(4, little-endian) body`` (2.2.2).
"""

from __future__ import annotations

import struct
from typing import ClassVar, Final

from mutauth_twisted.wire._base import BufferedReader, Fault, FrameError, Token, Wrapping

_HEADER: Final = struct.Struct(">BBBH")
_SIZE: Final = struct.Struct("<I")
_FAULT: Final = struct.Struct(">Q")

_ERROR: Final = 0x15
_DONE: Final = 0x14
_IN_PROGRESS: Final = 0x16
_MAJOR: Final = 1
# Receivers ignore the version (MS-NNS 2.2.1): the minor one marks the frames of a mutauth service.
_MINOR: Final = 0
_MUTAUTH_MINOR: Final = 1

# RFC 8446 5.1: TLS counts its records' kinds as MS-NNS does its frames'.  Versions are ignored
# otherwise.
_TLS_MAJOR: Final = 3
_CLIENT_HELLO: Final = b"\x01"

MAX_TOKEN: Final = 0xFFFF
#: Received at most; .NET refuses more (MS-NNS 2.2.2: 64 KiB).
MAX_RECORD: Final = 0x10000
#: .NET refuses records of four bytes and fewer.
MIN_RECORD: Final = 5


class NNSReader(BufferedReader):
    """Finds MS-NNS frames and records; see :class:`mutauth_twisted.wire.Reader`."""

    __slots__ = ()

    def next_frame(self) -> Token | Fault | None:
        buffer = self._buffer
        # The first byte tells a stranger at once: it need not send a whole header.
        if buffer and buffer[0] not in (_ERROR, _DONE, _IN_PROGRESS):
            raise FrameError(
                f"a frame starts with byte 0x{buffer[0]:02x}, which MS-NNS does not know"
            )
        if len(buffer) < _HEADER.size:
            return None
        kind, major, minor, size = _HEADER.unpack_from(buffer)
        if kind == _ERROR and size != _FAULT.size:
            if major == _TLS_MAJOR:
                raise FrameError("it answers with a TLS alert: its protection may be tls")
            raise FrameError(f"an error frame holds {size} bytes instead of {_FAULT.size}")
        payload = self._take(_HEADER.size, size)
        if payload is None:
            return None
        if major == _TLS_MAJOR and payload[:1] == _CLIENT_HELLO:
            raise FrameError("it starts TLS")
        if kind == _ERROR:
            return Fault(_FAULT.unpack(payload)[0] & 0xFFFFFFFF)
        return Token(payload, kind == _DONE, minor == _MUTAUTH_MINOR)

    def next_record(self) -> bytes | None:
        if len(self._buffer) < _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(self._buffer)
        if not MIN_RECORD <= size <= MAX_RECORD:
            raise FrameError(f"a record claims {size} bytes, outside {MIN_RECORD} to {MAX_RECORD}")
        return self._take(_SIZE.size, size)


class NNSWire:
    """Makes MS-NNS frames and records; see :class:`mutauth_twisted.wire.Wire`."""

    name: ClassVar[str] = "nns"
    says_done: ClassVar[bool] = True
    flags_decide: ClassVar[bool] = True
    max_token: ClassVar[int] = MAX_TOKEN
    # What .NET itself sends at most, so that no protection can push a record over MAX_RECORD.
    max_plaintext: ClassVar[int] = 64_500

    def reader(self) -> NNSReader:
        return NNSReader()

    def token(self, payload: bytes, done: bool, mutauth: bool = False) -> bytes:
        kind, minor = _DONE if done else _IN_PROGRESS, _MUTAUTH_MINOR if mutauth else _MINOR
        return _HEADER.pack(kind, _MAJOR, minor, len(payload)) + payload

    def fault(self, code: int) -> bytes:
        return _HEADER.pack(_ERROR, _MAJOR, _MINOR, _FAULT.size) + _FAULT.pack(code)

    def record(self, body: bytes) -> bytes:
        return _SIZE.pack(len(body)) + body

    def protect(self, context: Wrapping, data: bytes, seal: bool) -> bytes:
        return self.record(context.wrap(data, seal=seal))

    def unprotect(self, context: Wrapping, body: bytes, seal: bool) -> tuple[bytes, bool]:
        return context.unwrap(body)


NNS: Final = NNSWire()
