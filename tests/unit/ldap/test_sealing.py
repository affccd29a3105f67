"""The sealed layer, and what it expects of ldap3."""

from __future__ import annotations

import inspect
import socket
import struct
import time
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from ldap3.protocol.sasl.sasl import send_sasl_negotiation
from ldap3.strategy.base import BaseStrategy
from ldap3.strategy.sync import SyncStrategy
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import DirectoryUnreachable
from mutauth_twisted.kerberos.tickets import tickets_for
from mutauth_twisted.ldap.sealing import BoundedSocket, SealedSocket, Target, adopt, open_sealed
from mutauth_twisted.testing.forge import make_realm


class _Context:
    """Seals by turning bits over, and keeps a byte of overhead."""

    def wrap(self, message: bytes, encrypt: bool) -> Any:
        return SimpleNamespace(
            message=b"S" + bytes(byte ^ 0xFF for byte in message), encrypted=encrypt
        )

    def unwrap(self, message: bytes) -> Any:
        return SimpleNamespace(
            message=bytes(byte ^ 0xFF for byte in message[1:]), encrypted=message[:1] == b"S"
        )

    def get_wrap_size_limit(self, desired_output_size: int, encrypted: bool = True) -> int:
        return desired_output_size - 1


class _Wire:
    """A socket that keeps what is sent and gives out what it was given, in pieces."""

    def __init__(self, incoming: bytes = b"", piece: int = 65536) -> None:
        self.sent = b""
        self._incoming = incoming
        self._piece = piece

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv(self, size: int) -> bytes:
        size = min(size, self._piece)
        data, self._incoming = self._incoming[:size], self._incoming[size:]
        return data

    def fileno(self) -> int:
        return 42


def sealed(wire: _Wire, send_limit: int = 64, receive_limit: int = 64) -> Any:
    return SealedSocket(wire, _Context(), send_limit, receive_limit)  # type: ignore[arg-type]


def read_all(stream: Any, size: int) -> bytes:
    received = b""
    while piece := stream.recv(size):
        received += piece
    return received


class SealedSocketTests(SynchronousTestCase):
    """RFC 4752's buffers."""

    @given(st.binary(max_size=400), st.integers(1, 70), st.integers(1, 70))
    def test_round_trip(self, data: bytes, piece: int, size: int) -> None:
        """Bytes that are sent arrive, however they are cut on the way, and no buffer is larger than
        agreed.
        """
        wire = _Wire()
        sealed(wire).sendall(data)
        rest = wire.sent
        while rest:
            (length,) = struct.unpack("!I", rest[:4])
            self.assertLessEqual(length, 64)
            rest = rest[4 + length :]
        self.assertEqual(read_all(sealed(_Wire(wire.sent, piece)), size), data)
        self.assertFalse(len(data) > 8 and data in wire.sent)

    def test_an_empty_buffer_is_not_the_end(self) -> None:
        """A buffer that seals nothing is skipped."""
        wire = _Wire()
        context = _Context()
        for plain in (b"", b"x"):
            body = context.wrap(plain, True).message
            wire.sendall(struct.pack("!I", len(body)) + body)
        self.assertEqual(read_all(sealed(_Wire(wire.sent)), 10), b"x")

    def test_hostile_buffers(self) -> None:
        """Too large, empty, not encrypted, or cut: an error, and never data."""
        for incoming in (
            struct.pack("!I", 65) + b"S" * 65,
            struct.pack("!I", 0xFFFFFFFF),
            struct.pack("!I", 0),
            struct.pack("!I", 3) + b"Pab",
            struct.pack("!I", 3) + b"Sa",
            b"\0\0",
        ):
            self.assertRaises(OSError, sealed(_Wire(incoming)).recv, 10)

    def test_the_rest_is_the_inner_socket(self) -> None:
        """ldap3 and select see the real socket."""
        self.assertEqual(sealed(_Wire()).fileno(), 42)


