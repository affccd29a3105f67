"""The part of Active Directory's schema that services need (MS-ADA1 to MS-ADA3, MS-ADSC)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

from attrs import frozen

from mutauth_twisted.testing._acl import FULL

_COMMON: Final = "cn name description displayName nTSecurityDescriptor objectClass"
_ACCOUNT: Final = (
    f"{_COMMON} sAMAccountName userPrincipalName servicePrincipalName userAccountControl "
    "msDS-SupportedEncryptionTypes objectSid"
)
_READ: Final = "(A;;RPLCLORC;;;AU)"
_ADMINISTRATORS: Final = f"(A;;{FULL};;;DA)(A;;{FULL};;;SY)"
#: What a domain controller inherits to every object below the domain.
INHERITED: Final = f"(A;;{FULL};;;EA)(A;;RPWPCRCCLCLORCWOWDSDSW;;;BA)"
PERSONAL_INFORMATION: Final = UUID("77b5b886-944a-11d1-aebd-0000f80367c1")
SERVICE_PRINCIPAL_NAME: Final = UUID("f3a64788-5306-11d1-a9c5-0000f80367c1")


def fold(text: str) -> str:
    """Text as the directory compares it: each letter in upper case, where that is one letter."""
    return "".join(
        upper if len(upper := letter.upper()) == 1 else letter for letter in " ".join(text.split())
    )


def _text(value: bytes) -> object:
    return fold(value.decode("utf-8", "replace"))


def _dn(value: bytes) -> object:
    # objectCategory=computer names the class: CN=Computer,CN=Schema,...
    return _text(value.partition(b",")[0].rpartition(b"=")[2])


@frozen
class Attribute:
    """One attribute's definition.

    :param guid: its schemaIDGUID, which ACEs name.
    :param key: what a value is compared by.
    :param single: whether it has at most one value.
    :param catalog: whether global catalogs have it.
    :param property_set: the group of attributes that ACEs may name instead.
    :param system_only: whether the directory alone writes it.
    """

    guid: UUID
    key: Callable[[bytes], object] = _text
    single: bool = True
    catalog: bool = True
    property_set: UUID | None = None
    system_only: bool = False


def _attribute(guid: str, words: str = "", key: Callable[[bytes], object] = _text) -> Attribute:
    return Attribute(
        UUID(guid),
        key,
        single="multi" not in words,
        catalog="local" not in words,
        property_set=PERSONAL_INFORMATION if "personal" in words else None,
        system_only="system" in words,
    )


ATTRIBUTES: Final = {
    "objectClass": _attribute("bf9679e5-0de6-11d0-a285-00aa003049e2", "multi system"),
    "objectCategory": _attribute("26d97369-6070-11d1-a9c6-0000f80367c1", "", _dn),
    "objectGUID": _attribute("bf9679e7-0de6-11d0-a285-00aa003049e2", "system", bytes),
    "objectSid": _attribute("bf9679e8-0de6-11d0-a285-00aa003049e2", "system", bytes),
    "nTSecurityDescriptor": _attribute("bf9679e3-0de6-11d0-a285-00aa003049e2", "", bytes),
    "cn": _attribute("bf96793f-0de6-11d0-a285-00aa003049e2"),
    "name": _attribute("bf967a0e-0de6-11d0-a285-00aa003049e2", "system"),
    "ou": _attribute("bf9679f0-0de6-11d0-a285-00aa003049e2", "multi"),
    "description": _attribute("bf967950-0de6-11d0-a285-00aa003049e2", "multi"),
    "displayName": _attribute("bf967953-0de6-11d0-a285-00aa003049e2"),
    "sAMAccountName": _attribute("3e0abfd0-126a-11d0-a060-00aa006c33ed"),
    "userPrincipalName": _attribute("28630ebb-41d5-11d1-a9c1-0000f80367c1"),
    "userAccountControl": _attribute("bf967a68-0de6-11d0-a285-00aa003049e2", "", int),
    "msDS-SupportedEncryptionTypes": _attribute(
        "20119867-1d04-4ab7-9371-cfc3d5df0afd", "local personal", int
    ),
    "dNSHostName": _attribute("72e39547-7b18-11d1-adef-00c04fd8d5cd"),
    "servicePrincipalName": _attribute(str(SERVICE_PRINCIPAL_NAME), "multi"),
    "groupType": _attribute("9a9a021e-4a5b-11d1-a9c3-0000f80367c1", "", int),
    "member": _attribute("bf9679c0-0de6-11d0-a285-00aa003049e2", "multi"),
    "keywords": _attribute("bf967993-0de6-11d0-a285-00aa003049e2", "multi"),
    "serviceClassName": _attribute("b7b1311d-b82e-11d0-afee-0000f80367c1", "local"),
    "serviceDNSName": _attribute("28630eb8-41d5-11d1-a9c1-0000f80367c1", "local"),
    "serviceDNSNameType": _attribute("28630eba-41d5-11d1-a9c1-0000f80367c1", "local"),
    "serviceBindingInformation": _attribute("b7b1311c-b82e-11d0-afee-0000f80367c1", "multi"),
    "serviceClassID": _attribute("bf967a35-0de6-11d0-a285-00aa003049e2", "", bytes),
    "winsockAddresses": _attribute("bf967a79-0de6-11d0-a285-00aa003049e2", "multi", bytes),
    "systemFlags": _attribute("e0fa1e62-9b45-11d0-afdd-00c04fd930c9", "local system", int),
    "nCName": _attribute("bf9679d6-0de6-11d0-a285-00aa003049e2", "local system"),
    "nETBIOSName": _attribute("bf9679d8-0de6-11d0-a285-00aa003049e2", "local"),
    "dnsRoot": _attribute("bf967959-0de6-11d0-a285-00aa003049e2", "local multi"),
    "sPNMappings": _attribute("2ab0e76c-7041-11d2-9905-0000f87a57d4", "local multi"),
}
NAMES: Final = {name.lower(): name for name in ATTRIBUTES}


@frozen
class ObjectClass:
    """One class's definition.

    :param guid: its schemaIDGUID.
    :param chain: it and its superclasses, from ``top`` on.
    :param parents: the classes of the objects that it may be put below.
    :param may: the attributes that an object may have.
    :param must: those that it needs.
    :param security: its default security descriptor, in SDDL; CO is who creates it.
    """

    guid: UUID
    chain: tuple[str, ...]
    parents: frozenset[str]
    may: frozenset[str]
    must: frozenset[str]
    security: str


def _class(
    guid: str, chain: str, parents: str, may: str = _COMMON, must: str = "", security: str = ""
) -> ObjectClass:
    return ObjectClass(
        UUID(guid),
        tuple(chain.split()),
        frozenset(parents.split()),
        frozenset(f"{may} {must}".split()),
        frozenset(must.split()),
        _ADMINISTRATORS + (security or _READ),
    )


_IN = "container organizationalUnit domainDNS"
_PERSON = "top person organizationalPerson user"
CLASSES: Final = {
    each.chain[-1]: each
    for each in (
        _class("19195a5b-6da0-11d0-afd3-00c04fd930c9", "top domain domainDNS", ""),
        _class("bf967a87-0de6-11d0-a285-00aa003049e2", "top configuration", ""),
        _class("bf967a8b-0de6-11d0-a285-00aa003049e2", "top container", f"{_IN} configuration"),
        _class("7bfdcb83-4807-11d1-a9c3-0000f80367c1", "top nTDSService", "container"),
        _class("bf967aa5-0de6-11d0-a285-00aa003049e2", "top organizationalUnit", _IN, must="ou"),
        _class(
            "5b06b06a-4cf3-44c0-bd16-43bc10a987da",
            "top msDS-PasswordSettingsContainer",
            "container",
        ),
        _class("ef9e60e0-56f7-11d1-a9c6-0000f80367c1", "top crossRefContainer", "configuration"),
        _class("bf967a8d-0de6-11d0-a285-00aa003049e2", "top crossRef", "crossRefContainer"),
        _class(
            "bf967a9c-0de6-11d0-a285-00aa003049e2",
            "top group",
            _IN,
            f"{_COMMON} sAMAccountName objectSid member",
            "groupType",
        ),
        _class(
            "bf967aba-0de6-11d0-a285-00aa003049e2",
            _PERSON,
            _IN,
            _ACCOUNT,
            security=f"(A;;RPLCLORC;;;PS)(OA;;RPWP;{PERSONAL_INFORMATION};;PS)(A;;RPRC;;;AU)",
        ),
        _class(
            "bf967a86-0de6-11d0-a285-00aa003049e2",
            f"{_PERSON} computer",
            _IN,
            f"{_ACCOUNT} dNSHostName",
            security=f"{_READ}(A;;CCDC;;;PS)(OA;;SW;{SERVICE_PRINCIPAL_NAME};;PS)"
            f"(OA;;RPWP;{PERSONAL_INFORMATION};;PS)",
        ),
        _class(
            "28630ec1-41d5-11d1-a9c1-0000f80367c1",
            "top leaf connectionPoint serviceConnectionPoint",
            "organizationalUnit container computer",
            f"{_COMMON} keywords serviceClassName serviceDNSName serviceDNSNameType "
            "serviceBindingInformation",
            security=f"(A;;{FULL};;;CO){_READ}",
        ),
        _class(
            "bf967ab2-0de6-11d0-a285-00aa003049e2",
            "top leaf connectionPoint serviceInstance",
            "container",
            f"{_COMMON} keywords winsockAddresses",
            "serviceClassID displayName",
        ),
        _class(
            "bf967ab1-0de6-11d0-a285-00aa003049e2",
            "top leaf serviceClass",
            "container",
            must="serviceClassID displayName",
        ),
    )
}
