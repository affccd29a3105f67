"""Which failures of one instance lead to the next, and what is said when there is none left."""

from __future__ import annotations

from typing import Any
from unittest import mock
from uuid import uuid4

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.location import Instance
from mutauth_twisted.endpoints.located import LocatedEndpoint, Selection
from mutauth_twisted.errors import (
    AuthenticationError,
    CredentialError,
    DirectoryUnreachable,
    KDCRefused,
    KDCUnreachable,
    MutualAuthError,
    NetworkError,
    PeerNotProven,
)
from mutauth_twisted.spn import SPN


class _Endpoint(LocatedEndpoint):
    """Finds as many instances as there are results, and has one of these for each."""

    def __init__(self, *results: MutualAuthError | None) -> None:
        directory: Any = None
        super().__init__(Clock(), directory, Selection("echoSvc"), ClientCredentials())
        self.results = list(results)

    async def _find(self) -> list[Instance]:
        hosts = [f"srv{number}" for number, _ in enumerate(self.results)]
        return [
            Instance(f"CN={host}", uuid4(), host, 9000 + number, SPN("echoSvc", host), BindingInformation(9000))
            for number, host in enumerate(hosts)
        ]

    def _endpoint(self, instance: Instance, timeout: float) -> Any:
        result = self.results[instance.port - 9000]

        class Inner:
            def connect(self, factory: object) -> Deferred[Any]:
                return succeed(instance.host) if result is None else fail(result)

        return Inner()


class FailoverTests(SynchronousTestCase):
    """One instance after another."""

    def outcome(self, *results: MutualAuthError | None) -> Any:
        """What an attempt comes to when the instances have these results."""
        return self.successResultOf(_Endpoint(*results).connect(Factory.forProtocol(Protocol)))

    def failure(self, *results: MutualAuthError | None) -> BaseException:
        """The error that an attempt ends with."""
        return self.failureResultOf(_Endpoint(*results).connect(Factory.forProtocol(Protocol))).value

    def test_the_next_one(self) -> None:
        """An instance without a ticket, because its SPN or its KDC is gone, keeps nobody from the next."""
        for kind in (NetworkError, PeerNotProven, CredentialError, KDCRefused, KDCUnreachable):
            self.assertEqual(self.outcome(kind("srv0", "broken"), None), "srv1", kind)

    def test_what_concerns_all(self) -> None:
        """What is no instance's own ends the attempt."""
        error = DirectoryUnreachable("directory", "gone")
        self.assertIs(self.failure(error, None), error)

    def test_the_only_one(self) -> None:
        """The failure of a single instance is told as it is."""
        error = KDCRefused("srv0", "unknown", code=7)
        self.assertIs(self.failure(error), error)

    def test_none_left(self) -> None:
        """What a KDC did stays a KDC's where nothing else went wrong; else a refusal counts more than a broken network."""
        no_kdc, refused = KDCUnreachable("a", "no answer"), KDCRefused("b", "unknown")
        closed, stranger = NetworkError("c", "closed"), PeerNotProven("d", "who?")
        for kind, *failures in (
            (KDCUnreachable, no_kdc, no_kdc),
            (KDCRefused, refused, refused),
            (AuthenticationError, no_kdc, refused),
            (AuthenticationError, closed, stranger),
            (NetworkError, closed, no_kdc),
        ):
            error = self.failure(*failures)
            self.assertIs(type(error), kind, failures)
            self.assertIn(error.__cause__, failures)
            for each in failures:
                self.assertIn(str(each), str(error))


class ChannelTests(SynchronousTestCase):
    """What the SCP says of the channel, and what the client asked for."""

    def endpoint(self, binding: BindingInformation, wire: str | None = None) -> Any:
        """The endpoint for an instance that publishes this."""
        directory: Any = mock.Mock()
        located = LocatedEndpoint(MemoryReactorClock(), directory, Selection("echoSvc"), ClientCredentials(), wire=wire)
        return located._endpoint(Instance("CN=srv1", uuid4(), "srv1", 9000, SPN("echoSvc", "srv1"), binding), 1.0)

    def test_wire(self) -> None:
        """The SCP's wire is taken; a client that names another one is refused before it connects."""
        self.endpoint(BindingInformation(9000, wire="winsock"))
        self.endpoint(BindingInformation(9000, wire="winsock"), wire="winsock")
        for binding, words in (
            (BindingInformation(9000), "it speaks wire 'nns', and 'winsock' was asked for; leave wire out"),
            (BindingInformation(9000, wire="pigeon"), "it speaks wire 'pigeon', and 'winsock' was asked for"),
        ):
            error = self.assertRaises(AuthenticationError, self.endpoint, binding, "winsock")
            self.assertIn(f"srv1:9000: {words}", str(error))
        error = self.assertRaises(AuthenticationError, self.endpoint, BindingInformation(9000, wire="pigeon"))
        self.assertIn("have its SCP say nns or winsock", str(error))

    def test_protection(self) -> None:
        """Another protection than the one that was asked for is named, with what to add."""
        for offered, wire, words in (
            ("tls", "nns", "it offers protection 'tls', and 'seal' was asked for; add protection=tls"),
            ("sign", "winsock", "allow it with protection=sign if everybody may read"),
            ("paint", "nns", "have its SCP corrected"),
        ):
            binding = BindingInformation(9000, wire=wire, protection=offered)
            error = self.assertRaises(AuthenticationError, self.endpoint, binding)
            self.assertIn(words, str(error))
        self.endpoint(BindingInformation(9000, protection="sign"))
