"""Probes of a backend: what they lead to, and when."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.errors import DirectoryUnreachable, NetworkError
from mutauth_twisted.gateway.health import Health

DOWN = NetworkError("backend tcp:127.0.0.1:9", "it is down", code="backend-unreachable")


class _Backend:
    """A backend that is as the test says."""

    where = "tcp:127.0.0.1:9"

    def __init__(self) -> None:
        self.is_up = True
        self.probes = 0
        self.probing: Deferred[None] | None = None

    def probe(self) -> Deferred[None]:
        self.probes += 1
        if self.probing is not None:
            return self.probing
        return succeed(None) if self.is_up else fail(DOWN)


class HealthTests(SynchronousTestCase):
    """A probe every ten seconds."""

    def setUp(self) -> None:
        self.clock, self.backend = Clock(), _Backend()
        self.told: list[bool] = []
        self.error: DirectoryUnreachable | None = None
        self.health = Health(self.clock, cast(Any, self.backend), 10, self.tell)

    async def tell(self, up: bool) -> None:
        self.told.append(up)
        if self.error is not None:
            raise self.error

    def start(self, *, up: bool = True) -> None:
        """Begin."""
        self.backend.is_up = up
        self.successResultOf(ensureDeferred(self.health.start()))

    def probes(self, answers: str) -> None:
        """So many probes, with these answers: + or -."""
        for answer in answers:
            self.backend.is_up = answer == "+"
            self.clock.advance(10)

    def test_down_and_up(self) -> None:
        """Two failures on end are one, and so are two successes."""
        self.start()
        self.probes("-+-+-+")
        self.assertEqual((self.told, self.health.fault), ([], None))
        self.probes("--")
        self.assertEqual((self.told, self.health.fault), ([False], DOWN.finding))
        self.probes("-+-+-")
        self.assertEqual(self.told, [False])
        self.probes("++++")
        self.assertEqual((self.told, self.health.fault), ([False, True], None))

    def test_down_at_the_start(self) -> None:
        """The first probe decides by itself."""
        self.start(up=False)
        self.assertEqual(self.told, [False])
        self.probes("+")
        self.assertEqual(self.told, [False])
        self.probes("+")
        self.assertEqual(self.told, [False, True])

    def test_directory_fails(self) -> None:
        """A change that the directory did not take is tried again, and said once."""
        self.start()
        self.error = DirectoryUnreachable("the directory", "it does not answer")
        with capturedLogs() as logged:
            self.probes("-----")
        lines = [formatEvent(event) for event in logged]
        self.assertEqual(self.told, [False] * 4)
        self.assertEqual(len(lines), 2, lines)
        self.error = None
        self.probes("---")
        self.assertEqual(self.told, [False] * 5)

    def test_one_at_a_time(self) -> None:
        """A probe that hangs has no second one beside it, and ends with the service."""
        self.start()
        hanging = self.backend.probing = Deferred()
        self.clock.advance(10)
        self.clock.pump([10] * 5)
        self.assertEqual(self.backend.probes, 2)
        self.successResultOf(ensureDeferred(self.health.stop()))
        self.assertTrue(hanging.called)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.told, [])
