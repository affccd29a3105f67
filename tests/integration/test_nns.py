"""Wire ``nns`` against a real KDC, with a third-party peer, as a .NET one: see
tests/integration/nns_peer.py.
"""

from __future__ import annotations

import socket
from typing import cast

from twisted.internet import reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.integration.handshake_case import LOOPBACK, HandshakeTestCase
from tests.integration.nns_peer import NNSPeer


class OtherPeerTests(HandshakeTestCase):
    """Between another mutauth peer and a third-party one."""

    async def test_its_client(self) -> None:
        """Our service serves it, without an empty record; its plain close is a clean end."""
        port = await self.listen()

        def talk() -> tuple[list[bytes], int]:
            peer = NNSPeer(socket.create_connection((LOOPBACK, port), 10))
            peer.authenticate_as_client(str(self.by_dn), f"FILE:{self.ccache}")
            answers = []
            for question in (b"one", b"two" * 20_000):
                peer.send(question)
                answer = peer.receive()
                while len(answer) < len(question):
                    answer += peer.receive()
                answers.append(answer)
            peer.close()
            return answers, peer.empty_records

        answers, empty = await deferToThread(talk)
        self.assertEqual(answers, [b"ONE", b"TWO" * 20_000])
        self.assertEqual(empty, 0)
        self.assertFalse(self.servers[0].protected.peer_identity.mutauth)
        self.assertIsInstance(await self.servers[0].ended, ConnectionDone)
        self.assertEqual(
            self.servers[0].protected.peer_identity.principal, self.lab.principal("alice")
        )

    async def test_our_end_to_its_client(self) -> None:
        """When our service closes, it reads TCP's own end, and no empty record before it."""
        port = await self.listen()

        def talk() -> tuple[bytes, bytes, int]:
            peer = NNSPeer(socket.create_connection((LOOPBACK, port), 10))
            peer.authenticate_as_client(str(self.by_dn), f"FILE:{self.ccache}")
            peer.send(b"bye")
            answers = peer.receive(), peer.receive()
            peer.close()
            return *answers, peer.empty_records

        talking = deferToThread(talk)
        while not self.servers or not self.servers[0].received:
            await deferLater(cast(IReactorTime, reactor), 0.005)
        self.servers[0].protected.loseConnection()
        self.assertEqual(await talking, (b"BYE", b"", 0))
        await self.servers[0].ended

    async def test_its_service(self) -> None:
        """Our client uses it; its plain close is a clean end."""
        with socket.create_server((LOOPBACK, 0)) as listening:
            listening.settimeout(10)

            def serve() -> tuple[list[bytes], str, int]:
                peer = NNSPeer(listening.accept()[0])
                peer.authenticate_as_server(str(self.lab.keytab("svc-echo")))
                received = [peer.receive()]
                peer.send(received[0].upper())
                peer.send(b"")
                received.append(peer.receive())
                peer.send(received[1].upper())
                name = str(peer.context.initiator_name).rstrip("\0")
                peer.close()
                return received, name, peer.empty_records

            serving = deferToThread(serve)
            client = await self.connect(listening.getsockname()[1])
            for question in (b"one", b"two"):
                client.protected.write(question)
                await client.wait_for(len(client.received) + 3)
            received, name, empty = await serving
        self.assertEqual(
            (received, name, empty), ([b"one", b"two"], self.lab.principal("alice"), 0)
        )
        self.assertEqual(client.received, b"ONETWO")
        self.assertIsInstance(await client.ended, ConnectionDone)
        self.assertEqual(client.protected.peer_identity.spn, self.by_dn)
