"""The handshake on one connection, against peers that mean no good."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any, cast
from unittest import mock
from weakref import ref

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import (
    AccessDenied,
    MutualAuthError,
    NetworkError,
    PeerNotAuthenticated,
    PeerRefused,
    ProtocolViolation,
    StreamCut,
    ThreadsUsedUp,
)
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.interfaces import IMutualAuthTransport
from mutauth_twisted.net.transport import LINGER, ProtectedTransport
from mutauth_twisted.protection import Flag
from mutauth_twisted.testing.fakes import (
    ALL_FLAGS,
    SECRET,
    SPN_ASKED,
    FakeContext,
    HeldWorkers,
    Player,
    Recorder,
    RecorderFactory,
    ThreadedReactor,
    captured_log,
    converse,
)
from mutauth_twisted.threads import Workers
from mutauth_twisted.wire import NNS

TIMEOUT = SecurityOptions().timeout
REQUIRED = (Flag.MUTUAL, Flag.CONFIDENTIALITY, Flag.INTEGRITY)
TOKEN_1 = NNS.token(SECRET + b"token 1", False)
TOKEN_2 = NNS.token(SECRET + b"token 2", True)
BANNERS = {
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP answer": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "SMTP": b"220 mail.example.com ESMTP\r\n",
    "zeros": bytes(100),
}


class Case(SynchronousTestCase):
    """Sides of a connection, each with a clock of its own."""

    def server(
        self,
        context: FakeContext | None = None,
        factory: RecorderFactory | None = None,
        **options: Any,
    ) -> Player:
        """A service's side of a connection."""
        return Player(context or FakeContext(initiator=False), factory, **options)

    def client(
        self,
        context: FakeContext | None = None,
        factory: RecorderFactory | None = None,
        **options: Any,
    ) -> Player:
        """A client's side of a connection."""
        return Player(context or FakeContext(initiator=True), factory, **options)

    def assert_ended(self, side: Player, kind: type[BaseException], text: str = "") -> None:
        """The handshake failed: no application, the connection closed, no timer left once it is
        gone.
        """
        self.assertIsInstance(side.error, kind)
        self.assertIn(text, str(side.error))
        self.assertEqual(side.factory.built, [])
        self.assertTrue(side.transport.disconnecting)
        side.lose()
        self.assertEqual(side.reactor.getDelayedCalls(), [])


class TogetherTests(Case):
    """Two sides that belong together."""

    def establish(self, legs: int, *, bytewise: bool) -> tuple[Player, Player]:
        """Both sides after the handshake."""
        client = self.client(FakeContext(initiator=True, legs=legs))
        server = self.server(FakeContext(initiator=False, legs=legs))
        converse(client, server, bytewise=bytewise)
        return client, server

    def test_any_number_of_tokens(self) -> None:
        """A handshake of one to seven tokens ends with both applications, in one chunk and byte by
        byte.
        """
        for legs in range(1, 8):
            for bytewise in (False, True):
                client, server = self.establish(legs, bytewise=bytewise)
                self.assertEqual(client.results, [client.application])
                self.assertEqual(server.results, [server.application])
                self.assertEqual((client.context.verified, server.context.verified), (1, 1))

    def test_transport(self) -> None:
        """The applications' transports say who is there."""
        client, server = self.establish(2, bytewise=False)
        for side, principal, spn in (
            (client, "alice@TEST.EXAMPLE", SPN_ASKED),
            (server, "alice@TEST.EXAMPLE", None),
        ):
            transport = side.application.transport
            self.assertTrue(IMutualAuthTransport.providedBy(transport))
            identity = cast(IMutualAuthTransport, transport).peer_identity
            self.assertEqual((identity.principal, identity.spn), (principal, spn))
            self.assertEqual(cast(Any, transport).getPeer(), side.transport.getPeer())

    def test_bytes_both_ways(self) -> None:
        """An application's bytes arrive at the other, and nowhere in the clear... of the fake's
        key.
        """
        client, server = self.establish(2, bytewise=False)
        cast(Any, client.application.transport).write(b"question")
        cast(Any, server.application.transport).write(b"answer")
        converse(client, server, bytewise=True)
        self.assertEqual(
            (server.application.received, client.application.received), ([b"question"], [b"answer"])
        )

    def test_no_timer_is_left(self) -> None:
        """The deadline is of the handshake only: an idle session lives on."""
        client, server = self.establish(2, bytewise=False)
        for side in (client, server):
            self.assertEqual(side.reactor.getDelayedCalls(), [])
            side.reactor.advance(10 * TIMEOUT)
            self.assertFalse(side.transport.disconnecting)

    def test_nothing_is_left(self) -> None:
        """Objects that served a connection are gone with it, keys included: nothing of it waits for
        the garbage collector.
        """
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for make in (lambda: self.establish(2, bytewise=False)[1], self.server):
            server = make()
            protocol, context = ref(server.protocol), ref(server.context)
            server.lose()
            del server
            self.assertIsNone(protocol())
            self.assertIsNone(context())


