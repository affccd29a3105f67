"""serviceBindingInformation as text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.directory.binding import BindingError, BindingInformation

_NUMBER = st.integers(0, 65535)
_WORD = st.text(
    st.characters(exclude_characters=";=", exclude_categories=["C", "Z"]), min_size=1, max_size=12
)
_KEY = st.text("abcdefgh-x", min_size=1, max_size=8)
_BINDINGS = st.builds(
    BindingInformation,
    port=st.integers(1, 65535),
    priority=_NUMBER,
    weight=_NUMBER,
    wire=st.one_of(st.just("nns"), _WORD),
    protection=st.one_of(st.just("seal"), _WORD),
    spn_form=st.one_of(st.just("dn"), _WORD),
    extra=st.dictionaries(_KEY, st.one_of(st.just(""), _WORD), max_size=3),
)


class BindingInformationTests(SynchronousTestCase):
    """Written for the sample's readers, read from anybody."""

    def test_bare_port(self) -> None:
        """With nothing unusual it is what Microsoft's sample writes and reads."""
        self.assertEqual(str(BindingInformation(9000)), "9000")
        self.assertEqual(BindingInformation.parse("9000"), BindingInformation(9000))

    def test_what_differs_is_written(self) -> None:
        """And only that."""
        binding = BindingInformation(9000, priority=1, weight=5, spn_form="guid")
        self.assertEqual(str(binding), "9000;priority=1;weight=5;spn=guid")

    def test_tolerance(self) -> None:
        """Blanks, the case of keys, empty parts, order and unknown keys do no harm."""
        read = BindingInformation.parse(" 9000 ; SPN = guid;;Future=Some Thing; weight=7;flag ")
        self.assertEqual(
            read,
            BindingInformation(
                9000, weight=7, spn_form="guid", extra={"future": "Some Thing", "flag": ""}
            ),
        )
        self.assertEqual(BindingInformation.parse(str(read)), read)

    def test_malformed(self) -> None:
        """Every fault is one error of one class, in one line."""
        for text in (
            "",
            "x",
            "0",
            "65536",
            "-1",
            "+9000",
            "9000.0",
            "\uff19\uff10",
            "9000 9001",
            ";9000",
            "9000;priority=",
            "9000;priority=x",
            "9000;weight=65536",
            "9000;wire=",
            "9000;wire=a=b",
            "9000;=x",
            "9" * 5000,
        ):
            error = self.assertRaises(BindingError, BindingInformation.parse, text)
            self.assertLess(len(str(error)), 300)

    def test_what_cannot_be_written_is_refused(self) -> None:
        """Before it gets into the directory."""
        for values in (
            {"port": 0},
            {"port": 65536},
            {"port": 1, "priority": -1},
            {"port": 1, "wire": "a;b"},
            {"port": 1, "protection": ""},
            {"port": 1, "extra": {"wire": "nns"}},
            {"port": 1, "extra": {"UPPER": "x"}},
            {"port": 1, "extra": (("a", "1"), ("a", "2"))},
        ):
            self.assertRaises(BindingError, BindingInformation, **values)

    @given(_BINDINGS)
    def test_round_trip(self, binding: BindingInformation) -> None:
        """A binding that was written is read back, and the port comes first."""
        text = str(binding)
        self.assertEqual(BindingInformation.parse(text), binding)
        self.assertTrue(text.split(";")[0] == str(binding.port))

    @given(st.text(max_size=80))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """Nothing else ever comes out."""
        try:
            binding = BindingInformation.parse(text)
        except BindingError:
            return
        self.assertEqual(BindingInformation.parse(str(binding)), binding)
