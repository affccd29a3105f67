"""A third-party peer: the SDK sample's messages written anew, blocking, on python-gssapi alone.

It stands in for a program made after Microsoft's sample, takes no message of
more than 12,000 bytes, and ends by closing its socket.  Nothing of this
package is used in it.
"""

from __future__ import annotations

import socket
import struct

import gssapi
from gssapi.raw import IOV, IOVBufferType, get_mic, unwrap_iov, verify_mic, wrap_iov

BUFFER = 12_000
MIC_SIZE = 28  # of AES-256 (RFC 4121, RFC 3962)
ALL_FLAGS = 2 | 4 | 8 | 16 | 32
KERBEROS = gssapi.MechType.kerberos


class WinsockPeer:
    """One end of a connection; its methods block."""

    def __init__(self, connection: socket.socket, *, seal: bool = True) -> None:
        self.socket = connection
        self.socket.settimeout(10)
        self.seal = seal
        self.context: gssapi.SecurityContext
        self.empty_records = 0

    @staticmethod
    def message(body: bytes) -> bytes:
        """Bytes that the sample's SendMsg sends."""
        return struct.pack("<I", len(body)) + body if body else b""

    def send_message(self, body: bytes) -> None:
        """The sample's SendMsg."""
        self.socket.sendall(self.message(body))

    def receive_message(self) -> bytes:
        """The sample's ReceiveMsg; nothing at the peer's end."""
        header = self._read(4)
        if not header:
            return b""
        (size,) = struct.unpack("<I", header)
        assert 0 < size <= BUFFER, size
        return self._read(size)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self.socket.recv(size - len(data))):
            data += more
        return data

    def authenticate_as_client(
        self, spn: str, ccache: str, flags: int | None = None, mechanism: gssapi.OID = KERBEROS
    ) -> None:
        """The client's side of the handshake; EOFError when the service closes instead of
        answering.
        """
        credential = gssapi.Credentials(
            usage="initiate", mechs=[mechanism], store={"ccache": ccache}
        )
        name = gssapi.Name(spn, gssapi.NameType.kerberos_principal)
        if flags is None:
            flags = ALL_FLAGS if self.seal else ALL_FLAGS & ~16
        self.context = gssapi.SecurityContext(
            name=name, creds=credential, usage="initiate", mech=mechanism, flags=flags
        )
        token = self.context.step()
        while True:
            self.send_message(token or b"")
            if self.context.complete:
                return
            answer = self.receive_message()
            if not answer:
                raise EOFError
            token = self.context.step(answer)

    def authenticate_as_server(self, keytab: str) -> None:
        """The service's side of the handshake."""
        self.context = gssapi.SecurityContext(
            creds=gssapi.Credentials(usage="accept", store={"keytab": keytab}), usage="accept"
        )
        while not self.context.complete:
            self.send_message(self.context.step(self.receive_message()) or b"")

    def record(self, data: bytes) -> bytes:
        """One record: EncryptMessage's two buffers, the trailer's size before them; or
        MakeSignature's, and the data.
        """
        if not self.seal:
            return self.message(get_mic(self.context, data) + data)
        buffers = IOV(IOVBufferType.header, data, std_layout=False)
        wrap_iov(self.context, buffers, True)
        trailer, sealed = (buffer.value or b"" for buffer in buffers)
        return self.message(struct.pack("<I", len(trailer)) + trailer + sealed)

    def send(self, data: bytes) -> None:
        """One record."""
        self.socket.sendall(self.record(data))

    def receive(self) -> bytes:
        """The next record that is not empty; nothing at the peer's end."""
        while body := self.receive_message():
            if data := self._open(body):
                return data
            self.empty_records += 1
        return b""

    def _open(self, body: bytes) -> bytes:
        if not self.seal:
            verify_mic(self.context, body[MIC_SIZE:], body[:MIC_SIZE])
            return body[MIC_SIZE:]
        (size,) = struct.unpack_from("<I", body)
        trailer, sealed = body[4 : 4 + size], body[4 + size :]
        buffers = IOV(
            (IOVBufferType.header, False, trailer),
            (IOVBufferType.data, False, sealed),
            std_layout=False,
        )
        assert unwrap_iov(self.context, buffers).encrypted
        return bytes(buffers[1].value or b"")

    def close(self) -> None:
        """Close without a word."""
        self.socket.close()
