"""The configuration file: several services, and every mistake with its file, line and key."""

from __future__ import annotations

import io
import os
import sys
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import UsageError
from mutauth_twisted.settings.configfile import parse_config, read_config
from mutauth_twisted.settings.mistakes import Mistakes
from mutauth_twisted.settings.process import ProcessSettings
from mutauth_twisted.settings.twistd import Options
from tests.support.directories import own_directory

GOOD = """\
status = "tcp:8080:interface=127.0.0.1"

[defaults]
host = "srv1.example.com"
allow = ["*@EXAMPLE.COM"]

[service.shop]
service-class = "shop"
keytab = "/etc/shop.keytab"
forward = "tcp:127.0.0.1:5432"
listen = ["tcp:9000"]

[service.echo]
service-class = "echoSvc"
keytab = "/etc/echo.keytab"
echo = true
allow = ["alice@EXAMPLE.COM"]
"""


class Case(SynchronousTestCase):
    """With a file of its own."""

    def setUp(self) -> None:
        self.path = own_directory(self) / "mutauth.toml"

    def read(self, text: str | bytes) -> ProcessSettings:
        """Services that a file with this text describes."""
        self.path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_config(str(self.path))

    def mistakes(self, text: str | bytes) -> list[str]:
        """The lines of all errors, without the file's path."""
        try:
            self.read(text)
        except Mistakes as error:
            found = error.errors
        except UsageError as error:
            found = (error,)
        else:
            self.fail(f"nothing is wrong with {text!r}")
        for each in found:
            self.assertEqual(each.exit_code, 2)
            self.assertIn(str(self.path), str(each))
        return [str(each).replace(str(self.path), "F").partition("known: ")[0] for each in found]


class GoodTests(Case):
    """Services that it describes."""

    def test_services(self) -> None:
        """Each table is a service of its own; what it does not say, the defaults do."""
        process = self.read(GOOD)
        self.assertEqual(process.status, "tcp:8080:interface=127.0.0.1")
        shop, echo = process.services
        self.assertEqual((shop.name, echo.name), ("shop", "echo"))
        self.assertEqual((shop.keytab, echo.keytab), ("/etc/shop.keytab", "/etc/echo.keytab"))
        self.assertEqual(shop.serve, ("forward", "tcp:127.0.0.1:5432"))
        self.assertEqual(shop.service.host, "srv1.example.com")
        self.assertTrue(shop.policy.permits("bob@EXAMPLE.COM"))
        self.assertFalse(echo.policy.permits("bob@EXAMPLE.COM"))
        self.assertTrue(echo.policy.permits("alice@EXAMPLE.COM", lambda: None) is False)

    def test_the_same_as_a_command_line(self) -> None:
        """A service of a file is the one that a command line with these options describes."""
        options = Options()
        options.parseOptions(
            (
                *("--service-class=shop", "--keytab=/etc/shop.keytab", "--host=srv1.example.com"),
                *("--forward=tcp:127.0.0.1:5432", "--listen=tcp:9000", "--allow=*@EXAMPLE.COM"),
                "--status=tcp:8080:interface=127.0.0.1",
            )
        )
        process = self.read(GOOD)
        self.assertEqual(process.services[0], options.settings.services[0])
        self.assertEqual(process.status, options.settings.status)

    def test_lines_do_not_count(self) -> None:
        """A comment more changes no service, so that none is reloaded for it."""
        self.assertEqual(self.read(GOOD), self.read("# a comment\n\n" + GOOD))

    def test_a_default_that_is_replaced(self) -> None:
        """A flag of the defaults can be taken back."""
        text = GOOD.replace("[defaults]", "[defaults]\naccept-replays = true")
        shop, echo = self.read(text + "accept-replays = false\n").services
        self.assertTrue(shop.package_options["accept-replays"])
        self.assertFalse(echo.package_options["accept-replays"])


