"""The scenarios: what every pair of a peer and of ours has to get right.

Each is a test method; ``interop/tests/test_peers.py`` runs them for every variant of every peer, in
both roles. ``near`` is the application's end on the client's side, ``far`` the one on the service's
side.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from interop.peers import Peer, Variant
from interop.relay import DOWN, UP, Passage, Relay
from interop.stage import HOST, WAIT, Backend, Forwarder, Stage, StageTestCase, stage

MEBIBYTE = 1 << 20
MUCH = 5 * MEBIBYTE
#: The most that one record may hold (MS-NNS 2.2.2 and its implementations' limit).
FULL_RECORD = 64_500
#: GSS wrap with AES and a seal (RFC 4121 4.2.4) adds 60 bytes: a record of this size is empty.
EMPTY_RECORD = 60


def read(connection: socket.socket, size: int) -> bytes:
    """Exactly that many bytes; fewer where the stream ends."""
    data = bytearray()
    while len(data) < size and (more := connection.recv(min(size - len(data), 1 << 18))):
        data += more
    return bytes(data)


def at_end(connection: socket.socket) -> bool:
    """True if nothing comes any more, be it by an end or by a reset."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


class Sender(threading.Thread):
    """Sends in the background; a broken connection is its end."""

    def __init__(self, connection: socket.socket, data: bytes, *, end: bool = False) -> None:
        super().__init__(daemon=True)
        self._work = connection, data, end
        self.failed: OSError | None = None
        self.start()

    def run(self) -> None:
        connection, data, end = self._work
        try:
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.failed = error


