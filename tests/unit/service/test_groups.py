"""Groups that a service knows by name, from one set of rules to the next."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.service import groups as module
from mutauth_twisted.service.groups import NamedGroups


def rules(allow: str = "", deny: str = "") -> Any:
    """Rules about groups of these names."""
    names = {"allow": allow.split(), "deny": deny.split(), None: (allow + " " + deny).split()}
    return SimpleNamespace(names=lambda effect=None: names[effect])


class NamedGroupsTests(SynchronousTestCase):
    """A directory in which names lead to other groups later."""

    def setUp(self) -> None:
        self.time, self.asked = 1, list[str]()

        def find(session: object, catalog: object, name: str) -> Any:
            self.asked.append(name)
            return SimpleNamespace(sid=f"S-{name}-{self.time}")

        self.patch(module, "find_group", find)

    def found(self, now: Any, before: NamedGroups | None = None) -> NamedGroups:
        """Groups of these rules, as a start or a reload finds them."""
        groups = NamedGroups(now)
        if before is not None:
            groups.know(before)
        groups.settle(groups.find(mock.Mock(), mock.Mock()))
        return groups

    def test_known(self) -> None:
        """A reload looks up new names alone, so that a group which has come to the place of another
        one is not allowed by it.
        """
        before = self.found(rules(allow="a b"))
        self.time, self.asked = 2, []
        now = self.found(rules(allow="a c"), before)
        self.assertEqual(self.asked, ["c"])
        self.assertEqual(now.sids, {"allow a": ["S-a-1"], "allow c": ["S-c-2"]})

    def test_denied(self) -> None:
        """All that a denied name has led to stays denied, and a name that is denied from now on is
        looked up.
        """
        before = self.found(rules(allow="a", deny="b"))
        self.time = 2
        before.compare(before.look(mock.Mock(), mock.Mock()))
        self.asked = []
        now = self.found(rules(deny="a b"), before)
        self.assertEqual(self.asked, ["a"])
        self.assertEqual(now.sids, {"deny a": ["S-a-2"], "deny b": ["S-b-1", "S-b-2"]})
