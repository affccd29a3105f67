"""Numbers of Kerberos' and GSSAPI's failures, by their names."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

# Bases of MIT's error tables: a minor code is a base and a number in its table.
KRB5: Final = -1765328384  # ERROR_TABLE_BASE_krb5
K5G: Final = 39756032  # ERROR_TABLE_BASE_k5g, the errors of the mechanism itself
GGSS: Final = -2045022976  # ERROR_TABLE_BASE_ggss, those of GSSAPI's framing
ASN1: Final = 1859794432  # ERROR_TABLE_BASE_asn1


class Krb5(IntEnum):
    """Numbers in MIT's table krb5 (``krb5.h``); up to 127 the codes of RFC 4120, section 7.5.9."""

    KDC_ERR_NAME_EXP = 1
    KDC_ERR_SERVICE_EXP = 2
    KDC_ERR_C_PRINCIPAL_UNKNOWN = 6
    KDC_ERR_S_PRINCIPAL_UNKNOWN = 7
    KDC_ERR_PRINCIPAL_NOT_UNIQUE = 8
    KDC_ERR_NULL_KEY = 9
    KDC_ERR_POLICY = 12
    KDC_ERR_ETYPE_NOSUPP = 14
    KDC_ERR_CLIENT_REVOKED = 18
    KDC_ERR_SERVICE_REVOKED = 19
    KDC_ERR_TGT_REVOKED = 20
    KDC_ERR_CLIENT_NOTYET = 21
    KDC_ERR_KEY_EXP = 23
    KDC_ERR_PREAUTH_FAILED = 24
    KDC_ERR_SVC_UNAVAILABLE = 29
    KRB_AP_ERR_BAD_INTEGRITY = 31
    KRB_AP_ERR_TKT_EXPIRED = 32
    KRB_AP_ERR_TKT_NYV = 33
    KRB_AP_ERR_REPEAT = 34
    KRB_AP_ERR_NOT_US = 35
    KRB_AP_ERR_BADMATCH = 36
    KRB_AP_ERR_SKEW = 37
    KRB_AP_ERR_MODIFIED = 41
    KRB_AP_ERR_BADKEYVER = 44
    KRB_AP_ERR_NOKEY = 45
    KRB_AP_ERR_MUT_FAIL = 46
    KRB_ERR_GENERIC = 60
    KDC_ERR_WRONG_REALM = 68
    KRB5_CC_BADNAME = 139
    KRB5_CC_UNKNOWN_TYPE = 140
    KRB5_CC_NOTFOUND = 141
    KRB5_CC_END = 142
    KRB_AP_WRONG_PRINC = 144
    KRB5_KDCREP_SKEW = 148
    KRB5_PROG_ETYPE_NOSUPP = 150
    KRB5_REALM_UNKNOWN = 154
    KRB5_KDC_UNREACH = 156
    KRB5_RC_IO = 164
    KRB5_RC_IO_EOF = 167
    KRB5_RC_IO_MALLOC = 168
    KRB5_RC_IO_PERM = 169
    KRB5_RC_IO_IO = 170
    KRB5_RC_IO_UNKNOWN = 171
    KRB5_RC_IO_SPACE = 172
    KRB5_KT_BADNAME = 179
    KRB5_KT_UNKNOWN_TYPE = 180
    KRB5_KT_NOTFOUND = 181
    KRB5_KT_IOERR = 184
    KRB5_CC_IO = 193
    KRB5_FCC_PERM = 194
    KRB5_FCC_NOFILE = 195
    KRB5_CC_FORMAT = 199
    KRB5_CC_NOT_KTYPE = 200
    KRB5_PREAUTH_FAILED = 210
    KRB5_CCACHE_BADVNO = 212
    KRB5_KEYTAB_BADVNO = 213
    KRB5_REALM_CANT_RESOLVE = 220
    KRB5_CONFIG_NODEFREALM = 224
    KRB5_KT_KVNONOTFOUND = 230
    KRB5_KT_FORMAT = 235
    KRB5_NOPERM_ETYPE = 236
    KRB5_CONFIG_ETYPE_NOSUPP = 237


class GssKrb5(IntEnum):
    """Numbers in MIT's table k5g."""

    KG_CCACHE_NOMATCH = 0
    KG_KEYTAB_NOMATCH = 1


class Routine(IntEnum):
    """Routine errors of a major code (RFC 2744, section 3.9.1), without their ``GSS_S_``."""

    BAD_MECH = 0x00010000
    BAD_BINDINGS = 0x00040000
    BAD_SIG = 0x00060000
    NO_CRED = 0x00070000
    DEFECTIVE_TOKEN = 0x00090000
    DEFECTIVE_CREDENTIAL = 0x000A0000
    CREDENTIALS_EXPIRED = 0x000B0000
    CONTEXT_EXPIRED = 0x000C0000
    FAILURE = 0x000D0000


#: The bits of a major code that hold its routine error.
ROUTINE_MASK: Final = 0x00FF0000


class Supplementary(IntFlag):
    """Supplementary bits of a major code (RFC 2744, section 3.9.1), without their ``GSS_S_``."""

    DUPLICATE_TOKEN = 0x2
    OLD_TOKEN = 0x4
    UNSEQ_TOKEN = 0x8
    GAP_TOKEN = 0x10
