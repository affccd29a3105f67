"""One sealed connection to a domain controller, as plain blocking calls.

ldap3's exceptions end here: what comes out is in :mod:`mutauth_twisted.errors`.
"""

from __future__ import annotations

import re
import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar
from uuid import UUID

import ldap3
from attrs import frozen
from ldap3.core.exceptions import LDAPExceptionError, LDAPOperationResult
from ldap3.protocol.microsoft import security_descriptor_control

from mutauth_twisted.errors import DirectoryRefused, DirectoryUnreachable, MutualAuthError, NotFound
from mutauth_twisted.ldap.dn import guid_dn, parent_of
from mutauth_twisted.ldap.filter import correct_ldap3
from mutauth_twisted.ldap.options import DirectoryOptions

correct_ldap3()
_DEFAULT_OPTIONS = DirectoryOptions()

T = TypeVar("T")
Scope = Literal["base", "one", "subtree"]
Value = str | bytes

_SCOPES = {"base": ldap3.BASE, "one": ldap3.LEVEL, "subtree": ldap3.SUBTREE}
_PAGED = "1.2.840.113556.1.4.319"
_PAGE_SIZE = 500
_DACL = (
    4  # DACL_SECURITY_INFORMATION: without it a write would need the right to change the owner too
)
_WIN32 = re.compile(r"\b([0-9A-Fa-f]{8}):")

# RFC 4511, appendix A, as Active Directory uses it: what it means, and what to do.
_REFUSALS: dict[int, tuple[str, str]] = {
    8: ("the domain controller wants a protected connection", ""),
    10: ("it is in another domain", "name a domain controller of that domain"),
    11: ("the domain controller's limit was exceeded", "ask for less"),
    16: ("it has no such value", ""),
    19: ("the value is not allowed", ""),
    20: ("it has this value already", ""),
    21: ("the value has a wrong form", ""),
    34: ("it is not a valid DN", "check its spelling and quoting"),
    50: ("this account may not do that", "run it as an administrator, or have the right delegated"),
    51: ("the domain controller is busy", "try again"),
    52: ("the domain controller is not available for this", "try again"),
    53: ("the domain controller is unwilling to perform it", ""),
    65: ("the schema does not allow it", ""),
    66: ("it has objects below it", "remove them first"),
    68: ("it exists already", ""),
}
NO_SUCH_ATTRIBUTE, CONSTRAINT_VIOLATION, VALUE_EXISTS, INSUFFICIENT_RIGHTS, ENTRY_EXISTS = (
    16,
    19,
    20,
    50,
    68,
)
SPN_NOT_UNIQUE = 8647  # ERROR_DS_SPN_VALUE_NOT_UNIQUE_IN_FOREST
_SAMBA_CONFLICT = "would cause a conflict"  # Samba's answer has a general code; only its words tell


@frozen
class Entry:
    """Attributes that were read of one object.

    :param dn: its distinguished name as the directory writes it.
    :param attributes: raw values by attribute name in lower case.
    """

    dn: str
    attributes: Mapping[str, tuple[bytes, ...]]

    def values(self, name: str) -> tuple[bytes, ...]:
        """An attribute's raw values; none when it is absent."""
        return self.attributes.get(name.lower(), ())

    def texts(self, name: str) -> tuple[str, ...]:
        """An attribute's values as text."""
        return tuple(value.decode("utf-8", "replace") for value in self.values(name))

    def text(self, name: str) -> str | None:
        """The one value of an attribute as text, or None."""
        return next(iter(self.texts(name)), None)

    @property
    def guid(self) -> UUID:
        """The object's GUID, when it was among the attributes asked for."""
        return UUID(bytes_le=self.values("objectGUID")[0])


@frozen
class Change:
    """One change of one attribute: ``add``, ``delete`` or ``replace``; replacing by nothing clears
    it.
    """

    kind: Literal["add", "delete", "replace"]
    attribute: str
    values: tuple[Value, ...] = ()


