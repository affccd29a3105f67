"""Entries that anyone who may write in the directory can publish there, and the file on the
service's machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from uuid import UUID

from attrs import evolve

from fuzz.inputs import Choices
from fuzz.targets import Check
from fuzz.targets.names import one_line
from mutauth_twisted.directory import rnr
from mutauth_twisted.directory.binding import BindingError, BindingInformation
from mutauth_twisted.directory.guidcache import CacheError, GuidCache
from mutauth_twisted.directory.scp import find_by_keyword
from mutauth_twisted.directory.servicename import SPN_FORMS, ServiceName
from mutauth_twisted.errors import UsageError
from mutauth_twisted.ldap.session import Entry
from mutauth_twisted.spn import SPN

_DN = "CN=echoSvc,CN=SRV1,DC=test,DC=example"
_GUID = UUID("28630eb8-41d5-11d1-a9c1-0000f80367c1")
_CLASS_ID = rnr.class_id_of("echoSvc")


class _Directory:
    """A session of a directory that holds one object.

    :param entry: what every search finds.
    """

    domain_dn = root = "DC=test,DC=example"

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def search(self, *arguments: object, **options: object) -> Iterator[Entry]:
        """The one object."""
        yield self._entry


def check_binding(data: bytes) -> None:
    """Binding information that is written as it was read, or a BindingError."""
    text = data.decode("utf-8", "replace")
    try:
        binding = BindingInformation.parse(text)
    except BindingError as error:
        one_line(error)
        return
    _check_binding(binding)
    first = text.partition(";")[0]
    assert first.strip().isdecimal() and int(first.strip()) == binding.port, (
        "another program reads another port"
    )


def _check_binding(binding: BindingInformation) -> None:
    assert (
        0 < binding.port < 65536 and 0 <= binding.priority < 65536 and 0 <= binding.weight < 65536
    )
    written = str(binding)
    assert written.isprintable()
    assert written.partition(";")[0] == str(binding.port)
    assert BindingInformation.parse(written) == binding, f"{written!r} is read as something else"


def check_rnr(value: bytes) -> None:
    """An address that is written as it was read, or nobody's; and a service that has it."""
    address = rnr.Address.decode(value)
    guid = _GUID.bytes_le
    entry = Entry(
        _DN,
        {
            "objectguid": (guid,),
            "cn": (b"echo",),
            "displayname": (value,),
            "serviceclassid": (value[-16:] if value[:1] == b"\0" else _CLASS_ID.bytes_le,),
            "winsockaddresses": (value, b"foreign"),
        },
    )
    (instance,) = rnr.list_instances(_Directory(entry))  # type: ignore[arg-type]
    assert instance.addresses == ((address,) if address else ()) and instance.foreign == (
        1 if address else 2
    )
    if address is None:
        return
    assert rnr.Address.decode(address.encode()) == address, "it is written as something else"
    _check_binding(address.binding)
    assert address.host.isascii() and not set(address.host) & set("/:@ ;=")
    assert instance.spn(address.host, "echoSvc") == SPN("echoSvc", address.host, _DN)
    try:
        instance.spn(address.host)
    except UsageError as error:
        one_line(error)


def check_scp(data: bytes) -> None:
    """An SCP with any values is read, and gives an SPN in the place where it should be, or a
    UsageError.
    """
    choices = Choices(data)
    missing = choices.number()
    names = (
        "serviceclassname",
        "servicednsname",
        "servicednsnametype",
        "servicebindinginformation",
        "keywords",
    )
    values = {name: (choices.take(choices.number()),) for name in names}
    present = {
        name: value
        for place, (name, value) in enumerate(values.items())
        if not missing >> place & 1
    }
    dn = choices.rest().decode("utf-8", "replace") or _DN
    entry = Entry(dn, {"objectguid": (_GUID.bytes_le,), **present})
    (point,) = find_by_keyword(_Directory(entry), "x")  # type: ignore[arg-type]
    assert point.guid == _GUID and point.dn == dn
    try:
        if point.binding is not None:
            _check_binding(point.binding)
    except BindingError as error:
        one_line(error)
    for form in SPN_FORMS:
        try:
            spn = point.spn(form)
        except UsageError as error:
            one_line(error)
            continue
        assert spn.service_class == point.service_class and spn.host == (
            point.dns_name or ""
        ).rstrip(".")
        assert spn.service_name == {"guid": str(_GUID), "dn": dn, "host": None}[form]
        assert SPN.parse(str(spn)) == spn


@contextmanager
def guid_cache() -> Iterator[Check]:
    """A file with any content: a GUID that stands in it, or a CacheError."""
    with TemporaryDirectory() as directory:
        cache = GuidCache(directory)
        service = ServiceName("echoSvc", "srv1.test.example")
        path = cache.path(service)

        def check(data: bytes) -> None:
            path.write_bytes(data)
            try:
                found = cache.read(service)
            except CacheError as error:
                one_line(error)
                return
            assert found is not None
            cache.write(service, found.guid, found.dn)
            assert cache.read(service) == found
            text = Choices(data).rest()[:40].decode("utf-8", "replace")
            own = cache.path(evolve(service, scp_name=f"{text}!"))
            assert own.parent == path.parent and own != path, "another service has this one's file"

        yield check
