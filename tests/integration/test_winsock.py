"""Wire ``winsock`` against a real KDC: among ourselves, and with a third-party peer."""

from __future__ import annotations

import random
import socket
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ServiceCredentials
from mutauth_twisted.errors import MutualAuthError, NetworkError, PeerRefused, ProtocolViolation
from mutauth_twisted.mechanisms.kerberos import ServiceKeys
from mutauth_twisted.protection import Protection
from mutauth_twisted.wire import WINSOCK
from tests.integration.commands import CommandTestCase
from tests.integration.handshake_case import LOOPBACK, HandshakeTestCase
from tests.integration.winsock_peer import WinsockPeer

CHANNELS = {kind: SecurityOptions(WINSOCK, kind) for kind in (Protection.SEAL, Protection.SIGN)}
SEALED = CHANNELS[Protection.SEAL]


class OurselvesTests(HandshakeTestCase):
    """Our client and our service."""

    async def test_data(self) -> None:
        """Both sides are authenticated, and data of any size goes both ways, sealed and signed."""
        data = random.Random(1).randbytes(300_000)
        for security in CHANNELS.values():
            port = await self.listen(security=security)
            client = await self.connect(port, security=security)
            identity = self.servers[-1].protected.peer_identity
            self.assertEqual(
                (identity.principal, identity.protection),
                (self.lab.principal("alice"), security.protection),
            )
            self.assertEqual(client.protected.peer_identity.spn, self.by_dn)
            self.servers[-1].answer = lambda piece: piece[::-1] if len(piece) == 1 else piece
            client.protected.write(b"x")
            client.protected.write(data)
            self.assertTrue(await client.wait_for(len(data) + 1) == b"x" + data)
            await self.close(client)
            self.assertIsInstance(await self.servers[-1].ended, ConnectionDone)

    async def test_impostor(self) -> None:
        """A service with another account's key is refused, and its own words say why."""
        keys = ServiceKeys(ServiceCredentials(str(self.lab.keytab("svc-other"))))
        port = await self.listen(keys, security=SEALED)
        await self.refused(
            self.connect(port, security=SEALED),
            PeerRefused,
            "the service refused the ticket",
            "another key",
        )

    async def test_wires_differ(self) -> None:
        """A client and a service of different wires find out at once, whichever has which."""
        for ours, theirs in (
            (SecurityOptions(timeout=5), SEALED),
            (SecurityOptions(wire=WINSOCK, timeout=5), SecurityOptions()),
        ):
            port = await self.listen(security=theirs)
            error: Any = await self.assertFailure(
                self.connect(port, security=ours), MutualAuthError
            )
            self.assertIsInstance(error, (NetworkError, ProtocolViolation))
            self.assertNotIn("within", str(error))
            self.assertEqual(self.servers, [])


