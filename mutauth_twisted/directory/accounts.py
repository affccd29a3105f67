"""Search for the account of a name that an administrator wrote down."""

from __future__ import annotations

from attrs import frozen

from mutauth_twisted.ldap.dn import domain_of
from mutauth_twisted.ldap.filter import all_of, any_of, equals
from mutauth_twisted.ldap.session import LdapSession


@frozen
class Namesake:
    """Account that may have been meant by a name.

    :param name: its sAMAccountName.
    :param is_group: whether it is a group, and no account.
    """

    name: str
    is_group: bool


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
