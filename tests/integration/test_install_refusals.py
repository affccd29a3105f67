"""Installations that cannot be, which leave nothing half done, and such that are interrupted."""

from __future__ import annotations

import os
import signal

from tests.integration.commands import CommandTestCase


class InstallRefusalTests(CommandTestCase):
    """An installation that cannot be, and leaves nothing half done."""

    def test_without_the_rights(self) -> None:
        """A user who is not an administrator."""
        words = ("install", *self.common, "--account", "svc-echo", *self.directory)
        self.refused(self.mutauth(*words, user="alice"), 3, "CN=" + self.service_class)
        self.refused_later()

    def refused_later(self) -> None:
        """Nothing was left: the same name is unknown to clients and to uninstall."""
        removed = self.mutauth("uninstall", *self.common, *self.directory, user="administrator")
        self.assertIn("nothing", removed.output)

    def test_unknown_account(self) -> None:
        """An account that is not there."""
        words = ("install", *self.common, "--account", "nobody-here", *self.directory)
        self.refused(self.mutauth(*words, user="administrator"), 1, "nobody-here")
        self.refused_later()

    def test_unknown_host(self) -> None:
        """A host without a computer object."""
        words = (
            "install",
            "--service-class",
            "x",
            "--host",
            "nowhere.lab.example",
            "--account",
            "svc-echo",
        )
        self.refused(
            self.mutauth(*words, *self.directory, user="administrator"), 1, "nowhere.lab.example"
        )

    def test_interrupted(self) -> None:
        """Ctrl-C, SIGTERM and a closed terminal in the middle: what was begun is finished, and then
        said.
        """
        words = ("install", *self.common, "--account", "svc-echo", *self.directory)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = self.begin("mutauth", *words, user="administrator")
            self.assertIn("created SCP", process.stdout.readline())
            process.send_signal(signum)
            output, errors = process.communicate(timeout=30)
            self.assertEqual(process.returncode, 0, errors)
            self.assertIn("is ready to run as", output)
            with self.service():
                pass
            removed = self.mutauth("uninstall", *self.common, *self.directory, user="administrator")
            self.assertIn("deleted SCP", removed.output)

    def test_interrupted_twice(self) -> None:
        """A second signal, and a third, are noted in a line, and what was begun is finished all the
        same.
        """
        words = ("install", *self.common, "--account", "svc-echo", *self.directory)
        self.addCleanup(self._uninstall)
        process = self.begin("mutauth", *words, user="administrator")
        self.assertIn("created SCP", process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        said = []
        while not said or "finishing what was begun" not in said[-1]:
            said.append(process.stderr.readline())
            self.assertNotEqual(said[-1], "")
        for signum in (signal.SIGTERM, signal.SIGINT):
            process.send_signal(signum)
        output, errors = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0, errors)
        self.assertIn("is ready to run as", output)
        said += errors.splitlines()
        self.assertEqual([line for line in said if not line.startswith("mutauth: ")], [])
        self.assertNotIn("reactor", "".join(said))

    def test_not_utf8(self) -> None:
        """Arguments of any command that are not UTF-8 are named in one line."""
        bad = os.fsdecode(b"x\xff")
        for words in (
            ("connect", f"mutauth:scp=x:base={bad}"),
            ("scp", "find", bad),
            ("spn", "query", bad),
            ("install", *self.common, "--account", bad),
            ("uninstall", *self.common, "--scp-name", bad),
        ):
            self.refused(self.mutauth(*words), 2, "argument '", "\\udcff': it is not UTF-8")
        for option in (
            "--scp-name",
            "--scp-parent",
            "--account",
            "--deny-group",
            "--factory",
            "--allow",
            "--keytab",
        ):
            ended = self.start_refused(option, bad)
            self.refused(ended, 2, "argument 'x\\udcff': it is not UTF-8")

    def test_guid_cannot_be_cached(self) -> None:
        """A state directory that cannot be written: everything is undone."""
        words = (
            "install",
            *self.common,
            "--account",
            "svc-echo",
            "--nameserver",
            self.lab.nameserver,
        )
        ended = self.mutauth(*words, "--state-dir", "/proc/mutauth", user="administrator")
        self.refused(ended, 3, "/proc/mutauth", "--state-dir")
        self.assertIn("undone", ended.output)
        self.refused_later()

    def test_usage(self) -> None:
        """Options that cannot be."""
        self.refused(self.mutauth("install"), 2, "--service-class")
        self.refused(self.mutauth("install", "--bogus"), 2, "--bogus")
        self.refused(self.mutauth("bogus"), 2, "bogus")
        words = ("install", *self.common, "--account", "svc-echo", "--spn-form", "sideways")
        self.refused(self.mutauth(*words), 2, "sideways")