class Scenarios(StageTestCase):
    """The shared list.

    :cvar peer: whom it is about.
    :cvar variant: how the peer is used.
    """

    peer: ClassVar[Peer]
    variant: ClassVar[Variant]

    stage: Stage
    backend: Backend
    relay: Relay

    def setUp(self) -> None:
        self.stage = stage()
        self.relay.pieces = None
        self.backend.drain()

    # --- what a role has to say ---------------------------------------------------------------

    def entrance(self) -> int:
        """The port that a client's application connects to."""
        raise NotImplementedError

    def peer_process(self) -> Forwarder:
        """The peer's process of this variant."""
        raise NotImplementedError

    # --- helpers ------------------------------------------------------------------------------

    def enter(self, port: int) -> socket.socket:
        """A connection to a forwarder."""
        near = socket.create_connection((HOST, port), WAIT)
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.addCleanup(near.close)
        return near

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """An authenticated connection: its two ends."""
        near = self.enter(self.entrance())
        far = self.backend.accept(near)
        self.addCleanup(far.close)
        return near, far

    @property
    def passage(self) -> Passage:
        """Events of the last connection."""
        return self.relay.passages[-1]

    def exchange(self, sender: socket.socket, receiver: socket.socket, data: bytes) -> None:
        """Send it, and receive just that."""
        sending = Sender(sender, data)
        received = read(receiver, len(data))
        sending.join(WAIT)
        self.assertIsNone(sending.failed)
        self.assertEqual(len(received), len(data))
        self.assertEqual(hashlib.sha256(received).digest(), hashlib.sha256(data).digest())

    def talk(self, near: socket.socket, far: socket.socket) -> None:
        """A question, an answer and a clean end."""
        self.exchange(near, far, b"?")
        self.exchange(far, near, b"!")
        self.finish(near, far)

    def finish(self, near: socket.socket, far: socket.socket) -> None:
        """Both applications end their streams; each hears the other's end as a clean one."""
        near.shutdown(socket.SHUT_WR)
        self.assertEqual(far.recv(1), b"")
        far.shutdown(socket.SHUT_WR)
        self.assertEqual(near.recv(1), b"")

    def check_refused(self, near: socket.socket) -> None:
        """The client's application gets nothing, and no application of the service hears of it."""
        with contextlib.suppress(ConnectionError):
            near.sendall(b"nobody may read this")
        self.assertTrue(at_end(near))
        self.assertEqual(self.backend.drain(), 0)

    # --- the scenarios ------------------------------------------------------------------------

    def test_client_speaks_first(self) -> None:
        """One byte each way, the client's first, and a clean end."""
        near, far = self.connect()
        self.talk(near, far)

    def test_service_speaks_first(self) -> None:
        """One byte each way, the service's first, and a clean end."""
        near, far = self.connect()
        self.exchange(far, near, b"!")
        self.exchange(near, far, b"?")
        self.finish(near, far)

    def test_full_record(self) -> None:
        """The most that a record may hold, each way."""
        near, far = self.connect()
        for sender, receiver, direction in ((near, far, UP), (far, near, DOWN)):
            # A forwarder may read what was sent at once in two pieces.
            for _ in range(20):
                self.exchange(sender, receiver, os.urandom(FULL_RECORD))
                if max(self.passage.readers[direction].records) > FULL_RECORD:
                    break
            else:
                self.fail(f"no full record: {self.passage.readers[direction].records}")
        self.finish(near, far)

    def test_both_ways_at_once(self) -> None:
        """5 MiB in each direction at the same time."""
        near, far = self.connect()
        up, down = os.urandom(MUCH), os.urandom(MUCH)
        sending = Sender(near, up, end=True)
        with ThreadPoolExecutor() as threads:
            answering = threads.submit(self.exchange, far, near, down)
            received = read(far, MUCH + 1)
            answering.result(WAIT)
        sending.join(WAIT)
        self.assertFalse(sending.is_alive())
        self.assertIsNone(sending.failed)
        self.assertEqual(hashlib.sha256(received).digest(), hashlib.sha256(up).digest())
        far.shutdown(socket.SHUT_WR)
        self.assertEqual(near.recv(1), b"")

    def test_records_of_one_byte(self) -> None:
        """Bytes one by one, each in a record of its own, each answered."""
        near, far = self.connect()
        for number in range(256):
            self.exchange(near, far, bytes([number]))
            self.exchange(far, near, bytes([255 - number]))
        self.finish(near, far)
        for direction in (UP, DOWN):
            self.assertGreaterEqual(len(self.passage.readers[direction].records), 256)

    def test_wire_byte_by_byte(self) -> None:
        """Handshake and records come in segments of one byte."""
        self.relay.pieces = 1
        near, far = self.connect()
        self.exchange(near, far, os.urandom(3000))
        self.exchange(far, near, os.urandom(3000))
        self.finish(near, far)

    def test_client_ends_first(self) -> None:
        """Words of the service arrive after the client's end."""
        near, far = self.connect()
        self.exchange(near, far, b"question")
        near.shutdown(socket.SHUT_WR)
        self.assertEqual(far.recv(1), b"")
        self.exchange(far, near, os.urandom(100_000))
        far.shutdown(socket.SHUT_WR)
        self.assertEqual(near.recv(1), b"")

    def test_service_ends_first(self) -> None:
        """Words of the client arrive after the service's end."""
        near, far = self.connect()
        self.exchange(far, near, b"greeting")
        far.shutdown(socket.SHUT_WR)
        self.assertEqual(near.recv(1), b"")
        self.exchange(near, far, os.urandom(100_000))
        near.shutdown(socket.SHUT_WR)
        self.assertEqual(far.recv(1), b"")

    def test_no_empty_record(self) -> None:
        """Nothing but data is sent to a third-party peer, neither at the start nor at an end."""
        near, far = self.connect()
        self.talk(near, far)
        for direction in (UP, DOWN):
            self.assertEqual(self.passage.readers[direction].records, [EMPTY_RECORD + 1], direction)

    def test_peer_killed(self) -> None:
        """The peer is killed in the middle: our side ends its application's connection, and serves
        the next one.
        """
        forwarder = self.peer_process()
        near = self.enter(self.entrance_of(forwarder))
        far = self.backend.accept(near)
        self.addCleanup(far.close)
        self.exchange(near, far, os.urandom(MEBIBYTE))
        # Both directions are busy, and stay so: nobody reads.
        sending = [Sender(near, bytes(4 * MUCH)), Sender(far, bytes(4 * MUCH))]
        self.exchange_some(near, far)
        forwarder.program.stop(signal.SIGKILL)
        for end in (near, far):
            self.assertTrue(self.drained(end))
        for each in sending:
            each.join(WAIT)
            self.assertFalse(each.is_alive())
        self.test_client_speaks_first()

    def exchange_some(self, *ends: socket.socket) -> None:
        """Read a little at each end: the transfer is under way."""
        for end in ends:
            self.assertEqual(len(read(end, FULL_RECORD)), FULL_RECORD)

    def drained(self, end: socket.socket) -> bool:
        """Read on to the end, or to a reset."""
        try:
            while end.recv(1 << 18):
                pass
        except ConnectionError:
            return True
        return True

    def entrance_of(self, forwarder: Forwarder) -> int:
        """Where a client's application connects to use this process of the peer's."""
        raise NotImplementedError


