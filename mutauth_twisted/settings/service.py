"""One service as its options describe it, whichever front-end they come from."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from attrs import field, frozen

from mutauth_twisted.access import AccessPolicy, AccessRules
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.directory.published.base import SpnCheck
from mutauth_twisted.directory.servicename import DEFAULT_SPN_FORMS, RNR_FORMS, ServiceName
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.settings.access import access_rules
from mutauth_twisted.settings.read import Front, Values
from mutauth_twisted.settings.schema import LIMITS
from mutauth_twisted.settings.toml import TOML


@frozen
class Settings:
    """One service, as its options describe it.

    :param front: the front-end that it comes from, which knows where an option stands.
    :param name: how the log, the status and the audit call it: that of its table, or its class.
    :param service: what it is called; the SPNs of its forms have to be registered.
    :param account: who runs the service; None: the one entry of the keytab that is not an SPN.
    :param keytab: its keys; None: KRB5_KTNAME, then the system's.
    :param package_options: values of those options that make the credentials of its mechanism.
    :param listen: server endpoint strings; the first one's port is published.
    :param proxy_from: balancers whose connections begin with a PROXY header.
    :param publish: whether to keep the entry in the directory up to date.
    :param entry: what it is: a service connection point (``scp``) or an RnR service (``rnr``).
    :param check_interval: seconds between checks of the directory; 0: none but at the start.
    :param directory: how the directory is reached.
    :param serve: what to serve, as a kind (``echo``, ``forward``, ``factory``) and its argument.
    :param backend_timeout: seconds that a connection to a backend may take.
    :param backend_check: seconds between probes of a backend; 0: none.
    :param unsafe_backend: whether a plain backend may be on another machine.
    :param half_closed_timeout: seconds without a byte after which a half-closed connection is cut;
        0: never.
    :param proxy_protocol: whether a backend is told by a PROXY header who a client is.
    :param proxy_groups: whether that tells the client's groups.
    :param ident_address: where the backend is dialled from and its ident queries are answered: the
        address, and the port or the name of the socket that systemd passes.
    :param tls_files: the files of a TLS certificate and, where it is another one, of its key.
    :param spn_check: what to do about a missing SPN: ``refuse``, ``warn`` or ``off``.
    :param drain_timeout: how many seconds its connections may take to end when it stops.
    :param rules: who is allowed and who is denied.
    :param policy_file: the file that some of the rules stand in.
    :param audit: where the audit trail goes: ``stdout``, ``journald``, or a file.
    :param audit_required: whether clients are refused while it cannot be written.
    :param explicit_limits: the names of those limits that are no defaults.
    """

    front: Front = field(eq=False, repr=False)
    name: str
    service: ServiceName
    account: str | None
    keytab: str | None
    package_options: Mapping[str, Any]
    listen: tuple[str, ...]
    proxy_from: tuple[str, ...]
    publish: bool
    entry: Literal["scp", "rnr"]
    check_interval: float
    priority: int
    weight: int
    spn_check: SpnCheck
    directory: DirectoryOptions
    state_dir: Path
    serve: tuple[str, str]
    backend_timeout: float
    backend_check: float
    unsafe_backend: bool
    half_closed_timeout: float
    proxy_protocol: bool
    proxy_groups: bool
    ident_address: tuple[str, int | str] | None
    rules: AccessRules
    policy_file: str | None
    security: SecurityOptions
    tls_files: tuple[str, str | None] | None
    limits: Limits
    drain_timeout: float
    explicit_limits: frozenset[str]
    audit: str | None
    audit_required: bool

    @property
    def policy(self) -> AccessPolicy:
        """The access policy; as long as the directory has not told the groups that the rules name,
        no client is allowed.
        """
        return AccessPolicy() if self.rules.names() else AccessPolicy.of(self.rules)


def service_settings(values: Values, name: str | None = None) -> Settings:
    """The service that values of :data:`~mutauth_twisted.settings.schema.Where.SERVICE` describe.

    :param name: how it is called; None: by its class.
    :raises UsageError: for what does not go together.
    """
    host, forms, serve, rules, ident_address = values.gather(
        itemgetter("host"), _forms, _serve, access_rules, _ident_address
    )
    tls_cert = values["tls-cert"]
    return Settings(
        front=values.front,
        name=name or values["service-class"],
        service=ServiceName(
            values["service-class"],
            host,
            forms,
            values["scp-name"],
            values["scp-parent"],
            rnr_name=values["rnr-name"],
        ),
        account=values["account"],
        keytab=values["keytab"],
        package_options=values.package_options,
        listen=values["listen"],
        proxy_from=values["proxy-from"],
        publish=values["publish"] != "none",
        entry=_entry(values),
        check_interval=values["check-interval"],
        priority=values["priority"],
        weight=values["weight"],
        spn_check=values["spn-check"],
        directory=values.directory,
        state_dir=Path(values["state-dir"]),
        serve=serve,
        backend_timeout=values["backend-timeout"],
        backend_check=values["backend-check"],
        unsafe_backend=values["unsafe-backend"],
        half_closed_timeout=values["half-closed-timeout"],
        proxy_protocol=values["proxy-protocol"],
        proxy_groups=values["proxy-protocol-groups"],
        ident_address=ident_address,
        rules=rules,
        policy_file=values["policy"],
        security=values.security,
        tls_files=(tls_cert, values["tls-key"]) if tls_cert is not None else None,
        limits=values.limits,
        drain_timeout=values["drain-timeout"],
        explicit_limits=frozenset(LIMITS.keys() & values.given),
        audit=values["audit"],
        audit_required=values["audit-required"],
    )


def settings_of(table: Mapping[str, Any]) -> Settings:
    """The service that a table describes.

    :param table: as :mod:`tomllib` reads it.
    :raises UsageError: for a key that is unknown, a value that it cannot have, or of another type,
        and for what does not go together.
    """
    return service_settings(Values(TOML, TOML.where, table))


def _entry(values: Values) -> Literal["scp", "rnr"]:
    """Kind of object for the service in the directory: the published one, or else the one that the
    SPN names.
    """
    return "rnr" if "rnr" in (values["publish"], *(values["spn-form"] or ())) else "scp"


def _forms(values: Values) -> tuple[str, ...]:
    forms: tuple[str, ...] | None = values["spn-form"]
    if _entry(values) == "scp":
        return forms or DEFAULT_SPN_FORMS
    if forms not in (None, RNR_FORMS) or values["publish"] == "scp":
        spell = values.front.spell
        remedy = f"an RnR service takes {spell('publish', 'rnr')}, and {spell('spn-form', 'rnr')}"
        raise values.error("spn-form", "it names an RnR service and an SCP", remedy)
    return RNR_FORMS


def _ident_address(values: Values) -> tuple[str, int | str] | None:
    address: tuple[str, int | str] | None = values["ident-address"]
    backend = values["forward"]  # without one it means nothing, which is told already
    if address is not None and backend and not backend.startswith("tcp:"):
        remedy = f"use {values.front.spell('forward', 'tcp:127.0.0.1:5432')}"
        raise values.error("ident-address", "only a tcp: backend can ask who is there", remedy)
    return address


def _serve(values: Values) -> tuple[str, str]:
    kinds = ("echo", "forward", "factory")
    chosen = [kind for kind in kinds if values[kind]]
    if len(chosen) != 1:
        cause = f"it cannot be had with {chosen[0]} too" if chosen else "nothing is there to serve"
        remedy = f"give exactly one of {', '.join(map(values.front.spell, kinds))}"
        raise values.error(chosen[-1] if chosen else "echo", cause, remedy)
    return chosen[0], str(values[chosen[0]])
