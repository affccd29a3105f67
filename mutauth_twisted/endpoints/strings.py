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

The keywords are the options of :mod:`mutauth_twisted.settings.schema`.  Every mistake is a
:class:`~mutauth_twisted.errors.UsageError` (a ValueError) that names the keyword.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from attrs import frozen
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.dns import Resolver
from mutauth_twisted.errors import UsageError, check_utf8
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.net.plain import parse_client, parse_server
from mutauth_twisted.net.server import MutualAuthServerEndpoint
from mutauth_twisted.net.tls import Authority, checking_layer, server_layer
from mutauth_twisted.settings.access import access_rules
from mutauth_twisted.settings.read import Front, Values
from mutauth_twisted.settings.schema import ALIASES, FLAG, Option, Where
from mutauth_twisted.spn import SPN
from mutauth_twisted.windows import WINDOWS, refuse_on_windows

if not WINDOWS:
    # The directory is asked with GSSAPI.
    from mutauth_twisted.directory.location import Selection
    from mutauth_twisted.endpoints.located import LocatedEndpoint
    from mutauth_twisted.ldap.connection import Directory

_SUBJECT = "mutauth endpoint"
#: The keywords that find the endpoint by themselves, in the order in which they count.
_LOCATION: Mapping[Literal["scp", "keyword", "rnr"], Where] = {
    "scp": Where.SCP,
    "keyword": Where.KEYWORD,
    "rnr": Where.RNR,
}
_FLAGS = {"yes": True, "no": False}
_TCP = re.compile(
    r"tcp:(?:host=)?(?P<host>[^:=\\]+):(?:port=)?(?P<port>[0-9]{1,5})(?::timeout=(?P<timeout>[0-9]+))?"
)
_MAX_TIMEOUT = 3600.0


@frozen
class _Strings(Front):
    """Endpoint strings, whose lists have commas in them."""

    def spell(self, name: str, value: object = None) -> str:
        """See :class:`Front`."""
        return name if value is None else f"{name}={'yes' if value is True else value}"

    def several(self, name: str) -> str:
        """See :class:`Front`."""
        return f"write commas between them: {name}=A,B"

    def raw(self, option: Option, value: str) -> str | bool | tuple[str, ...]:
        """See :class:`Front`."""
        if option.kind.repeatable:
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if option.kind is not FLAG:
            return value
        if value not in _FLAGS:
            raise UsageError(value, "there is no such choice", f"use {' or '.join(_FLAGS)}")
        return _FLAGS[value]


CLIENT, SERVER = (
    _Strings(where, "keyword", f"{_SUBJECT} keyword ", ALIASES)
    for where in (Where.CLIENT, Where.SERVER)
)


def _values(
    front: Front, form: Where, arguments: tuple[str, ...], keywords: Mapping[str, str]
) -> Values:
    check_utf8(arguments)
    for keyword in keywords:
        if ":" in keyword:
            remedy = "inside the escaped endpoint write = as \\="
            raise UsageError(f"{_SUBJECT} keyword {keyword}", "there is no such keyword", remedy)
    return Values(front, form, keywords)


def _authority(values: Values) -> Authority | None:
    """Return the authority that has to vouch for the service's certificate, if any."""
    return Authority(values["tls-ca"], values["tls-name"]) if values["tls-ca"] is not None else None


def _one_endpoint(arguments: tuple[str, ...], example: str) -> str:
    if len(arguments) != 1:
        cause = (
            "it names no endpoint"
            if not arguments
            else "it names several endpoints, or a colon is not escaped"
        )
        raise UsageError(_SUBJECT, cause, f"write for example {example}")
    return arguments[0]


