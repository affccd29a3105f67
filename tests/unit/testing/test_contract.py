"""The directory in memory keeps the contract of a domain controller."""

from tests.contract_case import ObjectContract, RightsContract, SPNContract
from tests.unit.testing.memory_case import MemoryTestCase


class ObjectTests(MemoryTestCase, ObjectContract):
    """Objects in memory."""


class RightsTests(MemoryTestCase, RightsContract):
    """Rights in memory."""


class SPNTests(MemoryTestCase, SPNContract):
    """Service principal names in memory."""
