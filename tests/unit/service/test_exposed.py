"""Keys that every account of the machine may read: a warning at the start and on the page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent

from mutauth_twisted.service.assembly import make_process
from mutauth_twisted.settings.twistd import Options
from mutauth_twisted.testing.certificates import Certificates
from mutauth_twisted.testing.fakes import captured_log
from tests.unit.kerberos_case import Case


class ExposedTests(Case):
    """A keytab, and a TLS key in its certificate's file and in one of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.keytab = Path(self.realm.keytab("svc-echo")).absolute()
        certificates = Certificates(Path(self.mktemp()).absolute())
        self.certificate = Path(certificates.issue("srv1.example.com"))

    def started(self, *words: str) -> tuple[Any, list[str]]:
        """A service, and what it warns of at the start."""
        options = Options()
        options.parseOptions(
            (
                *("--service-class=echoSvc", "--host=srv1.example.com", "--echo", "--allow-all"),
                *("--publish=none", "--spn-check=off", "--accept-replays"),
                *(f"--keytab={self.keytab}", *words),
            )
        )
        with captured_log() as events:
            service = make_process(MemoryReactorClock(), options.settings)
        lines = [formatEvent(event) for event in events]
        return service, [line for line in lines if "[keys-exposed]" in line]

    def subjects(self, service: Any) -> list[str]:
        return [finding.subject for one in service.snapshots() for finding in one.warnings]

    def test_modes(self) -> None:
        """A group may read them; everybody may not, until it is put right."""
        key = Path(self.mktemp()).absolute()
        key.write_bytes(self.certificate.read_bytes())
        tls = ("--protection=tls", f"--tls-cert={self.certificate}")
        for words, path, subject in (
            ((), self.keytab, "keytab"),
            (tls, self.certificate, "TLS key"),
            ((*tls, f"--tls-key={key}"), key, "TLS key"),
        ):
            for each in (self.keytab, self.certificate, key):
                each.chmod(0o644 if each == self.certificate and str(key) in str(words) else 0o600)
            for mode in (0o600, 0o640):
                path.chmod(mode)
                service, lines = self.started(*words)
                self.assertEqual((self.subjects(service), lines), ([], []))
            path.chmod(0o644)
            service, (line,) = self.started(*words)
            self.assertIn(f"{subject} {path}: every account of this machine", line)
            self.assertTrue(line.endswith(f"chmod o= {path}"), line)
            self.assertEqual(self.subjects(service), [f"{subject} {path}"])
            os.chmod(path, 0o600)
            self.assertEqual(self.subjects(service), [])
