"""TLS 1.3 below a handshake, which is bound to it.

No certificate has to be issued: a service without one makes one up, and what
proves it is the handshake.  Peers of this package know each other by ALPN
(RFC 7301) and bind the handshake to the very channel (tls-exporter, RFC 9266);
with any other peer it is bound to the service's certificate
(tls-server-end-point, RFC 5929).  Neither kind can be written by a relay: it
has two channels, and not the key of the service's certificate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509, PKey
from OpenSSL.SSL import NO_OVERLAPPING_PROTOCOLS, VERIFY_PEER, Connection
from OpenSSL.SSL import Error as TLSError
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
)
from twisted.internet.protocol import Factory
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from zope.interface import alsoProvides, implementer

from mutauth_twisted.core.channelbinding import (
    TLS_EXPORTER,
    ChannelBinding,
    TLSChannel,
    server_end_point,
)
from mutauth_twisted.core.stream import DRAWN, secret
from mutauth_twisted.credentials import exposed
from mutauth_twisted.errors import (
    CredentialError,
    MutualAuthError,
    NetworkError,
    PeerNotAuthenticated,
    PeerRefused,
    ProtocolViolation,
    UsageError,
)
from mutauth_twisted.files import read_file
from mutauth_twisted.log import Log
from mutauth_twisted.net.keychanges import KeyChanges, Records
from mutauth_twisted.text import short_name

_log = Log()

#: By which peers of this package know each other.
ALPN = b"mutauth"
_EXPORTER_LABEL = b"EXPORTER-Channel-Binding"  # RFC 9266 4.2
_EXPORTER_SIZE = 32
#: From which both sides draw how either direction marks its end; see core/stream.py.
_MARKS_LABEL = b"EXPORTER-mutauth-marks"
# What a peer may send besides the data it sends: a handshake, and 21 bytes or so with each record
# of a single byte.
_MOST_BESIDES = 0x20000
_BESIDES = 32
# RFC 5280 4.1.2.5: no well-defined end.
_FOR_EVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


class _Bounded(BufferingTLSTransport):
    """TLS whose peer cannot go on without saying anything.

    Messages of TLS's own - a change of keys (RFC 8446 4.6.3), which has to be
    answered - bring nothing that the handshake or a session's limits could see.
    They are counted apart from data, which does not pay for them: the answers
    that a peer leaves unread can so not fill the memory either.
    """

    def __init__(self, factory: TLSMemoryBIOFactory, above: IProtocol) -> None:
        super().__init__(factory, above)
        self._said_nothing = 0
        self._said = 0
        self._records = Records()
        self._changes = KeyChanges()
        #: Whether the TLS handshake is complete, as far as the peer's part of it goes.
        self._complete = False

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        self._said_nothing += len(data)
        if self._said_nothing > _MOST_BESIDES:
            self._violated(f"it has sent {self._said_nothing} bytes on end that bring no data")
            return
        records = self._records.feed(data)
        if records and (not self._complete or self._changes.one_by_one):
            start = 0
            for end, size in records:
                self._read(data[start:end], [size])
                start = end
            self._read(data[start:], [])
        else:
            self._read(data, [size for _, size in records])

    def _read(self, data: bytes, sizes: list[int]) -> None:
        """Let TLS read some bytes.

        :param sizes: for each record that they complete, how much data it has at most.
        """
        if not data or self._changes.too_many:
            return
        # Records of the handshake itself have no data either, and do not count.
        self._complete = self._complete or self.getHandle().get_peer_finished() is not None
        self._said, counts = 0, self._complete and bool(sizes)
        super().dataReceived(data)
        if counts:
            self._changes.read(sizes, self._said)
            if self._changes.too_many:
                said = f"{self._changes.data} bytes of data"
                self._violated(f"it has changed its keys {self._changes.count} times for {said}")

    def _violated(self, cause: str) -> None:
        if not self.disconnecting:
            above: Any = self.wrappedProtocol
            above.violated(cause)
            self.abortConnection()

    def _tlsShutdownFinished(self, reason: Any) -> None:
        # Twisted closes the socket, which waits for a producer that goes on writing, though nothing
        # of it is sent any more.
        super()._tlsShutdownFinished(reason)
        if (producer := self._producer) is not None:
            producer.stopProducing()
            self.unregisterProducer()

    def said(self, size: int) -> None:
        """So many bytes came for the protocol above."""
        self._said += size
        self._said_nothing = max(0, self._said_nothing - _BESIDES * size)


class Layer:
    """Puts TLS under the connections of one service or of one client.

    :param options: makes the TLS connections.
    :param client: whether this side starts the handshake.
    :param expected: the DNS name or address that the service's certificate has to be for; None:
        any.
    """

    def __init__(self, options: Any, *, client: bool, expected: str | None = None) -> None:
        self._factory = TLSMemoryBIOFactory(options, client, Factory())
        self._client = client
        self._expected = expected

    def under(self, handshake: IProtocol) -> IProtocol:
        """The protocol for the network, above which this one goes on; ``handshakeCompleted`` tells
        it when.
        """
        # Here, and not with the class: of two interfaces that Twisted's endpoints know they pass on
        # only the last one.
        alsoProvides(handshake, IHandshakeListener)
        return _Bounded(self._factory, handshake)

    def channel(self, transport: Any, peer: str) -> TLSChannel:
        """The channel whose TLS handshake is complete.

        :param transport: what the protocol above got as its transport.
        :param peer: the peer as errors name it.
        :raises PeerNotAuthenticated: when the service's certificate is not for whom it has to be
            (RFC 9525), or nothing verifies the certificate of a third-party service.
        """
        connection = transport.getHandle()
        is_mutauth = transport.negotiatedProtocol == ALPN
        if self._client and self._expected is None and not is_mutauth:
            # A relay can say so too, and TLS that ends at a relay ends a stream wherever the relay
            # likes.
            raise PeerNotAuthenticated(
                peer,
                _THIRD_PARTY,
                f"{_SIGNER}; a mutauth service needs none",
                code="certificate-untrusted",
            )
        try:
            if self._expected is not None:
                verify_name(connection, self._expected)
            if is_mutauth:
                exported = connection.export_keying_material(_EXPORTER_LABEL, _EXPORTER_SIZE)
                binding = ChannelBinding(TLS_EXPORTER, exported)
                return TLSChannel(binding, self._marks(connection))
            certificate = (
                connection.get_peer_certificate() if self._client else connection.get_certificate()
            )
            return TLSChannel(server_end_point(certificate.to_cryptography()))
        except (VerificationError, CertificateError) as error:
            raise _not_for(self._expected or "", _names_in(connection), peer) from error
        except Exception as error:
            # OpenSSL takes more than cryptography reads, which has an error for each of its reasons
            raise PeerNotAuthenticated(
                peer,
                "its certificate cannot be read",
                "give it another one",
                code="certificate-untrusted",
            ) from error

    def _marks(self, connection: Connection) -> tuple[bytes, bytes]:
        drawn = connection.export_keying_material(_MARKS_LABEL, 2 * DRAWN)
        clients, services = secret(drawn[:DRAWN]), secret(drawn[DRAWN:])
        return (clients, services) if self._client else (services, clients)

    def explain(self, reason: BaseException | None, peer: str) -> MutualAuthError:
        """Explain the end of a connection that came before its TLS handshake was complete."""
        if not isinstance(reason, TLSError):
            return NetworkError(
                peer,
                "the peer closed the connection during the TLS handshake",
                "give both sides the same protection; the peer's log says more",
                code="handshake-cut",
            )
        if isinstance(reason, _NotTrusted):
            return PeerNotAuthenticated(
                peer,
                *_UNTRUSTED.get(reason.code, (_OTHERWISE.format(code=reason.code), _SIGNER)),
                code="certificate-untrusted",
            )
        # OpenSSL's errors, each with its reason last; a system call that failed has a number and a
        # text.
        errors = (
            reason.args[0]
            if reason.args and isinstance(reason.args[0], list)
            else [reason.args or ("no reason",)]
        )
        said = ", ".join(str(error[-1]) for error in errors)
        if not self._client and _ITS_REFUSAL.search(said):
            cause = f"the client does not take this service's certificate ({said})"
            return PeerRefused(
                peer, cause, "see its tls-ca and tls-name, and when the certificate expires"
            )
        return ProtocolViolation(
            peer, f"the TLS handshake failed: {said}", "give both sides the same protection"
        )


class _NotTrusted(TLSError):
    """OpenSSL has refused the service's certificate.

    :ivar code: why, as in its ``x509_vfy.h``.
    """

    def __init__(self, code: int) -> None:
        super().__init__([("SSL routines", "", "certificate verify failed")])
        self.code = code


def _trusted(
    connection: Connection, certificate: X509, code: int, depth: int, is_good: int
) -> bool:
    """OpenSSL's question for each certificate of a chain; what is raised here, it ends the
    handshake with.
    """
    if not is_good:
        raise _NotTrusted(code)
    return True


_SIGNER = "give tls-ca the certificate of the authority that signed it"
_THIRD_PARTY = "it is not a mutauth service, and no authority is given to verify its certificate"
_FOREIGN = ("its certificate does not come from the authority that tls-ca names", _SIGNER)
_OTHERWISE = "its certificate is refused (X509_V_ERR {code})"
#: By the numbers of OpenSSL's x509_vfy.h: what is wrong, and the next step.
_UNTRUSTED = {
    2: _FOREIGN,  # UNABLE_TO_GET_ISSUER_CERT
    7: _FOREIGN,  # CERT_SIGNATURE_FAILURE: another authority of the same name
    9: (
        "its certificate is not valid yet",
        "check the clocks of both sides, and from when it is valid",
    ),
    10: ("its certificate has expired", "have it renewed, or check this machine's clock"),
    18: (  # DEPTH_ZERO_SELF_SIGNED_CERT
        "it has signed its certificate itself, as services do that were given none",
        "leave tls-ca out: the handshake authenticates the service; or give the service a "
        "certificate with tls-cert",
    ),
    19: _FOREIGN,  # SELF_SIGNED_CERT_IN_CHAIN
    20: _FOREIGN,  # UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    21: _FOREIGN,  # UNABLE_TO_VERIFY_LEAF_SIGNATURE
}
# The alerts 42 to 46, 48 and 112 (RFC 8446 6.2), as OpenSSL names them.
_ITS_REFUSAL = re.compile(
    r"alert (bad certificate|unsupported certificate|certificate (revoked|expired|unknown)|unknown "
    r"ca)|unrecognized name"
)
_NAMES_SHOWN = 3


def _names_in(connection: Connection) -> list[str]:
    """The names that the peer's certificate is for, as far as they can be read."""
    try:
        certificate: Any = connection.get_peer_certificate()
        extensions = certificate.to_cryptography().extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        texts = [
            *names.get_values_for_type(x509.DNSName),
            *map(str, names.get_values_for_type(x509.IPAddress)),
        ]
    except Exception:
        # cryptography has an error for each of its reasons, and whose certificate it is is refused
        # already
        return []
    return [short_name(text) for text in texts[: _NAMES_SHOWN + 1]]


