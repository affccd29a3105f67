"""Services that do not start, each for one foreseeable mistake, which one clear line names."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.integration.commands import CommandTestCase


class ServiceRefusalTests(CommandTestCase):
    """A service that may not start."""

    def refused_start(
        self, code: int, *words: str, options: tuple[str, ...] = (), **how: str
    ) -> None:
        ended = self.start_refused(*options, **how)
        self.assertEqual(ended.code, code, ended)
        self.assertNotIn("Traceback", ended.output + ended.errors)
        if ended.errors:
            self.refused(ended, code, *words)
            return
        line = next(line for line in ended.output.splitlines() if "does not start" in line)
        for word in words:
            self.assertIn(word, line)

    def test_not_installed(self) -> None:
        """Without an SCP it names the command that creates it."""
        self.refused_start(1, self.service_class, "run mutauth install --service-class")

    def test_spoilt_cache(self) -> None:
        """A cached GUID that is invalid ends the service at once, although the directory was not
        even asked.
        """
        self.install()
        (file,) = Path(self.state).iterdir()
        file.write_text("no GUID")
        self.refused_start(3, self.state, "remove the file")
        file.unlink()  # uninstall does not take it for one either

    def test_missing_spn(self) -> None:
        """Without an SPN it names the SPN, the account, and the command that fixes it."""
        self.install("--spn-form", "guid")
        self.refused_start(
            1, f"{self.service_class}/{self.host}/CN=", "svc-echo", "run mutauth install"
        )

    def test_host_without_a_computer(self) -> None:
        """A host that is in no domain is sent to what has to come first, and not to an installation
        that would say so.
        """
        words = (
            "host nowhere.lab.example: no computer object has this dNSHostName; join the host, or "
            "name the SCP's parent"
        )
        self.refused_start(1, words, options=("--host", "nowhere.lab.example"))

    def test_missing_spn_may_be_let_pass(self) -> None:
        """--spn-check warn starts and warns."""
        self.install("--spn-form", "guid")
        with self.service("--spn-check", "warn") as service:
            self.assertIn("is not on account svc-echo", service.log)

    def test_spn_on_another_account(self) -> None:
        """It does not run under an account that does not hold the SPNs, and names the one that
        does.
        """
        self.install()
        keytab = str(self.lab.keytab("svc-other"))
        self.refused_start(1, "svc-echo", "svc-other", options=("--keytab", keytab))

    def test_missing_keytab(self) -> None:
        """A keytab that is not there."""
        self.refused_start(
            4, "/nonexistent/keytab", "no such file", options=("--keytab", "/nonexistent/keytab")
        )

    def test_unreadable_keytab(self) -> None:
        """A keytab without the right to read it."""
        keytab = Path(self.state) / "keytab"
        keytab.write_bytes(self.lab.keytab("svc-echo").read_bytes())
        keytab.chmod(0)
        ended = self.command(
            "twistd",
            *self.service_words("--keytab", str(keytab)),
            # Root may read everything; root without these two capabilities may not.
            prefix=("setpriv", "--bounding-set=-dac_override,-dac_read_search"),
        )
        self.refused(ended, 4, str(keytab), "permission denied")

    def test_not_a_keytab(self) -> None:
        """A file that is not a keytab."""
        self.refused_start(4, "/etc/hostname", options=("--keytab", "/etc/hostname"))

    def test_wrong_account(self) -> None:
        """A keytab without a key of the account."""
        self.refused_start(4, "svc-other", "svc-echo", options=("--account", "svc-other"))

    def test_dns_down(self) -> None:
        """A DNS server that does not answer."""
        self.refused_start(
            3, "127.0.0.99", "does not answer", options=("--nameserver", "127.0.0.99")
        )

    def test_directory_down(self) -> None:
        """A domain controller that does not answer is named, with what was tried."""
        host = self.lab.host("srv2")  # it has an address, and no directory behind it
        self.refused_start(3, host, options=("--directory", f"ldap://{host}"))

    def test_kdc_down(self) -> None:
        """A KDC that does not answer."""
        conf = Path(self.state) / "krb5.conf"
        conf.write_text(
            self.lab.krb5_conf.read_text().replace(
                f"kdc = {self.lab.nameserver}", "kdc = 127.0.0.99"
            )
        )
        self.assertIn("127.0.0.99", conf.read_text())
        self.refused_start(3, "KDC", KRB5_CONFIG=str(conf))

    def test_usage(self) -> None:
        """Options that cannot be."""
        cases: dict[tuple[str, ...], tuple[str, ...]] = {
            ("--bogus",): ("--bogus",),
            ("--listen", "tcp:99999"): ("99999",),
            ("--listen", "nonsense:1"): ("nonsense",),
            ("--listen", "unix:socket"): ("unix:socket", "--publish none"),
            ("--priority", "70000"): ("priority",),
            ("--wire", "carrier-pigeon"): ("carrier-pigeon",),
            ("--allow", "alice"): ("alice@REALM",),
            ("--spn-form", "sideways"): ("sideways",),
            ("--factory", "no.such.thing"): ("no.such.thing",),
            ("--handshake-timeout", "never"): ("handshake-timeout",),
        }
        self.install()
        for options, words in cases.items():
            self.refused_start(2, *words, options=options)

    def test_port_taken(self) -> None:
        """A port that is taken; nothing is published."""
        self.install()
        with socket.create_server((self.lab.address_of(self.host), 0)) as taken:
            port = taken.getsockname()[1]
            listen = f"tcp:{port}:interface={self.lab.address_of(self.host)}"
            self.refused_start(3, str(port), "in use", options=("--listen", listen))
        ended = self.mutauth("connect", self.endpoint)
        self.refused(ended, 1, self.service_class, "published")
