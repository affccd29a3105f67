"""The transport an application gets: writing, reading, pausing, and every way to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IPushProducer,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mutauth_twisted.core.records import Data, EndOfStream, Records
from mutauth_twisted.errors import AuthenticationError, ProtocolViolation, RecordError, StreamCut
from mutauth_twisted.interfaces import IMutualAuthTransport
from mutauth_twisted.net.transport import LINGER, ProtectedTransport, can_half_close
from mutauth_twisted.policy import Protection
from mutauth_twisted.wire import NNS
from tests.fakes import FakeContext, FakeTransport, Recorder, captured_log


@implementer(IPushProducer)
class Source:
    """A producer that remembers what it was told."""

    def __init__(self, transport: ProtectedTransport) -> None:
        self.transport = transport
        self.told: list[str] = []
        self.on_pause: Callable[[], object] = lambda: None

    def pauseProducing(self) -> None:
        self.told.append("pause")
        self.on_pause()

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")
        # As Twisted's own FileSender and HTTP producers do.
        self.transport.unregisterProducer()


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Recorder):
    """An application that goes on after the peer's end."""

    def readConnectionLost(self) -> None:
        self.events.append("read lost")

    def writeConnectionLost(self) -> None:
        self.events.append("write lost")


class PlainTransport(StringTransport):
    """A transport without half-close, such as TLS."""

    aborted = False

    def abortConnection(self) -> None:
        super().abortConnection()
        self.aborted = True


class Case(SynchronousTestCase):
    """A service's end of an established connection, and the peer's records."""

    application_class: type[Recorder] = Recorder
    network_class: type[Any] = FakeTransport

    def setUp(self) -> None:
        self.clock = Clock()
        self.network: Any = self.network_class()
        context = FakeContext(initiator=False)
        records = Records(context, Protection.SEAL, NNS, NNS.reader(), "peer")
        self.context = context
        self.transport = ProtectedTransport(self.clock, self.network, records, context.judge(Protection.SEAL))
        self.application = self.application_class()
        self.peer = Records(FakeContext(initiator=True), Protection.SEAL, NNS, NNS.reader(), "service")
        self.start()

    def start(self) -> None:
        """Connect the application, and have the peer announce itself."""
        self.transport.start(self.application)
        self.transport.dataReceived(self.peer.announcement())

    def sent(self) -> list[Data | EndOfStream]:
        """What the peer reads of all that was written since the last time."""
        self.peer.feed(bytes(self.network.value()))
        self.network.clear()
        events = []
        while (event := self.peer.next_event()) is not None:
            events.append(event)
        return events

    def peer_sends(self, *data: bytes, end: bool = False) -> None:
        """The peer's records come in one chunk."""
        frames = [frame for piece in data for frame in self.peer.protect(piece)]
        self.transport.dataReceived(b"".join(frames) + (self.peer.end_of_stream() if end else b""))

    def lose(self, reason: BaseException) -> BaseException | None:
        """The network's connection ends: what the application is told; no timer may be left."""
        self.transport.connectionLost(Failure(reason))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.application.events.count("lost"), 1)
        return self.application.reason


