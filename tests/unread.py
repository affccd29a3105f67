"""Bits that an attacker in the middle may change unnoticed: every bit of it, and why.

It is in the clear, nothing protects it, and nobody reads it; so nothing
depends on it either.  All of the rest of a frame is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator

from mutauth_twisted.wire import NNS, WINSOCK, Wire

#: A position in a frame, and a bit of the byte there.
Bit = tuple[int, int]
#: The DER tags that lead to an element.
Path = tuple[int, ...]

#: The size of what comes before a token.
HEADER = {NNS.name: 5, WINSOCK.name: 4}

#: In the clear and read by nobody, as tags from the mechanism's OID inwards (RFC 4120 5.5.1, 5.3,
#: 5.5.2).
UNREAD: dict[Path, str] = {
    (0x6E, 0x30, 0xA1, 0x02): "msg-type: says what the token's identifier said already",
    (0x6E, 0x30, 0xA2, 0x03): "ap-options: GSSAPI goes by its own flags, in the authenticator",
    (
        0x6E,
        0x30,
        0xA3,
        0x61,
        0x30,
        0xA1,
        0x1B,
    ): "the ticket's realm: the key decides whose a ticket is",
    (0x6E, 0x30, 0xA3, 0x61, 0x30, 0xA2, 0x30, 0xA0, 0x02): "name-type: a hint (RFC 4120 6.2)",
    (
        0x6E,
        0x30,
        0xA3,
        0x61,
        0x30,
        0xA2,
        0x30,
        0xA1,
        0x30,
        0x1B,
    ): "the ticket's name of the service: as its realm",
    (
        0x6E,
        0x30,
        0xA3,
        0x61,
        0x30,
        0xA3,
        0x30,
        0xA1,
        0x02,
    ): "kvno: of the keys the one that opens the ticket counts",
    (0x6F, 0x30, 0xA1, 0x02): "msg-type of the reply: as that of the request",
}
ENCRYPTED: frozenset[Path] = frozenset(
    {
        (0x6E, 0x30, 0xA3, 0x61, 0x30, 0xA3, 0x30, 0xA2, 0x04),  # the ticket
        (0x6E, 0x30, 0xA4, 0x30, 0xA2, 0x04),  # the authenticator
        (0x6F, 0x30, 0xA2, 0x30, 0xA2, 0x04),  # the service's proof
    }
)
AP_OPTIONS = (0x6E, 0x30, 0xA2, 0x03)


def elements(data: bytes, at: int, end: int, path: Path = ()) -> Iterator[tuple[Path, int, int]]:
    """Every primitive DER element within the bounds: the tags that lead to it, and where its
    content is.
    """
    while at < end:
        tag, size, at = data[at], data[at + 1], at + 2
        if size >= 0x80:
            size, at = int.from_bytes(data[at : at + size - 0x80], "big"), at + size - 0x80
        if tag & 0x20:
            yield from elements(data, at, at + size, (*path, tag))
        else:
            yield (*path, tag), at, at + size
        at += size


def parts(frame: bytes, wire: Wire) -> Iterator[tuple[Path, int, int]]:
    """The elements of the token in a frame, behind the mechanism's OID and the token's identifier
    (RFC 4121 4.1).
    """
    inside = frame.index(b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02", HEADER[wire.name]) + 11
    return elements(frame, inside + 2, len(frame))


def mark_in_token(wire: Wire) -> set[Bit]:
    """The bits of a service's last frame, any of which makes a marked one an unmarked one."""
    return {(2, bit) for bit in range(8)} if wire is NNS else {(3, 7)}


def unread_in_token(frame: bytes, wire: Wire, *, from_service: bool = False) -> set[Bit]:
    """The bits of a side's frame that nobody reads.

    :param from_service: whether it is a service's last one, for another mutauth peer.
    """
    # Of a client's frame the version, which MS-NNS 2.2.1 has receivers ignore, and where a
    # service's is marked.
    bits = {(position, bit) for position in (1, 2) for bit in range(8)} if wire is NNS else set()
    bits = bits - mark_in_token(wire) if from_service else bits | mark_in_token(wire)
    if wire is NNS and frame[0] == 0x16:
        # A client that calls itself done with its first token: the service goes by its own context.
        bits.add((0, 1))
    for path, start, end in parts(frame, wire):
        if path in UNREAD:
            # The first byte of a bit string counts its last byte's unused bits: 0 to 7.
            bits |= {
                (at, bit)
                for at in range(start, end)
                for bit in range(3 if path == AP_OPTIONS and at == start else 8)
            }
    return bits


def swept(frame: bytes, wire: Wire) -> Iterator[Bit]:
    """Every position; every bit of what is in the clear, and one of each encrypted byte."""
    encrypted = {
        at
        for path, start, end in parts(frame, wire)
        if path in ENCRYPTED
        for at in range(start, end)
    }
    for position in range(len(frame)):
        for bit in (position % 8,) if position in encrypted else range(8):
            yield position, bit


def unread_in_record(frame: bytes, wire: Wire) -> set[Bit]:
    """The bits of a record that may change without a change of what they mean.

    A wrap token says by how many bytes its end was moved to its front (RRC, RFC 4121 4.2.5), in
    bytes 6 and 7, and is not signed where it says so: to go round once more changes nothing.  On
    winsock there is one place it can go to.
    """
    if wire is WINSOCK:
        return set()
    size = len(frame) - 4 - 16
    return {(4 + 7 - number // 8, number % 8) for number in range(16) if (1 << number) % size == 0}
