"""Installation and start in the lab's domain."""

from __future__ import annotations

from tests.cases.installation import InstallationCases, StartupCases
from tests.integration.directory_case import DirectoryTestCase


class InstallationTests(InstallationCases, DirectoryTestCase):
    """The administrator's step."""


class StartupTests(StartupCases, DirectoryTestCase):
    """Checks and publications of a service at its start."""
