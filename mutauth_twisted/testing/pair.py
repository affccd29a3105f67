"""A client and a server that are authenticated to each other, without a KDC and a network."""

from __future__ import annotations

from typing import Any, cast

from attrs import frozen
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect

from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.net.protocol import HandshakeProtocol, HandshakeRole
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.fakes import FakeContext, HeldWorkers


@frozen
class AuthenticatedPair:
    """Two application protocols with a connection between them.

    Both transports provide IMutualAuthTransport.  Nothing moves until :meth:`flush`.

    :param client: the client's protocol.
    :param server: the server's.
    :param clock: the time that both live in.
    """

    client: Any
    server: Any
    clock: Clock
    _pump: IOPump

    def flush(self) -> None:
        """Carry what was written, and what is written in answer, to the other side."""
        self._pump.flush()

    def advance(self, seconds: float) -> None:
        """Let time pass, and carry what was written meanwhile."""
        self.clock.advance(seconds)
        self.flush()

    def cut(self) -> None:
        """Break the network's connection, as a router does: no side has said that it ends."""
        for transport in (self._pump.clientIO, self._pump.serverIO):
            transport.abortConnection()
        self.flush()


def authenticated_pair(
    server: IProtocolFactory,
    client: IProtocolFactory,
    *,
    principal: str = "alice@TEST.EXAMPLE",
    groups: tuple[str, ...] = (),
    spn: str = "echoSvc/srv1.test.example",
    limits: Limits | None = None,
) -> AuthenticatedPair:
    """Connect a server's protocol and a client's with the handshake and the records of the real
    thing; only the security contexts below are not Kerberos.

    :param server: builds the protocol whose ``transport.peer_identity`` is the client.
    :param client: builds the one whose ``transport.peer_identity`` is the service.
    :param principal: the client's, ``user@REALM``.
    :param groups: the SIDs of the client's groups.
    :param spn: what the client has asked for.
    :param limits: the server's; None: a session lasts as long as it likes.
    """
    clock, realm = Clock(), principal.rpartition("@")[2]
    accepting = FakeContext(initiator=False, principal=principal, groups=groups)
    initiating = FakeContext(initiator=True, principal=f"{spn}@{realm}", spn=SPN.parse(spn))
    near, far = _side(clock, accepting, server, limits), _side(clock, initiating, client)
    pump = connect(
        near,
        FakeTransport(near, isServer=True),
        far,
        FakeTransport(far, isServer=False),
        clock=clock,
    )
    return AuthenticatedPair(_built(far), _built(near), clock, pump)


def _side(
    clock: Clock, context: FakeContext, factory: IProtocolFactory, limits: Limits | None = None
) -> HandshakeProtocol:
    role = HandshakeRole(
        initiator=context.initiator,
        new_context=lambda peer, bindings: context,
        authorize=lambda identity: None,
        build_application=factory.buildProtocol,
        limits=limits,
    )
    workers = cast(Any, HeldWorkers())  # the contexts never block
    return HandshakeProtocol(clock, workers, SecurityOptions(), role)


def _built(side: HandshakeProtocol) -> IProtocol:
    """The application's protocol, or the error that there is none for."""
    results: list[Any] = []
    side.authenticated.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return cast(IProtocol, result)
