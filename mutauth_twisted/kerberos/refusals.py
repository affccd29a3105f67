"""Meaning of a service's failure to take a client's token.

To a service the same number can mean something else than to a client: the expired ticket is the
client's.  And MIT says "not for us" (35) whatever key is missing: which one it is can be seen from
the keytab and from what the ticket says of itself.
"""

from __future__ import annotations

import errno

import krb5
from attrs import evolve, frozen
from gssapi.raw.misc import GSSError

from mutauth_twisted.errors import (
    REPLAY_CACHE,
    CredentialError,
    DescriptorsUsedUp,
    MutualAuthError,
    PeerNotAuthenticated,
    ProtocolViolation,
    ToldByTicket,
)
from mutauth_twisted.files import file_fault
from mutauth_twisted.kerberos.codes import KRB5, ROUTINE_MASK, Krb5, Routine
from mutauth_twisted.kerberos.errors import (
    ERRNO_LIMIT,
    MAJOR,
    MINOR,
    USED_UP,
    Meaning,
    TicketLabel,
    explain,
    kind_name,
    meaning_of,
    minor_code,
    text_of,
)
from mutauth_twisted.kerberos.keytab import KeytabKey, keytab_keys, keytab_path
from mutauth_twisted.text import short_name


@frozen
class Acceptor:
    """Knowledge of a service that cannot take a client's token.

    :param keytab: the keytab's path; None: KRB5_KTNAME, then the system's.
    :param ticket: the label of the client's ticket; None: the token holds none.
    :param principal: the one principal of the keytab whose keys count; None: every key in it.
    :param negotiates: whether it takes Kerberos inside SPNEGO as well.
    """

    keytab: str | None = None
    ticket: TicketLabel | None = None
    principal: str | None = None
    negotiates: bool = False


#: What nothing but the replay cache's own code returns.
_OF_CACHE = (
    *(Krb5.KRB5_RC_IO, Krb5.KRB5_RC_IO_EOF, Krb5.KRB5_RC_IO_MALLOC, Krb5.KRB5_RC_IO_PERM),
    *(Krb5.KRB5_RC_IO_IO, Krb5.KRB5_RC_IO_UNKNOWN, Krb5.KRB5_RC_IO_SPACE),
)
_NOT_KERBEROS = Meaning(
    "not-kerberos",
    ProtocolViolation,
    "its tokens are SPNEGO's or NTLM's, or empty, and this service takes Kerberos' own only",
    "have the client use package=kerberos, or serve with package negotiate",
)
_NO_KERBEROS_INSIDE = Meaning(
    "not-kerberos",
    ProtocolViolation,
    "its tokens offer NTLM or another package, and this service takes Kerberos only, bare or "
    "inside SPNEGO",
    "have the client use Kerberos: name the host in full, and see with klist that it gets a ticket",
)
_NO_TOKEN = Meaning(
    "token-unreadable",
    ProtocolViolation,
    "its token cannot be read",
    "check that it speaks to the right port",
)
_OLD_TICKET = Meaning(
    "ticket-expired",
    PeerNotAuthenticated,
    "its ticket has expired",
    "it gets a new one with kinit; check this machine's clock",
)
_NO_REPLAY_CACHE = Meaning(
    "replay-cache-unusable",
    CredentialError,
    "the service cannot note which requests it has seen ({text})",
    "let this user write there, or set KRB5RCACHEDIR",
)
_NO_MATCH = Meaning(
    "not-authenticated",
    PeerNotAuthenticated,
    "its request does not fit its ticket",
    "it was altered on the way, or made without the ticket's key",
)
_BY_KRB5: dict[Krb5, Meaning] = {
    Krb5.KRB_AP_ERR_BAD_INTEGRITY: _NO_MATCH,
    Krb5.KRB_AP_ERR_TKT_EXPIRED: _OLD_TICKET,
    Krb5.KRB_AP_ERR_BADMATCH: _NO_MATCH,
    **dict.fromkeys(_OF_CACHE, _NO_REPLAY_CACHE),
    Krb5.KRB5_NOPERM_ETYPE: Meaning(
        "no-common-encryption",
        CredentialError,
        "its ticket or its session has an encryption type that is not permitted here",
        "compare permitted_enctypes in krb5.conf with msDS-SupportedEncryptionTypes on the "
        "accounts",
    ),
}
_MINOR = {**MINOR, **{KRB5 + number: meaning for number, meaning in _BY_KRB5.items()}}
_MAJOR: dict[int, Meaning] = {
    **MAJOR,
    Routine.BAD_MECH: _NOT_KERBEROS,
    Routine.BAD_BINDINGS: Meaning(
        "tls-channel-mismatch",
        PeerNotAuthenticated,
        "its ticket is bound to another TLS channel",
        "look for what terminates TLS between both sides",
    ),
    Routine.NO_CRED: _NOT_KERBEROS,  # we have some for Kerberos only
    Routine.DEFECTIVE_TOKEN: _NO_TOKEN,
    Routine.CREDENTIALS_EXPIRED: _OLD_TICKET,
}
#: In whatever words MIT reports that no key opened a ticket (krb5/krb/rd_req_dec.c).
_UNOPENED = frozenset(
    KRB5 + number
    for number in (
        *(Krb5.KRB_AP_ERR_NOT_US, Krb5.KRB_AP_ERR_MODIFIED, Krb5.KRB_AP_ERR_BADKEYVER),
        *(Krb5.KRB_AP_ERR_NOKEY, Krb5.KRB_AP_WRONG_PRINC, Krb5.KRB5_KT_BADNAME),
        *(Krb5.KRB5_KT_UNKNOWN_TYPE, Krb5.KRB5_KT_NOTFOUND, Krb5.KRB5_KT_IOERR),
        *(Krb5.KRB5_KEYTAB_BADVNO, Krb5.KRB5_KT_KVNONOTFOUND, Krb5.KRB5_KT_FORMAT),
    )
)
_COMPARE = "mutauth spn query tells on which account the SPN is, klist -k whose keys these are"
#: What a system says of files that cannot be written, and no reader of tokens does (those say
#: EINVAL, ENOMEM, ERANGE).
_OF_FILES = frozenset(
    (
        *(errno.EPERM, errno.ENOENT, errno.EIO, errno.EACCES, errno.ENOTDIR, errno.EISDIR),
        *(errno.EFBIG, errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EDQUOT),
    )
)


