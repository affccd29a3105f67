"""Rules of an access policy, as an administrator writes them, wherever they stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from attrs import evolve, field, frozen

from mutauth_twisted.access.decision import NO_LIMITS, SessionLimits
from mutauth_twisted.access.logon import Logon
from mutauth_twisted.access.patterns import Pattern, PatternIndex, fold_everything, parse_pattern
from mutauth_twisted.access.sids import check_group_sid, is_sid, parse_sid
from mutauth_twisted.errors import UsageError
from mutauth_twisted.names import escape_name, fold_ascii

Effect = Literal["allow", "deny"]


def _parse_all(patterns: Iterable[str | Pattern]) -> tuple[Pattern, ...]:
    return tuple(each if isinstance(each, Pattern) else parse_pattern(each) for each in patterns)


def _in_one_form(group: str) -> str:
    """A group's SID as tickets have it, or its name."""
    if not is_sid(group):
        return group.strip()
    sid = parse_sid(group)
    check_group_sid(sid, f"group {sid}")
    return sid


def _in_their_form(groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(_in_one_form, groups))


def _also_without_dollar(*names: str) -> Iterator[str]:
    """Names as a denial compares them, that of a computer with its ``$`` and without."""
    for name in map(fold_everything, names):
        yield name
        yield name.removesuffix("$")


@frozen
class Rule:
    """A rule: the accounts that it is about, and what it does for them.

    :param effect: ``allow`` or ``deny``.
    :param source: where it is written: an option, or a file and a line.
    :param accounts: patterns of accounts.
    :param groups: SIDs of groups, or names, which the directory has to turn into SIDs.
    :param everyone: whether it is about every authenticated client.
    :param limits: those of the sessions of whom it allows.
    :param group_key: what takes groups where it is written.
    :param called: what groups are called in a refusal, by SID.
    :raises UsageError: for a pattern that names neither realm nor domain, or both, for a SID that
        is not valid or in no ticket, and for a rule about no client.
    """

    effect: Effect
    source: str
    accounts: tuple[Pattern, ...] = field(default=(), converter=_parse_all)
    groups: tuple[str, ...] = field(default=(), converter=_in_their_form)
    everyone: bool = False
    limits: SessionLimits = NO_LIMITS
    group_key: str = field(default="groups", eq=False)
    called: Mapping[str, str] = field(factory=dict, eq=False, repr=False)
    _group_set: frozenset[str] = field(init=False, eq=False, repr=False)

    @_group_set.default
    def _default_group_set(self) -> frozenset[str]:
        return frozenset(self.groups)

    _index: PatternIndex = field(init=False, eq=False, repr=False)

    @_index.default
    def _default_index(self) -> PatternIndex:
        fold = fold_ascii if self.effect == "allow" else fold_everything
        return PatternIndex(self.accounts, fold)

    def __attrs_post_init__(self) -> None:
        if not (self.accounts or self.groups or self.everyone):
            raise UsageError(
                self.source, "it is about no client", "give it accounts or groups, or all = true"
            )
        if self.limits and self.effect == "deny":
            raise UsageError(self.source, "a denial has no sessions to limit", "leave it out")

    @property
    def names(self) -> tuple[str, ...]:
        """The groups that are known by name only."""
        return tuple(group for group in self.groups if not is_sid(group))

    def written(self, part: str = "") -> str:
        """The rule as messages name it, with the part of it that decided."""
        return f"{self.source} {part}".rstrip()

    def _is_about(self, pattern: Pattern, realm: str) -> bool:
        """Tell whether a pattern may be about an account of this realm."""
        return pattern.may_allow_in(realm) if self.effect == "allow" else pattern.may_deny_in(realm)

    def needs_account(self, realm: str) -> bool:
        """Tell whether it may be about a client of this realm, depending on its account."""
        return bool(self.groups) or any(self._is_about(each, realm) for each in self._index.homes)

    def covers(self, realm: str) -> str | None:
        """The part of an allowance that is about every account of this realm; None: there is
        none.
        """
        if self.everyone:
            return ""
        covering = (each for each in self._index.wild if each.is_everyone)
        return next((each.text for each in covering if self._is_about(each, realm)), None)

    def is_for_users(self, realm: str) -> bool:
        """Tell whether an allowance has a wildcard about this realm that is for users only."""
        return any(each.is_for_users and self._is_about(each, realm) for each in self._index.wild)

    def allows(self, logon: Logon, realm: str, groups: frozenset[str]) -> str | None:
        """The part of an allowance that is about an account of this realm; None: there is none.

        :param groups: the account's groups that allow.
        """
        if (part := self.covers(realm)) is not None:
            return part
        for pattern in self._index.about(logon.name, *logon.names_in(realm)):
            if self._is_about(pattern, realm) and pattern.allows(logon, realm):
                return pattern.text
        return self._group_among(groups)

    def denies_name(self, name: str, realm: str) -> str | None:
        """The part of a denial that finds the name on a client's ticket; None: there is none."""
        if self.everyone:
            return ""
        for pattern in self._index.about(*_also_without_dollar(name)):
            is_about = not pattern.domain and self._is_about(pattern, realm)
            if is_about and pattern.denies_name(name):
                return pattern.text
        return None

    def denies(self, logon: Logon, realm: str, groups: frozenset[str]) -> str | None:
        """The part of a denial that finds an account of this realm; None: there is none.

        :param groups: the account's groups that deny.
        """
        for pattern in self._index.about(*_also_without_dollar(logon.name, *logon.names_in(realm))):
            if self._is_about(pattern, realm) and pattern.denies(logon, realm):
                return pattern.text
        return self._group_among(groups)

    def _group_among(self, sids: frozenset[str]) -> str | None:
        """The name of a group of the rule that is among these; None: there is none."""
        if self._group_set.isdisjoint(sids):
            return None
        return next(self.called.get(sid, sid) for sid in self.groups if sid in sids)

    def resolve(self, sids_of: Callable[[Effect, str], Sequence[str]]) -> Rule:
        """The rule with SIDs in the places of its groups' names."""
        found = {
            sid: group
            for group in self.groups
            for sid in ((group,) if is_sid(group) else sids_of(self.effect, group))
        }
        return evolve(self, groups=tuple(found), called=found)


