"""Lines of the keys in a TOML document, which :mod:`tomllib` does not tell."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping

from attrs import field, frozen

#: A key, or the number of a table among those of one array, counted from 0.
Path = tuple[str | int, ...]

# TOML 1.0: strings and comments are skipped whole; what is left are brackets, line ends and signs.
_TOKEN = re.compile(
    r'''(?P<string>"""(?:\\.|[^\\])*?"{3,5}(?!")|\'\'\'.*?\'{3,5}(?!\')'''
    r"""|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
    r"""|(?P<comment>\#[^\n]*)|(?P<opened>[\[{])|(?P<closed>[\]}])|(?P<end>\n)|(?P<sign>.)""",
    re.DOTALL,
)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement of a valid document, up to its first ``=``, with the number of its line."""
    line, began, depth, said, is_value = 1, 0, 0, "", False
    for token in _TOKEN.finditer(text + "\n"):
        kind, word = token.lastgroup, token[0]
        if kind == "end" and not depth:
            if said.strip():
                yield began, said.strip()
            said, is_value = "", False
        elif kind != "comment":
            if not said.strip():
                began = line
            depth += (kind == "opened") - (kind == "closed")
            is_value = is_value or (word == "=" and not depth)
            said += "" if is_value else word
        line += word.count("\n")


def _keys(dotted: str) -> tuple[str, ...]:
    """The keys of a dotted key, as TOML reads them."""
    keys = []
    value = tomllib.loads(f"{dotted} = 0")
    while isinstance(value, dict):
        [(key, value)] = value.items()
        keys.append(key)
    return tuple(keys)


def _find(text: str) -> dict[Path, int]:
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()

    def note(below: Path, keys: tuple[str, ...], line: int) -> Path:
        """Walk from a table to a key, through the last table of each array on the way."""
        path = below
        for key in keys:
            path = (*path, key)
            lines.setdefault(path, line)
            if path in counts:
                path = (*path, counts[path] - 1)
        return path

    for line, said in _statements(text):
        if said.startswith("[["):
            *above, last = _keys(said[2:-2])
            array = (*note((), tuple(above), line), last)
            counts[array] = counts.get(array, 0) + 1
            table = note((), (*above, last), line)
            lines[table] = line
        elif said.startswith("["):
            table = note((), _keys(said[1:-1]), line)
        else:
            note(table, _keys(said), line)
    return lines


@frozen
class KeyLines:
    """The lines of a document's keys, counted from 1.

    :param text: a valid TOML document.
    """

    text: str = field(repr=False)
    _lines: Mapping[Path, int] = field(init=False, repr=False, eq=False)

    @_lines.default
    def _default_lines(self) -> Mapping[Path, int]:
        return _find(self.text)

    def line_of(self, *path: str | int) -> int:
        """The line of a key, or of the nearest table or key around it.

        :param path: keys from the top of the document, and numbers of tables in arrays:
            ``"allow", 1, "groups"``.
        """
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)
