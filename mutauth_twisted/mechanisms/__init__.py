"""Security mechanisms, by GSSAPI's name for them; ``package``, SSPI's name, is their option.

A mechanism is one file, an :class:`~mutauth_twisted.core.mechanism.Implementation`, and one entry
here.  Importing this loads none of the files.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import evolve

from mutauth_twisted.core.mechanism import KERBEROS, Mechanism
from mutauth_twisted.errors import UsageError

__all__ = ["KERBEROS", "MECHANISMS", "NEGOTIATE", "NTLM", "check_options"]


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

#: Options that say which service a client expects or a service is, or what vouches for it.
ABOUT_SERVICE = frozenset(
    {"account", "spn", "scp", "keyword", "rnr", "class", "hosts", "base", "spn-form", "cache"}
    | {"directory", "ca", "realm", "tls-ca", "tls-name", "tls-cert", "tls-key"}
)
ABOUT_GROUPS = frozenset({"allow-group", "deny-group"})


def check_options(
    package: Mechanism, given: Collection[str], subject: str, *, initiator: bool
) -> None:
    """Check that options go with a mechanism, whichever front-end they were given to.

    :param given: their names.
    :param subject: how errors name an option, with ``{}`` in the place of its name.
    :param initiator: whether they are a client's.
    :raises UsageError: for one that has no meaning with this mechanism, or is missing.
    """
    own = package.client_options if initiator else package.service_options
    for option in given:
        others = [
            each.name
            for each in MECHANISMS.values()
            if option in (each.client_options | each.service_options)
        ]
        cause = ""
        if others and option not in own:
            if package.name not in others:
                cause = f"it means nothing without package {' or '.join(others)}"
        elif not package.authenticates_service and option in ABOUT_SERVICE:
            cause = f"package {package.name} does not authenticate the service"
        elif not package.identifies_groups and option in ABOUT_GROUPS:
            cause = f"package {package.name} does not tell a client's groups"
        if cause:
            raise UsageError(subject.format(option), cause, "leave it out, or use another package")
    for option, what in package.required.items():
        if option in own and option not in given:
            raise UsageError(subject.format(option), "it is missing", f"name the {what}")
