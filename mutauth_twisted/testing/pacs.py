"""Privilege attribute certificates (MS-PAC), one of a real KDC and others made to measure."""

from __future__ import annotations

import struct
from base64 import b64decode
from zlib import decompress

#: From a Samba 4.17 domain controller: alice is in Domain Users and in one more group.
REAL = decompress(
    b64decode("""
    eNpjFOBgOAMEKxgZoIAJxmD4DwH1MDrl/Y+jryruMqasT/qwuRJI5wftfj3zLiMXAxcDC1QfB5TmgdICUFoESktAaX8WBgZGJoht
    MkBSgQETsAFNUwDKgWgVIK2B5DYBBvwA5B0dJPUgwIpEJzLkMGQyJDOkMlAGQDaA/MEOpMNYIDQLVI4ZiF0YnBkM0cR8GBwZnKBi
    jBAJVlFQGOkv+dOp8m3dJ4ktQSD3GwBNZ4f6hRESP0KwaAIAse4tfg==
""")
)
DOMAIN = "S-1-5-21-4238618388-2935366793-1387534578"
ENABLED = 7


def sid_bytes(sid: str) -> bytes:
    """RPC_SID with its conformance."""
    authority, *parts = map(int, sid.split("-")[2:])
    return (
        struct.pack("<IBB", len(parts), 1, len(parts))
        + authority.to_bytes(6, "big")
        + struct.pack(f"<{len(parts)}I", *parts)
    )


def pac(
    domain: str | None = "S-1-5-21-1-2-3",
    groups: list[tuple[int, int]] | None = None,
    others: list[tuple[str, int]] | None = None,
    resource: tuple[str, list[tuple[int, int]]] | None = None,
    name: str = "",
    user: int = 1000,
) -> bytes:
    """KERB_VALIDATION_INFO as Windows serializes it."""
    text = name.encode("utf-16-le")
    string = struct.pack("<HHI", len(text), len(text), 4 if name else 0)
    empty = struct.pack("<HHI", 0, 0, 0)
    fixed = struct.pack("<I", 1) + bytes(48) + string + empty * 5 + struct.pack("<4xI4x", user)
    fixed += (
        struct.pack("<II", len(groups or []), 8 if groups is not None else 0)
        + bytes(20)
        + empty
        + string
    )
    fixed += struct.pack("<I", 12 if domain else 0) + bytes(40)
    fixed += struct.pack("<II", len(others or []), 16 if others is not None else 0)
    fixed += struct.pack("<III", 20, len(resource[1]), 24) if resource else bytes(12)
    tail = b""
    characters = (
        struct.pack("<III", len(text) // 2, 0, len(text) // 2) + text + bytes(-len(text) % 4)
        if name
        else b""
    )
    tail += characters
    if groups is not None:
        tail += struct.pack("<I", len(groups)) + b"".join(
            struct.pack("<II", *group) for group in groups
        )
    tail += characters
    if domain:
        tail += sid_bytes(domain)
    if others is not None:
        tail += struct.pack("<I", len(others)) + b"".join(
            struct.pack("<II", 1, attributes) for _, attributes in others
        )
        tail += b"".join(sid_bytes(sid) for sid, _ in others)
    if resource:
        tail += sid_bytes(resource[0])
        tail += struct.pack("<I", len(resource[1])) + b"".join(
            struct.pack("<II", *group) for group in resource[1]
        )
    body = fixed + tail
    return b"\x01\x10\x08\x00\xcc\xcc\xcc\xcc" + struct.pack("<II", len(body), 0) + body


def upn_information(upn: str) -> bytes:
    """UPN_DNS_INFO with a UPN and no DNS name."""
    text = upn.encode("utf-16-le")
    return struct.pack("<HHHHI4x", len(text), 16, 0, 0, 1) + text