def _not_for(expected: str, names: list[str], peer: str) -> PeerNotAuthenticated:
    cause = f"its certificate is not for {expected}"
    if not names:
        return PeerNotAuthenticated(
            peer,
            f"{cause}, nor for any name",
            "have it issued with the service's name in it",
            code="certificate-wrong-name",
        )
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    mentioned = f"it is for {', '.join(names[:_NAMES_SHOWN])}{more}"
    plain = next((name for name in names if re.fullmatch(r"(?!.*\.\.)[A-Za-z0-9.:-]+", name)), None)
    name = "NAME" if plain is None else plain.replace(":", "\\:")
    return PeerNotAuthenticated(
        peer, cause, f"{mentioned}; tls-name={name} if you mean that", code="certificate-wrong-name"
    )


@frozen
class Authority:
    """Authority that has to vouch for the service's certificate, in addition to the handshake.

    :param ca_file: the authority's certificates, PEM.
    :param name: the DNS name or address that the certificate has to be for
        (RFC 9525); None: the service's host.
    """

    ca_file: str
    name: str | None = None


@implementer(IOpenSSLClientConnectionCreator)
class _ClientConnections:
    """Makes a client's TLS connections."""

    # Not Twisted's optionsForClientTLS: it lets a certificate pass that has no subject alternative
    # names at all.

    def __init__(
        self,
        options: CertificateOptions,
        server_name: str | None = None,
        protocols: Sequence[bytes] = (ALPN,),
    ) -> None:
        self._context = options.getContext()
        if protocols:
            self._context.set_alpn_protos(list(protocols))
        if options.verify:
            self._context.set_verify(
                VERIFY_PEER, _trusted
            )  # Twisted's own callback does not tell why
        self._server_name = server_name

    def clientConnectionForTLS(self, tlsProtocol: object) -> Connection:
        connection = Connection(self._context, None)
        if self._server_name is not None and not _is_address(self._server_name):
            connection.set_tlsext_host_name(self._server_name.encode("idna"))
        return connection


