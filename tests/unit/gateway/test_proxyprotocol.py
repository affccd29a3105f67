"""PROXY protocol headers: written, parsed in pieces, and refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.gateway.proxyprotocol import (
    CRC32C,
    LONGEST,
    NOOP,
    SIGNATURE,
    UNIQUE_ID,
    HeaderParser,
    InvalidHeader,
    ProxyHeader,
    crc32c,
    plain_ip,
)

CLIENT = IPv4Address("TCP", "192.0.2.7", 40000)
SERVICE = IPv4Address("TCP", "198.51.100.1", 9000)

_PORTS = st.integers(0, 65535)
_V4 = st.builds(IPv4Address, st.just("TCP"), st.ip_addresses(v=4).map(str), _PORTS)
_V6 = st.builds(
    IPv6Address,
    st.just("TCP"),
    st.ip_addresses(v=6).filter(lambda ip: ip.ipv4_mapped is None).map(str),
    _PORTS,
)
_PATHS = st.binary(min_size=1, max_size=107).filter(lambda path: b"\0" not in path)
_UNIX = st.builds(UNIXAddress, st.one_of(st.none(), _PATHS, _PATHS.map(lambda name: b"\0" + name)))
_ENDS = st.one_of(
    st.tuples(_V4, _V4),
    st.tuples(_V6, _V6),
    st.tuples(_UNIX, _UNIX),
    st.just((None, None)),
)
_TYPES = st.integers(0, 255).filter(lambda kind: kind not in (CRC32C, UNIQUE_ID))
_TLVS = st.lists(
    st.tuples(_TYPES, st.binary(max_size=200)), max_size=9, unique_by=lambda tlv: tlv[0]
)
_HEADERS = st.builds(lambda ends, tlvs: ProxyHeader(*ends, tlvs), _ENDS, _TLVS)


def header_bytes(
    family: int, rest: bytes, *, command: int = 0x21, length: int | None = None
) -> bytes:
    """A header made by hand."""
    size = len(rest) if length is None else length
    return SIGNATURE + bytes([command, family]) + size.to_bytes(2, "big") + rest


ADDRESSES = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + b"\x9c\x40\x23\x28"


class EncodingTests(SynchronousTestCase):
    """Headers as bytes."""

    def test_bytes(self) -> None:
        """The layout of section 2.2, written out."""
        header = ProxyHeader(CLIENT, SERVICE, [(UNIQUE_ID, b"c-1"), (0xE0, b"alice@R")])
        tlvs = b"\x05\0\x03c-1\xe0\0\x07alice@R"
        self.assertEqual(header.encode(), header_bytes(0x11, ADDRESSES + tlvs))

    def test_families(self) -> None:
        """The family is the addresses'; an IPv4 address beside an IPv6 one is mapped into IPv6, and
        mapped ones of both sides are IPv4.
        """
        six = IPv6Address("TCP", "2001:db8::1%eth0", 9000)
        mapped = IPv6Address("TCP", "::ffff:192.0.2.7", 40000)
        mapped_service = IPv6Address("TCP", "::ffff:198.51.100.1", 9000)
        for source, destination, family, told in (
            (CLIENT, SERVICE, 0x11, (CLIENT, SERVICE)),
            (mapped, mapped_service, 0x11, (CLIENT, SERVICE)),
            (mapped, SERVICE, 0x11, (CLIENT, SERVICE)),
            (CLIENT, six, 0x21, ("::ffff:192.0.2.7", "2001:db8::1")),
            (six, SERVICE, 0x21, ("2001:db8::1", "::ffff:198.51.100.1")),
            (UNIXAddress(None), UNIXAddress(b"/run/s"), 0x31, (None, b"/run/s")),
            (UNIXAddress(b"/run/c"), SERVICE, 0x00, (None, None)),
            (CLIENT, UNIXAddress(b"/run/s"), 0x00, (None, None)),
            (HostnameAddress(b"client", 1), SERVICE, 0x00, (None, None)),
            (None, SERVICE, 0x00, (None, None)),
        ):
            encoded = ProxyHeader(source, destination, [(0xE0, b"x")]).encode()
            self.assertEqual(encoded[13], family, (source, destination))
            header, _ = HeaderParser().feed(encoded) or self.fail("it is not complete")
            ends = (header.source, header.destination)
            if family == 0x21:
                ends = tuple(str(end.host) for end in ends)  # type: ignore[union-attr]
                self.assertEqual([plain_ip(end) for end in ends], [plain_ip(end) for end in told])
            elif family == 0x31:
                self.assertEqual(tuple(end.name for end in ends), told)  # type: ignore[union-attr]
            else:
                self.assertEqual(ends, told)
            self.assertEqual(header.value(0xE0), b"x")

    def test_too_long(self) -> None:
        """A header over the bound is not written, nor a value that its type cannot have."""
        room = LONGEST - len(ProxyHeader(CLIENT, SERVICE, [(0xE0, b"")]).encode())
        self.assertEqual(len(ProxyHeader(CLIENT, SERVICE, [(0xE0, bytes(room))]).encode()), LONGEST)
        for tlvs in ([(0xE0, bytes(room + 1))], [(0xE0, bytes(70000))], [(UNIQUE_ID, bytes(129))]):
            self.assertRaises(InvalidHeader, ProxyHeader(CLIENT, SERVICE, tlvs).encode)
        path = UNIXAddress(b"/" * 109)
        self.assertRaises(InvalidHeader, ProxyHeader(path, UNIXAddress(None)).encode)

    def test_local(self) -> None:
        """A connection of the sender's own has nothing in its header."""
        encoded = ProxyHeader(CLIENT, SERVICE, [(0xE0, b"x")], local=True).encode()
        self.assertEqual(encoded, header_bytes(0, b"", command=0x20))

    @given(_HEADERS)
    def test_twisted_reads_it(self, header: ProxyHeader) -> None:
        """Twisted's own parser finds the same addresses."""
        info, rest = V2Parser().feed(header.encode() + b"rest")
        self.assertEqual(rest, b"rest")
        if header.source is None or isinstance(header.source, UNIXAddress):
            return
        for ours, its in ((header.source, info.source), (header.destination, info.destination)):
            self.assertEqual((plain_ip(ours.host), ours.port), (plain_ip(its.host), its.port))


