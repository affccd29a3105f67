"""Factories and endpoints: what applications and Twisted's own endpoints meet."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    ensureDeferred,
    fail,
    maybeDeferred,
    succeed,
)
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
)
from twisted.internet.interfaces import (
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.core.channelbinding import ChannelBinding
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import (
    AccessDenied,
    KDCRefused,
    KDCUnreachable,
    MutualAuthError,
    NetworkError,
    PeerRefused,
    StreamCut,
    UsageError,
)
from mutauth_twisted.mechanisms import KERBEROS, kerberos
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator, ServiceKeys
from mutauth_twisted.net import client as module
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.net.plain import parse_client, parse_server
from mutauth_twisted.net.protocol import describe
from mutauth_twisted.net.server import FRESH, MutualAuthServerEndpoint, MutualAuthServerFactory
from mutauth_twisted.protection import Protection
from mutauth_twisted.testing.fakes import (
    SECRET,
    SPN_ASKED,
    FakeContext,
    FakeTransport,
    HeldWorkers,
    Recorder,
    RecorderFactory,
    ThreadedReactor,
    captured_log,
)
from mutauth_twisted.testing.forge import make_realm, set_environment
from mutauth_twisted.threads import workers_for
from mutauth_twisted.wire import NNS, Token
from tests.support.tampering import flipped

ADDRESS = IPv4Address("TCP", "192.0.2.1", 9000)
TOKEN_1 = NNS.token(SECRET + b"token 1", False)
TOKEN_2 = NNS.token(SECRET + b"token 2", True)


class FakeKeys:
    """A service's keys, whose contexts say what they are told to."""

    accepts_replays = False
    authenticates_service = True

    def __init__(self, **options: Any) -> None:
        self.options = options

    def acceptor(self, peer: str, security: ChannelBinding | None = None) -> FakeContext:
        """The context for one connection."""
        return FakeContext(initiator=False, **self.options)


@implementer(IStreamClientEndpoint)
class FakeEndpoint:
    """An inner endpoint that connects when told to, or fails with what it is told."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure = failure
        self.transport = FakeTransport()
        self.factory: Any = None
        self.waiting: Deferred[Any] = Deferred(
            lambda d: d.errback(ConnectingCancelledError(ADDRESS))
        )
        self.protocol: Any = None

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        self.factory = factory
        return fail(Failure(self.failure)) if self.failure is not None else self.waiting

    def connected(self) -> None:
        """The connection is there."""
        self.protocol = self.factory.buildProtocol(ADDRESS)
        self.protocol.makeConnection(self.transport)
        self.waiting.callback(self.protocol)


class DirectWorkers:
    """Workers without threads."""

    def run(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Call at once."""
        return maybeDeferred(function, *args)


