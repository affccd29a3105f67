"""Access rules of a service, from its options and its policy file.

A policy file has rules in TOML, one table for each::

    [[allow]]
    groups = ["EXAMPLE\\echo-users"]
    max-connections-per-principal = 4

    [[deny]]
    accounts = ["mallory@EXAMPLE.COM"]
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, get_args

from mutauth_twisted.access import AccessRules, Rule, SessionLimits
from mutauth_twisted.access.rules import Effect, option_rules
from mutauth_twisted.errors import UsageError
from mutauth_twisted.settings.lines import KeyLines
from mutauth_twisted.settings.mistakes import Collector
from mutauth_twisted.settings.read import Values, nearest
from mutauth_twisted.settings.schema import LIMITS, Where
from mutauth_twisted.settings.toml import Toml, read_toml

_EFFECTS: Final[tuple[Effect, ...]] = get_args(Effect)
_FORMS: Final = {"allow": Where.ALLOW, "deny": Where.DENY}


def access_rules(values: Values) -> AccessRules:
    """The rules that options and the policy file make together.

    :param values: of a front-end that takes the options about who may connect.
    :raises UsageError: when they allow no client, and see :func:`read_policy`.
    """
    rules = option_rules(
        values["allow"],
        values["deny"],
        allow_all=values["allow-all"],
        allow_groups=values["allow-group"],
        deny_groups=values["deny-group"],
    )
    if values["policy"] is not None:
        rules += _own_file(values)
    made = AccessRules(rules)
    if made.allows_no_client:
        spell = values.front.spell
        remedy = f"add {spell('allow', 'PATTERN')}, or {spell('allow-all', True)} for all"
        cause = "the access policy allows no client"
        raise values.error("allow", cause, remedy, code="no-access-policy")
    return made


def _own_file(values: Values) -> tuple[Rule, ...]:
    try:
        rules = read_policy(values["policy"])
    except UsageError as error:
        # The whole of it, and no line in it.
        if error.subject == f"policy file {os.path.abspath(values['policy'])}":
            error.subject = values.front.origin("policy") + error.subject
        raise
    if Where.LISTENING & values.front.where and not values.package.identifies_groups:
        for rule in (rule for rule in rules if rule.groups):
            spelt = values.front.spell("package", values.package.name)
            cause = f"{spelt} does not tell a client's groups"
            raise UsageError(rule.source, cause, "leave its groups out, or use another package")
    return rules


def read_policy(path: str) -> tuple[Rule, ...]:
    """The rules of a policy file, whole or not at all.

    :raises UsageError: when the file cannot be read, others may write it, or rules in it are
        invalid; it stands for all that is wrong, each with the file and the line.
    """
    path = os.path.abspath(path)
    codes = {"unusable": "policy-unusable", "writable": "policy-writable"}
    return rules_in(path, *read_toml(path, "policy file", **codes))


def rules_in(path: str, document: Mapping[str, Any], lines: KeyLines) -> tuple[Rule, ...]:
    """The rules of a policy file, whole or not at all.

    :param path: of the file, for errors.
    :param document: the content of the file.
    :param lines: the lines of its keys.
    :raises UsageError: when a rule in it is invalid, or there is none.
    """
    told, rules = Collector(), []
    for key in (key for key in document if key not in _EFFECTS):
        subject = f"{path}:{lines.line_of(key)}: key {key}"
        told.add(UsageError(subject, "there is no such key here", nearest(key, _EFFECTS)))
    for effect in _EFFECTS:
        with told.taking():
            for number, table in enumerate(_tables(path, lines, document, effect)):
                with told.taking():
                    rules.append(_rule(path, lines, effect, number, table))
    told.settle()
    if not rules:
        # What is left of a file that was cut would deny fewer clients than the whole.
        remedy = "write [[allow]] or [[deny]], and whom"
        raise UsageError(f"policy file {path}", "it has no rule", remedy, code="policy-unusable")
    return tuple(rules)


def _tables(
    path: str, lines: KeyLines, document: Mapping[str, Any], effect: Effect
) -> list[dict[str, Any]]:
    """The tables of the rules with this effect."""
    tables = document.get(effect, [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        subject = f"{path}:{lines.line_of(effect)}: key {effect}"
        raise UsageError(subject, "it is not an array of tables", f"write [[{effect}]]")
    return tables


def _rule(path: str, lines: KeyLines, effect: Effect, number: int, table: dict[str, Any]) -> Rule:
    front = Toml(Where.RULE, "key", "key ", file=path, lines=lines, table=(effect, number))
    values = Values(front, _FORMS[effect], table)
    limits = SessionLimits(**{LIMITS[name]: values[name] for name in LIMITS.keys() & values.given})
    source = f"{path}:{lines.line_of(effect, number)} [[{effect}]]"
    try:
        return Rule(effect, source, values["accounts"], values["groups"], values["all"], limits)
    except UsageError as error:
        subject = source if error.subject == source else f"{source}: {error.subject}"
        raise UsageError(subject, error.cause, error.remedy, code=error.code) from None
