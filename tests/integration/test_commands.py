"""The main job with the real commands: the administrator installs, the service serves, a user
connects.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from mutauth_twisted.service.exitcode import CUT
from tests.integration.commands import CHECKOUT, INTERRUPTIBLE, CommandTestCase


class MainJobTests(CommandTestCase):
    """The administrator installs, the service serves, a user connects."""

    def test_the_whole_procedure(self) -> None:
        """install, serve, connect, stop and uninstall work one after the other, and say what they
        did.
        """
        self.preloaded = False
        installed = self.install()
        self.assertEqual(installed.code, 0, installed)
        for word in ("created SCP", "granted right to update", "added SPN", "cached GUID"):
            self.assertIn(word, installed.output)
        with self.service() as service:
            for word in ("found by its GUID", "svc-echo holds", "SCP updated"):
                self.assertIn(word, service.log)
            connected = self.mutauth("connect", "-v", self.endpoint, given="hello\n")
            self.assertEqual((connected.code, connected.output), (0, "hello\n"), connected)
            self.assertIn(f"authenticated as {self.service_class}/{self.host}/", connected.errors)
            self.assertEqual(service.stop(), 0)
        self.assertIn("alice@LAB.EXAMPLE", service.log)
        self.assertIn("SCP withdrawn", service.log)
        removed = self.mutauth("uninstall", *self.common, *self.directory, user="administrator")
        self.assertEqual(removed.code, 0, removed)
        self.assertIn("removed SPN", removed.output)
        self.assertIn("deleted SCP", removed.output)
        self.assertEqual(list(Path(self.state).iterdir()), [])
        again = self.mutauth("uninstall", *self.common, *self.directory, user="administrator")
        self.assertEqual(again.code, 0)
        self.assertIn("nothing", again.output)

    def test_many_bytes(self) -> None:
        """A stream of several megabytes comes back whole through standard input and output."""
        self.install()
        sent = "".join(f"{number:7}\n" for number in range(400_000))
        with self.service():
            connected = self.mutauth("connect", self.endpoint, given=sent)
        self.assertEqual(connected.code, 0, connected.errors)
        self.assertTrue(
            connected.output == sent, f"{len(connected.output)} of {len(sent)} characters"
        )

    def test_in_front_of_a_plain_service(self) -> None:
        """--forward passes an authenticated client's bytes to a plain service, and its answer back,
        half- close included.
        """
        self.install()

        def answer(connection: socket.socket) -> None:
            question = b""
            while piece := connection.recv(4096):
                question += piece
            connection.sendall(question.upper())

        with self.peer(answer) as port, self.service("--forward", f"tcp:127.0.0.1:{port}"):
            connected = self.mutauth("connect", self.endpoint, given="hello\n")
        self.assertEqual((connected.code, connected.output), (0, "HELLO\n"), connected)

    def test_local_port(self) -> None:
        """connect --listen leads local connections to the service, one after the other, and says
        why one fails.
        """
        self.install()
        with self.forwarder(self.endpoint) as local:
            with self.service():
                for word in (b"one", b"two"):
                    self.assertEqual(self.ask(local.port, word), word)
            self.assertEqual(self.ask(local.port, b"three"), b"")
            local.stop()
        self.assertIn("has published no port", local.log)
        self.assertNotIn("Traceback", local.log)

    def ask(self, port: int, question: bytes) -> bytes:
        """Answer of a local port, up to the end of its stream; nothing when it is reset."""
        answer = b""
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(question)
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while piece := connection.recv(4096):
                    answer += piece
        return answer

    def test_status(self) -> None:
        """--status says over HTTP that all is right, and what an administrator broke as soon as
        that is noticed.
        """
        installed = self.install()
        status = ("--status", "tcp:0:interface=127.0.0.1", "--check-interval", "0.2")
        with self.service(*status) as service:
            line = next(line for line in service.lines if "status on" in line)
            url = f"http://127.0.0.1:{line.rsplit(':', 1)[1].strip()}"
            self.assertEqual(self.get(f"{url}/health")[0], 200)
            self.assertIn(
                f"serving on {self.lab.address_of(self.host)}:{service.port}",
                self.get(f"{url}/")[1],
            )
            spn = installed.output.partition("added SPN ")[2].partition(" to ")[0]
            words = ("spn", "delete", "svc-echo", spn, "--nameserver", self.lab.nameserver)
            self.assertEqual(self.mutauth(*words, user="administrator").code, 0)
            give_up_at = time.monotonic() + 20
            while (answer := self.get(f"{url}/health"))[0] == 200 and time.monotonic() < give_up_at:
                time.sleep(0.2)
            self.assertEqual(answer[0], 503)
            self.assertIn(spn, json.loads(answer[1])["wrong"][0]["subject"])

    def await_code(self, url: str, code: int) -> str:
        """Ask until the answer has this code; its body."""
        give_up_at = time.monotonic() + 20
        while (answer := self.get(url))[0] != code:
            self.assertLess(time.monotonic(), give_up_at, answer)
            time.sleep(0.1)
        return str(answer[1])

    def test_keytab_gone(self) -> None:
        """A service without its keytab says so as an error, once for all clients, and is unhealthy
        until it is back.
        """
        self.install()
        keytab = Path(self.state) / "service.keytab"
        content = self.lab.keytab("svc-echo").read_bytes()
        keytab.write_bytes(content)
        status = ("--status", "tcp:0:interface=127.0.0.1", "--keytab", str(keytab))
        with self.service(*status) as service:
            line = next(line for line in service.lines if "status on" in line)
            url = f"http://127.0.0.1:{line.rsplit(':', 1)[1].strip()}/health"
            self.assertEqual(self.mutauth("connect", self.endpoint, given="hello").output, "hello")
            keytab.unlink()
            body = self.await_code(url, 503)  # before any client has failed
            (wrong,) = json.loads(body)["wrong"]
            self.assertEqual(
                (wrong["code"], wrong["subject"]), ("keytab-unusable", f"keytab {keytab}")
            )
            for _ in range(2):
                self.refused(self.mutauth("connect", self.endpoint, given="hello"), 4)
            self.assertEqual(self.get(url)[0], 503)
            keytab.write_bytes(content)
            self.await_code(url, 200)
            self.assertEqual(self.mutauth("connect", self.endpoint, given="hello").output, "hello")
            service.stop()
        said = [line for line in service.lines if "handshake with " in line and str(keytab) in line]
        self.assertEqual(["#error" in line for line in said], [True, False], service.log)
        self.assertIn(f"no longer: [keytab-unusable] keytab {keytab}", service.log)

    def test_second_signal(self) -> None:
        """A second SIGTERM, while a client is still connected, is noted, and the stop goes on."""
        self.install()
        with self.service() as service:
            pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": False}
            client = self.begin("mutauth", "connect", self.endpoint, **pipes)
            client.stdin.write(b"hello\n")
            client.stdin.flush()
            self.assertEqual(client.stdout.readline(), b"hello\n")
            service.process.send_signal(signal.SIGTERM)
            assert service.process.stdout is not None
            for line in service.process.stdout:
                service.lines.append(line)
                if "SCP withdrawn" in line:  # from now on it waits for the client
                    service.process.send_signal(signal.SIGTERM)
                    break
            self.assertEqual(service.stop(), CUT)
        client.communicate()
        self.assertIn("SIGTERM again: stopping already", service.log)
        self.assertIn("1 had not ended within 5 s, and were cut", service.log)
        self.assertNotIn("ReactorNotRunning", service.log)

    def test_interrupted_imports(self) -> None:
        """Ctrl-C before everything is imported ends in the same line as later, and no traceback."""
        (Path(self.state) / "krb5.py").write_text(
            "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
        )
        changes = {"PYTHONPATH": f"{self.state}:{CHECKOUT}"}
        process = self.begin("mutauth", "scp", "--help", prefix=INTERRUPTIBLE, changes=changes)
        self.assertEqual(process.stdout.readline(), "importing\n")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        self.assertEqual((process.returncode, errors), (130, "mutauth: interrupted\n"))

    def test_endpoints_are_checked_first(self) -> None:
        """An endpoint that cannot be listened on is wrong usage before the directory is asked,
        which is not there here.
        """
        for option, text in (
            ("--status", "tcp:nothing"),
            ("--status", "tcp:70000"),
            ("--listen", "bogus:1"),
            ("--listen", "tcp:99999:interface=127.0.0.1"),
        ):
            ended = self.start_refused(option, text, "--nameserver", "127.0.0.253")
            self.refused(ended, 2, f"endpoint {text}", "server endpoint")

    def get(self, url: str) -> tuple[int, str]:
        """The code and the body of a page."""
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def test_selectors(self) -> None:
        """The SCP's DN and its GUID find the service as its keyword does, in both forms of the
        SPN.
        """
        lines = self.install().output
        guid = lines.partition("cached GUID ")[2].split()[0]
        dn = lines.partition("created SCP ")[2].partition(" (GUID")[0]
        with self.service():
            for selector in (dn, guid):
                for form in ("dn", "guid"):
                    endpoint = (
                        f"mutauth:scp={selector}:nameserver={self.lab.nameserver}:spn-form={form}"
                    )
                    connected = self.mutauth("connect", "-v", endpoint, given="hello\n")
                    self.assertEqual((connected.code, connected.output), (0, "hello\n"), connected)
                    self.assertIn(
                        dn if form == "dn" else guid,
                        connected.errors.partition("authenticated as")[2],
                    )

    def test_without_the_cached_guid(self) -> None:
        """A service whose cached GUID is lost finds its SCP by its DN, and says so."""
        self.install()
        for file in Path(self.state).iterdir():
            file.unlink()
        with self.service() as service:
            self.assertIn("by its DN", service.log)