class NothingEarlyTests(Case):
    """No application, and none of its bytes, before everything is authenticated."""

    def test_server(self) -> None:
        """A service builds no application and says nothing before the client's last byte."""
        server = self.server()
        for byte in TOKEN_1[:-1]:
            server.receive(bytes([byte]))
            self.assertEqual(
                (server.factory.built, server.transport.take(), server.results), ([], b"", [])
            )
        server.receive(TOKEN_1[-1:])
        self.assertEqual(server.results, [server.application])
        self.assertTrue(server.transport.take().startswith(TOKEN_2))

    def test_client(self) -> None:
        """A client builds no application and says nothing but its token before the service's last
        byte.
        """
        client = self.client()
        self.assertEqual(client.transport.take(), TOKEN_1)
        for byte in TOKEN_2[:-1]:
            client.receive(bytes([byte]))
            self.assertEqual(
                (client.factory.built, client.transport.take(), client.results), ([], b"", [])
            )
        client.receive(TOKEN_2[-1:])
        self.assertEqual(client.results, [client.application])

    def test_complete_is_not_done(self) -> None:
        """A client whose context is complete still waits for the service's done."""
        client = self.client()
        client.receive(NNS.token(SECRET + b"token 2", False))
        self.assertEqual(
            (client.factory.built, client.results, client.context.verified), ([], [], 0)
        )
        client.receive(NNS.token(b"", True))
        self.assertEqual(client.results, [client.application])

    def test_records_behind_the_token(self) -> None:
        """Records that came early are delivered after the application is connected and connect()
        has fired.
        """
        client, peer = self.client(), FakeContext(initiator=False)
        order: list[str] = []
        client.protocol.authenticated.addCallback(lambda _: order.append("fired"))
        client.factory.prepare = lambda recorder: setattr(
            recorder, "on_data", lambda *_: order.append("data")
        )
        client.receive(
            TOKEN_2
            + NNS.record(peer.wrap(b"", seal=True))
            + NNS.record(peer.wrap(b"early", seal=True))
        )
        self.assertEqual(client.application.received, [b"early"])
        self.assertEqual(order, ["fired", "data"])

    def test_records_instead_of_a_token(self) -> None:
        """A record, genuine or not, does not pass for a token."""
        server = self.server()
        server.receive(NNS.record(FakeContext(initiator=True).wrap(b"let me in", seal=True)))
        self.assert_ended(server, ProtocolViolation)
        self.assertEqual(server.context.steps, [])

    def test_data_when_the_application_is_resumed_early(self) -> None:
        """An application that resumes its transport as it is connected gets no data before
        connect() has fired.
        """
        client, peer = self.client(), FakeContext(initiator=False)
        order: list[str] = []

        def prepare(recorder: Recorder) -> None:
            recorder.on_connect = lambda transport: (
                transport.pauseProducing(),
                transport.resumeProducing(),
            )
            recorder.on_data = lambda transport, data: order.append("data")

        client.factory.prepare = prepare
        client.protocol.authenticated.addCallback(lambda _: order.append("fired"))
        client.receive(TOKEN_2 + NNS.record(peer.wrap(b"early", seal=True)))
        self.assertEqual(order, ["fired", "data"])


