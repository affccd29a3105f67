"""Domain controllers to try, and the Kerberos principal that each has to authenticate as.

A name that came from DNS proves nothing: whoever answers DNS chooses it, and any computer
account may register ``ldap/its-own-host`` on itself (MS-ADTS 3.1.1.5.3.1.1.4).  It cannot
register an SPN of three parts.  A domain controller has such ones, ``ldap/HOST/DOMAIN`` and
``GC/HOST/FOREST`` (MS-DRSR 2.2.4.2), so a controller that DNS named is asked for these, in a
realm that we name.  Two parts are enough for a host that the user named.
"""

from __future__ import annotations

import re

from attrs import evolve, frozen

from mutauth_twisted.errors import UsageError
from mutauth_twisted.names import is_host_name

LDAP_PORT, LDAPS_PORT = 389, 636
GLOBAL_CATALOG_PORT, GLOBAL_CATALOG_TLS_PORT = 3268, 3269
_SERVER = re.compile(r"(?:(?P<scheme>[A-Za-z]+)://)?(?P<host>[^:/\s]+)(?::(?P<port>[0-9]{1,5}))?/?")


@frozen
class Role:
    """Role of a controller that DNS named, which it has to authenticate as.

    :ivar service: ``ldap``: a domain controller; ``GC``: a global catalog.
    :ivar of: the DNS name of its domain, or of its forest: the third part of its SPN.
    :ivar realm: the realm to ask for it.
    :ivar realms: the realms that its ticket may be of.
    """

    service: str
    of: str
    realm: str
    realms: frozenset[str]

    @classmethod
    def of_domain(cls, domain: str) -> Role:
        """The role of a domain controller.

        :param domain: its domain's DNS name, which in capitals is the realm (MS-KILE 3.1.5.2).
        :raises UsageError: when this is not a valid DNS name.
        """
        if not is_host_name(domain):
            raise UsageError(
                f"domain {domain!r}", "it is not a valid DNS name", "check the realm or the DN"
            )
        return cls("ldap", domain.lower(), domain.upper(), frozenset((domain.upper(),)))


@frozen
class Server:
    """A domain controller to try.

    :param host: its DNS name, which makes its SPN; an address will not do.
    :param tls: whether to use TLS instead of sealing with Kerberos.
    :param role: what it has to authenticate as; None: the user named it, and its name is enough.
    """

    host: str
    port: int
    tls: bool = False
    role: Role | None = None

    @property
    def catalog(self) -> Server:
        """Its global catalog."""
        return evolve(self, port=GLOBAL_CATALOG_TLS_PORT if self.tls else GLOBAL_CATALOG_PORT)

    @property
    def is_catalog(self) -> bool:
        """True where a global catalog is expected."""
        if self.role is not None:
            return self.role.service == "GC"
        return self.port in (GLOBAL_CATALOG_PORT, GLOBAL_CATALOG_TLS_PORT)

    @property
    def spn(self) -> str:
        """The SPN that it has to authenticate as."""
        return (
            f"ldap/{self.host}"
            if self.role is None
            else f"{self.role.service}/{self.host}/{self.role.of}"
        )

    def __str__(self) -> str:
        return f"domain controller {self.host}:{self.port}"


def parse_server(text: str) -> Server:
    """Read ``ldap://HOST[:PORT]``, ``ldaps://HOST[:PORT]`` or ``HOST[:PORT]``.

    :raises UsageError: for anything else.
    """
    match = _SERVER.fullmatch(text)
    if match is None:
        raise UsageError(
            f"directory {text!r}",
            "it is not an LDAP server",
            "write ldap://HOST or ldap://HOST:PORT",
        )
    scheme = (match["scheme"] or "ldap").lower()
    if scheme not in ("ldap", "ldaps"):
        raise UsageError(
            f"directory {text!r}",
            f"{scheme} is not a directory protocol",
            "write ldap://HOST or ldaps://HOST",
        )
    tls = scheme == "ldaps"
    host, port = match["host"].rstrip("."), int(match["port"] or (LDAPS_PORT if tls else LDAP_PORT))
    if re.fullmatch(r"[0-9.]+", host):
        raise UsageError(
            f"directory {text!r}",
            "an address cannot authenticate itself",
            "write the server's DNS name",
        )
    if not is_host_name(host):
        raise UsageError(
            f"directory {text!r}",
            "it is not a valid DNS name",
            "write ldap://HOST or ldap://HOST:PORT",
        )
    if not 0 < port < 65536:
        raise UsageError(f"directory {text!r}", f"port {port} is out of range", "use 1 to 65535")
    return Server(host, port, tls)