def explain_token(error: BaseException, subject: str, acceptor: Acceptor) -> MutualAuthError:
    """Convert a failure to take a client's token into an error that says who has to act.

    :param error: what was raised; see :func:`~mutauth_twisted.kerberos.errors.explain`.
    :param subject: the client.  Where the fault is this machine's the error names that instead: a
        keytab, or :data:`~mutauth_twisted.errors.REPLAY_CACHE`.
    :param acceptor: what the service knows besides.
    """
    minor = minor_code(error)
    if minor in USED_UP or isinstance(error, MutualAuthError):
        return explain(error, subject)
    if minor in _UNOPENED or 0 < minor < ERRNO_LIMIT:
        return _unopened(error, subject, acceptor)
    meaning = meaning_of(error, _MINOR, _MAJOR)
    if meaning is None:
        failed = isinstance(error, GSSError) and error.maj_code & ROUTINE_MASK == Routine.FAILURE
        # The framing was Kerberos', and what was in it was not.
        return _NO_TOKEN.error(subject) if failed and minor >= 0 else explain(error, subject)
    if meaning is _NO_REPLAY_CACHE:
        subject = REPLAY_CACHE
    elif meaning is _NOT_KERBEROS and acceptor.negotiates:
        meaning = _NO_KERBEROS_INSIDE
    elif meaning.kind is CredentialError:
        meaning = evolve(meaning, kind=ToldByTicket)
    return meaning.error(subject, text_of(error), minor - KRB5)


def _unopened(error: BaseException, subject: str, acceptor: Acceptor) -> MutualAuthError:
    """Explain that no key opened a client's ticket, from the keytab and the ticket's label."""
    back = "put it back: until then no client is served"
    path = acceptor.keytab or "of the default name"
    try:
        path = keytab_path(acceptor.keytab or krb5.kt_default_name(krb5.init_context()).decode())
        if fault := file_fault(path):
            return CredentialError(f"keytab {path}", f"it {fault}", back, code="keytab-unusable")
        held = keytab_keys(path)
    except CredentialError as other:
        return other
    except krb5.Krb5Error as unusable:
        if minor_code(unusable) in USED_UP:
            return DescriptorsUsedUp(subject)
        cause = f"it cannot be used: {text_of(unusable)}"
        return CredentialError(f"keytab {path}", cause, back, code="keytab-unusable")
    if acceptor.principal is not None:
        held = tuple(
            key
            for key in held
            if acceptor.principal in (key.principal, key.principal.rpartition("@")[0])
        )
    if not held:
        whose = f" of {acceptor.principal}" if acceptor.principal else ""
        return CredentialError(
            f"keytab {path}",
            f"it holds no keys{whose}",
            "export the account's keys again",
            code="keytab-lacks-key",
        )
    if (number := minor_code(error)) > 0:  # the keytab is fine: what else is a file
        subject = REPLAY_CACHE if number in _OF_FILES else subject
        return _NO_REPLAY_CACHE.error(subject, text_of(error))
    if acceptor.ticket is None:
        return PeerNotAuthenticated(
            subject,
            f"its ticket was made for another key than {path} holds",
            _COMPARE,
            code="ticket-wrong-key",
        )
    return _missing_key(subject, path, acceptor.ticket, held)


def _missing_key(
    subject: str, path: str, ticket: TicketLabel, held: tuple[KeytabKey, ...]
) -> MutualAuthError:
    what = f"its ticket for {short_name(ticket.name)}"
    versions = sorted({key.version for key in held})
    if ticket.version is not None and ticket.version not in versions:
        cause = (
            f"{what} is for key version {ticket.version}, and {path} holds "
            f"{', '.join(map(str, versions))}"
        )
        if ticket.version < versions[0]:
            return PeerNotAuthenticated(
                subject,
                cause,
                "the client gets new tickets with kinit, if the SPN is on this account",
                code="ticket-wrong-key",
            )
        return ToldByTicket(
            subject,
            cause,
            "export the keytab again, or see with mutauth spn query whether the SPN is on another "
            "account",
        )
    if ticket.kind not in {key.kind for key in held if ticket.version in (None, key.version)}:
        cause = f"{what} is encrypted with {kind_name(ticket.kind)}, of which {path} holds no key"
        return ToldByTicket(
            subject,
            cause,
            "export all of the account's keys, or allow AES on the account "
            "(msDS-SupportedEncryptionTypes)",
        )
    cause = f"{what} was made for another key than {path} holds"
    return PeerNotAuthenticated(subject, cause, _COMPARE, code="ticket-wrong-key")
