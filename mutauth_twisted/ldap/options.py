"""Way to reach the directory, as a value: checked when it is made, and handed on as one piece."""

from __future__ import annotations

from attrs import frozen

from mutauth_twisted.dns import parse_nameserver
from mutauth_twisted.errors import UsageError
from mutauth_twisted.findings import Command
from mutauth_twisted.ldap.controllers import Server, parse_server


@frozen
class DirectoryOptions:
    """The directory to use, and how to find its domain controllers.

    Whose tickets to use is not part of it: a remedy's command is for another user to run.

    :param servers: domain controllers, ``ldap://HOST[:PORT]`` or ``ldaps://HOST[:PORT]``, in the
        order to try them; none: those that DNS names for the domain.
    :param ca_file: the certificates (PEM) that may vouch for ``ldaps`` servers; has to be given
        with such servers, as the system trusts too many.
    :param realm: the realm, whose name in lower case is the domain; None: that of the credentials.
    :param nameserver: the DNS server to ask, ``ADDRESS[:PORT]``; None: the system's.
    :raises UsageError: for a server or nameserver that is not valid, and for what does not go
        together.
    """

    servers: tuple[str, ...] = ()
    ca_file: str | None = None
    realm: str | None = None
    nameserver: str | None = None

    def __attrs_post_init__(self) -> None:
        with_tls = next((server for server in self.controllers if server.tls), None)
        if with_tls is not None and self.ca_file is None:
            raise UsageError(
                f"directory ldaps://{with_tls.host}",
                "no certificate authority is named that may vouch for it",
                "give --directory-ca FILE (ca=FILE in an endpoint), or write ldap://, which is "
                "sealed with Kerberos",
            )
        if with_tls is None and self.ca_file is not None:
            raise UsageError(
                f"CA file {self.ca_file}", "no directory server uses TLS", "name one: ldaps://HOST"
            )
        if self.nameserver is not None:
            parse_nameserver(self.nameserver)

    @property
    def controllers(self) -> list[Server]:
        """The servers, parsed."""
        return [parse_server(text) for text in self.servers]

    @property
    def words(self) -> list[str]:
        """The command-line options that lead to the same directory."""
        words = [word for server in self.servers for word in ("--directory", server)]
        for option, value in (
            ("--directory-ca", self.ca_file),
            ("--realm", self.realm),
            ("--nameserver", self.nameserver),
        ):
            words += [option, value] if value else []
        return words

    def command(self, *words: str) -> Command:
        """A command of ``mutauth`` for a user's shell that reaches the same directory."""
        return Command("mutauth", *words, *self.words)
