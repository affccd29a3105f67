"""The identity of an authenticated peer."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen

from mutauth_twisted.access import Logon, no_logon
from mutauth_twisted.names import split_principal
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.spn import SPN


@frozen
class PeerIdentity:
    """Identity of the peer, as the finished handshake authenticated it.

    :param principal: on a server the client's ``user@REALM``, under whichever of
        the account's names it has come (:attr:`account` is what the account is);
        on a client the service's principal, that is, the SPN that was authenticated,
        ``spn@REALM`` (on Windows without the realm, which is not known there), and
        empty with a package that does not authenticate the service.
    :param spn: on a client, the SPN that was asked for and authenticated, or None with
        a package that does not authenticate the service; on a server None: one key stands for
        all SPNs of the account.
    :param package: the security package whose tokens authenticated it: ``kerberos`` or
        ``negotiate``, or ``ntlm-service-unproven``, which authenticates the client only.
    :param protection: what is done to every application byte.
    :param flags: the context's flags, all verified.
    :param expires: when the session's ticket ends, seconds since 1970, by the
        KDC's clock and without any tolerance; infinite without a ticket, and
        for a client on Windows, which is not told.
    :param claimed_spn: on a server, the SPN written on the client's ticket,
        ``class/host[/name]``.  Nothing protects it, so that it can tell a
        client's mistake and no more.
    :param mutauth: whether the peer is another mutauth peer, so that a stream
        that was cut is told apart from one that it ended.  A third-party peer's
        is known to be cut only where it ends in a record or before the first.
    :param read_logon: on a server, reads :attr:`account`, :attr:`sid` and :attr:`groups`.
    """

    principal: str
    spn: SPN | None
    package: str
    protection: Protection
    flags: Flag
    expires: float
    claimed_spn: str | None = field(default=None, eq=False)
    mutauth: bool = False
    read_logon: Callable[[], Logon | None] = field(default=no_logon, eq=False, repr=False)

    @property
    def account(self) -> str | None:
        """On a server, the client's account, ``DOMAIN\\sAMAccountName``, whichever of its names it
        came under.

        From the PAC of its verified ticket, read when asked for.  None where the ticket has no PAC,
        as those of other realms than Active Directory, and of clients that asked for none.

        :raises PeerNotAuthenticated: when the PAC cannot be read.
        """
        logon = self.read_logon()
        return logon.account if logon is not None else None

    @property
    def sid(self) -> str | None:
        """On a server, the SID of that account, which outlives its names; otherwise as
        :attr:`account`.
        """
        logon = self.read_logon()
        return logon.sid if logon is not None else None

    @property
    def groups(self) -> tuple[str, ...]:
        """On a server, the SIDs of that account's groups; otherwise as :attr:`account`, and empty
        instead of None.
        """
        logon = self.read_logon()
        return logon.groups if logon is not None else ()

    @property
    def realm(self) -> str:
        """The realm of the principal."""
        return split_principal(self.principal)[1]
