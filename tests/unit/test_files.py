"""Invalid files, and what reads them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import SkipTest
from uuid import uuid4

import krb5
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted import files
from mutauth_twisted.core.context import StepFailed
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.directory.guidcache import CacheError, GuidCache
from mutauth_twisted.directory.servicename import ServiceName
from mutauth_twisted.dns import system_nameservers
from mutauth_twisted.errors import CredentialError, KDCUnreachable, MutualAuthError
from mutauth_twisted.files import (
    check_regular,
    keep_what_is_read,
    read_file,
    read_what_was_kept,
)
from mutauth_twisted.kerberos.keytab import (
    check_keytab,
    check_service_keytab,
    keytab_file,
    keytab_principal,
)
from mutauth_twisted.kerberos.tickets import TicketSource
from mutauth_twisted.ldap.tls import LdapsAuthority
from mutauth_twisted.mechanisms.kerberos import ServiceKeys
from mutauth_twisted.mechanisms.ntlm import NtlmCredentials, NtlmUsers
from mutauth_twisted.net.tls import server_layer
from mutauth_twisted.testing.forge import make_realm, set_environment
from tests.support.directories import own_directory

# Each of these tests would hang, and not fail, if a FIFO were opened as files usually are.


class ReadTests(SynchronousTestCase):
    """One file at a time."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "file"

    def test_regular(self) -> None:
        """A regular file's content, also through a link."""
        self.path.write_bytes(b"content")
        link = self.directory / "link"
        link.symlink_to(self.path.absolute())
        for path in (self.path, str(self.path), link):
            self.assertEqual(read_file(path), b"content")
            check_regular(path)

    def test_irregular(self) -> None:
        """FIFOs, devices and directories are refused, in words."""
        os.mkfifo(self.path)
        for path in (self.path, "/dev/zero", "/dev/tty", self.directory):
            for read in (read_file, check_regular):
                error: OSError = self.assertRaises(OSError, read, path)
                if path != "/dev/tty":  # which not every process has
                    self.assertEqual(error.strerror, "it is not a regular file")

    def test_bounded(self) -> None:
        """A file that is too large is refused, and not read."""
        self.path.write_bytes(b"x" * 100)
        self.assertEqual(read_file(self.path, 100), b"x" * 100)
        self.assertIn(
            "more than 99 bytes", str(self.assertRaises(OSError, read_file, self.path, 99))
        )
        os.truncate(self.path, 1 << 40)  # a sparse one
        self.assertRaises(OSError, read_file, self.path)

    def test_private(self) -> None:
        """A file for one's own eyes is refused while others may read it."""
        self.path.write_bytes(b"secret")
        for mode, good in (
            (0o600, True),
            (0o400, True),
            (0o640, False),
            (0o604, False),
            (0o601, False),
        ):
            self.path.chmod(mode)
            if good:
                self.assertEqual(read_file(self.path, private=True), b"secret")
            else:
                self.assertRaises(PermissionError, read_file, self.path, private=True)