class WritingTests(Case):
    """From the application to the peer."""

    def test_interfaces(self) -> None:
        """The transport is all it says it is."""
        for interface in (ITransport, IConsumer, IPushProducer):
            self.assertTrue(verifyObject(interface, self.transport))
        self.assertTrue(IMutualAuthTransport.providedBy(self.transport))
        self.assertEqual(self.transport.getPeer(), self.network.getPeer())
        self.assertEqual(self.transport.getHost(), self.network.getHost())

    def test_write(self) -> None:
        """Every write is one record, and no write of nothing is one."""
        self.transport.write(b"one")
        self.transport.write(b"")
        self.transport.write(b"two")
        self.assertEqual(self.sent(), [Data(b"one"), Data(b"two")])

    def test_write_sequence(self) -> None:
        """Pieces go out together, sealed like everything else."""
        self.transport.writeSequence(piece for piece in (b"a", b"", b"bc"))
        self.assertEqual(self.sent(), [Data(b"abc")])

    def test_large_write(self) -> None:
        """A large write goes out in records that fit, handed to the network at once."""
        data = bytes(range(256)) * 1000
        calls: list[int] = []
        self.patch(self.network, "write", lambda data: calls.append(len(data)))
        write_sequence = self.network.writeSequence
        self.patch(self.network, "writeSequence", lambda frames: write_sequence(list(frames)))
        self.transport.write(data)
        self.assertEqual(calls, [])
        self.assertEqual(b"".join(event.data for event in self.sent() if isinstance(event, Data)), data)

    def test_no_text(self) -> None:
        """Text is no bytes, here as in Twisted."""
        with self.assertRaises(TypeError):
            self.transport.write("text")  # type: ignore[arg-type]

    def test_nothing_after_the_end(self) -> None:
        """What is written after loseConnection is not sent: it would follow the end of the stream."""
        self.transport.loseConnection()
        self.transport.write(b"late")
        self.transport.writeSequence([b"late"])
        self.assertEqual(self.sent(), [EndOfStream()])

    def test_nothing_after_the_loss(self) -> None:
        """Whatever an application does with a lost connection does nothing."""
        self.lose(ConnectionLost())
        self.network.clear()
        self.transport.write(b"late")
        self.transport.loseConnection()
        self.transport.loseWriteConnection()
        self.transport.abortConnection()
        self.transport.pauseProducing()
        self.transport.resumeProducing()
        self.assertEqual((self.network.value(), self.network.aborted), (b"", False))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_context_fails(self) -> None:
        """A context that can protect nothing any more ends the connection, and does not raise into the application."""

        def wrap(data: bytes, *, seal: bool) -> bytes:
            raise AuthenticationError("peer", "the session has ended with its ticket")

        self.patch(self.context, "wrap", wrap)
        self.transport.write(b"too late")
        self.assertTrue(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionAborted()), AuthenticationError)


class ReadingTests(Case):
    """From the peer to the application."""

    def test_records(self) -> None:
        """Records are delivered one by one, however they come."""
        self.peer_sends(b"one", b"two")
        for byte in self.peer.protect(b"three")[0]:
            self.transport.dataReceived(bytes([byte]))
        self.assertEqual(self.application.received, [b"one", b"two", b"three"])

    def test_altered(self) -> None:
        """A record that was altered is not delivered, nor is any that follows; the connection ends and says why."""
        good, bad, next_one = (self.peer.protect(data)[0] for data in (b"good", b"bad", b"next"))
        with captured_log() as events:
            self.transport.dataReceived(good + bad[:-1] + b"\0" + next_one)
        self.assertEqual(self.application.received, [b"good"])
        self.assertTrue(self.network.aborted)
        self.transport.dataReceived(next_one)
        self.assertEqual(self.application.received, [b"good"])
        self.assertIsInstance(self.lose(ConnectionAborted()), RecordError)
        self.assertEqual([event["log_level"].name for event in events], ["error"])

    def test_repeated_dropped_reordered(self) -> None:
        """Records that were repeated, dropped or reordered are not delivered, and end the connection."""
        for order in ((0, 0), (1,), (1, 0), (0, 2)):
            self.setUp()
            frames = [self.peer.protect(data)[0] for data in (b"a", b"b", b"c")]
            self.transport.dataReceived(b"".join(frames[number] for number in order))
            self.assertEqual(self.application.received, [b"a"] if order[0] == 0 else [])
            self.assertIsInstance(self.lose(ConnectionAborted()), RecordError)

    def test_injected(self) -> None:
        """Bytes that are no record end the connection."""
        self.transport.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionAborted()), ProtocolViolation)

    def test_nothing_written_after_an_attack(self) -> None:
        """An application that goes on writing to an aborted connection sends nothing."""
        self.transport.dataReceived(bytes(20))
        self.network.clear()
        self.transport.write(b"secret answer")
        self.transport.loseConnection()
        self.assertEqual(self.network.value(), b"")

    def test_application_raises(self) -> None:
        """An application that raises gets no more data, and is told its own error."""

        def bug(transport: object, data: bytes) -> None:
            raise ZeroDivisionError

        self.application.on_data = bug
        self.peer_sends(b"one", b"two")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.application.received, [b"one"])
        self.assertTrue(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionAborted()), ZeroDivisionError)

    def test_written_from_within(self) -> None:
        """An answer given while data is delivered goes out, and nothing is delivered twice."""
        self.application.on_data = lambda transport, data: transport.write(data)
        self.peer_sends(b"one", b"two")
        self.assertEqual(self.sent(), [Data(b"one"), Data(b"two")])


