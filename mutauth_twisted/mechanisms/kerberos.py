"""Kerberos security contexts over GSSAPI (RFC 2743, RFC 4121; RFC 4178 around them).

GSSAPI is called by python-gssapi's low-level functions: they take SPNs of three parts, credentials
of this side's own and channel bindings, raise errors at once and with the token for the peer, and
log nothing.

``tests/unit/mechanisms/test_kerberos.py`` fails when a release of python-gssapi changes any of it.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Any

import gssapi
from gssapi.raw import (
    IOV,
    ChannelBindings,
    IOVBufferType,
    accept_sec_context,
    display_name,
    get_mic,
    get_name_attribute,
    init_sec_context,
    inquire_context,
    set_cred_option,
    set_neg_mechs,
    unwrap,
    unwrap_iov,
    verify_mic,
    wrap,
    wrap_iov,
    wrap_iov_length,
)
from gssapi.raw import (
    SecurityContext as SecurityContextHandle,
)
from gssapi.raw.exceptions import (
    BadChannelBindingsError,
    ExpiredCredentialsError,
    OperationUnavailableError,
)
from gssapi.raw.misc import GSSError

from mutauth_twisted.access import Logon
from mutauth_twisted.core.channelbinding import WITHOUT_TLS, ChannelBinding
from mutauth_twisted.core.context import Outcome, StepFailed
from mutauth_twisted.core.mechanism import Mechanism, NewContext
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import (
    AuthenticationError,
    CredentialError,
    KDCError,
    KDCRefused,
    MutualAuthError,
    PeerNotAuthenticated,
    PeerRefused,
    ProtocolViolation,
    RecordError,
    ToldByTicket,
)
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.kerberos.ap_req import (
    Excessive,
    carries_answer,
    has_mech_list_mic,
    is_spnego,
    ticket_label,
)
from mutauth_twisted.kerberos.enctypes import AES_TYPES, check_keys, check_request, check_session
from mutauth_twisted.kerberos.errors import (
    AES_FOR_ACCOUNT,
    TicketLabel,
    explain,
    kind_name,
    record_fault,
)
from mutauth_twisted.kerberos.keytab import ServiceKeytab
from mutauth_twisted.kerberos.lucid import SEQUENCE_MASK, LucidContext, read_lucid
from mutauth_twisted.kerberos.pac import read_logon
from mutauth_twisted.kerberos.refusals import Acceptor, explain_token
from mutauth_twisted.kerberos.tickets import NO_CI_FLAGS, tickets_for
from mutauth_twisted.mechanisms import KERBEROS, NEGOTIATE
from mutauth_twisted.mechanisms.verification import check_channel, check_flags
from mutauth_twisted.names import fold_ascii, split_principal
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.text import short_name

_KERBEROS_OID = gssapi.MechType.kerberos
#: RFC 4178 3.
_SPNEGO_OID = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")
#: RFC 2744 3.9.1: GSS_S_CREDENTIALS_EXPIRED.
_CREDENTIALS_EXPIRED = 0x000B0000
#: RFC 4757 7.1: GSS_C_DCE_STYLE, with which requests and answers come without GSSAPI's framing.
_DCE_STYLE = 0x1000
_WITHOUT_DCE_STYLE = "have the client leave out GSS_C_DCE_STYLE (ISC_REQ_USE_DCE_STYLE)"
_AS_IN_RFC_4120 = (
    "its Kerberos must send DER in GSSAPI's framing (RFC 4120 5.1, RFC 4121 4.1): "
    f"{_WITHOUT_DCE_STYLE}"
)
#: RFC 4121 4.1: the token identifier of a KRB-ERROR behind the mechanism's OID, and where it ends
#: at the latest, in a NegTokenResp with state and mechanism before it (RFC 4178 4.2.2).
_KRB_ERROR_AT_MOST = 56
_KRB_ERROR_HEADER = b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\x03\x00"
#: RFC 4121 4.2.6: what messages start with; their sequence number is in bytes 8 to 15, which the
#: rotation leaves alone.
_WRAP_TOKEN = b"\x05\x04"
_MIC_TOKEN = b"\x04\x04"
_HEADER_SIZE = 16

#: RFC 6680: where MIT puts two parts of a verified PAC.
_LOGON_INFORMATION = b"urn:mspac:logon-info"
_UPN_INFORMATION = b"urn:mspac:upn-dns-info"

# As plain numbers: enum arithmetic takes as long as the rest of the verification.
_ALL_FLAGS = sum(Flag)
_REQUIRED = {protection: int(protection.required_flags) for protection in Protection}


def kerberos_name(spn: SPN) -> gssapi.Name:
    """The SPN as a Kerberos principal name; its parts may hold what the text form of a principal
    must escape.
    """
    # RFC 1964 2.1.1: '@' starts the realm and '\\' escapes, unless escaped.
    text = str(spn).replace("\\", "\\\\").replace("@", "\\@")
    return gssapi.Name(text, gssapi.NameType.kerberos_principal)


class _KerberosContext:
    """Context of either side: GSSAPI's, and its records."""

    def __init__(self, subject: str, channel: ChannelBinding | None) -> None:
        self._subject = subject
        self._channel = channel
        #: GSSAPI's own context; before the first step one that is good for nothing.
        self._context: Any = SecurityContextHandle()
        self._signature_size: int | None = None
        #: Set when the context is complete.
        self._lucid: LucidContext | None = None
        #: The sequence number of the peer's next message; of no meaning before the context is
        #: complete.
        self._expected = 0
        self._signed_list = False
        self.blocking = False

    def _advance(self, token: bytes | None) -> Outcome:
        """Take the step; raises anything."""
        raise AssertionError("a subclass takes the step")

    @property
    def _bindings(self) -> ChannelBindings:
        return ChannelBindings(application_data=(self._channel or WITHOUT_TLS).application_data)

    def step(self, token: bytes | None) -> Outcome:
        try:
            outcome = self._advance(token)
            # A token of ours and no token of the peer's, which an attacker could have put something
            # into.
            self._signed_list = self._signed_list or has_mech_list_mic(outcome.token)
            if outcome.complete:
                self._complete()
            return outcome
        except MutualAuthError as error:
            raise StepFailed(error) from error
        except Exception as error:  # a hostile token can raise anything, ValueError included
            reason = self._explain(error, token)
            # For who gets the error and not the StepFailed around it; its frames would keep this
            # context alive.
            reason.__cause__ = error.with_traceback(None)
            raise StepFailed(reason, getattr(error, "token", None) or b"") from error

    def _complete(self) -> None:
        """Read what the context says of itself, now that it is complete.

        :raises AuthenticationError: when a key of it is not AES.
        :raises ExpiredCredentialsError: when the ticket has ended, which MIT takes for as long
            again as clocks may differ.
        """
        lucid = self._lucid = read_lucid(self._context)
        # Where SPNEGO's list of mechanisms is signed, both sides have done so (RFC 4178 5): with
        # their first number.
        self._expected = (lucid.recv_seq + self._signed_list) & SEQUENCE_MASK
        check_keys(lucid, self._subject)
        if lucid.endtime <= time.time():
            raise ExpiredCredentialsError(_CREDENTIALS_EXPIRED, 0)

    def _explain(self, error: BaseException, token: bytes | None) -> MutualAuthError:
        return explain(error, self._subject)

    def _peer_name(self, inquired: Any) -> Any:
        """The peer's name, as GSSAPI has it, from what it said of the context."""
        raise AssertionError("a subclass knows which name is the peer's")

    def _verify_context(
        self, protection: Protection, *, target_name: bool
    ) -> tuple[str, Protection, Flag, float]:
        """The peer's name, what protection it came to, the flags, all there, and the end of the
        ticket.
        """
        check_channel(self._subject, protection, self._channel)
        inquired: Any
        lucid = self._lucid
        try:
            inquired = inquire_context(
                self._context, initiator_name=False, target_name=target_name, lifetime=False
            )
            if lucid is None or inquired.mech != _KERBEROS_OID or not inquired.complete:
                raise PeerNotAuthenticated(self._subject, "the handshake did not end with Kerberos")
            # GSSAPI hands out the terminating NUL of some names.
            name = display_name(self._peer_name(inquired), False).name.rstrip(b"\0").decode()
        except (GSSError, UnicodeDecodeError) as error:  # a ticket can end between two steps
            raise explain(error, self._subject) from error
        flags = int(inquired.flags) & _ALL_FLAGS
        check_flags(self._subject, flags, _REQUIRED[protection], protection)
        if protection is not Protection.TLS:
            protection = Protection.SEAL if flags & Flag.CONFIDENTIALITY else Protection.SIGN
        elif not target_name and not flags & Flag.CHANNEL_BOUND:
            raise PeerNotAuthenticated(
                self._subject,
                "its ticket is not bound to this TLS channel",
                "look for what terminates TLS between both sides; a third-party client must send "
                "its bindings",
                code="tls-channel-mismatch",
            )
        return name, protection, Flag(flags), float(lucid.endtime)

    def wrap(self, data: bytes, *, seal: bool) -> bytes:
        try:
            wrapped = wrap(self._context, data, seal)
        except GSSError as error:
            raise self._spent(error) from error
        self._check_encrypted(wrapped.encrypted or not seal)
        return wrapped.message

    def unwrap(self, body: bytes) -> tuple[bytes, bool]:
        header = body[:_HEADER_SIZE]  # MIT before 1.22 writes into what it verifies
        try:
            result = unwrap(self._context, body)
        except Exception as error:  # any bytes can come in here, and raise anything
            raise self._not_next(error) from error
        self._check_number(header, _WRAP_TOKEN)
        return result.message, result.encrypted

    def wrap_apart(self, data: bytes, *, seal: bool) -> tuple[bytes, bytes]:
        try:
            if not seal:
                return get_mic(self._context, data), data
            parts = IOV(IOVBufferType.header, data, IOVBufferType.padding, std_layout=False)
            encrypted = wrap_iov(self._context, parts)
        except GSSError as error:
            raise self._spent(error) from error
        self._check_encrypted(encrypted)
        header, sealed, padding = (part.value or b"" for part in parts)
        return header, sealed + padding

    def unwrap_apart(self, trailer: bytes, data: bytes, *, seal: bool) -> tuple[bytes, bool]:
        header, encrypted = trailer[:_HEADER_SIZE], False
        try:
            if not seal:
                verify_mic(self._context, data, trailer)
            else:
                parts = IOV((IOVBufferType.header, False, trailer), data, std_layout=False)
                encrypted = unwrap_iov(self._context, parts).encrypted
                data = parts[1].value or b""
        except Exception as error:  # any bytes can come in here, and raise anything
            raise self._not_next(error) from error
        self._check_number(header, _WRAP_TOKEN if seal else _MIC_TOKEN)
        return data, encrypted

    def _check_encrypted(self, encrypted: bool) -> None:
        if not encrypted:
            remedy = "use MIT krb5 1.18 or later, and a python-gssapi built against it"
            raise AuthenticationError(
                self._subject,
                "the Kerberos library did not encrypt a record",
                remedy,
                code="record-not-encrypted",
            )

    def _check_number(self, header: bytes, kind: bytes) -> None:
        """See that a verified message is the peer's next one (RFC 4121 4.2.6).

        MIT does so only for the flags of replay and sequence detection, which the initiator alone
        chooses.

        :raises RecordError: when it is another one, or a message of RFC 1964.
        """
        number = int.from_bytes(header[8:], "big")
        if header[:2] != kind or number != self._expected:
            ahead = (number - self._expected) & SEQUENCE_MASK <= SEQUENCE_MASK >> 1
            fault = "a message is missing" if ahead else "a message came twice, or out of order"
            raise self._rejected(fault if header[:2] == kind else "it is not a message of RFC 4121")
        self._expected = (number + 1) & SEQUENCE_MASK

    def _spent(self, error: Exception) -> MutualAuthError:
        return explain(error, self._subject)

    def _not_next(self, error: Exception) -> RecordError:
        return self._rejected(record_fault(error))

    def _rejected(self, fault: str) -> RecordError:
        cause = f"record rejected: {fault}"
        return RecordError(self._subject, cause, "look for what stands between both sides")

    @property
    def signature_size(self) -> int:
        if self._signature_size is None:
            # A signature has the size of a wrap token's header without confidentiality (RFC 4121
            # 4.2.6); to make one would take a sequence number.
            sizes = IOV(IOVBufferType.header, b"", std_layout=False)
            wrap_iov_length(self._context, sizes, False)
            self._signature_size = len(sizes[0].value or b"")
        return self._signature_size