class ServerFactoryTests(SynchronousTestCase):
    """The factory around a server's own."""

    def factory(
        self, policy: AccessPolicy, **options: Any
    ) -> tuple[MutualAuthServerFactory, RecorderFactory]:
        """The factory and the application's."""
        wrapped = RecorderFactory()
        keys = cast(Any, FakeKeys(**options))
        return MutualAuthServerFactory(ThreadedReactor(), cast(Any, wrapped), keys, policy), wrapped

    def connect(self, factory: MutualAuthServerFactory) -> FakeTransport:
        """A client that comes with a good token."""
        protocol: Any = factory.buildProtocol(ADDRESS)
        transport = FakeTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(TOKEN_1)
        return transport

    def test_interface(self) -> None:
        """It is a factory like any other."""
        factory, _ = self.factory(AccessPolicy())
        self.assertTrue(verifyObject(IProtocolFactory, factory))

    def test_start_and_stop(self) -> None:
        """The application's factory is started and stopped with the port."""
        wrapped = Factory.forProtocol(Recorder)
        wrapped.noisy = False
        factory = MutualAuthServerFactory(
            ThreadedReactor(), wrapped, cast(Any, FakeKeys()), AccessPolicy()
        )
        with captured_log() as events:
            factory.doStart()
        self.assertEqual((wrapped.numPorts, events), (1, []))
        factory.doStop()
        self.assertEqual(wrapped.numPorts, 0)

    def test_without_replay_cache(self) -> None:
        """A service that does without a replay cache says so at each start."""
        keys = FakeKeys()
        keys.accepts_replays = True
        factory = MutualAuthServerFactory(
            ThreadedReactor(), Factory.forProtocol(Recorder), cast(Any, keys), AccessPolicy()
        )
        with captured_log() as events:
            factory.doStart()
        self.assertIn("HAS NO REPLAY CACHE", str(formatEvent(events[0])))
        self.assertEqual(events[0]["log_level"], LogLevel.warn)

    def test_allowed(self) -> None:
        """A client whom the policy allows gets the application."""
        factory, wrapped = self.factory(AccessPolicy(allow=("alice@TEST.EXAMPLE",)))
        transport = self.connect(factory)
        self.assertEqual(len(wrapped.built), 1)
        self.assertTrue(transport.value().startswith(TOKEN_2))

    def test_nobody_by_default(self) -> None:
        """A policy that allows nobody allows no client."""
        factory, wrapped = self.factory(AccessPolicy())
        self.assertEqual(self.connect(factory).value(), NNS.fault(5))
        self.assertEqual(wrapped.built, [])

    def test_denied(self) -> None:
        """A denial beats an allowance; the client gets code 5 and no application."""
        factory, wrapped = self.factory(AccessPolicy(allow_all=True, deny=("ALICE@*",)))
        transport = self.connect(factory)
        self.assertEqual(transport.value(), NNS.fault(5))
        self.assertTrue(transport.disconnecting)
        self.assertEqual(wrapped.built, [])

    def test_groups(self) -> None:
        """A client gets in by one of its groups, and not by another's."""
        group = "S-1-5-21-1-2-3-1104"
        for groups, allowed in (((group,), 1), (("S-1-5-21-1-2-3-1105",), 0), ((), 0)):
            factory, wrapped = self.factory(AccessPolicy(allow_groups=[group]), groups=groups)
            self.connect(factory)
            self.assertEqual(len(wrapped.built), allowed)

    def test_realms_matter(self) -> None:
        """A namesake from another realm is somebody else."""
        factory, wrapped = self.factory(
            AccessPolicy(allow=("alice@TEST.EXAMPLE",)), principal="alice@EVIL.EXAMPLE"
        )
        self.assertEqual(self.connect(factory).value(), NNS.fault(5))
        self.assertEqual(wrapped.built, [])

    def test_failures_are_nobodys_unhandled_errors(self) -> None:
        """A handshake that fails leaves no unhandled error behind; it was logged as one line."""
        factory, _ = self.factory(AccessPolicy())
        self.connect(factory)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_drained(self) -> None:
        """Draining ends with the last connection."""
        factory, _ = self.factory(AccessPolicy(allow_all=True))
        protocols: list[Any] = [factory.buildProtocol(ADDRESS) for _ in range(2)]
        for protocol in protocols:
            protocol.makeConnection(FakeTransport())
        drained = ensureDeferred(factory.drain(5))
        self.assertNoResult(drained)
        for protocol in protocols:
            protocol.connectionLost()
        self.assertEqual(self.successResultOf(drained), 0)
        self.assertEqual(self.successResultOf(ensureDeferred(factory.drain(5))), 0)

    def test_not_drained_in_time(self) -> None:
        """Connections that are left when time is up are aborted and counted."""
        factory, _ = self.factory(AccessPolicy(allow_all=True))
        protocol: Any = factory.buildProtocol(ADDRESS)
        transport = FakeTransport()
        protocol.makeConnection(transport)
        drained = ensureDeferred(factory.drain(5))
        factory._reactor.advance(5)
        self.assertEqual(self.successResultOf(drained), 1)
        self.assertTrue(transport.aborted)


