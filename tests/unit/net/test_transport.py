"""The transport an application gets: writing, reading and pausing."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from mutauth_twisted.core.records import Data, EndOfStream
from mutauth_twisted.errors import AuthenticationError, ProtocolViolation, RecordError, StreamCut
from mutauth_twisted.interfaces import IMutualAuthTransport
from mutauth_twisted.net.transport import ProtectedTransport
from mutauth_twisted.testing.fakes import captured_log
from tests.unit.net.transport_case import Case, Source


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
        self.assertEqual(
            b"".join(event.data for event in self.sent() if isinstance(event, Data)), data
        )

    def test_no_text(self) -> None:
        """Text is not bytes, here as in Twisted."""
        with self.assertRaises(TypeError):
            self.transport.write("text")  # type: ignore[arg-type]

    def test_nothing_after_the_end(self) -> None:
        """Bytes that are written after loseConnection are not sent: it would follow the end of the
        stream.
        """
        self.transport.loseConnection()
        self.transport.write(b"late")
        self.transport.writeSequence([b"late"])
        self.assertEqual(self.sent(), [EndOfStream()])

    def test_nothing_after_the_loss(self) -> None:
        """Any call on a lost connection does nothing."""
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
        """A context that can protect nothing any more ends the connection, and does not raise into
        the application.
        """

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
        for byte in self.peer.send(b"three")[0]:
            self.transport.dataReceived(bytes([byte]))
        self.assertEqual(self.application.received, [b"one", b"two", b"three"])

    def test_altered(self) -> None:
        """A record that was altered is not delivered, nor is any that follows; the connection ends
        and says why.
        """
        good, bad, next_one = (self.peer.send(data)[0] for data in (b"good", b"bad", b"next"))
        with captured_log() as events:
            self.transport.dataReceived(good + bad[:-1] + b"\0" + next_one)
        self.assertEqual(self.application.received, [b"good"])
        self.assertTrue(self.network.aborted)
        self.transport.dataReceived(next_one)
        self.assertEqual(self.application.received, [b"good"])
        self.assertIsInstance(self.lose(ConnectionAborted()), RecordError)
        self.assertEqual([event["log_level"].name for event in events], ["error"])

    def test_repeated_dropped_reordered(self) -> None:
        """Records that were repeated, dropped or reordered are not delivered, and end the
        connection.
        """
        for order in ((0, 0), (1,), (1, 0), (0, 2)):
            self.setUp()
            frames = [self.peer.send(data)[0] for data in (b"a", b"b", b"c")]
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
        """Bytes that waited are delivered first, in order, and then the network is read again."""
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
        """An application that resumes while it is given data gets the next data afterwards, not in
        the midst.
        """
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
        """Bytes that wait when the connection is lost are delivered, as there is no later; resuming
        is harmless.
        """
        self.application.on_data = lambda transport, data: transport.pauseProducing()
        self.peer_sends(b"one", b"two", b"three", end=True)
        self.assertEqual(self.application.received, [b"one"])
        self.assertIsInstance(self.lose(ConnectionLost()), ConnectionDone)
        self.transport.resumeProducing()
        self.assertEqual(self.application.received, [b"one", b"two", b"three"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_producer_with_nothing_to_say(self) -> None:
        """A producer that says all, or nothing, while it is registered is not forgotten
        registered.
        """

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
        self.assertRaises(
            ZeroDivisionError, self.transport.registerProducer, Source(self.transport), True
        )
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
        record = self.peer.send(b"two")[0]
        self.transport.dataReceived(record[:-1] + b"\0" + self.peer.send(b"three")[0])
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
            self.transport.dataReceived(self.peer.send(bytes(32_000))[0])
        self.assertTrue(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionAborted()), ProtocolViolation)

    def test_producer(self) -> None:
        """A producer is paused and resumed by the network itself, and what it writes is sealed."""
        source = Source(self.transport)
        self.transport.registerProducer(source, True)
        self.assertIs(self.network.producer.producer, source)
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
        """A producer that writes as it is paused, in the midst of a large write, does so behind
        it.
        """
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
