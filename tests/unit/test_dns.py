"""DNS values and orders, without a DNS server."""

from __future__ import annotations

import queue
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorPluggableNameResolver, IReactorTCP, IReactorTime
from twisted.internet.testing import MemoryReactorClock
from twisted.names import dns
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted import dns as dns_module
from mutauth_twisted.dns import (
    MAX_MESSAGE,
    Resolver,
    SRVTarget,
    install_resolver,
    is_address,
    parse_nameserver,
    system_nameservers,
    weighted_order,
)
from mutauth_twisted.errors import NetworkError, NotFound, UsageError
from mutauth_twisted.testing.fakes import FakeTransport

_RANKS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200)), max_size=12)


class WeightedOrderTests(SynchronousTestCase):
    """RFC 2782's order."""

    @given(_RANKS, st.randoms())
    def test_everything_once_and_priorities_rise(
        self, ranks: list[tuple[int, int]], source: random.Random
    ) -> None:
        """Nothing is lost or doubled, and a lower priority number always comes first."""
        items = list(enumerate(ranks))
        ordered = weighted_order(items, lambda item: item[1], source.randrange)
        self.assertEqual(sorted(ordered), items)
        priorities = [rank[0] for _, rank in ordered]
        self.assertEqual(priorities, sorted(priorities))

    def test_weights_are_shares(self) -> None:
        """Weights 1 and 3 come first about one and three times in four; 0 hardly ever."""
        source = random.Random(2782)
        first = Counter(
            weighted_order([0, 100, 300], lambda weight: (0, weight), source.randrange)[0]
            for _ in range(4000)
        )
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
        path.write_text(
            "# x\nsearch a b\nnameserver 10.0.0.1\nnameserver junk\nnameserver fe80::1%eth0\n"
        )
        self.assertEqual(system_nameservers(path), [("10.0.0.1", 53), ("fe80::1%eth0", 53)])

    def test_is_address(self) -> None:
        """Names are not addresses."""
        self.assertTrue(is_address("10.0.0.1") and is_address("::1"))
        self.assertFalse(is_address("10.0.0.1.example.com") or is_address(""))


class Server:
    """A nameserver in memory: the connections that were made to it, and what it sends on one.

    :param reactor: where the resolver connects.
    """

    def __init__(self, reactor: MemoryReactorClock) -> None:
        self._reactor = reactor
        self._taken = 0

    def accept(self) -> tuple[Any, bytes]:
        """The next connection, and the question on it."""
        factory = self._reactor.tcpClients[self._taken][2]
        self._taken += 1
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(FakeTransport())
        return protocol, protocol.transport.value()[2:]

    def waiting(self) -> int:
        """Number of connections that were made and not accepted yet."""
        return len(self._reactor.tcpClients) - self._taken


def frame(message: bytes) -> bytes:
    """A message as it is sent over TCP."""
    return struct.pack("!H", len(message)) + message


