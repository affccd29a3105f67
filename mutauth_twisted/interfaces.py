"""What the package promises to applications."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen
from twisted.internet.interfaces import ITransport
from zope.interface import Attribute, Interface

from mutauth_twisted.policy import Flag, Protection, split_principal
from mutauth_twisted.spn import SPN


@frozen
class PeerIdentity:
    """Who is at the other end, as the finished exchange proved it.

    :param principal: on a server the client's ``user@REALM``; on a client the
        service's principal, that is, the SPN that was proven, ``spn@REALM``.
    :param spn: on a client, the SPN that was asked for and proven; on a
        server None: one key stands for all SPNs of the account.
    :param package: the security package, ``kerberos``.
    :param protection: what is done to every application byte.
    :param flags: the context's flags, all judged.
    :param expires: when the session's ticket ends, seconds since 1970.
    :param claimed_spn: on a server, the SPN written on the client's ticket,
        ``class/host[/name]``.  Nothing protects it, so that it can tell a
        client's mistake and no more.
    :param read_groups: on a server, reads :attr:`groups`.
    """

    principal: str
    spn: SPN | None
    package: str
    protection: Protection
    flags: Flag
    expires: float
    claimed_spn: str | None = field(default=None, eq=False)
    read_groups: Callable[[], tuple[str, ...]] = field(default=tuple, eq=False, repr=False)

    @property
    def groups(self) -> tuple[str, ...]:
        """On a server, the SIDs of the client's groups, from the PAC of its verified ticket; read when asked for.

        Empty where the ticket has no PAC, as those of other realms than Active Directory.

        :raises PeerNotProven: when the PAC cannot be read.
        """
        return self.read_groups()

    @property
    def realm(self) -> str:
        """The realm of the principal."""
        return split_principal(self.principal)[1]


class IMutualAuthTransport(ITransport):
    """The transport an application protocol gets: both sides are proven.

    Every write is sealed (or signed) and every delivered byte was verified.
    """

    peer_identity: PeerIdentity = Attribute("The :class:`PeerIdentity` of the other side.")

    def loseWriteConnection() -> None:
        """End our half of the stream; see ITCPTransport.loseWriteConnection."""

    def setTcpNoDelay(enabled: bool) -> None:
        """Send small writes at once, or not; see ITCPTransport.  Does nothing where there is no TCP."""

    def getTcpNoDelay() -> bool:
        """Whether small writes are sent at once."""

    def setTcpKeepAlive(enabled: bool) -> None:
        """Have TCP look after a silent connection, or not; see ITCPTransport.  Does nothing where there is no TCP."""

    def getTcpKeepAlive() -> bool:
        """Whether TCP looks after a silent connection."""


class ISessionEnding(Interface):
    """An application protocol that wants to know beforehand when a service's limits will end its session."""

    def sessionEnding(seconds: float) -> None:
        """The session will be ended in so many seconds; new work belongs into a new one."""
