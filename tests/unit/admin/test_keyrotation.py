"""Rotation of an account's key, interrupted at every step, against a KDC that only counts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.admin import keyrotation
from mutauth_twisted.admin.keyrotation import LIFETIME, Rotated, Rotation, prune
from mutauth_twisted.directory.accountkeys import AccountKeys, version_fault
from mutauth_twisted.errors import CredentialError, KDCRefused, KDCUnreachable
from mutauth_twisted.kerberos.keytabfile import Key, read_keys, replace_keys, replace_keytab
from mutauth_twisted.kerberos.passwords import keys_of, random_password

NAME, SPN = "svc@TEST.EXAMPLE", "shop/srv1@TEST.EXAMPLE"
NOW = 1_700_000_000


@cache
def _present(password: str, salt: bytes, version: int) -> list[Key]:
    return keys_of(password, [NAME, SPN], [salt], version, NOW - 1000)


class Interrupted(BaseException):
    """The process was killed."""


class Kdc:
    """A KDC with one account.

    :ivar salt: that of the account's next keys.
    :ivar wrong: how many wrong passwords it has seen.
    """

    def __init__(self) -> None:
        self.salt = b"TEST.EXAMPLEsvc"
        self.present_salt = self.salt
        self.password, self.version = "first", 2
        self.wrong = 0
        self.refuses = self.loses_answer = self.loses_request = False

    def present(self) -> list[Key]:
        """The account's present keys."""
        return _present(self.password, self.present_salt, self.version)

    def current_key(self, principal: str, keys: Sequence[Key]) -> Key | None:
        """See passwords.current_key."""
        secrets = {key.secret for key in self.present()}
        for key in keys:
            if key.secret in secrets:
                return key
            self.wrong += 1
        return None

    def change(self, password: str) -> None:
        """Change the password, or not."""
        if self.refuses:
            raise KDCRefused(NAME, "too young", "wait", code="password-refused")
        if not self.loses_request:
            self.password, self.version = password, self.version + 1
            self.present_salt = self.salt
        if self.loses_answer or self.loses_request:
            raise KDCUnreachable(NAME, "no answer")


