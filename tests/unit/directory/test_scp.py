"""Service connection points as values."""

from __future__ import annotations

from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.directory.scp import ServiceConnectionPoint
from mutauth_twisted.directory.servicename import ServiceName
from mutauth_twisted.errors import UsageError
from mutauth_twisted.spn import SPN

GUID = UUID("28630eb8-41d5-11d1-a9c1-0000f80367c1")


class SCPTests(SynchronousTestCase):
    """SPNs from a connection point."""

    def test_forms(self) -> None:
        """The three forms, with the final dot of the host dropped."""
        point = ServiceConnectionPoint("CN=echo,CN=srv1,DC=a", GUID, "echo", "srv1.a.")
        self.assertEqual(point.spn("guid"), SPN("echo", "srv1.a", str(GUID)))
        self.assertEqual(point.spn("dn"), SPN("echo", "srv1.a", "CN=echo,CN=srv1,DC=a"))
        self.assertEqual(point.spn("host", "other"), SPN("echo", "other"))
        self.assertEqual(
            point.spns_of(ServiceName("Echo", "other", ("host", "guid"))),
            (SPN("echo", "other"), SPN("echo", "other", str(GUID))),
        )
        self.assertRaises(UsageError, point.spn, "rnr")

    def test_incomplete(self) -> None:
        """Without class or host there is no SPN."""
        point = ServiceConnectionPoint("CN=echo,DC=a", GUID)
        self.assertIn("serviceDNSName", str(self.assertRaises(UsageError, point.spn, "dn")))
        self.assertIn("serviceClassName", str(self.assertRaises(UsageError, point.spn, "dn", "h")))
