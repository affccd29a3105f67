"""SPNs on accounts, where the lab's directory behaves otherwise than Windows'."""

from __future__ import annotations

from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.directory.spns import Account, add_spns
from mutauth_twisted.errors import DirectoryRefused
from mutauth_twisted.ldap.session import VALUE_EXISTS, Change, LdapSession
from mutauth_twisted.spn import SPN


class _OneCase:
    """A directory to which Ü and ü are one letter, so that it takes no second spelling of a
    value.
    """

    def __init__(self, *values: str) -> None:
        self.values = list(values)

    def modify(self, name: Any, changes: list[Change]) -> None:
        for change in changes:
            (text,) = cast("tuple[str, ...]", change.values)
            others = [each for each in self.values if each.casefold() != text.casefold()]
            if change.kind == "add":
                if others != self.values:
                    raise DirectoryRefused(
                        "object", "it has this value already", result=VALUE_EXISTS
                    )
                others.append(text)
            self.values = others


class AddTests(SynchronousTestCase):
    """Adding."""

    def test_another_case(self) -> None:
        """An SPN in a spelling that clients do not accept is written anew; that is no addition."""
        right, wrong = SPN("http", "h", "CN=m\u00fc,DC=a"), SPN("http", "h", "CN=m\u00dc,DC=a")
        directory = _OneCase("http/h", str(wrong))
        account = Account("CN=a", "a", "S-1-1", tuple(directory.values), False, None)
        self.assertEqual(add_spns(cast(LdapSession, directory), account, [right]), [])
        self.assertEqual(directory.values, ["http/h", str(right)])
