"""Messages between a process and its workers: a JSON object a line.

To a worker: ``start`` (once), ``groups`` (what the names of groups stand for, when that changes),
``reload`` (what is in force from now on), ``stop``.  From a worker: ``ready`` (once), ``applied``
(the answer to a reload: whether it has), and ``snapshots`` again and again, which say that it is
alive as well; ``seen`` is how often a client came with each service's own account.
"""

from __future__ import annotations

import json
import signal
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from attrs import asdict, field, frozen
from twisted.internet.protocol import Protocol

#: The longest message of a worker, in bytes: a snapshot describes a few hundred sessions and
#: refusals.
LONGEST: Final = 4 << 20
#: A worker's descriptor to its parent; from its parent it reads standard input.
TO_PARENT: Final = 3
#: Who stops or reloads a service tells the parent, which tells its workers.
OBEYS_NO_SIGNAL: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

#: The SIDs of named groups by service; see ``NamedGroups.sids``.
Groups = Mapping[str, Mapping[str, list[str]]]


@frozen
class Configuration:
    """Configuration of workers: the files that their parent has read and validated.

    Keytabs are not among them: whoever has a file's name has its keys, as they are in it now.

    :param files: their contents in base64, by absolute path.
    :param copies: the descriptors of keys that stand for files which cannot be read.
    """

    files: Mapping[str, str]
    copies: Mapping[str, int]

    @classmethod
    def of(
        cls, contents: Mapping[str, bytes], keytabs: Collection[str], copies: Mapping[str, int]
    ) -> Configuration:
        """Make one of what was read.

        :param keytabs: the files that workers read themselves.
        """
        read = {path: each for path, each in contents.items() if path not in keytabs}
        return cls({path: b64encode(each).decode() for path, each in read.items()}, copies)

    @property
    def contents(self) -> dict[str, bytes]:
        """The contents of the files."""
        return {path: b64decode(text) for path, text in self.files.items()}


def _configuration(given: Configuration | Mapping[str, Any]) -> Configuration:
    return given if isinstance(given, Configuration) else Configuration(**given)


@frozen
class Start:
    """Everything that a worker begins with.

    :param number: its number, from 1.
    :param count: how many workers there are.
    :param words: the options of ``twistd mutauth``.
    :param sockets: each endpoint that it takes connections of, and its descriptor.
    :param sessions: the descriptor of the file in which workers count sessions together.
    :param configuration: what it serves by.
    :param groups: what the names of groups stand for.
    """

    number: int
    count: int
    words: list[str]
    sockets: list[list[Any]]
    sessions: int
    configuration: Configuration = field(converter=_configuration)
    groups: Groups

    def as_json(self) -> dict[str, Any]:
        """The message in JSON's types."""
        return asdict(self)


@frozen
class Renewal:
    """A reload, as a worker has to apply it.

    :param configuration: what it serves by from now on.
    :param groups: what the names of groups stand for.
    :param changed: the names of the services that change.
    """

    configuration: Configuration = field(converter=_configuration)
    groups: Groups
    changed: list[str]

    def as_json(self) -> dict[str, Any]:
        """The message in JSON's types."""
        return asdict(self)


class Lines(Protocol):
    """Takes messages apart.

    :param take: is given each.
    :param longest: how many bytes one may have; None: any number.
    """

    def __init__(
        self, take: Callable[[dict[str, Any]], None], longest: int | None = LONGEST
    ) -> None:
        self._take = take
        self._longest = longest
        self._rest = b""

    def dataReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._longest is not None and len(self._rest) > self._longest:
            raise ValueError("a message is too long")
        for line in lines:
            self._take(json.loads(line))


def line_of(message: Mapping[str, Any]) -> bytes:
    """A message as it is sent."""
    return json.dumps(message).encode() + b"\n"
