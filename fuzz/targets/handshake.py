"""The machine of the handshake, driven in any order a driver could come to."""

from __future__ import annotations

from fuzz.inputs import Choices
from mutauth_twisted.core.handshake import (
    AwaitOpening,
    Complete,
    Failed,
    Handshake,
    HandshakeEvent,
    Send,
    Step,
)
from mutauth_twisted.errors import AccessDenied, MutualAuthError, PeerNotAuthenticated, ServiceFull
from mutauth_twisted.wire import Fault, Token

_VERDICTS = (None, PeerNotAuthenticated, AccessDenied, ServiceFull)


class _Driver:
    """Does what the events say, and checks that they may say it.

    :param choices: the wire, the side, what the verification will say, and whether it finds another
        mutauth peer.
    """

    def __init__(self, choices: Choices) -> None:
        self.wire = choices.wire()
        self.initiator = choices.flag()
        self._verdict = _VERDICTS[choices.below(len(_VERDICTS))]
        self._mutauth = choices.flag()
        self._marked = False
        self.peer_mark = False
        self.awaiting = False
        self.opened = False
        self.stepping = False
        self.complete = False
        self.peer_done = False
        self.verified = 0
        self._sent = 0
        self.end: HandshakeEvent[str] | None = None
        self.machine: Handshake[str] = Handshake(
            initiator=self.initiator,
            wire=self.wire,
            peer="peer",
            verify=self._verify,
            is_mutauth=lambda identity: self._mutauth,
        )

    def _verify(self) -> str:
        assert self.complete, "an unfinished context was verified"
        assert not self.verified, "a context was verified twice"
        self.verified += 1
        if self._verdict is not None:
            raise self._verdict("peer", "it may not")
        return "somebody"

    def perform(self, events: list[HandshakeEvent[str]]) -> None:
        """Take the events of one input."""
        assert self.end is None or not events, f"{events} after {self.end}"
        for place, event in enumerate(events):
            assert self.end is None, f"{event} after {self.end}"
            if isinstance(event, Step):
                assert place == len(events) - 1 and not self.stepping, (
                    "a step is not the last thing to do"
                )
                assert not self.complete, "a complete context is to step"
                self.stepping = True
            elif isinstance(event, Send):
                self._check_sent(event)
            elif isinstance(event, AwaitOpening):
                assert self._marked and not self.awaiting, (
                    "an opening is awaited of somebody who knows nothing of it"
                )
                self.awaiting = True
            else:
                self.end = event
        if isinstance(self.end, Complete):
            assert self.verified and self._verdict is None, "established without a verification"
            assert self.complete, "established with an unfinished context"
            if self.initiator and self.wire.says_done:
                assert self.peer_done, "established without the service's done"
            if self.initiator:
                assert self.peer_mark or not self.end.mutauth, "a mark was seen that was not there"
            else:
                assert self.end.mutauth is self.opened is self._marked, (
                    "established without the client's opening"
                )
        assert self.machine.wants_opening == (self.awaiting and self.end is None)
        if self.end is not None:
            assert not self.machine.wants_frame, "a frame is wanted after the end"
        if self.initiator:
            assert self.machine.peer_must_wait == (not self._sent), "who speaks first is mistaken"
        else:
            assert not self.machine.peer_must_wait

    def _check_sent(self, event: Send) -> None:
        """It is one frame, to a peer that reads frames, and says no more than is true."""
        self._sent += 1
        reader = self.wire.reader()
        reader.feed(event.data)
        frame = reader.next_frame()
        assert frame is not None and not reader.pending, "what was sent is not one frame"
        assert (len(frame.payload) if isinstance(frame, Token) else None) == event.size
        if isinstance(frame, Token) and frame.mutauth:
            assert self._mutauth and not self.initiator, "a third-party peer gets a mark"
            self._marked = True
        if self.initiator:
            assert not self.peer_done, "a service that has finished was sent a frame"
        if isinstance(frame, Token) and frame.done:
            assert self.complete, "done was said too early"
            if not self.initiator:
                assert self.verified and self._verdict is None, (
                    "done was said without a verification"
                )


def _payload(choices: Choices) -> bytes:
    """A token: small ones of any size, the largest, and one too many."""
    size = choices.number()
    return bytes(size if size < 250 else 0xFFFF + size - 252)


def check(data: bytes) -> None:
    """One program: who we are, and then one input after the other."""
    choices = Choices(data)
    driver = _Driver(choices)
    machine = driver.machine
    driver.perform(machine.begin())
    error: MutualAuthError = PeerNotAuthenticated("peer", "the step failed")
    while choices:
        action, late = choices.below(6), driver.end is not None
        if action in (0, 1) and machine.wants_opening:
            driver.opened = True
            driver.perform(machine.opened())
            assert isinstance(driver.end, Complete)
        elif action in (0, 1) and machine.wants_frame:
            payload, mark = _payload(choices)[: driver.wire.max_token], action == 1
            token = Token(payload, driver.wire.says_done and choices.flag(), mark)
            driver.peer_done, driver.peer_mark = token.done, mark
            driver.perform(machine.received(token))
        elif action == 2 and machine.wants_frame:
            driver.perform(machine.received(Fault(choices.number(4))))
            assert isinstance(driver.end, Failed)
        elif action == 3 and driver.stepping:
            complete, token_out = choices.flag(), _payload(choices)
            driver.stepping = False
            driver.complete = complete and not late
            driver.perform(machine.stepped(token_out, complete))
        elif action == 4 and driver.stepping:
            driver.stepping = False
            driver.perform(machine.step_failed(error, _payload(choices)))
            assert isinstance(driver.end, Failed) or late
        elif action == 5:
            driver.perform(machine.abandon(error))
            assert driver.end is not None
