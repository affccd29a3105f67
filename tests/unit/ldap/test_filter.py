"""Bytes of a search filter as they are sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from ldap3.operation import search
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.ldap import session  # corrects ldap3
from mutauth_twisted.ldap.filter import correct_ldap3, equals, matches, sent_for

assert session


def parsed(text: str) -> list[bytes]:
    """The pieces of a filter's one value, as they are sent."""
    tree = search.parse_filter(text, None, True, True, None, False)
    substrings = search.compile_filter(tree.elements[0])["substringFilter"]["substrings"]
    return [bytes(each.getComponent()) for each in substrings]


class FilterTests(SynchronousTestCase):
    """Every value arrives as it is."""

    @given(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.binary(min_size=1)
        )
    )
    def test_every_value_is_sent_as_it_is(self, value: str | bytes) -> None:
        """Escapes, blanks at the edges and all."""
        raw = value.encode() if isinstance(value, str) else value
        self.assertEqual(sent_for(equals("x", value)[3:-1]), raw)

    def test_pieces_of_a_pattern(self) -> None:
        """Text between the stars is sent as it is."""
        for pattern, pieces in (
            ("a\\, b*", ["a\\, b"]),
            ("*)(x=*ü", [")(x=", "ü"]),
            ("a *\\2a* b", ["a ", "\\2a", " b"]),
        ):
            self.assertEqual(parsed(matches("x", pattern)), [piece.encode() for piece in pieces])

    def test_again(self) -> None:
        """Correcting twice is correcting once."""
        before = search.prepare_filter_for_sending
        correct_ldap3()
        self.assertIs(search.prepare_filter_for_sending, before)
        self.assertEqual(sent_for("\\5c2a"), b"\\2a")
