"""Third-party clients that ask for neither replay nor sequence detection, as .NET's do on Linux."""

from __future__ import annotations

import socket
from itertools import product

from twisted.internet.error import ConnectionDone
from twisted.internet.threads import deferToThread

from mutauth_twisted import mechanisms
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import RecordError
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.testing.forge import set_environment
from mutauth_twisted.wire import NNS, WINSOCK
from tests.integration.commands import CommandTestCase
from tests.integration.handshake_case import LOOPBACK, HandshakeTestCase
from tests.integration.nns_peer import KERBEROS, SPNEGO, NNSPeer
from tests.integration.winsock_peer import WinsockPeer

DETECTION = Flag.REPLAY | Flag.SEQUENCE
CHANNELS = tuple(
    SecurityOptions(wire, protection, package=mechanisms.NEGOTIATE)
    for wire, protection in product((NNS, WINSOCK), (Protection.SEAL, Protection.SIGN))
)
#: Which of three records are sent, in which order, and how many of them are good.
ATTACKS = {
    "the first dropped": ((1, 2), 0),
    "the second dropped": ((0, 2), 1),
    "sent again at once": ((0, 0, 1), 1),
    "sent again later": ((0, 1, 2, 0), 3),
    "the first two swapped": ((1, 0, 2), 0),
    "the last two swapped": ((0, 2, 1), 1),
}


class DetectionTests(HandshakeTestCase):
    """Our service, and its clients over TCP."""

    def client(self, port: int, security: SecurityOptions, spnego: bool) -> NNSPeer | WinsockPeer:
        """A client that asks for protection and mutual authentication, and has been
        authenticated.
        """
        seal = security.protection is Protection.SEAL
        make = NNSPeer if security.wire is NNS else WinsockPeer
        peer = make(socket.create_connection((LOOPBACK, port), 10), seal=seal)
        flags, mechanism = int(security.protection.required_flags), SPNEGO if spnego else KERBEROS
        if isinstance(peer, NNSPeer):
            # MIT would ask for confidentiality by itself, and on this wire the flags decide.
            peer.authenticate_as_client(
                str(self.by_dn), f"FILE:{self.ccache}", flags, mechanism, unprotected=not seal
            )
        else:
            peer.authenticate_as_client(str(self.by_dn), f"FILE:{self.ccache}", flags, mechanism)
        return peer

    async def test_served(self) -> None:
        """They are served on either wire, sealed and signed, bare and inside SPNEGO."""
        for security, spnego in product(CHANNELS, (True, False)):
            port = await self.listen(self.keys_for(mechanisms.NEGOTIATE), security=security)

            def talk(
                port: int = port, security: SecurityOptions = security, spnego: bool = spnego
            ) -> list[bytes]:
                peer = self.client(port, security, spnego)
                answers = []
                for _ in range(3):
                    peer.send(b"question")
                    answers.append(peer.receive())
                peer.close()
                return answers

            self.assertEqual(await deferToThread(talk), [b"QUESTION"] * 3)
            identity = self.servers[-1].protected.peer_identity
            self.assertEqual(identity.flags & DETECTION, Flag(0))
            self.assertEqual(identity.package, "negotiate" if spnego else "kerberos")
            self.assertIs(identity.protection, security.protection)
            self.assertIsInstance(await self.servers[-1].ended, ConnectionDone)

    async def test_attacks(self) -> None:
        """Records dropped, repeated or reordered on the way end the connection, the first one
        included.
        """
        for security, spnego, (what, (order, good)) in product(
            CHANNELS, (True, False), ATTACKS.items()
        ):
            port = await self.listen(self.keys_for(mechanisms.NEGOTIATE), security=security)

            def talk(
                port: int = port,
                security: SecurityOptions = security,
                spnego: bool = spnego,
                order: object = order,
            ) -> None:
                peer = self.client(port, security, spnego)
                records = [peer.record(b"data %d" % number) for number in range(3)]
                assert isinstance(order, tuple)
                peer.socket.sendall(b"".join(records[number] for number in order))
                # Until the service has gone: what it says meanwhile is not the matter here.
                try:
                    while peer.socket.recv(65536):
                        pass
                except ConnectionResetError:
                    pass
                peer.close()

            await deferToThread(talk)
            server = self.servers[-1]
            self.assertIsInstance(await server.ended, RecordError, (security.wire.name, what))
            self.assertEqual(
                server.received, b"".join(b"data %d" % number for number in order[:good]), what
            )


class CommandTests(CommandTestCase):
    """The commands' defaults."""

    def test_service(self) -> None:
        """``twistd mutauth`` serves such a client that sends SPNEGO, as .NET does unless it is told
        otherwise.
        """
        self.assertEqual(self.install().code, 0)
        with self.service() as running:
            peer = NNSPeer(
                socket.create_connection((self.lab.address_of(self.host), running.port), 10)
            )
            spn = (
                f"{self.service_class}/{self.host}/CN={self.service_class},CN=SRV1,"
                f"CN=Computers,{self.lab.base_dn}"
            )
            flags = int(Protection.SEAL.required_flags)
            set_environment(self, self.lab.environment("alice"))
            peer.authenticate_as_client(spn, self.lab.ccache("alice"), flags, SPNEGO)
            peer.send(b"question")
            self.assertEqual(peer.receive(), b"question")
            peer.close()
            running.stop()
        self.assertIn("(negotiate, seal; mutual, confidentiality, integrity;", running.log)
