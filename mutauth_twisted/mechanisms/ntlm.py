"""NTLM security contexts over pyspnego's public API (MS-NLMP): the client is authenticated, and
the service is not.

Three tokens: NEGOTIATE, CHALLENGE and AUTHENTICATE.  The client's response is
made with its password and the service's challenge; nothing that the service
sends tells the client who it is.  So no context of this package ever claims
:attr:`Flag.MUTUAL`, and a client's identity of the service is empty.

pyspnego takes whatever both sides' flags come to.  Here the AUTHENTICATE
message, the client's word on all of them, is read by both sides before it
counts, and has to name NTLMv2, session security of today, 128 bits, and a
message integrity code over all three tokens (MS-NLMP 3.1.5.1.2): without that
one, whoever is on the way could take flags out.

pyspnego's acceptor finds its users in the file that NTLM_USER_FILE names, and
in no other way: :class:`NtlmUsers` sets that variable, to one file for the
whole process.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import spnego
from attrs import field, frozen
from spnego import ContextReq, NegotiateOptions
from spnego.channel_bindings import GssChannelBindings

from mutauth_twisted.access import Logon
from mutauth_twisted.core.channelbinding import WITHOUT_TLS, ChannelBinding
from mutauth_twisted.core.context import Outcome
from mutauth_twisted.core.mechanism import Mechanism, NewContext
from mutauth_twisted.credentials import Credentials
from mutauth_twisted.errors import (
    AuthenticationError,
    CredentialError,
    MutualAuthError,
    PeerNotAuthenticated,
    RecordError,
    UsageError,
)
from mutauth_twisted.files import check_regular, read_file
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.mechanisms import NTLM
from mutauth_twisted.mechanisms.pyspnego import PublicContext
from mutauth_twisted.mechanisms.verification import check_flags
from mutauth_twisted.names import split_principal
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.spn import SPN

USERS_VARIABLE = "NTLM_USER_FILE"
#: MS-NLMP 2.2.2.9.1.
SIGNATURE_SIZE = 16

# MS-NLMP 2.2.1.3: signature, type, LmChallengeResponseFields, and length and offset of the
# NtChallengeResponse.
_AUTHENTICATE = struct.Struct("<8sI8xHxxI")
_FLAGS = struct.Struct("<60xI")
# Where the six fields' payloads are, and what is in front of the first: fixed parts, Version and
# MIC.
_OFFSETS = struct.Struct("<16xI4xI4xI4xI4xI4xI")
_PAYLOAD_AT = 88
# MS-NLMP 2.2.2.5.
_WEAKER_WITHOUT = {
    0x00080000: "extended session security",
    0x20000000: "a key of 128 bits",
    0x40000000: "a session key of its own",
}
# MS-NLMP 2.2.2.8 and 2.2.2.7: NTProofStr and the fixed part of NTLMv2_CLIENT_CHALLENGE, then
# AV_PAIRs.
_AV_PAIRS_AT = 16 + 28
_AV_PAIR = struct.Struct("<HH")
_AV_END, _AV_FLAGS, _AV_HAS_MIC, _AV_CHANNEL_BINDINGS = 0, 6, 2, 10

# In its response a client binds itself to nothing but the word that it is a mutauth one; NTProofStr
# authenticates it.
_BINDINGS = GssChannelBindings(application_data=WITHOUT_TLS.application_data)
# MS-NLMP 2.2.2.1, MsvAvChannelBindings: the MD5 of the bindings.
_HASH_OF_BINDINGS = hashlib.md5(_BINDINGS.pack(), usedforsecurity=False).digest()

# What no sAMAccountName may hold (MS-ADTS 3.1.1.6 and Windows' own dialogues), and '@'.
_NAME = re.compile(r'[^"/\\\[\]:;|=,+*?<>@]+')
_HASH = re.compile("[0-9A-Fa-f]{32}")


def _absolute(path: str) -> str:
    return os.path.abspath(path)


@frozen
class NtlmCredentials(Credentials):
    """The passwords of NTLM's users: a client's own, or all those whom a service knows.

    :param users: the path of a file in the format of NTLM_USER_FILE, which only
        its owner may read: lines of ``DOMAIN:user:password``, or as in smbpasswd,
        ``DOMAIN\\user:id:LM hash:NT hash:flags:time``.
    :param user: on a client, who of them to be, ``user@DOMAIN``; None: the first.
    """

    users: str = field(converter=_absolute)
    user: str | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> NtlmCredentials:
        """See :meth:`Credentials.from_options`."""
        return cls(options["ntlm-users"], options.get("principal"))


CLIENT_CREDENTIALS = SERVICE_CREDENTIALS = NtlmCredentials


def required_flags(protection: Protection) -> Flag:
    """The flags without which no byte may flow."""
    return protection.requested_flags & ~Flag.MUTUAL


@frozen
class _User:
    """One line of the file."""

    domain: str
    name: str
    credential: Any = field(repr=False)

    def is_called(self, domain: str, name: str) -> bool:
        # As pyspnego compares.
        return (self.domain.upper(), self.name.upper()) == (domain.upper(), name.upper())


def _read_users(path: str) -> tuple[_User, ...]:
    """The users of a file; see :class:`NtlmCredentials`.

    :raises CredentialError: when it cannot be read, others can read it, or has an invalid line.
    """
    subject = f"file {path} of NTLM users"
    try:
        text = read_file(path, private=True).decode()
    except OSError as error:
        if error.errno == errno.EPERM:
            cause = "others than its owner have access to its passwords"
            raise CredentialError(
                subject, cause, f"chmod 600 {path}", code="ntlm-users-invalid"
            ) from None
        raise CredentialError(
            subject,
            f"it cannot be read ({error.strerror})",
            "check the path and its owner",
            code="ntlm-users-invalid",
        ) from error
    except UnicodeDecodeError:
        # Without its cause, which quotes the file.
        raise CredentialError(
            subject, "it is not in UTF-8", "write it anew", code="ntlm-users-invalid"
        ) from None
    users: list[_User] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line:
            user = _read_line(line, f"line {number} of {subject}")
            if any(user.is_called(other.domain, other.name) for other in users):
                raise CredentialError(
                    f"line {number} of {subject}",
                    "its user has a line already",
                    "keep one of them",
                    code="ntlm-users-invalid",
                )
            users.append(user)
    if not users:
        raise CredentialError(
            subject,
            "it names no user",
            "add a line DOMAIN:user:password",
            code="ntlm-users-invalid",
        )
    return tuple(users)


def _read_line(line: str, subject: str) -> _User:
    """One user; no error quotes the line, wherever the password may be in it."""
    parts = line.split(":")
    if len(parts) == 3:
        domain, name, secret = parts
        usable = bool(secret)
    elif len(parts) == 6:
        domain, _, name = parts[0].partition("\\")
        secret = parts[3]
        usable = bool(_HASH.fullmatch(parts[2]) and _HASH.fullmatch(secret))
    else:
        usable, domain, name, secret = False, "", "", ""
    if not usable:
        cause = "it is neither DOMAIN:user:password nor a line of smbpasswd"
        raise CredentialError(
            subject,
            cause,
            "a password can neither be empty nor hold a colon: give its hash then",
            code="ntlm-users-invalid",
        )
    if not all(
        _NAME.fullmatch(part) and part.isprintable() and part == part.strip()
        for part in (domain, name)
    ):
        raise CredentialError(
            subject,
            "it names no user of a domain",
            "write LAB:alice:..., or LAB\\alice:...",
            code="ntlm-users-invalid",
        )
    called = f"{domain}\\{name}"
    credential = (
        spnego.Password(called, secret)
        if len(parts) == 3
        else spnego.NTLMHash(called, nt_hash=secret)
    )
    return _User(domain, name, credential)


def _check_authenticate(token: bytes) -> bool:
    """See that the client's last word, which the code in it protects, is one of today.

    :return: whether it says that the client is a mutauth one; true only once the response was
        verified.
    :raises ValueError: when it is not, or no AUTHENTICATE message; the text says why.
    """
    if len(token) < _FLAGS.size:
        raise ValueError("its token is not an AUTHENTICATE message of NTLM")
    signature, kind, size, at = _AUTHENTICATE.unpack_from(token)
    if signature != b"NTLMSSP\0" or kind != 3 or at + size > len(token):
        raise ValueError("its token is not an AUTHENTICATE message of NTLM")
    if size < _AV_PAIRS_AT:
        raise ValueError("its response is of NTLMv1, or anonymous")
    (flags,) = _FLAGS.unpack_from(token)
    for flag, without in _WEAKER_WITHOUT.items():
        if not flags & flag:
            raise ValueError(f"NTLM would do without {without}")
    pairs = token[at + _AV_PAIRS_AT : at + size]
    if not _announces_mic(pairs):
        raise ValueError("no code protects the tokens that were exchanged")
    # A payload where the code has to be would take its place, and pyspnego would have nothing to
    # compare.
    if len(token) < _PAYLOAD_AT or any(
        0 < offset < _PAYLOAD_AT for offset in _OFFSETS.unpack_from(token)
    ):
        raise ValueError("the code that protects the tokens is not there")
    return _av_value(pairs, _AV_CHANNEL_BINDINGS) == _HASH_OF_BINDINGS


def _announces_mic(pairs: bytes) -> bool:
    flags = _av_value(pairs, _AV_FLAGS)
    return len(flags) == 4 and bool(int.from_bytes(flags, "little") & _AV_HAS_MIC)


def _av_value(pairs: bytes, wanted: int) -> bytes:
    """The value of one of the response's pairs; empty when it is not there."""
    at = 0
    while at + _AV_PAIR.size <= len(pairs):
        kind, size = _AV_PAIR.unpack_from(pairs, at)
        at += _AV_PAIR.size
        if kind == _AV_END:
            break
        if kind == wanted:
            return pairs[at : at + size]
        at += size
    return b""


