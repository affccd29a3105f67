"""Protection by TLS: real tickets, real TLS, and relays that terminate it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509, PKey
from OpenSSL.SSL import NO_OVERLAPPING_PROTOCOLS
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.core.mechanism import Mechanism
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import (
    CredentialError,
    MutualAuthError,
    PeerNotAuthenticated,
    PeerRefused,
    ProtocolViolation,
    StreamCut,
    UsageError,
)
from mutauth_twisted.mechanisms import KERBEROS, NEGOTIATE
from mutauth_twisted.net import transport
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.net.keychanges import MOST_CHANGES
from mutauth_twisted.net.tls import ALPN, Authority, checking_layer, server_layer
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.testing.certificates import Certificates
from mutauth_twisted.wire import NNS, WINSOCK, Wire
from tests.integration.handshake_case import LOOPBACK, Application, HandshakeTestCase, one
from tests.integration.nns_peer import ALL_FLAGS, NNSPeer, Refused
from tests.support.keyupdates import KeyChanger

TLS = SecurityOptions(protection=Protection.TLS, timeout=5.0)
SIGN = SecurityOptions(protection=Protection.SIGN, timeout=5.0)


def relay_options(*protocols: bytes) -> Any:
    """Certificate that somebody in the middle shows a client: a certificate of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    )
    builder = (
        builder.serial_number(1)
        .not_valid_before(now - timedelta(1))
        .not_valid_after(now + timedelta(1))
    )
    options = CertificateOptions(
        privateKey=PKey.from_cryptography_key(key),
        certificate=X509.from_cryptography(builder.sign(key, hashes.SHA256())),
    )
    chosen = protocols[0] if protocols else NO_OVERLAPPING_PROTOCOLS
    options.getContext().set_alpn_select_callback(lambda connection, offered: chosen)
    return options


