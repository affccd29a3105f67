"""What a Kerberos failure means, in one line for people.

GSSAPI reports a failure as a major code (RFC 2744, section 3.9.1), which
rarely says anything, and a minor code, which for the Kerberos mechanism is an
error of MIT krb5's tables (``krb5.h``, whose first 128 are the KRB-ERROR codes
of RFC 4120, section 7.5.9).  :func:`explain` judges by these numbers, never by
the text, which depends on version and language; the text is only quoted where
no number is known.

The same number means one thing to a client and another to a service: a
client's expired ticket is its own, a service's is the client's.  And to a
service MIT says "not for us" (35) whatever key is missing: which one it is
can be seen from the keytab and from what the ticket says of itself.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import krb5
from attrs import evolve, frozen
from gssapi.raw.misc import GSSError

from mutauth_twisted.errors import (
    REPLAY_CACHE,
    AuthenticationError,
    CredentialError,
    DescriptorsUsedUp,
    KDCRefused,
    KDCUnreachable,
    MutualAuthError,
    PeerNotProven,
    ProtocolViolation,
    RecordError,
    ToldByTicket,
)
from mutauth_twisted.text import short_name

#: The fix for an account whose tickets are not AES, for an administrator.
AES_FOR_ACCOUNT = (
    "set msDS-SupportedEncryptionTypes of the service's account to 24, then a new password; export "
    "its keytab again"
)

_KRB5 = (
    -1765328384
)  # ERROR_TABLE_BASE_krb5; KRB-ERROR codes are added to it (RFC 4120, section 7.5.9)
_K5G = 39756032  # ERROR_TABLE_BASE_k5g, the errors of the mechanism itself
_GGSS = -2045022976  # ERROR_TABLE_BASE_ggss, those of GSSAPI's framing
_ASN1 = 1859794432  # ERROR_TABLE_BASE_asn1


@frozen
class _Meaning:
    code: str
    kind: type[MutualAuthError]
    cause: str
    remedy: str = ""

    def error(self, subject: str, text: str = "", krb_error: int = 0) -> MutualAuthError:
        """The error that it is, with the library's words where it quotes them."""
        more = {"krb_error": krb_error} if self.kind is KDCRefused else {}
        cause = self.cause.format(text=text)
        return self.kind(subject, cause, self.remedy, code=self.code, **more)


@frozen
class TicketLabel:
    """Label of a request and its ticket, which is in the clear (RFC 4120, sections 5.3 and 5.5.1).

    Nothing protects it: who has a ticket for one of an account's SPNs can write another one on it.

    :ivar name: the service it is for, ``echoSvc/srv1.example.com``.
    :ivar kind: the encryption type of its key, as in RFC 3961; 18: aes256-cts-hmac-sha1-96.
    :ivar version: the number of its key; None: it names none.
    :ivar session: the encryption type of its session key.
    """

    name: str
    kind: int
    version: int | None
    session: int


@frozen
class Acceptor:
    """What a service knows when it cannot take a client's token.

    :param keytab: the keytab's path; None: KRB5_KTNAME, then the system's.
    :param ticket: the label of the client's ticket; None: the token holds none.
    :param principal: the one principal of the keytab whose keys count; None: every key in it.
    :param negotiates: whether it takes Kerberos inside SPNEGO as well.
    """

    keytab: str | None = None
    ticket: TicketLabel | None = None
    principal: str | None = None
    negotiates: bool = False


