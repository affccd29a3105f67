"""State of an established Kerberos context that GSSAPI itself does not tell: sequence numbers,
ticket end, key types.

The only file that reads the C library's memory, and why: python-gssapi reads
the same structure, gss_krb5_lucid_context_v1_t (MIT krb5, gssapi_krb5.h), with
krb5_export_lucid_sec_context only, which deletes the context.  The inquiry below
it, gss_inquire_sec_context_by_oid with GSS_KRB5_EXPORT_LUCID_SEC_CONTEXT_OID,
leaves the context alone and returns a pointer to the structure.

``tests/unit/kerberos/test_lucid.py`` fails when a release of either library changes any of it.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final

import gssapi
from attrs import frozen
from gssapi.raw import ext_krb5, inquire_sec_context_by_oid

from mutauth_twisted.errors import AuthenticationError

#: RFC 4121: sequence numbers of messages have 64 bits, and wrap.
SEQUENCE_MASK: Final = 2**64 - 1

# MIT's own arc, then the version of the structure that is asked for.
_LUCID_V1: Final = gssapi.OID.from_int_seq("1.2.840.113554.1.2.2.5.6.1")
_VERSION: Final = 1
_RFC_1964, _RFC_4121 = 0, 1


class _Key(ctypes.Structure):
    """gss_krb5_lucid_key_t."""

    _fields_ = (("type", ctypes.c_uint32), ("length", ctypes.c_uint32), ("data", ctypes.c_void_p))


class _OldKeys(ctypes.Structure):
    """gss_krb5_rfc1964_keydata_t."""

    _fields_ = (("sign_alg", ctypes.c_uint32), ("seal_alg", ctypes.c_uint32), ("ctx_key", _Key))


class _Keys(ctypes.Structure):
    """gss_krb5_cfx_keydata_t."""

    _fields_ = (
        ("have_acceptor_subkey", ctypes.c_uint32),
        ("ctx_key", _Key),
        ("acceptor_subkey", _Key),
    )


class _Lucid(ctypes.Structure):
    """gss_krb5_lucid_context_v1_t."""

    _fields_ = (
        ("version", ctypes.c_uint32),
        ("initiate", ctypes.c_uint32),
        ("endtime", ctypes.c_uint32),
        ("send_seq", ctypes.c_uint64),
        ("recv_seq", ctypes.c_uint64),
        ("protocol", ctypes.c_uint32),
        ("rfc1964_kd", _OldKeys),
        ("cfx_kd", _Keys),
    )


def _free() -> Any:
    # Symbols of an extension's libraries are found through the extension: this is the library that
    # it was linked with. A PyDLL keeps the GIL, which costs less than this function takes.
    function = ctypes.PyDLL(ext_krb5.__file__).gss_krb5_free_lucid_sec_context
    function.argtypes = (ctypes.POINTER(ctypes.c_uint32), ctypes.c_void_p)
    function.restype = ctypes.c_uint32
    return function


_free_lucid: Final = _free()
_POINTER_SIZE: Final = ctypes.sizeof(ctypes.c_void_p)


@frozen
class LucidContext:
    """Values of one established context.

    :param endtime: the end of the ticket, in seconds since 1970.
    :param recv_seq: the sequence number with which the peer's messages start, as its authenticated
        token says.
    :param rfc4121: whether messages are those of RFC 4121; else those of RFC 1964, which only DES
        and RC4 have.
    :param key_types: the encryption types (RFC 3961) of the keys that messages may be protected
        with: of the session or the initiator's subkey, and of the acceptor's subkey where there is
        one.
    """

    endtime: int
    recv_seq: int
    rfc4121: bool
    key_types: tuple[int, ...]


def read_lucid(context: Any) -> LucidContext:
    """Read an established context, which stays usable.

    :param context: GSSAPI's context, Kerberos' own or SPNEGO's with Kerberos in it.
    :raises GSSError: when the context is not established, or is not Kerberos'.
    :raises AuthenticationError: when the library answers with what is not such a structure.
    """
    (answer,) = inquire_sec_context_by_oid(context, _LUCID_V1)[:1] or (b"",)
    if len(answer) != _POINTER_SIZE or not (address := int.from_bytes(answer, sys.byteorder)):
        raise _unknown("its answer is not a pointer")
    try:
        return _read(_Lucid.from_address(address))
    finally:
        _free_lucid(ctypes.byref(ctypes.c_uint32()), address)


def _read(lucid: Any) -> LucidContext:
    version, initiate, protocol = lucid.version, lucid.initiate, lucid.protocol
    if version != _VERSION or initiate not in (0, 1) or protocol not in (_RFC_1964, _RFC_4121):
        raise _unknown(f"version {version}, initiate {initiate}, protocol {protocol}")
    if protocol == _RFC_1964:
        types: tuple[int, ...] = (lucid.rfc1964_kd.ctx_key.type,)
    else:
        keys = lucid.cfx_kd
        types = (keys.ctx_key.type,)
        if keys.have_acceptor_subkey:
            types += (keys.acceptor_subkey.type,)
    return LucidContext(lucid.endtime, lucid.recv_seq, protocol == _RFC_4121, types)


def _unknown(found: str) -> AuthenticationError:
    cause = f"the Kerberos library describes its context in an unknown way ({found})"
    return AuthenticationError(
        "libgssapi_krb5",
        cause,
        "use MIT krb5 1.18 or later, and a python-gssapi built against it",
        code="kerberos-failed",
    )
