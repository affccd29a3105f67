"""A mechanism, wire or option that is registered once is found in every front-end's help, and in
the reference.
"""

from __future__ import annotations

import io
import re
import sys
import tomllib
from pathlib import Path
from unittest import mock

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.cli import commands, main
from mutauth_twisted.cli.configreference import every_key
from mutauth_twisted.cli.reference import reference
from mutauth_twisted.errors import UsageError
from mutauth_twisted.mechanisms import MECHANISMS
from mutauth_twisted.settings.configfile import parse_config
from mutauth_twisted.settings.schema import Where, options
from mutauth_twisted.settings.toml import TOML
from mutauth_twisted.settings.twistd import options_class
from mutauth_twisted.wire import NNS, WIRES
from tests.support.directories import own_directory
from tests.support.mechanism import FAKE
from tests.unit.cli.cli_case import invoke

ROOT = Path(__file__).resolve().parents[3]
PIGEON = '''"""Send a pigeon to a service."""

import click


@click.command()
@click.option("--color", help="Color of the pigeon.")
def pigeon(color):
    """Send a pigeon to a service."""
    click.echo(f"sent a {color} pigeon")
'''


def words(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


class ReferenceTests(SynchronousTestCase):
    """The document."""

    def test_up_to_date(self) -> None:
        """It says what the schema and the commands say now; `make reference` writes it."""
        written = (ROOT / "docs/reference/options.md").read_text(encoding="utf-8")
        self.assertEqual(written, reference())


class EveryKeyTests(SynchronousTestCase):
    """The configuration file with every key."""

    def read(self, text: str) -> list[str]:
        """Mistakes in a file of this text."""
        path = own_directory(self) / "mutauth.toml"
        path.write_text(text)
        return [str(error) for error in parse_config(str(path))[1].errors]

    def test_up_to_date(self) -> None:
        """It says what the schema says now; `make reference` writes it."""
        written = (ROOT / "docs/reference/mutauth.toml").read_text(encoding="utf-8")
        self.assertEqual(written, every_key())

    def test_right_as_it_is(self) -> None:
        """Nothing is wrong with it."""
        self.assertEqual(self.read(every_key()), [])

    def test_every_key(self) -> None:
        """Each is there once, and with the comment sign removed has a value of its type."""
        text = re.sub(r"^#(?=[a-z])", "", every_key(), flags=re.MULTILINE)
        document = tomllib.loads(text)
        service = document["service"]["NAME"]
        self.assertEqual(service.keys(), options(Where.SERVICE).keys())
        top = document.keys() - {"service", "defaults"}
        self.assertEqual(top, options(Where.PROCESS).keys())
        for form, table in ((Where.SERVICE, service), (Where.PROCESS, document)):
            for name, option in options(form).items():
                TOML.raw(option, table[name])


class OneMoreTests(SynchronousTestCase):
    """A wire, a package and a sub-command that nothing but their registration names."""

    def twistd_help(self) -> str:
        output = io.StringIO()
        with mock.patch.object(sys, "stdout", output):
            self.assertRaises(SystemExit, options_class()().parseOptions, ["--help"])
        return words(output.getvalue())

    def string_errors(self, keyword: str) -> list[str]:
        """Words of clients' and servers' strings about a keyword."""
        texts = (
            (clientFromString, f"mutauth:tcp\\:a\\:1:spn=a/b:{keyword}"),
            (serverFromString, f"mutauth:tcp\\:1:allow-all=yes:{keyword}"),
        )
        reactor = MemoryReactorClock()
        return [str(self.assertRaises(UsageError, make, reactor, text)) for make, text in texts]

    def test_a_wire(self) -> None:
        """One entry of WIRES."""
        with mock.patch.dict(WIRES, {"pigeon": NNS}):
            for text in (
                self.twistd_help(),
                words(invoke("connect", "--help").stdout),
                words(reference()),
            ):
                self.assertIn("nns, winsock or pigeon.", text)
            for text in self.string_errors("wire=falcon"):
                self.assertIn("use nns or winsock or pigeon", text)
        self.assertNotIn("pigeon", reference())

    def test_a_package(self) -> None:
        """One entry of MECHANISMS, with an option that it alone has."""
        with mock.patch.dict(MECHANISMS, {FAKE.name: FAKE}):
            for text in (
                self.twistd_help(),
                words(invoke("connect", "--help").stdout).replace("- ", "-"),
                words(reference()),
            ):
                self.assertIn(f"or fake ({FAKE.summary}).", text)
                self.assertIn("fake-word", text)
                self.assertIn("for package fake.", text)
            for text in self.string_errors("package=other"):
                self.assertIn("ntlm-service-unproven or fake", text)
            for text in self.string_errors("fake-wrd=a"):
                self.assertIn("did you mean fake-word?", text)

    def test_a_command(self) -> None:
        """One file, which the help of mutauth does not import."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "pigeon.py").write_text(PIGEON, encoding="utf-8")
        self.addCleanup(sys.modules.pop, "mutauth_twisted.cli.commands.pigeon", None)
        self.assertEqual(invoke("pigeon").exit_code, 2)
        with mock.patch.object(commands, "__path__", [*commands.__path__, str(directory)]):
            listed = words(invoke("--help").stdout)
            self.assertIn("pigeon Send a pigeon to a service.", listed)
            self.assertNotIn("mutauth_twisted.cli.commands.pigeon", sys.modules)
            self.assertEqual(invoke("pigeon", "--color", "grey").stdout, "sent a grey pigeon\n")
            text = reference()
            self.assertIn("| `mutauth pigeon` | Send a pigeon to a service. |", text)
            self.assertIn("| `--color TEXT` | Color of the pigeon. |", text)

    def test_lines_of_commands(self) -> None:
        """The line of every sub-command is a sentence that fits in the help."""
        listed = invoke("--help").stdout
        for name in main.names():
            self.assertRegex(main.summary(name), r"^[A-Z][^\n]{10,90}\.$")
            self.assertIn(f"  {name} ", listed)
