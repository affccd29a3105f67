"""Samba keeps the contract that the directory in memory keeps."""

from __future__ import annotations

from tests.cases.contract import ObjectContract, RightsContract, SPNContract
from tests.integration.directory_case import DirectoryTestCase


class ObjectTests(ObjectContract, DirectoryTestCase):
    """Objects in Samba."""


class RightsTests(RightsContract, DirectoryTestCase):
    """Rights in Samba."""


class SPNTests(SPNContract, DirectoryTestCase):
    """Service principal names in Samba."""
