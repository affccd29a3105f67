"""Tables of TOML as front-ends: their keys are options."""

from __future__ import annotations

import errno
import json
import re
import tomllib
from typing import Any

from attrs import field, frozen

from mutauth_twisted.errors import UsageError
from mutauth_twisted.files import OthersFile, read_file
from mutauth_twisted.findings import Command
from mutauth_twisted.settings.lines import KeyLines, Path
from mutauth_twisted.settings.read import Front
from mutauth_twisted.settings.schema import Option, Where, options

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
        if value is None:
            return name
        option = options(self.where).get(name)
        if option is not None and option.kind.repeatable and value == option.kind.metavar:
            value = [value]  # what is to be written, and no value of a file
        return f"{name} = {json.dumps(value, default=str)}"

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


def read_toml(
    path: str, what: str, *, unusable: str, writable: str
) -> tuple[dict[str, Any], KeyLines]:
    """A document that decides who is authorized.

    :param what: what the errors call it.
    :param unusable: the code of an error about what is in it, or that it is not there.
    :param writable: the code of an error about who may change it.
    :raises UsageError: when it cannot be read, others may change it, or it is not TOML.
    """
    subject = f"{what} {path}"
    try:
        text = read_file(path, unwritable=True).decode()
    except PermissionError as error:
        if error.errno != errno.EPERM:
            cause, remedy = "it cannot be read by this user", "give this user the right to read it"
            raise UsageError(subject, cause, remedy, code=unusable) from None
        words = ("chown", "-h", "root") if isinstance(error, OthersFile) else ("chmod", "go-w")
        command = Command(*words, error.filename)
        raise UsageError(subject, str(error.strerror), command, code=writable) from None
    except OSError as error:
        cause = f"it cannot be read: {(error.strerror or str(error)).lower()}"
        raise UsageError(subject, cause, "check its path", code=unusable) from None
    except UnicodeDecodeError:
        cause, remedy = "it is not UTF-8", "write it in UTF-8"
        raise UsageError(subject, cause, remedy, code=unusable) from None
    try:
        return tomllib.loads(text), KeyLines(text)
    except tomllib.TOMLDecodeError as error:
        said, line = _place_of(str(error), text)
        cause, remedy = f"it is not valid TOML: {said}", "correct it; texts are in quotes"
        raise UsageError(f"{path}:{line}", cause, remedy, code=unusable) from None
    except RecursionError:
        cause, remedy = "it is nested too deeply", "write tables and lists only"
        raise UsageError(subject, cause, remedy, code=unusable) from None


def _place_of(said: str, text: str) -> tuple[str, int]:
    """Cause and line of a syntax error; tomllib tells the line in its text only."""
    if found := re.fullmatch(r"(.*) \(at line ([0-9]+), column [0-9]+\)", said, re.DOTALL):
        return found[1], int(found[2])
    return said.removesuffix(" (at end of document)"), max(1, len(text.splitlines()))


TOML = Toml(Where.SERVICE, "key", "key ")
