"""The transport an application gets: every way in which a connection ends, whole or in one
direction.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.handshake import Failed
from mutauth_twisted.core.records import Data, EndOfStream
from mutauth_twisted.errors import NetworkError, RecordError, SessionEnded, StreamCut
from mutauth_twisted.net import transport
from mutauth_twisted.net.sockets import STALLED
from mutauth_twisted.net.transport import LINGER, ProtectedTransport, can_half_close
from mutauth_twisted.testing.fakes import FakeContext, FakeTransport, captured_log
from mutauth_twisted.wire import NNS
from tests.unit.net.transport_case import Case, HalfCloseable, PlainTransport, Source


class FailingSource(Source):
    """A producer that fails where it is told to."""

    fails = ""
    error: type[BaseException] = ZeroDivisionError

    def _failing(self, told: str) -> None:
        if told == self.fails:
            raise self.error

    def pauseProducing(self) -> None:
        self._failing("pause")

    def resumeProducing(self) -> None:
        self._failing("resume")

    def stopProducing(self) -> None:
        self._failing("stop")


class CutTests(Case):
    """This side passes on what was cut, or refuses the session."""

    def test_cut(self) -> None:
        """All that was written is sent, and no end of stream; then both sides end."""
        self.transport.write(b"some of it")
        self.transport.pauseProducing()
        self.transport.cutConnection()
        self.assertEqual(self.sent(), [Data(b"some of it")])
        self.assertTrue(self.network.write_closing)
        self.assertFalse(self.network.disconnecting or self.network.aborted)
        self.transport.write(b"more")
        self.assertEqual(self.sent(), [])
        # The peer sees its stream cut, and drops the connection.
        self.assertIsInstance(self.lose(ConnectionLost()), ConnectionLost)

    def test_cut_with_a_producer(self) -> None:
        """Nobody produces any more, and that is no reason to end the stream."""
        for state in ("open", "half closing", "closing"):
            self.setUp()
            self.transport.registerProducer(Source(self.transport), True)
            if state == "half closing":
                self.transport.loseWriteConnection()
            if state == "closing":
                self.transport.loseConnection()
            self.transport.cutConnection()
            self.assertEqual(self.sent(), [])
            self.assertTrue(self.network.write_closing)
            self.assertIsNone(self.network.producer)

    def test_refused(self) -> None:
        """A client is told why; that is the reason here as well."""
        error = NetworkError("the backend", "it is down", code="backend-unreachable")
        self.transport.refuseSession(error)
        (told,) = self.sent()
        assert isinstance(told, Failed)
        self.assertEqual(told.error.code, "backend-unreachable")
        self.assertTrue(self.network.write_closing)
        self.lose(ConnectionDone())
        assert self.transport.reason is not None
        self.assertIs(self.transport.reason.value, error)


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
        """Bytes that the peer sends before it sees the end go nowhere, and do no harm."""
        self.transport.loseConnection()
        self.peer_sends(b"too late", end=True)
        self.assertEqual(self.application.received, [])
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def leave_unsent(self) -> None:
        """Have the network say that it has yet to send what was written, all of it."""
        self.unsent = 1000
        self.patch(transport, "unsent", lambda network: self.unsent)

    def pass_time(self, seconds: float) -> None:
        """Let time pass as it does."""
        for _ in range(int(seconds / LINGER)):
            self.clock.advance(LINGER)

    def test_slow_reader(self) -> None:
        """However long the network takes to send what was written, it gets the time, as long as it
        gets on.
        """
        self.leave_unsent()
        self.transport.write(bytes(1000))
        self.transport.loseConnection()
        for _ in range(100):
            self.pass_time(STALLED - LINGER)
            self.unsent -= 10
        self.assertFalse(self.network.disconnecting or self.network.aborted)
        # The peer now has the linger to do its part, and it begins here.
        self.clock.advance(LINGER)
        self.assertFalse(self.network.disconnecting or self.network.aborted)
        self.clock.advance(LINGER)
        self.assertTrue(self.network.disconnecting)

    def test_stuck_reader(self) -> None:
        """A peer that takes nothing more is left after a while, wherever the connection stands, and
        the application is told that what it wrote is lost.
        """
        ways: dict[str, Callable[[ProtectedTransport], object]] = {
            "closed": lambda transport: transport.loseConnection(),
            "half-closed, then closed": lambda transport: (
                transport.loseWriteConnection(),
                transport.loseConnection(),
            ),
            "both ended": lambda transport: (
                transport.loseConnection(),
                transport.dataReceived(self.peer.send_end()),
            ),
            "ended with the peer": lambda transport: transport.dataReceived(self.peer.send_end()),
        }
        for way, end in ways.items():
            self.setUp()
            self.leave_unsent()
            self.transport.write(bytes(1000))
            end(self.transport)
            self.pass_time(STALLED - LINGER)
            self.assertFalse(self.network.aborted, way)
            self.pass_time(2 * LINGER)
            self.assertTrue(self.network.aborted, way)
            self.assertIsInstance(self.lose(ConnectionLost()), ConnectionAborted, way)

    def test_limit_gives_a_slow_reader_no_more_time(self) -> None:
        """A session that a limit has ended is gone after the linger, though its peer takes some."""
        self.leave_unsent()
        self.transport.write(bytes(1000))
        self.transport.end_session(SessionEnded("it", "idle"))
        self.unsent -= 10
        self.clock.advance(LINGER)
        self.assertTrue(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionLost()), SessionEnded)

    def test_silent_peer(self) -> None:
        """A peer that never ends its half is left after a while, without losing what the kernel
        still sends.
        """
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
        frames = self.peer.send(b"one") + self.peer.send(b"two")
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
        """A producer may still say all it has to say to a peer that has ended, as a file is sent
        behind a request.
        """
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
        """A producer that says nothing for a while, such as a keyboard, keeps nothing open; its
        stream is then cut.
        """
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
        """Bytes that were written before we closed may take as long as they take, though the peer
        has ended meanwhile.
        """
        self.transport.write(b"much")
        self.transport.loseConnection()
        self.peer_sends(end=True)
        self.assertTrue(self.network.disconnecting)
        self.clock.advance(10 * LINGER)
        self.assertFalse(self.network.aborted)
        self.assertEqual(self.sent(), [Data(b"much"), EndOfStream()])
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def test_peer_ends_and_reads_slowly(self) -> None:
        """Bytes of a finished producer may take as long to be sent as they take."""
        source = Source(self.transport)
        self.transport.registerProducer(source, True)
        self.peer_sends(end=True)
        self.transport.write(b"more")
        self.transport.unregisterProducer()
        self.clock.advance(10 * LINGER)
        self.assertFalse(self.network.aborted)
        self.assertEqual(self.sent(), [Data(b"more"), EndOfStream()])

    def test_cut(self) -> None:
        """A connection that ends without the peer's end was cut; the network's reason is the
        cause.
        """
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
        frame = self.peer.send(b"data")[0]
        self.transport.dataReceived(frame[:-1])
        self.transport.readConnectionLost()
        self.assertIsInstance(self.lose(ConnectionAborted()), StreamCut)


class FailingProducerTests(Case):
    """A producer of the application's that raises: its connection is dropped, and nothing else
    fails.
    """

    def setUp(self) -> None:
        super().setUp()
        self.source = FailingSource(self.transport)
        self.transport.registerProducer(self.source, True)

    def assert_dropped(self) -> None:
        """The connection was, and the application is told its own error."""
        self.assertTrue(self.network.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsInstance(self.lose(ConnectionAborted()), ZeroDivisionError)

    def test_pause_producing(self) -> None:
        """As the network has enough."""
        self.source.fails = "pause"
        self.network.producer.pauseProducing()
        self.assert_dropped()

    def test_resume_producing(self) -> None:
        """As the network wants more."""
        self.source.fails = "resume"
        self.network.producer.resumeProducing()
        self.assert_dropped()

    def test_stop_producing(self) -> None:
        """As the network is gone."""
        self.source.fails = "stop"
        self.network.producer.stopProducing()
        self.assert_dropped()

    def test_stopped_by_a_limit(self) -> None:
        """As a limit ends the session, from a timer; what ends it has been done by then."""
        self.source.fails = "stop"
        self.transport.end_session(SessionEnded("it", "idle"))
        self.assertTrue(self.network.disconnecting)
        self.assert_dropped()

    def test_stopped_for_its_silence(self) -> None:
        """As it has been silent for too long behind the peer's end."""
        self.source.fails = "stop"
        self.peer_sends(end=True)
        self.clock.advance(LINGER)
        self.assertTrue(self.network.disconnecting)
        self.assert_dropped()

    def test_stays_bounded(self) -> None:
        """One that is no Exception goes its way, and leaves a connection that ends all the same."""
        self.source.fails = "stop"
        self.patch(self.source, "error", KeyboardInterrupt)
        with self.assertRaises(KeyboardInterrupt):
            self.transport.end_session(SessionEnded("it", "idle"))
        self.assertTrue(self.network.disconnecting)
        self.clock.advance(LINGER)
        self.assertTrue(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionAborted()), SessionEnded)


