"""The endpoint strings ``mutauth:...``, for clients and for servers.

Clients::

    mutauth:scp=SELECTOR[:class=..][:base=DN][:hosts=PATTERN][:spn-form=guid|dn|host]...
    mutauth:keyword=KEYWORD:class=CLASS[:base=DN][:hosts=PATTERN][:spn-form=guid|dn|host]...
    mutauth:rnr=NAME[:class=..][:hosts=PATTERN]...
    mutauth:ENDPOINT:spn=class/host[/name]...
    mutauth:ENDPOINT:package=PACKAGE...

where SELECTOR is a keyword, a DN or an objectGUID, NAME is an RnR service's name
or DN, and ENDPOINT is any client endpoint string with its colons escaped.  By
keyword the service's class has to be ``class=``, by default the keyword itself;
what looks like a GUID or a DN is one, and ``keyword=`` is for keywords that do.
PACKAGE is a mechanism that does not authenticate the service.  Servers::

    mutauth:ENDPOINT:keytab=FILE:allow=PATTERN...

Every mistake is a :class:`~mutauth_twisted.errors.UsageError` (a ValueError)
that names the keyword.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeVar

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)

from mutauth_twisted.access import AccessPolicy, is_sid
from mutauth_twisted.core.mechanism import Mechanism
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials, Credentials
from mutauth_twisted.dns import Resolver
from mutauth_twisted.errors import UsageError, check_utf8
from mutauth_twisted.mechanisms import KERBEROS, MECHANISMS, NEGOTIATE, check_options
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.net.limits import LIMITS, limits_of
from mutauth_twisted.net.plain import parse_client, parse_server
from mutauth_twisted.net.server import MutualAuthServerEndpoint
from mutauth_twisted.net.tls import Authority, checking_layer, server_layer
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN, check_service_class
from mutauth_twisted.windows import WINDOWS, refuse_on_windows
from mutauth_twisted.wire import WIRES

if not WINDOWS:
    # The directory is asked with GSSAPI.
    from mutauth_twisted.directory.location import Selection
    from mutauth_twisted.endpoints.located import KEEP, LocatedEndpoint
    from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions

T = TypeVar("T")

_SUBJECT = "mutauth endpoint"
_KEYWORD = f"{_SUBJECT} keyword {{}}"
#: All that a client's string takes, by kind, with a word on each: ``mutauth connect --help`` shows
#: it.
CLIENT_KEYWORDS: Mapping[str, Mapping[str, str]] = {
    "Which service, one of": {
        "scp": "keyword (its class too), DN or GUID of its SCP",
        "keyword": "any keyword of its SCP; needs class=",
        "rnr": "name or DN of an RnR service",
        "spn": "what the one at ENDPOINT must prove to be",
    },
    "With scp=, keyword= or rnr=": {
        "class": "the class its SPN must have (scp='s keyword)",
        "hosts": "a pattern of hosts, *.example.com",
        "directory": "ldap:// or ldaps:// servers (from DNS)",
        "ca": "certificates (PEM) for ldaps://",
        "realm": "the realm (the ticket's)",
        "cache": "seconds to keep what was found (60; 0: none)",
    },
    "With scp= or keyword=": {
        "base": "the DN below which to look (the forest)",
        "spn-form": "guid, dn; or host, with hosts= (the SCP's)",
    },
    "The client": {
        "principal": "who to be, user@REALM",
        "ccache": "a ticket cache (KRB5CCNAME's)",
        "keytab": "its keys, instead of a ticket",
        **{
            name: f"{what}, for package {each.name}"
            for each in MECHANISMS.values()
            for name, what in each.required.items()
        },
    },
    "The channel": {
        "wire": "nns or winsock (nns; what the SCP says)",
        "protection": "seal, sign or tls (seal)",
        "package": f"{' or '.join(MECHANISMS)} (kerberos)",
        "tls-ca": "who must have signed the certificate (PEM)",
        "tls-name": "the name in the certificate (the host)",
        "nameserver": "a DNS server, ADDRESS[:PORT]",
        "timeout": "seconds for all until both are proven (10)",
    },
}
_SERVICE, _SEARCH, _SCP_SEARCH = (
    CLIENT_KEYWORDS[kind].keys() for kind in list(CLIENT_KEYWORDS)[:3]
)
_CLIENT = frozenset(CLIENT_KEYWORDS["The channel"])
_LOCATION: Mapping[Literal["scp", "keyword", "rnr"], frozenset[str]] = {
    "scp": _CLIENT | _SEARCH | _SCP_SEARCH | {"scp"},
    "keyword": _CLIENT | _SEARCH | _SCP_SEARCH | {"keyword"},
    "rnr": _CLIENT | _SEARCH | {"rnr"},
}
_ACCESS = frozenset({"allow", "allow-group", "deny", "deny-group", "allow-all"})
_SERVER = (
    frozenset({"wire", "protection", "package", "timeout", "class", "tls-cert", "tls-key"})
    | LIMITS.keys()
    | _ACCESS
)
_TCP = re.compile(
    r"tcp:(?:host=)?(?P<host>[^:=\\]+):(?:port=)?(?P<port>[0-9]{1,5})(?::timeout=(?P<timeout>[0-9]+))?"
)
_MAX_TIMEOUT = 3600.0


def _choice(keyword: str, value: str, choices: Mapping[str, T]) -> T:
    try:
        return choices[value]
    except KeyError:
        raise UsageError(
            f"{_SUBJECT} keyword {keyword}={value}",
            "there is no such choice",
            f"use {' or '.join(choices)}",
        ) from None


def _seconds(keyword: str, value: str, *, or_zero: bool = False) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not (0 < seconds <= _MAX_TIMEOUT or (or_zero and seconds == 0)):
        raise UsageError(
            f"{_SUBJECT} keyword {keyword}={value}",
            "it is no time",
            f"give seconds, up to {_MAX_TIMEOUT:g}",
        )
    return seconds


def _check_keywords(given: Collection[str], known: Collection[str]) -> None:
    for keyword in given:
        if keyword not in known:
            escape = "; inside the escaped endpoint write = as \\=" if ":" in keyword else ""
            known_here = f"known: {', '.join(sorted(known))}{escape}"
            raise UsageError(
                f"{_SUBJECT} keyword {keyword}", "there is no such keyword here", known_here
            )


def _package(keywords: Mapping[str, str], default: Mechanism) -> Mechanism:
    return _choice("package", keywords.get("package", default.name), MECHANISMS)


def _security(keywords: Mapping[str, str], package: Mechanism) -> SecurityOptions:
    return SecurityOptions(
        wire=_choice("wire", keywords.get("wire", "nns"), WIRES),
        protection=_choice(
            "protection",
            keywords.get("protection", "seal"),
            {kind.value: kind for kind in Protection},
        ),
        timeout=_seconds("timeout", keywords.get("timeout", "10")),
        package=package,
    )


def _authority(keywords: Mapping[str, str], security: SecurityOptions) -> Authority | None:
    """Who has to vouch for the service's certificate, if anybody."""
    _check_tls(keywords, security, "tls-ca", "tls-name")
    return Authority(keywords["tls-ca"], keywords.get("tls-name")) if "tls-ca" in keywords else None


