"""Stopping while what a process reads does not answer: name servers, and FIFOs for files."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

from mutauth_twisted.service.exitcode import CUT
from tests.integration.commands import STOPPED, WAIT, CommandTestCase, Running

_HANGING = """
import socket, time
_usual = socket.getaddrinfo
def getaddrinfo(host, *args, **kwargs):
    if str(host).endswith(".hung.example"):
        print("asking for", host, flush=True)
        time.sleep(60)
    return _usual(host, *args, **kwargs)
socket.getaddrinfo = getaddrinfo
"""


class NameTests(CommandTestCase):
    """A system resolver that does not answer for a minute, as with nameservers that are gone."""

    def environment(self, user: str, **changes: str) -> dict[str, str]:
        usual = super().environment(user, **changes)
        Path(self.state, "sitecustomize.py").write_text(_HANGING, "utf-8")
        return {**usual, "PYTHONPATH": os.pathsep.join((self.state, usual["PYTHONPATH"]))}

    def ends(self, running: Running, code: int) -> None:
        """SIGTERM ends it before any look-up could."""
        process = running.process
        self.addCleanup(process.kill)
        process.send_signal(signal.SIGTERM)
        log = running.log + process.communicate(timeout=STOPPED)[0]
        self.assertEqual(process.returncode, code, log)
        for word in ("Traceback", "internal error", "Unhandled"):
            self.assertNotIn(word, log)
        self.assertEqual(log.count("asking for"), 1, log)

    def read_until_asked(self, running: Running) -> None:
        assert running.process.stdout is not None
        killer = threading.Timer(WAIT, running.process.kill)
        killer.start()
        try:
            while "asking for" not in running.log:
                line = running.process.stdout.readline()
                self.assertTrue(line, running.log)
                running.lines.append(line)
        finally:
            killer.cancel()

    def test_forward(self) -> None:
        """However many clients have come for a plain service whose name hangs, it is asked for
        once, and SIGTERM ends it.
        """
        backend = ("--forward", "tcp:db.hung.example:5432", "--unsafe-backend")
        words = ("--publish", "none", "--spn-check", "off", *backend)
        endpoint = (
            f"mutauth:tcp\\:{self.lab.address_of(self.host)}\\:{{}}:"
            f"spn={self.service_class}/{self.host}"
        )
        self.assertEqual(self.install("--spn-form", "guid,dn,host").code, 0)
        with self.service(*words) as service:
            for _ in range(3):
                client = self.begin(
                    *("mutauth", "connect", endpoint.format(service.port)),
                    stdin=subprocess.PIPE,
                )
                self.addCleanup(client.communicate)
                self.addCleanup(client.kill)
            self.read_until_asked(service)
            while service.log.count("authenticated as alice") < 3:
                service.lines.append(service.process.stdout.readline())  # type: ignore[union-attr]
            self.ends(service, CUT)

    def test_directory(self) -> None:
        """The name of a domain controller that hangs does not hold up the end of a service that
        starts.
        """
        self.assertEqual(self.install().code, 0)
        words = [
            word
            for word in self.service_words("--directory", "ldap://dc1.hung.example")
            if word != "--nameserver"
        ]
        words.remove(self.lab.nameserver)
        process = self.begin("twistd", *words, stderr=subprocess.STDOUT)
        starting = Running(process, [])
        self.read_until_asked(starting)
        self.ends(starting, 0)

    def test_connect(self) -> None:
        """Nor does that of the service to which connect --listen leads."""
        endpoint = f"mutauth:tcp\\:srv1.hung.example\\:99:spn={self.service_class}/{self.host}"
        self.assertEqual(self.install("--spn-form", "guid,dn,host").code, 0)
        with self.forwarder(endpoint) as forwarder:
            for _ in range(3):
                waiting = socket.create_connection(("127.0.0.1", forwarder.port), WAIT)
                self.addCleanup(waiting.close)
            self.read_until_asked(forwarder)
            self.ends(forwarder, 130)


class FileTests(CommandTestCase):
    """FIFOs in the place of the files that a service reads."""

    def test_at_start(self) -> None:
        """A service whose file is a FIFO says so and ends."""
        self.assertEqual(self.install().code, 0)
        fifo = f"{self.state}/fifo"
        os.mkfifo(fifo, 0o600)
        ntlm = (
            "--package",
            "ntlm-service-unproven",
            "--publish",
            "none",
            "--spn-check",
            "off",
            "--ntlm-users",
            fifo,
        )
        authority = ("--directory-ca", fifo, "--directory", f"ldaps://dc1.{self.lab.realm.lower()}")
        for options, code in (
            (("--keytab", fifo), 4),
            (("--protection", "tls", "--tls-cert", fifo), 4),
            (authority, 2),
        ):
            self.refused(self.start_refused(*options), code, fifo, "it is not a regular file")
        words = [
            word
            for word in self.service_words(*ntlm)
            if word not in ("--keytab", str(self.lab.keytab("svc-echo")))
        ]
        self.refused(self.command("twistd", *words), 4, fifo, "it is not a regular file")
        checked = f"{self.endpoint}:protection=tls:tls-ca={fifo}"
        self.refused(self.mutauth("connect", checked), 2, fifo, "it is not a regular file")

    def test_state_file(self) -> None:
        """One in the place of the cached GUID ends the start and the installer's commands with a
        line.
        """
        self.assertEqual(self.install().code, 0)
        (cached,) = Path(self.state).glob("scp-*.json")
        content = cached.read_bytes()
        cached.unlink()
        os.mkfifo(cached)
        ended = self.start_refused()
        self.assertEqual(ended.code, 3, ended)
        self.assertIn("it is not a regular file", ended.output + ended.errors)
        self.refused(
            self.mutauth("uninstall", *self.common, *self.directory, user="administrator"),
            3,
            str(cached),
        )
        cached.unlink()
        cached.write_bytes(content)

    def test_while_it_runs(self) -> None:
        """A keytab in whose place a FIFO comes denies clients, and neither the status port nor
        SIGTERM.
        """
        keytab = Path(self.state) / "service.keytab"
        keytab.write_bytes(self.lab.keytab("svc-echo").read_bytes())
        self.assertEqual(self.install().code, 0)
        with self.service(
            "--keytab", str(keytab), "--status", "tcp:0:interface=127.0.0.1"
        ) as service:
            line = next(line for line in service.lines if "status on" in line)
            keytab.unlink()
            os.mkfifo(keytab)
            self.assertNotEqual(self.mutauth("connect", self.endpoint, given="hello\n").code, 0)
            with socket.create_connection(
                ("127.0.0.1", int(line.rpartition(":")[2])), WAIT
            ) as watcher:
                watcher.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: watcher.recv(4096), b"")).decode()
            self.assertIn("NOT healthy", answer)
            self.assertIn(f"keytab {keytab}: it cannot be read: it is not a regular file", answer)
            self.assertEqual(service.stop(), 0)
