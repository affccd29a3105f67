"""A domain controller's LDAP (RFC 4511) without a network: a socket that answers by itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from mutauth_twisted.directory.acl import sid_bytes
from mutauth_twisted.testing._ber import element, elements
from mutauth_twisted.testing._schema import ATTRIBUTES, NAMES, fold
from mutauth_twisted.testing._store import Caller, Refused, Store, Stored

_SEQUENCE, _SET, _OCTETS, _INTEGER, _ENUMERATED = 0x30, 0x31, 0x04, 0x02, 0x0A
_UNBIND, _SEARCH, _MODIFY, _ADD, _DELETE, _MOVE = 0x42, 0x63, 0x66, 0x68, 0x4A, 0x6C
_FOUND, _DONE, _REFERRAL, _CONTROLS = 0x64, 0x65, 0x73, 0xA0
_ANSWERS = {_MODIFY: 0x67, _ADD: 0x69, _DELETE: 0x6B, _MOVE: 0x6D}
_PAGED = b"1.2.840.113556.1.4.319"
_MOST = 1000  # MaxPageSize
_BITS_AND, _BITS_OR = "1.2.840.113556.1.4.803", "1.2.840.113556.1.4.804"

Page = tuple[bytes, ...]
#: Told of every write, by operation and DN, before it is done; raises what becomes of it instead.
Interference = Callable[[str, str], None]


class AnswerLost(Exception):
    """The connection ends after a write was done and before its answer."""


class DirectorySocket:
    """A connected socket with a domain controller behind it.

    :param root: what its rootDSE says, by attribute.
    :param catalog: whether it is a global catalog's port: the forest, read-only, some attributes.
    """

    def __init__(
        self,
        store: Store,
        caller: Caller,
        root: dict[str, str],
        *,
        catalog: bool,
        interfere: Interference,
    ) -> None:
        self._store = store
        self._caller = caller
        self._root = root
        self._catalog = catalog
        self._interfere = interfere
        self._answers = bytearray()
        self._pages: dict[bytes, list[Page]] = {}

    # The socket

    def restart(self) -> None:
        """Part of the bounded socket's interface: an answer is always there."""

    def sendall(self, data: bytes) -> None:
        """Answer a request."""
        ((_, message),) = elements(data)
        (_, number), (kind, body), *rest = elements(message)
        if kind == _UNBIND:
            return
        controls = dict(_controls(rest[0][1])) if rest else {}
        try:
            answers = self._answer(kind, body, controls)
        except AnswerLost as error:
            raise OSError("the connection was cut") from error
        for answer in answers:
            self._answers += element(_SEQUENCE, element(_INTEGER, number), *answer)

    def recv(self, size: int) -> bytes:
        """Return the answers that are left."""
        piece = bytes(self._answers[:size])
        del self._answers[:size]
        return piece

    def shutdown(self, how: int) -> None:
        """Part of a socket's interface."""

    def close(self) -> None:
        """Part of a socket's interface."""

    # LDAP

    def _answer(self, kind: int, body: bytes, controls: dict[bytes, bytes]) -> list[list[bytes]]:
        try:
            if kind == _SEARCH:
                return self._search(body, controls)
            self._write(kind, body)
        except Refused as error:
            return [[_result(_ANSWERS.get(kind, _DONE), error.code, error.message)]]
        return [[_result(_ANSWERS[kind])]]

    def _write(self, kind: int, body: bytes) -> None:
        name, rest = _named(kind, body)
        work = {_MODIFY: self._modify, _ADD: self._add, _DELETE: self._delete, _MOVE: self._move}
        if self._catalog:
            raise Refused(53, "SvcErr: a global catalog is read-only", 0x2077)
        lost: AnswerLost | None = None
        try:
            self._interfere(work[kind].__name__.strip("_"), name)
        except AnswerLost as error:
            lost = error
        work[kind](name, rest)
        if lost is not None:
            raise lost

    def _add(self, name: str, rest: list[tuple[int, bytes]]) -> None:
        given = [elements(each) for _, each in elements(rest[0][1])]
        self._store.add(
            self._caller, name, {kind[1].decode(): _values(values[1]) for kind, values in given}
        )

    def _modify(self, name: str, rest: list[tuple[int, bytes]]) -> None:
        changes = []
        for _, change in elements(rest[0][1]):
            (_, operation), (_, partial) = elements(change)
            (_, attribute), (_, values) = elements(partial)
            changes.append((operation[0], attribute.decode(), _values(values)))
        self._store.modify(self._caller, name, changes)

    def _delete(self, name: str, rest: list[tuple[int, bytes]]) -> None:
        self._store.delete(self._caller, name)

    def _move(self, name: str, rest: list[tuple[int, bytes]]) -> None:
        superior = rest[2][1].decode() if len(rest) > 2 else None
        self._store.move(self._caller, name, rest[0][1].decode(), superior)

    def _search(self, body: bytes, controls: dict[bytes, bytes]) -> list[list[bytes]]:
        (_, base), (_, scope), _, _, _, _, wanted, (_, names) = elements(body)
        attributes = [each.decode() for each in _values(names)]
        if _PAGED not in controls:
            found = [(each,) for each in self._found(base.decode(), scope[0], wanted, attributes)]
            return [*map(list, found), [_result(_DONE)]]
        ((_, paging),) = elements(controls[_PAGED])
        (_, size), (_, cookie) = elements(paging)
        left = self._pages.pop(cookie) if cookie else None
        if left is None:
            left = [(each,) for each in self._found(base.decode(), scope[0], wanted, attributes)]
        count = min(int.from_bytes(size, "big") or _MOST, _MOST)
        page, left = left[:count], left[count:]
        following = b"" if not left else b"page %d" % id(left)
        if left:
            self._pages[following] = left
        value = element(_SEQUENCE, element(_INTEGER, b"\0"), element(_OCTETS, following))
        control = element(_SEQUENCE, element(_OCTETS, _PAGED), element(_OCTETS, value))
        return [*map(list, page), [_result(_DONE), element(_CONTROLS, control)]]

    def _found(
        self, base: str, scope: int, wanted: tuple[int, bytes], names: Sequence[str]
    ) -> Iterator[bytes]:
        if not base and scope == 0:
            told = {name: [text.encode()] for name, text in self._root.items()}
            yield _entry("", told, names)
            return
        for each in self._candidates(base, scope):
            if _matches(wanted, lambda name, each=each: self._visible(each, name)):  # type: ignore[misc]
                shown = [*each.values] if "*" in names else []
                values = {name: self._visible(each, name) or [] for name in [*shown, *names]}
                yield _entry(each.dn, values, [*shown, *names])
        if scope == 2 and not self._catalog and fold(base) == fold(self._store.contexts[0].dn):
            other = f"ldap://other/{self._store.contexts[1].dn}".encode()
            yield element(_REFERRAL, element(_OCTETS, other))

    def _candidates(self, base: str, scope: int) -> Iterator[Stored]:
        if not base and self._catalog:
            yield from self._store.everything()
            return
        start = self._store.find(base)
        yield from ([start], start.children.values(), start.below())[scope]

    def _visible(self, target: Stored, name: str) -> list[bytes] | None:
        """An attribute's values; None: it is unknown, or global catalogs do not have it."""
        name = NAMES.get(name.lower(), name)
        if name == "distinguishedName":
            return [target.dn.encode()]
        if name == "allowedAttributesEffective":  # MS-ADTS 3.1.1.4.5.20
            return [
                each.encode()
                for each, definition in ATTRIBUTES.items()
                if self._store.may(
                    self._caller, target, "WP", definition.guid, definition.property_set
                )
            ]
        if name not in ATTRIBUTES or (self._catalog and not ATTRIBUTES[name].catalog):
            return None
        if name == "objectGUID":
            return [target.guid.bytes_le]
        if name == "nTSecurityDescriptor":
            may = self._store.may(self._caller, target, "RC")
            return [target.security] if may else []
        return target.values.get("cn" if name == "name" else name, [])


