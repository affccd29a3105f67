"""Signals to a reactor that stops: a second one must not stop it again, with all that it waits
for.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any


def stop_on_hangup(reactor: Any) -> None:
    """Have SIGHUP stop the reactor as SIGTERM does; ignored, as under nohup, it stays so.

    :param reactor: Twisted's reactor; one without signal handlers is left alone.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL and hasattr(reactor, "sigTerm"):
        signal.signal(signal.SIGHUP, reactor.sigTerm)


def reload_on_hangup(reactor: Any, reload: Callable[[str], object]) -> None:
    """Have SIGHUP ask for a reload; ignored, as under nohup, it stays so.

    A terminal that is closed sends it too: a process that had one, and has lost it, stops.

    :param reactor: Twisted's reactor; one without signal handlers is left alone.
    :param reload: is told the signal's name, in the reactor's thread.
    """
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL or not hasattr(reactor, "sigTerm"):
        return
    had_terminal = _has_terminal()

    def act(number: int, frame: object) -> None:
        if had_terminal and not _has_terminal():
            reactor.sigTerm(number, frame)
        else:
            reactor.callFromThread(reload, signal.Signals(number).name)

    signal.signal(signal.SIGHUP, act)


def _has_terminal() -> bool:
    """Tell whether the process has a controlling terminal (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def expect_no_more(reactor: Any, again: Callable[[str], object]) -> None:
    """Replace the reactor's own handlers, and no others, once it stops.

    :param again: is told the name of each signal that comes after all, in the reactor's thread.
    """

    def tell(number: int, frame: object) -> None:
        reactor.callFromThread(again, signal.Signals(number).name)

    for number, usual in (
        (signal.SIGTERM, "sigTerm"),
        (signal.SIGINT, "sigInt"),
        (signal.SIGHUP, "sigTerm"),
    ):
        if signal.getsignal(number) == getattr(reactor, usual, reactor):
            signal.signal(number, tell)


def take_no_more() -> None:
    """Have no signal to stop end the process any more, which is about to end with a code of its
    own: the reactor gives up its handlers before that.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
