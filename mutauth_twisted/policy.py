"""What a finished exchange must have proven, and who may come in: values only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, IntFlag
from fnmatch import fnmatchcase

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


# MIT krb5 escapes an '@' inside a component as '\@': only a bare one starts the realm.
_REALM_MARK = re.compile(r"(?<!\\)@")


def split_principal(principal: str) -> tuple[str, str]:
    """Split ``name@REALM``; the realm is empty when there is none."""
    name, *rest = _REALM_MARK.split(principal)
    return name, "@".join(rest)


def _check_patterns(instance: object, attribute: object, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        name, realm = split_principal(pattern)
        if not name or not realm:
            raise UsageError(
                f"pattern {pattern!r}", "it names no realm", f"write {name or '*'}@REALM, or {name or '*'}@* for any"
            )


def _as_tuple(patterns: Iterable[str]) -> tuple[str, ...]:
    return tuple(patterns)


@frozen
class AccessPolicy:
    """Which proven principals a service lets in; a denial beats an allowance.

    Patterns are ``name@REALM`` with shell wildcards in either part, compared
    without regard to case, as account names are in the directory.

    :raises UsageError: for a pattern without a realm.
    """

    allow: tuple[str, ...] = field(default=(), converter=_as_tuple, validator=_check_patterns)
    deny: tuple[str, ...] = field(default=(), converter=_as_tuple, validator=_check_patterns)
    allow_all: bool = False

    @staticmethod
    def _matches(principal: str, patterns: tuple[str, ...]) -> bool:
        name, realm = (part.casefold() for part in split_principal(principal))
        for pattern in patterns:
            name_pattern, realm_pattern = (part.casefold() for part in split_principal(pattern))
            if fnmatchcase(name, name_pattern) and fnmatchcase(realm, realm_pattern):
                return True
        return False

    def permits(self, principal: str) -> bool:
        """Whether the principal may in."""
        if self._matches(principal, self.deny):
            return False
        return self.allow_all or self._matches(principal, self.allow)
