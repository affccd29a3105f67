"""Inputs that every run begins with: what genuine peers, tickets, answers and entries look like,
and findings that were kept.

Kerberos' tokens are made with new keys each time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

from attrs import evolve
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.names import dns

from fuzz.targets.connection import MANNERS, conversation, peer_of
from fuzz.targets.kerberos import parties_of_a_realm
from fuzz.targets.ldap import ldap_buffers
from mutauth_twisted.gateway.forwarded import ForwardedIdentity
from mutauth_twisted.gateway.proxyprotocol import CRC32C, ProxyHeader, crc32c
from mutauth_twisted.testing.fakes import FakeContext
from mutauth_twisted.testing.pacs import ENABLED, REAL, pac
from mutauth_twisted.wire import NNS, WINSOCK, Wire

#: Inputs that found something once: a directory for each target that has any.
KEPT = Path(__file__).resolve().parent / "kept"

Seeds = Iterator[tuple[str, bytes]]
_WIRES: tuple[Wire, ...] = (NNS, WINSOCK)
_DN = "CN=echoSvc,CN=SRV1,OU=A\\, B,DC=test,DC=example"
_GUID = UUID("28630eb8-41d5-11d1-a9c1-0000f80367c1")


def _cuts(*positions: int) -> bytes:
    return bytes([len(positions)]) + b"".join(struct.pack(">H", each) for each in positions)


def _wire(wire: Wire) -> Seeds:
    def stream(frames: int, data: bytes, fill: int | None = None, cuts: bytes = _cuts()) -> bytes:
        filled = b"\0" if fill is None else b"\1" + struct.pack(">H", fill)
        return bytes([frames]) + cuts + filled + data

    record = wire.record(b"sealed bytes")
    yield (
        "token-and-records",
        stream(1, wire.token(b"token", True) + record * 3, cuts=_cuts(2, 6, 30)),
    )
    yield (
        "two-tokens",
        stream(2, wire.token(b"request", False) + wire.token(b"answer", True) + record),
    )
    yield "records", stream(0, record * 4, cuts=_cuts(1, 17))
    yield "cut", stream(1, wire.token(b"token", False) + record[:7])
    yield (
        "largest-token",
        stream(1, wire.token(bytes(wire.max_token), False)[:9], wire.max_token - 4),
    )
    yield "largest-record", stream(0, wire.record(bytes(0xFFFF))[:4], 0xFFFF)
    yield "too-large", stream(0, struct.pack("<I", 0x10001) + b"x")
    yield "empty-record", stream(0, struct.pack("<I", 0))
    yield "fault", stream(1, NNS.fault(1326))
    yield "another-protocol", stream(1, b"GET / HTTP/1.1\r\n\r\n")


def _stream() -> Seeds:
    piece = b"\1\5hello"
    yield "pieces", piece * 3 + b"\0\0\0\1\1"
    yield "beginnings", b"\1\2\1\0" + b"\1\3\0\1\0" + b"\1\1\0" + b"\0\0\0\1\0more\0\0\1\1"
    yield "no-end", piece + b"\0and more\0\0"
    yield "behind-the-end", b"\0\0\0\1\1more"
    yield "unknown", b"\0\0\0\1\2"


def _confirmation() -> Seeds:
    yield "genuine", b"\1\0"
    yield "another-channel", b"\0\0"
    yield "none", b"\1\0\3\0\2\x1d"
    yield "flipped", b"\1\0\0\0\7\1"
    yield "made-up", b"\1\1\0\4abcdtoken 2"


def _handshake() -> Seeds:
    # wire, side, verdict; then frames, and what the steps bring: see fuzz.targets.handshake.
    for wire, name in enumerate(("nns", "winsock")):
        done = b"\1" if wire == 0 else b""
        for verdict in range(4):
            start = bytes([wire, 0, verdict, 0])
            yield (
                f"{name}-acceptor-{verdict}",
                start + b"\0\x05" + done.replace(b"\1", b"\0") + b"\3\1\x07",
            )
            start = bytes([wire, 1, verdict, 0])
            ending = b"\0\x05" + done + b"\3\1\0"
            yield f"{name}-initiator-{verdict}", start + b"\3\0\x09" + ending
        yield (
            f"{name}-three-legs",
            bytes([wire, 1, 0, 0]) + b"\3\0\x09" + b"\0\x05" + done[:0] + b"\0\3\1\4\0\0\1",
        )
        known = bytes([wire, 0, 0, 1]) + b"\0\x05" + done.replace(b"\1", b"\0") + b"\3\1\x07"
        yield f"{name}-opening", known + b"\0"
        yield f"{name}-no-opening", known + b"\5\0"
        yield f"{name}-marked", bytes([wire, 1, 0, 0]) + b"\3\0\x09\1\x05" + done + b"\3\1\0"
        yield f"{name}-too-large", bytes([wire, 1, 0, 0]) + b"\3\1\xff"
        yield f"{name}-fault", bytes([wire, 1, 0, 0]) + b"\3\0\x09\2\0\0\5\x2e"
        yield f"{name}-late", bytes([wire, 1, 0, 0]) + b"\5\3\1\5\5"
        yield f"{name}-step-failed", bytes([wire, 0, 0, 0]) + b"\0\x05\0\4\x08\5"
    walk = Random(0)
    for number in range(100):
        start = bytes(walk.randrange(2) for _ in range(2)) + walk.choice(b"\0\0\1\2\3").to_bytes()
        steps = walk.choices(b"\0\1\2\3\3\4\5\x09\xff", k=walk.randrange(1, 24))
        yield f"walk-{number:02}", start + bytes([walk.randrange(2), *steps])


def _opening(wire: Wire, initiator: bool, legs: int, *, mutauth: bool = True) -> bytes:
    """Bytes that a genuine peer, of a mutauth one or not, sends before its records."""
    tokens = FakeContext(initiator=not initiator, legs=legs)
    numbers = range(2 if initiator else 1, legs + 1, 2)
    mark = mutauth and initiator
    stream = b"".join(
        wire.token(tokens.token(number), number == legs, mark and number == legs)
        for number in numbers
    )
    if initiator and legs == 3:
        stream += wire.token(b"", True, mark)
    return stream


def _connection() -> Seeds:
    for number, wire in enumerate(_WIRES):
        for initiator in (False, True):
            for seal in (False, True):
                for legs in (2, 3):
                    context = FakeContext(initiator=initiator, legs=legs)
                    # Where the client has the last token, and nothing follows it on the wire,
                    # nothing can be marked.
                    mutauth = legs == 2 or wire.says_done
                    records = conversation(wire, peer_of(context), seal=seal, mutauth=mutauth)
                    stream = _opening(wire, initiator, legs) + b"".join(records)
                    side = bytes([number, seal, initiator, legs - 2])
                    name = (
                        f"{wire.name}-{'client' if initiator else 'service'}-"
                        f"{'seal' if seal else 'sign'}-{legs}"
                    )
                    yield name, side + b"\1\1\0\0" + _cuts(3, 30, 90) + stream
                    if legs == 2 and seal:
                        for manner in range(1, len(MANNERS)):
                            yield (
                                f"{name}-{MANNERS[manner]}",
                                side + bytes([1, 1, manner & 1, manner]) + _cuts(90) + stream,
                            )
                    if legs == 2:
                        yield (
                            f"{name}-cut",
                            side + b"\1\1\0\0" + _cuts(9) + stream[: -len(b"".join(records[-2:]))],
                        )
        yield (
            f"{wire.name}-stranger",
            bytes([number, 1, 0, 0, 0, 1, 1, 0]) + _cuts() + wire.token(b"secret-token 1", False),
        )
        copied = wire.token(b"secret-token 1", False)
        yield f"{wire.name}-copied", bytes([number, 1, 0, 0, 1, 1, 1, 0]) + _cuts() + copied
        unmarked = conversation(wire, FakeContext(initiator=True), seal=True, opens=False)
        yield (
            f"{wire.name}-unmarked",
            bytes([number, 1, 0, 0, 1, 1, 0, 0]) + _cuts() + copied + b"".join(unmarked),
        )
        yield f"{wire.name}-silence", bytes([number, 1, 1, 0, 1, 1, 1, 0]) + _cuts()
        yield (
            f"{wire.name}-refused",
            bytes([number, 1, 1, 0, 1, 1, 0, 0]) + _cuts() + NNS.fault(1326),
        )
        yield (
            f"{wire.name}-http",
            bytes([number, 1, 0, 0, 1, 1, 0, 0]) + _cuts(1) + b"GET / HTTP/1.1\r\n\r\n",
        )
        for initiator, side in ((False, "client"), (True, "service")):
            foreign = conversation(
                wire, FakeContext(initiator=not initiator), seal=True, mutauth=False
            )
            stream = _opening(wire, initiator, 2, mutauth=False) + b"".join(foreign)
            start = bytes([number, 1, initiator, 0, 1, 0, 0, 1]) + _cuts(50)
            yield f"{wire.name}-dotnet-{side}", start + stream
            yield f"{wire.name}-dotnet-{side}-between-records", start + stream[: -len(foreign[-1])]


def _records() -> Seeds:
    for number, wire in enumerate(_WIRES):
        for initiator in (False, True):
            for seal in (False, True):
                for mutauth in (False, True):
                    context = peer_of(FakeContext(initiator=initiator))
                    frames = conversation(wire, context, seal=seal, mutauth=mutauth, opens=False)
                    start = bytes([number, seal, initiator, mutauth]) + _cuts(2, 40)
                    name = (
                        f"{wire.name}-{'client' if initiator else 'service'}-"
                        f"{'seal' if seal else 'sign'}"
                    )
                    yield f"{name}-{'ended' if mutauth else 'foreign'}", start + b"".join(frames)
                    if mutauth:
                        swapped = [frames[0], frames[2], frames[1], *frames[3:]]
                        yield f"{name}-swapped", start + b"".join(swapped)
                        yield f"{name}-repeated", start + b"".join([*frames, frames[-1]])
                        other = bytes([number, not seal, initiator, 1])
                        yield f"{name}-other-protection", other + _cuts() + b"".join(frames)


def _edits(first: bytes) -> Seeds:
    yield "genuine", first
    for where in (0, 1, 4, 17, 20, 40, 90, 200, 0xFFFF, 0xFFF0, 0xFF80):
        yield f"flip-{where:04x}", first + b"\0" + struct.pack(">H", where) + b"\x01"
    yield "cut", first + b"\4\0\x30\0"
    yield "cut-at-the-end", first + b"\4\xff\xff\0"
    yield "longer", first + b"\2\xff\xff\x04abcd"
    yield "shorter", first + b"\3\0\x20\x01"


def _acceptor() -> Seeds:
    yield from _edits(b"\0")
    with parties_of_a_realm() as parties:
        request = parties.request()
        yield "other-key", b"\1" + request
        yield "answer", b"\1" + parties.service().step(request).token
    yield "ntlm", b"\1NTLMSSP\0\1\0\0\0" + bytes(24)
    spnego = bytes.fromhex("601c06062b0601050502a0123010a00e300c060a2b06010401823702020a")
    yield "spnego", b"\1" + spnego
    yield "empty", b"\1"


def _initiator() -> Seeds:
    yield from _edits(b"\0")
    with parties_of_a_realm() as parties:
        yield "other-key", b"\1" + parties.service().step(parties.request()).token
    for code in (7, 37, 41, 60):
        yield f"krb-error-{code}", b"\1" + _krb_error(code, b"\x1b[2J words\r\nof a stranger")


def _element(tag: int, *contents: bytes) -> bytes:
    body = b"".join(contents)
    return bytes((tag, len(body))) + body


def _krb_error(code: int, words: bytes) -> bytes:
    """RFC 4120 5.9.1, in the framing of RFC 4121 4.1."""

    def field(number: int, tag: int, content: bytes) -> bytes:
        return _element(0xA0 | number, _element(tag, content))

    name = _element(0xA0, _element(2, b"\1")) + _element(
        0xA1, _element(0x30, _element(0x1B, b"echoSvc"))
    )
    fields = (
        field(0, 2, b"\5")
        + field(1, 2, b"\x1e")
        + field(4, 0x18, b"20260101000000Z")
        + field(5, 2, b"\0")
    )
    fields += (
        field(6, 2, bytes([code]))
        + field(9, 0x1B, b"TEST.EXAMPLE")
        + field(10, 0x30, name)
        + field(11, 0x1B, words)
    )
    mechanism = bytes.fromhex("06092a864886f712010202")
    return _element(0x60, mechanism, b"\3\0", _element(0x7E, _element(0x30, fields)))


def _ldap() -> Seeds:
    for name, cut in (("whole", 0), ("cut", 30)):
        for seal in (True, False):
            stream = ldap_buffers(seal)
            yield (
                f"{name}-{'seal' if seal else 'sign'}",
                struct.pack(">HB", 1 << 12, 9) + stream[: len(stream) - cut],
            )
    yield "too-many", struct.pack(">HB", 50, 9) + ldap_buffers(True)
    yield "too-large", struct.pack(">HBI", 0xFFFF, 0, 0xFFFFFF)
    yield "empty", struct.pack(">HBI", 0xFFFF, 0, 0)


def _sealing() -> Seeds:
    for wire in range(len(_WIRES)):
        for seal in (0, 1):
            for name, changes in _edits(b""):
                yield (
                    f"{_WIRES[wire].name}-{'seal' if seal else 'sign'}-{name}",
                    bytes([wire, seal, 0, 20]) + changes,
                )
    yield "down", bytes([0, 1, 1, 0])


def _ticket() -> Seeds:
    with parties_of_a_realm() as parties:
        yield "three-parts", parties.request()
    yield "krb-error", bytes.fromhex("600f06092a864886f71201020203007e00")
    yield "ntlm", b"NTLMSSP\0\1\0\0\0"


def _pac() -> Seeds:
    upn = "alice@test.example".encode("utf-16-le")
    yield "real", b"\0" + REAL
    yield "none", b"\0" + pac()
    yield "cut-in-a-sid", b"\0" + REAL.rstrip(b"\0")[:-6]
    yield (
        "all-kinds",
        b"\0"
        + pac(
            groups=[(513, ENABLED), (1104, ENABLED | 0x10)],
            others=[("S-1-18-1", ENABLED), ("S-1-5-21-7-8-9-500", ENABLED)],
            resource=("S-1-5-21-4-5-6", [(1200, ENABLED)]),
            name="bob",
        ),
    )
    information = struct.pack("<HHHHI", len(upn), 12, 0, 12, 0) + upn
    yield (
        "upn",
        bytes([len(information)]) + information + pac(groups=[(513, ENABLED)], name="alice"),
    )
    yield (
        "big-sid",
        b"\0" + pac(domain="S-1-281474976710655" + "-4294967295" * 15, groups=[(1, ENABLED)]),
    )


def _texts(*texts: str) -> Seeds:
    for number, text in enumerate(texts):
        yield f"{number:02}", text.encode()


def _spn() -> Seeds:
    yield from _texts(
        "echoSvc/srv1.test.example",
        "echoSvc/srv1:9000",
        "echoSvc/srv1:9000/CN=echoSvc,CN=SRV1,DC=test",
        f"echoSvc/srv1/{_GUID}",
        "ldap/dc1.test.example/test.example",
        "MSSQLSvc/srv1:instance",
        "a/b:0",
        "a/b:65536",
        "a/b/c/d",
        "a//c",
        "a/1.2.3.4/b",
        "a/b c",
        "a/ü/CN=x y",
        "",
    )
    yield "not-utf8", b"a/\xff"


def _dn() -> Seeds:
    yield from _texts(
        _DN,
        "echoSvc",
        " a ",
        "#x",
        "a=b,c+d",
        "DC=test",
        "x*y*",
        "(&(a=b))",
        "\\2C",
        "a\\",
        "\n",
        "",
    )
    yield "guid", str(_GUID).encode()
    yield "braces", b"{28630EB8-41D5-11D1-A9C1-0000F80367C1}"
    yield "not-utf8", b"\xff\\2a*"


def _policy() -> Seeds:
    def who(
        principal: str, account: str = "", upn: str = "", pac: bool = True, group: int = 1104
    ) -> bytes:
        pieces = [text.encode() for text in (principal, account, upn)]
        return struct.pack(">BH", pac, group) + b"".join(
            bytes([len(piece)]) + piece for piece in pieces
        )

    yield "alice", who("alice@TEST.EXAMPLE", "alice")
    yield "upn", who("bob@TEST.EXAMPLE", "alice", "bob@test.example")
    yield (
        "enterprise",
        who("alice\\@other.example@TEST.EXAMPLE", "alice", "alice@other.example", group=513),
    )
    yield "no-pac", who("alice@TEST.EXAMPLE", pac=False)
    yield "other-realm", who("alice@OTHER.EXAMPLE", "ALICE")
    yield "long-s", who("alice@TE\u017fT.EXAMPLE", "alice")
    yield "service", who("HTTP/srv1.test.example@TEST.EXAMPLE", "SRV1$")
    yield "nobody", who("@", "")


def _policy_file() -> Seeds:
    tables = {
        "accounts": """accounts = ["alice@TEST.EXAMPLE", 'TEST\\svc-*$']""",
        "groups": 'groups = ["TEST\\\\staff", "S-1-5-21-1-2-3-1104"] # [[deny]]',
        "all": "all = true\nmax-session = 1.5\nmax-connections = 3",
        "lines": 'accounts = [\n  "a@B", # = [\n  """[[deny]]@C""",\n]',
        "wrong": 'acounts = ["a@B"]',
    }
    for name, table in tables.items():
        yield name, f"[[allow]]\n{table}\n".encode()
    denial = b"[[deny]]\naccounts = ['mallory@*']\n"
    yield "both", b"".join((denial, f"\n[[allow]]\n{tables['lines']}\n".encode(), denial))
    yield "inline", b"deny = [{all = true}, {accounts = ['a@B']}]"
    yield "quoted", b'[["al\\u006cow"]]\n"a\\u006cl" = true'
    yield "other", b"[allow.x]\nall = true\n"


def _binding() -> Seeds:
    yield from _texts(
        "9000",
        "9000;priority=1;weight=5;wire=winsock;protection=sign;spn=guid",
        " 9000 ; Weight = 7 ; x=y;;",
        "9000;later=1;later2=",
        "0",
        "65536",
        "9000;priority=x",
        "9000;wire=",
        "²",
        "9000;=",
        "9000;later=a\x01b",
        "9000;\u0130=1",
        "",
    )


def _rnr() -> Seeds:
    yield from _texts(
        "mutauth/1 srv1.test.example 9000",
        "mutauth/1 srv1 9000;priority=1;spn=host",
        "mutauth/2 srv1 9000",
        "mutauth/1 srv1",
        "mutauth/1 srv1/x 9000",
        "mutauth/1 srv1 9000;x=" + "y" * 1000,
    )
    yield "socket-address", bytes.fromhex("02002328c0000201") + bytes(8)
    yield "guid", b"\0" + _GUID.bytes_le


def _scp() -> Seeds:
    def point(*values: str, missing: int = 0, dn: str = _DN) -> bytes:
        pieces = [value.encode() for value in values]
        return (
            bytes([missing])
            + b"".join(bytes([len(piece)]) + piece for piece in pieces)
            + dn.encode()
        )

    yield "usual", point("echoSvc", "srv1.test.example", "A", "9000", "echoSvc")
    yield (
        "replicated",
        point("echoSvc", "_echo._tcp.test.example.", "srv", "9000;spn=guid", "echoSvc"),
    )
    yield "unpublished", point("echoSvc", "srv1", "", "", "", missing=8)
    yield "nothing", point(missing=31)
    yield "slash", point("echo/Svc", "srv1/x", "A", "x", "", dn="CN=a/b,DC=test")
    yield "dots", point("echoSvc", "...", "A", "1", "")


def _guid_cache() -> Seeds:
    yield (
        "usual",
        b'{"service_class": "echoSvc", "host": "srv1", "guid": "%s", "dn": "CN=x"}'
        % str(_GUID).encode(),
    )
    yield from _texts(
        '{"guid": 1}',
        "[]",
        "null",
        '"x"',
        "{}",
        "",
        '{"guid": "{' + str(_GUID) + '}", "dn": null}',
        "[" * 50,
    )
    yield "not-utf8", b'{"guid": "\xff"}'


def _dns() -> Seeds:
    def answer(
        *records: Any, code: int = 0, name: bytes = b"_x._tcp.test.example", kind: int = dns.SRV
    ) -> bytes:
        message = dns.Message(answer=1, rCode=code)
        message.queries = [dns.Query(name, kind)]
        message.answers = [dns.RRHeader(name, record.TYPE, payload=record) for record in records]
        return bytes(message.toStr()[2:])

    srv = b"\1" + _cuts()
    first, second = (
        dns.Record_SRV(0, 5, 9000, b"srv1.test.example"),
        dns.Record_SRV(1, 0, 9001, b"srv2.test.example"),
    )
    yield "srv", srv + answer(first, second)
    yield "srv-in-pieces", b"\1" + _cuts(1, 9, 40) + answer(first)
    yield "srv-none", srv + answer(dns.Record_SRV(0, 0, 0, b""))
    yield "srv-not-ascii", srv + answer(dns.Record_SRV(0, 0, 1, b"srv\xc3\xbc.example"))
    yield "srv-other-type", srv + answer(dns.Record_A("10.0.0.1"))
    question = len(answer()) + 2
    yield "srv-records", b"\3" + _cuts() + b"\0\2" + answer(first, second)[question - 2 :]
    loop = (0xC000 | question).to_bytes(2, "big")
    yield (
        "srv-pointer-loop",
        b"\3" + _cuts() + b"\0\1" + loop + b"\0\x21\0\1\0\0\0\0\0\7" + bytes(7),
    )
    yield "no-such-name", srv + answer(code=3)
    yield "failed", srv + answer(code=2)
    yield "empty", srv
    host = b"\0" + _cuts()
    yield "a", host + answer(dns.Record_A("10.0.0.1"), name=b"h.example", kind=dns.A)
    yield "aaaa", host + answer(dns.Record_AAAA("fd00::1"), name=b"h.example", kind=dns.AAAA)
    yield (
        "alias",
        host
        + answer(
            dns.Record_CNAME(b"g.example"), dns.Record_A("10.0.0.2"), name=b"h.example", kind=dns.A
        ),
    )
    yield (
        "pointer-loop",
        host + b"\x81\x80\0\1\0\1\0\0\0\0\xc0\x0c\0\1\0\1\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x0a\0\0\1",
    )


def _proxy_header() -> Seeds:
    client, service = IPv4Address("TCP", "192.0.2.7", 40000), IPv4Address("TCP", "192.0.2.1", 88)
    six, socket = IPv6Address("TCP", "2001:db8::1", 9000), UNIXAddress(b"/run/s")
    sids = ("S-1-5-21-1-2-3-513", "S-1-18-1")
    who = ForwardedIdentity("alice@R", "R", "kerberos", "s/h", "D\\alice", "S-1-5-21-1-2-3-9", sids)
    whole = who.header(client, service).encode()
    yield "identity", _cuts() + whole + b"what follows"
    yield "pieces", _cuts(1, 13, 15, 28, 40) + whole
    cut = evolve(who, groups=sids * 300, connection_id="c-1")
    yield "groups-cut", _cuts(3000) + cut.header(client, six).encode()
    yield "unix", _cuts() + who.header(socket, socket).encode()
    yield "unspecified", _cuts() + who.header(socket, client).encode()
    yield "local", _cuts() + ProxyHeader(local=True).encode() + whole
    yield (
        "no-identity",
        _cuts() + ProxyHeader(six, six, [(5, b"\xff"), (4, b""), (4, b"")]).encode(),
    )
    yield "cut", _cuts() + whole[:-1]
    blank = ProxyHeader(client, service, [(CRC32C, bytes(4))]).encode()
    yield "checksum", _cuts() + blank[:-4] + crc32c(blank).to_bytes(4, "big")
    yield "http", _cuts() + b"GET / HTTP/1.1\r\n\r\n"
    yield "version-1", _cuts() + b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 88\r\n"


def _status() -> Seeds:
    for path in ("/", "/healthz", "/readyz", "/health", "/metrics", "/none?x"):
        name = path.strip("/?x") or "root"
        yield name, _cuts() + f"GET {path} HTTP/1.1\r\nHost: localhost:1\r\n\r\n".encode()
    accept = b"GET / HTTP/1.1\r\nHost: [::1]\r\nAccept: text/html\r\n\r\n"
    yield "page", _cuts(3, 17, 40) + accept
    yield "head", _cuts() + b"HEAD /metrics HTTP/1.0\n\n"
    yield "rebound", _cuts() + b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    yield "twice", _cuts() + b"GET / HTTP/1.1\r\nHost: evil.example\r\nHost: localhost\r\n\r\n"
    yield "body", _cuts() + b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    yield "pipelined", _cuts() + b"GET / HTTP/1.1\r\n\r\n" * 3


_MAKERS: dict[str, Callable[[], Seeds]] = {
    "wire-nns": lambda: _wire(NNS),
    "wire-winsock": lambda: _wire(WINSOCK),
    "stream": _stream,
    "handshake": _handshake,
    "connection": _connection,
    "driver": _connection,
    "records": _records,
    "acceptor": _acceptor,
    "initiator": _initiator,
    "sealing": _sealing,
    "ldap": _ldap,
    "ticket": _ticket,
    "confirmation": _confirmation,
    "pac": _pac,
    "spn": _spn,
    "dn": _dn,
    "policy": _policy,
    "policy-file": _policy_file,
    "binding": _binding,
    "scp": _scp,
    "rnr": _rnr,
    "guid-cache": _guid_cache,
    "proxy-header": _proxy_header,
    "status": _status,
    "dns": _dns,
}


def inputs(name: str) -> dict[str, bytes]:
    """A target's inputs by their names."""
    kept = {path.name: path.read_bytes() for path in (KEPT / name).glob("*")}
    return dict(_MAKERS[name]()) | kept


def write(name: str, directory: Path) -> None:
    """Write a target's inputs to files, as libFuzzer reads them."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    for what, data in inputs(name).items():
        (directory / what).write_bytes(data)
