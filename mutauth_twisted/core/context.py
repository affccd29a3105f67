"""Interface between a security package and the handshake and records that use it."""

from __future__ import annotations

from typing import Protocol

from attrs import field, frozen

from mutauth_twisted.core.channelbinding import ChannelBinding
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.protection import Protection
from mutauth_twisted.wire import Wrapping


@frozen
class Outcome:
    """Result of one step of a security context.

    :param token: the token to send; may be empty.
    :param complete: whether the context needs no further token.
    """

    token: bytes = field(repr=False)
    complete: bool


class StepFailed(Exception):
    """A step failed.

    :ivar error: what went wrong, for people; where another error was at the
        bottom of it, GSSAPI's for one, that is its ``__cause__``.
    :ivar token: an error token for the peer; may be empty.
    """

    def __init__(self, error: MutualAuthError, token: bytes = b"") -> None:
        super().__init__(error)
        self.error = error
        self.token = token


class Authentication(Protocol):
    """One side of one handshake."""

    @property
    def blocking(self) -> bool:
        """True if the next step may wait for a KDC."""

    def step(self, token: bytes | None) -> Outcome:
        """Take the peer's token (None: we start).

        :raises StepFailed: whatever goes wrong.
        """

    def verify(self, protection: Protection) -> PeerIdentity:
        """Verify a complete context, and return the identity of the peer.

        :param protection: the least that is taken; the identity has what it came to.
        :raises PeerNotAuthenticated: when a flag or the package is missing, or the peer is another
            than asked for.
        :raises AuthenticationError: when the session is over already.
        """


class SecurityContext(Authentication, Wrapping, Protocol):
    """One side of one handshake, and afterwards its keys."""


class Keys(Protocol):
    """A service's own keys, whichever the package."""

    @property
    def accepts_replays(self) -> bool:
        """True where a copied request opens a session again, which the service says at its
        start.
        """

    @property
    def authenticates_service(self) -> bool:
        """True where clients know afterwards which service they have."""

    def check(self) -> None:
        """See whether they can be used now.

        :raises CredentialError: when they are missing or cannot be read.
        """

    def acceptor(self, peer: str, channel: ChannelBinding | None = None) -> SecurityContext:
        """A context for one connection.

        :param peer: how errors name the client.
        :param channel: the TLS channel that its proof has to be bound to.
        """
