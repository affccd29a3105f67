"""Every error of the package, in one small tree.

An error is one line for people: the object it is about, the cause, and the
next step.  The classes tell who has to act:

- we, on this machine and with our own account: :class:`UsageError`,
  :class:`CredentialError`;
- the peer, which was asked and did wrong: :class:`PeerError` and below;
- the directory and its administrators: :class:`DirectoryError`,
  :class:`NotFound`, :class:`OtherObject`, :class:`ServiceCheckFailed`; and :class:`KDCError` for
  the KDC, which does not answer, or grants no ticket (the peer heard nothing of it);
- the network, or a party that cannot be told: :class:`NetworkError`.

No message ever holds a token, a key or a password.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from mutauth_twisted.findings import Finding, Remedy

#: The subject of an error about what is wrong on this machine, whoever the client is that was
#: turned away for it.
REPLAY_CACHE = "the replay cache"


class MutualAuthError(Exception):
    """Base of all errors raised on purpose by this package.

    :param subject: the object the error is about (an SPN, a file, a DN, ...).
    :param cause: what is wrong with it.
    :param remedy: the next step for the reader; may be empty.
    :param code: a more specific code than that of the class.
    :param details: values for the class's attributes, as in ``PeerRefused(..., status=5)``.
    :ivar left_behind: what could not be taken back of work that this error ended.
    """

    #: The exit code with which a command ends on this error: 1 the answer is
    #: no, 2 wrong usage, 3 directory or network trouble, 4 authentication refused.
    exit_code: ClassVar[int] = 3
    #: Which of :data:`~mutauth_twisted.codes.CODES` it is.  Classes that stand for many causes
    #: have none of their own: those who raise them say it.
    code: str = "internal-error"

    def __init__(
        self,
        subject: str,
        cause: str,
        remedy: Remedy = "",
        *,
        code: str | None = None,
        **details: int | str,
    ) -> None:
        super().__init__(subject, cause, remedy)
        self.subject = subject
        self.cause = cause
        self.remedy = remedy
        self.left_behind: tuple[str, ...] = ()
        if code is not None:
            self.code = code
        for name, value in details.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no attribute {name!r}")
            setattr(self, name, value)

    @property
    def finding(self) -> Finding:
        """The same as a value."""
        left = f"; left behind: {', '.join(self.left_behind)}" if self.left_behind else ""
        return Finding(self.code, self.subject, f"{self.cause}{left}", self.remedy)

    @property
    def coded(self) -> str:
        """The line with its code in front, as logs, the status page and commands show it."""
        return self.finding.coded

    def __str__(self) -> str:
        return str(self.finding)


class UsageError(MutualAuthError, ValueError):
    """An option, a keyword or a value that cannot be used as given."""

    code = "invalid-option"
    exit_code = 2


def check_utf8(words: Iterable[object]) -> None:
    """See that words which a user gave can be sent anywhere.

    An argument that is not UTF-8 comes with a lone surrogate for each bad byte (PEP 383).

    :raises UsageError: for the first that cannot.
    """
    for word in words:
        try:
            str(word).encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"argument {str(word)!r}", "it is not UTF-8", "write it in UTF-8"
            ) from None


class NotFound(MutualAuthError):
    """The directory answered, and what was asked for is not there."""

    code = "not-found"
    exit_code = 1


class OtherObject(MutualAuthError):
    """An object of this name is there, and is of another class."""

    code = "other-object"
    exit_code = 1


class ServiceCheckFailed(MutualAuthError):
    """The directory's data about this service are wrong."""

    exit_code = 1


class DirectoryError(MutualAuthError):
    """The directory cannot be reached, or refused an operation."""


class DirectoryUnreachable(DirectoryError):
    """No domain controller answered, or the one in use went away."""

    code = "directory-unreachable"


class DirectoryRefused(DirectoryError):
    """A domain controller answered, and refused the operation."""

    code = "directory-refused"
    #: The LDAP result code (RFC 4511, section 4.1.9).
    result: int = 0
    #: The win32 code in the answer, such as 8647; 0: none.
    win32: int = 0
    #: The server's own words (diagnosticMessage); empty: none.
    diagnostic: str = ""


class NetworkError(MutualAuthError):
    """A host does not resolve, a port is closed, a connection broke or stalled."""

    code = "network-failed"