class PausingTests(Case):
    """Backpressure, from the network to the application and back."""

    def test_pause_within_a_chunk(self) -> None:
        """An application that pauses gets nothing more, even of what is here already."""
        self.application.on_data = lambda transport, data: transport.pauseProducing()
        self.peer_sends(b"one", b"two", b"three")
        self.assertEqual(self.application.received, [b"one"])
        self.assertEqual(self.network.producerState, "paused")

    def test_resume(self) -> None:
        """What waited is delivered first, in order, and then the network is read again."""
        self.application.on_data = lambda transport, data: transport.pauseProducing()
        self.peer_sends(b"one", b"two", b"three")
        self.transport.resumeProducing()
        self.assertEqual(self.application.received, [b"one", b"two"])
        self.assertEqual(self.network.producerState, "paused")
        self.application.on_data = lambda transport, data: None
        self.transport.resumeProducing()
        self.assertEqual(self.application.received, [b"one", b"two", b"three"])
        self.assertEqual(self.network.producerState, "producing")

    def test_pause_and_resume_from_within(self) -> None:
        """An application that resumes while it is given data gets the next data afterwards, not in the midst."""
        depth: list[bytes] = []

        def on_data(transport: ProtectedTransport, data: bytes) -> None:
            self.assertEqual(depth, [])
            depth.append(data)
            transport.pauseProducing()
            transport.resumeProducing()
            depth.pop()

        self.application.on_data = on_data
        self.peer_sends(b"one", b"two", b"three")
        self.assertEqual(self.application.received, [b"one", b"two", b"three"])

    def test_end_waits_behind_data(self) -> None:
        """The peer's end is not acted upon before a paused application took the data before it."""
        self.application.on_data = lambda transport, data: transport.pauseProducing()
        self.peer_sends(b"one", b"two", end=True)
        self.assertFalse(self.network.disconnecting)
        self.transport.resumeProducing()
        self.assertFalse(self.network.disconnecting)
        self.transport.resumeProducing()
        self.assertEqual(self.application.received, [b"one", b"two"])
        self.assertTrue(self.network.disconnecting)

    def test_lost_while_paused(self) -> None:
        """What waits when the connection is lost is delivered, as there is no later; resuming is harmless."""
        self.application.on_data = lambda transport, data: transport.pauseProducing()
        self.peer_sends(b"one", b"two", b"three", end=True)
        self.assertEqual(self.application.received, [b"one"])
        self.assertIsInstance(self.lose(ConnectionLost()), ConnectionDone)
        self.transport.resumeProducing()
        self.assertEqual(self.application.received, [b"one", b"two", b"three"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_producer_with_nothing_to_say(self) -> None:
        """A producer that says all, or nothing, while it is registered is not forgotten registered."""

        def register(producer: Any, streaming: bool) -> None:
            self.transport.unregisterProducer()

        self.patch(self.network, "registerProducer", register)
        self.patch(self.network, "unregisterProducer", lambda: None)
        self.transport.registerProducer(Source(self.transport), False)
        self.transport.loseConnection()
        self.assertEqual(self.sent(), [EndOfStream()])

    def test_producer_refused(self) -> None:
        """A network that takes no producer leaves none registered."""
        self.patch(self.network, "registerProducer", lambda producer, streaming: 1 / 0)
        self.assertRaises(ZeroDivisionError, self.transport.registerProducer, Source(self.transport), True)
        self.transport.loseConnection()
        self.assertEqual(self.sent(), [EndOfStream()])

    def test_application_fails_at_the_end(self) -> None:
        """An application's mistake in its last call is logged, and goes no further."""
        self.patch(self.application, "connectionLost", lambda reason: 1 / 0)
        self.transport.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cut_while_paused(self) -> None:
        """A stream whose end is not among what waits was cut."""
        self.transport.pauseProducing()
        self.peer_sends(b"one")
        self.assertIsInstance(self.lose(ConnectionDone()), StreamCut)
        self.assertEqual(self.application.received, [b"one"])

    def test_altered_while_paused(self) -> None:
        """Nothing behind an altered record is delivered at the end either."""
        self.transport.pauseProducing()
        self.peer_sends(b"one")
        record = self.peer.protect(b"two")[0]
        self.transport.dataReceived(record[:-1] + b"\0" + self.peer.protect(b"three")[0])
        self.assertIsInstance(self.lose(ConnectionDone()), RecordError)
        self.assertEqual(self.application.received, [b"one"])

    def test_closed_while_paused(self) -> None:
        """An application that has closed itself is told nothing more."""
        self.transport.pauseProducing()
        self.peer_sends(b"one")
        self.transport.abortConnection()
        self.assertIsInstance(self.lose(ConnectionAborted()), ConnectionAborted)
        self.assertEqual(self.application.received, [])

    def test_flood_while_paused(self) -> None:
        """A network that does not pause cannot fill the memory."""
        self.transport.pauseProducing()
        for _ in range(20):
            self.transport.dataReceived(self.peer.protect(bytes(32_000))[0])
        self.assertTrue(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionAborted()), ProtocolViolation)

    def test_producer(self) -> None:
        """A producer is paused and resumed by the network itself, and what it writes is sealed."""
        source = Source(self.transport)
        self.transport.registerProducer(source, True)
        self.assertIs(self.network.producer, source)
        self.assertTrue(self.network.streaming)
        self.transport.write(b"produced")
        self.assertEqual(self.sent(), [Data(b"produced")])
        self.transport.unregisterProducer()
        self.assertIsNone(self.network.producer)

    def test_pull_producer(self) -> None:
        """A pull producer is registered as one."""
        self.transport.registerProducer(Source(self.transport), False)
        self.assertFalse(self.network.streaming)

    def test_second_producer(self) -> None:
        """A second producer is refused, and the first one stays."""
        first = Source(self.transport)
        self.transport.registerProducer(first, True)
        with self.assertRaises(RuntimeError):
            self.transport.registerProducer(Source(self.transport), True)
        self.transport.loseConnection()
        self.assertEqual(self.sent(), [])
        self.transport.unregisterProducer()
        self.assertEqual(self.sent(), [EndOfStream()])

    def test_producer_too_late(self) -> None:
        """A producer for a connection that ends, or has ended, is stopped at once."""
        for end in (self.transport.loseConnection, lambda: self.lose(ConnectionDone())):
            end()
            source = Source(self.transport)
            self.transport.registerProducer(source, True)
            self.assertEqual(source.told, ["stop"])
            self.assertIsNone(self.network.producer)

    def test_writing_when_paused_in_a_large_write(self) -> None:
        """A producer that writes as it is paused, in the midst of a large write, does so behind it."""
        source = Source(self.transport)
        source.on_pause = lambda: self.transport.write(b"last words")
        self.transport.registerProducer(source, True)
        write_sequence = self.network.writeSequence

        def full(frames: list[bytes]) -> None:
            self.patch(self.network, "writeSequence", write_sequence)
            write_sequence(frames)
            source.pauseProducing()

        self.patch(self.network, "writeSequence", full)
        self.transport.write(b"x" * 100_000)
        data = b"".join(event.data for event in self.sent() if isinstance(event, Data))
        self.assertEqual(data, b"x" * 100_000 + b"last words")


class ClosingTests(Case):
    """This side closes."""

    def test_after_all_that_was_written(self) -> None:
        """The end of the stream follows all data, and then this half of the connection ends."""
        self.transport.write(b"last")
        self.transport.loseConnection()
        self.assertEqual(self.sent(), [Data(b"last"), EndOfStream()])
        self.assertTrue(self.network.write_closing)
        self.assertFalse(self.network.disconnecting or self.network.aborted)
        self.assertTrue(self.transport.disconnecting)

    def test_twice(self) -> None:
        """Closing twice is closing once."""
        self.transport.loseConnection()
        self.transport.loseConnection()
        self.assertEqual(self.sent(), [EndOfStream()])

    def test_peer_answers(self) -> None:
        """The peer's end completes the round trip: the connection is done."""
        self.transport.loseConnection()
        self.transport.writeConnectionLost()
        self.peer_sends(end=True)
        self.assertTrue(self.network.disconnecting)
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def test_peers_data_is_dropped(self) -> None:
        """What the peer sends before it sees the end goes nowhere, and does no harm."""
        self.transport.loseConnection()
        self.peer_sends(b"too late", end=True)
        self.assertEqual(self.application.received, [])
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def test_slow_reader(self) -> None:
        """However long the network takes to send what was written, it gets the time."""
        self.transport.write(bytes(1_000_000))
        self.transport.loseConnection()
        self.clock.advance(1000 * LINGER)
        self.assertFalse(self.network.disconnecting or self.network.aborted)

    def test_silent_peer(self) -> None:
        """A peer that never ends its half is left after a while, without losing what the kernel still sends."""
        self.transport.loseConnection()
        self.transport.writeConnectionLost()
        self.clock.advance(LINGER - 0.1)
        self.assertFalse(self.network.disconnecting)
        self.clock.advance(0.1)
        self.assertTrue(self.network.disconnecting)
        self.assertFalse(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def test_peer_ends_without_a_word(self) -> None:
        """A peer that just ends its half after we ended ours has done its part."""
        self.transport.loseConnection()
        self.transport.writeConnectionLost()
        self.transport.readConnectionLost()
        self.assertTrue(self.network.disconnecting)
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def test_paused_application(self) -> None:
        """A paused application that closes still has the peer's end read."""
        self.transport.pauseProducing()
        self.transport.loseConnection()
        self.assertEqual(self.network.producerState, "producing")
        self.transport.pauseProducing()
        self.assertEqual(self.network.producerState, "producing")

    def test_producer_goes_on(self) -> None:
        """With a producer registered the end waits until it is finished, as in Twisted."""
        self.transport.registerProducer(Source(self.transport), True)
        self.transport.loseConnection()
        self.transport.write(b"more")
        self.assertEqual(self.sent(), [Data(b"more")])
        self.assertFalse(self.network.write_closing)
        self.transport.unregisterProducer()
        self.assertEqual(self.sent(), [EndOfStream()])
        self.assertTrue(self.network.write_closing)

    def test_producer_outlives_the_connection(self) -> None:
        """A producer that finishes after the connection was lost starts nothing any more."""
        self.transport.registerProducer(Source(self.transport), True)
        self.transport.loseConnection()
        self.lose(ConnectionLost())
        self.network.clear()
        self.transport.unregisterProducer()
        self.assertEqual(self.network.value(), b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_producing(self) -> None:
        """stopProducing closes, as with Twisted's transports."""
        self.transport.stopProducing()
        self.assertEqual(self.sent(), [EndOfStream()])

    def test_abort(self) -> None:
        """An aborted connection sends no end: the peer sees a cut stream."""
        self.transport.write(b"x")
        self.transport.abortConnection()
        self.assertTrue(self.network.aborted)
        self.assertEqual(self.sent(), [Data(b"x")])
        self.assertIsInstance(self.peer.cut(), StreamCut)
        self.assertIsInstance(self.lose(ConnectionLost()), ConnectionAborted)

    def test_abort_from_within(self) -> None:
        """An application that aborts while it is given data gets no more of it."""
        self.application.on_data = lambda transport, data: transport.abortConnection()
        frames = self.peer.protect(b"one") + self.peer.protect(b"two")
        with captured_log() as events:
            self.transport.dataReceived(b"".join(frames)[:-1] + b"\0")
        self.assertEqual(self.application.received, [b"one"])
        # Nor is the rest of it looked at.
        self.assertEqual(events, [])

    def test_close_from_within(self) -> None:
        """An application that closes while it is given data gets no more of it."""
        self.application.on_data = lambda transport, data: transport.loseConnection()
        self.peer_sends(b"one", b"two")
        self.assertEqual(self.application.received, [b"one"])

    def test_abort_while_closing(self) -> None:
        """A connection that closes can still be aborted."""
        self.transport.loseConnection()
        self.transport.writeConnectionLost()
        self.transport.abortConnection()
        self.assertTrue(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionLost()), ConnectionAborted)


class EndingTests(Case):
    """The peer closes, or somebody cuts the connection."""

    def test_peer_ends(self) -> None:
        """The peer's end is answered with our own, and the connection is done."""
        self.peer_sends(b"bye", end=True)
        self.assertEqual(self.application.received, [b"bye"])
        self.assertEqual(self.sent(), [EndOfStream()])
        self.assertTrue(self.network.disconnecting)
        self.assertIsInstance(self.lose(ConnectionLost()), ConnectionDone)

    def test_peer_ends_and_does_not_read(self) -> None:
        """A peer that ended and reads no more is dropped after a while."""
        self.peer_sends(end=True)
        self.clock.advance(LINGER)
        self.assertTrue(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionAborted()), ConnectionDone)

    def test_peer_ends_under_a_producer(self) -> None:
        """A producer may still say all it has to say to a peer that has ended, as a file is sent behind a request."""
        source = Source(self.transport)
        self.transport.registerProducer(source, True)
        self.peer_sends(end=True)
        self.assertEqual(source.told, [])
        self.transport.write(b"more")
        self.assertEqual(self.sent(), [Data(b"more")])
        self.assertFalse(self.network.disconnecting)
        self.transport.unregisterProducer()
        self.assertEqual(self.sent(), [EndOfStream()])
        self.assertTrue(self.network.disconnecting)
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def test_peer_ends_under_a_silent_producer(self) -> None:
        """A producer that says nothing for a while, such as a keyboard, keeps nothing open; its stream is then cut."""
        source = Source(self.transport)
        self.transport.registerProducer(source, True)
        self.peer_sends(end=True)
        for _ in range(3):
            self.transport.write(b"more")
            self.clock.advance(LINGER)
            self.assertEqual((self.sent(), source.told), ([Data(b"more")], []))
        self.clock.advance(LINGER)
        self.assertEqual((self.sent(), source.told), ([], ["stop"]))
        self.assertTrue(self.network.disconnecting)
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_peer_ends_behind_our_end(self) -> None:
        """What was written before we closed may take as long as it takes, though the peer has ended meanwhile."""
        self.transport.write(b"much")
        self.transport.loseConnection()
        self.peer_sends(end=True)
        self.assertTrue(self.network.disconnecting)
        self.clock.advance(10 * LINGER)
        self.assertFalse(self.network.aborted)
        self.assertEqual(self.sent(), [Data(b"much"), EndOfStream()])
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def test_peer_ends_and_reads_slowly(self) -> None:
        """What a finished producer said may take as long to be sent as it takes."""
        source = Source(self.transport)
        self.transport.registerProducer(source, True)
        self.peer_sends(end=True)
        self.transport.write(b"more")
        self.transport.unregisterProducer()
        self.clock.advance(10 * LINGER)
        self.assertFalse(self.network.aborted)
        self.assertEqual(self.sent(), [Data(b"more"), EndOfStream()])

    def test_cut(self) -> None:
        """A connection that ends without the peer's end was cut; the network's reason is the cause."""
        self.peer_sends(b"data")
        reason = self.lose(ConnectionDone())
        assert isinstance(reason, StreamCut)
        self.assertIsInstance(reason, ConnectionLost)
        self.assertIsInstance(reason.__cause__, ConnectionDone)

    def test_half_cut(self) -> None:
        """A peer's half that ends without the end of the stream was cut: nothing more is sent."""
        self.transport.readConnectionLost()
        self.assertTrue(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionAborted()), StreamCut)

    def test_cut_within_a_record(self) -> None:
        """So was one that ends within a record."""
        frame = self.peer.protect(b"data")[0]
        self.transport.dataReceived(frame[:-1])
        self.transport.readConnectionLost()
        self.assertIsInstance(self.lose(ConnectionAborted()), StreamCut)


