"""Counts of sessions that several processes keep together, so that a limit holds for all of them.

A place of a limit is a byte of a file, and who has locked it has the place (record locks of
fcntl(2)). The kernel frees the places of a process that ends, however it ends, and no process
waits for another.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

#: Places of one limit, and so the most that it may be: 2**20 bytes of the file.
_PLACES: Final = 20
#: Bits of the file's size that tell limits apart, so that an offset is a positive 64 bit number.
_LIMITS: Final = 42
#: Seconds for which a limit that was reached is taken to be so still, as looking at all its places
#: takes time, which strangers could have us spend.
_FULL: Final = 0.05


class Tally:
    """One process's part in the counts.

    The locks are those of the process (not of the descriptor), and end when any descriptor of the
    file is closed: it has to have one only.

    :param descriptor: of a file that all processes have, and that has nothing in it.
    :param name: of the service.
    :param part: where this process begins to look: others begin elsewhere.
    :param now: gives seconds.
    """

    def __init__(self, descriptor: int, name: str, part: float, now: Callable[[], float]) -> None:
        self._descriptor = descriptor
        self._name = name
        self._part = part
        self._now = now
        self._own: dict[str, set[int]] = {}
        self._full: dict[str, float] = {}

    def _at(self, key: str) -> int:
        digest = blake2b(f"{self._name}\0{key}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) >> (64 - _LIMITS) << _PLACES

    def _lock(self, key: str, place: int, kind: int) -> None:
        fcntl.lockf(self._descriptor, kind, 1, self._at(key) + place, os.SEEK_SET)

    def take(self, key: str, most: int) -> bool:
        """Take a place; tells whether there was one.

        :param key: of the limit.
        :param most: how many places it has.
        """
        now = self._now()
        if now < self._full.get(key, 0.0):
            return False
        own = self._own.setdefault(key, set())
        first = int(most * self._part)
        for number in range(most):
            place = (first + number) % most
            if place in own:
                continue
            try:
                self._lock(key, place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # another process has it
                continue
            own.add(place)
            return True
        if not own:
            del self._own[key]
        self._full = {other: end for other, end in self._full.items() if end > now}
        self._full[key] = now + _FULL
        return False

    def release(self, key: str) -> None:
        """Release a place, if this process has one."""
        if own := self._own.get(key):
            self._lock(key, own.pop(), fcntl.LOCK_UN)
            self._full.pop(key, None)
            if not own:
                del self._own[key]
