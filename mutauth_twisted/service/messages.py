"""Messages between a process and its workers: a JSON object a line.

To a worker: ``start`` (once), ``groups`` (what the names of groups stand for, when that changes),
``stop``.  From a worker: ``ready`` (once), and ``snapshots`` again and again, which say that it
is alive as well; ``seen`` is how often a client came with each service's own account.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import asdict, frozen
from twisted.internet.protocol import Protocol

#: The longest message, in bytes: a snapshot describes a few hundred sessions and refusals.
LONGEST: Final = 4 << 20
#: A worker's descriptor to its parent; from its parent it reads standard input.
TO_PARENT: Final = 3

#: The SIDs of named groups by service; see ``NamedGroups.sids``.
Groups = Mapping[str, Mapping[str, list[str]]]


@frozen
class Start:
    """Everything that a worker begins with.

    :param number: its number, from 1.
    :param count: how many workers there are.
    :param words: the options of ``twistd mutauth``.
    :param sockets: each endpoint that it takes connections of, and its descriptor.
    :param copies: the descriptors of keys that were copied, by their files.
    :param sessions: the descriptor of the file in which workers count sessions together.
    :param groups: what the names of groups stand for.
    """

    number: int
    count: int
    words: list[str]
    sockets: list[list[Any]]
    copies: dict[str, int]
    sessions: int
    groups: Groups

    def as_json(self) -> dict[str, Any]:
        """The message in JSON's types."""
        return asdict(self)


class Lines(Protocol):
    """Takes messages apart.

    :param take: is given each.
    """

    def __init__(self, take: Callable[[dict[str, Any]], None]) -> None:
        self._take = take
        self._rest = b""

    def dataReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            raise ValueError("a message is too long")
        for line in lines:
            self._take(json.loads(line))


def line_of(message: Mapping[str, Any]) -> bytes:
    """A message as it is sent."""
    return json.dumps(message).encode() + b"\n"
