"""An attacker with one computer account that answers DNS: a directory of its own, sealed with that
computer's key.

Everything it does is allowed to any computer of the domain: it registers ``ldap/its-own-host`` on
itself, and answers whoever asks it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Mapping, Sequence

import gssapi
from gssapi.raw.misc import GSSError
from twisted.names import dns

from mutauth_twisted.lab import Lab
from mutauth_twisted.testing._ber import element, elements

# RFC 4511 4.2 to 4.9: the tags of requests, and of the answers to those that change something.
_UNBIND, _SEARCH = 0x42, 0x63
_ANSWERS = {0x66: 0x67, 0x68: 0x69, 0x4A: 0x6B, 0x6C: 0x6D}
_SUCCESS, _IN_PROGRESS = 0, 14
_LENGTH = struct.Struct("!H")
_BUFFER = struct.Struct("!I")
#: What it says of everybody.
FORGED_SPN = "forged/by.the.rogue"


class Listener:
    """A TCP server with a thread for each connection."""

    def __init__(self, address: str, port: int = 0) -> None:
        self._socket = socket.create_server((address, port))
        self.address: str = address
        self.port: int = self._socket.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), connection:
            self.talk(connection)
        self._open.discard(connection)

    def talk(self, connection: socket.socket) -> None:
        """Serve one connection."""
        raise AssertionError("a subclass serves the connection")

    def close(self) -> None:
        """Stop, and cut what is open."""
        for each in (self._socket, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


class RogueDNS(Listener):
    """DNS over TCP: some names have the attacker's answers, all others are the lab's.

    :ivar srv: targets by name: priority, host, port.
    :ivar hosts: addresses by name, with blanks between them.
    :ivar asked: the names that were asked for.
    """

    def __init__(self, lab: Lab, address: str) -> None:
        self._upstream = lab.nameserver
        self.srv: dict[str, list[tuple[int, bytes, int]]] = {}
        self.hosts: dict[str, str] = {}
        self.asked: list[str] = []
        super().__init__(address)

    @property
    def nameserver(self) -> str:
        """For --nameserver."""
        return f"{self.address}:{self.port}"

    def talk(self, connection: socket.socket) -> None:
        """Answer each question, or pass it on."""
        while True:
            packet = _read(connection, _LENGTH.unpack(_read(connection, 2))[0])
            answer = self._answer(packet) or self._pass_on(packet)
            connection.sendall(_LENGTH.pack(len(answer)) + answer)

    def _answer(self, packet: bytes) -> bytes | None:
        message = dns.Message()
        message.fromStr(packet)
        (question,) = message.queries
        name = str(question.name).lower()
        self.asked.append(name)
        records: Sequence[dns.IEncodableRecord]
        if question.type == dns.SRV and name in self.srv:
            records = [dns.Record_SRV(priority, 100, port) for priority, _, port in self.srv[name]]
            for record, (_, host, _) in zip(records, self.srv[name], strict=True):
                record.target = _Raw(host)
        elif question.type == dns.A and name in self.hosts:
            records = [dns.Record_A(address) for address in self.hosts[name].split()]
        elif name in self.hosts:
            records = []
        else:
            return None
        message.answer = 1
        message.answers = [
            dns.RRHeader(question.name.name, question.type, dns.IN, 60, record)
            for record in records
        ]
        data: bytes = message.toStr()
        return data

    def _pass_on(self, packet: bytes) -> bytes:
        with socket.create_connection((self._upstream, 53), 5) as upstream:
            upstream.sendall(_LENGTH.pack(len(packet)) + packet)
            return _read(upstream, _LENGTH.unpack(_read(upstream, 2))[0])


class _Raw:
    """A name of arbitrary bytes, a backslash and a digit triple for each that is not a letter; dots
    part the labels.
    """

    def __init__(self, name: bytes) -> None:
        self._labels = name.split(b".")

    def encode(self, stream: object, compression: object = None) -> None:
        for label in self._labels:
            stream.write(bytes((len(label),)) + label)  # type: ignore[attr-defined]
        stream.write(b"\0")  # type: ignore[attr-defined]


class RogueDirectory(Listener):
    """LDAP with SASL GSSAPI and sealing, by the key of one computer; believes everybody and lies to
    everybody.

    :param keytab: the computer's.
    :ivar operations: the tag of each LDAP operation that it could read after a login: what it was
        asked.
    :ivar tokens: how many logins were tried.
    """

    def __init__(self, lab: Lab, address: str) -> None:
        self._lab = lab
        self._credentials = gssapi.Credentials(
            usage="accept", store={"keytab": str(lab.keytab("rogue"))}
        )
        self.operations: list[int] = []
        self.tokens = 0
        super().__init__(address)

    def talk(self, connection: socket.socket) -> None:
        """Log in whoever holds a ticket for the computer, and answer."""
        context = gssapi.SecurityContext(usage="accept", creds=self._credentials)
        while (message := self._bind_request(connection)) is not None:
            number, token = message
            self.tokens += 1
            if not context.complete:
                try:
                    answer, code = context.step(token) or b"", _IN_PROGRESS
                except GSSError:
                    return
            elif not token:
                answer, code = context.wrap(bytes((4, 0, 255, 255)), False).message, _IN_PROGRESS
            else:
                context.unwrap(token)  # the layer that the client chose
                answer, code = b"", _SUCCESS
            connection.sendall(
                self._message(number, 0x61, self._result(code), element(0x87, answer))
            )
            if code == _SUCCESS:
                break
        while True:
            sealed = _read(connection, _BUFFER.unpack(_read(connection, 4))[0])
            for answer in self._answers(context.unwrap(sealed).message):
                wrapped = context.wrap(answer, True).message
                connection.sendall(_BUFFER.pack(len(wrapped)) + wrapped)

    @staticmethod
    def _bind_request(connection: socket.socket) -> tuple[int, bytes] | None:
        head = connection.recv(2, socket.MSG_WAITALL)
        if len(head) < 2:
            return None
        size = head[1]
        if size >= 0x80:
            size = int.from_bytes(_read(connection, size & 0x7F), "big")
        number, (_, request) = (fields := elements(_read(connection, size)))[0][1], fields[1]
        credentials = elements(elements(request)[2][1])[1:]
        return int.from_bytes(number, "big"), credentials[0][1] if credentials else b""

    @staticmethod
    def _result(code: int) -> bytes:
        return element(0x0A, bytes((code,))) + element(0x04) + element(0x04)

    @staticmethod
    def _message(number: int, tag: int, *contents: bytes) -> bytes:
        return element(0x30, element(0x02, number.to_bytes(4, "big")), element(tag, *contents))

    def _answers(self, data: bytes) -> Sequence[bytes]:
        ((_, message),) = elements(data)
        (_, raw_number), (kind, operation), *_ = elements(message)
        number = int.from_bytes(raw_number, "big")
        if kind == _UNBIND:
            raise EOFError
        self.operations.append(kind)
        if kind != _SEARCH:
            return [self._message(number, _ANSWERS[kind], self._result(_SUCCESS))]
        base = elements(operation)[0][1].decode()
        found = self._root() if not base else self._everybody()
        values = [
            element(
                0x30,
                element(0x04, name.encode()),
                element(0x31, *(element(0x04, value) for value in each)),
            )
            for name, each in found.items()
        ]
        dn = base if not base else f"CN=alice,CN=Users,{self._lab.base_dn}"
        entry = self._message(number, 0x64, element(0x04, dn.encode()), element(0x30, *values))
        return [entry, self._message(number, 0x65, self._result(_SUCCESS))]

    def _root(self) -> Mapping[str, Sequence[bytes]]:
        base = self._lab.base_dn.encode()
        return {
            "defaultNamingContext": [base],
            "rootDomainNamingContext": [base],
            "configurationNamingContext": [b"CN=Configuration," + base],
        }

    def _everybody(self) -> Mapping[str, Sequence[bytes]]:
        """One entry for every question: an account, a group and a service's address at once."""
        return {
            "sAMAccountName": [b"alice"],
            "objectClass": [b"top", b"user"],
            "objectSid": [
                bytes.fromhex("010500000000000515000000") + bytes(12) + (513).to_bytes(4, "little")
            ],
            "servicePrincipalName": [FORGED_SPN.encode()],
            "nCName": [self._lab.base_dn.encode()],
        }
