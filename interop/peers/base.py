"""The description of a peer: how it is built and started, and which ways of using it are tested."""

from __future__ import annotations

import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

HERE = Path(__file__).parent


@frozen
class Variant:
    """One way to use a peer.

    :ivar name: what the table calls it.
    :ivar words: the words for the peer's command line.
    """

    name: str
    words: tuple[str, ...] = ()

    @property
    def identifier(self) -> str:
        """The name as a part of a class's name: ``Spnego``, ``SpnegoUnordered``."""
        return "".join(part.capitalize() for part in re.split(r"\W+", self.name) if part)


#: The clients of a program that calls GSSAPI itself.
GSSAPI_CLIENTS = (
    Variant("Kerberos"),
    Variant("Kerberos unordered", ("unordered",)),
    Variant("SPNEGO", ("spnego",)),
    Variant("SPNEGO unordered", ("spnego", "unordered")),
)


@frozen
class Limit:
    """Limit of a peer's client, whoever it talks to.

    :ivar name: an identifier.
    :ivar sentence: what it is, for the documents.
    :ivar words: the words for its command line.
    :ivar three_part: whether it is about SPNs with a service name.
    :ivar says: what it reports, so that the sentence is struck out when it is not true any more.
    """

    name: str
    sentence: str
    says: str
    words: tuple[str, ...] = ()
    three_part: bool = False


class Peer(ABC):
    """A third-party implementation.

    :cvar name: its name, as documents have it.
    :cvar clients: the variants of its client.
    :cvar servers: the variants of its server.
    :cvar three_part: whether its client can ask for an SPN with a service name.
    :cvar limits: what its client cannot do.
    """

    name: str
    clients: tuple[Variant, ...]
    servers: tuple[Variant, ...]
    three_part: bool = True
    limits: tuple[Limit, ...] = ()

    @property
    def identifier(self) -> str:
        """The name as a part of a class's name."""
        return type(self).__name__

    @abstractmethod
    def version(self) -> str:
        """The version that is installed."""

    @abstractmethod
    def build(self, directory: Path) -> None:
        """Compile it into a directory."""

    @abstractmethod
    def command(self, directory: Path, environment: Mapping[str, str]) -> list[str]:
        """The command line that starts it, up to the role.

        :param directory: where it was built.
        :param environment: its environment variables, for what does not read them itself.
        """


def output(*command: str) -> str:
    """The standard output and error of a command that has to succeed."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: exit code {done.returncode}: {done.stdout.strip()}")
    return done.stdout


def package_version(package: str) -> str:
    """The upstream part of an installed Debian package's version."""
    version = output("dpkg-query", "-W", "-f=${Version}", package)
    return re.split(r"[-+~]|\.git|dfsg", version.rpartition(":")[2])[0]


def compile_once(target: Path, sources: Sequence[Path], command: Sequence[str]) -> None:
    """Run a compiler unless its product is newer than its sources."""
    if target.exists() and all(
        target.stat().st_mtime > source.stat().st_mtime for source in sources
    ):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    output(*command)
