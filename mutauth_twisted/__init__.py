"""Kerberos mutual authentication for TCP services in Active Directory, for Twisted.

The names below are the public API; all other modules are private, but for
:mod:`mutauth_twisted.testing`, the test kit, and :mod:`mutauth_twisted.lab`, a
throw-away Active Directory.  Each is loaded when it is first asked for.

Most programs need none of them: ``clientFromString(reactor, "mutauth:scp=echoSvc")``
and ``serverFromString(reactor, "mutauth:tcp\\\\:9000:class=echoSvc:...")`` do it all.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mutauth_twisted.access import AccessPolicy
    from mutauth_twisted.core.options import SecurityOptions
    from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
    from mutauth_twisted.endpoints.strings import located
    from mutauth_twisted.errors import (
        AccessDenied,
        AuthenticationError,
        CredentialError,
        DirectoryError,
        KDCError,
        MutualAuthError,
        NetworkError,
        PeerError,
        ProtocolViolation,
        RecordError,
        SessionEnded,
        StreamCut,
        UsageError,
    )
    from mutauth_twisted.gateway.forwarded import ForwardedIdentity
    from mutauth_twisted.gateway.proxyprotocol import ProxyHeader
    from mutauth_twisted.gateway.told import (
        ForwardedFactory,
        ForwardedServerEndpoint,
        IForwardedTransport,
    )
    from mutauth_twisted.identity import PeerIdentity
    from mutauth_twisted.interfaces import IMutualAuthTransport, ISessionEnding
    from mutauth_twisted.mechanisms import MECHANISMS
    from mutauth_twisted.mechanisms.ntlm import NtlmCredentials
    from mutauth_twisted.net.client import MutualAuthClientEndpoint
    from mutauth_twisted.net.limits import Limits
    from mutauth_twisted.net.server import MutualAuthServerEndpoint, MutualAuthServerFactory
    from mutauth_twisted.protection import Protection
    from mutauth_twisted.spn import SPN
    from mutauth_twisted.wire import WIRES

_MODULES = {
    "access": ("AccessPolicy",),
    "core.options": ("SecurityOptions",),
    "credentials": ("ClientCredentials", "ServiceCredentials"),
    "endpoints.strings": ("located",),
    "errors": (
        "AccessDenied",
        "AuthenticationError",
        "CredentialError",
        "DirectoryError",
        "KDCError",
        "MutualAuthError",
        "NetworkError",
        "PeerError",
        "ProtocolViolation",
        "RecordError",
        "SessionEnded",
        "StreamCut",
        "UsageError",
    ),
    "gateway.forwarded": ("ForwardedIdentity",),
    "gateway.proxyprotocol": ("ProxyHeader",),
    "gateway.told": ("ForwardedFactory", "ForwardedServerEndpoint", "IForwardedTransport"),
    "identity": ("PeerIdentity",),
    "interfaces": ("IMutualAuthTransport", "ISessionEnding"),
    "mechanisms": ("MECHANISMS",),
    "mechanisms.ntlm": ("NtlmCredentials",),
    "net.client": ("MutualAuthClientEndpoint",),
    "net.limits": ("Limits",),
    "net.server": ("MutualAuthServerEndpoint", "MutualAuthServerFactory"),
    "protection": ("Protection",),
    "spn": ("SPN",),
    "wire": ("WIRES",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """A public name, loaded when it is asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
