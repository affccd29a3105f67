"""Service classes that stand for others, and accounts that cannot be told apart."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.admin.spnadmin import add, equivalents, parse_aliases
from mutauth_twisted.errors import UsageError
from mutauth_twisted.ldap.session import Entry
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
        """A class and its canonical one clash, in both directions; two aliases of the same do
        not.
        """
        aliases = parse_aliases(["host=http,www"])
        for text, others in (
            ("HTTP/h", ["host/h"]),
            ("www/h:80/x", ["host/h:80/x"]),
            ("HOST/h", ["http/h", "www/h"]),
            ("echo/h", []),
        ):
            self.assertEqual(list(map(str, equivalents(SPN.parse(text), aliases))), others)
        self.assertEqual(equivalents(SPN("a", "h"), parse_aliases(["a=a,b"])), [SPN("b", "h")])


class _Twice:
    """A domain in which every search finds two accounts, and nothing can be written."""

    domain_dn = root = "DC=x"

    def search(self, *arguments: Any) -> list[Entry]:
        return [
            Entry(f"CN={name},DC=x", {"samaccountname": (name.encode(),)})
            for name in ("one", "two")
        ]


class AccountTests(SynchronousTestCase):
    """Accounts by name."""

    def test_an_account_found_twice(self) -> None:
        """When a name fits two accounts neither is touched, and both are named."""
        domain: Any = _Twice()
        error = self.assertRaises(UsageError, add, domain, domain, "svc", [SPN("a", "b")])
        self.assertEqual(
            str(error),
            "account svc: 2 accounts have this name, CN=one,DC=x and CN=two,DC=x; give the DN of "
            "one",
        )
