"""An authenticated client as its transport shows it to a gateway."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address

from mutauth_twisted.access.logon import Logon
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.protection import Flag, Protection

CLIENT = IPv4Address("TCP", "192.0.2.7", 40000)
SERVICE = IPv4Address("TCP", "198.51.100.1", 9000)
SPN = "echoSvc/srv1.example.com"
DOMAIN_SID = "S-1-5-21-1004336348-1177238915-682003330"
LOGON = Logon("alice", "EXAMPLE", f"{DOMAIN_SID}-1104", (f"{DOMAIN_SID}-513", "S-1-18-1"))


def identity(
    principal: str = "alice@EXAMPLE.COM", logon: Logon | None = LOGON, **changes: Any
) -> PeerIdentity:
    """An authenticated client."""
    given: dict[str, Any] = {
        "package": "kerberos",
        "protection": Protection.SEAL,
        "flags": Flag(0),
        "expires": 0.0,
        "read_logon": lambda: logon,
    }
    return PeerIdentity(principal, None, **{**given, **changes})


def client(who: PeerIdentity) -> Any:
    """A client's transport."""
    return mock.Mock(
        peer_identity=who,
        connection_id="c-1",
        getPeer=lambda: CLIENT,
        getHost=lambda: SERVICE,
        spec=["peer_identity", "connection_id", "getPeer", "getHost"],
    )
