"""Tell whether an access policy allows an account, and by which rule."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click
from attrs import evolve, frozen

from mutauth_twisted.access import AccessPolicy, AccessRules, Decision, Logon, SessionLimits
from mutauth_twisted.access.sids import is_sid, parse_sid
from mutauth_twisted.admin.accesscheck import logon_by_ticket, logon_in_directory
from mutauth_twisted.cli.directory import directory_options, in_directory
from mutauth_twisted.cli.options import COMMAND, options
from mutauth_twisted.cli.output import json_option, result
from mutauth_twisted.directory.groups import find_group
from mutauth_twisted.errors import NotFound
from mutauth_twisted.kerberos.keytab import keytab_principal
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.service.groups import NamedGroups
from mutauth_twisted.settings.access import access_rules
from mutauth_twisted.settings.read import Values
from mutauth_twisted.settings.schema import LIMITS
from mutauth_twisted.threads import workers_for

_ACCESS = ("policy", "allow", "allow-group", "allow-all", "deny", "deny-group")


@frozen
class _Verdict:
    """Verdict about an account.

    :param principal: the name on its ticket.
    :param logon: what the ticket says of it; None: nothing.
    """

    principal: str
    logon: Logon | None
    decision: Decision

    @property
    def lines(self) -> tuple[str, ...]:
        """It for people."""
        logon, decision = self.logon, self.decision
        who = f"{self.principal} ({logon.account})" if logon is not None else self.principal
        if not decision.allowed:
            return f"{who} is denied: {decision.cause}", f"next: {decision.remedy}"
        limits = ", ".join(f"{name} {value:g}" for name, value in _as_json(decision.limits).items())
        return f"{who} is allowed by {decision.rule}", *((f"limits: {limits}",) if limits else ())

    def as_json(self) -> dict[str, Any]:
        """It for programs."""
        logon, decision = self.logon, self.decision
        return {
            "principal": self.principal,
            "account": logon.account if logon is not None else None,
            "sid": logon.sid if logon is not None else None,
            "groups": list(logon.groups) if logon is not None else None,
            "allowed": decision.allowed,
            "rule": decision.rule or None,
            "cause": decision.cause or None,
            "remedy": decision.remedy or None,
            "limits": _as_json(decision.limits),
            "limited_by": [
                {"rule": each.rule, **_as_json(each.limits)} for each in decision.grants
            ],
        }


def _as_json(limits: SessionLimits) -> dict[str, float]:
    """Those limits that there are, by the names of their keys."""
    named = {name: getattr(limits, attribute, None) for name, attribute in LIMITS.items()}
    return {name: value for name, value in named.items() if value is not None}


@click.command()
@click.argument("client", metavar="PRINCIPAL")
@options(*_ACCESS)
@click.option(
    "--group",
    "more_groups",
    metavar="GROUP",
    multiple=True,
    help="Decide as if the account were in this group too; repeatable.",
)
@json_option
@directory_options
def check_access(client: str, more_groups: tuple[str, ...], **given: Any) -> None:
    """Tell whether an access policy allows an account, and by which rule.

    PRINCIPAL is name@REALM, or a name in the service's domain.  With the service's --keytab the
    KDC tells what the account's ticket would say of it; without, the directory does.

    Exit code 0: it is allowed; 1: it is denied, or gets no ticket.
    """
    written = {name: given.pop(name.replace("-", "_")) for name in _ACCESS}
    rules = access_rules(
        Values(COMMAND, COMMAND.where, {name: value for name, value in written.items() if value})
    )

    async def decide(directory: Directory) -> _Verdict:
        policy = await _resolve(directory, rules)
        more = await _sids_of(directory, more_groups)
        try:
            who, logon = await (
                directory.run(lambda session: logon_in_directory(session, client))
                if given["keytab"] is None
                else _ask_kdc(client, given["principal"], given["keytab"])
            )
        except NotFound as error:
            remedy = error.finding.remedy_text
            return _Verdict(client, None, Decision(False, cause=error.cause, remedy=remedy))
        if logon is not None:
            logon = evolve(logon, groups=tuple(dict.fromkeys((*logon.groups, *more))))
        return _Verdict(who, logon, policy.decide(who, lambda: logon))

    verdict = in_directory(given, decide)
    result(verdict.as_json(), *verdict.lines)
    sys.exit(0 if verdict.decision.allowed else 1)


async def _resolve(directory: Directory, rules: AccessRules) -> AccessPolicy:
    """The policy as the service has it, with the SIDs of all groups."""
    groups = NamedGroups(rules)
    if groups:
        groups.settle(await directory.run_with_catalog(groups.find))
    return groups.policy


async def _sids_of(directory: Directory, names: Sequence[str]) -> list[str]:
    found = []
    for name in names:
        if is_sid(name):
            found.append(parse_sid(name))
        else:
            group = await directory.run_with_catalog(
                lambda session, catalog, name=name: find_group(session, catalog, name)  # type: ignore[misc]
            )
            found.append(group.sid)
    return found


async def _ask_kdc(client: str, account: str | None, keytab: str) -> tuple[str, Logon | None]:
    from twisted.internet import reactor

    service = keytab_principal(keytab, account)
    return await workers_for(reactor).run(logon_by_ticket, client, service, keytab)
