"""The files with a service's keys, as its status tells of them."""

from __future__ import annotations

import os

from mutauth_twisted.credentials import exposed
from mutauth_twisted.findings import Finding
from mutauth_twisted.kerberos.keytab import highest_version, keytab_file
from mutauth_twisted.settings.service import Settings


class KeyFiles:
    """Keytab and TLS key of a service, looked at when somebody asks.

    Whether they can be used is the factory's business.

    :param settings: the service.
    """

    def __init__(self, settings: Settings) -> None:
        self._keytab = (
            keytab_file(settings.keytab) if "keytab" in settings.package_options else None
        )
        self._files = [("keytab", self._keytab)] if self._keytab is not None else []
        if settings.tls_files is not None:
            certificate, key = settings.tls_files
            self._files.append(("TLS key", key or certificate))
        #: State of the keytab's file when it was read last, and the highest version in it.
        self._seen: tuple[object, int | None] = (None, None)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Files that others can read."""
        return tuple(filter(None, (exposed(*file) for file in self._files)))

    @property
    def figures(self) -> dict[str, float]:
        """Figures of :data:`~mutauth_twisted.status.metrics.METRICS` about the keytab."""
        if self._keytab is None:
            return {}
        try:
            state = os.stat(self._keytab)
        except OSError:
            return {}
        shape = (state.st_mtime_ns, state.st_size, state.st_ino)
        if self._seen[0] != shape:
            self._seen = (shape, highest_version(self._keytab))
        found = {"keytab_modified_timestamp_seconds": state.st_mtime}
        if (version := self._seen[1]) is not None:
            found["keytab_kvno"] = version
        return found

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Which files there are, for people."""
        version = self.figures.get("keytab_kvno")
        versions = [("Key version", f"{version:g}")] if version is not None else []
        return (*((kind.capitalize(), path) for kind, path in self._files), *versions)