class ProofTests(Case):
    """Contexts that are complete and authenticate too little."""

    def test_missing_flags_at_the_server(self) -> None:
        """Without any one of the flags required a context allows no client, who gets code 1790 and
        no last token.
        """
        for flag in REQUIRED:
            server = self.server(FakeContext(initiator=False, flags=ALL_FLAGS & ~flag))
            server.receive(TOKEN_1)
            self.assertEqual(server.transport.take(), NNS.fault(1790))
            self.assert_ended(server, PeerNotAuthenticated, f"without {flag.name}".lower())

    def test_missing_flags_at_the_client(self) -> None:
        """Without any one of the flags required a context gives no connection, and the service gets
        no byte.
        """
        for flag in REQUIRED:
            client = self.client(FakeContext(initiator=True, flags=ALL_FLAGS & ~flag))
            client.transport.clear()
            client.receive(TOKEN_2)
            self.assertEqual(client.transport.take(), b"")
            self.assert_ended(client, PeerNotAuthenticated, f"without {flag.name}".lower())

    def test_one_way(self) -> None:
        """A service that only says done, without a token of its own, has authenticated nothing."""
        client = self.client()
        client.transport.clear()
        client.receive(NNS.token(b"", True))
        self.assert_ended(client, PeerNotAuthenticated)
        one_way = self.client(FakeContext(initiator=True, legs=1, flags=ALL_FLAGS & ~Flag.MUTUAL))
        one_way.receive(NNS.token(b"", True))
        self.assert_ended(one_way, PeerNotAuthenticated, "without mutual")

    def test_other_package(self) -> None:
        """Another package than Kerberos proves nothing, whatever its flags."""
        for initiator, token in ((True, TOKEN_2), (False, TOKEN_1)):
            side = Player(FakeContext(initiator=initiator, package="ntlm"))
            side.receive(token)
            self.assert_ended(side, PeerNotAuthenticated, "Kerberos")

    def test_access_denied(self) -> None:
        """An authenticated client that is not allowed gets code 5; no application protocol is ever
        built for it.
        """

        def authorize(identity: PeerIdentity) -> None:
            raise AccessDenied(identity.principal, "not allowed")

        server = self.server(authorize=authorize)
        server.receive(TOKEN_1)
        self.assertEqual(server.transport.take(), NNS.fault(5))
        self.assert_ended(server, AccessDenied, "alice@TEST.EXAMPLE: not allowed")

    def test_admission_that_breaks(self) -> None:
        """A check of the principal that raises something else allows no client, is logged, and
        leaves nobody waiting.
        """

        def authorize(identity: PeerIdentity) -> None:
            raise KeyError("no such table")

        server = self.server(authorize=authorize)
        server.receive(TOKEN_1)
        self.assertEqual(server.transport.take(), b"")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assert_ended(server, KeyError)

    def test_step_that_breaks(self) -> None:
        """A context that raises what it must not ends the handshake, and the bug is not taken for a
        refusal.
        """
        for initiator in (True, False):
            context = FakeContext(initiator=initiator)
            context.fails = ZeroDivisionError()
            side = Player(context)
            side.receive(TOKEN_1)
            self.assertEqual(side.transport.take(), b"")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertTrue(side.transport.aborted)
            self.assert_ended(side, ZeroDivisionError)

    def test_no_context(self) -> None:
        """A side that cannot even make a context ends the connection at once."""
        for error, logged in ((NetworkError("keytab", "gone"), 0), (RuntimeError("bug"), 1)):
            server = self.server(start=False)
            side: Any = server.protocol._role

            def new_context(peer: str, security: object, error: Exception = error) -> FakeContext:
                raise error

            object.__setattr__(side, "new_context", new_context)
            server.start()
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), logged)
            self.assert_ended(server, type(error))


