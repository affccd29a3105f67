"""The objects of a domain and the rules a domain controller has for them (MS-ADTS 3.1.1.5)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from uuid import UUID, uuid4

from attrs import Factory, define

from mutauth_twisted.directory.acl import parse_sid, sid_bytes
from mutauth_twisted.ldap.dn import common_name, parent_of, parse_guid
from mutauth_twisted.testing import _acl
from mutauth_twisted.testing._schema import (
    ATTRIBUTES,
    CLASSES,
    INHERITED,
    NAMES,
    SERVICE_PRINCIPAL_NAME,
    Attribute,
    fold,
)

# RFC 4511, appendix A.
NO_SUCH_ATTRIBUTE, CONSTRAINT, VALUE_EXISTS, NO_SUCH_OBJECT, INVALID_DN = 16, 19, 20, 32, 34
NO_RIGHT, UNWILLING, NAMING, CLASS, HAS_CHILDREN, ON_RDN, EXISTS = 50, 53, 64, 65, 66, 67, 68
OTHER = 80
ADD, DELETE, REPLACE = 0, 1, 2
_NOT_UNIQUE = 0x21C7  # ERROR_DS_SPN_VALUE_NOT_UNIQUE_IN_FOREST

Values = dict[str, list[bytes]]


class Refused(Exception):
    """An LDAP result other than success."""

    def __init__(self, code: int, message: str, win32: int = 0) -> None:
        super().__init__(code, f"{win32:08X}: {message}")
        self.code, self.message = self.args


@define(eq=False)
class Stored:
    """One object.

    :param rdn: type and value of its first RDN, without escapes; of a naming context the DN.
    :param parent: None: it is the head of a naming context.
    :param values: what it has, by attribute.
    :param owner: the SID of whoever created it.
    :param security: its security descriptor, the DACL alone.
    """

    rdn: tuple[str, str]
    parent: Stored | None
    values: Values
    owner: str
    security: bytes
    guid: UUID = Factory(uuid4)
    children: dict[tuple[str, str], Stored] = Factory(dict)

    @property
    def dn(self) -> str:
        if self.parent is None:
            return self.rdn[1]
        return f"{self.rdn[0]}={_spelled(self.rdn[1])},{self.parent.dn}"

    @property
    def kind(self) -> str:
        """Its most specific class."""
        return self.values["objectClass"][-1].decode()

    @property
    def sid(self) -> bytes | None:
        """Its objectSid."""
        return next(iter(self.values.get("objectSid", ())), None)

    def below(self) -> Iterator[Stored]:
        """It and everything below it."""
        yield self
        for child in list(self.children.values()):
            yield from child.below()

    def spns(self) -> list[str]:
        """Its SPNs."""
        return [value.decode() for value in self.values.get("servicePrincipalName", ())]


@define
class Caller:
    """Account that speaks to the domain controller.

    :param sid: the account's own.
    :param sids: that one, its groups', and those that every account has.
    """

    sid: str
    sids: frozenset[str]


class Store:
    """The naming contexts of one domain controller.

    :param sid: the domain's.
    """

    def __init__(self, sid: str) -> None:
        self._sid, self._next = sid, 1103
        #: What the abbreviations in default security descriptors stand for.
        self._sids = {
            "DA": f"{sid}-512",
            "EA": f"{sid}-519",
            "BA": "S-1-5-32-544",
            "SY": "S-1-5-18",
            "AU": "S-1-5-11",
            "PS": _acl.SELF,
        }
        self.administrator = Caller(
            f"{sid}-500", frozenset((f"{sid}-500", *self._sids.values())) - {_acl.SELF}
        )
        self.contexts: list[Stored] = []

    def add_context(self, dn: str, kind: str) -> None:
        """Begin a naming context."""
        head = self._made(("", dn), None, kind, {}, self._sids["DA"])
        self.contexts.append(head)

    # Finding

    def everything(self) -> Iterator[Stored]:
        """Every object of every naming context."""
        for head in self.contexts:
            yield from head.below()

    def find(self, name: str) -> Stored:
        """The object of a DN, or of ``<GUID=...>`` wherever it is."""
        if name.startswith("<GUID=") and (guid := parse_guid(name[6:-1])) is not None:
            found = next((each for each in self.everything() if each.guid == guid), None)
        else:
            found = self._at(name)
        if found is None:
            raise Refused(NO_SUCH_OBJECT, "No such object", 0x208D)
        return found

    def _at(self, dn: str) -> Stored | None:
        for head in self.contexts:
            if fold(dn) == fold(head.dn):
                return head
        key, parent = _rdn(dn), parent_of(dn)
        above = self._at(parent) if parent else None
        return above.children.get((key[0].casefold(), fold(key[1]))) if above else None

    # Rights

    def may(self, caller: Caller, target: Stored, right: str, *kinds: UUID | None) -> bool:
        """Tell whether the caller has a right on an object."""
        sids = set(caller.sids)
        if target.sid is not None and caller.sid == parse_sid(target.sid):
            sids.add(_acl.SELF)
        if right in ("RC", "WD") and target.owner in sids:
            return True
        return _acl.allows(target.security, sids, right, *kinds)

    def _require(self, granted: bool) -> None:
        if not granted:
            raise Refused(NO_RIGHT, "SecErr: INSUFF_ACCESS_RIGHTS", 0x2098)

    # Writing

    def add(self, caller: Caller, dn: str, given: Mapping[str, Sequence[bytes]]) -> Stored:
        """Create an object."""
        rdn = _rdn(dn)
        parent = self.find(parent_of(dn))
        if (rdn[0].casefold(), fold(rdn[1])) in parent.children:
            raise Refused(EXISTS, "UpdErr: ENTRY_EXISTS", 0x2071)
        values = {_name(name): list(each) for name, each in given.items()}
        kind = _kind(values.pop("objectClass", []))
        self._require(self.may(caller, parent, "CC", CLASSES[kind].guid))
        _check_class(kind, rdn, parent, values)
        if "sAMAccountName" in CLASSES[kind].may:
            values["objectSid"] = [sid_bytes(f"{self._sid}-{self._next}")]
            self._next += 1
        for name, each in values.items():
            _check_values(name, each, CONSTRAINT)
        self._check_spns(None, values.get("servicePrincipalName", []))
        owner = self._sids["DA"] if self._sids["DA"] in caller.sids else caller.sid
        made = self._made(rdn, parent, kind, values, owner)
        parent.children[rdn[0].casefold(), fold(rdn[1])] = made
        return made

    def _made(
        self, rdn: tuple[str, str], parent: Stored | None, kind: str, values: Values, owner: str
    ) -> Stored:
        definition = CLASSES[kind]
        security = _acl.descriptor(definition.security + INHERITED, {**self._sids, "CO": owner})
        category = f"CN={kind[0].upper()}{kind[1:]},CN=Schema,CN=Configuration"
        own = {
            "objectClass": [each.encode() for each in definition.chain],
            "objectCategory": [category.encode()],
        }
        return Stored(rdn, parent, {**own, **values}, owner, security)

    def modify(
        self, caller: Caller, name: str, changes: Sequence[tuple[int, str, Sequence[bytes]]]
    ) -> None:
        """Change attributes of one object, all or none."""
        target = self.find(name)
        values = {each: list(present) for each, present in target.values.items()}
        security = target.security
        for operation, attribute, given in changes:
            named = _name(attribute)
            self._require_write(caller, target, named, operation, given)
            if named == "nTSecurityDescriptor":
                (security,) = given
                continue
            if named.casefold() == target.rdn[0].casefold():
                raise Refused(ON_RDN, "UpdErr: NOT_ON_RDN", 0x20B0)
            if ATTRIBUTES[named].system_only:
                raise Refused(CONSTRAINT, "AtrErr: the directory alone writes it", 0x207D)
            values[named] = _changed(ATTRIBUTES[named], operation, values.get(named, []), given)
            _check_values(named, values[named])
            if named not in CLASSES[target.kind].may and values[named]:
                raise Refused(CLASS, "UpdErr: OBJ_CLASS_VIOLATION", 0x207D)
        before = {fold(spn) for spn in target.spns()}
        added = [
            value
            for value in values.get("servicePrincipalName", [])
            if fold(value.decode()) not in before
        ]
        self._check_spns(target, added)
        target.values = {each: present for each, present in values.items() if present}
        target.security = security

    def _require_write(
        self, caller: Caller, target: Stored, name: str, operation: int, given: Sequence[bytes]
    ) -> None:
        definition = ATTRIBUTES[name]
        if name == "nTSecurityDescriptor":
            self._require(self.may(caller, target, "WD"))
            return
        if self.may(caller, target, "WP", definition.guid, definition.property_set):
            return
        # MS-ADTS 3.1.1.5.3.1.1.4: the validated write of a host for its own names.
        self._require(
            name == "servicePrincipalName"
            and self.may(caller, target, "SW", SERVICE_PRINCIPAL_NAME)
        )
        own = {fold(text) for text in _own_hosts(target)}
        for spn in given if operation != DELETE else ():
            parts = spn.decode("utf-8", "replace").split("/")
            if len(parts) != 2 or fold(parts[1]) not in own:
                raise Refused(CONSTRAINT, "AtrErr: not a name of this host", 0x2081)

    def _check_spns(self, target: Stored | None, added: Collection[bytes]) -> None:
        """No other account has an added SPN, nor one that a ``host/`` SPN stands for."""
        wanted = {fold(value.decode()) for value in added}
        mappings = {
            fold(alias): fold(name)
            for each in self.everything()
            for mapping in each.values.get("sPNMappings", ())
            for name, _, aliases in [mapping.decode().partition("=")]
            for alias in aliases.split(",")
        }
        for other in self.everything() if wanted else ():
            if other is target:
                continue
            for spn in map(fold, other.spns()):
                kind, _, rest = spn.partition("/")
                if spn in wanted or f"{mappings.get(kind)}/{rest}" in wanted:
                    raise Refused(CONSTRAINT, "AtrErr: servicePrincipalName", _NOT_UNIQUE)

    def delete(self, caller: Caller, name: str) -> None:
        """Delete an object with nothing below it."""
        target = self.find(name)
        self._require_removal(caller, target)
        if target.children:
            raise Refused(HAS_CHILDREN, "UpdErr: CANT_ON_NON_LEAF", 0x2015)
        _detach(target)

    def _require_removal(self, caller: Caller, target: Stored) -> None:
        if target.parent is None:
            raise Refused(UNWILLING, "SvcErr: it is a naming context", 0x2077)
        self._require(
            self.may(caller, target, "SD")
            or self.may(caller, target.parent, "DC", CLASSES[target.kind].guid)
        )

    def move(self, caller: Caller, name: str, rdn: str, superior: str | None) -> None:
        """Rename an object, move it below another one, or both."""
        target = self.find(name)
        self._require_removal(caller, target)
        parent = self._at(superior) if superior is not None else target.parent
        if parent is None:
            raise Refused(OTHER, "UpdErr: there is no such parent", 0x208D)
        if parent in target.below():
            raise Refused(UNWILLING, "SvcErr: it would be below itself", 0x2077)
        if parent is not target.parent:
            self._require(self.may(caller, parent, "CC", CLASSES[target.kind].guid))
        self._require(self.may(caller, target, "WP", ATTRIBUTES["name"].guid))
        new = _rdn(rdn)
        key = (new[0].casefold(), fold(new[1]))
        if parent.children.get(key, target) is not target:
            raise Refused(EXISTS, "UpdErr: ENTRY_EXISTS", 0x2071)
        _check_parent(target.kind, parent)
        _detach(target)
        target.rdn, target.parent = new, parent
        parent.children[key] = target


def _rdn(dn: str) -> tuple[str, str]:
    """Type and value of a DN's first component."""
    value = common_name(dn)
    if not value:
        raise Refused(INVALID_DN, "NameErr: BAD_NAME", 0x208F)
    return dn.partition("=")[0].strip().upper(), value


