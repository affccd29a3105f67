"""The sealed buffers that a directory server's answers come in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from gssapi.raw.misc import GSSError

from fuzz.inputs import Choices
from fuzz.targets.connection import SAID
from mutauth_twisted.errors import RecordError
from mutauth_twisted.ldap.sealing import BoundedSocket, SealedSocket
from mutauth_twisted.testing.fakes import FakeContext

_WORDS = b"".join(SAID)
_PATIENCE = 3600.0  # seconds: time is not what is tested
_LARGEST = 4096  # the largest buffer announced


def ldap_buffers(seal: bool) -> bytes:
    """Return the bytes that a genuine server sends."""
    server = FakeContext(initiator=False)
    bodies = [server.wrap(each, seal=seal) for each in SAID]
    return b"".join(len(body).to_bytes(4, "big") + body for body in bodies)


class _Socket:
    """A connected socket on which a stream comes in.

    :param stream: all of it.
    :param piece: how much of it comes at once, at most.
    """

    def __init__(self, stream: bytes, piece: int) -> None:
        self._stream = Choices(stream)
        self._piece = piece
        self.read = 0

    def settimeout(self, seconds: float) -> None:
        """Part of the interface."""

    def recv(self, size: int) -> bytes:
        """Receive as a socket does."""
        assert 0 < size <= 65536, "a stranger decides how much is read at once"
        data = self._stream.take(min(size, self._piece))
        self.read += len(data)
        return data


class _Context:
    """The fake context with python-gssapi's interface."""

    def __init__(self) -> None:
        self._fake = FakeContext(initiator=True)

    def get_wrap_size_limit(self, desired_output_size: int, encrypted: bool = True) -> int:
        """Part of the interface."""
        return desired_output_size

    def wrap(self, message: bytes, encrypt: bool) -> Any:
        """Part of the interface."""
        return SimpleNamespace(message=self._fake.wrap(message, seal=encrypt), encrypted=encrypt)

    def unwrap(self, message: bytes) -> Any:
        """Verify a buffer."""
        try:
            data, encrypted = self._fake.unwrap(message)
        except RecordError as error:
            raise GSSError(0, 0) from error
        return SimpleNamespace(message=data, encrypted=encrypted)


def check(data: bytes) -> None:
    """Bytes come as they were said, sealed and in order, and then an end or an OSError; never more
    than the limit allows.
    """
    choices = Choices(data)
    limit, size = choices.number(2), 1 + choices.number()
    stream = choices.rest()
    outcomes = [_read(stream, limit, size, piece) for piece in (1, 7, len(stream) or 1)]
    assert outcomes[0] == outcomes[1] == outcomes[2], "pieces are read as something else"


def _read(stream: bytes, limit: int, size: int, piece: int) -> tuple[bytes, bool]:
    """Bytes that were received, and whether they ended in order."""
    inner = _Socket(stream, piece)
    bounded = BoundedSocket(cast(Any, inner), _PATIENCE, limit)
    sealed = SealedSocket(bounded, _Context(), _LARGEST, _LARGEST)
    received, ended = b"", False
    try:
        while data := sealed.recv(size):
            assert len(data) <= size, "more was delivered than asked for"
            received += data
        ended = True
    except OSError as error:
        assert str(error)
    assert inner.read - min(piece, inner.read) <= limit, "more was read than allowed"
    assert _WORDS.startswith(received), "what nobody said was received"
    assert len(received) <= limit
    return received, ended