class RefusalTests(Case):
    """Handshakes that fail on either side, and what the other learns."""

    def test_failed_accept(self) -> None:
        """A refused client gets the error token, the code, and nothing else."""
        context = FakeContext(initiator=False)
        context.fails, context.error_token = (
            PeerNotAuthenticated("the client", "wrong key"),
            b"KRB-ERROR",
        )
        server = self.server(context)
        server.receive(TOKEN_1)
        self.assertEqual(server.transport.take(), NNS.token(b"KRB-ERROR", False) + NNS.fault(1326))
        self.assert_ended(server, PeerNotAuthenticated, "wrong key")

    def test_after_the_refusal(self) -> None:
        """A refused client cannot try again on the same connection."""
        context = FakeContext(initiator=False)
        context.fails = PeerNotAuthenticated("the client", "wrong key")
        server = self.server(context)
        server.receive(TOKEN_1)
        context.fails = None
        server.transport.clear()
        server.protocol.dataReceived(TOKEN_1)
        self.assertEqual((server.transport.take(), len(context.steps)), (b"", 1))
        self.assertEqual(server.protocol._connection.pending, 0)
        self.assert_ended(server, PeerNotAuthenticated)

    def test_refusal_with_a_token(self) -> None:
        """A client takes the reason from the service's error token."""
        client = self.client()
        client.context.fails = PeerRefused("echoSvc/h", "the service refused the ticket: wrong key")
        client.context.steps.clear()
        client.receive(NNS.token(b"KRB-ERROR", False) + NNS.fault(1326))
        self.assertEqual(client.context.steps, [b"KRB-ERROR"])
        self.assert_ended(client, PeerRefused, "wrong key")

    def test_refusal_with_a_code(self) -> None:
        """A client takes the reason from the service's code if that is all."""
        client = self.client()
        client.receive(NNS.fault(5))
        self.assert_ended(client, PeerRefused, "access policy")

    def test_stalled_peer(self) -> None:
        """A refused peer that does not read what it is told is dropped after a while."""
        context = FakeContext(initiator=False)
        context.fails = PeerNotAuthenticated("the client", "wrong key")
        server = self.server(context)
        server.receive(TOKEN_1)
        server.reactor.advance(LINGER - 0.1)
        self.assertFalse(server.transport.aborted)
        server.reactor.advance(0.1)
        self.assertTrue(server.transport.aborted)
        self.assert_ended(server, PeerNotAuthenticated)

    def test_refused_instead_of_confirmed(self) -> None:
        """A service may refuse as late as in place of its done."""
        client = self.client()
        client.receive(NNS.token(SECRET + b"token 2", False) + NNS.fault(5))
        self.assert_ended(client, PeerRefused, "access policy")


class StrangerTests(Case):
    """Peers of no known kind cost little."""

    def test_foreign_protocols(self) -> None:
        """A peer of another protocol is turned away at its first byte, by either side."""
        for name, banner in BANNERS.items():
            for side in (self.server(), self.client()):
                side.transport.clear()
                side.receive(banner[:1])
                self.assertEqual(side.transport.take(), b"", name)
                self.assert_ended(side, ProtocolViolation, "speaks another protocol")

    def test_tls(self) -> None:
        """A TLS client, whose first byte looks like ours, is turned away with its first message."""
        context = FakeContext(initiator=False)
        server = self.server(context)
        server.receive(b"\x16\x03\x01\x02\x00" + bytes(512))
        self.assert_ended(server, PeerNotAuthenticated, "token is wrong")

    def test_silence(self) -> None:
        """A silent peer has until the deadline, and no longer."""
        for side in (self.server(), self.client()):
            side.reactor.advance(TIMEOUT - 0.1)
            self.assertEqual(side.results, [])
            side.reactor.advance(0.1)
            self.assert_ended(side, NetworkError, "not complete within 10 s")

    def test_slow_drip(self) -> None:
        """Bytes that drip in do not extend the deadline."""
        server = self.server()
        for byte in NNS.token(bytes(100), False)[: int(TIMEOUT) - 1]:
            server.reactor.advance(1)
            server.receive(bytes([byte]))
        self.assertEqual(server.results, [])
        server.reactor.advance(1)
        self.assert_ended(server, NetworkError, "not complete within")

    def test_tokens_do_not_extend_the_deadline(self) -> None:
        """Nor do whole tokens."""
        server = self.server(FakeContext(initiator=False, legs=1000))
        number = 1
        for _ in range(int(TIMEOUT) - 1):
            server.reactor.advance(1)
            server.receive(NNS.token(SECRET + b"token %d" % number, False))
            number += 2
        self.assertEqual((server.results, number), ([], 2 * int(TIMEOUT) - 1))
        server.reactor.advance(1)
        self.assert_ended(server, NetworkError, "not complete within")

    def test_largest_token(self) -> None:
        """A stranger's token costs at most what one frame holds."""
        server = self.server()
        header = b"\x16\x01\x00\xff\xff"
        server.receive(header + bytes(65534))
        self.assertEqual(server.protocol._connection.pending, 5 + 65534)
        self.assertEqual(server.context.steps, [])
        server.receive(b"\0" + header)
        self.assertEqual(len(server.context.steps), 1)
        self.assert_ended(server, PeerNotAuthenticated)

    def test_peer_closes(self) -> None:
        """A peer that closes during the handshake gets one clear line."""
        for side in (self.server(), self.client()):
            side.lose()
            self.assert_ended(side, NetworkError, "closed the connection during the handshake")

    def test_peer_ends_its_half(self) -> None:
        """So does a peer that ends its half only."""
        server = self.server()
        server.receive(TOKEN_1[:7])
        server.protocol.readConnectionLost()
        self.assert_ended(server, NetworkError, "closed the connection during the handshake")

    def test_addresses(self) -> None:
        """Errors name the peer's address and port."""
        server = self.server()
        server.lose()
        self.assertIn("192.168.1.1:54321: ", str(server.error))


