"""Properties of every access policy: any rules, in any order, about any client."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.access import AccessPolicy, Decision, Logon, Rule, SessionLimits
from mutauth_twisted.access.decision import NO_LIMITS
from mutauth_twisted.access.patterns import parse_pattern

SIDS = [f"S-1-5-21-1-2-3-{number}" for number in (1104, 1105)]
NAMES = ["al", "bo", "al$", "AL", "\u212al", "kl", "a@l"]
REALMS = ["R", "S", "r"]

_accounts = st.one_of(
    st.builds(
        "{}@{}".format,
        st.sampled_from(["al", "AL", "bo", "al$", "a*", "*", "*$", "?l", "k*", "a\\@l"]),
        st.sampled_from(["R", "S", "*", "r"]),
    ),
    st.sampled_from(["D\\al", "d\\a*", "D\\*", "E\\bo", "r.s\\al"]),
)
_subjects = st.fixed_dictionaries(
    {},
    optional={
        "accounts": st.lists(_accounts, min_size=1, max_size=2),
        "groups": st.lists(st.sampled_from(SIDS), min_size=1, max_size=2),
        "everyone": st.just(True),
    },
).filter(bool)
_limits = st.sampled_from(
    [NO_LIMITS, SessionLimits(connections=3), SessionLimits(2, 1), SessionLimits(session=60)]
)
_sources = st.uuids().map(str)
_allowances = st.builds(
    lambda source, subject, limits: Rule("allow", source, limits=limits, **subject),
    _sources,
    _subjects,
    _limits,
)
_denials = st.builds(lambda source, subject: Rule("deny", source, **subject), _sources, _subjects)
_rules = st.lists(st.one_of(_allowances, _denials), max_size=5)
_logons = st.builds(
    Logon,
    st.sampled_from(NAMES),
    st.sampled_from(["D", "E"]),
    groups=st.lists(st.sampled_from(SIDS), max_size=2).map(tuple),
    deny_only=st.lists(st.sampled_from(SIDS), max_size=1).map(tuple),
    upn=st.sampled_from([None, "al@r", "bo@R", "x@elsewhere"]),
)
_clients = st.tuples(
    st.builds(
        "{}@{}".format, st.sampled_from(["al", "bo", "al$", "kl", "x"]), st.sampled_from(REALMS)
    ),
    st.one_of(
        st.none(),
        _logons,
        _logons.map(lambda logon: evolve(logon, groups=(), deny_only=(), groups_known=False)),
    ),
)


def decide(rules: Any, client: tuple[str, Logon | None]) -> Decision:
    """The verdict of a policy of these rules."""
    principal, logon = client
    return AccessPolicy(rules=rules).decide(principal, lambda: logon)


class PropertyTests(SynchronousTestCase):
    """Each is true of all rules and clients."""

    @given(_rules, _clients)
    def test_a_denial_wins(self, rules: list[Rule], client: tuple[str, Logon | None]) -> None:
        """A client that one denial forbids among those who are all allowed is forbidden with any
        other rules beside it.
        """
        everyone = Rule("allow", "everyone", everyone=True)
        for rule in rules:
            if rule.effect == "deny" and not decide([everyone, rule], client).allowed:
                self.assertFalse(decide(rules, client).allowed)

    @given(_rules, _denials, _clients)
    def test_one_denial_more(
        self, rules: list[Rule], denial: Rule, client: tuple[str, Logon | None]
    ) -> None:
        """It never allows anybody, and changes nobody's limits."""
        after = decide([*rules, denial], client)
        if after.allowed:
            before = decide(rules, client)
            self.assertEqual((before.allowed, before.grants), (True, after.grants))

    @given(_rules, _clients, st.randoms(use_true_random=False))
    def test_order(self, rules: list[Rule], client: tuple[str, Logon | None], random: Any) -> None:
        """It means nothing."""
        others = random.sample(rules, len(rules))
        one, other = decide(rules, client), decide(others, client)
        self.assertEqual(one.allowed, other.allowed)
        self.assertEqual(set(one.grants), set(other.grants))
        self.assertEqual(one.limits, other.limits)

    @given(_rules, _clients)
    def test_allowed_by_a_rule(self, rules: list[Rule], client: tuple[str, Logon | None]) -> None:
        """A client that is allowed is allowed by one of the rules alone, and without any is not."""
        decision = decide(rules, client)
        alone = [
            rule for rule in rules if rule.effect == "allow" and decide([rule], client).allowed
        ]
        self.assertLessEqual(decision.allowed, bool(alone))
        self.assertFalse(decide([], client).allowed)

    @given(_rules, _clients)
    def test_limits(self, rules: list[Rule], client: tuple[str, Logon | None]) -> None:
        """An allowed client has the limits of every rule that alone would allow it, and a limit
        more never allows anybody.
        """
        decision = decide(rules, client)
        if decision.allowed:
            limits = {
                rule.source
                for rule in rules
                if rule.limits and rule.effect == "allow" and decide([rule], client).allowed
            }
            self.assertEqual({grant.rule for grant in decision.grants}, limits)
        unlimited = [evolve(rule, limits=NO_LIMITS) for rule in rules]
        self.assertLessEqual(decision.allowed, decide(unlimited, client).allowed)

    @settings(max_examples=300)
    @given(_rules, _clients, _logons)
    def test_nothing_to_gain_without_a_pac(
        self, rules: list[Rule], client: tuple[str, Logon | None], logon: Logon
    ) -> None:
        """A client that is allowed without a PAC, or without groups, is allowed by the same limits
        whatever the PAC would have said.
        """
        principal, _ = client
        without = decide(rules, (principal, None))
        if without.allowed:
            self.assertEqual(without.grants, decide(rules, (principal, logon)).grants)
            self.assertTrue(decide(rules, (principal, logon)).allowed)
        nameless = evolve(logon, groups=(), deny_only=(), groups_known=False)
        if decide(rules, (principal, nameless)).allowed:
            whole = decide(rules, (principal, logon))
            self.assertTrue(whole.allowed)
            self.assertEqual(decide(rules, (principal, nameless)).grants, whole.grants)

    @given(st.lists(_accounts, min_size=1), _logons, st.sampled_from(REALMS))
    def test_index(self, accounts: list[str], logon: Logon, realm: str) -> None:
        """Of many patterns those are found that match one by one."""
        patterns = [parse_pattern(each) for each in accounts]
        none: frozenset[str] = frozenset()
        self.assertEqual(
            Rule("allow", "f:1", accounts).allows(logon, realm, none) is not None,
            any(
                each.may_allow_in(realm) and (each.is_everyone or each.allows(logon, realm))
                for each in patterns
            ),
        )
        denial = Rule("deny", "f:1", accounts)
        about = [each for each in patterns if each.may_deny_in(realm)]
        self.assertEqual(
            denial.denies(logon, realm, none) is not None,
            any(each.denies(logon, realm) for each in about),
        )
        name = logon.names_in(realm)[-1]
        self.assertEqual(
            denial.denies_name(name, realm) is not None,
            any(not each.domain and each.denies_name(name) for each in about),
        )
        self.assertEqual(denial.needs_account(realm), bool(about))

    @given(_rules, _clients)
    def test_words(self, rules: list[Rule], client: tuple[str, Logon | None]) -> None:
        """A verdict names a rule or a cause, and whoever is denied has a next step."""
        decision = decide(rules, client)
        self.assertEqual(decision.allowed, not decision.cause)
        self.assertEqual(decision.allowed, not decision.remedy)
        self.assertTrue(decision.rule or decision.cause)
        if not decision.allowed:
            self.assertEqual(decision.grants, ())