class MistakeTests(Case):
    """Mistakes that it refuses, and where it says that they are."""

    def test_each(self) -> None:
        """One mistake, one line: the file, the line, the table, the key, and the next step."""
        unknown = "there is no such key here"
        for old, new, expected in (
            ("status", "statu", f"F:1: key statu: {unknown}; did you mean status?"),
            ("[service.shop]", "[servce.shop]", f"F:7: key servce: {unknown}; did you mean serv"),
            (
                "status =",
                "echo = true\nstatus =",
                f"F:1: key echo: {unknown}; move it into [se",
            ),
            ("status = ", "status = 1 #", "F:1: key status = 1: it is an integer; give it a str"),
            ("host", "hots", f"F:4: [defaults] key hots: {unknown}; did you mean host?"),
            ('["*@EXAMPLE.COM"]', "[1]", "F:5: [defaults] key allow = [1]: it is something else"),
            ("*@EX", "EX", 'F:5: [defaults] key allow = "EXAMPLE.COM": it names no realm; write '),
            ('\nservice-class = "shop"', "", "F:7: [service.shop] key service-class: it is missi"),
            (
                'allow = ["alice@EXAMPLE.COM"]',
                "allow-all = false\nallow-group = []",
                "F:18: [service.echo] key allow-group = []: it is empty",
            ),
            ("forward", "foward", f"F:10: [service.shop] key foward: {unknown}; did you mean forw"),
            ("forward", "echo", 'F:10: [service.shop] key echo = "tcp:127.0.0.1:5432": it is a st'),
            ("echo = true", "status = 'x'", f"F:16: [service.echo] key status: {unknown}; move it"),
            ("echo = true", "", "F:13: [service.echo] key echo: nothing is there to serve; give e"),
            (
                "echo = true",
                'echo = true\ntls-key = "/k"',
                "F:17: [service.echo] key tls-key: it means nothing without tls-cert; add tls-cert",
            ),
            ("[service.shop]", '[service."a b"]', "F:7: [service] key a b: it is not a name for a"),
            (
                "[defaults]\n",
                "[[defaults]]\n",
                "F:3: key defaults: it is not a table; write [d",
            ),
            ("status =", "service = ", "F:7: it is not valid TOML"),
            ("host = ", "host = srv1", "F:4: it is not valid TOML: Invalid value; correct it"),
            ("[defaults]", "x = [", "F:4: it is not valid TOML: "),
        ):
            lines = self.mistakes(GOOD.replace(old, new, 1))
            self.assertTrue(any(line.startswith(expected) for line in lines), (new, lines))

    def test_one_line_each(self) -> None:
        """No mistake is told twice, and none brings others that only follow from it."""
        for old, new in (
            ('"srv1.example.com"', "1"),
            ("[service.echo]", "[service.echo]\nweight = 65536"),
            ("[service.echo]", '[service.echo]\nprotection = "tsl"\ntls-cert = "/c"'),
            (
                "[service.echo]",
                '[service.echo]\npackage = "krb"\ntls-cert = "/c"\nprotection = "tls"',
            ),
            ('["alice@EXAMPLE.COM"]', '["alice"]'),
            ("echo = true", 'echo = "yes"'),
            ('service-class = "shop"', 'service-class = "sh/op"'),
        ):
            self.assertEqual(len(self.mistakes(GOOD.replace(old, new, 1))), 1, new)

    def test_all_of_them(self) -> None:
        """Every mistake is told, in whichever table it is."""
        text = (
            GOOD.replace("status", "statu")
            .replace("[defaults]\n", "[defaults]\nweigth = 1\n")
            .replace("listen", "listn")
            .replace("echo = true", "wire = 'pigeon'")
            + "weight = -1\n"
        )
        lines = self.mistakes(text)
        places = {line.split(": ")[0] for line in lines}
        self.assertEqual(places, {"F:1", "F:4", "F:12", "F:14", "F:17", "F:19"})
        self.assertEqual(len(lines), 6)

    def test_no_service(self) -> None:
        """There is something to serve."""
        self.assertEqual(
            self.mistakes("status = 'tcp:1'"),
            ["configuration file F: it describes no service; add a table [service.NAME]"],
        )
        self.assertEqual(
            self.mistakes("service = 1"),
            ["F:1: key service: it is not a table; write [service.NAME]"],
        )
        self.assertEqual(
            self.mistakes("[service]\nx = 1"),
            [
                "F:2: [service] key x: it is not a table; write [service.NAME] above the options "
                "of a service"
            ],
        )

    def test_two_want_the_same(self) -> None:
        """Neither a port nor an object of the directory is for two services."""
        two = GOOD + 'listen = ["tcp:0", "tcp:9000"]\n'
        (line,) = self.mistakes(two)
        self.assertEqual(
            line,
            'F:18: [service.echo] key listen = "tcp:9000": [service.shop] has the same; give each '
            "service its own listen",
        )
        (line,) = self.mistakes(GOOD.replace('"echoSvc"', '"Shop"'))
        self.assertIn('key scp-name = "Shop": [service.shop] has the same', line)
        named = GOOD.replace('"echoSvc"', '"shop"\nscp-name = "shop2"')
        self.assertEqual(len(self.read(named).services), 2)
        off = GOOD.replace('"echoSvc"', '"shop"\npublish = "none"')
        self.assertEqual(len(self.read(off).services), 2)
        ident = GOOD.replace("[service.echo]", 'ident-address = "127.0.0.5"\n\n[service.echo]')
        ident = ident.replace("echo = true", 'forward = "tcp:127.0.0.1:7"\n{}')
        (line,) = self.mistakes(ident.format('ident-address = "127.0.0.5:1113"'))
        self.assertIn("[service.shop] has the same; give each service its own ident-address", line)
        other = self.read(ident.format('ident-address = "127.0.0.6"'))
        self.assertEqual(
            [service.ident_address for service in other.services],
            [("127.0.0.5", 113), ("127.0.0.6", 113)],
        )
        any_port = GOOD.replace('"tcp:9000"', '"tcp:0"') + 'listen = ["tcp:0"]\n'
        self.assertEqual(len(self.read(any_port).services), 2)

    def test_lists(self) -> None:
        """A list to be added is written as a file has it."""
        (line,) = self.mistakes(GOOD.replace('allow = ["*@EXAMPLE.COM"]', ""))
        self.assertIn(
            'key allow: the access policy allows no client; add allow = ["PATTERN"]', line
        )

    def test_files(self) -> None:
        """Files that cannot be read, and those that others could write."""
        self.assertIn("it is not UTF-8", self.mistakes(b"\xff")[0])
        self.assertIn("nested too deeply", self.mistakes("x = " + "[" * 5000)[0])
        self.path.unlink()
        error = self.assertRaises(UsageError, parse_config, str(self.path))
        self.assertEqual(error.code, "config-unusable")
        self.assertIn("no such file or directory; check its path", str(error))
        self.path.write_text(GOOD)
        self.path.chmod(0o666)
        error = self.assertRaises(UsageError, parse_config, str(self.path))
        self.assertEqual(error.code, "config-writable")
        self.assertIn(f"run chmod go-w {self.path}", str(error))
        self.path.unlink()
        os.mkfifo(self.path)  # not waited for
        error = self.assertRaises(UsageError, parse_config, str(self.path))
        self.assertIn("it is not a regular file", str(error))