class ThreadTests(Case):
    """A first step that waits for a KDC in a thread."""

    def waiting(self, **options: Any) -> Player:
        """A client whose ticket is still to come."""
        return self.client(FakeContext(initiator=True, blocking=True), **options)

    def test_result(self) -> None:
        """The handshake goes on when the thread is done."""
        client = self.waiting()
        self.assertEqual(client.transport.take(), b"")
        client.workers.finish()
        self.assertEqual(client.transport.take(), TOKEN_1)

    def test_service_speaks_first(self) -> None:
        """A service that speaks before the client did is another protocol's: it never gets our
        token.
        """
        for banner in (*BANNERS.values(), TOKEN_2):
            client = self.waiting()
            client.receive(banner)
            self.assert_ended(client, ProtocolViolation, "speaks another protocol")
            client.workers.finish()
            self.assertEqual(client.transport.take(), b"")

    def test_cancelled(self) -> None:
        """A cancelled connect() drops the connection at once; the ticket that comes later is not
        sent.
        """
        client = self.waiting()
        client.protocol.authenticated.cancel()
        self.assertTrue(client.transport.aborted)
        self.assert_ended(client, CancelledError)
        client.workers.finish()
        self.assertEqual((client.transport.take(), client.factory.built), (b"", []))

    def test_deadline(self) -> None:
        """A KDC that does not answer is given the same one deadline."""
        client = self.waiting()
        client.reactor.advance(TIMEOUT)
        self.assert_ended(client, NetworkError, "a KDC answers")
        client.workers.finish()
        self.assertEqual(client.transport.take(), b"")

    def test_lost_connection(self) -> None:
        """A connection that is lost meanwhile ends the handshake, and the late result does
        nothing.
        """
        client = self.waiting()
        client.lose(ConnectionLost())
        client.workers.finish()
        self.assertEqual(client.transport.take(), b"")
        self.assertIsInstance(client.error, NetworkError)
        self.assertEqual(client.reactor.getDelayedCalls(), [])

    def test_late_failure(self) -> None:
        """A late failure does nothing either, and is nobody's bug."""
        client = self.waiting()
        client.context.fails = NetworkError("KDC", "no answer")
        client.protocol.authenticated.cancel()
        client.workers.finish()
        self.assert_ended(client, CancelledError)

    def test_no_thread_to_be_had(self) -> None:
        """Where no thread can be started the handshake ends with that, in words, and as nobody's
        bug.
        """
        reactor = ThreadedReactor()
        with mock.patch.object(
            threading.Thread, "start", side_effect=RuntimeError("can't start new thread")
        ):
            client = self.waiting(workers=Workers(cast(Any, reactor), 1, "test"))
            reactor.run_calls()
        self.assert_ended(client, ThreadsUsedUp, "can't start new thread; raise TasksMax=")

    def test_a_stuck_thread_keeps_its_slot(self) -> None:
        """A cancelled connection's thread still counts, and one that waited for its turn never
        runs.
        """
        reactor = ThreadedReactor()
        workers = Workers(cast(Any, reactor), 1, "test")
        release, running = threading.Event(), threading.Semaphore(0)
        self.addCleanup(release.set)

        class Stuck(FakeContext):
            def step(self, token: bytes | None) -> Any:
                running.release()
                release.wait(10)
                return super().step(token)

        first, second, third = (
            self.client(Stuck(initiator=True, blocking=True), workers=workers) for _ in range(3)
        )
        self.assertTrue(running.acquire(timeout=10))
        first.protocol.authenticated.cancel()
        second.protocol.authenticated.cancel()
        # The slot is still the first one's: the third has not begun.
        self.assertFalse(running.acquire(timeout=0.05))
        release.set()
        while not third.transport.value():
            reactor.run_calls()
        self.assertTrue(running.acquire(timeout=10))
        self.assertEqual((first.transport.value(), second.context.steps), (b"", []))
        self.assertEqual(third.transport.value(), TOKEN_1)
        third.lose()


