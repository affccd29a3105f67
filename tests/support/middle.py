"""An attacker in the middle, who can do anything to the bytes and has no key.

:class:`Conversation` puts one between the package's own two sides, in memory and with real Kerberos
contexts: a client that asks a question, a service that answers, and both closing in order.  The
integration tests do the same over TCP (``tests/integration/handshake_case.py``).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.context import SecurityContext
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator, ServiceKeys
from mutauth_twisted.net.transport import LINGER
from mutauth_twisted.testing.fakes import Recorder
from mutauth_twisted.testing.forge import make_realm
from tests.support.sides import IDLE, Bare, Peer, Script, Side
from tests.support.tampering import (
    DOWN,
    QUESTION,
    SPN_ASKED,
    UP,
    Attempt,
    Splitter,
    Tamper,
    check,
    name,
    numbers,
    untouched,
)


def asking(context: SecurityContext, security: SecurityOptions, *, closes: bool = True) -> Peer:
    """A client that asks its question.

    :param closes: whether it closes when it has its answer.
    """

    def prepare(application: Recorder) -> None:
        application.on_connect = lambda transport: transport.write(QUESTION)
        if closes:
            application.on_data = lambda transport, data: transport.loseConnection()

    return Peer(context, security, prepare)


def answering(
    context: SecurityContext, security: SecurityOptions, *, closes: bool = False, **options: Any
) -> Peer:
    """A service that answers.

    :param closes: whether it closes behind its answer.
    :param options: of :class:`Peer`.
    """

    def answer(transport: Any, data: bytes) -> None:
        transport.write(data.upper())
        if closes:
            transport.loseConnection()

    return Peer(
        context, security, lambda application: setattr(application, "on_data", answer), **options
    )


class Conversation:
    """One connection between two sides in memory, with an attacker in the middle.

    :param client: see :func:`asking`.
    :param server: see :func:`answering`.
    :param security: what both have agreed on.
    :param tamper: what the one in the middle does to messages.
    :param mute: a direction in which ends of connections do not arrive.
    """

    def __init__(
        self,
        client: Side,
        server: Side,
        security: SecurityOptions,
        tamper: Tamper = untouched,
        mute: str | None = None,
    ) -> None:
        self.client, self.server = client, server
        self._ways = {UP: (client, server), DOWN: (server, client)}
        self._security = security
        self._tamper = tamper
        self._mute = mute
        self._splitters = {
            direction: Splitter(security.wire, direction) for direction in self._ways
        }
        self._numbers = {direction: numbers(direction) for direction in self._ways}
        self._ended: set[str] = set()
        self._gave_up = False

    def hold(self) -> Attempt:
        """Carry it to its end, which has to come when every deadline has passed.

        :raises AssertionError: when a side hangs.
        """
        self._carry()
        # A client's application that waits in vain closes.
        if self.client.give_up():
            self._gave_up = True
            self._carry()
        for wait in (self._security.timeout, LINGER, IDLE, LINGER):
            if not (self.client.lost and self.server.lost):
                self.client.advance(wait)
                self.server.advance(wait)
                self._carry()
        assert self.client.lost, "the client hangs"
        assert self.server.lost, "the service hangs"
        return self._attempt()

    def _carry(self) -> None:
        while self._move(UP) | self._move(DOWN) or self._flush(UP) | self._flush(DOWN):
            pass

    def _move(self, direction: str) -> bool:
        """Carry what one side has written, and its end; whether there was anything."""
        source, target = self._ways[direction]
        data = source.take()
        for message in self._splitters[direction].feed(data):
            for piece in self._tamper(direction, next(self._numbers[direction]), message):
                if piece is None:
                    source.lose()
                    target.lose()
                    return True
                target.receive(piece)
        return self._move_end(direction) or bool(data)

    def _flush(self, direction: str) -> bool:
        """Carry what is not a message: one side read what it got in another way."""
        rest = self._splitters[direction].rest()
        self._ways[direction][1].receive(rest)
        return bool(rest)

    def _move_end(self, direction: str) -> bool:
        """Carry the end of one side's half, and of its connection; whether there was any."""
        source, target = self._ways[direction]
        moved = False
        if source.leaving and not source.lost:
            self._flush(direction)
            source.lose()
            if source.aborted and direction != self._mute:
                target.lose(ConnectionLost())
            moved = True
        if (source.half_closed or source.lost) and direction not in self._ended:
            self._flush(direction)
            self._ended.add(direction)
            if not source.lost:
                source.written()
            if direction != self._mute and not target.lost:
                target.other_ended()
            moved = True
        return moved

    def _attempt(self) -> Attempt:
        attempt = Attempt(self.client.error, self.server.error, gave_up=self._gave_up)
        for peer in (self.client, self.server):
            if (identity := peer.identity) is None:
                continue
            attempt.proofs.add((identity.protection, int(identity.flags)))
            if peer is self.client:
                attempt.spn, attempt.client = identity.spn, peer.received
            else:
                attempt.principals, attempt.server = (identity.principal,), peer.received
        return attempt


class MiddleCase(SynchronousTestCase):
    """A service ``svc-echo`` with its keys, and alice with a ticket for it; no KDC.

    :cvar driver: whether both sides run under the Twisted driver, or bare.
    :cvar size: how many bytes a bare side is given at a time; None: as they come.
    """

    driver = False
    size: int | None = None

    def setUp(self) -> None:
        self.realm = make_realm(self)
        self.keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")))
        self.ccache = self.realm.ccache("alice", str(SPN_ASKED), "svc-echo")

    def initiator(self, security: SecurityOptions) -> KerberosInitiator:
        """Alice's context."""
        return KerberosInitiator(
            SPN_ASKED, ClientCredentials(ccache=self.ccache), security.protection
        )

    def conversation(
        self,
        security: SecurityOptions,
        tamper: Tamper = untouched,
        *,
        mute: str | None = None,
        closes: str = UP,
        keys: ServiceKeys | None = None,
        **options: Any,
    ) -> Conversation:
        """A mutauth client and service.

        :param closes: the direction of whoever closes first.
        :param options: of :class:`Bare` and :class:`Peer`, for the service.
        """
        initiator, acceptor = self.initiator(security), (keys or self.keys).acceptor("client")
        client: Side
        server: Side
        if self.driver:
            client = asking(initiator, security, closes=closes == UP)
            server = answering(acceptor, security, closes=closes == DOWN, **options)
        else:
            client = Bare(
                initiator, security, Script(QUESTION, closes=closes == UP), size=self.size
            )
            answers = Script(answers=True, closes=closes == DOWN)
            server = Bare(acceptor, security, answers, size=self.size, **options)
        return Conversation(client, server, security, tamper, mute)

    def attempt(
        self, security: SecurityOptions, tamper: Tamper = untouched, what: str = "", **options: Any
    ) -> Attempt:
        """Hold a conversation, and see that nothing went wrong that must not."""
        attempt = self.conversation(security, tamper, **options).hold()
        check(self, attempt, f"{name(security)}: {what}", protection=security.protection)
        return attempt

    def messages(self, security: SecurityOptions, **options: Any) -> dict[tuple[str, int], bytes]:
        """Every message of an undisturbed conversation."""
        found: dict[tuple[str, int], bytes] = {}

        def note(direction: str, number: int, message: bytes) -> list[bytes | None]:
            found[direction, number] = message
            return [message]

        self.conversation(security, note, **options).hold()
        return found