class CommandLineTests(Case):
    """``--config`` and ``--check``."""

    def run_options(self, *words: str) -> tuple[Options, str]:
        """The options, or None where the process ended, and what was written."""
        errors = io.StringIO()
        options = Options()
        with mock.patch.object(sys, "stderr", errors):
            try:
                options.parseOptions(words)
            except SystemExit as error:
                self.assertEqual(error.code, 2)
                return options, errors.getvalue()
        return options, ""

    def test_config(self) -> None:
        """It is read again as often as it is asked for."""
        self.path.write_text(GOOD)
        options, said = self.run_options("--config", str(self.path))
        self.assertEqual((said, options.only_check), ("", False))
        self.assertEqual(options.settings, read_config(str(self.path)))
        self.path.write_text(GOOD.replace("9000", "9001"))
        settings, told = options.load()
        self.assertEqual(settings.services[0].listen, ("tcp:9001",))
        self.assertEqual(told.errors, [])

    def test_every_mistake_has_a_line(self) -> None:
        """Also at a start."""
        self.path.write_text(GOOD.replace("status", "statu").replace("listen", "listn"))
        _, said = self.run_options("--config", str(self.path))
        first, second = said.splitlines()
        self.assertTrue(first.startswith(f"mutauth: {self.path}:"), first)
        self.assertTrue(second.startswith(f"mutauth: {self.path}:"), second)

    def test_only_check(self) -> None:
        """Mistakes end nothing, so that files are checked as well."""
        self.path.write_text(GOOD.replace("listen", "listn"))
        options, said = self.run_options("--config", str(self.path), "--check")
        self.assertEqual((said, options.only_check), ("", True))
        self.assertEqual(len(options.told.errors), 1)
        self.assertEqual([each.name for each in options.settings.services], ["echo"])
        options, _ = self.run_options("--echo", "--check", "--weight=65536", "--host=h.x")
        self.assertEqual(len(options.told.errors), 3)
        options, _ = self.run_options("--config", "/nonexistent", "--check")
        self.assertEqual(len(options.told.errors), 1)

    def test_nothing_beside_it(self) -> None:
        """Options that would be overruled, or would overrule, are refused."""
        self.path.write_text(GOOD)
        for words in (("--echo",), ("--status", "tcp:1"), ("--allow", "*@R")):
            _, said = self.run_options("--config", str(self.path), *words)
            name = words[0]
            self.assertIn(f"mutauth: {name}: the configuration file has all options; write", said)
        _, said = self.run_options("--config", "")
        self.assertIn("--config: it is empty", said)

    def test_config_is_no_key(self) -> None:
        """A file names no other, and does not ask for its own check."""
        for key in ("config = 'x'", "check = true"):
            name = key.split()[0]
            (line,) = self.mistakes(f"{key}\n{GOOD}")
            self.assertIn(f"F:1: key {name}: there is no such key here", line)
