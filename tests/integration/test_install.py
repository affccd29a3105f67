"""The package as pip installs it, away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.integration.commands import CHECKOUT
from tests.integration.support import require_lab

_PARSERS = """
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, serverFromString
print(type(clientFromString(reactor, "mutauth:scp=echoSvc")).__name__)
print(type(serverFromString(reactor, "mutauth:tcp\\\\:0:allow=*@X:keytab=KEYTAB")).__name__)
import mutauth_twisted
print(mutauth_twisted.__file__)
"""


class InstallTests(TestCase):
    """``pip install .`` gives the commands and both parsers from any directory."""

    def setUp(self) -> None:
        self.lab = require_lab()

    def test_installed(self) -> None:
        """The commands' help, Twisted's list of services, and the two endpoint parsers, without the
        checkout.
        """
        place = Path(self.mktemp()).absolute()
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "--target",
            place,
        ]
        subprocess.run([*install, str(CHECKOUT)], check=True, capture_output=True, timeout=60)
        environment = {**os.environ, **self.lab.environment("alice"), "PYTHONPATH": str(place)}

        def run(*words: str) -> str:
            done = subprocess.run(
                words,
                env=environment,
                cwd=place.parent,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout

        self.assertIn("connect", run(str(place / "bin" / "mutauth"), "--help"))
        twistd = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
        self.assertIn("mutauth", run(*twistd, "--help"))
        self.assertIn("--service-class", run(*twistd, "mutauth", "--help"))
        keytab = str(self.lab.keytab("svc-echo"))
        made = run(sys.executable, "-c", _PARSERS.replace("KEYTAB", keytab)).split()
        self.assertEqual(made[:2], ["LocatedEndpoint", "MutualAuthServerEndpoint"])
        self.assertTrue(made[2].startswith(str(place)), made)
        self.assertEqual(list((place / "twisted").rglob("__init__.py")), [])
