"""Security mechanisms, by GSSAPI's name for them; ``package``, SSPI's name, is their option.

A mechanism is one file, an :class:`~mutauth_twisted.core.mechanism.Implementation`, and one entry
here.  Importing this loads none of the files.
"""

from __future__ import annotations

from attrs import evolve

from mutauth_twisted.core.mechanism import KERBEROS, Mechanism

__all__ = ["KERBEROS", "MECHANISMS", "NEGOTIATE", "NTLM"]


#: Kerberos inside SPNEGO (RFC 4178), as .NET and Windows speak by default; a service takes
#: Kerberos' own tokens as well.
NEGOTIATE = evolve(
    KERBEROS,
    name="negotiate",
    summary="Kerberos, bare or inside SPNEGO",
    refusal=(KERBEROS.refusal[0], "try package=kerberos; the service's log says why"),
)

#: NTLM (MS-NLMP): the client authenticates with a password, and nothing authenticates the service.
NTLM = Mechanism(
    "ntlm-service-unproven",
    "NTLM, the service is NOT AUTHENTICATED",
    "mutauth_twisted.mechanisms.ntlm",
    (
        "it did not accept the user and password, or its package is another",
        "give both sides the same package; the service's log says why",
    ),
    client_options=frozenset({"principal", "ntlm-users"}),
    service_options=frozenset({"ntlm-users"}),
    required={"ntlm-users": "file of DOMAIN:user:password lines"},
    authenticates_service=False,
    identifies_groups=False,
)

#: The mechanisms by the name that options and endpoint strings use.
MECHANISMS: dict[str, Mechanism] = {each.name: each for each in (KERBEROS, NEGOTIATE, NTLM)}