_NO_TICKET = _Meaning(
    "ticket-missing",
    CredentialError,
    "there is no Kerberos ticket",
    "get one with kinit, or name a keytab",
)
_BAD_CACHE = _Meaning(
    "ccache-unusable",
    CredentialError,
    "the ticket cache cannot be used ({text})",
    "get a new one with kinit",
)
_EXPIRED = _Meaning(
    "ticket-expired", CredentialError, "the Kerberos ticket has expired", "get a new one with kinit"
)
_NO_KEYTAB = _Meaning(
    "keytab-unusable",
    CredentialError,
    "the keytab cannot be used ({text})",
    "name another with keytab",
)
_NO_KEY = _Meaning(
    "keytab-lacks-key",
    CredentialError,
    "the keytab has no such key ({text})",
    "compare with klist -k; export the account's keys again",
)
_NO_KDC = _Meaning(
    "kdc-unreachable",
    KDCUnreachable,
    "no KDC answers ({text})",
    "check the KDC, the network and krb5.conf",
)
_NO_REALM = _Meaning(
    "realm-unknown",
    KDCUnreachable,
    "no KDC of the realm is known ({text})",
    "check the realm, DNS and krb5.conf",
)
_BAD_PASSWORD = _Meaning(
    "key-refused",
    CredentialError,
    "the KDC refused the key or password",
    "it was changed since: export the keytab again",
)
_REVOKED = _Meaning(
    "account-disabled",
    CredentialError,
    "the KDC lets the account in no more: it is disabled, locked, expired, or outside its hours",
    "ask an administrator to enable it",
)
_ACCOUNT_EXPIRED = _Meaning(
    "account-disabled",
    CredentialError,
    "the account has expired",
    "ask an administrator to extend it",
)
_UNKNOWN_SERVICE = _Meaning(
    "service-unknown",  # Samba's and Windows' word for an ambiguous name as well
    KDCRefused,
    "the KDC knows no such service, or finds its name on several accounts",
    "check the name; an administrator registers it with mutauth install, or finds all holders with "
    "mutauth spn query",
)
_SERVICE_REVOKED = _Meaning(
    "service-disabled",
    KDCRefused,
    "the service's account is disabled or expired",
    "ask an administrator to enable it",
)
_OTHER_KEY = _Meaning(
    "ticket-wrong-key",
    PeerNotProven,
    "the ticket was made for another key",
    "get new tickets with kinit; if these are refused too, the service's keytab is old, or the SPN "
    "is on another account",
)
_SKEW = _Meaning(
    "clock-skew",
    AuthenticationError,
    "the clocks of both sides differ by more than Kerberos allows",
    "set both by NTP",
)
_NOT_YET = _Meaning(
    "clock-skew",
    AuthenticationError,
    "the ticket is not valid yet",
    "the clocks differ: set them by NTP",
)
_NO_ENCTYPE = _Meaning(
    "no-common-encryption",
    CredentialError,
    "no encryption type is common to all",
    "allow AES on the accounts (msDS-SupportedEncryptionTypes) and in krb5.conf "
    "(permitted_enctypes)",
)
_NO_KIND_OF_KEY = _Meaning(
    "no-common-encryption",
    CredentialError,
    "there is no key of an encryption type that the KDC takes ({text})",
    "export all of the account's keys again",
)
_UNSAID = _Meaning(
    "peer-refused",
    AuthenticationError,
    "the other side failed and does not say why",
    "its own log does",
)

