"""Common ground of the tests of an application's transport: one end of a connection, and the peer's
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

from mutauth_twisted.core.connection import Event
from mutauth_twisted.net.transport import ProtectedTransport
from mutauth_twisted.testing.connections import established, events
from mutauth_twisted.testing.fakes import FakeContext, FakeTransport, Recorder


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
        self.context = FakeContext(initiator=False, mutauth=self.mutauth)
        (self.peer, _), (connection, event) = established(FakeContext(initiator=True), self.context)
        self.transport = ProtectedTransport(self.clock, self.network, connection, event.identity)
        self.application = self.application_class()
        self.start()

    def start(self) -> None:
        """Connect the application."""
        self.transport.start(self.application)

    def sent(self) -> list[Event]:
        """Bytes that the peer reads of all that was written since the last time."""
        self.peer.receive(bytes(self.network.value()))
        self.network.clear()
        return list(events(self.peer))

    def peer_sends(self, *data: bytes, end: bool = False) -> None:
        """The peer's records come in one chunk."""
        frames = [frame for piece in data for frame in self.peer.send(piece)]
        self.transport.dataReceived(b"".join(frames) + (self.peer.send_end() if end else b""))

    def lose(self, reason: BaseException) -> BaseException | None:
        """The network's connection ends: what the application is told; no timer may be left."""
        self.transport.connectionLost(Failure(reason))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.application.events.count("lost"), 1)
        return self.application.reason