class _NtlmContext(PublicContext):
    """Context of either side."""

    #: Nothing blocks: the passwords are in a file.
    blocking = False

    def __init__(self, subject: str) -> None:
        super().__init__(subject)
        self._sealed = False
        self._broken = False

    def _verify_context(self, protection: Protection) -> tuple[Protection, Flag]:
        """Verify all flags but the one that is not to be had; return the protection reached, and
        the flags.
        """
        if protection is Protection.TLS:
            raise PeerNotAuthenticated(
                self._subject,
                "NTLM cannot insist on being bound to a TLS channel",
                "use protection=seal",
            )
        if self._proxy is None or not self._proxy.complete:
            raise PeerNotAuthenticated(self._subject, "the handshake did not end with NTLM")
        flags = Flag(
            int(self._proxy.context_attr) & int(Protection.SEAL.requested_flags & ~Flag.MUTUAL)
        )
        check_flags(self._subject, flags, required_flags(protection), protection)
        self._sealed = bool(flags & Flag.CONFIDENTIALITY)
        return Protection.SEAL if self._sealed else Protection.SIGN, flags

    def _protect(self, data: bytes, seal: bool) -> tuple[bytes, bytes]:
        try:
            if not seal:
                return self._proxy.sign(data), data
            sealed = self._proxy.wrap_winrm(data)
        except Exception as error:  # after 2**32 records: their numbers have 32 bits
            raise AuthenticationError(
                self._subject,
                "NTLM protects no further record",
                "connect again",
                code="session-ended",
            ) from error
        return sealed.header, sealed.data

    def _verify(self, signature: bytes, data: bytes, seal: bool) -> bytes:
        try:
            # After one failure the cipher is out of step, and must not come back into it by chance.
            if self._broken or len(signature) != SIGNATURE_SIZE:
                raise ValueError("there is no next record")
            if seal:
                return bytes(self._proxy.unwrap_winrm(signature, data))
            self._proxy.verify(data, signature)
        except Exception as error:  # any bytes can come in here, and raise anything
            self._broken = True
            cause = "record rejected: bad NTLM signature, replayed or out of order"
            raise RecordError(
                self._subject, cause, "look for what stands between both sides"
            ) from error
        return data

    # Records say nothing of how they are protected: what was agreed does.

    def wrap(self, data: bytes, *, seal: bool) -> bytes:
        return b"".join(self._protect(data, seal))

    def unwrap(self, body: bytes) -> tuple[bytes, bool]:
        return self._verify(
            body[:SIGNATURE_SIZE], body[SIGNATURE_SIZE:], self._sealed
        ), self._sealed

    signature_size = SIGNATURE_SIZE

    def wrap_apart(self, data: bytes, *, seal: bool) -> tuple[bytes, bytes]:
        return self._protect(data, seal)

    def unwrap_apart(self, trailer: bytes, data: bytes, *, seal: bool) -> tuple[bytes, bool]:
        return self._verify(trailer, data, seal), seal


