"""What a Kerberos failure means, in one line for people.

GSSAPI reports a failure as a major code (RFC 2744, section 3.9.1), which
rarely says anything, and a minor code, which for the Kerberos mechanism is an
error of MIT krb5's tables (``krb5.h``, whose first 128 are the KRB-ERROR codes
of RFC 4120, section 7.5.9).  :func:`explain` judges by these numbers, never by
the text, which depends on version and language; the text is only quoted where
no number is known.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from attrs import frozen
from gssapi.raw.misc import GSSError

from mutauth_twisted.errors import (
    AuthenticationError,
    CredentialError,
    KDCUnreachable,
    MutualAuthError,
    PeerNotProven,
    ProtocolViolation,
    RecordError,
)

_KRB5 = -1765328384  # ERROR_TABLE_BASE_krb5; KRB-ERROR codes are added to it (RFC 4120, section 7.5.9)
_K5G = 39756032  # ERROR_TABLE_BASE_k5g, the errors of the mechanism itself


@frozen
class _Meaning:
    kind: type[MutualAuthError]
    cause: str
    remedy: str = ""


_NO_TICKET = _Meaning(CredentialError, "there is no Kerberos ticket", "get one with kinit, or name a keytab")
_BAD_CACHE = _Meaning(CredentialError, "the ticket cache cannot be used ({text})", "get a new one with kinit")
_EXPIRED = _Meaning(CredentialError, "the Kerberos ticket has expired", "get a new one with kinit")
_NO_KEYTAB = _Meaning(CredentialError, "the keytab cannot be used ({text})", "name another with keytab")
_NO_KEY = _Meaning(
    CredentialError, "the keytab has no such key ({text})", "compare with klist -k; export the account's keys again"
)
_NO_KDC = _Meaning(KDCUnreachable, "no KDC answers ({text})", "check the KDC, the network and krb5.conf")
_BAD_PASSWORD = _Meaning(
    CredentialError, "the KDC refused the key or password", "it was changed since: export the keytab again"
)
_REVOKED = _Meaning(CredentialError, "the account is disabled, locked or expired", "ask an administrator to enable it")
_UNKNOWN_SERVICE = _Meaning(
    PeerNotProven, "the KDC knows no such service", "check the name; an administrator registers it with mutauth install"
)
_OTHER_KEY = _Meaning(
    PeerNotProven,
    "the ticket was made for another key",
    "the SPN is on another account, or the service's keytab is old: export it again",
)
_SKEW = _Meaning(AuthenticationError, "the clocks differ by more than the KDC allows", "set this machine's clock (NTP)")
_NO_ENCTYPE = _Meaning(
    CredentialError, "no encryption type is common to both", "allow AES on the account (msDS-SupportedEncryptionTypes)"
)

_MINOR: dict[int, _Meaning] = {
    _KRB5 + 1: _REVOKED,  # KDC_ERR_NAME_EXP
    _KRB5 + 6: _Meaning(
        CredentialError, "the KDC does not know the principal ({text})", "check its name and realm"
    ),  # KDC_ERR_C_PRINCIPAL_UNKNOWN
    _KRB5 + 7: _UNKNOWN_SERVICE,  # KDC_ERR_S_PRINCIPAL_UNKNOWN
    _KRB5 + 8: _Meaning(
        PeerNotProven,
        "several accounts hold this name",
        "an administrator finds them with mutauth spn duplicates and removes it from all but one",
    ),  # KDC_ERR_PRINCIPAL_NOT_UNIQUE
    _KRB5 + 12: _Meaning(CredentialError, "the KDC's policy forbids it ({text})", "ask an administrator"),
    _KRB5 + 14: _NO_ENCTYPE,  # KDC_ERR_ETYPE_NOSUPP
    _KRB5 + 18: _REVOKED,  # KDC_ERR_CLIENT_REVOKED
    _KRB5 + 23: _Meaning(CredentialError, "the password has expired", "change it with kpasswd"),  # KDC_ERR_KEY_EXP
    _KRB5 + 24: _BAD_PASSWORD,  # KDC_ERR_PREAUTH_FAILED
    _KRB5 + 29: _NO_KDC,  # KDC_ERR_SVC_UNAVAILABLE
    _KRB5 + 31: _OTHER_KEY,  # KRB_AP_ERR_BAD_INTEGRITY
    _KRB5 + 32: _EXPIRED,  # KRB_AP_ERR_TKT_EXPIRED
    _KRB5 + 33: _SKEW,  # KRB_AP_ERR_TKT_NYV
    _KRB5 + 34: _Meaning(PeerNotProven, "the same request was seen before (replay)", "try again"),
    _KRB5 + 35: _OTHER_KEY,  # KRB_AP_ERR_NOT_US
    _KRB5 + 37: _SKEW,  # KRB_AP_ERR_SKEW
    _KRB5 + 41: _OTHER_KEY,  # KRB_AP_ERR_MODIFIED
    _KRB5 + 44: _OTHER_KEY,  # KRB_AP_ERR_BADKEYVER
    _KRB5 + 45: _OTHER_KEY,  # KRB_AP_ERR_NOKEY
    _KRB5 + 46: _Meaning(PeerNotProven, "mutual authentication failed"),  # KRB_AP_ERR_MUT_FAIL
    _KRB5 + 139: _BAD_CACHE,  # KRB5_CC_BADNAME
    _KRB5 + 140: _BAD_CACHE,  # KRB5_CC_UNKNOWN_TYPE
    _KRB5 + 141: _NO_TICKET,  # KRB5_CC_NOTFOUND
    _KRB5 + 144: _OTHER_KEY,  # KRB5KRB_AP_WRONG_PRINC
    _KRB5 + 154: _NO_KDC,  # KRB5_REALM_UNKNOWN
    _KRB5 + 156: _NO_KDC,  # KRB5_KDC_UNREACH
    _KRB5 + 179: _NO_KEYTAB,  # KRB5_KT_BADNAME
    _KRB5 + 180: _NO_KEYTAB,  # KRB5_KT_UNKNOWN_TYPE
    _KRB5 + 181: _NO_KEY,  # KRB5_KT_NOTFOUND
    _KRB5 + 184: _NO_KEYTAB,  # KRB5_KT_IOERR
    _KRB5 + 193: _BAD_CACHE,  # KRB5_CC_IO
    _KRB5 + 194: _BAD_CACHE,  # KRB5_FCC_PERM
    _KRB5 + 195: _NO_TICKET,  # KRB5_FCC_NOFILE
    _KRB5 + 199: _BAD_CACHE,  # KRB5_CC_FORMAT
    _KRB5 + 212: _BAD_CACHE,  # KRB5_CCACHE_BADVNO
    _KRB5 + 213: _NO_KEYTAB,  # KRB5_KEYTAB_BADVNO
    _KRB5 + 220: _NO_KDC,  # KRB5_REALM_CANT_RESOLVE
    _KRB5 + 224: _Meaning(
        CredentialError, "no realm is known", "name one with realm, or set default_realm in krb5.conf"
    ),  # KRB5_CONFIG_NODEFREALM
    _KRB5 + 230: _NO_KEY,  # KRB5_KT_KVNONOTFOUND
    _KRB5 + 235: _NO_KEYTAB,  # KRB5_KT_FORMAT
    _K5G + 0: _Meaning(
        CredentialError, "the ticket cache belongs to another principal", "get a ticket with kinit, or drop principal"
    ),  # KG_CCACHE_NOMATCH
    _K5G + 1: _NO_KEY,  # KG_KEYTAB_NOMATCH
}

# Major codes that say enough by themselves, when the minor one is unknown.
_MAJOR: dict[int, _Meaning] = {
    0x00040000: _Meaning(ProtocolViolation, "the channel bindings do not match"),  # GSS_S_BAD_BINDINGS
    0x00060000: _Meaning(RecordError, "a message was altered on the way"),  # GSS_S_BAD_SIG
    0x00070000: _NO_TICKET,  # GSS_S_NO_CRED
    0x00090000: _Meaning(ProtocolViolation, "what the peer sent is no Kerberos token"),  # GSS_S_DEFECTIVE_TOKEN
    0x000A0000: _Meaning(CredentialError, "the credentials cannot be used ({text})"),  # GSS_S_DEFECTIVE_CREDENTIAL
    0x000B0000: _EXPIRED,  # GSS_S_CREDENTIALS_EXPIRED
    0x000C0000: _Meaning(AuthenticationError, "the session has ended with its ticket", "connect again"),
}
_SUPPLEMENTARY: dict[int, _Meaning] = {  # GSS_S_DUPLICATE_TOKEN and its neighbours
    0x2: _Meaning(RecordError, "a message came twice"),
    0x4: _Meaning(RecordError, "a message is too old"),
    0x8: _Meaning(RecordError, "messages came out of order"),
    0x10: _Meaning(RecordError, "a message is missing"),
}

_KEYTAB_NAME = re.compile(r"FILE:(\S+)")
_MINOR_TEXT = re.compile(r"Minor \(\d+\): (.*)", re.DOTALL)


def minor_code(error: BaseException) -> int:
    """The krb5 code in a GSSAPI or krb5 exception, as a signed number; 0: none."""
    code = getattr(error, "min_code", None)
    if not isinstance(code, int):
        code = getattr(error, "err_code", 0)
    code = code if isinstance(code, int) else 0
    return code - (1 << 32) if code >= 1 << 31 else code


def _text(error: BaseException) -> str:
    """The library's own words, without its numbers; they name files and principals, never keys."""
    match = _MINOR_TEXT.search(str(error))
    return (match.group(1) if match else str(error)).strip() or type(error).__name__


