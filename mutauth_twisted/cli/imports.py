"""Imports that take a while, in which Ctrl-C must end in one line as it does later."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """End the process with one line when Ctrl-C is pressed in the block."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupted(*_: object) -> None:
    # No exception: an import in the middle might make another one of it.
    os.write(2, b"mutauth: interrupted\n")
    os._exit(130)
