"""``mutauth spn`` in the lab's domain."""

from __future__ import annotations

import json

from tests.cases import spns
from tests.integration.commands import CommandTestCase
from tests.integration.directory_case import DirectoryTestCase


class CallerTests(spns.CallerCases, DirectoryTestCase):
    """The four callers."""


class WritingTests(spns.WritingCases, DirectoryTestCase):
    """Adding, replacing and deleting."""


class SearchTests(spns.SearchCases, DirectoryTestCase):
    """Looking for SPNs."""


class ProcessTests(CommandTestCase):
    """The commands as they are typed."""

    def test_add_list_query_delete(self) -> None:
        """One SPN from its beginning to its end."""
        server = ("--nameserver", self.lab.nameserver)
        spn = f"{self.service_class}/{self.host}/CN=a\\, ü,DC=x"
        self.addCleanup(
            self.mutauth, "spn", "delete", "svc-echo", spn, *server, user="administrator"
        )
        refused = self.mutauth("spn", "add", "svc-echo", spn, *server, user="svc-echo")
        self.refused(refused, 3, "mutauth spn add svc-echo", "'Write servicePrincipalName'")
        added = self.mutauth("spn", "add", "svc-echo", spn, *server, user="administrator")
        self.assertEqual((added.code, added.output), (0, f"added SPN {spn} to svc-echo\n"), added)
        listed = json.loads(self.mutauth("spn", "list", "svc-echo", "--json", *server).output)
        self.assertIn(spn, listed[0]["spns"])
        found = self.mutauth("spn", "query", f"{self.service_class}/*ü*", *server)
        self.assertEqual(
            (found.code, found.output.splitlines()[1].count("svc-echo")), (0, 2), found
        )
        deleted = self.mutauth("spn", "delete", "svc-echo", spn, *server, user="administrator")
        self.assertEqual(
            (deleted.code, deleted.output), (0, f"deleted SPN {spn} from svc-echo\n"), deleted
        )
        none = self.mutauth("spn", "query", f"{self.service_class}/*", *server)
        self.assertEqual((none.code, none.output), (1, ""), none)

    def test_duplicates(self) -> None:
        """None in the lab: exit code 0, JSON for programs, no progress bar in a pipe."""
        ended = self.mutauth("spn", "duplicates", "--json", "--nameserver", self.lab.nameserver)
        self.assertEqual((ended.code, json.loads(ended.output)), (0, []), ended)
        note = {"note": "no SPN is registered on several accounts"}
        self.assertEqual(json.loads(ended.errors), note)
