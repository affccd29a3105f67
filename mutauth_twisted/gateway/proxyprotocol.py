"""PROXY protocol, version 2: the header in front of a forwarded connection's bytes.

It tells the receiver who is at the other end of the connection that is forwarded: addresses, and
whatever else its sender puts into type-length-value vectors (TLVs).  Without I/O: bytes in, headers
out.  Source: proxy-protocol.txt of HAProxy, section 2.2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address as IPv4
from ipaddress import IPv6Address as IPv6
from ipaddress import ip_address
from typing import Any, Final

from attrs import field, frozen
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
#: The longest header that is written or parsed, in bytes: that of nginx and other receivers.
LONGEST: Final = 4096
#: TLV types, as they are registered (section 2.2).
CRC32C: Final = 0x03
NOOP: Final = 0x04
UNIQUE_ID: Final = 0x05
#: The longest value of UNIQUE_ID, in bytes (section 2.2.5).
LONGEST_UNIQUE_ID: Final = 128

_FIXED: Final = struct.Struct("!12sBBH")
_TLV: Final = struct.Struct("!BH")
_VERSION: Final = 0x2
_LOCAL, _PROXY = 0x0, 0x1
_UNSPECIFIED, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_PORTS: Final = struct.Struct("!HH")
_UNIX_PATH: Final = 108
_ADDRESS_SIZES: Final = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX_STREAM: 2 * _UNIX_PATH}


class InvalidHeader(ValueError):
    """A header that cannot be written, or is not a valid one; the text is the cause."""


def _as_tuple(tlvs: Iterable[tuple[int, bytes]]) -> tuple[tuple[int, bytes], ...]:
    return tuple(tlvs)


@frozen
class ProxyHeader:
    """One header.

    :param source: the client's address; None: unknown, or of another kind.
    :param destination: the address that the client connected to; None where ``source`` is.
    :param tlvs: types and values, in their order.
    :param local: whether the sender connects for itself (LOCAL), as for a health check: the
        connection's own addresses count, and there are no TLVs.
    """

    source: IAddress | None = None
    destination: IAddress | None = None
    tlvs: tuple[tuple[int, bytes], ...] = field(default=(), converter=_as_tuple)
    local: bool = False

    def value(self, tlv: int) -> bytes | None:
        """The value of a TLV; None: there is none."""
        return dict(self.tlvs).get(tlv)

    def encode(self) -> bytes:
        """The header's bytes.

        An IPv4 address beside one of IPv6 is written as an IPv4-mapped one (RFC 4291, 2.5.5.2);
        addresses of other kinds are left out.

        :raises InvalidHeader: when it is longer than :data:`LONGEST`, or a value is too long.
        """
        if self.local:
            return _FIXED.pack(SIGNATURE, _VERSION << 4 | _LOCAL, _UNSPECIFIED, 0)
        family, addresses = _encode_addresses(self.source, self.destination)
        rest = addresses + b"".join(map(_encode_tlv, self.tlvs))
        if (size := _FIXED.size + len(rest)) > LONGEST:
            raise InvalidHeader(f"the header would have {size} bytes, over {LONGEST}")
        return _FIXED.pack(SIGNATURE, _VERSION << 4 | _PROXY, family, len(rest)) + rest


def _encode_tlv(tlv: tuple[int, bytes]) -> bytes:
    kind, value = tlv
    if len(value) > LONGEST or (kind == UNIQUE_ID and len(value) > LONGEST_UNIQUE_ID):
        raise InvalidHeader(f"the value of TLV 0x{kind:02X} has {len(value)} bytes, too many")
    return _TLV.pack(kind, len(value)) + value


def plain_ip(host: str) -> IPv4 | IPv6:
    """An IP address without its zone, and an IPv4-mapped one as IPv4.

    :raises ValueError: when it is not an IP address.
    """
    ip = ip_address(host.partition("%")[0])
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6) else ip


def _encode_addresses(source: IAddress | None, destination: IAddress | None) -> tuple[int, bytes]:
    """The family's byte, and the block of addresses."""
    if isinstance(source, UNIXAddress) and isinstance(destination, UNIXAddress):
        paths = [address.name or b"" for address in (source, destination)]
        if max(map(len, paths)) > _UNIX_PATH:
            raise InvalidHeader(f"a socket's path is longer than {_UNIX_PATH} bytes")
        return _UNIX_STREAM, b"".join(path.ljust(_UNIX_PATH, b"\0") for path in paths)
    ends: list[Any] = [
        end for end in (source, destination) if isinstance(end, (IPv4Address, IPv6Address))
    ]
    if len(ends) < 2:
        return _UNSPECIFIED, b""
    ips = [plain_ip(end.host) for end in ends]
    ports = _PORTS.pack(*(end.port for end in ends))
    if all(ip.version == 4 for ip in ips):
        return _TCP4, b"".join(ip.packed for ip in ips) + ports
    mapped = (IPv6(f"::ffff:{ip}") if ip.version == 4 else ip for ip in ips)
    return _TCP6, b"".join(ip.packed for ip in mapped) + ports


