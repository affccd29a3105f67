"""Mutual TLS 1.3 with P-256 certificates, which the benchmarks compare with."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, TLSVersion, optionsForClientTLS

_NAMES = ("localhost", "alice")


def make_certificates(directory: Path) -> None:
    """Write ``ca.pem``, ``localhost.pem`` and ``alice.pem``, the latter two with their keys."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("benchmark", ca_key, "benchmark", ca_key, authority=True)
    (directory / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    for name in _NAMES:
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        signed = _certificate(name, key, "benchmark", ca_key).public_bytes(serialization.Encoding.PEM)
        (directory / f"{name}.pem").write_bytes(signed + private)


def _certificate(name: str, key: Any, issuer: str, issuer_key: Any, *, authority: bool = False) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def _load(directory: Path, name: str) -> tuple[PrivateCertificate, Certificate]:
    authority = Certificate.loadPEM((directory / "ca.pem").read_bytes())
    return PrivateCertificate.loadPEM((directory / f"{name}.pem").read_bytes()), authority


def server_options(directory: Path) -> CertificateOptions:
    """A server that wants its clients' certificates."""
    own, authority = _load(directory, "localhost")
    return CertificateOptions(
        privateKey=own.privateKey.original,
        certificate=own.original,
        trustRoot=authority,
        raiseMinimumTo=TLSVersion.TLSv1_3,
    )


def client_options(directory: Path) -> Any:
    """A client with a certificate, which checks the server's."""
    own, authority = _load(directory, "alice")
    return optionsForClientTLS(
        "localhost", trustRoot=authority, clientCertificate=own,
        extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_3},
    )