_KINDS = {"add": ldap3.MODIFY_ADD, "delete": ldap3.MODIFY_DELETE, "replace": ldap3.MODIFY_REPLACE}


def _refusal(subject: str, error: LDAPOperationResult) -> MutualAuthError:
    code = int(error.result)
    message = (error.message or "").rstrip("\0 \n")
    found = _WIN32.search(message)
    win32 = int(found.group(1), 16) if found else 0
    if code == 32:
        return NotFound(subject, "the directory has no such object", "check its name")
    if code == CONSTRAINT_VIOLATION and (win32 == SPN_NOT_UNIQUE or _SAMBA_CONFLICT in message):
        cause = f"another account in the forest holds it already ({message})"
        remedy = "find the holder with mutauth spn query; remove it there first"
        return DirectoryRefused(
            subject,
            cause,
            remedy,
            code="spn-duplicate",
            result=code,
            win32=SPN_NOT_UNIQUE,
            diagnostic=message,
        )
    meaning, remedy = _REFUSALS.get(
        code, (f"the domain controller refused ({error.description})", "")
    )
    cause = f"{meaning} ({message})" if message else meaning
    name = "no-right" if code == INSUFFICIENT_RIGHTS else None
    return DirectoryRefused(
        subject, cause, remedy, code=name, result=code, win32=win32, diagnostic=message
    )