def _spelled(value: str) -> str:
    """A value in a DN as Samba writes it, which is not how we do."""
    spelled = re.sub(r'[,+"\\<>#]', r"\\\g<0>", value)
    spelled = re.sub(r"[;=\x00-\x1f]", lambda found: f"\\{ord(found[0]):02X}", spelled)
    return re.sub(r"^ | $", r"\\ ", spelled)


def _detach(target: Stored) -> None:
    assert target.parent is not None, "a naming context stays"
    del target.parent.children[target.rdn[0].casefold(), fold(target.rdn[1])]


def _name(given: str) -> str:
    """An attribute's name as the schema writes it."""
    try:
        return NAMES[given.lower()]
    except KeyError:
        raise Refused(NO_SUCH_ATTRIBUTE, f"NoSuchAttribute: {given}", 0x57) from None


def _kind(classes: Sequence[bytes]) -> str:
    for each in reversed(classes):
        for kind in CLASSES:
            if kind.casefold() == each.decode("utf-8", "replace").casefold():
                return kind
    raise Refused(NO_SUCH_ATTRIBUTE, "no such class", 0x57)


def _check_parent(kind: str, parent: Stored) -> None:
    if parent.kind not in CLASSES[kind].parents:
        raise Refused(NAMING, "NameErr: NAMING_VIOLATION", 0x2099)


