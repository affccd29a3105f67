"""Which of Kerberos' implementations makes a client's contexts: GSSAPI, or on Windows SSPI.

Windows has neither gssapi nor krb5: what needs them is imported here, when it
is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from mutauth_twisted.core.channelbinding import ChannelBinding
from mutauth_twisted.core.context import Keys, SecurityContext
from mutauth_twisted.credentials import ClientCredentials, NtlmCredentials, ServiceCredentials
from mutauth_twisted.errors import (
    UsageError,
)
from mutauth_twisted.mechanisms.ntlm import NtlmUsers
from mutauth_twisted.protection import Package, Protection
from mutauth_twisted.spn import SPN

#: Whether this is Windows.  Tests set it.
WINDOWS = sys.platform == "win32"


def refuse_on_windows(what: str) -> None:
    """See that this is not Windows.

    :param what: what is asked for.
    :raises UsageError: when it is.
    """
    if WINDOWS:
        cause = "Windows has only clients that are given an address and an SPN"
        raise UsageError(
            what, cause, "use it on Linux, or connect to mutauth:tcp\\:HOST\\:PORT:spn=SPN"
        )


def kerberos_initiators(
    spn: SPN, credentials: ClientCredentials, protection: Protection, package: Package
) -> Callable[[ChannelBinding | None], SecurityContext]:
    """What makes contexts for one SPN; takes the TLS channel, if there is one.

    :raises UsageError: for credentials that this platform cannot use.
    """
    if not WINDOWS:
        from mutauth_twisted.mechanisms.kerberos import KerberosInitiator

        return lambda channel: KerberosInitiator(spn, credentials, protection, package, channel)
    from mutauth_twisted.mechanisms.kerberos_windows import SspiInitiator

    if credentials != ClientCredentials():
        cause = "Windows knows no principal, ccache or keytab: the client is who is logged on"
        raise UsageError(
            "the client's credentials", cause, "leave them out, and log on or use runas"
        )
    return lambda channel: SspiInitiator(spn, protection, package, channel)


def check_credentials(package: Package, ntlm: bool) -> None:
    if ntlm is package.proves_service:
        cause = "its credentials are NTLM's" if ntlm else "its credentials are not NTLM's"
        remedy = "name the package and the credentials that belong together"
        raise UsageError(f"package {package.value}", cause, remedy)


def service_keys(
    credentials: ServiceCredentials | NtlmCredentials,
    service_class: str | None = None,
    package: Package = Package.KERBEROS,
) -> Keys:
    """What makes a service's contexts, for any package.

    :param service_class: see :class:`mutauth_twisted.mechanisms.kerberos.ServiceKeys`; without
        meaning where no service is proven.
    :raises CredentialError: when the credentials cannot be used.
    :raises UsageError: when they are another package's, or on Windows.
    """
    refuse_on_windows("a service")
    check_credentials(package, isinstance(credentials, NtlmCredentials))
    if isinstance(credentials, NtlmCredentials):
        return NtlmUsers(credentials)
    # Not before: a client on Windows comes without what this needs.
    from mutauth_twisted.mechanisms.kerberos import ServiceKeys

    return ServiceKeys(credentials, service_class, package)
