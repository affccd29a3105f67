"""Samba keeps the contract that the directory in memory keeps."""

from tests.contract_case import ObjectContract, RightsContract, SPNContract
from tests.integration.directory_case import DirectoryTestCase


class ContractTestCase(DirectoryTestCase):
    """The lab's domain."""

    is_samba = True

    def setUp(self) -> None:
        super().setUp()
        self.base_dn = self.lab.base_dn

    def host_of(self, name: str) -> str:
        return self.lab.host(name)


class ObjectTests(ContractTestCase, ObjectContract):
    """Objects in Samba."""


class RightsTests(ContractTestCase, RightsContract):
    """Rights in Samba."""


class SPNTests(ContractTestCase, SPNContract):
    """Service principal names in Samba."""
