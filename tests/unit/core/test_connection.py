"""A whole connection without a network: what it says, in which order, and what it never says."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.channelbinding import (
    TLS_EXPORTER,
    TLS_SERVER_END_POINT,
    ChannelBinding,
    TLSChannel,
)
from mutauth_twisted.core.connection import Connection, Established
from mutauth_twisted.core.context import Outcome
from mutauth_twisted.core.handshake import Failed, Send, Step
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.core.records import Data, EndOfStream
from mutauth_twisted.core.stream import DRAWN, secret
from mutauth_twisted.errors import (
    AccessDenied,
    AuthenticationError,
    MutualAuthError,
    NetworkError,
    PeerNotAuthenticated,
    PeerRefused,
    ProtocolViolation,
    RecordError,
    ServiceFull,
    SessionRefused,
    StreamCut,
)
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.testing.connections import established, events
from mutauth_twisted.testing.fakes import ALL_FLAGS, SPN_ASKED, FakeContext, captured_log
from mutauth_twisted.wire import NNS, WINSOCK, Wire

WIRES = (NNS, WINSOCK)
#: As much as one read of a socket brings, and a byte at a time.
PIECES = (1 << 16, 1)


def client(
    context: FakeContext | None = None,
    security: SecurityOptions = SecurityOptions(),
    **options: Any,
) -> Connection:
    """A client's connection whose handshake has begun."""
    connection = Connection(security, initiator=True, peer="service", **options)
    connection.begin(context or FakeContext(initiator=True))
    return connection


def service(
    context: FakeContext | None = None,
    security: SecurityOptions = SecurityOptions(),
    **options: Any,
) -> Connection:
    """A service's connection, which waits for its client."""
    connection = Connection(security, initiator=False, peer="client", **options)
    connection.begin(context or FakeContext(initiator=False))
    return connection


def said(connection: Connection) -> bytes:
    """Bytes that a connection sends, when it does nothing else."""
    sent = b""
    for event in events(connection):
        assert isinstance(event, Send), event
        sent += event.data
    return sent


def feed(connection: Connection, data: bytes, size: int = 1 << 16) -> None:
    """Have bytes come in pieces."""
    for start in range(0, len(data), size):
        connection.receive(data[start : start + size])


class Case(SynchronousTestCase):
    """Connections in pairs."""

    def assert_failed(
        self, connection: Connection, kind: type[MutualAuthError], text: str
    ) -> bytes:
        """The connection says, last of all, why it is over, and nothing after that; what it has
        sent.
        """
        *sent, last = events(connection)
        assert isinstance(last, Failed), last
        self.assertIs(type(last.error), kind, last.error)
        self.assertIn(text, str(last.error))
        self.assertTrue(connection.over)
        connection.receive(NNS.token(b"more", True))
        connection.connection_lost()
        connection.abandon(NetworkError("it", "too late"))
        connection.stepped(Outcome(b"late", True))
        connection.step_failed(NetworkError("it", "too late"))
        self.assertIsNone(connection.next_event())
        for event in sent:
            assert isinstance(event, Send), event
        return b"".join(event.data for event in sent if isinstance(event, Send))


class HandshakeTests(Case):
    """From the first token to the opening."""

    def handshake(
        self, one: Connection, other: Connection, size: int
    ) -> dict[Connection, Established]:
        """Carry frames, and openings, until neither side has any."""
        found: dict[Connection, Established] = {}
        moved = True
        while moved:
            moved = False
            for source, target in ((one, other), (other, one)):
                for event in events(source):
                    moved = True
                    if isinstance(event, Established):
                        found[source] = event
                        feed(target, event.opening, size)
                    else:
                        assert isinstance(event, Send), event
                        feed(target, event.data, size)
        return found

    def test_any_number_of_tokens(self) -> None:
        """Both sides are established after the last token, however the bytes come, and know each
        other; third-party peers as well.
        """
        for wire, legs, size, mutauth, blocking in product(
            WIRES, range(1, 6), PIECES, (True, False), (True, False)
        ):
            if wire is WINSOCK and legs == 1:
                continue  # nobody can finish there without a token of the service
            options = SecurityOptions(wire)
            contexts = (
                FakeContext(initiator=True, legs=legs, blocking=blocking),
                FakeContext(initiator=False, legs=legs, mutauth=mutauth),
            )
            one, other = client(contexts[0], options), service(contexts[1], options)
            found = self.handshake(one, other, size)
            what = (wire.name, legs, size, mutauth)
            # Without a last token of the service there is nothing that it could mark.
            mutauth = mutauth and not (wire is WINSOCK and legs % 2)
            self.assertEqual(set(found), {one, other}, what)
            self.assertEqual([context.verified for context in contexts], [1, 1], what)
            self.assertIs(found[other].identity.mutauth, mutauth, what)
            self.assertEqual(found[other].identity.principal, "alice@TEST.EXAMPLE")
            self.assertEqual(found[one].identity.spn, SPN_ASKED)
            self.assertEqual(found[other].opening, b"")
            self.assertIs(bool(found[one].opening), found[one].identity.mutauth, what)
            self.assertEqual(contexts[1].received, int(mutauth))
            self.assertEqual(len(found[one].tokens), len(found[other].tokens), what)
            self.assertEqual(found[one].flags, ALL_FLAGS)

    def test_first_step_taken_before(self) -> None:
        """A step that was taken before there was a network is sent at once, and not taken again."""
        context = FakeContext(initiator=True, blocking=True)
        first = context.step(None)
        connection = Connection(SecurityOptions(), initiator=True, peer="service")
        self.assertFalse(connection.begun)
        connection.begin(context, first=first)
        self.assertTrue(connection.begun)
        self.assertIn(first.token, said(connection))
        self.assertEqual(context.steps, [None])

    def test_steps_that_wait(self) -> None:
        """Only a step that may wait is an event; while it is under way nothing is read."""
        context = FakeContext(initiator=True, legs=4, blocking=True)
        connection = client(context)
        (step,) = list(iter(connection.next_event, None))
        self.assertEqual(step, Step(None))
        outcome = connection.step(None)
        self.assertIsNone(connection.next_event())
        connection.stepped(outcome)
        self.assertIsInstance(connection.next_event(), Send)
        frame = NNS.token(FakeContext(initiator=False, legs=4).token(2), False)
        feed(connection, frame, 1)
        self.assertEqual(connection.next_event(), Step(b"secret-token 2"))
        feed(connection, frame)
        self.assertEqual((connection.next_event(), connection.pending), (None, len(frame)))
        context.blocking = False
        self.assertEqual(list(events(service(FakeContext(initiator=False)))), [])

    def test_records_behind_the_last_frame(self) -> None:
        """Bytes that come with the last frame wait until they are asked for, behind Established."""
        for size in PIECES:
            peer = service(FakeContext(initiator=False, mutauth=True))
            context = FakeContext(initiator=True)
            frames = NNS.token(context.token(1), True) + NNS.protect(context, b"", True)
            frames += NNS.protect(context, b"early", True) + NNS.protect(context, b"", True)
            feed(peer, frames, size)
            found = list(events(peer))
            self.assertEqual(
                [type(event) for event in found], [Send, Established, Data, EndOfStream]
            )
            self.assertEqual(found[2], Data(b"early"))
            self.assertIsNone(peer.cut())

    def test_lets_go(self) -> None:
        """Once it is over, a handshake holds neither whoever authorizes nor itself, for no garbage
        collector to come.
        """

        class Authorizer:
            def __call__(self, identity: PeerIdentity) -> None:
                pass

        def finish(connection: Connection) -> None:
            context = FakeContext(initiator=True)
            connection.receive(NNS.token(context.token(1), True))

        endings: tuple[Callable[[Connection], None], ...] = (
            finish,
            Connection.connection_lost,
            lambda connection: connection.timed_out(1),
            lambda connection: connection.receive(b"GET / HTTP/1.1\r\n"),
        )
        for end in endings:
            authorizer = Authorizer()
            connection = service(authorize=authorizer)
            gone = weakref.ref(authorizer)
            end(connection)
            del authorizer
            self.assertIsNone(gone(), end)