class OwnFaultTests(SynchronousTestCase):
    """A service whose keytab goes away and comes back, with real tickets."""

    def setUp(self) -> None:
        self.realm = make_realm(self)
        self.path = Path(self.realm.keytab("svc-echo"))
        self.reactor = ThreadedReactor()
        keys = ServiceKeys(ServiceCredentials(str(self.path), "svc-echo@TEST.EXAMPLE"))
        self.factory = MutualAuthServerFactory(
            self.reactor, cast(Any, RecorderFactory()), keys, AccessPolicy(allow_all=True)
        )
        self.levels: list[tuple[str, str]] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: LogEvent) -> None:
        if event.get("log_namespace", "").startswith("mutauth_twisted"):
            self.levels.append((event["log_level"].name, formatEvent(event)))

    def client(self, account: str = "svc-echo") -> list[str]:
        """A client comes with a new ticket; at which levels that was logged."""
        self.levels.clear()
        credentials = ClientCredentials(ccache=self.realm.ccache("alice", str(SPN_ASKED), account))
        protocol: Any = self.factory.buildProtocol(ADDRESS)
        transport = FakeTransport()
        protocol.makeConnection(transport)
        context = KerberosInitiator(SPN_ASKED, credentials, Protection.SEAL)
        protocol.dataReceived(NNS.token(context.step(None).token, False))
        reader = NNS.reader()
        reader.feed(transport.take())
        if isinstance(frame := reader.next_frame(), Token) and frame.done:
            context.step(frame.payload)
            protocol.dataReceived(NNS.protect(context, b"", True))
        return [level for level, _ in self.levels]

    def test_keytab_away(self) -> None:
        """It is an error once a minute and the service's fault, until a client gets in again."""
        content = self.path.read_bytes()
        self.assertEqual(self.client(), ["info"])
        self.path.unlink()
        self.assertEqual([self.client(), self.client()], [["error"], ["info"]])
        self.assertIn(f"keytab {self.path}: there is no such file", str(self.factory.fault))
        self.reactor.advance(61)
        self.assertEqual(self.client(), ["error"])
        self.path.write_bytes(content)
        self.assertEqual(self.client(), ["info", "info"])
        self.assertIsNone(self.factory.fault)

    def test_keytab_back(self) -> None:
        """A service that gets no clients because it is not healthy is so again when its keytab
        is.
        """
        content = self.path.read_bytes()
        self.path.write_bytes(b"garbage")
        self.client()
        self.assertIn("cannot be used", str(self.factory.fault))
        self.path.write_bytes(content)
        self.reactor.advance(FRESH)
        self.assertIsNone(self.factory.fault)
        self.assertIn(f"no longer: [keytab-unusable] keytab {self.path}", self.levels[-1][1])

    def test_keytab_away_unnoticed(self) -> None:
        """It is looked at once a second at most, whether or not a client has failed: away it is a
        fault, back it is none.
        """
        self.assertIsNone(self.factory.fault)
        away = self.path.rename(f"{self.path}.away")
        self.assertIsNone(self.factory.fault)
        self.reactor.advance(FRESH)
        self.assertIn(f"keytab {self.path}: there is no such file", str(self.factory.fault))
        away.rename(self.path)
        self.assertIn(f"keytab {self.path}: there is no such file", str(self.factory.fault))
        self.reactor.advance(FRESH)
        self.assertIsNone(self.factory.fault)

    def test_replay_cache(self) -> None:
        """One that cannot be written is the service's fault for a minute after, whoever gets in,
        however good the keytab.
        """
        where = os.environ["KRB5RCACHEDIR"]
        for unusable in (f"{where}/away", str(self.path)):
            set_environment(self, {"KRB5RCACHEDIR": unusable})
            levels = [self.client(), self.client()]
            self.assertEqual(levels, [["error"], ["info"]])
            for _ in range(2):
                self.assertIn(
                    "the replay cache: the service cannot note which requests",
                    str(self.factory.fault),
                )
                self.assertIn(unusable, str(self.factory.fault))
            set_environment(self, {"KRB5RCACHEDIR": where})
            self.assertEqual(self.client(), ["info"])
            self.assertIn("the replay cache", str(self.factory.fault))
            self.reactor.advance(61)
            self.assertIsNone(self.factory.fault)

    def test_strangers(self) -> None:
        """A ticket made with somebody's own key is no fault of the service."""
        self.assertEqual(self.client("svc-other"), ["info"])
        self.assertIsNone(self.factory.fault)

    def test_flipped(self) -> None:
        """Nor is any token that somebody has changed, cut or lengthened, whatever number the
        libraries fail with.
        """
        credentials = ClientCredentials(
            ccache=self.realm.ccache("alice", str(SPN_ASKED), "svc-echo")
        )
        token = KerberosInitiator(SPN_ASKED, credentials, Protection.SEAL).step(None).token
        changed = [
            flipped(token, position, bit) for position in range(len(token)) for bit in range(8)
        ]
        changed += [token[:end] for end in range(len(token))]
        changed += [token[:at] + b"\xff" + token[at:] for at in range(len(token))]
        faults = set()
        for each in changed:
            protocol: Any = self.factory.buildProtocol(ADDRESS)
            protocol.makeConnection(FakeTransport())
            protocol.dataReceived(NNS.token(each, False))
            faults.add(self.factory.fault)
            protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(faults, {None})


