"""A client's Kerberos context on Windows: the logon session's tickets, SSPI, and pyspnego's public
API over it.

Written after the documentation of pyspnego and of Microsoft (InitializeSecurityContext
(Kerberos) and (Negotiate), EncryptMessage, SECPKG_ATTR_PACKAGE_INFO), and NOT YET RUN ON
WINDOWS: tests run it over GSSAPI, which pyspnego has behind the same API elsewhere.

pyspnego makes SSPI's target name of ``service/hostname``: a hostname that goes
on after the host, ``srv1.example.com:9000/CN=...``, makes an SPN of three parts.
Only on Windows: elsewhere see :mod:`mutauth_twisted.mechanisms.kerberos`.

What SSPI shows through it is less than GSSAPI does:

- No name of the service.  Windows asks the KDC for a ticket for the target name,
  and mutual authentication proves that the peer has that ticket's key: it is
  authenticated as the SPN that was asked for, of a realm that is not told.
- No end of the ticket: a session ends on the service's side.
- No size of signatures, which only wire *winsock* with protection *sign* needs:
  it is worked out from that of sealed records (RFC 4121 4.2.4, all of whose
  encryption types have a confounder of 16 bytes).  If Windows counts otherwise,
  such records are refused.

Package *negotiate* falls back on NTLM where there is no ticket, and pyspnego
cannot forbid it: no token with a message of NTLM in it leaves this file.
"""

from __future__ import annotations

import math
from typing import Final

import spnego
from spnego import ContextReq
from spnego.channel_bindings import GssChannelBindings
from spnego.exceptions import SpnegoError
from spnego.iov import BufferType

from mutauth_twisted.core.channelbinding import WITHOUT_TLS, ChannelBinding
from mutauth_twisted.core.context import Outcome
from mutauth_twisted.core.mechanism import Mechanism, NewContext
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.errors import (
    AuthenticationError,
    CredentialError,
    KDCRefused,
    KDCUnreachable,
    MutualAuthError,
    PeerNotAuthenticated,
    RecordError,
    UsageError,
)
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.kerberos.codes import Krb5
from mutauth_twisted.mechanisms import KERBEROS
from mutauth_twisted.mechanisms.pyspnego import PublicContext
from mutauth_twisted.mechanisms.verification import check_channel, check_flags
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.spn import SPN

#: MS-NLMP 2.2.1: how each of its messages starts.
_NTLM_MESSAGE: Final = b"NTLMSSP\0"
#: What a sealed record has and a signature has not: the confounder, and the header once more,
#: encrypted.
_SEALED_ONLY: Final = 16 + 16

# winerror.h
_TARGET_UNKNOWN: Final = 0x80090303
_NO_CREDENTIALS: Final = frozenset(
    (0x8009030C, 0x8009030E, 0x8009030D)
)  # LOGON_DENIED, NO_, UNKNOWN_CREDENTIALS
_NO_AUTHENTICATING_AUTHORITY: Final = 0x80090311
_TIME_SKEW: Final = 0x80090324


def _windows_code(error: Exception) -> int:
    """The code of Windows in an error of pyspnego's; 0: there is none."""
    native = error.base_error if isinstance(error, SpnegoError) else error
    return int(getattr(native, "winerror", None) or 0) & 0xFFFFFFFF


