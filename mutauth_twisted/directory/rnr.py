"""RnR: services in the domain's container for Windows Sockets name registration.

Source: Microsoft, *Mutual authentication in Windows Sockets applications*.  A
service is a ``serviceInstance`` in ``CN=WinsockServices,CN=System`` of its
domain, of a ``serviceClass`` that is there too, and its SPN has the instance's
DN as service name: ``class/host/CN=name,CN=WinsockServices,...``.  Both kinds
of object need a displayName and a serviceClassID (MS-ADSC).

How ``winsockAddresses`` is encoded is not documented anywhere.  The encoding
here is our own, one value for each host that offers the service, in UTF-8::

    mutauth/1 HOST BINDING

HOST is the host's DNS name, which is in the SPN; BINDING is the port with what
else a client should know, as :mod:`~mutauth_twisted.directory.binding` writes
it: ``mutauth/1 srv1.example.com 9000;priority=1``.  Values of any other form,
or of another version, belong to others: readers pass over them, writers leave
them alone.

What an instance proves: that an administrator created it, as no other account may
write there unless the right was delegated.  The SPN with its DN has three
parts, so that only an administrator can have registered that one too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from uuid import UUID, uuid5

from attrs import field, frozen

from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.done import Done, Report, no_report
from mutauth_twisted.directory.servicename import verify_class
from mutauth_twisted.errors import (
    DirectoryRefused,
    NotFound,
    OtherObject,
    UsageError,
)
from mutauth_twisted.ldap.dn import child_dn, is_dn, parent_of
from mutauth_twisted.ldap.filter import all_of, equals
from mutauth_twisted.ldap.session import INSUFFICIENT_RIGHTS, Change, Entry, LdapSession, Value
from mutauth_twisted.names import fold_ascii, is_host_name
from mutauth_twisted.spn import SPN

INSTANCE_CLASS = "serviceInstance"
CLASS_CLASS = "serviceClass"
_FORMAT = b"mutauth/1 "
#: Longer values are not an address; a DNS name has at most 253 characters.
_MAX_VALUE = 1024
#: Class identifiers are made from the class's name, so that every host makes the same one (RFC
#: 9562, version 5).
_NAMESPACE = UUID("c2b1c9d3-6b0a-4a2c-9d0e-3f6f3c8a5b71")
_ATTRIBUTES = (
    "objectClass",
    "objectGUID",
    "cn",
    "displayName",
    "serviceClassID",
    "winsockAddresses",
)


def _check_host(address: object, attribute: object, value: str) -> None:
    if not is_host_name(value):
        raise UsageError(
            f"host {value!r}", "it is not a DNS name", "give the name that is in the SPN"
        )


@frozen
class Address:
    """Where one host offers the service.

    :param host: its DNS name.
    :param binding: the port, and what clients should know.
    :raises UsageError: when the host is not a DNS name.
    """

    host: str = field(validator=_check_host)
    binding: BindingInformation

    def encode(self) -> bytes:
        """The value of winsockAddresses."""
        return _FORMAT + f"{self.host} {self.binding}".encode()

    @classmethod
    def decode(cls, value: bytes) -> Address | None:
        """Read one value of winsockAddresses; None: it is not in our encoding."""
        if not value.startswith(_FORMAT) or len(value) > _MAX_VALUE:
            return None
        try:
            host, _, binding = value.removeprefix(_FORMAT).decode().partition(" ")
            return cls(host, BindingInformation.parse(binding))
        except (UnicodeDecodeError, UsageError):
            return None


@frozen
class ServiceInstance:
    """One service as it was read.

    :param dn: where it is, which is in its SPNs.
    :param guid: its objectGUID.
    :param name: its common name.
    :param class_id: the identifier of its class, or None.
    :param service_class: the name of its class, or None when the class is not there.
    :param addresses: where it is offered.
    :param foreign: how many of its addresses are in an encoding that is not ours.
    """

    dn: str
    guid: UUID
    name: str
    class_id: UUID | None
    service_class: str | None
    addresses: tuple[Address, ...]
    foreign: int = 0

    def spn(self, host: str, service_class: str | None = None) -> SPN:
        """The SPN that a host has to authenticate as.

        :param service_class: instead of the class in the directory.
        :raises UsageError: when the class is not known, or the DN cannot stand in an SPN.
        """
        name = service_class or self.service_class
        if not name:
            raise UsageError(
                f"RnR service {self.dn}", "its service class is not there", "publish it again"
            )
        return SPN(name, host, self.dn)


def container_dn(session: LdapSession) -> str:
    """Where the domain's RnR services are."""
    return f"CN=WinsockServices,CN=System,{session.domain_dn}"


