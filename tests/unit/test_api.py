"""The public API: what the package exports, and what importing it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import mutauth_twisted
from mutauth_twisted.endpoints.located import LocatedEndpoint


def words_of(program: str) -> list[str]:
    """Words that a program prints in an interpreter of its own."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


class ApiTests(SynchronousTestCase):
    """The package's own names."""

    def test_each_is_there(self) -> None:
        """Every public name is found, where a type checker is told that it is."""
        declared = {}
        for node in ast.walk(ast.parse(Path(mutauth_twisted.__file__).read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mutauth_"):
                declared |= {alias.name: node.module for alias in node.names}
        self.assertEqual(sorted(declared), mutauth_twisted.__all__)
        for name, module in declared.items():
            value = getattr(mutauth_twisted, name)
            self.assertIs(value, getattr(sys.modules[module], name))
            self.assertTrue(isinstance(value, dict) or value.__doc__, f"{name}: no docstring")

    def test_located(self) -> None:
        """A service is found by the same options as in an endpoint string."""
        self.patch(LocatedEndpoint, "__init__", lambda *given, **more: self.given.append(given[3]))
        self.given: list[Any] = []
        options = {
            "spn_form": "guid",
            "hosts": ["*.example.com", "srv1"],
            "nameserver": "127.0.0.1",
        }
        found = mutauth_twisted.located(None, scp="echoSvc", cache=1, **options)
        self.assertIsInstance(found, LocatedEndpoint)
        self.assertEqual(self.given[0].hosts, "*.example.com,srv1")
        for wrong in ({}, {"scp": "echoSvc", "spn_from": "guid"}, {"scp": "echoSvc", "cache": "x"}):
            self.assertRaises(mutauth_twisted.UsageError, mutauth_twisted.located, None, **wrong)

    def test_no_other(self) -> None:
        """A name that is not public is missing as from any module."""
        self.assertRaises(AttributeError, getattr, mutauth_twisted, "HandshakeProtocol")
        self.assertIn("SPN", dir(mutauth_twisted))

    def test_loads_nothing(self) -> None:
        """Importing the package loads neither Twisted nor any of its parts."""
        shown = "import mutauth_twisted, sys; print(*sys.modules)"
        parts = [
            name for name in words_of(shown) if name.startswith(("mutauth_twisted.", "twisted."))
        ]
        self.assertEqual(parts, [])

    def test_without_ntlm(self) -> None:
        """Nobody who does not ask for NTLM loads it."""
        shown = (
            "import mutauth_twisted as api, sys\n"
            "[getattr(api, name) for name in api.__all__ if name != 'NtlmCredentials']\n"
            "import mutauth_twisted.endpoints.strings, mutauth_twisted.service.tap\n"
            "print(*(name for name in sys.modules if 'ntlm' in name))"
        )
        self.assertEqual(words_of(shown), [])

    def test_help_is_cheap(self) -> None:
        """``mutauth --help`` loads neither Twisted nor what talks to a KDC or a directory."""
        shown = (
            "import sys\n"
            "from mutauth_twisted.cli.main import main\n"
            "sys.argv[1:] = ['--help']\n"
            "try:\n    main(prog_name='mutauth')\n"
            "except SystemExit:\n    print(*sys.modules)"
        )
        loaded = words_of(shown)
        self.assertIn("click", loaded)
        heavy = {
            "twisted",
            "zope.interface",
            "gssapi",
            "krb5",
            "ldap3",
            "spnego",
            "rich",
            "asyncio",
        }
        self.assertEqual(heavy & set(loaded), set())