def option_rules(
    allow: Iterable[str] = (),
    deny: Iterable[str] = (),
    *,
    allow_all: bool = False,
    allow_groups: Iterable[str] = (),
    deny_groups: Iterable[str] = (),
    called: Mapping[str, str] | None = None,
) -> tuple[Rule, ...]:
    """The rules of options, which are those of a file without limits.

    :raises UsageError: see :class:`Rule`.
    """
    given: tuple[tuple[Effect, tuple[str, ...], tuple[str, ...]], ...] = (
        ("allow", tuple(allow), tuple(allow_groups)),
        ("deny", tuple(deny), tuple(deny_groups)),
    )
    rules = []
    for effect, accounts, groups in given:
        option, key = f"--{effect}", f"--{effect}-group"
        if accounts:
            rules.append(Rule(effect, option, accounts, group_key=key))
        if groups:
            rules.append(Rule(effect, key, groups=groups, group_key=key, called=called or {}))
    if allow_all:
        rules.append(Rule("allow", "--allow-all", everyone=True))
    return tuple(rules)


@frozen
class AccountRule:
    """A rule about one account.

    :param rule: whose pattern it is.
    :param pattern: one without wildcards.
    """

    rule: Rule
    pattern: Pattern

    @property
    def name(self) -> str:
        """The account's sAMAccountName."""
        name = self.pattern.name.text
        return name if self.pattern.domain else re.sub(r"\\(.)", r"\1", name)

    @property
    def home(self) -> str:
        """The realm or the domain that the pattern names."""
        return self.pattern.domain or self.pattern.realm.text

    @property
    def written(self) -> str:
        """The rule as messages name it."""
        return self.rule.written(self.pattern.text)

    def pattern_for(self, name: str) -> str:
        """The pattern for another account of the same home."""
        if self.pattern.domain:
            return f"{self.home}\\{name}"
        return f"{escape_name(name)}@{self.home}"


@frozen
class AccessRules:
    """All rules of a service, in which groups may have names that only the directory can tell.

    :param rules: those of its options and of its policy file.
    """

    rules: tuple[Rule, ...] = ()

    @property
    def allows_no_client(self) -> bool:
        """True if no rule allows a client."""
        return not any(rule.effect == "allow" for rule in self.rules)

    def names(self, effect: Effect | None = None) -> tuple[str, ...]:
        """The names of groups that have to be found, each once.

        :param effect: only those of the rules with this effect.
        """
        rules = (rule for rule in self.rules if effect in (None, rule.effect))
        return tuple(dict.fromkeys(name for rule in rules for name in rule.names))

    @property
    def account_rules(self) -> tuple[AccountRule, ...]:
        """The rules about one account each."""
        patterns = ((rule, pattern) for rule in self.rules for pattern in rule.accounts)
        return tuple(AccountRule(rule, pattern) for rule, pattern in patterns if pattern.is_exact)