class Passing(Protocol):
    """Passes on what comes, as it comes, or changed."""

    def __init__(self, change: Any = None) -> None:
        self.other: Any = None
        self.change = change or (lambda data: data)
        self._early = b""

    def join(self, other: Any) -> None:
        """Know the other connection."""
        self.other = other
        if self._early:
            other.transport.write(self._early)

    def dataReceived(self, data: bytes) -> None:
        if self.other is None:
            self._early += self.change(data)
        else:
            self.other.transport.write(self.change(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.other is not None:
            self.other.transport.loseConnection()


class TLSTestCase(HandshakeTestCase):
    """Services and clients with protection tls."""

    def certificates(self, name: str = "ca") -> Certificates:
        """A new authority."""
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        return Certificates(directory.absolute() / name)

    async def relay(
        self, port: int, *, to_tls: bool, protocols: tuple[bytes, ...] = (ALPN,), up: Any = None
    ) -> int:
        """Somebody who terminates the client's TLS and goes on to the service, with TLS of its own
        or without.
        """

        def build(_: object) -> Protocol:
            near, far = Passing(up), Passing()
            inner: Any = TCP4ClientEndpoint(reactor, LOOPBACK, port)
            if to_tls:
                options = CertificateOptions(
                    verify=False, acceptableProtocols=list(protocols) or None
                )
                inner = wrapClientTLS(cast(Any, options), inner)

            def join(_: object) -> None:
                near.join(far)
                far.join(near)

            inner.connect(one(far)).addCallbacks(
                join, lambda _: cast(Any, near.transport).abortConnection()
            )
            return near

        factory: Any = Factory()
        factory.noisy, factory.buildProtocol = False, build
        return await self.listen_plainly(
            cast(Any, TLSMemoryBIOFactory(relay_options(*protocols), False, factory))
        )

    async def flip(self, port: int, at: int) -> int:
        """Somebody who flips a bit of what goes to the service, so many bytes after the start."""
        seen = 0

        def change(data: bytes) -> bytes:
            nonlocal seen
            place, seen = at - seen, seen + len(data)
            if 0 <= place < len(data):
                return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            return data

        def build(_: object) -> Protocol:
            near, far = Passing(change), Passing()

            def join(_: object) -> None:
                near.join(far)
                far.join(near)

            TCP4ClientEndpoint(reactor, LOOPBACK, port).connect(one(far)).addCallback(join)
            return near

        factory: Any = Factory()
        factory.buildProtocol = build
        return await self.listen_plainly(factory)

    def connect_checking(self, port: int, authority: Authority) -> Deferred[Application]:
        """Connect, and have the certificate checked as well."""
        inner = TCP4ClientEndpoint(reactor, LOOPBACK, port)
        tls = checking_layer(authority, self.by_dn.host)
        endpoint = MutualAuthClientEndpoint(reactor, inner, self.by_dn, self.alice, TLS, tls=tls)
        return cast("Deferred[Application]", endpoint.connect(one(Application())))


class ChannelTests(TLSTestCase):
    """Peers that should come together."""

    async def handshake(self, wire: Wire, package: Mechanism) -> None:
        security = SecurityOptions(wire, Protection.TLS, 5.0, package)
        port = await self.listen(keys=self.keys_for(package), security=security)
        client = await self.connect(port, security=security)
        client.protected.write(b"a word")
        self.assertEqual(await client.wait_for(6), b"A WORD")
        seen, known = client.protected.peer_identity, self.servers[0].protected.peer_identity
        self.assertEqual(
            (seen.protection, seen.package, seen.spn), (Protection.TLS, package.name, self.by_dn)
        )
        self.assertEqual((known.protection, known.package), (Protection.TLS, package.name))
        self.assertIn(Flag.CHANNEL_BOUND, known.flags)
        await self.close(client)
        self.assertIsInstance(await client.ended, ConnectionDone)
        self.servers.clear()

    async def test_all(self) -> None:
        """Either wire, either package: both sides are authenticated, the service's side bound to
        the channel.
        """
        for wire in (NNS, WINSOCK):
            for package in (KERBEROS, NEGOTIATE):
                await self.handshake(wire, package)

    async def test_large_data(self) -> None:
        """Much data crosses unaltered, in either direction, and ends with an end."""
        port = await self.listen(security=TLS)
        client = await self.connect(port, security=TLS)
        data = os.urandom(1 << 15) * 64
        client.protected.write(data)
        self.assertEqual(
            hashlib.sha256(await client.wait_for(len(data))).digest(),
            hashlib.sha256(data.upper()).digest(),
        )
        await self.close(client)

    async def test_half_close(self) -> None:
        """A client that has said all still gets the service's answer."""

        @implementer(IHalfCloseableProtocol)
        class Late(Application):
            def dataReceived(self, data: bytes) -> None:
                self.received += data

            def readConnectionLost(self) -> None:
                self.protected.write(b"all of " + self.received)
                self.protected.loseConnection()

            def writeConnectionLost(self) -> None:
                """Part of the interface."""

        @implementer(IHalfCloseableProtocol)
        class Half(Application):
            def readConnectionLost(self) -> None:
                self.protected.loseConnection()

            def writeConnectionLost(self) -> None:
                """Part of the interface."""

        port = await self.listen(security=TLS, application=Late)
        inner = TCP4ClientEndpoint(reactor, LOOPBACK, port)
        client: Any = await MutualAuthClientEndpoint(
            reactor, inner, self.by_dn, self.alice, TLS
        ).connect(one(Half()))
        client.protected.write(b"this")
        client.protected.loseWriteConnection()
        self.assertEqual(await client.wait_for(11), b"all of this")
        self.assertIsInstance(await client.ended, ConnectionDone)

    async def test_silent_peer(self) -> None:
        """A side that closes towards a peer that reads and says nothing any more is done all the
        same, after a while.
        """
        self.patch(transport, "LINGER", 0.2)
        port = await self.listen(security=TLS)
        for closing in ("client", "service"):
            client = await self.connect(port, security=TLS)
            client.protected.write(b"a word")
            await client.wait_for(6)
            server = self.servers.pop()
            ends, silent = (client, server) if closing == "client" else (server, client)
            silent.protected._transport.pauseProducing()
            ends.protected.loseConnection()
            self.assertIsInstance(await ends.ended, ConnectionDone)
            silent.protected.abortConnection()
            await silent.ended

    async def test_cut(self) -> None:
        """A TCP connection that ends within TLS is a cut, and so is TLS that ends without our end
        of stream.
        """
        port = await self.listen(security=TLS)
        for cut in ("tcp", "tls"):
            client = await self.connect(port, security=TLS)
            client.protected.write(b"a word")
            await client.wait_for(6)
            network = client.protected._transport
            if cut == "tcp":
                network.transport.loseConnection()
            else:
                network.loseConnection()
            self.assertIsInstance(await self.servers.pop().ended, StreamCut)
            await client.ended

    async def test_nothing_in_the_clear(self) -> None:
        """Neither the data nor the client's name is to be read on the network."""
        seen = b""

        def note(data: bytes) -> bytes:
            nonlocal seen
            seen += data
            return data

        def build(_: object) -> Protocol:
            near, far = Passing(note), Passing(note)

            def join(_: object) -> None:
                near.join(far)
                far.join(near)

            TCP4ClientEndpoint(reactor, LOOPBACK, port).connect(one(far)).addCallback(join)
            return near

        port = await self.listen(security=TLS)
        factory: Any = Factory()
        factory.buildProtocol = build
        client = await self.connect(await self.listen_plainly(factory), security=TLS)
        client.protected.write(b"a word for nobody else")
        await client.wait_for(22)
        self.assertGreater(len(seen), 1000)
        for secret in (b"a word for", b"A WORD FOR", self.by_dn.service_class.encode(), b"alice"):
            self.assertNotIn(secret, seen)
        await self.close(client)


class DisagreementTests(TLSTestCase):
    """Peers that want different things."""

    async def test_protection(self) -> None:
        """A side with TLS and one without find out at once, and neither surfaces anything."""
        for wire in (NNS, WINSOCK):
            tls = SecurityOptions(wire, Protection.TLS, 5.0)
            secured = await self.listen(security=tls)
            for protection in (Protection.SEAL, Protection.SIGN):
                plain = SecurityOptions(wire, protection, 5.0)
                open_port = await self.listen(security=plain)
                error = await self.assertFailure(
                    self.connect(open_port, security=tls), MutualAuthError
                )
                self.assertIn("give both sides the same protection", str(error))
                error = await self.assertFailure(
                    self.connect(secured, security=plain), MutualAuthError
                )
                self.assertIn("one protection", str(error))
        self.assertEqual(self.servers, [])

    async def test_sign_where_seal_is_asked_for(self) -> None:
        """A client that only signs is told that the service takes no less than sealing."""
        port = await self.listen()
        error = await self.refused(
            self.connect(port, security=SIGN), PeerRefused, "the protection (code 0x6fe)"
        )
        self.assertEqual(cast(PeerRefused, error).status, 1790)

    async def test_old_tls(self) -> None:
        """TLS 1.2 is refused, as its exporter says less."""
        port = await self.listen(security=TLS)

        def attempt() -> None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            with socket.create_connection((LOOPBACK, port)) as raw, context.wrap_socket(raw):
                pass

        await self.assertFailure(deferToThread(attempt), ssl.SSLError)
        self.assertEqual(self.servers, [])

    async def test_silence_and_noise(self) -> None:
        """The deadline counts from the connection: a client that never ends its handshake is let
        go.
        """
        port = await self.listen(security=SecurityOptions(protection=Protection.TLS, timeout=0.3))

        def attempt(first: bytes) -> bytes:
            with socket.create_connection((LOOPBACK, port), timeout=10) as stranger:
                stranger.sendall(first)
                said = b""
                with contextlib.suppress(ConnectionResetError):
                    while more := stranger.recv(4096):
                        said += more
                return said

        for first in (b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.0\r\n\r\n"):
            said = await deferToThread(attempt, first)
            self.assertLess(len(said), 16)
        self.assertEqual(self.servers, [])


class CertificateTests(TLSTestCase):
    """A certificate, where somebody wants one in addition."""

    async def test_checked(self) -> None:
        """The authority's certificate for the SPN's host, or for the name given, is taken."""
        ca = self.certificates()
        for host, authority in (
            (self.by_dn.host, Authority(ca.ca_file)),
            ("other.example.com", Authority(ca.ca_file, "other.example.com")),
        ):
            port = await self.listen(security=TLS, tls=server_layer(ca.issue(host)))
            client = await self.connect_checking(port, authority)
            await self.close(client)
            self.servers.clear()

    async def test_refused(self) -> None:
        """A wrong name, another authority, an expired or made-up certificate: no token is sent at
        all.
        """
        ca, other = self.certificates(), self.certificates("other")
        authority = Authority(ca.ca_file)
        for tls, cause in (
            (
                server_layer(ca.issue("elsewhere.example.com")),
                f"its certificate is not for {self.by_dn.host}; it is for elsewhere.example.com; "
                "tls-name=elsewhere",
            ),
            (
                server_layer(ca.issue(self.by_dn.host, names=False)),
                f"is not for {self.by_dn.host}, nor for any name",
            ),
            (
                server_layer(other.issue(self.by_dn.host)),
                "its certificate does not come from the authority",
            ),
            (
                server_layer(ca.issue(self.by_dn.host, days=-1)),
                "its certificate has expired; have it renewed",
            ),
            (None, "it has signed its certificate itself"),
        ):
            port = await self.listen(security=TLS, tls=tls, keys=cast(Any, self))
            await self.refused(self.connect_checking(port, authority), PeerNotAuthenticated, cause)

    accepts_replays = False
    authenticates_service = True

    def acceptor(self, peer: str, security: Any) -> Any:
        """This test is the keys of a service to which nobody may speak."""
        return self

    blocking = False

    def step(self, token: bytes | None) -> Any:
        """The service's context."""
        self.fail("the client began the handshake")

    def test_unusable_files(self) -> Any:
        """Files that cannot be used are named, with the next step."""
        ca = self.certificates()
        mine, theirs = ca.issue("a.example.com"), ca.issue("b.example.com")
        for arguments, text in (
            (
                ("/nowhere.pem", None),
                "certificate file /nowhere.pem: it cannot be read: no such file",
            ),
            ((ca.ca_file, None), "it holds no key in PEM form"),
            ((os.devnull, None), "it cannot be read: it is not a regular file"),
            ((mine, theirs), "it cannot be used with its key"),
        ):
            with self.assertRaises(CredentialError) as caught:
                server_layer(*arguments)
            self.assertIn(text, str(caught.exception))
        for path, text in (
            (os.devnull, "it cannot be read: it is not a regular file"),
            ("/nowhere.pem", "tls-ca /nowhere.pem: it cannot be read: no such file"),
        ):
            with self.assertRaises(UsageError) as refused:
                checking_layer(Authority(path), "a.example.com")
            self.assertIn(text, str(refused.exception))


class RelayTests(TLSTestCase):
    """Somebody in the middle who ends the client's TLS and begins one of its own."""

    async def test_to_the_service(self) -> None:
        """The victim's bindings are those of the relay's channel: the service refuses them; without
        ALPN the victim does.
        """
        port = await self.listen(security=TLS)
        for protocols, error in (((ALPN,), PeerRefused), ((), PeerNotAuthenticated)):
            relay = await self.relay(port, to_tls=True, protocols=protocols)
            await self.refused(self.connect(relay, security=TLS), error)

    async def test_without_bindings(self) -> None:
        """A victim that sends no bindings, as many a client does, is refused with a relay and
        without one.
        """
        port = await self.listen(security=TLS)
        relay = await self.relay(port, to_tls=True, protocols=())
        for where in (relay, port):
            error = await self.assertFailure(deferToThread(self.visit, where, None), Refused)
            self.assertEqual(error.code, 1790)
        self.assertEqual(self.servers, [])

    async def test_to_a_service_that_insists_on_nothing(self) -> None:
        """A service with the same key and without TLS allows the relay's client; the victim finds
        out nevertheless.
        """
        port = await self.listen(security=SIGN)
        relay = await self.relay(port, to_tls=False)
        error = await self.assertFailure(self.connect(relay, security=TLS), MutualAuthError)
        self.assertIsInstance(error, ProtocolViolation | PeerNotAuthenticated)

    async def test_with_a_confirmation_made_up(self) -> None:
        """The relay cannot make the confirmation, nor have the service sign it."""
        port = await self.listen(security=SIGN)

        def build(_: object) -> Protocol:
            near, far = Passing(), Passing(add)

            def join(_: object) -> None:
                near.join(far)
                far.join(near)

            TCP4ClientEndpoint(reactor, LOOPBACK, port).connect(one(far)).addCallback(join)
            return near

        for confirmation in (b"", os.urandom(28)):

            def add(data: bytes, confirmation: bytes = confirmation) -> bytes:
                if data[:1] != b"\x14":
                    return data
                token = len(confirmation).to_bytes(2, "big") + confirmation + data[5:]
                size = int.from_bytes(data[3:5], "big") + 2 + len(confirmation)
                return data[:3] + size.to_bytes(2, "big") + token

            factory: Any = Factory()
            factory.noisy, factory.buildProtocol = False, build
            relay = await self.listen_plainly(
                cast(Any, TLSMemoryBIOFactory(relay_options(ALPN), False, factory))
            )
            error = await self.assertFailure(
                self.connect(relay, security=TLS), PeerNotAuthenticated
            )
            self.assertIn("has not confirmed this TLS channel", str(error))

    async def test_as_a_third_party_service(self) -> None:
        """A relay that hides ALPN, before a port of the same key without TLS, could cut the stream
        unseen: it is refused.
        """
        seen = b""

        def note(data: bytes) -> bytes:
            nonlocal seen
            seen += data
            return data

        for security in (SIGN, SecurityOptions()):
            port = await self.listen(security=security)
            relay = await self.relay(port, to_tls=False, protocols=(), up=note)
            words = (
                "it is not a mutauth service, and no authority is given to verify its certificate; "
                "give tls-ca"
            )
            await self.refused(self.connect(relay, security=TLS), PeerNotAuthenticated, words)
            await self.refused(
                self.connect_checking(
                    relay, Authority(self.certificates(security.protection.value).ca_file)
                ),
                PeerNotAuthenticated,
                "it has signed its certificate itself",
            )
        self.assertEqual((seen, self.servers), (b"", []))

    async def test_flips(self) -> None:
        """A bit that is flipped within TLS ends the connection, before or after the handshake."""
        port = await self.listen(security=TLS)
        for at in (3, 60, 300, 500, 700, 1500):
            middle = await self.flip(port, at)
            try:
                client = await self.connect(middle, security=TLS)
            except MutualAuthError:
                self.assertEqual(self.servers, [])
                continue
            client.protected.write(bytes(4000))
            self.assertIsInstance(await self.servers[0].ended, ConnectionLost)
            await client.ended
            self.assertEqual(self.servers.pop().received, b"")

    async def test_changes_of_keys(self) -> None:
        """A client that changes its keys again and again, with data in between, loses its session,
        and only it does.
        """
        port = await self.listen(security=TLS)
        other = await self.connect(port, security=TLS)
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)

        def flood() -> tuple[int, bytes]:
            with socket.create_connection((LOOPBACK, port), 10) as raw:
                secured = KeyChanger(directory, raw)
                peer = NNSPeer(cast(Any, secured))
                digest = hashlib.sha256(secured.certificate()).digest()
                bindings = b"tls-server-end-point:" + digest
                peer.authenticate_as_client(
                    str(self.by_dn), str(self.alice.ccache), ALL_FLAGS, bindings=bindings
                )
                for answered in range(100):
                    secured.send_raw(b"".join(secured.key_update() for _ in range(20)))
                    try:
                        peer.send(b"a word")
                        if (answer := peer.receive()) != b"A WORD":
                            return answered, answer
                    except OSError:
                        return answered, b""
            return 100, b""

        self.assertEqual(await deferToThread(flood), (MOST_CHANGES // 20, b""))
        error = await self.servers[1].ended
        self.assertIsInstance(error, ProtocolViolation)
        self.assertIn("it has changed its keys 257 times", str(error))
        other.protected.write(b"a word")
        self.assertEqual(await other.wait_for(6), b"A WORD")
        await self.close(other)

    # A third-party peer

    def visit(self, port: int, bindings: bytes | None) -> bytes:
        """Be a client on Python's own TLS, with bindings to the certificate (b"" for the right
        ones) or none.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["something/else"])
        with socket.create_connection((LOOPBACK, port)) as raw, context.wrap_socket(raw) as secured:
            peer = NNSPeer(secured)
            if bindings == b"":
                digest = hashlib.sha256(secured.getpeercert(binary_form=True) or b"").digest()
                bindings = b"tls-server-end-point:" + digest
            peer.authenticate_as_client(
                str(self.by_dn), str(self.alice.ccache), ALL_FLAGS, bindings=bindings
            )
            peer.send(b"from elsewhere")
            answer, end = peer.receive(), peer.receive()
            self.assertEqual((end, peer.empty_records), (b"", 0))
            return answer

    async def test_a_client_of_another_make(self) -> None:
        """It binds to the certificate, its records are sealed inside TLS as well, and it gets no
        empty one.
        """

        class Leaving(Application):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.protected.loseConnection()

        port = await self.listen(security=TLS, application=Leaving)
        self.assertEqual(await deferToThread(self.visit, port, b""), b"FROM ELSEWHERE")
        identity = self.servers[0].protected.peer_identity
        self.assertEqual(identity.protection, Protection.TLS)
        self.assertIn(Flag.CHANNEL_BOUND, identity.flags)
        self.assertFalse(identity.mutauth)
        await self.servers.pop().ended
        error = await self.assertFailure(
            deferToThread(self.visit, port, b"tls-server-end-point:" + bytes(32)), Refused
        )
        self.assertEqual(error.code, 1326)

    async def test_a_service_of_another_make(self) -> None:
        """It is bound to its certificate, which tls-ca verifies, seals inside TLS, and gets no
        empty record.
        """
        ca = self.certificates()
        path = ca.issue("service.example.com", hashes.SHA384())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        certificate = x509.load_pem_x509_certificate(Path(path).read_bytes())
        bindings = b"tls-server-end-point:" + certificate.fingerprint(hashes.SHA384())
        listening = socket.create_server((LOOPBACK, 0))
        self.addCleanup(listening.close)

        def serve(bindings: bytes) -> bytes:
            connection, _ = listening.accept()
            with context.wrap_socket(connection, server_side=True) as secured:
                peer = NNSPeer(secured)
                peer.authenticate_as_server(str(self.lab.keytab("svc-echo")), bindings=bindings)
                peer.send(b"from elsewhere")
                word, end = peer.receive(), peer.receive()
                self.assertEqual((end, peer.empty_records), (b"", 0))
                return word

        serving = deferToThread(serve, bindings)
        authority = Authority(ca.ca_file, "service.example.com")
        client = await self.connect_checking(listening.getsockname()[1], authority)
        self.assertEqual(await client.wait_for(14), b"from elsewhere")
        self.assertFalse(client.protected.peer_identity.mutauth)
        client.protected.write(b"to elsewhere")
        client.protected.loseConnection()
        self.assertEqual(await serving, b"to elsewhere")
        await client.ended
