"""Replay cache: the file of the requests that a service has seen, so that a copied one opens
nothing (RFC 4120 3.2.3).

MIT's default is a file in /var/tmp, which any other user can make first: the
service would then refuse every client.  Here it is in a directory that no one else
writes to.  All services of one user share one file in each such directory, as
several may have one key.

An administrator's own choice is respected: ``KRB5RCACHENAME`` and
``KRB5RCACHEDIR``, which MIT reads by itself for each request.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from mutauth_twisted.errors import REPLAY_CACHE, CredentialError
from mutauth_twisted.files import make_directory

NAME_VARIABLE: Final = "KRB5RCACHENAME"
DIRECTORY_VARIABLE: Final = "KRB5RCACHEDIR"
#: MIT's type for no replay cache at all.
NONE: Final = "none:"
#: MIT's type for one file, and for what the environment says.
_FILE, _DEFAULT = "file2:", "dfl:"
_TEMPORARY = "/var/tmp"  # noqa: S108 - what is there is looked at before it is used
_NOT_OURS = stat.S_IWGRP | stat.S_IWOTH


def replay_cache(state_dir: str | None = None) -> str | None:
    """The name of the replay cache to give to GSSAPI, which can be written now.

    :param state_dir: the service's own directory, if it has one that is there.
    :return: None: the environment names one, and MIT reads that.
    :raises CredentialError: when there is none that could be written, or the environment turns it
        off.
    """
    if any(os.environ.get(name) for name in (NAME_VARIABLE, DIRECTORY_VARIABLE)):
        _check_named(os.environ.get(NAME_VARIABLE) or _DEFAULT)
        return None
    tried = []
    for directory, create in _candidates(state_dir):
        tried.append(str(directory))
        if create:
            with suppress(OSError):  # what is wrong shows when it is looked at
                make_directory(directory, 0o700)
        if _is_ours(directory):
            path = directory / _file_name()
            _check_file(path)
            return f"{_FILE}{path}"
    raise CredentialError(
        REPLAY_CACHE,
        f"there is no directory for it that this user alone writes to (tried {', '.join(tried)})",
        "give the service StateDirectory= (systemd), a state-dir of its own, or "
        f"{DIRECTORY_VARIABLE}",
        code="replay-cache-unusable",
    )


def _file_name() -> str:
    """As MIT names its own."""
    return f"krb5_{os.geteuid()}.rcache2"


def _candidates(state_dir: str | None) -> Iterator[tuple[Path, bool]]:
    """Directories in order, and whether to make one that is not there.

    Only such as outlive a restart: a request is good for five minutes, whoever was told of it.
    """
    if named := os.environ.get("STATE_DIRECTORY"):  # systemd.exec(5)
        yield Path(named.partition(":")[0]), False
    if state_dir is not None:
        yield Path(state_dir), False
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    if os.path.isabs(home):
        yield Path(home, "mutauth"), True
    yield Path(_TEMPORARY, f"mutauth-{os.geteuid()}"), True


def _is_ours(directory: Path) -> bool:
    """Tell whether a directory is this user's, and that no other user can put a file into it."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and not found.st_mode & _NOT_OURS
    )


def _check_named(name: str) -> None:
    """See that the replay cache that the environment names can be written.

    :raises CredentialError: when it cannot, or is invalid.
    """
    if name.startswith(NONE):
        raise CredentialError(
            REPLAY_CACHE,
            f"{NAME_VARIABLE}={name} turns it off: whoever copies a client's request could open "
            "sessions with it",
            f"unset {NAME_VARIABLE}, or accept that with accept-replays",
            code="replay-cache-unusable",
        )
    if name.startswith(_FILE):
        _check_file(Path(name.removeprefix(_FILE)))
    elif name.startswith(_DEFAULT):
        directory = os.environ.get(DIRECTORY_VARIABLE) or os.environ.get("TMPDIR") or _TEMPORARY
        _check_file(Path(directory, _file_name()))


def _check_file(path: Path) -> None:
    """See that a file can be written as MIT does, without waiting for whatever is there in its
    place.

    :raises CredentialError: when it cannot.
    """
    try:
        file = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600
        )
        try:
            found = os.fstat(file)
        finally:
            os.close(file)
    except OSError as error:
        cause = (
            f"the service cannot note which requests it has seen ({os.strerror(error.errno or 0)}: "
            f"{path})"
        )
        raise CredentialError(
            REPLAY_CACHE,
            cause,
            f"let this user write there, or set {DIRECTORY_VARIABLE}",
            code="replay-cache-unusable",
        ) from error
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        cause = f"{path} is not a file of this user's"
        raise CredentialError(
            REPLAY_CACHE,
            cause,
            f"remove it, or set {DIRECTORY_VARIABLE}",
            code="replay-cache-unusable",
        )
