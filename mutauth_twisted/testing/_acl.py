"""Access control as a domain controller decides it (MS-ADTS 5.1.3), on real descriptors."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID

from winacl.dtyp.ace import (
    ACCESS_ALLOWED_ACE,
    ACCESS_ALLOWED_OBJECT_ACE,
    ACE_OBJECT_PRESENCE,
    AceFlags,
    ACEType,
)
from winacl.dtyp.acl import ACL
from winacl.dtyp.guid import GUID
from winacl.dtyp.security_descriptor import SE_SACL, SECURITY_DESCRIPTOR
from winacl.dtyp.sid import SID

#: The rights that MS-ADTS 5.1.3.2 names, as SDDL writes them (MS-DTYP 2.5.1.1).
RIGHTS: Mapping[str, int] = {
    "CC": 0x1,  # create a child
    "DC": 0x2,  # delete a child
    "LC": 0x4,
    "SW": 0x8,  # validated write
    "RP": 0x10,
    "WP": 0x20,  # write a property
    "DT": 0x40,
    "LO": 0x80,
    "CR": 0x100,
    "SD": 0x10000,  # delete
    "RC": 0x20000,  # read the security descriptor
    "WD": 0x40000,  # write the DACL
    "WO": 0x80000,
}
FULL = "RPWPCRCCDCLCLORCWOWDSDDTSW"
SELF = "S-1-5-10"
_ACE = re.compile(r"\((O?A);;(\w+);([0-9A-Fa-f-]*);;([\w-]+)\)")
_INHERIT_ONLY = 0x8
_ALLOWED = (ACEType.ACCESS_ALLOWED_ACE_TYPE, ACEType.ACCESS_ALLOWED_OBJECT_ACE_TYPE)


def descriptor(sddl: str, sids: Mapping[str, str]) -> bytes:
    """A self-relative security descriptor with a DACL and nothing else.

    :param sddl: allowing ACEs, ``(A;;RIGHTS;;;WHO)`` and ``(OA;;RIGHTS;GUID;;WHO)``.
    :param sids: the SID for each WHO.
    """
    made = SECURITY_DESCRIPTOR()
    made.Revision, made.Sbz1 = 1, 0
    made.Control = SE_SACL.SE_SELF_RELATIVE | SE_SACL.SE_DACL_PRESENT
    made.Owner = made.Group = made.Sacl = None
    made.Dacl = ACL()
    made.Dacl.AclRevision = 4
    for kind, rights, what, who in _ACE.findall(sddl):
        ace: Any = ACCESS_ALLOWED_OBJECT_ACE() if kind == "OA" else ACCESS_ALLOWED_ACE()
        ace.AceFlags = AceFlags(0)
        ace.Mask = sum(RIGHTS[rights[at : at + 2]] for at in range(0, len(rights), 2))
        ace.Sid = SID.from_string(sids[who])
        if kind == "OA":
            ace.Flags = ACE_OBJECT_PRESENCE.ACE_OBJECT_TYPE_PRESENT
            ace.ObjectType = GUID.from_bytes(UUID(what).bytes_le)
        made.Dacl.aces.append(ace)
    raw: bytes = made.to_bytes()
    return raw


@lru_cache(maxsize=256)
def _parse(raw: bytes) -> tuple[tuple[bool, int, str, UUID | None], ...]:
    return tuple(
        (
            ace.AceType in _ALLOWED,
            int(ace.Mask),
            str(ace.Sid),
            UUID(bytes_le=kind.to_bytes()) if (kind := getattr(ace, "ObjectType", None)) else None,
        )
        for ace in SECURITY_DESCRIPTOR.from_bytes(raw).Dacl.aces
        if not int(ace.AceFlags) & _INHERIT_ONLY
    )


def allows(raw: bytes, sids: Collection[str], right: str, *kinds: UUID | None) -> bool:
    """Tell whether a DACL grants a right: the first ACE that speaks of it decides.

    :param raw: the security descriptor.
    :param sids: the caller's own and those of its groups.
    :param kinds: the attribute, its property set, the child's class or the validated write.
    """
    for allowing, mask, sid, kind in _parse(raw):
        if mask & RIGHTS[right] and sid in sids and (kind is None or kind in kinds):
            return allowing
    return False
