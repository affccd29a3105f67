"""A third-party peer: MS-NNS written anew from the document, blocking, on python-gssapi alone.

It stands in for .NET's NegotiateStream, and behaves as that does: it knows
nothing of empty records (it skips them) and ends by closing its socket.
Nothing of this package is used in it.
"""

from __future__ import annotations

import socket
import struct

import gssapi

DONE, ERROR, IN_PROGRESS = 0x14, 0x15, 0x16
ALL_FLAGS = 2 | 4 | 8 | 16 | 32
KERBEROS = gssapi.MechType.kerberos
SPNEGO = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")


class Refused(Exception):
    """The peer sent an error frame with this code."""

    def __init__(self, code: int, token: bytes) -> None:
        super().__init__(code)
        self.code = code
        self.token = token


def _bindings(application_data: bytes | None) -> gssapi.raw.ChannelBindings | None:
    return (
        None
        if application_data is None
        else gssapi.raw.ChannelBindings(application_data=application_data)
    )


class NNSPeer:
    """One end of a connection; its methods block.

    :param seal: whether it seals what it sends, or signs it only.
    """

    def __init__(self, connection: socket.socket, *, seal: bool = True) -> None:
        self.socket = connection
        self.socket.settimeout(10)
        self.seal = seal
        self.context: gssapi.SecurityContext
        self.empty_records = 0

    def read(self, size: int) -> bytes:
        """Exactly that many bytes; fewer where the peer closed."""
        data = b""
        while len(data) < size and (more := self.socket.recv(size - len(data))):
            data += more
        return data

    def send_frame(self, kind: int, payload: bytes) -> None:
        """One frame of the handshake."""
        self.socket.sendall(struct.pack(">BBBH", kind, 1, 0, len(payload)) + payload)

    def read_frame(self) -> tuple[int, bytes]:
        """One frame of the handshake."""
        kind, _, _, size = struct.unpack(">BBBH", self.read(5))
        return kind, self.read(size)

    def authenticate_as_client(
        self,
        spn: str,
        ccache: str,
        flags: int = ALL_FLAGS,
        mechanism: gssapi.OID = KERBEROS,
        *,
        unprotected: bool = False,
        bindings: bytes | None = None,
    ) -> None:
        """The client's side of the handshake.

        :param unprotected: keep MIT from asking for confidentiality and integrity by itself.
        :param bindings: the channel bindings to send.
        """
        credential = gssapi.Credentials(
            usage="initiate", mechs=[mechanism], store={"ccache": ccache}
        )
        if unprotected:
            gssapi.raw.set_cred_option(gssapi.OID.from_int_seq("1.2.752.43.13.29"), credential)
        name = gssapi.Name(spn.replace("\\", "\\\\"), gssapi.NameType.kerberos_principal)
        self.context = gssapi.SecurityContext(
            name=name,
            creds=credential,
            usage="initiate",
            mech=mechanism,
            flags=flags,
            channel_bindings=_bindings(bindings),
        )
        token, received, peer_done = None, b"", False
        while not (self.context.complete and peer_done):
            token = self.context.step(token)
            self.send_frame(DONE if self.context.complete else IN_PROGRESS, token or b"")
            kind, payload = self.read_frame()
            if kind == IN_PROGRESS and payload:
                received = payload
                kind, payload = self.read_frame()
            if kind == ERROR:
                raise Refused(struct.unpack(">Q", payload)[0], received)
            peer_done, token = kind == DONE, payload
            if peer_done and token:
                self.context.step(token)

    def authenticate_as_server(self, keytab: str, *, bindings: bytes | None = None) -> None:
        """The service's side of the handshake; the bindings, if given, have to match those of a
        client that sends some.
        """
        credential = gssapi.Credentials(usage="accept", store={"keytab": keytab})
        self.context = gssapi.SecurityContext(
            creds=credential, usage="accept", channel_bindings=_bindings(bindings)
        )
        while not self.context.complete:
            _, payload = self.read_frame()
            reply = self.context.step(payload)
            self.send_frame(DONE if self.context.complete else IN_PROGRESS, reply or b"")

    def record(self, data: bytes) -> bytes:
        """One record, protected and framed; it has its sequence number now, sent or not."""
        body = self.context.wrap(data, self.seal).message
        return struct.pack("<I", len(body)) + body

    def send(self, data: bytes) -> None:
        """One record."""
        self.socket.sendall(self.record(data))

    def receive(self) -> bytes:
        """The next record that is not empty; nothing at the peer's end."""
        while header := self.read(4):
            (size,) = struct.unpack("<I", header)
            result = self.context.unwrap(self.read(size))
            assert result.encrypted is self.seal
            if result.message:
                return bytes(result.message)
            self.empty_records += 1
        return b""

    def close(self) -> None:
        """Close without a word, as .NET does."""
        self.socket.close()
