"""Defaults that an environment variable sets, the same in every front-end."""

from __future__ import annotations

import os

from twisted.internet.endpoints import clientFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.cli.directory import _usual
from mutauth_twisted.errors import UsageError
from mutauth_twisted.settings.schema import FromEnvironment, Where, options
from mutauth_twisted.settings.twistd import Options

WORDS = ("--service-class", "shop", "--host", "srv1.example.com", "--echo", "--allow-all")


class EnvironmentTests(SynchronousTestCase):
    """MUTAUTH_NAMESERVER and MUTAUTH_STATE_DIR."""

    def set(self, **variables: str) -> None:
        """Have an environment with these variables."""
        self.patch(os, "environ", {**os.environ, **variables})

    def service(self, *words: str) -> tuple[str | None, str]:
        """The name server and the directory of a service."""
        parsed = Options()
        parsed.parseOptions([*WORDS, *words])
        (settings,) = parsed.settings.services
        return settings.directory.nameserver, str(settings.state_dir)

    def test_service(self) -> None:
        """``twistd mutauth`` takes them where it is told nothing else."""
        self.assertEqual(self.service(), (None, "/var/lib/mutauth"))
        self.set(MUTAUTH_NAMESERVER="127.0.9.10", MUTAUTH_STATE_DIR="/lab/state")
        self.assertEqual(self.service(), ("127.0.9.10", "/lab/state"))
        given = self.service("--nameserver", "127.0.8.10", "--state-dir", "/s")
        self.assertEqual(given, ("127.0.8.10", "/s"))
        self.set(MUTAUTH_NAMESERVER="", MUTAUTH_STATE_DIR="")
        self.assertEqual(self.service(), (None, "/var/lib/mutauth"))

    def test_every_front_end(self) -> None:
        """Each option of this name has this default, whoever takes it."""
        self.set(MUTAUTH_NAMESERVER="127.0.9.10")
        for where in Where:
            if (option := options(where).get("nameserver")) is not None:
                self.assertEqual(option.initial, "127.0.9.10", where)

    def test_mistake(self) -> None:
        """An address that is none is named before anything is asked."""
        self.set(MUTAUTH_NAMESERVER="nowhere")
        error = self.assertRaises(
            UsageError, clientFromString, MemoryReactorClock(), "mutauth:scp=shop"
        )
        self.assertIn("nowhere", str(error))

    def test_commands_for_others(self) -> None:
        """A command for somebody else says what his environment may not."""
        default = FromEnvironment("MUTAUTH_STATE_DIR", "/var/lib/mutauth")
        self.set(MUTAUTH_STATE_DIR="/lab/state")
        self.assertEqual((default(), _usual(default)), ("/lab/state", "/var/lib/mutauth"))
