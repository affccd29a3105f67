"""Label of a ticket, read from a client's first token.

A GSSAPI initial token (RFC 2743 3.1) with Kerberos' mechanism holds an AP-REQ
(RFC 4120 5.5.1), whose ticket (5.3) carries the service's name and its key's
kind and version in the clear.  What is encrypted names the type of the key that
opens it: GSSAPI takes no other, so that of an accepted token both types are true.
SPNEGO's tokens (RFC 4178 4.2) hold such a one, the first if its sender guessed well.

That holds as long as GSSAPI and this file read the same ticket.  MIT's decoder is
lenient: it takes tags and lengths in other forms than DER's, and skips what follows
the fields that it knows.  So this one takes nothing but DER (X.690 10.1: each length
in its shortest form), and each field in its place, with nothing besides: there is
one way to read such a token, and no room for a second ticket in it.
"""

from __future__ import annotations

from mutauth_twisted.kerberos.errors import TicketLabel

_TOKEN, _OID, _AP_REQ, _TICKET, _SEQUENCE, _STRING, _INTEGER = (
    0x60,
    0x06,
    0x6E,
    0x61,
    0x30,
    0x1B,
    0x02,
)
_AP_REQ_ID = b"\x01\x00"
_SPNEGO_OID = b"\x2b\x06\x01\x05\x05\x02"
_OCTETS, _NEG_TOKEN_INIT, _NEG_TOKEN_RESP = 0x04, 0xA0, 0xA1
_FIELD = 0xA0  # the context tag of field 0
_HIGH_TAG_NUMBER = 0x1F  # X.690 8.1.2.4: the tag's number follows in further bytes
#: Anybody may send a token, so that reading one takes a bounded number of steps: an SPN has 3
#: parts.
_MOST_PARTS = 8
_LONGEST_NAME = 4096


class Excessive(ValueError):
    """A token has more of something than any ticket has, and would be work to read."""


