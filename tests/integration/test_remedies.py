"""Commands that errors name are run as they are printed, and do what they promise."""

from __future__ import annotations

import json
import shlex

from tests.integration.commands import CommandTestCase, Ended


class RemedyTests(CommandTestCase):
    """Errors about rights and entries, and the printed way out of each."""

    def setUp(self) -> None:
        super().setUp()
        self.reach = ("--nameserver", self.lab.nameserver, "--realm", self.lab.realm)

    def ask(self, *words: str, **how: str) -> Ended:
        return self.mutauth(*words, "--json", **how)

    def follow(self, ended: Ended, code: int, *more: str) -> str:
        """Run the first command that another one ended with, as an administrator; returns the
        output.
        """
        self.assertEqual(ended.code, code, ended)
        finding = json.loads(ended.errors.splitlines()[-1])
        program, *words = finding["commands"][0]
        self.assertEqual(program, "mutauth")
        self.assertIn(shlex.join([program, *words]), finding["remedy"])
        self.assertIn(shlex.join(self.reach[:2]), finding["remedy"])
        done = self.mutauth(*words, *more, user="administrator")
        self.assertEqual(done.code, 0, (words, done))
        return done.output

    def test_denied_spns(self) -> None:
        """The command has every SPN that was asked for, and both domain and DNS server."""
        spns = [f"{self.service_class}/{self.host}", f"{self.service_class}/{self.host}:9000"]
        denied = self.ask("spn", "add", "svc-echo", *spns, *self.reach)
        self.assertIn(shlex.join(self.reach[2:]), denied.errors)
        done = self.follow(denied, 3)
        for spn in spns:
            self.assertIn(f"added SPN {spn} to svc-echo", done)
        # An SPN that another account holds: deleted there, it can be added here.
        taken = self.ask("spn", "add", "svc-other", *spns, *self.reach, user="administrator")
        self.assertIn("deleted SPN", self.follow(taken, 3))
        denied = self.ask("spn", "delete", "svc-echo", *spns, *self.reach)
        self.assertEqual(denied.code, 0, denied)  # they are gone already

    def test_denied_uninstall(self) -> None:
        """A change that is denied in the middle of an uninstallation is for an administrator to run
        as a whole.
        """
        self.assertEqual(self.install().code, 0)
        words = (
            "uninstall",
            *self.common,
            *self.directory,
            *self.reach[2:],
            "--keytab",
            "/nonexistent",
        )
        self.refused(self.mutauth(*words), 4, "/nonexistent")
        denied = self.ask(*words[:-2])
        self.assertNotIn("spn delete", denied.errors)
        done = self.follow(denied, 3)
        for word in ("removed SPN", "deleted SCP", "removed "):
            self.assertIn(word, done)

    def test_denied_install(self) -> None:
        """The same for an installation; nothing personal is in the command."""
        self.addCleanup(self._uninstall)
        cache = self.lab.ccache("alice")
        words = (
            "install",
            *self.common,
            "--account",
            "svc-echo",
            "--spn-form",
            "guid",
            *self.directory,
        )
        denied = self.ask(*words, "--ccache", cache)
        self.assertNotIn(cache, denied.errors)
        done = self.follow(denied, 3)
        self.assertIn(f"{self.service_class} on {self.host} is ready", done)
        self.assertEqual(done.count("added SPN"), 1)

    def test_denied_rnr(self) -> None:
        """An RnR service is published and removed by the commands that alice is told."""
        words = (
            "publish",
            self.service_class,
            "--service-class",
            self.service_class,
            "--host",
            self.host,
        )
        done = self.follow(self.ask("rnr", *words, "--account", "svc-echo", *self.reach), 3)
        self.assertIn("is offered by no host yet", done)
        done = self.follow(self.ask("rnr", *words, "--port", "9000", *self.reach), 3)
        self.assertIn(f"is offered by {self.host}", done)
        done = self.follow(self.ask("rnr", "remove", self.service_class, *self.reach), 3)
        for word in ("removed SPN", "deleted RnR service"):
            self.assertIn(word, done)

    def test_wrong_scp(self) -> None:
        """Entries that scp show finds missing, and those that scp remove says have to go first."""
        installed = self.install()
        guid = installed.output.partition("cached GUID ")[2].split()[0]
        shown = self.ask("scp", "show", guid, "--spn-form", "guid,dn,host", *self.reach)
        last = json.loads(shown.errors.splitlines()[-1])
        self.assertEqual(last["code"], "spn-missing")
        self.assertEqual(last["subject"], f"SPN {self.service_class}/{self.host}")
        done = self.follow(shown, 1, "--state-dir", self.state)
        self.assertIn(f"added SPN {self.service_class}/{self.host} to svc-echo", done)
        removed = self.ask("scp", "remove", guid, *self.reach, user="administrator")
        done = self.follow(removed, 1, "--state-dir", self.state)
        self.assertIn("deleted SCP", done)
        spn = f"{self.service_class}/{self.host}"
        self.mutauth("spn", "delete", "svc-echo", spn, *self.reach, user="administrator")
