"""A TCP relay in front of a service: it can cut what passes into single bytes, and knows the sizes
of frames and records.

An end goes on as an end and a reset as a reset, so that both sides see what they would see without
it.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading

_CHUNK = 1 << 18
_LIBC = ctypes.CDLL(None)

UP, DOWN = "up", "down"

DONE = 0x14


class Reader:
    """Finds the frames of the handshake (MS-NNS 2.2.1) and the records (2.2.2) in one direction.

    :param service: the reader of what the service sends, for what its client sends.
    :ivar frames: the kind and the size of each frame.
    :ivar records: the size of each record.
    """

    def __init__(self, service: Reader | None = None) -> None:
        self._service = service
        self.frames: list[tuple[int, int]] = []
        self.records: list[int] = []
        self._buffer = b""
        self._skip = 0

    @property
    def handshake_over(self) -> bool:
        """True if records follow: a client does not answer the service's done."""
        service = self._service
        return bool(self.frames and self.frames[-1][0] == DONE) or (
            service is not None and service.handshake_over
        )

    def feed(self, data: bytes) -> None:
        """Read what passes; only headers are kept."""
        while data:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
            wanted = 4 if self.handshake_over else 5
            taken = wanted - len(self._buffer)
            self._buffer += data[:taken]
            data = data[taken:]
            if len(self._buffer) < wanted:
                return
            if wanted == 4:
                (self._skip,) = struct.unpack("<I", self._buffer)
                self.records.append(self._skip)
            else:
                kind, _, _, self._skip = struct.unpack(">BBBH", self._buffer)
                self.frames.append((kind, self._skip))
            self._buffer = b""


class Passage:
    """One connection that passed: what was in it."""

    def __init__(self) -> None:
        service = Reader()
        self.readers = {UP: Reader(service), DOWN: service}


class Relay:
    """Listens on an address and passes connections on to a target.

    :ivar target: host and port of the next connections.
    :ivar pieces: the size of what it sends at once; None: as it comes.
    :ivar passages: the connections so far.
    """

    def __init__(self, target: tuple[str, int] | None = None) -> None:
        self.target = target
        self.pieces: int | None = None
        self.passages: list[Passage] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                assert self.target is not None
                far = socket.create_connection(self.target, 10)
            except OSError:
                _reset(near)
                continue
            far.settimeout(None)
            passage = Passage()
            self.passages.append(passage)
            for source, destination, direction in ((near, far, UP), (far, near, DOWN)):
                destination.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                words = (source, destination, passage.readers[direction], self.pieces)
                threading.Thread(target=_pass, args=words, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        # Wakes the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _reset(connection: socket.socket) -> None:
    """Send a reset and no FIN before it, and wake the thread that uses this connection."""
    # connect(2) with AF_UNSPEC dissolves the association; SO_LINGER would not act while another
    # thread waits.
    _LIBC.connect(connection.fileno(), bytes(16), 16)


def _pass(
    source: socket.socket, destination: socket.socket, reader: Reader, pieces: int | None
) -> None:
    try:
        while data := source.recv(_CHUNK):
            reader.feed(data)
            for start in range(0, len(data), pieces or len(data)):
                destination.sendall(data[start : start + (pieces or len(data))])
        destination.shutdown(socket.SHUT_WR)
    except OSError:
        _reset(source)
        _reset(destination)