class NtlmInitiator(_NtlmContext):
    """A client's context, for a service that is not authenticated.

    :param credentials: whose password.
    :param protection: what is to be agreed on.
    :param peer: how errors name the service.
    """

    def __init__(self, credentials: NtlmCredentials, protection: Protection, peer: str) -> None:
        super().__init__(peer)
        self._credentials = credentials
        self._request = ContextReq(int(required_flags(protection)))

    def _user(self) -> _User:
        users, wanted = _read_users(self._credentials.users), self._credentials.user
        if wanted is None:
            return users[0]
        name, domain = split_principal(wanted)
        for user in users:
            if user.is_called(domain, name):
                return user
        subject = f"file {self._credentials.users} of NTLM users"
        raise CredentialError(
            subject,
            f"there is no {wanted} in it",
            "write user@DOMAIN, with a domain that is in the file",
            code="ntlm-users-invalid",
        )

    def _advance(self, token: bytes | None) -> Outcome:
        if token is None:
            # Its own NTLM, whatever GSSAPI may have on this machine.
            self._proxy = spnego.client(
                self._user().credential,
                channel_bindings=_BINDINGS,
                context_req=self._request,
                protocol="ntlm",
                options=NegotiateOptions.use_ntlm,
            )
        reply = self._proxy.step(token) or b""
        if self._proxy.complete:
            _check_authenticate(reply)
        return Outcome(reply, self._proxy.complete)

    def _explain(self, error: Exception) -> MutualAuthError:
        reason = (
            f" ({error})"
            if type(error) is ValueError and self._proxy is not None and self._proxy.complete
            else ""
        )
        cause = f"the service's token cannot be taken{reason}"
        return PeerNotAuthenticated(
            self._subject, cause, "it was altered on the way, or the service does not speak NTLM"
        )

    def verify(self, protection: Protection) -> PeerIdentity:
        reached, flags = self._verify_context(protection)
        return PeerIdentity("", None, NTLM.name, reached, flags, math.inf)


