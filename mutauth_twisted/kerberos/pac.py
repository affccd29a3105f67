"""A client's account and groups, by the PAC of its ticket.

GSSAPI hands out what is in a verified ticket (RFC 6680): MIT's
``urn:mspac:logon-info`` is KERB_VALIDATION_INFO (MS-PAC 2.5) in the NDR of type
serialization version 1 (MS-RPCE 2.2.6, C706 chapter 14), and
``urn:mspac:upn-dns-info`` is UPN_DNS_INFO (MS-PAC 2.10).
"""

from __future__ import annotations

import struct
from sys import intern
from typing import Any, Final

from mutauth_twisted.access import Logon

_COMMON_HEADER: Final = b"\x01\x10\x08\x00"  # version 1, little-endian, its own length
_HEADERS: Final = 16
# Referent; six times; six strings; two counters; user; primary group; groups; flags; session key;
# two strings; domain; reserved; account control, status, logon times and failures; extra SIDs;
# resource groups (MS-PAC 2.5).
_FIXED: Final = struct.Struct("<I 48x HHIHHIHHIHHIHHIHHI 4x I 4x II 4x 16x HHIHHI I 8x 32x II III")
_WORD: Final = struct.Struct("<I")
_STRINGS_BEFORE: Final = slice(1, 19)  # EffectiveName is the first
_STRINGS_AFTER: Final = slice(22, 28)  # LogonDomainName is the last
_UPN: Final = struct.Struct("<HH")  # its size and where it is
# MS-PAC 2.2.1: SE_GROUP_ENABLED and SE_GROUP_USE_FOR_DENY_ONLY.
_ENABLED: Final = 0x04
_DENY_ONLY: Final = 0x10
#: MS-DTYP 2.4.2: SID_MAX_SUB_AUTHORITIES.
_MAX_SUB_AUTHORITIES: Final = 15


class _Reader:
    """Takes NDR values off bytes, never beyond their end."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        start = self._at
        if start + layout.size > len(self._data):
            raise ValueError("it is cut")
        self._at += layout.size
        return layout.unpack_from(self._data, start)

    def word(self) -> int:
        return int(self.take(_WORD)[0])

    def string(self, size: int) -> bytes:
        """A conformant and varying array of characters, of the size in bytes that was announced."""
        maximum, offset, count = self.word(), self.word(), self.word()
        if offset or count > maximum or count * 2 != size:
            raise ValueError("a string is out of bounds")
        characters = self.take_array(count, 2)
        self._at += -self._at % 4
        return characters

    def take_array(self, count: int, size: int) -> bytes:
        """The bytes of that many elements."""
        start, end = self._at, self._at + count * size
        if end > len(self._data):
            raise ValueError("an array is out of bounds")
        self._at = end
        return self._data[start:end]

    def pairs(self, count: int) -> list[tuple[int, int]]:
        """A conformant array of two words each."""
        if self.word() != count:
            raise ValueError("an array has another size than announced")
        return list(struct.iter_unpack("<II", self.take_array(count, 8)))

    def sid(self) -> str:
        """A conformant structure: RPC_SID (MS-DTYP 2.4.2.3)."""
        count = self.word()
        revision, inner_count, *authority = self.take_array(1, 8)
        if count != inner_count or count > _MAX_SUB_AUTHORITIES or revision != 1:
            raise ValueError("a SID is invalid")
        parts = struct.unpack(f"<{count}I", self.take_array(count, 4))
        return "-".join(["S-1", str(int.from_bytes(bytes(authority), "big")), *map(str, parts)])


def _counts(attributes: int) -> bool:
    return bool(attributes & _ENABLED) and not attributes & _DENY_ONLY


def read_logon(logon_information: bytes, upn_information: bytes = b"") -> Logon:
    """The account and its groups, in the order of the PAC.

    The groups are those of the client's domain, then SIDs of others (among them
    well-known ones such as ``S-1-18-1``), then domain-local groups.

    :param logon_information: KERB_VALIDATION_INFO, serialized.
    :param upn_information: UPN_DNS_INFO; empty: there is none.
    :raises ValueError: when they are invalid.
    """
    if not logon_information.startswith(_COMMON_HEADER):
        raise ValueError("it is not serialized as expected")
    reader = _Reader(logon_information, _HEADERS)
    fixed = reader.take(_FIXED)
    user, group_count, groups = fixed[19:22]
    domain, extra_count, extra, resource_domain, resource_count, resource = fixed[28:34]
    if not fixed[0]:
        raise ValueError("it is empty")
    # What pointers point to follows in their order.
    name, *_ = _strings(reader, fixed[_STRINGS_BEFORE])
    own = reader.pairs(group_count) if groups else []
    *_, domain_name = _strings(reader, fixed[_STRINGS_AFTER])
    domain_sid = reader.sid() if domain else ""
    others = _others(reader, extra_count) if extra else []
    resource_sid = reader.sid() if resource_domain else ""
    local = reader.pairs(resource_count) if resource else []
    memberships = (
        *((f"{domain_sid}-{rid}", attributes) for rid, attributes in own if domain_sid),
        *others,
        *((f"{resource_sid}-{rid}", attributes) for rid, attributes in local if resource_sid),
    )
    return Logon(
        name=name.decode("utf-16-le"),
        domain=domain_name.decode("utf-16-le"),
        # MS-PAC 2.5: without a UserId the account is of no domain of Windows.
        sid=f"{domain_sid}-{user}" if domain_sid and user else None,
        # Sessions whose accounts have groups in common share the texts of their SIDs.
        groups=tuple(intern(sid) for sid, attributes in memberships if _counts(attributes)),
        deny_only=tuple(sid for sid, attributes in memberships if attributes & _DENY_ONLY),
        upn=_read_upn(upn_information) if upn_information else None,
    )


def _strings(reader: _Reader, fields: tuple[int, ...]) -> list[bytes]:
    """The characters of RPC_UNICODE_STRINGs (MS-DTYP 2.3.10); a null one is empty."""
    return [
        reader.string(size) if pointer else b""
        for size, pointer in zip(fields[::3], fields[2::3], strict=True)
    ]


def _read_upn(information: bytes) -> str:
    size, start = _Reader(information, 0).take(_UPN)
    if start + size > len(information):
        raise ValueError("a UPN is out of bounds")
    return information[start : start + size].decode("utf-16-le")


def _others(reader: _Reader, count: int) -> list[tuple[str, int]]:
    pointers = reader.pairs(count)
    return [(reader.sid(), attributes) for pointer, attributes in pointers if pointer]
