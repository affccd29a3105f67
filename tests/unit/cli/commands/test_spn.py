"""``mutauth spn`` as far as it goes without a directory."""

from __future__ import annotations

import json
from typing import Any

from click.testing import Result
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.admin.duplicates import Duplicate, Holder
from mutauth_twisted.admin.spnadmin import Written
from mutauth_twisted.cli.commands import spn as command
from mutauth_twisted.directory.spns import Account
from mutauth_twisted.findings import Finding
from tests.unit.cli.cli_case import invoke

ACCOUNT = Account("CN=svc,DC=x", "svc", "S-1-5-21-1", ("b/y", "A/x"), False, None)
TAKEN_OVER = Finding("spn-alias", "SPN n/1", "taken over", severity="warning")


class UsageTests(SynchronousTestCase):
    """Wrong usage ends with one line and exit code 2, before anything is asked of a directory."""

    def test_refused(self) -> None:
        """Each with what was wrong."""
        for words, cause in (
            (("list",), "ACCOUNT"),
            (("query",), "PATTERN"),
            (("query", ""), "write '*'"),
            (("add", "svc"), "SPN"),
            (("add", "svc", "a//b"), "its host is empty"),
            (("add", "svc", "echo/h/CN=a/b,DC=c"), "4 part(s)"),
            (("replace", "svc"), "--clear"),
            (("replace", "svc", "--clear", "a/b"), "--clear"),
            (("replace", "svc", "a"), "1 part(s)"),
            (("delete", "svc"), "SPN"),
            (("duplicates", "--bogus"), "--bogus"),
            (("bogus",), "bogus"),
        ):
            result = invoke("spn", *words)
            self.assertEqual(result.exit_code, 2, words)
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
            self.assertIn(cause, result.stderr)

    def test_help(self) -> None:
        """Every command explains itself."""
        for name in ("list", "query", "add", "replace", "delete", "duplicates"):
            result = invoke("spn", name, "--help")
            self.assertEqual(result.exit_code, 0)
            self.assertIn("--json", result.stdout)


class PrintingTests(SynchronousTestCase):
    """Lines about what was found or done."""

    def run_with(self, answer: Any, *words: str) -> Result:
        self.patch(command, "in_directory", lambda options, work, **_: answer)
        return invoke("spn", *words)

    def test_list(self) -> None:
        """In alphabetical order, and none is not an error."""
        result = self.run_with([ACCOUNT], "list", "svc")
        self.assertEqual(
            (result.exit_code, result.stdout), (0, "ACCOUNT  SPN\nsvc      A/x\nsvc      b/y\n")
        )
        result = self.run_with([ACCOUNT], "list", "svc", "--json")
        self.assertEqual(
            json.loads(result.stdout),
            [{"account": "svc", "dn": "CN=svc,DC=x", "spns": ["A/x", "b/y"]}],
        )
        result = self.run_with([Account("CN=e", "empty", "", (), False, None)], "list", "empty")
        self.assertEqual(
            (result.exit_code, result.stdout, result.stderr), (0, "", "mutauth: empty has no SPN\n")
        )

    def test_query(self) -> None:
        """Nobody is the answer no."""
        result = self.run_with([(ACCOUNT, "A/x")], "query", "a/*", "--json")
        self.assertEqual((result.exit_code, json.loads(result.stdout)[0]["spn"]), (0, "A/x"))
        result = self.run_with([], "query", "a/*", "--json")
        self.assertEqual((result.exit_code, json.loads(result.stdout)), (1, []))
        self.assertIn("no account in the forest holds a/*", result.stderr)

    def test_written(self) -> None:
        """Added, deleted, left alone, and a warning apart from them."""
        written = Written(ACCOUNT, ("n/1",), ("o/1",), ("s/1",), (TAKEN_OVER,))
        result = self.run_with(written, "replace", "svc", "n/1", "s/1")
        self.assertEqual(
            result.stdout, "deleted SPN o/1 from svc\nadded SPN n/1 to svc\nSPN s/1 stays on svc\n"
        )
        self.assertEqual(
            (result.exit_code, result.stderr), (0, "mutauth: [spn-alias] SPN n/1: taken over\n")
        )
        result = self.run_with(written, "add", "svc", "n/1", "--json")
        self.assertEqual(
            json.loads(result.stdout),
            {
                "account": "svc",
                "dn": "CN=svc,DC=x",
                "added": ["n/1"],
                "removed": ["o/1"],
                "unchanged": ["s/1"],
            },
        )

    def test_duplicates(self) -> None:
        """Some are exit code 1, none is 0."""
        found = [Duplicate("a/b", (Holder("one", "CN=one", "a/b"), Holder("two", "CN=two", "A/b")))]
        result = self.run_with(found, "duplicates")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(
            result.stdout, "SPN  ACCOUNT  DN\na/b  one      CN=one\nA/b  two      CN=two\n"
        )
        self.assertIn("mutauth spn delete", result.stderr)
        result = self.run_with(found, "duplicates", "--json")
        self.assertEqual((result.exit_code, len(json.loads(result.stdout)[0]["holders"])), (1, 2))
        result = self.run_with([], "duplicates")
        self.assertEqual((result.exit_code, result.stdout), (0, ""))
