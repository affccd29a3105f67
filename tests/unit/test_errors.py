"""The errors: one line for people, whatever names are in it."""

from __future__ import annotations

import copy
import pickle

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted import errors
from mutauth_twisted.errors import (
    AccessDenied,
    AuthenticationError,
    DescriptorsUsedUp,
    KDCError,
    KDCRefused,
    KDCUnreachable,
    MutualAuthError,
    NetworkError,
    PeerError,
    PeerRefused,
    StreamCut,
    UsageError,
)
from mutauth_twisted.net.cut import ConnectionCut
from mutauth_twisted.text import printable


class LineTests(SynchronousTestCase):
    """Words of an error."""

    def test_object_cause_next_step(self) -> None:
        """The three parts in one line; the last may be missing."""
        self.assertEqual(
            str(MutualAuthError("the thing", "it broke", "fix it")), "the thing: it broke; fix it"
        )
        self.assertEqual(str(MutualAuthError("the thing", "it broke")), "the thing: it broke")

    def test_always_one_line(self) -> None:
        """Line breaks of the cause become blanks."""
        self.assertEqual(str(MutualAuthError("a", "b\n\n  c\r\nd")), "a: b c d")

    def test_nothing_a_terminal_obeys(self) -> None:
        """A name that others chose cannot colour, hide or forge a line."""
        hostile = "x\x1b[31m\x9b2J\u202etxt\u2028y\x00"
        line = str(MutualAuthError(hostile, hostile, hostile))
        self.assertTrue(line.isprintable(), line)
        self.assertIn("\\x1b[31m", line)

    def test_letters_stay(self) -> None:
        """Names in any script are shown as they are."""
        for text in ("Bücher", "東京", "Ω-1", ""):
            self.assertEqual(printable(text), text)


KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, MutualAuthError)
]


class TreeTests(SynchronousTestCase):
    """Differences by which errors are told apart."""

    def test_every_class_has_an_exit_code(self) -> None:
        """1 the answer is no, 2 wrong usage, 3 directory or network, 4 authentication refused."""
        self.assertGreater(len(KINDS), 15)
        for kind in KINDS:
            self.assertIn(kind.exit_code, (1, 2, 3, 4), kind)

    def test_copies(self) -> None:
        """Every error can be copied, for each of those who share a search, and says the same
        then.
        """
        for kind in KINDS:
            error = kind("the thing", "it broke", "fix it")
            error.left_behind = ("a file",)
            error.code = "clock-skew"
            for copied in (
                copy.copy(error),
                copy.deepcopy(error),
                pickle.loads(pickle.dumps(error)),
            ):
                self.assertIs(type(copied), kind)
                self.assertIsNot(copied, error)
                self.assertEqual((str(copied), vars(copied)), (str(error), vars(error)))

    def test_descriptors(self) -> None:
        """Where none is left the words are known, and the same for all."""
        line = str(DescriptorsUsedUp("alice"))
        self.assertIn(
            "alice: this process has no file descriptor left (EMFILE); raise LimitNOFILE=", line
        )

    def test_other_peoples_classes(self) -> None:
        """A cut stream is a lost connection to Twisted, and wrong usage a ValueError to anybody."""
        cut = ConnectionCut.of(StreamCut("a", "b", "c"))
        for kind in (StreamCut, NetworkError, ConnectionLost):
            self.assertIsInstance(cut, kind)
        self.assertEqual(str(cut), str(StreamCut("a", "b", "c")))
        self.assertEqual(cut.exit_code, StreamCut.exit_code)
        self.assertIsInstance(UsageError("a", "b"), ValueError)
        self.assertEqual(PeerRefused("a", "b", status=5).status, 5)
        self.assertEqual(PeerRefused("a", "b").status, 0)
        with self.assertRaisesRegex(TypeError, "AccessDenied has no attribute 'status'"):
            AccessDenied("a", "b", status=5)

    def test_the_kdc_is_nobody_else(self) -> None:
        """A KDC that is silent is network trouble, one that refuses a refusal; the peer has done
        nothing either way.
        """
        for kind, code, refused in ((KDCUnreachable, 3, False), (KDCRefused, 4, True)):
            self.assertTrue(issubclass(kind, KDCError))
            self.assertEqual(
                (kind.exit_code, issubclass(kind, AuthenticationError)), (code, refused)
            )
            self.assertFalse(issubclass(kind, PeerError))
