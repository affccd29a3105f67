"""The objectGUID of a service's connection point, kept on the service's machine.

An administrator may move the object; its GUID stays.  Microsoft's sample
caches it in the registry, here it is a small file that every user may read:
a GUID is not a secret.
"""

from __future__ import annotations

import json
import os
import tempfile
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from attrs import frozen

from mutauth_twisted.directory.servicename import ServiceName
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.files import make_directory, read_file
from mutauth_twisted.ldap.dn import parse_guid
from mutauth_twisted.names import fold_ascii

DEFAULT_STATE_DIR = Path("/var/lib/mutauth")
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_MAX_FILE = 4096


class CacheError(MutualAuthError):
    """The cached GUID cannot be read or written."""

    code = "guid-cache-unusable"


@frozen
class CachedGuid:
    """Content of the cache file.

    :param dn: where the object was when the file was written, for people.
    """

    guid: UUID
    dn: str


class GuidCache:
    """The files of one state directory.

    :param directory: made when first written to.
    """

    def __init__(self, directory: str | os.PathLike[str] = DEFAULT_STATE_DIR) -> None:
        self.directory = Path(directory)

    def path(self, service: ServiceName) -> Path:
        """The file of one service; safe and distinct for any names, whose case does not count."""
        key = [
            fold_ascii(part) for part in (service.service_class, service.host, service.common_name)
        ]
        readable = "".join(letter if letter in _SAFE else "_" for letter in f"{key[0]}@{key[1]}")[
            :80
        ]
        digest = sha256(json.dumps(key).encode()).hexdigest()[:16]
        return self.directory / f"scp-{readable}-{digest}.json"

    def read(self, service: ServiceName) -> CachedGuid | None:
        """Read the cached GUID of a service; None if there is no such entry.

        :raises CacheError: when the file cannot be read, or is another file.
        """
        path = self.path(service)
        try:
            content = json.loads(read_file(path, _MAX_FILE))
            guid = parse_guid(content["guid"])
            if guid is None:
                raise ValueError("no GUID")
            return CachedGuid(guid, str(content.get("dn", "")))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(path, "cannot be read", error) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CacheError(
                str(path), "it holds no GUID", "remove the file: the SCP is then found by its DN"
            ) from error

    def write(self, service: ServiceName, guid: UUID, dn: str = "") -> Path:
        """Keep a GUID; a reader sees the old file or the new one, never half of it.

        :raises CacheError: when it cannot be written.
        """
        path = self.path(service)
        content = {
            "service_class": service.service_class,
            "host": service.host,
            "guid": str(guid),
            "dn": dn,
        }
        try:
            make_directory(self.directory, 0o755)
            handle, temporary = tempfile.mkstemp(dir=self.directory, prefix=".scp-")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(content, file, ensure_ascii=False, indent=1)
                    file.write("\n")
                    os.fchmod(file.fileno(), 0o644)
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            raise self._error(path, "cannot be written", error) from error
        return path

    def remove(self, service: ServiceName) -> bool:
        """Forget a GUID; whether there was one.

        :raises CacheError: when it cannot be removed.
        """
        path = self.path(service)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._error(path, "cannot be removed", error) from error
        return True

    def _error(self, path: Path, what: str, error: OSError) -> CacheError:
        reason = (error.strerror or os.strerror(error.errno or 0)).lower()
        return CacheError(
            str(path),
            f"it {what}: {reason}",
            "run it as root, or name another directory with --state-dir",
        )
