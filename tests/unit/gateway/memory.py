"""Backends in memory, whose connections the test makes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IHalfCloseableDescriptor)
class MemoryTransport(StringTransport):
    """Remembers how it was ended."""

    aborted = half_closed = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def readConnectionLost(self, reason: Failure) -> None:
        """Nobody calls it here."""

    def writeConnectionLost(self, reason: Failure) -> None:
        """Nobody calls it here."""

    def abortConnection(self) -> None:
        self.aborted = True


class MemoryEndpoint:
    """A client endpoint whose one connection the test makes."""

    def __init__(self) -> None:
        self.cancelled = False
        self.factory: Any = None
        self.connecting: Deferred[Any] = Deferred(lambda _: setattr(self, "cancelled", True))
        self.transport = MemoryTransport()

    def connect(self, factory: Any) -> Deferred[Any]:
        self.factory = factory
        return self.connecting

    def succeed(self) -> Any:
        """Make the connection, and return its protocol."""
        service = self.factory.buildProtocol(None)
        service.makeConnection(self.transport)
        self.connecting.callback(service)
        return service
