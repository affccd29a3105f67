"""The handshake: inputs and the events they lead to."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.handshake import (
    ACCESS_DENIED,
    LOGON_FAILURE,
    TARGET_MISMATCH,
    Complete,
    Failed,
    Handshake,
    HandshakeEvent,
    Send,
    Step,
)
from mutauth_twisted.errors import (
    AccessDenied,
    AuthenticationError,
    MutualAuthError,
    NetworkError,
    PeerNotAuthenticated,
    PeerRefused,
    ProtocolViolation,
)
from mutauth_twisted.mechanisms import NEGOTIATE, NTLM
from mutauth_twisted.testing.fakes import FakeContext
from mutauth_twisted.wire import NNS, Fault, Token

IDENTITY = "who the peer is"
Events = list[HandshakeEvent[str]]


class Verifier:
    """Judges with what it is told to, and counts how often it was asked."""

    def __init__(self) -> None:
        self.verdict: MutualAuthError | None = None
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        if self.verdict is not None:
            raise self.verdict
        return IDENTITY


def in_progress(payload: bytes) -> Send:
    """A token that is not the last."""
    return Send(NNS.token(payload, False), len(payload))


def done(payload: bytes) -> Send:
    """A last token."""
    return Send(NNS.token(payload, True), len(payload))


def fault(code: int) -> Send:
    """An error frame."""
    return Send(NNS.fault(code))


class Case(SynchronousTestCase):
    """One side of a handshake."""

    initiator: bool

    def setUp(self) -> None:
        self.verify = Verifier()
        self.side = Handshake(
            initiator=self.initiator, wire=NNS, peer="192.0.2.1:9000", verify=self.verify
        )

    def assert_failed(
        self, events: Events, kind: type[MutualAuthError], text: str, *sent: Send
    ) -> None:
        """The handshake ended with this error, after these frames and no other."""
        self.assertEqual(events[:-1], list(sent))
        last = events[-1]
        assert isinstance(last, Failed)
        self.assertIs(type(last.error), kind)
        self.assertIn(text, str(last.error))
        self.assertFalse(self.side.wants_frame)


class InitiatorTests(Case):
    """The client's side."""

    initiator = True

    def start(self) -> None:
        """To where the first token is sent."""
        self.side.begin()
        self.side.stepped(b"AP-REQ", False)

    def test_begin(self) -> None:
        """The first step needs no token, and the acceptor has to wait for its outcome."""
        self.assertEqual(self.side.begin(), [Step(None)])
        self.assertFalse(self.side.wants_frame)
        self.assertTrue(self.side.peer_must_wait)

    def test_first_token(self) -> None:
        """The first token goes out in progress, and the acceptor's is awaited."""
        self.side.begin()
        self.assertEqual(self.side.stepped(b"AP-REQ", False), [in_progress(b"AP-REQ")])
        self.assertTrue(self.side.wants_frame)
        self.assertFalse(self.side.peer_must_wait)

    def test_kerberos(self) -> None:
        """The acceptor's done with its token completes both the context and the handshake."""
        self.start()
        self.assertEqual(self.side.received(Token(b"AP-REP", True)), [Step(b"AP-REP")])
        self.assertEqual(self.verify.asked, 0)
        self.assertEqual(self.side.stepped(b"", True), [Complete(IDENTITY)])
        self.assertFalse(self.side.wants_frame)

    def test_acceptor_says_done_later(self) -> None:
        """A context that is complete is not yet a finished handshake: the acceptor's done is still
        to come.
        """
        self.start()
        self.side.received(Token(b"AP-REP", False))
        self.assertEqual(self.side.stepped(b"", True), [done(b"")])
        self.assertEqual(self.verify.asked, 0)
        self.assertTrue(self.side.wants_frame)
        self.assertEqual(self.side.received(Token(b"", True)), [Complete(IDENTITY)])

    def test_last_token_is_ours(self) -> None:
        """Our own last token goes out as done, and the acceptor's empty done ends the handshake."""
        self.start()
        self.side.received(Token(b"challenge", False))
        self.assertEqual(self.side.stepped(b"response", True), [done(b"response")])
        self.assertEqual(self.side.received(Token(b"", True)), [Complete(IDENTITY)])

    def test_one_way_package(self) -> None:
        """A context that is complete after one token is verified only after the acceptor's done."""
        self.side.begin()
        self.assertEqual(self.side.stepped(b"only", True), [done(b"only")])
        self.verify.verdict = PeerNotAuthenticated("it", "no mutual")
        self.assert_failed(self.side.received(Token(b"", True)), PeerNotAuthenticated, "no mutual")

    def test_token_after_the_end(self) -> None:
        """An acceptor that has another token for a complete context is refused."""
        for frame, sent in (
            (Token(b"more", False), [fault(LOGON_FAILURE)]),
            (Token(b"more", True), []),
        ):
            self.setUp()
            self.side.begin()
            self.side.stepped(b"only", True)
            self.assert_failed(
                self.side.received(frame),
                ProtocolViolation,
                "after the handshake was complete",
                *sent,
            )
            self.assertEqual(self.verify.asked, 0)

    def test_in_progress_after_the_end(self) -> None:
        """An empty frame that is not done does not confirm anything."""
        self.side.begin()
        self.side.stepped(b"only", True)
        self.assert_failed(
            self.side.received(Token(b"", False)),
            ProtocolViolation,
            "was complete",
            fault(LOGON_FAILURE),
        )

    def test_done_too_early(self) -> None:
        """A done of the acceptor while our context is incomplete ends the handshake, not
        authenticated, and nothing is sent.
        """
        self.start()
        self.side.received(Token(b"AP-REP", True))
        self.assert_failed(
            self.side.stepped(b"one more", False), ProtocolViolation, "before it was complete"
        )
        self.assertEqual(self.verify.asked, 0)

    def test_done_before_our_last_token(self) -> None:
        """A done of the acceptor while we still have a token to send proves nothing."""
        self.start()
        self.side.received(Token(b"AP-REP", True))
        self.assert_failed(self.side.stepped(b"last", True), ProtocolViolation, "too early")
        self.assertEqual(self.verify.asked, 0)

    def test_refused_by_verification(self) -> None:
        """A peer that is not authenticated is left without a word: it reads records already."""
        self.start()
        self.side.received(Token(b"AP-REP", True))
        self.verify.verdict = PeerNotAuthenticated(
            "echoSvc/h", "the handshake ended without mutual"
        )
        self.assert_failed(self.side.stepped(b"", True), PeerNotAuthenticated, "without mutual")

    def test_bad_last_token(self) -> None:
        """An acceptor's last token that does not verify is answered with nothing: it reads records
        already.
        """
        self.start()
        self.side.received(Token(b"AP-REP", True))
        self.assert_failed(
            self.side.step_failed(PeerNotAuthenticated("it", "bad"), b"error token"),
            PeerNotAuthenticated,
            "bad",
        )

    def test_bad_token_in_between(self) -> None:
        """A token that does not verify before the last is answered with the error token and the
        code.
        """
        self.start()
        self.side.received(Token(b"challenge", False))
        events = self.side.step_failed(PeerNotAuthenticated("it", "bad"), b"error token")
        self.assert_failed(
            events, PeerNotAuthenticated, "bad", in_progress(b"error token"), fault(LOGON_FAILURE)
        )

    def test_no_ticket(self) -> None:
        """A first step that fails tells the acceptor with a code."""
        self.side.begin()
        events = self.side.step_failed(NetworkError("KDC", "gone"))
        self.assert_failed(events, NetworkError, "gone", fault(LOGON_FAILURE))

    def test_refusals(self) -> None:
        """The acceptor's code is explained, and kept as a number."""
        for code, text in (
            (5, "access policy"),
            (
                1326,
                "it did not accept the client's tokens (code 0x52e); the service's log",
            ),
            (0x8009030C, "it did not accept the client's tokens"),
            (1790, "target name or the protection"),
            (0x80090322, "another service"),
            (77, "no known reason (code 0x4d)"),
        ):
            self.setUp()
            self.start()
            events = self.side.received(Fault(code))
            self.assert_failed(events, PeerRefused, text)
            assert isinstance(events[0], Failed)
            assert isinstance(events[0].error, PeerRefused)
            self.assertEqual(events[0].error.status, code)

    def test_refused_for_the_package(self) -> None:
        """A service that knows another package says no more than that it accepts nothing: what else
        to try is added.
        """
        for package, text in (
            (NEGOTIATE, "its package is another (code 0x52e); try package=kerberos"),
            (
                NTLM,
                "the user and password, or its package is another (code 0x52e); give both",
            ),
        ):
            self.side = Handshake(
                initiator=True, wire=NNS, peer="peer", verify=self.verify, refusal=package.refusal
            )
            self.start()
            self.assert_failed(self.side.received(Fault(LOGON_FAILURE)), PeerRefused, text)

    def test_refused_instead_of_done(self) -> None:
        """An acceptor may still refuse where its done is awaited."""
        self.side.begin()
        self.side.stepped(b"only", True)
        self.assert_failed(self.side.received(Fault(5)), PeerRefused, "access policy")
        self.assertEqual(self.verify.asked, 0)


