"""A client's tickets in memory; how they are fetched is in tests/integration/test_keys.py."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from unittest import mock

import gssapi
import krb5
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import CredentialError, KDCUnreachable
from mutauth_twisted.kerberos import tickets
from mutauth_twisted.kerberos.keytab import check_keytab
from mutauth_twisted.kerberos.tickets import TicketSource
from mutauth_twisted.testing.forge import make_realm


def tickets_in(cache: str) -> int:
    """Number of tickets in a cache; 0: there is none."""
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

    def fill(self, *spns: str) -> str:
        """Put the client's own ticket, and those for some services, into the cache in use."""
        context = krb5.init_context()
        cache = krb5.cc_resolve(context, self.source.cache.encode())
        for number, spn in enumerate(("krbtgt/TEST.EXAMPLE", *spns)):
            genuine = krb5.cc_resolve(context, self.realm.ccache("alice", spn, "krbtgt").encode())
            if not number:
                krb5.cc_initialize(context, cache, genuine.principal)
            for ticket in genuine:
                krb5.cc_store_cred(context, cache, ticket)
        self.assertEqual(tickets_in(self.source.cache), 1 + len(spns))
        return self.source.cache

    @staticmethod
    def name(spn: str) -> gssapi.Name:
        """A service's name, as its tickets are asked for."""
        return gssapi.Name(spn, gssapi.NameType.kerberos_principal)

    def test_refused_without_a_kdc(self) -> None:
        """Where nothing new can be had, what was refused stays, for the service and for the client
        itself.
        """
        cache = self.fill("echoSvc/srv1.test.example")
        before = tickets_in(cache)
        self.assertEqual(before, 2)
        for service in (self.name("echoSvc/srv1.test.example"), None):
            self.source.discard(service)
            self.assertIsNotNone(self.source.acquire(service=service))
            self.assertEqual((self.source.cache, tickets_in(cache)), (cache, before))

    def test_not_too_often(self) -> None:
        """Each is fetched anew once in a while, however often it is refused, and for who needs it
        only.
        """
        self.fill()
        now, fetched = [1000.0], []
        self.patch(tickets, "time", mock.Mock(monotonic=lambda: now[0], time=time.time))
        self.patch(self.source, "_replace", lambda name: fetched.append(str(name)))
        self.patch(self.source, "_renew_quietly", lambda: fetched.append("own"))
        one, two = self.name("echoSvc/a"), self.name("echoSvc/b")
        for refused, needed, expected in (
            ((), one, []),
            ((one, one), two, []),
            ((), one, ["echoSvc/a"]),
            ((one, two), one, []),
            ((), two, ["echoSvc/b"]),
            ((None,), one, ["own"]),
            ((None, one, two), two, []),
        ):
            for name in refused:
                self.source.discard(name)
            fetched.clear()
            self.source.acquire(service=needed)
            self.assertEqual(fetched, expected)
        now[0] += tickets.REPLACE_INTERVAL
        for name in (one, two, None):
            self.source.discard(name)
        fetched.clear()
        self.source.acquire(service=one)
        self.source.acquire(service=two)
        self.assertEqual(fetched, ["own", "echoSvc/a", "echoSvc/b"])

    def test_silent_kdc(self) -> None:
        """A KDC that does not answer keeps a connection from its tickets for a moment only."""
        self.fill()
        answered, over = Event(), Event()
        self.addCleanup(answered.set)

        def fetch(name: object) -> None:
            answered.wait()
            over.set()

        self.patch(tickets, "_PATIENCE", 0.01)
        self.patch(self.source, "_replace", fetch)
        self.source.discard(self.name("echoSvc/a"))
        self.assertIsNotNone(self.source.acquire(service=self.name("echoSvc/a")))
        self.assertFalse(over.is_set())
        answered.set()
        self.assertTrue(over.wait(10))

    def test_threads(self) -> None:
        """While a KDC does not answer one thread waits for each ticket and two in all; what is left
        comes afterwards.
        """
        self.fill()
        now, answered, fetched = [1000.0], Event(), []
        self.addCleanup(answered.set)

        def fetch(name: object = "own") -> None:
            fetched.append(str(name))
            answered.wait()

        def threads() -> list[Thread]:
            return [each for each in enumerate_threads() if each.name.startswith("new ticket for ")]

        self.patch(tickets, "time", mock.Mock(monotonic=lambda: now[0], time=time.time))
        self.patch(tickets, "_PATIENCE", 0.0)
        self.patch(self.source, "_replace", fetch)
        self.patch(self.source, "_renew_quietly", fetch)
        one, two, three = (self.name(f"echoSvc/{host}") for host in "abc")

        def refuse(*names: gssapi.Name | None) -> None:
            for _ in range(20):
                now[0] += tickets.REPLACE_INTERVAL
                for name in names:
                    self.source.discard(name)
                    self.assertIsNotNone(self.source.acquire(service=name))

        refuse(one)
        self.assertEqual(len(threads()), 1)
        refuse(two, three, None, one)
        self.assertEqual(len(threads()), 2)
        answered.set()
        for needed, expected in (
            (None, ["echoSvc/a", "echoSvc/b"]),
            (three, ["echoSvc/c", "own"]),
            (one, ["echoSvc/a"]),
            (two, ["echoSvc/b"]),
            (two, []),
        ):
            if needed is not None:
                fetched.clear()
                self.source.acquire(service=needed)
            for thread in threads():
                thread.join()
            self.assertEqual(sorted(fetched), expected)

    def test_no_thread_to_be_had(self) -> None:
        """Where no thread can be started the old ticket serves, and a new one is fetched when one
        can.
        """
        self.fill()
        one, fetched = self.name("echoSvc/a"), list[str]()
        self.patch(self.source, "_replace", lambda name: fetched.append(str(name)))
        self.source.discard(one)
        with mock.patch.object(Thread, "start", side_effect=RuntimeError("can't start new thread")):
            self.assertIsNotNone(self.source.acquire(service=one))
        self.assertEqual(fetched, [])
        self.source.acquire(service=one)
        self.assertEqual(fetched, ["echoSvc/a"])

    def test_remembered(self) -> None:
        """Refused tickets that are never needed again are not remembered without end; the oldest go
        first.
        """
        self.fill()
        fetched: list[str] = []
        self.patch(tickets, "_MOST_SUSPECTS", 2)
        self.patch(self.source, "_replace", lambda name: fetched.append(str(name)))
        names = [self.name(f"echoSvc/{number}") for number in range(4)]
        for name in names:
            self.source.discard(name)
        for name in names:
            self.source.acquire(service=name)
        self.assertEqual(fetched, ["echoSvc/2", "echoSvc/3"])

    def test_caches_of_others(self) -> None:
        """A cache that has a name is its owner's: nothing is fetched anew for what is in it."""
        named = self.realm.ccache("alice", "krbtgt/TEST.EXAMPLE", "krbtgt")
        for credentials in (
            ClientCredentials(ccache=named),
            ClientCredentials(ccache=named, keytab=self.keytab),
        ):
            source = TicketSource(credentials)
            self.patch(source, "_replace", self.fail)
            self.patch(source, "_renew_quietly", self.fail)
            for service in (None, self.name("echoSvc/a")):
                source.discard(service)
                self.assertIsNotNone(source.acquire(service=service))

    def test_memory(self) -> None:
        """Tickets in memory go with the last who may use them."""
        cache = self.fill()
        held = self.source.acquire()
        del self.source
        gc.collect()
        self.assertEqual(tickets_in(cache), 1)
        del held
        gc.collect()
        self.assertEqual(tickets_in(cache), 0)

    def test_valid_tickets_need_no_kdc(self) -> None:
        """With a ticket in memory no KDC is asked, not even when the keytab is gone, spoilt or
        replaced since.
        """
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
