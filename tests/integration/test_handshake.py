"""The handshake against a real KDC and over real TCP: both sides as they should be, and one that is
not.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import (
    CredentialError,
    KDCRefused,
    KDCUnreachable,
    MutualAuthError,
    NetworkError,
    PeerRefused,
    ProtocolViolation,
)
from mutauth_twisted.mechanisms.kerberos import ServiceKeys
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from tests.integration.handshake_case import LOOPBACK, Application, HandshakeTestCase, one
from tests.integration.nns_peer import ALL_FLAGS, NNSPeer, Refused


class ServiceTests(HandshakeTestCase):
    """Both sides as they should be."""

    async def test_names(self) -> None:
        """The service authenticates as its two-part SPN, and the three-part ones by DN and by GUID;
        data flows sealed.
        """
        port = await self.listen()
        for spn in (self.by_host, self.by_dn, self.by_guid):
            client = await self.connect(port, spn)
            client.protected.write(b"hello")
            self.assertEqual(await client.wait_for(5), b"HELLO")
            service, caller = (
                client.protected.peer_identity,
                self.servers[-1].protected.peer_identity,
            )
            self.assertEqual((service.spn, service.principal), (spn, f"{spn}@{self.lab.realm}"))
            self.assertEqual(caller.principal, self.lab.principal("alice"))
            for identity in (service, caller):
                self.assertIs(identity.protection, Protection.SEAL)
                self.assertEqual(
                    identity.flags & Protection.SEAL.required_flags, Protection.SEAL.required_flags
                )
            await self.close(client)
            self.assertIsInstance(await self.servers[-1].ended, ConnectionDone)

    async def test_signed(self) -> None:
        """Where both sides agreed to sign only, data flows in the clear and protected."""
        security = SecurityOptions(protection=Protection.SIGN)
        seen: list[bytes] = []

        def note(direction: str, number: int, message: bytes) -> list[bytes | None]:
            seen.append(message)
            return [message]

        port = await self.proxy(await self.listen(security=security), note)
        client = await self.connect(port, security=security)
        client.protected.write(b"for all to read")
        self.assertEqual(await client.wait_for(15), b"FOR ALL TO READ")
        self.assertTrue(any(b"for all to read" in message for message in seen))
        await self.close(client)

    async def test_more_than_the_least(self) -> None:
        """A client that seals meets a service that signs: sealed is what they agree on, as with
        .NET.
        """
        seen: list[bytes] = []

        def note(direction: str, number: int, message: bytes) -> list[bytes | None]:
            seen.append(message)
            return [message]

        port = await self.proxy(
            await self.listen(security=SecurityOptions(protection=Protection.SIGN)), note
        )
        client = await self.connect(port)
        client.protected.write(b"for us alone")
        self.assertEqual(await client.wait_for(12), b"FOR US ALONE")
        for end in (client, self.servers[0]):
            self.assertEqual(end.protected.peer_identity.protection, Protection.SEAL)
        self.assertFalse(any(b"for us alone" in message for message in seen))
        await self.close(client)

    async def test_half_close(self) -> None:
        """A service that has said all first still gets all that the client has to say: through
        Twisted's own endpoints.
        """

        @implementer(IHalfCloseableProtocol)
        class Banner(Application):
            def connectionMade(self) -> None:
                self.protected.write(b"banner")
                self.protected.loseWriteConnection()

            def dataReceived(self, data: bytes) -> None:
                self.received += data

            def readConnectionLost(self) -> None:
                """The client's end."""

            def writeConnectionLost(self) -> None:
                """Part of the interface."""

        @implementer(IHalfCloseableProtocol)
        class Late(Application):
            def readConnectionLost(self) -> None:
                self.protected.write(b"all that was still to be said")
                self.protected.loseConnection()

            def writeConnectionLost(self) -> None:
                """Part of the interface."""

        port = await self.listen(application=Banner)
        inner = TCP4ClientEndpoint(reactor, LOOPBACK, port)
        client: Any = await MutualAuthClientEndpoint(
            reactor, inner, self.by_dn, self.alice
        ).connect(one(Late()))
        self.assertEqual(await client.wait_for(6), b"banner")
        for end in (client, self.servers[0]):
            self.assertIsInstance(await end.ended, ConnectionDone)
        self.assertEqual(self.servers[0].received, b"all that was still to be said")

    async def test_large_data(self) -> None:
        """Much data written at once, and closed behind at once, arrives whole at a reader that
        pauses.
        """
        data = random.Random(1).randbytes(6_000_000)
        port = await self.listen()
        client = await self.connect(port)
        server = self.servers[0]
        server.answer = None

        def slowly(piece: bytes) -> None:
            server.received += piece
            server.protected.pauseProducing()
            reactor_time = cast(IReactorTime, reactor)
            reactor_time.callLater(0, server.protected.resumeProducing)

        self.patch(server, "dataReceived", slowly)
        client.protected.write(data)
        client.protected.loseConnection()
        self.assertIsInstance(await server.ended, ConnectionDone)
        await client.ended
        self.assertEqual(len(server.received), len(data))
        self.assertTrue(server.received == data)

    async def test_keytab_clients(self) -> None:
        """Many connections at once with a client's keytab share one ticket, and all succeed."""
        bob = ClientCredentials(
            principal=self.lab.principal("bob"), keytab=str(self.lab.keytab("bob"))
        )
        port = await self.listen()
        clients = await gatherResults([self.connect(port, credentials=bob) for _ in range(8)])
        principals = {server.protected.peer_identity.principal for server in self.servers}
        self.assertEqual(principals, {self.lab.principal("bob")})
        for client in clients:
            client.protected.loseConnection()
        await gatherResults([peer.ended for peer in (*clients, *self.servers)])


