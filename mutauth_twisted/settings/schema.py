"""Every option, once: its names, kind, default and help, which front-ends take it, what it needs.

The front-ends are ``twistd mutauth``, a table of TOML, the endpoint strings of servers and clients,
and the sub-commands of ``mutauth``.  Each is built from these rows, and so is the reference in the
documentation.  A name means the same wherever it is taken; where a service's option and a client's
share a name, such as ``keytab``, each has its row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from enum import Flag, auto
from functools import lru_cache
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from twisted.internet.abstract import isIPAddress

from mutauth_twisted.access.patterns import check_pattern
from mutauth_twisted.access.sids import is_sid
from mutauth_twisted.directory.guidcache import DEFAULT_STATE_DIR
from mutauth_twisted.directory.servicename import DEFAULT_SPN_FORMS, RNR_FORMS, SPN_FORMS
from mutauth_twisted.errors import UsageError
from mutauth_twisted.gateway.balancer import check_balancer
from mutauth_twisted.ldap.dn import is_dn
from mutauth_twisted.mechanisms import KERBEROS, MECHANISMS, NEGOTIATE
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import check_service_class, own_host
from mutauth_twisted.wire import NNS, WIRES


class Where(Flag):
    """Front-ends, as bits."""

    #: One service: ``twistd mutauth``, and a ``[service.NAME]`` of its configuration file.
    SERVICE = auto()
    #: The process with all its services: ``twistd mutauth``, and the top of its configuration file.
    PROCESS = auto()
    #: The command line of ``twistd mutauth`` alone.
    START = auto()
    #: A server's endpoint string.
    SERVER = auto()
    #: A client's, with what it looks for in the directory, or with an endpoint of its own.
    SCP = auto()
    KEYWORD = auto()
    RNR = auto()
    DIRECT = auto()
    #: Sub-commands of ``mutauth`` that name it.
    COMMAND = auto()
    #: The tables ``[[allow]]`` and ``[[deny]]`` of a policy file.
    ALLOW = auto()
    DENY = auto()

    LISTENING = SERVICE | SERVER
    BY_SCP = SCP | KEYWORD
    LOCATED = BY_SCP | RNR
    CLIENT = LOCATED | DIRECT
    CHANNEL = LISTENING | CLIENT
    SEARCHING = SERVICE | LOCATED | COMMAND
    TWISTD = SERVICE | PROCESS | START
    RULE = ALLOW | DENY


def _text(text: str) -> str:
    if not text.strip():
        raise UsageError(text, "it is empty", "give a value, or leave it out")
    if "\0" in text or text.splitlines() != [text]:
        raise UsageError(text, "it has a NUL or a line break in it", "write it in one line")
    return text


@frozen
class Kind:
    """Conversion of an option's text to its value.

    :param metavar: stands for the value in help texts.
    :param convert: takes the text, or a flag's bool, or a number of TOML; raises UsageError, whose
        cause and remedy count.
    :param choices: the values there are, where they can be listed.
    :param types: those that a TOML value may have.
    :param repeatable: an option has any number of values: it is given several times, is a list in
        TOML, and in an endpoint string has commas between them.
    """

    metavar: str = "TEXT"
    convert: Callable[[Any], Any] = _text
    choices: Collection[str] = ()
    types: tuple[type, ...] = (str,)
    repeatable: bool = False


def _number(most: int, least: int = 1) -> Kind:
    def convert(value: str | int) -> int:
        text = str(value)
        if text.isascii() and text.isdecimal() and least <= int(text) <= most:
            return int(text)
        raise UsageError(text, "it is out of range", f"use {least} to {most}")

    return Kind("N", convert, types=(int,))


def _seconds(most: int = 3600, *, zero: bool = False) -> Kind:
    def convert(value: str | float) -> float:
        with suppress(ValueError):
            if 0 < float(value) <= most or (zero and float(value) == 0):
                return float(value)
        raise UsageError(str(value), "it is out of range", f"give seconds, up to {most}")

    return Kind("SECONDS", convert, types=(int, float))


def _choice(choices: Collection[str]) -> Kind:
    def convert(text: str) -> str:
        if text not in choices:
            raise UsageError(text, "there is no such choice", f"use {' or '.join(choices)}")
        return text

    return Kind("NAME", convert, choices)


def _several(choices: Collection[str]) -> Kind:
    def convert(text: str) -> tuple[str, ...]:
        values = tuple(part.strip() for part in text.split(",") if part.strip())
        for value in values:
            if value not in choices:
                raise UsageError(value, f"there is no {value}", f"use {', '.join(choices)}")
        if not values:
            raise UsageError(text, "it names none", f"use {', '.join(choices)}")
        return values

    return Kind("NAME[,NAME]", convert, choices, (str, list))


def _group(text: str) -> str:
    if not text.strip():
        raise UsageError(text, "it names no group", "give a name or a SID")
    return _text(text).strip()


def _sid(text: str) -> str:
    if not is_sid(text):
        cause = "it is not a SID, and an endpoint string asks no directory for names"
        remedy = "give its objectSid, such as S-1-5-21-1-2-3-1104; twistd mutauth takes names"
        raise UsageError(text, cause, remedy)
    return text


def _dn(text: str) -> str:
    if not is_dn(text):
        remedy = "write CN=srv1,CN=Computers,DC=example,DC=com"
        raise UsageError(text, "it is not a valid DN of a domain", remedy)
    return text


def _audit(text: str) -> str:
    if text in ("stdout", "journald") or Path(_text(text)).is_absolute():
        return text
    # twistd changes its directory.
    cause = "it is neither stdout nor journald, nor an absolute path"
    raise UsageError(text, cause, f"write {Path(text).absolute()}, if that is the file")


def _listen(text: str) -> str:
    if text.startswith("haproxy:"):
        cause = "it believes PROXY headers of any sender, and no limit or log line goes by it"
        remedy = f"use {text.removeprefix('haproxy:')} and proxy-from, with the balancer's address"
        raise UsageError(text, cause, remedy)
    return _text(text)


def _ident_address(text: str) -> tuple[str, int | str]:
    host, colon, place = text.partition(":")
    if not host.startswith("127.") or not isIPAddress(host):
        cause = "it is not a loopback address: queries and answers are not protected"
        raise UsageError(text, cause, "use an address of 127.0.0.0/8, such as 127.0.0.5")
    if host == "127.0.0.1":
        cause = "every program of this machine connects from it"
        raise UsageError(text, cause, "use another address of 127.0.0.0/8, such as 127.0.0.5")
    if place.isascii() and place.isdecimal() and 1 <= int(place) <= 65535:
        return host, int(place)
    if colon and (not place.isidentifier() or not place.isascii()):
        cause = "it is neither a port nor the name of a socket that systemd passes"
        raise UsageError(text, cause, "leave it out: it is port 113 then")
    return host, place or 113


@frozen
class FromEnvironment:
    """Default of an option that an environment variable may set; an empty one is not set.

    :param variable: its name.
    :param otherwise: the default where it is not set.
    """

    variable: str
    otherwise: str | None = None

    def __call__(self) -> str | None:
        return os.environ.get(self.variable) or self.otherwise


FLAG = Kind("", bool, types=(bool,))
_CLASS = Kind("NAME", check_service_class)
_DIR, _DN, _FILE, _NAME, _PATTERN = map(Kind, ("DIR", "DN", "FILE", "NAME", "PATTERN"))
_PRINCIPAL, _STRPORT = Kind("NAME@REALM"), Kind("STRPORT")
_IDENT = Kind("ADDRESS[:PORT|:NAME]", _ident_address)
_PATTERNS, _STRPORTS, _URLS = (
    evolve(kind, repeatable=True)
    for kind in (evolve(_PATTERN, convert=check_pattern), _STRPORT, Kind("URL"))
)
_PLACES = Kind("STRPORT", _listen, repeatable=True)
_GROUPS, _SIDS = Kind("GROUP", _group, repeatable=True), Kind("SID", _sid, repeatable=True)
_BALANCERS = Kind("ADDRESS", check_balancer, repeatable=True)
_SMALL, _MANY, _MORE = _number(65535, 0), _number(100_000), _number(1_000_000)
_WEEK = _seconds(604_800)
_PACKAGES = _choice(MECHANISMS)
_PROTECTIONS = _choice([protection.value for protection in Protection])
_SERVICE, _PROCESS, _START, _SERVER, _SCP, _KEYWORD, _RNR, _DIRECT, _COMMAND, _ALLOW, _DENY = Where
_LIMITS = Limits()
_PUBLISHED, _CHECKS = _choice(("scp", "rnr", "none")), _choice(("refuse", "warn", "off"))
_INTERVAL = _seconds(86400, zero=True)


@frozen
class Option:
    """One row.

    :param name: its name in every front-end.
    :param kind: what its values are.
    :param help: one sentence, with the default where that is not a plain value.
    :param default: the value of an option that is not given, or what makes it.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None

    @property
    def text(self) -> str:
        """The help, with the choices."""
        *others, last = map(self._described, self.kind.choices or [""])
        more = f": {', '.join(others)} or {last}." if others else "."
        return self.help.rstrip(".") + more

    def _described(self, choice: str) -> str:
        """A choice, with what its registry says of it."""
        registry = self.kind.choices
        entry = registry[choice] if isinstance(registry, Mapping) else None
        summary = getattr(entry, "summary", "")
        return f"{choice} ({summary})" if summary else choice

    @property
    def usage(self) -> str:
        """The text for a command line, where an option may be given several times."""
        return f"{self.text.rstrip('.')}; repeatable." if self.kind.repeatable else self.text

    @property
    def shown(self) -> str:
        """The default as it is written; nothing where the help tells it, or there is none."""
        if self.default is None or callable(self.default):
            return ""
        values = self.default if isinstance(self.default, tuple) else (self.default,)
        return ",".join(f"{each:g}" if isinstance(each, float) else str(each) for each in values)

    @property
    def initial(self) -> Any:
        """The value of the option when it is not given."""
        if self.default is None:
            return False if self.kind is FLAG else () if self.kind.repeatable else None
        return self.default() if callable(self.default) else self.default


