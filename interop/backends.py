"""Backends of other projects that learn from the gateway who their clients are."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path
from typing import Any

from interop.peers.base import output, package_version
from interop.programs import (
    PLAIN,
    PostgreSQL,
    Result,
    Server,
    as_user,
    free_port,
    run,
    wait_until_open,
)
from interop.stage import HOST, WAIT, Backend, Forwarder, Program, Stage
from mutauth_twisted.lab import Lab

#: A gateway without the directory.
UNPUBLISHED = ("--publish", "none", "--spn-check", "off")
#: The last part of the address that clients connect from.
_CLIENT_OCTET = 77

#: The last part of the address that a gateway dials its PostgreSQL from.
_IDENT_OCTET = 113


class Told(Server):
    """A server that learns from the gateway who its clients are.

    Its gateway is not in the directory: clients know its address.
    """

    #: Of the gateway in front of it.
    options: tuple[str, ...] = ()

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.port = free_port()
        self.program = self.start()
        wait_until_open(self.program, self.port)
        self.spn = stage.three_part.ours
        self.service_class = stage.service_class
        self.service = self.start_service()

    def start_service(self) -> Forwarder:
        """The gateway, with an audit trail."""
        self.audit = Path(self.stage.scratch_of("root")) / "audit"
        words = ("--audit", str(self.audit), *UNPUBLISHED, *self.options)
        return self.stage.service(self.service_class, self.port, *words)

    def address_of_clients(self, octet: int) -> str:
        """An address of this machine, in the lab's network."""
        return f"{self.stage.lab.nameserver.rpartition('.')[0]}.{octet}"

    def entrance_of(self, user: str, source: str | None = None, lab: Lab | None = None) -> int:
        """The port of a user's ``mutauth connect --listen``.

        :param source: the address that it connects from.
        :param lab: the user's realm, if it is another one.
        """
        spn = self.spn if lab is None else f"{self.service_class}/{self.stage.host}"
        address = self.stage.lab.address_of(self.stage.host)
        inner = f"tcp\\:{address}\\:{self.service.port}"
        if source is not None:
            inner += f"\\:bindAddress\\={source}"
        return self.stage.connector(f"mutauth:{inner}:spn={spn}", user, lab).port


class ToldByHeader(Told):
    """Such a server that is told by PROXY headers.

    :ivar client_address: where clients connect from.
    """

    options = ("--proxy-protocol",)

    @property
    def client_address(self) -> str:
        """An address of clients alone."""
        return self.address_of_clients(_CLIENT_OCTET)

    @property
    def known_entrance(self) -> int:
        """The port of ``mutauth connect --listen``, which connects from that address."""
        return self.entrance_of("alice", self.client_address)

    def opened(self) -> list[dict[str, Any]]:
        """The connections of clients, as the gateway's audit trail has them."""
        events = map(json.loads, self.audit.read_text("utf-8").splitlines())
        return [event for event in events if event["event"] == "opened"]


class HAProxy(ToldByHeader):
    """An HTTP server that answers with what it read in the header."""

    name = "haproxy"

    @staticmethod
    def version() -> str:
        """The version that is installed."""
        return package_version("haproxy")

    def start(self) -> Program:
        """Start it."""
        file = Path(self.stage.scratch_of("nobody")) / "haproxy.cfg"
        file.write_text(
            "defaults\n  mode http\n  timeout client 30s\n"
            f"frontend gateway\n  bind {HOST}:{self.port} accept-proxy\n"
            "  http-request return status 200 content-type text/plain"
            ' lf-string "%ci %cp %fi %fp %[fc_pp_unique_id]"\n'
        )
        return self.stage.start(
            (*as_user("nobody"), "/usr/sbin/haproxy", "-db", "-f", str(file)), PLAIN
        )


class MariaDB(ToldByHeader):
    """A server whose accounts are for hosts; alice may connect from the clients' address alone."""

    name = "mariadb"

    @staticmethod
    def version() -> str:
        """The version that is installed."""
        return package_version("mariadb-server-core")

    def start(self) -> Program:
        """Start it."""
        data = Path(self.stage.scratch_of("nobody"))
        new = ("--auth-root-authentication-method=normal", "--skip-test-db")
        where = ("--no-defaults", f"--datadir={data}")
        output(*as_user("nobody"), "mariadb-install-db", *where, *new)
        first = data / "first.sql"
        first.write_text(f"CREATE USER alice@'{self.client_address}';\n")
        words = (
            *where,
            f"--port={self.port}",
            f"--bind-address={HOST}",
            f"--socket={data}/socket",
            f"--proxy-protocol-networks={HOST}/32",
            f"--init-file={first}",
            "--skip-name-resolve",
            "--innodb-flush-method=nosync",
        )
        return self.stage.start((*as_user("nobody"), "/usr/sbin/mariadbd", *words), PLAIN)


