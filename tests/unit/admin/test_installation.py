"""Installation and start in a domain in memory."""

from __future__ import annotations

from tests.cases.installation import InstallationCases, StartupCases
from tests.unit.memory_case import MemoryTestCase


class InstallationTests(InstallationCases, MemoryTestCase):
    """The administrator's step."""


class StartupTests(StartupCases, MemoryTestCase):
    """Checks and publications of a service at its start."""
