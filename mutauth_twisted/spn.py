"""Service principal names as values, and the three functions that compose and take them apart.

The grammar is that of MS-ADTS 2.2.21: two or three parts between slashes, and
no way to write a slash within a part.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from enum import Enum
from unicodedata import category

from attrs import field, frozen

from mutauth_twisted.errors import UsageError
from mutauth_twisted.names import fold_ascii

_FORM = "write class/host[:port][/name]"
_MAX_PORT = 65535
# As those that are in use are: MSSQLSvc, MSOLAPSvc.3, exchange_ab,
# Dfsr-12F9A27C-BF97-4787-9364-D31B6C55EB04, {14E52635-0A95-4A5C-BDB1-E0D0C703B6C8}, Microsoft
# Virtual Console Service.  ASCII only: nothing else is the same text to us, to the directory and to
# every KDC, whatever the case.
_CLASS = re.compile(r"[A-Za-z0-9{]([A-Za-z0-9._{}-]| (?! ))*(?<! )")


def is_service_class(name: str) -> bool:
    """Tell whether a name can be a service class, the first part of an SPN."""
    return bool(_CLASS.fullmatch(name))


def check_service_class(name: str, subject: str | None = None) -> str:
    """Make sure that a name can be a service class, the first part of an SPN; return it.

    :param subject: the error's, such as the option that gave the name.
    :raises UsageError: when it cannot.
    """
    if not is_service_class(name):
        raise UsageError(
            subject or f"service class {name!r}",
            "it is not a valid service class",
            "use letters A to Z, digits, and - . _ { } or single spaces between them",
        )
    return name


def _check_part(spn: SPN, name: str, value: str) -> None:
    if not value:
        raise UsageError(f"SPN {str(spn)!r}", f"its {name} is empty", _FORM, code="spn-invalid")
    for character in value:
        if character == "/":
            raise UsageError(
                f"SPN {name} {value!r}",
                "it holds '/', which no SPN can carry",
                "a DN with '/' in it cannot be named: use the SCP's GUID (spn-form guid)",
                code="spn-invalid",
            )
        if category(character) == "Cc" or (character.isspace() and name != "service name"):
            raise UsageError(
                f"SPN {name} {value!r}",
                f"it holds {character!r}, which no SPN can carry",
                _FORM,
                code="spn-invalid",
            )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _fold(part: str | None) -> str | None:
    return None if part is None else fold_ascii(part)


def own_host() -> str:
    """This machine's full DNS name.

    :raises UsageError: when it is not known here.
    """
    name = socket.getfqdn()
    if "." not in name or name.startswith("localhost."):
        raise UsageError(
            f"this machine's name, {name}", "it is not a full DNS name", "give it with --host FQDN"
        )
    return name


@frozen(eq=False)
class SPN:
    """A service principal name: ``class/host[:port-or-instance][/service-name]``.

    Two names are equal when they differ in the case of A to Z only, in every
    part: whatever else a directory or a KDC folds, no two accounts' names are one
    to us.

    :param service_class: the kind of service, such as ``echoSvc`` or ``HTTP``;
        see :func:`check_service_class`.
    :param host: the host's DNS or NetBIOS name.
    :param instance: a port in decimal digits, or an instance name.
    :param service_name: the third part: the DN or GUID of the service's
        object, a domain, or an SRV name; None for a host-based service.
    :raises UsageError: for an empty part, or one that holds what it cannot carry.
    """

    service_class: str = field()
    host: str = field()
    service_name: str | None = None
    instance: str | None = None

    def __attrs_post_init__(self) -> None:
        if not self.service_class:
            raise UsageError(
                f"SPN {str(self)!r}", "its service class is empty", _FORM, code="spn-invalid"
            )
        check_service_class(
            self.service_class, f"SPN {str(self)!r}, service class {self.service_class!r}"
        )
        _check_part(self, "host", self.host)
        if ":" in self.host or "@" in self.host:
            raise UsageError(
                f"SPN host {self.host!r}", "it holds ':' or '@'", _FORM, code="spn-invalid"
            )
        if self.instance is not None:
            _check_part(self, "instance", self.instance)
            if _is_number(self.instance) and not (
                len(self.instance) <= 5 and 0 < int(self.instance) <= _MAX_PORT
            ):
                raise UsageError(
                    f"SPN port {self.instance}",
                    "it is out of range",
                    "use 1 to 65535",
                    code="spn-invalid",
                )
        if self.service_name is not None:
            _check_part(self, "service name", self.service_name)

    @classmethod
    def parse(cls, text: str) -> SPN:
        """Read the text form of a two- or three-part SPN.

        :raises UsageError: when the text is not such a name.
        """
        parts = text.split("/")
        if len(parts) not in (2, 3):
            raise UsageError(
                f"SPN {text!r}",
                f"it has {len(parts)} part(s), not two or three",
                _FORM,
                code="spn-invalid",
            )
        host, colon, instance = parts[1].partition(":")
        return cls(
            parts[0], host, parts[2] if len(parts) == 3 else None, instance if colon else None
        )

    @property
    def port(self) -> int | None:
        """The port the name carries, or None; all digits mean a port."""
        return (
            int(self.instance) if self.instance is not None and _is_number(self.instance) else None
        )

    def __str__(self) -> str:
        text = f"{self.service_class}/{self.host}"
        if self.instance is not None:
            text += f":{self.instance}"
        return text if self.service_name is None else f"{text}/{self.service_name}"

    def _key(self) -> tuple[str | None, ...]:
        return tuple(map(_fold, (self.service_class, self.host, self.instance, self.service_name)))

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, SPN) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())


class SPNNameType(Enum):
    """DS_SPN_NAME_TYPE (ntdsapi.h): what kind of service :func:`get_spns` names."""

    DNS_HOST = 0
    DN_HOST = 1
    NB_HOST = 2
    DOMAIN = 3
    NB_DOMAIN = 4
    SERVICE = 5

    @property
    def is_host_based(self) -> bool:
        """True if the service is known by its host alone, so that its SPNs have two parts."""
        return self in (SPNNameType.DNS_HOST, SPNNameType.DN_HOST, SPNNameType.NB_HOST)

    @property
    def is_netbios(self) -> bool:
        """True if the local computer's NetBIOS name is used when no instance is named."""
        return self in (SPNNameType.NB_HOST, SPNNameType.NB_DOMAIN)


