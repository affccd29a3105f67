"""Reloads of a running process: by signal and by file, under load, and in the worst moments."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from mutauth_twisted.service.exitcode import CUT
from mutauth_twisted.testing.certificates import Certificates
from tests.integration.commands import WAIT, CommandTestCase, Ended, Running, children

PUMPS = 10
PIECE = os.urandom(32_768)


class Pump(threading.Thread):
    """Sends through an echo until it is told to end, and compares what comes back."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._socket = socket.create_connection(("127.0.0.1", port), WAIT)
        self._socket.settimeout(WAIT)
        self._ends = threading.Event()
        self.rounds = 0
        self.sent, self.received = hashlib.sha256(), hashlib.sha256()
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            while not self._ends.is_set():
                piece = PIECE[self.rounds % 100 :]
                self._socket.sendall(piece)
                self.sent.update(piece)
                left = len(piece)
                while left:
                    data = self._socket.recv(left)
                    if not data:
                        raise ConnectionError("the stream has ended")
                    self.received.update(data)
                    left -= len(data)
                self.rounds += 1
        except Exception as error:
            self.error = error

    def end(self) -> None:
        """Let it end after its round."""
        self._ends.set()
        self.join(WAIT)
        self._socket.close()


class ReloadTestCase(CommandTestCase):
    """A process with a configuration file."""

    def setUp(self) -> None:
        super().setUp()
        os.chmod(self.state, 0o700)
        self.path = Path(self.state) / "mutauth.toml"
        self.keytab = Path(self.state) / "echo.keytab"
        self.keytab.write_bytes(self.lab.keytab("svc-echo").read_bytes())
        self.keytab.chmod(0o600)
        self.other = self.service_class + "b"

    def write(self, *services: str, top: str = "", **changes: str) -> None:
        """Write the file anew, as editors do: another file in its place.

        :param services: ``echo`` and ``other``, with further lines for each in ``changes``.
        """
        address = self.lab.address_of(self.host)
        text = f"""\
status = "tcp:0:interface=127.0.0.1"
{top}
[defaults]
host = "{self.host}"
nameserver = "{self.lab.nameserver}"
state-dir = "{self.state}"
publish = "none"
spn-check = "off"
audit = "{self.state}/audit.jsonl"
max-connections = 50
max-waiting = 50
listen = ["tcp:0:interface={address}"]
"""
        for name in services or ("echo",):
            is_echo = name == "echo"
            keytab = self.keytab if is_echo else self.lab.keytab("svc-other")
            text += f"""
[service.{name}]
service-class = "{self.service_class if is_echo else self.other}"
keytab = "{keytab}"
echo = true
{changes.get(name, 'allow = ["*@LAB.EXAMPLE"]')}
"""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)

    @contextlib.contextmanager
    def running(self) -> Iterator[Running]:
        """The process, whose output is read on."""
        with self.twistd(("mutauth", "--config", str(self.path))) as service:
            service.read_on()
            yield service
            self.assertNotIn("Traceback", service.log)
            self.assertNotIn("internal error", service.log)

    def wait_for(self, condition: Callable[[], object], what: str | Callable[[], str]) -> None:
        give_up_at = time.monotonic() + WAIT
        while not condition():
            if time.monotonic() > give_up_at:
                self.fail(what if isinstance(what, str) else what())
            time.sleep(0.02)

    def wait_for_line(self, service: Running, words: str, times: int = 1) -> None:
        """Wait until so many lines have these words."""
        self.wait_for(
            lambda: sum(words in line for line in list(service.lines)) >= times,
            lambda: f"{words!r} {times} time(s) in {service.log}",
        )

    def hangup(self, service: Running, words: str, times: int = 1) -> None:
        """Send SIGHUP, and wait until a line says these words."""
        service.process.send_signal(signal.SIGHUP)
        self.wait_for_line(service, words, times)

    def port_of(self, service: Running, name: str) -> int:
        """Where a service listened last."""
        self.wait_for_line(service, f"serving {name} on")
        lines = [line for line in service.lines if f"serving {name} on" in line]
        return int(lines[-1].rsplit(":", 1)[1])

    def endpoint_of(self, port: int, service_class: str | None = None) -> str:
        address = self.lab.address_of(self.host)
        spn = f"{service_class or self.service_class}/{self.host}"
        return f"mutauth:tcp\\:{address}\\:{port}:spn={spn}"

    def talk(self, endpoint: str, **how: str) -> Ended:
        return self.mutauth("connect", endpoint, given="hello\n", **how)

    def health(self, service: Running) -> tuple[int, dict[str, object]]:
        """Code and content of the machine's view of the state."""
        line = next(line for line in reversed(service.lines) if "status on" in line)
        where = f"http://127.0.0.1:{line.rsplit(':', 1)[1].strip()}/health"
        try:
            with urlopen(where, timeout=WAIT) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, json.load(error)

    def install_both(self) -> None:
        self.assertEqual(self.install("--spn-form", "host").code, 0)
        words = ("--service-class", self.other, "--host", self.host)
        ended = self.mutauth(
            *("install", *words, "--account", "svc-other", "--spn-form", "host", *self.directory),
            user="administrator",
        )
        self.assertEqual(ended.code, 0, ended)

        def uninstall() -> None:
            done = self.mutauth("uninstall", *words, *self.directory, user="administrator")
            self.assertEqual(done.code, 0, done)

        self.addCleanup(uninstall)

    def prepare(self) -> None:
        self.assertEqual(self.install("--spn-form", "guid,host").code, 0)


