"""An input's bytes as the decisions and the data that a target takes from them."""

from __future__ import annotations

from mutauth_twisted.wire import WIRES, Wire

_WIRES = tuple(WIRES.values())
_MOST_CUTS = 7


class Choices:
    """Takes decisions off the front of an input; what is missing is zero, so that every input means
    something.

    :param data: the input.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """True if anything is left."""
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """So many bytes, or fewer at the end."""
        start, self._at = self._at, self._at + size
        return self._data[start : self._at]

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

    def number(self, size: int = 1) -> int:
        """An unsigned number of so many bytes, big-endian."""
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big")

    def below(self, limit: int) -> int:
        """A number from 0 to one less than the limit, which is 256 at most."""
        return self.number() % limit

    def flag(self) -> bool:
        """Yes or no."""
        return bool(self.number() & 1)

    def wire(self) -> Wire:
        """One of the wires."""
        return _WIRES[self.below(len(_WIRES))]

    def cuts(self) -> list[int]:
        """Positions at which the network cuts what follows."""
        return [self.number(2) for _ in range(self.below(_MOST_CUTS + 1))]

    def text(self) -> str:
        """The next piece as text: a length in one byte, and as many bytes."""
        return self.take(self.number()).decode("utf-8", "replace")


def edited(genuine: bytes, choices: Choices) -> bytes:
    """Something genuine with the changes that the rest of an input asks for.

    Each takes four bytes: what to do, where (two bytes, from the end if over
    the middle, so that trailers are as near as headers), and with what.
    """
    changed = bytearray(genuine)
    while choices:
        kind, where, value = choices.below(5), choices.number(2), choices.number()
        position = (where if where < 0x8000 else len(changed) - 0x10000 + where) % (
            len(changed) or 1
        )
        if kind == 0 and changed:
            changed[position] ^= value
        elif kind == 1 and changed:
            changed[position] = value
        elif kind == 2:
            changed[position:position] = choices.take(value % 16)
        elif kind == 3:
            del changed[position : position + value]
        elif kind == 4:
            del changed[position:]
    return bytes(changed)