def instance_dn(session: LdapSession, name: str) -> str:
    """The DN of a service, given its name or its DN."""
    return name if is_dn(name) else child_dn(name, container_dn(session))


def spn_of(session: LdapSession, name: str, service_class: str, host: str) -> SPN:
    """The SPN of a service that need not be there yet."""
    return SPN(service_class, host, instance_dn(session, name))


def class_id_of(service_class: str) -> UUID:
    """The serviceClassID for a class of this name; case does not count."""
    return uuid5(_NAMESPACE, fold_ascii(service_class))


def read_instance(session: LdapSession, name: str) -> ServiceInstance:
    """Read one service.

    :param name: its common name in our domain, or its DN.
    :raises NotFound: when there is no such service.
    :raises OtherObject: when the object of that name is something else.
    """
    subject = f"RnR service {name}"
    listing = session.options.command("rnr", "list")
    remedy = ("check the name; ", listing, " names those that are there")
    dn = instance_dn(session, name)
    try:
        entry = session.read(dn, _ATTRIBUTES)
    except NotFound as error:
        raise NotFound(subject, error.cause, remedy, code="rnr-not-found") from error
    if INSTANCE_CLASS not in entry.texts("objectClass"):
        raise OtherObject(
            subject, "the object of that name is not a serviceInstance", "check the name"
        )
    return _instance(entry, _classes(session, parent_of(dn)))


def _instance(entry: Entry, classes: Mapping[UUID | None, str]) -> ServiceInstance:
    class_id = _guid(entry.values("serviceClassID"))
    values = entry.values("winsockAddresses")
    addresses = tuple(filter(None, map(Address.decode, values)))
    return ServiceInstance(
        entry.dn,
        entry.guid,
        entry.text("cn") or "",
        class_id,
        classes.get(class_id) if class_id else None,
        addresses,
        len(values) - len(addresses),
    )


def _guid(values: tuple[bytes, ...]) -> UUID | None:
    return UUID(bytes_le=values[0]) if values and len(values[0]) == 16 else None


def _classes(session: LdapSession, container: str) -> dict[UUID | None, str]:
    """The names of the classes in a container by their identifiers."""
    wanted = equals("objectClass", CLASS_CLASS)
    found = session.search(container, wanted, ["displayName", "serviceClassID"], scope="one")
    return {
        _guid(entry.values("serviceClassID")): entry.text("displayName") or "" for entry in found
    }


def _class_dn(service_class: str, container: str) -> str:
    """Where we put a class: beside its instances, one of which may have its very name."""
    return child_dn(f"{service_class}-class", container)


def list_instances(session: LdapSession) -> list[ServiceInstance]:
    """Every RnR service of the domain.

    :raises NotFound: when the domain has no container for them.
    """
    container = container_dn(session)
    classes = _classes(session, container)
    found = session.search(
        container, equals("objectClass", INSTANCE_CLASS), _ATTRIBUTES, scope="one"
    )
    return [_instance(entry, classes) for entry in found]


def publish(
    session: LdapSession,
    name: str,
    service_class: str,
    addresses: Iterable[Address],
    report: Report = no_report,
) -> ServiceInstance:
    """Make a service say where it is offered, and create what is missing of it; blocks.

    Addresses of other hosts, and those in foreign encodings, stay.

    :param name: its common name, or its DN.
    :param report: is told what is done.
    :raises DirectoryRefused: without the right; the remedy says who has it.
    :raises ServiceCheckFailed: when there is a service of that name and of another class.
    """
    dn = instance_dn(session, name)
    try:
        instance = read_instance(session, dn)
    except NotFound:
        _as_administrator(dn, lambda: _create(session, dn, service_class, report))
        instance = read_instance(session, dn)
    if instance.service_class is None and instance.class_id == class_id_of(service_class):
        _as_administrator(dn, lambda: _create_class(session, dn, service_class, report))
        instance = read_instance(session, dn)
    verify_class(
        f"RnR service {instance.dn}",
        instance.service_class,
        service_class,
        ("choose another name, or run ", session.options.command("rnr", "remove", instance.dn)),
    )
    for address in addresses:
        if update_address(session, instance, address):
            name = f"{address.host} {address.binding}"
            report(Done("published", "address", name, detail=f"in {instance.dn}"))
    return read_instance(session, dn)


def _identity(service_class: str) -> dict[str, Value]:
    return {"displayName": service_class, "serviceClassID": class_id_of(service_class).bytes_le}


def _create(session: LdapSession, dn: str, service_class: str, report: Report) -> None:
    if class_id_of(service_class) not in _classes(session, parent_of(dn)):
        _create_class(session, dn, service_class, report)
    # When this fails the class stays: it does no harm, and the next attempt uses it.
    session.add(dn, {"objectClass": INSTANCE_CLASS, **_identity(service_class)})
    report(Done("created", "RnR service", dn))


def _create_class(session: LdapSession, dn: str, service_class: str, report: Report) -> None:
    """Create the class of the service with this DN, beside it."""
    class_dn = _class_dn(service_class, parent_of(dn))
    session.add(class_dn, {"objectClass": CLASS_CLASS, **_identity(service_class)})
    report(Done("created", "service class", class_dn))


def _as_administrator(dn: str, work: Callable[[], None]) -> None:
    try:
        work()
    except DirectoryRefused as error:
        if error.result != INSUFFICIENT_RIGHTS:
            raise
        remedy = (
            "run mutauth rnr publish as an administrator, or use an SCP, which a computer may "
            "create itself"
        )
        cause = "only administrators may create services there"
        raise DirectoryRefused(f"RnR service {dn}", cause, remedy, result=error.result) from error


def update_address(session: LdapSession, instance: ServiceInstance, address: Address) -> bool:
    """Replace what the instance says of one host; whether anything had to be written.

    :raises DirectoryRefused: without the right to write winsockAddresses.
    """
    stale = [each for each in instance.addresses if _same_host(each, address) and each != address]
    is_new = address not in instance.addresses
    if not (stale or is_new):
        return False
    changes = (
        [Change("delete", "winsockAddresses", tuple(each.encode() for each in stale))]
        if stale
        else []
    )
    if is_new:
        changes.append(Change("add", "winsockAddresses", (address.encode(),)))
    session.modify(instance.dn, changes)
    return True


def _same_host(one: Address, other: Address) -> bool:
    return fold_ascii(one.host) == fold_ascii(other.host)


def withdraw_address(session: LdapSession, dn: str, address: Address) -> bool:
    """Take back what was published, unless another instance has published since; whether it was."""
    try:
        instance = read_instance(session, dn)
    except (NotFound, OtherObject):
        return False
    if address not in instance.addresses:
        return False
    session.modify(dn, [Change("delete", "winsockAddresses", (address.encode(),))])
    return True


def remove(session: LdapSession, name: str, report: Report = no_report) -> None:
    """Delete a service, and its class when it was the last one of it; blocks.

    :raises NotFound: when there is no such service.
    :raises DirectoryRefused: without the right.
    """
    instance = read_instance(session, name)
    session.delete(instance.dn)
    report(Done("deleted", "RnR service", instance.dn))
    if instance.class_id is None:
        return
    container = parent_of(instance.dn)
    same = all_of(
        equals("objectClass", INSTANCE_CLASS), equals("serviceClassID", instance.class_id.bytes_le)
    )
    if not any(True for _ in session.search(container, same, scope="one")):
        wanted = all_of(
            equals("objectClass", CLASS_CLASS), equals("serviceClassID", instance.class_id.bytes_le)
        )
        for entry in list(session.search(container, wanted, scope="one")):
            session.delete(entry.dn)
            report(Done("deleted", "service class", entry.dn))
