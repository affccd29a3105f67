"""Access policy of authenticated clients."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.access import AccessPolicy, AccessRules, Decision, Logon, Rule, SessionLimits
from mutauth_twisted.access.patterns import SeveralPatterns
from mutauth_twisted.access.rules import option_rules
from mutauth_twisted.access.sids import is_sid
from mutauth_twisted.errors import UsageError
from mutauth_twisted.names import split_principal


def permits(policy: AccessPolicy, principal: str, **told: tuple[str, ...]) -> bool:
    """Tell whether an account of that very name is allowed."""
    return policy.permits(principal, lambda: Logon(split_principal(principal)[0], "R", **told))  # type: ignore[arg-type]


class AccessPolicyTests(SynchronousTestCase):
    """Clients that are allowed or denied."""

    def test_nobody_by_default(self) -> None:
        """Without an allowance nobody comes in."""
        self.assertFalse(permits(AccessPolicy(), "alice@R"))

    def test_patterns(self) -> None:
        """Wildcards match within the name or the realm, and never across."""
        policy = AccessPolicy(allow=["alice@EXAMPLE.COM", "svc-*@*.EXAMPLE.COM"])
        for principal, permitted in (
            ("alice@EXAMPLE.COM", True),
            ("ALICE@example.com", True),
            ("alice@EVIL.COM", False),
            ("alice", False),
            ("malice@EXAMPLE.COM", False),
            ("svc-a@SUB.EXAMPLE.COM", True),
            ("svc-a@EXAMPLE.COM", False),
            ("svc-a\\@SUB.EXAMPLE.COM@EVIL.COM", False),
        ):
            self.assertIs(permits(policy, principal), permitted, principal)

    def test_a_denial_beats_an_allowance(self) -> None:
        """Even that of everybody."""
        policy = AccessPolicy(allow_all=True, deny=["mallory@*"])
        self.assertTrue(permits(policy, "alice@R"))
        self.assertFalse(permits(policy, "Mallory@R"))

    def test_names_that_look_alike(self) -> None:
        """Names that Unicode folds together are several accounts: an allowance is for one, a denial
        for all.
        """
        alike = {
            "kate": "\u212aate",
            "strasse": "straße",
            "asso": "a\u017f\u017fo",
            "alice": "\uff41lice",
        }
        for name, lookalike in alike.items():
            self.assertFalse(permits(AccessPolicy(allow=[f"{name}@R"]), f"{lookalike}@R"))
            self.assertTrue(permits(AccessPolicy(allow=[f"{lookalike}@R"]), f"{lookalike}@R"))
            self.assertFalse(
                permits(AccessPolicy(allow_all=True, deny=[f"{name}@R"]), f"{lookalike}@R")
            )
            self.assertFalse(
                permits(AccessPolicy(allow_all=True, deny=[f"{lookalike}@R"]), f"{name}@R")
            )

    def test_without_a_realm(self) -> None:
        """A name that cannot be told whole matches nothing."""
        for principal in ("", "alice", "@R", "alice@"):
            self.assertFalse(permits(AccessPolicy(allow=["*@*"]), principal))
            self.assertFalse(permits(AccessPolicy(allow_all=True, deny=["x@R"]), principal))
            self.assertFalse(
                permits(AccessPolicy(allow_all=True, deny_groups=["S-1-18-1"]), principal)
            )

    def test_patterns_name_a_realm(self) -> None:
        """A pattern without a realm would let a stranger of the same name in."""
        for pattern in ("alice", "*", "@R", "alice@"):
            error = self.assertRaises(UsageError, AccessPolicy, allow=[pattern])
            self.assertIn("@*", str(error))
            self.assertRaises(UsageError, AccessPolicy, deny=[pattern])

    def test_patterns_that_match_nobody(self) -> None:
        """A denial that can find no account would leave in whom it means to deny."""
        for pattern, several in (
            ("alice@LAB.EXAMPLE,bob@LAB.EXAMPLE", True),
            ("alice@LAB.EXAMPLE, bob@LAB.EXAMPLE", True),
            ("alice@LAB.EXAMPLE bob@LAB.EXAMPLE", True),
            ("alice@LAB.EXAMPLE;bob@LAB.EXAMPLE", True),
            ("alice@upn.example@LAB.EXAMPLE", True),
            ("alice,bob@LAB.EXAMPLE", True),
            ("alice@LAB.EXAMPLE,", True),
            ("LAB\\alice,bob", True),
            ("LAB\\alice,LAB\\bob", True),
            ("alice@LAB.EXAMPLE bob", False),
            ("alice@ LAB.EXAMPLE", False),
            ("alice @LAB.EXAMPLE", False),
            ("alice@LAB\u00a0EXAMPLE", False),
            ("LAB\\ alice", False),
            ("LAB \\alice", False),
            ("alice\0@LAB.EXAMPLE", False),
            ("al\tice@LAB.EXAMPLE", False),
            ("alice@LAB.EXAMPLE\nbob", False),
            ("al\u2028ice@LAB.EXAMPLE", False),
        ):
            for rules in ({"deny": [pattern]}, {"allow": [pattern]}):
                error = self.assertRaises(UsageError, AccessPolicy, **rules)
                self.assertIs(isinstance(error, SeveralPatterns), several, pattern)

    def test_patterns_of_odd_names(self) -> None:
        """Characters that an account's name may have are no mistake."""
        for pattern, principal in (
            ("alice\\@upn.example@R", "alice\\@upn.example@R"),
            ("John Doe@R", "john doe@R"),
            ("[a,b]lice@R", "blice@R"),
            (" alice@R ", "alice@R"),
        ):
            policy = AccessPolicy(allow_all=True, deny=[pattern])
            self.assertFalse(permits(policy, principal), pattern)
        self.assertFalse(
            AccessPolicy(allow_all=True, deny=["LAB\\John Doe"]).permits(
                "x@R", lambda: Logon("John Doe", "LAB")
            )
        )

    def test_computers(self) -> None:
        """A wildcard is for computers, which any user may create, only in a pattern that ends in $,
        or that is * alone.
        """
        evil, user = Logon("svc-evil$", "LAB"), Logon("svc-good", "LAB")
        for pattern, computer_too in (
            ("svc-*@R", False),
            ("svc-*@*", False),
            ("*-*@R", False),
            ("?*@R", False),
            ("svc-evil?@R", False),
            ("svc-evil[$]@R", False),
            ("svc-*[!x]@R", False),
            ("LAB\\svc-*", False),
            ("R.EXAMPLE\\svc-*", False),
            ("*@R", True),
            ("**@*", True),
            ("LAB\\*", True),
            ("svc-*$@R", True),
            ("*$@R", True),
            ("LAB\\svc-*$", True),
            ("svc-evil$@R", True),
            ("LAB\\SVC-EVIL$", True),
        ):
            policy = AccessPolicy(allow=[pattern])
            self.assertIs(policy.permits("svc-evil@R", lambda: evil), computer_too, pattern)
            self.assertIs(policy.permits("svc-evil$@R", lambda: evil), computer_too, pattern)
            if (
                not pattern.upper().endswith(("$", "$@R", "[$]@R"))
                and "evil" not in pattern
                and "EXAMPLE" not in pattern
            ):
                self.assertTrue(policy.permits("svc-good@R", lambda: user), pattern)
        refusal = AccessPolicy(allow=["svc-*@R"]).decide("svc-evil@R", lambda: evil)
        self.assertIn("a wildcard is for computers only in a pattern that ends in $", str(refusal))

    def test_denials_stay_wide(self) -> None:
        """A denial with a wildcard is for computers as for users, however it ends."""
        evil, user = Logon("svc-evil$", "LAB"), Logon("svc-evil", "LAB")
        for pattern in (
            "svc-*@R",
            "svc-*@*",
            "?*@R",
            "*@R",
            "LAB\\svc-*",
            "svc-evi?@R",
            "svc-evil[$]@R",
            "svc-*$@R",
        ):
            for everybody in ({"allow_all": True}, {"allow": ["*@R", "svc-evil$@R", "svc-evil@R"]}):
                policy = AccessPolicy(deny=[pattern], **everybody)
                self.assertFalse(policy.permits("svc-evil$@R", lambda: evil), pattern)
                self.assertFalse(policy.permits("x@R", lambda: evil), pattern)
                if "$" not in pattern:
                    self.assertFalse(policy.permits("x@R", lambda: user), pattern)

    def test_blanks_around(self) -> None:
        """Blanks around a pattern are none of it, so that no denial misses for one."""
        self.assertFalse(permits(AccessPolicy(allow_all=True, deny=[" bob@R "]), "bob@R"))
        self.assertFalse(permits(AccessPolicy(allow_all=True, deny=[" R\\bob\n"]), "bob@R"))