class LoadTests(ReloadTestCase):
    """Reloads while bytes flow."""

    def test_five_reloads_under_load(self) -> None:
        """Ten connections lose no byte in five reloads, of which each changes something; new ones
        are served meanwhile.
        """
        self.prepare()
        self.write()
        with self.running() as service:
            endpoint = self.endpoint_of(self.port_of(service, "echo"))
            with self.forwarder(endpoint) as forwarder:
                forwarder.read_on()
                pumps = [Pump(forwarder.port) for _ in range(PUMPS)]
                self.wait_for(lambda: all(pump.rounds for pump in pumps), "every pump has begun")
                for number in range(1, 6):
                    before = [pump.rounds for pump in pumps]
                    allow = 'allow = ["*@LAB.EXAMPLE"]'
                    self.write(echo=f"{allow}\nidle-timeout = {100 + number}")
                    self.hangup(service, "applied: changed echo", number)
                    self.assertEqual(self.talk(endpoint).output, "hello\n")
                    self.wait_for(
                        lambda before=before: all(
                            pump.error or pump.rounds > rounds
                            for pump, rounds in zip(pumps, before, strict=True)
                        ),
                        "every pump goes on",
                    )
                for pump in pumps:
                    pump.end()
                    self.assertIsNone(pump.error)
                    self.assertEqual(pump.sent.hexdigest(), pump.received.hexdigest())
                self.assertEqual(len({line for line in service.lines if "serving echo" in line}), 1)
            self.assertEqual(service.stop(), 0)

    def test_five_reloads_of_workers_under_load(self) -> None:
        """The same with two workers, which have shared the connections between them."""
        self.prepare()
        self.write(top="workers = 2")
        with self.running() as service:
            endpoint = self.endpoint_of(self.port_of(service, "echo"))
            pids = children(service.process.pid)
            with self.forwarder(endpoint) as forwarder:
                forwarder.read_on()
                pumps = [Pump(forwarder.port) for _ in range(PUMPS)]
                self.wait_for(lambda: all(pump.rounds for pump in pumps), "every pump has begun")
                for number in range(1, 6):
                    before = [pump.rounds for pump in pumps]
                    allow = 'allow = ["*@LAB.EXAMPLE"]'
                    self.write(top="workers = 2", echo=f"{allow}\nidle-timeout = {100 + number}")
                    self.hangup(service, "applied: changed echo", number)
                    self.wait_for(
                        lambda before=before: all(
                            pump.error or pump.rounds > rounds
                            for pump, rounds in zip(pumps, before, strict=True)
                        ),
                        "every pump goes on",
                    )
                self.assertEqual(self.talk(endpoint).output, "hello\n")
                for pump in pumps:
                    pump.end()
                    self.assertIsNone(pump.error)
                    self.assertEqual(pump.sent.hexdigest(), pump.received.hexdigest())
            self.assertEqual(children(service.process.pid), pids)
            self.assertEqual(service.stop(), 0)

    def test_storm(self) -> None:
        """A hundred signals at once cost a few reloads, and no connection."""
        self.prepare()
        self.write()
        with self.running() as service:
            endpoint = self.endpoint_of(self.port_of(service, "echo"))
            with self.forwarder(endpoint) as forwarder:
                forwarder.read_on()
                pump = Pump(forwarder.port)
                for _ in range(100):
                    service.process.send_signal(signal.SIGHUP)
                self.wait_for_line(service, "nothing has changed")
                rounds = pump.rounds
                self.wait_for(lambda: pump.error or pump.rounds > rounds + 3, "it goes on")
                pump.end()
                self.assertIsNone(pump.error)
            self.assertEqual(service.stop(), 0)
            self.assertLess(service.log.count("reload (SIGHUP)"), 100)


