"""Heimdal's GSSAPI, with the frames of MS-NNS written in C."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from interop.peers.base import (
    GSSAPI_CLIENTS,
    HERE,
    Peer,
    Variant,
    compile_once,
    output,
    package_version,
)

_SOURCE = HERE / "heimdal.c"


class Heimdal(Peer):
    """Client and server of the other free implementation of Kerberos."""

    name = "Heimdal GSSAPI"
    clients = GSSAPI_CLIENTS
    servers = (Variant("both"),)

    def version(self) -> str:
        return package_version("heimdal-multidev")

    def build(self, directory: Path) -> None:
        program = directory / "heimdal"
        flags = [
            word
            for kind in ("--cflags", "--libs")
            for word in output("krb5-config.heimdal", kind, "gssapi").split()
        ]
        compile_once(
            program,
            (_SOURCE, Path(__file__)),
            (
                "gcc",
                "-O1",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-o",
                str(program),
                str(_SOURCE),
                *flags,
                "-lpthread",
            ),
        )

    def command(self, directory: Path, environment: Mapping[str, str]) -> list[str]:
        return [str(directory / "heimdal")]
