"""``--check``: every file is tried as the start would, and none is left behind."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from unittest import mock

from mutauth_twisted.service.tap import makeService
from mutauth_twisted.settings.twistd import Options
from mutauth_twisted.testing.certificates import Certificates
from tests.support.directories import own_directory
from tests.unit.kerberos_case import Case


class CheckTests(Case):
    """A file with two services, whose files are there."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = own_directory(self)
        self.path = self.directory / "mutauth.toml"
        self.state = self.directory / "state"
        self.state.mkdir(mode=0o700)
        self.patch_environment("KRB5RCACHEDIR", "")
        certificates = Certificates(self.directory / "certificates")
        self.certificate = Path(certificates.issue("srv1.example.com"))
        self.foreign_key = Path(certificates.issue("other.example.com"))
        keytabs = map(self.realm.keytab, ("svc-echo", "svc-other"))
        for each in (self.certificate, self.foreign_key, *map(Path, keytabs)):
            each.chmod(0o600)
        self.text = f"""\
status = "tcp:0:interface=127.0.0.1"
[defaults]
host = "srv1.example.com"
allow-all = true
state-dir = "{self.state}"
[service.shop]
service-class = "shop"
keytab = "{Path(self.realm.keytab("svc-echo")).absolute()}"
protection = "tls"
tls-cert = "{self.certificate}"
forward = "tcp:127.0.0.1:5432"
[service.echo]
service-class = "echoSvc"
keytab = "{Path(self.realm.keytab("svc-other")).absolute()}"
echo = true
audit = "{self.directory}/audit.log"
"""

    def patch_environment(self, name: str, value: str) -> None:
        patched = mock.patch.dict("os.environ", {name: value})
        patched.start()
        self.addCleanup(patched.stop)

    def check(self, text: str) -> tuple[object, list[str], str]:
        """The exit code, the lines about mistakes, and what is said when there are none."""
        self.path.write_text(text)
        before = sorted(self.directory.rglob("*"))
        errors, said = io.StringIO(), io.StringIO()
        with mock.patch.object(sys, "stderr", errors), mock.patch.object(sys, "stdout", said):
            options = Options()
            options.parseOptions(["--config", str(self.path), "--check"])
            code = self.assertRaises(SystemExit, makeService, options).code
        self.assertEqual(sorted(self.directory.rglob("*")), before)
        lines = errors.getvalue().replace(str(self.path), "F").splitlines()
        return code, [line.removeprefix("mutauth: ") for line in lines], said.getvalue()

    def test_nothing_wrong(self) -> None:
        """It says so; no replay cache, audit trail or port was made."""
        self.assertEqual(
            self.check(self.text), (0, [], "mutauth: nothing is wrong with shop, echo\n")
        )

    def test_warnings(self) -> None:
        """They are told, and are no mistakes."""
        keytab = Path(self.realm.keytab("svc-echo"))
        keytab.chmod(0o644)
        code, (line,), _ = self.check(self.text)
        self.assertEqual(code, 0)
        self.assertTrue(line.startswith("warning: keytab "), line)

    def test_each_file(self) -> None:
        """Each has its line in the file and its cause."""
        empty = self.directory / "empty"
        empty.touch()
        keytab, other = (self.realm.keytab(name) for name in ("svc-echo", "svc-other"))
        for old, new, where, cause in (
            (keytab, "/nonexistent", "F:8: [service.shop] key keytab: ", "there is no such file"),
            (keytab, str(empty), "F:8: [service.shop] key keytab: ", "it holds no keys"),
            (other, str(self.certificate), "F:14: [service.echo] key keytab: ", "cannot be used"),
            (self.certificate, empty, "F:10: [service.shop] key tls-cert: ", "no key in PEM"),
            (
                f'tls-cert = "{self.certificate}"',
                f'tls-cert = "{self.certificate}"\ntls-key = "{self.foreign_key}"',
                "F:10: [service.shop] key tls-cert: ",
                "it cannot be used with its key; give the key that belongs to it",
            ),
            ("tcp:127.0.0.1:5432", "tcp:x", "F:11: [service.shop] key forward: ", "missing"),
            ("echo = true", 'factory = "no.such"', "F:15: [service.echo] key factory: ", "no such"),
            ("tcp:0:", "tcp:99999:", "F:1: key status: ", "its port is out of range"),
            (
                "audit.log",
                "no/audit.log",
                "F:16: [service.echo] key audit: ",
                "No such file or dir",
            ),
            (
                "echo = true",
                'echo = true\nlisten = ["tcp:0", "tpc:1"]',
                "F:16: [service.echo] key listen: ",
                "Unknown endpoint type: 'tpc'",
            ),
            (
                "[service.echo]",
                "[service.echo]\nmax-connections = 1000000",
                "F:13: [service.echo] key max-connections: ",
                "descriptors are needed",
            ),
        ):
            text = self.text.replace(str(old), str(new))
            self.assertNotEqual(text, self.text)
            code, lines, _ = self.check(text)
            self.assertEqual(code, 2)
            self.assertEqual(len(lines), 1, lines)
            self.assertTrue(lines[0].startswith(where), lines)
            self.assertIn(cause, lines[0])

    def test_all_of_them(self) -> None:
        """A mistake in the keys of one service hides no file of another, nor of itself."""
        text = (
            self.text.replace("allow-all", "alow-all = 1\nallow-all")
            .replace("echo = true", "echo = true\nlisten = ['x']")
            .replace(str(self.realm.keytab("svc-other")), "/nonexistent")
        )
        code, lines, said = self.check(text)
        self.assertEqual((code, len(lines), said), (2, 1, ""), lines)
        text = text.replace("alow-all = 1", "").replace("[service.shop]", "[service.shop]\nx = 1")
        code, lines, said = self.check(text)
        self.assertEqual((code, len(lines), said), (2, 3, ""), lines)

    def test_policy(self) -> None:
        """A policy file's mistakes are among them."""
        policy = self.directory / "policy.toml"
        policy.write_text("[[allow]]\nacounts = ['*@R']")
        code, (line,), _ = self.check(self.text + f'policy = "{policy}"\n')
        self.assertEqual(code, 2)
        self.assertTrue(line.startswith(f"{policy}:2: key acounts: "), line)
        _, (line,), _ = self.check(self.text + f'policy = "{policy}.none"\n')
        place = f"F:17: [service.echo] key policy: policy file {policy}.none: "
        self.assertTrue(line.startswith(place), line)
        policy.write_text("[[allow]]\nacounts = ['*@R']\n[[dney]]\n[[deny]]\nall = 1\n")
        _, lines, _ = self.check(self.text + f'policy = "{policy}"\n')
        self.assertEqual([line.split(":")[1] for line in lines], ["3", "2", "5"], lines)