class ChangeTests(ReloadTestCase):
    """Changes of services, and the services that stay."""

    def test_only_the_one(self) -> None:
        """Of two services with two keytabs one becomes another one, and the other keeps its port
        and its connection.
        """
        self.install_both()
        self.write("echo", "other")
        with self.running() as service:
            kept, moved = self.port_of(service, "echo"), self.port_of(service, "other")
            other = self.endpoint_of(moved, self.other)
            self.assertEqual(self.talk(other).output, "hello\n")
            with self.forwarder(self.endpoint_of(kept)) as forwarder:
                forwarder.read_on()
                pump = Pump(forwarder.port)
                self.wait_for(lambda: pump.rounds, "it flows")
                address = self.lab.address_of(self.host)
                # Of another text: a place that is wanted again would stay.
                listen = f'listen = ["tcp:0:interface={address}:backlog=9"]'
                self.write("echo", "other", other=f"allow-all = true\n{listen}")
                service.process.send_signal(signal.SIGHUP)
                self.wait_for_line(service, "applied: started other; stopped other")
                self.assertNotEqual(self.port_of(service, "other"), moved)
                self.assertEqual(
                    self.talk(self.endpoint_of(self.port_of(service, "other"), self.other)).output,
                    "hello\n",
                )
                self.assertNotEqual(self.talk(other).code, 0)
                # And gone.
                self.write("echo")
                self.hangup(service, "applied: stopped other")
                self.wait_for_line(service, "other: stopped", 2)
                rounds = pump.rounds
                self.wait_for(lambda: pump.error or pump.rounds > rounds + 3, "it goes on")
                pump.end()
                self.assertIsNone(pump.error)
            self.assertEqual(self.port_of(service, "echo"), kept)
            # And back.
            self.write("echo", "other")
            self.hangup(service, "applied: started other", 2)
            again = self.endpoint_of(self.port_of(service, "other"), self.other)
            self.assertEqual(self.talk(again).output, "hello\n")
            self.assertEqual(service.stop(), 0)

    def test_ident_address(self) -> None:
        """A service that gets other ports, or tells its backend more, keeps its ident address: the
        backend can ask about connections of before and of now.
        """
        self.prepare()
        address = f"{self.lab.nameserver.rpartition('.')[0]}.115"
        with contextlib.ExitStack() as opened:
            backend = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            backend.settimeout(WAIT)
            port = backend.getsockname()[1]

            def asked(connection: socket.socket) -> str:
                """Return the answer about a connection that it has accepted."""
                with socket.create_connection((address, 113), WAIT, ("127.0.0.1", 0)) as question:
                    question.sendall(f"{connection.getpeername()[1]}, {port}\r\n".encode())
                    answer = b"".join(iter(lambda: question.recv(4096), b""))
                return answer.decode().rpartition(": ")[2].strip()

            def connected(endpoint: str) -> socket.socket:
                """The backend's end of a new client's connection, which stays open."""
                client = self.begin("mutauth", "connect", endpoint, stdin=subprocess.PIPE)
                opened.enter_context(client)
                opened.callback(client.kill)
                return opened.enter_context(backend.accept()[0])

            rules = 'allow = ["*@LAB.EXAMPLE"]\ndrain-timeout = 20'
            tells = f'forward = "tcp:127.0.0.1:{port}"\nident-address = "{address}"\n{rules}'
            self.write(echo=tells)
            self.path.write_text(self.path.read_text().replace("echo = true\n", ""))
            with self.running() as service:
                before = connected(self.endpoint_of(self.port_of(service, "echo")))
                self.assertEqual(asked(before), "alice@LAB.EXAMPLE")
                text = self.path.read_text()
                self.path.write_text(f"{text}proxy-protocol = true\n")
                self.hangup(service, "applied: changed echo")
                now = connected(self.endpoint_of(self.port_of(service, "echo")))
                self.assertEqual(now.recv(12), b"\r\n\r\n\0\r\nQUIT\n")
                self.assertEqual([asked(each) for each in (before, now)], ["alice@LAB.EXAMPLE"] * 2)
                where = f'"tcp:0:interface={self.lab.address_of(self.host)}"'
                self.path.write_text(f"{text}listen = [{where}, {where}]\n")
                self.hangup(service, "applied: started echo; stopped echo")
                self.wait_for_line(service, "serving echo on", 3)
                again = connected(self.endpoint_of(self.port_of(service, "echo")))
                found = [asked(each) for each in (before, now, again)]
                self.assertEqual(found, ["alice@LAB.EXAMPLE"] * 3)
                self.assertNotIn("does not start", service.log)
                opened.close()  # so that the stop has nothing to wait for

    def test_wrong_file(self) -> None:
        """A mistake anywhere leaves all as it was, is named, and is forgotten when it is
        corrected.
        """
        self.prepare()
        self.write()
        with self.running() as service:
            endpoint = self.endpoint_of(self.port_of(service, "echo"))
            for number, (changes, words) in enumerate(
                (
                    ("alow-all = true", "[service.echo] key alow-all: there is no such key here"),
                    ("allow-all = 1", "key allow-all = 1: it is an integer"),
                    ('allow-all = true\npolicy = "/nonexistent"', "policy file /nonexistent"),
                    ("allow-all = true\nlisten = ['tcp:1:interface=192.0.2.1']", "cannot-listen"),
                    ('allow-group = ["no-such-group"]', "group-not-found"),
                ),
                1,
            ):
                self.write(echo=changes)
                self.hangup(service, "rejected: what was in force stays in force", number)
                self.assertIn(words, service.log)
                code, state = self.health(service)
                self.assertEqual(code, 200, "what is in force serves")
                self.assertIn("reload-rejected", json.dumps(state))
                self.assertEqual(self.talk(endpoint).output, "hello\n")
            self.write()
            self.hangup(service, "nothing has changed")
            self.assertNotIn("reload-rejected", json.dumps(self.health(service)[1]))
            self.assertEqual(service.stop(), 0)
        events = map(json.loads, (Path(self.state) / "audit.jsonl").read_text().splitlines())
        reloads = [event for event in events if event["event"] == "reloaded"]
        results = [event["result"] for event in reloads]
        self.assertEqual(results.count("rejected"), len(results) - results.count("unchanged"))
        self.assertGreaterEqual(results.count("rejected"), 5)
        self.assertEqual(results[-1], "unchanged")
        self.assertEqual(reloads[0]["code"], "reload-rejected")

    def test_files_that_change(self) -> None:
        """No signal is needed: a file that is replaced or written in place is read by itself, and
        one that is half written is not the last word.
        """
        self.prepare()
        self.write(echo='allow = ["bob@LAB.EXAMPLE"]')
        with self.running() as service:
            endpoint = self.endpoint_of(self.port_of(service, "echo"))
            self.assertEqual(self.talk(endpoint).code, 4)
            self.write(echo='allow = ["alice@LAB.EXAMPLE"]')
            self.wait_for_line(service, f"reload ({self.path}) applied: changed echo")
            self.assertEqual(self.talk(endpoint).output, "hello\n")
            # In place and in two pieces, of which the first is no TOML.
            text = self.path.read_text().replace("alice@", "bob@")
            middle = text.index("keytab") + 4
            with self.path.open("w") as file:
                file.write(text[:middle])
                file.flush()
                time.sleep(0.2)
                file.write(text[middle:])
            self.wait_for_line(service, f"reload ({self.path}) applied: changed echo", 2)
            self.assertEqual(self.talk(endpoint).code, 4)
            # A policy beside it.
            policy = Path(self.state) / "policy.toml"
            policy.write_text('[[deny]]\naccounts = ["bob@LAB.EXAMPLE"]\n')
            self.write(echo=f'allow = ["*@LAB.EXAMPLE"]\npolicy = "{policy}"')
            self.wait_for_line(service, "applied: changed echo", 3)
            self.assertEqual(self.talk(endpoint).output, "hello\n")
            policy.write_text('[[deny]]\naccounts = ["alice@LAB.EXAMPLE"]\n')
            self.wait_for_line(service, f"reload ({policy}) applied: changed echo")
            self.assertEqual(self.talk(endpoint).code, 4)
            policy.write_text("")
            self.wait_for_line(service, f"reload ({policy}) rejected")
            self.assertEqual(self.talk(endpoint).code, 4, "the last good policy is in force")
            self.assertEqual(service.stop(), 0)

    def test_forbidden_sessions_end(self) -> None:
        """A session that the new rules forbid is ended, and no other."""
        self.prepare()
        self.write()
        with self.running() as service:
            endpoint = self.endpoint_of(self.port_of(service, "echo"))
            with self.forwarder(endpoint) as forwarder:
                forwarder.read_on()
                pump = Pump(forwarder.port)
                self.wait_for(lambda: pump.rounds, "it flows")
                self.write(echo='allow = ["*@LAB.EXAMPLE"]\ndeny = ["bob@LAB.EXAMPLE"]')
                self.hangup(service, "applied: changed echo")
                rounds = pump.rounds
                self.wait_for(lambda: pump.error or pump.rounds > rounds + 3, "it goes on")
                self.write(echo='allow = ["*@LAB.EXAMPLE"]\ndeny = ["alice@LAB.EXAMPLE"]')
                self.hangup(service, "applied: changed echo", 2)
                pump.join(WAIT)
                self.assertIsInstance(pump.error, OSError)
            self.assertEqual(service.stop(), 0)

    def test_keytab_emptied(self) -> None:
        """It is named, and survived: sessions go on, and new ones begin when the keys are back; a
        key that is gone from the file is not used any more.
        """
        self.prepare()
        self.write()
        with self.running() as service:
            endpoint = self.endpoint_of(self.port_of(service, "echo"))
            with self.forwarder(endpoint) as forwarder:
                forwarder.read_on()
                pump = Pump(forwarder.port)
                self.wait_for(lambda: pump.rounds, "it flows")
                keys = self.keytab.read_bytes()
                self.keytab.write_bytes(b"")
                self.wait_for_line(service, f"reload ({self.keytab}) rejected")
                self.assertIn(f"keytab {self.keytab}: it holds no keys", service.log)
                code, state = self.health(service)
                self.assertEqual(code, 503)
                self.assertIn("reload-rejected", json.dumps(state))
                self.assertNotEqual(self.talk(endpoint).code, 0)
                self.keytab.write_bytes(keys)
                self.wait_for_line(service, f"reload ({self.keytab}): nothing has changed")
                self.assertEqual(self.talk(endpoint).output, "hello\n")
                self.assertEqual(self.health(service)[0], 200)
                rounds = pump.rounds
                self.wait_for(lambda: pump.error or pump.rounds > rounds + 3, "it goes on")
                pump.end()
                self.assertIsNone(pump.error)
            # Another account's keys: those before are refused at once.
            self.keytab.write_bytes(self.lab.keytab("svc-other").read_bytes())
            self.wait_for_line(service, f"reload ({self.keytab}) applied: changed echo")
            self.assertNotEqual(self.talk(endpoint).code, 0)
            self.assertEqual(service.stop(), 0)

    def test_certificate(self) -> None:
        """New connections get the new certificate, and one that cannot be used is not taken."""
        self.prepare()
        certificates = Certificates(Path(self.state) / "certificates")
        chain = Path(self.state) / "chain.pem"
        chain.write_bytes(Path(certificates.issue(self.host)).read_bytes())
        chain.chmod(0o600)
        self.write(echo=f'allow-all = true\nprotection = "tls"\ntls-cert = "{chain}"')
        with self.running() as service:
            port = self.port_of(service, "echo")
            plain = f"{self.endpoint_of(port)}:protection=tls:tls-ca={certificates.ca_file}"
            self.assertEqual(self.talk(plain).output, "hello\n")
            chain.write_bytes(Path(certificates.issue("other.example.com")).read_bytes())
            self.wait_for_line(service, f"reload ({chain}) applied: changed echo")
            refused = self.talk(plain)
            self.assertIn("certificate-wrong-name", refused.errors)
            self.assertIn("hello", self.talk(f"{plain}:tls-name=other.example.com").output)
            chain.write_bytes(b"nothing")
            self.wait_for_line(service, f"reload ({chain}) rejected")
            self.assertIn("hello", self.talk(f"{plain}:tls-name=other.example.com").output)
            self.assertEqual(service.stop(), 0)