_MINOR: dict[int, _Meaning] = {
    _KRB5 + 1: _ACCOUNT_EXPIRED,  # KDC_ERR_NAME_EXP
    _KRB5 + 2: _SERVICE_REVOKED,  # KDC_ERR_SERVICE_EXP
    _KRB5 + 6: _Meaning(
        "account-unknown",
        CredentialError,
        "the KDC does not know the principal ({text})",
        "check its name and realm",
    ),  # KDC_ERR_C_PRINCIPAL_UNKNOWN
    _KRB5 + 7: _UNKNOWN_SERVICE,  # KDC_ERR_S_PRINCIPAL_UNKNOWN
    _KRB5 + 8: _Meaning(
        "spn-duplicate",
        KDCRefused,
        "several accounts hold this name",
        "an administrator finds them with mutauth spn duplicates and removes it from all but one",
    ),  # KDC_ERR_PRINCIPAL_NOT_UNIQUE
    _KRB5 + 9: _Meaning(
        "service-disabled",
        KDCRefused,
        "an account has no key",
        "an administrator sets its password",
    ),  # KDC_ERR_NULL_KEY
    _KRB5 + 12: _Meaning(
        "kdc-refused",
        KDCRefused,
        "the KDC's policy forbids it",
        "the account may be disabled or restricted: ask an administrator",
    ),  # KDC_ERR_POLICY
    _KRB5 + 14: _NO_ENCTYPE,  # KDC_ERR_ETYPE_NOSUPP
    _KRB5 + 18: _REVOKED,  # KDC_ERR_CLIENT_REVOKED
    _KRB5 + 19: _SERVICE_REVOKED,  # KDC_ERR_SERVICE_REVOKED
    _KRB5 + 20: _Meaning(
        "ticket-expired",
        CredentialError,
        "the KDC takes the ticket no more",
        "get a new one with kinit",
    ),  # TGT_REVOKED
    _KRB5 + 21: _Meaning(
        "account-disabled", CredentialError, "the account is not valid yet", "ask an administrator"
    ),  # KDC_ERR_CLIENT_NOTYET
    _KRB5 + 23: _Meaning(
        "key-refused",
        CredentialError,
        "the password has expired",
        "change it with kpasswd, and export the keytab again if there is one",
    ),  # KDC_ERR_KEY_EXP
    _KRB5 + 24: _BAD_PASSWORD,  # KDC_ERR_PREAUTH_FAILED
    _KRB5 + 29: _NO_KDC,  # KDC_ERR_SVC_UNAVAILABLE
    _KRB5 + 31: _OTHER_KEY,  # KRB_AP_ERR_BAD_INTEGRITY
    _KRB5 + 32: _EXPIRED,  # KRB_AP_ERR_TKT_EXPIRED
    _KRB5 + 33: _NOT_YET,  # KRB_AP_ERR_TKT_NYV
    _KRB5 + 34: _Meaning(
        "request-replayed", PeerNotProven, "the same request was seen before (replay)", "try again"
    ),
    _KRB5 + 35: _OTHER_KEY,  # KRB_AP_ERR_NOT_US
    _KRB5 + 37: _SKEW,  # KRB_AP_ERR_SKEW
    _KRB5 + 41: _OTHER_KEY,  # KRB_AP_ERR_MODIFIED
    _KRB5 + 44: _OTHER_KEY,  # KRB_AP_ERR_BADKEYVER
    _KRB5 + 45: _OTHER_KEY,  # KRB_AP_ERR_NOKEY
    _KRB5 + 46: _Meaning(
        "not-authenticated", PeerNotProven, "mutual authentication failed"
    ),  # KRB_AP_ERR_MUT_FAIL
    _KRB5 + 60: _UNSAID,  # KRB_ERR_GENERIC
    _KRB5 + 68: _Meaning(
        "account-unknown",
        CredentialError,
        "the account is in another realm",
        "name it with its realm",
    ),  # WRONG_REALM
    _KRB5 + 139: _BAD_CACHE,  # KRB5_CC_BADNAME
    _KRB5 + 140: _BAD_CACHE,  # KRB5_CC_UNKNOWN_TYPE
    _KRB5 + 141: _NO_TICKET,  # KRB5_CC_NOTFOUND
    _KRB5 + 142: _NO_TICKET,  # KRB5_CC_END
    _KRB5 + 144: _OTHER_KEY,  # KRB5KRB_AP_WRONG_PRINC
    _KRB5 + 148: _SKEW,  # KRB5_KDCREP_SKEW
    _KRB5 + 150: _NO_ENCTYPE,  # KRB5_PROG_ETYPE_NOSUPP
    _KRB5 + 154: _NO_REALM,  # KRB5_REALM_UNKNOWN
    _KRB5 + 156: _NO_KDC,  # KRB5_KDC_UNREACH
    _KRB5 + 179: _NO_KEYTAB,  # KRB5_KT_BADNAME
    _KRB5 + 180: _NO_KEYTAB,  # KRB5_KT_UNKNOWN_TYPE
    _KRB5 + 181: _NO_KEY,  # KRB5_KT_NOTFOUND
    _KRB5 + 184: _NO_KEYTAB,  # KRB5_KT_IOERR
    _KRB5 + 193: _BAD_CACHE,  # KRB5_CC_IO
    _KRB5 + 194: _BAD_CACHE,  # KRB5_FCC_PERM
    _KRB5 + 195: _NO_TICKET,  # KRB5_FCC_NOFILE
    _KRB5 + 199: _BAD_CACHE,  # KRB5_CC_FORMAT
    _KRB5 + 200: _NO_ENCTYPE,  # KRB5_CC_NOT_KTYPE
    _KRB5 + 210: _NO_KIND_OF_KEY,  # KRB5_PREAUTH_FAILED: nothing to prove ourselves with
    _KRB5 + 212: _BAD_CACHE,  # KRB5_CCACHE_BADVNO
    _KRB5 + 213: _NO_KEYTAB,  # KRB5_KEYTAB_BADVNO
    _KRB5 + 220: _NO_REALM,  # KRB5_REALM_CANT_RESOLVE
    _KRB5 + 224: _Meaning(
        "realm-unknown",
        CredentialError,
        "no realm is known",
        "name one with realm, or set default_realm in krb5.conf",
    ),  # KRB5_CONFIG_NODEFREALM
    _KRB5 + 230: _NO_KEY,  # KRB5_KT_KVNONOTFOUND
    _KRB5 + 235: _NO_KEYTAB,  # KRB5_KT_FORMAT
    _KRB5 + 236: _NO_ENCTYPE,  # KRB5_NOPERM_ETYPE
    _KRB5 + 237: _NO_ENCTYPE,  # KRB5_CONFIG_ETYPE_NOSUPP
    _K5G + 0: _Meaning(
        "ccache-unusable",
        CredentialError,
        "the ticket cache belongs to another principal",
        "get a ticket with kinit, or drop principal",
    ),  # KG_CCACHE_NOMATCH
    _K5G + 1: _NO_KEY,  # KG_KEYTAB_NOMATCH
}

