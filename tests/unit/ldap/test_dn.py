"""DNs, filters and GUIDs as text."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from ldap3.utils.dn import parse_dn
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import UsageError
from mutauth_twisted.ldap.dn import (
    child_dn,
    common_name,
    domain_of,
    escape_rdn_value,
    guid_dn,
    is_dn,
    parent_of,
    parse_guid,
    same_dn,
)
from mutauth_twisted.ldap.filter import all_of, any_of, equals, matches
from mutauth_twisted.names import check_host_name, fold_ascii

_PARENT = "CN=Computers,DC=lab,DC=example"
_VALUES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20
)


class DNTests(SynchronousTestCase):
    """Distinguished names."""

    @given(_VALUES)
    def test_a_value_never_leaves_its_place(self, value: str) -> None:
        """With any name, the DN has one component more, below the parent."""
        dn = child_dn(value, _PARENT)
        self.assertEqual(parent_of(dn), _PARENT)
        self.assertEqual(domain_of(dn), "lab.example")
        self.assertTrue(is_dn(dn))
        self.assertTrue(same_dn(dn, fold_ascii(dn)))
        self.assertEqual(common_name(dn), value)

    def test_look_alikes(self) -> None:
        """Names that Unicode folds together are two objects, and no name of a host."""
        for other in ("\u017frv1", "\u212aiosk", "cro\u00df"):
            honest = other.casefold()
            self.assertFalse(same_dn(child_dn(honest, _PARENT), child_dn(other, _PARENT)))
            self.assertIn(
                "not a valid host name",
                str(self.assertRaises(UsageError, check_host_name, other, "host")),
            )
            self.assertEqual(check_host_name(honest + ".", "host"), honest)

    def test_escapes(self) -> None:
        """RFC 4514, section 2.4."""
        for value, escaped in (
            ("plain", "plain"),
            (" a b ", "\\ a b\\ "),
            ("#a#", "\\#a#"),
            ('a,b+c"d\\e<f>g;h=i', 'a\\,b\\+c\\"d\\\\e\\<f\\>g\\;h\\=i'),
            ("a\nb\0", "a\\0Ab\\00"),
            ("ü", "ü"),
        ):
            self.assertEqual(escape_rdn_value(value), escaped)
        self.assertEqual(len(parse_dn(child_dn('a,b+c"d\\e', _PARENT))), 4)
        self.assertEqual(common_name(child_dn("a\\2Cb", _PARENT)), "a\\2Cb")

    def test_is_dn(self) -> None:
        """A keyword with a = in it is not a DN."""
        self.assertTrue(is_dn("CN=a\\,b,CN=x,DC=lab,DC=example"))
        for text in ("", "echo", "a=b", "CN=a,OU=b", "CN=a,,DC=b", "DC=", "=,DC=x"):
            self.assertFalse(is_dn(text), text)

    def test_parts(self) -> None:
        """Parent and domain of a DN."""
        self.assertEqual(parent_of("CN=a\\,b\\\\,CN=x,DC=y"), "CN=x,DC=y")
        self.assertEqual(parent_of("DC=y"), "")
        self.assertEqual(domain_of("CN=a,dc=Lab,DC=example"), "lab.example")

    def test_same_dn(self) -> None:
        """Case and the spelling of escapes do not count; values do."""
        self.assertTrue(same_dn("CN=a\\,b,DC=x", "cn=A\\2Cb,dc=X"))
        self.assertTrue(same_dn("CN=ü,DC=x", "CN=\\C3\\BC,DC=x"))
        self.assertFalse(same_dn("CN=a,DC=x", "CN=b,DC=x"))
        self.assertFalse(same_dn("CN=a\\\\2Cb,DC=x", "CN=a\\,b,DC=x"))
        self.assertFalse(same_dn("CN=a,DC=x", "CN=a,DC=x,DC=y"))


class FilterTests(SynchronousTestCase):
    """Search filters."""

    @given(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.binary(max_size=20)
        )
    )
    def test_a_value_cannot_add_to_the_filter(self, value: str | bytes) -> None:
        """No parenthesis, star or NUL of the value is left bare."""
        text = equals("keywords", value)
        self.assertTrue(text.startswith("(keywords=") and text.endswith(")"))
        inside = text[len("(keywords=") : -1]
        self.assertFalse(set("()*\0") & set(inside))
        self.assertTrue(inside.isascii())

    def test_patterns(self) -> None:
        """Only the star is special; nothing else of a pattern reaches the filter bare."""
        for pattern, text in (
            ("host/a", "(s=host/a)"),
            ("*", "(s=*)"),
            ("**", "(s=*)"),
            ("host/*.lab.*", "(s=host/*.lab.*)"),
            ("*)(o=*", "(s=*\\29\\28\\6f\\3d*)"),
            ("a\\*b", "(s=\\61\\5c*b)"),
            ("\u00fc*", "(s=\\c3\\bc*)"),
        ):
            self.assertEqual(matches("s", pattern), text)

    def test_composition(self) -> None:
        """And, or, and a plain value that stays readable."""
        self.assertEqual(
            all_of(equals("a", "b c"), any_of(equals("d", "*)"), equals("e", b"\xff"))),
            "(&(a=b c)(|(d=\\2a\\29)(e=\\ff)))",
        )


class GUIDTests(SynchronousTestCase):
    """Object GUIDs."""

    def test_forms(self) -> None:
        """With and without braces; nothing else that Python's UUID would take."""
        guid = UUID("28630eb8-41d5-11d1-a9c1-0000f80367c1")
        for text in (str(guid), f"{{{guid}}}", str(guid).upper()):
            self.assertEqual(parse_guid(text), guid)
        for text in (guid.hex, f"urn:uuid:{guid}", f"{{{guid}", "", "echo"):
            self.assertIsNone(parse_guid(text))
        self.assertEqual(guid_dn(guid), f"<GUID={guid}>")