class WorkerTests(ReloadTestCase):
    """Reloads of a process with two workers, each of which has to follow."""

    def setUp(self) -> None:
        super().setUp()
        self.prepare()
        self.policy = Path(self.state) / "policy.toml"

    def deny(self, user: str) -> None:
        """Write a policy that denies one account."""
        new = self.policy.with_suffix(".new")
        new.write_text(
            '[[allow]]\ngroups = ["echo-users"]\naccounts = ["bob@*"]\n'
            f'[[deny]]\naccounts = ["{user}@LAB.EXAMPLE"]\n'
        )
        new.replace(self.policy)

    @contextlib.contextmanager
    def only(self, service: Running, worker: int) -> Iterator[None]:
        """Have one worker alone take connections."""
        others = [pid for pid in children(service.process.pid) if pid != worker]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def session(self, endpoint: str, user: str) -> Iterator[subprocess.Popen[str]]:
        """A client whose session is open."""
        client = self.begin("mutauth", "connect", endpoint, user=user, stdin=subprocess.PIPE)
        with client:
            self.assertTrue(self.is_answered(client))
            yield client
            client.kill()

    @staticmethod
    def is_answered(client: subprocess.Popen[str]) -> bool:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write("hello\n")
        client.stdin.flush()
        return client.stdout.readline() == "hello\n"

    def test_policy(self) -> None:
        """Another policy ends the sessions that it forbids, whichever worker has them, and no
        other; a broken one changes nothing, not even for a worker that begins after it.
        """
        self.deny("nobody")
        self.write(echo=f'policy = "{self.policy}"', top="workers = 2")
        with self.running() as service, contextlib.ExitStack() as clients:
            endpoint = self.endpoint_of(self.port_of(service, "echo"))
            pids = children(service.process.pid)
            sessions = []
            for pid in pids:
                with self.only(service, pid):
                    for user in ("alice", "bob"):
                        opened = self.session(endpoint, user)
                        sessions.append((user, clients.enter_context(opened)))
            self.deny("alice")
            self.wait_for_line(service, f"reload ({self.policy}) applied: changed echo")
            for user, client in sessions:
                if user == "alice":
                    client.wait(WAIT)  # although its standard input is open
                else:
                    self.assertTrue(self.is_answered(client))
            audit = (Path(self.state) / "audit.jsonl").read_text()
            self.assertEqual(audit.count('"access-withdrawn"'), 2, audit)
            self.policy.write_text("[[deny]\n")
            self.wait_for_line(service, f"reload ({self.policy}) rejected")
            self.assertIn("reload-rejected", json.dumps(self.health(service)[1]))
            # Nor does a signal to a worker matter, even to one that has only begun.
            os.kill(pids[0], signal.SIGKILL)
            while service.log.count("is ready") < 3:
                for pid in children(service.process.pid):
                    os.kill(pid, signal.SIGHUP)
                time.sleep(0.01)
            self.assertEqual(service.log.count("worker-failed"), 1)
            self.assertIn(pids[1], children(service.process.pid))
            (new,) = set(children(service.process.pid)) - set(pids)
            with self.only(service, new):
                self.assertNotEqual(self.talk(endpoint).code, 0)
                self.assertEqual(self.talk(endpoint, user="bob").output, "hello\n")
            # The new one follows the next reload as the old one does.
            self.deny("bob")
            self.wait_for_line(service, f"reload ({self.policy}) applied: changed echo", 2)
            for pid in children(service.process.pid):
                with self.only(service, pid):
                    self.assertNotEqual(self.talk(endpoint, user="bob").code, 0)
            self.assertEqual(service.stop(), 0, service.log)

    def test_one_cannot(self) -> None:
        """A worker that cannot apply a reload is replaced by one that serves by it, and the other
        keeps its sessions.
        """
        self.write(top="workers = 2")
        with self.running() as service, contextlib.ExitStack() as clients:
            endpoint = self.endpoint_of(self.port_of(service, "echo"))
            able, unable = children(service.process.pid)
            with self.only(service, able):
                kept = clients.enter_context(self.session(endpoint, "bob"))
            resource.prlimit(unable, resource.RLIMIT_NOFILE, (40, 40))
            self.write(top="workers = 2", echo='allow = ["bob@*"]')
            self.hangup(service, "it has not applied the reload")
            self.wait_for_line(service, "applied: changed echo")
            self.wait_for_line(service, "is ready", 3)
            self.assertTrue(self.is_answered(kept))
            (new,) = set(children(service.process.pid)) - {able}
            self.assertNotEqual(new, unable)
            with self.only(service, new):
                self.assertNotEqual(self.talk(endpoint).code, 0)
            clients.close()
            self.assertEqual(service.stop(), 0, service.log)

    def test_keys(self) -> None:
        """All give new connections the new certificate; keys of a keytab are those of now, and
        their change is no mistake.
        """
        certificates = Certificates(Path(self.state) / "certificates")
        chain = Path(self.state) / "chain.pem"
        chain.write_bytes(Path(certificates.issue(self.host)).read_bytes())
        chain.chmod(0o600)
        tls = f'allow-all = true\nprotection = "tls"\ntls-cert = "{chain}"'
        self.write(echo=tls, top="workers = 2")
        with self.running() as service:
            port = self.port_of(service, "echo")
            endpoint = f"{self.endpoint_of(port)}:protection=tls:tls-ca={certificates.ca_file}"
            self.assertEqual(self.talk(endpoint).output, "hello\n")
            chain.write_bytes(Path(certificates.issue("other.example.com")).read_bytes())
            self.wait_for_line(service, f"reload ({chain}) applied: changed echo")
            for pid in children(service.process.pid):
                with self.only(service, pid):
                    self.assertIn("certificate-wrong-name", self.talk(endpoint).errors)
            renamed = f"{endpoint}:tls-name=other.example.com"
            chain.write_bytes(b"nothing")
            self.wait_for_line(service, f"reload ({chain}) rejected")
            self.assertIn("hello", self.talk(renamed).output)
            chain.write_bytes(Path(certificates.issue("other.example.com")).read_bytes())
            keys = self.keytab.read_bytes()
            self.wait_for_line(service, f"reload ({chain}) applied: changed echo", 2)
            self.keytab.write_bytes(self.lab.keytab("svc-other").read_bytes())
            self.wait_for_line(service, f"reload ({self.keytab}) applied: changed echo")
            self.assertNotEqual(self.talk(renamed).code, 0)
            self.keytab.write_bytes(keys)
            self.wait_for_line(service, f"reload ({self.keytab}) applied: changed echo", 2)
            self.assertIn("hello", self.talk(renamed).output)
            self.assertNotIn(f"({self.keytab}) rejected", service.log)
            self.assertEqual(service.log.count("is ready"), 2)
            self.assertEqual(service.stop(), 0, service.log)


