"""The two rights that let a service keep its connection point up to date.

An object-allow ACE (MS-DTYP 2.4.4.3) each for serviceDNSName and
serviceBindingInformation, to read and write that one property, as Microsoft's
*Mutual authentication in a Windows Sockets service with an SCP* has it.  They
are not inherited by anything below.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from winacl.dtyp.ace import (
    ACCESS_ALLOWED_OBJECT_ACE,
    ACE_OBJECT_PRESENCE,
    ADS_ACCESS_MASK,
    AceFlags,
    ACEType,
)
from winacl.dtyp.acl import ACL
from winacl.dtyp.guid import GUID
from winacl.dtyp.security_descriptor import SE_SACL, SECURITY_DESCRIPTOR
from winacl.dtyp.sid import SID

from mutauth_twisted.errors import DirectoryError

#: schemaIDGUID of the attributes that the service itself updates.
SERVICE_DNS_NAME = UUID("28630eb8-41d5-11d1-a9c1-0000f80367c1")
SERVICE_BINDING_INFORMATION = UUID("b7b1311c-b82e-11d0-afee-0000f80367c1")
_PROPERTIES = (SERVICE_DNS_NAME, SERVICE_BINDING_INFORMATION)
_RIGHTS = int(ADS_ACCESS_MASK.READ_PROP | ADS_ACCESS_MASK.WRITE_PROP)
_ACL_REVISION_DS = 4  # MS-DTYP 2.4.5: the revision that may hold object ACEs
_HEADER_SIZE = 20  # MS-DTYP 2.4.6
_DENIALS = (
    ACEType.ACCESS_DENIED_ACE_TYPE,
    ACEType.ACCESS_DENIED_OBJECT_ACE_TYPE,
    ACEType.ACCESS_DENIED_CALLBACK_ACE_TYPE,
    ACEType.ACCESS_DENIED_CALLBACK_OBJECT_ACE_TYPE,
)


def _parse(descriptor: bytes) -> Any:
    try:
        if len(descriptor) < _HEADER_SIZE or descriptor[0] != 1:
            raise ValueError("not a security descriptor of revision 1")
        parsed = SECURITY_DESCRIPTOR.from_bytes(descriptor)
        # winacl reads past the end without a word: then it writes more than there was.
        if len(parsed.to_bytes()) > len(descriptor):
            raise ValueError("cut short")
    except Exception as error:  # winacl raises whatever its struct code happens to
        raise DirectoryError(
            "security descriptor",
            "it cannot be read",
            "look at it with ldp",
            code="rights-unreadable",
        ) from error
    if parsed.Dacl is None:
        parsed.Dacl = ACL()
        parsed.Dacl.AclRevision = _ACL_REVISION_DS
        parsed.Control |= SE_SACL.SE_DACL_PRESENT
    return parsed


def parse_sid(raw: bytes) -> str:
    """An objectSid as text, ``S-1-5-...``."""
    return str(SID.from_bytes(raw))


def sid_bytes(sid: str) -> bytes:
    """A SID as it stands in objectSid."""
    raw: bytes = SID.from_string(sid).to_bytes()
    return raw


def _grants(ace: Any, sid: str, attribute: UUID) -> bool:
    """Tell whether an ACE is exactly the one that :func:`grant` writes."""
    return (
        ace.AceType == ACEType.ACCESS_ALLOWED_OBJECT_ACE_TYPE
        and not int(ace.AceFlags)
        and ace.ObjectType is not None
        and ace.InheritedObjectType is None
        and ace.ObjectType.to_bytes() == attribute.bytes_le
        and str(ace.Sid) == sid
        and int(ace.Mask) & _RIGHTS == _RIGHTS
    )


def _allow(sid: str, attribute: UUID) -> Any:
    ace = ACCESS_ALLOWED_OBJECT_ACE()
    ace.AceFlags = AceFlags(0)
    ace.Mask = _RIGHTS
    ace.Flags = ACE_OBJECT_PRESENCE.ACE_OBJECT_TYPE_PRESENT
    ace.ObjectType = GUID.from_bytes(attribute.bytes_le)
    ace.Sid = SID.from_string(sid)
    return ace


def _place(aces: list[Any]) -> int:
    """Where an explicit allowance goes: after explicit denials, before what is inherited (MS-DTYP
    2.4.5).
    """
    for place, ace in enumerate(aces):
        if int(ace.AceFlags) & int(AceFlags.INHERITED_ACE):
            return place
        if ace.AceType not in _DENIALS:
            return place
    return len(aces)


def granted_to(descriptor: bytes) -> dict[str, bool]:
    """Return the trustees of such ACEs in a descriptor: the SID as text, and whether both ACEs are
    there.
    """
    aces = _parse(descriptor).Dacl.aces
    found: dict[str, bool] = {}
    for ace in aces:
        sid = str(ace.Sid)
        if sid not in found and any(_grants(ace, sid, attribute) for attribute in _PROPERTIES):
            found[sid] = all(
                any(_grants(other, sid, attribute) for other in aces) for attribute in _PROPERTIES
            )
    return found


def grant(descriptor: bytes, sid: str) -> bytes:
    """The descriptor with both ACEs for this account; the same bytes when they stand already."""
    parsed = _parse(descriptor)
    dacl = parsed.Dacl
    missing = [
        name for name in _PROPERTIES if not any(_grants(ace, sid, name) for ace in dacl.aces)
    ]
    if not missing:
        return descriptor
    place = _place(dacl.aces)
    dacl.aces[place:place] = [_allow(sid, attribute) for attribute in missing]
    dacl.AclRevision = _ACL_REVISION_DS
    written: bytes = parsed.to_bytes()
    return written


def revoke(descriptor: bytes, sid: str) -> bytes:
    """The descriptor without the two ACEs of this account; the same bytes when there are none."""
    parsed = _parse(descriptor)
    kept = [
        ace for ace in parsed.Dacl.aces if not any(_grants(ace, sid, name) for name in _PROPERTIES)
    ]
    if len(kept) == len(parsed.Dacl.aces):
        return descriptor
    parsed.Dacl.aces = kept
    written: bytes = parsed.to_bytes()
    return written