class OtherPeerTests(Case):
    """A peer such as .NET's, without announcement and end of stream."""

    def start(self) -> None:
        """Connect the application; the peer says nothing."""
        self.transport.start(self.application)

    def test_plain_close(self) -> None:
        """Its plain close between records is a clean end, and what was written still goes out."""
        self.peer_sends(b"hello")
        self.transport.write(b"goodbye")
        self.transport.readConnectionLost()
        self.assertEqual(self.sent(), [Data(b"goodbye"), EndOfStream()])
        self.assertTrue(self.network.disconnecting)
        self.assertFalse(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def test_reset(self) -> None:
        """A connection that was reset is a lost one."""
        self.peer_sends(b"hello")
        self.assertIs(type(self.lose(ConnectionLost())), ConnectionLost)

    def test_close_within_a_record(self) -> None:
        """Its close within a record is a cut."""
        self.peer_sends(b"hello")
        self.transport.dataReceived(self.peer.protect(b"more")[0][:-1])
        self.transport.readConnectionLost()
        self.assertIsInstance(self.lose(ConnectionAborted()), StreamCut)


class HalfCloseTests(Case):
    """An application that provides IHalfCloseableProtocol."""

    application_class = HalfCloseable

    def test_peer_ends(self) -> None:
        """The application hears of the peer's end once, goes on writing, and closes when it likes."""
        self.peer_sends(b"question", end=True)
        self.transport.readConnectionLost()
        self.assertEqual(self.application.events, ["made", "data", "read lost"])
        self.transport.write(b"answer")
        self.assertEqual(self.sent(), [Data(b"answer")])
        self.assertFalse(self.network.disconnecting)
        self.transport.loseConnection()
        self.assertEqual(self.sent(), [EndOfStream()])
        self.assertTrue(self.network.disconnecting)
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def test_we_end(self) -> None:
        """An application that ends its half goes on reading, and hears when its end is sent."""
        self.transport.write(b"question")
        self.transport.loseWriteConnection()
        self.transport.write(b"too late")
        self.assertEqual(self.sent(), [Data(b"question"), EndOfStream()])
        self.assertTrue(self.network.write_closing)
        self.transport.writeConnectionLost()
        self.clock.advance(10 * LINGER)
        self.peer_sends(b"answer", end=True)
        self.assertEqual(self.application.received, [b"answer"])
        self.assertEqual(self.application.events, ["made", "write lost", "data", "read lost"])
        self.assertTrue(self.network.disconnecting)
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def test_we_end_and_close(self) -> None:
        """An application that ended its half may still leave before the peer ends."""
        self.transport.loseWriteConnection()
        self.transport.writeConnectionLost()
        self.transport.loseConnection()
        self.assertEqual(self.sent(), [EndOfStream()])
        self.clock.advance(LINGER)
        self.assertTrue(self.network.disconnecting)
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def test_peer_ends_while_a_producer_finishes(self) -> None:
        """An answer that is still being produced when the peer ends its half is sent to its last byte, and then ended."""
        source = Source(self.transport)
        self.transport.registerProducer(source, True)
        self.transport.write(b"first ")
        self.transport.loseConnection()
        self.peer_sends(end=True)
        self.assertEqual(source.told, [])
        self.transport.write(b"second")
        self.transport.unregisterProducer()
        self.assertEqual(self.sent(), [Data(b"first "), Data(b"second"), EndOfStream()])
        self.assertTrue(self.network.disconnecting)

    def test_end_behind_a_producer(self) -> None:
        """Our half ends after the producer is finished."""
        self.transport.registerProducer(Source(self.transport), True)
        self.transport.loseWriteConnection()
        self.transport.write(b"produced")
        self.assertEqual(self.sent(), [Data(b"produced")])
        self.transport.unregisterProducer()
        self.assertEqual(self.sent(), [EndOfStream()])
        self.assertTrue(self.network.write_closing)

    def test_cut_is_no_end(self) -> None:
        """A half that ends without the end of the stream is not taken for one."""
        self.transport.readConnectionLost()
        self.assertEqual(self.application.events, ["made"])
        self.assertIsInstance(self.lose(ConnectionAborted()), StreamCut)

    def test_records_after_the_end(self) -> None:
        """Nothing is delivered after the peer's end, whoever sends it."""
        self.peer_sends(end=True)
        self.peer_sends(b"more")
        self.assertEqual(self.application.received, [])
        self.assertTrue(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionAborted()), RecordError)

    def test_it_raises(self) -> None:
        """An application that fails on the peer's end is told its own error."""

        def bug() -> None:
            raise ZeroDivisionError

        self.patch(self.application, "readConnectionLost", bug)
        self.peer_sends(end=True)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionAborted()), ZeroDivisionError)


