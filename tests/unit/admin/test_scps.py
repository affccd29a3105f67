"""Subcommands of ``mutauth scp``, in a domain in memory."""

from __future__ import annotations

from tests.cases import scps
from tests.unit.memory_case import MemoryTestCase


class CallerTests(scps.CallerCases, MemoryTestCase):
    """The callers."""


class ShowTests(scps.ShowCases, MemoryTestCase):
    """Mistakes in a connection point."""


class PublishTests(scps.PublishCases, MemoryTestCase):
    """Publishing by hand."""


class InstallationTests(scps.InstallationCases, MemoryTestCase):
    """Installation over time."""