class RotationTests(SynchronousTestCase):
    """One keytab and one account."""

    def setUp(self) -> None:
        self.kdc = Kdc()
        self.patch(os, "fsync", lambda handle: None)  # nobody cuts the power here
        self.steps = 0
        self.stop_at: int | None = None
        self.path = Path(self.mktemp()).absolute()
        self.path.parent.mkdir(exist_ok=True)
        self.path.touch(0o600)
        self.foreign = Key("other@TEST.EXAMPLE", 7, NOW - 5000, 18, b"x" * 32)
        replace_keys(self.path, [*self.kdc.present(), self.foreign])
        self.patch(keyrotation, "current_key", self.step(self.kdc.current_key))
        self.patch(keyrotation, "salt_of", self.step(lambda _: self.kdc.present_salt))
        self.patch(keyrotation, "replace_keys", self.step(replace_keys))
        self.patch(keyrotation, "replace_keytab", self.step(replace_keytab))

    def step(self, function: Callable) -> Callable:  # type: ignore[type-arg]
        """The function, before and after which the process may be killed."""

        def call(*arguments: object) -> object:
            self.interrupt()
            found = function(*arguments)
            self.interrupt()
            return found

        return call

    def interrupt(self) -> None:
        """Count a step; be killed if it is the one."""
        self.steps += 1
        # What the service has at this moment, as clients meet it.
        present = {key.secret for key in self.kdc.present() if key.principal == NAME}
        self.assertTrue(present & {key.secret for key in read_keys(self.path)}, self.steps)
        if self.steps == self.stop_at:
            raise Interrupted

    def rotate(self) -> Rotated:
        """One run of the command."""
        return self.rotation().rotate(random_password())

    def rotation(self) -> Rotation:
        """A rotation."""
        look = self.step(lambda: AccountKeys("CN=svc", ("svc",), None, self.kdc.version))
        change = self.step(self.kdc.change)

        def log_on(current: Key | None) -> Callable[[str], None]:
            if current is None:
                raise CredentialError(str(self.path), "no key", "--set", code="keytab-outdated")
            return change

        return Rotation(self.path, NAME, look, log_on, lambda _: None, lambda: NOW)

    def newest(self) -> set[tuple[str, int, int]]:
        """Name, version and kind of the account's newest keys."""
        keys = [key for key in read_keys(self.path) if key != self.foreign]
        newest = max(key.version for key in keys)
        return {(key.principal, key.version, key.kind) for key in keys if key.version == newest}

    def assert_right(self, version: int) -> None:
        """The keytab's newest keys are the account's, of each name and kind, and it has nothing
        that is not wanted.
        """
        wanted = {(name, version, kind) for name in (NAME, SPN) for kind in (17, 18)}
        self.assertEqual(self.newest(), wanted)
        keys = read_keys(self.path)
        self.assertIn(self.foreign, keys)
        secrets = {key.secret for key in keys if key.version == version and key.principal == NAME}
        self.assertEqual(secrets, {key.secret for key in self.kdc.present()})
        self.assertEqual(len(set(keys)), len(keys))

    def test_rotated(self) -> None:
        """The new keys stand beside the old, under every name, and no wrong password was sent."""
        self.assertEqual(self.rotate(), Rotated(3))
        self.assert_right(3)
        self.assertEqual(self.kdc.wrong, 0)
        self.assertTrue({key.version for key in read_keys(self.path)} >= {2, 3})
        self.assertEqual(self.rotate(), Rotated(4))
        self.assert_right(4)

    def test_interrupted(self) -> None:
        """Killed at any step, the service has the account's key, and the next run ends it."""
        self.rotate()
        total = self.steps
        self.assertGreater(total, 12)
        for stop_at in range(1, total + 1):
            with self.subTest(stop_at=stop_at):
                self.setUp()
                self.stop_at = stop_at
                self.assertRaises(Interrupted, self.rotate)
                self.stop_at = None
                rotated = self.rotate()
                self.assertEqual(rotated.version, self.kdc.version)
                self.assert_right(self.kdc.version)
                self.assertLessEqual(self.kdc.wrong, 1)

    def test_renamed(self) -> None:
        """An account whose name has changed gets another salt with its next password; both are
        ready, and the right one stays, whenever it is interrupted.
        """
        for salt in (b"TEST.EXAMPLEsvc", b"TEST.EXAMPLEupn"):
            self.setUp()
            self.kdc.present_salt, self.kdc.salt = b"TEST.EXAMPLEold-name", salt
            replace_keys(self.path, [*self.kdc.present(), self.foreign])
            self.upn_rotate()
            self.assert_right(3)
        total = self.steps
        for stop_at in range(1, total + 1):
            self.setUp()
            self.kdc.present_salt, self.kdc.salt = b"TEST.EXAMPLEold-name", b"TEST.EXAMPLEupn"
            replace_keys(self.path, [*self.kdc.present(), self.foreign])
            self.stop_at = stop_at
            self.assertRaises(Interrupted, self.upn_rotate)
            self.stop_at = None
            self.upn_rotate()
            self.assert_right(self.kdc.version)

    def upn_rotate(self) -> None:
        """The same for an account that has a UPN of another name."""
        account = self.step(lambda: AccountKeys("CN=svc", ("svc", "upn"), None, self.kdc.version))
        change = self.step(self.kdc.change)
        Rotation(self.path, NAME, account, lambda _: change, lambda _: None, lambda: NOW).rotate(
            random_password()
        )

    def test_refused(self) -> None:
        """A password that the domain refuses leaves the keytab as it was."""
        before = read_keys(self.path)
        self.kdc.refuses = True
        self.assertRaises(KDCRefused, self.rotate)
        self.assertEqual(read_keys(self.path), before)

    def test_lost(self) -> None:
        """An answer that is lost is found out: what was changed stays, what was not is taken
        back.
        """
        self.kdc.loses_answer = True
        self.assertEqual(self.rotate(), Rotated(3))
        self.assert_right(3)
        self.kdc.loses_request, before = True, read_keys(self.path)
        self.assertRaises(KDCUnreachable, self.rotate)
        self.assertEqual(read_keys(self.path), before)

    def test_outdated(self) -> None:
        """A keytab without the account's key is refused, and not changed."""
        self.kdc.password = "another"
        before = read_keys(self.path)
        # The account is checked at each step, and is not served here at all.
        self.patch(self, "interrupt", lambda: None)
        self.assertRaises(CredentialError, self.rotate)
        self.assertEqual(read_keys(self.path), before)

    def test_two_steps(self) -> None:
        """A key is added, and its password set later; interrupted at any step, it is ended."""
        password = random_password()
        self.assertEqual(self.rotation().add(password), 3)
        self.assertEqual((self.kdc.password, self.kdc.version), ("first", 2))
        self.assertEqual(self.newest(), {(n, 3, k) for n in (NAME, SPN) for k in (17, 18)})
        before, self.kdc.refuses = read_keys(self.path), True
        self.assertRaises(KDCRefused, self.rotation().finish, password)
        self.assertEqual(read_keys(self.path), before)
        self.kdc.refuses, begun = False, self.steps
        self.assertRaises(CredentialError, self.rotation().finish, "another")
        self.assertEqual(self.rotation().finish(password), Rotated(3))
        self.assert_right(3)
        for stop_at in range(1, self.steps - begun + 1):
            self.setUp()
            self.rotation().add(password)
            self.stop_at = self.steps + stop_at
            try:
                self.rotation().finish(password)
            except Interrupted:
                self.stop_at = None
                self.rotation().finish(password)
            self.assert_right(3)

    def test_prune(self) -> None:
        """An old key goes when the tickets for it have expired, and the newest never."""
        self.rotate()
        self.assertEqual(prune(self.path, NAME, NOW + LIFETIME - 1), 0)
        self.assertEqual(prune(self.path, NAME, NOW + LIFETIME), 4)
        self.assert_right(3)
        self.assertEqual(prune(self.path, NAME, NOW + 100 * LIFETIME), 0)


class FindingTests(SynchronousTestCase):
    """Keys that are not the KDC's, for a running service."""

    def test_versions(self) -> None:
        """An unfinished rotation is a warning, a key that is missing an error."""
        account = AccountKeys("CN=svc", ("svc",), None, 3)
        self.assertIsNone(version_fault(account, "/k", {2, 3}))
        unfinished = version_fault(account, "/k", {3, 4})
        missing = version_fault(account, "/k", {1, 2})
        assert unfinished is not None
        assert missing is not None
        self.assertEqual((unfinished.severity, missing.severity), ("warning", "error"))
        self.assertIn("mutauth key rotate --keytab /k", str(unfinished))
