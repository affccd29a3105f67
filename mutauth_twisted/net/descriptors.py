"""File descriptors: how many this process may have, what of a service's limits fits, and what
happens when none is left.
"""

from __future__ import annotations

import os
import select
from collections.abc import Collection
from typing import Any

from attrs import evolve
from twisted.internet import tcp

from mutauth_twisted.errors import UsageError
from mutauth_twisted.log import Log
from mutauth_twisted.net.limits import Limits

try:
    import resource
except ImportError:  # on Windows, where nothing limits them that could be asked for
    resource = None  # type: ignore[assignment]

#: Descriptors that connections leave to others: the directory, DNS, the status port's watchers,
#: logs, the keytab, the replay cache.
RESERVE = 64
#: No connection is accepted while fewer than these are left, so that who accepted one can still
#: connect for it.
SPARE = 24
#: Connections that are accepted before the reactor looks at the others again, each of which may
#: cost two descriptors.
BATCH = 8
#: How long, in seconds, none is accepted when they are used up, and how often the log says so at
#: most.
PAUSE = 0.25
AGAIN = 60.0

#: More than any process needs, for systems that set no limit.
_ENOUGH = 1 << 20

#: The next step when they are too few.
REMEDY = "raise LimitNOFILE= (or ulimit -n)"


def raise_limit() -> int:
    """Ask for as many descriptors as this process can have: the soft limit is meant for programs
    that use select().

    :return: how many it may have now.
    """
    if resource is None:
        return _ENOUGH
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else hard
    if soft == resource.RLIM_INFINITY:
        return wanted
    # Where the hard limit is none the kernel has one of its own, which nothing but trying tells.
    while wanted > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            wanted = max(soft, wanted // 2)
        else:
            return wanted
    return soft


def fit(limits: Limits, explicit: Collection[str], each: int, available: int) -> Limits:
    """Limits that a number of descriptors is enough for.

    :param limits: those that are wanted.
    :param explicit: the names of those that the user gave, which are not changed.
    :param each: descriptors of a session.
    :param available: how many there are in all.
    :raises UsageError: when what the user gave does not fit.
    """
    room = available - RESERVE
    wanted = {
        "max-handshakes": limits.handshakes,
        "max-waiting": limits.waiting,
        "max-connections": limits.connections,
    }
    costs = {"max-handshakes": 1, "max-waiting": 1, "max-connections": each}
    if sum(costs[name] * number for name, number in wanted.items()) <= room:
        return limits
    given = sum(costs[name] * number for name, number in wanted.items() if name in explicit)
    share = max(1, min(room // 8, (room - given) // 2))
    fitting = {
        name: number if name in explicit else min(number, share) for name, number in wanted.items()
    }
    left = (room - fitting["max-handshakes"] - fitting["max-waiting"]) // each
    if "max-connections" not in explicit:
        fitting["max-connections"] = max(1, min(limits.connections, left))
    if fitting["max-connections"] > left:
        subject = " ".join(
            f"--{name} {number}" for name, number in wanted.items() if name in explicit
        )
        needed = sum(costs[name] * number for name, number in fitting.items()) + RESERVE
        cause = (
            f"{needed} descriptors are needed, {each} for a session, and this process may have "
            f"{available}"
        )
        raise UsageError(subject or "this service", cause, f"{REMEDY}, or lower it")
    handshakes, waiting = fitting["max-handshakes"], fitting["max-waiting"]
    # Its defaults leave other addresses room, however few there are in all.
    shares = Limits(handshakes=handshakes, waiting=waiting)
    of_one, waiting_of_one = limits.handshakes_per_address, limits.waiting_per_address
    if "max-handshakes-per-address" not in explicit:
        of_one = min(of_one, shares.handshakes_per_address)
    if "max-waiting-per-address" not in explicit:
        waiting_of_one = min(waiting_of_one, shares.waiting_per_address)
    return evolve(
        limits,
        handshakes=handshakes,
        handshakes_per_address=of_one,
        waiting=waiting,
        waiting_per_address=waiting_of_one,
        connections=fitting["max-connections"],
    )


class _Gate:
    """Accepts a port's connections while there are descriptors for them."""

    _log = Log()

    def __init__(self, port: tcp.Port, reactor: Any) -> None:
        self._port: Any = port
        self._reactor = reactor
        self._accept = port.doRead
        self._said: float | None = None

    def read(self) -> None:
        """Stands in for the port's doRead."""
        if not _is_ready(self._port.fileno()):  # another process with this socket was quicker
            return
        if _are_left(SPARE, self._port.fileno()):
            # Twisted adapts this to the traffic, and would take a hundred in a turn.
            self._port.numberAccepts = min(self._port.numberAccepts, BATCH)
            self._accept()
            return
        # Those who come wait in the kernel; watched, the port would keep the reactor spinning.
        self._port.stopReading()
        self._reactor.callLater(PAUSE, self._go_on)
        now = self._reactor.seconds()
        if self._said is None or now - self._said >= AGAIN:
            self._said = now
            text = (
                "this process has no file descriptor left for another connection, accepting none "
                "for now; {remedy}"
            )
            self._log.error(text, remedy=REMEDY)

    def _go_on(self) -> None:
        if self._port.connected and not self._port.disconnecting:
            self._port.startReading()


def guard(port: Any, reactor: Any) -> Any:
    """Have a port accept no connection while descriptors are short.

    Left to itself, Twisted's port closes all that wait, with a line in the log
    for each, and whatever else opens a file fails meanwhile.

    :param port: what an endpoint's listen() gave; one that accepts in another way is left alone.
    :return: the port.
    """
    # Of the instance: endpoints have no say in which class of port a reactor makes.
    if isinstance(port, tcp.Port):
        port.doRead = _Gate(port, reactor).read  # type: ignore[method-assign]
    return port


def _is_ready(descriptor: int) -> bool:
    """Tell whether a connection waits: looking costs less than trying."""
    polling = select.poll()
    polling.register(descriptor, select.POLLIN)
    return bool(polling.poll(0))


def _are_left(count: int, descriptor: int) -> bool:
    """Tell whether so many more can be had; nothing but having them tells."""
    copies: list[int] = []
    try:
        while len(copies) < count:
            copies.append(os.dup(descriptor))
    except OSError:
        return False
    finally:
        for copy in copies:
            os.close(copy)
    return True