class KerberosInitiator(_KerberosContext):
    """A client's context for one SPN.

    :param spn: the SPN whose key the service must have.
    :param credentials: where the client's ticket comes from.
    :param protection: what is to be agreed on.
    :param package: whose tokens to send.
    :param channel: the TLS channel to bind to.
    """

    def __init__(
        self,
        spn: SPN,
        credentials: ClientCredentials,
        protection: Protection,
        package: Mechanism = KERBEROS,
        channel: ChannelBinding | None = None,
    ) -> None:
        super().__init__(str(spn), channel)
        self._spn = spn
        self._tickets = tickets_for(credentials)
        # Who is not of this package may ignore the bindings: TLS may then end at a relay, which
        # must find nothing to read.
        self._sealed_inside = channel is not None and not channel.between_peers
        self._request = int(
            (Protection.SEAL if self._sealed_inside else protection).requested_flags
        )
        self._package = package
        self._name = kerberos_name(spn)
        self._mechanism = _KERBEROS_OID if package is KERBEROS else _SPNEGO_OID
        self._credential: gssapi.Credentials | None = None
        self.blocking = True

    def _acquire(self) -> gssapi.Credentials:
        """The credentials, at the first step, where waiting is allowed."""
        credential = self._tickets.acquire(self._mechanism, self._name)
        if self._mechanism == _SPNEGO_OID:
            set_neg_mechs(credential, [_KERBEROS_OID])
        set_cred_option(NO_CI_FLAGS, credential)
        return credential

    def _advance(self, token: bytes | None) -> Outcome:
        if self._credential is None:
            self._credential = self._acquire()
        stepped = init_sec_context(
            self._name,
            self._credential,
            self._context,
            self._mechanism,
            self._request,
            channel_bindings=self._bindings,
            input_token=token,
        )
        self._context = stepped.context
        reply = stepped.token or b""
        if token is None:
            try:
                check_request(reply, self._subject)
            except AuthenticationError:
                # The account may have been put right by the next connection.
                self._tickets.discard(self._name)
                raise
        return Outcome(reply, not stepped.more_steps)

    def step(self, token: bytes | None) -> Outcome:
        try:
            outcome = super().step(token)
        except StepFailed as failed:
            # What the KDC or the service no longer accepts must not be kept until it ends.  What
            # comes with a token is the word of whoever listens, and about this service's ticket at
            # most.
            error = failed.error
            refused = isinstance(error, CredentialError) or (
                isinstance(error, KDCRefused) and not error.of_service
            )
            if token is not None and (refused or isinstance(error, PeerRefused)):
                self._tickets.discard(self._name)
            elif (
                refused and self._credential is not None
            ):  # without one there was no ticket to begin with
                self._tickets.discard()
            raise
        # Only the first step fetches a ticket; what follows is arithmetic.
        self.blocking = False
        return outcome

    def _explain(self, error: BaseException, token: bytes | None) -> MutualAuthError:
        reason = super()._explain(error, token)
        told = token is not None and _KRB_ERROR_HEADER in token[:_KRB_ERROR_AT_MOST]
        if told or (
            token is not None and isinstance(reason, KDCError)
        ):  # a service may say what only a KDC should
            return PeerRefused(
                self._subject, f"the service refused the ticket: {reason.cause}", reason.remedy
            )
        if token is not None and type(reason) is AuthenticationError:
            cause = f"the service's token cannot be taken ({reason.cause})"
            return PeerNotAuthenticated(
                self._subject, cause, "it was altered on the way, or comes from another service"
            )
        return reason

    def _peer_name(self, inquired: Any) -> Any:
        return inquired.target_name

    def verify(self, protection: Protection) -> PeerIdentity:
        principal, reached, flags, expires = self._verify_context(protection, target_name=True)
        named = re.sub(r"\\(.)", r"\1", split_principal(principal)[0])
        if fold_ascii(named) != fold_ascii(str(self._spn)):
            raise PeerNotAuthenticated(
                self._subject,
                f"the ticket names {short_name(named)} instead",
                code="service-differs",
            )
        if self._sealed_inside:
            # Whether TLS ends with the service only the service knows: what can be said is what its
            # key seals.
            reached = Protection.SEAL
            if not flags & Flag.CONFIDENTIALITY:
                raise PeerNotAuthenticated(
                    self._subject, "it is not of this package, and does not seal inside TLS"
                )
        mutauth = self._channel is not None and self._channel.between_peers
        return PeerIdentity(
            principal, self._spn, self._package.name, reached, flags, expires, mutauth=mutauth
        )


