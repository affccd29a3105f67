"""Subcommands of ``mutauth spn``, in a domain in memory."""

from __future__ import annotations

from tests.cases import spns
from tests.unit.memory_case import MemoryTestCase


class CallerTests(spns.CallerCases, MemoryTestCase):
    """The four callers."""


class WritingTests(spns.WritingCases, MemoryTestCase):
    """Adding, replacing and deleting."""


class SearchTests(spns.SearchCases, MemoryTestCase):
    """Looking for SPNs."""
