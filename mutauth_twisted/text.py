"""Text from outside, made safe and short before it is shown.

Names in tickets, certificates and NTLM messages, attributes of the directory
and answers of DNS are written by others.  On a terminal, in a log or on the
status page they could hide, colour or forge lines, and fill disks.  Everything
of this kind goes through this module:

- :func:`short_name` for one name: cut first, so that the work is bounded, and escaped then;
- :func:`one_line` for a whole line, which is bounded as well: what is left over of errors and log
  lines;
- :func:`printable` for what has to stay whole, such as a DN in a table that a user asked for.
"""

from __future__ import annotations

import re
from typing import Final

#: The most characters that are shown of a name.
LONGEST_NAME: Final = 100
#: The most characters of a line about a peer that has not authenticated itself.
LONGEST_STRANGER: Final = 1000
#: The most characters of any other line; commands for administrators, with several DNs in them,
#: have to fit.
LONGEST_LINE: Final = 8000
_CUT: Final = "..."

# What str.isprintable() lets pass and is invisible: the rest of Unicode's
# Default_Ignorable_Code_Point, and blank Braille.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def printable(text: str) -> str:
    """The text with everything that a terminal or a log might obey or hide written as an escape,
    ``\\x1b``.

    Controls, text direction and other formatting, separators, surrogates,
    private and unassigned characters, and what is invisible.  Letters of every
    script stay; applied twice it changes nothing more.
    """
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return "".join(
        each if each.isprintable() and not _INVISIBLE.match(each) else _escaped(each)
        for each in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _bounded(text: str, most: int) -> str:
    if len(text) > most:
        text = text[:most] + _CUT
    shown = printable(text)
    # Escapes are longer than what they stand for.
    return shown if len(shown) <= most + len(_CUT) else shown[:most] + _CUT


def short_name(text: str | bytes, most: int = LONGEST_NAME) -> str:
    """One name that others chose, cut and escaped; bytes are read as UTF-8, and invalid bytes are
    escaped.

    :param most: how many characters are shown; a cut name ends with three dots.
    """
    if isinstance(text, bytes):
        text = text[: 4 * most + 4].decode("utf-8", "backslashreplace")
    return _bounded(text, most)


def one_line(text: str, most: int = LONGEST_LINE) -> str:
    """A whole line, with white space of every kind as single blanks, bounded and escaped."""
    return _bounded(" ".join(text[: 2 * most].split()), most)
