"""The options of ``twistd mutauth``, checked before anything starts."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from attrs import frozen
from twisted.python import usage

from mutauth_twisted.directory.guidcache import DEFAULT_STATE_DIR
from mutauth_twisted.directory.scp import SPN_FORMS
from mutauth_twisted.directory.startup import SpnCheck
from mutauth_twisted.errors import MutualAuthError, UsageError
from mutauth_twisted.net.protocol import Channel
from mutauth_twisted.policy import AccessPolicy, Protection
from mutauth_twisted.wire import WIRES

T = TypeVar("T")

SPN_CHECKS: dict[str, SpnCheck] = {"refuse": "refuse", "warn": "warn", "off": "off"}


@frozen
class Settings:
    """One service, as its options describe it.

    :param service_class: first part of the SPN.
    :param host: second part.
    :param spn_forms: the third parts that have to be registered.
    :param account: who runs the service; None: the keytab's principal.
    :param keytab: its keys; None: KRB5_KTNAME, then the system's.
    :param listen: server endpoint strings; the first one's port is published.
    :param publish: whether to keep the SCP up to date.
    :param serve: what to serve, as a kind (``echo``, ``forward``, ``factory``) and its argument.
    :param spn_check: what to do about a missing SPN: ``refuse``, ``warn`` or ``off``.
    """

    service_class: str
    host: str
    spn_forms: tuple[str, ...]
    account: str | None
    keytab: str | None
    listen: tuple[str, ...]
    publish: bool
    scp_name: str | None
    scp_parent: str | None
    priority: int
    weight: int
    spn_check: SpnCheck
    servers: tuple[str, ...]
    realm: str | None
    nameserver: str | None
    state_dir: Path
    serve: tuple[str, str]
    policy: AccessPolicy
    channel: Channel


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


def _seconds(option: str) -> Callable[[str], float]:
    def coerce(text: str) -> float:
        with suppress(ValueError):
            if 0 < float(text) <= 3600:
                return float(text)
        raise usage.UsageError(f"--{option} {text}: it is out of range; give seconds, up to 3600")

    return coerce


class Options(usage.Options):
    """The command line of ``twistd mutauth``."""

    synopsis = "[options]"
    longdesc = "Serves proven clients only, found through the directory. `mutauth install` prepares the directory."

    optFlags = (
        ("allow-all", None, "Let every proven client in."),
        ("echo", None, "Serve an echo."),
    )
    optParameters = (
        ("service-class", None, None, "First part of the SPN; required."),
        ("host", None, None, "Second part of the SPN: this machine's DNS name."),
        ("spn-form", None, "guid,dn", "Third parts that must be registered: guid, dn, host."),
        ("account", None, None, "The account that runs the service (the keytab's principal)."),
        ("keytab", None, None, "The account's keys (KRB5_KTNAME, then the system's)."),
        ("publish", None, "scp", "What to keep up to date in the directory: scp or none."),
        ("scp-name", None, None, "Common name of the SCP (the service class)."),
        ("scp-parent", None, None, "DN above the SCP (the host's computer object)."),
        ("priority", None, 0, "Clients try lower priorities first.", _number("priority")),
        ("weight", None, 100, "Share of the clients among instances of one priority.", _number("weight")),
        ("spn-check", None, "refuse", "When an SPN is missing: refuse, warn or off."),
        ("realm", None, None, "The realm (that of the keytab's principal)."),
        ("nameserver", None, None, "Ask this DNS server instead of the system's."),
        ("state-dir", None, str(DEFAULT_STATE_DIR), "Where `mutauth install` cached the SCP's GUID."),
        ("forward", None, None, "Stand in front of a plain service: a client endpoint string."),
        ("factory", None, None, "Serve a Twisted factory: its dotted name, or a callable's that makes it."),
        ("wire", None, "nns", "The wire format: nns."),
        ("protection", None, "seal", "What is done to every byte: seal or sign."),
        ("handshake-timeout", None, 10.0, "Deadline of the exchange, in seconds.", _seconds("handshake-timeout")),
    )

    def __init__(self) -> None:
        super().__init__()
        self._repeated: dict[str, list[str]] = {"listen": [], "allow": [], "deny": [], "directory": []}

    def opt_listen(self, value: str) -> None:
        """A server endpoint string; repeatable. [default: tcp:0, any free port]"""
        self._repeated["listen"].append(value)

    def opt_allow(self, value: str) -> None:
        """Let in whom this pattern matches, such as *@EXAMPLE.COM; repeatable."""
        self._repeated["allow"].append(value)

    def opt_deny(self, value: str) -> None:
        """Keep out whom this pattern matches, whoever else is let in; repeatable."""
        self._repeated["deny"].append(value)

    def opt_directory(self, value: str) -> None:
        """A domain controller, ldap://HOST; repeatable. [default: from DNS]"""
        self._repeated["directory"].append(value)

    def parseArgs(self, *arguments: str) -> None:
        """There is nothing but options."""
        if arguments:
            raise usage.UsageError(f"{arguments[0]}: it belongs to no option")

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line; a mistake ends the process with one line and code 2."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            leave(UsageError("twistd mutauth", str(error), "see twistd mutauth --help"))

    def postOptions(self) -> None:
        """Turn everything into :attr:`settings`; mistakes end the process like unknown options do."""
        try:
            self.settings = self._settings()
        except UsageError as error:
            leave(error)

    def _settings(self) -> Settings:
        if not self["service-class"]:
            raise UsageError("--service-class", "it is missing", "give the first part of the SPN, such as echoSvc")
        return Settings(
            service_class=self["service-class"],
            host=self["host"] or socket.getfqdn(),
            spn_forms=self._forms(),
            account=self["account"],
            keytab=self["keytab"],
            listen=tuple(self._repeated["listen"] or ["tcp:0"]),
            publish=self._choice("publish", {"scp": True, "none": False}),
            scp_name=self["scp-name"],
            scp_parent=self["scp-parent"],
            priority=self["priority"],
            weight=self["weight"],
            spn_check=self._choice("spn-check", SPN_CHECKS),
            servers=tuple(self._repeated["directory"]),
            realm=self["realm"],
            nameserver=self["nameserver"],
            state_dir=Path(self["state-dir"]),
            serve=self._serve(),
            policy=self._policy(),
            channel=Channel(
                self._choice("wire", WIRES),
                self._choice("protection", {kind.value: kind for kind in Protection}),
                self["handshake-timeout"],
            ),
        )

    def _choice(self, option: str, choices: Mapping[str, T]) -> T:
        if self[option] not in choices:
            raise UsageError(f"--{option} {self[option]}", "there is no such choice", f"use {' or '.join(choices)}")
        return choices[self[option]]

    def _forms(self) -> tuple[str, ...]:
        forms = tuple(form.strip() for form in self["spn-form"].split(",") if form.strip())
        for form in forms:
            if form not in SPN_FORMS:
                raise UsageError(f"--spn-form {form}", "there is no such form", f"use {', '.join(SPN_FORMS)}")
        if not forms:
            raise UsageError("--spn-form", "it names no form", f"use {', '.join(SPN_FORMS)}")
        return forms

    def _serve(self) -> tuple[str, str]:
        chosen: list[tuple[str, Any]] = [(kind, self[kind]) for kind in ("echo", "forward", "factory") if self[kind]]
        if len(chosen) != 1:
            cause = "nothing is there to serve" if not chosen else "only one of them can be served"
            raise UsageError("--echo, --forward, --factory", cause, "give exactly one")
        kind, argument = chosen[0]
        return kind, str(argument)

    def _policy(self) -> AccessPolicy:
        policy = AccessPolicy(self._repeated["allow"], self._repeated["deny"], bool(self["allow-all"]))
        if not (policy.allow or policy.allow_all):
            raise UsageError("--allow", "nobody is let in", "give --allow PATTERN, or --allow-all for every proven client")
        return policy
