"""The two access control entries."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from winacl.dtyp.ace import AceFlags, ACEType
from winacl.dtyp.security_descriptor import SECURITY_DESCRIPTOR

from mutauth_twisted.directory.acl import grant, granted_to, parse_sid, revoke, sid_bytes
from mutauth_twisted.errors import DirectoryError

SID = "S-1-5-21-1-2-3-1104"
OTHER = "S-1-5-21-1-2-3-1105"
#: A denial, an allowance, and an inherited allowance, in canonical order.
_PARSED = SECURITY_DESCRIPTOR.from_sddl(
    "O:S-1-5-21-1-2-3-512G:S-1-5-21-1-2-3-512D:AI(D;;SD;;;S-1-5-21-1-2-3-1200)(A;;GR;;;S-1-5-11)"
    "(A;CIID;GA;;;S-1-5-21-1-2-3-519)"
)
_PARSED.Dacl.AclRevision = 4  # as every descriptor of the directory has it
DESCRIPTOR: bytes = _PARSED.to_bytes()


def aces(descriptor: bytes) -> list[Any]:
    return list(SECURITY_DESCRIPTOR.from_bytes(descriptor).Dacl.aces)


class SecurityTests(SynchronousTestCase):
    """Granting, asking and revoking."""

    def test_grant(self) -> None:
        """Two object-allow entries, to read and write one property each, not inherited."""
        self.assertEqual(granted_to(DESCRIPTOR), {})
        granted = grant(DESCRIPTOR, SID)
        self.assertEqual(granted_to(granted), {SID: True})
        added = [ace for ace in aces(granted) if str(ace.Sid) == SID]
        self.assertEqual(
            {str(ace.ObjectType) for ace in added},
            {"28630eb8-41d5-11d1-a9c1-0000f80367c1", "b7b1311c-b82e-11d0-afee-0000f80367c1"},
        )
        for ace in added:
            self.assertEqual(ace.AceType, ACEType.ACCESS_ALLOWED_OBJECT_ACE_TYPE)
            self.assertEqual((int(ace.Mask), int(ace.AceFlags), int(ace.Flags)), (0x30, 0, 1))
            self.assertIsNone(ace.InheritedObjectType)

    def test_canonical_order(self) -> None:
        """Denials stay first, and what is inherited last."""
        order = aces(grant(DESCRIPTOR, SID))
        self.assertEqual(order[0].AceType, ACEType.ACCESS_DENIED_ACE_TYPE)
        self.assertEqual([str(ace.Sid) == SID for ace in order], [False, True, True, False, False])
        self.assertTrue(int(order[-1].AceFlags) & int(AceFlags.INHERITED_ACE))

    def test_again(self) -> None:
        """Granting and revoking twice change nothing the second time."""
        granted = grant(DESCRIPTOR, SID)
        self.assertIs(grant(granted, SID), granted)
        self.assertEqual(revoke(granted, SID), DESCRIPTOR)
        self.assertIs(revoke(DESCRIPTOR, SID), DESCRIPTOR)

    def test_two_accounts(self) -> None:
        """One account's entries do not touch another's."""
        both = grant(grant(DESCRIPTOR, SID), OTHER)
        self.assertEqual(revoke(both, OTHER), grant(DESCRIPTOR, SID))
        self.assertEqual(granted_to(both), {SID: True, OTHER: True})
        self.assertEqual(granted_to(DESCRIPTOR), {})

    def test_half_is_not_granted(self) -> None:
        """One entry of the two is not enough, and only the missing one is added."""
        parsed = SECURITY_DESCRIPTOR.from_bytes(grant(DESCRIPTOR, SID))
        del parsed.Dacl.aces[1]
        half = parsed.to_bytes()
        self.assertEqual(granted_to(half), {SID: False})
        self.assertEqual(len(aces(grant(half, SID))), 5)

    def test_garbage(self) -> None:
        """Bytes that are not a descriptor are one error."""
        for descriptor in (b"", b"\1", DESCRIPTOR[:40], DESCRIPTOR[:-30], b"\xff" * 40):
            self.assertRaises(DirectoryError, grant, descriptor, SID)

    def test_sid(self) -> None:
        """Binary SIDs as text."""
        raw = bytes.fromhex("01020000000000052000000020020000")
        self.assertEqual(parse_sid(raw), "S-1-5-32-544")
        self.assertEqual(sid_bytes("S-1-5-32-544"), raw)
