"""What a finished exchange must have proven, and who may come in: values only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import Enum, IntFlag
from fnmatch import fnmatchcase
from functools import lru_cache
from unicodedata import normalize

from attrs import field, frozen

from mutauth_twisted.errors import UsageError


class Flag(IntFlag):
    """Context flags with the numbers of RFC 2744, section 3.9.1."""

    DELEGATE = 1
    MUTUAL = 2
    REPLAY = 4
    SEQUENCE = 8
    CONFIDENTIALITY = 16
    INTEGRITY = 32


class Protection(Enum):
    """How application data is protected once both sides are proven."""

    SEAL = "seal"
    SIGN = "sign"

    @property
    def required_flags(self) -> Flag:
        """The flags without which no byte may flow."""
        flags = Flag.MUTUAL | Flag.INTEGRITY | Flag.REPLAY | Flag.SEQUENCE
        return flags | Flag.CONFIDENTIALITY if self is Protection.SEAL else flags


def flag_names(flags: int) -> str:
    """Name flags for people, e.g. ``mutual, replay``; unknown bits as hex."""
    names = [flag.name.lower() for flag in Flag if flag & flags and flag.name]
    if unknown := flags & ~int(~Flag(0)):
        names.append(f"0x{unknown:x}")
    return ", ".join(names) or "none"


# MIT krb5 escapes '@', '/' and '\\' inside a component with a backslash: only a bare '@' starts the realm.
_PRINCIPAL = re.compile(r"((?:[^\\@]|\\.)*)(?:@(.*))?", re.DOTALL)


def split_principal(principal: str) -> tuple[str, str]:
    """Split ``name@REALM``; the realm is empty when there is none."""
    match = _PRINCIPAL.match(principal)
    assert match is not None, "the pattern matches the empty string"
    return match[1], match[2] or ""


def fold_ascii(text: str) -> str:
    """The text with A to Z made small, and nothing else: what two names may differ in and still be one name.

    Unicode's folding makes one name of several that a directory keeps apart
    (U+212A, the Kelvin sign, and k; ß and ss).
    """
    return text.translate(_SMALL)


_SMALL = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def _fold_everything(text: str) -> str:
    return normalize("NFKC", normalize("NFKC", text).casefold())


def _check_patterns(instance: object, attribute: object, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        name, realm = split_principal(pattern)
        if not name or not realm:
            raise UsageError(
                f"pattern {pattern!r}", "it names no realm", f"write {name or '*'}@REALM, or {name or '*'}@* for any"
            )


_SID = re.compile(r"S-1-\d{1,15}(-\d{1,10}){1,15}", re.ASCII)


def _check_sids(instance: object, attribute: object, sids: tuple[str, ...]) -> None:
    for sid in sids:
        if not _SID.fullmatch(sid):
            raise UsageError(f"group {sid!r}", "it is no SID", "give its objectSid, such as S-1-5-21-1-2-3-1104")


def _as_sids(sids: Iterable[str]) -> tuple[str, ...]:
    return tuple(sid[:1].upper() + sid[1:] for sid in sids)


def _as_tuple(patterns: Iterable[str]) -> tuple[str, ...]:
    return tuple(patterns)


@lru_cache(maxsize=1024)
def _matches(principal: str, patterns: tuple[str, ...], fold: Callable[[str], str]) -> bool:
    name, realm = map(fold, split_principal(principal))
    for pattern in patterns:
        name_pattern, realm_pattern = map(fold, split_principal(pattern))
        if fnmatchcase(name, name_pattern) and fnmatchcase(realm, realm_pattern):
            return True
    return False


@frozen
class AccessPolicy:
    """Which proven principals a service lets in; a denial beats an allowance.

    Patterns are ``name@REALM`` with shell wildcards in either part.  The case
    of A to Z does not count, as in the directory; a denial also finds names
    that only look like the one denied.  A name that holds an escaped character
    is another name of some account (``bob\\@example.com@EXAMPLE.COM``, which
    any client may ask its KDC for): no pattern matches it, so that it comes in
    only where everybody does.

    Groups are SIDs; they let in, as patterns do, whom no denial keeps out.

    :raises UsageError: for a pattern without a realm, or a group that is no SID.
    """

    allow: tuple[str, ...] = field(default=(), converter=_as_tuple, validator=_check_patterns)
    deny: tuple[str, ...] = field(default=(), converter=_as_tuple, validator=_check_patterns)
    allow_all: bool = False
    allow_groups: tuple[str, ...] = field(default=(), converter=_as_sids, validator=_check_sids)

    @property
    def lets_nobody_in(self) -> bool:
        """Whether there is nobody whom it lets in."""
        return not (self.allow or self.allow_all or self.allow_groups)

    def permits(self, principal: str, groups: Callable[[], Iterable[str]] = tuple) -> bool:
        """Whether the principal may in.

        :param groups: reads the SIDs of its groups; called only where they decide.
        """
        if not self.deny and self.allow_all:
            return True
        name, realm = split_principal(principal)
        if not name or not realm or "\\" in name:
            return False
        if _matches(principal, self.deny, _fold_everything):
            return False
        if self.allow_all or _matches(principal, self.allow, fold_ascii):
            return True
        return bool(self.allow_groups) and not set(self.allow_groups).isdisjoint(groups())
