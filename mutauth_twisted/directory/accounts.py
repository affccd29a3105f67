"""Search for the account of a name that an administrator wrote down."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from mutauth_twisted.errors import UsageError
from mutauth_twisted.ldap.dn import domain_of
from mutauth_twisted.ldap.filter import all_of, any_of, equals
from mutauth_twisted.ldap.session import Entry, LdapSession


@frozen
class Namesake:
    """Account that may have been meant by a name.

    :param name: its sAMAccountName.
    :param is_group: whether it is a group, and no account.
    """

    name: str
    is_group: bool


def only_one(subject: str, kind: str, found: Sequence[Entry]) -> Entry | None:
    """The entry that a name stands for; None if there is none.

    :param subject: the name, as errors call it.
    :param kind: what was searched for, in the plural.
    :raises UsageError: when there are several.
    """
    if len(found) > 1:
        places = " and ".join(entry.dn for entry in found)
        cause = f"{len(found)} {kind} have this name, {places}"
        raise UsageError(subject, cause, "give the DN of one", code="ambiguous-name")
    return found[0] if found else None


def find_namesakes(session: LdapSession, name: str) -> tuple[Namesake, ...]:
    """Accounts and groups of the domain that have a name, or have it with a ``$`` behind it, or in
    their UPN; blocks.

    :param session: a domain controller of the domain.
    :param name: a sAMAccountName, or what stands in front of a UPN's ``@``.
    """
    upn = equals("userPrincipalName", f"{name}@{domain_of(session.domain_dn)}")
    wanted = any_of(equals("sAMAccountName", name), equals("sAMAccountName", f"{name}$"), upn)
    kinds = any_of("(objectClass=user)", "(objectClass=group)")
    found = session.search(
        session.domain_dn, all_of(kinds, wanted), ("sAMAccountName", "objectClass")
    )
    return tuple(
        Namesake(entry.text("sAMAccountName") or "", "group" in entry.texts("objectClass"))
        for entry in found
        if domain_of(entry.dn) == domain_of(session.domain_dn)
    )


def netbios_name(session: LdapSession) -> str:
    """The NetBIOS name of the domain controller's own domain (MS-ADTS 6.1.1.2.1.1.2); empty: it
    tells none; blocks.
    """
    partitions = f"CN=Partitions,{session.root_dse.text('configurationNamingContext')}"
    wanted = all_of("(objectClass=crossRef)", equals("nCName", session.domain_dn))
    return next(
        (
            entry.text("nETBIOSName") or ""
            for entry in session.search(partitions, wanted, ("nETBIOSName",))
        ),
        "",
    )
