"""LDAPS: TLS to a domain controller whose certificate carries its name.

The certificate has to come from a given authority (RFC 5280) and to have the
controller's DNS name among its subject alternative names (RFC 9525, by
service-identity).  Kerberos then authenticates both sides inside TLS, bound to
this very certificate (RFC 5929, tls-server-end-point): a relay with another
certificate of the same authority does not get through to a controller that
asks for the binding.
"""

from __future__ import annotations

import re
import socket
import ssl

from cryptography import x509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname

from mutauth_twisted.core.channelbinding import server_end_point
from mutauth_twisted.errors import PeerNotAuthenticated, UsageError
from mutauth_twisted.files import read_file

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=]*-----END CERTIFICATE-----")


class LdapsAuthority:
    """The certificates (PEM) of those who may vouch for domain controllers.

    :raises UsageError: when the file holds none.
    """

    def __init__(self, ca_file: str) -> None:
        self._subject = f"CA file {ca_file}"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # service-identity does that below, from the same certificate.
        self._context.check_hostname = False
        try:
            certificates = _PEM.findall(read_file(ca_file))
            self._context.load_verify_locations(cadata=b"\n".join(certificates).decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise UsageError(
                self._subject, "it holds no certificates in PEM form", "name the authority's"
            ) from error
        except OSError as error:
            raise UsageError(
                self._subject, (error.strerror or str(error)).lower(), "name the authority's"
            ) from error

    def secure(self, raw: socket.socket, host: str) -> tuple[ssl.SSLSocket, bytes]:
        """Begin TLS on a connected socket, and verify who is there; blocks.

        :param host: the DNS name that the certificate must carry.
        :return: the secured socket, and the channel bindings for GSSAPI.
        :raises PeerNotAuthenticated: when the certificate is not good for the host.
        :raises OSError: when the connection breaks.
        """
        subject = f"domain controller {host}"
        try:
            secured = self._context.wrap_socket(raw)
        except ssl.SSLCertVerificationError as error:
            cause = f"its certificate is not one of {self._subject}: {error.verify_message}"
            raise PeerNotAuthenticated(
                subject, cause, "name its own authority's certificate", code="certificate-untrusted"
            ) from error
        try:
            certificate = x509.load_der_x509_certificate(
                secured.getpeercert(binary_form=True) or b""
            )
            verify_certificate_hostname(certificate, host)
        except (VerificationError, CertificateError, ValueError) as error:
            secured.close()
            cause = "its certificate is not for this name"
            raise PeerNotAuthenticated(
                subject,
                cause,
                "give the name that is in its certificate",
                code="certificate-wrong-name",
            ) from error
        return secured, server_end_point(certificate).application_data