def answer(question: bytes, records: Sequence[Any] = (), code: int = 0) -> bytes:
    """The answer to a question: these records, or an error."""
    message = dns.Message()
    message.fromStr(question)
    name = message.queries[0].name.name
    message.answer, message.rCode = 1, code
    message.answers = [dns.RRHeader(name, record.TYPE, dns.IN, 60, record) for record in records]
    data: bytes = message.toStr()
    return data


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

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.server = Server(self.reactor)

    def resolver(self) -> Resolver:
        return Resolver(self.reactor, "127.0.0.1", randrange=lambda limit: 0)

    def serve(self, answers: dict[tuple[str, int], Any]) -> None:
        """Answer everything that is asked, from a table of records or of error codes."""
        while self.server.waiting():
            protocol, question = self.server.accept()
            asked = dns.Message()
            asked.fromStr(question)
            found = answers.get((str(asked.queries[0].name), asked.queries[0].type), dns.ENAME)
            message = (
                answer(question, code=found) if isinstance(found, int) else answer(question, found)
            )
            protocol.dataReceived(frame(message))

    def test_srv(self) -> None:
        """Targets lose their final dot and come in order."""
        records = [dns.Record_SRV(2, 0, 10, b"b.example"), dns.Record_SRV(1, 5, 20, b"a.example.")]
        found = self.resolver().lookup_srv("s")
        self.serve({("s", dns.SRV): records})
        self.assertEqual(
            self.successResultOf(found),
            [SRVTarget(1, 5, "a.example", 20), SRVTarget(2, 0, "b.example", 10)],
        )

    def test_srv_that_offers_nothing(self) -> None:
        """A lone '.' says that there is no such service."""
        found = self.resolver().lookup_srv("s")
        self.serve({("s", dns.SRV): [dns.Record_SRV(0, 0, 0, b".")]})
        self.assertEqual(self.successResultOf(found), [])

    def test_failures(self) -> None:
        """No such name, a broken server, no answer, no name at all: one line each."""
        answers = {("broken", dns.SRV): dns.ESERVER, ("odd", dns.SRV): 11, ("empty", dns.SRV): []}
        for name, kind, words in (
            ("missing", NotFound, "DNS (127.0.0.1:53) knows no such name; check the name"),
            ("broken", NetworkError, "DNS (127.0.0.1:53) failed (SERVFAIL)"),
            ("odd", NetworkError, "DNS (127.0.0.1:53) failed (code 11)"),
            ("empty", NotFound, "DNS has no SRV record of this name"),
            ("a" * 64, NetworkError, "it is not a valid DNS name; check the record or the name"),
        ):
            found = self.resolver().lookup_srv(name)
            self.serve(answers)
            self.assertIn(words, str(self.failureResultOf(found, kind).value))

    def test_addresses(self) -> None:
        """An address is its own answer; a name without any is a network error."""
        self.assertEqual(self.successResultOf(self.resolver().lookup_addresses("::1")), ["::1"])
        for name in ("h.example", "missing"):
            found = self.resolver().lookup_addresses(name)
            self.serve({("h.example", dns.A): [], ("h.example", dns.AAAA): []})
            self.failureResultOf(found, NetworkError)

    both_families = {
        ("h.example", dns.A): [dns.Record_A("10.0.0.1")],
        ("h.example", dns.AAAA): [dns.Record_AAAA("fd00::1")],
        ("half.example", dns.A): [dns.Record_A("10.0.0.2")],
        ("half.example", dns.AAAA): dns.ESERVER,
    }

    def test_one_family_is_enough(self) -> None:
        """A failure for one family does not hide the other's answer."""
        for name, addresses in (
            ("h.example", ["10.0.0.1", "fd00::1"]),
            ("half.example", ["10.0.0.2"]),
        ):
            found = self.resolver().lookup_addresses(name)
            self.serve(self.both_families)
            self.assertEqual(self.successResultOf(found), addresses)

    def test_cancelled(self) -> None:
        """A caller that cancels hears no answer, whichever family's has come before; no connection
        and no timer is left.
        """
        for answered in (0, 1, 2):
            found = self.resolver().lookup_addresses("h.example")
            connections = [self.server.accept() for _ in range(2)]
            for protocol, question in connections[:answered]:
                asked = dns.Message()
                asked.fromStr(question)
                family = asked.queries[0].type
                protocol.dataReceived(
                    frame(answer(question, self.both_families["h.example", family]))
                )
            if answered == 2:
                self.assertEqual(self.successResultOf(found), ["10.0.0.1", "fd00::1"])
                continue
            found.cancel()
            self.failureResultOf(found, CancelledError)
            self.assertTrue(
                all(protocol.transport.aborted for protocol, _ in connections[answered:])
            )
            self.assertEqual([call for call in self.reactor.getDelayedCalls() if call.active()], [])

    def test_reactor_for_endpoints(self) -> None:
        """It resolves through the resolver, and is the real reactor in everything else."""
        reactor = self.resolver().reactor_for_endpoints()
        for interface in (IReactorPluggableNameResolver, IReactorTCP, IReactorTime):
            self.assertTrue(interface.providedBy(reactor))
        reactor.callLater(1, lambda: None)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        receiver = _Receiver()
        reactor.nameResolver.resolveHostName(receiver, "h.example", 7)
        self.serve(self.both_families)
        self.assertEqual(
            receiver.events,
            [
                "began",
                IPv4Address("TCP", "10.0.0.1", 7),
                IPv6Address("TCP", "fd00::1", 7),
                "complete",
            ],
        )
        receiver = _Receiver()
        reactor.nameResolver.resolveHostName(receiver, "missing", 7)
        self.serve({})
        self.assertEqual(receiver.events, ["began", "complete"])


