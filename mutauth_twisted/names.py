"""Names of principals and hosts, compared as directories and KDCs compare them."""

from __future__ import annotations

import re

from mutauth_twisted.errors import UsageError

# MIT krb5 escapes '@', '/' and '\\' inside a component with a backslash: only a bare '@' starts the
# realm.
_PRINCIPAL = re.compile(r"((?:[^\\@]|\\.)*)(?:@(.*))?", re.DOTALL)


def split_principal(principal: str) -> tuple[str, str]:
    """Split ``name@REALM``; the realm is empty when there is none."""
    match = _PRINCIPAL.match(principal)
    assert match is not None, "the pattern matches the empty string"
    return match[1], match[2] or ""


def escape_name(name: str) -> str:
    """A name as it stands in a principal."""
    return re.sub(r"([\\@/])", r"\\\1", name)


def fold_ascii(text: str) -> str:
    """The text with A to Z made small, and nothing else: what two names may differ in and still be
    one name.

    Unicode's folding makes one name of several that a directory keeps apart
    (U+212A, the Kelvin sign, and k; ß and ss).
    """
    return text.translate(_SMALL)


_SMALL = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


_HOST = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)


def is_host_name(name: str) -> bool:
    """Tell whether this may be a DNS name (RFC 1123, section 2.1; and ``_``, with which SRV records
    begin).
    """
    return (
        len(name) <= 253
        and bool(_HOST.fullmatch(name))
        and all(len(label) <= 63 for label in name.split("."))
    )


def check_host_name(name: str, subject: str) -> str:
    """Verify that a name is an ASCII host name; return it without the final dot.

    A name with other characters is one that a directory or a KDC may take for another host's.

    :param subject: the error's.
    :raises UsageError: when it is not.
    """
    bare = name.removesuffix(".")
    if not is_host_name(bare):
        raise UsageError(
            subject,
            "it is not a valid host name",
            "write a DNS name: ASCII letters, digits, - and _",
        )
    return bare