class AcceptorTests(Case):
    """The service's side."""

    initiator = False

    def test_begin(self) -> None:
        """An acceptor says nothing first and waits for a token."""
        self.assertEqual(self.side.begin(), [])
        self.assertTrue(self.side.wants_frame)
        self.assertFalse(self.side.peer_must_wait)

    def test_kerberos(self) -> None:
        """The initiator's only token is answered with done and the last token, once the context is
        verified.
        """
        self.side.begin()
        self.assertEqual(self.side.received(Token(b"AP-REQ", False)), [Step(b"AP-REQ")])
        self.assertFalse(self.side.wants_frame)
        self.assertEqual(self.verify.asked, 0)
        self.assertEqual(self.side.stepped(b"AP-REP", True), [done(b"AP-REP"), Complete(IDENTITY)])

    def test_initiators_done(self) -> None:
        """The initiator's done is answered with an empty done."""
        self.side.begin()
        self.side.received(Token(b"only", True))
        self.assertEqual(self.side.stepped(b"", True), [done(b""), Complete(IDENTITY)])

    def test_more_tokens(self) -> None:
        """A context that needs another token asks for it."""
        self.side.begin()
        self.side.received(Token(b"negotiate", False))
        self.assertEqual(self.side.stepped(b"challenge", False), [in_progress(b"challenge")])
        self.assertTrue(self.side.wants_frame)

    def test_done_too_early(self) -> None:
        """An initiator that calls itself done while our context is incomplete is refused."""
        self.side.begin()
        self.side.received(Token(b"negotiate", True))
        events = self.side.stepped(b"challenge", False)
        self.assert_failed(
            events, ProtocolViolation, "before it was complete", fault(LOGON_FAILURE)
        )

    def test_halt(self) -> None:
        """A context that neither is complete nor has a token to send would wait forever: the
        handshake ends.
        """
        self.side.begin()
        self.side.received(Token(b"x", False))
        self.assert_failed(
            self.side.stepped(b"", False), ProtocolViolation, "stopped before", fault(LOGON_FAILURE)
        )

    def test_access_denied(self) -> None:
        """An authenticated client that is not allowed gets code 5, and never our last token."""
        self.side.begin()
        self.side.received(Token(b"AP-REQ", False))
        self.verify.verdict = AccessDenied("bob@X", "not allowed")
        self.assert_failed(
            self.side.stepped(b"AP-REP", True), AccessDenied, "not allowed", fault(ACCESS_DENIED)
        )

    def test_refused_by_verification(self) -> None:
        """A client whose context lacks a flag gets code 1790, and never our last token."""
        self.side.begin()
        self.side.received(Token(b"AP-REQ", False))
        self.verify.verdict = AuthenticationError("it", "without sequence")
        events = self.side.stepped(b"AP-REP", True)
        self.assert_failed(events, AuthenticationError, "without sequence", fault(TARGET_MISMATCH))

    def test_failed_step(self) -> None:
        """A failed accept sends the error token, so that the client can say why, and the code."""
        self.side.begin()
        self.side.received(Token(b"AP-REQ", False))
        events = self.side.step_failed(PeerNotAuthenticated("it", "wrong key"), b"KRB-ERROR")
        self.assert_failed(
            events,
            PeerNotAuthenticated,
            "wrong key",
            in_progress(b"KRB-ERROR"),
            fault(LOGON_FAILURE),
        )

    def test_failed_step_without_token(self) -> None:
        """A failed accept without an error token sends the code alone."""
        self.side.begin()
        self.side.received(Token(b"junk", False))
        events = self.side.step_failed(ProtocolViolation("it", "junk"))
        self.assert_failed(events, ProtocolViolation, "junk", fault(LOGON_FAILURE))

    def test_initiator_gives_up(self) -> None:
        """An initiator's error frame ends the handshake, and is not answered."""
        self.side.begin()
        self.assert_failed(self.side.received(Fault(1790)), PeerRefused, "gave up (code 0x6fe)")

    def test_too_large_a_token(self) -> None:
        """A token that no frame can carry ends the handshake instead of being sent in part."""
        self.side.begin()
        self.side.received(Token(b"x", False))
        events = self.side.stepped(bytes(NNS.max_token + 1), True)
        self.assert_failed(events, ProtocolViolation, "too large", fault(LOGON_FAILURE))
        self.assertEqual(self.verify.asked, 0)

    def test_too_large_an_error_token(self) -> None:
        """An error token that no frame can carry is left out."""
        self.side.begin()
        self.side.received(Token(b"x", False))
        events = self.side.step_failed(PeerNotAuthenticated("it", "no"), bytes(NNS.max_token + 1))
        self.assert_failed(events, PeerNotAuthenticated, "no", fault(LOGON_FAILURE))


class AbandonTests(Case):
    """Ends of a handshake from outside."""

    initiator = True

    def test_in_every_state(self) -> None:
        """A deadline ends the handshake wherever it stands, once, and nothing is sent."""
        for prepare in (
            lambda: None,
            lambda: self.side.begin(),
            lambda: (self.side.begin(), self.side.stepped(b"1", False)),
            lambda: (self.side.begin(), self.side.stepped(b"1", True)),
        ):
            self.setUp()
            prepare()
            self.assert_failed(
                self.side.abandon(NetworkError("it", "too late")), NetworkError, "too late"
            )
            self.assertEqual(self.side.abandon(NetworkError("it", "again")), [])

    def test_late_steps(self) -> None:
        """A step that comes back from its thread after the end leads to nothing at all."""
        for late in (
            lambda: self.side.stepped(b"token", False),
            lambda: self.side.stepped(b"token", True),
            lambda: self.side.stepped(b"", True),
            lambda: self.side.stepped(b"", False),
            lambda: self.side.stepped(bytes(NNS.max_token + 1), False),
            lambda: self.side.step_failed(PeerNotAuthenticated("it", "late"), b"error"),
        ):
            self.setUp()
            self.side.begin()
            self.side.abandon(NetworkError("it", "too late"))
            self.assertEqual(late(), [])
            self.assertFalse(self.side.wants_frame)
            self.assertEqual(self.verify.asked, 0)

    def test_tokens_stay_out_of_sight(self) -> None:
        """A token's value is not in an event's representation, which may end in a log."""
        self.assertNotIn("secret", repr([Step(b"secret"), Send(b"secret", 6)]))


