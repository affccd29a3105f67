"""Applications that a service can run: an echo, a relay to a plain service, or a factory of the
user's own.
"""

from __future__ import annotations

import inspect
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.python.reflect import InvalidName, ModuleNotFound, ObjectNotFound, namedAny
from zope.interface import implementer

from mutauth_twisted.errors import MutualAuthError, UsageError
from mutauth_twisted.gateway.backend import GatewayFactory, Introducer, make_backend
from mutauth_twisted.gateway.forwarded import proxy_introducer
from mutauth_twisted.gateway.ident import IdentFactory
from mutauth_twisted.gateway.proxyprotocol import ProxyHeader
from mutauth_twisted.gateway.relay import HalfClosed
from mutauth_twisted.log import LimitedLog, Log
from mutauth_twisted.settings.service import Settings

_log = Log()


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
    """Factory of ``--echo``."""

    noisy = False
    protocol = Echo


def _introducers(settings: Settings, ident: IdentFactory | None) -> list[Introducer]:
    """Introducers of clients to the plain service."""
    introducers: list[Introducer] = [] if ident is None else [ident.introduce]
    if settings.proxy_protocol:
        name = settings.service
        spn = f"{name.service_class}/{name.host}"
        introducers.append(proxy_introducer(spn, groups=settings.proxy_groups))
    return introducers


def _plain_service(
    reactor: Any, settings: Settings, target: str, ident: IdentFactory | None
) -> GatewayFactory:
    # While it is down, each client that comes back would have its line.
    failures = LimitedLog(reactor, _log, "connections to the plain service failed")

    def refused(failure: Failure) -> None:
        error = failure.value
        if isinstance(error, MutualAuthError):
            failures.line(error.code, error.subject, lambda: error.coded, LogLevel.error)
        else:
            _log.failure("internal error on the way to the backend", failure)

    backend = make_backend(
        reactor,
        target,
        _introducers(settings, ident),
        bind=None if ident is None else ident.address,
        timeout=settings.backend_timeout,
        unsafe=settings.unsafe_backend,
        greeting=ProxyHeader(local=True).encode() if settings.proxy_protocol else b"",
    )
    patience = HalfClosed(reactor, settings.half_closed_timeout)
    return GatewayFactory(backend, refused, patience)


def application_factory(
    reactor: Any, settings: Settings, ident: IdentFactory | None = None
) -> IProtocolFactory:
    """Return the factory that ``--echo``, ``--forward`` or ``--factory`` asks for.

    :param ident: tells a plain service who its clients are; None: nothing does.
    :raises UsageError: when it cannot be made.
    """
    kind, argument = settings.serve
    if kind == "echo":
        return EchoFactory()
    if kind == "forward":
        return _plain_service(reactor, settings, argument, ident)
    return _named_factory(argument)


def _named_factory(name: str) -> IProtocolFactory:
    """The factory of this dotted name, or what the callable of this name makes."""
    subject = f"--factory {name}"
    try:
        named = namedAny(name)
    except (InvalidName, ModuleNotFound, ObjectNotFound, AttributeError) as error:
        cause = "there is no such module, or nothing of this name in it"
        raise UsageError(
            subject,
            cause,
            "write package.module.Name, and see that PYTHONPATH leads there",
            code="factory-unusable",
        ) from error
    except Exception as error:
        cause = f"importing it fails with {type(error).__name__}: {error}"
        raise UsageError(
            subject,
            cause,
            "fix the module: python -m pydoc shows where it fails",
            code="factory-unusable",
        ) from error
    if IProtocolFactory.providedBy(named):
        return named
    if not callable(named):
        raise UsageError(
            subject,
            "it is neither a factory nor makes one",
            "name a Twisted factory, or what makes one",
            code="factory-unusable",
        )
    try:
        inspect.signature(named).bind()
    except TypeError as error:
        cause = f"it cannot be called without arguments: {error}"
        raise UsageError(
            subject,
            cause,
            "name a factory that is made already, or a function that makes it",
            code="factory-unusable",
        ) from error
    except ValueError:  # a callable of C does not tell what it takes
        _log.debug("{name} has no signature", name=name)
    try:
        made = named()
    except Exception as error:
        raise UsageError(
            subject,
            f"making it fails with {type(error).__name__}: {error}",
            "fix what makes it",
            code="factory-unusable",
        ) from error
    if not IProtocolFactory.providedBy(made):
        cause = f"it makes no factory (IProtocolFactory) but an object of {type(made).__name__}"
        raise UsageError(
            subject, cause, "name a Twisted factory, or what makes one", code="factory-unusable"
        )
    return made