class RefusalTests(Case):
    """Reasons that keep a connection from being established."""

    def test_not_authorized(self) -> None:
        """A peer that is not authorized is told a code, and nothing else happens."""
        for wire, (kind, text) in product(
            WIRES, ((AccessDenied, "does not allow this principal"), (ServiceFull, "sessions"))
        ):

            def refuse(identity: PeerIdentity, kind: Any = kind) -> None:
                raise kind(identity.principal, "it may not")

            options = SecurityOptions(wire)
            context = FakeContext(initiator=False, mutauth=True)
            one, other = client(None, options), service(context, options, authorize=refuse)
            feed(other, said(one))
            sent = self.assert_failed(other, kind, "it may not")
            self.assertEqual(context.received, 0)
            feed(one, sent)
            if wire is NNS:
                self.assert_failed(one, PeerRefused, text)
            else:
                self.assertEqual(sent, b"")

    def test_without_mutual_authentication(self) -> None:
        """A context that comes without it is refused, whatever its package says of it."""

        class Lax(FakeContext):
            def verify(self, protection: Protection) -> PeerIdentity:
                self.flags |= Flag.MUTUAL
                identity = super().verify(protection)
                self.flags &= ~Flag.MUTUAL
                object.__setattr__(identity, "flags", self.flags)
                return identity

        for initiator in (True, False):
            asked: list[PeerIdentity] = []
            context = Lax(initiator=initiator, flags=ALL_FLAGS & ~Flag.MUTUAL)
            side = (client if initiator else service)(context, authorize=asked.append)
            said(side)
            peer = FakeContext(initiator=not initiator)
            feed(side, NNS.token(peer.token(2 if initiator else 1), True))
            self.assert_failed(side, PeerNotAuthenticated, "without mutual authentication")
            self.assertEqual(asked, [])

    def test_speaks_first(self) -> None:
        """A service that speaks first is not valid; nor is anything that is not a frame."""
        waiting = client(FakeContext(initiator=True, blocking=True))
        feed(waiting, b"\x16")
        self.assertEqual(waiting.next_event(), Step(None))
        self.assert_failed(waiting, ProtocolViolation, "it speaks first")
        for wire, data in ((NNS, b"SSH-2.0-OpenSSH_9.2\r\n"), (WINSOCK, b"GET / HTTP/1.1\r\n")):
            for size in PIECES:
                options = SecurityOptions(wire)
                for side in (client(None, options), service(None, options)):
                    said(side)
                    feed(side, data, size)
                    self.assert_failed(side, ProtocolViolation, "speaks another protocol")

    def test_step_fails(self) -> None:
        """A context's error token goes to the peer, whoever takes the step."""
        for blocking in (True, False):
            context = FakeContext(initiator=False, blocking=blocking)
            context.fails, context.error_token = (
                PeerNotAuthenticated("it", "no proof"),
                b"its error",
            )
            side = service(context)
            feed(side, NNS.token(b"token", True))
            self.assertIn(b"its error", self.assert_failed(side, PeerNotAuthenticated, "no proof"))

    def test_bugs_are_raised(self) -> None:
        """An error that is not a refusal is nobody's word about the peer, and is raised as it
        is.
        """
        context = FakeContext(initiator=False)
        context.fails = KeyError("a bug")
        side = service(context)
        self.assertRaises(KeyError, feed, side, NNS.token(b"token", True))
        self.assertIsNone(side.next_event())

    def test_given_up(self) -> None:
        """A side that gives up says why; nothing is sent for it."""
        for make, (give_up, text) in product(
            (client, service),
            (
                (Connection.connection_lost, "closed the connection during the handshake"),
                (lambda side: side.timed_out(2.5), "was not complete within 2.5 s"),
                (lambda side: side.abandon(NetworkError("it", "enough")), "it: enough"),
            ),
        ):
            side = make()
            said(side)
            give_up(side)
            self.assertEqual(self.assert_failed(side, NetworkError, text), b"")

    def test_without_an_opening(self) -> None:
        """A mutauth client is not a session without its opening: neither when it leaves nor at the
        deadline, nor with anything else in its place.
        """
        cases: tuple[tuple[Callable[[Connection], None], type[MutualAuthError], str], ...] = (
            (lambda side: side.timed_out(3), NetworkError, "first record did not come within 3 s"),
            (Connection.connection_lost, NetworkError, "closed the connection"),
            (
                lambda side: side.receive(NNS.protect(FakeContext(initiator=True), b"x", True)),
                RecordError,
                "not the opening",
            ),
            (
                lambda side: side.receive(NNS.protect(FakeContext(initiator=False), b"", True)),
                RecordError,
                "record rejected",
            ),
            (lambda side: side.receive(bytes(8)), ProtocolViolation, ""),
        )
        for end, kind, text in cases:
            side = service(FakeContext(initiator=False, mutauth=True))
            self.assertFalse(side.awaits_opening)
            feed(side, NNS.token(FakeContext(initiator=True).token(1), True))
            self.assertTrue(side.awaits_opening)
            said(side)
            end(side)
            self.assertEqual(self.assert_failed(side, kind, text), b"")
            self.assertFalse(side.awaits_opening)

    def test_ticket_ended_meanwhile(self) -> None:
        """A client whose context protects nothing any more has no connection."""

        class Ended(FakeContext):
            def wrap(self, data: bytes, *, seal: bool) -> bytes:
                raise AuthenticationError("it", "the ticket has ended")

        side = client(Ended(initiator=True))
        said(side)
        feed(side, NNS.token(FakeContext(initiator=False).token(2), True, mutauth=True))
        self.assert_failed(side, AuthenticationError, "the ticket has ended")

    def test_nothing_to_send_before(self) -> None:
        """Application bytes before Established are this side's mistake."""
        for side in (client(), service(), service(FakeContext(initiator=False, mutauth=True))):
            feed(side, b"")
            self.assertRaises(AssertionError, side.send, b"early")
            self.assertRaises(AssertionError, side.send_end)
            self.assertRaises(AssertionError, side.cut)

    def test_no_secrets(self) -> None:
        """Nothing that is said of a connection shows a token or data, and nothing is logged."""
        with captured_log() as logged:
            side = client()
            shown = [repr(event) for event in events(side)]
        self.assertTrue(shown)
        self.assertNotIn("secret-", "".join(shown))
        self.assertEqual(logged, [])