# Major codes that say enough by themselves, when the minor one is unknown.
_MAJOR: dict[int, _Meaning] = {
    0x00040000: _Meaning(
        "tls-channel-mismatch", ProtocolViolation, "the channel bindings do not match"
    ),  # GSS_S_BAD_BINDINGS
    0x00060000: _Meaning(
        "record-rejected", RecordError, "a message was altered on the way"
    ),  # GSS_S_BAD_SIG
    0x00070000: _NO_TICKET,  # GSS_S_NO_CRED
    0x00090000: _Meaning(
        "token-unreadable", ProtocolViolation, "what the peer sent is no Kerberos token"
    ),  # GSS_S_DEFECTIVE_TOKEN
    0x000A0000: _Meaning(
        "ccache-unusable", CredentialError, "the credentials cannot be used ({text})"
    ),  # GSS_S_DEFECTIVE_CREDENTIAL
    0x000B0000: _EXPIRED,  # GSS_S_CREDENTIALS_EXPIRED
    0x000C0000: _Meaning(
        "session-ended",
        AuthenticationError,
        "the session has ended with its ticket",
        "connect again",
    ),
}
_SUPPLEMENTARY: dict[int, _Meaning] = {  # GSS_S_DUPLICATE_TOKEN and its neighbours
    0x2: _Meaning("record-rejected", RecordError, "a message came twice"),
    0x4: _Meaning("record-rejected", RecordError, "a message is too old"),
    0x8: _Meaning("record-rejected", RecordError, "messages came out of order"),
    0x10: _Meaning("record-rejected", RecordError, "a message is missing"),
}

