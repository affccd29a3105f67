"""Marks by which two mutauth peers know each other and their stream opens, of which a third-party
peer sees nothing.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from itertools import product
from typing import Any, cast

import gssapi
from attrs import evolve
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted import mechanisms
from mutauth_twisted.core.channelbinding import WITHOUT_TLS
from mutauth_twisted.core.context import StepFailed
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import NetworkError, RecordError, StreamCut
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.mechanisms import kerberos
from mutauth_twisted.mechanisms.kerberos import KerberosAcceptor, KerberosInitiator, ServiceKeys
from mutauth_twisted.net.transport import LINGER
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.testing.fakes import SECRET, FakeContext, Player, RecorderFactory, captured_log
from mutauth_twisted.testing.forge import make_realm, set_environment, third_party_initiator
from mutauth_twisted.wire import NNS, WINSOCK, Token, Wire
from tests.support.middle import Conversation, MiddleCase, answering, asking
from tests.support.sides import Peer
from tests.support.tampering import (
    ANSWER,
    CHANNELS,
    DOWN,
    QUESTION,
    SPN_ASKED,
    TOKEN,
    UP,
    Attempt,
    Tamper,
    flipped,
    name,
    replace,
    untouched,
)
from tests.unread import mark_in_token

SEAL = Protection.SEAL
WIRES = (NNS, WINSOCK)
KERBEROS, SPNEGO = gssapi.MechType.kerberos, gssapi.OID.from_int_seq("1.3.6.1.5.5.2")
#: What no mutauth client of this version sends.
FOREIGN = (b"tls-server-end-point:" + bytes(32), b"mutauth:2", b"mutauth:", b"")


class BindingTests(SynchronousTestCase):
    """A client's word, in its authenticator, with real contexts."""

    def setUp(self) -> None:
        self.realm = make_realm(self)
        self.keys = ServiceKeys(
            ServiceCredentials(self.realm.keytab("svc-echo")), None, mechanisms.NEGOTIATE
        )

    def ccache(self) -> str:
        """A new ticket's."""
        return self.realm.ccache("alice", str(SPN_ASKED), "svc-echo")

    def accept(self, token: bytes, mutauth: bool) -> tuple[Any, bytes]:
        """The service takes the client, and knows what it is: its context and its reply."""
        server = self.keys.acceptor("client")
        reply = server.step(token)
        self.assertTrue(reply.complete)
        identity = server.verify(SEAL)
        self.assertEqual((identity.principal, identity.mutauth), ("alice@TEST.EXAMPLE", mutauth))
        self.assertNotIn(Flag.CHANNEL_BOUND, identity.flags)
        return server, reply.token

    def assert_served(self, data: bytes | None, mechanism: gssapi.OID) -> None:
        """A third-party client with such bindings gets in as one, and its records are read."""
        client = third_party_initiator(SPN_ASKED, self.ccache(), data, mechanism)
        server, reply = self.accept(client.step(), False)
        client.step(reply)
        self.assertEqual(server.unwrap(client.wrap(b"genuine", True).message), (b"genuine", True))

    def test_mutauth_client(self) -> None:
        """It is known for one, with either package; the flag that says so is TLS's and does not
        show.
        """
        for package in (mechanisms.KERBEROS, mechanisms.NEGOTIATE):
            client = KerberosInitiator(
                SPN_ASKED, ClientCredentials(ccache=self.ccache()), SEAL, package
            )
            server, reply = self.accept(client.step(None).token, True)
            client.step(reply)
            self.assertEqual(server.unwrap(client.wrap(b"genuine", seal=True)), (b"genuine", True))

    def test_third_party_client(self) -> None:
        """A client without bindings, or with any others, is a third-party one, and is served."""
        for mechanism, data in product((KERBEROS, SPNEGO), (None, *FOREIGN)):
            self.assert_served(data, mechanism)

    def test_client_that_asserts_bindings(self) -> None:
        """So is one that asserts to know of bindings and has none (MS-KILE), as Windows' do: MIT
        alone would refuse it.
        """
        set_environment(self, self.realm.environment("client_aware_channel_bindings = true"))
        for mechanism in (KERBEROS, SPNEGO):
            token = third_party_initiator(SPN_ASKED, self.ccache(), None, mechanism).step()
            bindings = gssapi.raw.ChannelBindings(application_data=WITHOUT_TLS.application_data)
            with self.assertRaises(gssapi.exceptions.BadChannelBindingsError):
                gssapi.raw.accept_sec_context(
                    token, self.keys.keytab.acquired, channel_bindings=bindings
                )
            self.assert_served(None, mechanism)

    def test_replayed(self) -> None:
        """The second look at such a token is no way around the replay cache: the token itself opens
        one session.
        """
        for asserts, (mechanism, data) in product(
            (False, True), product((KERBEROS, SPNEGO), (None, *FOREIGN))
        ):
            if asserts:
                set_environment(
                    self, self.realm.environment("client_aware_channel_bindings = true")
                )
            token = third_party_initiator(SPN_ASKED, self.ccache(), data, mechanism).step()
            self.assertTrue(self.keys.acceptor("client").step(token).complete)
            for _ in range(2):
                error = self.assertRaises(
                    StepFailed, self.keys.acceptor("client").step, token
                ).error
                self.assertIn("Request is a replay", str(error.__cause__))

    def test_not_another_token(self) -> None:
        """A second look there is for the first token of a connection only."""
        server, credentials = self.keys.acceptor("client"), list[Any]()
        server.step(third_party_initiator(SPN_ASKED, self.ccache(), None).step())

        def refuse(token: bytes, acquired: Any, *arguments: Any) -> Any:
            credentials.append(acquired)
            raise gssapi.exceptions.BadChannelBindingsError(4 << 16, 0)

        self.patch(kerberos, "accept_sec_context", refuse)
        self.assertRaises(StepFailed, server.step, b"another token")
        keytab = self.keys.keytab
        self.assertEqual(credentials, [keytab.acquired])
        self.assertRaises(StepFailed, self.keys.acceptor("client").step, b"a first token")
        self.assertEqual(credentials[1:], [keytab.acquired, keytab.acquired_again])

    def test_no_bindings_from_elsewhere(self) -> None:
        """Somebody without the session's key cannot write the word into another's token."""
        ours = (
            KerberosInitiator(SPN_ASKED, ClientCredentials(ccache=self.ccache()), SEAL)
            .step(None)
            .token
        )
        token = third_party_initiator(SPN_ASKED, self.ccache(), None).step()
        # The authenticator is behind the ticket; both are what the key of another session has
        # sealed.
        mixed = token[: -len(token) // 4] + ours[-len(token) // 4 :]
        self.assertRaises(StepFailed, self.keys.acceptor("client").step, mixed)


def token(wire: Wire, number: int, *, mutauth: bool = False) -> bytes:
    """A frame with one of the fake context's tokens, the last one being the second."""
    return wire.token(SECRET + b"token %d" % number, number == 2, mutauth)


def plaintexts(wire: Wire, data: bytes, *, from_client: bool, legs: int = 2) -> list[bytes]:
    """Bytes that a side has sent: of each record the plaintext, and of each frame nothing."""
    context, reader = FakeContext(initiator=not from_client), wire.reader()
    reader.feed(data)
    for _ in range(legs // 2):
        assert isinstance(reader.next_frame(), Token)
    found = []
    while (body := reader.next_record()) is not None:
        found.append(wire.unprotect(context, body, True)[0])
    assert not reader.pending
    return found


class OpeningTests(SynchronousTestCase):
    """A client's first record."""

    def service(self, wire: Wire, *, mutauth: bool = True) -> Player:
        """A service that has answered its client's token."""
        service = Player(
            FakeContext(initiator=False, mutauth=mutauth), security=SecurityOptions(wire)
        )
        service.receive(token(wire, 1))
        return service

    def test_nothing_before_it(self) -> None:
        """A service builds no application for a mutauth client, and says nothing of it, before the
        opening's last byte.
        """
        for wire in WIRES:
            with captured_log() as events:
                service = self.service(wire)
                self.assertEqual(service.transport.take(), token(wire, 2, mutauth=True))
                client = FakeContext(initiator=True)
                opening = wire.protect(client, b"", True)
                for byte in opening[:-1]:
                    service.receive(bytes([byte]))
                    self.assertEqual(
                        (service.factory.built, service.results, service.transport.take()),
                        ([], [], b""),
                    )
                self.assertEqual(
                    [event for event in events if "authenticated" in formatEvent(event)], []
                )
                service.receive(opening[-1:])
            self.assertEqual(service.results, [service.application])
            self.assertTrue(cast(Any, service.application.transport).peer_identity.mutauth)
            self.assertEqual(service.reactor.getDelayedCalls(), [])
            self.assertEqual(
                len([event for event in events if "authenticated as alice" in formatEvent(event)]),
                1,
            )

    def test_with_all_that_follows(self) -> None:
        """The opening, data and the end of the stream may come in one piece."""
        for wire in WIRES:
            service, client = self.service(wire), FakeContext(initiator=True)
            service.receive(
                b"".join(wire.protect(client, data, True) for data in (b"", b"hello", b""))
            )
            service.protocol.readConnectionLost()
            service.lose()
            self.assertEqual(service.application.received, [b"hello"])
            self.assertIsInstance(service.application.reason, ConnectionDone)

    def test_it_does_not_come(self) -> None:
        """The handshake's deadline is the opening's as well: who has copied a token gets nothing,
        and keeps nothing.
        """
        for wire in WIRES:
            service = self.service(wire)
            service.reactor.advance(SecurityOptions().timeout)
            self.assertIsInstance(service.error, NetworkError)
            self.assertIn(
                "whoever sent it has copied it, or lost its connection", str(service.error)
            )
            service.reactor.advance(LINGER)
            self.assertTrue(service.transport.aborted)
            service.lose()
            self.assertEqual((service.factory.built, service.reactor.getDelayedCalls()), ([], []))

    def test_something_else_comes(self) -> None:
        """Data, or what the client did not make, ends the handshake, in words that say what may
        have happened.
        """
        for wire in WIRES:
            for record, text in (
                (
                    wire.protect(FakeContext(initiator=True), b"hello", True),
                    "removed this service's mark",
                ),
                (wire.protect(FakeContext(initiator=False), b"", True), "record rejected: "),
            ):
                service = self.service(wire)
                service.transport.clear()
                service.receive(record)
                self.assertIsInstance(service.error, RecordError)
                self.assertIn(text, str(service.error))
                self.assertEqual((service.factory.built, service.transport.take()), ([], b""))
                self.assertTrue(service.transport.disconnecting)
                service.lose()
                self.assertEqual(service.reactor.getDelayedCalls(), [])

    def test_client(self) -> None:
        """A client that sees the mark opens, in front of what its application writes, and both
        sides end what they say.
        """
        factory = RecorderFactory(
            lambda made: setattr(made, "on_connect", lambda transport: transport.write(b"hello"))
        )
        for wire in WIRES:
            client = Player(FakeContext(initiator=True), factory, security=SecurityOptions(wire))
            client.receive(token(wire, 2, mutauth=True))
            transport = cast(Any, client.results[0].transport)
            self.assertTrue(transport.peer_identity.mutauth)
            transport.loseConnection()
            self.assertEqual(
                plaintexts(wire, client.transport.take(), from_client=True), [b"", b"hello", b""]
            )
            client.lose()

    def test_one_piece(self) -> None:
        """The opening costs no send of its own: it leaves with what the application writes as it is
        connected.
        """
        mine, peer = socket.socketpair()
        self.addCleanup(mine.close)
        self.addCleanup(peer.close)
        factory = RecorderFactory(
            lambda made: setattr(made, "on_connect", lambda transport: transport.write(b"hello"))
        )
        client = Player(FakeContext(initiator=True), factory, start=False)
        connection: Any = Connection(mine, client.protocol, cast(Any, MemoryReactorClock()))
        connection.connected, sends = 1, list[bytes]()
        self.patch(connection, "getPeer", lambda: IPv4Address("TCP", "192.0.2.1", 1))
        self.patch(connection, "getHost", lambda: UNIXAddress(None))
        self.patch(connection, "writeSomeData", lambda data: sends.append(bytes(data)) or len(data))
        client.protocol.makeConnection(connection)
        connection.doWrite()
        self.assertEqual(sends, [token(NNS, 1)])
        sends.clear()
        client.protocol.dataReceived(token(NNS, 2, mutauth=True))
        connection.doWrite()
        self.assertEqual(len(sends), 1)
        self.assertEqual(
            plaintexts(NNS, token(NNS, 2) + sends[0], from_client=True), [b"", b"hello"]
        )

    def test_third_party_service(self) -> None:
        """A client that sees no mark sends no empty record, at the start or at the end."""
        factory = RecorderFactory(
            lambda made: setattr(made, "on_connect", lambda transport: transport.write(b"hello"))
        )
        for wire in WIRES:
            client = Player(FakeContext(initiator=True), factory, security=SecurityOptions(wire))
            client.receive(token(wire, 2))
            transport = cast(Any, client.results[0].transport)
            self.assertFalse(transport.peer_identity.mutauth)
            transport.write(b"")
            transport.loseConnection()
            self.assertEqual(
                plaintexts(wire, client.transport.take(), from_client=True), [b"hello"]
            )
            self.assertTrue(client.transport.write_closing)

    def test_third_party_client(self) -> None:
        """A service has its application at once, which may speak first, and sends neither a mark
        nor an empty record.
        """
        for wire in WIRES:
            service = self.service(wire, mutauth=False)
            transport = cast(Any, service.application.transport)
            self.assertFalse(transport.peer_identity.mutauth)
            transport.write(b"welcome")
            transport.loseConnection()
            sent = service.transport.take()
            self.assertTrue(sent.startswith(token(wire, 2)))
            self.assertEqual(plaintexts(wire, sent, from_client=False), [b"welcome"])
            self.assertTrue(service.transport.write_closing)


class CopiedTests(MiddleCase):
    """Somebody who copies a client's token to a service that has not seen it: another replica, with
    the same key.
    """

    def test_copied(self) -> None:
        """However often and wherever it is sent, no application hears of it."""
        # A replay cache of another machine knows as little as none.
        elsewhere = ServiceCredentials(self.realm.keytab("svc-echo"), accept_replays=True)
        for security in CHANNELS:
            copied = asking(self.initiator(security), security).transport.take()
            for _ in range(3):
                replica = answering(ServiceKeys(elsewhere).acceptor("c"), security)
                replica.receive(copied)
                self.assertEqual((replica.factory.built, replica.results), ([], []))
                replica.receive(security.wire.record(bytes(60)))
                replica.reactor.advance(security.timeout)
                self.assertEqual(replica.factory.built, [], name(security))
                self.assertIsInstance(replica.error, RecordError)


class ThirdParty:
    """A service's context that does not care for the client's word."""

    def __init__(self, context: KerberosAcceptor) -> None:
        self._context = context

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._context, attribute)

    def verify(self, protection: Protection) -> PeerIdentity:
        return evolve(self._context.verify(protection), mutauth=False)


class MarkTests(MiddleCase):
    """The service's mark, which nothing protects, removed and forged by somebody in the middle."""

    def talk(
        self,
        security: SecurityOptions,
        tamper: Tamper,
        *,
        third_party: bool,
        asks: bool = True,
        closes: str = DOWN,
    ) -> Attempt:
        """A conversation with a service of either kind."""
        context = cast(Any, self.keys.acceptor("client"))
        service = answering(
            ThirdParty(context) if third_party else context, security, closes=closes == DOWN
        )
        if asks:
            client = asking(self.initiator(security), security, closes=closes == UP)
        else:
            client = Peer(self.initiator(security), security, lambda application: None)
        return Conversation(client, service, security, tamper).hold()

    def flips(self) -> Iterator[tuple[SecurityOptions, Tamper, str]]:
        """Every bit that makes a marked frame an unmarked one."""
        for security in CHANNELS:
            for position, bit in sorted(mark_in_token(security.wire)):
                change = replace(
                    DOWN, TOKEN, lambda message, at=(position, bit): [flipped(message, *at)]
                )  # type: ignore[misc]
                yield security, change, f"{name(security)}, {position}, {bit}"

    def test_untouched(self) -> None:
        """Left alone, both kinds of services answer, and end well for the client."""
        for security, third_party, closes in product(CHANNELS, (False, True), (UP, DOWN)):
            attempt = self.talk(security, untouched, third_party=third_party, closes=closes)
            self.assertTrue(attempt.harmless, (name(security), third_party, closes, attempt))
            self.assertEqual((attempt.server, attempt.client), (QUESTION, ANSWER))

    def test_removed(self) -> None:
        """The service does not proceed, and has no application; a client that asks sees its stream
        cut.
        """
        for security, change, what in self.flips():
            attempt = self.talk(security, change, third_party=False)
            self.assertEqual(
                (attempt.principals, attempt.server, attempt.client), ((), b"", b""), what
            )
            self.assertIn("removed this service's mark", str(attempt.server_error), what)
            self.assertIsInstance(attempt.error, StreamCut, what)

    def test_removed_and_nothing_asked(self) -> None:
        """So it is where the client waits for the service to speak: the deadline ends what was not
        opened.
        """
        for security, change, what in self.flips():
            client = Peer(self.initiator(security), security, lambda application: None)
            service = answering(self.keys.acceptor("client"), security)
            conversation = Conversation(client, service, security, change)
            conversation._carry()
            service.reactor.advance(security.timeout)
            conversation._carry()
            self.assertEqual(service.factory.built, [], what)
            self.assertIn("a mutauth client's first record did not come", str(service.error), what)
            service.reactor.advance(LINGER)
            client.lose(ConnectionDone())
            self.assertIsInstance(client.error, StreamCut, what)

    def test_forged(self) -> None:
        """A client that takes a third-party service for a mutauth one is told of a cut where there
        is an end, never less.
        """
        for security in CHANNELS:
            marks = {(2, 0)} if security.wire is NNS else {(3, 7)}
            ((position, bit),) = marks
            change = replace(
                DOWN, TOKEN, lambda message, at=(position, bit): [flipped(message, *at)]
            )  # type: ignore[misc]
            attempt = self.talk(security, change, third_party=True)
            # This one skips the empty record that opens; a .NET Framework service would hang, which
            # is a cut as well.
            self.assertEqual((attempt.server, attempt.client), (QUESTION, ANSWER))
            self.assertIsInstance(attempt.error, StreamCut, name(security))

    def test_cut(self) -> None:
        """Nothing that an attacker can do to a stream between mutauth peers with the mark and a cut
        is ever taken for its end.
        """
        for security, change, what in [
            (security, untouched, name(security)) for security in CHANNELS
        ] + list(self.flips()):
            for number in range(1, 4):

                def tamper(
                    where: str,
                    which: int,
                    message: bytes,
                    change: Any = change,
                    number: int = number,
                ) -> Any:
                    return (
                        [None]
                        if where == DOWN and which >= number
                        else change(where, which, message)
                    )

                attempt = self.talk(security, tamper, third_party=False)
                self.assertIsInstance(attempt.error, StreamCut, (what, number))


class FrameTests(SynchronousTestCase):
    """The mark in the frames of either wire."""

    def test_both_ways(self) -> None:
        """Readers find it again, in any pieces; unmarked frames are what they always were."""
        for wire, done, mutauth in product(WIRES, (False, True), (False, True)):
            frame, reader = wire.token(b"token", done, mutauth), wire.reader()
            for byte in frame[:-1]:
                reader.feed(bytes([byte]))
                self.assertIsNone(reader.next_frame())
            reader.feed(frame[-1:])
            self.assertEqual(reader.next_frame(), Token(b"token", done and wire is NNS, mutauth))
        self.assertEqual(NNS.token(b"token", True), b"\x14\1\0\0\5token")
        self.assertEqual(NNS.token(b"token", True, True), b"\x14\1\1\0\5token")
        self.assertEqual(WINSOCK.token(b"token", True), b"\5\0\0\0token")
        self.assertEqual(WINSOCK.token(b"token", True, True), b"\5\0\0\x80token")

    def test_no_token_no_mark(self) -> None:
        """Where the sample's wire sends nothing there is nothing to mark."""
        self.assertEqual(WINSOCK.token(b"", True, True), b"")

    def test_no_mark_on_a_record(self) -> None:
        """A record with the mark's bit claims too much, as it always did."""
        reader = WINSOCK.reader()
        reader.feed(struct.pack("<I", 0x80000005) + b"token")
        self.assertRaises(ValueError, reader.next_record)

    def test_large_marked_frames(self) -> None:
        """The mark does not make room for more than a frame holds."""
        reader = WINSOCK.reader()
        reader.feed(struct.pack("<I", 0x80010000))
        self.assertRaises(ValueError, reader.next_frame)
