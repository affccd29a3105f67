"""A located endpoint's own checks; the search itself is tried against a directory."""

from __future__ import annotations

import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.handshake import ACCESS_DENIED, SERVICE_FULL
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.location import Selection
from mutauth_twisted.endpoints.located import SHUNNED, LocatedEndpoint, _may_have_moved
from mutauth_twisted.errors import (
    CredentialError,
    KDCRefused,
    KDCUnreachable,
    MutualAuthError,
    NetworkError,
    PeerNotAuthenticated,
    PeerRefused,
    UsageError,
)
from mutauth_twisted.net.tls import Authority
from mutauth_twisted.protection import Protection
from mutauth_twisted.testing.certificates import Certificates


class AuthorityTests(SynchronousTestCase):
    """Certificates that are checked in addition."""

    def endpoint(self, authority: Authority) -> Any:
        """An endpoint for TLS."""
        security, nobody = SecurityOptions(protection=Protection.TLS), cast(Any, None)
        credentials = ClientCredentials()
        return LocatedEndpoint(
            MemoryReactorClock(),
            nobody,
            Selection("echo"),
            credentials,
            security=security,
            authority=authority,
        )

    def test_a_host_that_is_none(self) -> None:
        """A mistake in what some SCP calls its host is that instance's fault: the next one is
        tried.
        """
        directory = Path(self.mktemp())
        directory.mkdir()
        endpoint = self.endpoint(Authority(Certificates(directory.absolute() / "ca").ca_file))
        for host in ("bad..example.com", "x" * 64 + ".example.com"):
            instance = SimpleNamespace(host=host)
            error = self.assertRaises(PeerNotAuthenticated, endpoint._layer, instance, "where")
            self.assertIn("its host's name can be in no certificate", str(error))
        self.assertIsNotNone(endpoint._layer(SimpleNamespace(host="srv1.example.com"), "where"))

    def test_what_the_user_gave(self) -> None:
        """A wrong file or name shows before anything is searched."""
        directory = Path(self.mktemp())
        directory.mkdir()
        ca = Certificates(directory.absolute() / "ca").ca_file
        self.assertRaises((CredentialError, UsageError), self.endpoint, Authority("/nowhere.pem"))
        self.assertRaises(UsageError, self.endpoint, Authority(ca, "bad..example.com"))


class MovedTests(SynchronousTestCase):
    """Failures with what was found, after which the directory is asked again."""

    def test_failures(self) -> None:
        """Those of a service that may be elsewhere now; one that is full, or denies this client, is
        where it was.
        """
        cases: tuple[tuple[MutualAuthError, bool], ...] = (
            (NetworkError("a", "nothing listens there"), True),
            (PeerNotAuthenticated("a", "another one"), True),
            (PeerRefused("a", "no such key", status=0x80090322), True),
            (KDCRefused("a", "no such service", krb_error=7), True),
            (PeerRefused("a", "denied", status=ACCESS_DENIED), False),
            (PeerRefused("a", "full", status=SERVICE_FULL), False),
            (KDCRefused("a", "our ticket", krb_error=32), False),
            (KDCUnreachable("a", "no KDC"), False),
            (CredentialError("a", "no ticket"), False),
        )
        for error, moved in cases:
            self.assertIs(_may_have_moved(error), moved, error)


class ShunnedTests(SynchronousTestCase):
    """Instances that turned out to be of no use."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint: Any = LocatedEndpoint(
            self.clock, cast(Any, None), Selection("echo"), ClientCredentials()
        )
        self.instances: list[Any] = [
            SimpleNamespace(dn="CN=x", host=f"srv{number}.example.com", port=9000, spn="echo/x")
            for number in (1, 2)
        ]
        self.endpoint._told(self.instances)

    def order(self) -> list[str]:
        """The hosts, as they would be tried."""
        return [each.host for each in sorted(self.instances, key=self.endpoint._is_shunned)]

    def test_behind_the_others(self) -> None:
        """One that is shunned comes last for a while; whether there are others is said."""
        used = [Protocol(), Protocol()]
        for protocol, each in zip(used, self.instances, strict=True):
            self.endpoint._used[protocol] = each
        self.assertTrue(self.endpoint.shun(used[0]))
        self.assertEqual(self.order(), ["srv2.example.com", "srv1.example.com"])
        self.assertFalse(self.endpoint.shun(used[1]))
        self.clock.advance(SHUNNED + 1)
        self.assertEqual(self.order(), ["srv1.example.com", "srv2.example.com"])
        self.assertTrue(self.endpoint.shun(Protocol()))

    def test_forgotten(self) -> None:
        """An instance that is no longer in the directory is forgotten."""
        protocol = Protocol()
        self.endpoint._used[protocol] = self.instances[0]
        self.endpoint.shun(protocol)
        self.endpoint._told(self.instances[1:])
        self.assertEqual(self.endpoint._shunned, {})
        del protocol
        gc.collect()
        self.assertEqual(len(self.endpoint._used), 0)
