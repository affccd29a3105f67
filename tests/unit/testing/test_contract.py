"""The directory in memory keeps the contract of a domain controller."""

from __future__ import annotations

from tests.cases.contract import ObjectContract, RightsContract, SPNContract
from tests.unit.memory_case import MemoryTestCase


class ObjectTests(ObjectContract, MemoryTestCase):
    """Objects in memory."""


class RightsTests(RightsContract, MemoryTestCase):
    """Rights in memory."""


class SPNTests(SPNContract, MemoryTestCase):
    """Service principal names in memory."""
