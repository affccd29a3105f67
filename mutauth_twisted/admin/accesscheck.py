"""Trial of an access policy: what a service would decide about an account, without a connection.

The facts about the account are those of its ticket: by the KDC, which gives the service one of the
account to look at, or by the directory.
"""

from __future__ import annotations

from typing import Final

from attrs import evolve

from mutauth_twisted.access import Logon
from mutauth_twisted.access.sids import is_ticket_sid
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.directory.accounts import netbios_name
from mutauth_twisted.directory.acl import parse_sid
from mutauth_twisted.directory.spns import find_account
from mutauth_twisted.errors import DirectoryRefused, NotFound
from mutauth_twisted.kerberos.impersonation import request_of
from mutauth_twisted.kerberos.tickets import tickets_for
from mutauth_twisted.ldap.dn import domain_of
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.mechanisms import KERBEROS
from mutauth_twisted.names import escape_name, fold_ascii, split_principal
from mutauth_twisted.protection import Protection

# MS-DTYP 2.4.2.4: who has vouched for an account; the KDC where it has logged on itself, as clients
# have, and a service where that has asked for it.
_ASSERTED_BY_KDC: Final = "S-1-18-1"
_ASSERTED_BY_SERVICE: Final = "S-1-18-2"
#: MS-ADTS 2.2.16: userAccountControl, ADS_UF_ACCOUNTDISABLE.
_DISABLED: Final = 0x2


def logon_by_ticket(principal: str, service: str, keytab: str | None) -> tuple[str, Logon | None]:
    """The name on an account's ticket for a service, and what the ticket says of it; blocks.

    The service's own code reads it.

    :param principal: ``name@REALM``, or a name in the service's realm.
    :param service: the service's own ``account@REALM``.
    :param keytab: its keys.
    :raises NotFound: when the account gets no ticket.
    :raises MutualAuthError: see :func:`~mutauth_twisted.kerberos.impersonation.request_of`.
    """
    name, realm = split_principal(principal)
    if not realm:
        principal = f"{name}@{split_principal(service)[1]}"
    tickets = tickets_for(ClientCredentials(principal=service, keytab=keytab))
    keys = KERBEROS.acceptor_keys(
        ServiceCredentials(keytab, service, accept_replays=True)  # the request is our own
    )
    context = keys.acceptor(f"account {principal}")
    context.step(request_of(principal, service, tickets))
    identity = context.verify(Protection.SEAL)
    logon = identity.read_logon()
    if logon is not None:
        groups = dict.fromkeys(
            _ASSERTED_BY_KDC if sid == _ASSERTED_BY_SERVICE else sid for sid in logon.groups
        )
        logon = evolve(logon, groups=tuple(groups))
    return identity.principal, logon


def logon_in_directory(session: LdapSession, principal: str) -> tuple[str, Logon]:
    """The name on an account's ticket, and what a ticket would say of it, by the directory; blocks.

    :param session: a domain controller of the service's own domain, which must be the account's.
    :param principal: ``name@REALM``, a name in that domain, or a UPN.
    :raises NotFound: when the domain has no such account, or it is disabled.
    :raises DirectoryRefused: when its groups cannot be read.
    """
    found = find_account(session, principal)
    entry = session.read(
        found.dn, ("tokenGroups", "objectSid", "userPrincipalName", "userAccountControl")
    )
    realm = domain_of(found.dn).upper()
    if int(entry.text("userAccountControl") or 0) & _DISABLED:
        cause = "it gets no ticket: it is disabled"
        raise NotFound(f"account {principal}", cause, "enable it", code="account-disabled")
    groups = entry.values("tokenGroups")
    if not groups:  # the primary group at least would be there
        cause = "its groups (tokenGroups) cannot be read"
        remedy = "ask as an administrator, or with the service's --keytab"
        raise DirectoryRefused(f"account {principal}", cause, remedy)
    name, home = split_principal(principal)
    if fold_ascii(home) not in ("", fold_ascii(realm)):
        name = escape_name(found.name)
    sids = (each for each in map(parse_sid, groups) if is_ticket_sid(each))
    return f"{name}@{realm}", Logon(
        name=found.name,
        domain=netbios_name(session),
        sid=found.sid,
        groups=(*sids, _ASSERTED_BY_KDC),
        upn=entry.text("userPrincipalName") or f"{found.name}@{realm.lower()}",
    )