class PairTests(SynchronousTestCase):
    """Both sides together, over contexts of any number of tokens."""

    def handshake(self, legs: int) -> tuple[list[Send], Events, Events]:
        """Run both sides to their end: what was sent, and each one's last events."""
        contexts = {
            initiator: FakeContext(initiator=initiator, legs=legs) for initiator in (True, False)
        }
        sides = {
            i: Handshake(initiator=i, wire=NNS, peer="peer", verify=Verifier())
            for i in (True, False)
        }
        readers = {i: NNS.reader() for i in (True, False)}
        ends: dict[bool, Events] = {True: [], False: []}
        sent: list[Send] = []

        def carry_out(initiator: bool, events: Events) -> None:
            for event in events:
                if isinstance(event, Step):
                    outcome = contexts[initiator].step(event.token)
                    carry_out(initiator, sides[initiator].stepped(outcome.token, outcome.complete))
                elif isinstance(event, Send):
                    sent.append(event)
                    readers[not initiator].feed(event.data)
                else:
                    ends[initiator].append(event)

        for initiator in (False, True):
            carry_out(initiator, sides[initiator].begin())
        for _ in range(legs + 2):
            for initiator in (True, False):
                while (
                    sides[initiator].wants_frame
                    and (frame := readers[initiator].next_frame()) is not None
                ):
                    carry_out(initiator, sides[initiator].received(frame))
        self.assertEqual([reader.pending for reader in readers.values()], [0, 0])
        return sent, ends[True], ends[False]

    @settings(max_examples=20, deadline=None)
    @given(legs=st.integers(1, 12))
    def test_any_number_of_tokens(self, legs: int) -> None:
        """Both sides are established after every token was sent once, in turn, and the acceptor
        said done.
        """
        sent, initiators, acceptors = self.handshake(legs)
        self.assertEqual((initiators, acceptors), ([Complete(IDENTITY)], [Complete(IDENTITY)]))
        # An initiator's last token is followed by the acceptor's empty done.
        self.assertEqual(len(sent), legs + legs % 2)
        self.assertEqual(sent[-1].data[0], 0x14)

    def test_five_tokens(self) -> None:
        """With five tokens the initiator has the last one and calls it done; the acceptor
        confirms.
        """
        sent, _, _ = self.handshake(5)
        self.assertEqual([frame.data[0] for frame in sent], [0x16, 0x16, 0x16, 0x16, 0x14, 0x14])
        self.assertEqual(sent[-1].data, NNS.token(b"", True))

    def test_six_tokens(self) -> None:
        """With six tokens the acceptor has the last one, and its done ends the handshake."""
        sent, _, _ = self.handshake(6)
        self.assertEqual([frame.data[0] for frame in sent], [0x16] * 5 + [0x14])
