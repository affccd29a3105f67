"""Findings about an account's keys and its password."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.directory.accountkeys import account_warnings, guessable_password, weak_keys
from mutauth_twisted.directory.spns import Account

USER = Account("CN=svc,DC=x", "svc", "S-1-5-21-1", (), False, None)


class AccountKeyTests(SynchronousTestCase):
    """Users, computers and group managed service accounts."""

    def test_weak_keys(self) -> None:
        """An account is named that allows no AES, or leaves it to the KDC; one that allows it
        beside RC4 is not.
        """
        for types in (8, 16, 24, 28, 0x1F, -1):  # -1: every bit
            self.assertIsNone(weak_keys(evolve(USER, encryption_types=types)), types)
        for types, text in (
            (None, "is not set"),
            (0, "is not set"),
            (4, "allows no AES"),
            (0x24, "allows no AES"),
        ):
            said = weak_keys(evolve(USER, encryption_types=types))
            assert said is not None
            self.assertIn(f"account svc: msDS-SupportedEncryptionTypes {text}", str(said))
            self.assertIn("set it to 24", str(said))

    def test_guessable_password(self) -> None:
        """A user's password may be one that a person chose; a computer's and a group managed
        service account's is not.
        """
        self.assertIn("account svc: it is a user's", str(guessable_password(USER)))
        self.assertIsNone(guessable_password(evolve(USER, name="SRV1$", is_computer=True)))

    def test_account_warnings(self) -> None:
        """Both where both are due, the keys first, and none for a computer with AES."""
        weak = evolve(USER, encryption_types=4)
        self.assertEqual(account_warnings(weak), [weak_keys(weak), guessable_password(weak)])
        self.assertEqual(
            account_warnings(evolve(USER, name="SRV1$", is_computer=True, encryption_types=24)), []
        )
