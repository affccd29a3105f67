"""Sessions and tickets at the ticket's end."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import cast

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import PeerNotAuthenticated, PeerRefused, SessionEnded
from tests.integration.kerberos_case import KerberosTestCase

#: Of the tickets; the KDC rounds to seconds.
LIFETIME = 6


class TicketEndTests(KerberosTestCase):
    """A client whose ticket lasts for seconds."""

    async def short(self) -> ClientCredentials:
        """A ticket for the service that ends soon; asked for by itself, as this KDC makes no such
        ones out of short TGTs.
        """
        client = await self.create("client")
        return await self.kinit(
            client, self.here / "short", "-l", f"{LIFETIME}s", "-S", str(self.spn)
        )

    def prolonged(self, credentials: ClientCredentials, until: float) -> ClientCredentials:
        """A cache that tells the client another end of its ticket, which is what it is."""
        content = Path(cast(str, credentials.ccache).removeprefix("FILE:")).read_bytes()
        now = int(time.time())
        for end in range(now - LIFETIME, now + LIFETIME + 1):
            content = content.replace(
                struct.pack(">I", end) + bytes(4), struct.pack(">I", int(until)) + bytes(4)
            )
        path = self.here / "prolonged"
        path.write_bytes(content)
        return ClientCredentials(ccache=f"FILE:{path}")

    async def test_session(self) -> None:
        """A session is known to end with its ticket, to the second, and the service ends it
        then.
        """
        started = time.time()
        credentials = await self.short()
        port = await self.listen(self.service_keys())
        client = await self.connect(port, self.spn, credentials)
        expires = client.protected.peer_identity.expires
        self.assertEqual(self.servers[-1].protected.peer_identity.expires, expires)
        self.assertLessEqual(expires, time.time() + LIFETIME)
        self.assertGreater(expires, started)
        self.assertIsInstance(await self.servers[-1].ended, SessionEnded)
        self.assertGreaterEqual(time.time(), expires)
        await client.ended

    async def test_ended_ticket(self) -> None:
        """A ticket opens nothing after its end, although MIT would take it for five more
        minutes.
        """
        credentials = await self.short()
        port = await self.listen(self.service_keys())
        forever = self.prolonged(credentials, time.time() + 36_000)
        await self.served(port, credentials=forever)
        await deferLater(cast(IReactorTime, reactor), LIFETIME + 1)
        await self.both(
            port,
            (PeerRefused, ("did not accept the ticket",)),
            (PeerNotAuthenticated, ("its ticket has expired",)),
            credentials=forever,
        )
