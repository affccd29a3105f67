"""``mutauth scp`` as far as it goes without a directory."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from click.testing import Result
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.admin.scpadmin import Grant, ScpReport
from mutauth_twisted.cli.commands import scp as command
from mutauth_twisted.directory.scp import ServiceConnectionPoint
from mutauth_twisted.directory.spns import Account
from mutauth_twisted.findings import Command, Finding
from mutauth_twisted.spn import SPN
from tests.unit.cli.cli_case import invoke

GUID = UUID("c1b2a390-0000-4000-8000-000000000001")
POINT = ServiceConnectionPoint(
    "CN=e,DC=x", GUID, "echo", "h.x", "A", ("echo", "two"), "9000;weight=5;port=1"
)
BARE = ServiceConnectionPoint("CN=b,DC=x", UUID(int=1))
ACCOUNT = Account("CN=svc,DC=x", "svc", "S-1-5-21-1", (), False, None)
WRONG = Finding("scp-not-found", "SCP CN=b,DC=x", "it is wrong", Command("mutauth", "x"))


class UsageTests(SynchronousTestCase):
    """Wrong usage ends with one line and exit code 2, before anything is asked of a directory."""

    def test_refused(self) -> None:
        """Each with what was wrong."""
        for words, cause in (
            (("list", "--base", "echo"), "not a valid DN"),
            (("find",), "KEYWORD"),
            (("show",), "NAME"),
            (("show", str(GUID), "--spn-form", "sideways"), "sideways"),
            (("publish", str(GUID)), "nothing to change"),
            (("publish", str(GUID), "--host", "a", "--srv", "b"), "either --host or --srv"),
            (("publish", str(GUID), "--port", "0"), "--port"),
            (("publish", str(GUID), "--weight", "65536"), "--weight"),
            (("publish", str(GUID), "--wire", "pigeon"), "pigeon"),
            (("publish", str(GUID), "--protection", "none"), "none"),
            (("remove",), "NAME"),
            (("bogus",), "bogus"),
        ):
            result = invoke("scp", *words)
            self.assertEqual(result.exit_code, 2, words)
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
            self.assertIn(cause, result.stderr)

    def test_help(self) -> None:
        """Every command explains itself."""
        for name in ("list", "find", "show", "publish", "remove"):
            result = invoke("scp", name, "--help")
            self.assertEqual(result.exit_code, 0)
            self.assertIn("--json", result.stdout)


class PrintingTests(SynchronousTestCase):
    """Lines about what was found or done."""

    def run_with(self, answer: Any, *words: str) -> Result:
        self.patch(command, "in_directory", lambda options, work, **_: answer)
        return invoke("scp", *words)

    def test_list(self) -> None:
        """A line each; what is not there is a dash."""
        result = self.run_with([POINT, BARE], "list")
        lines = [line.split() for line in result.stdout.splitlines()]
        self.assertEqual(lines[1], ["-", "-", "-", str(UUID(int=1)), "CN=b,DC=x"])
        self.assertEqual(
            lines[2], ["echo", "h.x", POINT.binding_text, "echo", "two", str(GUID), "CN=e,DC=x"]
        )
        self.assertEqual(self.run_with([], "list").exit_code, 0)

    def test_find(self) -> None:
        """Nothing found is the answer no; a key of a later version cannot pass for ours."""
        result = self.run_with([], "find", "echo")
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        (found,) = json.loads(self.run_with([POINT], "find", "echo", "--json").stdout)
        self.assertEqual(
            (found["published"]["port"], found["published"]["extra"]), (9000, {"port": "1"})
        )

    def test_show(self) -> None:
        """Rights and SPNs by name, and exit code 1 with every problem."""
        grants = (Grant("S-1-5-21-1", ACCOUNT, True), Grant("S-1-5-21-2", None, False))
        found = ScpReport(POINT, grants, ((ACCOUNT, SPN("echo", "h.x", str(GUID))),), (), ())
        result = self.run_with(found, "show", str(GUID))
        self.assertEqual((result.exit_code, result.stderr), (0, ""))
        lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
        for line in (
            "may update svc",
            "may update S-1-5-21-2, but one of the two attributes only",
            f"SPN echo/h.x/{GUID} on svc",
            "port 9000",
            "unknown port 1",
            "clients connect with mutauth:scp=echo",
            "clients connect with mutauth:keyword=two:class=echo",
        ):
            self.assertIn(line, lines)
        wrong = ScpReport(BARE, None, (), ((ACCOUNT, "echo/h/CN=old,DC=x"),), (WRONG,))
        result = self.run_with(wrong, "show", str(GUID))
        self.assertEqual((result.exit_code, result.stderr), (1, f"mutauth: {WRONG.coded}\n"))
        self.assertIn("may not read the rights", result.stdout)
        result = self.run_with(wrong, "show", str(GUID), "--json")
        value = json.loads(result.stdout)
        self.assertEqual(
            (result.exit_code, value["grants"], value["problems"]), (1, None, [WRONG.as_json()])
        )
        self.assertEqual(value["stale_spns"][0]["account"], "svc")

    def test_publish_and_remove(self) -> None:
        """Lines tell what was written, or that there was nothing to write; what was deleted."""
        words = ("publish", str(GUID), "--port", "9000")
        self.assertEqual(
            self.run_with((POINT, ["serviceDNSName"]), *words).stdout,
            "wrote serviceDNSName of CN=e,DC=x\n",
        )
        self.assertEqual(
            self.run_with((POINT, []), *words).stdout, "CN=e,DC=x publishes that already\n"
        )
        self.assertEqual(
            json.loads(self.run_with((POINT, ["a"]), *words, "--json").stdout)["written"], ["a"]
        )
        self.assertEqual(
            self.run_with(POINT, "remove", str(GUID)).stdout, "deleted SCP CN=e,DC=x\n"
        )
        self.assertEqual(
            json.loads(self.run_with(POINT, "remove", str(GUID), "--json").stdout)["guid"],
            str(GUID),
        )