class ApplicationTests(Case):
    """Applications that fail are not taken for failed logins, and do not go on."""

    def sides(self, factory: RecorderFactory) -> list[tuple[Player, bytes]]:
        """Both sides with this application, and the token that establishes them."""
        return [(self.server(factory=factory), TOKEN_1), (self.client(factory=factory), TOKEN_2)]

    def test_no_protocol(self) -> None:
        """A factory that returns None turns the connection away."""

        class Refusing(RecorderFactory):
            def buildProtocol(self, addr: object) -> None:
                return None

        for side, token in self.sides(Refusing()):
            side.receive(token)
            self.assert_ended(side, NetworkError, "took no connection")

    def test_factory_raises(self) -> None:
        """A factory that raises has its connection dropped, and whoever waits sees the factory's
        error.
        """

        class Broken(RecorderFactory):
            def buildProtocol(self, addr: object) -> None:
                raise ZeroDivisionError

        for side, token in self.sides(Broken()):
            side.receive(token)
            self.assertTrue(side.transport.aborted)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assert_ended(side, ZeroDivisionError)

    def raising(self, attribute: str) -> RecorderFactory:
        """A factory whose protocols raise where it is said."""

        def bug(*_: object) -> None:
            raise ZeroDivisionError

        return RecorderFactory(lambda recorder: setattr(recorder, attribute, bug))

    def test_connection_made_raises(self) -> None:
        """An application that fails to take the connection has it dropped, and sees its own
        error.
        """
        for side, token in self.sides(self.raising("on_connect")):
            side.factory.built.clear()
            side.receive(token)
            self.assertTrue(side.transport.aborted)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertIsInstance(side.error, ZeroDivisionError)
            side.lose()
            self.assertEqual(side.application.events, ["made", "lost"])
            self.assertIsInstance(side.application.reason, ZeroDivisionError)
            self.assertEqual(side.reactor.getDelayedCalls(), [])

    def test_data_received_raises(self) -> None:
        """An application that fails on data has the connection dropped, gets no more of it, and
        sees its own error.
        """
        peer = FakeContext(initiator=True)
        records = b"".join(
            NNS.record(peer.wrap(data, seal=True)) for data in (b"", b"first", b"second")
        )
        for together in (True, False):
            server = self.server(factory=self.raising("on_data"))
            if together:
                server.receive(TOKEN_1 + records)
            else:
                server.receive(TOKEN_1)
                server.receive(records)
            self.assertEqual(server.results, [server.application])
            self.assertEqual(server.application.received, [b"first"])
            self.assertTrue(server.transport.aborted)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            server.lose()
            self.assertIsInstance(server.application.reason, ZeroDivisionError)

    def test_leaves_at_once(self) -> None:
        """An application may close as it is connected; connect() fires all the same."""
        for method in ("loseConnection", "abortConnection"):
            factory = RecorderFactory(
                lambda recorder, method=method: setattr(  # type: ignore[misc]
                    recorder, "on_connect", lambda transport: getattr(transport, method)()
                )
            )
            client = self.client(factory=factory)
            client.receive(TOKEN_2)
            self.assertEqual(client.results, [client.application])

    def test_first_delivery_breaks(self) -> None:
        """An application that breaks behind its connecting loses the connection, and is told of
        it.
        """

        def bug(transport: ProtectedTransport) -> None:
            raise ZeroDivisionError

        self.patch(ProtectedTransport, "deliver", bug)
        for side, token in ((self.server(), TOKEN_1), (self.client(), TOKEN_2)):
            side.receive(token)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertEqual(side.results, [side.application])
            self.assertTrue(side.transport.aborted)
            side.lose()
            self.assertIsInstance(side.application.reason, ConnectionAborted)
            self.assertEqual(side.reactor.getDelayedCalls(), [])

    def test_cut_before_any_record(self) -> None:
        """A connection that ends right after the handshake was cut, whoever did it."""
        server = self.server()
        server.receive(TOKEN_1)
        server.lose()
        self.assertIsInstance(server.application.reason, StreamCut)

    def test_ordinary_factory(self) -> None:
        """Twisted's own factories work as they are."""
        factory = Factory.forProtocol(Recorder)
        server = self.server(factory=cast(Any, factory))
        server.receive(TOKEN_1)
        self.assertIs(server.results[0].factory, factory)


