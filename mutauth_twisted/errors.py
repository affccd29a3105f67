"""Every error of the package, in one small tree.

An error is one line for people: the object it is about, the cause, and the
next step.  The classes tell who has to act: we (:class:`UsageError`,
:class:`CredentialError`), the peer (:class:`PeerError` and below), or the
directory, the KDC and the network (:class:`DirectoryError`,
:class:`NetworkError`).  No message ever holds a token, a key or a password.
"""

from __future__ import annotations

from typing import ClassVar
from unicodedata import category

from twisted.internet.error import ConnectionLost

#: Controls, invisible formatting (text direction among it), surrogates, and line and paragraph separators.
_UNPRINTABLE = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def printable(text: str) -> str:
    """The text with everything that a terminal or a log might obey or hide written as an escape, ``\\x1b``.

    For names that others chose: principals, DNs, what a peer sent.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(each) if category(each) in _UNPRINTABLE else each for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


class MutualAuthError(Exception):
    """Base of all errors raised on purpose by this package.

    :param subject: the object the error is about (an SPN, a file, a DN, ...).
    :param cause: what is wrong with it.
    :param remedy: the next step for the reader; may be empty.
    """

    #: The exit code with which a command ends on this error: 1 the answer is
    #: no, 2 wrong usage, 3 directory or network trouble, 4 authentication refused.
    exit_code: ClassVar[int] = 3

    def __init__(self, subject: str, cause: str, remedy: str = "") -> None:
        super().__init__(subject, cause, remedy)
        self.subject = subject
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        line = f"{self.subject}: {self.cause}"
        if self.remedy:
            line = f"{line}; {self.remedy}"
        return printable(" ".join(line.split()))


class UsageError(MutualAuthError, ValueError):
    """An option, a keyword or a value that cannot be used as given."""

    exit_code = 2


class NotFound(MutualAuthError):
    """The directory answered, and what was asked for is not there."""

    exit_code = 1


class ServiceCheckFailed(MutualAuthError):
    """What the directory says about this service is not what it must say."""

    exit_code = 1


class DirectoryError(MutualAuthError):
    """The directory cannot be reached, or refused an operation."""


class DirectoryUnreachable(DirectoryError):
    """No domain controller answered, or the one in use went away."""


class DirectoryRefused(DirectoryError):
    """A domain controller answered, and refused the operation.

    :ivar code: the LDAP result code (RFC 4511, section 4.1.9).
    :ivar win32: the win32 code in the answer, such as 8647; 0: none.
    """

    def __init__(self, subject: str, cause: str, remedy: str = "", *, code: int = 0, win32: int = 0) -> None:
        super().__init__(subject, cause, remedy)
        self.code = code
        self.win32 = win32


class NetworkError(MutualAuthError):
    """A host does not resolve, a port is closed, a connection broke or stalled."""


class AuthenticationError(MutualAuthError):
    """Base of everything that ends an exchange of tokens without a proof."""

    exit_code = 4


class CredentialError(AuthenticationError):
    """Our own credentials are missing, unreadable, expired or refused by the KDC."""


class KDCUnreachable(MutualAuthError):
    """No KDC of the realm answered."""


class PeerError(AuthenticationError):
    """Base of what the peer did wrong."""


class PeerNotProven(PeerError):
    """The peer did not prove to be the principal that was asked for."""


class PeerRefused(PeerError):
    """The peer ended the exchange and sent a code.

    :ivar code: the win32 or HRESULT code received.
    """

    def __init__(self, subject: str, cause: str, remedy: str = "", *, code: int = 0) -> None:
        super().__init__(subject, cause, remedy)
        self.code = code


class AccessDenied(PeerError):
    """The peer proved who it is, and the access policy does not let it in."""


class ServiceFull(MutualAuthError):
    """The peer proved who it is, and the service has as many sessions as it may."""


class SessionEnded(MutualAuthError):
    """A session was ended by one of the service's limits."""


class ProtocolViolation(PeerError):
    """The peer sent what the wire protocol does not allow, or speaks another one."""


class RecordError(PeerError):
    """A record was altered, repeated, reordered, dropped, or not sealed."""


class StreamCut(PeerError, ConnectionLost):
    """The connection ended without the peer's authenticated end of stream."""

    exit_code = 3

    def __init__(self, subject: str, cause: str, remedy: str = "") -> None:
        MutualAuthError.__init__(self, subject, cause, remedy)

    __str__ = MutualAuthError.__str__