class UnwritableTests(SynchronousTestCase):
    """Files that decide who is let in."""

    def setUp(self) -> None:
        top = own_directory(self)
        self.safe, self.public = top / "safe", top / "public"
        for directory in (self.safe, self.public):
            directory.mkdir(mode=0o755)
        self.path = self.safe / "p.toml"
        self.path.write_bytes(b"content")
        self.path.chmod(0o644)

    def accepted(self, path: Path) -> None:
        self.assertEqual(read_file(path, unwritable=True), b"content")

    def refused(self, path: Path, culprit: Path) -> PermissionError:
        """It is refused for something that others may write to or replace."""
        error: PermissionError = self.assertRaises(
            PermissionError, read_file, path, unwritable=True
        )
        self.assertEqual((error.errno, error.filename), (errno.EPERM, str(culprit)))
        self.assertEqual(read_file(path), b"content")
        return error

    def test_links(self) -> None:
        """A user who replaces a link on the way chooses the file; so may who can replace one that
        the link leads over.
        """
        link, over = self.public / "p.toml", self.safe / "over"
        link.symlink_to(self.path)
        over.symlink_to("../public")
        ways = (
            link,
            over / "p.toml",
            self.public / ".." / "safe" / "p.toml",
            self.safe / "." / "p.toml",
        )
        for mode in (0o755, 0o1777):
            self.public.chmod(mode)
            for path in ways:
                self.accepted(path)
        for mode in (0o777, 0o775, 0o757):
            self.public.chmod(mode)
            for path in ways[:3]:
                self.refused(path, self.public)
            self.accepted(ways[3])

    def test_relative(self) -> None:
        """The current directory leads to a relative path."""
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.public)
        relative = Path("..", "safe", "p.toml")
        self.accepted(relative)
        self.public.chmod(0o777)
        self.refused(relative, self.public)

    def test_owners(self) -> None:
        """A file of another user may change at any time, whatever its mode."""
        link = self.public / "p.toml"
        link.symlink_to(self.path)
        self.safe.chmod(0o1755)
        lstat, theirs = os.lstat, self.path

        def owned(path: Any) -> os.stat_result:
            found = lstat(path)
            if os.fspath(path) != str(theirs):
                return found
            return os.stat_result([*found[:4], os.geteuid() + 1, *found[5:]])

        self.accepted(link)
        self.patch(os, "lstat", owned)
        for theirs in (self.path, link, self.safe, self.public, Path("/")):
            self.assertIn("another user's", str(self.refused(link, theirs)))
        theirs = self.path / "x"
        self.accepted(link)

    def test_owned_by_nobody(self) -> None:
        """The same with files that are really another user's."""
        if os.geteuid() != 0:
            raise SkipTest("only root gives files away")
        link = self.public / "p.toml"
        link.symlink_to(self.path)
        for theirs in (self.path, link, self.safe, self.public):
            os.chown(theirs, 65534, 65534, follow_symlinks=False)
            for mode in (0o755, 0o1777):
                self.public.chmod(mode)
                self.refused(link, theirs)
            os.chown(theirs, 0, 0, follow_symlinks=False)
            self.public.chmod(0o755)
            self.accepted(link)

    def test_replaced(self) -> None:
        """The file that was opened counts, and not the one that has come to its place."""
        way = files._way_to

        def replace(path: Any) -> Any:
            other = self.safe / "other"
            other.write_bytes(b"other")
            other.rename(self.path)
            return way(path)

        self.patch(files, "_way_to", replace)
        error: OSError = self.assertRaises(OSError, read_file, self.path, unwritable=True)
        self.assertEqual(error.errno, errno.ESTALE)

    def test_loop(self) -> None:
        """Links that lead round are an error, and end."""
        loop = self.safe / "loop"
        loop.symlink_to("loop")
        error: OSError = self.assertRaises(OSError, list, files._way_to(loop))
        self.assertEqual(error.errno, errno.ELOOP)


