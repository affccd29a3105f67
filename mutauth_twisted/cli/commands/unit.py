"""Units of systemd for a service: readiness, watchdog, sockets, keytab, sandbox."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Final

import click

from mutauth_twisted.cli.output import line
from mutauth_twisted.errors import UsageError
from mutauth_twisted.files import make_directory
from mutauth_twisted.gateway.ident import PORT

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
#: As ListenStream= takes it (systemd.socket(5)).
_ADDRESS: Final = re.compile(r"[0-9]{1,5}|[0-9A-Za-z.:\[\]]+:[0-9]{1,5}|/[A-Za-z0-9_./-]+")
_SERVICE: Final = Template("""\
[Unit]
Description=$name, for clients that Kerberos has authenticated
After=network-online.target nss-lookup.target time-sync.target$sockets
Wants=network-online.target
$requires
[Service]
Type=notify
ExecStart=$program -n --pidfile= mutauth --config $config
ExecReload=/bin/kill -HUP $$MAINPID
# The service checks that its reactor turns, and is restarted when it does not.
WatchdogSec=30
TimeoutStartSec=60
KillMode=mixed
Restart=on-failure
RestartSec=15
# 2: wrong options, which a restart does not put right. 5: stopped, and sessions were cut.
RestartPreventExitStatus=2
SuccessExitStatus=5
LimitNOFILE=65536

# A user of its own, who has nothing but this service.
DynamicUser=yes
StateDirectory=mutauth-$name
LogsDirectory=mutauth-$name
RuntimeDirectory=mutauth-$name
UMask=0077
# Root's keytab, of which systemd gives the service a copy at its start.
LoadCredential=keytab:$keytab
Environment=KRB5_KTNAME=FILE:%d/keytab

AmbientCapabilities=
CapabilityBoundingSet=
DevicePolicy=closed
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
PrivateUsers=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources

[Install]
WantedBy=multi-user.target
""")
_SOCKET: Final = Template("""\
[Unit]
Description=$description

[Socket]
ListenStream=$address
FileDescriptorName=$passed
Service=mutauth-$name.service
Backlog=1024
NoDelay=yes
SocketMode=0600

[Install]
WantedBy=sockets.target
""")

#: Names of the sockets that systemd passes, and for whom they are.
_SOCKETS: Final = {
    "listen": "clients",
    "status": "the status page",
    "ident": "ident queries of its backend",
}


def _units(
    name: str, config: str, keytab: str, addresses: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Each unit by its file's name.

    :param addresses: where systemd listens, by the names of :data:`_SOCKETS`.
    """
    sockets = []
    for passed, what in _SOCKETS.items():
        if (address := addresses.get(passed)) is not None:
            unit = f"mutauth-{name}{'' if passed == 'listen' else f'-{passed}'}.socket"
            sockets.append(unit)
            description = f"Socket of {name} for {what}"
            yield (
                unit,
                _SOCKET.substitute(
                    name=name, address=address, passed=passed, description=description
                ),
            )
    yield (
        f"mutauth-{name}.service",
        _SERVICE.substitute(
            name=name,
            config=config,
            keytab=keytab,
            program=Path(sys.executable).with_name("twistd"),
            sockets="".join(f" {unit}" for unit in sockets),
            requires="".join(f"Requires={unit}\n" for unit in sockets),
        ),
    )


def _check(name: str, addresses: Iterable[str], paths: Iterable[str]) -> None:
    """See that a unit can have these names in it.

    :raises UsageError: when it cannot.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"NAME {name}", "it is not a valid name of a unit", "use letters, digits, - and _"
        )
    for address in addresses:
        if not _ADDRESS.fullmatch(address):
            cause = "it is not an address that systemd listens at"
            raise UsageError(address, cause, "write PORT, ADDRESS:PORT or a path")
    for path in paths:
        if not os.path.isabs(path) or re.search(r"[\s%\"'\\$:]", path):
            cause = "it is not an absolute path of plain characters"
            raise UsageError(path, cause, "name a file in /etc/mutauth, for example")


@click.command()
@click.argument("name")
@click.option("--config", metavar="FILE", help="Its settings (/etc/mutauth/NAME.toml).")
@click.option("--keytab", metavar="FILE", help="Its keys (/etc/mutauth/NAME.keytab).")
@click.option("--listen", metavar="ADDRESS", help="Have systemd listen: 9000, 10.0.0.1:9000.")
@click.option("--status", metavar="ADDRESS", help="Likewise for the status page.")
@click.option("--ident", metavar="ADDRESS", help="Likewise for ident queries, at port 113.")
@click.option("--output", metavar="DIR", help="Write the files there (print them).")
def unit(
    name: str,
    config: str | None,
    keytab: str | None,
    listen: str | None,
    status: str | None,
    ident: str | None,
    output: str | None,
) -> None:
    """Print or write systemd units for the service NAME.

    With --listen, --status and --ident there are socket units, and the settings have listen =
    ["systemd:name=listen"], status = "systemd:name=status" and ident-address = "ADDRESS:ident".
    """
    config = config or f"/etc/mutauth/{name}.toml"
    keytab = keytab or f"/etc/mutauth/{name}.keytab"
    given = {"listen": listen, "status": status, "ident": ident and f"{ident}:{PORT}"}
    addresses = {passed: address for passed, address in given.items() if address is not None}
    _check(name, addresses.values(), (config, keytab))
    for file, text in _units(name, config, keytab, addresses):
        if output is None:
            line(f"# {file}")
            click.echo(text)
            continue
        directory = Path(output)
        try:
            make_directory(directory, 0o755)
            (directory / file).write_text(text, "utf-8")
        except OSError as error:
            cause = f"it cannot be written: {error.strerror}"
            raise UsageError(str(directory / file), cause, "name another directory") from error
        line(f"wrote {directory / file}")
