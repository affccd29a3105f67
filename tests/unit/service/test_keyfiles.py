"""Keys of a service in its status, whatever becomes of their files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from attrs import frozen

from mutauth_twisted.service import keyfiles as module
from mutauth_twisted.service.keyfiles import KeyFiles
from tests.unit.kerberos_case import Case


@frozen
class Chosen:
    """The settings that count here."""

    keytab: str
    package_options: dict[str, str]
    tls_files: tuple[str, str | None] | None = None


class KeyFileTests(Case):
    """A keytab."""

    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.realm.keytab("svc-echo")).absolute()
        self.files = KeyFiles(cast(Any, Chosen(str(self.path), {"keytab": str(self.path)})))

    def test_version(self) -> None:
        """The keytab's time and the highest version in it, which is read when it has changed."""
        read: list[str] = []

        def highest(path: str) -> int | None:
            read.append(path)
            return 7

        self.patch(module, "highest_version", highest)
        os.utime(self.path, (1000, 2000))
        for _ in range(3):
            self.assertEqual(
                self.files.figures, {"keytab_modified_timestamp_seconds": 2000, "keytab_kvno": 7}
            )
        self.assertEqual(len(read), 1)
        self.assertEqual(self.files.facts, (("Keytab", str(self.path)), ("Key version", "7")))
        os.utime(self.path, (1000, 3000))
        self.assertEqual(self.files.figures["keytab_modified_timestamp_seconds"], 3000)
        self.assertEqual(len(read), 2)

    def test_real(self) -> None:
        """The version is that of the keys."""
        self.assertEqual(self.files.figures["keytab_kvno"], 1)

    def test_unusable(self) -> None:
        """One that is gone, no keytab, or a FIFO has no version, and nothing waits for it."""
        self.path.unlink()
        self.assertEqual(self.files.figures, {})
        self.path.write_bytes(b"no keytab")
        self.assertEqual(set(self.files.figures), {"keytab_modified_timestamp_seconds"})
        self.path.unlink()
        os.mkfifo(self.path)
        self.assertEqual(set(self.files.figures), {"keytab_modified_timestamp_seconds"})

    def test_none(self) -> None:
        """A package without a keytab has none."""
        files = KeyFiles(cast(Any, Chosen("", {})))
        self.assertEqual((files.figures, files.facts, files.warnings), ({}, (), ()))
