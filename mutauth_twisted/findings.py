"""Findings: what is wrong with one object, under a code that stays, and the next step; values only.

An error carries a finding, and so does a check that does not stop anything.
People read the line that ``str()`` gives.  Programs compare the code, and run
the commands of the remedy: nothing ever has to take a sentence apart.
:mod:`mutauth_twisted.codes` lists the codes.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import Factory, field, frozen

from mutauth_twisted.codes import CODES, Severity
from mutauth_twisted.text import one_line


@frozen(init=False)
class Command:
    """A command line to be copied into a shell; ``str()`` quotes it for one.

    :ivar words: the program and its arguments.
    """

    words: tuple[str, ...]

    def __init__(self, *words: object) -> None:
        self.__attrs_init__(tuple(map(str, words)))

    def __str__(self) -> str:
        return shlex.join(self.words)


#: The next step: text, a command to run, or both in the order in which they are read.
Remedy = str | Command | tuple[str | Command, ...]


def either(commands: Iterable[Command], word: str = "and") -> tuple[str | Command, ...]:
    """Parts of a remedy: several commands with a word between them."""
    parts: list[str | Command] = []
    for command in commands:
        parts += [f" {word} ", command] if parts else [command]
    return tuple(parts)


def _parts(remedy: Remedy) -> tuple[str | Command, ...]:
    if isinstance(remedy, Command):
        return ("run ", remedy)
    return (remedy,) if isinstance(remedy, str) else remedy


@frozen
class Finding:
    """Something wrong with one object.

    :param code: which of :data:`~mutauth_twisted.codes.CODES` it is.
    :param subject: the object it is about (an SPN, a file, a DN, ...).
    :param cause: what is wrong with it.
    :param remedy: the next step for the reader; may be empty.
    :param severity: that of the code by default; a warning where it stops nothing.
    """

    code: str
    subject: str
    cause: str
    remedy: Remedy = ""
    severity: Severity = field(
        default=Factory(lambda self: CODES[self.code].severity, takes_self=True)
    )

    def __str__(self) -> str:
        line = f"{self.subject}: {self.cause}"
        return one_line(f"{line}; {remedy}" if (remedy := self.remedy_text) else line)

    @property
    def coded(self) -> str:
        """The line with its code in front, as logs, the status page and commands show it."""
        return f"[{self.code}] {self}"

    @property
    def key(self) -> tuple[str, str]:
        """Code and subject: the same finding, seen again, has the same key in other words."""
        return self.code, self.subject

    @property
    def remedy_text(self) -> str:
        """The remedy as people read it."""
        return "".join(map(str, _parts(self.remedy)))

    def as_json(self) -> dict[str, Any]:
        """The finding for programs, of JSON's types only."""
        commands = [list(part.words) for part in _parts(self.remedy) if isinstance(part, Command)]
        return {
            "code": self.code,
            "severity": self.severity,
            "subject": self.subject,
            "cause": self.cause,
            "remedy": self.remedy_text,
            "commands": commands,
        }

    @property
    def remedy_parts(self) -> tuple[str | Command, ...]:
        """The remedy as text and commands, in the order in which they are read."""
        return _parts(self.remedy)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """The finding that :meth:`as_json` described.

        :raises KeyError, TypeError, AttributeError: for what it did not make.
        """
        rest, parts = data["remedy"], []
        for words in data["commands"]:
            command = Command(*words)
            text, _, rest = rest.partition(str(command))
            parts += [text, command] if text else [command]
        remedy = (*parts, rest) if rest else tuple(parts)
        return cls(data["code"], data["subject"], data["cause"], remedy, data["severity"])
