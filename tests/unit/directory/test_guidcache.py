"""The cached GUID."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.directory.guidcache import CachedGuid, CacheError, GuidCache
from mutauth_twisted.directory.servicename import ServiceName

GUID = UUID("28630eb8-41d5-11d1-a9c1-0000f80367c1")
ECHO = ServiceName("echo", "h")


class GuidCacheTests(SynchronousTestCase):
    """Written once, read by everybody, removed."""

    def setUp(self) -> None:
        self.cache = GuidCache(Path(self.mktemp()) / "state")

    def test_life(self) -> None:
        """Nothing, something, replaced, nothing."""
        self.assertIsNone(self.cache.read(ECHO))
        path = self.cache.write(ECHO, GUID, "CN=a")
        self.assertEqual(self.cache.read(ServiceName("ECHO", "H")), CachedGuid(GUID, "CN=a"))
        self.assertEqual(path.stat().st_mode & 0o777, 0o644)
        self.cache.write(ECHO, UUID(int=1))
        self.assertEqual(self.cache.read(ECHO), CachedGuid(UUID(int=1), ""))
        self.assertEqual(os.listdir(self.cache.directory), [path.name])
        self.assertTrue(self.cache.remove(ECHO))
        self.assertFalse(self.cache.remove(ECHO))

    def test_the_default_name_is_the_class(self) -> None:
        """Without a name of its own, the object's name is the service class."""
        self.assertEqual(
            self.cache.path(ECHO), self.cache.path(ServiceName("echo", "h", scp_name="echo"))
        )
        self.assertNotEqual(
            self.cache.path(ECHO), self.cache.path(ServiceName("echo", "h", scp_name="other"))
        )

    @given(
        st.from_regex(r"[A-Za-z0-9{][A-Za-z0-9._{}-]*", fullmatch=True),
        st.from_regex(r"([A-Za-z0-9_]{1,63}\.){0,3}[A-Za-z0-9_]{1,61}", fullmatch=True),
        st.text(max_size=300),
    )
    def test_any_name_is_a_safe_file_name(self, service_class: str, host: str, name: str) -> None:
        """No name leaves the directory, is too long, or is another's."""
        cache = GuidCache("/state")
        path = cache.path(ServiceName(service_class, host, scp_name=name))
        self.assertEqual(path.parent, Path("/state"))
        self.assertTrue(path.name.isascii() and "/" not in path.name and len(path.name) < 120)

    def test_similar_names_are_distinct(self) -> None:
        """Parts do not run into each other."""
        for one, other in (
            (ServiceName("a", "b.c"), ServiceName("a.b", "c")),
            (ServiceName("a", "b", scp_name="c@d"), ServiceName("a", "b", scp_name="c_d")),
            (ServiceName("a b", "c"), ServiceName("a_b", "c")),
        ):
            self.assertNotEqual(self.cache.path(one), self.cache.path(other))

    def test_faults(self) -> None:
        """A file that holds no GUID, a directory that cannot be made."""
        path = self.cache.write(ECHO, GUID)
        for content in ("", "junk", "[]", "{}", '{"guid": 7}', '{"guid": "x"}', "\udcff"):
            path.write_bytes(content.encode("utf-8", "surrogateescape"))
            error = self.assertRaises(CacheError, self.cache.read, ECHO)
            self.assertIn("it holds no GUID", str(error))
        broken = GuidCache(path / "below")
        error = self.assertRaises(CacheError, broken.write, ECHO, GUID)
        self.assertIn("it cannot be written: ", str(error))
        self.assertIn("--state-dir", str(error))