def _named(kind: int, body: bytes) -> tuple[str, list[tuple[int, bytes]]]:
    """The DN that a write is about, and the rest of the request."""
    if kind == _DELETE:
        return body.decode(), []
    (_, name), *rest = elements(body)
    return name.decode(), rest


def _controls(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for _, control in elements(data):
        (_, kind), *rest = elements(control)
        yield kind, rest[-1][1] if rest else b""


def _values(data: bytes) -> list[bytes]:
    return [value for _, value in elements(data)]


def _result(kind: int, code: int = 0, message: str = "") -> bytes:
    return element(
        kind,
        element(_ENUMERATED, bytes((code,))),
        element(_OCTETS),
        element(_OCTETS, message.encode()),
    )


def _entry(dn: str, values: dict[str, list[bytes]], names: Sequence[str]) -> bytes:
    wanted = {name.lower() for name in names}
    partial = [
        element(
            _SEQUENCE,
            element(_OCTETS, name.encode()),
            element(_SET, *(element(_OCTETS, value) for value in each)),
        )
        for name, each in values.items()
        if each and name.lower() in wanted
    ]
    return element(_FOUND, element(_OCTETS, dn.encode()), element(_SEQUENCE, *partial))


def _matches(wanted: tuple[int, bytes], values: Callable[[str], list[bytes] | None]) -> bool | None:
    """Evaluate a filter (RFC 4511, section 4.5.1.7); None: undefined."""
    kind, body = wanted
    if kind in (0xA0, 0xA1):
        parts = {_matches(each, values) for each in elements(body)}
        decisive = kind == 0xA1
        return decisive if decisive in parts else None if None in parts else not decisive
    if kind == 0xA2:
        inner = _matches(elements(body)[0], values)
        return None if inner is None else not inner
    if kind == 0x87:
        present = values(body.decode())
        return None if present is None else bool(present)
    if kind == 0xA9:
        return _matches_rule(dict(elements(body)), values)
    (_, name), (_, asserted) = elements(body)
    standing = values(name.decode())
    if standing is None:
        return None
    if kind == 0xA4:
        pattern = _pattern(elements(asserted))
        return any(pattern.fullmatch(fold(each.decode("utf-8", "replace"))) for each in standing)
    key = ATTRIBUTES[NAMES[name.decode().lower()]].key
    if name.lower() == b"objectsid" and asserted.startswith(b"S-"):
        asserted = sid_bytes(asserted.decode())
    return key(asserted) in map(key, standing)


def _pattern(pieces: Sequence[tuple[int, bytes]]) -> re.Pattern[str]:
    texts = [re.escape(fold(piece.decode("utf-8", "replace"))) for _, piece in pieces]
    before = "" if pieces[0][0] == 0x80 else ".*"
    after = "" if pieces[-1][0] == 0x82 else ".*"
    return re.compile(before + ".*".join(texts) + after, re.DOTALL)


def _matches_rule(
    parts: dict[int, bytes], values: Callable[[str], list[bytes] | None]
) -> bool | None:
    standing = values(parts[0x82].decode())
    if standing is None:
        return None
    bits, rule = int(parts[0x83]), parts[0x81].decode()
    if rule == _BITS_AND:
        return any(int(each) & bits == bits for each in standing)
    return rule == _BITS_OR and any(int(each) & bits for each in standing)
