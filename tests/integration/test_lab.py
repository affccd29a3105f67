"""The lab as it runs: its answers, its keys, and what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.internet.defer import inlineCallbacks
from twisted.names import client
from twisted.trial.unittest import SynchronousTestCase, TestCase

import mutauth_twisted
from mutauth_twisted import lab
from mutauth_twisted.lab import Lab, state
from mutauth_twisted.lab.controller import require_free_ports
from mutauth_twisted.lab.state import ProcessIdentity
from tests.integration.support import require_lab

AES = {"aes256-cts-hmac-sha1-96", "aes128-cts-hmac-sha1-96"}
#: Of the labs that tests start beside the one they run in; two test runs do not meet.
OWN_ADDRESS = f"127.0.{100 + os.getpid() % 150}.10"
ROOT = Path(mutauth_twisted.__file__).parent.parent


def output_of(*command: str, environment: dict[str, str]) -> str:
    """Output of a program; its failure fails the test."""
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout


class DirectoryTests(TestCase):
    """The running domain controller."""

    def setUp(self) -> None:
        self.lab = require_lab()

    @inlineCallbacks
    def test_dns(self):
        """Its DNS knows every host, and where LDAP and the Global Catalog are."""
        resolver = client.Resolver(servers=[(self.lab.nameserver, 53)], timeout=(2,))
        for host in (self.lab.dc_host, "srv1.lab.example", "srv2.lab.example", "rogue.lab.example"):
            address = yield resolver.getHostByName(host)
            self.assertEqual(address, self.lab.address_of(host))
        for name, port in (
            ("_ldap._tcp.dc._msdcs", 389),
            ("_gc._tcp", 3268),
            ("_kerberos._tcp", 88),
        ):
            answers, _, _ = yield resolver.lookupService(f"{name}.lab.example")
            (answer,) = answers
            self.assertEqual(
                (str(answer.payload.target), answer.payload.port), (self.lab.dc_host, port)
            )

    def test_tickets(self) -> None:
        """Every account's cache is valid and gets a service ticket."""
        for name in state.ACCOUNTS:
            environment = self.lab.environment(name)
            output_of("klist", "-s", environment=environment)
            output_of("kvno", f"ldap/{self.lab.dc_host}", environment=environment)
            listing = output_of("klist", environment=environment)
            self.assertIn(f"Default principal: {self.lab.principal(name)}", listing)

    def test_keytabs(self) -> None:
        """Every keytab holds the account's own AES keys and nothing else."""
        for name in state.ACCOUNTS:
            listing = output_of(
                "klist", "-ke", str(self.lab.keytab(name)), environment=self.lab.environment()
            )
            entries = re.findall(r"^ +\d+ (\S+) \(([^)]+)\)", listing, re.MULTILINE)
            self.assertEqual({principal for principal, _ in entries}, {self.lab.principal(name)})
            self.assertEqual({key for _, key in entries}, AES)

    def test_secrets(self) -> None:
        """Only root reads keys and passwords, and no log holds a password."""
        self.assertEqual(self.lab.directory.stat().st_mode & 0o777, 0o700)
        logs = "".join(path.read_text("utf-8", "replace") for path in self.lab.log.parent.iterdir())
        for name in state.ACCOUNTS:
            path = self.lab.directory / "passwords" / name
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)
            self.assertEqual(self.lab.keytab(name).stat().st_mode & 0o777, 0o600)
            self.assertGreater(len(self.lab.password(name)), 20)
            self.assertNotIn(self.lab.password(name), logs)

    def test_up_again(self) -> None:
        """A second start finds the lab up, and leaves it as it is."""
        before = state.identity_file(self.lab.directory).read_text()
        result = lab_command("up", "--dir", str(self.lab.directory))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("already up", result.stderr)
        self.assertEqual(state.identity_file(self.lab.directory).read_text(), before)

    def test_env(self) -> None:
        """The printed environment is the one programs get."""
        result = lab_command("env", "--dir", str(self.lab.directory), "--user", "bob")
        expected = [f"export {name}={value}" for name, value in self.lab.environment("bob").items()]
        self.assertEqual(result.stdout.splitlines(), expected)

    def test_run_in_a_lab_that_is_up(self) -> None:
        """A program joins the lab that is up, and its end does not end the lab."""
        result = lab_command(
            "run", "--dir", str(self.lab.directory), "--", "sh", "-c", "klist -s && exit 5"
        )
        self.assertEqual(result.returncode, 5, result.stderr)
        self.assertEqual(Lab.load(self.lab.directory), self.lab)

    def test_address_in_use(self) -> None:
        """A second lab at the same address is refused in one line."""
        directory = Path("/run/mutauth-lab-second")
        result = lab_command("up", "--dir", str(directory), "--address", self.lab.nameserver)
        self.assertEqual(result.returncode, 3)
        self.assertRegex(
            result.stderr,
            r"\Amutauth: \[lab-failed\] TCP port 53 at [0-9.]+: in use by another program; .*\n\Z",
        )
        self.assertFalse(directory.exists())


