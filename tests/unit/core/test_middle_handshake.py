"""Every byte of the handshake changed, and cut off at every byte, by an attacker in the middle;
with real tickets.

What may be changed without anybody's noticing is listed in tests/unread.py, bit
by bit and with the reason; these tests fail for one more and for one less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from mutauth_twisted.core.context import StepFailed
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ServiceCredentials
from mutauth_twisted.errors import (
    AccessDenied,
    AuthenticationError,
    NetworkError,
    RecordError,
    StreamCut,
)
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.mechanisms.kerberos import ServiceKeys
from mutauth_twisted.protection import Protection
from mutauth_twisted.wire import NNS, WINSOCK
from tests.support.middle import MiddleCase, answering, asking
from tests.support.tampering import (
    CHANNELS,
    DOWN,
    SPN_ASKED,
    TOKEN,
    UP,
    Attempt,
    cut,
    flip,
    flipped,
    name,
    replace,
    silence,
)
from tests.unread import HEADER, mark_in_token, swept, unread_in_token

SEALED = (SecurityOptions(NNS), SecurityOptions(WINSOCK))


class FlipTests(MiddleCase):
    """One bit changed."""

    def sweep(self, security: SecurityOptions, direction: str) -> list[Attempt]:
        """Change every byte of a side's token; how it went where that was noticed."""
        frame = self.messages(security)[direction, TOKEN]
        # Tokens do not depend on the protection: for one of the two a bit of every byte will do.
        every = security.protection is Protection.SEAL
        bits = (
            list(swept(frame, security.wire))
            if every
            else [(position, position % 8) for position in range(len(frame))]
        )
        attempts = {
            (position, bit): self.attempt(
                security,
                replace(direction, TOKEN, flip(position, bit)),
                f"{direction}, byte {position}, bit {bit}",
            )
            for position, bit in bits
        }
        unnoticed = {bit for bit, attempt in attempts.items() if attempt.harmless}
        unread = unread_in_token(frame, security.wire, from_service=direction == DOWN)
        self.assertEqual(unnoticed, unread & set(bits), f"{name(security)}: {direction}")
        self.unmarked = [
            attempts.pop(bit)
            for bit in mark_in_token(security.wire) & set(bits)
            if direction == DOWN
        ]
        return [attempt for attempt in attempts.values() if not attempt.harmless]

    def test_request(self) -> None:
        """A client's token that was changed opens nothing on either side, unless nobody reads what
        was changed.
        """
        for security in CHANNELS:
            for attempt in self.sweep(security, UP):
                self.assertEqual((attempt.principals, attempt.spn), ((), None))
                self.assertIsInstance(attempt.server_error, (AuthenticationError, NetworkError))
                self.assertIsInstance(attempt.error, (AuthenticationError, NetworkError))

    def test_reply(self) -> None:
        """A service's token that was changed opens nothing on either side, nor does its mark that
        was removed.
        """
        for security in CHANNELS:
            for attempt in self.sweep(security, DOWN):
                self.assertEqual((attempt.principals, attempt.spn), ((), None))
                self.assertIs(type(attempt.server_error), NetworkError)
                self.assertIsInstance(attempt.error, (AuthenticationError, NetworkError))
            self.assertTrue(self.unmarked or security.protection is Protection.SIGN)
            for attempt in self.unmarked:
                # The client takes it for a third-party service, and is never answered: see
                # MarkTests.
                self.assertEqual((attempt.principals, attempt.spn), ((), SPN_ASKED))
                self.assertIs(type(attempt.server_error), RecordError)
                self.assertIsInstance(attempt.error, StreamCut)

    def test_refusal(self) -> None:
        """A refusal that was changed stays one, whatever it says then."""

        def authorize(identity: PeerIdentity) -> None:
            raise AccessDenied(identity.principal, "not allowed")

        others = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-other")))
        refusals: list[dict[str, Any]] = [{"keys": others}, {"authorize": authorize}]
        for security, options in product(SEALED, refusals):
            messages = self.messages(security, **options)
            # A KRB-ERROR for another key, where the wire has one a code; on winsock a close is all
            # who is denied sees.
            expected = {
                NNS: 1 if "authorize" in options else 2,
                WINSOCK: 0 if "authorize" in options else 1,
            }[security.wire]
            refusal = [number for direction, number in messages if direction == DOWN]
            self.assertEqual(len(refusal), expected)
            for number in refusal:
                for position in range(len(messages[DOWN, number])):
                    tamper = replace(DOWN, number, flip(position, position % 8))
                    attempt = self.attempt(
                        security, tamper, f"refusal {number}, byte {position}", **options
                    )
                    self.assertEqual((attempt.principals, attempt.spn), ((), None))
                    self.assertIsInstance(attempt.error, (AuthenticationError, NetworkError))

    def test_clients_refusal(self) -> None:
        """A client's word that it gives up, changed, ends the handshake as well; the wire without
        such words has none.
        """
        security, fault = SecurityOptions(NNS), NNS.fault(1326)
        self.assertEqual(WINSOCK.fault(1326), b"")
        for position, bit in product(range(len(fault)), range(8)):
            service = answering(self.keys.acceptor("client"), security)
            service.receive(flipped(fault, position, bit))
            service.reactor.advance(security.timeout)
            self.assertEqual((service.factory.built, service.transport.disconnecting), ([], True))
            self.assertIsInstance(service.error, (AuthenticationError, NetworkError))

    def test_one_session(self) -> None:
        """A token that was refused for a change is not remembered; what was accepted with one is,
        and opens nothing again.
        """
        for wire, security in ((security.wire, security) for security in SEALED):
            client = asking(self.initiator(security), security)
            frame = client.transport.take()
            header, harmless = HEADER[wire.name], unread_in_token(frame, wire)
            for position, bit in swept(frame, wire):
                if position >= header and (position, bit) not in harmless:
                    acceptor, token = (
                        self.keys.acceptor("client"),
                        flipped(frame, position, bit)[header:],
                    )
                    try:
                        self.assertFalse(acceptor.step(token).complete)
                    except StepFailed:
                        continue
            position, bit = max(harmless)
            for number, data in enumerate((flipped(frame, position, bit), frame)):
                server = answering(self.keys.acceptor("client"), security)
                server.receive(data)
                client.receive(server.transport.take())
                server.receive(client.transport.take())
                self.assertEqual(len(server.factory.built), 1 - number, name(security))
            self.assertIn("replay", str(server.error))