def _keytab_fault(text: str) -> str:
    """Why a keytab that GSSAPI calls 'nonexistent or empty' cannot be used, as far as the file tells."""
    named = _KEYTAB_NAME.search(text)
    if named is None:
        return ""
    path = Path(named.group(1))
    if not path.exists():
        return f"the keytab {path} does not exist"
    if not path.is_file() or not os.access(path, os.R_OK):
        return f"the keytab {path} cannot be read by this user"
    return ""


def _meaning(error: BaseException) -> _Meaning | None:
    minor = minor_code(error)
    if minor in _MINOR:
        return _MINOR[minor]
    if not isinstance(error, GSSError):
        return None
    major = error.maj_code
    routine = major & 0x00FF0000
    if routine in _MAJOR:
        return _MAJOR[routine]
    return next((meaning for bit, meaning in _SUPPLEMENTARY.items() if not routine and major & bit), None)


def explain(error: BaseException, subject: str) -> MutualAuthError:
    """Say what a failure of GSSAPI or krb5 means and who has to act.

    :param error: what was raised: a :class:`GSSError`, a ``Krb5Error``, or
        anything else that a hostile token makes these libraries raise.
    :param subject: what was attempted on: an SPN, a keytab, a principal.
    :return: an error to raise ``from`` the given one: :class:`CredentialError`
        for our tickets and keys, :class:`KDCUnreachable`, and below
        :class:`PeerError` what the other side did or is.  An error that is
        one of ours already is returned as it is.
    """
    if isinstance(error, MutualAuthError):
        return error
    text = _text(error)
    meaning = _meaning(error)
    if meaning is None:
        if isinstance(error, (GSSError, OSError)) or minor_code(error):
            return AuthenticationError(subject, f"Kerberos failed: {text}")
        return ProtocolViolation(subject, f"the token cannot be read ({type(error).__name__})")
    if meaning in (_NO_KEY, _NO_KEYTAB) and (fault := _keytab_fault(text)):
        return CredentialError(subject, fault, "name the service's keytab; an administrator exports it")
    return meaning.kind(subject, meaning.cause.format(text=text), meaning.remedy)