class AccountTests(SynchronousTestCase):
    """The name on the ticket is the client's choice; the PAC's is not."""

    def test_a_name_of_another(self) -> None:
        """An account whose UPN, or whose other name, is the one allowed is not allowed by it."""
        mallory = Logon("mallory", "R", upn="alice@r")
        for allowed in ("alice@R", "al*@R", "alice@*", "?lice@R"):
            self.assertFalse(
                AccessPolicy(allow=[allowed]).permits("alice@R", lambda: mallory), allowed
            )
        self.assertTrue(AccessPolicy(allow=["mallory@R"]).permits("alice@R", lambda: mallory))
        self.assertTrue(AccessPolicy(allow=["*@R"]).permits("alice@R", lambda: mallory))

    def test_another_name(self) -> None:
        """An account that is denied stays out under each of its names, and by each of them."""
        bob = Logon("bob", "R", upn="robert@r")
        names = ("bob", "robert", "bob\\@r.example", "bob\\@R", "BOB", "b\u03bfb")
        for policy in (
            AccessPolicy(allow_all=True, deny=["bob@R"]),
            AccessPolicy(allow=["*@R"], deny=["b?b@*"]),
            AccessPolicy(allow=["*@R"], allow_groups=["S-1-18-1"], deny=["ROBERT@r"]),
        ):
            for name in names:
                self.assertFalse(policy.permits(f"{name}@R", lambda: bob), name)
            self.assertTrue(
                policy.permits(
                    "bob@R.EXAMPLE.COM" if policy.allow_all else "x@R", lambda: Logon("x", "R")
                )
            )

    def test_enterprise_names(self) -> None:
        """An enterprise name is as good as any other: the account counts."""
        policy = AccessPolicy(allow=["alice@R"])
        self.assertTrue(policy.permits("alice\\@r.example@R", lambda: Logon("Alice", "R")))
        self.assertFalse(policy.permits("alice\\@r.example@R", lambda: Logon("mallory", "R")))

    def test_computers(self) -> None:
        """A computer that comes without its $ is not a user of that name."""
        computer = Logon("srv1$", "R", upn="srv1$@r")
        self.assertFalse(AccessPolicy(allow=["srv1@R"]).permits("srv1@R", lambda: computer))
        self.assertTrue(AccessPolicy(allow=["srv1$@R"]).permits("srv1@R", lambda: computer))
        self.assertFalse(
            AccessPolicy(allow_all=True, deny=["srv1$@R"]).permits("srv1@R", lambda: computer)
        )

    def test_denied_computers(self) -> None:
        """A denial finds a computer without its $ too, under each of its names; a user's neighbours
        are left alone.
        """
        computer = Logon("SRV1$", "R", upn="host/srv1.r@r")
        for pattern in ("srv1@R", "srv1$@R", "S?V1@*", "R\\srv1", "r\\srv1$", "srv\uff11@R"):
            policy = AccessPolicy(allow_all=True, deny=[pattern])
            for name in ("SRV1$", "srv1", "host\\/srv1.r", "SRV1\uff04"):
                self.assertFalse(policy.permits(f"{name}@R", lambda: computer), (pattern, name))
            for name in ("srv10$", "srv1x"):
                self.assertTrue(
                    policy.permits(f"{name}@R", lambda name=name: Logon(name, "R")), (pattern, name)
                )
        user = Logon("srv1", "R")
        self.assertTrue(
            AccessPolicy(allow_all=True, deny=["srv1$@R"]).permits("srv1@R", lambda: user)
        )
        self.assertFalse(AccessPolicy(allow=["R\\srv1"]).permits("srv1@R", lambda: computer))

    def test_strange_names(self) -> None:
        """Characters that a principal must escape are escaped in patterns too, so that no name
        reaches over into the realm.
        """
        for name, pattern in (("a@b", "a\\@b@R"), ("a\\b", "a\\\\b@R"), ("a/b", "a\\/b@R")):
            logon = Logon(name, "R")
            self.assertTrue(
                AccessPolicy(allow=[pattern]).permits("x@R", lambda logon=logon: logon), name
            )
            self.assertFalse(
                AccessPolicy(allow_all=True, deny=[pattern]).permits(
                    "x@R", lambda logon=logon: logon
                ),
                name,
            )
        self.assertFalse(AccessPolicy(allow=["a/b@R"]).permits("a/b@R", lambda: Logon("a/b", "R")))

    def test_a_upn_of_elsewhere(self) -> None:
        """A UPN whose suffix is another realm's is not a name in this one."""
        policy = AccessPolicy(allow_all=True, deny=["bob@R"])
        for upn in ("bob@other", "bob", "@r", ""):
            logon = Logon("x", "R", upn=upn)
            self.assertTrue(policy.permits("x@R", lambda logon=logon: logon), upn)

    def test_without_a_pac(self) -> None:
        """A client without a PAC comes in where everybody of the realm does and nobody of it is
        denied, and nowhere else.
        """
        group = "S-1-5-21-1-2-3-1104"
        for policy, permitted in (
            (AccessPolicy(allow_all=True), True),
            (AccessPolicy(allow=["*@R"]), True),
            (AccessPolicy(allow=["**@*"]), True),
            (AccessPolicy(allow=["*@R"], deny=["bob@OTHER", "*@EVIL"]), True),
            (AccessPolicy(allow=["alice@R"]), False),
            (AccessPolicy(allow=["a*@R", "alice@*"]), False),
            (AccessPolicy(allow_all=True, deny=["bob@R"]), False),
            (AccessPolicy(allow_all=True, deny=["bob@*"]), False),
            (AccessPolicy(allow_all=True, deny=["bob@r"]), False),
            (AccessPolicy(allow_all=True, deny_groups=[group]), False),
            (AccessPolicy(allow_groups=[group]), False),
        ):
            for name in ("alice", "alice\\@r.example"):
                self.assertIs(policy.permits(f"{name}@R"), permitted, policy)
                self.assertIs(
                    policy.permits(f"{name}@R", lambda: Logon("", "R", groups=(group,))),
                    permitted,
                    policy,
                )

    def test_reasons(self) -> None:
        """A refusal names the rule that denies, or the account that none allows and what
        would.
        """
        group, other = GroupTests.GROUP, "S-1-5-21-1-2-3-1105"
        mallory, member = (
            Logon("mallory", "LAB"),
            Logon("mallory", "LAB", groups=(group,), deny_only=(other,)),
        )
        unspoken = Logon("mal@lory", "LAB", groups_known=False)
        calls = {group: "LAB\\banned"}
        for policy, logon, words in (
            (
                AccessPolicy(allow=["alice@R"]),
                mallory,
                ("no rule allows it", "mallory@R (LAB\\mallory)", "--allow that"),
            ),
            (
                AccessPolicy(allow=["bob@S", "b*@T"]),
                mallory,
                ("no rule allows it: no --allow is about R", "NAME@R"),
            ),
            (AccessPolicy(allow=["alice@R"]), None, ("no PAC",)),
            (
                AccessPolicy(allow_all=True, deny=["x@R", "al*@R"]),
                mallory,
                ("denied by --deny al*@R",),
            ),
            (
                AccessPolicy(allow_all=True, deny=["x@R", "m*@*"]),
                mallory,
                ("denied by --deny m*@*", "LAB\\mallory"),
            ),
            (
                AccessPolicy(allow_all=True, deny=["LAB\\x", "lab\\m*"]),
                mallory,
                ("denied by --deny lab\\m*;", "LAB\\mal"),
            ),
            (
                AccessPolicy(allow_all=True, deny_groups=[other]),
                member,
                (f"denied by --deny-group {other}", "LAB\\mal"),
            ),
            (
                AccessPolicy(allow_all=True, deny_groups=[group], group_names=calls),
                member,
                ("denied by --deny-group LAB\\banned", "LAB\\mallory"),
            ),
            (
                AccessPolicy(allow=["x@R"], allow_groups=[other]),
                unspoken,
                ("mal\\@lory@R (LAB\\mal@lory)", "its groups"),
            ),
            (
                AccessPolicy(allow_all=True, deny_groups=[group]),
                unspoken,
                ("nothing tells its groups",),
            ),
        ):
            refusal = policy.decide("alice@R", lambda logon=logon: logon)
            self.assertFalse(refusal.allowed)
            self.assertTrue(refusal.remedy)
            for word in words:
                self.assertIn(word, f"{refusal.cause}; {refusal.remedy}")
        allowed = AccessPolicy(allow=["x@R", "al*@R"]).decide("x@R", lambda: Logon("alice", "LAB"))
        self.assertEqual(allowed, Decision(allowed=True, rule="--allow al*@R"))

    def test_read_when_it_decides(self) -> None:
        """The PAC is not read where the realm alone decides, or the name on the ticket keeps
        out.
        """

        def unread() -> Logon:
            raise AssertionError("read")

        self.assertTrue(AccessPolicy(allow_all=True).permits("alice@R", unread))
        self.assertTrue(
            AccessPolicy(allow=["bob@R", "*@R"], deny=["bob@S"]).permits("alice@R", unread)
        )
        self.assertTrue(
            AccessPolicy(allow=["*@R"], allow_groups=["S-1-18-1"]).permits("alice@R", unread)
        )
        self.assertFalse(
            AccessPolicy(deny=["alice@R"], allow_groups=["S-1-18-1"]).permits("alice@R", unread)
        )
        self.assertFalse(AccessPolicy(allow=["alice@S"]).permits("alice@R", unread))


