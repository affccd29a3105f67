"""The basic encoding rules (X.690), as far as LDAP messages need them."""

from __future__ import annotations


def element(tag: int, *contents: bytes) -> bytes:
    """A BER element, with its length as Active Directory writes it."""
    body = b"".join(contents)
    size = len(body).to_bytes(4, "big")
    return bytes((tag, 0x84)) + size + body


def elements(data: bytes) -> list[tuple[int, bytes]]:
    """The BER elements that follow each other: tag and content."""
    found, at = [], 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size >= 0x80:
            size, at = int.from_bytes(data[at : at + (size & 0x7F)], "big"), at + (size & 0x7F)
        found.append((tag, data[at : at + size]))
        at += size
    return found