def _check_tls(
    keywords: Mapping[str, str], security: SecurityOptions, main: str, other: str
) -> None:
    if other in keywords and main not in keywords:
        raise UsageError(
            f"{_SUBJECT} keyword {other}", f"it means nothing without {main}", f"add {main}=FILE"
        )
    if main in keywords and security.protection is not Protection.TLS:
        raise UsageError(
            f"{_SUBJECT} keyword {main}", "there is no TLS to use it for", "add protection=tls"
        )


def _one_endpoint(arguments: tuple[str, ...], example: str) -> str:
    if len(arguments) != 1:
        cause = (
            "it names no endpoint"
            if not arguments
            else "it names several endpoints, or a colon is not escaped"
        )
        raise UsageError(_SUBJECT, cause, f"write for example {example}")
    return arguments[0]


def _list(keywords: Mapping[str, str], keyword: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in keywords.get(keyword, "").split(",") if part.strip())


def _sids(keywords: Mapping[str, str], keyword: str) -> tuple[str, ...]:
    """A server's string is read at once, and has no directory in which to look for a name."""
    groups = _list(keywords, keyword)
    for group in groups:
        if not is_sid(group):
            cause = "it is no SID, and an endpoint string asks no directory for names"
            remedy = "give its objectSid, such as S-1-5-21-1-2-3-1104; twistd mutauth takes names"
            raise UsageError(f"{_SUBJECT} keyword {keyword}={group}", cause, remedy)
    return groups


def client_endpoint(
    reactor: Any, arguments: tuple[str, ...], keywords: Mapping[str, str]
) -> IStreamClientEndpoint:
    """The endpoint of a client's string.

    :param arguments: the string's parts without a keyword, behind ``mutauth:``.
    :param keywords: those with one.
    :raises UsageError: for any unknown, missing or unusable part.
    """
    check_utf8((*arguments, *keywords.values()))
    package = _package(keywords, KERBEROS)
    check_options(package, keywords, _KEYWORD, initiator=True)
    credentials = package.client_credentials(keywords)
    make = _located if any(kind in keywords for kind in _LOCATION) else _direct
    return make(reactor, arguments, keywords, package, credentials)


def _direct(
    reactor: Any,
    arguments: tuple[str, ...],
    keywords: Mapping[str, str],
    package: Mechanism,
    credentials: Credentials,
) -> IStreamClientEndpoint:
    example = (
        r"mutauth:scp=echoSvc, or mutauth:tcp\:srv1.example.com\:9000:spn=echoSvc/srv1.example.com"
    )
    if "spn" not in keywords and package.authenticates_service:
        raise UsageError(
            _SUBJECT,
            "it names nothing to prove: neither scp nor spn",
            f"write for example {example}",
        )
    _check_keywords(keywords, _CLIENT | package.client_options | {"spn"})
    inner = _one_endpoint(arguments, example)
    spn = SPN.parse(keywords["spn"]) if "spn" in keywords else None
    security = _security(keywords, package)
    authority = _authority(keywords, security)
    tls = checking_layer(authority, spn.host) if authority is not None and spn is not None else None
    return MutualAuthClientEndpoint(
        reactor, _inner(reactor, inner, keywords), spn, credentials, security, inner, tls
    )


