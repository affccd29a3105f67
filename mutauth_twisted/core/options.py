"""Settings of a connection that both sides have to agree on beforehand."""

from __future__ import annotations

from attrs import frozen

from mutauth_twisted.core.mechanism import KERBEROS, Mechanism
from mutauth_twisted.errors import UsageError
from mutauth_twisted.protection import Protection
from mutauth_twisted.wire import NNS, Wire


@frozen
class SecurityOptions:
    """Wire, protection, package and deadline of a connection.

    :param wire: the format of tokens and records.
    :param protection: what is done to every application byte.
    :param timeout: the one deadline of the whole handshake, in seconds; bytes
        that drip in do not extend it.
    :param package: the security mechanism.
    :raises UsageError: when the package cannot be bound to TLS as it has to be.
    """

    wire: Wire = NNS
    protection: Protection = Protection.SEAL
    timeout: float = 10.0
    package: Mechanism = KERBEROS

    def __attrs_post_init__(self) -> None:
        if self.protection is Protection.TLS and not self.package.authenticates_service:
            cause = "it cannot be bound to TLS, which could end at any server"
            raise UsageError(
                f"package {self.package.name}", cause, "use protection seal, or package kerberos"
            )
