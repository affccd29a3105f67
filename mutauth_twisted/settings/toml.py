"""One service as a table of TOML, whose keys are the options of ``twistd mutauth``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from mutauth_twisted.errors import UsageError
from mutauth_twisted.settings.read import Front, Values
from mutauth_twisted.settings.schema import Option, Where
from mutauth_twisted.settings.service import Settings, service_settings

_TYPES: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a float",
    bool: "a boolean",
    list: "an array of strings",
    dict: "a table",
}


@frozen
class _Toml(Front):
    """A table, with values of TOML's types."""

    def spell(self, name: str, value: object = None) -> str:
        """See :class:`Front`."""
        return name if value is None else f"{name} = {json.dumps(value, default=str)}"

    def several(self, name: str) -> str:
        """See :class:`Front`."""
        return f'give each as a string of its own: {name} = ["A", "B"]'

    def raw(self, option: Option, value: Any) -> Any:
        """See :class:`Front`."""
        kind = option.kind
        types = (list,) if kind.repeatable else kind.types
        strings = not isinstance(value, list) or all(isinstance(each, str) for each in value)
        if type(value) not in types or not strings:
            wanted = " or ".join(map(_TYPES.__getitem__, types))
            found = _TYPES[type(value)] if strings and type(value) in _TYPES else "something else"
            raise UsageError("", f"it is {found}", f"give it {wanted}")
        return ",".join(value) if isinstance(value, list) and not kind.repeatable else value


TOML = _Toml(Where.SERVICE, "key", "key ")


def settings_of(table: Mapping[str, Any]) -> Settings:
    """The service that a table describes.

    :param table: as :mod:`tomllib` reads it.
    :raises UsageError: for a key that is unknown, a value that it cannot have, or of another type,
        and for what does not go together.
    """
    return service_settings(Values(TOML, TOML.where, table))
