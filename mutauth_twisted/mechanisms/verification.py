"""Checks of a finished context that do not depend on its mechanism."""

from __future__ import annotations

from mutauth_twisted.core.channelbinding import ChannelBinding
from mutauth_twisted.errors import PeerNotAuthenticated
from mutauth_twisted.protection import Protection, flag_names


def check_channel(subject: str, protection: Protection, channel: ChannelBinding | None) -> None:
    """Check that a context is bound to a TLS channel where protection is by TLS, and only there.

    :raises PeerNotAuthenticated: otherwise.
    """
    if (protection is Protection.TLS) is (channel is None):
        cause = "the handshake is not bound to a TLS channel as it has to be"
        raise PeerNotAuthenticated(subject, cause, code="tls-channel-mismatch")


def check_flags(subject: str, flags: int, required: int, protection: Protection) -> None:
    """Check that a context has all flags without which no byte may flow.

    :param protection: what was asked for, for the remedy.
    :raises PeerNotAuthenticated: otherwise.
    """
    if missing := required & ~flags:
        cause = f"the handshake ended without {flag_names(missing)}"
        remedy = f"the peer must agree to all of them, and to protection {protection.value}"
        raise PeerNotAuthenticated(subject, cause, remedy, code="protection-not-agreed")