@cache
def trusting_layer() -> Layer:
    """TLS for a client that takes any certificate, as the handshake authenticates the service."""
    return Layer(
        _ClientConnections(CertificateOptions(verify=False, raiseMinimumTo=TLSVersion.TLSv1_3)),
        client=True,
    )


def checking_layer(authority: Authority, host: str) -> Layer:
    """TLS for a client that has the service's certificate checked in addition.

    :param host: where the service is.
    :raises UsageError: when the authority's file cannot be used.
    """
    name = _checked_name(authority.name or host)
    try:
        certificates = _certificates(authority.ca_file)
    except CredentialError as error:  # others' certificates are no credentials of ours
        raise UsageError(f"tls-ca {authority.ca_file}", error.cause, error.remedy) from error
    trusted = [Certificate(X509.from_cryptography(each)) for each in certificates]
    options = CertificateOptions(
        trustRoot=trustRootFromCertificates(trusted), raiseMinimumTo=TLSVersion.TLSv1_3
    )
    return Layer(_ClientConnections(options, name), client=True, expected=name)


def named_client(
    name: str,
    trusted: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
) -> IOpenSSLClientConnectionCreator:
    """TLS, and nothing else, to a server whose certificate comes from a trusted authority; that it
    is for the name is for :func:`verify_name` to see.

    :param name: the server's.
    :param trusted: a file of certificates (PEM), or a directory of such files; None: the system's.
    :param certificate: a certificate to show (PEM); None: none.
    :param key: its key, where it is in another file.
    :raises CredentialError: when a file cannot be used.
    """
    options: dict[str, Any] = {"trustRoot": platformTrust()}
    if trusted is not None:
        path = Path(trusted)
        files = sorted(path.glob("*.pem")) if path.is_dir() else [path]
        found = [each for file in files for each in _certificates(str(file))]
        options["trustRoot"] = trustRootFromCertificates(
            [Certificate(X509.from_cryptography(each)) for each in found]
        )
    if certificate is not None:
        chain = _certificates(certificate)
        options["privateKey"] = PKey.from_cryptography_key(_key(key or certificate))
        options["certificate"] = X509.from_cryptography(chain[0])
        options["extraCertChain"] = [X509.from_cryptography(each) for each in chain[1:]]
    return _ClientConnections(CertificateOptions(**options), _checked_name(name), ())


