"""Tell whether an access policy allows an account, and by which rule."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
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
from mutauth_twisted.errors import NotFound, UsageError
from mutauth_twisted.kerberos.keytab import keytab_file, keytab_principal
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.service.groups import NamedGroups
from mutauth_twisted.settings.access import access_rules
from mutauth_twisted.settings.configfile import read_config
from mutauth_twisted.settings.read import Values
from mutauth_twisted.settings.schema import LIMITS
from mutauth_twisted.settings.service import Settings
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
@options(*_ACCESS, "config")
@click.option("--service", metavar="NAME", help="Which service of --config (its only one).")
@click.option(
    "--group",
    "more_groups",
    metavar="GROUP",
    multiple=True,
    help="Decide as if the account were in this group too; repeatable.",
)
@json_option
@directory_options
def check_access(
    client: str,
    more_groups: tuple[str, ...],
    config: str | None,
    service: str | None,
    **given: Any,
) -> None:
    """Tell whether an access policy allows an account, and by which rule.

    PRINCIPAL is name@REALM, or a name in the service's domain.  With the service's --keytab the
    KDC tells what the account's ticket would say of it; without, the directory does.  With --config
    rules, keytab and directory are those of a service there.

    Exit code 0: it is allowed; 1: it is denied, or gets no ticket.
    """
    written = {name: given.pop(name.replace("-", "_")) for name in _ACCESS}
    written = {name: value for name, value in written.items() if value}
    if config is None:
        rules = access_rules(Values(COMMAND, COMMAND.where, written))
    else:
        settings = _configured(config, service, written)
        rules = settings.rules
        _complete(given, settings)

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


def _configured(path: str, name: str | None, written: Mapping[str, object]) -> Settings:
    """A service of a configuration file.

    :raises UsageError: when there is none of that name, or rules are given besides.
    """
    services = {each.name: each for each in read_config(path).services}
    if name is None and len(services) == 1:
        [name] = services
    if name not in services:
        cause = "it has several services" if name is None else f"it has no service {name}"
        remedy = f"give --service, one of {', '.join(services)}"
        raise UsageError(f"configuration file {path}", cause, remedy)
    for option in written:
        cause, remedy = "the rules are those of --config", "leave one of the two out"
        raise UsageError(f"--{option}", cause, remedy)
    return services[name]


def _complete(given: dict[str, Any], settings: Settings) -> None:
    """Ask as the service does, where the command line does not say otherwise."""
    directory = settings.directory
    own = {
        "directory": directory.servers,
        "directory_ca": directory.ca_file,
        "realm": directory.realm,
        "nameserver": directory.nameserver,
    }
    if given["ccache"] is None and given["keytab"] is None:
        own["keytab"] = keytab_file(settings.keytab)
        own["principal"] = keytab_principal(settings.keytab, settings.account)
    for option, value in own.items():
        given[option] = given[option] or value


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