class ServerEndpointTests(SynchronousTestCase):
    """The endpoint around a server's own."""

    def test_listen(self) -> None:
        """The inner endpoint listens with the wrapped factory."""
        listening: list[Any] = []

        @implementer(IStreamServerEndpoint)
        class Inner:
            def listen(self, factory: Any) -> Deferred[Any]:
                listening.append(factory)
                return succeed("a port")

        keys, wrapped = cast(Any, FakeKeys()), Factory.forProtocol(Protocol)
        endpoint = MutualAuthServerEndpoint(ThreadedReactor(), Inner(), keys, AccessPolicy())
        self.assertTrue(verifyObject(IStreamServerEndpoint, endpoint))
        self.assertEqual(self.successResultOf(endpoint.listen(wrapped)), "a port")
        (factory,) = listening
        self.assertIsInstance(factory, MutualAuthServerFactory)


class BacklogTests(SynchronousTestCase):
    """Number of connections that the kernel keeps for a port."""

    def backlog(self, text: str) -> int:
        """Calls of a server endpoint string to the reactor."""
        reactor = MemoryReactorClock()
        self.successResultOf(parse_server(reactor, text).listen(Factory()))
        ((*_, backlog, _interface),) = reactor.tcpServers
        return cast(int, backlog)

    def test_backlog(self) -> None:
        """It is one for bursts unless the string says otherwise, in whichever way."""
        for text, backlog in (
            ("tcp:9000", 1024),
            ("tcp:9000:interface=127.0.0.1", 1024),
            ("tcp:9000:interface=\\:\\:1", 1024),
            ("tcp6:9000", 1024),
            ("haproxy:tcp:9000", 1024),
            ("tcp:9000:backlog=7", 7),
            ("tcp:backlog=7:port=9000", 7),
            ("tcp:9000:127.0.0.1:7", 7),
            ("haproxy:tcp:9000:backlog=7", 7),
        ):
            self.assertEqual(self.backlog(text), backlog, text)

    def test_keyword_twice(self) -> None:
        """A keyword that is given twice is refused: Twisted takes the last, and drops a denial."""
        for text, name in (
            ("mutauth:tcp\\:9000:allow-all=yes:deny=alice@R:deny=bob@R", "deny"),
            ("mutauth:tcp\\:9000:deny=a@R:protection=seal:allow=b@R:protection=sign", "protection"),
            ("mutauth:scp=echoSvc:hosts=a:hosts=*", "hosts"),
            ("mutauth:scp=echoSvc:hosts=a:ho\\sts=*", "hosts"),
            ("tcp:9000:interface=127.0.0.1:interface=0.0.0.0", "interface"),
            ("haproxy:mutauth:tcp\\:9000:deny=a\\:b@R:deny=bob@R", "deny"),
        ):
            for parse in (parse_server, parse_client):
                error = self.assertRaises(UsageError, parse, MemoryReactorClock(), text)
                self.assertIn(f"it gives {name}= twice", str(error))
        # The inner endpoint's, or a value's own.
        inner = "tcp:host=127.0.0.1:port=1"
        parse_client(MemoryReactorClock(), inner)
        text = f"mutauth:{quoteStringArgument(inner)}:package=kerberos:spn=host=/host=.b:wire=nns"
        error = self.assertRaises(UsageError, parse_client, MemoryReactorClock(), text)
        self.assertNotIn("twice", str(error))

    def test_no_endpoint(self) -> None:
        """Text that is not an endpoint is refused by what was written."""
        error = self.assertRaises(UsageError, parse_server, MemoryReactorClock(), "tcp:")
        self.assertEqual(
            str(error),
            "endpoint tcp:: its port or another number in it is invalid; write a server endpoint, "
            "such as tcp:9000",
        )


