"""What a service serves: an echo, a plain service behind it, or a factory of somebody's own."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.reflect import namedAny
from zope.interface import implementer

from mutauth_twisted.errors import UsageError
from mutauth_twisted.net.endpoints import parse_client
from mutauth_twisted.net.relay import RelayFactory
from mutauth_twisted.service.options import Settings

_log = Logger()


@implementer(IHalfCloseableProtocol)
class Echo(Protocol):
    """Sends back what comes, and reads no faster than the peer takes it."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.registerProducer(transport, True)

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def readConnectionLost(self) -> None:
        """The peer has said all; so have we, once it is sent."""
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """All is sent."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        transport: Any = self.transport
        transport.unregisterProducer()


class EchoFactory(Factory):
    """What ``--echo`` serves."""

    noisy = False
    protocol = Echo


def _plain_service_refused(target: str, failure: Failure) -> None:
    _log.error("the plain service at {target} cannot be reached: {error}", target=target, error=failure.getErrorMessage())


def application_factory(reactor: Any, settings: Settings) -> IProtocolFactory:
    """What ``--echo``, ``--forward`` or ``--factory`` asks to serve.

    :raises UsageError: when it cannot be made.
    """
    kind, argument = settings.serve
    if kind == "echo":
        return EchoFactory()
    if kind == "forward":
        return RelayFactory(parse_client(reactor, argument), partial(_plain_service_refused, argument))
    try:
        named = namedAny(argument)
        made = named if IProtocolFactory.providedBy(named) else named()
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise UsageError(f"--factory {argument}", cause, "give the dotted name of a factory") from error
    if not IProtocolFactory.providedBy(made):
        raise UsageError(f"--factory {argument}", "it is no IProtocolFactory and makes none", "give a factory's name")
    return made
