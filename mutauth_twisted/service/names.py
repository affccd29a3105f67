"""The accounts that a service's rules name: whether there are any of that name."""

from __future__ import annotations

from mutauth_twisted.access import AccessRules
from mutauth_twisted.access.rules import AccountRule
from mutauth_twisted.directory.accounts import Namesake, find_namesakes, netbios_name
from mutauth_twisted.findings import Finding
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.names import fold_ascii


class NamedAccounts:
    """Looks for the accounts that rules name without a wildcard, in the service's own domain.

    A rule about no account is not an error: the account may be created later.

    :param rules: those of the service.
    :param realm: the service's own.
    """

    def __init__(self, rules: AccessRules, realm: str) -> None:
        self._realm = fold_ascii(realm)
        self._rules = rules.account_rules

    def __bool__(self) -> bool:
        return bool(self._rules)

    def look(self, session: LdapSession) -> list[Finding]:
        """Return the faults of these names; blocks."""
        own = {fold_ascii(netbios_name(session)), self._realm}
        rules = [rule for rule in self._rules if fold_ascii(rule.home) in own]
        found = (_fault(rule, find_namesakes(session, rule.name)) for rule in rules)
        return [fault for fault in found if fault is not None]


def _fault(rule: AccountRule, found: tuple[Namesake, ...]) -> Finding | None:
    """Reason why a rule is about no account, and what may be meant; None: it is about one."""
    accounts = [each.name for each in found if not each.is_group]
    if any(fold_ascii(rule.name) == fold_ascii(name) for name in accounts) or (
        accounts and rule.rule.effect == "deny"
    ):
        return None
    code, cause = "account-not-found", "no account has this name"
    remedy = "check its sAMAccountName"
    if accounts:
        meant = " or ".join(rule.pattern_for(name) for name in accounts)
        cause, remedy = "no account has this sAMAccountName", f"did you mean {meant}?"
    elif found:
        code, cause = "account-is-group", "it is a group, not an account"
        remedy = f"{rule.rule.group_key} {found[0].name} applies to its members"
    return Finding(code, rule.written, cause, remedy, "warning")