class KerberosAcceptor(_KerberosContext):
    """A service's context for one connection; made by :class:`ServiceKeys`."""

    def __init__(self, keys: ServiceKeys, subject: str, channel: ChannelBinding | None) -> None:
        super().__init__(subject, channel)
        self._keys = keys
        self._started = False
        #: The client's name, when the context is complete.
        self._initiator: Any = None
        self._package: Mechanism | None = None
        #: What the request in the token at hand says of itself, and what that said which was
        #: accepted.
        self._shown: TicketLabel | None = None
        self._label: TicketLabel | None = None
        self._logon: Logon | None = None

    def _advance(self, token: bytes | None) -> Outcome:
        if token is None:
            raise ValueError("a client starts")
        keytab = self._keys.keytab
        keytab.check_file()
        try:
            accepted = accept_sec_context(token, keytab.acquired, self._context, self._bindings)
        except BadChannelBindingsError:
            if self._channel is not None or self._started:
                raise
            # A third-party client with bindings of its own, or one that asserts to know of bindings
            # (MS-KILE 3.2.5.8) and has none: without TLS that is its own business.  The replay
            # cache has seen this token, and would refuse it.
            accepted = accept_sec_context(token, keytab.acquired_again, SecurityContextHandle())
        self._started = True
        self._context, self._initiator = accepted.context, accepted.initiator_name
        if int(accepted.flags) & _DCE_STYLE:  # known when the context is complete
            raise ProtocolViolation(
                self._subject, "it asks for the three legs of DCE RPC", _WITHOUT_DCE_STYLE
            )
        reply = accepted.token or b""
        # Only the token that GSSAPI has answered: SPNEGO's first and last may hold others, at which
        # nobody looks.
        if self._label is None and carries_answer(reply):
            self._label = self._shown
            self._check_types()
        return Outcome(reply, not accepted.more_steps)

    def step(self, token: bytes | None) -> Outcome:
        self._shown = None
        if token and self._label is None:
            try:
                self._shown = ticket_label(token)
            except Excessive as error:  # it would cost GSSAPI a millisecond and more
                raise StepFailed(
                    ProtocolViolation(
                        self._subject, f"its token cannot be read: {error}", code="token-unreadable"
                    )
                ) from error
            except ValueError:  # GSSAPI says what it is
                pass
        outcome = super().step(token)
        if token and self._package is None:
            self._package = NEGOTIATE if is_spnego(token) else KERBEROS
        return outcome

    def _check_types(self) -> TicketLabel:
        """See that ticket and session key are AES, and return what was accepted says of itself.

        :raises AuthenticationError: when one of them is not.
        :raises ProtocolViolation: when it cannot be told.
        """
        label = self._label
        if label is None:
            raise ProtocolViolation(
                self._subject,
                "its request cannot be read",
                _AS_IN_RFC_4120,
                code="token-unreadable",
            )
        if label.kind not in AES_TYPES:
            what = f"its ticket for {short_name(label.name)}"
            cause = f"{what} is encrypted with {kind_name(label.kind)}, and only AES is accepted"
            raise ToldByTicket(self._subject, cause, AES_FOR_ACCOUNT, code="weak-encryption")
        check_session(label.session, self._subject)
        return label

    def _explain(self, error: BaseException, token: bytes | None) -> MutualAuthError:
        label = None
        with suppress(ValueError):  # then it is not an AP-REQ, which the error says already
            label = ticket_label(token or b"")
        own = self._keys.credentials
        acceptor = Acceptor(own.keytab, label, own.principal, self._keys.negotiates)
        return explain_token(error, self._subject, acceptor)

    def _peer_name(self, inquired: Any) -> Any:
        # Not asked for again, as GSSAPI would make it anew, with all that its ticket says of it.
        return self._initiator

    def verify(self, protection: Protection) -> PeerIdentity:
        principal, reached, flags, expires = self._verify_context(protection, target_name=False)
        self._initiator = None
        # However it came to be complete: no session without a ticket that was read.
        label = self._check_types()
        self._check_class(label)
        package = self._package or KERBEROS
        mutauth = bool(flags & Flag.CHANNEL_BOUND) and (self._channel or WITHOUT_TLS).between_peers
        if self._channel is None:
            flags &= ~Flag.CHANNEL_BOUND  # there is no channel
        return PeerIdentity(
            principal,
            None,
            package.name,
            reached,
            flags,
            expires,
            label.name,
            mutauth,
            read_logon=self.read_logon,
        )

    def _check_class(self, label: TicketLabel) -> None:
        wanted, claimed = self._keys.service_class, label.name
        if wanted is not None and fold_ascii(claimed.partition("/")[0]) != fold_ascii(wanted):
            cause = f"its ticket is for {short_name(claimed)}, not for {wanted}"
            raise PeerNotAuthenticated(
                self._subject,
                cause,
                "connect it to the intended service",
                code="service-differs",
            )

    def read_logon(self) -> Logon | None:
        """See :attr:`PeerIdentity.account`."""
        if self._logon is None:
            self._logon = self._read_logon()
        return self._logon

    def _read_logon(self) -> Logon | None:
        name: Any = inquire_context(self._context, target_name=False).initiator_name
        logon_information = self._read_pac(name, _LOGON_INFORMATION)
        if not logon_information:
            return None
        try:
            return read_logon(logon_information, self._read_pac(name, _UPN_INFORMATION))
        except ValueError as error:
            cause = f"the PAC of its ticket cannot be read: {error}"
            raise PeerNotAuthenticated(
                self._subject,
                cause,
                "allow all accounts of its realm, *@REALM, to do without",
                code="pac-unusable",
            ) from error

    def _read_pac(self, name: Any, part: bytes) -> bytes:
        """One part of the verified PAC; empty when there is none."""
        try:
            found = get_name_attribute(name, part)
        except OperationUnavailableError:
            return b""
        except GSSError as error:
            raise explain(error, self._subject) from error
        if not found.authenticated:
            raise PeerNotAuthenticated(
                self._subject,
                "the PAC of its ticket is not vouched for",
                "check the domain controllers",
                code="pac-unusable",
            )
        return b"".join(found.values)