@frozen
class CrackedSPN:
    """The components of an SPN as DsCrackSpn returns them.

    :param service_name: the third part; the instance name where there is none.
    :param instance_name: the second part without the port.
    :param port: 0 where there is none.
    """

    service_class: str
    service_name: str
    instance_name: str
    port: int


def make_spn(
    service_class: str,
    service_name: str,
    instance_name: str | None = None,
    port: int = 0,
    referrer: str | None = None,
) -> SPN:
    """Compose the SPN that a client asks for.

    Source: Microsoft, *DsMakeSpn function (dsparse.h)*.

    :param service_name: a host (its DNS or NetBIOS name, or IP address), and no
        instance name; or what a replicable service is known by: a DN such as
        that of its connection point, a DNS domain, or an SRV record's name.
    :param instance_name: the host that offers the replicable service.
    :param port: 0: none in the SPN.
    :param referrer: the host that referred the client to an IP address; only
        then it becomes the third part, otherwise it is ignored.
    :return: ``class/host[:port][/referrer]`` or ``class/instance[:port]/service-name``.
    :raises UsageError: when the names do not go together, or cannot stand in an SPN.
    """
    instance = _port_text(port)
    is_address = _is_address(service_name)
    if instance_name is None:
        if "=" in service_name:
            raise UsageError(
                f"service name {service_name!r}",
                "a DN is not a host",
                "give the host that offers it as the instance name",
            )
        return SPN(service_class, service_name, referrer if is_address else None, instance)
    if is_address or fold_ascii(service_name) == fold_ascii(instance_name):
        raise UsageError(
            f"service name {service_name!r}",
            "it is a host, and an instance name was given too",
            "leave the instance name out, or name the service by a DN, a domain or an SRV record",
        )
    return SPN(service_class, instance_name, service_name, instance)