class Listener(ToldByHeader):
    """A plain listener in the tests, which gets what every backend gets; with groups.

    :ivar socket: the UNIX socket at which its gateway listens as well.
    """

    name = "listener"

    def __init__(self, stage: Stage) -> None:
        self.socket = Path(stage.scratch_of("root")) / "gateway"
        groups, listen = "--proxy-protocol-groups", f"unix:{self.socket}"
        self.options = (*self.options, groups, "--listen", listen)
        super().__init__(stage)

    @property
    def unix_entrance(self) -> int:
        """The port of ``mutauth connect --listen``, which connects to that socket."""
        return self.stage.connector(f"mutauth:unix\\:{self.socket}:spn={self.spn}").port

    def start(self) -> Program:
        """Nothing of another project, and so nothing to start."""
        self.backend = Backend()
        self.port = self.backend.port
        return self.stage.start(("sleep", "infinity"), PLAIN)


class IdentPostgreSQL(Told, PostgreSQL):
    """A cluster that asks the gateway who its clients are (RFC 1413), and has no passwords.

    :ivar address: where the gateway dials from.
    """

    name = "ident"

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.address = self.address_of_clients(_IDENT_OCTET)
        super().__init__(stage)
        for role in ("alice", "carol"):
            self.as_owner(f"CREATE ROLE {role} LOGIN")

    def configure(self, data: Path) -> None:
        """See :class:`PostgreSQL`: the lines that docs/identity.md has."""
        (data / "pg_hba.conf").write_text(
            f"local all all trust\nhost all all {self.address}/32 ident map=ad\n"
        )
        (data / "pg_ident.conf").write_text("ad /^(.*)@LAB\\.EXAMPLE$ \\1\n")

    def start_service(self) -> Forwarder:
        """The gateway, for users of two realms."""
        keytab = Path(self.stage.scratch_of("root")) / "two-realms.keytab"
        own, other = (lab.keytab("svc-echo") for lab in (self.stage.lab, self.stage.other_lab))
        # Entries follow each other behind two bytes that tell the version.
        keytab.write_bytes(own.read_bytes() + other.read_bytes()[2:])
        keytab.chmod(0o600)
        words = ("--allow", self.stage.lab.principal("bob"))
        others = ("--allow", self.stage.other_lab.principal("alice"))
        account = ("--account", self.stage.lab.principal("svc-echo"))
        ident = ("--ident-address", self.address)
        options = (*words, *others, *account, *ident, *UNPUBLISHED)
        return self.stage.service(self.service_class, self.port, *options, keytab=keytab)

    def as_owner(self, sql: str) -> Result:
        """Run a statement as the cluster's owner."""
        words = ("-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self.data, "-p", str(self.port))
        return run("psql", *words, "-U", "postgres", "-c", sql, "postgres")

    def client_ports(self, role: str) -> list[int]:
        """The gateway's ports of the sessions under a role."""
        sql = f"SELECT client_port FROM pg_stat_activity WHERE usename = '{role}'"
        return [int(line) for line in self.as_owner(sql).output.split()]

    def ask(self, port: int, source: str) -> str:
        """The gateway's answer about one of its ports, to a question from an address."""
        with socket.create_connection((self.address, 113), WAIT, (source, 0)) as question:
            question.sendall(f"{port},{self.port}\r\n".encode())
            return b"".join(iter(lambda: question.recv(4096), b"")).decode()

    @staticmethod
    def log_in(port: int, role: str, source: str = HOST) -> socket.socket:
        """A connection that has asked for a role, and has an answer to come (PostgreSQL
        documentation, "Message Flow", start-up).
        """
        parameters = b"".join(
            word.encode() + b"\0" for word in ("user", role, "database", "postgres", "")
        )
        message = struct.pack("!II", 8 + len(parameters), 3 << 16) + parameters
        connection = socket.create_connection((HOST, port), WAIT, (source, 0))
        connection.sendall(message)
        return connection