def lab_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``mutauth lab`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "mutauth_twisted.cli.commands.lab", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )


class KilledRunTests(SynchronousTestCase):
    """A ``run`` of its own, beside the lab of this test run."""

    def setUp(self) -> None:
        require_lab()
        self.directory = Path(tempfile.mkdtemp(prefix="mutauth-lab-"))
        self.addCleanup(lab.down, self.directory)

    def start(self, script: str) -> tuple[subprocess.Popen[str], ProcessIdentity]:
        """Start a lab with a script in it; returns when the script says so."""
        environment = {k: v for k, v in os.environ.items() if k != state.ENVIRONMENT_VARIABLE}
        place = ("--dir", str(self.directory), "--address", OWN_ADDRESS)
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mutauth_twisted.cli.commands.lab",
                "run",
                *place,
                "--",
                "sh",
                "-c",
                script,
            ],
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        assert process.stderr is not None
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        if process.stdout.readline() != "inside\n":
            self.fail(process.stderr.read())
        controller = ProcessIdentity.read(state.identity_file(self.directory))
        assert controller is not None
        self.assertTrue(controller.alive())
        return process, controller

    def assert_gone(self, controller: ProcessIdentity) -> None:
        """The kernel kills the DC right after its starter; nobody holds its ports then."""
        deadline = time.monotonic() + 5
        while controller.alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertFalse(controller.alive())
        require_free_ports(OWN_ADDRESS)

    def test_killed_and_terminated(self) -> None:
        """SIGKILL leaves no process behind; the next run cleans up, and SIGTERM ends it with its
        directory.
        """
        process, controller = self.start("echo inside; exec sleep 600")
        process.kill()
        process.wait()
        # The script held the other end: its end of file is the script's death.
        assert process.stdout is not None
        self.assertEqual(process.stdout.read(), "")
        self.assert_gone(controller)
        self.assertTrue(self.directory.exists())

        process, controller = self.start(
            "trap 'exit 9' TERM; echo inside; while :; do sleep 0.05; done"
        )
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 9)
        self.assertFalse(controller.alive())
        self.assertFalse(self.directory.exists())


class StoppedTests(SynchronousTestCase):
    """A lab that is stopped and started again, at an address of its own choice."""

    def setUp(self) -> None:
        require_lab()
        self.directory = Path(tempfile.mkdtemp(prefix="mutauth-lab-"))
        self.addCleanup(lab.down, self.directory)

    def command(self, *words: str, code: int = 0) -> str:
        """Lines of ``mutauth lab`` on its way to this exit code."""
        ended = lab_command(words[0], "--dir", str(self.directory), *words[1:])
        self.assertEqual(ended.returncode, code, ended.stderr)
        return ended.stderr

    def test_stopped_and_started(self) -> None:
        """Nothing is lost: a stopped lab is not replaced, and comes back with its accounts and
        keys, at its address.
        """
        said = self.command("up", "--address", "auto")
        made = Lab.load(self.directory)
        self.assertNotEqual(made.nameserver, require_lab().nameserver)
        self.assertIn(f"srv1.lab.example is {made.address_of('srv1')}", said)
        smb_conf = str(self.directory / "samba" / "etc" / "smb.conf")
        tool = ("samba-tool", "user", "add", "carol", "Pass-word-1", "-s", smb_conf)
        output_of(*tool, environment=made.environment("administrator"))
        controller = ProcessIdentity.read(state.identity_file(self.directory))
        assert controller is not None

        self.assertIn("the lab is stopped", self.command("stop"))
        self.assertFalse(controller.alive())
        self.assertIn("no lab is running", self.command("stop"))
        for words in (("up",), ("up", "--address", "auto"), ("run", "--", "true")):
            said = self.command(*words, code=3)
            self.assertIn(f"`mutauth lab start --dir {self.directory}` starts it again", said)
        ended = lab_command("env", "--dir", str(self.directory))
        self.assertEqual(ended.returncode, 0, ended.stderr)
        remedy = f"start it with `mutauth lab start --dir {self.directory}`"
        self.assertEqual(ended.stderr, f"mutauth: the lab is stopped; {remedy}\n")
        printed = dict(
            line.removeprefix("export ").split("=", 1) for line in ended.stdout.split("\n") if line
        )
        self.assertEqual(printed, made.environment())
        self.assertEqual(printed["MUTAUTH_SRV1"], made.address_of("srv1"))
        with socket.create_server((made.nameserver, 53)):
            self.assertIn("in use by another program", self.command("start", code=3))

        self.command("start")
        self.assertEqual(Lab.load(self.directory), made)
        self.assertIn("already up", self.command("start"))
        kinit = ("kinit", "-k", "-t", str(made.keytab("svc-echo")), made.principal("svc-echo"))
        output_of(*kinit, environment=made.environment())
        users = output_of("samba-tool", "user", "list", "-s", smb_conf, environment={})
        self.assertIn("carol", users.split())
        self.command("down")
        self.assertFalse(self.directory.exists())
        self.assertIn("mutauth lab up", self.command("start", code=3))
        self.assertIn("mutauth lab up", self.command("env", code=3))
