"""The worst that unauthenticated peers can send: text that a terminal obeys or that is invisible,
and tokens that are work to read.
"""

from __future__ import annotations

import re
import struct

from mutauth_twisted.kerberos import ap_req as ticket
from mutauth_twisted.testing.forge import _integer, _name, _sequence, _string, der
from mutauth_twisted.wire import NNS, Wire

#: One of each kind: colours, a cleared screen, forged lines, text direction, invisible characters,
#: surrogates, tags.
HOSTILE = (
    "x\x1b[31m\x1b]0;title\x07\x1b[2J\x9b2J\r\n2026-01-01T00:00:00 root has come "
    "in\x0b\x0c\x85\u2028\u2029"
    "\u202e\u2066\u200b\u2060\ufeff\u00ad\u034f\u115f\u3164\u180e\ufe0f\U000e0041\U000e0100\u2800\ue000\x00\x7f"
)
#: The same without what an LDAP string, a file's name or an argument cannot hold.
HOSTILE_NAME = HOSTILE.replace("\x00", "")

_RAW = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2060-\u206f\u200b-\u200f\ufeff\u00ad\u034f\u115f\u3164"
    "\u180b-\u180f\ufe00-\ufe0f\U000e0000-\U000e01ff\u2800\ue000-\uf8ff\ud800-\udfff]"
)


def raw_in(text: str) -> list[str]:
    """Return the control characters of this that a reader of the text would see raw; between lines
    only ``\n`` is allowed.
    """
    return _RAW.findall(text)


_OID = b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"
_SPNEGO = b"\x06\x06\x2b\x06\x01\x05\x05\x02"
_NTLM = b"\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a"


def ap_req(
    name: bytes,
    realm: str = "TEST.EXAMPLE",
    *,
    kind: int = 18,
    version: int | None = 1,
    before: bytes = b"",
) -> bytes:
    """A client's first token with a ticket that no key opens.

    :param name: the DER of the name on the ticket.
    :param version: that of the keys; None: it names none.
    :param before: elements in front of the ticket's own fields.
    """
    numbered = [] if version is None else [(1, _integer(version))]
    encrypted = _sequence((0, _integer(kind)), *numbered, (2, der(0x04, bytes(200))))
    fields = [(0, _integer(5)), (1, _string(realm)), (2, name), (3, encrypted)]
    inner = der(
        0x61, der(0x30, before, *(der(0xA0 | number, content) for number, content in fields))
    )
    parts = [
        (0, _integer(5)),
        (1, _integer(14)),
        (2, der(0x03, bytes(5))),
        (3, inner),
        (4, encrypted),
    ]
    return request(*(der(0xA0 | number, content) for number, content in parts))


def opened(token: bytes) -> dict[int, bytes]:
    """Fields of the AP-REQ in a genuine first token, by their numbers."""
    return {number: token[start:stop] for number, (start, stop) in ticket._request(token).items()}


def request(*elements: bytes) -> bytes:
    """A first token with an AP-REQ of these elements."""
    return der(0x60, _OID, b"\x01\x00", der(0x6E, der(0x30, *elements)))


def long_tag(number: int, content: bytes) -> bytes:
    """A field whose tag's number follows in a byte of its own (X.690 8.1.2.4), which DER has for
    numbers above 30 only.
    """
    return b"\xbf" + der(number, content)


def with_decoy(token: bytes, decoy: bytes) -> bytes:
    """A request whose ticket MIT finds, and who looks for short tags only another one's.

    MIT takes the long tag for field 3, and skips what follows field 4.
    """
    own, other = opened(token), opened(decoy)
    before = (der(0xA0 + number, own[number]) for number in range(3))
    return request(
        *before,
        long_tag(3, own[3]),
        *(der(0xA0 + n, part[n]) for part, n in ((own, 4), (other, 3), (other, 4))),
    )


def spnego(token: bytes, mechanisms: bytes = _OID) -> bytes:
    """A token inside SPNEGO's first."""
    return der(
        0x60, _SPNEGO, der(0xA0, _sequence((0, der(0x30, mechanisms)), (2, der(0x04, token))))
    )


def _nested(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = der(0x30, inner)
        if len(inner) > 60_000:
            break
    return inner


def _parts(*parts: bytes) -> bytes:
    return _sequence((0, _integer(1)), (1, der(0x30, *parts)))


def worst_tokens() -> dict[str, bytes]:
    """Tokens of up to 64 KiB, by what is bad about them; each is refused."""
    control = "\x1b" * 60_000
    return {
        "long name": ap_req(_name([control])),
        "long name of invisible letters": ap_req(_name(["\U000e0041" * 15_000])),
        "long name of no UTF-8": ap_req(_parts(der(0x1B, b"\xff" * 60_000))),
        "name of the longest that is read": ap_req(_name(["echoSvc", "\x1b" * 4_000])),
        "name of many parts": ap_req(_parts(b"\x1b\0" * 30_000)),
        "many elements before the name": ap_req(_name(["a"]), before=b"\x05\0" * 30_000),
        "long realm": ap_req(_name(["echoSvc", "srv1"]), realm=control),
        "unknown kind of key": ap_req(_name(["echoSvc", "srv1"]), kind=0x7FFFFFFF),
        "plain name": ap_req(_name(["echoSvc", "srv1"])),
        "nested deep": der(0x60, _OID, b"\x01\x00", _nested(12_000)),
        "nested deep in SPNEGO": spnego(_nested(12_000)),
        "SPNEGO with many mechanisms": spnego(b"x", _NTLM * 5_000),
        "SPNEGO with a long name": spnego(ap_req(_name([control]))),
        "SPNEGO of garbage": der(0x60, _SPNEGO, b"\xa0\x84\x7f\xff\xff\xff" + b"\xa0" * 60_000),
        "NTLM": b"NTLMSSP\0" + b"\xff" * 60_000,
        "biggest of zeros": bytes(0xFFFF),
        "biggest of ones": b"\xff" * 0xFFFF,
        "empty": b"",
    }


def worst_messages(wire: Wire = NNS) -> dict[str, bytes]:
    """First messages of an attacker: frames of tokens, and bytes that are not frames at all."""
    frames = {what: wire.token(token, False) for what, token in worst_tokens().items()}
    frames["another protocol"] = b"\x1b[2J" * 4_000
    frames["refusal"] = NNS.fault(1326)
    return frames


def stripped(token: bytes, gap: int, flags: int = 0) -> bytes:
    """An AUTHENTICATE message without the last bytes in front of its payload, where the code is
    (MS-NLMP 2.2.1.3).

    :param gap: how many; 16: the code, 24: Version too.
    :param flags: NegotiateFlags to clear.
    """
    message = bytearray(token[: 88 - gap] + token[88:])
    for at in range(16, 60, 8):
        (offset,) = struct.unpack_from("<I", message, at)
        struct.pack_into("<I", message, at, max(0, offset - gap))
    (asked,) = struct.unpack_from("<I", message, 60)
    struct.pack_into("<I", message, 60, asked & ~flags)
    return bytes(message)
