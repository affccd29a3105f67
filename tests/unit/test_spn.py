"""Service principal names as values."""

from __future__ import annotations

import socket

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.directory.spns import Account
from mutauth_twisted.errors import UsageError
from mutauth_twisted.names import fold_ascii
from mutauth_twisted.spn import (
    SPN,
    CrackedSPN,
    SPNNameType,
    check_service_class,
    crack_spn,
    get_spns,
    make_spn,
)

_PART = st.text(
    st.characters(exclude_characters="/:@", exclude_categories=["C", "Z"]), min_size=1, max_size=20
)
_CLASS = st.from_regex(r"[A-Za-z0-9{][A-Za-z0-9._{}-]{0,19}", fullmatch=True)
_NAME = st.text(
    st.characters(exclude_characters="/", exclude_categories=["C"]), min_size=1, max_size=40
)
_INSTANCE = st.one_of(
    st.none(), st.integers(1, 65535).map(str), st.sampled_from(["SQLEXPRESS", "a:b"])
)


class SPNTests(SynchronousTestCase):
    """Parsing, writing and comparing."""

    def test_table(self) -> None:
        """The forms of MS-ADTS 2.2.21, taken apart."""
        for text, service_class, host, instance, name in (
            ("HTTP/web.example.com", "HTTP", "web.example.com", None, None),
            ("HTTP/web", "HTTP", "web", None, None),
            ("MSSQLSvc/db.example.com:1433", "MSSQLSvc", "db.example.com", "1433", None),
            (
                "MSSQLSvc/db.example.com:SQLEXPRESS",
                "MSSQLSvc",
                "db.example.com",
                "SQLEXPRESS",
                None,
            ),
            ("ldap/dc1.example.com/example.com", "ldap", "dc1.example.com", None, "example.com"),
            ("echo/h:9000/CN=a b,DC=c", "echo", "h", "9000", "CN=a b,DC=c"),
            ('echo/h/CN="a, ü",DC=c', "echo", "h", None, 'CN="a, ü",DC=c'),
        ):
            spn = SPN.parse(text)
            self.assertEqual(
                (spn.service_class, spn.host, spn.instance, spn.service_name),
                (service_class, host, instance, name),
            )
            self.assertEqual(str(spn), text)
            self.assertEqual(spn.port, int(instance) if instance and instance.isdecimal() else None)

    def test_malformed(self) -> None:
        """Text that is not an SPN is refused with one line, never read as another name."""
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
            "HT  TP/web",
            " HTTP/web",
            "HTTP /web",
            "*/web",
            ")(cn=*/web",
            "HTTP*/web",
            "H\\TTP/web",
            "payment\u017f/web",
            "-HTTP/web",
            "HTTP/we b",
            "HTTP/web:",
            "HTTP/web:0",
            "HTTP/web:65536",
            "HT:TP/web",
            "HTTP/web@REALM",
            "echo/h/CN=a\nb",
            "echo/h/CN=a\x1b[31mb",
            "echo/h/CN=a\x9bb",
            "HTTP/web:999999999999",
            "HTTP\u00a0/web",
        ):
            error = self.assertRaises(UsageError, SPN.parse, text)
            self.assertNotIn("\n", str(error))
            self.assertTrue(str(error).startswith("SPN "))
        self.assertIn(
            "SPN 'a//b': its host is empty", str(self.assertRaises(UsageError, SPN.parse, "a//b"))
        )

    def test_a_dn_with_a_slash_is_refused_with_the_reason(self) -> None:
        """No SPN can carry such a DN; the GUID can stand in its place."""
        error = self.assertRaises(UsageError, SPN, "echo", "h", "CN=a/b,DC=c")
        self.assertIn("no SPN can carry", str(error))
        self.assertIn("GUID", str(error))

    def test_classes(self) -> None:
        """Those in use are taken; what a filter, a DN or a shell could read otherwise is not."""
        for name in (
            "HTTP",
            "MSOLAPSvc.3",
            "exchange_ab",
            "Dfsr-12F9A27C-BF97-4787-9364-D31B6C55EB04",
            "{14E52635-0A95-4A5C-BDB1-E0D0C703B6C8}",
            "Microsoft Virtual Console Service",
        ):
            self.assertEqual(check_service_class(name), name)
            self.assertEqual(SPN.parse(f"{name}/h").service_class, name)
        for name in (
            *"*/:@,;= ",
            "",
            ")(cn=*",
            "a*",
            "a\nb",
            "a\n",
            "\u212a",
            "payment\u017f",
            "$(id)",
            "a ",
            " a",
            "a  b",
        ):
            error = self.assertRaises(UsageError, check_service_class, name)
            self.assertIn("it is not a valid service class", str(error))
        self.assertTrue(
            str(self.assertRaises(UsageError, check_service_class, "*", "--class *")).startswith(
                "--class *: "
            )
        )

    @given(_CLASS, _PART, st.one_of(st.none(), _NAME), _INSTANCE)
    def test_round_trip(
        self, service_class: str, host: str, name: str | None, instance: str | None
    ) -> None:
        """A name that was written is read back as the same."""
        spn = SPN(service_class, host, name, instance)
        self.assertEqual(SPN.parse(str(spn)), spn)
        self.assertEqual(str(SPN.parse(str(spn))), str(spn))

    @given(_CLASS, _PART, st.one_of(st.none(), _NAME))
    def test_case_does_not_count(self, service_class: str, host: str, name: str | None) -> None:
        """Names that differ in the case of A to Z only are equal and hash alike."""
        spn = SPN(service_class, host, name)
        folded = SPN(service_class.upper(), fold_ascii(host), name and fold_ascii(name))
        self.assertEqual(spn, folded)
        self.assertEqual(hash(spn), hash(folded))

    def test_look_alikes(self) -> None:
        """Names that Unicode folds together, and a directory keeps apart, are different; in every
        part.
        """
        honest = SPN("http", "srv1", "CN=kiosk-ss", "inst")
        for other in (
            SPN("http", "\u017frv1", "CN=kiosk-ss", "inst"),
            SPN("http", "srv1", "CN=\u212aiosk-ss", "inst"),
            SPN("http", "srv1", "CN=kiosk-\u00df", "inst"),
            SPN("http", "srv1", "CN=kiosk-ss", "in\u017ft"),
        ):
            self.assertNotEqual(honest, other)
            self.assertEqual(list(dict.fromkeys((other, honest))), [other, honest])
            self.assertFalse(Account("CN=a", "a", "S-1-1", (str(other),), True, None).holds(honest))

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

    def test_digits_of_other_scripts_are_no_port(self) -> None:
        """Only ASCII digits make a port; others are an instance's name."""
        self.assertIsNone(SPN.parse("a/b:\u0663").port)