def _checked_name(name: str) -> str:
    """A name as certificates have it.

    :raises UsageError: when it is invalid.
    """
    try:
        plain = name.removesuffix(".")
        if not _is_address(plain):
            DNS_ID(plain)
            plain.encode("idna")
    except ValueError as error:
        cause = "it is not a DNS name and no address"
        raise UsageError(f"tls-name {name}", cause, "give the one in the certificate") from error
    return plain


def _is_address(name: str) -> bool:
    return isIPAddress(name) or isIPv6Address(name)


def verify_name(connection: Connection, name: str) -> None:
    """See that the peer's certificate is for a DNS name or an address (RFC 9525).

    :raises VerificationError: when it is for others.
    :raises CertificateError: when it is for none.
    """
    if _is_address(name):
        verify_ip_address(connection, name)
    else:
        verify_hostname(connection, name)


def server_layer(certificate_file: str | None = None, key_file: str | None = None) -> Layer:
    """TLS for a service.

    :param certificate_file: its certificate and, behind it, those that lead to
        the authority, PEM; None: one that is made up and never leaves this process.
    :param key_file: the certificate's key, PEM, without a password; None: it is in the
        certificate's file.
    :raises CredentialError: when a file cannot be used.
    """
    if certificate_file is None:
        key, chain = _ephemeral()
    else:
        key, chain = _key(key_file or certificate_file), _certificates(certificate_file)
        if finding := exposed("TLS key", key_file or certificate_file):
            _log.warn("{finding}", finding=finding)
    try:
        options = CertificateOptions(
            privateKey=PKey.from_cryptography_key(key),
            certificate=X509.from_cryptography(chain[0]),
            extraCertChain=[X509.from_cryptography(each) for each in chain[1:]],
            raiseMinimumTo=TLSVersion.TLSv1_3,
        )
        # Twisted's own choice fails the handshake with whoever offers other protocols only.
        options.getContext().set_alpn_select_callback(_choose_protocol)
    except (TLSError, TypeError, ValueError) as error:
        subject = f"certificate {certificate_file}"
        raise CredentialError(
            subject,
            "it cannot be used with its key",
            "give the key that belongs to it",
            code="certificate-unusable",
        ) from error
    return Layer(options, client=False)


def _choose_protocol(connection: Connection, offered: list[bytes]) -> Any:
    return ALPN if ALPN in offered else NO_OVERLAPPING_PROTOCOLS


def _read(path: str) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        cause = f"it cannot be read: {(error.strerror or str(error)).lower()}"
        raise CredentialError(
            f"certificate file {path}",
            cause,
            "check its name and who may read it",
            code="certificate-unusable",
        ) from error


def _certificates(path: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise CredentialError(
            f"certificate file {path}",
            "it holds no certificate in PEM form",
            "name another",
            code="certificate-unusable",
        ) from error


def _key(path: str) -> Any:
    try:
        return load_pem_private_key(_read(path), None)
    except (ValueError, TypeError) as error:
        cause = "it holds no key in PEM form, or one with a password"
        raise CredentialError(
            f"certificate file {path}",
            cause,
            "name the file of the key, without a password",
            code="certificate-unusable",
        ) from error


def _ephemeral() -> tuple[Any, list[x509.Certificate]]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mutauth")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
        .not_valid_after(_FOR_EVER)
    )
    return key, [builder.sign(key, hashes.SHA256())]