def _element(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """The tag of the DER element at a position, and where its content starts and ends.

    :raises ValueError: when there is none within the bounds, or one that is not in DER's form.
    """
    if at + 2 > end:
        raise ValueError("an element is cut")
    tag, size, start = data[at], data[at + 1], at + 2
    if tag & _HIGH_TAG_NUMBER == _HIGH_TAG_NUMBER:
        raise ValueError("a tag is longer than a byte")
    if size >= 0x80:
        octets = size & 0x7F
        if not 1 <= octets <= 3 or start + octets > end:
            raise ValueError("an element has no usable length")
        size, start = int.from_bytes(data[start : start + octets], "big"), start + octets
        if size < 0x80 or size >> 8 * (octets - 1) == 0:
            raise ValueError("a length is not in its shortest form")
    if start + size > end:
        raise ValueError("an element is longer than what holds it")
    return tag, start, start + size


def _enter(data: bytes, at: int, end: int, *tags: int) -> tuple[int, int]:
    """The content of nested elements, each all that is in the one before."""
    for tag in tags:
        found, at, stop = _element(data, at, end)
        if found != tag:
            raise ValueError(f"tag 0x{found:02x} where 0x{tag:02x} belongs")
        if stop != end:
            raise ValueError("something follows an element")
        end = stop
    return at, end


def _fields(
    data: bytes, at: int, end: int, last: int, *optional: int
) -> dict[int, tuple[int, int]]:
    """The contents of a sequence's fields, by their numbers.

    :param last: the number of its last field.
    :param optional: those that may be missing.
    :raises ValueError: when one is missing or in another's place, or there is anything else.
    """
    found = {}
    for number in range(last + 1):
        if at < end and data[at] == _FIELD + number:
            _, start, at = _element(data, at, end)
            found[number] = (start, at)
        elif number not in optional:
            raise ValueError(f"field {number} of a sequence is not in its place")
    if at != end:
        raise ValueError("a sequence has unknown fields, or fields out of order")
    return found


def is_spnego(token: bytes) -> bool:
    """True when a client's first token is SPNEGO's."""
    try:
        at, end = _enter(token, 0, len(token), _TOKEN)
        tag, start, stop = _element(token, at, end)
    except ValueError:
        return False
    return tag == _OID and token[start:stop] == _SPNEGO_OID


def has_mech_list_mic(token: bytes) -> bool:
    """Tell whether a token of SPNEGO's is a NegTokenResp (RFC 4178 4.2.2) that signs the list of
    mechanisms.
    """
    return _responds(token, 3)


def carries_answer(token: bytes) -> bool:
    """Tell whether an acceptor's token is Kerberos' own, or a NegTokenResp with one in it."""
    return token[:1] == bytes((_TOKEN,)) or _responds(token, 2)


def _responds(token: bytes, number: int) -> bool:
    if token[:1] != bytes((_NEG_TOKEN_RESP,)):
        return False
    try:
        return number in _response(token)
    except ValueError:
        return False


def _response(token: bytes) -> dict[int, tuple[int, int]]:
    """The fields of a NegTokenResp: state, mechanism, token, signature."""
    return _fields(token, *_enter(token, 0, len(token), _NEG_TOKEN_RESP, _SEQUENCE), 3, 0, 1, 2, 3)


def _integer(data: bytes, at: int, end: int) -> int:
    start, stop = _enter(data, at, end, _INTEGER)
    if not 1 <= stop - start <= 8:
        raise ValueError("a number has no usable length")
    return int.from_bytes(data[start:stop], "big", signed=True)


def ticket_label(token: bytes) -> TicketLabel:
    """The label of the ticket in a client's token.

    :raises Excessive: when it is not worth reading, by GSSAPI either.
    :raises ValueError: when the token is not an AP-REQ, or not one in DER.
    """
    request = _request(token)
    ticket = _ticket(token, request)
    name = _name(token, *ticket[2])
    session, _ = _encrypted(token, *request[4])
    return TicketLabel(name, *_encrypted(token, *ticket[3]), session)


def ticket_principal(token: bytes) -> str:
    """The service and realm that a client's own token says its ticket is for,
    ``ldap/dc1.example.com@EXAMPLE.COM``.

    To a client whose ticket it is both are the KDC's word: its reply repeats them under the session
    key (RFC 4120 5.4.2), and krb5 compares.

    :raises ValueError: when the token is not an AP-REQ.
    """
    ticket = _ticket(token, _request(token))
    start, stop = _enter(token, *ticket[1], _STRING)
    return f"{_name(token, *ticket[2])}@{token[start:stop].decode()}"


def _request(token: bytes) -> dict[int, tuple[int, int]]:
    """The fields of the AP-REQ: version, message's type, options, ticket, authenticator."""
    at, end = _kerberos(token)
    tag, _, at = _element(token, at, end)
    if tag != _OID or token[at : at + 2] != _AP_REQ_ID:
        raise ValueError("the token is not an AP-REQ")
    return _fields(token, *_enter(token, at + 2, end, _AP_REQ, _SEQUENCE), 4)


def _ticket(token: bytes, request: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """The fields of its ticket: version, realm, service's name, what is encrypted."""
    return _fields(token, *_enter(token, *request[3], _TICKET, _SEQUENCE), 3)


def _kerberos(token: bytes) -> tuple[int, int]:
    """Where the content of Kerberos' own token is, which SPNEGO's first or a later one may hold."""
    if token[:1] == bytes((_NEG_TOKEN_RESP,)):
        fields = _response(token)
    else:
        begin, end = _enter(token, 0, len(token), _TOKEN)
        tag, start, at = _element(token, begin, end)
        if tag != _OID or token[start:at] != _SPNEGO_OID:
            return begin, end
        fields = _fields(token, *_enter(token, at, end, _NEG_TOKEN_INIT, _SEQUENCE), 3, 1, 2, 3)
    if 2 not in fields:
        raise ValueError("SPNEGO's token holds no other")
    return _enter(token, *fields[2], _OCTETS, _TOKEN)


def _name(token: bytes, at: int, end: int) -> str:
    fields = _fields(token, *_enter(token, at, end, _SEQUENCE), 1)
    at, end = _enter(token, *fields[1], _SEQUENCE)
    if end - at > _LONGEST_NAME:
        raise Excessive("the name on its ticket is too long")
    parts: list[str] = []
    while at < end:
        if len(parts) == _MOST_PARTS:
            raise Excessive("the name on its ticket has too many parts")
        tag, start, at = _element(token, at, end)
        if tag != _STRING:
            raise ValueError("a part of the name is not a string")
        parts.append(token[start:at].decode(errors="replace"))
    return "/".join(parts)


def _encrypted(token: bytes, at: int, end: int) -> tuple[int, int | None]:
    """The type and the version of the key of an EncryptedData (RFC 4120 5.2.9)."""
    fields = _fields(token, *_enter(token, at, end, _SEQUENCE), 2, 1)
    return _integer(token, *fields[0]), _integer(token, *fields[1]) if 1 in fields else None