class DomainTests(SynchronousTestCase):
    """Accounts as the log names them, DOMAIN\\name."""

    BOB = Logon("Bob", "LAB", upn="robert@lab.example")

    def test_allowed(self) -> None:
        """The account of that name in that domain comes in, under each of its names, and nobody
        else.
        """
        for pattern, permitted in (
            ("LAB\\bob", True),
            ("lab\\B?b", True),
            ("LAB\\*", True),
            ("lab.example\\bob", True),
            ("OTHER\\bob", False),
            ("LA\\bob", False),
            ("LABS\\bob", False),
            ("other.example\\bob", False),
            ("LAB\\robert", False),
            ("LAB\\bo", False),
            ("\uff2cAB\\bob", False),
            ("LAB\\b\u2134b", False),
        ):
            for name in ("bob", "robert", "alice"):
                policy = AccessPolicy(allow=[pattern])
                self.assertIs(
                    policy.permits(f"{name}@LAB.EXAMPLE", lambda: self.BOB),
                    permitted,
                    (pattern, name),
                )
        # A realm that has the domain's name is not the domain.
        self.assertFalse(
            AccessPolicy(allow=["LAB\\bob"]).permits("bob@LAB", lambda: Logon("bob", "EVIL"))
        )

    def test_denied(self) -> None:
        """It stays out under each of its names, whatever allows it; the domain may be written as
        the realm.
        """
        for pattern in (
            "LAB\\bob",
            "lab\\B*",
            "LAB\\b\u2134b",
            "\uff2cAB\\bob",
            "lab.example\\bob",
            "LAB.EXAMPLE\\BOB",
        ):
            for policy in (
                AccessPolicy(allow_all=True, deny=[pattern]),
                AccessPolicy(
                    allow=["*@LAB.EXAMPLE", "LAB\\bob"],
                    deny=[pattern],
                    allow_groups=[GroupTests.GROUP],
                ),
            ):
                for name in ("bob", "robert", "x", "bob\\@lab.example"):
                    self.assertFalse(
                        policy.permits(f"{name}@LAB.EXAMPLE", lambda: self.BOB), (pattern, name)
                    )
                self.assertTrue(
                    policy.permits("alice@LAB.EXAMPLE", lambda: Logon("alice", "LAB")), pattern
                )
                other = AccessPolicy(allow_all=True, deny=[pattern])
                self.assertTrue(
                    other.permits("bob@OTHER.EXAMPLE", lambda: Logon("bob", "OTHER")), pattern
                )

    def test_without_a_pac(self) -> None:
        """Nothing tells whether it is the account: a denial denies every client, and an allowance
        allows no client.
        """
        for logon in (None, Logon("", "LAB")):
            for realm in ("LAB.EXAMPLE", "OTHER"):
                for policy in (
                    AccessPolicy(allow_all=True, deny=["LAB\\bob"]),
                    AccessPolicy(allow=["*@*"], deny=["LAB\\bob"]),
                    AccessPolicy(allow=["LAB\\alice", "LAB\\*"]),
                ):
                    self.assertFalse(
                        policy.permits(f"alice@{realm}", lambda logon=logon: logon), policy
                    )

    def test_rules_about_one_account(self) -> None:
        """A policy tells which rules are about one account, and how another of the same place is
        written.
        """
        made = option_rules(
            ["*@R", "srv1@R", "LAB\\srv1"], ["a\\/b@R", "b?b@R", "LAB\\[x]", "eve@*"]
        )
        rules = [
            (each.rule.source, each.name, each.home, each.pattern_for("x$"))
            for each in AccessRules(made).account_rules
        ]
        self.assertEqual(
            rules,
            [
                ("--allow", "srv1", "R", "x$@R"),
                ("--allow", "srv1", "LAB", "LAB\\x$"),
                ("--deny", "a/b", "R", "x$@R"),
            ],
        )

    def test_both_or_neither(self) -> None:
        """A name with a domain and a realm, which would match no account, is refused, with the
        right one.
        """
        for pattern, words in (
            (
                "LAB\\bob@LAB.EXAMPLE",
                ("pattern 'LAB\\bob@LAB.EXAMPLE'", "write bob@LAB.EXAMPLE, or LAB\\bob with"),
            ),
            ("LAB\\bob@*", ("would match no account", "write bob@*, or LAB\\bob with")),
            ("LAB\\nina@R", ("write nina@R, or LAB\\nina",)),
            ("LAB\\*@R", ("write *@R, or LAB\\*",)),
            ("a\\@b\\c@R", ("would match no account",)),
            ("LAB\\\\bob", ("more than one backslash; write LAB\\bob",)),
            ("LAB\\", ("write DOMAIN\\name",)),
            ("\\bob", ("write DOMAIN\\name",)),
            ("LAB\\bob@", ("write DOMAIN\\name",)),
            ("*\\bob", ("wildcards in the name only",)),
            ("L[A]B\\bob", ("wildcards in the name only",)),
            ("A/B\\bob", ("write DOMAIN\\name",)),
            ("LAB\\a\\b", ("write DOMAIN\\name",)),
            ("bob\\@lab.example", ("names no realm", "write bob\\@lab.example@REALM")),
        ):
            for option in ("allow", "deny"):
                error = str(self.assertRaises(UsageError, AccessPolicy, **{option: [pattern]}))
                for word in words:
                    self.assertIn(word, error)


