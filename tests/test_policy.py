"""What must have been proven, and who may come in."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import UsageError
from mutauth_twisted.policy import AccessPolicy, Flag, Protection, flag_names, split_principal


class FlagTests(SynchronousTestCase):
    """The flags of a finished context."""

    def test_required_flags(self) -> None:
        """Sealing asks for confidentiality in addition to what signing asks for."""
        self.assertEqual(int(Protection.SIGN.required_flags), 2 | 4 | 8 | 32)
        self.assertEqual(Protection.SEAL.required_flags, Protection.SIGN.required_flags | Flag.CONFIDENTIALITY)

    def test_names(self) -> None:
        """Known flags have names, others numbers, none a word."""
        self.assertEqual(flag_names(2 | 32), "mutual, integrity")
        self.assertEqual(flag_names(0x1002), "mutual, 0x1000")
        self.assertEqual(flag_names(0), "none")


class PrincipalTests(SynchronousTestCase):
    """Principals taken apart."""

    def test_split(self) -> None:
        """An escaped @ belongs to the name."""
        for text, parts in (
            ("alice@R", ("alice", "R")),
            ("alice", ("alice", "")),
            ("a\\@b@R", ("a\\@b", "R")),
            ("host/h@", ("host/h", "")),
            ("a\\\\@R", ("a\\\\", "R")),
            ("a\\\\\\@b@R", ("a\\\\\\@b", "R")),
            ("", ("", "")),
        ):
            self.assertEqual(split_principal(text), parts)


class AccessPolicyTests(SynchronousTestCase):
    """Who may come in."""

    def test_nobody_by_default(self) -> None:
        """Without an allowance nobody comes in."""
        self.assertFalse(AccessPolicy().permits("alice@R"))

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
            self.assertIs(policy.permits(principal), permitted, principal)

    def test_a_denial_beats_an_allowance(self) -> None:
        """Even that of everybody."""
        policy = AccessPolicy(allow_all=True, deny=["mallory@*"])
        self.assertTrue(policy.permits("alice@R"))
        self.assertFalse(policy.permits("Mallory@R"))

    def test_other_names_of_an_account(self) -> None:
        """An enterprise name, which anybody may ask for, is no way around a denial, nor into an allowance."""
        for principal in ("bob\\@lab.example@R", "bob\\@LAB@R", "bob\\\\@R", "b\\/ob@R"):
            self.assertFalse(AccessPolicy(allow=["*@R"], deny=["bob@R"]).permits(principal), principal)
            self.assertFalse(AccessPolicy(allow_all=True, deny=["bob@R"]).permits(principal), principal)
            self.assertFalse(AccessPolicy(allow=["*@R", "bob*@*"]).permits(principal), principal)
            self.assertTrue(AccessPolicy(allow_all=True).permits(principal), principal)

    def test_names_that_look_alike(self) -> None:
        """What Unicode folds together are several accounts: an allowance is for one, a denial for all."""
        alike = {"kate": "\u212aate", "strasse": "straße", "asso": "a\u017f\u017fo", "alice": "\uff41lice"}
        for name, lookalike in alike.items():
            self.assertFalse(AccessPolicy(allow=[f"{name}@R"]).permits(f"{lookalike}@R"))
            self.assertTrue(AccessPolicy(allow=[f"{lookalike}@R"]).permits(f"{lookalike}@R"))
            self.assertFalse(AccessPolicy(allow_all=True, deny=[f"{name}@R"]).permits(f"{lookalike}@R"))
            self.assertFalse(AccessPolicy(allow_all=True, deny=[f"{lookalike}@R"]).permits(f"{name}@R"))

    def test_without_a_realm(self) -> None:
        """A name that cannot be told whole matches nothing."""
        for principal in ("", "alice", "@R", "alice@"):
            self.assertFalse(AccessPolicy(allow=["*@*"]).permits(principal))
            self.assertFalse(AccessPolicy(allow_all=True, deny=["x@R"]).permits(principal))

    def test_patterns_name_a_realm(self) -> None:
        """A pattern without a realm would let a stranger of the same name in."""
        for pattern in ("alice", "*", "@R", "alice@"):
            error = self.assertRaises(UsageError, AccessPolicy, allow=[pattern])
            self.assertIn("@*", str(error))
            self.assertRaises(UsageError, AccessPolicy, deny=[pattern])


class GroupTests(SynchronousTestCase):
    """Groups that let their members in."""

    GROUP = "S-1-5-21-1-2-3-1104"

    def test_members(self) -> None:
        """Members get in, others do not, and a denial keeps a member out."""
        policy = AccessPolicy(allow_groups=["s-1-5-21-1-2-3-1104"], deny=["eve@*"])
        self.assertTrue(policy.permits("alice@R", lambda: ("S-1-1-0", self.GROUP)))
        self.assertFalse(policy.permits("alice@R", lambda: (self.GROUP + "0", "S-1-1-0")))
        self.assertFalse(policy.permits("alice@R"))
        self.assertFalse(policy.permits("eve@R", lambda: (self.GROUP,)))

    def test_read_when_they_decide(self) -> None:
        """Groups are not read for whom a name lets in or keeps out, nor where no group lets in."""

        def unread() -> tuple[str, ...]:
            raise AssertionError("read")

        self.assertTrue(AccessPolicy(allow=["alice@R"], allow_groups=[self.GROUP]).permits("alice@R", unread))
        self.assertFalse(AccessPolicy(deny=["alice@R"], allow_groups=[self.GROUP]).permits("alice@R", unread))
        self.assertFalse(AccessPolicy(allow=["bob@R"]).permits("alice@R", unread))

    def test_nobody(self) -> None:
        """A policy knows whether it lets anybody in."""
        self.assertTrue(AccessPolicy(deny=["a@R"]).lets_nobody_in)
        for policy in (AccessPolicy(["a@R"]), AccessPolicy(allow_all=True), AccessPolicy(allow_groups=[self.GROUP])):
            self.assertFalse(policy.lets_nobody_in)

    def test_no_sid(self) -> None:
        """What is no SID is refused by name."""
        for text in ("Domain Users", "S-1-5", "S-2-5-21", "S-1-5-x", "S-1-5-21-", "", "S-1-5-2\u0661"):
            error = self.assertRaises(UsageError, AccessPolicy, allow_groups=[text])
            self.assertIn("no SID", str(error))