DN = 'CN=a\\, "b" \u00fc,CN=srv1,DC=lab,DC=example'
GUID = "c1b2a390-0000-4000-8000-000000000001"


class MakeTests(SynchronousTestCase):
    """DsMakeSpn."""

    def test_table(self) -> None:
        """SPN that a client gets for what it knows."""
        for given_, spn in (
            (("http", "www.example.com"), "http/www.example.com"),
            (("http", "WWW"), "http/WWW"),
            (("http", "www.example.com", None, 8080), "http/www.example.com:8080"),
            (("http", "www.example.com", None, 0, "ref.example.com"), "http/www.example.com"),
            (("http", "10.0.0.1", None, 0, "ref.example.com"), "http/10.0.0.1/ref.example.com"),
            (("http", "10.0.0.1", None, 80, "ref.example.com"), "http/10.0.0.1:80/ref.example.com"),
            (("http", "10.0.0.1"), "http/10.0.0.1"),
            (("ldap", "example.com", "dc1.example.com"), "ldap/dc1.example.com/example.com"),
            (
                ("ldap", "example.com", "dc1.example.com", 389, "ignored"),
                "ldap/dc1.example.com:389/example.com",
            ),
            (
                ("echo", "_echo._tcp.example.com", "h.example.com"),
                "echo/h.example.com/_echo._tcp.example.com",
            ),
            (("echo", DN, "srv1.lab.example"), f"echo/srv1.lab.example/{DN}"),
            (("echo", GUID, "srv1.lab.example", 9000), f"echo/srv1.lab.example:9000/{GUID}"),
        ):
            self.assertEqual(str(make_spn(*given_)), spn)  # type: ignore[arg-type]

    def test_refused(self) -> None:
        """Names that do not go together, or that no SPN can carry, each with its reason."""
        for given_, cause in (
            (("echo", DN), "a DN is not a host"),
            (("echo", "10.0.0.1", "h"), "it is a host"),
            (("echo", "H.example.com", "h.example.com"), "it is a host"),
            (("echo", "CN=a/b,DC=c", "h"), "no SPN can carry"),
            (("echo", "fe80::1"), "':'"),
            (("echo", "h", None, 65536), "out of range"),
            (("echo", "h", None, -1), "out of range"),
            (("", "h"), "empty"),
            (("echo", ""), "empty"),
            (("echo", DN, ""), "empty"),
        ):
            error = self.assertRaises(UsageError, make_spn, *given_)
            self.assertIn(cause, str(error))

    @given(_CLASS, _NAME, _PART, st.integers(0, 65535))
    def test_what_is_made_is_cracked_into_the_same(
        self, kind: str, name: str, instance: str, port: int
    ) -> None:
        """DsCrackSpn gives back what DsMakeSpn was given."""
        try:
            spn = make_spn(kind, name, instance, port)
        except UsageError as error:
            self.assertIn("it is a host", str(error))
        else:
            self.assertEqual(crack_spn(str(spn)), CrackedSPN(kind, name, instance, port))


