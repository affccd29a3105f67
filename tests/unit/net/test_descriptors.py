"""File descriptors, and what happens when this process has no more of them."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet import tcp
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.context import StepFailed
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import DescriptorsUsedUp, UsageError
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator, ServiceKeys
from mutauth_twisted.net.descriptors import (
    AGAIN,
    BATCH,
    PAUSE,
    RESERVE,
    SPARE,
    fit,
    guard,
    raise_limit,
)
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.fakes import captured_log
from mutauth_twisted.testing.forge import make_realm, set_environment


@contextmanager
def used_up(but: int = 0) -> Iterator[list[int]]:
    """A process that has no descriptor left but so many; gives those that are taken for nothing."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 200, limits[1]))
    try:
        while True:
            try:
                taken.append(os.dup(taken[0]))
            except OSError:
                break
        for _ in range(but):
            os.close(taken.pop())
        yield taken
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in taken:
            os.close(each)


class FitTests(SynchronousTestCase):
    """Limits, and how many descriptors they need."""

    def test_enough(self) -> None:
        """Limits that fit stay as they are."""
        limits = Limits()
        needed = 256 + 1024 + 2 * 10_000 + RESERVE
        self.assertEqual(fit(limits, (), 2, needed), limits)
        self.assertNotEqual(fit(limits, (), 2, needed - 1), limits)

    def test_lowered(self) -> None:
        """Those that nobody gave are lowered, and with what is reserved fit afterwards, whatever a
        session needs.
        """
        for available in (70, 128, 256, 1024, 4096):
            for each in (1, 2):
                lowered = fit(Limits(), (), each, available)
                used = lowered.handshakes + lowered.waiting + each * lowered.connections
                self.assertLessEqual(used + RESERVE, available)
                self.assertGreater(used + RESERVE + each, available)

    def test_given(self) -> None:
        """One that the user gave stays, and makes the others smaller."""
        lowered = fit(Limits(connections=80), ("max-connections",), 2, 256)
        self.assertEqual((lowered.connections, lowered.handshakes, lowered.waiting), (80, 16, 16))
        lowered = fit(Limits(handshakes=100), ("max-handshakes",), 1, 256)
        self.assertEqual((lowered.handshakes, lowered.connections), (100, 256 - RESERVE - 100 - 24))

    def test_of_one_address(self) -> None:
        """One address gets its share of what is left, and never all of it, unless the user said
        so.
        """
        for available in (128, 256, 1024, 4096):
            lowered = fit(Limits(), (), 1, available)
            self.assertEqual(lowered.handshakes_per_address, max(1, lowered.handshakes // 8))
            self.assertEqual(lowered.waiting_per_address, lowered.waiting // 4)
        self.assertEqual(
            fit(Limits(handshakes_per_address=2), (), 1, 256).handshakes_per_address, 2
        )
        given = ("max-handshakes-per-address", "max-waiting-per-address")
        kept = fit(Limits(handshakes_per_address=20, waiting_per_address=21), given, 1, 256)
        self.assertEqual((kept.handshakes_per_address, kept.waiting_per_address), (20, 21))

    def test_refused(self) -> None:
        """A value that the user gave and that cannot be had is refused by name, and so is a process
        that can serve nobody.
        """
        for limits, given, available, text in (
            (
                Limits(connections=100),
                ("max-connections",),
                256,
                "--max-connections 100: 266 descriptors are needed, 2 for",
            ),
            (Limits(handshakes=190), ("max-handshakes",), 256, "--max-handshakes 190: "),
            (Limits(waiting=190), ("max-waiting",), 256, "--max-waiting 190: "),
            (Limits(), (), 64, "this service: "),
        ):
            error = self.assertRaises(UsageError, fit, limits, given, 2, available)
            self.assertTrue(str(error).startswith(text), error)
            self.assertIn(
                f"this process may have {available}; raise LimitNOFILE= (or ulimit -n), or lower "
                "it",
                str(error),
            )

    def test_raised(self) -> None:
        """The soft limit is raised to the hard one."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] - 1, before[1]))
        self.assertEqual(raise_limit(), before[1])
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (before[1], before[1]))

    def test_unlimited(self) -> None:
        """Where the hard limit is none, and the kernel allows less than was asked for, it is as
        many as it allows.
        """
        limits, allowed = [256, resource.RLIM_INFINITY], [0]

        def allow(_: int, wanted: tuple[int, int]) -> None:
            if wanted[0] > allowed[0]:
                raise ValueError("current limit exceeds maximum limit")
            limits[:] = wanted

        self.patch(resource, "getrlimit", lambda _: tuple(limits))
        self.patch(resource, "setrlimit", allow)
        for allowed[0], found in (
            (1 << 20, 1 << 20),
            (300_000, 1 << 18),
            (10_240, 8192),
            (256, 256),
            (100, 256),
        ):
            limits[:] = [256, resource.RLIM_INFINITY]
            self.assertEqual(raise_limit(), found)
            self.assertEqual(limits, [found, resource.RLIM_INFINITY])
        limits[0] = resource.RLIM_INFINITY
        self.assertEqual(raise_limit(), 1 << 20)


class GuardTests(SynchronousTestCase):
    """A real port, without a reactor that runs."""

    def setUp(self) -> None:
        self.accepted: list[Any] = []
        self.reactor = MemoryReactorClock()
        factory: Any = Factory()
        factory.noisy = False
        factory.buildProtocol = self.build
        self.port: Any = tcp.Port(0, factory, 50, "127.0.0.1", self.reactor)
        guard(self.port, self.reactor)
        self.port.startListening()
        self.addCleanup(self.port.socket.close)
        self.clients = [
            socket.create_connection(("127.0.0.1", self.port.getHost().port))
            for _ in range(BATCH + 1)
        ]
        for client in self.clients:
            self.addCleanup(client.close)

    def build(self, address: object) -> Protocol:
        protocol = Protocol()
        self.accepted.append(protocol)
        return protocol

    def close(self) -> None:
        """Close what was accepted."""
        for protocol in self.accepted:
            protocol.transport.socket.close()

    def test_batches(self) -> None:
        """With descriptors to spare connections are accepted, a few in a turn."""
        self.addCleanup(self.close)
        self.port.doRead()
        self.assertEqual(len(self.accepted), BATCH)
        self.port.doRead()
        self.assertEqual(len(self.accepted), BATCH + 1)

    def test_none_left(self) -> None:
        """Without them none is accepted and none closed; it is tried again after a while, not in
        each turn of the reactor,
        and the log says so once a minute."""
        self.addCleanup(self.close)
        with captured_log() as events, used_up(SPARE - 1) as taken:
            self.port.doRead()
            self.assertNotIn(self.port, self.reactor.getReaders())
            for _ in range(int(AGAIN / PAUSE) + 1):
                self.reactor.advance(PAUSE)
                self.assertIn(self.port, self.reactor.getReaders())
                self.port.doRead()
            self.assertEqual(self.accepted, [])
            os.close(taken.pop())
            self.reactor.advance(PAUSE)
            self.port.doRead()
        self.assertEqual(len(self.accepted), BATCH)
        lines = [
            formatEvent(event)
            for event in events
            if event.get("log_namespace", "").startswith("mutauth")
        ]
        line = (
            "this process has no file descriptor left for another connection, accepting none for "
            "now;"
            " raise LimitNOFILE= (or ulimit -n)"
        )
        self.assertEqual(lines, [line] * 2)
        self.assertFalse(any("EMFILE" in (formatEvent(event) or "") for event in events))

    def test_stopped_meanwhile(self) -> None:
        """A port that was closed meanwhile is not opened again."""
        with used_up():
            self.port.doRead()
        self.port.loseConnection()
        self.reactor.advance(PAUSE)
        self.assertNotIn(self.port, self.reactor.getReaders())

    def test_others(self) -> None:
        """A port that listens in another way is left alone."""
        self.assertEqual(guard("a port", self.reactor), "a port")


class WordsTests(SynchronousTestCase):
    """Errors where a file could not be opened for want of a descriptor."""

    def test_acceptor(self) -> None:
        """Neither the keytab nor the replay cache is blamed, nor the client."""
        realm = make_realm(self)
        set_environment(
            self, {"KRB5CCNAME": realm.ccache("alice", "echoSvc/srv1.test.example", "svc-echo")}
        )
        keys = ServiceKeys(ServiceCredentials(realm.keytab("svc-echo")))
        spn = SPN.parse("echoSvc/srv1.test.example")
        seen = set()
        for left in range(6):
            token = KerberosInitiator(spn, ClientCredentials(), Protection.SEAL).step(None).token
            acceptor = keys.acceptor("peer")
            with used_up(left):
                try:
                    acceptor.step(token)
                except StepFailed as failed:
                    seen.add(str(failed.error))
                    self.assertIsInstance(failed.error, DescriptorsUsedUp)
        self.assertEqual(len(seen), 1)
