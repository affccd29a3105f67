"""Meaning of a Kerberos failure, in one line for people.

GSSAPI reports a failure as a major code (RFC 2744, section 3.9.1), which
rarely says anything, and a minor code, which for the Kerberos mechanism is an
error of MIT krb5's tables (``krb5.h``, whose first 128 are the KRB-ERROR codes
of RFC 4120, section 7.5.9).  These numbers decide, never the text, which depends
on version and language; the text is only quoted where no number is known.

The same number means one thing to a client and another to a service: see
:mod:`~mutauth_twisted.kerberos.refusals`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping

import krb5
from attrs import frozen
from gssapi.raw.misc import GSSError

from mutauth_twisted.errors import (
    AuthenticationError,
    CredentialError,
    DescriptorsUsedUp,
    KDCRefused,
    KDCUnreachable,
    MutualAuthError,
    PeerNotAuthenticated,
    ProtocolViolation,
    RecordError,
)
from mutauth_twisted.files import file_fault
from mutauth_twisted.kerberos.codes import (
    ASN1,
    GGSS,
    K5G,
    KRB5,
    ROUTINE_MASK,
    GssKrb5,
    Krb5,
    Routine,
    Supplementary,
)
from mutauth_twisted.text import short_name

#: The fix for an account whose tickets are not AES, for an administrator.
AES_FOR_ACCOUNT = (
    "set msDS-SupportedEncryptionTypes of the service's account to 24, then a new password; export "
    "its keytab again"
)


@frozen
class Meaning:
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


_NO_TICKET = Meaning(
    "ticket-missing",
    CredentialError,
    "there is no Kerberos ticket",
    "get one with kinit, or name a keytab",
)
_BAD_CACHE = Meaning(
    "ccache-unusable",
    CredentialError,
    "the ticket cache cannot be used ({text})",
    "get a new one with kinit",
)
_EXPIRED = Meaning(
    "ticket-expired", CredentialError, "the Kerberos ticket has expired", "get a new one with kinit"
)
_NO_KEYTAB = Meaning(
    "keytab-unusable",
    CredentialError,
    "the keytab cannot be used ({text})",
    "name another with keytab",
)
_NO_KEY = Meaning(
    "keytab-lacks-key",
    CredentialError,
    "the keytab has no such key ({text})",
    "compare with klist -k; export the account's keys again",
)
_NO_KDC = Meaning(
    "kdc-unreachable",
    KDCUnreachable,
    "no KDC answers ({text})",
    "check the KDC, the network and krb5.conf",
)
_NO_REALM = Meaning(
    "realm-unknown",
    KDCUnreachable,
    "no KDC of the realm is known ({text})",
    "check the realm, DNS and krb5.conf",
)
_BAD_PASSWORD = Meaning(
    "key-refused",
    CredentialError,
    "the KDC refused the key or password",
    "if it was changed, export the keytab again",
)
_REVOKED = Meaning(
    "account-disabled",
    CredentialError,
    "the KDC denies the account: it is disabled, locked, expired, or outside its hours",
    "ask an administrator to enable it",
)
_ACCOUNT_EXPIRED = Meaning(
    "account-disabled",
    CredentialError,
    "the account has expired",
    "ask an administrator to extend it",
)
_UNKNOWN_SERVICE = Meaning(
    "service-unknown",  # Samba's and Windows' word for an ambiguous name as well
    KDCRefused,
    "the KDC knows no such service, or finds its name on several accounts",
    "check the name; an administrator registers it with mutauth install, or finds all holders with "
    "mutauth spn query",
)
_SERVICE_REVOKED = Meaning(
    "service-disabled",
    KDCRefused,
    "the service's account is disabled or expired",
    "ask an administrator to enable it",
)
_OTHER_KEY = Meaning(
    "ticket-wrong-key",
    PeerNotAuthenticated,
    "the ticket was made for another key",
    "get new tickets with kinit; if these are refused too, the service's keytab is old, or the SPN "
    "is on another account",
)
_SKEW = Meaning(
    "clock-skew",
    AuthenticationError,
    "the clocks of both sides differ by more than Kerberos allows",
    "synchronise both with NTP",
)
_NOT_YET = Meaning(
    "clock-skew",
    AuthenticationError,
    "the ticket is not valid yet",
    "the clocks differ: synchronise them with NTP",
)
_NO_ENCTYPE = Meaning(
    "no-common-encryption",
    CredentialError,
    "no encryption type is common to all",
    "allow AES on the accounts (msDS-SupportedEncryptionTypes) and in krb5.conf "
    "(permitted_enctypes)",
)
_NO_KIND_OF_KEY = Meaning(
    "no-common-encryption",
    CredentialError,
    "there is no key of an encryption type that the KDC takes ({text})",
    "export all of the account's keys again",
)
_UNSAID = Meaning(
    "peer-refused",
    AuthenticationError,
    "the other side failed and gave no reason",
    "its log says why",
)

_BY_KRB5: dict[Krb5, Meaning] = {
    Krb5.KDC_ERR_NAME_EXP: _ACCOUNT_EXPIRED,
    Krb5.KDC_ERR_SERVICE_EXP: _SERVICE_REVOKED,
    Krb5.KDC_ERR_C_PRINCIPAL_UNKNOWN: Meaning(
        "account-unknown",
        CredentialError,
        "the KDC does not know the principal ({text})",
        "check its name and realm",
    ),
    Krb5.KDC_ERR_S_PRINCIPAL_UNKNOWN: _UNKNOWN_SERVICE,
    Krb5.KDC_ERR_PRINCIPAL_NOT_UNIQUE: Meaning(
        "spn-duplicate",
        KDCRefused,
        "several accounts hold this name",
        "an administrator finds them with mutauth spn duplicates and removes it from all but one",
    ),
    Krb5.KDC_ERR_NULL_KEY: Meaning(
        "service-disabled",
        KDCRefused,
        "an account has no key",
        "an administrator sets its password",
    ),
    Krb5.KDC_ERR_POLICY: Meaning(
        "kdc-refused",
        KDCRefused,
        "the KDC's policy forbids it",
        "the account may be disabled or restricted: ask an administrator",
    ),
    Krb5.KDC_ERR_ETYPE_NOSUPP: _NO_ENCTYPE,
    Krb5.KDC_ERR_CLIENT_REVOKED: _REVOKED,
    Krb5.KDC_ERR_SERVICE_REVOKED: _SERVICE_REVOKED,
    Krb5.KDC_ERR_TGT_REVOKED: Meaning(
        "ticket-expired",
        CredentialError,
        "the KDC no longer accepts the ticket",
        "get a new one with kinit",
    ),
    Krb5.KDC_ERR_CLIENT_NOTYET: Meaning(
        "account-disabled", CredentialError, "the account is not valid yet", "ask an administrator"
    ),
    Krb5.KDC_ERR_KEY_EXP: Meaning(
        "key-refused",
        CredentialError,
        "the password has expired",
        "change it with kpasswd, and export the keytab again if there is one",
    ),
    Krb5.KDC_ERR_PREAUTH_FAILED: _BAD_PASSWORD,
    Krb5.KDC_ERR_SVC_UNAVAILABLE: _NO_KDC,
    Krb5.KRB_AP_ERR_BAD_INTEGRITY: _OTHER_KEY,
    Krb5.KRB_AP_ERR_TKT_EXPIRED: _EXPIRED,
    Krb5.KRB_AP_ERR_TKT_NYV: _NOT_YET,
    Krb5.KRB_AP_ERR_REPEAT: Meaning(
        "request-replayed",
        PeerNotAuthenticated,
        "the same request was seen before (replay)",
        "try again",
    ),
    Krb5.KRB_AP_ERR_NOT_US: _OTHER_KEY,
    Krb5.KRB_AP_ERR_SKEW: _SKEW,
    Krb5.KRB_AP_ERR_MODIFIED: _OTHER_KEY,
    Krb5.KRB_AP_ERR_BADKEYVER: _OTHER_KEY,
    Krb5.KRB_AP_ERR_NOKEY: _OTHER_KEY,
    Krb5.KRB_AP_ERR_MUT_FAIL: Meaning(
        "not-authenticated", PeerNotAuthenticated, "mutual authentication failed"
    ),
    Krb5.KRB_ERR_GENERIC: _UNSAID,
    Krb5.KDC_ERR_WRONG_REALM: Meaning(
        "account-unknown",
        CredentialError,
        "the account is in another realm",
        "name it with its realm",
    ),
    Krb5.KRB5_CC_BADNAME: _BAD_CACHE,
    Krb5.KRB5_CC_UNKNOWN_TYPE: _BAD_CACHE,
    Krb5.KRB5_CC_NOTFOUND: _NO_TICKET,
    Krb5.KRB5_CC_END: _NO_TICKET,
    Krb5.KRB_AP_WRONG_PRINC: _OTHER_KEY,
    Krb5.KRB5_KDCREP_SKEW: _SKEW,
    Krb5.KRB5_PROG_ETYPE_NOSUPP: _NO_ENCTYPE,
    Krb5.KRB5_REALM_UNKNOWN: _NO_REALM,
    Krb5.KRB5_KDC_UNREACH: _NO_KDC,
    Krb5.KRB5_KT_BADNAME: _NO_KEYTAB,
    Krb5.KRB5_KT_UNKNOWN_TYPE: _NO_KEYTAB,
    Krb5.KRB5_KT_NOTFOUND: _NO_KEY,
    Krb5.KRB5_KT_IOERR: _NO_KEYTAB,
    Krb5.KRB5_CC_IO: _BAD_CACHE,
    Krb5.KRB5_FCC_PERM: _BAD_CACHE,
    Krb5.KRB5_FCC_NOFILE: _NO_TICKET,
    Krb5.KRB5_CC_FORMAT: _BAD_CACHE,
    Krb5.KRB5_CC_NOT_KTYPE: _NO_ENCTYPE,
    Krb5.KRB5_PREAUTH_FAILED: _NO_KIND_OF_KEY,
    Krb5.KRB5_CCACHE_BADVNO: _BAD_CACHE,
    Krb5.KRB5_KEYTAB_BADVNO: _NO_KEYTAB,
    Krb5.KRB5_REALM_CANT_RESOLVE: _NO_REALM,
    Krb5.KRB5_CONFIG_NODEFREALM: Meaning(
        "realm-unknown",
        CredentialError,
        "no realm is known",
        "name one with realm, or set default_realm in krb5.conf",
    ),
    Krb5.KRB5_KT_KVNONOTFOUND: _NO_KEY,
    Krb5.KRB5_KT_FORMAT: _NO_KEYTAB,
    Krb5.KRB5_NOPERM_ETYPE: _NO_ENCTYPE,
    Krb5.KRB5_CONFIG_ETYPE_NOSUPP: _NO_ENCTYPE,
}
_BY_K5G: dict[GssKrb5, Meaning] = {
    GssKrb5.KG_CCACHE_NOMATCH: Meaning(
        "ccache-unusable",
        CredentialError,
        "the ticket cache belongs to another principal",
        "get a ticket with kinit, or drop principal",
    ),
    GssKrb5.KG_KEYTAB_NOMATCH: _NO_KEY,
}
MINOR = {
    **{KRB5 + number: meaning for number, meaning in _BY_KRB5.items()},
    **{K5G + number: meaning for number, meaning in _BY_K5G.items()},
}

# Major codes that say enough by themselves, when the minor one is unknown.
MAJOR: dict[int, Meaning] = {
    Routine.BAD_BINDINGS: Meaning(
        "tls-channel-mismatch", ProtocolViolation, "the channel bindings do not match"
    ),
    Routine.BAD_SIG: Meaning("record-rejected", RecordError, "a message was altered on the way"),
    Routine.NO_CRED: _NO_TICKET,
    Routine.DEFECTIVE_TOKEN: Meaning(
        "token-unreadable", ProtocolViolation, "what the peer sent is not a Kerberos token"
    ),
    Routine.DEFECTIVE_CREDENTIAL: Meaning(
        "ccache-unusable", CredentialError, "the credentials cannot be used ({text})"
    ),
    Routine.CREDENTIALS_EXPIRED: _EXPIRED,
    Routine.CONTEXT_EXPIRED: Meaning(
        "session-ended",
        AuthenticationError,
        "the session has ended with its ticket",
        "connect again",
    ),
}
_SUPPLEMENTARY = {
    bit: Meaning("record-rejected", RecordError, cause)
    for bit, cause in (
        (Supplementary.DUPLICATE_TOKEN, "a message came twice"),
        (Supplementary.OLD_TOKEN, "a message is too old"),
        (Supplementary.UNSEQ_TOKEN, "messages came out of order"),
        (Supplementary.GAP_TOKEN, "a message is missing"),
    )
}

#: A number below it is the system's.
ERRNO_LIMIT = 256
#: The system's numbers for no more descriptors.
USED_UP = frozenset((errno.EMFILE, errno.ENFILE))

#: The numbers that MIT makes up (lib/gssapi/mechglue: util_errmap.c counts from 100000), below all
#: tables.
_MADE_UP = range(100_001, 1_000_000)
#: What Kerberos returns: the system's numbers, and its tables, of 256 codes at most.
_RETURNED = (
    range(1, ERRNO_LIMIT),
    *(range(base, base + 256) for base in (KRB5, K5G, GGSS, ASN1)),
)
_ORIGINAL: dict[int, int] = {}

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


def text_of(error: BaseException) -> str:
    """The library's own words, without its numbers; they name files and principals, never keys."""
    match = _MINOR_TEXT.search(str(error))
    text = (
        match.group(1) if match else str(error).removesuffix(f" {getattr(error, 'err_code', '')}")
    )
    return short_name(text.strip(), _LONGEST_TEXT) or type(error).__name__