def client_endpoint(
    reactor: Any, arguments: tuple[str, ...], keywords: Mapping[str, str]
) -> IStreamClientEndpoint:
    """The endpoint of a client's string.

    :param arguments: the string's parts without a keyword, behind ``mutauth:``.
    :param keywords: those with one.
    :raises UsageError: for any unknown, missing or unusable part.
    """
    kind = next((each for each in _LOCATION if each in keywords), None)
    form = Where.DIRECT if kind is None else _LOCATION[kind]
    values = _values(CLIENT, form, arguments, keywords)
    if kind is None:
        return _direct(reactor, arguments, values)
    refuse_on_windows(f"{_SUBJECT} keyword {kind}")
    if arguments:
        cause = f"{kind}= finds the endpoint by itself"
        raise UsageError(f"{_SUBJECT} part {arguments[0]}", cause, "leave one of the two out")
    tickets = ClientCredentials.from_options(values)
    directory = Directory(reactor, values.directory, tickets)
    selection = Selection(
        values[kind],
        service_class=values["service-class"],
        base=values.get("base"),
        spn_form=values.get("spn-form"),
        hosts=values["hosts"],
        kind=kind,
    )
    return LocatedEndpoint(
        reactor,
        directory,
        selection,
        values.package.client_credentials(values.package_options),
        security=values.security,
        wire=values["wire"],
        authority=_authority(values),
        keep=values["cache"],
    )


def located(reactor: Any, **options: object) -> IStreamClientEndpoint:
    """Client endpoint of a service that the directory knows.

    :param options: those of the endpoint string, with ``_`` for ``-``: ``scp="echoSvc"``, and lists
        and booleans where the string has commas and ``yes``.
    :raises UsageError: for any unknown, missing or unusable option.
    """
    keywords = {}
    for name, value in options.items():
        parts = value if isinstance(value, (list, tuple)) else (value,)
        words = (("no", "yes")[part] if isinstance(part, bool) else str(part) for part in parts)
        keywords[name.replace("_", "-")] = ",".join(words)
    if not any(kind in keywords for kind in _LOCATION):
        raise UsageError(_SUBJECT, f"none of {', '.join(_LOCATION)} is given", "give one of them")
    return client_endpoint(reactor, (), keywords)


def _direct(reactor: Any, arguments: tuple[str, ...], values: Values) -> IStreamClientEndpoint:
    example = (
        r"mutauth:scp=echoSvc, or mutauth:tcp\:srv1.example.com\:9000:spn=echoSvc/srv1.example.com"
    )
    package = values.package
    if values["spn"] is None and package.authenticates_service:
        cause = "it names no service: neither scp nor spn"
        raise UsageError(_SUBJECT, cause, f"write for example {example}")
    inner = _one_endpoint(arguments, example)
    spn = SPN.parse(values["spn"]) if values["spn"] is not None else None
    authority = _authority(values)
    tls = checking_layer(authority, spn.host) if authority is not None and spn is not None else None
    endpoint = _inner(reactor, inner, values)
    credentials = package.client_credentials(values.package_options)
    return MutualAuthClientEndpoint(
        reactor, endpoint, spn, credentials, values.security, inner, tls
    )


def _inner(reactor: Any, text: str, values: Values) -> IStreamClientEndpoint:
    """The endpoint inside a client's string; with a nameserver its host is looked up there."""
    nameserver, tcp = values["nameserver"], _TCP.fullmatch(text)
    # That of the environment is for what has a host to look up.
    if nameserver is None or (tcp is None and "nameserver" not in values.given):
        return parse_client(reactor, text)
    resolver = Resolver(reactor, nameserver)
    if tcp is None:
        cause = f"it goes with tcp:HOST:PORT only, and not with {text}"
        raise UsageError(
            f"{_SUBJECT} keyword nameserver", cause, "leave it out, and write the host's address"
        )
    seconds = float(tcp["timeout"] or _MAX_TIMEOUT)  # the handshake's own deadline covers it
    return HostnameEndpoint(
        resolver.reactor_for_endpoints(), tcp["host"], int(tcp["port"]), timeout=seconds
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
    values = _values(SERVER, Where.SERVER, arguments, keywords)
    inner = _one_endpoint(
        arguments, r"mutauth:tcp\:9000:keytab=/etc/echo.keytab:allow=*@EXAMPLE.COM"
    )
    policy, security = AccessPolicy.of(access_rules(values)), values.security
    package = security.package
    credentials = package.service_credentials(values.package_options)
    keys = package.acceptor_keys(credentials, values["service-class"])
    tls_cert = values["tls-cert"]
    tls = server_layer(tls_cert, values["tls-key"]) if tls_cert is not None else None
    return MutualAuthServerEndpoint(
        reactor, parse_server(reactor, inner), keys, policy, security, values.limits, tls
    )
