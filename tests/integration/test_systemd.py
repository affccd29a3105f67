"""The units that ``mutauth unit`` writes, and what they ask of a service: real tools of systemd's
judge the units and pass the sockets.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.integration.commands import WAIT, CommandTestCase, Running

#: The most of systemd's exposure level (0 to 10) that a unit may have: "OK" begins below 4.
EXPOSURE = 1.5


class UnitTests(CommandTestCase):
    """Unit files, as systemd-analyze sees them."""

    def units(self, *options: str) -> dict[str, Path]:
        written = self.mutauth("unit", "shop", *options, "--output", self.state)
        self.assertEqual(written.code, 0, written)
        paths = [Path(line.removeprefix("wrote ")) for line in written.output.splitlines()]
        return {path.name: path for path in paths}

    def analyze(self, *words: str) -> str:
        done = subprocess.run(
            ["systemd-analyze", *words], capture_output=True, text=True, timeout=WAIT, check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        return done.stdout

    def test_valid(self) -> None:
        """systemd finds nothing wrong with them, with and without sockets."""
        for options, names in (
            ((), {"mutauth-shop.service"}),
            (
                ("--listen", "9000", "--status", "127.0.0.1:8081"),
                {"mutauth-shop.service", "mutauth-shop.socket", "mutauth-shop-status.socket"},
            ),
            (
                ("--listen", "/run/shop.socket", "--ident", "127.0.0.5"),
                {"mutauth-shop.service", "mutauth-shop.socket", "mutauth-shop-ident.socket"},
            ),
        ):
            units = self.units(*options)
            self.assertEqual(set(units), names)
            self.analyze("verify", *map(str, units.values()))

    def test_exposure(self) -> None:
        """The service is locked in as the documentation says."""
        unit = self.units()["mutauth-shop.service"]
        said = self.analyze(
            "security", "--offline=true", f"--threshold={EXPOSURE * 10:.0f}", str(unit)
        )
        level = re.search(r"exposure level for \S+ (\d+\.\d+)", said)
        assert level is not None
        self.assertLessEqual(float(level[1]), EXPOSURE)

    def test_printed(self) -> None:
        """Without a directory they are printed; nothing that systemd would read in another way
        comes in.
        """
        printed = self.mutauth("unit", "shop")
        self.assertIn("# mutauth-shop.service\n[Unit]\n", printed.output)
        for words in (
            ("../shop",),
            ("shop", "--keytab", "relative"),
            ("shop", "--keytab", "/etc/%h"),
            ("shop", "--config", "/etc/a b"),
            ("shop", "--listen", "9000\nExecStartPre=/bin/true"),
        ):
            self.refused(self.mutauth("unit", *words), 2)


class Manager:
    """The socket on which a service manager is told (sd_notify(3)), read as it comes."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._socket.settimeout(WAIT)
        self.path = path
        self.told: list[str] = []

    def wait_for(self, start: str) -> str:
        """Read until something is told that begins so."""
        while True:
            self.told.append(self._socket.recv(4096).decode())
            if self.told[-1].startswith(start):
                return self.told[-1]

    def close(self) -> None:
        self._socket.close()