def _keytab_fault(text: str) -> str:
    """Fault of a keytab that GSSAPI calls 'nonexistent or empty', as far as the file
    tells.
    """
    named = _KEYTAB_NAME.search(text)
    fault = file_fault(named.group(1)) if named else ""
    return f"the keytab {named.group(1)} {fault}" if named and fault else ""


def meaning_of(
    error: BaseException,
    minors: Mapping[int, Meaning] = MINOR,
    majors: Mapping[int, Meaning] = MAJOR,
) -> Meaning | None:
    """Look a failure up; None: no table has it.

    :param minors: the meanings of minor codes, which go first.
    :param majors: those of routine errors.
    """
    minor = minor_code(error)
    if minor in minors:
        return minors[minor]
    if not isinstance(error, GSSError):
        return None
    routine = error.maj_code & ROUTINE_MASK
    if routine:
        return majors.get(routine)
    return next((each for bit, each in _SUPPLEMENTARY.items() if error.maj_code & bit), None)


def explain(error: BaseException, subject: str) -> MutualAuthError:
    """Convert a failure of GSSAPI or krb5 into an error that says who has to act.

    :param error: what was raised: a :class:`GSSError`, a ``Krb5Error``, or
        anything else that a hostile token makes these libraries raise.
    :param subject: what was attempted on: an SPN, a keytab, a principal.
    :return: an error to raise ``from`` the given one: :class:`CredentialError`
        for our tickets, keys and account, :class:`KDCError` and below for
        what the KDC does, and below :class:`PeerError` what the other side
        did or is.  An error that is one of ours already is returned as it is.
    """
    if isinstance(error, MutualAuthError):
        return error
    minor = minor_code(error)
    if minor in USED_UP:
        return DescriptorsUsedUp(subject)
    text = text_of(error)
    meaning = meaning_of(error)
    if meaning is None:
        if isinstance(error, (GSSError, OSError)) or minor:
            return AuthenticationError(subject, f"Kerberos failed: {text}", code="kerberos-failed")
        cause = f"the token cannot be read ({type(error).__name__})"
        return ProtocolViolation(subject, cause, code="token-unreadable")
    if meaning in (_NO_KEY, _NO_KEYTAB) and (fault := _keytab_fault(text)):
        remedy = "name the service's keytab; an administrator exports it"
        return CredentialError(subject, fault, remedy, code="keytab-unusable")
    return meaning.error(subject, text, minor - KRB5)


def kind_name(kind: int) -> str:
    """Name of an encryption type, or its number where it has no name."""
    try:
        return krb5.enctype_to_name(kind)
    except (ValueError, OverflowError):  # a stranger's ticket may name any number
        return f"encryption type {kind}"


def record_fault(error: BaseException) -> str:
    """Fault of a record that GSSAPI refused, for people.

    :param error: what was raised.
    """
    # Which says of a token that its key is another.
    if minor_code(error) == KRB5 + Krb5.KRB_AP_ERR_BAD_INTEGRITY:
        return "it was altered on the way"
    return explain(error, "record").cause
