"""A client that takes the way of Windows, with GSSAPI where SSPI would be, against services of the
directory.

SSPI itself is on Windows only, and nothing here has met it.
"""

from __future__ import annotations

import math
from typing import Any

from mutauth_twisted import windows
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import AuthenticationError, NetworkError, PeerNotAuthenticated
from mutauth_twisted.mechanisms import NEGOTIATE
from mutauth_twisted.mechanisms import kerberos_windows as sspi
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.wire import NNS, WINSOCK
from tests.integration.handshake_case import HandshakeTestCase

CHANNELS = (
    SecurityOptions(),
    SecurityOptions(package=NEGOTIATE),
    SecurityOptions(wire=WINSOCK),
    SecurityOptions(NNS, Protection.SIGN),
    SecurityOptions(WINSOCK, Protection.SIGN),
    SecurityOptions(NNS, Protection.TLS),
    SecurityOptions(WINSOCK, Protection.TLS),
)


class LogonSessionTests(HandshakeTestCase):
    """The process's own tickets, alice's, stand for a logon session's."""

    def setUp(self) -> Any:  # type: ignore[override]
        self.opened: list[SPN] = []
        opening = sspi.SspiInitiator._open

        def noted(context: sspi.SspiInitiator) -> Any:
            self.opened.append(context._spn)
            return opening(context)

        self.patch(sspi.SspiInitiator, "_open", noted)
        self.patch(windows, "WINDOWS", True)
        return super().setUp()

    async def test_sessions(self) -> None:
        """On either wire, with either package and each protection, both sides are authenticated,
        and the bytes come through.
        """
        for security in CHANNELS:
            self.servers.clear()
            port = await self.listen(self.keys_for(security.package), security=security)
            client = await self.connect(port, self.by_host, ClientCredentials(), security)
            known = client.protected.peer_identity
            self.assertEqual(
                (known.principal, known.spn, known.expires),
                (str(self.by_host), self.by_host, math.inf),
            )
            self.assertEqual(
                self.servers[0].protected.peer_identity.account, f"{self.lab.domain}\\alice"
            )
            client.protected.write(b"hello")
            self.assertEqual(await client.wait_for(5), b"HELLO")
            await self.close(client)
        # One more: inside TLS a context of its own fetches the ticket before the first connection.
        self.assertEqual(self.opened, [self.by_host] * (len(CHANNELS) + 1))

    async def test_another_service(self) -> None:
        """A service with another key cannot take the place of the one that was asked for; it says
        no, and leaves.
        """
        port = await self.listen()
        connecting = self.connect(port, SPN("host", self.lab.host("srv1")), ClientCredentials())
        await self.assertFailure(connecting, PeerNotAuthenticated, NetworkError)
        self.assertEqual(self.servers, [])

    async def test_unknown_service(self) -> None:
        """An SPN that nobody has gets no ticket, and no handshake."""
        port = await self.listen()
        nobody = SPN("nobody", self.lab.host("srv1"))
        await self.refused(
            self.connect(port, nobody, ClientCredentials()), AuthenticationError, str(nobody)
        )
