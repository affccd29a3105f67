"""Java's JGSS, with the frames of MS-NNS written in Java."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from interop.peers.base import GSSAPI_CLIENTS, HERE, Peer, Variant, compile_once, output

_SOURCE = HERE / "Java.java"
_LOGIN = """com.sun.security.jgss.krb5.initiate {{
    com.sun.security.auth.module.Krb5LoginModule required doNotPrompt=true useTicketCache=true
        ticketCache="{ccache}";
}};
com.sun.security.jgss.krb5.accept {{
    com.sun.security.auth.module.Krb5LoginModule required doNotPrompt=true isInitiator=false
        storeKey=true useKeyTab=true keyTab="{keytab}" principal="{principal}";
}};
"""


def _tool(name: str) -> str:
    """A program of Debian's OpenJDK 17, whatever the machine's default Java is."""
    found = sorted(Path("/usr/lib/jvm").glob(f"java-17-openjdk-*/bin/{name}"))
    if not found:
        raise RuntimeError("openjdk-17-jdk-headless is not installed: run tools/bootstrap interop")
    return str(found[0])


class Java(Peer):
    """Client and server of the JDK."""

    name = "Java JGSS"
    clients = GSSAPI_CLIENTS
    servers = (Variant("both"),)

    def version(self) -> str:
        found = re.search(r'version "([\d.]+)', output(_tool("java"), "-version"))
        assert found is not None
        return found[1]

    def build(self, directory: Path) -> None:
        program = directory / "Java.class"
        compile_once(
            program, (_SOURCE, Path(__file__)), (_tool("javac"), "-d", str(directory), str(_SOURCE))
        )

    def command(self, directory: Path, environment: Mapping[str, str]) -> list[str]:
        scratch = Path(environment["TMPDIR"])
        login = scratch / "login.conf"
        login.write_text(
            _LOGIN.format(
                ccache=environment["KRB5CCNAME"].removeprefix("FILE:"),
                keytab=environment["KRB5_KTNAME"],
                principal=environment["PEER_PRINCIPAL"],
            ),
            "utf-8",
        )
        properties = {
            "java.security.krb5.conf": environment["KRB5_CONFIG"],
            "java.security.auth.login.config": str(login),
            "javax.security.auth.useSubjectCredsOnly": "false",
            # Its replay cache is kept there.
            "java.io.tmpdir": str(scratch),
        }
        options = (
            "-Xshare:auto",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-cp",
            str(directory),
        )
        return [
            _tool("java"),
            *options,
            *(f"-D{key}={value}" for key, value in properties.items()),
            "Java",
        ]
