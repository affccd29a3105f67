"""Administration of SPNs: search for them, and add, replace and delete them with care.

What ``setspn`` and DsWriteAccountSpn do on Windows.  Before a name is added the
whole forest is searched for it, and for names that mean the same: sPNMappings
(MS-ADA3) makes ``host/h`` stand for ``HTTP/h`` and some fifty
others as long as no account holds these itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from mutauth_twisted.directory.spns import (
    ACCOUNT_ATTRIBUTES,
    Account,
    account_of,
    add_spns,
    check_free,
    find_account,
    find_holders_of,
    remove_spns,
    replace_spns,
    spn_command,
)
from mutauth_twisted.errors import DirectoryRefused, NotFound
from mutauth_twisted.findings import Finding
from mutauth_twisted.ldap.dn import same_dn
from mutauth_twisted.ldap.filter import matches
from mutauth_twisted.ldap.session import CONSTRAINT_VIOLATION, LdapSession
from mutauth_twisted.names import fold_ascii
from mutauth_twisted.spn import SPN

_MAPPINGS_AT = "CN=Directory Service,CN=Windows NT,CN=Services"
Aliases = Mapping[str, frozenset[str]]


@frozen
class Written:
    """Result of a change to an account's SPNs.

    :param account: the account as it was before.
    :param added: what was written.
    :param removed: what was taken away.
    :param unchanged: what was asked for and so already.
    :param warnings: what was done all the same.
    """

    account: Account
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    warnings: tuple[Finding, ...] = ()


@frozen
class AliasClash:
    """An SPN whose tickets go to another account through an alias.

    :param spn: what is to be added.
    :param standing: what the other account holds.
    """

    spn: SPN
    standing: SPN
    holder: Account

    def __str__(self) -> str:
        return (
            f"{self.holder.name} ({self.holder.dn}) holds {self.standing}, of which it is an alias "
            "(sPNMappings)"
        )


def query(session: LdapSession, pattern: str) -> Iterator[tuple[Account, str]]:
    """The SPNs that fit a pattern, and who holds them.

    :param session: a global catalog searches the forest, a domain controller its domain.
    :param pattern: case does not count, ``*`` stands for any text.
    """
    pieces = [re.escape(piece.casefold()) for piece in pattern.split("*")]
    fits = re.compile(".*".join(pieces), re.DOTALL)
    for entry in session.search(
        session.root, matches("servicePrincipalName", pattern), ACCOUNT_ATTRIBUTES
    ):
        holder = account_of(entry)
        for text in sorted(holder.spns, key=str.casefold):
            if fits.fullmatch(text.casefold()):
                yield holder, text


def read_aliases(session: LdapSession) -> Aliases:
    """Which service classes stand for which others in this forest, all in lower case."""
    configuration = session.root_dse.text("configurationNamingContext") or ""
    try:
        entry = session.read(f"{_MAPPINGS_AT},{configuration}", ["sPNMappings"])
    except NotFound:
        return {}
    return parse_aliases(entry.texts("sPNMappings"))


def parse_aliases(mappings: Sequence[str]) -> Aliases:
    """Read the values of sPNMappings: ``host=alerter,appmgmt,...``."""
    aliases: dict[str, frozenset[str]] = {}
    for text in mappings:
        name, _, rest = text.casefold().partition("=")
        aliases[name.strip()] = frozenset(word.strip() for word in rest.split(",") if word.strip())
    return aliases


def equivalents(spn: SPN, aliases: Aliases) -> list[SPN]:
    """The SPNs that this one stands for, and those that stand for it, without itself."""
    own = fold_ascii(spn.service_class)
    classes = set(aliases.get(own, ())) | {name for name, words in aliases.items() if own in words}
    return [SPN(each, spn.host, spn.service_name, spn.instance) for each in sorted(classes - {own})]


def find_alias_clashes(
    session: LdapSession, catalog: LdapSession, spns: Sequence[SPN], account: Account
) -> list[AliasClash]:
    """Which of these SPNs other accounts hold under another class; blocks.

    The account's own names never clash.
    """
    aliases = read_aliases(session)
    same = {other: spn for spn in spns for other in equivalents(spn, aliases)}
    return [
        AliasClash(spn, standing, holder)
        for holder in find_holders_of(catalog, list(same))
        if not same_dn(holder.dn, account.dn)
        for standing, spn in same.items()
        if holder.may_hold(standing)
    ]


def _check_new(
    session: LdapSession,
    catalog: LdapSession,
    kind: str,
    account: Account,
    spns: Sequence[SPN],
    allow: bool,
) -> tuple[list[SPN], tuple[Finding, ...]]:
    """Those that the account has yet to get, and warnings; raises DirectoryRefused."""
    new = [spn for spn in dict.fromkeys(spns) if not account.holds(spn)]
    check_free(catalog, new, account)
    clashes = find_alias_clashes(session, catalog, new, account)
    if clashes and not allow:
        command = spn_command(session, kind, account, *new, "--allow-alias")
        raise DirectoryRefused(
            f"SPN {clashes[0].spn}",
            str(clashes[0]),
            (f"its tickets would move to {account.name}; if that is meant, ", command),
            result=CONSTRAINT_VIOLATION,
            code="spn-alias",
        )
    remedy = f"its tickets go to {account.name} from now on"
    return new, tuple(
        Finding("spn-alias", f"SPN {clash.spn}", str(clash), remedy, "warning") for clash in clashes
    )


def add(
    session: LdapSession,
    catalog: LdapSession,
    name: str,
    spns: Sequence[SPN],
    *,
    allow_alias: bool = False,
) -> Written:
    """Add SPNs to an account, after a search of the forest; blocks.

    :param session: a domain controller of the account's domain.
    :param name: the account: sAMAccountName, UPN or DN.
    :param allow_alias: add what another account holds through an alias, and warn.
    :raises DirectoryRefused: when another account holds one, or without the
        right to write them.
    """
    account = find_account(session, name)
    new, warnings = _check_new(session, catalog, "add", account, spns, allow_alias)
    added = tuple(map(str, add_spns(session, account, new)))
    return Written(account, added=added, unchanged=_texts(spns, without=added), warnings=warnings)


def replace(
    session: LdapSession,
    catalog: LdapSession,
    name: str,
    spns: Sequence[SPN],
    *,
    allow_alias: bool = False,
) -> Written:
    """Make exactly these an account's SPNs; none: clear them all; blocks.

    As :func:`add` does; nothing is written when they are so already.
    """
    account = find_account(session, name)
    wanted = list(dict.fromkeys(spns))
    texts = {fold_ascii(str(spn)) for spn in wanted}
    gone = tuple(text for text in account.spns if fold_ascii(text) not in texts)
    new, warnings = _check_new(session, catalog, "replace", account, wanted, allow_alias)
    if new or gone:
        replace_spns(session, account, wanted)
    added = tuple(map(str, new))
    return Written(account, added, gone, _texts(wanted, without=added), warnings)


def delete(session: LdapSession, name: str, texts: Sequence[str]) -> Written:
    """Take SPNs from an account; blocks.

    :param texts: as they are registered on the account, case apart; malformed ones too.
    """
    account = find_account(session, name)
    asked = {fold_ascii(text): text for text in texts}
    literal = {fold_ascii(text): text for text in account.spns}
    similar = {
        text.casefold(): text for text in account.spns
    }  # what the directory may take for the same
    standing = {
        key: literal.get(key) or similar.get(text.casefold()) for key, text in asked.items()
    }
    removed = remove_spns(session, account, list(dict.fromkeys(filter(None, standing.values()))))
    absent = tuple(text for key, text in asked.items() if standing[key] is None)
    return Written(account, removed=tuple(removed), unchanged=absent)


def _texts(spns: Sequence[SPN], *, without: Sequence[str]) -> tuple[str, ...]:
    return tuple(text for text in dict.fromkeys(map(str, spns)) if text not in without)
