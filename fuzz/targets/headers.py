"""PROXY protocol headers, and the identities in them."""

from __future__ import annotations

from collections.abc import Iterable

from fuzz.inputs import Choices
from mutauth_twisted.gateway.forwarded import ForwardedIdentity
from mutauth_twisted.gateway.proxyprotocol import (
    CRC32C,
    LONGEST,
    HeaderParser,
    InvalidHeader,
    ProxyHeader,
)
from mutauth_twisted.testing.fakes import chunked

_CONTROLS = set(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)))


def check(data: bytes) -> None:
    """One header for all pieces, which is written as it was read, or an error that says why."""
    choices = Choices(data)
    cuts = choices.cuts()
    stream = choices.rest()
    whole = _read([stream])
    assert _read(chunked(stream, cuts)) == whole, "pieces are read as something else"
    if not isinstance(whole, tuple):
        return
    header, rest = whole
    size = 16 + int.from_bytes(stream[14:16], "big")
    assert rest == stream[size:], "what follows has changed"
    assert header.local <= (header.source is None and not header.tlvs)
    assert (header.source is None) == (header.destination is None)
    # A checksum is another one where the same is written differently.
    plain = ProxyHeader(
        header.source,
        header.destination,
        [(kind, value) for kind, value in header.tlvs if kind != CRC32C],
        header.local,
    )
    written = plain.encode()
    assert len(written) <= LONGEST
    again = _read([written + rest])
    assert isinstance(again, tuple)
    assert again[0].tlvs == plain.tlvs, "TLVs are lost"
    _check_identity(header)


def _read(chunks: Iterable[bytes]) -> tuple[ProxyHeader, bytes] | str | None:
    """A header and what follows it; the error; or None: there is more to come."""
    parser, found, rest = HeaderParser(), None, b""
    try:
        for chunk in chunks:
            if found is None:
                found = parser.feed(chunk)
            else:
                rest += chunk
    except InvalidHeader as error:
        assert str(error), "an error says nothing"
        return str(error)
    return None if found is None else (found[0], found[1] + rest)


def _check_identity(header: ProxyHeader) -> None:
    try:
        told = ForwardedIdentity.told(header)
    except InvalidHeader as error:
        assert str(error), "an error says nothing"
        return
    if told is None:
        return
    texts = (told.principal, told.realm, told.account, told.sid, *(told.groups or ()))
    assert not any(set(text or "") & _CONTROLS for text in texts), "a line could be forged"
    values = {value for _, value in header.tlvs}
    assert told.principal.encode() in values, "the principal is not in the header"
    again = ForwardedIdentity.told(told.header(header.source, header.destination))
    assert again == told, "an identity is not told as it was read"
