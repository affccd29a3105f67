"""The stage of a run: an installed service behind ``twistd mutauth``, ``mutauth connect`` in front
of peers' servers.

All of it is made when it is first asked for and shared by the tests of one process; it ends with
that process.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.python.components import proxyForInterface
from twisted.trial.itrial import IReporter
from twisted.trial.unittest import SynchronousTestCase

from interop.peers import PEERS, Peer, Variant
from interop.relay import Relay
from mutauth_twisted.lab import Lab, down, up

CHECKOUT = Path(__file__).parents[1]
BUILD = CHECKOUT / "build" / "interop"
#: Only what is broken takes so long.
WAIT = 30.0
HOST = "127.0.0.1"


@frozen
class Names:
    """The SPNs of a run.

    :ivar ours: the service's, on svc-echo.
    :ivar foreign: one of the service's class on svc-other.
    :ivar other_class: one of another class on svc-echo.
    :ivar unknown: one that nobody holds.
    """

    ours: str
    foreign: str
    other_class: str
    unknown: str


class Ended(Exception):
    """A program ended before it said what was waited for."""


#: What all programs have said, in the order in which it was read.
SAID: list[str] = []


class _Watched(proxyForInterface(IReporter)):  # type: ignore[misc]
    """A result that knows whether its test has failed."""

    failed = False

    def addError(self, test: object, error: object) -> None:
        self.failed = True
        super().addError(test, error)

    def addFailure(self, test: object, failure: object) -> None:
        self.failed = True
        super().addFailure(test, failure)


class StageTestCase(SynchronousTestCase):
    """Tests whose failures are followed by what the programs on the stage said meanwhile."""

    def run(self, result: Any) -> None:
        start, watched = len(SAID), _Watched(result)
        super().run(watched)
        if watched.failed:
            time.sleep(1)  # a program may find out after the test that its connection is lost
            print(f"\n{self.id()} failed; meanwhile the programs said:")
            print(*SAID[start:], sep="\n", flush=True)


class Program:
    """A program in the background; its lines are kept.

    :ivar lines: what it wrote on standard output and standard error so far.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], directory: str
    ) -> None:
        self.lines: list[str] = []
        self._name = Path(command[0]).name
        self._more = threading.Condition()
        self._over = False
        # Nothing outlives a test run that is killed.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            env=dict(environment),
            cwd=directory,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            SAID.append(f"{self._name}[{self.process.pid}]: {line.rstrip()}")
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self._over = True
            self._more.notify_all()

    def wait_for(self, words: str, start: int = 0) -> str:
        """The first line, from number *start* on, with these words in it.

        :raises Ended: it ended, or was silent for too long.
        """
        with self._more:
            while True:
                for line in self.lines[start:]:
                    if words in line:
                        return line
                start = len(self.lines)
                if self._over:
                    raise Ended(f"it ended without {words!r}: {self.lines}")
                if not self._more.wait(WAIT):
                    raise Ended(f"{words!r} was not said: {self.lines}")

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(WAIT)
        self._thread.join(WAIT)
        return code

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """End it, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.wait()
            raise
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


class Forwarder:
    """A program that forwards connections, ours or a peer's, and where it listens."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self.port = port

    @property
    def mark(self) -> int:
        """The number of the next line."""
        return len(self.program.lines)


