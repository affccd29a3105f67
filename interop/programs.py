"""Unmodified servers of other projects, and what every one of them and its client has to get right.

The servers are private ones on free ports of loopback, run by the users of their packages.
"""

from __future__ import annotations

import contextlib
import json
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from signal import SIGINT
from typing import ClassVar

from attrs import frozen

from interop.peers.base import output, package_version
from interop.relay import Relay
from interop.stage import HOST, WAIT, Forwarder, Program, Stage, StageTestCase, stage

#: The variables of a program that knows nothing of Kerberos.
PLAIN = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "KRB5CCNAME": "FILE:/nonexistent"}


@frozen
class Result:
    """End of a program, and what it wrote."""

    code: int
    output: bytes
    errors: str


def run(*command: str, given: bytes = b"", **variables: str) -> Result:
    """Run a program to its end."""
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        env={**PLAIN, **variables},
        timeout=WAIT,
        check=False,
        cwd="/",
    )
    return Result(done.returncode, done.stdout, done.stderr.decode("utf-8", "backslashreplace"))


def as_user(user: str) -> tuple[str, ...]:
    """Words that start a command as another user."""
    return ("setpriv", "--reuid", user, "--regid", str(pwd.getpwnam(user).pw_gid), "--clear-groups")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def wait_until_open(program: Program, port: int) -> None:
    """Wait until a server listens."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline and program.process.poll() is None:
        with contextlib.suppress(ConnectionError), socket.create_connection((HOST, port), WAIT):
            return
        time.sleep(0.02)
    raise RuntimeError(f"it does not listen: {program.lines}")


class Server:
    """A server behind ``twistd mutauth``, found through the directory by ``mutauth connect
    --listen``.

    :cvar name: its service class begins so.
    :ivar service: the ``twistd mutauth`` in front of it.
    :ivar entrance: the port of ``mutauth connect --listen``.
    """

    name: str

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.port = free_port()
        self.program = self.start()
        wait_until_open(self.program, self.port)
        self.service_class = f"{self.name}{self.port}{stage.service_class}"
        stage.install(self.service_class)
        self.service = self.start_service()
        self.entrance = self.entrance_of("alice")

    def start_service(self) -> Forwarder:
        """Start ``twistd mutauth`` in front of it."""
        return self.stage.service(self.service_class, self.port)

    def entrance_of(self, user: str) -> int:
        """The port of a user's ``mutauth connect --listen``."""
        endpoint = f"mutauth:scp={self.service_class}:nameserver={self.stage.lab.nameserver}"
        return self.stage.connector(endpoint, user).port

    def start(self) -> Program:
        """Start the server itself."""
        raise NotImplementedError

    @cached_property
    def pretender(self) -> Forwarder:
        """A service in front of it with the keys of another account."""
        options = ("--account", "svc-other", "--publish", "none", "--spn-check", "off")
        return self.stage.service(self.service_class, self.port, *options, keytab="svc-other")

    def guid(self) -> str:
        """The service name of the SPN that `mutauth install` registered."""
        listed = json.loads(
            self.stage.run(
                "spn", "list", "svc-echo", "--json", "--nameserver", self.stage.lab.nameserver
            )
        )
        mine = [
            spn
            for account in listed
            for spn in account["spns"]
            if spn.startswith(self.service_class + "/")
        ]
        return str(next(spn for spn in mine if "," not in spn).split("/")[2])

    def entrance_by(self, service: Forwarder, spn: str) -> Forwarder:
        """``mutauth connect --listen`` to a service's address, for an SPN."""
        address = self.stage.lab.address_of(self.stage.host)
        return self.stage.connector(f"mutauth:tcp\\:{address}\\:{service.port}:spn={spn}")


