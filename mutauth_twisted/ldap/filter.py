"""A correction of ldap3's search filters.

In a filter ``\\2a`` stands for the byte 0x2A (RFC 4515, section 3).  Without a
schema ldap3 2.10.2rc4 sends the three characters instead, so that a value with
a star, a backslash or a letter beyond ASCII is never found: a taken SPN looks
free.  Released versions before it are right.
"""

from __future__ import annotations

import re

from ldap3.operation import search
from ldap3.utils.conv import escape_bytes, to_raw

_ESCAPE = re.compile(rb"\\([0-9A-Fa-f]{2})")


def unescape(value: str | bytes) -> bytes:
    """The bytes that an escaped assertion value stands for."""
    raw: bytes = to_raw(value)
    return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), raw)


def sent_for(text: str) -> bytes:
    """Return the value that ldap3 sends for the filter ``(x=text)``."""
    tree = search.parse_filter(f"(x={text})", None, True, True, None, False)
    return bytes(search.compile_filter(tree.elements[0])["equalityMatch"]["assertionValue"])


def correct_ldap3() -> None:
    """Make ldap3 send what filters mean; does nothing to a version that does."""
    if sent_for("\\2a") != b"*":
        search.prepare_filter_for_sending = unescape


def equals(attribute: str, value: str | bytes) -> str:
    """The filter ``(attribute=value)`` (RFC 4515)."""
    raw = value.encode() if isinstance(value, str) else value
    # ldap3 takes blanks at the edges away.
    if raw == raw.strip() and all(0x20 <= byte < 0x7F and byte not in b"\\*()" for byte in raw):
        return f"({attribute}={raw.decode()})"
    return f"({attribute}={escape_bytes(raw)})"


def matches(attribute: str, pattern: str) -> str:
    """The filter for values that fit a pattern, in which ``*`` stands for any text (RFC 4515)."""
    pieces = [
        equals(attribute, piece)[len(attribute) + 2 : -1] for piece in re.split(r"\*+", pattern)
    ]
    return f"({attribute}={'*'.join(pieces)})"


def all_of(*filters: str) -> str:
    """The filter that asks for every one of these."""
    return f"(&{''.join(filters)})"


def any_of(*filters: str) -> str:
    """The filter that asks for at least one of these."""
    return f"(|{''.join(filters)})"
