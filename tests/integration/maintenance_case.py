"""A service that checks its directory entries now and then."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.admin.installation import Installation
from mutauth_twisted.directory.guidcache import GuidCache
from mutauth_twisted.service.publisher import Publisher
from mutauth_twisted.settings.twistd import Options
from tests.integration.directory_case import DirectoryTestCase

Places = tuple[tuple[str, int], ...]
INTERVAL = "0.1"
RIGHT = "all directory checks pass again"


class MaintenanceCase(DirectoryTestCase):
    """A service's publisher, past its start."""

    def setUp(self) -> None:
        super().setUp()
        self.state = tempfile.mkdtemp(prefix="mutauth-test-")
        self.addCleanup(shutil.rmtree, self.state)
        self.lines: list[str] = []
        self.policies: list[AccessPolicy] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: LogEvent) -> None:
        if event.get("log_namespace", "").startswith("mutauth_twisted.service"):
            self.lines.append(formatEvent(event))

    async def started(
        self, *options: str, found: Installation | None = None, own: Places = ()
    ) -> Publisher:
        """A publisher that checks ten times a second."""
        if found is not None:
            GuidCache(self.state).write(self.service(), found.guid, found.dn)
        parsed = Options()
        parsed.parseOptions(
            [
                *(
                    "--service-class",
                    self.service_class,
                    "--host",
                    self.host,
                    "--echo",
                    "--allow-all",
                ),
                *(
                    "--keytab",
                    str(self.lab.keytab("svc-echo")),
                    "--nameserver",
                    self.lab.nameserver,
                ),
                *("--state-dir", self.state, "--check-interval", INTERVAL, *options),
            ]
        )
        publisher = Publisher(reactor, parsed.settings.services[0], self.lab.principal("svc-echo"))
        self.addCleanup(publisher.withdraw)
        await publisher.check(self.policies.append)
        await publisher.publish(9000, own)
        return publisher

    async def logged(self, *words: str) -> str:
        """The next line with all these words; what was logged up to it is forgotten."""
        for _ in range(100):
            for place, line in enumerate(self.lines):
                if all(word in line for word in words):
                    del self.lines[: place + 1]
                    return line
            await deferLater(reactor, 0.05)
        raise self.failureException(f"no line with {words}: {self.lines}")

    async def as_administrator(self, work: Any) -> Any:
        return await self.do("administrator", work)