class LdapSession:
    """One connection that was authenticated both ways and is sealed.

    Not for several threads at once.

    :param connection: from :func:`~mutauth_twisted.ldap.sealing.open_sealed`.
    :param server: the domain controller's name, for errors.
    :param catalog: whether this is the global catalog's port.
    :param options: how this directory is reached.
    :ivar given_up: whether nothing waits for the work any more, which then changes nothing.
    :ivar wrote: whether anything was asked to change on it since it was lent.
    """

    def __init__(
        self,
        connection: ldap3.Connection,
        server: str,
        *,
        catalog: bool = False,
        options: DirectoryOptions = _DEFAULT_OPTIONS,
    ) -> None:
        self._connection = connection
        self.server = server
        self.catalog = catalog
        self.options = options
        self.wrote = False
        self.given_up: Callable[[], bool] = lambda: False
        self._root: Entry | None = None

    def _call(self, subject: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        try:
            if not self._connection.closed:
                self._connection.socket.restart()
            return function(*args, **kwargs)
        except LDAPOperationResult as error:
            raise _refusal(subject, error) from error
        except (LDAPExceptionError, OSError) as error:
            self.close()
            text = (
                str(error)
                .removeprefix("error receiving data: ")
                .removeprefix("socket sending error")
            )
            cause = f"the connection was lost ({text or type(error).__name__})"
            raise DirectoryUnreachable(
                f"domain controller {self.server}", cause, "try again"
            ) from error

    def _write(self, subject: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if self.given_up():
            raise DirectoryRefused(
                subject, "it is not changed: the operation was given up", "try again"
            )
        self.wrote = True
        self._call(subject, function, *args, **kwargs)

    def search(
        self,
        base: str,
        filter: str,
        attributes: Sequence[str] = (),
        *,
        scope: Scope = "subtree",
        page_size: int = _PAGE_SIZE,
    ) -> Iterator[Entry]:
        """Search page by page, as far as the result is read.

        Names and values in the filter must be escaped already
        (:mod:`mutauth_twisted.ldap.dn`).  An empty base on a global
        catalog means the whole forest.

        :param page_size: objects in one answer, at most 1000 in Active Directory.
        """
        cookie: bytes | None = None
        while True:
            self._call(
                base or "the forest",
                self._connection.search,
                base,
                filter,
                _SCOPES[scope],
                attributes=list(attributes) or [ldap3.NO_ATTRIBUTES],
                paged_size=page_size,
                paged_cookie=cookie,
            )
            page, result = self._connection.response, self._connection.result
            for item in page:
                if item["type"] == "searchResEntry":
                    yield _entry(item)
            cookie = result.get("controls", {}).get(_PAGED, {}).get("value", {}).get("cookie")
            if not cookie:
                return

    def read(
        self, name: str | UUID, attributes: Sequence[str], *, filter: str = "(objectClass=*)"
    ) -> Entry:
        """Read one object by its DN, or by its GUID wherever it is now.

        :raises NotFound: when there is no such object, or this account may not see it.
        """
        subject = f"object with GUID {name}" if isinstance(name, UUID) else name
        base = guid_dn(name) if isinstance(name, UUID) else name
        controls = None
        if any(attribute.lower() == "ntsecuritydescriptor" for attribute in attributes):
            controls = security_descriptor_control(sdflags=_DACL)
        self._call(
            subject,
            self._connection.search,
            base,
            filter,
            ldap3.BASE,
            attributes=list(attributes),
            controls=controls,
        )
        for item in self._connection.response:
            if item["type"] == "searchResEntry":
                return _entry(item)
        raise NotFound(subject, "the directory has no such object", "check its name")

    def add(self, dn: str, attributes: Mapping[str, Value | Sequence[Value]]) -> None:
        """Create an object; its ``objectClass`` is among the attributes."""
        self._write(dn, self._connection.add, dn, attributes=dict(attributes))

    def modify(self, name: str | UUID, changes: Sequence[Change]) -> None:
        """Change attributes of one object, all or none."""
        collected: dict[str, list[tuple[str, list[Value]]]] = {}
        for change in changes:
            collected.setdefault(change.attribute, []).append(
                (_KINDS[change.kind], list(change.values))
            )
        base = guid_dn(name) if isinstance(name, UUID) else name
        controls = None
        if any(attribute.lower() == "ntsecuritydescriptor" for attribute in collected):
            controls = security_descriptor_control(sdflags=_DACL)
        self._write(str(name), self._connection.modify, base, collected, controls=controls)

    def delete(self, dn: str) -> None:
        """Delete one object that has nothing below it."""
        self._write(dn, self._connection.delete, dn)

    def move(self, dn: str, parent: str) -> str:
        """Move an object below another parent; its new DN."""
        name = dn[: -len(parent_of(dn)) - 1]
        self._write(dn, self._connection.modify_dn, dn, name, new_superior=parent)
        return f"{name},{parent}"

    @property
    def root_dse(self) -> Entry:
        """Read the rootDSE, the domain controller's own description (RFC 4512, section 5.1)."""
        if self._root is None:
            names = (
                "defaultNamingContext",
                "rootDomainNamingContext",
                "configurationNamingContext",
                "dnsHostName",
            )
            self._root = self.read("", names)
        return self._root

    @property
    def domain_dn(self) -> str:
        """The DN of the domain that this domain controller serves."""
        return self.root_dse.text("defaultNamingContext") or ""

    @property
    def root(self) -> str:
        """The base of everything there is here: a global catalog's forest, or the domain."""
        return "" if self.catalog else self.domain_dn

    @property
    def forest_dn(self) -> str:
        """The DN of the forest's root domain."""
        return self.root_dse.text("rootDomainNamingContext") or ""

    @property
    def usable(self) -> bool:
        """True if nothing speaks against another operation: not closed by us, and silent.

        On an idle connection any byte, the end of the stream included, is a
        farewell.
        """
        if self._connection.closed:
            return False
        poll = select.poll()  # not select(), which takes no descriptor above 1023
        poll.register(self._connection.socket.fileno(), select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close without waiting."""
        if not self._connection.closed:
            with suppress(LDAPExceptionError, OSError):
                self._connection.unbind()


def _entry(item: Mapping[str, Any]) -> Entry:
    raw = item["raw_attributes"]
    return Entry(
        item["dn"],
        {name.lower(): tuple(bytes(value) for value in values) for name, values in raw.items()},
    )
