"""The command line of ``twistd mutauth``, built from the schema."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from twisted.python import usage

from mutauth_twisted.errors import MutualAuthError, UsageError, check_utf8
from mutauth_twisted.settings import schema
from mutauth_twisted.settings.process import process_settings
from mutauth_twisted.settings.read import Front, Values
from mutauth_twisted.settings.schema import FLAG, Option, Where
from mutauth_twisted.settings.service import service_settings

TWISTD = Front(Where.TWISTD)


def leave(error: MutualAuthError) -> NoReturn:
    """End the process with the error's line and code, before anything was started."""
    sys.stderr.write(f"mutauth: {error}\n")
    sys.exit(error.exit_code)


class _Given(str):
    """A value on the command line, which no default is."""


def _adder(option: Option) -> Callable[[ServiceOptions, str], None]:
    def add(self: ServiceOptions, value: str) -> None:
        self.setdefault(option.name, []).append(value)

    add.__doc__ = f"{option.usage} [default: {option.shown}]" if option.shown else option.usage
    return add


class ServiceOptions(usage.Options):
    """The part of the command line that is not an option.

    :ivar settings: the process that the options describe, once they are parsed.
    """

    synopsis = "[options]"
    longdesc = (
        "Serves authenticated clients only, found through the directory. `mutauth install` "
        "prepares the directory."
    )

    def parseArgs(self, *arguments: str) -> None:
        """There is nothing but options."""
        if arguments:
            raise usage.UsageError(f"{arguments[0]}: it belongs to no option")

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line; a mistake ends the process with one line and code 2."""
        try:
            check_utf8(options or ())
            super().parseOptions(options)
            given = {
                name: self[name]
                for name, option in schema.options(TWISTD.where).items()
                if isinstance(self.get(name), (_Given, list))
                or (option.kind is FLAG and self[name])
            }
            values = Values(TWISTD, TWISTD.where, given)
            self.settings = process_settings(values, (service_settings(values),))
        except UsageError as error:
            leave(error)
        except usage.UsageError as error:
            leave(UsageError("twistd mutauth", str(error), "see twistd mutauth --help"))


def options_class() -> type[ServiceOptions]:
    """The class of the command line, with the options that the schema has now."""
    members: dict[str, Any] = {"optFlags": [], "optParameters": []}
    for option in schema.options(TWISTD.where).values():
        if option.kind is FLAG:
            members["optFlags"].append((option.name, None, option.text))
        elif option.kind.repeatable:
            members[f"opt_{option.name.replace('-', '_')}"] = _adder(option)
        else:
            shown = option.shown or None
            members["optParameters"].append((option.name, None, shown, option.text, _Given))
    return type("Options", (ServiceOptions,), members)


Options = options_class()