class ThirdPartyTests(Case):
    """A peer such as .NET's, without an end of stream."""

    mutauth = False

    def test_plain_close(self) -> None:
        """Its plain close between records is a clean end, and what was written still goes out."""
        self.peer_sends(b"hello")
        self.transport.write(b"goodbye")
        self.transport.readConnectionLost()
        self.assertEqual(self.network.value(), b"".join(self.expected(b"goodbye")))
        self.assertTrue(self.network.disconnecting)
        self.assertFalse(self.network.aborted)
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def expected(self, *data: bytes) -> list[bytes]:
        """The frames of this data, and of nothing besides."""
        context = FakeContext(initiator=False)
        return [NNS.record(context.wrap(each, seal=True)) for each in data]

    def test_our_close(self) -> None:
        """When this side closes TCP ends, behind what was written, and no empty record comes before
        that.
        """
        self.peer_sends(b"hello")
        self.transport.write(b"goodbye")
        self.transport.loseConnection()
        self.assertEqual(self.network.value(), b"".join(self.expected(b"goodbye")))
        self.assertTrue(self.network.write_closing)
        self.transport.readConnectionLost()
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)

    def test_our_half(self) -> None:
        """When this side ends its half, so does TCP, and the peer may go on."""
        self.transport.write(b"question")
        self.transport.loseWriteConnection()
        self.assertEqual(self.network.value(), b"".join(self.expected(b"question")))
        self.assertTrue(self.network.write_closing)
        self.peer_sends(b"answer")
        self.assertEqual(self.application.received, [b"answer"])

    def test_reset(self) -> None:
        """A connection that was reset is a lost one."""
        self.peer_sends(b"hello")
        self.assertIs(type(self.lose(ConnectionLost())), ConnectionLost)

    def test_close_within_a_record(self) -> None:
        """Its close within a record is a cut."""
        self.peer_sends(b"hello")
        self.transport.dataReceived(self.peer.send(b"more")[0][:-1])
        self.transport.readConnectionLost()
        self.assertIsInstance(self.lose(ConnectionAborted()), StreamCut)


class HalfCloseTests(Case):
    """An application that provides IHalfCloseableProtocol."""

    application_class = HalfCloseable

    def test_peer_ends(self) -> None:
        """The application hears of the peer's end once, goes on writing, and closes when it
        likes.
        """
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
        """An answer that is still being produced when the peer ends its half is sent to its last
        byte, and then ended.
        """
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
        factory = TLSMemoryBIOFactory(
            optionsForClientTLS("srv1.example.com"), True, Factory.forProtocol(Protocol)
        )
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
        """When both have ended, a network that waits for another word of the peer's is not waited
        for.
        """
        self.transport.loseWriteConnection()
        self.peer_sends(end=True)
        self.assertTrue(self.network.disconnecting)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(LINGER)
        self.assertIsInstance(self.lose(ConnectionDone()), ConnectionDone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone_at_once(self) -> None:
        """A network that is gone as soon as it is closed leaves no timer behind."""
        self.patch(
            self.network,
            "loseConnection",
            lambda: self.transport.connectionLost(Failure(ConnectionDone())),
        )
        self.peer_sends(end=True)
        self.assertEqual(self.application.events, ["made", "lost"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