class HeaderParser:
    """Parses one header, in whatever pieces it comes.

    What cannot become a header is refused with the first byte that shows it.

    :param longest: the longest header that is accepted, in bytes.
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._data = bytearray()

    def feed(self, data: bytes) -> tuple[ProxyHeader, bytes] | None:
        """Take the next bytes.

        :return: the header and the bytes behind it, once it is complete; nothing may be fed
            afterwards.
        :raises InvalidHeader: for what is not a header; nothing may be fed afterwards.
        """
        self._data += data
        begun = self._data
        if begun[: len(SIGNATURE)] != SIGNATURE[: len(begun)]:
            raise InvalidHeader("it does not begin with the signature of version 2")
        if len(begun) > len(SIGNATURE):
            _check_version(begun[len(SIGNATURE)])
        if len(begun) < _FIXED.size:
            return None
        _, command, family, length = _FIXED.unpack_from(begun)
        size = _FIXED.size + length
        if size > self._longest:
            raise InvalidHeader(f"it has {size} bytes, over {self._longest}")
        if len(begun) < size:
            return None
        header = bytes(begun[:size])
        return _decode(command & 0xF, family, header), bytes(begun[size:])


def _check_version(version_and_command: int) -> None:
    if version_and_command >> 4 != _VERSION:
        raise InvalidHeader(f"it is of version {version_and_command >> 4}, not {_VERSION}")
    if version_and_command & 0xF not in (_LOCAL, _PROXY):
        raise InvalidHeader("its command is unassigned")


def _decode(command: int, family: int, header: bytes) -> ProxyHeader:
    if command == _LOCAL:
        return ProxyHeader(local=True)
    if family not in _ADDRESS_SIZES:
        raise InvalidHeader(f"its address family and transport are 0x{family:02X}, not a stream's")
    start = _FIXED.size + _ADDRESS_SIZES[family]
    if start > len(header):
        raise InvalidHeader("its addresses are cut")
    block = header[_FIXED.size : start]
    tlvs: dict[int, bytes] = {}
    kept = []
    for at, kind, value in _tlvs(header, start):
        if kind in tlvs and kind != NOOP:
            raise InvalidHeader(f"it has TLV 0x{kind:02X} twice")
        if kind == CRC32C:
            _check_sum(header, at, value)
        if kind == UNIQUE_ID and len(value) > LONGEST_UNIQUE_ID:
            raise InvalidHeader(f"its unique id has {len(value)} bytes, too many")
        tlvs[kind] = value
        kept.append((kind, value))
    return ProxyHeader(*_decode_addresses(family, block), tuple(kept))


def _tlvs(header: bytes, start: int) -> Iterator[tuple[int, int, bytes]]:
    """Where the value of each TLV begins, its type, and its value."""
    while start < len(header):
        if start + _TLV.size > len(header):
            raise InvalidHeader("a TLV is cut")
        kind, length = _TLV.unpack_from(header, start)
        start += _TLV.size
        if start + length > len(header):
            raise InvalidHeader(f"TLV 0x{kind:02X} is cut")
        yield start, kind, header[start : start + length]
        start += length


def _decode_addresses(family: int, block: bytes) -> tuple[IAddress | None, IAddress | None]:
    if family == _UNSPECIFIED:
        return None, None
    if family == _UNIX_STREAM:
        paths = (block[:_UNIX_PATH], block[_UNIX_PATH:])
        # An abstract name begins with a NUL; what follows any other path is of no account.
        names = (
            path.rstrip(b"\0") if path.startswith(b"\0") else path.partition(b"\0")[0]
            for path in paths
        )
        source, destination = (UNIXAddress(name or None) for name in names)
        return source, destination
    size = 4 if family == _TCP4 else 16
    kind = IPv4Address if family == _TCP4 else IPv6Address
    ports = _PORTS.unpack_from(block, 2 * size)
    hosts = (str(ip_address(block[:size])), str(ip_address(block[size : 2 * size])))
    first, second = (kind("TCP", *end) for end in zip(hosts, ports, strict=True))
    return first, second


def _check_sum(header: bytes, at: int, value: bytes) -> None:
    """See that the checksum of a whole header is that of the TLV's value (section 2.2.3)."""
    if len(value) != 4:
        raise InvalidHeader("its checksum has not four bytes")
    blanked = header[:at] + bytes(4) + header[at + 4 :]
    if crc32c(blanked) != int.from_bytes(value, "big"):
        raise InvalidHeader("its checksum is wrong")


def _crc_table() -> tuple[int, ...]:
    table = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
        table.append(entry)
    return tuple(table)


_CRC_TABLE: Final = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC32c of some bytes (RFC 4960, appendix B)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC_TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF
