"""A mutauth client and a mutauth service on asyncio: all that a driver has to do.

    python examples/asyncio_peer.py serve KEYTAB PATTERN
    python examples/asyncio_peer.py ask HOST PORT SPN TEXT

The service says on which port it listens, takes clients whose principal matches the pattern, and
answers in capital letters.  The client asks its one question and prints who answered what.

What is trusted, and when, is decided by :class:`mutauth_twisted.core.connection.Connection`; here
are only asyncio's streams, a thread for what may wait for a KDC, and a deadline.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.core.connection import Connection, Established, Event
from mutauth_twisted.core.context import SecurityContext, StepFailed
from mutauth_twisted.core.handshake import Failed, Send, Step
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.core.records import Data
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import AccessDenied, MutualAuthError
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.spn import SPN

SECURITY = SecurityOptions()
#: For how many seconds the other side may take to end its stream.
LINGER = 5.0


class Peer:
    """One side of a connection.

    :param streams: asyncio's reader and writer.
    :param initiator: whether this is the client's side.
    :param authorize: has the last word on the other side; raises AccessDenied.
    """

    identity: PeerIdentity

    def __init__(
        self,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        *,
        initiator: bool,
        authorize: Callable[[PeerIdentity], None] = lambda identity: None,
    ) -> None:
        self._reader, self._writer = streams
        self.name = "{}:{}".format(*self._writer.get_extra_info("peername"))
        self._connection = Connection(
            SECURITY, initiator=initiator, peer=self.name, authorize=authorize
        )

    async def authenticate(self, context: SecurityContext) -> None:
        """Have both sides authenticated.

        :raises MutualAuthError: why they are not.
        """
        self._connection.begin(context)
        try:
            async with asyncio.timeout(SECURITY.timeout):
                event = await self._next()
        except TimeoutError:
            self._connection.timed_out(SECURITY.timeout)
            event = await self._next()
        assert isinstance(event, Established), event
        self.identity = event.identity
        self._writer.write(event.opening)

    async def _next(self) -> Event | None:
        """The next event that is the application's business; None behind the last."""
        connection = self._connection
        while True:
            event = connection.next_event()
            if isinstance(event, Send):
                self._writer.write(event.data)
            elif isinstance(event, Step):
                try:
                    outcome = await asyncio.to_thread(connection.step, event.token)
                except StepFailed as failed:
                    connection.step_failed(failed.error, failed.token)
                else:
                    connection.stepped(outcome)
            elif isinstance(event, Failed):
                raise event.error
            elif event is not None or connection.over:
                return event
            elif data := await self._reader.read(1 << 16):
                connection.receive(data)
            else:
                connection.connection_lost()

    async def read(self) -> bytes:
        """The next bytes; none: the other side has ended its stream.

        :raises MutualAuthError: for a stream that was cut, or that is not the other side's.
        """
        event = await self._next()
        return event.data if isinstance(event, Data) else b""

    async def write(self, data: bytes) -> None:
        """Protect and send."""
        self._writer.writelines(self._connection.send(data))
        await self._writer.drain()

    async def end(self) -> None:
        """End this side's stream; the other side may go on."""
        self._writer.write(self._connection.send_end())
        self._writer.write_eof()
        await self._writer.drain()

    async def close(self) -> None:
        """Leave, behind all that was written."""
        self._writer.close()
        await self._writer.wait_closed()


async def ask(host: str, port: str, spn: str, text: str) -> None:
    """Ask a service one question."""
    peer = Peer(await asyncio.open_connection(host, int(port)), initiator=True)
    make = SECURITY.package.initiators(SPN.parse(spn), ClientCredentials(), SECURITY.protection)
    await peer.authenticate(make(peer.name, None))
    await peer.write(text.encode())
    await peer.end()
    answer = b""
    while data := await peer.read():
        answer += data
    await peer.close()
    print(f"{peer.identity.principal}: {answer.decode()}")


async def serve(keytab: str, pattern: str) -> None:
    """Serve until interrupted."""
    keys = SECURITY.package.acceptor_keys(ServiceCredentials(keytab))
    policy = AccessPolicy(allow=(pattern,))

    def authorize(identity: PeerIdentity) -> None:
        decision = policy.decide(identity.principal, identity.read_logon)
        if not decision.allowed:
            raise AccessDenied(identity.principal, decision.cause, decision.remedy)

    async def answer(*streams: asyncio.StreamReader | asyncio.StreamWriter) -> None:
        peer = Peer(streams, initiator=False, authorize=authorize)  # type: ignore[arg-type]
        try:
            await peer.authenticate(keys.acceptor(peer.name))
            print(f"serving {peer.identity.principal}", flush=True)
            while data := await peer.read():
                await peer.write(data.upper())
            await peer.end()
            async with asyncio.timeout(LINGER):
                await peer.read()
        except (MutualAuthError, ConnectionError, TimeoutError) as error:
            print(f"{peer.name}: {error}", flush=True)
        finally:
            await peer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    _, what, *arguments = sys.argv
    try:
        asyncio.run({"ask": ask, "serve": serve}[what](*arguments))  # type: ignore[operator]
    except MutualAuthError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass
