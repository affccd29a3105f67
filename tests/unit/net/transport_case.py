"""What tests of an application's transport share: one end of a connection, and the peer's
records.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IPushProducer,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mutauth_twisted.core.records import Data, EndOfStream, Records
from mutauth_twisted.net.transport import ProtectedTransport
from mutauth_twisted.protection import Protection
from mutauth_twisted.testing.fakes import FakeContext, FakeTransport, Recorder
from mutauth_twisted.wire import NNS


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
    #: Whether the two are mutauth peers; else third-party ones to each other.
    mutauth = True

    def setUp(self) -> None:
        self.clock = Clock()
        self.network: Any = self.network_class()
        context = FakeContext(initiator=False)
        records = Records(context, Protection.SEAL, NNS, NNS.reader(), "peer", mutauth=self.mutauth)
        self.context = context
        self.transport = ProtectedTransport(
            self.clock, self.network, records, context.verify(Protection.SEAL)
        )
        self.application = self.application_class()
        peer = FakeContext(initiator=True)
        self.peer = Records(
            peer, Protection.SEAL, NNS, NNS.reader(), "service", mutauth=self.mutauth
        )
        self.start()

    def start(self) -> None:
        """Connect the application."""
        self.transport.start(self.application)

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
