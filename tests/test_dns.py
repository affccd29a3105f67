"""DNS values and orders, without a DNS server."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorPluggableNameResolver, IReactorTCP, IReactorTime
from twisted.internet.testing import MemoryReactorClock
from twisted.names import dns
from twisted.names import error as dns_error
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.dns import Resolver, SRVTarget, is_address, parse_nameserver, system_nameservers, weighted_order
from mutauth_twisted.errors import NetworkError, NotFound, UsageError

_RANKS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200)), max_size=12)


class WeightedOrderTests(SynchronousTestCase):
    """RFC 2782's order."""

    @given(_RANKS, st.randoms())
    def test_everything_once_and_priorities_rise(self, ranks: list[tuple[int, int]], source: random.Random) -> None:
        """Nothing is lost or doubled, and a lower priority number always comes first."""
        items = list(enumerate(ranks))
        ordered = weighted_order(items, lambda item: item[1], source.randrange)
        self.assertEqual(sorted(ordered), items)
        priorities = [rank[0] for _, rank in ordered]
        self.assertEqual(priorities, sorted(priorities))

    def test_weights_are_shares(self) -> None:
        """Weights 1 and 3 come first about one and three times in four; 0 hardly ever."""
        source = random.Random(2782)
        first = Counter(weighted_order([0, 100, 300], lambda weight: (0, weight), source.randrange)[0] for _ in range(4000))
        self.assertTrue(2880 < first[300] < 3120, first)
        self.assertLess(first[0], 60)