class MomentTests(ReloadTestCase):
    """SIGHUP when nobody expects it."""

    def test_in_mid_drain(self) -> None:
        """It changes nothing of a process that stops: sessions have their time to end, and end."""
        self.prepare()
        self.write(echo='allow = ["*@LAB.EXAMPLE"]\ndrain-timeout = 20')
        with self.running() as service:
            with self.forwarder(self.endpoint_of(self.port_of(service, "echo"))) as forwarder:
                forwarder.read_on()
                pump = Pump(forwarder.port)
                self.wait_for(lambda: pump.rounds, "it flows")
                service.process.send_signal(signal.SIGTERM)
                time.sleep(0.5)
                self.write(echo='allow = ["*@LAB.EXAMPLE"]\ndeny = ["alice@LAB.EXAMPLE"]')
                rounds = pump.rounds
                self.hangup(service, "SIGHUP: stopping already, nothing is reloaded")
                self.wait_for(lambda: pump.error or pump.rounds > rounds + 3, "it goes on")
                pump.end()
                self.assertIsNone(pump.error)
            self.assertEqual(service.process.wait(WAIT), 0)
            self.assertNotEqual(service.process.returncode, CUT)

    def test_while_it_starts(self) -> None:
        """It is remembered until all services serve."""
        self.prepare()
        self.write()
        with self.twistd(("mutauth", "--config", str(self.path))) as service:
            service.read_on()
            self.hangup(service, "reload (SIGHUP): nothing has changed")
            self.assertEqual(service.stop(), 0)

    def test_stopped_while_it_reloads(self) -> None:
        """SIGTERM right after SIGHUP stops the process as always."""
        self.prepare()
        self.write()
        with self.running() as service:
            self.write(echo='allow-group = ["echo-users"]')
            service.process.send_signal(signal.SIGHUP)
            service.process.send_signal(signal.SIGTERM)
            self.assertEqual(service.stop(), 0, service.log)