class StreamTests(Case):
    """Events that follow Established."""

    def pair(
        self, wire: Wire, *, mutauth: bool = True, protection: Protection = Protection.SEAL
    ) -> tuple[Connection, Connection]:
        """A client and its service."""
        (one, _), (other, _) = established(
            FakeContext(initiator=True),
            FakeContext(initiator=False, mutauth=mutauth),
            SecurityOptions(wire, protection),
        )
        return one, other

    def ways(self, **options: Any) -> Iterator[tuple[Connection, Connection]]:
        """Both directions on each wire."""
        for wire in WIRES:
            one, other = self.pair(wire, **options)
            yield one, other
            yield other, one

    def test_data_and_its_end(self) -> None:
        """Bytes come as they were sent, and the end behind them; the other direction goes on."""
        for size in PIECES:
            for source, target in self.ways():
                sent = b"".join(source.send(b"one") + source.send(bytes(100_000)))
                feed(target, sent + source.send_end(), size)
                *data, end = events(target)
                received = b"".join(each.data for each in data if isinstance(each, Data))
                self.assertEqual(received, b"one" + bytes(100_000))
                self.assertEqual(end, EndOfStream())
                self.assertIsNone(target.cut())
                self.assertEqual(target.send(b""), [])
                target.connection_lost()
                self.assertIsNone(target.next_event())

    def test_refused(self) -> None:
        """A client is told why there is no session; nothing follows."""
        for code, cause in (
            ("backend-unreachable", "cannot reach the service behind it"),
            ("of-the-future", "it refuses this session: of-the-future"),
        ):
            for wire, size in product(WIRES, PIECES):
                client, service = self.pair(wire)
                service.refuse(code)
                feed(client, service.send_end(), size)
                event = client.next_event()
                assert isinstance(event, Failed)
                assert isinstance(event.error, SessionRefused)
                self.assertIn(cause, str(event.error))
                self.assertIn(event.error.code, (code, "session-refused"))
                self.assertTrue(client.over)
                self.assertEqual(list(events(client)), [])

    def test_cut(self) -> None:
        """Without the end of stream an end is a cut, which comes behind all that was said."""
        for source, target in self.ways():
            frame = source.send(b"one")[0]
            feed(target, frame + source.send(b"two")[0][:-1])
            target.connection_lost()
            self.assertFalse(target.over)
            self.assertEqual(target.next_event(), Data(b"one"))
            self.assert_failed(target, StreamCut, "before the peer's end of stream")

    def test_third_party(self) -> None:
        """A third-party peer's end counts between records, and it gets no empty record."""
        for source, target in self.ways(mutauth=False):
            self.assertEqual(source.send_end(), b"")
            frame = source.send(b"one")[0]
            feed(target, frame)
            target.connection_lost()
            self.assertEqual(list(events(target)), [Data(b"one"), EndOfStream()])
            self.assertTrue(target.over)
        for source, target in self.ways(mutauth=False):
            feed(target, source.send(b"one")[0][:-1])
            target.connection_lost()
            self.assert_failed(target, StreamCut, "cut")

    def test_nothing_wrong_is_delivered(self) -> None:
        """A record that was altered, repeated, dropped or moved ends the connection, and so does
        whatever follows the end.
        """
        for order in ((0, 0), (1,), (1, 0), (0, 2), (3, 0)):
            for source, target in self.ways():
                frames = [source.send(each)[0] for each in (b"0", b"1", b"2")] + [source.send_end()]
                feed(target, b"".join(frames[number] for number in order))
                found = list(events(target))
                self.assertEqual(
                    [e for e in found if isinstance(e, Data)], [Data(b"0")][: order[0] == 0]
                )
                assert isinstance(found[-1], Failed)
                self.assertIsInstance(found[-1].error, RecordError)

    def test_too_much_at_once(self) -> None:
        """A peer that goes on sending to who does not read fails the connection, which says so
        without being asked for what waits.
        """
        for source, target in self.ways():
            for _ in range(8):
                feed(target, b"".join(source.send(bytes(32_000))))
            self.assertTrue(target.over, target.pending)
            self.assert_failed(target, ProtocolViolation, "of them wait")