class _Reactor(MemoryReactorClock):
    """Keeps what threads hand over until it is asked to run it."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: queue.Queue[Callable[[], Any]] = queue.Queue()

    def callFromThread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._calls.put(lambda: function(*args, **kwargs))

    def turn(self) -> None:
        """Wait for one call and make it."""
        self._calls.get(timeout=5)()


class SystemTests(SynchronousTestCase):
    """The system's resolver, which may hang."""

    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.resolver = Resolver(self.reactor)
        self.asked: list[str] = []
        self.threads: list[threading.Thread] = []
        self.gate = threading.Event()
        self.addCleanup(self.gate.set)
        self.patch(socket, "getaddrinfo", self.getaddrinfo)

    def getaddrinfo(self, host: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Stands for the system's, which does not answer before the gate is open."""
        self.asked.append(host)
        self.threads.append(threading.current_thread())
        self.gate.wait(5)
        if host.startswith("missing"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host.startswith("invalid"):
            raise UnicodeError("label empty or too long")
        stream = socket.SOCK_STREAM
        return [
            (socket.AF_INET6, stream, 6, "", ("fd00::1", 0, 0, 0)),
            (socket.AF_INET, stream, 6, "", ("10.0.0.1", 0)),
            (socket.AF_INET, stream, 6, "", ("10.0.0.1", 0)),
        ]

    def test_shared(self) -> None:
        """All who ask for one name at a time share one look-up, in a thread that ends with the
        process.
        """
        found = [self.resolver.lookup_addresses("h.example") for _ in range(3)]
        self.gate.set()
        self.reactor.turn()
        for each in found:
            self.assertEqual(self.successResultOf(each), ["10.0.0.1", "fd00::1"])
        self.assertEqual(
            (self.asked, [thread.daemon for thread in self.threads]), (["h.example"], [True])
        )
        again = self.resolver.lookup_addresses("h.example")
        self.reactor.turn()
        self.assertEqual((len(self.successResultOf(again)), len(self.asked)), (2, 2))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_addresses(self) -> None:
        """The system's answer about a name without addresses, or about none, comes in words; an
        address needs no look-up.
        """
        self.gate.set()
        for name, words in (
            (
                "missing.example",
                "missing.example: the name does not resolve to an address (Name or service not "
                "known)",
            ),
            ("invalid..example", "it is not a valid DNS name"),
        ):
            found = self.resolver.lookup_addresses(name)
            self.reactor.turn()
            self.assertIn(words, str(self.failureResultOf(found, NetworkError).value))
        self.assertEqual(
            self.successResultOf(self.resolver.lookup_addresses("10.0.0.7")), ["10.0.0.7"]
        )
        self.assertEqual(len(self.asked), 2)

    def test_the_system_does_not_answer(self) -> None:
        """Nobody waits for a resolver that hangs for long, and who asks again waits for the same
        thread.
        """
        found, cancelled = (self.resolver.lookup_addresses("dc1.example") for _ in range(2))
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.reactor.advance(6.9)
        self.assertNoResult(found)
        self.reactor.advance(0.2)
        error = self.failureResultOf(found, NetworkError).value
        self.assertIn("dc1.example: the system's resolver does not answer within 7 s", str(error))
        later = self.resolver.lookup_addresses("dc1.example")
        self.gate.set()
        self.reactor.turn()
        self.assertEqual((len(self.successResultOf(later)), self.asked), (2, ["dc1.example"]))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_given_up_in_the_queue(self) -> None:
        """Names that hang take a bounded number of threads, and one for which nobody waits any more
        is never asked for.
        """
        hung = [self.resolver.lookup_addresses(f"h{number}.example") for number in range(16)]
        given_up, waited_for = (
            self.resolver.lookup_addresses(name) for name in ("left.example", "kept.example")
        )
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.gate.set()
        for _ in range(17):
            self.reactor.turn()
        for each in (*hung, waited_for):
            self.successResultOf(each)
        self.assertEqual(
            sorted(self.asked),
            sorted([f"h{number}.example" for number in range(16)] + ["kept.example"]),
        )

    def test_installed(self) -> None:
        """A process's own resolver asks there too, and so do the endpoints of a resolver without a
        nameserver.
        """
        install_resolver(self.reactor)
        self.gate.set()
        for reactor in (self.reactor, self.resolver.reactor_for_endpoints()):
            receiver = _Receiver()
            reactor.nameResolver.resolveHostName(receiver, "h.example", 7)
            self.reactor.turn()
            began, *addresses, complete = receiver.events
            self.assertEqual((began, complete), ("began", "complete"))
            self.assertEqual(
                set(addresses),
                {IPv4Address("TCP", "10.0.0.1", 7), IPv6Address("TCP", "fd00::1", 7)},
            )
        self.assertEqual(self.asked, ["h.example"] * 2)


class HostileServerTests(SynchronousTestCase):
    """Answers that are meant to harm, and servers that give none."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.server = Server(self.reactor)
        self.resolver = Resolver(self.reactor, "127.0.0.1", randrange=lambda limit: 0)
        self.good = [dns.Record_SRV(0, 0, 389, b"dc1.example")]

    def ask(self) -> tuple[Deferred[Any], Any, bytes]:
        found = self.resolver.lookup_srv("s.example")
        return found, *self.server.accept()

    def refused(self, found: Deferred[Any], words: str) -> None:
        line = str(self.failureResultOf(found, NetworkError).value)
        self.assertIn(words, line)
        self.assertIn("127.0.0.1:53", line)
        self.assertEqual([call for call in self.reactor.getDelayedCalls() if call.active()], [])

    def test_compression_bombs(self) -> None:
        """Pointers to pointers, and long names that every record points to, are given up on after a
        bounded effort.
        """
        followed = 0
        original = dns._DecodeContext.registerJump

        def count(context: Any) -> None:
            nonlocal followed
            followed += 1
            original(context)

        self.patch(dns._DecodeContext, "registerJump", count)
        for pieces in bombs():
            found, protocol, question = self.ask()
            body, records = pieces(len(question))
            message = (
                question[:2]
                + b"\x85\x80\0\1"
                + struct.pack("!HHH", records, 0, 0)
                + question[12:]
                + body
            )
            self.assertLessEqual(len(message), MAX_MESSAGE)
            followed = 0
            protocol.dataReceived(frame(message))
            self.refused(found, "answers with what cannot be read")
            self.assertLessEqual(followed, 1001)

    def test_thousands_of_records(self) -> None:
        """An answer full of records is read no further than its size allows, and a bounded number
        of them is used.
        """
        found, protocol, question = self.ask()
        name = question[12:-4]
        records = b""
        for number in range(500):
            target = bytes((3,)) + f"{number:03}".encode() + b"\0"
            records += b"\xc0\x0c" + struct.pack("!HHIHHHH", 33, 1, 60, 11, number, 1, 389) + target
        self.assertTrue(name)
        message = (
            question[:2]
            + b"\x85\x80\0\1"
            + struct.pack("!HHH", 500, 0, 0)
            + question[12:]
            + records
        )
        protocol.dataReceived(frame(message))
        targets = self.successResultOf(found)
        self.assertEqual(len(targets), 256)
        self.assertEqual(targets[0].host, "000")

    def test_what_follows_the_answers(self) -> None:
        """Authority and additional records are not read, whatever they are."""
        found, protocol, question = self.ask()
        message = bytearray(answer(question, self.good) + b"\xff" * 500)
        message[8:12] = b"\xff\xff\xff\xff"
        protocol.dataReceived(frame(bytes(message)))
        self.assertEqual(self.successResultOf(found), [SRVTarget(0, 0, "dc1.example", 389)])

    def test_too_large(self) -> None:
        """The length alone ends it: nothing of a larger answer is kept."""
        for size in (MAX_MESSAGE + 1, 65535):
            found, protocol, _ = self.ask()
            protocol.dataReceived(struct.pack("!H", size))
            self.refused(found, f"answers with {size} bytes, more than {MAX_MESSAGE}")
            self.assertTrue(protocol.transport.aborted)

    def test_answers_to_other_questions(self) -> None:
        """A wrong identifier, name or type, and a question, are dropped; the answer behind them
        counts.
        """
        found, protocol, question = self.ask()
        true = answer(question, self.good)
        other = answer(
            question.replace(b"example", b"eXamplf"), [dns.Record_SRV(0, 0, 389, b"rogue.example")]
        )
        for wrong in (
            bytes((true[0] ^ 1,)) + true[1:],
            other,
            true[: len(question) - 3] + b"\1" + true[len(question) - 2 :],
            question,
            true[:4] + b"\0\2" + true[6:],
            true[:4] + b"\0\0" + true[6:],
            b"",
            true[:11],
        ):
            protocol.dataReceived(frame(wrong))
            self.assertNoResult(found)
        protocol.dataReceived(
            frame(true[:12] + true[12 : len(question)].upper() + true[len(question) :])
        )
        self.assertEqual(self.successResultOf(found), [SRVTarget(0, 0, "dc1.example", 389)])

    def test_a_flood_of_them(self) -> None:
        """Nobody reads them for long."""
        found, protocol, question = self.ask()
        protocol.dataReceived(frame(question) * 100)
        self.refused(found, "answers other questions")
        self.assertTrue(protocol.transport.aborted)

    def test_dripping(self) -> None:
        """Bytes that come one by one do not extend the time."""
        found, protocol, question = self.ask()
        for byte in frame(answer(question, self.good))[:19]:
            protocol.dataReceived(bytes((byte,)))
            self.reactor.advance(0.1)
        self.assertNoResult(found)
        self.reactor.advance(0.11)
        self.refused(found, "does not answer")
        self.assertTrue(protocol.transport.aborted)

    def test_connecting_takes_of_the_same_time(self) -> None:
        """A server that takes a connection late has the rest of the time to answer."""
        found = self.resolver.lookup_srv("s.example")
        self.reactor.advance(1.5)
        protocol, _ = self.server.accept()
        self.reactor.advance(0.6)
        self.refused(found, "does not answer")
        self.assertTrue(protocol.transport.aborted)
        found = self.resolver.lookup_srv("s.example")
        self.reactor.advance(2.1)
        self.refused(found, "does not answer")

    def test_cancelled(self) -> None:
        """One that gives up is not answered by another server, and leaves no connection behind."""
        self.patch(dns_module, "system_nameservers", lambda: [("10.0.0.1", 53), ("10.0.0.2", 53)])
        self.resolver = Resolver(self.reactor)
        found, protocol, _ = self.ask()
        found.cancel()
        self.failureResultOf(found, CancelledError)
        self.assertTrue(protocol.transport.aborted)
        found = self.resolver.lookup_srv("s.example")
        found.cancel()
        self.failureResultOf(found, CancelledError)
        self.assertEqual(len(self.reactor.tcpClients), 2)

    def test_closed(self) -> None:
        """A connection that ends without an answer, or in the middle of it, is a failure at
        once.
        """
        for part in (b"", b"\0", b"\0\x20" + bytes(10)):
            found, protocol, _ = self.ask()
            protocol.dataReceived(part)
            protocol.connectionLost(Failure(ConnectionDone()))
            self.refused(found, "closed the connection without an answer")

    def test_junk(self) -> None:
        """With anything in the place of records, the failure is one line."""
        for junk in (
            b"",
            b"\xc0",
            b"\xff" * 64,
            b"\xc0\x0c\0\x21\0\1\0\0\0\0\0\3abc",
            b"\x3f" * 30,
        ):
            found, protocol, question = self.ask()
            protocol.dataReceived(
                frame(question[:2] + b"\x85\x80\0\1\0\1\0\0\0\0" + question[12:] + junk)
            )
            self.refused(found, "answers with what cannot be read")

    def test_an_error_without_the_question(self) -> None:
        """A server that could not read the question says so without repeating it."""
        found, protocol, question = self.ask()
        protocol.dataReceived(frame(question[:2] + b"\x80\1" + bytes(8)))
        self.refused(found, "failed (FORMERR)")

    def test_the_next_server(self) -> None:
        """Each server has its own time; when one fails the next is asked, and when all do each is
        named.
        """
        servers = [("10.0.0.1", 53), ("10.0.0.2", 53), ("10.0.0.3", 53)]
        self.patch(dns_module, "system_nameservers", lambda: servers)
        self.resolver = Resolver(self.reactor)
        found, first, _ = self.ask()
        first.dataReceived(struct.pack("!H", 65535))
        second, question = self.server.accept()
        second.dataReceived(frame(answer(question, code=dns.ESERVER)))
        third, question = self.server.accept()
        self.reactor.advance(1.9)
        third.dataReceived(frame(answer(question, self.good)))
        self.assertEqual(self.successResultOf(found), [SRVTarget(0, 0, "dc1.example", 389)])
        found, first, _ = self.ask()
        first.connectionLost(Failure(ConnectionDone()))
        self.server.accept()
        self.reactor.advance(2.1)
        self.server.accept()
        self.reactor.advance(2.1)
        line = str(self.failureResultOf(found, NetworkError).value)
        for host, _ in servers:
            self.assertIn(f"DNS ({host}:53)", line)


def bombs() -> Sequence[Callable[[int], tuple[bytes, int]]]:
    """Records that make a simple reader follow millions of pointers: given where they start, their
    bytes and number.
    """
    room = MAX_MESSAGE - 64

    def chain(at: int) -> tuple[bytes, int]:
        """Names that each go through a thousand pointers."""
        first = at + 12
        links = bytearray(b"\0")
        while len(links) < 2000:
            links += struct.pack("!H", 0xC000 | (first + max(0, len(links) - 2)))
        last = struct.pack("!H", 0xC000 | (first + len(links) - 2))
        holder = b"\xc0\x0c" + struct.pack("!HHIH", 999, 1, 60, len(links)) + links
        record = last + struct.pack("!HHIHHHH", 33, 1, 60, 8, 0, 0, 389) + last
        number = (room - len(holder)) // len(record)
        return holder + record * number, number + 1

    def long_names(at: int) -> tuple[bytes, int]:
        """Names of 127 labels that a record repeats in two bytes."""
        name = b"\1a" * 126 + b"\0"
        holder = b"\xc0\x0c" + struct.pack("!HHIH", 999, 1, 60, len(name)) + name
        pointer = struct.pack("!H", 0xC000 | (at + 12))
        record = pointer + struct.pack("!HHIHHHH", 33, 1, 60, 8, 0, 0, 389) + pointer
        number = (room - len(holder)) // len(record)
        return holder + record * number, number + 1

    def loop(at: int) -> tuple[bytes, int]:
        """A pointer to itself."""
        return struct.pack("!H", 0xC000 | at) + struct.pack("!HHIH", 1, 1, 60, 4) + bytes(4), 1

    return chain, long_names, loop
