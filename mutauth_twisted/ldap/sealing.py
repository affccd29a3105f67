"""A protected LDAP connection: SASL GSSAPI with confidentiality, or inside TLS (RFC 4752), below
ldap3.

Why not ldap3's own sealing (``session_security``): its receiving loop drops
data when an answer spans several SASL buffers, so that large answers hang; it
does not look whether what it unwrapped was encrypted; and a failing GSSAPI
step is hidden behind the error of aborting the handshake.  Here the bind is
done step by step with ldap3's messages, and then ldap3's socket is replaced by
a :class:`SealedSocket`, so that ldap3 sees plain LDAP on a plain socket.

Inside TLS there is no second sealing: Active Directory refuses it there.

The ticket comes first: a server for which the KDC grants none, or one of another
realm, is not even connected to (but inside TLS, whose bindings the ticket's
authenticator needs).

What a server may send is bounded in size and time (:class:`BoundedSocket`),
little before it is authenticated and much afterwards: ldap3 itself would collect an
answer without end.

This is the only module that touches what ldap3 does not promise to keep:
``send_sasl_negotiation``, the strategy's ``_open_socket``, and the attributes
``socket``, ``closed``, ``bound`` and ``sasl_in_progress`` of a connection.  A
test holds ldap3 to that.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Protocol

import gssapi
import ldap3
from attrs import frozen
from gssapi.raw.chan_bindings import ChannelBindings
from gssapi.raw.ext_set_cred_opt import set_cred_option
from gssapi.raw.misc import GSSError
from gssapi.raw.types import RequirementFlag
from ldap3.core.exceptions import LDAPExceptionError
from ldap3.protocol.sasl.sasl import send_sasl_negotiation

from mutauth_twisted.errors import (
    DirectoryError,
    DirectoryRefused,
    DirectoryUnreachable,
    PeerNotAuthenticated,
)
from mutauth_twisted.kerberos.ap_req import ticket_principal
from mutauth_twisted.kerberos.enctypes import check_keys, check_request
from mutauth_twisted.kerberos.errors import explain
from mutauth_twisted.kerberos.lucid import read_lucid
from mutauth_twisted.kerberos.tickets import NO_CI_FLAGS
from mutauth_twisted.ldap.tls import LdapsAuthority
from mutauth_twisted.names import fold_ascii
from mutauth_twisted.text import short_name

_NO_LAYER, _CONFIDENTIALITY = 1, 4  # RFC 4752, section 3.3: the security layers' bit mask
#: The largest sealed buffer we take.  Active Directory and Samba send at most
#: 10 MiB and 256 KiB; RFC 4752 has room for 16 MiB - 1.
MAX_BUFFER = 0xFFFFFF
#: What a server may send while it is not authenticated; a login takes a few KiB.
LOGIN_LIMIT = 1 << 20
#: What one answer may take; a page of 500 objects with all their values is a few MiB.
ANSWER_LIMIT = 64 << 20
_PATIENCE = 6  # an answer may take as many times longer than a pause in it
#: How much is shown of what a server says that is not authenticated; Active Directory's words take
#: some hundred characters.
_LONGEST_REASON = 200
_HEADER = struct.Struct("!I")
_RECEIVE = 65536
_FLAGS = [
    RequirementFlag.mutual_authentication,
    RequirementFlag.confidentiality,
    RequirementFlag.integrity,
    RequirementFlag.replay_detection,
    RequirementFlag.out_of_sequence_detection,
]
_FLAGS_IN_TLS = [RequirementFlag.mutual_authentication]


class _Context(Protocol):
    """The part of a complete GSSAPI context that sealing needs."""

    def wrap(self, message: bytes, encrypt: bool) -> Any: ...

    def unwrap(self, message: bytes) -> Any: ...

    def get_wrap_size_limit(self, desired_output_size: int, encrypted: bool = True) -> int: ...


class BoundedSocket:
    """A socket on which an answer has an end.

    :param inner: the connected socket.
    :param pause: seconds without a byte that are too long; until :meth:`restart`
        is called, seconds for all there is.
    :param limit: bytes until :meth:`restart` is called.
    """

    def __init__(self, inner: socket.socket, pause: float, limit: int) -> None:
        self._inner = inner
        self._pause = pause
        self._left = limit
        # A stranger that lets bytes drip gets no more time than a silent one.
        self._deadline = time.monotonic() + pause

    def restart(self, limit: int = ANSWER_LIMIT, pause: float | None = None) -> None:
        """Begin a new answer of a server that is authenticated.

        :param pause: seconds without a byte that are too long from now on.
        """
        self._left = limit
        self._pause = pause or self._pause
        self._deadline = time.monotonic() + self._pause * _PATIENCE

    def recv(self, size: int) -> bytes:
        """Receive as a socket does.

        :raises OSError: when the answer is too long, in bytes or in time.
        """
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the answer does not end")
        self._inner.settimeout(min(remaining, self._pause))
        data = self._inner.recv(size)
        self._left -= len(data)
        if self._left < 0:
            raise OSError("the answer is too large")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class SealedSocket:
    """A socket whose bytes are sealed buffers of RFC 4752 on the inner socket.

    :param inner: the connected socket, with its limits.
    :param context: the complete GSSAPI context.
    :param send_limit: the largest buffer the server takes, in bytes.
    :param receive_limit: the largest buffer we announced, in bytes.
    """

    def __init__(
        self, inner: BoundedSocket, context: _Context, send_limit: int, receive_limit: int
    ) -> None:
        self._inner = inner
        self._context = context
        self._plain_limit = context.get_wrap_size_limit(send_limit, True)
        self._receive_limit = receive_limit
        self._plain = memoryview(b"")

    def sendall(self, data: bytes) -> None:
        """Seal and send everything, in as many buffers as it takes."""
        view = memoryview(data)
        for start in range(0, len(view), self._plain_limit):
            sealed = self._context.wrap(bytes(view[start : start + self._plain_limit]), True)
            if not sealed.encrypted:
                raise OSError("GSSAPI did not encrypt")
            self._inner.sendall(_HEADER.pack(len(sealed.message)) + sealed.message)

    def recv(self, size: int) -> bytes:
        """Up to ``size`` bytes of what was unsealed; none at the end of the stream.

        :raises OSError: when the stream is cut inside a buffer, or a buffer is
            too large, altered, or not encrypted.
        """
        while not self._plain:
            header = self._read(_HEADER.size, at_boundary=True)
            if not header:
                return b""
            length = _HEADER.unpack(header)[0]
            if not 0 < length <= self._receive_limit:
                raise OSError(f"the server sent a sealed buffer of {length} bytes")
            self._plain = memoryview(self._unseal(self._read(length)))
        piece = bytes(self._plain[:size])
        self._plain = self._plain[size:]
        return piece

    def _unseal(self, sealed: bytes) -> bytes:
        try:
            result = self._context.unwrap(sealed)
        except GSSError as error:
            raise OSError("a sealed buffer was altered on the way") from error
        if not result.encrypted:
            raise OSError("the server sent a buffer that is not encrypted")
        plain: bytes = result.message
        return plain

    def _read(self, size: int, at_boundary: bool = False) -> bytes:
        pieces = bytearray()
        while len(pieces) < size:
            piece = self._inner.recv(min(size - len(pieces), _RECEIVE))
            if not piece:
                if at_boundary and not pieces:
                    return b""
                raise OSError("the connection was cut inside a sealed buffer")
            pieces += piece
        return bytes(pieces)

    def __getattr__(self, name: str) -> Any:
        # close, shutdown, settimeout, fileno, getpeername ... are the inner socket's.
        return getattr(self._inner, name)


@frozen
class Target:
    """A server to connect to, and what it has to authenticate as.

    :param address: the IP address to connect to.
    :param host: its DNS name, which its certificate has to carry inside TLS.
    :param principal: its Kerberos principal with the realm, ``ldap/HOST/DOMAIN@REALM``.
    :param realms: the realms that its ticket may be of; None: any that our KDC refers us to.
    """

    address: str
    port: int
    host: str
    principal: str
    realms: frozenset[str] | None = None

    @property
    def subject(self) -> str:
        """Name in errors."""
        return f"domain controller {self.host}:{self.port}"

    @property
    def realm(self) -> str:
        """The realm whose KDC grants the ticket."""
        return self.principal.rpartition("@")[2]


def open_sealed(
    target: Target,
    credentials: gssapi.Credentials | None,
    *,
    login_timeout: float,
    receive_timeout: float,
    authority: LdapsAuthority | None = None,
    waiting_for: Callable[[str], None] = lambda whom: None,
) -> ldap3.Connection:
    """Connect, authenticate both sides, and seal, or rely on TLS.  Blocks.

    :param credentials: whose tickets to use; None: the default cache's.
        Inside TLS they are marked for that use.
    :param login_timeout: seconds for the connection, and again for everything up to the end of the
        login.
    :param receive_timeout: seconds without a byte that are too long afterwards.
    :param authority: use TLS, with a certificate of this authority.
    :param waiting_for: told who is waited for next: the KDC, or the server.
    :raises DirectoryUnreachable: when nothing answers, or not in time.
    :raises PeerNotAuthenticated: when the certificate is not good, or the ticket is another
        realm's.
    :raises MutualAuthError: from :func:`gsserrors.explain` when Kerberos fails.
    """
    bind = _Bind(target, credentials, waiting_for)
    if authority is None:
        bind.fetch_ticket(None)
    waiting_for(f"{target.subject} ({target.address})")
    try:
        raw = socket.create_connection((target.address, target.port), login_timeout)
        raw.settimeout(login_timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise DirectoryUnreachable(
            target.subject, f"{target.address}: {_reason(error)}", "check that it runs"
        ) from error
    try:
        if authority is not None:
            raw, bindings = authority.secure(raw, target.host)
            bind.fetch_ticket(bindings)
        bounded = BoundedSocket(raw, login_timeout, LOGIN_LIMIT)
        connection = bind.log_in(adopt(bounded, target.address, target.port))
        bounded.restart(pause=receive_timeout)
        return connection
    except GSSError as error:
        raw.close()
        raise explain(error, target.principal) from error
    except (OSError, LDAPExceptionError) as error:
        raw.close()
        raise DirectoryUnreachable(
            target.subject, f"{target.address}: {_reason(error)}", "try again"
        ) from error
    except BaseException:
        raw.close()
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def adopt(raw: socket.socket | BoundedSocket, address: str, port: int) -> ldap3.Connection:
    """An ldap3 connection on a socket that is connected already."""
    server = ldap3.Server(address, port, get_info=ldap3.NONE)
    connection = ldap3.Connection(
        server,
        authentication=ldap3.SASL,
        sasl_mechanism=ldap3.GSSAPI,
        auto_referrals=False,  # a referral would be followed without sealing
        check_names=False,
        return_empty_attributes=False,
        raise_exceptions=False,
    )

    def hand_over(*_: Any, **__: Any) -> None:
        connection.socket = raw
        connection.closed = False

    # A name in ldap3 that opens the socket: ours is open, with the true error when it would not.
    connection.strategy._open_socket = hand_over
    connection.open(read_server_info=False)
    return connection


class _Bind:
    """The login, in two parts: getting a ticket, and showing it.

    With channel bindings the socket is protected already, without them it gets sealed.
    """

    def __init__(
        self,
        target: Target,
        credentials: gssapi.Credentials | None,
        waiting_for: Callable[[str], None],
    ) -> None:
        self._target = target
        self._credentials = credentials
        self._waiting_for = waiting_for

    def fetch_ticket(self, bindings: bytes | None) -> None:
        """Get a ticket for the server, and see that it is one for what it has to be; asks the
        KDC.
        """
        target = self._target
        self._waiting_for(f"the KDC of {target.realm}")
        self._wanted, self._layer = (
            (_FLAGS, _CONFIDENTIALITY) if bindings is None else (_FLAGS_IN_TLS, _NO_LAYER)
        )
        self._context = _context(target.principal, self._credentials, self._wanted, bindings)
        try:
            self._token = self._context.step() or b""
        except GSSError as error:
            raise explain(error, target.principal) from error
        check_request(self._token, target.subject)
        granted = ticket_principal(self._token)
        name, _, realm = granted.rpartition("@")
        wanted = target.principal.rpartition("@")[0]
        if fold_ascii(name) != fold_ascii(wanted) or (
            target.realms is not None and realm not in target.realms
        ):
            # A KDC refers us to whichever trusted realm it thinks the host is in, and krb5 follows.
            raise PeerNotAuthenticated(
                target.subject,
                f"it is NOT AUTHENTICATED: the KDC grants a ticket for {granted}, not for "
                f"{target.principal}",
                "check the SRV records in DNS, and which realms are trusted",
            )
        self._waiting_for(f"{target.subject} ({target.address})")

    def log_in(self, connection: ldap3.Connection) -> ldap3.Connection:
        """Show the ticket, verify the server, and seal."""
        context, subject, layer = self._context, self._target.subject, self._layer
        connection.sasl_in_progress = True
        challenge = _exchange(connection, self._token, subject)
        while not context.complete:
            token = context.step(challenge or None)
            challenge = _exchange(connection, token or b"", subject)
        check_keys(read_lucid(context), subject)
        if not all(flag in context.actual_flags for flag in self._wanted):
            cause = "the Kerberos handshake ended without mutual authentication and sealing"
            raise DirectoryError(
                subject,
                cause,
                "try another domain controller, and check what stands in front of this one",
                code="directory-not-protected",
            )
        limits = context.unwrap(challenge).message
        if len(limits) != 4 or not limits[0] & layer:
            raise DirectoryError(
                subject,
                "the server offers no such protection",
                "this is not a domain controller to trust",
                code="directory-not-protected",
            )
        # Without a layer there is no buffer, and the size has to be zero.
        receive_limit = MAX_BUFFER if layer == _CONFIDENTIALITY else 0
        _exchange(
            connection,
            context.wrap(bytes([layer]) + receive_limit.to_bytes(3, "big"), False).message,
            subject,
        )
        connection.sasl_in_progress = False
        if layer == _CONFIDENTIALITY:
            send_limit = int.from_bytes(limits[1:], "big")
            connection.socket = SealedSocket(connection.socket, context, send_limit, receive_limit)
        connection.bound = True
        connection.raise_exceptions = True
        return connection


def _context(
    principal: str,
    credentials: gssapi.Credentials | None,
    wanted: list[RequirementFlag],
    bindings: bytes | None,
) -> Any:
    # The realm is named, so that neither DNS nor a guess chooses it, and the name is taken as it
    # stands: a host-based name would be changed by whatever the reverse DNS says.
    target = gssapi.Name(principal, gssapi.NameType.kerberos_principal)
    if bindings is not None:
        credentials = credentials or gssapi.Credentials(
            usage="initiate", mechs=[gssapi.MechType.kerberos]
        )
        set_cred_option(NO_CI_FLAGS, credentials)
    context: Any = gssapi.SecurityContext(
        name=target,
        creds=credentials,
        mech=gssapi.MechType.kerberos,
        flags=sum(map(int, wanted)),
        usage="initiate",
        channel_bindings=None if bindings is None else ChannelBindings(application_data=bindings),
    )
    context.__DEFER_STEP_ERRORS__ = False
    return context


def _exchange(connection: ldap3.Connection, token: bytes, subject: str) -> bytes:
    """One leg of the bind; the server's challenge."""
    try:
        result = send_sasl_negotiation(connection, None, token)
    except (OSError, LDAPExceptionError):
        raise
    except (
        Exception
    ) as error:  # ldap3 decodes on trust: anything may come of bytes that are no LDAP
        raise DirectoryUnreachable(
            subject, "its answer is not LDAP", "check the server's name and port"
        ) from error
    if result["result"] not in (
        ldap3.core.results.RESULT_SUCCESS,
        ldap3.core.results.RESULT_SASL_BIND_IN_PROGRESS,
    ):
        words = short_name(result["message"].rstrip("\0 "), _LONGEST_REASON)
        raise DirectoryRefused(
            subject,
            f"it refused the login: {result['description']} {words}".rstrip(),
            "check the account, and that the clocks agree",
            result=result["result"],
            code="directory-login-refused",
        )
    return bytes(result["saslCreds"] or b"")
