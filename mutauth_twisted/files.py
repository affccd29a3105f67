"""Files that others may have made: regular ones only, opened without waiting, and read up to a
bound.

A FIFO in a file's place would hold up whoever opens or reads it until somebody
writes, in the reactor with all that it serves.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Final

#: The most bytes of a file of certificates, of users, or of settings.
MOST: Final = 4 << 20
#: Where a file that is open is found under a name of its own (Linux, proc(5)).
OPEN_FILE: Final = "/proc/self/fd/{}"
#: Symbolic links on the way to a file, of which Linux follows as many.
_MOST_LINKS: Final = 40

_KEPT: ContextVar[dict[str, bytes] | None] = ContextVar("kept", default=None)
_GIVEN: ContextVar[Mapping[str, bytes] | None] = ContextVar("given", default=None)


@contextmanager
def keep_what_is_read(contents: dict[str, bytes]) -> Iterator[None]:
    """Have :func:`read_file` note what it reads, by absolute path, and return the same for a file
    that is read again; each reading is checked as always.
    """
    token = _KEPT.set(contents)
    try:
        yield
    finally:
        _KEPT.reset(token)


@contextmanager
def read_what_was_kept(contents: Mapping[str, bytes]) -> Iterator[None]:
    """Have :func:`read_file` return what another process has read and checked, of those files."""
    token = _GIVEN.set(contents)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def _not_regular(path: str | os.PathLike[str]) -> OSError:
    return OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))


def make_directory(directory: Path, mode: int) -> None:
    """Make a directory, and those above it that are missing, with the same mode: Path.mkdir() has
    the umask decide theirs.

    :raises OSError: when one cannot be made.
    """
    for missing in reversed(
        [each for each in (directory, *directory.parents) if not each.exists()]
    ):
        missing.mkdir(mode, exist_ok=True)


def check_regular(path: str | os.PathLike[str]) -> None:
    """See that a library may open a file, which it does in a way of its own.

    :raises OSError: when it is not a regular file, or cannot be looked at.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise _not_regular(path)


def is_readable_by_all(path: str | os.PathLike[str]) -> bool:
    """True when every account of the machine may read a file, as far as its mode tells."""
    with suppress(OSError):
        return os.name == "posix" and bool(os.stat(path).st_mode & stat.S_IROTH)
    return False


def file_fault(path: str | os.PathLike[str]) -> str:
    """Fault for which a library cannot read a file, as far as the file system tells; empty: it
    does not tell.
    """
    try:
        check_regular(path)
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if os.access(path, os.R_OK) else "cannot be read by this user"


class OthersFile(PermissionError):
    """A file, or what leads to it, is another user's."""


def _check_unwritable(path: str | os.PathLike[str], opened: os.stat_result) -> None:
    """See that nobody but root and this user may change a file, or put another one in its place.

    :param opened: the state of the file that was opened.
    :raises PermissionError: with ``EPERM``, when others may.
    """
    state = opened
    for place, state in _way_to(path):
        if state.st_uid not in (0, os.geteuid()):
            cause = "it is another user's, who may change it"
            raise OthersFile(errno.EPERM, cause, place)
        if stat.S_ISLNK(state.st_mode) or not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            continue
        if not stat.S_ISDIR(state.st_mode):
            raise PermissionError(errno.EPERM, "others than its owner may write it", place)
        # In a sticky one nobody replaces what is ours or root's.
        if not state.st_mode & stat.S_ISVTX:
            cause = "others may replace what is in this directory"
            raise PermissionError(errno.EPERM, cause, place)
    if not os.path.samestat(opened, state):
        raise OSError(errno.ESTALE, "it was replaced while it was read", os.fspath(path))


def _way_to(path: str | os.PathLike[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Directories and symbolic links on the way to a file, as path_resolution(7) has it, and the
    file.
    """
    here, links = os.sep, 0
    yield here, os.lstat(here)
    ahead = os.path.join(os.getcwd(), os.fspath(path)).split(os.sep)[::-1]
    while ahead:
        part = ahead.pop()
        if part == os.pardir:
            here = os.path.dirname(here)
        elif part not in ("", os.curdir):
            place = os.path.join(here, part)
            state = os.lstat(place)
            yield place, state
            if not stat.S_ISLNK(state.st_mode):
                here = place
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), place)
            target = os.readlink(place)
            here = os.sep if target.startswith(os.sep) else here
            ahead += target.split(os.sep)[::-1]


def read_file(
    path: str | os.PathLike[str],
    most: int = MOST,
    *,
    private: bool = False,
    unwritable: bool = False,
) -> bytes:
    """The content of a regular file.

    :param most: how many bytes it may have.
    :param private: whether its owner alone may have any right to it.
    :param unwritable: whether root and this user alone may change or replace it.
    :raises OthersFile: with ``EPERM``, when others may, as it or what leads to it is theirs.
    :raises PermissionError: with ``EPERM``, when others have rights to a private file, or may
        change one that they must not; its ``filename`` is what has the rights.
    :raises OSError: when it is not a regular file, too large, or cannot be read.
    """
    name, given, kept = os.path.abspath(path), _GIVEN.get(), _KEPT.get()
    if given is not None and name in given:
        return given[name]
    content = _read(path, most, private=private, unwritable=unwritable)
    return content if kept is None else kept.setdefault(name, content)


def digest(path: str | os.PathLike[str]) -> bytes | None:
    """A digest of a file's content, which another content does not have; None: there is none."""
    try:
        return hashlib.sha256(read_file(path)).digest()
    except OSError:
        return None


def _read(path: str | os.PathLike[str], most: int, *, private: bool, unwritable: bool) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        state = os.fstat(handle)
        mode = state.st_mode
        if not stat.S_ISREG(mode):
            raise _not_regular(path)
        if private and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise PermissionError(
                errno.EPERM, "others than its owner have access to it", os.fspath(path)
            )
        if unwritable:
            _check_unwritable(path, state)
        with open(handle, "rb", closefd=False) as file:
            content = file.read(most + 1)
    finally:
        os.close(handle)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", os.fspath(path))
    return content


def memory_file(name: str, content: bytes) -> int:
    """The descriptor of a new file in memory, which this user alone may read (memfd_create(2))."""
    descriptor = os.memfd_create(name)
    os.fchmod(descriptor, 0o600)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    return descriptor
