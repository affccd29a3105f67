""".NET's NegotiateStream: the runtime comes from the package index, the compiler is Mono's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from interop.peers.base import HERE, Limit, Peer, Variant, compile_once

_SOURCE = HERE / "Dotnet.cs"


class Dotnet(Peer):
    """Client and server of .NET Core."""

    name = ".NET Core NegotiateStream"
    clients = (Variant("synchronous"), Variant("asynchronous", ("async",)))
    servers = clients
    three_part = False
    limits = (
        Limit(
            "sign_only",
            "on Linux it cannot sign without sealing: the runtime refuses `ProtectionLevel.Sign`",
            "Requested protection level is not supported",
            ("sign",),
        ),
        Limit(
            "three_part_spn",
            "on Linux it asks for two-part SPNs only (`class/host`): register one for such clients"
            " (`mutauth install --spn-form guid,dn,host`, or `mutauth spn add`)",
            "Server not found in Kerberos database",
            three_part=True,
        ),
    )

    def version(self) -> str:
        return version("dotnetcore2")

    @property
    def _runtime(self) -> Path:
        spec = find_spec("dotnetcore2")
        if spec is None or spec.origin is None:
            raise RuntimeError("dotnetcore2 is not installed: run tools/bootstrap interop")
        return Path(spec.origin).parent / "bin"

    def build(self, directory: Path) -> None:
        program = directory / "Dotnet.dll"
        assemblies = self._runtime / "shared" / "Microsoft.NETCore.App" / self.version()
        references = [f"-r:{path}" for path in sorted(assemblies.glob("System*.dll"))]
        # Without a newer source nothing is compiled, so the options belong to the sources.
        compile_once(
            program,
            (_SOURCE, Path(__file__)),
            (
                "mcs",
                "-nostdlib",
                "-noconfig",
                "-nowarn:1702",
                *references,
                f"-out:{program}",
                str(_SOURCE),
            ),
        )
        settings = {
            "framework": {"name": "Microsoft.NETCore.App", "version": self.version()},
            # Its libicu is not needed for anything here.
            "configProperties": {"System.Globalization.Invariant": True},
        }
        program.with_suffix(".runtimeconfig.json").write_text(
            json.dumps({"runtimeOptions": settings}), "utf-8"
        )

    def command(self, directory: Path, environment: Mapping[str, str]) -> list[str]:
        host = self._runtime / "dotnet"
        host.chmod(0o755)  # the wheel's files are not executable
        return [str(host), str(directory / "Dotnet.dll")]