class SspiInitiator(PublicContext):
    """A client's context for one SPN, with the logon session's tickets.

    :param spn: the SPN whose key the service must have.
    :param protection: what is to be agreed on.
    :param package: whose tokens to send.
    :param channel: the TLS channel to bind to.
    """

    #: Windows may ask a KDC at any step: anew where the service no longer accepts the ticket.  The
    #: price: a service that says no and leaves may be seen to leave first.
    blocking = True

    def __init__(
        self,
        spn: SPN,
        protection: Protection,
        package: Mechanism = KERBEROS,
        channel: ChannelBinding | None = None,
    ) -> None:
        super().__init__(str(spn))
        self._spn = spn
        self._package = package
        self._channel = channel
        # As with KerberosInitiator: who may ignore the bindings must find nothing to read inside
        # TLS.
        self._sealed_inside = channel is not None and not channel.between_peers
        self._required = (Protection.SEAL if self._sealed_inside else protection).requested_flags
        self._answered = False

    def _open(self) -> spnego.ContextProxy:
        """Make pyspnego's object, at the first step, where waiting is allowed."""
        service, _, hostname = str(self._spn).partition("/")
        bindings = GssChannelBindings(
            application_data=(self._channel or WITHOUT_TLS).application_data
        )
        return spnego.client(
            hostname=hostname,
            service=service,
            channel_bindings=bindings,
            context_req=ContextReq(int(self._required)),
            protocol=self._package.name,
        )

    def _advance(self, token: bytes | None) -> Outcome:
        self._answered = token is not None
        if self._proxy is None:
            self._proxy = self._open()
        reply = self._proxy.step(token) or b""
        if _NTLM_MESSAGE in reply:
            raise PeerNotAuthenticated(
                self._subject,
                "Windows has no Kerberos ticket for it, and NTLM would not authenticate the "
                "service",
                "check that its SPN is registered, and that a domain account is logged on",
            )
        if not reply and not self._proxy.complete:
            # RFC 2743 2.2.1: who goes on has something to say.  GSSAPI's errors, late through
            # pyspnego, look like this.
            raise ValueError("neither a token nor the end")
        return Outcome(reply, self._proxy.complete)

    def _explain(self, error: Exception) -> MutualAuthError:
        code = _windows_code(error)
        if code == _TIME_SKEW:
            remedy = "set the clocks of both, and of the domain controllers, by NTP"
            return AuthenticationError(
                self._subject, "the clocks differ too much", remedy, code="clock-skew"
            )
        if self._answered:
            told = f" (0x{code:08X})" if code else ""
            cause = f"the service's token cannot be taken{told}"
            return PeerNotAuthenticated(
                self._subject, cause, "it was altered on the way, or the service refused the ticket"
            )
        if code == _TARGET_UNKNOWN:
            cause, remedy = "no account has this SPN", "check its spelling, or register it"
            number = Krb5.KDC_ERR_S_PRINCIPAL_UNKNOWN
            return KDCRefused(
                self._subject, cause, remedy, krb_error=number, code="service-unknown"
            )
        if code == _NO_AUTHENTICATING_AUTHORITY:
            return KDCUnreachable(
                self._subject, "no domain controller answers", "check the network and DNS"
            )
        if code in _NO_CREDENTIALS:
            cause, remedy = (
                "it has no Kerberos tickets to authenticate with",
                "log on with an account of the domain",
            )
            return CredentialError("the logon session", cause, remedy, code="ticket-missing")
        told = (
            f"error 0x{code:08X} of Windows"
            if code
            else f"an error of pyspnego's, {type(error).__name__}"
        )
        return AuthenticationError(
            self._subject,
            f"no handshake can start ({told})",
            "look into the system's event log",
            code="kerberos-failed",
        )

    def verify(self, protection: Protection) -> PeerIdentity:
        check_channel(self._subject, protection, self._channel)
        try:
            # Flags mean nothing before the end: a client's show what it has asked for.
            complete = (
                self._proxy is not None
                and self._proxy.complete
                and self._proxy.negotiated_protocol == KERBEROS.name
            )
            shown = int(self._proxy.context_attr) if complete else 0
        except Exception as error:
            raise AuthenticationError(
                self._subject,
                "Windows does not say how the handshake ended",
                code="kerberos-failed",
            ) from error
        if not complete:
            raise PeerNotAuthenticated(self._subject, "the handshake did not end with Kerberos")
        flags = Flag(shown & int(Protection.SEAL.requested_flags))
        required = protection.requested_flags | (
            Flag.CONFIDENTIALITY if self._sealed_inside else Flag(0)
        )
        check_flags(self._subject, flags, required, protection)
        if self._sealed_inside:
            protection = Protection.SEAL
        elif protection is not Protection.TLS:
            protection = Protection.SEAL if flags & Flag.CONFIDENTIALITY else Protection.SIGN
        # As a principal, in which a bare '@' would start the realm.
        principal = str(self._spn).replace("\\", "\\\\").replace("@", "\\@")
        mutauth = self._channel is not None and self._channel.between_peers
        return PeerIdentity(
            principal, self._spn, self._package.name, protection, flags, math.inf, mutauth=mutauth
        )

    def _spent(self, error: Exception) -> AuthenticationError:
        code = _windows_code(error)
        told = f" (0x{code:08X})" if code else ""
        return AuthenticationError(
            self._subject,
            f"the session protects no further record{told}",
            "connect again",
            code="session-ended",
        )

    def _not_next(self, error: Exception) -> RecordError:
        code = _windows_code(error)
        told = f" (0x{code:08X})" if code else ""
        cause = f"record rejected: bad MAC, replayed or out of order{told}"
        return RecordError(self._subject, cause, "look for what stands between both sides")

    def wrap(self, data: bytes, *, seal: bool) -> bytes:
        try:
            wrapped = self._proxy.wrap(data, encrypt=seal)
        except Exception as error:
            raise self._spent(error) from error
        self._check_encrypted(wrapped.encrypted or not seal)
        return bytes(wrapped.data)

    def unwrap(self, body: bytes) -> tuple[bytes, bool]:
        try:
            result = self._proxy.unwrap(body)
        except Exception as error:  # any bytes can come in here, and raise anything
            raise self._not_next(error) from error
        return bytes(result.data), bool(result.encrypted)

    def wrap_apart(self, data: bytes, *, seal: bool) -> tuple[bytes, bytes]:
        try:
            if not seal:
                return bytes(self._proxy.sign(data)), data
            wrapped = self._proxy.wrap_iov([BufferType.header, data, BufferType.padding])
        except Exception as error:
            raise self._spent(error) from error
        self._check_encrypted(wrapped.encrypted)
        header, sealed, padding = (buffer.data or b"" for buffer in wrapped.buffers)
        return header, sealed + padding

    def unwrap_apart(self, trailer: bytes, data: bytes, *, seal: bool) -> tuple[bytes, bool]:
        try:
            if not seal:
                self._proxy.verify(data, trailer)
                return data, False
            result = self._proxy.unwrap_iov([(BufferType.header, trailer), data])
        except Exception as error:  # any bytes can come in here, and raise anything
            raise self._not_next(error) from error
        return result.buffers[1].data or b"", bool(result.encrypted)

    def _check_encrypted(self, encrypted: bool) -> None:
        if not encrypted:
            raise AuthenticationError(
                self._subject, "the security package did not encrypt", code="record-not-encrypted"
            )

    @property
    def signature_size(self) -> int:
        try:
            return int(self._proxy.query_message_sizes().header) - _SEALED_ONLY
        except Exception as error:
            cause, remedy = "Windows does not tell the size of its records' headers", "use wire nns"
            raise AuthenticationError(
                self._subject, cause, remedy, code="kerberos-failed"
            ) from error


CLIENT_CREDENTIALS = ClientCredentials


def initiators(
    package: Mechanism, spn: SPN, credentials: ClientCredentials, protection: Protection
) -> NewContext:
    """See :meth:`Mechanism.initiators`.

    :raises UsageError: for credentials, as Windows has those of who is logged on.
    """
    if credentials != ClientCredentials():
        cause = "Windows knows no principal, ccache or keytab: the client is who is logged on"
        raise UsageError(
            "the client's credentials", cause, "leave them out, and log on or use runas"
        )
    return lambda peer, channel: SspiInitiator(spn, protection, package, channel)