class RefusalTests(HandshakeTestCase):
    """One side is not what the other wants."""

    async def test_impostor(self) -> None:
        """A service with another account's key is refused, and its own words say why."""
        port = await self.listen(ServiceKeys(ServiceCredentials(str(self.lab.keytab("svc-other")))))
        await self.refused(
            self.connect(port),
            PeerRefused,
            str(self.by_dn),
            "the service refused the ticket",
            "another key",
        )

    async def test_silent_impostor(self) -> None:
        """A service without any key that simply says done is refused."""

        class Impostor(Protocol):
            def dataReceived(self, data: bytes) -> None:
                cast(Any, self.transport).write(b"\x14\x01\x00\x00\x00")

        port = await self.listen_plainly(Factory.forProtocol(Impostor))
        error: Any = await self.assertFailure(self.connect(port), MutualAuthError)
        self.assertEqual(error.exit_code, 4)

    async def test_unknown_service(self) -> None:
        """An SPN that nobody registered is refused by the KDC; the service hears nothing of it."""
        port = await self.listen()
        spn = SPN("nobodys", self.lab.host("srv1"))
        await self.refused(
            self.connect(port, spn), KDCRefused, "the KDC knows no such service", str(spn)
        )

    async def test_no_ticket(self) -> None:
        """Without a ticket the client is told to get one."""
        port = await self.listen()
        nobody = ClientCredentials(ccache="FILE:/nonexistent/ccache")
        await self.refused(
            self.connect(port, credentials=nobody), CredentialError, "no Kerberos ticket", "kinit"
        )

    async def test_expired_ticket(self) -> None:
        """With an expired ticket the client is told so."""
        # A domain controller grants no service ticket for one that has less than two minutes left.
        await deferToThread(
            subprocess.run,
            ["kinit", "-l", "5s", "-c", str(self.ccache), self.lab.principal("alice")],
            input=self.lab.password("alice") + "\n",
            text=True,
            capture_output=True,
            check=True,
        )
        port = await self.listen()
        await self.refused(self.connect(port), CredentialError, "expired", "kinit")

    async def test_keytab_of_another(self) -> None:
        """A service whose keytab lacks its principal does not start."""
        with self.assertRaises(CredentialError) as caught:
            ServiceKeys(
                ServiceCredentials(
                    str(self.lab.keytab("svc-other")), self.lab.principal("svc-echo")
                )
            )
        self.assertIn("svc-echo", str(caught.exception))

    async def test_kdc_down(self) -> None:
        """A KDC that is down is named as the cause."""
        port = await self.listen()
        self.use_kdc(1)
        await self.refused(self.connect(port), KDCUnreachable, "no KDC answers")

    def use_kdc(self, port: int) -> None:
        """Have new contexts look for the KDC on this port."""
        conf = Path(self.mktemp()).absolute()
        text = self.lab.krb5_conf.read_text().replace(
            f"kdc = {self.lab.nameserver}", f"kdc = {LOOPBACK}:{port}"
        )
        conf.write_text(text)
        self.set_environment(KRB5_CONFIG=str(conf))

    async def test_no_ticket_no_connection(self) -> None:
        """An error that keeps a client from a ticket is raised before the service hears of it, with
        TLS as without.
        """
        met: list[object] = []

        class Service(Protocol):
            def connectionMade(self) -> None:
                met.append(self)

        port = await self.listen_plainly(Factory.forProtocol(Service))
        nobody = SPN(self.by_host.service_class, "nobody.lab.example")
        for protection in (Protection.SEAL, Protection.TLS):
            security = SecurityOptions(protection=protection)
            await self.refused(
                self.connect(port, nobody, security=security),
                KDCRefused,
                "the KDC knows no such service",
            )
            missing = ClientCredentials(ccache=f"FILE:{self.ccache}-that-is-not-there")
            error = await self.assertFailure(
                self.connect(port, self.by_dn, missing, security), CredentialError
            )
            self.assertIn("-that-is-not-there", str(error))
        self.assertEqual(met, [])

    async def test_stuck_kdc(self) -> None:
        """A KDC that accepts and never answers holds up the client that asked it, and nobody
        else.
        """
        asked: Deferred[None] = Deferred()
        kdc: list[Any] = []

        class Stuck(Protocol):
            def connectionMade(self) -> None:
                kdc.append(self.transport)

            def dataReceived(self, data: bytes) -> None:
                if not asked.called:
                    asked.callback(None)

        stuck_port = await self.listen_plainly(Factory.forProtocol(Stuck))
        port = await self.listen()
        self.use_kdc(stuck_port)
        # A service ticket that is in no cache yet, so that the KDC has to be asked.
        stuck = self.connect(port, self.by_guid, security=SecurityOptions(timeout=5))
        results: list[Any] = []
        stuck.addBoth(results.append)
        await asked
        os.environ["KRB5_CONFIG"] = str(self.lab.krb5_conf)
        client = await self.connect(port)
        client.protected.write(b"quick")
        self.assertEqual(await client.wait_for(5), b"QUICK")
        self.assertEqual(results, [])
        stuck.cancel()
        self.assertIsInstance(results[0], Failure)
        self.assertEqual(len(self.servers), 1)
        for transport in kdc:
            transport.abortConnection()
        client.protected.loseConnection()
        await client.ended

    async def test_missing_flags(self) -> None:
        """A client whose context lacks mutual authentication or protection is refused with code
        1790.
        """
        port = await self.listen()
        for flags, unprotected in (
            (ALL_FLAGS & ~2, False),
            (ALL_FLAGS & ~16, True),
            (ALL_FLAGS & ~48, True),
        ):
            refused: Any = await self.assertFailure(
                deferToThread(self._raw_client, port, flags=flags, unprotected=unprotected), Refused
            )
            self.assertEqual(refused.code, 1790)
        self.assertEqual(self.servers, [])

    def _raw_client(self, port: int, **options: Any) -> NNSPeer:
        peer = NNSPeer(socket.create_connection((LOOPBACK, port), 10))
        try:
            peer.authenticate_as_client(str(self.by_dn), f"FILE:{self.ccache}", **options)
        except BaseException:
            peer.close()
            raise
        return peer

    async def test_other_protocols(self) -> None:
        """A peer that speaks something else is named as such."""
        for banner in (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"220 ESMTP\r\n",
        ):

            class Other(Protocol):
                greeting = banner

                def connectionMade(self) -> None:
                    cast(Any, self.transport).write(self.greeting)

            port = await self.listen_plainly(Factory.forProtocol(Other))
            await self.refused(self.connect(port), ProtocolViolation, "speaks another protocol")

    async def test_peer_closes(self) -> None:
        """A peer that closes in the middle of the handshake is named as such."""

        class Closing(Protocol):
            def dataReceived(self, data: bytes) -> None:
                cast(Any, self.transport).write(b"\x14\x01\x00")
                cast(Any, self.transport).loseConnection()

        port = await self.listen_plainly(Factory.forProtocol(Closing))
        await self.refused(
            self.connect(port), NetworkError, "closed the connection during the handshake"
        )

    async def test_peer_is_silent(self) -> None:
        """A peer that never answers is given up at the deadline."""
        port = await self.listen_plainly(Factory.forProtocol(Protocol))
        await self.refused(
            self.connect(port, security=SecurityOptions(timeout=0.3)), NetworkError, "within 0.3 s"
        )

    async def test_nobody_listens(self) -> None:
        """A closed port is named as such."""
        with socket.create_server((LOOPBACK, 0)) as reserved:
            port = reserved.getsockname()[1]
        await self.refused(self.connect(port), NetworkError, "nothing listens there")
