"""A service on several hosts, and clients that find the ones that answer."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.wire import Echo

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.location import Selection
from mutauth_twisted.endpoints.located import LocatedEndpoint
from mutauth_twisted.ldap.connection import Directory
from tests.integration.directory_case import DirectoryTestCase


class Once(Protocol):
    """Sends a line and keeps the answer."""

    def __init__(self) -> None:
        self.answer: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(b"hello")  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]
        self.answer.callback(data)

    def connectionLost(self, reason: Any = None) -> None:
        if not self.answer.called:
            self.answer.errback(reason)


class ServingTestCase(DirectoryTestCase):
    """With services of its own, and clients that find them."""

    def setUp(self) -> None:
        super().setUp()
        self.set_environment("KRB5RCACHEDIR", str(self.lab.directory / "rcache"))
        self.set_environment("KRB5CCNAME", self.lab.ccache("alice"))

    async def serve(
        self, host: str, port: int, keytab: str = "svc-echo", access: str = "allow-all=yes"
    ) -> Any:
        """A service on one host of the lab."""
        address = self.lab.address_of(host)
        text = (
            f"mutauth:tcp\\:{port}\\:interface\\={address}:"
            f"keytab={self.lab.keytab(keytab)}:{access}"
        )
        listening = await serverFromString(reactor, text).listen(Factory.forProtocol(Echo))
        self.addCleanup(listening.stopListening)
        return listening

    def endpoint(self) -> Any:
        return self.endpoint_in(self.as_user("alice"))

    def endpoint_in(self, directory: Directory) -> Any:
        credentials = ClientCredentials(ccache=self.lab.ccache("alice"))
        return LocatedEndpoint(reactor, directory, Selection(self.service_class), credentials)

    async def talk(self, endpoint: Any) -> str:
        """Connect, exchange a line, and say who it was with."""
        protocol: Any = await endpoint.connect(Factory.forProtocol(Once))
        peer = protocol.transport.getPeer()
        self.assertEqual(await protocol.answer, b"hello")
        return f"{peer.host}:{peer.port}"
