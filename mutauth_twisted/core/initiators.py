"""Which of Kerberos' implementations makes a client's contexts: GSSAPI, or on Windows SSPI.

Windows has neither gssapi nor krb5: what needs them is imported here, when it
is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from mutauth_twisted.channelbinding import ChannelBinding
from mutauth_twisted.core.context import SecurityContext
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import UsageError
from mutauth_twisted.policy import Package, Protection
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
        raise UsageError(what, cause, "use it on Linux, or connect to mutauth:tcp\\:HOST\\:PORT:spn=SPN")


def kerberos_initiators(
    spn: SPN, credentials: ClientCredentials, protection: Protection, package: Package
) -> Callable[[ChannelBinding | None], SecurityContext]:
    """What makes contexts for one SPN; takes the TLS channel, if there is one.

    :raises UsageError: for credentials that this platform cannot use.
    """
    if not WINDOWS:
        from mutauth_twisted.core.kerberos import KerberosInitiator

        return lambda channel: KerberosInitiator(spn, credentials, protection, package, channel)
    from mutauth_twisted.core.sspi import SspiInitiator

    if credentials != ClientCredentials():
        cause = "Windows knows no principal, ccache or keytab: the client is who is logged on"
        raise UsageError("the client's credentials", cause, "leave them out, and log on or use runas")
    return lambda channel: SspiInitiator(spn, protection, package, channel)
