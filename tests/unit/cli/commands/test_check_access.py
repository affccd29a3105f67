"""``mutauth check-access`` as far as it goes without a domain."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.access import AccessPolicy, Logon, Rule, SessionLimits
from mutauth_twisted.cli.commands import check_access as command
from mutauth_twisted.settings.schema import Where, options
from tests.support.directories import own_directory
from tests.unit.cli.cli_case import invoke

_LIMITED = Rule("allow", "p.toml:2 [[allow]]", ("al*@R",), limits=SessionLimits(5, session=90.5))


class UsageTests(SynchronousTestCase):
    """Wrong usage ends with one line and exit code 2, before anything is asked of a directory."""

    def setUp(self) -> None:
        self.path = own_directory(self) / "policy.toml"

    def refused(self, *words: str) -> str:
        result = invoke("check-access", *words)
        self.assertEqual((result.exit_code, result.stdout), (2, ""), result.output)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        return result.stderr

    def test_refused(self) -> None:
        """Each with what was wrong."""
        for words, cause in (
            ((), "PRINCIPAL"),
            (("alice",), "[no-access-policy] --allow: the access policy allows no client"),
            (("alice", "--deny", "bob@R"), "the access policy allows no client"),
            (("alice", "--allow", "bob"), "it names no realm"),
            (("alice", "--allow-group", " "), "it names no group"),
            (("alice", "--policy", "/none.toml"), "policy file /none.toml"),
            (("alice", "--config", "/none.toml"), "configuration file /none.toml"),
        ):
            self.assertIn(cause, self.refused(*words), words)

    def test_files(self) -> None:
        """A mistake in a file is told with its line, and a file of others is none to go by."""
        for text, cause in (
            ("[[alow]]", f"{self.path}:1: key alow: there is no such key here; did you mean allow"),
            ("[[allow]]\nall = true\nmax-session = 'x'", f"{self.path}:3: key max-session"),
            ("", "it has no rule"),
        ):
            self.path.write_text(text)
            self.assertIn(cause, self.refused("alice", "--policy", str(self.path)))
        self.path.chmod(0o666)
        self.assertIn("[policy-writable]", self.refused("alice", "--policy", str(self.path)))

    def test_options(self) -> None:
        """It takes every option that says who may connect to a service."""
        told = invoke("check-access", "--help").stdout
        service = options(Where.SERVICE)
        for name in ("policy", "allow", "allow-group", "allow-all", "deny", "deny-group"):
            self.assertIn(name, service)
            self.assertIn(f"--{name}", told)


class PrintingTests(SynchronousTestCase):
    """Verdicts for people and for programs."""

    def run_with(self, policy: AccessPolicy, logon: Logon | None, *words: str) -> Any:
        """Print a verdict."""

        def answer(given: object, work: object) -> command._Verdict:
            return command._Verdict("alice@R", logon, policy.decide("alice@R", lambda: logon))

        self.patch(command, "in_directory", answer)
        return invoke("check-access", "alice", "--allow-all", *words)

    def test_allowed(self) -> None:
        """With the rule and the limits."""
        logon = Logon("alice", "D", "S-1-5-21-1-2-3-4", ("S-1-18-1",))
        policy = AccessPolicy(rules=[_LIMITED])
        result = self.run_with(policy, logon)
        self.assertEqual(
            (result.exit_code, result.stdout),
            (
                0,
                "alice@R (D\\alice) is allowed by p.toml:2 [[allow]] al*@R\n"
                "limits: max-connections 5, max-session 90.5\n",
            ),
        )
        limits = {"max-connections": 5, "max-session": 90.5}
        self.assertEqual(
            json.loads(self.run_with(policy, logon, "--json").stdout),
            {
                "principal": "alice@R",
                "account": "D\\alice",
                "sid": "S-1-5-21-1-2-3-4",
                "groups": ["S-1-18-1"],
                "allowed": True,
                "rule": "p.toml:2 [[allow]] al*@R",
                "cause": None,
                "remedy": None,
                "limits": limits,
                "limited_by": [{"rule": "p.toml:2 [[allow]]", **limits}],
            },
        )

    def test_denied(self) -> None:
        """With the cause and the next step, and exit code 1."""
        policy = AccessPolicy(allow_all=True, deny=["a*@R"])
        result = self.run_with(policy, None)
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(
            result.stdout,
            "alice@R is denied: denied by --deny a*@R\n"
            "next: take that back if it should have access\n",
        )
        told = json.loads(self.run_with(policy, None, "--json").stdout)
        self.assertEqual(
            (told["allowed"], told["rule"], told["groups"]), (False, "--deny a*@R", None)
        )
