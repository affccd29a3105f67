"""Policy files: what is not plainly a rule is an error with its file and line."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.access import AccessPolicy, Logon, Rule, SessionLimits
from mutauth_twisted.access.rules import option_rules
from mutauth_twisted.endpoints.strings import SERVER
from mutauth_twisted.errors import UsageError
from mutauth_twisted.mechanisms import NTLM
from mutauth_twisted.settings.access import access_rules, read_policy
from mutauth_twisted.settings.read import Values
from mutauth_twisted.settings.schema import Where
from mutauth_twisted.settings.toml import TOML
from tests.support.directories import own_directory

GROUP = "S-1-5-21-1-2-3-1104"
SERVICE = {"service-class": "echoSvc", "echo": True}


class Case(SynchronousTestCase):
    """A policy file of one's own."""

    def setUp(self) -> None:
        self.path = own_directory(self) / "policy.toml"

    def write(self, text: str | bytes) -> str:
        """Make it the file's content; its path."""
        self.path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(self.path)

    def refused(self, text: str | bytes, code: str = "invalid-option") -> str:
        """The error's line about a file, without its path."""
        error = self.assertRaises(UsageError, read_policy, self.write(text))
        self.assertEqual(error.code, code, error)
        self.assertEqual(error.exit_code, 2)
        self.assertIn(str(self.path), str(error))
        return str(error).replace(str(self.path), "FILE")