# What a service says instead, of a client and its token.
_NOT_KERBEROS = _Meaning(
    "not-kerberos",
    ProtocolViolation,
    "its tokens are SPNEGO's or NTLM's, or empty, and this service takes Kerberos' own only",
    "have the client use package=kerberos, or serve with package negotiate",
)
_NO_KERBEROS_INSIDE = _Meaning(
    "not-kerberos",
    ProtocolViolation,
    "its tokens offer NTLM or another package, and this service takes Kerberos only, bare or "
    "inside SPNEGO",
    "have the client use Kerberos: name the host in full, and see with klist that it gets a ticket",
)
_NO_TOKEN = _Meaning(
    "token-unreadable",
    ProtocolViolation,
    "its token cannot be read",
    "check that it speaks to the right port",
)
_OLD_TICKET = _Meaning(
    "ticket-expired",
    PeerNotProven,
    "its ticket has expired",
    "it gets a new one with kinit; check this machine's clock",
)
_ITS_SKEW = _Meaning(
    "clock-skew",
    AuthenticationError,
    "its clock and this machine's differ by more than Kerberos allows",
    "set both by NTP",
)
_NO_REPLAY_CACHE = _Meaning(
    "replay-cache-unusable",
    CredentialError,
    "the service cannot note which requests it has seen ({text})",
    "let this user write there, or set KRB5RCACHEDIR",
)
_NO_MATCH = _Meaning(
    "not-authenticated",
    PeerNotProven,
    "its request does not fit its ticket",
    "it was altered on the way, or made without the ticket's key",
)
_ITS_MINOR: dict[int, _Meaning] = {
    _KRB5 + 31: _NO_MATCH,
    _KRB5 + 32: _OLD_TICKET,
    _KRB5 + 36: _NO_MATCH,
    _KRB5 + 33: _Meaning(
        "clock-skew",
        AuthenticationError,
        "its ticket is not valid yet",
        "the clocks differ: set them by NTP",
    ),
    _KRB5 + 37: _ITS_SKEW,
    **{
        _KRB5 + number: _NO_REPLAY_CACHE for number in (164, 167, 168, 169, 170, 171, 172)
    },  # KRB5_RC_IO and below
    _KRB5 + 236: _Meaning(
        "no-common-encryption",
        CredentialError,
        "its ticket or its session has an encryption type that is not permitted here",
        "compare permitted_enctypes in krb5.conf with msDS-SupportedEncryptionTypes on the "
        "accounts",
    ),
}
_ITS_MAJOR: dict[int, _Meaning] = {
    0x00010000: _NOT_KERBEROS,  # GSS_S_BAD_MECH
    0x00040000: _Meaning(
        "tls-channel-mismatch",
        PeerNotProven,
        "its ticket is bound to another TLS channel",
        "look for what terminates TLS between both sides",
    ),  # GSS_S_BAD_BINDINGS
    0x00070000: _NOT_KERBEROS,  # GSS_S_NO_CRED: we have some for Kerberos only
    0x00090000: _NO_TOKEN,  # GSS_S_DEFECTIVE_TOKEN
    0x000B0000: _OLD_TICKET,  # GSS_S_CREDENTIALS_EXPIRED
}
#: In whatever words MIT reports that no key opened a ticket (krb5/krb/rd_req_dec.c).
_UNOPENED = frozenset(
    _KRB5 + number for number in (35, 41, 44, 45, 144, 179, 180, 181, 184, 213, 230, 235)
)
_COMPARE = "mutauth spn query tells on which account the SPN is, klist -k whose keys these are"
_FAILURE = 0x000D0000  # GSS_S_FAILURE
_ERRNO_LIMIT = 256  # a number below it is the system's, about the keytab's file
#: What a system says of files that cannot be written, and no reader of tokens does (those say
#: EINVAL, ENOMEM, ERANGE).
_OF_FILES = frozenset(
    (
        *(
            errno.EPERM,
            errno.ENOENT,
            errno.EIO,
            errno.EACCES,
            errno.ENOTDIR,
            errno.EISDIR,
            errno.EFBIG,
            errno.ENOSPC,
        ),
        *(errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EDQUOT),
    )
)

_USED_UP = frozenset((errno.EMFILE, errno.ENFILE))

#: The numbers that MIT makes up (lib/gssapi/mechglue: util_errmap.c counts from 100000), below all
#: tables.
_MADE_UP = range(100_001, 1_000_000)
#: What Kerberos returns: the system's numbers, and its tables, of 256 codes at most.
_RETURNED = (
    range(1, _ERRNO_LIMIT),
    *(range(base, base + 256) for base in (_KRB5, _K5G, _GGSS, _ASN1)),
)
_ORIGINAL: dict[int, int] = {}

_DRIVE = re.compile(r"[A-Za-z]")  # what libkrb5 takes for one, on every system
_KEYTAB_NAME = re.compile(r"FILE:(\S+)")
#: Of the library's words, which can quote what a KDC or a token says.
_LONGEST_TEXT = 1000
_MINOR_TEXT = re.compile(r"Minor \(\d+\): (.*)", re.DOTALL)


def minor_code(error: BaseException) -> int:
    """The krb5 code in a GSSAPI or krb5 exception, as a signed number; 0: none."""
    code = getattr(error, "min_code", None)
    if not isinstance(code, int):
        code = getattr(error, "err_code", 0)
    code = code if isinstance(code, int) else 0
    if code in _MADE_UP and isinstance(error, GSSError):
        return _original_code(error, code)
    return code - (1 << 32) if code >= 1 << 31 else code


