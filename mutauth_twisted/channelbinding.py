"""What names a TLS channel, so that an exchange can be bound to it (RFC 5056): values only."""

from __future__ import annotations

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes

# The names under which RFC 9266 4.2 and RFC 5929 4.1 register the two kinds.
TLS_EXPORTER = "tls-exporter"
TLS_SERVER_END_POINT = "tls-server-end-point"


@frozen
class ChannelBinding:
    """A channel's bindings.

    :param kind: ``tls-exporter``, which peers of this package use, or
        ``tls-server-end-point``.
    :param data: what both ends of the channel know; with ``tls-exporter``
        nobody else does.
    """

    kind: str
    data: bytes = field(repr=False)

    @property
    def application_data(self) -> bytes:
        """What GSSAPI takes (RFC 5056 2.1): the kind, a colon, and the data."""
        return self.kind.encode() + b":" + self.data

    @property
    def between_peers(self) -> bool:
        """Whether both ends are this package's."""
        return self.kind == TLS_EXPORTER


def server_end_point(certificate: x509.Certificate) -> ChannelBinding:
    """The binding to a server's certificate (RFC 5929 4.1)."""
    algorithm = certificate.signature_hash_algorithm
    # SHA-256 takes the place of the weak ones; that it does where a signature has no hash of its own is custom.
    if algorithm is None or isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    return ChannelBinding(TLS_SERVER_END_POINT, certificate.fingerprint(algorithm))
