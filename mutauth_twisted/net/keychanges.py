"""Count of a TLS 1.3 peer's changes of keys, seen from its records, without OpenSSL's help.

A change of keys (RFC 8446 4.6.3) is a record of 27 bytes without data, which
costs this side new keys and, where the peer asks for it, as large an answer.
OpenSSL answers each one and does not tell.  What is in the clear tells enough:
records' types and lengths (RFC 8446 5.1, 5.2), and after OpenSSL has read them
how much data was in them.
"""

from __future__ import annotations

from typing import Final

#: RFC 8446 5.1: type, version and length; all that is encrypted comes as application data.
_HEADER: Final = 5
_ENCRYPTED: Final = 23
#: RFC 8446 5.2: the byte of the inner type and the tag, which has 16 bytes in every suite that
#: OpenSSL offers by itself.
_AROUND: Final = 17
#: RFC 8446 4.6.3: a KeyUpdate; there can be one in a record only.
_KEY_UPDATE: Final = 5

#: How many records without data a peer may send.  OpenSSL's services send two tickets.
MOST_CHANGES: Final = 256
#: And one more with so many bytes of data: peers that change keys do so after 2**24 records or
#: more.
DATA_PER_CHANGE: Final = 1 << 22


class Records:
    """Finds where the records of one direction end."""

    __slots__ = ("_header", "_left")

    def __init__(self) -> None:
        #: As much of a record's header as has come.
        self._header = b""
        #: How much of its body is still to come, when all of its header has.
        self._left = 0

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """Each encrypted record that these bytes complete: where it ends in them, and how much data
        it has at most.
        """
        found, at, end = [], 0, len(data)
        while at < end:
            if not self._header:
                # Most records come whole.
                while (
                    at + _HEADER <= end
                    and (next_at := at + _HEADER + (data[at + 3] << 8 | data[at + 4])) <= end
                ):
                    if data[at] == _ENCRYPTED:
                        found.append((next_at, max(0, next_at - at - _HEADER - _AROUND)))
                    at = next_at
            if not self._left:
                taken = data[at : at + _HEADER - len(self._header)]
                self._header += taken
                at += len(taken)
                if len(self._header) < _HEADER:
                    break
                self._left = self._size
            step = min(self._left, end - at)
            self._left -= step
            at += step
            if not self._left:
                if self._header[0] == _ENCRYPTED:
                    found.append((at, max(0, self._size - _AROUND)))
                self._header = b""
        return found

    @property
    def _size(self) -> int:
        return int.from_bytes(self._header[3:], "big")


class KeyChanges:
    """Counts what may be changes of keys.

    In doubt a record counts as one, until there were so many that it matters;
    from then on the records are to be read one by one, and each is known.
    """

    __slots__ = ("count", "data")

    def __init__(self) -> None:
        #: How many records may have been changes of keys.
        self.count = 0
        #: How much data there was.
        self.data = 0

    @property
    def one_by_one(self) -> bool:
        """True when records have to be told apart."""
        return self.count > MOST_CHANGES // 2

    @property
    def too_many(self) -> bool:
        """True when there are more changes than any honest peer makes."""
        return self.count > MOST_CHANGES + self.data // DATA_PER_CHANGE

    def read(self, sizes: list[int], data: int) -> None:
        """Records were read.

        :param sizes: how much data each has at most: padding (RFC 8446 5.4) counts as well.
        :param data: how much they had together.
        """
        beside = sum(sizes) - data
        if len(sizes) == 1:
            self.count += not data
        elif beside > 0:
            self.count += min(len(sizes), -(-beside // _KEY_UPDATE))
        self.data += data