class GroupTests(SynchronousTestCase):
    """Groups that allow their members."""

    GROUP = "S-1-5-21-1-2-3-1104"

    def test_members(self) -> None:
        """Members get in, others do not, and a denial keeps a member out."""
        policy = AccessPolicy(allow_groups=["s-1-5-21-1-2-3-1104"], deny=["eve@*"])
        self.assertTrue(permits(policy, "alice@R", groups=("S-1-1-0", self.GROUP)))
        self.assertFalse(permits(policy, "alice@R", groups=(self.GROUP + "0", "S-1-1-0")))
        self.assertFalse(permits(policy, "alice@R", deny_only=(self.GROUP,)))
        self.assertFalse(permits(policy, "alice@R"))
        self.assertFalse(permits(policy, "eve@R", groups=(self.GROUP,)))

    def test_denied(self) -> None:
        """Members of a denied group stay out, whoever allows them, even where they are members for
        denials only.
        """
        for policy in (
            AccessPolicy(allow_all=True, deny_groups=[self.GROUP]),
            AccessPolicy(allow=["alice@R"], deny_groups=[self.GROUP]),
            AccessPolicy(allow_groups=["S-1-18-1"], deny_groups=[self.GROUP]),
        ):
            self.assertTrue(permits(policy, "alice@R", groups=("S-1-18-1",)))
            self.assertFalse(permits(policy, "alice@R", groups=("S-1-18-1", self.GROUP)))
            self.assertFalse(
                permits(policy, "alice@R", groups=("S-1-18-1",), deny_only=(self.GROUP,))
            )

    def test_nobody(self) -> None:
        """A policy knows whether it allows any client."""
        self.assertTrue(AccessPolicy(deny=["a@R"]).allows_no_client)
        for policy in (
            AccessPolicy(["a@R"]),
            AccessPolicy(allow_all=True),
            AccessPolicy(allow_groups=[self.GROUP]),
        ):
            self.assertFalse(policy.allows_no_client)

    def test_one_form(self) -> None:
        """However a SID is written, it is compared as a PAC has it: no denial misses for a zero or
        a capital letter.
        """
        for text, sid in (
            ("S-1-5-21-0000000001-02-3-01104", self.GROUP),
            ("s-01-005-21-1-2-3-1104", self.GROUP),
            (f" {self.GROUP} ", self.GROUP),
            ("S-1-0x5-21-1-2-3-1104", self.GROUP),
            ("S-1-0XABCDEF012345-4294967295", "S-1-188900966474565-4294967295"),
            ("S-1-188900966474565-4294967295", "S-1-188900966474565-4294967295"),
        ):
            self.assertEqual(AccessPolicy(deny_groups=[text]).deny_groups, (sid,))
            policy = AccessPolicy(allow_all=True, deny_groups=[text])
            self.assertFalse(permits(policy, "alice@R", groups=(sid,)), text)
            self.assertTrue(
                permits(AccessPolicy(allow_groups=[text]), "alice@R", groups=(sid,)), text
            )

    def test_bounds(self) -> None:
        """Text that no SID can be is refused, and never a rule that matches nobody."""
        for text in (
            "S-1-5-21-1-2-3-4294967296",
            "S-1-281474976710656-1",
            "S-1-0x1000000000000-1",
            "S-1-5" + "-1" * 16,
            "S-1-5-21-99999999999",
        ):
            self.assertTrue(is_sid(text), text)
            for option in ("allow_groups", "deny_groups"):
                error = str(self.assertRaises(UsageError, AccessPolicy, **{option: [text]}))
                self.assertIn("too large for a SID", error)
        self.assertEqual(
            AccessPolicy(deny_groups=["S-1-5" + "-1" * 15]).deny_groups, ("S-1-5" + "-1" * 15,)
        )

    def test_local_in_disguise(self) -> None:
        """A group that no ticket names is refused in whatever form."""
        for text in ("S-1-0x5-32-544", "S-1-05-032-00544", "S-1-00000001-0"):
            self.assertIn(
                "no ticket names it",
                str(self.assertRaises(UsageError, AccessPolicy, deny_groups=[text])),
            )

    def test_no_sid(self) -> None:
        """Text that is not a SID is refused by name."""
        for text in (
            "Domain Users",
            "S-1-5",
            "S-2-5-21",
            "S-1-5-x",
            "S-1-5-21-",
            "",
            "S-1-5-2\u0661",
        ):
            error = self.assertRaises(UsageError, AccessPolicy, allow_groups=[text])
            self.assertIn("not a SID", str(error))

    def test_never_in_a_ticket(self) -> None:
        """SIDs that machines add to their own sessions are in no ticket, and can neither allow nor
        deny.
        """
        local = (
            "S-1-1-0",
            "S-1-3-0",
            "S-1-5-2",
            "S-1-5-11",
            "S-1-5-18",
            "S-1-5-32-544",
            "s-1-5-32-545",
            "S-1-5-64-10",
        )
        for sid in (*local, "S-1-16-8192", "S-1-5-5-0-1"):
            error = str(self.assertRaises(UsageError, AccessPolicy, allow_groups=[sid]))
            self.assertIn("no ticket names it", error)
            self.assertRaises(UsageError, AccessPolicy, deny_groups=[sid])
        told = (
            "S-1-5-21-1-2-3-513",
            "S-1-18-1",
            "S-1-5-21-0-0-0-497",
            "S-1-5-9",
            "S-1-5-15",
            "S-1-5-1000",
            "S-1-5-65-1",
        )
        self.assertEqual(AccessPolicy(allow_groups=told).allow_groups, told)


