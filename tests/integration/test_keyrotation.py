"""``mutauth key rotate`` beside a running service and its clients, killed at any moment."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path

from tests.integration.commands import CommandTestCase

_PASSWORD = "Correct-horse-7"


class RotationTests(CommandTestCase):
    """A service whose account is the test's own."""

    def setUp(self) -> None:
        super().setUp()
        self.account = f"svc-{self.service_class}"
        self.keytab = Path(self.state) / "service.keytab"
        self.principal = f"{self.account}@{self.lab.realm}"
        smb_conf = str(self.lab.directory / "samba" / "etc" / "smb.conf")
        self.samba = ("-s", smb_conf)
        self.tool("user", "add", self.account, _PASSWORD)
        self.addCleanup(self.tool, "user", "delete", self.account)
        self.allow_aes()
        self.tool("domain", "exportkeytab", str(self.keytab), f"--principal={self.principal}")
        self.directory = ("--nameserver", self.lab.nameserver)

    def tool(self, *words: str) -> None:
        """samba-tool, on the domain controller."""
        subprocess.run(
            ("samba-tool", *words, *self.samba), capture_output=True, check=True, timeout=60
        )

    def allow_aes(self) -> None:
        """Have the KDC encrypt tickets for the account with AES."""
        change = (
            f"dn: CN={self.account},CN=Users,{self.lab.base_dn}\nchangetype: modify\n"
            "replace: msDS-SupportedEncryptionTypes\nmsDS-SupportedEncryptionTypes: 24\n"
        )
        database = self.lab.directory / "samba" / "private" / "sam.ldb"
        subprocess.run(
            ("ldbmodify", "-H", str(database)),
            input=change,
            text=True,
            capture_output=True,
            check=True,
            timeout=60,
        )

    def words(self, *options: str) -> tuple[str, ...]:
        """The command line."""
        return ("key", "rotate", "--keytab", str(self.keytab), *self.directory, *options)

    def version(self) -> int:
        """The highest key version in the keytab, whose key has to be the KDC's."""
        kinit = ("kinit", "-k", "-t", str(self.keytab), "-c", "MEMORY:", self.principal)
        subprocess.run(kinit, env=self.environment("alice"), check=True, timeout=10)
        listing = subprocess.run(
            ("klist", "-k", str(self.keytab)), capture_output=True, text=True, check=True
        ).stdout
        return max(int(line.split()[0]) for line in listing.splitlines() if self.account in line)

    def connect(self) -> int:
        """The exit code of a client with a new ticket for the service."""
        cache = Path(self.state) / f"cache-{threading.get_ident()}"
        shutil.copy(self.lab.ccache("alice").removeprefix("FILE:"), cache)
        words = ("connect", self.endpoint)
        return self.command("mutauth", *words, given="x\n", KRB5CCNAME=f"FILE:{cache}").code

    def test_refused(self) -> None:
        """A password that is too young is the normal case: one line, and the keytab is as it
        was.
        """
        before = self.keytab.read_bytes()
        ended = self.mutauth(*self.words())
        self.assertEqual(ended.code, 4, ended)
        self.assertIn("[password-refused]", ended.errors)
        self.assertIn("--set", ended.errors)
        self.assertNotIn("Traceback", ended.errors)
        self.assertEqual(self.keytab.read_bytes(), before)
        self.assertEqual(self.version(), 2)

    def test_own_rights(self) -> None:
        """An account changes its own password where the domain lets it."""
        policy = f"pso-{self.service_class}"
        command = ("domain", "passwordsettings", "pso")
        self.tool(*command, "create", policy, "1", "--min-pwd-age=0")
        self.addCleanup(self.tool, *command, "delete", policy)
        self.tool(*command, "apply", policy, self.account)
        ended = self.mutauth(*self.words("--json"))
        self.assertEqual(ended.code, 0, ended)
        self.assertEqual(
            json.loads(ended.output),
            {"principal": self.principal, "version": 3, "resumed": False},
        )
        self.assertEqual(self.version(), 3)
        pruned = self.mutauth(*self.words("--prune", "--json"))
        self.assertEqual(json.loads(pruned.output)["removed"], 0)
        pruned = self.mutauth(*self.words("--prune", "--lifetime", "0", "--json"))
        self.assertGreater(json.loads(pruned.output)["removed"], 1)
        self.assertEqual(self.version(), 3)

    def test_two_steps(self) -> None:
        """A service with a copy of the keytab is restarted in between: the new password waits
        beside the keytab, for its owner alone.
        """
        pending = Path(f"{self.keytab}.next")
        ended = self.mutauth(*self.words("--set", "--add"), user="administrator")
        self.assertEqual(ended.code, 0, ended)
        self.assertIn("then run --finish", ended.output)
        self.assertEqual(pending.stat().st_mode & 0o777, 0o600)
        self.assertNotIn(pending.read_text().strip(), ended.output + ended.errors)
        for words in (("--set",), ("--set", "--add")):
            self.refused(self.mutauth(*self.words(*words), user="administrator"), 2, "--finish")
        ended = self.mutauth(*self.words("--set", "--finish"), user="administrator")
        self.assertEqual(ended.code, 0, ended)
        self.assertFalse(pending.exists())
        self.assertEqual(self.version(), 3)

    def test_no_right(self) -> None:
        """A user who is no administrator is told so."""
        ended = self.mutauth(*self.words("--set"), user="bob")
        self.assertEqual(ended.code, 4, ended)
        self.assertIn("[password-refused]", ended.errors)
        self.assertEqual(self.version(), 2)

    def test_under_clients(self) -> None:
        """No client fails while keys are rotated, whenever a rotation is killed; the next one ends
        it; the service says when its newest key is not the KDC's.
        """
        words = (*self.common, "--account", self.account)
        state = ("--state-dir", self.state)
        installed = self.mutauth("install", *words, *self.directory, *state, user="administrator")
        self.assertEqual(installed.code, 0, installed)
        self.addCleanup(
            self.mutauth, "uninstall", *self.common, *self.directory, *state, user="administrator"
        )
        codes: list[int] = []
        stop = threading.Event()

        def keep_connecting() -> None:
            while not stop.is_set():
                codes.append(self.connect())

        options = ("--keytab", str(self.keytab), *state, "--check-interval", "1")
        with self.service(*options) as service:
            service.read_on()
            self.assertEqual(self.connect(), 0)
            clients = threading.Thread(target=keep_connecting)
            clients.start()
            try:
                self.rotate_and_kill()
                self.assertEqual(self.mutauth(*self.words("--set"), user="administrator").code, 0)
                self.assertGreaterEqual(self.version(), 3)
            finally:
                stop.set()
                clients.join()
            self.assertGreater(len(codes), 3)
            self.assertEqual(set(codes), {0}, service.log)
            self.tool("user", "setpassword", self.account, "--newpassword=Correct-horse-8")
            deadline = time.monotonic() + 20
            while "keytab-outdated" not in service.log and time.monotonic() < deadline:
                time.sleep(0.1)
            self.assertIn("clients with new tickets are refused", service.log)

    def rotate_and_kill(self) -> None:
        """Start rotations, and kill each a random while after it has written the new key."""
        chance = random.Random(os.urandom(8).hex())
        for _ in range(6):
            process = self.begin("mutauth", *self.words("--set"), user="administrator")
            assert process.stderr is not None
            for line in process.stderr:
                if "added the new key" in line:
                    break
            time.sleep(chance.random() * 0.1)
            process.kill()
            process.communicate()