class HalfCloseableTests(SynchronousTestCase):
    """Which transports can end their output alone."""

    def test_tls_only_claims_it(self) -> None:
        """TLS claims what the socket below it can do, and is not believed."""
        factory = TLSMemoryBIOFactory(optionsForClientTLS("srv1.example.com"), True, Factory.forProtocol(Protocol))
        tls = factory.buildProtocol(None)
        network = FakeTransport()
        tls.makeConnection(network)
        self.assertTrue(IHalfCloseableDescriptor.providedBy(tls))
        self.assertFalse(can_half_close(tls))
        self.assertTrue(can_half_close(network))
        self.assertFalse(can_half_close(PlainTransport()))


class PlainNetworkTests(Case):
    """A network without half-close, such as TLS."""

    network_class = PlainTransport

    def test_close(self) -> None:
        """The whole connection is closed behind the end of the stream."""
        self.transport.write(b"last")
        self.transport.loseConnection()
        self.assertEqual(self.sent(), [Data(b"last"), EndOfStream()])
        self.assertTrue(self.network.disconnecting)
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def test_end_our_half(self) -> None:
        """Ending our half sends the end of the stream and leaves the connection open."""
        self.transport.loseWriteConnection()
        self.assertEqual(self.sent(), [EndOfStream()])
        self.assertFalse(self.network.disconnecting)
        self.peer_sends(b"answer", end=True)
        self.assertEqual(self.application.received, [b"answer"])
        self.assertTrue(self.network.disconnecting)

    def test_cut(self) -> None:
        """A connection that ends without the peer's end was cut."""
        self.assertIsInstance(self.lose(ConnectionDone()), StreamCut)

    def test_silence_behind_both_ends(self) -> None:
        """When both have ended, a network that waits for another word of the peer's is not waited for."""
        self.transport.loseWriteConnection()
        self.peer_sends(end=True)
        self.assertTrue(self.network.disconnecting)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(LINGER)
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone_at_once(self) -> None:
        """A network that is gone as soon as it is closed leaves no timer behind."""
        self.patch(self.network, "loseConnection", lambda: self.transport.connectionLost(Failure(ConnectionDone())))
        self.peer_sends(end=True)
        self.assertEqual(self.application.events, ["made", "lost"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