class TLSTests(Case):
    """Inside TLS, which the handshake is bound to."""

    def sides(self, ours: TLSChannel, theirs: TLSChannel) -> tuple[Connection, Connection]:
        """A client and a service, each with the channel as it sees it."""
        options = SecurityOptions(protection=Protection.TLS)
        one = Connection(options, initiator=True, peer="service")
        other = Connection(options, initiator=False, peer="client")
        one.begin(FakeContext(initiator=True), ours)
        other.begin(FakeContext(initiator=False, mutauth=True), theirs)
        return one, other

    def channels(self, data: bytes = bytes(32)) -> tuple[TLSChannel, TLSChannel]:
        """A mutauth channel as both sides see it."""
        marks = secret(bytes(DRAWN)), secret(b"\xff" * DRAWN)
        binding = ChannelBinding(TLS_EXPORTER, data)
        return TLSChannel(binding, marks), TLSChannel(binding, marks[::-1])

    def test_between_mutauth_peers(self) -> None:
        """The channel is confirmed, there is no opening, and the data goes as it is."""
        one, other = self.sides(*self.channels())
        feed(other, said(one), 1)
        reply, at_service = events(other)
        assert isinstance(reply, Send)
        assert isinstance(at_service, Established)
        feed(one, reply.data + b"behind it", 1)
        at_client, *data = events(one)
        assert isinstance(at_client, Established)
        for event in (at_client, at_service):
            self.assertIs(event.identity.protection, Protection.TLS)
            self.assertTrue(event.flags & Flag.CHANNEL_BOUND)
            self.assertEqual(event.opening, b"")
        self.assertEqual(b"".join(each.data for each in data), b"behind it")  # type: ignore[union-attr]
        self.assertEqual(one.send(b"in the clear"), [b"in the clear"])
        feed(other, b"in the clear" + one.send_end())
        self.assertEqual(list(events(other)), [Data(b"in the clear"), EndOfStream()])
        one.connection_lost()
        self.assert_failed(one, StreamCut, "cut")

    def test_another_channel(self) -> None:
        """A client whose service sees another channel has no connection."""
        one, other = self.sides(self.channels()[0], self.channels(b"\1" * 32)[1])
        feed(other, said(one))
        reply, _ = events(other)
        assert isinstance(reply, Send)
        feed(one, reply.data)
        self.assert_failed(one, PeerNotAuthenticated, "has not confirmed this TLS channel")

    def test_third_party(self) -> None:
        """A third-party peer's records are protected inside TLS as well, and a client says that it
        is sealed, not that TLS holds.
        """

        class Sealed(FakeContext):
            def verify(self, protection: Protection) -> PeerIdentity:
                return super().verify(Protection.SEAL)

        channel = TLSChannel(ChannelBinding(TLS_SERVER_END_POINT, bytes(32)))
        for wire in WIRES:
            options = SecurityOptions(wire, Protection.TLS)
            one = Connection(options, initiator=True, peer="service")
            one.begin(Sealed(initiator=True), channel)
            said(one)
            peer = FakeContext(initiator=False)
            feed(one, wire.token(peer.token(2), True) + wire.protect(peer, b"sealed", True))
            event, data = events(one)
            assert isinstance(event, Established)
            self.assertIs(event.identity.protection, Protection.SEAL)
            self.assertFalse(event.flags & Flag.CHANNEL_BOUND)
            self.assertEqual((event.opening, data), (b"", Data(b"sealed")))
