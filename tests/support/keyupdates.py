"""A TLS 1.3 client that changes its keys as often as it likes (RFC 8446 4.6.3).

Python's ssl cannot.  It does the handshake and reads; what is sent afterwards
is made here, from the secret that it writes for debuggers.
"""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_READ = 1 << 16
_HANDSHAKE, _DATA = 22, 23
#: RFC 8446 4.6.3: the type, three bytes of length, and whether the other side is to change its keys
#: too.
_KEY_UPDATE = b"\x18\0\0\1"
_SUITES = {
    "TLS_AES_256_GCM_SHA384": (hashes.SHA384(), 32),
    "TLS_AES_128_GCM_SHA256": (hashes.SHA256(), 16),
}


class KeyChanger:
    """A connection; its methods block, or with no socket leave what is to be sent in :attr:`sent`.

    :param directory: where the secret is written.
    :param connection: the socket; None: :meth:`feed` takes what comes.
    """

    def __init__(self, directory: Path, connection: socket.socket | None = None) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._log = directory / "secrets"
        context.keylog_filename = str(self._log)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._socket = connection
        self.sent = b""
        if connection is not None:
            while not self.shake_hands():
                self.feed(connection.recv(_READ))

    def shake_hands(self) -> bool:
        """Go on with the handshake; whether it is complete."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send(self._outgoing.read())
            return False
        self._send(self._outgoing.read())
        lines = self._log.read_text().splitlines()
        (secret,) = (
            line.split()[2] for line in lines if line.startswith("CLIENT_TRAFFIC_SECRET_0 ")
        )
        cipher = self._tls.cipher()
        assert cipher is not None
        self._hash, self._key_size = _SUITES[cipher[0]]
        self._use(bytes.fromhex(secret))
        return True

    def _send(self, data: bytes) -> None:
        if self._socket is not None:
            self._socket.sendall(data)
        else:
            self.sent += data

    def _expand(self, secret: bytes, label: bytes, size: int) -> bytes:
        # RFC 8446 7.1: HKDF-Expand-Label with an empty context.
        label = b"tls13 " + label
        info = struct.pack(">HB", size, len(label)) + label + b"\0"
        return HKDFExpand(self._hash, size, info).derive(secret)

    def _use(self, secret: bytes) -> None:
        self._secret, self._number = secret, 0
        self._key = AESGCM(self._expand(secret, b"key", self._key_size))
        self._start = int.from_bytes(self._expand(secret, b"iv", 12), "big")

    def _record(self, kind: int, content: bytes, padding: int = 0) -> bytes:
        header = struct.pack(">BHH", _DATA, 0x0303, len(content) + 1 + padding + 16)
        nonce = (self._start ^ self._number).to_bytes(12, "big")
        self._number += 1
        return header + self._key.encrypt(nonce, content + bytes((kind,)) + bytes(padding), header)

    def data(self, content: bytes, padding: int = 0) -> bytes:
        """A record of data."""
        return self._record(_DATA, content, padding)

    def key_update(self, *, requested: bool = True, padding: int = 0) -> bytes:
        """A change of keys, and whether an answer is asked for."""
        record = self._record(_HANDSHAKE, _KEY_UPDATE + bytes((requested,)), padding)
        self._use(self._expand(self._secret, b"traffic upd", self._hash.digest_size))
        return record

    def feed(self, data: bytes) -> None:
        """Take bytes of the other side; none are its end."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def read(self) -> bytes:
        """The data that has come; the other side's changes of keys are followed."""
        found = b""
        try:
            while more := self._tls.read(_READ):
                found += more
        except ssl.SSLWantReadError:
            pass
        return found

    # As a socket, for tests' peers

    def settimeout(self, seconds: float) -> None:
        """See socket."""
        assert self._socket is not None
        self._socket.settimeout(seconds)

    def sendall(self, data: bytes) -> None:
        """See socket."""
        self._send(self.data(data))

    def send_raw(self, data: bytes) -> None:
        """Send records."""
        self._send(data)

    def recv(self, size: int) -> bytes:
        """See socket."""
        assert self._socket is not None
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                self.feed(self._socket.recv(_READ))

    def certificate(self) -> bytes:
        """The other side's, DER."""
        return self._tls.getpeercert(binary_form=True) or b""