class NameserverTests(SynchronousTestCase):
    """Which server is asked."""

    def test_parse(self) -> None:
        """An address with or without a port, of both families."""
        for text, result in (
            ("127.0.0.1", ("127.0.0.1", 53)),
            ("127.0.0.1:5353", ("127.0.0.1", 5353)),
            ("::1", ("::1", 53)),
            ("[::1]:54", ("::1", 54)),
        ):
            self.assertEqual(parse_nameserver(text), result)
        for text in ("", "dns.example.com", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:²"):
            self.assertRaises(UsageError, parse_nameserver, text)

    def test_resolv_conf(self) -> None:
        """The nameserver lines, and the local server without any."""
        path = Path(self.mktemp())
        self.assertEqual(system_nameservers(path), [("127.0.0.1", 53)])
        path.write_text("# x\nsearch a b\nnameserver 10.0.0.1\nnameserver junk\nnameserver fe80::1%eth0\n")
        self.assertEqual(system_nameservers(path), [("10.0.0.1", 53), ("fe80::1%eth0", 53)])

    def test_is_address(self) -> None:
        """Names are not addresses."""
        self.assertTrue(is_address("10.0.0.1") and is_address("::1"))
        self.assertFalse(is_address("10.0.0.1.example.com") or is_address(""))


class _Client:
    """Answers from a table."""

    def __init__(self, answers: dict[tuple[str, int], Any]) -> None:
        self._answers = answers

    def query(self, question: dns.Query) -> Deferred[Any]:
        answer = self._answers.get((str(question.name), question.type), dns_error.DNSNameError("no"))
        if isinstance(answer, Exception):
            return fail(answer)
        return succeed([dns.RRHeader(b"x", record.TYPE, payload=record) for record in answer])


class _Receiver:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def resolutionBegan(self, resolution: Any) -> None:
        self.events.append("began")

    def addressResolved(self, address: Any) -> None:
        self.events.append(address)

    def resolutionComplete(self) -> None:
        self.events.append("complete")


class ResolverTests(SynchronousTestCase):
    """Answers and failures, and the reactor that resolves through it."""

    def resolver(self, answers: dict[tuple[str, int], Any]) -> Resolver:
        resolver = Resolver(MemoryReactorClock(), "127.0.0.1", randrange=lambda limit: 0)
        resolver._client = lambda servers: _Client(answers)  # type: ignore[assignment, return-value]
        return resolver

    def test_srv(self) -> None:
        """Targets lose their final dot and come in order."""
        records = [dns.Record_SRV(2, 0, 10, b"b.example"), dns.Record_SRV(1, 5, 20, b"a.example.")]
        resolver = self.resolver({("s", dns.SRV): records})
        self.assertEqual(
            self.successResultOf(resolver.lookup_srv("s")),
            [SRVTarget(1, 5, "a.example", 20), SRVTarget(2, 0, "b.example", 10)],
        )

    def test_srv_that_offers_nothing(self) -> None:
        """A lone '.' says that there is no such service."""
        resolver = self.resolver({("s", dns.SRV): [dns.Record_SRV(0, 0, 0, b".")]})
        self.assertEqual(self.successResultOf(resolver.lookup_srv("s")), [])

    def test_failures(self) -> None:
        """No such name, a broken server, no answer, no name at all: one line each."""
        resolver = self.resolver(
            {
                ("broken", dns.SRV): dns_error.DNSServerError("x"),
                ("late", dns.SRV): dns_error.DNSQueryTimeoutError("x"),
            }
        )
        for name, kind, words in (
            ("missing", NotFound, "no such name"),
            ("broken", NetworkError, "DNSServerError"),
            ("late", NetworkError, "does not answer"),
            ("a" * 64, UsageError, "no DNS name"),
        ):
            error = self.failureResultOf(resolver.lookup_srv(name), kind).value
            self.assertIn(words, str(error))
            self.assertIn("127.0.0.1:53" if kind is not UsageError else "host name", str(error))

    def test_addresses(self) -> None:
        """An address is its own answer; a name without any is a network error."""
        resolver = self.resolver({("h.example", dns.A): [], ("h.example", dns.AAAA): []})
        self.assertEqual(self.successResultOf(resolver.lookup_addresses("::1")), ["::1"])
        self.failureResultOf(resolver.lookup_addresses("h.example"), NetworkError)
        self.failureResultOf(resolver.lookup_addresses("missing"), NetworkError)

    def both_families(self) -> Resolver:
        answers = {
            ("h.example", dns.A): [dns.Record_A("10.0.0.1")],
            ("h.example", dns.AAAA): [dns.Record_AAAA("fd00::1")],
            ("half.example", dns.A): [dns.Record_A("10.0.0.2")],
            ("half.example", dns.AAAA): dns_error.DNSServerError("x"),
        }
        return self.resolver(answers)

    def test_one_family_is_enough(self) -> None:
        """A failure for one family does not hide the other's answer."""
        resolver = self.both_families()
        self.assertEqual(self.successResultOf(resolver.lookup_addresses("h.example")), ["10.0.0.1", "fd00::1"])
        self.assertEqual(self.successResultOf(resolver.lookup_addresses("half.example")), ["10.0.0.2"])

    def test_reactor_for_endpoints(self) -> None:
        """It resolves through the resolver, and is the real reactor in everything else."""
        resolver = self.both_families()
        reactor = resolver.reactor_for_endpoints()
        for interface in (IReactorPluggableNameResolver, IReactorTCP, IReactorTime):
            self.assertTrue(interface.providedBy(reactor))
        reactor.callLater(1, lambda: None)
        self.assertEqual(len(resolver._reactor.getDelayedCalls()), 1)
        receiver = _Receiver()
        reactor.nameResolver.resolveHostName(receiver, "h.example", 7)
        self.assertEqual(
            receiver.events,
            ["began", IPv4Address("TCP", "10.0.0.1", 7), IPv6Address("TCP", "fd00::1", 7), "complete"],
        )
        receiver = _Receiver()
        reactor.nameResolver.resolveHostName(receiver, "missing", 7)
        self.assertEqual(receiver.events, ["began", "complete"])

    def test_the_system_is_asked_through_the_reactor(self) -> None:
        """Without a nameserver the endpoints get the reactor as it is."""
        reactor = MemoryReactorClock()
        self.assertIs(Resolver(reactor).reactor_for_endpoints(), reactor)
