"""The acceptor's word that it sees the TLS channel which the initiator sees.

A client puts the channel's bindings into its ticket's authenticator (RFC 4121
4.1.1.2), where the service finds them and insists on them: a relay that
terminates TLS has two channels, and cannot write the service's bindings into
the client's token.

Kerberos binds in this direction only.  A relay could still show the client's
token to another acceptor that has the service's key and insists on nothing,
and hand its answer to the client.  Between peers of this package the other
direction is therefore bound as well: the acceptor's last token comes with its
*confirmation*, a signature with the session's key over the channel it sees.
"""

from __future__ import annotations

import struct
from typing import Final

from mutauth_twisted.core.channelbinding import ChannelBinding
from mutauth_twisted.core.context import Outcome, SecurityContext, StepFailed
from mutauth_twisted.errors import MutualAuthError, PeerNotAuthenticated, ProtocolViolation
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.protection import Protection

_SIZE: Final = struct.Struct(">H")
# It names its signer: an initiator's words can never be handed back to it as an acceptor's.
_LABEL: Final = b"mutauth_twisted: confirmed by the acceptor\0"


class Confirming:
    """An acceptor's context that confirms the channel; see :class:`Authentication`.

    :param context: the context, which insists on the channel's bindings.
    :param channel: the channel as this side sees it.
    """

    def __init__(self, context: SecurityContext, channel: ChannelBinding) -> None:
        self._context = context
        self._statement = _LABEL + channel.application_data

    @property
    def blocking(self) -> bool:
        return self._context.blocking

    def step(self, token: bytes | None) -> Outcome:
        try:
            outcome = self._context.step(token)
            if not outcome.complete:
                return Outcome(_join(b"", outcome.token), False)
            signature, _ = self._context.wrap_apart(self._statement, seal=False)
            return Outcome(_join(signature, outcome.token), True)
        except StepFailed as failed:
            raise StepFailed(
                failed.error, _join(b"", failed.token) if failed.token else b""
            ) from failed
        except MutualAuthError as error:
            raise StepFailed(error) from error

    def verify(self, protection: Protection) -> PeerIdentity:
        return self._context.verify(protection)


class Confirmed:
    """An initiator's context that is complete only with the acceptor's confirmation; see
    :class:`Authentication`.

    :param context: the context, whose token carries the channel's bindings.
    :param channel: the channel as this side sees it.
    :param subject: the service as errors name it.
    """

    def __init__(self, context: SecurityContext, channel: ChannelBinding, subject: str) -> None:
        self._context = context
        self._statement = _LABEL + channel.application_data
        self._subject = subject
        self._complete = False

    @property
    def blocking(self) -> bool:
        return self._context.blocking

    def step(self, token: bytes | None) -> Outcome:
        if token is None:
            return self._context.step(None)
        confirmation, token = self._split(token)
        outcome = Outcome(b"", True) if self._complete else self._context.step(token)
        self._complete = outcome.complete
        # An initiator that has the last word is complete before the acceptor, whose confirmation is
        # still to come.
        if outcome.complete and outcome.token and not confirmation:
            return Outcome(outcome.token, False)
        if outcome.complete:
            self._verify(confirmation)
        return outcome

    def _verify(self, confirmation: bytes) -> None:
        try:
            self._context.unwrap_apart(confirmation, self._statement, seal=False)
        except MutualAuthError as error:
            cause = "the service has not confirmed this TLS channel"
            remedy = (
                "something between both sides terminates TLS: look for it, or use protection=seal"
            )
            reason = PeerNotAuthenticated(self._subject, cause, remedy)
            reason.__cause__ = error.with_traceback(None)
            raise StepFailed(reason) from error

    def verify(self, protection: Protection) -> PeerIdentity:
        return self._context.verify(protection)

    def _split(self, token: bytes) -> tuple[bytes, bytes]:
        end = (
            _SIZE.size + _SIZE.unpack_from(token)[0] if len(token) >= _SIZE.size else len(token) + 1
        )
        if end > len(token):
            raise StepFailed(
                ProtocolViolation(
                    self._subject, "the service's token has no room for a confirmation"
                )
            )
        return token[_SIZE.size : end], token[end:]


def _join(confirmation: bytes, token: bytes) -> bytes:
    return _SIZE.pack(len(confirmation)) + confirmation + token
