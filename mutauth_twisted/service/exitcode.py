"""Exit code of the process, which twistd does not let a service choose."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any, Final

#: The service has stopped in order, but some of its connections were cut.
CUT: Final = 5
#: Its workers end again and again.
CRASHING: Final = 6

_codes: list[int] = []


def end_with(code: int, reactor: Any) -> None:
    """Make the process end with this exit code, unless it is to end with another than 0 already.

    twistd ends with 0 when the reactor was stopped, or by the signal that
    stopped it, which it finds in a private attribute of the reactor.  Handlers
    run last in, first out, so this one runs before any other, when twistd has
    removed its pid file.
    """
    reactor._exitSignal = None
    if not code:
        return
    if not _codes:
        atexit.register(_end)
    _codes.append(code)


def _end() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_codes[0])