class FileTests(Case):
    """The rules of a file."""

    def test_rules(self) -> None:
        """Each table is one rule, with its line and its limits."""
        text = f"""\
# who may in
[[allow]]
accounts = [
  "alice@R",   # the first
  "svc-*@R",
]
groups = ["LAB\\\\testers", "{GROUP.lower()}"]
max-connections = 20
max-connections-per-principal = 2
max-session = 1.5

[[deny]]
all = true
[[allow]]
all = true
[[deny]]
groups = ["S-1-18-1"]
all = false
"""
        first, second, *denials = read_policy(self.write(text))
        limits = SessionLimits(20, 2, 1.5)
        self.assertEqual(
            first,
            Rule(
                "allow",
                f"{self.path}:2 [[allow]]",
                ("alice@R", "svc-*@R"),
                ("LAB\\testers", GROUP),
                limits=limits,
            ),
        )
        self.assertEqual(second, Rule("allow", f"{self.path}:14 [[allow]]", everyone=True))
        self.assertEqual(
            denials,
            [
                Rule("deny", f"{self.path}:12 [[deny]]", everyone=True),
                Rule("deny", f"{self.path}:16 [[deny]]", groups=("S-1-18-1",)),
            ],
        )
        self.assertEqual((first.names, bool(first.limits)), (("LAB\\testers",), True))

    def test_wrong_keys(self) -> None:
        """An unknown key is an error with its line and the nearest known one."""
        for text, words in (
            ("[[alow]]\nall = true", "FILE:1: key alow: there is no such key here; did you mean"),
            ("x = 1", "FILE:1: key x: there is no such key here; known: allow, deny"),
            ("\n[[allow]]\nall = true\ngroup = []", "FILE:4: key group: there is no such key here"),
            ('[[allow]]\nAccounts = ["a@R"]', "FILE:2: key Accounts: there is no such key here"),
            ('[[allow]]\n"allow" = ["a@R"]', "FILE:2: key allow: there is no such key here"),
            ("[[allow]]\nal\u006c.x = 1", "FILE:2: key all = "),
            ("[[deny]]\nall = true\nmax-session = 1", "FILE:3: key max-session: there is no such"),
            ("[[allow]]\n\uff41ll = true", "FILE:2: it is not valid TOML"),
            ('[[allow]]\n"\uff41ll" = true', "FILE:2: key \uff41ll: there is no such key here"),
        ):
            code = "policy-unusable" if "valid TOML" in words else "invalid-option"
            self.assertIn(words, self.refused(text, code), text)
        self.assertIn("did you mean groups?", self.refused("[[allow]]\ngroup = []"))

    def test_wrong_types(self) -> None:
        """Nothing is taken for something else: no string for a list or a flag, no table for a
        rule.
        """
        for text, words in (
            ('[[allow]]\naccounts = "a@R"', 'FILE:2: key accounts = "a@R": it is a string'),
            ("[[allow]]\naccounts = [1]", "FILE:2: key accounts = [1]: it is something else"),
            ('[[allow]]\naccounts = ["a@R", ["b@R"]]', "it is something else"),
            ("[[allow]]\naccounts = []", "FILE:2: key accounts = []: it is empty"),
            ("[[deny]]\ngroups = []\nall = true", "FILE:2: key groups = []: it is empty"),
            ('[[allow]]\nall = "true"', "it is a string; give it a boolean"),
            ("[[allow]]\nall = 1", "it is an integer; give it a boolean"),
            ("[[allow]]\nall = true\nmax-connections = true", "FILE:3: key max-connections = true"),
            ("[[allow]]\nall = true\nmax-connections = 0", "it is out of range"),
            ("[[allow]]\nall = true\nmax-connections = 1.5", "it is a float; give it an integer"),
            ("[[allow]]\nall = true\nmax-session = nan", "it is out of range"),
            ("[[allow]]\nall = true\nmax-session = -1", "it is out of range"),
            ("[[allow]]\nall = true\nmax-session = inf", "it is out of range"),
            ("[allow]\nall = true", "FILE:1: key allow: it is not an array of tables; write [[al"),
            ("deny = []\nallow = [1]", "FILE:2: key allow: it is not an array of tables"),
            ('\ndeny = "bob@R"', "FILE:2: key deny: it is not an array of tables"),
        ):
            self.assertIn(words, self.refused(text), text)

    def test_wrong_values(self) -> None:
        """A rule that can be about no account is an error and no rule that misses."""
        for text, words in (
            ('[[deny]]\naccounts = ["bob"]', 'FILE:2: key accounts = "bob": it names no realm'),
            ('[[deny]]\naccounts = ["a@R,b@R"]', 'accounts = ["A", "B"]'),
            ('[[deny]]\naccounts = ["a@R\\u0000"]', "it has a control character"),
            ('[[deny]]\naccounts = ["a\\n@R"]', "it has a control character"),
            ('[[deny]]\naccounts = ["LAB\\\\bob@R"]', "by a domain and by a realm"),
            ('[[deny]]\ngroups = [" "]', "it names no group"),
            (f'[[deny]]\ngroups = ["x"]\n[[deny]]\ngroups = ["{GROUP}0000000"]', "FILE:3 [[deny]]"),
            ('[[deny]]\ngroups = ["S-1-5-32-544"]', "FILE:1 [[deny]]: group S-1-5-32-544: no tick"),
            ("[[deny]]", "FILE:1 [[deny]]: it is about no client; give it accounts or groups"),
            ("[[deny]]\nall = false", "FILE:1 [[deny]]: it is about no client"),
        ):
            code = "group-unusable" if "544" in text else "invalid-option"
            self.assertIn(words, self.refused(text, code), text)

    def test_not_toml(self) -> None:
        """Neither a key that is there twice, nor a file that was cut, is half taken."""
        for text, words in (
            ('[[deny]]\naccounts = ["a@R"]\naccounts = ["b@R"]\n', "FILE:3: it is not valid TOML"),
            ("[[deny]]\nall = true\n[deny]\nall = false", "FILE:3: it is not valid TOML"),
            ('[[deny]]\naccounts = ["a@R", "b', "FILE:2: it is not valid TOML"),
            ("deny = " + "[" * 100_000, "it is nested too deeply"),
            ("", "it has no rule"),
            ("# [[deny]]\n", "it has no rule"),
            ("deny = []", "it has no rule"),
            (b"[[deny]]\n\xff", "it is not UTF-8"),
            ("[[deny]]\nall = true".encode("utf-16"), "it is not UTF-8"),
            ("\ufeff[[deny]]\nall = true", "it is not valid TOML"),
        ):
            self.assertIn(words, self.refused(text, "policy-unusable"), text[:80])

    def test_not_readable(self) -> None:
        """A path that is not there, or not a file, is an error in one line."""
        for path, words in (
            (f"{self.path}", "no such file"),
            (f"{self.path.parent}", "it is not a regular file"),
            ("/dev/zero", "it is not a regular file"),
        ):
            error = self.assertRaises(UsageError, read_policy, path)
            self.assertEqual(error.code, "policy-unusable")
            self.assertIn(f"policy file {path}: it cannot be read: ", str(error))
            self.assertIn(words, str(error))
        os.mkfifo(self.path)
        self.assertIn(
            "not a regular file",
            str(self.assertRaises(UsageError, read_policy, str(self.path))),
        )

    def test_writable_by_others(self) -> None:
        """A file that others may write, or replace, decides nothing."""
        good = self.write("[[allow]]\nall = true")
        for mode in (0o620, 0o602, 0o666, 0o777):
            self.path.chmod(mode)
            error = self.assertRaises(UsageError, read_policy, good)
            self.assertEqual(error.code, "policy-writable")
            self.assertIn(f"others than its owner may write it; run chmod go-w {good}", str(error))
        self.path.chmod(0o644)
        self.assertEqual(len(read_policy(good)), 1)
        self.path.parent.chmod(0o757)
        error = self.assertRaises(UsageError, read_policy, good)
        self.assertEqual(error.code, "policy-writable")
        self.assertIn(f"run chmod go-w {self.path.parent}", str(error))
        link = self.path.parent.parent / f"{os.urandom(4).hex()}.toml"
        link.symlink_to(self.path)
        self.addCleanup(link.unlink)
        self.assertRaises(UsageError, read_policy, str(link))
        self.path.parent.chmod(0o1777)
        self.assertEqual(len(read_policy(good)), 1)


class RulesTests(Case):
    """Options and a file together."""

    def rules(self, **given: Any) -> AccessPolicy:
        values = {name.replace("_", "-"): value for name, value in given.items()}
        return AccessPolicy.of(access_rules(Values(TOML, Where.SERVICE, {**SERVICE, **values})))

    def test_both(self) -> None:
        """A denial in either wins, and an allowance in either is enough."""
        text = '[[allow]]\naccounts = ["carol@R"]\n[[deny]]\naccounts = ["bob@R"]'
        policy = self.rules(policy=self.write(text), allow=["bob@R", "alice@R"], deny=["dave@R"])
        for name, allowed in (("alice", True), ("carol", True), ("bob", False), ("dave", False)):
            decision = policy.decide(f"{name}@R", lambda name=name: Logon(name, "R"))
            self.assertIs(decision.allowed, allowed, name)
        self.assertEqual(
            policy.decide("bob@R", lambda: Logon("bob", "R")).cause,
            f"denied by {self.path}:3 [[deny]] bob@R",
        )
        self.assertEqual(self.rules(allow=["a@R"]), AccessPolicy(rules=option_rules(["a@R"])))

    def test_nobody(self) -> None:
        """Denials alone allow no client, wherever they stand."""
        path = self.write('[[deny]]\naccounts = ["bob@R"]')
        error = self.assertRaises(UsageError, self.rules, policy=path)
        self.assertEqual(error.code, "no-access-policy")

    def test_groups_of_endpoint_strings(self) -> None:
        """Where no directory is asked a name of a group is an error."""
        path = self.write('[[allow]]\ngroups = ["testers"]')
        rules = access_rules(Values(SERVER, Where.SERVER, {"policy": path}))
        error = self.assertRaises(UsageError, AccessPolicy.of, rules)
        self.assertIn("group 'testers': it is not a SID", str(error))

    def test_groups_without_kerberos(self) -> None:
        """A package that does not tell groups is no package for rules about them."""
        path = self.write(f'[[deny]]\ngroups = ["{GROUP}"]')
        given = {
            "policy": path,
            "allow-all": "yes",
            "package": NTLM.name,
            "ntlm-users": "/etc/users",
        }
        values = Values(SERVER, Where.SERVER, given)
        error = self.assertRaises(UsageError, access_rules, values)
        self.assertIn("does not tell a client's groups", str(error))
