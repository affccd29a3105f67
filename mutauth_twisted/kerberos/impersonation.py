"""Tickets of any account for a service itself, by the service's own key alone.

MS-SFU 3.1.5.1.1, S4U2self: the KDC tells a service who a user is, as it would in a ticket of that
user, with all groups.  Such a ticket is good for the service that asked, and for nothing else.
"""

from __future__ import annotations

import gssapi
from gssapi.raw.misc import GSSError

from mutauth_twisted.errors import KDCRefused, NotFound
from mutauth_twisted.findings import Command
from mutauth_twisted.kerberos.codes import KRB5, Krb5
from mutauth_twisted.kerberos.errors import explain, minor_code
from mutauth_twisted.kerberos.tickets import TicketSource

_OF_ACCOUNT = {
    KRB5 + Krb5.KDC_ERR_C_PRINCIPAL_UNKNOWN,
    KRB5 + Krb5.KDC_ERR_NAME_EXP,
    KRB5 + Krb5.KDC_ERR_CLIENT_REVOKED,
    KRB5 + Krb5.KDC_ERR_POLICY,
}


def request_of(principal: str, service: str, tickets: TicketSource) -> bytes:
    """The first token of a handshake of an account with a service; asks the KDC, and blocks.

    :param principal: the account, ``name@REALM``.
    :param service: the service's own ``account@REALM``, which must have an SPN.
    :param tickets: those of the service.
    :raises CredentialError: without a usable key of the service.
    :raises KDCUnreachable: when no KDC answers.
    :raises NotFound: when the account gets no ticket: it is unknown or disabled.
    :raises KDCRefused: when the KDC grants the service no ticket of others.
    """
    kind = gssapi.NameType.kerberos_principal
    who, own = (gssapi.Name(each, kind) for each in (principal, service))
    credentials = tickets.acquire()
    try:
        credentials.inquire(name=False, usage=False, mechs=False)  # the service's own ticket
    except GSSError as error:
        raise explain(error, tickets.subject) from error
    try:
        theirs = credentials.impersonate(who, mechs=[gssapi.MechType.kerberos], usage="initiate")
        context = gssapi.SecurityContext(
            name=own, creds=theirs, usage="initiate", mech=gssapi.MechType.kerberos
        )
        return context.step() or b""
    except GSSError as error:
        code, explained = minor_code(error), explain(error, f"account {principal}")
        if code in _OF_ACCOUNT:
            cause = f"it gets no ticket: {explained.cause}"
            raise NotFound(
                explained.subject, cause, explained.remedy, code=explained.code
            ) from error
        if code == KRB5 + Krb5.KDC_ERR_S_PRINCIPAL_UNKNOWN:
            cause = (
                f"the KDC gives it no ticket of {principal}: it has no SPN, or the realm is unknown"
            )
            remedy = ("register one with ", Command("mutauth", "spn", "add", service, "SPN"))
            raise KDCRefused(f"account {service}", cause, remedy) from error
        raise explained from error
