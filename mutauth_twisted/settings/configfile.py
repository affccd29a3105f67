"""The configuration file of ``twistd mutauth --config``: a process and its services, in TOML.

::

    status = "tcp:8080:interface=127.0.0.1"

    [defaults]
    allow-group = ["EXAMPLE\\\\staff"]

    [service.shop]
    service-class = "shop"
    keytab = "/etc/mutauth/shop.keytab"
    forward = "tcp:127.0.0.1:5432"

All mistakes in it are told at once, each with its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from attrs import field, frozen

from mutauth_twisted.errors import UsageError
from mutauth_twisted.settings.mistakes import Collector
from mutauth_twisted.settings.process import ProcessSettings, process_settings
from mutauth_twisted.settings.read import Values, nearest
from mutauth_twisted.settings.schema import Where, options
from mutauth_twisted.settings.service import Settings, service_settings
from mutauth_twisted.settings.toml import Toml, read_toml

_SERVICES, _DEFAULTS = "service", "defaults"
#: Names go into logs, metrics and paths as they are.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_ANY_PORT = re.compile(r"tcp6?:(?:port=)?0(?![0-9])")


@frozen
class _Table(Toml):
    """A table of the file, the top included.

    :param inherited: those of its keys that stand in ``[defaults]``.
    """

    inherited: frozenset[str] = field(default=frozenset())

    def place(self, name: str) -> str:
        """See :class:`Front`."""
        table = (_DEFAULTS,) if name in self.inherited else self.table
        where = f"[{'.'.join(map(str, table))}] " if table else ""
        return f"{self.file}:{self.lines.line_of(*table, name)}: {where}{self.subject}"

    def origin(self, name: str) -> str:
        """See :class:`Front`."""
        return f"{self.place(name)}{name}: "

    def elsewhere(self, name: str) -> str:
        """See :class:`Front`."""
        if self.table:
            is_of_process = name in options(Where.PROCESS)
            return "move it to the top of the file, above the first table" if is_of_process else ""
        if name in options(Where.SERVICE):
            return f"move it into [{_SERVICES}.NAME], or into [{_DEFAULTS}] for all services"
        return nearest(name, [*options(Where.PROCESS), _DEFAULTS, _SERVICES])


def parse_config(path: str) -> tuple[ProcessSettings, Collector]:
    """The process that a file describes, with those of its services that are right, and what is
    wrong with it.

    :raises UsageError: when it cannot be read, others may change it, or it is not TOML.
    """
    document, lines = read_toml(
        path, "configuration file", unusable="config-unusable", writable="config-writable"
    )
    told = Collector()
    table = partial(_Table, noun="key", subject="key ", file=path, lines=lines)
    top = table(Where.PROCESS)
    defaults = _below(document, _DEFAULTS, top, told)
    tables = _below(document, _SERVICES, top, told)
    front = table(Where.SERVICE, table=(_DEFAULTS,))
    for key, value in defaults.items():
        with told.taking():
            front.convert(front.option(key, Where.SERVICE), value)
    services = []
    for name in tables:
        with told.taking():
            services.append(_service(name, tables, defaults, table))
    _check_together(services, told)
    if _SERVICES not in document:
        cause, remedy = "it describes no service", f"add a table [{_SERVICES}.NAME]"
        told.add(UsageError(f"configuration file {path}", cause, remedy, code="config-unusable"))
    settings = ProcessSettings(tuple(services), top)
    with told.taking():
        own = {key: document[key] for key in document if key not in (_DEFAULTS, _SERVICES)}
        settings = process_settings(Values(top, Where.PROCESS, own, Collector()), services)
    return settings, told


def read_config(path: str) -> ProcessSettings:
    """The process that a file describes.

    :raises UsageError: see :func:`parse_config`.
    :raises Mistakes: for all that is wrong in it.
    """
    settings, told = parse_config(path)
    told.settle()
    return settings


def _below(document: Mapping[str, Any], key: str, top: Toml, told: Collector) -> dict[str, Any]:
    """A table of tables, or of options; empty: there is none."""
    found = document.get(key, {})
    if isinstance(found, dict):
        return found
    header = f"{key}.NAME" if key == _SERVICES else key
    told.add(UsageError(top.place(key) + key, "it is not a table", f"write [{header}]"))
    return {}


def _service(
    name: str, tables: Mapping[str, Any], defaults: Mapping[str, Any], table: Any
) -> Settings:
    """One service.

    :raises UsageError: for what is wrong with it.
    """
    own, above = tables[name], table(Where.SERVICE, table=(_SERVICES,))
    if not _NAME.fullmatch(name):
        cause = "it is not a name for a service"
        remedy = "use up to 63 letters, digits, - and _, and begin with a letter or digit"
        raise UsageError(above.place(name) + name, cause, remedy)
    if not isinstance(own, dict):
        remedy = f"write [{_SERVICES}.NAME] above the options of a service"
        raise UsageError(above.place(name) + name, "it is not a table", remedy)
    inherited = frozenset(defaults.keys() - own.keys())
    front = table(Where.SERVICE, table=(_SERVICES, name), inherited=inherited)
    return service_settings(Values(front, Where.SERVICE, {**defaults, **own}, Collector()), name)


def _check_together(services: Iterable[Settings], told: Collector) -> None:
    """See that no two services claim the same port, or the same object of the directory."""
    taken: dict[tuple[str, object], Settings] = {}
    for service in services:
        for key, value, claimed in _claims(service):
            other = taken.setdefault((key, claimed), service)
            if other is not service:
                front = service.front
                subject = front.place(key) + front.spell(key, value)
                cause = f"[{_SERVICES}.{other.name}] has the same"
                told.add(UsageError(subject, cause, f"give each service its own {key}"))


def _claims(service: Settings) -> Iterator[tuple[str, object, object]]:
    """Claims that a service shares with no other: the option, its value, and the thing itself."""
    for text in service.listen:
        if not _ANY_PORT.match(text):
            yield "listen", text, text
    if service.ident_address is not None:
        # Whatever the port: a backend asks at one.
        address, place = service.ident_address
        yield "ident-address", f"{address}:{place}", address
    if service.publish and service.entry == "scp":
        scp = service.service.scp_name or service.service.service_class
        parent = (service.service.scp_parent or service.service.host).casefold()
        yield "scp-name", scp, (scp.casefold(), parent)
    elif service.publish:
        rnr = service.service.rnr_name or service.service.service_class
        yield "rnr-name", rnr, rnr.casefold()
