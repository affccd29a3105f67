"""RnR services as values: our own encoding, and everybody else's."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.rnr import Address, ServiceInstance, class_id_of
from mutauth_twisted.errors import UsageError
from mutauth_twisted.spn import SPN

GUID = UUID("28630eb8-41d5-11d1-a9c1-0000f80367c1")
LABEL = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,12}[A-Za-z0-9_])?", fullmatch=True)
HOST = st.lists(LABEL, min_size=1, max_size=5).map(".".join)
NUMBER = st.integers(0, 65535)
WORD = st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True)
BINDING = st.builds(BindingInformation, st.integers(1, 65535), NUMBER, NUMBER, WORD, WORD, WORD)


class AddressTests(SynchronousTestCase):
    """One value of winsockAddresses."""

    def test_written(self) -> None:
        """The documented form, byte by byte."""
        binding = BindingInformation(9000, priority=1)
        self.assertEqual(
            Address("srv1.example.com", binding).encode(),
            b"mutauth/1 srv1.example.com 9000;priority=1",
        )

    @given(HOST, BINDING)
    def test_round_trip(self, host: str, binding: BindingInformation) -> None:
        """A value that was written is read as it was."""
        address = Address(host, binding)
        self.assertEqual(Address.decode(address.encode()), address)

    @given(
        st.binary(max_size=64),
        st.sampled_from([b"", b"mutauth/1 ", b"mutauth/1 h ", b"mutauth/2 h 1"]),
    )
    def test_whatever_others_write(self, value: bytes, start: bytes) -> None:
        """Any bytes are an address that is written again as such, or nobody's."""
        found = Address.decode(start + value)
        if found is not None:
            self.assertEqual(Address.decode(found.encode()), found)

    def test_foreign(self) -> None:
        """Socket addresses, later versions, and what is cut or too long, are passed over."""
        for value in (
            bytes.fromhex("02002328c0000201") + bytes(8),
            b"mutauth/2 srv1.example.com 9000",
            b"mutauth/1 srv1.example.com",
            b"mutauth/1 srv1.example.com ninety",
            b"mutauth/1 srv1/evil 9000",
            b"mutauth/1 \xff 9000",
            b"mutauth/1 srv1.example.com 9000;x=" + b"y" * 2000,
            b"",
        ):
            self.assertIsNone(Address.decode(value), value)

    def test_no_host(self) -> None:
        """A name that cannot be a host's is refused when it is written."""
        for host in ("", "a b", "a/b", "a..b", "ü.example", "x" * 254):
            self.assertRaises(UsageError, Address, host, BindingInformation(1))


class ServiceInstanceTests(SynchronousTestCase):
    """A service that was read."""

    def test_spn(self) -> None:
        """Its DN is the SPN's third part; without a class there is no SPN."""
        dn = "CN=echo,CN=WinsockServices,CN=System,DC=example,DC=com"
        instance = ServiceInstance(dn, GUID, "echo", None, "echoSvc", ())
        self.assertEqual(instance.spn("srv1.example.com"), SPN("echoSvc", "srv1.example.com", dn))
        unknown = ServiceInstance(dn, GUID, "echo", GUID, None, ())
        self.assertIn(
            "service class is not there",
            str(self.assertRaises(UsageError, unknown.spn, "srv1.example.com")),
        )

    def test_class_identifiers(self) -> None:
        """Every host makes the same one, whatever the case of letters."""
        self.assertEqual(class_id_of("echoSvc"), UUID("9f2fb331-beae-5ddb-9dd9-54504b23c6cb"))
        self.assertEqual(class_id_of("ECHOSVC"), class_id_of("echosvc"))
        self.assertNotEqual(class_id_of("echo"), class_id_of("echoSvc"))