def _check_class(kind: str, rdn: tuple[str, str], parent: Stored, values: Values) -> None:
    _check_parent(kind, parent)
    definition = CLASSES[kind]
    values.setdefault(_name(rdn[0]), [rdn[1].encode()])
    if not definition.must <= set(values) <= definition.may | {_name(rdn[0])}:
        raise Refused(CLASS, "UpdErr: OBJ_CLASS_VIOLATION", 0x207D)


def _check_values(name: str, values: Sequence[bytes], several: int = VALUE_EXISTS) -> None:
    definition = ATTRIBUTES[name]
    if definition.single and len(values) > 1:
        raise Refused(several, f"AtrErr: {name} has one value", 0x2081)
    if len({definition.key(value) for value in values}) < len(values):
        raise Refused(VALUE_EXISTS, f"AtrErr: {name} has it already", 0x2083)


def _changed(
    definition: Attribute, operation: int, present: Sequence[bytes], given: Sequence[bytes]
) -> list[bytes]:
    if operation == REPLACE:
        return list(given)
    if operation == ADD:
        return [*present, *given]
    gone = {definition.key(value) for value in given}
    kept = [value for value in present if definition.key(value) not in gone] if given else []
    if not present or len(kept) > len(present) - len(gone):
        raise Refused(NO_SUCH_ATTRIBUTE, "AtrErr: it has no such value", 0x2085)
    return kept


def _own_hosts(computer: Stored) -> list[str]:
    names = [
        value.decode()
        for name in ("dNSHostName", "sAMAccountName")
        for value in computer.values.get(name, ())
    ]
    return [name.removesuffix("$") for name in names]