def postgresql_program(name: str) -> str:
    """A program of the newest PostgreSQL that is installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4])
    )
    if not found:
        raise RuntimeError("postgresql is not installed: run tools/bootstrap interop")
    return str(found[-1])


class PostgreSQL(Server):
    """A cluster of its own, in which everybody on loopback is believed."""

    name = "postgresql"
    #: Further variables of the server.
    variables: Mapping[str, str] = {}

    @staticmethod
    def version() -> str:
        """The version that is installed."""
        return output(postgresql_program("postgres"), "--version").split()[2]

    def configure(self, data: Path) -> None:
        """Change the files of a new cluster."""

    def start(self) -> Program:
        data = self.data = self.stage.scratch_of("postgres")
        output(
            *as_user("postgres"),
            postgresql_program("initdb"),
            "--no-sync",
            "-A",
            "trust",
            "-D",
            data,
        )
        self.configure(Path(data))
        words = (
            "-D",
            data,
            "-p",
            str(self.port),
            "-c",
            f"listen_addresses={HOST}",
            "-c",
            f"unix_socket_directories={data}",
        )
        quick = ("-c", "fsync=off", "-c", "shared_buffers=16MB")
        command = (*as_user("postgres"), postgresql_program("postgres"), *words, *quick)
        # SIGTERM would wait for its clients.
        return self.stage.start(command, {**PLAIN, **self.variables}, SIGINT)


class KerberosPostgreSQL(PostgreSQL):
    """One that has a key of its own, for connections that it encrypts itself."""

    name = "gsspostgresql"

    def configure(self, data: Path) -> None:
        keytab, settings = data / "krb5.keytab", data / "krb5.conf"
        for copy, original in (
            (keytab, self.stage.lab.keytab("svc-echo")),
            (settings, self.stage.lab.krb5_conf),
        ):
            copy.write_bytes(original.read_bytes())
            shutil.chown(copy, "postgres")
            copy.chmod(0o600)
        with (data / "postgresql.conf").open("a") as configuration:
            configuration.write(f"krb_server_keyfile = '{keytab}'\n")
        self.variables = {"KRB5_CONFIG": str(settings), "KRB5RCACHEDIR": str(data)}
        spn = ("svc-echo", self.spn, "--nameserver", self.stage.lab.nameserver)
        self.stage.run("spn", "add", *spn)
        self.stage.closing.callback(self.stage.run, "spn", "delete", *spn)

    @property
    def spn(self) -> str:
        """The one that psql asks for."""
        return f"postgres/{self.stage.host}"


class Redis(Server):
    """A server that keeps everything in memory."""

    name = "redis"

    @staticmethod
    def version() -> str:
        """The version that is installed."""
        return package_version("redis-server")

    def start(self) -> Program:
        directory = self.stage.scratch_of("redis")
        words = (
            "--port",
            str(self.port),
            "--bind",
            HOST,
            "--dir",
            directory,
            "--save",
            "",
            "--appendonly",
            "no",
        )
        return self.stage.start((*as_user("redis"), "redis-server", *words), PLAIN)


class ProgramScenarios(StageTestCase):
    """Duties of every server and its client."""

    server: Server
    #: What its client says of a connection that is closed or reset.
    closed: ClassVar[tuple[str, str]]

    def client(self, *words: str, port: int | None = None, given: bytes = b"") -> Result:
        """Run its client to the end."""
        raise NotImplementedError

    def check_works(self, port: int | None = None) -> None:
        """Ask something."""
        raise NotImplementedError

    def check_closed(self, port: int) -> None:
        """The client is told nothing but that the connection ends."""
        result = self.client(*self.question, port=port)
        self.assertNotEqual(result.code, 0)
        said = result.errors + result.output.decode()
        self.assertTrue(any(words in said for words in self.closed), said)

    question: ClassVar[tuple[str, ...]]

    def test_wrong_spn(self) -> None:
        """An SPN that nobody holds: the program is not connected, and the forwarder says why."""
        spn = stage().three_part.unknown
        connector = self.server.entrance_by(self.server.service, spn)
        start = connector.mark
        self.check_closed(connector.port)
        connector.program.wait_for(spn, start)

    def test_key_of_another_account(self) -> None:
        """A service with another account's keys: the program is not connected, and both sides say
        why.
        """
        pretender = self.server.pretender
        start = pretender.mark
        spn = f"{self.server.service_class}/{stage().host}/{self.server.guid()}"
        connector = self.server.entrance_by(pretender, spn)
        self.check_closed(connector.port)
        connector.program.wait_for("mutauth: ", 1)
        pretender.program.wait_for("127.0.0.1:", start)

    def test_byte_by_byte(self) -> None:
        """The program's words come to the forwarder in segments of one byte, and so do the
        answers.
        """
        relay = Relay((HOST, self.server.entrance))
        self.addCleanup(relay.close)
        relay.pieces = 1
        self.check_works(relay.port)
