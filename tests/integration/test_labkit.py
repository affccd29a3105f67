"""The kit for tests in the lab, as other projects use it: with trial, unittest and pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase, TestCase

from mutauth_twisted.lab import LabError, serving, state
from tests.integration.commands import CHECKOUT
from tests.integration.support import require_lab

_MIXED = """
from twisted.trial.unittest import TestCase

from mutauth_twisted import AuthenticationError
from mutauth_twisted.testing import LabMixin, RecorderFactory


class ShopTests(LabMixin, TestCase):
    async def test_connect(self):
        service = self.serve("{name}", "--echo", "--allow-group", "echo-users")
        protocol = await self.client_of(service).connect(RecorderFactory())
        self.assertEqual(protocol.transport.peer_identity.spn.service_class, "{name}")
        self.assertEqual(protocol.transport.getPeer().host, self.lab.address_of("srv1"))


class StrangerTests(LabMixin, TestCase):
    user = "bob"

    async def test_refused(self):
        service = self.serve("{name}b", "--echo", "--allow-group", "echo-users")
        with self.assertRaises(AuthenticationError):
            await self.client_of(service).connect(RecorderFactory())
        self.assertIn("bob", service.wait_for("access-denied"))
"""

_FIXTURES = """
import subprocess, sys


def test_echo(mutauth_lab, mutauth_serve):
    service = mutauth_serve("{name}", "--echo", "--allow", mutauth_lab.principal("alice"))
    done = subprocess.run(
        [sys.executable, "-m", "mutauth_twisted.cli", "connect", service.endpoint],
        input="hello\\n", capture_output=True, text=True,
    )
    assert (done.returncode, done.stdout) == (0, "hello\\n"), done.stderr
"""


class KitTests(SynchronousTestCase):
    """Test files of another project, and its test runners."""

    def setUp(self) -> None:
        self.lab = require_lab()
        self.directory = Path(tempfile.mkdtemp(prefix="mutauth-test-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.name = "t" + os.urandom(4).hex()

    def run_tests(self, text: str, *words: str, own_lab: bool = False) -> str:
        """Output of a runner on a test file, all of whose tests have to pass."""
        (self.directory / "test_shop.py").write_text(text.replace("{name}", self.name))
        environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT}:{self.directory}"}
        if own_lab:
            del environment[state.ENVIRONMENT_VARIABLE]
        done = subprocess.run(
            [sys.executable, "-m", *words],
            env=environment,
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def test_trial(self) -> None:
        """A mixin starts services, and logs on as the user that the case names."""
        said = self.run_tests(_MIXED, "twisted.trial", "test_shop")
        self.assertIn("successes=2", said)

    def test_pytest(self) -> None:
        """Fixtures are found by themselves, and a lab is started and ended where there is none."""
        words = ("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:twisted", "test_shop.py")
        if not any("pytest11" in str(each) for each in _entry_points()):
            words = (*words, "-p", "mutauth_twisted.testing.pytest_plugin")
        self.assertIn("1 passed", self.run_tests(_FIXTURES, *words, own_lab=True))


def _entry_points() -> list[object]:
    from importlib.metadata import entry_points

    return [each for each in entry_points(group="pytest11") if each.name == "mutauth"]


class RefusedTests(TestCase):
    """Services that cannot be started."""

    def test_last_line(self) -> None:
        """The cause is the service's own line."""
        service = serving(require_lab(), "t" + os.urandom(4).hex(), "--echo")
        with self.assertRaises(LabError) as raised, service:
            self.fail("it serves")
        self.assertIn("the access policy allows no client", str(raised.exception))