class Backend:
    """A plain listener: where a forwarder's connections come out, for the test to use them."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]

    def accept(self, near: socket.socket) -> socket.socket:
        """The next connection, which the one at *near* has to lead to.

        :raises Ended: it leads nowhere.
        """
        ready, _, _ = select.select([self._listener, near], [], [], WAIT)
        if self._listener not in ready:
            raise Ended(
                f"the connection {'was closed' if ready else 'hangs'} before the handshake was over"
            )
        connection, _ = self._listener.accept()
        connection.settimeout(WAIT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def drain(self) -> int:
        """Close the connections that nobody took; their number."""
        number = 0
        self._listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._listener.accept()[0].close()
                number += 1
        return number


class Stage:
    """Programs that the tests of one process share."""

    def __init__(self) -> None:
        self.lab = Lab.current()
        self.closing = contextlib.ExitStack()
        self.state = tempfile.mkdtemp(prefix="mutauth-interop-")
        self.closing.callback(shutil.rmtree, self.state)
        # Programs that refuse to run as root have their files below.
        Path(self.state).chmod(0o711)
        self.host = self.lab.host("srv1")
        self.service_class = "iop" + os.urandom(4).hex()
        self._peers: dict[tuple[object, ...], Forwarder] = {}
        self._connectors: dict[tuple[str, str], Forwarder] = {}
        for peer in PEERS:
            peer.build(BUILD)

    # --- programs -----------------------------------------------------------------------------

    @cached_property
    def other_lab(self) -> Lab:
        """A domain of another realm, which knows nothing of the first one and has users of the same
        names.
        """
        network = self.lab.nameserver.rpartition(".")[0]
        other = up(Path(self.state) / "other", f"{network}.12", realm="OTHER.EXAMPLE", owned=True)
        self.closing.callback(down, other.directory)
        return other

    def environment(
        self, user: str = "alice", keytab: str = "svc-echo", lab: Lab | None = None
    ) -> dict[str, str]:
        """The variables of a program: a user's tickets and a service's keys, and a scratch
        directory of its own.
        """
        scratch = tempfile.mkdtemp(dir=self.state)
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("KRB5")
        }
        return {
            **inherited,
            **(lab or self.lab).environment(user),
            "KRB5_KTNAME": str(self.lab.keytab(keytab)),
            "PEER_PRINCIPAL": self.lab.principal(keytab),
            "TMPDIR": scratch,
            "PYTHONPATH": str(CHECKOUT),
            "PYTHONUNBUFFERED": "1",
        }

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        signum: signal.Signals = signal.SIGTERM,
    ) -> Program:
        """Start a program that ends with the stage at the latest, by this signal."""
        program = Program(command, environment, self.state)
        self.closing.callback(program.stop, signum)
        return program

    def scratch_of(self, user: str) -> str:
        """A new directory that belongs to a user of this machine."""
        directory = tempfile.mkdtemp(dir=self.state)
        shutil.chown(directory, user)
        return directory

    def run(self, *words: str, user: str = "administrator", lab: Lab | None = None) -> str:
        """Run ``mutauth`` to its end; it has to succeed.

        :param lab: the user's realm, if it is another one.
        """
        done = subprocess.run(
            [sys.executable, "-m", "mutauth_twisted.cli", *words],
            capture_output=True,
            text=True,
            env=self.environment(user, lab=lab),
            cwd=self.state,
            timeout=WAIT,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(
                f"mutauth {' '.join(words)}: exit code {done.returncode}: {done.stderr}"
            )
        return done.stdout

    # --- the mutauth service ------------------------------------------------------------------

    def install(self, service_class: str) -> None:
        """`mutauth install` for a service of svc-echo, taken back at the end."""
        common = ("--service-class", service_class, "--host", self.host)
        directory = ("--nameserver", self.lab.nameserver, "--state-dir", self.state)
        self.run("install", *common, "--account", "svc-echo", *directory)
        self.closing.callback(self.run, "uninstall", *common, *directory)

    @cached_property
    def three_part(self) -> Names:
        """SPNs with a service name."""
        return self._register("/interop", "/another-account")

    @cached_property
    def two_part(self) -> Names:
        """SPNs for those who cannot ask for others; the other account's is of another host."""
        return self._register("", "", self.lab.host("srv2"))

    def _register(self, name: str, foreign: str, foreign_host: str | None = None) -> Names:
        names = Names(
            f"{self.service_class}/{self.host}{name}",
            f"{self.service_class}/{foreign_host or self.host}{foreign}",
            f"{self.service_class}x/{self.host}{name}",
            f"{self.service_class}y/{self.host}{name}",
        )
        for account, spns in (
            ("svc-echo", (names.ours, names.other_class)),
            ("svc-other", (names.foreign,)),
        ):
            self.run("spn", "add", account, *spns, "--nameserver", self.lab.nameserver)
            self.closing.callback(
                self.run, "spn", "delete", account, *spns, "--nameserver", self.lab.nameserver
            )
        return names

    def names(self, peer: Peer) -> Names:
        """The SPNs that a peer's client asks for."""
        return self.three_part if peer.three_part else self.two_part

    def service(
        self, service_class: str, forward: int, *options: str, keytab: str | Path = "svc-echo"
    ) -> Forwarder:
        """``twistd mutauth --forward`` to a port on loopback, for alice.

        :param keytab: the account whose keys it has, or the file.
        """
        twistd = (
            sys.executable,
            "-c",
            "from twisted.scripts.twistd import run; run()",
            "-n",
            "--pidfile=",
        )
        words = (
            *(
                "--service-class",
                service_class,
                "--host",
                self.host,
                "--keytab",
                str(self.lab.keytab(keytab) if isinstance(keytab, str) else keytab),
            ),
            *("--nameserver", self.lab.nameserver, "--state-dir", self.state),
            *("--listen", f"tcp:0:interface={self.lab.address_of(self.host)}"),
            *("--allow", self.lab.principal("alice"), "--forward", f"tcp:{HOST}:{forward}"),
        )
        program = self.start((*twistd, "mutauth", *words, *options), self.environment())
        return Forwarder(program, int(program.wait_for("serving").rpartition(":")[2]))

    @cached_property
    def backend(self) -> Backend:
        """Server that the service forwards to."""
        return Backend()

    @cached_property
    def main_service(self) -> Forwarder:
        """The service that peers' clients talk to, with default options."""
        self.install(self.service_class)
        return self.service(self.service_class, self.backend.port)

    @cached_property
    def service_relay(self) -> Relay:
        """The relay in front of it."""
        relay = Relay((self.lab.address_of(self.host), self.main_service.port))
        self.closing.callback(relay.close)
        return relay

    # --- peers --------------------------------------------------------------------------------

    def start_peer(
        self,
        peer: Peer,
        role: str,
        port: int,
        spn: str,
        variant: Variant,
        *,
        keytab: str = "svc-echo",
    ) -> Forwarder:
        """A peer's process, ended with the stage unless it is stopped before."""
        environment = self.environment(keytab=keytab)
        command = peer.command(BUILD, environment)
        program = self.start((*command, role, HOST, str(port), spn, *variant.words), environment)
        return Forwarder(program, int(program.wait_for("listening ").split()[1]))

    def client(self, peer: Peer, variant: Variant) -> Forwarder:
        """The peer's client in front of the service."""
        key = (peer, "client", variant)
        if key not in self._peers:
            self._peers[key] = self.start_peer(
                peer, "client", self.service_relay.port, self.names(peer).ours, variant
            )
        return self._peers[key]

    @cached_property
    def server_backend(self) -> Backend:
        """Server that peers' servers forward to."""
        return Backend()

    @cached_property
    def peer_relay(self) -> Relay:
        """The relay in front of peers' servers: the one address that mutauth clients know."""
        relay = Relay()
        self.closing.callback(relay.close)
        return relay

    def server(self, peer: Peer, variant: Variant) -> Forwarder:
        """The peer's server."""
        key = (peer, "server", variant)
        if key not in self._peers:
            self._peers[key] = self.start_peer(
                peer, "server", self.server_backend.port, "-", variant
            )
        return self._peers[key]

    def endpoint(self, spn: str, *keywords: str) -> str:
        """An endpoint string that leads to peers' servers."""
        return ":".join((f"mutauth:tcp\\:{HOST}\\:{self.peer_relay.port}", f"spn={spn}", *keywords))

    def connector(self, endpoint: str, user: str = "alice", lab: Lab | None = None) -> Forwarder:
        """``mutauth connect --listen`` to an endpoint.

        :param user: who connects.
        :param lab: the user's realm, if it is another one.
        """
        key = (endpoint, str((lab or self.lab).principal(user)))
        if key not in self._connectors:
            words = (
                "-m",
                "mutauth_twisted.cli",
                "connect",
                endpoint,
                "--listen",
                f"tcp:0:interface={HOST}",
            )
            program = self.start((sys.executable, *words), self.environment(user, lab=lab))
            port = int(program.wait_for("listening on").rpartition(":")[2])
            self._connectors[key] = Forwarder(program, port)
        return self._connectors[key]


_stage: Stage | None = None


def stage() -> Stage:
    """The stage of this process."""
    global _stage
    if _stage is None:
        _stage = Stage()
        atexit.register(_stage.closing.close)
    return _stage