class ServiceKeys:
    """A service's own keys, from which it makes a context for each connection.

    :param credentials: the keytab and the principal in it.
    :param service_class: first part of the SPN that a client's ticket has to
        name; None: any.  A guard against mix-ups and no proof: clients could
        write another name on a ticket for the same account.
    :param package: whose tokens to take; with NEGOTIATE Kerberos' own as well.
    :raises CredentialError: see :class:`~mutauth_twisted.kerberos.keytab.ServiceKeytab`.
    """

    authenticates_service = True

    def __init__(
        self,
        credentials: ServiceCredentials,
        service_class: str | None = None,
        package: Mechanism = KERBEROS,
    ) -> None:
        self.service_class = service_class
        self.credentials = credentials
        #: True where Kerberos is taken inside SPNEGO as well.
        self.negotiates = package is NEGOTIATE
        self.keytab = ServiceKeytab(
            credentials, [_KERBEROS_OID], [_SPNEGO_OID] if self.negotiates else []
        )

    @property
    def accepts_replays(self) -> bool:
        """See :class:`mutauth_twisted.core.context.Keys`."""
        return self.credentials.accept_replays

    def check(self) -> None:
        """Check that the keytab can be used now.

        :raises CredentialError: when it is missing, unreadable, or has no such key of AES.
        """
        self.keytab.check()

    def acceptor(self, peer: str, channel: ChannelBinding | None = None) -> KerberosAcceptor:
        """A context for one connection.

        :param peer: how errors name the client.
        :param channel: the TLS channel that its ticket has to be bound to.
        """
        return KerberosAcceptor(self, peer, channel)


CLIENT_CREDENTIALS = ClientCredentials
SERVICE_CREDENTIALS = ServiceCredentials


def initiators(
    package: Mechanism, spn: SPN, credentials: ClientCredentials, protection: Protection
) -> NewContext:
    """See :meth:`Mechanism.initiators`."""
    return lambda peer, channel: KerberosInitiator(spn, credentials, protection, package, channel)


def acceptor_keys(
    package: Mechanism, credentials: ServiceCredentials, service_class: str | None
) -> ServiceKeys:
    """See :meth:`Mechanism.acceptor_keys`."""
    return ServiceKeys(credentials, service_class, package)