class ClientEndpointTests(SynchronousTestCase):
    """connect()."""

    def setUp(self) -> None:
        self.reactor = ThreadedReactor()
        self.context = FakeContext(initiator=True)
        self.asked: list[Any] = []

        def initiator(*args: Any) -> FakeContext:
            self.asked.append(args)
            return self.context

        self.patch(kerberos, "KerberosInitiator", initiator)
        self.inner = FakeEndpoint()
        self.applications = RecorderFactory()

    def connect(self, **options: Any) -> Deferred[Any]:
        """Begin to connect."""
        endpoint = MutualAuthClientEndpoint(
            self.reactor,
            self.inner,
            SPN_ASKED,
            ClientCredentials("alice@TEST.EXAMPLE"),
            where="srv1:9000",
            **options,
        )
        self.assertTrue(verifyObject(IStreamClientEndpoint, endpoint))
        return endpoint.connect(cast(Any, self.applications))

    def error(self, connecting: Deferred[Any]) -> MutualAuthError:
        """Error with which connect() failed: one line of ours, no timer left, no application
        built.
        """
        failure = self.failureResultOf(connecting)
        self.assertIsInstance(failure.value, MutualAuthError)
        self.assertNotIn("\n", str(failure.value))
        self.assertEqual(self.applications.built, [])
        if self.inner.protocol is not None:
            self.inner.protocol.connectionLost()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        return cast(MutualAuthError, failure.value)

    def test_connect(self) -> None:
        """It fires with the application's protocol once both sides are authenticated, and not
        before.
        """
        connecting = self.connect()
        self.assertNoResult(connecting)
        self.inner.connected()
        self.assertNoResult(connecting)
        self.assertEqual(self.inner.transport.value(), TOKEN_1)
        self.assertEqual(self.applications.built, [])
        self.inner.protocol.dataReceived(TOKEN_2)
        self.assertIs(self.successResultOf(connecting), self.applications.built[0])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        asked = (
            SPN_ASKED,
            ClientCredentials("alice@TEST.EXAMPLE"),
            Protection.SEAL,
            KERBEROS,
            None,
        )
        self.assertEqual(self.asked, [asked])

    def test_unreachable(self) -> None:
        """An error that keeps the connection from being made is said in one line, with the address
        and the next step.
        """
        for failure, text in (
            (ConnectionRefusedError(), "srv1:9000: nothing listens there"),
            (DNSLookupError(), "srv1:9000: the host's name does not resolve"),
            (NoRouteError(), "srv1:9000: No route to host"),
            (ConnectError(string="odd"), "srv1:9000: An error occurred while connecting: odd"),
        ):
            self.inner.failure = failure
            error = self.error(self.connect())
            self.assertIs(type(error), NetworkError)
            self.assertTrue(str(error).startswith(text), str(error))
            self.assertNotEqual(error.remedy, "")

    def test_impossible_port(self) -> None:
        """A port that is invalid is our own mistake."""
        self.inner.failure = OverflowError("getsockaddrarg: port must be 0-65535.")
        self.assertIsInstance(self.error(self.connect()), UsageError)

    def test_bugs_stay_bugs(self) -> None:
        """An error that is not about the network is not dressed up as such."""
        self.inner.failure = ZeroDivisionError()
        self.failureResultOf(self.connect(), ZeroDivisionError)

    def test_deadline_of_connecting(self) -> None:
        """The deadline holds while the connection is being made."""
        connecting = self.connect(security=SecurityOptions(timeout=3))
        self.reactor.advance(2.9)
        self.assertNoResult(connecting)
        self.reactor.advance(0.2)
        self.assertIn("srv1:9000: no proof of the service within 3 s", str(self.error(connecting)))

    def test_one_deadline(self) -> None:
        """It is one deadline for connecting and authenticating together."""
        connecting = self.connect(security=SecurityOptions(timeout=3))
        self.reactor.advance(2)
        self.inner.connected()
        self.reactor.advance(1)
        self.assertIn("no proof of the service within 3 s", str(self.error(connecting)))
        self.assertTrue(self.inner.transport.aborted)

    def test_cancel_while_connecting(self) -> None:
        """A cancelled connect() cancels the inner one."""
        connecting = self.connect()
        connecting.cancel()
        self.failureResultOf(connecting, ConnectingCancelledError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancel_while_authenticating(self) -> None:
        """A cancelled connect() drops the connection at once, and what comes then changes
        nothing.
        """
        connecting = self.connect()
        self.inner.connected()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertTrue(self.inner.transport.aborted)
        self.inner.protocol.dataReceived(TOKEN_2)
        self.assertEqual(self.applications.built, [])
        self.inner.protocol.connectionLost()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """A refusal of the service is what connect() fails with."""
        connecting = self.connect()
        self.inner.connected()
        self.inner.protocol.dataReceived(NNS.fault(5))
        self.assertIsInstance(self.error(connecting), PeerRefused)

    def test_each_connection_its_own(self) -> None:
        """Two connections through one endpoint have nothing in common."""
        endpoint = MutualAuthClientEndpoint(self.reactor, self.inner, SPN_ASKED)
        first = endpoint.connect(cast(Any, self.applications))
        inner, self.inner.waiting = self.inner.waiting, Deferred()
        second = endpoint.connect(cast(Any, self.applications))
        inner.errback(ConnectionRefusedError())
        self.failureResultOf(first, NetworkError)
        self.assertNoResult(second)
        second.addErrback(lambda _: None)
        second.cancel()

    def test_threads_are_shared(self) -> None:
        """All connections to one domain wait for its KDC in the same few threads; a stuck one holds
        up no other.
        """
        mine = workers_for(self.reactor, "srv1.example.com")
        self.assertIs(mine, workers_for(self.reactor, "SRV2.Example.COM"))
        self.assertIsNot(mine, workers_for(self.reactor, "srv1.example.org"))
        self.assertIsNot(mine, workers_for(ThreadedReactor(), "srv1.example.com"))


class TicketTests(SynchronousTestCase):
    """A client whose first step asks a KDC."""

    def setUp(self) -> None:
        self.reactor = ThreadedReactor()
        self.workers = HeldWorkers()
        self.patch(module, "workers_for", lambda reactor, host="": self.workers)
        self.contexts: list[FakeContext] = []
        self.fails: MutualAuthError | None = None

        def initiator(*args: Any) -> FakeContext:
            context = FakeContext(initiator=True, blocking=True)
            context.fails = self.fails
            self.contexts.append(context)
            return context

        self.patch(kerberos, "KerberosInitiator", initiator)
        self.inner = FakeEndpoint()
        self.applications = RecorderFactory()

    def connect(self, protection: Protection = Protection.SEAL) -> Deferred[Any]:
        """Begin to connect."""
        security = SecurityOptions(protection=protection)
        endpoint = MutualAuthClientEndpoint(
            self.reactor, self.inner, SPN_ASKED, security=security, where="srv1:9000"
        )
        return endpoint.connect(cast(Any, self.applications))

    def test_before_connecting(self) -> None:
        """The service is connected to with the ticket in hand, and the step that brought it is the
        handshake's first.
        """
        connecting = self.connect()
        self.assertIsNone(self.inner.factory)
        self.workers.finish()
        self.assertIsNotNone(self.inner.factory)
        self.inner.connected()
        self.assertEqual((self.inner.transport.value(), self.workers.waiting), (TOKEN_1, []))
        self.workers.finish()
        self.inner.protocol.dataReceived(TOKEN_2)
        self.workers.finish()
        self.assertIs(self.successResultOf(connecting), self.applications.built[0])
        (context,) = self.contexts
        self.assertEqual(context.steps, [None, SECRET + b"token 2"])

    def test_no_ticket(self) -> None:
        """A refusal of a KDC is what connect() fails with; the service is never contacted, with TLS
        as without.
        """
        for protection in (Protection.SEAL, Protection.TLS):
            self.fails = KDCRefused("echoSvc/srv1", "the KDC knows no such service")
            with captured_log() as events:
                connecting = self.connect(protection)
                self.workers.finish()
            self.assertIs(self.failureResultOf(connecting).value, self.fails)
            self.assertEqual((self.inner.factory, self.reactor.getDelayedCalls()), (None, []))
            text = "".join(str(formatEvent(event)) for event in events)
            self.assertIn(
                "not connecting to srv1:9000: [kdc-refused] echoSvc/srv1: the KDC knows", text
            )

    def test_deadline(self) -> None:
        """A KDC that does not answer is what is named then, and not the service; its answer comes
        too late.
        """
        connecting = self.connect()
        self.reactor.advance(10)
        error = self.failureResultOf(connecting, KDCUnreachable).value
        self.assertIn(
            "srv1:9000: no KDC has given a ticket for it within 10 s; check that a KDC", str(error)
        )
        self.workers.finish()
        self.assertEqual((self.inner.factory, self.reactor.getDelayedCalls()), (None, []))

    def test_cancelled(self) -> None:
        """A caller that gives up meanwhile has no connection made."""
        connecting = self.connect()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.workers.finish()
        self.assertEqual((self.inner.factory, self.reactor.getDelayedCalls()), (None, []))

    def test_several_addresses(self) -> None:
        """Of several connections that one connect() may make each has a token of its own."""
        connecting = self.connect()
        connecting.addErrback(lambda _: None)
        self.workers.finish()
        transports = [FakeTransport(), FakeTransport()]
        for transport in transports:
            self.inner.factory.buildProtocol(ADDRESS).makeConnection(transport)
        self.workers.finish()
        self.assertEqual([transport.value() for transport in transports], [TOKEN_1, TOKEN_1])
        self.assertEqual([context.steps for context in self.contexts], [[None], [None]])

    def test_tls(self) -> None:
        """Inside TLS, to which a token is bound, the ticket is fetched first, and not again for a
        minute.
        """
        for seconds, asked in ((0.0, True), (59.0, False), (2.0, True)):
            self.reactor.advance(seconds)
            self.inner = FakeEndpoint()
            connecting = self.connect(Protection.TLS)
            connecting.addErrback(lambda _: None)
            self.assertIs(self.inner.factory is None, asked, seconds)
            self.workers.finish()
            self.assertIsNotNone(self.inner.factory)
            connecting.cancel()


class TogetherTests(SynchronousTestCase):
    """Client endpoint and server factory, with real Kerberos contexts."""

    def setUp(self) -> None:
        self.realm = make_realm(self)
        self.patch(module, "workers_for", lambda reactor, host="": DirectWorkers())
        self.inner = FakeEndpoint()
        self.server_transport = FakeTransport()
        self.clients, self.servers = RecorderFactory(), RecorderFactory()
        self.reactor = ThreadedReactor()

    def connect(self, policy: AccessPolicy, account: str = "svc-echo") -> Deferred[Any]:
        """A client with a ticket for the account, and a service with the keys of svc-echo."""
        keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")))
        factory = MutualAuthServerFactory(self.reactor, cast(Any, self.servers), keys, policy)
        self.server = cast(Any, factory.buildProtocol(ADDRESS))
        credentials = ClientCredentials(ccache=self.realm.ccache("alice", str(SPN_ASKED), account))
        endpoint = MutualAuthClientEndpoint(self.reactor, self.inner, SPN_ASKED, credentials)
        connecting = endpoint.connect(cast(Any, self.clients))
        self.server.makeConnection(self.server_transport)
        self.inner.connected()
        self.carry()
        return connecting

    def carry(self) -> None:
        """Carry bytes between both until there are none."""
        while True:
            up, down = self.inner.transport.take(), self.server_transport.take()
            if not up and not down:
                return
            for receiver, transport, data in (
                (self.server, self.server_transport, up),
                (self.inner.protocol, self.inner.transport, down),
            ):
                if data and not transport.disconnecting:
                    receiver.dataReceived(data)

    def test_echo(self) -> None:
        """Both applications know the other, and what one writes the other reads."""
        self.servers.prepare = lambda recorder: setattr(
            recorder, "on_data", lambda transport, data: transport.write(data.upper())
        )
        client = self.successResultOf(self.connect(AccessPolicy(allow=("*@TEST.EXAMPLE",))))
        client.transport.write(b"hello")
        self.assertNotIn(b"hello", self.inner.transport.value())
        self.carry()
        self.assertEqual(client.received, [b"HELLO"])
        self.assertEqual(client.transport.peer_identity.spn, SPN_ASKED)
        (served,) = self.servers.built
        self.assertEqual(cast(Any, served.transport).peer_identity.principal, "alice@TEST.EXAMPLE")

    def test_both_close(self) -> None:
        """A close of one side ends both cleanly."""
        client = self.successResultOf(self.connect(AccessPolicy(allow_all=True)))
        client.transport.loseConnection()
        self.carry()
        self.assertTrue(self.server_transport.disconnecting)
        self.server.connectionLost()
        self.assertNotIsInstance(self.servers.built[0].reason, StreamCut)

    def test_impostor(self) -> None:
        """A service without the SPN's key is refused, and says itself why."""
        connecting = self.connect(AccessPolicy(allow_all=True), account="svc-other")
        error = self.failureResultOf(connecting, PeerRefused).value
        self.assertIn("the ticket was made for another key", str(error))
        self.assertEqual((self.clients.built, self.servers.built), ([], []))

    def test_denied(self) -> None:
        """A client that is not allowed learns that much."""
        error = self.failureResultOf(self.connect(AccessPolicy()), PeerRefused).value
        self.assertEqual(cast(PeerRefused, error).status, 5)
        self.assertNotIsInstance(error, AccessDenied)
        self.assertEqual((self.clients.built, self.servers.built), ([], []))


class AddressTests(SynchronousTestCase):
    """Names of a peer in messages."""

    def test_addresses(self) -> None:
        """IPv4, IPv6 and anything else."""
        self.assertEqual(describe(ADDRESS), "192.0.2.1:9000")
        self.assertEqual(describe(IPv4Address("TCP", "2001:db8::1", 9000)), "[2001:db8::1]:9000")
        self.assertEqual(describe(cast(Any, "a pipe")), "a pipe")
