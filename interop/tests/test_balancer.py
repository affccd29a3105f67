"""HAProxy in TCP mode in front of two replicas that share one SPN and one key."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
from collections import Counter
from functools import cache
from pathlib import Path

from interop.programs import PLAIN, as_user, free_port, wait_until_open
from interop.stage import HOST, WAIT, Forwarder, Program, Stage, StageTestCase, stage

#: Where HAProxy connects from: for its servers an address as good as any other machine's.
BALANCER = "127.0.0.55"
REPLICAS = ("srv1", "srv2")

CONFIGURATION = """
global
    stats socket {state}/haproxy.sock mode 600
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    retries 3
    option redispatch 1
listen gateway
    bind {host}:{port}
    balance roundrobin
    source {balancer}
    default-server check inter 200 fall 2 rise 1 send-proxy-v2 proxy-v2-options crc32c
{servers}
"""


class Named:
    """A plain service that says its name first, and then echoes."""

    def __init__(self, name: str) -> None:
        self._name = f"{name:8}".encode()
        self._listener = socket.create_server((HOST, 0), backlog=200)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):
            connection.sendall(self._name)
            while data := connection.recv(65_536):
                connection.sendall(data)


class Balanced:
    """Two replicas of a service with a virtual name, HAProxy before them, and a forwarder that
    knows the virtual name alone.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.service_class = f"vip{stage.service_class}"
        virtual = self.stage.lab.host("vip")
        self.spn = f"{self.service_class}/{virtual}"
        for verb in ("add", "delete"):
            words = ("spn", verb, "svc-echo", self.spn, "--nameserver", stage.lab.nameserver)
            stage.run(*words) if verb == "add" else stage.closing.callback(stage.run, *words)
        self.backends = {name: Named(name) for name in REPLICAS}
        self.ports = {name: free_port() for name in REPLICAS}
        self.replicas = {name: self.replica(name, virtual) for name in REPLICAS}
        self.port = free_port()
        state = stage.scratch_of("haproxy")
        servers = "\n".join(
            f"    server {name} {stage.lab.address_of(stage.lab.host(name))}:{port}"
            for name, port in self.ports.items()
        )
        path = Path(state, "haproxy.cfg")
        text = CONFIGURATION.format(
            state=state, host=HOST, port=self.port, balancer=BALANCER, servers=servers
        )
        path.write_text(text, "utf-8")
        path.chmod(0o644)
        command = (*as_user("haproxy"), "/usr/sbin/haproxy", "-db", "-f", str(path))
        self.haproxy = stage.start(command, PLAIN, signal.SIGINT)
        wait_until_open(self.haproxy, self.port)
        self.entrance = stage.connector(f"mutauth:tcp\\:{HOST}\\:{self.port}:spn={self.spn}")

    def replica(self, name: str, virtual: str) -> Program:
        """``twistd mutauth`` on one host, under the virtual name and with its key."""
        address = self.stage.lab.address_of(self.stage.lab.host(name))
        words = (
            *("--service-class", self.service_class, "--host", virtual, "--publish", "none"),
            *("--spn-check", "off", "--keytab", str(self.stage.lab.keytab("svc-echo"))),
            *("--nameserver", self.stage.lab.nameserver),
            *("--state-dir", self.stage.scratch_of("root")),
            *("--listen", f"tcp:{self.ports[name]}:interface={address}"),
            *("--proxy-from", BALANCER, "--handshake-timeout", "120"),
            *("--allow", self.stage.lab.principal("alice")),
            *("--forward", f"tcp:{HOST}:{self.backends[name].port}"),
        )
        twistd = ("-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=")
        program = self.stage.start(
            (sys.executable, *twistd, "mutauth", *words), self.stage.environment()
        )
        program.wait_for("serving")
        return program

    def visit(self, entrance: Forwarder) -> tuple[socket.socket, str]:
        """Come through the forwarder: the connection, and the replica it leads to."""
        client = socket.create_connection((HOST, entrance.port), WAIT)
        return client, client.recv(8, socket.MSG_WAITALL).decode().strip()


@cache
def balanced() -> Balanced:
    return Balanced(stage())


class BalancerTests(StageTestCase):
    """Purposes of a balancer."""

    def visits(self, count: int) -> Counter[str]:
        """Where so many clients come to, one after the other."""
        seen: Counter[str] = Counter()
        for _ in range(count):
            client, name = balanced().visit(balanced().entrance)
            with client:
                client.sendall(b"hello")
                self.assertEqual(client.recv(5, socket.MSG_WAITALL), b"hello")
            seen[name] += 1
        return seen

    def test_a_both_serve(self) -> None:
        """Both serve clients that ask for the virtual name, which is the only one there is."""
        seen = self.visits(20)
        self.assertEqual(set(seen), set(REPLICAS))

    def test_b_addresses(self) -> None:
        """The service knows its clients' addresses: those of one that floods it through the
        balancer are limited, and no others.
        """
        replica = balanced().replicas["srv1"]
        start = len(replica.lines)
        self.visits(2)
        line = replica.wait_for("authenticated as alice", start)
        self.assertIn(f"{HOST}:", line)
        self.assertNotIn(BALANCER, "".join(replica.lines[start:]))
        with contextlib.ExitStack() as flood:
            for _ in range(160):
                stranger = flood.enter_context(
                    socket.create_connection(
                        (HOST, balanced().port), WAIT, source_address=("127.0.0.77", 0)
                    )
                )
                stranger.sendall(b"\x16")
            self.assertEqual(sum(self.visits(20).values()), 20)

    def test_c_no_header(self) -> None:
        """A client that comes from the balancer's address without a header is refused, and so is
        one that comes from another with one.
        """
        address = stage().lab.address_of(stage().lab.host("srv1"))
        where = (address, balanced().ports["srv1"])
        replica = balanced().replicas["srv1"]
        start = len(replica.lines)
        with socket.create_connection(where, WAIT, source_address=(BALANCER, 0)) as client:
            client.sendall(b"\x16\x01\x00")
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(client.recv(1), b"")
        self.assertIn(BALANCER, replica.wait_for("proxy-header-invalid", start))
        forged = bytes.fromhex("0d0a0d0a000d0a515549540a2111000c0a0000010a00000204d204d2")
        with socket.create_connection(where, WAIT) as client:
            client.sendall(forged)
            with contextlib.suppress(ConnectionResetError):
                while client.recv(100):
                    pass
        self.assertNotIn("10.0.0.1", "".join(replica.lines[start:]))

    def test_d_replica_killed(self) -> None:
        """A replica that is killed ends its own connections and no others, and nobody who comes
        afterwards fails.
        """
        kept = {}
        while set(kept) != set(REPLICAS):
            client, name = balanced().visit(balanced().entrance)
            self.addCleanup(client.close)
            kept.setdefault(name, client)
        balanced().replicas["srv1"].process.kill()
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(kept["srv1"].recv(1), b"")
        self.assertEqual(self.visits(20), {"srv2": 20})
        kept["srv2"].sendall(b"hello")
        self.assertEqual(kept["srv2"].recv(5, socket.MSG_WAITALL), b"hello")
