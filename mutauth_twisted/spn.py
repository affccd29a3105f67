"""Service principal names as values (MS-ADTS 2.2.21, MS-DRSR 4.1.4.2.19)."""

from __future__ import annotations

from attrs import field, frozen

from mutauth_twisted.errors import UsageError


def _check_part(name: str, value: str) -> str:
    if not value:
        raise UsageError("SPN", f"its {name} is empty", "write class/host[:port][/name]")
    for character in value:
        if character == "/" or (character.isspace() and name != "service name") or ord(character) < 0x20:
            raise UsageError(
                f"SPN {name} {value!r}",
                f"it holds {character!r}, which no SPN can carry",
                "a DN with '/' in it cannot be named: use the SCP's GUID (spn-form guid)",
            )
    return value


def _fold(part: str | None) -> str | None:
    return None if part is None else part.casefold()


@frozen(eq=False)
class SPN:
    """A service principal name: ``class/host[:port-or-instance][/service-name]``.

    Two names are equal when they differ in case only, as in the directory.

    :param service_class: the kind of service, such as ``echoSvc`` or ``HTTP``.
    :param host: the host's DNS or NetBIOS name.
    :param instance: a port in decimal digits, or an instance name.
    :param service_name: the third part: the DN or GUID of the service's
        object, a domain, or an SRV name; None for a host-based service.
    :raises UsageError: for an empty part or one that holds ``/``.
    """

    service_class: str = field()
    host: str = field()
    service_name: str | None = None
    instance: str | None = None

    def __attrs_post_init__(self) -> None:
        _check_part("service class", self.service_class)
        _check_part("host", self.host)
        for name, value in (("class", self.service_class), ("host", self.host)):
            if ":" in value or "@" in value:
                raise UsageError(f"SPN {name} {value!r}", "it holds ':' or '@'", "write class/host[:port][/name]")
        if self.instance is not None:
            _check_part("instance", self.instance)
            if self.instance.isdecimal() and not 0 < int(self.instance) <= 65535:
                raise UsageError(f"SPN port {self.instance}", "it is out of range", "use 1 to 65535")
        if self.service_name is not None:
            _check_part("service name", self.service_name)

    @classmethod
    def parse(cls, text: str) -> SPN:
        """Read the text form of a two- or three-part SPN.

        :raises UsageError: when the text is not such a name.
        """
        parts = text.split("/")
        if len(parts) not in (2, 3):
            raise UsageError(
                f"SPN {text!r}", f"it has {len(parts)} part(s), not two or three", "write class/host[:port][/name]"
            )
        host, colon, instance = parts[1].partition(":")
        return cls(parts[0], host, parts[2] if len(parts) == 3 else None, instance if colon else None)

    @property
    def port(self) -> int | None:
        """The port the name carries, or None; all digits mean a port."""
        return int(self.instance) if self.instance is not None and self.instance.isdecimal() else None

    @property
    def is_three_part(self) -> bool:
        """Whether only an administrator can have registered this name."""
        return self.service_name is not None

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
