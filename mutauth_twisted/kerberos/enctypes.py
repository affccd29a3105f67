"""The floor for encryption types: every key of a session, and that of its ticket, is AES."""

from __future__ import annotations

from mutauth_twisted.errors import AuthenticationError
from mutauth_twisted.kerberos.ap_req import ticket_label
from mutauth_twisted.kerberos.errors import AES_FOR_ACCOUNT, kind_name
from mutauth_twisted.kerberos.lucid import LucidContext

_AES_FOR_SESSION = (
    "allow AES on both accounts (msDS-SupportedEncryptionTypes 24) and in krb5.conf "
    "(permitted_enctypes)"
)


def check_request(token: bytes, subject: str) -> None:
    """See that an initiator's own first token comes with a ticket and a session key of AES.

    :param subject: the service as errors name it.
    :raises AuthenticationError: when either is of another type, or cannot be read.
    """
    try:
        label = ticket_label(token)
    except ValueError as error:
        raise AuthenticationError(
            subject,
            f"the Kerberos library's own request cannot be read: {error}",
            code="kerberos-failed",
        ) from error
    if label.kind not in AES_TYPES:
        cause = (
            f"the KDC encrypts tickets for it with {kind_name(label.kind)}, and only AES is "
            "accepted"
        )
        raise AuthenticationError(subject, cause, AES_FOR_ACCOUNT, code="weak-encryption")
    check_session(label.session, subject)


def check_keys(lucid: LucidContext, subject: str) -> None:
    """See that an established context protects with AES.

    :param subject: the peer as errors name it.
    :raises AuthenticationError: when one of its keys is of another type.
    """
    for kind in lucid.key_types:
        check_session(kind, subject)
    if not lucid.rfc4121:
        raise AuthenticationError(
            subject, "its messages are those of RFC 1964", _AES_FOR_SESSION, code="weak-encryption"
        )


def check_session(kind: int, subject: str) -> None:
    """See that a session's key is AES.

    :raises AuthenticationError: when it is not.
    """
    if kind not in AES_TYPES:
        cause = f"the session's key is of type {kind_name(kind)}, and only AES is accepted"
        raise AuthenticationError(subject, cause, _AES_FOR_SESSION, code="weak-encryption")


#: AES by the numbers of RFC 3962 and RFC 8009: all that a session's keys, and a ticket's, may be
#: of.  RC4's keys are the account's unsalted password hash, which is guessed a thousand times as
#: fast, and Windows' KDCs give it up in 2026.
AES_TYPES = frozenset((17, 18, 19, 20))
