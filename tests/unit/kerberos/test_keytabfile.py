"""Keytabs read and replaced whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import krb5
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import CredentialError
from mutauth_twisted.kerberos.keytabfile import (
    Key,
    locked,
    parse_keys,
    read_keys,
    render_keys,
    replace_keys,
)

_NAMES = st.sampled_from(
    [
        "svc@TEST.EXAMPLE",
        "SRV1$@TEST.EXAMPLE",
        "shop/srv1@TEST.EXAMPLE",
        "a\\/b\\@c/d\\\\e@TEST.EXAMPLE",
    ]
)
_KEYS = st.lists(
    st.builds(
        lambda name, version, added, kind, seed: Key(
            name, version, added, kind, bytes([seed]) * (32 if kind == 18 else 16)
        ),
        _NAMES,
        st.integers(1, 100_000),
        st.integers(0, 2**31 - 1),
        st.sampled_from([17, 18]),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=12,
)


def key(version: int = 2, seed: bytes = b"a") -> Key:
    """One key."""
    return Key("svc@TEST.EXAMPLE", version, 1_700_000_000, 18, seed * 32)


class KeytabFileTests(SynchronousTestCase):
    """A keytab."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.path.parent.mkdir(exist_ok=True)
        self.path.touch(0o600)

    @settings(max_examples=50)
    @given(_KEYS)
    def test_round_trip(self, keys: list[Key]) -> None:
        """Entries that are written are read again, in their order, and libkrb5 reads the same."""
        replace_keys(self.path, keys)
        self.assertEqual(list(read_keys(self.path)), keys)
        theirs = krb5.kt_resolve(krb5.init_context(), f"FILE:{self.path}".encode())
        found = [
            (
                str(entry.principal),
                entry.kvno,
                entry.timestamp,
                entry.key.enctype,
                bytes(entry.key.data),
            )
            for entry in theirs
        ]
        ours = [(each.principal, each.version, each.added, each.kind, each.secret) for each in keys]
        self.assertEqual(found, ours)

    @given(_KEYS, st.integers(0, 500))
    def test_cut(self, keys: list[Key], count: int) -> None:
        """A keytab that is cut off is one with fewer keys, or refused."""
        data = render_keys(keys)[:count]
        try:
            found = parse_keys(data)
        except ValueError:
            return
        self.assertEqual(list(found), keys[: len(found)])

    def test_written_by_libkrb5(self) -> None:
        """Entries that libkrb5 writes are read, and entries that it has removed are not."""
        context = krb5.init_context()
        keytab = krb5.kt_resolve(context, f"FILE:{self.path}".encode())
        self.path.unlink()
        for each in (key(1), key(300), key(3)):
            name = krb5.parse_name_flags(context, each.principal.encode())
            block = krb5.init_keyblock(context, each.kind, each.secret)
            krb5.kt_add_entry(context, keytab, name, each.version, 0, block)
        (entry,) = [entry for entry in keytab if entry.kvno == 300]
        krb5.kt_remove_entry(context, keytab, entry)
        found = read_keys(self.path)
        self.assertEqual([each.version for each in found], [1, 3])
        self.assertEqual({each.secret for each in found}, {b"a" * 32})

    def test_owner_and_mode(self) -> None:
        """The new file has the owner and mode of the old one, and leaves nothing beside it."""
        self.path.chmod(0o640)
        if os.getuid() == 0:
            os.chown(self.path, 65534, 65534)
        before = self.path.stat()
        replace_keys(self.path, [key()])
        after = self.path.stat()
        self.assertEqual(stat.S_IMODE(after.st_mode), 0o640)
        self.assertEqual((after.st_uid, after.st_gid), (before.st_uid, before.st_gid))
        self.assertNotEqual(after.st_ino, before.st_ino)
        names = [each.name for each in self.path.parent.iterdir() if self.path.name in each.name]
        self.assertEqual(names, [self.path.name])

    def test_never_readable_by_others(self) -> None:
        """No file with keys is ever readable by others, whatever the umask is."""
        seen: list[int] = []
        rename = os.rename

        def look(source: str, target: str) -> None:
            seen.append(os.stat(source).st_mode & 0o077)
            rename(source, target)

        self.patch(os, "rename", look)
        self.addCleanup(os.umask, os.umask(0))
        replace_keys(self.path, [key()])
        self.assertEqual(seen, [0])

    def test_failure(self) -> None:
        """A keytab that cannot be replaced stays as it was."""
        replace_keys(self.path, [key()])

        def fail(source: str, target: str) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "rename", fail)
        error = self.assertRaises(CredentialError, replace_keys, self.path, [key(3)])
        self.assertIn("no space left", str(error))
        self.assertEqual(read_keys(self.path), (key(),))

    def test_link(self) -> None:
        """A link is not replaced: who reads the file itself would keep the old keys."""
        link = self.path.with_name(f"{self.path.name}.link")
        link.symlink_to(self.path)
        self.assertRaises(CredentialError, replace_keys, link, [key()])
        self.assertTrue(link.is_symlink())

    def test_secrets(self) -> None:
        """No key is in what is printed of one."""
        self.assertNotIn("a" * 32, repr(key()))

    def test_not_a_keytab(self) -> None:
        """Another file is refused."""
        self.path.write_bytes(b"nonsense")
        self.assertRaises(CredentialError, read_keys, self.path)

    def test_one_at_a_time(self) -> None:
        """A second rotation is refused while there is one."""
        with locked(self.path):
            error = self.assertRaises(CredentialError, locked(self.path).__enter__)
        self.assertIn("another command rotates", str(error))
        with locked(self.path):
            """It is over."""
