"""``mutauth scp`` in the lab's domain."""

from __future__ import annotations

import json

from tests.cases import scps
from tests.integration.commands import CommandTestCase
from tests.integration.directory_case import DirectoryTestCase


class CallerTests(scps.CallerCases, DirectoryTestCase):
    """The callers."""


class ShowTests(scps.ShowCases, DirectoryTestCase):
    """Mistakes in a connection point."""


class PublishTests(scps.PublishCases, DirectoryTestCase):
    """Publishing by hand."""


class InstallationTests(scps.InstallationCases, DirectoryTestCase):
    """Installation over time."""


class ProcessTests(CommandTestCase):
    """The commands as they are typed."""

    def test_find_publish_show_remove(self) -> None:
        """One connection point from its beginning to its end."""
        server = ("--nameserver", self.lab.nameserver)
        self.install("--keyword", self.service_class, "--keyword", "\u202eevil\x1b[2J")
        found = json.loads(
            self.mutauth("scp", "find", self.service_class, "--json", *server).output
        )
        self.assertEqual([each["class"] for each in found], [self.service_class])
        guid = found[0]["guid"]
        empty = self.mutauth(
            "scp", "list", "--base", f"CN=rogue,CN=Computers,{self.lab.base_dn}", *server
        )
        self.assertEqual((empty.code, empty.output), (0, ""), empty)
        self.assertIn("there is no service connection point below CN=rogue", empty.errors)
        listed = self.mutauth("scp", "list", *server)
        self.assertIn(guid, listed.output)
        self.assertIn("\\u202eevil\\x1b[2J", listed.output)
        self.assertFalse(set("\u202e\x1b") & set(listed.output))
        self.assertEqual(self.mutauth("scp", "show", guid, *server).code, 1)
        refused = self.mutauth("scp", "publish", guid, "--port", "9000", *server, user="svc-other")
        self.refused(refused, 3, guid, "administrator")
        published = self.mutauth(
            "scp", "publish", guid, "--port", "9000", "--spn-form", "guid", *server, user="svc-echo"
        )
        self.assertEqual((published.code, published.errors), (0, ""), published)
        shown = self.mutauth("scp", "show", guid, "--account", "svc-echo", *server)
        self.assertEqual((shown.code, shown.errors), (0, ""), shown)
        self.assertIn("9000;spn=guid", shown.output)
        self.refused(
            self.mutauth("scp", "remove", guid, *server, user="administrator"),
            1,
            "mutauth uninstall",
        )
        self.refused(
            self.mutauth("scp", "show", self.service_class, *server), 2, "mutauth scp find"
        )
        none = self.mutauth("scp", "find", "no such keyword", *server)
        self.assertEqual((none.code, none.output), (1, ""))
