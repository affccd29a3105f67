"""What a ticket says of itself, read from a client's first token.

A GSSAPI initial token (RFC 2743 3.1) with Kerberos' mechanism holds an AP-REQ
(RFC 4120 5.5.1), whose ticket (5.3) carries the service's name and its key's
kind and version in the clear.
"""

from __future__ import annotations

from mutauth_twisted.gsserrors import TicketLabel

_TOKEN, _OID, _AP_REQ, _TICKET, _SEQUENCE, _STRING, _INTEGER = 0x60, 0x06, 0x6E, 0x61, 0x30, 0x1B, 0x02
_AP_REQ_ID = b"\x01\x00"
_FIELD = 0xA0  # the context tag of field 0


def _element(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """The tag of the DER element at a position, and where its content starts and ends.

    :raises ValueError: when there is none within the bounds.
    """
    if at + 2 > end:
        raise ValueError("an element is cut")
    tag, size, start = data[at], data[at + 1], at + 2
    if size >= 0x80:
        octets = size & 0x7F
        if not 1 <= octets <= 3 or start + octets > end:
            raise ValueError("an element has no usable length")
        size, start = int.from_bytes(data[start : start + octets], "big"), start + octets
    if start + size > end:
        raise ValueError("an element is longer than what holds it")
    return tag, start, start + size


def _enter(data: bytes, at: int, end: int, *tags: int) -> tuple[int, int]:
    """The content of nested elements, each the first in the one before."""
    for tag in tags:
        found, at, end = _element(data, at, end)
        if found != tag:
            raise ValueError(f"tag 0x{found:02x} where 0x{tag:02x} belongs")
    return at, end


def _field(data: bytes, at: int, end: int, number: int) -> tuple[int, int]:
    """The content of a sequence's field."""
    while True:
        tag, start, stop = _element(data, at, end)
        if tag == _FIELD + number:
            return start, stop
        at = stop


def _integer(data: bytes, at: int, end: int) -> int:
    start, stop = _enter(data, at, end, _INTEGER)
    if not 1 <= stop - start <= 8:
        raise ValueError("a number has no usable length")
    return int.from_bytes(data[start:stop], "big", signed=True)


def _ticket(token: bytes) -> tuple[int, int]:
    """The content of the ticket's sequence."""
    at, end = _enter(token, 0, len(token), _TOKEN)
    tag, _, at = _element(token, at, end)
    if tag != _OID or token[at : at + 2] != _AP_REQ_ID:
        raise ValueError("the token is no AP-REQ")
    at, end = _field(token, *_enter(token, at + 2, end, _AP_REQ, _SEQUENCE), 3)
    return _enter(token, at, end, _TICKET, _SEQUENCE)


def ticket_name(token: bytes) -> str:
    """The service that a client's first token says its ticket is for, such as ``echoSvc/srv1.example.com``.

    Nothing protects it: who has a ticket for one of an account's SPNs can
    write another one on it.

    :raises ValueError: when the token is no AP-REQ.
    """
    at, end = _field(token, *_ticket(token), 2)
    at, end = _field(token, *_enter(token, at, end, _SEQUENCE), 1)
    at, end = _enter(token, at, end, _SEQUENCE)
    parts = []
    while at < end:
        tag, start, at = _element(token, at, end)
        if tag != _STRING:
            raise ValueError("a part of the name is no string")
        parts.append(token[start:at].decode())
    return "/".join(parts)


def ticket_label(token: bytes) -> TicketLabel:
    """The service, and the kind and version of its key, that a client's first token says its ticket is for.

    :raises ValueError: when the token is no AP-REQ.
    """
    encrypted = _enter(token, *_field(token, *_ticket(token), 3), _SEQUENCE)  # EncryptedData (RFC 4120 5.2.9)
    kind = _integer(token, *_field(token, *encrypted, 0))
    try:
        version = _integer(token, *_field(token, *encrypted, 1))
    except ValueError:
        version = None
    return TicketLabel(ticket_name(token), kind, version)
