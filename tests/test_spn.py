"""Service principal names as values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import UsageError
from mutauth_twisted.spn import SPN

_PART = st.text(st.characters(exclude_characters="/:@", exclude_categories=["C", "Z"]), min_size=1, max_size=20)
_NAME = st.text(st.characters(exclude_characters="/", exclude_categories=["C"]), min_size=1, max_size=40)
_INSTANCE = st.one_of(st.none(), st.integers(1, 65535).map(str), st.sampled_from(["SQLEXPRESS", "a:b"]))


class SPNTests(SynchronousTestCase):
    """Parsing, writing and comparing."""

    def test_table(self) -> None:
        """The forms of MS-ADTS 2.2.21, taken apart."""
        for text, service_class, host, instance, name in (
            ("HTTP/web.example.com", "HTTP", "web.example.com", None, None),
            ("HTTP/web", "HTTP", "web", None, None),
            ("MSSQLSvc/db.example.com:1433", "MSSQLSvc", "db.example.com", "1433", None),
            ("MSSQLSvc/db.example.com:SQLEXPRESS", "MSSQLSvc", "db.example.com", "SQLEXPRESS", None),
            ("ldap/dc1.example.com/example.com", "ldap", "dc1.example.com", None, "example.com"),
            ("echo/h:9000/CN=a b,DC=c", "echo", "h", "9000", "CN=a b,DC=c"),
            ('echo/h/CN="a, ü",DC=c', "echo", "h", None, 'CN="a, ü",DC=c'),
        ):
            spn = SPN.parse(text)
            self.assertEqual(
                (spn.service_class, spn.host, spn.instance, spn.service_name), (service_class, host, instance, name)
            )
            self.assertEqual(str(spn), text)
            self.assertEqual(spn.port, int(instance) if instance and instance.isdecimal() else None)
            self.assertEqual(spn.is_three_part, name is not None)

    def test_malformed(self) -> None:
        """What is no SPN is refused with one line, never read as another name."""
        for text in (
            "",
            "HTTP",
            "/",
            "HTTP/",
            "/web",
            "HTTP//x",
            "HTTP/web/",
            "a/b/c/d",
            "echo/h/CN=a\\/b,DC=c",
            "HT TP/web",
            "HTTP/we b",
            "HTTP/web:",
            "HTTP/web:0",
            "HTTP/web:65536",
            "HT:TP/web",
            "HTTP/web@REALM",
            "echo/h/CN=a\nb",
        ):
            error = self.assertRaises(UsageError, SPN.parse, text)
            self.assertNotIn("\n", str(error))

    def test_a_dn_with_a_slash_is_refused_with_the_reason(self) -> None:
        """No SPN can carry such a DN; the GUID can stand in its place."""
        error = self.assertRaises(UsageError, SPN, "echo", "h", "CN=a/b,DC=c")
        self.assertIn("no SPN can carry", str(error))
        self.assertIn("GUID", str(error))

    @given(_PART, _PART, st.one_of(st.none(), _NAME), _INSTANCE)
    def test_round_trip(self, service_class: str, host: str, name: str | None, instance: str | None) -> None:
        """What is written is read back as the same name."""
        spn = SPN(service_class, host, name, instance)
        self.assertEqual(SPN.parse(str(spn)), spn)
        self.assertEqual(str(SPN.parse(str(spn))), str(spn))

    @given(_PART, _PART, st.one_of(st.none(), _NAME))
    def test_case_does_not_count(self, service_class: str, host: str, name: str | None) -> None:
        """Names that differ in case only are equal and hash alike."""
        spn = SPN(service_class, host, name)
        folded = SPN(service_class.casefold(), host.casefold(), name and name.casefold())
        self.assertEqual(spn, folded)
        self.assertEqual(hash(spn), hash(folded))

    def test_different_names_differ(self) -> None:
        """Every part counts, and a name is not its text."""
        base = SPN("echo", "h", "n", "1")
        for other in (
            SPN("ech", "h", "n", "1"),
            SPN("echo", "i", "n", "1"),
            SPN("echo", "h", None, "1"),
            SPN("echo", "h", "n"),
        ):
            self.assertNotEqual(base, other)
        self.assertNotEqual(base, str(base))
