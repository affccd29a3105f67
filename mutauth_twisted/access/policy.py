"""Access policy of a service: decides about a client by its principal and its account."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import methodcaller
from typing import Any

from attrs import Factory, field, frozen

from mutauth_twisted.access.decision import Decision, Grant
from mutauth_twisted.access.logon import Logon, no_logon
from mutauth_twisted.access.patterns import check_pattern
from mutauth_twisted.access.rules import AccessRules, Effect, Rule, option_rules
from mutauth_twisted.access.sids import parse_sid
from mutauth_twisted.errors import UsageError
from mutauth_twisted.names import split_principal

_NOT_A_SID, _GIVE_SID = "it is not a SID", "give its objectSid, such as S-1-5-21-1-2-3-1104"


def _as_tuple(patterns: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(check_pattern, patterns))


def _as_sids(sids: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(parse_sid, sids))


def _as_rules(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    return tuple(rules)


def _check_resolved(instance: object, attribute: object, rules: tuple[Rule, ...]) -> None:
    for name in (name for rule in rules for name in rule.names):
        raise UsageError(f"group {name!r}", _NOT_A_SID, _GIVE_SID)


def no_sids(effect: Effect, name: str) -> Sequence[str]:
    """Where no directory is asked for groups."""
    raise UsageError(f"group {name!r}", _NOT_A_SID, _GIVE_SID)


def _rules_with(effect: Effect) -> Any:
    def choose(policy: AccessPolicy) -> tuple[Rule, ...]:
        return tuple(rule for rule in policy.every_rule if rule.effect == effect)

    return field(init=False, repr=False, default=Factory(choose, takes_self=True))


# A rule, and which part of it is about the client.
_Match = tuple[Rule, str]


@frozen
class AccessPolicy:
    """Access policy of a service for authenticated clients; a denial beats an allowance.

    Patterns are ``name@REALM`` with shell wildcards in either part, and
    ``DOMAIN\\name``, with the domain's NetBIOS name and wildcards in the name: the
    account of that sAMAccountName.  A domain with a dot in it is the realm.  The
    case of A to Z does not count, as in the directory; a denial also finds names
    that only look like the one denied, and the computer ``name$`` by ``name``.

    An allowance with wildcards is for computers only when its name ends in ``$``:
    by default any user may create ten computers, and choose their names.  The
    name ``*`` alone is for every account, computers included.

    The realm is the ticket's.  The name on a ticket is one that the client chose
    among those that its account answers to, some of which may be another
    account's elsewhere; so an allowance is for the account's sAMAccountName, as
    the PAC tells it, and a denial for that, for the UPN's prefix, and for the
    name on the ticket.  A client decides by itself whether its ticket has a PAC:
    without one only patterns for every account of a realm (``*@REALM``) allow it,
    and only where no denial, and no rule with limits, is about an account or a
    group of that realm, or counts the sessions of each account.

    A domain's NetBIOS name is what the client's own domain controllers say;
    where others' realms are trusted, an allowance should name the realm.

    Groups are SIDs; they allow, and deny, as patterns do.  A denial of a group,
    and one with limits, denies clients whose groups are unknown, as with NTLM.

    The order of rules means nothing.  A client that several rules allow has to
    keep the limits of all of them.

    :ivar group_names: what groups are called in a refusal, by SID.
    :param rules: further rules, with limits or from a file; their groups are SIDs.
    :raises UsageError: for a pattern that names neither realm nor domain, or both, or a group that
        is not a SID or in no PAC.
    """

    allow: tuple[str, ...] = field(default=(), converter=_as_tuple, eq=False)
    deny: tuple[str, ...] = field(default=(), converter=_as_tuple, eq=False)
    allow_all: bool = field(default=False, eq=False)
    allow_groups: tuple[str, ...] = field(default=(), converter=_as_sids, eq=False)
    deny_groups: tuple[str, ...] = field(default=(), converter=_as_sids, eq=False)

    group_names: Mapping[str, str] = field(factory=dict, eq=False, repr=False)
    rules: tuple[Rule, ...] = field(
        default=(), converter=_as_rules, validator=_check_resolved, eq=False
    )

    _allowing: tuple[Rule, ...] = _rules_with("allow")
    _denying: tuple[Rule, ...] = _rules_with("deny")

    @classmethod
    def of(
        cls, rules: AccessRules, sids_of: Callable[[Effect, str], Sequence[str]] = no_sids
    ) -> AccessPolicy:
        """The policy of rules as they are written.

        :param sids_of: the SIDs of a group that has a name, by the effect of its rule.
        """
        return cls(rules=(rule.resolve(sids_of) for rule in rules.rules))

    @property
    def every_rule(self) -> tuple[Rule, ...]:
        """The rules of the options and the further ones."""
        own = option_rules(
            self.allow,
            self.deny,
            allow_all=self.allow_all,
            allow_groups=self.allow_groups,
            deny_groups=self.deny_groups,
            called=self.group_names,
        )
        return (*own, *self.rules)

    @property
    def allows_no_client(self) -> bool:
        """True if the access policy allows no client."""
        return not self._allowing

    def permits(self, principal: str, read_logon: Callable[[], Logon | None] = no_logon) -> bool:
        """Tell whether the policy allows the principal, for applications that have policies of
        their own; see :meth:`decide`.
        """
        return self.decide(principal, read_logon).allowed

    def decide(self, principal: str, read_logon: Callable[[], Logon | None] = no_logon) -> Decision:
        """Decide about a client.

        :param principal: the name on its ticket.
        :param read_logon: reads the PAC; called only where it decides.
        """
        allowing, denying = self._allowing, self._denying
        everyone = [(rule, "") for rule in allowing if rule.everyone]
        if everyone and not denying and not any(map(_limits_some, allowing)):
            return _allowed(everyone)
        name, realm = split_principal(principal)
        if not name or not realm:
            return _refused(
                "it has no name or no realm, so that no rule can be about it",
                "have it come as name@REALM",
            )
        for rule in denying:
            if (part := rule.denies_name(name, realm)) is not None:
                return _denied(rule.written(part))
        needs_account = methodcaller("needs_account", realm)
        covering = _matches(allowing, lambda rule: rule.covers(realm))
        others = [rule for rule in allowing if rule.covers(realm) is None]
        restricting = [*denying, *(rule for rule in others if rule.limits)]
        counted = any(rule.limits.per_principal is not None for rule, _ in covering)
        if covering and not counted and not any(map(needs_account, restricting)):
            return _allowed(covering)
        if not covering and not any(map(needs_account, others)):
            wanted = "one of its groups, if it should have access"
            remedy = f"--allow NAME@{realm}, or --allow-group {wanted}"
            return _refused(f"no rule allows it: no --allow is about {realm}", remedy)
        logon = read_logon()
        if logon is None or not logon.name:
            return _refused(
                "its ticket has no PAC, which tells whose it is, and rules about accounts or "
                "groups have to be kept",
                "have the client ask for a ticket with one, or allow and deny whole realms only",
            )
        if not logon.groups_known and any(rule.groups for rule in restricting):
            return _refused(
                "nothing tells its groups, some of which are denied or have limits",
                "deny and limit users instead",
            )
        groups = frozenset(logon.groups)
        denied = groups.union(logon.deny_only)
        for rule in denying:
            if (part := rule.denies(logon, realm, denied)) is not None:
                return _denied(rule.written(part), f"; its account is {logon.account}")
        if found := _matches(allowing, lambda rule: rule.allows(logon, realm, groups)):
            return _allowed(found)
        account = f"{logon.names_in(realm)[0]}@{realm}"
        cause = f"no rule allows it; its account is {account} ({logon.account})"
        if logon.is_computer and any(rule.is_for_users(realm) for rule in allowing):
            cause = f"{cause}, and a wildcard is for computers only in a pattern that ends in $"
        return _refused(
            cause,
            "--allow that, or --allow-group one of its groups, or add it to the policy file, if it "
            "should have access",
        )


def _limits_some(rule: Rule) -> bool:
    """Tell whether a rule has limits that are not those of all its clients alike."""
    return bool(rule.limits) and (not rule.everyone or rule.limits.per_principal is not None)


def _matches(rules: Iterable[Rule], part_of: Callable[[Rule], str | None]) -> list[_Match]:
    """The rules that match, each with its part that does."""
    found = ((rule, part_of(rule)) for rule in rules)
    return [(rule, part) for rule, part in found if part is not None]


def _allowed(found: list[_Match]) -> Decision:
    rule, part = found[0]
    grants = tuple(Grant(each.source, each.limits) for each, _ in found if each.limits)
    return Decision(allowed=True, rule=rule.written(part), grants=grants)


def _refused(cause: str, remedy: str) -> Decision:
    return Decision(allowed=False, cause=cause, remedy=remedy)


def _denied(rule: str, account: str = "") -> Decision:
    remedy = "take that back if it should have access"
    return Decision(allowed=False, rule=rule, cause=f"denied by {rule}{account}", remedy=remedy)