class OtherPeerTests(HandshakeTestCase):
    """A program made after the sample: see tests/integration/winsock_peer.py."""

    async def test_its_client(self) -> None:
        """Our service serves it, without an empty record; its plain close is a clean end."""
        for number, (protection, security) in enumerate(CHANNELS.items()):
            port = await self.listen(security=security)

            def talk(
                port: int = port, seal: bool = protection is Protection.SEAL
            ) -> tuple[list[bytes], int]:
                peer = WinsockPeer(socket.create_connection((LOOPBACK, port), 10), seal=seal)
                peer.authenticate_as_client(str(self.by_dn), f"FILE:{self.ccache}")
                answers = []
                for question in (b"one", b"t" * 11_900):
                    peer.send(question)
                    answers.append(peer.receive())
                peer.close()
                return answers, peer.empty_records

            self.assertEqual(await deferToThread(talk), ([b"ONE", b"T" * 11_900], 0))
            self.assertIsInstance(await self.servers[number].ended, ConnectionDone)

    async def test_our_end_to_its_client(self) -> None:
        """Bytes that our service writes at once are cut into messages that fit into its buffer, and
        then it reads the end.
        """
        port = await self.listen(security=SEALED)

        def talk() -> tuple[bytes, int]:
            peer = WinsockPeer(socket.create_connection((LOOPBACK, port), 10))
            peer.authenticate_as_client(str(self.by_dn), f"FILE:{self.ccache}")
            peer.send(b"much, please")
            received = b""
            while piece := peer.receive():
                received += piece
            peer.close()
            return received, peer.empty_records

        talking = deferToThread(talk)
        await self.serve_one(b"m" * 100_000)
        received, empty = await talking
        self.assertTrue(received == b"MUCH, PLEASE" + b"m" * 100_000)
        self.assertEqual(empty, 0)

    async def serve_one(self, answer: bytes) -> None:
        """Answer the first client that comes once more, and close."""
        while not self.servers:
            await deferLater(cast(IReactorTime, reactor), 0.005)
        server = self.servers[0]
        await server.wait_for(12)
        server.protected.write(answer)
        server.protected.loseConnection()
        await server.ended

    async def test_its_service(self) -> None:
        """Our client uses it; its plain close is a clean end."""
        for protection, security in CHANNELS.items():
            with socket.create_server((LOOPBACK, 0)) as listening:
                listening.settimeout(10)

                def serve(
                    listening: socket.socket = listening, seal: bool = protection is Protection.SEAL
                ) -> tuple[str, bytes, int]:
                    peer = WinsockPeer(listening.accept()[0], seal=seal)
                    peer.authenticate_as_server(str(self.lab.keytab("svc-echo")))
                    peer.send(peer.receive().upper())
                    name, end = str(peer.context.initiator_name).rstrip("\0"), peer.receive()
                    peer.close()
                    return name, end, peer.empty_records

                serving = deferToThread(serve)
                client = await self.connect(listening.getsockname()[1], security=security)
                client.protected.write(b"question")
                self.assertEqual(await client.wait_for(8), b"QUESTION")
                client.protected.loseConnection()
                self.assertEqual(await serving, (self.lab.principal("alice"), b"", 0))
            self.assertIsInstance(await client.ended, ConnectionDone)
            self.assertEqual(client.protected.peer_identity.spn, self.by_dn)

    async def test_denied(self) -> None:
        """A client that is not allowed sees the connection close."""
        port = await self.listen(
            ServiceKeys(ServiceCredentials(str(self.lab.keytab("svc-echo"))), "other"),
            security=SEALED,
        )

        def talk() -> None:
            peer = WinsockPeer(socket.create_connection((LOOPBACK, port), 10))
            try:
                peer.authenticate_as_client(str(self.by_dn), f"FILE:{self.ccache}")
            finally:
                peer.close()

        await self.assertFailure(deferToThread(talk), EOFError)
        self.assertEqual(self.servers, [])


class CommandTests(CommandTestCase):
    """The commands."""

    def test_published(self) -> None:
        """A service that speaks it says so in the directory, and clients that find it there speak
        it as well.
        """
        self.install()
        with self.service("--wire", "winsock") as service:
            found = self.mutauth("connect", self.endpoint, given="hello\n")
            self.assertEqual((found.code, found.output), (0, "hello\n"), found)
            address = self.lab.address_of(self.host)
            direct = (
                f"mutauth:tcp\\:{address}\\:{service.port}:spn={self.service_class}/"
                f"{self.host}/{self.dn()}"
            )
            told = self.mutauth("connect", f"{direct}:wire=winsock", given="hello\n")
            self.assertEqual((told.code, told.output), (0, "hello\n"), told)
            self.refused(
                self.mutauth("connect", direct, given="hello\n"), 3, "closed the connection"
            )

    def dn(self) -> str:
        """Where the service's connection point is."""
        return f"CN={self.service_class},CN=SRV1,CN=Computers,{self.lab.base_dn}"
