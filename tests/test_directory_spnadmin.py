"""Service classes that stand for others."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.directory.spnadmin import equivalents, parse_aliases
from mutauth_twisted.spn import SPN


class AliasTests(SynchronousTestCase):
    """sPNMappings and what follows from it."""

    def test_parse(self) -> None:
        """Several mappings, blanks, capitals and what is malformed."""
        self.assertEqual(
            parse_aliases(["host=alerter, HTTP,,www", "Ldap=gc", "odd"]),
            {"host": {"alerter", "http", "www"}, "ldap": {"gc"}, "odd": frozenset()},
        )

    def test_equivalents(self) -> None:
        """A class and its canonical one clash, in both directions; two aliases of the same do not."""
        aliases = parse_aliases(["host=http,www"])
        for text, others in (
            ("HTTP/h", ["host/h"]),
            ("www/h:80/x", ["host/h:80/x"]),
            ("HOST/h", ["http/h", "www/h"]),
            ("echo/h", []),
        ):
            self.assertEqual(list(map(str, equivalents(SPN.parse(text), aliases))), others)
        self.assertEqual(equivalents(SPN("a", "h"), parse_aliases(["a=a,b"])), [SPN("b", "h")])