class ClientScenarios(Scenarios):
    """The peer's client, and ``twistd mutauth --forward``."""

    def setUp(self) -> None:
        self.relay, self.backend = stage().service_relay, stage().backend
        self.names = stage().names(self.peer)
        super().setUp()

    def entrance(self) -> int:
        return self.stage.client(self.peer, self.variant).port

    def entrance_of(self, forwarder: Forwarder) -> int:
        return forwarder.port

    def peer_process(self, spn: str | None = None) -> Forwarder:
        return self.stage.start_peer(
            self.peer, "client", self.relay.port, spn or self.names.ours, self.variant
        )

    def refused(self, spn: str) -> str:
        """Connect with another SPN; what the peer reports."""
        forwarder = self.peer_process(spn)
        near = self.enter(forwarder.port)
        line = forwarder.program.wait_for("refused ")
        self.check_refused(near)
        forwarder.program.stop(signal.SIGKILL)
        return line

    def test_authenticated(self) -> None:
        """The service's log names the client's account."""
        start = self.stage.main_service.mark
        self.talk(*self.connect())
        self.stage.main_service.program.wait_for("alice", start)

    def test_end_without_a_word(self) -> None:
        """A client that ends before its first record has shown nothing of its key: its end is a
        cut, not an end.
        """
        near, far = self.connect()
        near.shutdown(socket.SHUT_WR)
        self.assertRaises(ConnectionResetError, far.recv, 1)
        self.assertTrue(at_end(near))

    def test_wrong_spn(self) -> None:
        """A client that asks for an SPN that nobody holds gets no ticket, and the service gives it
        nothing.
        """
        self.refused(self.names.unknown)

    def test_other_service_class(self) -> None:
        """A ticket for another service of the same account is refused, and the client is told."""
        start = self.stage.main_service.mark
        self.refused(self.names.other_class)
        self.stage.main_service.program.wait_for(self.names.other_class.partition("/")[0], start)

    def test_key_of_another_account(self) -> None:
        """A ticket for another account's key is refused, and the client is told."""
        self.refused(self.names.foreign)


class ServerScenarios(Scenarios):
    """``mutauth connect --listen``, and the peer's server.

    :cvar package: the client's package.
    """

    package: ClassVar[str]

    def setUp(self) -> None:
        self.relay, self.backend = stage().peer_relay, stage().server_backend
        super().setUp()

    def connector(self, spn: str | None = None) -> Forwarder:
        """Our client."""
        return self.stage.connector(
            self.stage.endpoint(spn or self.stage.three_part.ours, f"package={self.package}")
        )

    def entrance(self) -> int:
        return self.entrance_of(self.stage.server(self.peer, self.variant))

    def entrance_of(self, forwarder: Forwarder) -> int:
        self.relay.target = (HOST, forwarder.port)
        return self.connector().port

    def peer_process(self, keytab: str = "svc-echo") -> Forwarder:
        return self.stage.start_peer(
            self.peer, "server", self.backend.port, "-", self.variant, keytab=keytab
        )

    def test_authenticated(self) -> None:
        """The peer reports the client's principal."""
        forwarder = self.stage.server(self.peer, self.variant)
        start = forwarder.mark
        self.talk(*self.connect())
        self.assertIn("alice", forwarder.program.wait_for("authenticated ", start))

    def test_end_without_a_word(self) -> None:
        """A service that ends before its first record may be one whose mark was removed: its end is
        a cut, not an end.
        """
        near, far = self.connect()
        self.exchange(near, far, b"?")
        far.shutdown(socket.SHUT_WR)
        self.assertRaises(ConnectionResetError, near.recv, 1)
        self.assertTrue(at_end(far))

    def test_wrong_spn(self) -> None:
        """A client that asks for an SPN that nobody holds gets no ticket; the server hears nothing
        of an application.
        """
        self.relay.target = (HOST, self.stage.server(self.peer, self.variant).port)
        connector = self.connector(self.stage.three_part.unknown)
        start = connector.mark
        near = self.enter(connector.port)
        connector.program.wait_for(self.stage.three_part.unknown, start)
        self.check_refused(near)

    def test_key_of_another_account(self) -> None:
        """A server without the service's key is refused by our client."""
        forwarder = self.peer_process(keytab="svc-other")
        self.entrance_of(forwarder)
        connector = self.connector()
        start = connector.mark
        near = self.enter(connector.port)
        connector.program.wait_for("mutauth: ", start)
        forwarder.program.wait_for("refused ")
        self.check_refused(near)
        forwarder.program.stop(signal.SIGKILL)
