"""Mutual TLS 1.3 with P-256 certificates, which the benchmarks compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    TLSVersion,
    optionsForClientTLS,
)

from mutauth_twisted.testing.certificates import Certificates

#: The name in the certificates.
HOST = "localhost"
_CLIENT = "alice"


def make_certificates(directory: Path) -> None:
    """Write the authority's certificate, and the server's and the client's with their keys."""
    authority = Certificates(_tls(directory))
    for name in (HOST, _CLIENT):
        Path(authority.issue(name)).rename(_tls(directory) / f"{name}.pem")


def _tls(directory: Path) -> Path:
    return directory / "tls"


def _load(directory: Path, name: str) -> tuple[PrivateCertificate, Certificate]:
    authority = Certificate.loadPEM((_tls(directory) / "ca.pem").read_bytes())
    return PrivateCertificate.loadPEM((_tls(directory) / f"{name}.pem").read_bytes()), authority


def server_options(directory: Path) -> CertificateOptions:
    """A server that wants its clients' certificates."""
    own, authority = _load(directory, HOST)
    return CertificateOptions(
        privateKey=own.privateKey.original,
        certificate=own.original,
        trustRoot=authority,
        raiseMinimumTo=TLSVersion.TLSv1_3,
    )


def client_options(directory: Path) -> Any:
    """A client with a certificate, which checks the server's."""
    own, authority = _load(directory, _CLIENT)
    return optionsForClientTLS(
        HOST,
        trustRoot=authority,
        clientCertificate=own,
        extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_3},
    )
