"""Search of a client for a service in the lab's domain."""

from __future__ import annotations

from typing import Any

from mutauth_twisted.ldap import connection
from mutauth_twisted.ldap.sealing import open_sealed
from tests.cases.location import LocationCases
from tests.integration.directory_case import DirectoryTestCase


class LocationTests(LocationCases, DirectoryTestCase):
    """The client's side."""

    async def test_warm_location(self) -> None:
        """Locating a service again takes no new connection."""
        found = await self.install()
        await self.publish(found)
        await self.located(self.service_class)
        opened: list[Any] = []

        def noted(*where: Any, **options: Any) -> Any:
            opened.append(where)
            return open_sealed(*where, **options)

        self.patch(connection, "open_sealed", noted)
        await self.located(self.service_class)
        self.assertEqual(opened, [])
        self.as_user("alice")._idle.clear()
        await self.located(self.service_class)
        self.assertEqual(len(opened), 2)  # a global catalog and a domain controller