def get_spns(
    name_type: SPNNameType,
    service_class: str,
    service_name: str | None = None,
    port: int = 0,
    instance_names: Sequence[str] = (),
    instance_ports: Sequence[int] | None = None,
    *,
    local_host: str | None = None,
) -> list[SPN]:
    """Compose the SPNs that a service registers, one for each of its instances.

    Source: Microsoft, *DsGetSpn function (ntdsapi.h)*.  Unlike there an IP
    address is not looked up: the names are taken as they are given.

    :param name_type: the HOST types give ``class/instance[:port]``; the DOMAIN
        types and SERVICE give ``class/instance[:port]/service-name``.
    :param service_name: None for the HOST types; the domain's DNS name or DN for
        the DOMAIN types; a DN or DNS name for SERVICE.
    :param port: of every instance without a port of its own; 0: none.
    :param instance_names: the hosts; none: the local computer, by its NetBIOS
        name for the NB types and its DNS name for the others.
    :param instance_ports: a port for each instance name, 0 meaning none; None:
        all have ``port``.
    :param local_host: the local computer's DNS name; None: as the system says.
    :raises UsageError: when the names do not go together, or cannot stand in an SPN.
    """
    if name_type.is_host_based and service_name is not None:
        raise UsageError(
            f"service name {service_name!r}",
            f"a {name_type.name} name has none",
            "leave it out, or use SERVICE",
        )
    if not name_type.is_host_based and service_name is None:
        raise UsageError(
            f"{name_type.name} SPN of {service_class}",
            "it has no service name",
            "give a DN or a DNS name",
        )
    names = list(instance_names) or [_local_name(name_type, local_host)]
    ports = [port] * len(names) if instance_ports is None else list(instance_ports)
    if instance_ports is not None and len(ports) != len(instance_names):
        raise UsageError(
            f"{name_type.name} SPNs of {service_class}",
            f"there are {len(ports)} instance ports for {len(instance_names)} instance names",
            "give one for each, 0 where there is none",
        )
    return [
        SPN(service_class, name, service_name, _port_text(each))
        for name, each in zip(names, ports, strict=True)
    ]


def crack_spn(text: str) -> CrackedSPN:
    """Take an SPN apart.

    Source: Microsoft, *DsCrackSpn function (dsparse.h)*: a missing port is 0, a
    missing service name is the instance name, and a port is a number.

    :raises UsageError: when the text is not an SPN, or has an instance's name in
        the place of the port.
    """
    spn = SPN.parse(text)
    if spn.instance is not None and spn.port is None:
        raise UsageError(
            f"SPN {text!r}",
            f"its port {spn.instance!r} is not a number",
            "read it with SPN.parse",
            code="spn-invalid",
        )
    return CrackedSPN(spn.service_class, spn.service_name or spn.host, spn.host, spn.port or 0)


def _port_text(port: int) -> str | None:
    if not 0 <= port <= _MAX_PORT:
        raise UsageError(
            f"SPN port {port}",
            "it is out of range",
            "use 1 to 65535, or 0 for none",
            code="spn-invalid",
        )
    return str(port) if port else None


def _is_address(name: str) -> bool:
    # An IPv6 address holds colons and is refused as part of an SPN by itself.
    return bool(re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", name))


def _local_name(name_type: SPNNameType, local_host: str | None) -> str:
    host = (local_host or socket.getfqdn()).rstrip(".")
    # RFC 1001, section 14: at most 15 characters, in capital letters.
    return host.partition(".")[0][:15].upper() if name_type.is_netbios else host