class NtlmAcceptor(_NtlmContext):
    """A service's context for one connection; made by :class:`NtlmUsers`."""

    def __init__(self, users: str, peer: str) -> None:
        super().__init__(peer)
        self._users = users
        self._mutauth = False

    def _advance(self, token: bytes | None) -> Outcome:
        if token is None:
            raise ValueError("a client starts")
        with suppress(FileNotFoundError):
            check_regular(
                self._users
            )  # which pyspnego opens in a way of its own, for each of these steps
        if self._proxy is None:
            self._proxy = spnego.server(protocol="ntlm", options=NegotiateOptions.use_ntlm)
        else:
            try:
                self._mutauth = _check_authenticate(token)
            except ValueError as error:
                raise PeerNotAuthenticated(
                    self._subject, str(error), "a client of today sends NTLMv2 with its code"
                ) from error
        reply = self._proxy.step(token)
        return Outcome(reply or b"", self._proxy.complete)

    def _explain(self, error: Exception) -> MutualAuthError:
        try:
            _read_users(self._users)
        except CredentialError as unreadable:
            return unreadable
        return PeerNotAuthenticated(
            self._subject,
            f"its NTLM authenticates none of the users in {self._users}",
            "compare its user, domain and password with the file; a client of Kerberos is in the "
            "wrong place",
        )

    def _client(self) -> _User:
        """The user as the file has it: the client writes its name in any case, and in any alphabet
        that folds to it.
        """
        domain, _, name = (self._proxy.client_principal or "").partition("\\")
        for user in _read_users(self._users):
            if user.is_called(domain, name):
                return user
        raise PeerNotAuthenticated(
            self._subject, f"{self._users} no longer has this user", "let it connect again"
        )

    def verify(self, protection: Protection) -> PeerIdentity:
        reached, flags = self._verify_context(protection)
        client = self._client()
        logon = Logon(client.name, client.domain, groups_known=False)
        principal = f"{client.name}@{client.domain}"
        return PeerIdentity(
            principal,
            None,
            NTLM.name,
            reached,
            flags,
            math.inf,
            mutauth=self._mutauth,
            read_logon=lambda: logon,
        )


class NtlmUsers:
    """The users that a service knows, which are all its keys.

    :param credentials: their file; read anew for each client.
    :raises CredentialError: when it cannot be read, others can read it, or has an invalid line.
    :raises UsageError: when another file is in use in this process.
    """

    #: Each client answers a challenge of its own.
    accepts_replays = False
    authenticates_service = False

    def __init__(self, credentials: NtlmCredentials) -> None:
        self._users = credentials.users
        self.check()
        if os.path.abspath(os.environ.setdefault(USERS_VARIABLE, self._users)) != self._users:
            raise UsageError(
                f"file {self._users} of NTLM users",
                f"{USERS_VARIABLE} of this process names another one already",
                "use one file for all services of a process",
            )

    def check(self) -> None:
        """See whether the file can be used now.

        :raises CredentialError: as above.
        """
        _read_users(self._users)

    def acceptor(self, peer: str, channel: ChannelBinding | None = None) -> NtlmAcceptor:
        """A context for one connection; see :class:`mutauth_twisted.core.context.Keys`.

        With a channel it authenticates no client, as NTLM's bindings cannot be insisted on.
        """
        return NtlmAcceptor(self._users, peer)


def initiators(
    package: Mechanism, spn: SPN | None, credentials: NtlmCredentials, protection: Protection
) -> NewContext:
    """See :meth:`Mechanism.initiators`."""
    return lambda peer, channel: NtlmInitiator(credentials, protection, peer)


def acceptor_keys(
    package: Mechanism, credentials: NtlmCredentials, service_class: str | None
) -> NtlmUsers:
    """See :meth:`Mechanism.acceptor_keys`."""
    return NtlmUsers(credentials)
