"""Access policy for authenticated clients: rules about accounts and groups; values only."""

from __future__ import annotations

from mutauth_twisted.access.decision import Decision, SessionLimits
from mutauth_twisted.access.logon import Logon, no_logon
from mutauth_twisted.access.policy import AccessPolicy
from mutauth_twisted.access.rules import AccessRules, Rule

__all__ = [
    "AccessPolicy",
    "AccessRules",
    "Decision",
    "Logon",
    "Rule",
    "SessionLimits",
    "no_logon",
]