def _original_code(error: GSSError, made_up: int) -> int:
    """The code that a mechanism returned, of the number that MIT made up for it; that number, when
    none is found.

    Two mechanisms may mean different things by one number, so that MIT gives away each number once
    in a process, and to the next mechanism that returns the same a number from 100001 on.  SPNEGO
    returns what Kerberos inside it has returned before.  Which code it stands for is not told, but
    gss_display_status finds the mechanism's text for either: the code is the one whose text is the
    same.  Codes that nothing has returned yet have none.
    """
    if made_up not in _ORIGINAL:
        text = error.get_all_statuses(made_up, False)
        codes = (code for codes in _RETURNED for code in codes)
        found = [code for code in codes if error.get_all_statuses(code & 0xFFFFFFFF, False) == text]
        if len(found) > 1:  # the texts are this thread's last ones, and may differ the next time
            return made_up
        # A number stands for the same code as long as the process lives.
        _ORIGINAL[made_up] = found[0] if found else made_up
    return _ORIGINAL[made_up]


def _text(error: BaseException) -> str:
    """The library's own words, without its numbers; they name files and principals, never keys."""
    match = _MINOR_TEXT.search(str(error))
    text = (
        match.group(1) if match else str(error).removesuffix(f" {getattr(error, 'err_code', '')}")
    )
    return short_name(text.strip(), _LONGEST_TEXT) or type(error).__name__


def _file_fault(path: Path) -> str:
    """Why a keytab's file cannot be used, as far as the file system tells; empty: that it does not
    tell.
    """
    if not path.exists():
        return "does not exist"
    if not path.is_file():
        return "cannot be read: it is not a regular file"
    return "" if os.access(path, os.R_OK) else "cannot be read by this user"


def _keytab_fault(text: str) -> str:
    """Why a keytab that GSSAPI calls 'nonexistent or empty' cannot be used, as far as the file
    tells.
    """
    named = _KEYTAB_NAME.search(text)
    fault = _file_fault(Path(named.group(1))) if named else ""
    return f"the keytab {named.group(1)} {fault}" if named and fault else ""


def _meaning(error: BaseException, acceptor: Acceptor | None = None) -> _Meaning | None:
    minors, majors = (
        (_MINOR, _MAJOR) if acceptor is None else (_MINOR | _ITS_MINOR, _MAJOR | _ITS_MAJOR)
    )
    minor = minor_code(error)
    if minor in minors:
        return minors[minor]
    if not isinstance(error, GSSError):
        return None
    major = error.maj_code
    routine = major & 0x00FF0000
    if routine in majors:
        meaning = majors[routine]
        return (
            _NO_KERBEROS_INSIDE
            if meaning is _NOT_KERBEROS and acceptor and acceptor.negotiates
            else meaning
        )
    if acceptor is not None and routine == _FAILURE and minor >= 0:
        return _NO_TOKEN  # the framing was Kerberos', and what was in it was not
    return next(
        (meaning for bit, meaning in _SUPPLEMENTARY.items() if not routine and major & bit), None
    )


