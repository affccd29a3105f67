"""A client's tickets in memory; how they are fetched is in tests/integration/test_keys.py."""

from __future__ import annotations

from pathlib import Path

import krb5
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import CredentialError, KDCUnreachable
from mutauth_twisted.tickets import TicketSource, check_keytab
from tests.forge import make_realm


def tickets_in(cache: str) -> int:
    """How many tickets a cache holds; 0: there is none."""
    try:
        return len(list(krb5.cc_resolve(krb5.init_context(), cache.encode())))
    except krb5.Krb5Error:
        return 0


class CacheTests(SynchronousTestCase):
    """Which cache is in use."""

    def setUp(self) -> None:
        self.realm = make_realm(self)
        self.keytab = self.realm.keytab("alice")
        self.source = TicketSource(ClientCredentials(keytab=self.keytab))

    def fill(self) -> str:
        """Put tickets into the cache in use."""
        context = krb5.init_context()
        genuine = krb5.cc_resolve(context, self.realm.ccache("alice", "krbtgt/TEST.EXAMPLE", "krbtgt").encode())
        cache = krb5.cc_resolve(context, self.source.cache.encode())
        krb5.cc_initialize(context, cache, genuine.principal)
        for ticket in genuine:
            krb5.cc_store_cred(context, cache, ticket)
        self.assertEqual(tickets_in(self.source.cache), 1)
        return self.source.cache

    def test_discard(self) -> None:
        """What was refused is used no more; who says so late, of tickets that are replaced already, changes nothing."""
        first = self.fill()
        self.source.discard(first)
        second = self.fill()
        self.assertNotEqual(first, second)
        self.source.discard(first)
        self.assertEqual(self.source.cache, second)

    def test_memory(self) -> None:
        """One generation stays for connections that are about to use it; older ones are freed."""
        caches = []
        for _ in range(4):
            caches.append(self.fill())
            self.source.discard(caches[-1])
        self.assertEqual([tickets_in(cache) for cache in caches], [0, 0, 0, 1])

    def test_valid_tickets_need_no_kdc(self) -> None:
        """With a ticket in memory no KDC is asked, not even when the keytab is gone, spoilt or replaced since."""
        with self.assertRaises(KDCUnreachable):
            self.source.acquire()
        cache = self.fill()
        self.assertIsNotNone(self.source.acquire())
        for change in (
            lambda: Path(self.keytab).write_bytes(b"garbage"),
            lambda: Path(self.keytab).unlink(),
            lambda: self.realm.keytab("alice"),
        ):
            change()
            self.assertIsNotNone(self.source.acquire())
            self.assertEqual(self.source.cache, cache)

    def test_nothing_to_fall_back_on(self) -> None:
        """Without such a ticket the keytab's fault is what is said."""
        Path(self.keytab).write_bytes(b"garbage")
        with self.assertRaises(CredentialError) as caught:
            self.source.acquire()
        self.assertIn("cannot be used", str(caught.exception))
        Path(self.keytab).unlink()
        with self.assertRaises(CredentialError) as caught:
            self.source.acquire()
        self.assertIn("there is no such file", str(caught.exception))

    def test_empty_keytab(self) -> None:
        """A keytab without keys is called so."""
        Path(self.keytab).write_bytes(b"\x05\x02")
        for principal in (None, "alice@TEST.EXAMPLE"):
            with self.assertRaises(CredentialError) as caught:
                check_keytab(self.keytab, principal)
            self.assertIn("it holds no keys; export", str(caught.exception))
