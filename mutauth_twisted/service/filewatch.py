"""Notice that files have changed, whichever way they are written.

They are looked at every second.  The kernel's notifications know nothing of network file
systems, nor of what a symbolic link in the middle of a path leads to, and a dozen of stat() calls
costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from twisted.internet.task import LoopingCall

#: Seconds between two looks.
INTERVAL: Final = 1.0

_Stamp = tuple[int, ...] | None


def _stamp(path: str) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    # The time of the last change of rights or owner (ctime) counts: who may write is checked too.
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (found.st_dev, found.st_ino, found.st_size, *times)


class FileWatch:
    """Looks at files again and again.

    A file that changes between two looks is left alone until it is the same in two: whoever writes
    in place is not interrupted in the middle.

    :param clock: provides IReactorTime.
    :param files: tells which files, at each look.
    :param changed: is told those that have changed.
    """

    def __init__(
        self,
        clock: Any,
        files: Callable[[], Iterable[str]],
        changed: Callable[[list[str]], object],
    ) -> None:
        self._files = files
        self._changed = changed
        self._known: Mapping[str, _Stamp] = {}
        self._latest: Mapping[str, _Stamp] = {}
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin; what there is now is known."""
        self.accept()
        self._loop.start(INTERVAL, now=False)

    def stop(self) -> None:
        """End."""
        if self._loop.running:
            self._loop.stop()

    def accept(self) -> None:
        """Take the files as they are for known."""
        self._known = self._latest = {path: _stamp(path) for path in self._files()}

    def _look(self) -> None:
        before, now = self._latest, {path: _stamp(path) for path in self._files()}
        self._latest = now
        if now != before or now == self._known:
            return
        changed = [path for path, stamp in now.items() if stamp != self._known.get(path)]
        self._known = now
        if changed:
            self._changed(changed)
