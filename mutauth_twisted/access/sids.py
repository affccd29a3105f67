"""SIDs of groups as texts: in one form, and only those that a ticket can name."""

from __future__ import annotations

import re

from mutauth_twisted.errors import UsageError

_SID = re.compile(
    r"[Ss]-([0-9]{1,20})-(0[xX][0-9A-Fa-f]{1,20}|[0-9]{1,20})((?:-[0-9]{1,20})*)", re.ASCII
)
# MS-DTYP 2.4.2: the authority has 48 bits, and there are 15 subauthorities of 32 bits at most.
_MOST_AUTHORITY, _MOST_SUBAUTHORITY, _MOST_SUBAUTHORITIES = 2**48 - 1, 2**32 - 1, 15
# MS-DTYP 2.4.2.4: what a machine adds to a session of its own accord (everyone, network, the groups
# of BUILTIN).
_LOCAL_SID = re.compile(r"S-1-(?:[0-3]-.*|5-(?:[1-8]|1[0-4]|1[7-9]|20)|5-(?:5|32|64)-.*|16-.*)")


def is_sid(text: str) -> bool:
    """Tell whether a text is meant as a SID, which does not say that it is a valid one."""
    return _SID.fullmatch(text.strip()) is not None


def parse_sid(text: str) -> str:
    """A SID in the one form in which a PAC's are compared: small numbers without zeros in front,
    decimal throughout.

    Source: MS-DTYP 2.4.2.1, whose texts have an authority of more than 32 bits
    in hexadecimal.

    :raises UsageError: when it is not a valid SID, or none that can be.
    """
    match = _SID.fullmatch(text.strip())
    subauthorities = (
        [int(part) for part in match.group(3).split("-")[1:]] if match is not None else []
    )
    if match is None or int(match.group(1)) != 1 or not subauthorities:
        raise UsageError(
            f"group {text!r}", "it is not a SID", "give its objectSid, such as S-1-5-21-1-2-3-1104"
        )
    authority = int(match.group(2), 16 if match.group(2)[:2] in ("0x", "0X") else 10)
    if (
        authority > _MOST_AUTHORITY
        or len(subauthorities) > _MOST_SUBAUTHORITIES
        or max(subauthorities) > _MOST_SUBAUTHORITY
    ):
        cause = "a number in it, or their number, is too large for a SID"
        raise UsageError(
            f"group {text!r}", cause, "give its objectSid, such as S-1-5-21-1-2-3-1104"
        )
    return "-".join(["S-1", str(authority), *map(str, subauthorities)])


def is_ticket_sid(sid: str) -> bool:
    """Tell whether a ticket may name a group."""
    return _LOCAL_SID.fullmatch(sid) is None


def check_group_sid(sid: str, subject: str) -> None:
    """See that a group can be among those of a client's ticket.

    :param subject: how the error names the group.
    :raises UsageError: when no ticket ever names it.
    """
    if not is_ticket_sid(sid):
        cause = (
            "no ticket names it: a machine adds it to its own sessions, and not a domain controller"
        )
        remedy = "take a group of the domain, with the same members"
        raise UsageError(subject, cause, remedy, code="group-unusable")