class ContractTests(SynchronousTestCase):
    """Parts of ldap3 that sealing.py uses without a promise: fails when ldap3 changes."""

    def test_adopted_connection(self) -> None:
        """A connection takes our socket, sends through it, and closes it."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        connection = adopt(ours, "127.0.0.1", 389)
        self.assertIs(connection.socket, ours)
        self.assertFalse(connection.closed)
        self.assertTrue(connection.listening)
        self.assertFalse(connection.sasl_in_progress)
        self.assertIsNone(getattr(connection, "session_security", None))  # unknown to 2.9
        self.assertFalse(connection.auto_referrals)
        connection.socket = sealed(_Wire())  # what comes next goes through whatever stands there
        wire = connection.socket._inner
        connection.strategy.sending(connection_request(connection))
        self.assertTrue(wire.sent)
        connection.socket = ours
        connection.unbind()
        self.assertTrue(connection.closed)
        self.assertEqual(ours.fileno(), -1)

    def test_names(self) -> None:
        """The names exist, with the arguments that are given."""
        self.assertEqual(
            list(inspect.signature(send_sasl_negotiation).parameters),
            ["connection", "controls", "payload"],
        )
        self.assertIn("_open_socket", vars(BaseStrategy))
        self.assertIn("self._open_socket(", inspect.getsource(BaseStrategy.open))
        self.assertIn("self.connection.socket.sendall(", inspect.getsource(BaseStrategy.sending))
        self.assertIn("self.connection.socket.recv(", inspect.getsource(SyncStrategy.receiving))

    def test_nothing_listens(self) -> None:
        """The true reason of a failed connection, with the address."""
        free = socket.socket()
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        realm, spn = make_realm(self), "ldap/dc.test.example/test.example"
        error = self.assertRaises(
            DirectoryUnreachable,
            open_sealed,
            Target("127.0.0.1", port, "dc.test.example", f"{spn}@{realm.name}"),
            tickets_for(ClientCredentials(ccache=realm.ccache("alice", spn, "dc"))).acquire(),
            login_timeout=1,
            receive_timeout=1,
        )
        self.assertIn(
            f"domain controller dc.test.example:{port}: 127.0.0.1: connection refused", str(error)
        )


class BoundedSocketTests(SynchronousTestCase):
    """Answers that have an end."""

    def pair(self, pause: float, limit: int) -> tuple[socket.socket, BoundedSocket]:
        far, near = socket.socketpair()
        self.addCleanup(far.close)
        self.addCleanup(near.close)
        return far, BoundedSocket(near, pause, limit)

    def test_too_large(self) -> None:
        """The limit itself is allowed, one byte more is not, and a new answer begins anew."""
        far, bounded = self.pair(5, 4)
        far.sendall(b"12345678")
        self.assertEqual(bounded.recv(4), b"1234")
        self.assertIn("too large", str(self.assertRaises(OSError, bounded.recv, 1)))
        bounded.restart(3)
        self.assertEqual(bounded.recv(3), b"678")

    def test_silence(self) -> None:
        """A pause that is too long ends it."""
        _, bounded = self.pair(0.05, 4)
        self.assertRaises(TimeoutError, bounded.recv, 1)

    def test_no_end(self) -> None:
        """So does an answer that goes on in small pieces; a new one has its whole time."""
        far, bounded = self.pair(0.05, 1000)
        far.sendall(bytes(500))
        deadline = time.monotonic() + 5
        with self.assertRaises(TimeoutError):
            while time.monotonic() < deadline:
                bounded.recv(1)
                time.sleep(0.02)
        bounded.restart()
        self.assertEqual(bounded.recv(1), b"\0")


def connection_request(connection: Any) -> Any:
    """An unbind request, as ldap3 builds it."""
    from ldap3.operation.unbind import unbind_operation
    from ldap3.protocol.rfc4511 import LDAPMessage, MessageID, ProtocolOp

    message = LDAPMessage()
    message["messageID"] = MessageID(1)
    message["protocolOp"] = ProtocolOp().setComponentByName("unbindRequest", unbind_operation())
    return message
