"""The directory's logic in a domain in memory."""

from __future__ import annotations

from tests.cases.accounts import AccountCases
from tests.cases.groups import FindCases
from tests.cases.location import LocationCases
from tests.cases.rnr import RnrDirectoryCases
from tests.unit.memory_case import MemoryTestCase


class AccountTests(AccountCases, MemoryTestCase):
    """Finding accounts, and writing their SPNs."""


class GroupTests(FindCases, MemoryTestCase):
    """Groups by name."""


class LocationTests(LocationCases, MemoryTestCase):
    """Services that a client finds, believes, and refuses."""


class RnrTests(RnrDirectoryCases, MemoryTestCase):
    """RnR services."""
