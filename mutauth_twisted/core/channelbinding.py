"""Channel bindings of a handshake (RFC 5056): a TLS channel, or the client's word that it is a
mutauth one.
"""

from __future__ import annotations

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes

# The names under which RFC 9266 4.2 and RFC 5929 4.1 register the two kinds.
TLS_EXPORTER = "tls-exporter"
TLS_SERVER_END_POINT = "tls-server-end-point"
_MUTAUTH = "mutauth"


@frozen
class ChannelBinding:
    """A channel's bindings.

    :param kind: ``tls-exporter``, which peers of this package use, or
        ``tls-server-end-point``; ``mutauth`` without TLS.
    :param data: what both ends of the channel know; with ``tls-exporter``
        nobody else does.  With ``mutauth`` the version of what mutauth peers
        do between them: there is no channel, and the client says only who made it.
    """

    kind: str
    data: bytes = field(repr=False)

    @property
    def application_data(self) -> bytes:
        """Application data as GSSAPI takes them (RFC 5056 2.1): the kind, a colon, and the data."""
        return self.kind.encode() + b":" + self.data

    @property
    def between_peers(self) -> bool:
        """True if both ends are mutauth."""
        return self.kind in (TLS_EXPORTER, _MUTAUTH)


#: A mutauth client's where there is no TLS.  Acceptors that know of no bindings ignore them (RFC
#: 4121 4.1.1.2); a mutauth service learns from them, under the session's key, that the client is
#: another mutauth peer.
WITHOUT_TLS = ChannelBinding(_MUTAUTH, b"1")


@frozen
class TLSChannel:
    """The TLS channel below a connection, as this side sees it.

    :param binding: its bindings.
    :param marks: between mutauth peers, the secrets that mark the end of each direction, this
        side's and the peer's (see :mod:`mutauth_twisted.core.stream`); None with any other peer.
    """

    binding: ChannelBinding
    marks: tuple[bytes, bytes] | None = field(default=None, repr=False)


def server_end_point(certificate: x509.Certificate) -> ChannelBinding:
    """The binding to a server's certificate (RFC 5929 4.1)."""
    algorithm = certificate.signature_hash_algorithm
    # SHA-256 takes the place of the weak ones; that it does where a signature has no hash of its
    # own is custom.
    if algorithm is None or isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    return ChannelBinding(TLS_SERVER_END_POINT, certificate.fingerprint(algorithm))
