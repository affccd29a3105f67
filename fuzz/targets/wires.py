"""The wires' readers."""

from __future__ import annotations

from collections.abc import Iterable

from fuzz.inputs import Choices
from mutauth_twisted.testing.fakes import chunked
from mutauth_twisted.wire import NNS, WINSOCK, Fault, FrameError, Token, Wire

_FRAME = 0xFFFF + 5  # the largest frame of the handshake
_RECORD = 0x10000 + 4
#: One byte at a time is for the start of a long stream only.
_BYTEWISE = 2048
_READ = 65536

Item = Token | Fault | bytes


def check_nns(data: bytes) -> None:
    """MS-NNS."""
    _check(NNS, data)


def check_winsock(data: bytes) -> None:
    """The SDK sample's messages."""
    _check(WINSOCK, data)


def _check(wire: Wire, data: bytes) -> None:
    choices = Choices(data)
    frames, cuts = choices.below(4), choices.cuts()
    stream = bytes(choices.number(2) if choices.flag() else 0)
    stream = choices.rest() + stream
    whole = _read(wire, frames, [stream] if stream else [])
    assert _read(wire, frames, chunked(stream, cuts)) == whole, "pieces are read as something else"
    assert _read(wire, frames, _bytewise(stream)) == whole, (
        "single bytes are read as something else"
    )
    items, error, waiting = whole
    written = b"".join(_written(wire, item) for item in items)
    if error is None:
        assert len(written) + waiting == len(stream), "bytes were lost"
    assert _read(wire, frames, [written]) == (items, None, 0), (
        "what was read is not written as such"
    )
    _pause(wire, stream)


def _bytewise(stream: bytes) -> Iterable[bytes]:
    yield from (stream[at : at + 1] for at in range(min(len(stream), _BYTEWISE)))
    if len(stream) > _BYTEWISE:
        yield stream[_BYTEWISE:]


def _read(wire: Wire, frames: int, chunks: Iterable[bytes]) -> tuple[list[Item], str | None, int]:
    """Frames, then records: what was read, what ended it, and how many bytes wait for their
    rest.
    """
    reader = wire.reader()
    items: list[Item] = []
    try:
        for chunk in chunks:
            reader.feed(chunk)
            while True:
                item = reader.next_frame() if len(items) < frames else reader.next_record()
                if item is None:
                    break
                _check_item(wire, item)
                items.append(item)
            assert reader.pending < (_FRAME if len(items) < frames else _RECORD), (
                "more waits than a frame"
            )
    except FrameError as error:
        assert str(error), "an error says nothing"
        return items, str(error), 0
    return items, None, reader.pending


def _check_item(wire: Wire, item: Item) -> None:
    if isinstance(item, Token):
        assert len(item.payload) <= wire.max_token
    elif isinstance(item, Fault):
        assert 0 <= item.code <= 0xFFFFFFFF
    else:
        assert 0 < len(item) <= 0x10000


def _written(wire: Wire, item: Item) -> bytes:
    if isinstance(item, Token):
        return wire.token(item.payload, item.done, item.mutauth)
    return wire.fault(item.code) if isinstance(item, Fault) else wire.record(item)


def _pause(wire: Wire, stream: bytes) -> None:
    """Bytes go on coming while nobody reads any: there is an end to it."""
    reader = wire.reader()
    chunk = stream * (4096 // len(stream) + 1) if stream else bytes(4096)
    for _ in range(3 * 2 * _READ // len(chunk) + 2):
        before = reader.pending
        try:
            reader.feed(chunk)
        except FrameError:
            assert before > 2 * _READ and reader.pending == before, (
                "bytes were refused too early, or kept"
            )
            return
        assert reader.pending <= 2 * _RECORD + len(chunk), "there is no bound on what waits"
    raise AssertionError("nothing stops a stream that nobody reads")
