"""Tables of TOML as front-ends: their keys are options."""

from __future__ import annotations

import json
from typing import Any

from attrs import field, frozen

from mutauth_twisted.errors import UsageError
from mutauth_twisted.settings.lines import KeyLines, Path
from mutauth_twisted.settings.read import Front
from mutauth_twisted.settings.schema import Option, Where

_TYPES: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a float",
    bool: "a boolean",
    list: "an array of strings",
    dict: "a table",
}


@frozen
class Toml(Front):
    """A table, with values of TOML's types.

    :param file: its file, as errors name it; empty: there is none.
    :param lines: the lines of that file's keys.
    :param table: the keys that lead to the table.
    """

    file: str = ""
    lines: KeyLines = field(default=KeyLines(""))
    table: Path = ()

    def place(self, name: str) -> str:
        """See :class:`Front`."""
        if not self.file:
            return self.subject
        return f"{self.file}:{self.lines.line_of(*self.table, name)}: {self.subject}"

    def spell(self, name: str, value: object = None) -> str:
        """See :class:`Front`."""
        return name if value is None else f"{name} = {json.dumps(value, default=str)}"

    def several(self, name: str) -> str:
        """See :class:`Front`."""
        return f'give each as a string of its own: {name} = ["A", "B"]'

    def raw(self, option: Option, value: Any) -> Any:
        """See :class:`Front`."""
        kind = option.kind
        types = (list,) if kind.repeatable else kind.types
        strings = not isinstance(value, list) or all(isinstance(each, str) for each in value)
        if type(value) not in types or not strings:
            wanted = " or ".join(map(_TYPES.__getitem__, types))
            found = _TYPES[type(value)] if strings and type(value) in _TYPES else "something else"
            raise UsageError("", f"it is {found}", f"give it {wanted}")
        return ",".join(value) if isinstance(value, list) and not kind.repeatable else value


TOML = Toml(Where.SERVICE, "key", "key ")
