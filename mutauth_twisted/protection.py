"""Protection of the data, and the flags that a finished handshake must have; values only."""

from __future__ import annotations

from enum import Enum, IntFlag


class Flag(IntFlag):
    """Context flags with the numbers of RFC 2744, section 3.9.1."""

    DELEGATE = 1
    MUTUAL = 2
    REPLAY = 4
    SEQUENCE = 8
    CONFIDENTIALITY = 16
    INTEGRITY = 32
    #: MIT krb5 1.19: an acceptor's context whose bindings the initiator has sent, and not merely
    #: left out.
    CHANNEL_BOUND = 0x800


class Protection(Enum):
    """Protection of application data once both sides are authenticated.

    A client asks for one; a service states the least it takes.  On wire nns, as
    with .NET's ProtectionLevel, who asks a signing service to seal is sealed.
    """

    #: Every record is encrypted and signed with the session's Kerberos key.
    SEAL = "seal"
    #: Every record is signed with it, for all to read.
    SIGN = "sign"
    #: TLS 1.3 carries the handshake, which is bound to it, and then the data.
    TLS = "tls"

    @property
    def required_flags(self) -> Flag:
        """The flags without which no byte may flow.

        Replay and sequence detection are not among them: .NET on Linux asks for
        neither, and Kerberos' records are checked for both whatever the flags say.
        """
        flags = Flag.MUTUAL | Flag.INTEGRITY
        return flags | Flag.CONFIDENTIALITY if self is Protection.SEAL else flags

    @property
    def requested_flags(self) -> Flag:
        """The flags that a client asks for: a third-party service may detect replays for those only
        who ask for it.
        """
        return self.required_flags | Flag.REPLAY | Flag.SEQUENCE


def flag_names(flags: int) -> str:
    """Name flags for people, e.g. ``mutual, replay``; unknown bits as hex."""
    names = [flag.name.lower().replace("_", " ") for flag in Flag if flag & flags and flag.name]
    if unknown := flags & ~sum(Flag):
        names.append(f"0x{unknown:x}")
    return ", ".join(names) or "none"
