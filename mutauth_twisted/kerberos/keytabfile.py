"""Keytabs as values: read whole, and replaced whole, by a rename.

libkrb5 can add and remove entries, but gives every entry that it writes the present time, by which
keys are told apart here, and shows a reader a file that is half written.  Source of the format:
MIT's documentation, "Keytab file format", version 2.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import field, frozen

from mutauth_twisted.errors import CredentialError
from mutauth_twisted.files import read_file

_VERSION = b"\x05\x02"


@frozen
class Key:
    """One entry of a keytab.

    :param principal: whose, ``name@REALM``, with a backslash before what has a meaning in a name.
    :param version: its key version (KVNO).
    :param added: when it was added, seconds since 1970.
    :param kind: its encryption type, by number.
    :param secret: the key itself.
    :param name_type: the type of the principal (RFC 4120, section 7.5.8).
    """

    principal: str
    version: int
    added: int
    kind: int
    secret: bytes = field(repr=False)
    name_type: int = 1

    @property
    def batch(self) -> tuple[int, int]:
        """The same for the keys that were made of one password and one salt."""
        return self.version, self.added


def parse_keys(data: bytes) -> tuple[Key, ...]:
    """Every key of a keytab's content, in its order.

    :raises ValueError: when it is not a keytab of version 2.
    """
    if not data.startswith(_VERSION):
        raise ValueError("it is not a keytab of version 2")
    keys, rest = [], _Reader(data[len(_VERSION) :])
    while rest.data:
        size = rest.number(">i")
        entry = _Reader(rest.take(abs(size)))
        if size > 0:  # what was removed is a hole
            keys.append(_parse_key(entry))
    return tuple(keys)


class _Reader:
    """Bytes that are taken from the front."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if len(self.data) < count:
            raise ValueError("it is cut off")
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def number(self, layout: str) -> int:
        (found,) = struct.unpack(layout, self.take(struct.calcsize(layout)))
        return int(found)

    def counted(self) -> bytes:
        return self.take(self.number(">H"))


def _parse_key(entry: _Reader) -> Key:
    count = entry.number(">H")
    realm, *parts = (entry.counted() for _ in range(count + 1))
    principal = f"{'/'.join(map(_escaped, parts))}@{_escaped(realm)}"
    name_type, added, version = entry.number(">I"), entry.number(">I"), entry.number(">B")
    kind, secret = entry.number(">H"), entry.counted()
    if len(entry.data) >= 4:
        version = entry.number(">I") or version
    return Key(principal, version, added, kind, secret, name_type)


_ESCAPED = {"\\": "\\\\", "/": "\\/", "@": "\\@"}


def _escaped(part: bytes) -> str:
    text = part.decode("utf-8", "surrogateescape")
    return "".join(_ESCAPED.get(each, each) for each in text)


def _parts(principal: str) -> list[bytes]:
    """The realm and the components of a name."""
    parts, escaped = [""], False
    for each in principal:
        if not escaped and each in "/@":
            parts.append("")
        elif escaped or each != "\\":
            parts[-1] += each
        escaped = each == "\\" and not escaped
    encoded = [part.encode("utf-8", "surrogateescape") for part in parts]
    return [encoded[-1], *encoded[:-1]]


def render_keys(keys: Iterable[Key]) -> bytes:
    """The content of a keytab with these keys."""
    return _VERSION + b"".join(map(_rendered, keys))


def _rendered(key: Key) -> bytes:
    names = _parts(key.principal)
    entry = b"".join(
        (
            struct.pack(">H", len(names) - 1),
            *map(_counted, names),
            struct.pack(">II", key.name_type, key.added),
            struct.pack(">BH", key.version & 0xFF, key.kind),
            _counted(key.secret),
            struct.pack(">I", key.version),
        )
    )
    return struct.pack(">i", len(entry)) + entry


def _counted(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def read_keys(path: Path) -> tuple[Key, ...]:
    """Every key of a keytab, in its order.

    :raises CredentialError: when it cannot be read.
    """
    return read_keytab(path)[0]


def read_keytab(path: Path) -> tuple[tuple[Key, ...], bytes]:
    """The same with the keytab's content, which :func:`replace_keytab` takes.

    :raises CredentialError: when it cannot be read.
    """
    try:
        content = read_file(path)
        return parse_keys(content), content
    except OSError as error:
        cause = f"it cannot be read: {(error.strerror or str(error)).lower()}"
        remedy = "give this user the right to read it"
    except ValueError as error:
        cause, remedy = str(error), "export the account's keys again"
    raise CredentialError(f"keytab {path}", cause, remedy, code="keytab-unusable")


def replace_keys(path: Path, keys: Iterable[Key]) -> None:
    """Put a keytab with these keys, and no others, into the place of one that is there; see
    :func:`replace_keytab`.
    """
    replace_keytab(path, render_keys(keys))


def replace_keytab(path: Path, content: bytes) -> None:
    """Put a keytab into the place of one that is there, whose owner and mode it has.  Whoever reads
    it meanwhile has the one or the other.

    :raises CredentialError: when it cannot be written.
    """
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        os.fchown(handle, found.st_uid, found.st_gid)
        os.fchmod(handle, found.st_mode & 0o7777)
        with open(handle, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(handle)
        os.rename(name, path)
        _sync_directory(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        os.close(handle)
        with suppress(FileNotFoundError):
            os.unlink(name)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(path: Path, error: OSError) -> CredentialError:
    cause = f"it cannot be written: {(error.strerror or str(error)).lower()}"
    remedy = "run this as its owner, who needs the right to write the directory too"
    return CredentialError(f"keytab {path}", cause, remedy, code="keytab-unusable")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other rotations of keytabs in the same directory away.

    :raises CredentialError: when there is one, or the directory cannot be opened.
    """
    try:
        handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        cause, remedy = "another command rotates a key in its directory", "wait until it has ended"
        raise CredentialError(f"keytab {path}", cause, remedy, code="keytab-unusable") from error
    finally:
        os.close(handle)
