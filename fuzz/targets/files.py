"""Files of administrators: a policy file is read whole, each rule from where it stands, or not at
all.
"""

from __future__ import annotations

import tomllib
from typing import Any

from fuzz.targets.names import one_line
from mutauth_twisted.errors import UsageError
from mutauth_twisted.settings.access import rules_in
from mutauth_twisted.settings.lines import KeyLines

_FILE = "policy.toml"


def _keys(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of all keys of a document, and of the tables in its arrays."""
    found = [path] if path else []
    if isinstance(value, dict):
        return [
            *found,
            *(each for key, inner in value.items() for each in _keys(inner, (*path, key))),
        ]
    if isinstance(value, list):
        tables = ((n, each) for n, each in enumerate(value) if isinstance(each, dict))
        return [*found, *(each for n, inner in tables for each in _keys(inner, (*path, n)))]
    return found


def check_policy_file(data: bytes) -> None:
    """As many rules as tables, each with all of its accounts and groups and on its own line; or an
    error in one line, with the line of what is wrong.
    """
    try:
        text = data.decode()
        document = tomllib.loads(text)
    except (ValueError, RecursionError):
        return
    lines = KeyLines(text)
    last = text.count("\n") + 1
    for path in _keys(document):
        line = lines.line_of(*path)
        assert 1 <= line <= last, f"{path} is on line {line} of {last}"
    try:
        rules = rules_in(_FILE, document, lines)
    except UsageError as error:
        one_line(error)
        assert str(error).startswith((f"{_FILE}:", f"policy file {_FILE}:")), str(error)
        return
    tables = [(effect, each) for effect in ("allow", "deny") for each in document.get(effect, ())]
    assert len(rules) == len(tables) > 0, "a rule was lost"
    assert set(document) <= {"allow", "deny"}, "a key was passed over"
    for rule, (effect, table) in zip(rules, tables, strict=True):
        assert rule.effect == effect
        assert len(rule.accounts) == len(table.get("accounts", ())), "an account was lost"
        assert len(rule.groups) == len(table.get("groups", ())), "a group was lost"
        assert rule.everyone is table.get("all", False)
        assert len(table) == sum(name in ("accounts", "groups", "all") for name in table) + sum(
            name.startswith("max-") for name in table
        ), "a key was passed over"
    places = [rule.source for rule in rules]
    in_tables = "[[" in text and "= [" not in text
    assert not in_tables or len(set(places)) == len(places), "two rules are on one line"