class CutTests(MiddleCase):
    """A token of which the end does not come."""

    def cuts(
        self, direction: str, securities: Sequence[SecurityOptions] = CHANNELS
    ) -> Iterator[tuple[SecurityOptions, int]]:
        """Every place where a side's token can be cut."""
        for security in securities:
            for end in range(len(self.messages(security)[direction, TOKEN]) - 2):
                yield security, end

    def test_closed(self) -> None:
        """Where the connection ends within a token both sides say so, and nobody is allowed by half
        a token.
        """
        for direction in (UP, DOWN):
            for security, end in self.cuts(direction):
                attempt = self.attempt(
                    security, cut(direction, TOKEN, end), f"{direction}, cut at {end}"
                )
                self.assert_cut(attempt, direction, "closed the connection during the handshake")

    def test_silent(self) -> None:
        """Where nothing follows half a token the deadline ends it."""
        for direction in (UP, DOWN):
            for security, end in self.cuts(direction, SEALED):
                attempt = self.attempt(
                    security,
                    silence(direction, TOKEN, end),
                    f"{direction}, silent from {end}",
                    mute=direction,
                )
                self.assert_cut(attempt, direction, "the handshake was not complete within 10 s")

    def assert_cut(self, attempt: Attempt, direction: str, text: str) -> None:
        """Neither side has anything; a service that has answered hears no opening."""
        self.assertEqual((attempt.spn, attempt.principals), (None, ()))
        self.assertIs(type(attempt.error), NetworkError)
        self.assertIs(type(attempt.server_error), NetworkError)
        self.assertIn(text, str(attempt.server_error if direction == UP else attempt.error))


class BytewiseFlipTests(FlipTests):
    """The same, where all comes a byte at a time."""

    size = 1


class BytewiseCutTests(CutTests):
    """The same, where all comes a byte at a time."""

    size = 1


class DriverCutTests(CutTests):
    """The same on the Twisted driver, with its timers."""

    driver = True