def _unopened(error: BaseException, subject: str, acceptor: Acceptor) -> MutualAuthError:
    """Why no key opened a client's ticket: told from the keytab and the ticket's label."""
    back = "put it back: until then nobody gets in"
    path = acceptor.keytab or "of the default name"
    try:
        path = keytab_path(acceptor.keytab or krb5.kt_default_name(krb5.init_context()).decode())
        if fault := _file_fault(Path(path)):
            return CredentialError(f"keytab {path}", f"it {fault}", back, code="keytab-unusable")
        held = keytab_keys(path)
    except CredentialError as other:
        return other
    except krb5.Krb5Error as unusable:
        if minor_code(unusable) in _USED_UP:
            return DescriptorsUsedUp(subject)
        cause = f"it cannot be used: {_text(unusable)}"
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
        return _NO_REPLAY_CACHE.error(subject, _text(error))
    if acceptor.ticket is None:
        return PeerNotProven(
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
            return PeerNotProven(
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
    return PeerNotProven(subject, cause, _COMPARE, code="ticket-wrong-key")


def kind_name(kind: int) -> str:
    """The name of an encryption type, or its number where it has no name."""
    try:
        return krb5.enctype_to_name(kind)
    except (ValueError, OverflowError):  # a stranger's ticket may name any number
        return f"encryption type {kind}"


def keytab_path(name: str) -> str:
    """The path of a keytab's file, by the keytab's name as libkrb5 reads it (``krb5_kt_resolve``).

    :param name: a path, or one with its type, ``FILE:`` or ``WRFILE:``.
    :raises CredentialError: when it is of another type, such as ``MEMORY:``, and so no file that
        could be looked at.
    """
    kind, colon, rest = name.partition(":")
    if not colon or name.startswith("/") or _DRIVE.fullmatch(kind):
        return name
    if kind in ("FILE", "WRFILE"):
        return rest
    cause = (
        f"it is of type {short_name(kind)!r}, and a service's or client's keytab has to be a file"
    )
    raise CredentialError(f"keytab {name}", cause, "name one as FILE:PATH", code="keytab-unusable")


@frozen
class KeytabKey:
    """One entry of a keytab, without the key itself."""

    principal: str
    version: int
    kind: int


def keytab_keys(path: str) -> tuple[KeytabKey, ...]:
    """What a keytab holds, in its order.

    :param path: the file.
    :raises krb5.Krb5Error: when the file is no keytab, or cannot be read.
    """
    entries = krb5.kt_resolve(krb5.init_context(), f"FILE:{path}".encode())
    return tuple(
        KeytabKey(str(entry.principal), entry.kvno, entry.key.enctype) for entry in entries
    )


def explain(
    error: BaseException, subject: str, acceptor: Acceptor | None = None
) -> MutualAuthError:
    """Say what a failure of GSSAPI or krb5 means and who has to act.

    :param error: what was raised: a :class:`GSSError`, a ``Krb5Error``, or
        anything else that a hostile token makes these libraries raise.
    :param subject: what was attempted on: an SPN, a keytab, a principal; for
        an acceptor the client.  Where the fault is this machine's the error
        names that instead: a keytab, or :data:`~mutauth_twisted.errors.REPLAY_CACHE`.
    :param acceptor: what a service knows besides; None: a client failed, or
        got the service's KRB-ERROR.
    :return: an error to raise ``from`` the given one: :class:`CredentialError`
        for our tickets, keys and account, :class:`KDCError` and below for
        what the KDC does, and below :class:`PeerError` what the other side
        did or is.  An error that is one of ours already is returned as it is.
    """
    if isinstance(error, MutualAuthError):
        return error
    minor = minor_code(error)
    if minor in _USED_UP:
        return DescriptorsUsedUp(subject)
    if acceptor is not None and (minor in _UNOPENED or 0 < minor < _ERRNO_LIMIT):
        return _unopened(error, subject, acceptor)
    text = _text(error)
    meaning = _meaning(error, acceptor)
    if meaning is None:
        if isinstance(error, (GSSError, OSError)) or minor:
            return AuthenticationError(subject, f"Kerberos failed: {text}", code="kerberos-failed")
        cause = f"the token cannot be read ({type(error).__name__})"
        return ProtocolViolation(subject, cause, code="token-unreadable")
    if meaning in (_NO_KEY, _NO_KEYTAB) and (fault := _keytab_fault(text)):
        return CredentialError(
            subject,
            fault,
            "name the service's keytab; an administrator exports it",
            code="keytab-unusable",
        )
    if meaning is _NO_REPLAY_CACHE:  # whose numbers nothing but the cache's own code knows
        subject = REPLAY_CACHE
    elif acceptor is not None and meaning.kind is CredentialError:
        meaning = evolve(meaning, kind=ToldByTicket)
    return meaning.error(subject, text, minor - _KRB5)


def record_fault(error: BaseException) -> str:
    """What is wrong with a record that GSSAPI refused.

    :param error: what was raised.
    """
    if (
        minor_code(error) == _KRB5 + 31
    ):  # KRB_AP_ERR_BAD_INTEGRITY, which says of a token that its key is another
        return "it was altered on the way"
    return explain(error, "record").cause