class GetTests(SynchronousTestCase):
    """DsGetSpn."""

    def test_every_type_on_the_local_computer(self) -> None:
        """Without instance names there is one SPN, with the local name that the type calls for."""
        for kind, service_name, spn in (
            (SPNNameType.DNS_HOST, None, "echo/host-of-long-name.example.com"),
            (SPNNameType.DN_HOST, None, "echo/host-of-long-name.example.com"),
            (SPNNameType.NB_HOST, None, "echo/HOST-OF-LONG-NA"),
            (SPNNameType.DOMAIN, "example.com", "echo/host-of-long-name.example.com/example.com"),
            (SPNNameType.NB_DOMAIN, "EXAMPLE", "echo/HOST-OF-LONG-NA/EXAMPLE"),
            (SPNNameType.SERVICE, DN, f"echo/host-of-long-name.example.com/{DN}"),
        ):
            made = get_spns(kind, "echo", service_name, local_host="host-of-long-name.example.com.")
            self.assertEqual([str(each) for each in made], [spn])
            made = get_spns(kind, "echo", service_name, 9000, ["a", "b"], local_host="unused")
            tail = "" if service_name is None else f"/{service_name}"
            self.assertEqual(
                [str(each) for each in made], [f"echo/a:9000{tail}", f"echo/b:9000{tail}"]
            )

    def test_arrays(self) -> None:
        """Hosts and ports go together by place; several ports on one host are several names."""
        names, ports = ["a", "b", "b"], [0, 1, 65535]
        made = get_spns(SPNNameType.SERVICE, "echo", "example.com", 7, names, ports)
        self.assertEqual(
            [str(each) for each in made], [f"echo/{x}/example.com" for x in ("a", "b:1", "b:65535")]
        )

    def test_the_system_names_the_local_computer(self) -> None:
        """The local computer's own name is used when none is given."""
        self.patch(socket, "getfqdn", lambda: "this.example.com")
        self.assertEqual(get_spns(SPNNameType.DNS_HOST, "echo"), [SPN("echo", "this.example.com")])

    def test_refused(self) -> None:
        """Arguments that do not go together."""
        kind = SPNNameType
        for arguments, cause in (
            ((kind.DNS_HOST, "echo", "name"), "has none"),
            ((kind.NB_HOST, "echo", "name"), "has none"),
            ((kind.DN_HOST, "echo", ""), "has none"),
            ((kind.DOMAIN, "echo"), "no service name"),
            ((kind.NB_DOMAIN, "echo"), "no service name"),
            ((kind.SERVICE, "echo"), "no service name"),
            ((kind.SERVICE, "echo", ""), "empty"),
            ((kind.SERVICE, "echo", "a/b"), "no SPN can carry"),
            (
                (kind.DNS_HOST, "echo", None, 0, ["a", "b"], [1]),
                "1 instance ports for 2 instance names",
            ),
            ((kind.DNS_HOST, "echo", None, 0, [], [1]), "1 instance ports for 0 instance names"),
            ((kind.DNS_HOST, "echo", None, 0, ["a"], [70000]), "out of range"),
            ((kind.DNS_HOST, "echo", None, 70000), "out of range"),
        ):
            error = self.assertRaises(UsageError, get_spns, *arguments)
            self.assertIn(cause, str(error))


class CrackTests(SynchronousTestCase):
    """DsCrackSpn."""

    def test_table(self) -> None:
        """Port and service name have stand-ins where they are missing."""
        for text, cracked in (
            ("http/www.example.com", CrackedSPN("http", "www.example.com", "www.example.com", 0)),
            (
                "http/www.example.com:80",
                CrackedSPN("http", "www.example.com", "www.example.com", 80),
            ),
            ("ldap/dc1/example.com", CrackedSPN("ldap", "example.com", "dc1", 0)),
            (f"echo/h:9000/{DN}", CrackedSPN("echo", DN, "h", 9000)),
        ):
            self.assertEqual(crack_spn(text), cracked)

    def test_refused(self) -> None:
        """A port that is not a number, and what is not an SPN."""
        for text in ("MSSQLSvc/db:SQLEXPRESS", "a/b:\u0663", "a", "a/b/c/d", "a//b"):
            self.assertRaises(UsageError, crack_spn, text)