class UserTests(SynchronousTestCase):
    """Those who read files, with a FIFO in the file's place."""

    def setUp(self) -> None:
        self.realm = make_realm(self)
        self.fifo = Path(self.mktemp()).absolute()
        os.mkfifo(self.fifo, 0o600)

    def refused(self, read: Callable[..., object], *arguments: object) -> None:
        error = self.assertRaises(MutualAuthError, read, *arguments)
        self.assertIn("it is not a regular file", str(error))
        self.assertIn(str(self.fifo), str(error))

    def test_fifos(self) -> None:
        """Keytabs, certificates, authorities, users and the cached GUID."""
        fifo = str(self.fifo)
        for path in (fifo, f"FILE:{fifo}"):
            self.refused(check_keytab, path)
            self.refused(ServiceKeys, ServiceCredentials(path))
        self.refused(server_layer, fifo)
        self.refused(LdapsAuthority, fifo)
        self.refused(NtlmUsers, NtlmCredentials(fifo))
        cache = GuidCache(self.mktemp())
        path = cache.write(ServiceName("echoSvc", "srv1"), uuid4())
        path.unlink()
        os.mkfifo(path)
        self.assertIn(
            "it is not a regular file",
            str(self.assertRaises(CacheError, cache.read, ServiceName("echoSvc", "srv1"))),
        )
        self.assertEqual(system_nameservers(self.fifo), [("127.0.0.1", 53)])

    def test_default_keytab(self) -> None:
        """The keytab that nobody named."""
        set_environment(self, {"KRB5_KTNAME": f"FILE:{self.fifo}"})
        self.refused(keytab_principal, None, None)
        self.refused(ServiceKeys, ServiceCredentials())

    def test_replaced(self) -> None:
        """A keytab in whose place a FIFO comes while the service runs: clients are refused, nobody
        hangs.
        """
        path = Path(self.realm.keytab("svc-echo"))
        keys = ServiceKeys(ServiceCredentials(str(path)))
        path.unlink()
        os.mkfifo(path)
        error = self.assertRaises(StepFailed, keys.acceptor("10.0.0.1:1").step, b"\x60\x00").error
        self.assertIn(f"keytab {path}: it cannot be read: it is not a regular file", str(error))
        self.assertRaises(MutualAuthError, keys.check)

    def test_names(self) -> None:
        """A keytab's name is read as libkrb5 reads it, wherever one is looked at; what is not a
        file is refused in words.
        """
        context = krb5.init_context()
        for name in (
            "/a",
            "a",
            "FILE:/a",
            "WRFILE:/a",
            "FILE:a:b",
            "/a:b",
            "a:b/c d",
            "Z:c",
            "/FILE:a",
        ):
            self.assertEqual(
                keytab_file(name), krb5.kt_resolve(context, name.encode()).name.decode()
            )
            set_environment(self, {"KRB5_KTNAME": name})
            self.assertEqual(keytab_file(None), keytab_file(name))
        for name in ("MEMORY:a", "file:/a", "SRVTAB:/a", "1:b", "./a:b", "_:b", ":b"):
            for use in (
                lambda name=name: keytab_file(name),
                lambda name=name: check_keytab(name),
                lambda name=name: check_service_keytab(name),
                lambda name=name: keytab_principal(name, None),
                lambda name=name: ServiceKeys(ServiceCredentials(name)),
                lambda name=name: TicketSource(ClientCredentials(keytab=name)).acquire(),
            ):
                line = str(self.assertRaises(CredentialError, use))
                self.assertTrue(
                    line.startswith(
                        f"keytab {name}: it is of type {name.partition(':')[0]!r}, and "
                    ),
                    line,
                )
                self.assertTrue(line.endswith("has to be a file; name one as FILE:PATH"), line)

    def test_types(self) -> None:
        """A file is the same keytab with and without its type, for all who use one."""
        path = self.realm.keytab("svc-echo")
        moved = Path(path).rename(Path(path).parent / "FILE:a:b")
        for name in (str(moved), f"FILE:{moved}", f"WRFILE:{moved}"):
            self.assertEqual(check_keytab(name), check_keytab(str(moved)))
            check_service_keytab(name)
            self.assertEqual(keytab_principal(name, None), "svc-echo@TEST.EXAMPLE")
            ServiceKeys(ServiceCredentials(name))
            error = self.assertRaises(
                MutualAuthError, TicketSource(ClientCredentials(keytab=name)).acquire
            )
            self.assertIsInstance(error, KDCUnreachable)  # it went to ask one with the key


class KeptTests(SynchronousTestCase):
    """Contents that one process has read and checked, and another one takes from it."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"before")
        self.path.chmod(0o600)

    def test_read_once(self) -> None:
        """A file that is read again has the content that it had, and is checked nevertheless."""
        contents: dict[str, bytes] = {}
        with keep_what_is_read(contents):
            self.assertEqual(read_file(self.path), b"before")
            self.path.write_bytes(b"after")
            self.assertEqual(read_file(self.path, private=True), b"before")
            self.path.chmod(0o622)
            self.assertRaises(PermissionError, read_file, self.path, private=True)
            self.assertRaises(PermissionError, read_file, self.path, unwritable=True)
        self.assertEqual(contents, {os.path.abspath(self.path): b"before"})
        self.assertEqual(read_file(self.path), b"after")

    def test_given(self) -> None:
        """Given contents stand for files, whatever has become of these, and for no others."""
        self.path.unlink()
        with read_what_was_kept({os.path.abspath(self.path): b"given"}):
            self.assertEqual(read_file(self.path, private=True, unwritable=True), b"given")
            self.assertRaises(FileNotFoundError, read_file, f"{self.path}2")
        self.assertRaises(FileNotFoundError, read_file, self.path)


class StateTests(SynchronousTestCase):
    """The cached GUID's file and its directory."""

    def test_parents(self) -> None:
        """Under whatever umask nobody else may write to the directories that are made."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        top = Path(self.mktemp()).absolute()
        path = GuidCache(top / "a" / "b").write(ServiceName("echoSvc", "srv1"), uuid4())
        modes = [
            oct(each.stat().st_mode & 0o777)
            for each in (path, path.parent, path.parent.parent, top)
        ]
        self.assertEqual(modes, ["0o644", "0o755", "0o755", "0o755"])

    def test_nested(self) -> None:
        """JSON that is nested without end is no GUID."""
        cache = GuidCache(self.mktemp())
        path = cache.write(ServiceName("echoSvc", "srv1"), uuid4())
        for content in ("[" * 4096, '{"guid":' * 500, "[" * 100_000):
            path.write_text(content)
            error = str(self.assertRaises(CacheError, cache.read, ServiceName("echoSvc", "srv1")))
            self.assertTrue(error.startswith(f"{path}: "), error)
