"""Kerberos tickets without a KDC, for tests that own the service's key.

Whoever holds a service's key can make any ticket for it: :class:`Realm` makes
up a key, writes a keytab with it and ticket caches whose tickets are encrypted
with it, and so lets real GSSAPI contexts meet without network or directory.
Formats: RFC 4120 (tickets), RFC 3961 and 3962 (aes256-cts-hmac-sha1-96), RFC
4757 (arcfour-hmac), MIT krb5's documentation of its ccache and keytab files.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import time
from collections.abc import Iterable
from math import lcm
from pathlib import Path

import gssapi
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from gssapi.raw import ChannelBindings
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN

AES128, AES256, RC4 = 17, 18, 23
DCE_STYLE = 0x1000  # RFC 4757 7.1
_KEY_SIZES = {AES128: 16, AES256: 32, RC4: 16}
_TICKET_USAGE = 2
_PRINCIPAL = 1  # KRB_NT_PRINCIPAL


def nfold(data: bytes, size: int) -> bytes:
    """RFC 3961 5.1: stretch or fold *data* to *size* bytes."""
    bits = len(data) * 8
    number = int.from_bytes(data, "big")
    total = lcm(len(data), size)
    stretched = bytearray()
    for turn in range(total // len(data)):
        shift = 13 * turn % bits
        rotated = number >> shift | (number & (1 << shift) - 1) << bits - shift
        stretched += rotated.to_bytes(len(data), "big")
    result = sum(
        int.from_bytes(stretched[start : start + size], "big") for start in range(0, total, size)
    )
    # One's complement addition: carries come in again at the end.
    limit = 1 << size * 8
    while result >= limit:
        result = result % limit + result // limit
    return result.to_bytes(size, "big")


def _aes(key: bytes, data: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CBC(bytes(16))).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def _derive(key: bytes, usage: int, kind: int) -> bytes:
    first = _aes(key, nfold(struct.pack(">IB", usage, kind), 16))
    return first + _aes(key, first)


def encrypt(key: bytes, usage: int, plaintext: bytes) -> bytes:
    """RFC 3962: AES-256 in CBC mode with ciphertext stealing, and a 96 bit HMAC-SHA1."""
    data = os.urandom(16) + plaintext
    blocks = _aes(_derive(key, usage, 0xAA), data + bytes(-len(data) % 16))
    stolen = blocks[:-32] + blocks[-16:] + blocks[-32:-16]
    return (
        stolen[: len(data)] + hmac.new(_derive(key, usage, 0x55), data, hashlib.sha1).digest()[:12]
    )


def _rc4(key: bytes, data: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) & 0xFF
        state[i], state[j] = state[j], state[i]
    result, i, j = bytearray(), 0, 0
    for byte in data:
        i = (i + 1) & 0xFF
        j = (j + state[i]) & 0xFF
        state[i], state[j] = state[j], state[i]
        result.append(byte ^ state[(state[i] + state[j]) & 0xFF])
    return bytes(result)


def encrypt_rc4(key: bytes, usage: int, plaintext: bytes) -> bytes:
    """RFC 4757, section 5: RC4 and HMAC-MD5, each with a key of its own."""
    data = os.urandom(8) + plaintext
    first = hmac.digest(key, struct.pack("<I", usage), "md5")
    checksum = hmac.digest(first, data, "md5")
    return checksum + _rc4(hmac.digest(first, checksum, "md5"), data)


def der(tag: int, *contents: bytes) -> bytes:
    """A DER element with a tag of one byte."""
    body = b"".join(contents)
    length = len(body)
    if length < 0x80:
        return bytes((tag, length)) + body
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + body


def _integer(value: int) -> bytes:
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _sequence(*fields: tuple[int, bytes]) -> bytes:
    return der(0x30, *(der(0xA0 | number, content) for number, content in fields))


def _string(text: str) -> bytes:
    return der(0x1B, text.encode())


def _name(components: Iterable[str]) -> bytes:
    return _sequence((0, _integer(_PRINCIPAL)), (1, der(0x30, *map(_string, components))))


def _time(seconds: float) -> bytes:
    return der(0x18, time.strftime("%Y%m%d%H%M%SZ", time.gmtime(seconds)).encode())


def _data(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class Realm:
    """A realm without a KDC, below a directory of its own.

    :param directory: an empty directory.
    :param name: the realm's name.
    """

    def __init__(self, directory: str, name: str = "TEST.EXAMPLE") -> None:
        self.directory = Path(directory)
        self.name = name
        self._keys: dict[tuple[str, int], bytes] = {}

    def environment(self, *settings: str) -> dict[str, str]:
        """The variables under which Kerberos knows this realm and none of its KDCs answers.

        :param settings: further lines of krb5.conf's ``[libdefaults]``.
        """
        conf = self.directory / "krb5.conf"
        conf.write_text(
            f"[libdefaults]\ndefault_realm = {self.name}\ndns_lookup_kdc = false\ndns_lookup_realm "
            "= false\n"
            # What is left to the library no longer takes RC4 by itself since MIT krb5 1.21.
            "allow_rc4 = true\nallow_weak_crypto = true\n"
            "dns_canonicalize_hostname = false\nrdns = "
            f"false\n{''.join(f'{line}{chr(10)}' for line in settings)}"
            f"[realms]\n{self.name} = {{\n}}\n"
        )
        return {
            "KRB5_CONFIG": str(conf),
            "KRB5CCNAME": f"FILE:{self.directory / 'no-ccache'}",
            "KRB5_KTNAME": f"FILE:{self.directory / 'no-keytab'}",
            "KRB5RCACHEDIR": str(self.directory),
        }

    def key(self, account: str, kind: int = AES256) -> bytes:
        """The account's key of a type; made up when first asked for."""
        return self._keys.setdefault((account, kind), os.urandom(_KEY_SIZES[kind]))

    def set_key(self, account: str, key: bytes, kind: int = AES256) -> None:
        """Give the account this key."""
        self._keys[account, kind] = key

    def _principal(self, name: str) -> bytes:
        parts = name.split("/")
        return (
            struct.pack(">II", _PRINCIPAL, len(parts))
            + _data(self.name.encode())
            + b"".join(_data(part.encode()) for part in parts)
        )

    def keytab(self, account: str, kinds: Iterable[int] = (AES256,)) -> str:
        """A keytab with the account's keys of these types."""
        parts = [self.name, *account.split("/")]
        content = b"\x05\x02"
        for kind in kinds:
            entry = struct.pack(">H", len(parts) - 1)
            entry += b"".join(struct.pack(">H", len(part)) + part.encode() for part in parts)
            key = self.key(account, kind)
            entry += struct.pack(">IIBHH", _PRINCIPAL, int(time.time()), 1, kind, len(key)) + key
            content += struct.pack(">i", len(entry)) + entry
        path = self.directory / f"{account.replace('/', '_')}.keytab"
        path.write_bytes(content)
        return str(path)

    def ccache(
        self,
        client: str,
        spn: str,
        account: str,
        *,
        lifetime: float = 3600,
        age: float = 60,
        said: float | None = None,
        kind: int = AES256,
        session: int = AES256,
    ) -> str:
        """A ticket cache with one ticket, for an SPN that the account has.

        :param lifetime: the seconds from now until the ticket ends; negative: it has ended.
        :param age: the seconds since it was issued.
        :param said: the lifetime that the cache tells the client, if it is another one.
        :param kind: the encryption type of the account's key; AES256 or RC4.
        :param session: that of the session's key.
        """
        session_key, now = os.urandom(_KEY_SIZES[session]), int(time.time())
        begin, end = now - int(age), now + int(lifetime)
        part = der(
            0x63,
            _sequence(
                (0, der(0x03, b"\0" + struct.pack(">I", 0x00200000))),
                (1, _sequence((0, _integer(session)), (1, der(0x04, session_key)))),
                (2, _string(self.name)),
                (3, _name(client.split("/"))),
                (4, _sequence((0, _integer(0)), (1, der(0x04)))),
                (5, _time(begin)),
                (6, _time(begin)),
                (7, _time(end)),
            ),
        )
        cipher = (encrypt_rc4 if kind == RC4 else encrypt)(
            self.key(account, kind), _TICKET_USAGE, part
        )
        ticket = der(
            0x61,
            _sequence(
                (0, _integer(5)),
                (1, _string(self.name)),
                (2, _name(spn.split("/"))),
                (3, _sequence((0, _integer(kind)), (1, _integer(1)), (2, der(0x04, cipher)))),
            ),
        )
        credential = (
            self._principal(client)
            + self._principal(spn)
            + struct.pack(">H", session)
            + _data(session_key)
        )
        told = end if said is None else now + int(said)
        credential += (
            struct.pack(">IIII", begin, begin, told, 0)
            + b"\0"
            + struct.pack(">III", 0x00200000, 0, 0)
        )
        credential += _data(ticket) + _data(b"")
        path = self.directory / f"ccache-{os.urandom(8).hex()}"
        path.write_bytes(b"\x05\x04\0\0" + self._principal(client) + credential)
        return f"FILE:{path}"