#: The rows, below the titles of help texts and of the reference and the front-ends that take them.
SECTIONS: Mapping[tuple[str, Where], tuple[Option, ...]] = {
    ("Which service, one of", _SCP): (
        Option("scp", _NAME, "Keyword (its class too), DN or GUID of its SCP."),
    ),
    ("Which service, one of", _KEYWORD): (
        Option("keyword", _NAME, "Any keyword of its SCP; needs service-class."),
    ),
    ("Which service, one of", _RNR): (Option("rnr", _NAME, "Name or DN of an RnR service."),),
    ("Which service, one of", _DIRECT): (
        Option("spn", Kind("SPN"), "The SPN of the server at ENDPOINT."),
    ),
    ("With scp=, keyword= or rnr=", Where.LOCATED): (
        Option("service-class", _NAME, "The class of its SPN (scp='s keyword)."),
        Option("hosts", _PATTERN, "Hosts to accept, *.example.com (all)."),
        Option("cache", _seconds(zero=True), "Seconds to keep what was found; 0: none.", 60.0),
    ),
    ("With scp= or keyword=", Where.BY_SCP | _COMMAND): (
        Option("base", Kind("DN", _dn), "Only what is below this DN (the forest)."),
    ),
    ("With scp= or keyword=", Where.BY_SCP): (
        Option("spn-form", _choice(SPN_FORMS), "Third part of the SPN (what the SCP says)"),
    ),
    ("The service", _SERVICE | _COMMAND): (
        Option("service-class", _CLASS, "First part of the SPN, such as echoSvc."),
        Option("host", Kind("FQDN"), "Second part of the SPN (this machine's name).", own_host),
        Option(
            "account", _NAME, "Account that runs it (the keytab's one entry that is not an SPN)."
        ),
        Option(
            "state-dir",
            _DIR,
            f"Where the SCP's GUID is cached (MUTAUTH_STATE_DIR, else {DEFAULT_STATE_DIR}).",
            FromEnvironment("MUTAUTH_STATE_DIR", str(DEFAULT_STATE_DIR)),
        ),
    ),
    ("The service", _SERVICE): (
        Option(
            "spn-form",
            _several((*SPN_FORMS, *RNR_FORMS)),
            "Third parts that must be registered (guid,dn).",
        ),
    ),
    ("The service", _COMMAND): (
        Option("spn-form", _several(SPN_FORMS), "Third parts of the SPNs.", DEFAULT_SPN_FORMS),
    ),
    ("The service", _SERVER): (
        Option("service-class", _CLASS, "The class that clients' tickets must name (any)."),
        Option("principal", _PRINCIPAL, "The one principal of the keytab that counts (all)."),
        Option("state-dir", _DIR, "Where the replay cache is (a directory of the user's)."),
    ),
    ("The service", Where.LISTENING): (
        Option("keytab", _FILE, "The account's keys (KRB5_KTNAME, then the system's)."),
        Option(
            "accept-replays",
            FLAG,
            "Do without a replay cache: whoever copies a request opens sessions as its client.",
        ),
    ),
    ("What it serves", _SERVICE): (
        Option("listen", _PLACES, "Server endpoint strings; tcp:0: any free port.", ("tcp:0",)),
        Option(
            "proxy-from",
            _BALANCERS,
            "Balancer that sends PROXY protocol headers (version 2): an address, a network, or "
            "unix (who connects to a UNIX socket).",
        ),
        Option("echo", FLAG, "Serve an echo."),
        Option("forward", _STRPORT, "Service to stand before (backend): a client endpoint string."),
        Option(
            "factory",
            _NAME,
            "Twisted factory to serve: its dotted name, or that of a callable that makes it.",
        ),
    ),
    ("The process", _START | _COMMAND): (
        Option("config", _FILE, "TOML file with all other options, for one service or several."),
    ),
    ("The process", _START): (
        Option("check", FLAG, "Tell all that is wrong with options and files, and start nothing."),
    ),
    ("The process", _PROCESS): (
        Option("status", _STRPORT, "Server endpoint string at which to report its state, by HTTP."),
        Option("workers", _number(64), "Processes that take connections; 1: this one does.", 1),
        Option(
            "user",
            Kind("NAME[:GROUP]"),
            "User to become, with the user's groups, when ports are bound and keys read.",
        ),
    ),
    ("What the backend is told", _SERVICE): (
        Option("backend-timeout", _seconds(), "Seconds for a connection to it.", 10.0),
        Option(
            "backend-check",
            _INTERVAL,
            "Seconds between probes of it; while they fail the service is withdrawn; 0: none.",
            0.0,
        ),
        Option(
            "half-closed-timeout",
            _seconds(86400, zero=True),
            "Seconds without a byte that cut a connection of which one side has ended; 0: never.",
            600.0,
        ),
        Option("unsafe-backend", FLAG, "Forward to another machine without TLS."),
        Option("proxy-protocol", FLAG, "Tell it who the client is, by PROXY protocol headers."),
        Option("proxy-protocol-groups", FLAG, "Tell it the SIDs of the client's groups, too."),
        Option(
            "ident-address",
            _IDENT,
            "Loopback address, such as 127.0.0.5, to dial it from and to answer its ident queries "
            "(RFC 1413) at; NAME: of a socket that systemd passes.",
        ),
    ),
    ("What is recorded", _SERVICE): (
        Option(
            "audit",
            Kind("FILE", _audit),
            "Audit trail, a line of JSON for each event: a file's absolute path, stdout or "
            "journald.",
        ),
        Option("audit-required", FLAG, "Refuse clients while the audit trail cannot be written."),
    ),
    ("What is published and checked", _SERVICE): (
        Option("publish", _PUBLISHED, "What to keep up to date in the directory.", "scp"),
        Option("rnr-name", _NAME, "Name or DN of the RnR service (the service class)."),
        Option("spn-check", _CHECKS, "When an SPN is missing.", "refuse"),
        Option("check-interval", _INTERVAL, "Seconds between checks; 0: only at the start.", 300.0),
    ),
    ("What is published and checked", _SERVICE | _COMMAND): (
        Option("scp-name", Kind("CN"), "Common name of the SCP (the service class)."),
        Option("scp-parent", _DN, "DN above the SCP (the host's computer object)."),
        Option("priority", _SMALL, "Clients try lower priorities first.", 0),
        Option("weight", _SMALL, "Share among the instances of one priority.", 100),
    ),
    ("What is published and checked", _COMMAND): (
        Option("container", _NAME, "Container below CN=System for a replicated service's SCP."),
        Option("port", _number(65535), "The TCP port."),
    ),
    ("Who may connect", Where.LISTENING | _COMMAND): (
        Option(
            "allow",
            _PATTERNS,
            "Accounts to allow: *@EXAMPLE.COM (all accounts, computers too), svc-*@EXAMPLE.COM (no "
            "computers: svc-*$@EXAMPLE.COM) or DOMAIN\\name.",
        ),
        Option("deny", _PATTERNS, "Accounts to deny, a computer without its $ too; beats allow."),
        Option("allow-all", FLAG, "Allow every authenticated client."),
        Option("policy", _FILE, "TOML file with further rules, which may have limits."),
    ),
    ("Who may connect", _SERVICE | _COMMAND): (
        Option(
            "allow-group",
            _GROUPS,
            "A group whose members are allowed: its name, DOMAIN\\name, name@domain, DN or SID.",
        ),
        Option("deny-group", _GROUPS, "A group to deny, whatever allows its members."),
    ),
    ("Who may connect", _SERVER): (
        Option("allow-group", _SIDS, "Groups whose members are allowed."),
        Option("deny-group", _SIDS, "Groups to deny, whatever allows their members."),
    ),
    ("A rule of a policy file", Where.RULE): (
        Option("accounts", _PATTERNS, "Patterns of accounts."),
        Option("groups", _GROUPS, "Groups: name, DOMAIN\\name, name@domain, DN or SID."),
        Option("all", FLAG, "Every authenticated client."),
    ),
    ("A rule of a policy file", _ALLOW): (
        Option("max-connections", _MORE, "Sessions at once of all that the rule allows."),
        Option("max-connections-per-principal", _MORE, "Sessions at once of each account of them."),
        Option("max-session", _WEEK, "Seconds after which such a session ends."),
    ),
    ("Limits", Where.LISTENING): (
        Option("max-handshakes", _MANY, "Handshakes at once.", _LIMITS.handshakes),
        Option(
            "max-handshakes-per-address",
            _MANY,
            "Handshakes of one address at once (an eighth of all, and at most 32).",
        ),
        Option("max-waiting", _MANY, "Connections waiting for a handshake.", _LIMITS.waiting),
        Option(
            "max-waiting-per-address",
            _MANY,
            "Connections of one address at once that wait (a quarter of all, and at most 256).",
        ),
        Option("max-connections", _MORE, "Sessions at once.", _LIMITS.connections),
        Option("max-connections-per-principal", _MORE, "Sessions of one account (no such limit)."),
        Option("idle-timeout", _WEEK, "Seconds without a byte that end a session.", _LIMITS.idle),
        Option("max-session", _WEEK, "Seconds after which a session ends (with its ticket)."),
    ),
    ("Limits", _SERVICE): (
        Option(
            "drain-timeout",
            _seconds(zero=True),
            "Seconds that connections may take to end when it stops; then they are cut.",
            5.0,
        ),
    ),
    ("The client", Where.CLIENT | _COMMAND): (
        Option("principal", _PRINCIPAL, "Who to be (the ticket's client)."),
        Option("ccache", Kind("CACHE"), "The ticket cache to use (the default one)."),
        Option("keytab", _FILE, "Get a ticket with this keytab instead."),
    ),
    ("The directory", Where.SEARCHING): (
        Option("directory", _URLS, "Domain controller, ldap://HOST or ldaps://HOST (from DNS)."),
        Option("directory-ca", _FILE, "Certificates (PEM) that may vouch for ldaps:// servers."),
        Option("realm", Kind("REALM"), "The realm (that of the keytab or ticket)."),
    ),
    ("The directory", Where.SEARCHING | _DIRECT): (
        Option(
            "nameserver",
            Kind("IP"),
            "The DNS server to ask, ADDRESS[:PORT] (MUTAUTH_NAMESERVER, else the system's).",
            FromEnvironment("MUTAUTH_NAMESERVER"),
        ),
    ),
    ("The channel", Where.LISTENING | _COMMAND): (
        Option("wire", _choice(WIRES), "The wire format.", NNS.name),
    ),
    ("The channel", Where.CHANNEL | _COMMAND): (
        Option(
            "protection", _PROTECTIONS, "Least protection of every byte.", Protection.SEAL.value
        ),
    ),
    ("The channel", Where.CHANNEL): (
        Option("handshake-timeout", _seconds(), "Seconds for the whole handshake.", 10.0),
    ),
    ("The channel", Where.CLIENT): (
        Option("wire", _choice(WIRES), f"The wire format (what the SCP says, else {NNS.name})."),
        Option("package", _PACKAGES, "The security package.", KERBEROS.name),
        Option("tls-ca", _FILE, "Who must have signed the server's certificate (PEM)."),
        Option("tls-name", _NAME, "The name in the certificate (the host)."),
    ),
    ("The channel", Where.LISTENING): (
        # Third-party clients, .NET's among them, send SPNEGO unless they are told otherwise.
        Option("package", _PACKAGES, "The security package.", NEGOTIATE.name),
        Option("tls-cert", _FILE, "Certificate chain (PEM) (one that is made at the start)."),
        Option("tls-key", _FILE, "The certificate's key (PEM), where it is in another file."),
    ),
}
#: Short names in endpoint strings.
ALIASES = {"class": "service-class", "ca": "directory-ca", "timeout": "handshake-timeout"}
#: The limits, by the attribute that each is of :class:`~mutauth_twisted.net.limits.Limits`.
LIMITS = {
    "max-handshakes": "handshakes",
    "max-handshakes-per-address": "handshakes_per_address",
    "max-waiting": "waiting",
    "max-waiting-per-address": "waiting_per_address",
    "max-connections": "connections",
    "max-connections-per-principal": "per_principal",
    "idle-timeout": "idle",
    "max-session": "session",
}
#: What an option goes with only, and which value of that; None: any.
NEEDS: Mapping[str, tuple[str, str | None]] = {
    "audit-required": ("audit", None),
    "tls-cert": ("protection", Protection.TLS.value),
    "tls-key": ("tls-cert", None),
    "ident-address": ("forward", None),
    "backend-timeout": ("forward", None),
    "backend-check": ("forward", None),
    "half-closed-timeout": ("forward", None),
    "unsafe-backend": ("forward", None),
    "proxy-protocol": ("forward", None),
    "proxy-protocol-groups": ("proxy-protocol", None),
    "tls-ca": ("protection", Protection.TLS.value),
    "tls-name": ("tls-ca", None),
}
#: What goes only with a package that authenticates the service, in these front-ends.
ABOUT_SERVICE = {
    Where.CHANNEL: {"account", "tls-cert", "tls-key", "tls-ca", "tls-name"},
    Where.CLIENT: {"scp", "keyword", "rnr", "spn"},
    Where.SERVER: {"service-class"},
}
#: What goes only with a package that identifies a client's groups.
ABOUT_GROUPS = frozenset({"allow-group", "deny-group", "proxy-protocol-groups"})
#: What is for more than a package's credentials, and goes with any, in these front-ends.
FOR_ALL_PACKAGES = {Where.SERVICE: {"state-dir"}}
#: The value that an option has to have with a package that does not authenticate the service.
UNAUTHENTICATED = {"publish": "none", "spn-check": "off"}


def rows() -> Iterator[tuple[str, Where, Option]]:
    """Every option with its title and front-ends, and then those that one package alone needs."""
    for (title, where), section in SECTIONS.items():
        yield from ((title, where, option) for option in section)
    for package in MECHANISMS.values():
        for name, help in package.required.items():
            client, service = name in package.client_options, name in package.service_options
            where = (_DIRECT if client else Where(0)) | (Where.LISTENING if service else Where(0))
            text = f"{help[0].upper()}{help[1:]}, for package {package.name}."
            yield "The channel", where, Option(name, Kind("VALUE"), text)


def sections(where: Where) -> dict[str, list[Option]]:
    """The options of front-ends, by title."""
    found: dict[str, list[Option]] = {}
    for title, taken, option in rows():
        if taken & where:
            found.setdefault(title, []).append(option)
    return found


def options(where: Where) -> Mapping[str, Option]:
    """The options of front-ends, by name."""
    return _options(where, tuple(MECHANISMS))


@lru_cache(maxsize=32)
def _options(where: Where, packages: tuple[str, ...]) -> Mapping[str, Option]:
    return {option.name: option for found in sections(where).values() for option in found}
