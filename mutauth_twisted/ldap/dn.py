"""DNs, filters and GUIDs as text, with everything that comes from users escaped."""

from __future__ import annotations

import re
from uuid import UUID

from mutauth_twisted.names import fold_ascii

_RDN = re.compile(r" *([A-Za-z][A-Za-z0-9-]*|[0-9.]+) *= *([^ ].*)", re.DOTALL)
_SPECIAL = '"+,;<>\\='


def escape_rdn_value(value: str) -> str:
    """A value as it stands in a DN (RFC 4514, section 2.4)."""
    escaped = []
    for place, character in enumerate(value):
        at_edge = (place == 0 and character in " #") or (
            place == len(value) - 1 and character == " "
        )
        if character in _SPECIAL or at_edge:
            escaped.append("\\" + character)
        elif ord(character) < 0x20:
            escaped.append(f"\\{ord(character):02X}")
        else:
            escaped.append(character)
    return "".join(escaped)


def child_dn(name: str, parent: str) -> str:
    """The DN of the object of that common name below the parent."""
    return f"CN={escape_rdn_value(name)},{parent}"


def _rdns(dn: str) -> list[str]:
    """The DN cut at its bare commas."""
    rdns, start, escaped = [], 0, False
    for place, character in enumerate(dn):
        if character == "," and not escaped:
            rdns.append(dn[start:place])
            start = place + 1
        escaped = character == "\\" and not escaped
    return [*rdns, dn[start:]]


def _components(dn: str) -> list[tuple[str, str]]:
    """Type in lower case and value of each RDN, escapes and all; none when the text is not a DN."""
    found = [_RDN.fullmatch(rdn) for rdn in _rdns(dn)]
    return [(match[1].casefold(), match[2]) for match in found if match] if all(found) else []


def is_dn(text: str) -> bool:
    """Tell whether the text is a DN in a domain, and not a keyword that holds a ``=``."""
    components = _components(text)
    return bool(components) and components[-1][0] == "dc"


def domain_of(dn: str) -> str:
    """The DNS name of the domain that an object is in."""
    return fold_ascii(".".join(value for kind, value in _components(dn) if kind == "dc"))


def parent_of(dn: str) -> str:
    """The DN of the object above."""
    return ",".join(_rdns(dn)[1:])


def same_dn(one: str, other: str) -> bool:
    """Tell whether two DNs name the same object: the case of A to Z and the spelling of escapes do
    not count.
    """
    mine, theirs = (
        [(kind, fold_ascii(_unescape(value))) for kind, value in _components(dn)]
        for dn in (one, other)
    )
    return mine == theirs if mine else fold_ascii(one) == fold_ascii(other)


# In one pass: what an escaped backslash leaves must not be taken for the start of another escape.
_ESCAPES = re.compile(r"((?:\\[0-9A-Fa-f]{2})+)|\\(.)", re.DOTALL)


def _unescape(value: str) -> str:
    def meant(match: re.Match[str]) -> str:
        if match[1]:
            return bytes.fromhex(match[1].replace("\\", "")).decode("utf-8", "replace")
        return match[2]

    return _ESCAPES.sub(meant, value)


def parse_guid(text: str) -> UUID | None:
    """The GUID that a text is, with or without braces; None: it is not one."""
    bare = text[1:-1] if text.startswith("{") and text.endswith("}") else text
    if not re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", bare):
        return None
    return UUID(bare)


def guid_dn(guid: UUID) -> str:
    """The search base that names an object wherever it was moved (MS-ADTS 3.1.1.3.1.2.4)."""
    return f"<GUID={guid}>"


def common_name(dn: str) -> str:
    """The value of a DN's first component, without escapes."""
    components = _components(dn)
    return _unescape(components[0][1]) if components else ""
