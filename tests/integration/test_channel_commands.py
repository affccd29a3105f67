"""Wire, protection and package, from the command line to the other end."""

from __future__ import annotations

from pathlib import Path

from mutauth_twisted.testing.certificates import Certificates
from tests.integration.commands import CommandTestCase


class ChannelTests(CommandTestCase):
    """``twistd mutauth`` and ``mutauth connect`` through the directory."""

    def setUp(self) -> None:
        super().setUp()
        self.install()

    def said(self, endpoint: str) -> str:
        """Lines of a client about a connection that came about."""
        connected = self.mutauth("connect", "-v", endpoint, given="hello\n")
        self.assertEqual((connected.code, connected.output), (0, "hello\n"), connected)
        return connected.errors

    def test_tls(self) -> None:
        """The SCP says that TLS is spoken; a client that did not ask for it is told, and one that
        did comes in.
        """
        with self.service("--protection", "tls", "--package", "negotiate") as service:
            for package in ("kerberos", "negotiate"):
                said = self.said(f"{self.endpoint}:protection=tls:package={package}")
                self.assertIn(f"({package}, tls;", said)
                self.assertIn(", channel bound;", said)
            refused = self.mutauth("connect", self.endpoint)
            self.refused(
                refused,
                4,
                "it offers protection 'tls', and 'seal' was asked for; add protection=tls",
            )
        self.assertIn(
            "negotiate, tls; mutual, replay, sequence, integrity, channel bound", service.log
        )

    def test_certificates(self) -> None:
        """A certificate of a service's own is checked by clients that name its authority."""
        directory = Path(self.state)
        ca, other = Certificates(directory / "ca"), Certificates(directory / "other")
        endpoint = f"{self.endpoint}:protection=tls:tls-ca="
        with self.service("--protection", "tls", "--tls-cert", ca.issue(self.host)) as service:
            self.said(endpoint + ca.ca_file)
            wrong = self.mutauth("connect", endpoint + other.ca_file)
            self.refused(
                wrong,
                4,
                "its certificate does not come from the authority that tls-ca names; give tls-ca",
            )
            wrong = self.mutauth(
                "connect", f"{endpoint}{ca.ca_file}:tls-name=elsewhere.example.com"
            )
            self.refused(
                wrong,
                4,
                f"not for elsewhere.example.com; it is for {self.host}; tls-name={self.host} if "
                "you",
            )
            self.refused(
                self.mutauth("connect", f"{endpoint}/nowhere.pem"),
                2,
                "tls-ca /nowhere.pem: it cannot be read",
            )
        self.assertIn(
            "the client does not take this service's certificate (tlsv1 alert unknown ca); see its",
            service.log,
        )
        refused = self.start_refused("--protection", "tls", "--tls-cert", ca.ca_file)
        self.refused(refused, 4, f"certificate file {ca.ca_file}: it holds no key in PEM form")

    def test_sealed_by_a_service_that_signs(self) -> None:
        """A service that takes signing seals for who asks it to, and signs for who does not."""
        with self.service("--protection", "sign"):
            for protection in ("seal", "sign"):
                self.assertIn(
                    f"(kerberos, {protection};",
                    self.said(f"{self.endpoint}:protection={protection}"),
                )

    def test_winsock(self) -> None:
        """The SCP says which wire is spoken, with TLS below it as well."""
        for protection in ("seal", "tls"):
            with self.service("--wire", "winsock", "--protection", protection):
                self.assertIn(
                    f"(kerberos, {protection};",
                    self.said(f"{self.endpoint}:protection={protection}"),
                )
