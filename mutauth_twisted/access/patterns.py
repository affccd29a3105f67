"""Patterns of accounts: ``name@REALM`` with wildcards in either part, and ``DOMAIN\\name``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import translate
from functools import lru_cache
from unicodedata import category, normalize

from attrs import field, frozen

from mutauth_twisted.access.logon import Logon
from mutauth_twisted.errors import UsageError
from mutauth_twisted.names import fold_ascii, split_principal


@lru_cache(maxsize=1024)
def fold_everything(text: str) -> str:
    """A name as a denial compares it: names that only look alike are one."""
    return normalize("NFKC", normalize("NFKC", text).casefold())


# A backslash that escapes nothing that a principal's name must escape.
_BARE_BACKSLASH = re.compile(r"(?:[^\\]|\\[\\@/])*\\(?![\\@/])", re.DOTALL)
_WILDCARDS = frozenset("*?[")
_NOT_IN_DOMAIN = frozenset("@/*?[")
_NOT_IN_ACCOUNT = frozenset("@/\\")
_SET = re.compile(r"\[[^\]]*\]")
_SEPARATORS = frozenset(",;")


class SeveralPatterns(UsageError):
    """One pattern with a list in it, which no account would match; a front-end's remedy says how it
    takes several.
    """


def _matcher(text: str) -> Callable[[str], object]:
    """A function that tells whether a folded name fits a folded text with wildcards."""
    return re.compile(translate(text)).match if _WILDCARDS & set(text) else text.__eq__


@frozen
class _Glob:
    """A text with wildcards, as an allowance compares it and as a denial does."""

    text: str
    fits: Callable[[str], object] = field(init=False, eq=False, repr=False)
    resembles: Callable[[str], object] = field(init=False, eq=False, repr=False)

    @fits.default
    def _default_fits(self) -> Callable[[str], object]:
        return _matcher(fold_ascii(self.text))

    @resembles.default
    def _default_resembles(self) -> Callable[[str], object]:
        return _matcher(fold_everything(self.text))


def _as_glob(text: str | _Glob) -> _Glob:
    return text if isinstance(text, _Glob) else _Glob(text)


@frozen
class Pattern:
    """A pattern taken apart; a denial finds more names by it than an allowance.

    :param text: as it was written.
    :param name: the account's name, with wildcards.
    :param realm: its realm, with wildcards; empty where it has a domain.
    :param domain: its domain, NetBIOS name or realm; empty where it has a realm.
    """

    text: str
    name: _Glob = field(converter=_as_glob)
    realm: _Glob = field(default=_Glob(""), converter=_as_glob)
    domain: str = ""

    @property
    def is_about_one_name(self) -> bool:
        """True without a wildcard in the name."""
        return _WILDCARDS.isdisjoint(self.name.text)

    @property
    def is_exact(self) -> bool:
        """True without any wildcard."""
        return _WILDCARDS.isdisjoint(self.text)

    @property
    def is_everyone(self) -> bool:
        """True for every account of its realms, whatever its name is."""
        return not self.domain and not self.name.text.strip("*")

    @property
    def is_for_users(self) -> bool:
        """True where an allowance by wildcard is for users only: any user may create computers, of
        any name that is free.
        """
        name = self.name.text
        has_wildcard = not _WILDCARDS.isdisjoint(name)
        return has_wildcard and bool(name.strip("*")) and not name.endswith("$")

    def may_allow_in(self, realm: str) -> bool:
        """Tell whether an allowance can be about an account of this realm: that of a domain's
        account is not known beforehand.
        """
        return bool(self.domain) or bool(self.realm.fits(fold_ascii(realm)))

    def may_deny_in(self, realm: str) -> bool:
        """The same of a denial."""
        return bool(self.domain) or bool(self.realm.resembles(fold_everything(realm)))

    def allows(self, logon: Logon, realm: str) -> bool:
        """Tell whether an allowance that may be about the realm covers the account."""
        if logon.is_computer and self.is_for_users:
            return False
        if not self.domain:
            return bool(self.name.fits(fold_ascii(logon.names_in(realm)[0])))
        home = realm if "." in self.domain else logon.domain
        return fold_ascii(home) == fold_ascii(self.domain) and bool(
            self.name.fits(fold_ascii(logon.name))
        )

    def denies_name(self, name: str) -> bool:
        """Tell whether a denial finds a name, that of a computer with its ``$`` and without."""
        folded = fold_everything(name)
        return bool(self.name.resembles(folded) or self.name.resembles(folded.removesuffix("$")))

    def denies(self, logon: Logon, realm: str) -> bool:
        """Tell whether a denial that may be about the realm finds the account."""
        if not self.domain:
            return any(map(self.denies_name, logon.names_in(realm)))
        # Either may be what was meant, and neither may be missed.
        homes = {fold_everything(logon.domain), fold_everything(realm)}
        return fold_everything(self.domain) in homes and self.denies_name(logon.name)


class PatternIndex:
    """Patterns of one rule, of which there may be thousands, by the names that they are about.

    :param patterns: all of them.
    :param fold: as the rule compares names.
    """

    def __init__(self, patterns: Iterable[Pattern], fold: Callable[[str], str]) -> None:
        self._fold = fold
        self._by_name: dict[str, list[Pattern]] = {}
        wild: list[Pattern] = []
        homes: dict[tuple[bool, str], Pattern] = {}
        for each in patterns:
            if each.is_about_one_name:
                self._by_name.setdefault(fold(each.name.text), []).append(each)
            else:
                wild.append(each)
            homes.setdefault((bool(each.domain), each.realm.text), each)
        #: Those that can be about any name.
        self.wild = tuple(wild)
        #: One of each realm.
        self.homes = tuple(homes.values())

    def about(self, *names: str) -> Iterator[Pattern]:
        """The patterns that can be about any of these names."""
        yield from self.wild
        for name in dict.fromkeys(map(self._fold, names)):
            yield from self._by_name.get(name, ())


@lru_cache(maxsize=1024)
def parse_pattern(text: str) -> Pattern:
    """Take a pattern apart; blanks around it are not part of it.

    :raises UsageError: when it is invalid, or cannot match an account.
    """
    text = text.strip()
    subject = f"pattern '{text}'"
    name, realm = split_principal(text)
    _check_text(subject, text, name, realm)
    domain, backslash, account = text.partition("\\")
    if realm and name:
        if _BARE_BACKSLASH.match(name):
            domain, _, account = name.partition("\\")
            remedy = (
                f"write {account}@{realm}, or {domain}\\{account} with the domain's NetBIOS name"
            )
            raise UsageError(
                subject,
                "it names its account by a domain and by a realm, and would match no account",
                remedy,
            )
        return Pattern(text, name, realm)
    if backslash and account.startswith("\\"):
        remedy = f"write {domain}\\{account.lstrip(chr(92))}"
        raise UsageError(
            subject, "it names no realm, and a domain with more than one backslash", remedy
        )
    if not _BARE_BACKSLASH.match(text):
        name = name or "*"
        remedy = f"write {name}@REALM, or {name}@* for any, or DOMAIN\\{name}"
        raise UsageError(subject, "it names no realm", remedy)
    bare = domain == domain.strip() and account == account.strip()
    if (
        not (bare and domain and account)
        or _NOT_IN_DOMAIN & set(domain)
        or _NOT_IN_ACCOUNT & set(account)
    ):
        remedy = "write DOMAIN\\name, with wildcards in the name only, or name@REALM"
        raise UsageError(subject, "it is not an account of a domain", remedy)
    return Pattern(text, account, domain=domain)


def _check_text(subject: str, text: str, name: str, realm: str) -> None:
    """See that a pattern has nothing in it that no account's name or realm has.

    Source: MS-SAMR 3.1.1.6 for a sAMAccountName; a realm's ``@`` is never escaped in a principal.

    :raises UsageError: when it has, and would match no account.
    """
    if any(category(each) in ("Cc", "Zl", "Zp") for each in text):
        cause = "it has a control character or a line break in it, and would match no account"
        raise UsageError(subject, cause, "write it without")
    if "@" in realm or _SEPARATORS & set(_SET.sub("", text)):
        cause = "it looks like several, and would match no account"
        raise SeveralPatterns(subject, cause, "give each one by itself")
    if name != name.strip() or any(map(str.isspace, realm)):
        cause = "it has a blank where no name or realm has one, and would match no account"
        raise UsageError(subject, cause, "write it without, as name@REALM or DOMAIN\\name")


def check_pattern(text: str) -> str:
    """See that a pattern can match an account; return it without blanks around it.

    :raises UsageError: when it cannot, or is invalid.
    """
    return parse_pattern(text).text
