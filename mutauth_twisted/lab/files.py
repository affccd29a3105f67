"""Files that the lab's programs read: their configuration, secrets and certificates."""

from __future__ import annotations

import os
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mutauth_twisted.lab import state
from mutauth_twisted.lab.state import Lab, LabError

_CERTIFICATE_DAYS = "30"


@dataclass(frozen=True)
class Controller:
    """One domain controller of a lab, and where everything of it is.

    :ivar name: its host name, without the domain.
    :ivar address: its loopback address.
    :ivar base: the directory of its files.
    :ivar record: the file that gets its process's identity.
    :ivar log: what it prints.
    :ivar services: what Samba is to run.
    :ivar options: further lines of its smb.conf.
    """

    name: str
    address: str
    base: Path
    record: Path
    log: Path
    services: str = "ldap, kdc, dns, cldap, rpc"
    options: tuple[str, ...] = ()

    @property
    def smb_conf(self) -> Path:
        """Its configuration."""
        return self.base / "etc" / "smb.conf"


def first_controller(lab: Lab) -> Controller:
    """The one that every lab has."""
    record = state.identity_file(lab.directory)
    return Controller(state.DC_NAME, lab.nameserver, lab.directory / "samba", record, lab.log)


def second_controller(lab: Lab) -> Controller:
    """The one that fetches what is new on the first every second."""
    return Controller(
        state.SECOND_DC_NAME,
        lab.second_address,
        lab.directory / "samba2",
        state.second_identity_file(lab.directory),
        lab.directory / "log" / "samba2.log",
        "ldap, kdc, dns, cldap, rpc, drepl",
        ("dreplsrv:periodic_startup_interval = 1", "dreplsrv:periodic_interval = 1"),
    )


def controllers(lab: Lab) -> list[Controller]:
    """All of a lab's."""
    return [first_controller(lab), *([second_controller(lab)] if lab.second_dc else [])]


def environment(lab: Lab, controller: Controller) -> dict[str, str]:
    """All the lab's own programs get to see: nothing of the machine's configuration."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C",
        "TMPDIR": str(controller.base / "run"),
        "SMB_CONF_PATH": str(controller.smb_conf),
        "KRB5_CONFIG": str(lab.krb5_conf),
    }


def lay_out(lab: Lab) -> None:
    """Write everything that the provisioning and the domain controllers read."""
    for name in ("keytabs", "ccaches", "passwords", "rcache", "log", "tls"):
        (lab.directory / name).mkdir(mode=0o700)
    for name in state.ACCOUNTS:
        # The prefix satisfies the domain's complexity rule whatever the rest is.
        _write_secret(lab.directory / "passwords" / name, "Aa1-" + secrets.token_urlsafe(24))
    lab.krb5_conf.write_text(_krb5_conf(lab), "utf-8")
    _certify(lab)
    for controller in controllers(lab):
        for directory in (
            "etc",
            "private",
            "state",
            "cache",
            "lock",
            "run",
            "rpc",
            "sysvol/scripts",
        ):
            (controller.base / directory).mkdir(mode=0o700, parents=True)
        controller.smb_conf.write_text(_smb_conf(lab, controller), "utf-8")


def _write_secret(path: Path, text: str) -> None:
    with open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)


def _krb5_conf(lab: Lab) -> str:
    # TCP first: a dead KDC's refused connection is known at once, a lost datagram after seconds.
    addresses = [controller.address for controller in controllers(lab)]
    lines = [
        f"        {key} = {address}" for key in ("kdc", "kpasswd_server") for address in addresses
    ]
    servers = "\n".join(lines)
    return f"""[libdefaults]
    default_realm = {lab.realm}
    dns_lookup_realm = false
    dns_lookup_kdc = false
    dns_canonicalize_hostname = false
    rdns = false
    udp_preference_limit = 1
    forwardable = true

[realms]
    {lab.realm} = {{
{servers}
    }}

[domain_realm]
    .{lab.realm.lower()} = {lab.realm}
    {lab.realm.lower()} = {lab.realm}
"""


def _smb_conf(lab: Lab, controller: Controller) -> str:
    base = controller.base
    options = "".join(f"\n    {line}" for line in controller.options)
    return f"""[global]
    netbios name = {controller.name.upper()}
    realm = {lab.realm}
    workgroup = {lab.domain}
    server role = active directory domain controller
    server services = {controller.services}
    interfaces = {controller.address}/8
    bind interfaces only = yes
    # Windows' rule: a login with Kerberos inside TLS needs no second sealing.
    ldap server require strong auth = allow_sasl_over_tls
    tls cafile = {lab.ca_file}
    tls certfile = {lab.directory}/tls/{controller.name}.pem
    tls keyfile = {lab.directory}/tls/{controller.name}.key
    private dir = {base}/private
    state directory = {base}/state
    cache directory = {base}/cache
    lock directory = {base}/lock
    pid directory = {base}/run
    ncalrpc dir = {base}/rpc
    binddns dir = {base}/state/bind-dns
    winbindd socket directory = {base}/run/winbindd
    ntp signd socket directory = {base}/run/ntp_signd
    usershare path = {base}/state/usershares
    log file = {base}/run/samba.log
    logging = stdout{options}

[sysvol]
    path = {base}/sysvol
    read only = no

[netlogon]
    path = {base}/sysvol/scripts
    read only = no
"""


def _certify(lab: Lab) -> None:
    """Make a certificate authority, and a certificate for each controller's LDAPS.

    Samba's own have no subject alternative name, and nothing else is a name
    that may be verified (RFC 9525).
    """
    tls = lab.directory / "tls"
    authority = (
        "-subj",
        f"/O=mutauth lab {secrets.token_hex(4)}",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
    )
    _openssl(tls, "ca", *authority)
    for controller in controllers(lab):
        host = lab.host(controller.name)
        signed = ("-CA", str(tls / "ca.pem"), "-CAkey", str(tls / "ca.key"))
        _openssl(
            tls,
            controller.name,
            "-subj",
            f"/CN={host}",
            "-addext",
            f"subjectAltName=DNS:{host}",
            *signed,
        )


def _openssl(directory: Path, name: str, *options: str) -> None:
    key, certificate = directory / f"{name}.key", directory / f"{name}.pem"
    kind = (
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-noenc",
        "-days",
        _CERTIFICATE_DAYS,
    )
    result = subprocess.run(
        ["/usr/bin/openssl", "req", *kind, "-keyout", str(key), "-out", str(certificate), *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        cause = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise LabError(
            f"certificate {certificate}",
            f"openssl failed: {cause}",
            "see `openssl version`; 3.0 is needed",
        )
    key.chmod(0o600)