class DescriptorsUsedUp(MutualAuthError):
    """This process has as many files and sockets open as it may: no credentials, peer or file
    is at fault.
    """

    code = "descriptors-used-up"

    # With all of an error's parts, as copies are made with them.
    def __init__(
        self,
        subject: str,
        cause: str = "this process has no file descriptor left (EMFILE)",
        remedy: Remedy = "raise LimitNOFILE= (or ulimit -n), or lower max-connections",
    ) -> None:
        super().__init__(subject, cause, remedy)


class ThreadsUsedUp(MutualAuthError):
    """This process can start no further thread: no credentials, peer or file are at fault."""

    code = "threads-used-up"

    def __init__(
        self,
        subject: str,
        cause: str,
        remedy: Remedy = "raise TasksMax= (or ulimit -u), and the limit of its container",
    ) -> None:
        super().__init__(subject, cause, remedy)


class AuthenticationError(MutualAuthError):
    """Base of everything that ends a handshake without authentication."""

    exit_code = 4


class CredentialError(AuthenticationError):
    """Our own credentials are missing, unreadable, expired or refused by the KDC."""


class ToldByTicket(CredentialError):
    """A client's ticket tells that the service's keys are at fault: the keytab may lack one.

    Nothing protects what a ticket says there, so that any client may say it.
    """

    code = "keytab-lacks-key"


class KDCError(MutualAuthError):
    """Base of errors of a KDC, which grants no ticket; the peer was not even asked."""


class KDCUnreachable(KDCError):
    """No KDC of the realm answered."""

    code = "kdc-unreachable"


class KDCRefused(KDCError, AuthenticationError):
    """The KDC answered, and grants no ticket: the service is unknown or disabled, or its policy
    forbids it.

    What it says of our own key, ticket or account is a :class:`CredentialError`.
    """

    code = "kdc-refused"
    #: The code of its KRB-ERROR (RFC 4120, section 7.5.9); 0: none.
    krb_error: int = 0
    exit_code = 4

    @property
    def of_service(self) -> bool:
        """True if the service's account alone is at fault; another service's may be fine."""
        # KDC_ERR_SERVICE_EXP, S_PRINCIPAL_UNKNOWN, PRINCIPAL_NOT_UNIQUE, SERVICE_REVOKED
        return self.krb_error in (2, 7, 8, 19)


class PeerError(AuthenticationError):
    """Base of errors of the peer."""


class PeerNotAuthenticated(PeerError):
    """The peer is not authenticated as the principal that was asked for."""

    code = "not-authenticated"


class PeerRefused(PeerError):
    """The peer ended the handshake and sent a code."""

    code = "peer-refused"
    #: The win32 or HRESULT code received.
    status: int = 0


class AccessDenied(PeerError):
    """The peer is authenticated, and the access policy does not allow it."""

    code = "access-denied"


class ServiceFull(MutualAuthError):
    """The peer authenticated itself, and the service has as many sessions as it may."""

    code = "service-full"


class SessionRefused(MutualAuthError):
    """The service is authenticated, and ended the session before any data; nothing of what the
    client has sent was used.
    """

    code = "session-refused"

    @classmethod
    def of(cls, subject: str, reason: str) -> SessionRefused:
        """The error of a service's reason, which is a code of its own."""
        if reason in _REFUSALS:
            return cls(subject, *_REFUSALS[reason], code=reason)
        return cls(subject, f"it refuses this session: {reason}", "the service's log says more")


#: What a service's reasons to refuse a session are to its client.
_REFUSALS = {
    "backend-unreachable": (
        "the gateway runs, and cannot reach the service behind it",
        "try again later; the gateway's log says more",
    ),
}


class SessionEnded(MutualAuthError):
    """A session was ended by one of the service's limits."""

    code = "session-ended"


class ProtocolViolation(PeerError):
    """The peer sent what the wire protocol does not allow, or speaks another one."""

    code = "protocol-violation"


class RecordError(PeerError):
    """A record was altered, repeated, reordered, dropped, or not sealed."""

    code = "record-rejected"


class StreamCut(NetworkError):
    """The connection ended without the peer's authenticated end of stream.

    No error of the peer's, which was authenticated and may have had no part in it: a network that
    broke looks no other than an attacker who cut the stream.  Twisted applications get it as a
    ConnectionLost, too: :class:`mutauth_twisted.net.cut.ConnectionCut`.
    """

    code = "stream-cut"

    # With all of an error's parts, as copies are made with them.
    def __init__(
        self,
        subject: str,
        cause: str = "the connection was cut before the peer's end of stream",
        remedy: Remedy = "what came before is genuine; the peer was stopped, or the network cut "
        "it: connect again",
    ) -> None:
        super().__init__(subject, cause, remedy)
