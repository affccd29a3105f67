"""The options of ``twistd mutauth``, checked before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from attrs import frozen
from twisted.python import usage

from mutauth_twisted.access import AccessPolicy, is_sid
from mutauth_twisted.core.mechanism import Mechanism
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.directory.guidcache import DEFAULT_STATE_DIR
from mutauth_twisted.directory.published.scp import SpnCheck
from mutauth_twisted.directory.servicename import (
    DEFAULT_SPN_FORMS,
    RNR_FORMS,
    ServiceName,
    parse_spn_forms,
)
from mutauth_twisted.errors import MutualAuthError, UsageError, check_utf8
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.mechanisms import MECHANISMS, NEGOTIATE, check_options
from mutauth_twisted.net.limits import LIMITS, Limits, limits_of
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import check_service_class, own_host
from mutauth_twisted.wire import WIRES

T = TypeVar("T")

SPN_CHECKS: dict[str, SpnCheck] = {"refuse": "refuse", "warn": "warn", "off": "off"}


@frozen
class Settings:
    """One service, as its options describe it.

    :param service: what it is called; the SPNs of its forms have to be registered.
    :param account: who runs the service; None: the one entry of the keytab that is not an SPN.
    :param keytab: its keys; None: KRB5_KTNAME, then the system's.
    :param package_options: values of those options that make the credentials of its mechanism.
    :param listen: server endpoint strings; the first one's port is published.
    :param publish: whether to keep the entry in the directory up to date.
    :param entry: what it is: a service connection point (``scp``) or an RnR service (``rnr``).
    :param rnr_name: an RnR service's name or DN; None: the service class.
    :param check_interval: seconds between checks of the directory; 0: none but at the start.
    :param directory: how the directory is reached.
    :param serve: what to serve, as a kind (``echo``, ``forward``, ``factory``) and its argument.
    :param tls_files: the files of a TLS certificate and, where it is another one, of its key.
    :param spn_check: what to do about a missing SPN: ``refuse``, ``warn`` or ``off``.
    :param policy: who may in, as far as no directory has to be asked.
    :param allow_groups: names of groups whose members may in too.
    :param deny_groups: names of groups whose members may not.
    :param explicit_limits: the names of those limits that are no defaults.
    """

    service: ServiceName
    account: str | None
    keytab: str | None
    package_options: Mapping[str, Any]
    listen: tuple[str, ...]
    publish: bool
    entry: Literal["scp", "rnr"]
    rnr_name: str | None
    check_interval: float
    priority: int
    weight: int
    spn_check: SpnCheck
    directory: DirectoryOptions
    state_dir: Path
    status: str | None
    serve: tuple[str, str]
    policy: AccessPolicy
    allow_groups: tuple[str, ...]
    deny_groups: tuple[str, ...]
    security: SecurityOptions
    tls_files: tuple[str, str | None] | None
    limits: Limits
    explicit_limits: frozenset[str]


def leave(error: MutualAuthError) -> NoReturn:
    """End the process with the error's line and code, before anything was started."""
    sys.stderr.write(f"mutauth: {error}\n")
    sys.exit(error.exit_code)