def _inner(reactor: Any, text: str, keywords: Mapping[str, str]) -> IStreamClientEndpoint:
    """The endpoint inside a client's string; with nameserver= its host is looked up there."""
    if "nameserver" not in keywords:
        return parse_client(reactor, text)
    resolver = Resolver(reactor, keywords["nameserver"])
    tcp = _TCP.fullmatch(text)
    if tcp is None:
        cause = f"it goes with tcp:HOST:PORT only, and not with {text}"
        raise UsageError(
            f"{_SUBJECT} keyword nameserver", cause, "leave it out, and write the host's address"
        )
    seconds = float(tcp["timeout"] or _MAX_TIMEOUT)  # the exchange's own deadline covers it
    return HostnameEndpoint(
        resolver.reactor_for_endpoints(), tcp["host"], int(tcp["port"]), timeout=seconds
    )


def _located(
    reactor: Any,
    arguments: tuple[str, ...],
    keywords: Mapping[str, str],
    package: Mechanism,
    credentials: Credentials,
) -> IStreamClientEndpoint:
    kind = next(each for each in _LOCATION if each in keywords)
    refuse_on_windows(f"{_SUBJECT} keyword {kind}")
    _check_keywords(keywords, _LOCATION[kind] | package.client_options)
    if arguments:
        raise UsageError(
            f"{_SUBJECT} part {arguments[0]}",
            f"{kind}= finds the endpoint by itself",
            "leave one of the two out",
        )
    directory = Directory(
        reactor,
        DirectoryOptions(
            _list(keywords, "directory"),
            keywords.get("ca"),
            keywords.get("realm"),
            keywords.get("nameserver"),
        ),
        ClientCredentials.from_options(keywords),
    )
    if (form := keywords.get("spn-form")) is not None:
        _choice("spn-form", form, {known: known for known in ("guid", "dn", "host")})
    security = _security(keywords, package)
    return LocatedEndpoint(
        reactor,
        directory,
        Selection(
            keywords[kind],
            service_class=keywords.get("class"),
            base=keywords.get("base"),
            spn_form=form,
            hosts=keywords.get("hosts"),
            kind=kind,
        ),
        credentials,
        security=security,
        wire=keywords.get("wire"),
        authority=_authority(keywords, security),
        keep=_seconds("cache", keywords.get("cache", f"{KEEP:g}"), or_zero=True),
    )


def server_endpoint(
    reactor: Any, arguments: tuple[str, ...], keywords: Mapping[str, str]
) -> IStreamServerEndpoint:
    """The endpoint of a server's string.

    :param arguments: the string's parts without a keyword, behind ``mutauth:``.
    :param keywords: those with one.
    :raises UsageError: for any unknown, missing or unusable part.
    :raises CredentialError: when the keytab cannot be used.
    """
    check_utf8((*arguments, *keywords.values()))
    # Third-party clients, .NET's among them, send SPNEGO unless they are told otherwise.
    package = _package(keywords, NEGOTIATE)
    check_options(package, keywords, _KEYWORD, initiator=False)
    _check_keywords(keywords, _SERVER | package.service_options)
    inner = _one_endpoint(
        arguments, r"mutauth:tcp\:9000:keytab=/etc/echo.keytab:allow=*@EXAMPLE.COM"
    )
    allow_all = _choice("allow-all", keywords.get("allow-all", "no"), {"yes": True, "no": False})
    groups = (_sids(keywords, "allow-group"), _sids(keywords, "deny-group"))
    policy = AccessPolicy(_list(keywords, "allow"), _list(keywords, "deny"), allow_all, *groups)
    if policy.lets_nobody_in:
        remedy = "add allow=PATTERN, allow-group=SID, or allow-all=yes"
        raise UsageError(_SUBJECT, "the access policy allows no client", remedy)
    security = _security(keywords, package)
    _check_tls(keywords, security, "tls-cert", "tls-key")
    replays = _choice(
        "accept-replays", keywords.get("accept-replays", "no"), {"yes": True, "no": False}
    )
    credentials = package.service_credentials({**keywords, "accept-replays": replays})
    if "class" in keywords:
        check_service_class(keywords["class"], f"{_SUBJECT} keyword class={keywords['class']}")
    keys = package.acceptor_keys(credentials, keywords.get("class"))
    limits = limits_of(keywords, _SUBJECT + " keyword {name}={value}")
    tls = (
        server_layer(keywords["tls-cert"], keywords.get("tls-key"))
        if "tls-cert" in keywords
        else None
    )
    return MutualAuthServerEndpoint(
        reactor, parse_server(reactor, inner), keys, policy, security, limits, tls
    )