def third_party_initiator(
    spn: SPN,
    ccache: str,
    application_data: bytes | None = None,
    mechanism: gssapi.OID = gssapi.MechType.kerberos,
) -> gssapi.SecurityContext:
    """A client's context of GSSAPI's own, with everything that this package asks for but its
    bindings.

    :param application_data: of the channel bindings; None: it has none.
    """
    bindings = (
        None if application_data is None else ChannelBindings(application_data=application_data)
    )
    credentials = gssapi.Credentials(usage="initiate", mechs=[mechanism], store={"ccache": ccache})
    name = gssapi.Name(str(spn), gssapi.NameType.kerberos_principal)
    flags = int(Protection.SEAL.required_flags)
    return gssapi.SecurityContext(
        name=name,
        creds=credentials,
        usage="initiate",
        mech=mechanism,
        flags=flags,
        channel_bindings=bindings,
    )


def set_clock(ccache: str, seconds: int) -> None:
    """Make whoever uses the cache believe that the KDC's clock is off by so much (MIT's ccache file
    format, tag 1).
    """
    path = Path(ccache.removeprefix("FILE:"))
    content = path.read_bytes()
    (header,) = struct.unpack_from(">H", content, 2)
    path.write_bytes(
        b"\x05\x04" + struct.pack(">HHHii", 12, 1, 8, seconds, 0) + content[4 + header :]
    )


def set_environment(test: SynchronousTestCase, variables: dict[str, str]) -> None:
    """Set variables of this process until the test ends."""
    for name, value in variables.items():
        before = os.environ.get(name)
        if before is None:
            test.addCleanup(os.environ.pop, name, None)
        else:
            test.addCleanup(os.environ.__setitem__, name, before)
        os.environ[name] = value


def make_realm(test: SynchronousTestCase) -> Realm:
    """A realm without a KDC, which Kerberos knows until the test ends."""
    directory = test.mktemp()
    os.makedirs(directory)
    realm = Realm(os.path.abspath(directory))
    set_environment(test, realm.environment())
    return realm