class ParsingTests(SynchronousTestCase):
    """Bytes as headers."""

    def parsed(self, *pieces: bytes) -> tuple[ProxyHeader, bytes]:
        """The header of pieces, and what came behind it in the last one."""
        parser = HeaderParser()
        for piece in pieces[:-1]:
            self.assertIsNone(parser.feed(piece))
        return parser.feed(pieces[-1]) or self.fail("it is not complete")

    def refusal(self, data: bytes) -> str:
        """The cause for which bytes are refused, also when they come one by one."""
        cause = str(self.assertRaises(InvalidHeader, HeaderParser().feed, data))
        parser = HeaderParser()

        def feed() -> None:
            for at in range(len(data)):
                parser.feed(data[at : at + 1])

        self.assertEqual(str(self.assertRaises(InvalidHeader, feed)), cause)
        return cause

    @given(_HEADERS, st.binary(max_size=30), st.data())
    def test_round_trip(self, header: ProxyHeader, rest: bytes, data: Any) -> None:
        """A header that was written is read, wherever the network cuts it, and what follows
        stays.
        """
        encoded = header.encode()
        cuts = data.draw(st.lists(st.integers(1, len(encoded) - 1), max_size=4, unique=True))
        bounds = [0, *sorted(cuts), len(encoded)]
        pieces = [encoded[a:b] for a, b in pairwise(bounds)]
        pieces[-1] += rest
        self.assertEqual(self.parsed(*pieces), (header, rest))

    def test_byte_by_byte(self) -> None:
        """Every byte by itself, the first sixteen too."""
        header = ProxyHeader(CLIENT, SERVICE, [(0xE0, b"alice@R")])
        encoded = header.encode()
        self.assertEqual(self.parsed(*(bytes([each]) for each in encoded)), (header, b""))

    def test_second_header_is_data(self) -> None:
        """Bytes that follow are the client's, even where they look like a header."""
        header, forged = ProxyHeader(CLIENT, SERVICE), ProxyHeader(SERVICE, CLIENT).encode()
        self.assertEqual(self.parsed(header.encode() + forged), (header, forged))

    def test_local(self) -> None:
        """Everything in the header of a connection of the sender's own does not count."""
        for family, rest in ((0, b""), (0x11, ADDRESSES), (0x31, b"x"), (0xFF, b"\xe0\xff")):
            data = header_bytes(family, rest, command=0x20)
            self.assertEqual(self.parsed(data), (ProxyHeader(local=True), b""))

    def test_refused(self) -> None:
        """Bytes that are not a header, and each way to be an invalid one."""
        for data, cause in (
            (b"GET / HTTP/1.1\r\n", "signature"),
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 9000\r\n", "signature"),
            (b"\r\n\r\n\0\r\nQUIT\r", "signature"),
            (SIGNATURE + b"\x11", "version 1"),
            (SIGNATURE + b"\x22", "command"),
            (header_bytes(0x11, b"", length=LONGEST - 15), "4097 bytes"),
            (header_bytes(0x12, ADDRESSES), "not a stream"),
            (header_bytes(0x10, ADDRESSES), "not a stream"),
            (header_bytes(0x41, ADDRESSES), "not a stream"),
            (header_bytes(0x11, ADDRESSES[:-1]), "addresses are cut"),
            (header_bytes(0x21, ADDRESSES), "addresses are cut"),
            (header_bytes(0x11, ADDRESSES + b"\xe0\0"), "a TLV is cut"),
            (header_bytes(0x11, ADDRESSES + b"\xe0\0\2x"), "0xE0 is cut"),
            (header_bytes(0x11, ADDRESSES + b"\xe0\0\1x" * 2), "0xE0 twice"),
            (header_bytes(0x11, ADDRESSES + b"\x03\0\4abcd"), "checksum is wrong"),
            (header_bytes(0x11, ADDRESSES + b"\x03\0\0"), "four bytes"),
            (header_bytes(0x11, ADDRESSES + b"\x05\0\x81" + bytes(129)), "unique id has 129"),
        ):
            self.assertIn(cause, self.refusal(data), data)

    def test_refused_at_once(self) -> None:
        """Bytes are not kept that no header begins with."""
        for data in (b"\0", SIGNATURE[:-1] + b"\r", SIGNATURE + b"\x31"):
            parser = HeaderParser()
            parser.feed(data[:-1])
            self.assertRaises(InvalidHeader, parser.feed, data[-1:])

    def test_checksum(self) -> None:
        """A checksum of the whole header is verified: every bit of it counts, but for those
        that say that there is one.
        """
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)
        tlvs = b"\xe0\0\1x\x03\0\4"
        blank = header_bytes(0x11, ADDRESSES + tlvs + bytes(4) + b"\x04\0\0")
        at = blank.index(tlvs) + len(tlvs)
        data = blank[:at] + crc32c(blank).to_bytes(4, "big") + blank[at + 4 :]
        header, _ = self.parsed(data)
        self.assertEqual(header.value(0xE0), b"x")
        for bit in (bit for bit in range(16 * 8, len(data) * 8) if bit // 8 != at - 3):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            # It is refused, or waits for bytes that no longer come.
            try:
                self.assertIsNone(HeaderParser().feed(bytes(changed)), bit)
            except InvalidHeader:
                continue

    def test_padding(self) -> None:
        """TLVs without meaning may come several times."""
        header, _ = self.parsed(header_bytes(0x11, ADDRESSES + b"\x04\0\0\x04\0\1x\xe0\0\1y"))
        self.assertEqual(header.tlvs, ((NOOP, b""), (NOOP, b"x"), (0xE0, b"y")))

    def test_paths(self) -> None:
        """The path of a UNIX socket ends at a NUL, an abstract name's first one excepted."""
        rest = b"/run/a\0junk".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0")
        header, _ = self.parsed(header_bytes(0x31, rest))
        names = [end.name for end in (header.source, header.destination)]  # type: ignore[union-attr]
        self.assertEqual(names, [b"/run/a", b"\0abstract"])

    def test_addresses(self) -> None:
        """IPv6 addresses are Twisted's values."""
        ends: list[IAddress] = [IPv6Address("TCP", "2001:db8::1", 1), IPv6Address("TCP", "::1", 2)]
        header, _ = self.parsed(ProxyHeader(*ends).encode())
        self.assertEqual([header.source, header.destination], ends)