class ActivationTests(CommandTestCase):
    """Services that get their sockets, and tell how they are."""

    def setUp(self) -> None:
        super().setUp()
        self.assertEqual(self.install().code, 0)
        self.address = self.lab.address_of(self.host)
        self.manager = Manager(f"{self.state}/notify")
        self.addCleanup(self.manager.close)

    def free_port(self) -> int:
        with socket.create_server((self.address, 0)) as listener:
            return int(listener.getsockname()[1])

    def endpoint_at(self, port: int) -> str:
        name = (
            f"{self.service_class}/{self.host}/CN={self.service_class},CN=srv1,"
            f"CN=Computers,{self.lab.base_dn}"
        )
        return f"mutauth:tcp\\:{self.address}\\:{port}:spn={name}:timeout=30"

    def health(self, where: tuple[str, int]) -> bytes:
        with socket.create_connection(where, WAIT) as page:
            page.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return page.makefile("rb").readline()

    def test_sockets(self) -> None:
        """systemd-socket-activate starts a service for its first client, who is served, and passes
        the socket of its status by name; its keys are where LoadCredential= puts them; the manager
        hears of each step, and the exit code is 0.
        """
        port, status = self.free_port(), self.free_port()
        credentials = Path(self.state, "credentials")
        credentials.mkdir(0o700)
        keytab = credentials / "keytab"
        keytab.write_bytes(self.lab.keytab("svc-echo").read_bytes())
        words = self.service_words(
            *("--listen", "systemd:name=listen", "--status", "systemd:name=status")
        )
        at = words.index("--keytab")
        environment = {
            **self.environment("alice"),
            "CREDENTIALS_DIRECTORY": str(credentials),
            "KRB5_KTNAME": f"FILE:{keytab}",
            "NOTIFY_SOCKET": self.manager.path,
            "WATCHDOG_USEC": "2000000",
        }
        sockets = {"listen": (self.address, port), "status": (self.address, status)}
        with self.activated(sockets, environment, *words[:at], *words[at + 2 :]) as service:
            service.read_on()
            # The first client is what it is started for.
            ended = self.mutauth("connect", self.endpoint_at(port), given="hello\n")
            self.assertEqual((ended.code, ended.output), (0, "hello\n"), service.log)
            self.manager.wait_for("READY=1")
            self.manager.wait_for("WATCHDOG=1")
            self.assertEqual(self.manager.told.count("READY=1"), 1)
            self.assertIn(b" 200 ", self.health((self.address, status)))
            # The socket's own port is what is published.
            self.assertEqual(self.mutauth("connect", self.endpoint, given="hello\n").code, 0)
            self.assertEqual(service.stop(), 0, service.log)
            self.assertIn("\nEXTEND_TIMEOUT_USEC=", self.manager.wait_for("STOPPING=1"))
        self.assertIn("SCP withdrawn", service.log)
        self.assertIn(f"key file {keytab}: systemd's copy; restart the service", service.log)

    def asked(self, address: str) -> contextlib.AbstractContextManager[Running]:
        """A service that is started by the first ident query.

        :param address: the one that it is told.
        """
        self.socket = (f"{self.lab.nameserver.rpartition('.')[0]}.115", self.free_port())
        environment = self.environment("alice")
        words = ("--forward", "tcp:127.0.0.1:9", "--ident-address", f"{address}:ident")
        sockets = {"ident": self.socket}
        return self.activated(sockets, environment, *self.service_words(*words))

    def activated(
        self, sockets: dict[str, tuple[str, int]], environment: dict[str, str], *words: str
    ) -> contextlib.AbstractContextManager[Running]:
        """A service that systemd-socket-activate starts for the first client.

        :param sockets: names and places of what is passed to it.
        :param words: its command line.
        """
        process = subprocess.Popen(
            [
                "systemd-socket-activate",
                *(f"--listen={host}:{port}" for host, port in sockets.values()),
                f"--fdname={':'.join(sockets)}",
                *(f"--setenv={name}={value}" for name, value in environment.items()),
                *self.program("twistd"),
                *words,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=self.state,
        )
        return self._running(process, "Listening on")

    def ask(self) -> bytes:
        """The answer to an ident query."""
        with socket.create_connection(self.socket, WAIT) as question:
            question.sendall(b"40000, 9\r\n")
            return b"".join(iter(lambda: question.recv(4096), b""))

    def test_ident(self) -> None:
        """The socket of ident is passed by its name, and must be at the address that the backend
        is dialled from.
        """
        network = self.lab.nameserver.rpartition(".")[0]
        with self.asked(f"{network}.115") as service:
            service.read_on()
            self.assertEqual(self.ask(), b"40000 , 9 : ERROR : NO-USER\r\n")
            self.assertEqual(service.stop(), 0, service.log)
        with self.asked(f"{network}.116") as service:
            service.read_on()
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(self.ask(), b"")
            self.assertEqual(service.process.wait(WAIT), 2)
            self.assertIn(f"the socket that systemd passes is at {network}.115", service.log)

    @contextlib.contextmanager
    def instance(self, listening: socket.socket) -> Iterator[Running]:
        """A service with a socket that stays open when it ends, as systemd's do."""
        script = 'exec 3<&"$0"; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=listen exec "$@"'
        words = self.service_words("--listen", "systemd:name=listen")
        process = subprocess.Popen(
            ["bash", "-c", script, str(listening.fileno()), *self.program("twistd"), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**self.environment("alice"), "NOTIFY_SOCKET": self.manager.path},
            cwd=self.state,
            pass_fds=[listening.fileno()],
        )
        with self._running(process, "serving") as service:
            service.read_on()
            yield service

    def test_restart(self) -> None:
        """An upgrade: clients come all the time, one service ends and the next one begins on the
        same socket, and none of them is refused.
        """
        ended: list[tuple[int, str]] = []
        enough = threading.Event()

        def come() -> None:
            while not enough.is_set():
                client = self.mutauth("connect", endpoint, given="hello\n")
                ended.append((client.code, client.output))

        with socket.create_server((self.address, 0)) as listening:
            endpoint = self.endpoint_at(listening.getsockname()[1])
            with self.instance(listening) as first:
                clients = [threading.Thread(target=come) for _ in range(2)]
                for client in clients:
                    client.start()
                try:
                    self.assertEqual(first.stop(), 0, first.log)
                    before = len(ended)
                    with self.instance(listening) as second:
                        until = time.monotonic() + WAIT
                        while len(ended) < before + 4 and time.monotonic() < until:
                            time.sleep(0.05)
                        enough.set()
                        for client in clients:
                            client.join()
                        self.assertEqual(second.stop(), 0, second.log)
                finally:
                    enough.set()
        self.assertEqual(set(ended), {(0, "hello\n")})

    def test_not_passed(self) -> None:
        """A service that is started by hand says what it lacks."""
        self.refused(
            self.start_refused("--listen", "systemd:name=listen"),
            2,
            "endpoint systemd:name=listen: systemd has passed no such socket",
        )
