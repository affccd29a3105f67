"""Identification of clients to a backend by RFC 1413.

The gateway dials its backend from a loopback address of its own and answers queries there: which
account is at the other end of a connection from that address.  So a server that knows nothing of
Kerberos, such as PostgreSQL with its method ``ident``, learns who its client is.

Only a backend gets an answer, only about a connection from the gateway to that backend, and only
while that connection lasts.  Nothing else that comes from the address is anybody's: any program of
this machine may dial from it.
"""

from __future__ import annotations

import re
from typing import Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from mutauth_twisted.errors import MutualAuthError, UsageError
from mutauth_twisted.gateway.backend import Introduction
from mutauth_twisted.gateway.forwarded import identity_not_forwardable
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.log import LimitedLog, Log
from mutauth_twisted.net.crowd import Crowd
from mutauth_twisted.text import printable

#: The port of RFC 1413, which servers ask at.
PORT: Final = 113
#: The longest user id, in bytes (RFC 1413, section 6); PostgreSQL cuts a longer one.
LONGEST: Final = 512
#: Seconds that a backend has to ask.
PATIENCE: Final = 10
#: Queries at once; each is a connection.
MOST_QUERIES: Final = 256
_QUERY: Final = re.compile(rb"[ \t]*([0-9]{1,5})[ \t]*,[ \t]*([0-9]{1,5})[ \t]*")
# MS-SAMR 3.1.1.6; and @, behind which the realm begins.
_NOT_IN_ACCOUNT: Final = frozenset('"/\\[]:;|=,+*?<>@')
_REALM: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)

_log = Log()


def user_id(identity: PeerIdentity) -> str:
    """The name under which a backend knows a client: ``account@REALM``.

    The account is that of the PAC: the name on a ticket is of the client's choice.

    :raises MutualAuthError: for a client whose name is unknown, or could be taken for another's.
    """
    logon, realm = identity.read_logon(), identity.realm
    if logon is None or not logon.name:
        cause = "its ticket has no PAC, which tells its account"
        raise identity_not_forwardable(identity.principal, cause)
    name, text = logon.name, f"{logon.name}@{realm}"
    cause = ""
    if name != name.strip() or printable(name) != name or _NOT_IN_ACCOUNT & set(name):
        cause = "its account's name has a character that an account's name cannot have"
    elif not _REALM.fullmatch(realm):
        cause = "its realm is not a DNS name"
    elif len(text.encode()) > LONGEST:
        cause = f"its name is longer than {LONGEST} bytes"
    if cause:
        raise identity_not_forwardable(identity.principal, cause)
    return text


class _Query(LineOnlyReceiver, TimeoutMixin):
    """One query, which is answered; then the connection is closed."""

    MAX_LENGTH = 64

    #: Any program of this machine may come from any address of loopback: all are one crowd.
    network = ""

    def __init__(self, answers: IdentFactory) -> None:
        self._answers = answers
        #: Whether the whole query has come.
        self.has_asked = False

    def connectionMade(self) -> None:
        self.setTimeout(PATIENCE)
        self._answers.queries.add(self)

    def drop(self) -> None:
        """End it now."""
        transport: Any = self.transport
        transport.abortConnection()

    def lineReceived(self, line: bytes) -> None:
        transport: Any = self.transport
        if not transport.disconnecting:
            self.has_asked = True
            if (match := _QUERY.fullmatch(line)) is not None:
                own, backends = int(match[1]), int(match[2])
                answer = self._answers.answer(transport.getPeer().host, own, backends)
                self.sendLine(f"{own} , {backends} : {answer}".encode())
            transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.setTimeout(None)
        self._answers.queries.discard(self)


class _Registered(Introduction):
    """A client whose name is told to whoever asks about its backend connection."""

    def __init__(self, factory: IdentFactory, name: str) -> None:
        self._factory = factory
        self._name = name
        self._key: tuple[str, int, int] | None = None

    def connected(self, backend: Any) -> bytes:
        """See :class:`Introduction`."""
        self._key = self._factory.add(backend.getHost(), backend.getPeer(), self._name)
        return b""

    def closed(self) -> None:
        """See :class:`Introduction`."""
        if self._key is not None:
            self._factory.remove(self._key)


def ident_endpoint(address: str, place: int | str = PORT) -> str:
    """The server endpoint string of the ident server at an address.

    :param place: its port, or the name of the socket that systemd passes.
    """
    if isinstance(place, str):
        return f"systemd:domain=INET:name={place}"
    return f"tcp:{place}:interface={address}"


class IdentFactory(Factory):
    """Answers the queries about one service's backend connections.

    :param reactor: provides IReactorTime.
    :param address: the loopback address that the backend is dialled from.
    :param place: the port at that address, or the name of the socket that systemd passes.
    :ivar endpoint: the server endpoint string to listen at.
    :ivar queries: those that are under way.
    """

    noisy = False

    def __init__(self, reactor: Any, address: str, place: int | str = PORT) -> None:
        self.address = address
        self.endpoint = ident_endpoint(address, place)
        self.queries: Crowd[_Query] = Crowd(MOST_QUERIES)
        # By the backend's address, and the ports here and there.
        self._names: dict[tuple[str, int, int], str] = {}
        self._unknown = LimitedLog(reactor, _log, "ident queries about no connection")

    def succeed(self, before: IdentFactory) -> None:
        """Answer at the place of another one, for its connections too as long as they last."""
        self._names = before._names

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """One query's connection; see IProtocolFactory."""
        return _Query(self)

    def check(self, listening: IAddress) -> None:
        """See that the backend's questions come to the place where this listens.

        :raises UsageError: when they do not.
        """
        host = getattr(listening, "host", None)
        if host != self.address:
            cause = f"the socket that systemd passes is at {host or listening}"
            remedy = f"write ListenStream={self.address}:{PORT} into its .socket unit"
            raise UsageError(f"ident-address {self.address}", cause, remedy)

    def introduce(self, client: Any) -> Introduction:
        """See :data:`~mutauth_twisted.gateway.backend.Introducer`."""
        return _Registered(self, user_id(client.peer_identity))

    def add(self, here: IAddress, there: IAddress, name: str) -> tuple[str, int, int]:
        """Tell a name from now on, until it is removed.

        :param here: the address of a backend connection on the gateway's side.
        :param there: the backend's.
        :return: what removes it.
        :raises MutualAuthError: when queries about the connection would not come here.
        """
        if not isinstance(here, IPv4Address) or here.host != self.address:
            raise MutualAuthError(
                f"backend {there}",
                f"it is not connected from {self.address}, where its queries are answered",
                "forward to a tcp: endpoint of a loopback address",
                code="identity-not-forwardable",
            )
        assert isinstance(there, IPv4Address)
        key = (there.host, here.port, there.port)
        self._names[key] = name
        return key

    def remove(self, key: tuple[str, int, int]) -> None:
        """Tell no longer who is at the other end of a connection."""
        self._names.pop(key, None)

    def answer(self, backend: str, own: int, backends: int) -> str:
        """The answer to a query (RFC 1413, section 4).

        :param backend: the address that asks.
        :param own: the port of the connection on the gateway's side.
        :param backends: its port on the side that asks.
        """
        if not (1 <= own <= 65535 and 1 <= backends <= 65535):
            return "ERROR : INVALID-PORT"
        name = self._names.get((backend, own, backends))
        if name is None:
            text = f"{backend} asks about port {own} of {self.address}, which is no client's"
            self._unknown.line("no client's port", backend, lambda: text)
            return "ERROR : NO-USER"
        # UNIX: the user id is a name, and not an opaque token.
        system = "UNIX" if name.isascii() else "UNIX,UTF-8"
        return f"USERID : {system} : {name}"