class LimitTests(SynchronousTestCase):
    """Rules with limits."""

    ALICE = Logon("alice", "R", groups=(GroupTests.GROUP,))

    def rule(self, source: str = "f:1", **what: Any) -> Rule:
        limits = SessionLimits(
            **{
                name: what.pop(name)
                for name in ("connections", "per_principal", "session")
                if name in what
            }
        )
        return Rule("allow", source, limits=limits, **what)

    def test_least(self) -> None:
        """All rules that allow a client limit its sessions; the least of each limit counts."""
        rules = (
            self.rule("f:1", accounts=("*@R",), connections=5, session=60.0),
            self.rule("f:5", groups=(GroupTests.GROUP,), per_principal=2, connections=7),
            self.rule("f:9", accounts=("bob@R",), session=1.0),
        )
        decision = AccessPolicy(["alice@R"], rules=rules).decide("alice@R", lambda: self.ALICE)
        self.assertEqual(decision.rule, "--allow alice@R")
        self.assertEqual([grant.rule for grant in decision.grants], ["f:1", "f:5"])
        self.assertEqual(decision.limits, SessionLimits(5, 2, 60.0))
        self.assertFalse(AccessPolicy(["a@R"]).decide("a@R", lambda: Logon("a", "R")).limits)

    def test_without_a_pac(self) -> None:
        """A client does not escape a limit by a ticket that does not tell whose it is."""
        nameless = Logon("alice", "R", groups_known=False)
        for rule, escapes in (
            (self.rule(groups=(GroupTests.GROUP,), connections=1), (False, False)),
            (self.rule(accounts=("alice@R",), connections=1), (False, True)),
            (self.rule(accounts=("R\\alice",), session=1), (False, True)),
            # Under each of its names it would be another account.
            (self.rule(accounts=("*@R",), per_principal=1), (False, True)),
            (self.rule(everyone=True, per_principal=1), (False, True)),
            (self.rule(accounts=("*@R",), connections=1), (True, True)),
            (self.rule(everyone=True, session=1), (True, True)),
            (self.rule(accounts=("alice@S",), connections=1), (True, True)),
        ):
            for options in ({"allow_all": True}, {"allow": ["*@R"]}):
                policy = AccessPolicy(rules=[rule], **options)  # type: ignore[arg-type]
                allowed = tuple(
                    policy.permits("alice@R", lambda logon=logon: logon)
                    for logon in (None, nameless)
                )
                self.assertEqual(allowed, escapes, rule)
                self.assertTrue(policy.permits("alice@R", lambda: self.ALICE))

    def test_refused(self) -> None:
        """Limits of nothing, or of no session, are errors."""
        for limits in (
            {"connections": 0},
            {"per_principal": -1},
            {"session": float("inf")},
            {"session": float("nan")},
        ):
            self.assertRaises(UsageError, SessionLimits, **limits)
        limits = SessionLimits(1)
        error = self.assertRaises(UsageError, Rule, "deny", "f:1", everyone=True, limits=limits)
        self.assertIn("f:1: a denial has no sessions to limit", str(error))
        self.assertIn(
            "it is about no client", str(self.assertRaises(UsageError, Rule, "deny", "f:1"))
        )

    def test_names(self) -> None:
        """A rule whose group is known by name only is none that a policy has."""
        rule = Rule("deny", "f:1", groups=("LAB\\x",))
        self.assertIn("not a SID", str(self.assertRaises(UsageError, AccessPolicy, rules=[rule])))
        rules = AccessRules((rule, Rule("allow", "f:4", everyone=True)))
        self.assertRaises(UsageError, AccessPolicy.of, rules)
        policy = AccessPolicy.of(rules, lambda effect, name: (GroupTests.GROUP,))
        self.assertEqual(policy.decide("a@R", lambda: self.ALICE).rule, "f:1 LAB\\x")

    def test_everyone_denied(self) -> None:
        """Nobody is left, with or without a PAC, and nobody has to be asked."""
        policy = AccessPolicy(["*@R"], allow_all=True, rules=[Rule("deny", "f:1", everyone=True)])
        for principal in ("alice@R", "x@S"):
            decision = policy.decide(principal, lambda: self.fail("it was read"))
            self.assertEqual((decision.allowed, decision.cause), (False, "denied by f:1"))