class SecrecyTests(Case):
    """No token and no key in any event of the log, of any level."""

    def scenarios(self) -> dict[str, Callable[[], object]]:
        """Handshakes that end in every way there is."""

        def failing(initiator: bool, error: Exception, token: bytes) -> None:
            context = FakeContext(initiator=initiator, blocking=initiator)
            context.fails, context.error_token = error, SECRET + b"error"
            side = Player(context, workers=HeldWorkers())
            side.workers.finish()
            side.receive(token)
            side.lose()

        def together() -> None:
            client, server = self.client(), self.server()
            converse(client, server)
            cast(Any, client.application.transport).write(SECRET)
            data = client.transport.take()
            server.receive(data[:-1] + b"!")

        def late() -> None:
            server = self.server()
            server.receive(TOKEN_1[:-1])
            server.reactor.advance(TIMEOUT)

        def denied(identity: PeerIdentity) -> None:
            raise AccessDenied(identity.principal, "not allowed")

        return {
            "success and a bad record": together,
            "refused": lambda: failing(False, PeerNotAuthenticated("it", "no"), TOKEN_1),
            "server's bug": lambda: failing(False, ZeroDivisionError(), TOKEN_1),
            "client's bug": lambda: failing(True, ZeroDivisionError(), TOKEN_2),
            "not authenticated": lambda: self.server(FakeContext(initiator=False, flags=0)).receive(
                TOKEN_1
            ),
            "denied": lambda: self.server(authorize=denied).receive(TOKEN_1),
            "wrong token": lambda: self.server().receive(NNS.token(SECRET + b"other", False)),
            "no frame": lambda: self.server().receive(SECRET),
            "late": late,
        }

    def test_log(self) -> None:
        """Neither the text of an event nor any value in it shows one, in handshakes that end in
        every way.
        """
        for name, play in self.scenarios().items():
            with captured_log() as events:
                play()
            self.flushLoggedErrors(ZeroDivisionError)
            self.assertNotEqual(events, [], name)
            for event in events:
                failure = event.get("log_failure")
                for text in (
                    formatEvent(event),
                    repr(event),
                    failure.getTraceback() if failure else "",
                ):
                    self.assertNotIn(SECRET.decode(), text.replace("test_net", ""), name)

    def test_token_sizes_are_logged(self) -> None:
        """The log shows the size and direction of a token, and no more."""
        with captured_log() as events:
            self.server().receive(TOKEN_1)
        self.assertIn("token bytes: 14 received, 14 sent", "".join(map(formatEvent, events)))

    def test_one_line_for_each_connection(self) -> None:
        """At the usual level a connection is one line, which tells who came, or why nobody did."""
        for flags, text in (
            (ALL_FLAGS, "authenticated as alice@TEST.EXAMPLE (kerberos, seal; mutual"),
            (
                Flag(0),
                "192.168.1.1:54321 failed: [not-authenticated] peer: the handshake ended without",
            ),
        ):
            with captured_log() as events:
                self.server(FakeContext(initiator=False, flags=flags)).receive(TOKEN_1)
            lines = [formatEvent(event) for event in events if event["log_level"].name != "debug"]
            self.assertEqual(len(lines), 1)
            self.assertIn(text, lines[0])

    def test_hostile_names(self) -> None:
        """A principal cannot write lines of its own into the log, nor command a terminal that shows
        it.
        """
        hostile = "x\r\n2026-01-01 root allowed\x1b[2J\u202e@TEST.EXAMPLE"
        with captured_log() as events:
            self.server(FakeContext(initiator=False, principal=hostile)).receive(TOKEN_1)
        text = "".join(map(formatEvent, events))
        self.assertIn("root allowed", text)
        self.assertTrue(text.isprintable(), text)

    def test_errors_are_one_line(self) -> None:
        """Any end of a handshake is said in one line."""
        for side, end in (
            (self.server(), lambda side: side.lose()),
            (self.server(), lambda side: side.receive(b"SSH-2.0")),
            (self.client(), lambda side: side.receive(NNS.fault(5))),
        ):
            end(side)
            self.assertIsInstance(side.error, MutualAuthError)
            self.assertNotIn("\n", str(side.error))
