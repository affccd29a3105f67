"""DNS without blocking: SRV records, addresses, and a reactor that resolves through them.

SRV records, and addresses where a nameserver is given, are asked for over TCP in
the reactor.  Addresses otherwise come from the system's resolver, hosts file
included: getaddrinfo, which cannot be stopped, in threads that nothing waits for.
"""

from __future__ import annotations

import random
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IResolutionReceiver,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.errors import NetworkError, NotFound, UsageError
from mutauth_twisted.files import read_file
from mutauth_twisted.text import short_name
from mutauth_twisted.threads import Workers

T = TypeVar("T")

_TIMEOUT = 2.0  # seconds for a server to take the connection and to answer
#: Seconds for the system's own resolver: more than the 5 after which it asks the next nameserver
#: (resolv.conf(5)).
_SYSTEM_TIMEOUT = 7.0
_SYSTEM_THREADS = 16  # names that the system is asked for at once
#: The longest answer that is read, in bytes: the SRV records of some 250 domain controllers.  A
#: hostile one of this size costs 30 ms at most: Twisted follows no more than 1,000 compression
#: pointers in a message.
MAX_MESSAGE = 16384
_MOST_TARGETS = (
    256  # SRV records that are used; putting them in order takes the square of their number
)
_MOST_DROPPED = 16  # messages that answer no question before a server is given up on
_HEADER, _RESPONSE, _RCODE = 12, 0x80, 0x0F  # RFC 1035, section 4.1.1
_RCODES = {1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED"}
_RESOLV_CONF = Path("/etc/resolv.conf")


@frozen
class SRVTarget:
    """One SRV record (RFC 2782): where an instance of a service listens.

    :param host: a DNS name without the final dot.
    """

    priority: int
    weight: int
    host: str
    port: int


def weighted_order(
    items: Iterable[T],
    rank: Callable[[T], tuple[int, int]],
    randrange: Callable[[int], int] = random.randrange,
) -> list[T]:
    """The order in which to try replicas, by the procedure of RFC 2782.

    :param rank: gives an item's priority (lowest first) and weight (its share
        of the first places among items of the same priority).
    :param randrange: gives a number from 0 to one less than its argument.
    """
    groups: dict[int, list[tuple[int, T]]] = {}
    for item in items:
        priority, weight = rank(item)
        groups.setdefault(priority, []).append((weight, item))
    ordered: list[T] = []
    for priority in sorted(groups):
        # "arrange all SRV RRs (that have not been ordered yet) in any order,
        # except that all those with weight 0 are placed at the beginning"
        waiting = sorted(groups[priority], key=lambda entry: entry[0] != 0)
        while waiting:
            mark = randrange(sum(weight for weight, _ in waiting) + 1)
            for place, (weight, item) in enumerate(waiting):
                mark -= weight
                if mark <= 0:
                    ordered.append(item)
                    del waiting[place]
                    break
    return ordered


def is_address(host: str) -> bool:
    """Tell whether the text is an IPv4 or IPv6 address rather than a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def parse_nameserver(text: str) -> tuple[str, int]:
    """Read ``address``, ``address:port`` or ``[address]:port``; the port is 53 by default.

    :raises UsageError: for anything else.
    """
    host, colon, port = text.rpartition(":")
    if is_address(text) or not colon:
        host, port = text, "53"
    host = host.removeprefix("[").removesuffix("]")
    if (
        not is_address(host)
        or not (port.isascii() and port.isdecimal())
        or not 0 < int(port) < 65536
    ):
        raise UsageError(
            f"nameserver {text!r}", "it is not an address", "write ADDRESS or ADDRESS:PORT"
        )
    return host, int(port)


def system_nameservers(path: Path = _RESOLV_CONF) -> list[tuple[str, int]]:
    """The nameservers of resolv.conf(5); the local one when it names none."""
    servers = []
    try:
        lines = read_file(path).decode(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and is_address(words[1].partition("%")[0]):
            servers.append((words[1], 53))
    return servers or [("127.0.0.1", 53)]


class _ServerFailedError(Exception):
    """This server gave no usable answer; another one may."""


class _QuestionProtocol(Int16StringReceiver):
    """One question to one server over TCP (RFC 1035, section 4.2.2).

    Every DNS server speaks TCP (RFC 7766), an attacker off the path cannot forge an
    answer over it, and Twisted logs four lines for each UDP socket.

    :param question: the message to send.
    :ivar answered: fires with the first message that answers the question; cancelling it cuts the
        connection.
    """

    MAX_LENGTH = MAX_MESSAGE

    def __init__(self, question: bytes) -> None:
        self._question = question
        self._dropped = 0
        self.answered: Deferred[bytes] = Deferred(lambda _: self._cut())

    def connectionMade(self) -> None:
        self.sendString(self._question)

    def stringReceived(self, string: bytes) -> None:
        if self.answered.called:
            return
        if _answers(string, self._question):
            self.transport.loseConnection()  # type: ignore[union-attr]
            self.answered.callback(string)
            return
        self._dropped += 1
        if self._dropped == _MOST_DROPPED:
            self._fail("answers other questions")

    def lengthLimitExceeded(self, length: int) -> None:
        self._fail(f"answers with {length} bytes, more than {MAX_MESSAGE}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._fail("closed the connection without an answer")

    def _fail(self, reason: str) -> None:
        if not self.answered.called:
            self.answered.errback(_ServerFailedError(reason))
        self._cut()

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]


def _answers(message: bytes, question: bytes) -> bool:
    """Tell whether a message answers the question: a response with its identifier that repeats it,
    or an error without.

    Looks at no more than the header and as many bytes as the question has.
    """
    if len(message) < _HEADER or message[:2] != question[:2] or not message[2] & _RESPONSE:
        return False
    if message[4:6] == b"\0\0":  # a server that could not read the question may leave it out
        return bool(message[3] & _RCODE)
    end = len(question)
    return (
        message[4:6] == question[4:6] and message[_HEADER:end].lower() == question[_HEADER:].lower()
    )


def _decode(message: bytes) -> Any:
    """The message up to the end of its answers; nothing is asked for what follows them."""
    decoded = dns.Message()
    try:
        decoded.fromStr(message[:8] + bytes(4) + message[_HEADER:])
    except Exception as error:  # Twisted promises no set of errors for bytes that are no DNS
        raise _ServerFailedError(
            f"answers with what cannot be read ({type(error).__name__})"
        ) from error
    if len(decoded.answers) != int.from_bytes(message[6:8], "big"):
        raise _ServerFailedError("answers with what cannot be read (it is cut)")
    return decoded


class Resolver:
    """Asks the system's DNS, or one nameserver.

    A nameserver has two seconds for each question, those of resolv.conf one after
    the other.  The system's resolver, which gives addresses where no nameserver is
    given, has seven; its thread goes on until getaddrinfo returns.

    :param reactor: provides IReactorTCP, IReactorTime and IReactorFromThreads.
    :param nameserver: ``address[:port]`` to ask instead of the system's
        configuration; the hosts file then plays no part either.
    :param randrange: the random source that orders SRV records.
    """

    def __init__(
        self,
        reactor: Any,
        nameserver: str | None = None,
        *,
        randrange: Callable[[int], int] = random.randrange,
    ) -> None:
        self._reactor = reactor
        #: What was given, for commands that are to ask the same.
        self.nameserver = nameserver
        self._server = parse_nameserver(nameserver) if nameserver else None
        self._randrange = randrange

    async def _ask(self, kind: int, name: str) -> list[Any]:
        """The answer's records of one type; none when the name exists without them.

        :raises NotFound: when there is no such name.
        :raises NetworkError: when no server answers, or one fails.
        """
        servers = [self._server] if self._server else system_nameservers()
        try:
            query = dns.Query(name.encode("idna"), kind, dns.IN)
        except UnicodeError as error:
            # Not of usage: the name may be one that an SCP or an SRV record gives.
            subject = f"host name {short_name(name)!r}"
            raise NetworkError(
                subject,
                "it is not a valid DNS name",
                "check the record or the name",
                code="dns-name-invalid",
            ) from error
        failures = []
        for host, port in servers:
            try:
                message = await self._answer(host, port, query)
            except _ServerFailedError as failure:
                failures.append(f"DNS ({host}:{port}) {failure}")
                continue
            if message.rCode == dns.OK:
                return [
                    record.payload
                    for record in message.answers
                    if record.type == kind and record.cls == dns.IN
                ]
            if message.rCode == dns.ENAME:
                remedy = "check the name, or ask another DNS server with nameserver"
                raise NotFound(
                    name, f"DNS ({host}:{port}) knows no such name", remedy, code="dns-name-unknown"
                )
            failures.append(
                f"DNS ({host}:{port}) failed "
                f"({_RCODES.get(message.rCode, f'code {message.rCode}')})"
            )
        remedy = "check the DNS server, or ask another with nameserver"
        raise NetworkError(name, ", ".join(failures), remedy, code="dns-failed")

    async def _answer(self, host: str, port: int, query: dns.Query) -> Any:
        """One server's answer, connecting included within the time limit, however its bytes come.

        :raises _ServerFailedError: when there is no usable one.
        """
        question = dns.Message(secrets.randbits(16), recDes=1)
        question.queries = [query]
        protocol = _QuestionProtocol(question.toStr())
        try:
            message = await Deferred.fromCoroutine(self._exchange(host, port, protocol)).addTimeout(
                _TIMEOUT, self._reactor
            )
        except TimeoutError:
            raise _ServerFailedError("does not answer") from None
        except (ConnectError, OSError) as error:
            raise _ServerFailedError(f"does not answer ({error})") from error
        return _decode(message)

    async def _exchange(self, host: str, port: int, protocol: _QuestionProtocol) -> bytes:
        factory = Factory.forProtocol(lambda: protocol)
        factory.noisy = False
        try:
            await endpoint_at(self._reactor, host, [host], port, _TIMEOUT).connect(factory)
        except ConnectingCancelledError as error:
            raise CancelledError from error  # as everything else that is cancelled ends
        return await protocol.answered

    def lookup_srv(self, name: str) -> Deferred[list[SRVTarget]]:
        """The instances of a service in the order to try them (RFC 2782).

        :param name: such as ``_ldap._tcp.example.com``.
        :return: fires with the targets; none when the one target is ``.``,
            which says that the service is not offered.
        :raises NotFound: when there are no such records.
        :raises NetworkError: when DNS does not answer.
        """
        return Deferred.fromCoroutine(self._lookup_srv(name))

    async def _lookup_srv(self, name: str) -> list[SRVTarget]:
        records = await self._ask(dns.SRV, name)
        if not records:
            raise NotFound(
                name,
                "DNS has no SRV record of this name",
                "check the name",
                code="dns-name-unknown",
            )
        try:
            targets = self._targets(records)
        except UnicodeDecodeError:
            raise NetworkError(
                name,
                "DNS answers with an invalid host name",
                "check the record",
                code="dns-name-invalid",
            ) from None
        # Nobody has more replicas, and who repeats one is not asked twice.
        offered = list(dict.fromkeys(target for target in targets if target.host))[:_MOST_TARGETS]
        return weighted_order(
            offered, lambda target: (target.priority, target.weight), self._randrange
        )

    @staticmethod
    def _targets(records: list[Any]) -> list[SRVTarget]:
        return [
            SRVTarget(
                record.priority,
                record.weight,
                record.target.name.decode("ascii").rstrip("."),
                record.port,
            )
            for record in records
        ]

    def lookup_addresses(self, host: str) -> Deferred[list[str]]:
        """The addresses of a host, IPv4 first; an address is its own answer.

        :raises NetworkError: when the host has none, or DNS does not answer.
        """
        return Deferred.fromCoroutine(self._lookup_addresses(host))

    async def _lookup_addresses(self, host: str) -> list[str]:
        if is_address(host):
            return [host]
        found = await (self._ask_addresses(host) if self._server else self._system_addresses(host))
        if not found:
            raise NetworkError(
                host,
                "the name does not resolve to an address",
                "check the name and DNS",
                code="dns-name-unknown",
            )
        return found

    async def _ask_addresses(self, host: str) -> list[str]:
        questions = [Deferred.fromCoroutine(self._ask(kind, host)) for kind in (dns.A, dns.AAAA)]
        answers: list[tuple[bool, Any]] = await DeferredList(questions, consumeErrors=True)
        addresses = [
            str(ip_address(record.address))
            for worked, records in answers
            if worked
            for record in records
        ]
        failures = [reason.value for worked, reason in answers if not worked]
        for reason in failures:
            if isinstance(
                reason, CancelledError
            ):  # nothing waits, whatever the other family's answer was
                raise reason
        if not addresses and failures:
            reason = failures[0]
            if isinstance(reason, NotFound):  # a host's name that was given, not one looked for
                raise NetworkError(reason.subject, reason.cause, reason.remedy) from reason
            raise reason
        return addresses

    async def _system_addresses(self, host: str) -> list[str]:
        found = await _system_of(self._reactor).lookup_addresses(host)
        return sorted(found, key=lambda address: ":" in address)

    def reactor_for_endpoints(self) -> Any:
        """The reactor to hand to HostnameEndpoint, so that it resolves through this resolver.

        Nothing is installed: the real reactor and others who use it are left alone.
        """
        return _ResolvingReactor(self._reactor, self)


class _Lookup:
    """One name for which the system is asked, and who waits for its addresses."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.waiting: dict[Deferred[list[str]], None] = {}
        #: Whether a thread is at it, so that giving it up would free nothing.
        self.is_under_way = False

    def addresses(self) -> list[str]:
        """Addresses by getaddrinfo; blocks."""
        self.is_under_way = True
        found = socket.getaddrinfo(self.host, 0, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    def failure(self, failure: Failure) -> Failure:
        """The same in words."""
        error = failure.value
        if isinstance(error, ValueError):
            subject, cause = f"host name {short_name(self.host)!r}", "it is not a valid DNS name"
            return Failure(
                NetworkError(
                    subject, cause, "check the record or the name", code="dns-name-invalid"
                )
            )
        if isinstance(error, OSError):
            cause = f"the name does not resolve to an address ({error.strerror})"
            return Failure(
                NetworkError(self.host, cause, "check the name and DNS", code="dns-name-unknown")
            )
        return failure


class _System:
    """The system's resolver, in threads that nothing waits for: a look-up has no deadline of its
    own.

    All who ask for one name at a time share its look-up, so that a name that hangs takes one
    thread.

    :param reactor: provides IReactorTime and IReactorFromThreads.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._workers = Workers(reactor, _SYSTEM_THREADS, "mutauth-names")
        self._lookups: dict[str, _Lookup] = {}
        self._calls: dict[_Lookup, Deferred[None]] = {}

    def lookup_addresses(self, host: str) -> Deferred[list[str]]:
        """The addresses of a host, in the system's order.

        :raises NetworkError: when it has none, or the system does not answer within seven seconds.
        """
        if is_address(host):
            return succeed([host])
        lookup = self._lookups.get(host) or self._begin(host)
        answer: Deferred[list[str]] = Deferred(lambda answer: self._leave(lookup, answer))
        lookup.waiting[answer] = None
        return answer.addTimeout(_SYSTEM_TIMEOUT, self._reactor, lambda *_: _system_is_silent(host))

    def _begin(self, host: str) -> _Lookup:
        lookup = self._lookups[host] = _Lookup(host)
        self._calls[lookup] = self._workers.run(lookup.addresses).addBoth(self._ended, lookup)
        return lookup

    def _leave(self, lookup: _Lookup, answer: Deferred[list[str]]) -> None:
        lookup.waiting.pop(answer, None)
        if not lookup.waiting and not lookup.is_under_way and lookup in self._calls:
            self._calls[lookup].cancel()

    def _ended(self, outcome: list[str] | Failure, lookup: _Lookup) -> None:
        del self._lookups[lookup.host], self._calls[lookup]
        result = lookup.failure(outcome) if isinstance(outcome, Failure) else outcome
        for answer in tuple(lookup.waiting):
            if not answer.called:  # the answer before it may have had it cancelled
                answer.callback(result)


def _system_is_silent(host: str) -> Failure:
    cause = f"the system's resolver does not answer within {_SYSTEM_TIMEOUT:g} s"
    remedy = "check the nameservers in /etc/resolv.conf, or ask another with nameserver"
    return Failure(NetworkError(host, cause, remedy, code="dns-failed"))


_systems: WeakKeyDictionary[Any, _System] = WeakKeyDictionary()


def _system_of(reactor: Any) -> _System:
    if reactor not in _systems:
        _systems[reactor] = _System(reactor)
    return _systems[reactor]


def install_resolver(reactor: Any) -> None:
    """Have all names that a process looks up resolved by the system in threads that nothing waits
    for.

    Twisted's own resolver asks in the reactor's thread pool, which it joins when it stops: a
    process with a DNS server that does not answer then ends only once every look-up has, those that
    wait included.

    :param reactor: the process's own; provides IReactorPluggableNameResolver, IReactorTime and
        IReactorFromThreads.
    """
    reactor.installNameResolver(_HostnameResolver(_system_of(reactor)))


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str, lookup: Deferred[Any]) -> None:
        self.name = name
        self._lookup = lookup

    def cancel(self) -> None:
        self._lookup.cancel()


@implementer(IHostnameResolver)
class _HostnameResolver:
    """IHostnameResolver on top of a :class:`Resolver`."""

    def __init__(self, resolver: Resolver | _System | _Resolved) -> None:
        self._resolver = resolver

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        transport: Literal["TCP", "UDP"] = "UDP" if transportSemantics == "UDP" else "TCP"
        lookup = self._resolver.lookup_addresses(hostName)
        resolution = _Resolution(hostName, lookup)
        resolutionReceiver.resolutionBegan(resolution)

        def found(addresses: list[str]) -> None:
            for text in addresses:
                kind = IPv6Address if ":" in text else IPv4Address
                if addressTypes is None or kind in addressTypes:
                    resolutionReceiver.addressResolved(kind(transport, text, portNumber))

        # IHostnameResolver has no way to say why: a failed lookup completes without addresses.
        lookup.addCallbacks(found, lambda _: None)
        lookup.addCallback(lambda _: resolutionReceiver.resolutionComplete())
        return resolution


class _Resolved:
    """Stands for a :class:`Resolver` that knows one host's addresses."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = list(addresses)

    def lookup_addresses(self, host: str) -> Deferred[list[str]]:
        return succeed(self._addresses)


def endpoint_at(
    reactor: Any, host: str, addresses: Sequence[str], port: int, timeout: float
) -> HostnameEndpoint:
    """A client endpoint for a host whose addresses are known; they are tried as RFC 8305 has it.

    :param timeout: seconds for each attempt to connect.
    """
    return HostnameEndpoint(_ResolvingReactor(reactor, _Resolved(addresses)), host, port, timeout)


@implementer(IReactorPluggableNameResolver, IReactorTCP, IReactorTime)
class _ResolvingReactor:
    """The real reactor with another name resolver."""

    def __init__(self, reactor: Any, resolver: Resolver | _System | _Resolved) -> None:
        self._reactor = reactor
        self.nameResolver = _HostnameResolver(resolver)

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Replace this object's resolver only."""
        previous, self.nameResolver = self.nameResolver, resolver  # type: ignore[assignment]
        return previous

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)
