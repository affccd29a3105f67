"""Way to reach the directory, as a value, and its servers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import UsageError
from mutauth_twisted.ldap.controllers import Server, parse_server
from mutauth_twisted.ldap.options import DirectoryOptions


class DirectoryOptionsTests(SynchronousTestCase):
    """Way to reach the directory."""

    def test_words(self) -> None:
        """All of it, and nothing that was not said."""
        options = DirectoryOptions(("ldaps://a", "ldap://b"), "ca.pem", "R", "10.0.0.1:53")
        self.assertEqual(
            " ".join(options.words),
            "--directory ldaps://a --directory ldap://b --directory-ca ca.pem --realm R "
            "--nameserver 10.0.0.1:53",
        )
        self.assertEqual(DirectoryOptions().words, [])

    def test_refused(self) -> None:
        """A server or nameserver that is not valid; TLS without an authority, and the reverse."""
        for given, words in (
            ({"servers": ("http://dc1",)}, "not a directory protocol"),
            ({"servers": ("ldaps://dc1",)}, "give --directory-ca FILE"),
            ({"servers": ("ldap://dc1",), "ca_file": "ca.pem"}, "no directory server uses TLS"),
            ({"nameserver": "dns"}, "it is not an address"),
        ):
            self.assertIn(words, str(self.assertRaises(UsageError, DirectoryOptions, **given)))


class ServerTests(SynchronousTestCase):
    """Directory URLs."""

    def test_forms(self) -> None:
        """With and without scheme and port."""
        for text, server in (
            ("dc1.example", Server("dc1.example", 389)),
            ("ldap://dc1.example", Server("dc1.example", 389)),
            ("LDAP://dc1.example.:1389/", Server("dc1.example", 1389)),
            ("ldaps://dc1.example", Server("dc1.example", 636, tls=True)),
            ("ldaps://dc1.example:3269", Server("dc1.example", 3269, tls=True)),
        ):
            self.assertEqual(parse_server(text), server)

    def test_refused(self) -> None:
        """Each with its reason."""
        for text, words in (
            ("http://dc1", "not a directory protocol"),
            ("ldap://10.0.0.1", "cannot authenticate itself"),
            ("ldap://dc1:0", "out of range"),
            ("ldap://dc1:99999", "out of range"),
            ("ldap://", "not an LDAP server"),
            ("a b", "not an LDAP server"),
        ):
            self.assertIn(words, str(self.assertRaises(UsageError, parse_server, text)))
