"""Connect standard input and output, or local connections, to a service."""

from __future__ import annotations

from typing import Any

import click
from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from zope.interface import implementer

from mutauth_twisted.cli.output import note, report
from mutauth_twisted.cli.reactor import begin_logging, run_in_reactor
from mutauth_twisted.errors import MutualAuthError, NetworkError, UsageError
from mutauth_twisted.gateway.backend import is_local
from mutauth_twisted.gateway.entrance import EntranceFactory
from mutauth_twisted.gateway.relay import HalfClosed, Relay
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.net.descriptors import raise_limit
from mutauth_twisted.net.draining import Live
from mutauth_twisted.net.plain import listen_on, parse_client
from mutauth_twisted.net.protocol import describe
from mutauth_twisted.settings.schema import Option, Where, sections


@implementer(IHalfCloseableProtocol)
class _Channel(Protocol):
    """The authenticated connection: what it brings goes to standard output."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()
        self._output: Any = None

    def attach(self, output: Any) -> None:
        """Start passing bytes to the standard output, no faster than it takes them."""
        self._output = output
        output.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        self._output.write(data)

    def readConnectionLost(self) -> None:
        """The service has ended the session: nothing waits for input that may never come."""
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """All is sent."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._output is not None:
            self._output.unregisterProducer()
        self.ended.callback(None if reason.check(ConnectionDone) else reason)


@implementer(IHalfCloseableProtocol)
class _Console(Protocol):
    """Standard input: what it brings goes into the channel, and its end ends our half of that."""

    def __init__(self, channel: _Channel) -> None:
        self._channel: Any = channel
        self.ended: Deferred[None] = Deferred()
        #: Whether standard input has ended.
        self.said_all = False

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self._channel.attach(transport)
        self._channel.transport.registerProducer(transport, True)

    def dataReceived(self, data: bytes) -> None:
        self._channel.transport.write(data)

    def readConnectionLost(self) -> None:
        self.said_all = True
        self._channel.transport.unregisterProducer()
        self._channel.transport.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        """Nobody reads standard output any more."""
        self._channel.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ended.called:
            self.ended.callback(None)


async def _through_stdio(reactor: Any, endpoint: IStreamClientEndpoint) -> None:
    channel: Any = await endpoint.connect(Factory.forProtocol(_Channel))
    console = _Console(channel)
    stdio = StandardIO(console, reactor=reactor)
    try:
        await channel.ended
        if not console.said_all:
            note(
                "the service has ended the session: it has no more data, or its --max-session or "
                "--idle-timeout is over, or its access was withdrawn"
            )
    except (MutualAuthError, CancelledError):
        raise
    except Exception as error:
        raise NetworkError(
            "the connection",
            str(error).rstrip("."),
            "the service's log may say why",
            code="network-failed",
        ) from error
    finally:
        stdio.loseConnection()
    await console.ended


def _report(failure: Failure) -> None:
    """Why a local connection leads nowhere; the next one may."""
    if not isinstance(failure.value, MutualAuthError):
        failure.raiseException()
    report(failure.value)


@frozen
class _Listening:
    """The options of ``--listen``."""

    where: str
    unsafe: bool
    drain_timeout: float
    half_closed_timeout: float


async def _through_port(reactor: Any, endpoint: IStreamClientEndpoint, options: _Listening) -> None:
    raise_limit()
    live: Live[Relay] = Live(reactor)
    patience, seconds = HalfClosed(reactor, options.half_closed_timeout), options.drain_timeout
    factory = EntranceFactory(endpoint, _report, live, patience)
    # Nothing is accepted before this function waits for something.
    port = await listen_on(reactor, options.where, factory)
    address = port.getHost()
    is_open = isinstance(address, IPv4Address | IPv6Address) and not is_local(address.host)
    if is_open and not options.unsafe:
        await port.stopListening()
        raise UsageError(
            f"--listen {options.where}",
            "other machines reach this port, and whoever does connects as you, in the clear",
            "add interface=127.0.0.1, or listen on a Unix socket; --unsafe-listen accepts the risk",
            code="listener-not-protected",
        )
    click.echo(f"mutauth: listening on {describe(address)}", err=True)
    if is_open:
        note("whoever reaches this port connects as you, in the clear (--unsafe-listen)")
    try:
        await Deferred()
    finally:
        await port.stopListening()
        if tuple(live):
            note(f"waiting up to {seconds:g} s for connections to end; interrupt again to cut them")
        await live.drain(seconds)


def _line(row: Option) -> str:
    """A keyword's line: what it is, and its default."""
    text = f"{row.text.rstrip('.')}; separated by commas." if row.kind.repeatable else row.text
    return f"{text} [default: {row.shown}]" if row.shown else text


class _Connect(click.Command):
    """Its help ends with the keywords of an endpoint string."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, rows in sections(Where.CLIENT).items():
            with formatter.section(title):
                formatter.write_dl([(f"{row.name}=", _line(row)) for row in rows])


@click.command(cls=_Connect)
@click.argument("endpoint")
@click.option(
    "--listen",
    metavar="STRPORT",
    help="Forward local connections instead, e.g. tcp:8080:interface=127.0.0.1.",
)
@click.option(
    "--drain-timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="With --listen: how long connections may go on after SIGTERM or Ctrl-C.",
)
@click.option(
    "--half-closed-timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    help="With --listen: cut a connection of which one side has ended and the other is silent.",
)
@click.option(
    "--unsafe-listen", is_flag=True, help="With --listen: accept plain clients of other machines."
)
@click.option("-v", "--verbose", is_flag=True, help="Show each step and what it authenticated.")
def connect(
    endpoint: str,
    listen: str | None,
    drain_timeout: float,
    half_closed_timeout: float,
    unsafe_listen: bool,
    verbose: bool,
) -> None:
    """Connect standard input and output to a service that authenticates itself.

    ENDPOINT is a Twisted client endpoint string, such as mutauth:scp=echoSvc
    or mutauth:tcp\\:srv1.example.com\\:9000:spn=echoSvc/srv1.example.com.
    """
    if not endpoint.startswith("mutauth:"):
        raise UsageError(
            f"endpoint {endpoint!r}",
            "it proves nothing",
            "write mutauth:scp=NAME or mutauth:ENDPOINT:spn=SPN",
        )
    begin_logging(verbose)
    listening = (
        _Listening(listen, unsafe_listen, drain_timeout, half_closed_timeout) if listen else None
    )

    async def main(reactor: Any) -> None:
        target = parse_client(reactor, endpoint)
        if (
            isinstance(target, MutualAuthClientEndpoint)
            and not target.package.authenticates_service
        ):
            note(f"package {target.package.name}: the service is NOT AUTHENTICATED")
        await (
            _through_port(reactor, target, listening)
            if listening is not None
            else _through_stdio(reactor, target)
        )

    run_in_reactor(main)