def _number(option: str) -> Callable[[str], int]:
    def coerce(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
            raise usage.UsageError(f"--{option} {text}: it is out of range; use 0 to 65535")
        return int(text)

    return coerce


def _seconds(option: str, most: float = 3600, *, none: bool = False) -> Callable[[str], float]:
    """Read seconds; ``none``: 0 is one of them."""

    def coerce(text: str) -> float:
        with suppress(ValueError):
            if 0 < float(text) <= most or (none and float(text) == 0):
                return float(text)
        raise usage.UsageError(
            f"--{option} {text}: it is out of range; give seconds, up to {most:g}"
        )

    return coerce


_CHECK_INTERVAL = _seconds("check-interval", 86400, none=True)
_DEFAULT_FORMS = ",".join(DEFAULT_SPN_FORMS)
_REPEATABLE = ("listen", "allow", "allow-group", "deny", "deny-group", "directory")


class Options(usage.Options):
    """The command line of ``twistd mutauth``."""

    synopsis = "[options]"
    longdesc = (
        "Serves proven clients only, found through the directory. `mutauth install` prepares the "
        "directory."
    )

    optFlags = (
        ("allow-all", None, "Let every proven client in."),
        ("echo", None, "Serve an echo."),
        (
            "accept-replays",
            None,
            "Do without a replay cache: who copies a client's request opens sessions as that "
            "client.",
        ),
    )
    optParameters = (
        ("service-class", None, None, "First part of the SPN; required."),
        ("host", None, None, "Second part of the SPN: this machine's DNS name."),
        (
            "spn-form",
            None,
            None,
            "Third parts that must be registered: guid, dn, host (guid,dn); or rnr alone.",
        ),
        (
            "account",
            None,
            None,
            "The account that runs the service (the keytab's one entry that is not an SPN).",
        ),
        ("keytab", None, None, "The account's keys (KRB5_KTNAME, then the system's)."),
        ("publish", None, "scp", "What to keep up to date in the directory: scp, rnr or none."),
        ("rnr-name", None, None, "Name or DN of the RnR service (the service class)."),
        ("scp-name", None, None, "Common name of the SCP (the service class)."),
        ("scp-parent", None, None, "DN above the SCP (the host's computer object)."),
        ("priority", None, 0, "Clients try lower priorities first.", _number("priority")),
        (
            "weight",
            None,
            100,
            "Share of the clients among instances of one priority.",
            _number("weight"),
        ),
        ("spn-check", None, "refuse", "When an SPN is missing: refuse, warn or off."),
        (
            "check-interval",
            None,
            300.0,
            "Look at the directory again each so many seconds; 0: never.",
            _CHECK_INTERVAL,
        ),
        ("directory-ca", None, None, "Certificates (PEM) that may vouch for ldaps:// servers."),
        ("realm", None, None, "The realm (that of the keytab's principal)."),
        ("nameserver", None, None, "Ask this DNS server instead of the system's."),
        (
            "state-dir",
            None,
            str(DEFAULT_STATE_DIR),
            "Where `mutauth install` cached the SCP's GUID.",
        ),
        ("status", None, None, "Tell how the service is, over HTTP: a server endpoint string."),
        ("forward", None, None, "Stand in front of a plain service: a client endpoint string."),
        (
            "factory",
            None,
            None,
            "Serve a Twisted factory: its dotted name, or a callable's that makes it.",
        ),
        ("wire", None, "nns", "The wire format: nns or winsock."),
        (
            "protection",
            None,
            "seal",
            "The least that is done to every byte: seal, sign (seal for who asks) or tls.",
        ),
        (
            "package",
            None,
            NEGOTIATE.name,
            "; ".join(f"{each.name}: {each.summary}" for each in MECHANISMS.values()) + ".",
        ),
        *(
            (name, None, None, f"{what[0].upper()}{what[1:]}, for --package {each.name}.")
            for each in MECHANISMS.values()
            for name, what in each.required.items()
        ),
        (
            "tls-cert",
            None,
            None,
            "Certificate chain (PEM) for --protection tls (one that is made up).",
        ),
        ("tls-key", None, None, "The certificate's key (PEM), where it is not in the same file."),
        (
            "handshake-timeout",
            None,
            10.0,
            "Deadline of the exchange, in seconds.",
            _seconds("handshake-timeout"),
        ),
        *(
            (name, None, getattr(Limits(), attribute), text)
            for name, (attribute, _, text) in LIMITS.items()
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self._repeated: dict[str, list[str]] = {kind: [] for kind in _REPEATABLE}

    def opt_listen(self, value: str) -> None:
        """A server endpoint string; repeatable. [default: tcp:0, any free port]"""
        self._repeated["listen"].append(value)

    def opt_allow(self, value: str) -> None:
        """Let in whom this pattern matches, *@EXAMPLE.COM (everybody, computers too),
        svc-*@EXAMPLE.COM (no computers:
        svc-*$@EXAMPLE.COM) or DOMAIN\\name; repeatable."""
        self._repeated["allow"].append(value)

    def opt_allow_group(self, value: str) -> None:
        """Let in the members of a group: its name, DOMAIN\\name, name@domain, DN or SID;
        repeatable.
        """
        self._repeated["allow-group"].append(value)

    def opt_deny(self, value: str) -> None:
        """Keep out whom this pattern matches, a computer without its $ too; beats what lets in;
        repeatable.
        """
        self._repeated["deny"].append(value)

    def opt_deny_group(self, value: str) -> None:
        """Keep out the members of a group, whoever else is let in; repeatable."""
        self._repeated["deny-group"].append(value)

    def opt_directory(self, value: str) -> None:
        """A domain controller, ldap://HOST or ldaps://HOST; repeatable. [default: from DNS]"""
        self._repeated["directory"].append(value)

    def parseArgs(self, *arguments: str) -> None:
        """There is nothing but options."""
        if arguments:
            raise usage.UsageError(f"{arguments[0]}: it belongs to no option")

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line; a mistake ends the process with one line and code 2."""
        try:
            check_utf8(options or ())
            super().parseOptions(options)
        except UsageError as error:
            leave(error)
        except usage.UsageError as error:
            leave(UsageError("twistd mutauth", str(error), "see twistd mutauth --help"))

    def postOptions(self) -> None:
        """Turn everything into :attr:`settings`; mistakes end the process like unknown options
        do.
        """
        try:
            self.settings = self._settings()
        except UsageError as error:
            leave(error)

    def _settings(self) -> Settings:
        if not self["service-class"]:
            raise UsageError(
                "--service-class",
                "it is missing",
                "give the first part of the SPN, such as echoSvc",
            )
        check_service_class(self["service-class"], f"--service-class {self['service-class']}")
        package = self._package()
        explicit_limits = frozenset(
            name for name in LIMITS if isinstance(self[name], str)
        )  # defaults are numbers
        return Settings(
            service=ServiceName(
                self["service-class"],
                self["host"] or own_host(),
                self._forms(),
                self["scp-name"],
                self["scp-parent"],
            ),
            account=self["account"],
            keytab=self["keytab"],
            package_options={name: self[name] for name in package.service_options if name in self},
            listen=tuple(self._repeated["listen"] or ["tcp:0"]),
            publish=self._choice("publish", {"scp": True, "rnr": True, "none": False}),
            entry=self._entry(),
            rnr_name=self["rnr-name"],
            check_interval=self["check-interval"],
            priority=self["priority"],
            weight=self["weight"],
            spn_check=self._choice("spn-check", SPN_CHECKS),
            directory=DirectoryOptions(
                tuple(self._repeated["directory"]),
                self["directory-ca"],
                self["realm"],
                self["nameserver"],
            ),
            state_dir=Path(self["state-dir"]),
            status=self["status"],
            serve=self._serve(),
            policy=self._policy(),
            allow_groups=self._groups("allow-group", by_name=True),
            deny_groups=self._groups("deny-group", by_name=True),
            security=SecurityOptions(
                self._choice("wire", WIRES),
                self._choice("protection", {kind.value: kind for kind in Protection}),
                self["handshake-timeout"],
                package,
            ),
            tls_files=self._tls_files(),
            limits=limits_of({name: self[name] for name in explicit_limits}, "--{name} {value}"),
            explicit_limits=explicit_limits,
        )

    def _package(self) -> Mechanism:
        """The mechanism; other options must not promise what it does not keep."""
        package = self._choice("package", MECHANISMS)
        given = {name for name, value in self.items() if value != self.defaults.get(name)}
        given |= {name for name, values in self._repeated.items() if values}
        check_options(package, given, "--{}", initiator=False)
        if not package.authenticates_service:
            subject, cause = f"--package {package.name}", "it does not authenticate the service"
            if self["publish"] != "none":
                cause = f"{cause}, which clients want of one that they find in the directory"
                raise UsageError(subject, cause, "add --publish none")
            if self["spn-check"] != "off":
                cause = f"{cause}, and checks of its SPNs say nothing"
                raise UsageError(subject, cause, "add --spn-check off")
        return package

    def _tls_files(self) -> tuple[str, str | None] | None:
        certificate, key = self["tls-cert"], self["tls-key"]
        if certificate is None:
            if key is not None:
                raise UsageError(
                    "--tls-key", "it means nothing without its certificate", "add --tls-cert FILE"
                )
            return None
        if self["protection"] != Protection.TLS.value:
            raise UsageError("--tls-cert", "there is no TLS to use it for", "add --protection tls")
        return certificate, key

    def _choice(self, option: str, choices: Mapping[str, T]) -> T:
        if self[option] not in choices:
            raise UsageError(
                f"--{option} {self[option]}",
                "there is no such choice",
                f"use {' or '.join(choices)}",
            )
        return choices[self[option]]

    def _entry(self) -> Literal["scp", "rnr"]:
        """What stands for the service in the directory: what is published, or else what the SPN
        names.
        """
        return "rnr" if self["publish"] == "rnr" or self["spn-form"] == "rnr" else "scp"

    def _forms(self) -> tuple[str, ...]:
        if self._entry() == "rnr":
            if (self["spn-form"] or "rnr") != "rnr" or self["publish"] == "scp":
                cause = (
                    f"--publish {self['publish']} goes with other names than --spn-form "
                    f"{self['spn-form']}"
                )
                raise UsageError(
                    "--spn-form",
                    cause,
                    "an RnR service takes --publish rnr, and --spn-form rnr or none",
                )
            return RNR_FORMS
        return parse_spn_forms(self["spn-form"] or _DEFAULT_FORMS)

    def _serve(self) -> tuple[str, str]:
        chosen: list[tuple[str, Any]] = [
            (kind, self[kind]) for kind in ("echo", "forward", "factory") if self[kind]
        ]
        if len(chosen) != 1:
            cause = "nothing is there to serve" if not chosen else "only one of them can be served"
            raise UsageError("--echo, --forward, --factory", cause, "give exactly one")
        kind, argument = chosen[0]
        return kind, str(argument)

    def _groups(self, option: str, *, by_name: bool) -> tuple[str, ...]:
        """The groups that are given by their names, or those by their SIDs."""
        groups = tuple(group.strip() for group in self._repeated[option])
        if "" in groups:
            raise UsageError(f"--{option}", "it names no group", "give a name or a SID")
        return tuple(group for group in groups if is_sid(group) is not by_name)

    def _policy(self) -> AccessPolicy:
        repeated = self._repeated
        policy = AccessPolicy(
            repeated["allow"],
            repeated["deny"],
            bool(self["allow-all"]),
            self._groups("allow-group", by_name=False),
            self._groups("deny-group", by_name=False),
        )
        if policy.lets_nobody_in and not self._groups("allow-group", by_name=True):
            remedy = "give --allow PATTERN, or --allow-all for every authenticated client"
            raise UsageError("--allow", "the access policy allows no client", remedy)
        return policy
