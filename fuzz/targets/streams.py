"""Application bytes inside TLS."""

from __future__ import annotations

from fuzz.inputs import Choices
from mutauth_twisted.core.records import Data
from mutauth_twisted.core.stream import Stream
from mutauth_twisted.errors import MutualAuthError

#: Short, and without a beginning that is its end as well, as a long secret is in practice.
_SECRET, _OTHER = b"\0\0\1", b"\1\2"


def check(data: bytes) -> None:
    """Bytes of one side arrive as they are and at once; what a stranger to the secret says is bytes
    or an error.
    """
    choices = Choices(data)
    sender = Stream(_SECRET, _OTHER, b"", "client", initiator=False)
    receiver = Stream(_OTHER, _SECRET, b"", "service", initiator=True)
    while choices.flag():
        piece = choices.take(choices.below(16))
        if _SECRET in piece:
            continue
        receiver.feed(b"".join(sender.protect(piece)))
        assert _read(receiver) == piece, "bytes are lost, added or kept back"
    receiver.feed(choices.rest())
    try:
        _read(receiver)
    except MutualAuthError as error:
        assert "\n" not in str(error)
        return
    if receiver.ended:
        assert receiver.cut() is None
    else:
        assert receiver.cut() is not None, "a cut stream passes for a finished one"


def _read(stream: Stream) -> bytes:
    read = b""
    while (event := stream.next_event()) is not None:
        read += event.data if isinstance(event, Data) else b""
    return read
