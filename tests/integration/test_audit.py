"""The audit trail of a real service, and a disk that is full."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from tests.integration.commands import CHECKOUT, CommandTestCase, Running

SCHEMA = json.loads((CHECKOUT / "docs" / "audit.schema.json").read_text("utf-8"))


class AuditTests(CommandTestCase):
    """A service with an audit trail, and clients of it."""

    def setUp(self) -> None:
        super().setUp()
        self.logs = Path(tempfile.mkdtemp(prefix="mutauth-test-"))
        self.addCleanup(shutil.rmtree, self.logs)
        self.path = self.logs / "shop.jsonl"

    @contextlib.contextmanager
    def audited(self, *options: str) -> Iterator[Running]:
        """A service, and how often a client gets its echo."""
        with self.service(
            "--publish", "none", "--spn-check", "off", "--audit", str(self.path), *options
        ) as service:
            spn = f"host/{self.lab.host('srv1')}"
            host = self.lab.address_of(self.host)
            self.endpoint = f"mutauth:tcp\\:{host}\\:{service.port}:spn={self.spn(spn)}"
            yield service

    def spn(self, default: str) -> str:
        """An SPN on the service's account."""
        words = ("spn", "add", "svc-echo", f"{self.service_class}/{self.host}")
        ended = self.mutauth(*words, *self.directory[:2], user="administrator")
        self.assertEqual(ended.code, 0, ended)
        return words[-1]

    def events(self, path: Path | None = None) -> list[dict[str, Any]]:
        """The events of a file, each of which the schema allows."""
        validator = Draft202012Validator(SCHEMA)
        found = [json.loads(line) for line in (path or self.path).read_bytes().splitlines()]
        for each in found:
            validator.validate(each)
        return found

    def echo(self, user: str = "alice") -> int:
        """The exit code of a client that says one line."""
        return self.mutauth("connect", self.endpoint, user=user, given="hello\n").code

    def test_trail(self) -> None:
        """Lines tell who came, who was refused and why, how much was sent, and the service's own
        life; nothing is lost by rotation.
        """
        rotated = self.logs / "shop.jsonl.1"
        with self.audited("--allow", "alice@LAB.EXAMPLE"):
            self.assertEqual(self.echo(), 0)
            self.path.rename(rotated)
            self.assertEqual(self.echo("bob"), 4)
        before, after = self.events(rotated), self.events()
        self.assertEqual(
            [each["event"] for each in before],
            ["serving", "opened", "authenticated", "allowed", "closed"],
        )
        alice, closed = before[2], before[4]
        self.assertEqual(
            (alice["principal"], alice["account"]), ("alice@LAB.EXAMPLE", "LAB\\alice")
        )
        self.assertRegex(alice["sid"], r"\AS-1-5-21-[0-9-]+\Z")
        self.assertEqual(alice["unverified"]["spn"], f"{self.service_class}/{self.host}")
        self.assertEqual((closed["received"], closed["sent"], closed["code"]), (6, 6, "closed"))
        self.assertEqual(len({each["connection"] for each in before[1:]}), 1)
        self.assertEqual(
            [each["event"] for each in after], ["opened", "authenticated", "refused", "stopped"]
        )
        self.assertEqual((after[1]["account"], after[2]["code"]), ("LAB\\bob", "access-denied"))

    def test_published(self) -> None:
        """Changes in the directory are told."""
        self.install()
        with self.service("--audit", str(self.path)) as service:
            port = service.port
        published, serving, withdrawn, stopped = self.events()
        names = [each["event"] for each in (published, serving, withdrawn, stopped)]
        self.assertEqual(names, ["published", "serving", "withdrawn", "stopped"])
        self.assertEqual((published["host"], published["port"]), (self.host, port))
        self.assertEqual(published["dn"], withdrawn["dn"])

    def _fill(self, service: Running, limit: int) -> None:
        """Have the service's files take so many bytes at most; it has no replay cache, which would
        be one of them.
        """
        resource.prlimit(
            service.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)
        )

    def test_full_disk(self) -> None:
        """A file that takes no more is survived, and the gap is told afterwards."""
        with self.audited("--accept-replays") as service:
            self.assertEqual(self.echo(), 0)
            size = self.path.stat().st_size
            self._fill(service, size + 10)
            self.assertEqual(self.echo(), 0)
            self._fill(service, 1 << 30)
            self.assertEqual(self.echo(), 0)
        self.assertIn("audit-failing", service.log)
        lines = self.path.read_bytes().splitlines()
        (torn,) = [line for line in lines if not line.endswith(b"}")]
        self.assertEqual(len(torn), 10)
        events = [json.loads(line) for line in lines if line != torn]
        (lost,) = [each for each in events if each["event"] == "lost"]
        self.assertEqual(lost["count"], 4)

    def test_required(self) -> None:
        """Where the trail is required, clients are refused meanwhile, and served afterwards."""
        with self.audited("--accept-replays", "--audit-required") as service:
            self.assertEqual(self.echo(), 0)
            self._fill(service, self.path.stat().st_size)
            self.assertNotEqual(self.echo(), 0)
            self._fill(service, 1 << 30)
            self.assertEqual(self.echo(), 0)
        sessions = [each["event"] for each in self.events()]
        self.assertEqual(sessions.count("allowed"), 2)

    def test_bad_destinations(self) -> None:
        """A file that cannot be written is refused at the start, in one line."""
        there = self.logs / "pipe"
        os.mkfifo(there)
        for destination, words, code in (
            ("shop.jsonl", ("absolute",), 2),
            (str(self.logs / "none" / "shop.jsonl"), ("audit", "No such file"), 2),
            (str(there), ("audit", "regular file"), 2),
            ("journald", ("audit journald (/run/systemd/journal/socket)",), 2),
        ):
            ended = self.start_refused(
                "--publish", "none", "--spn-check", "off", "--audit", destination
            )
            self.refused(ended, code, *words)
