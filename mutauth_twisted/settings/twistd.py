"""The command line of ``twistd mutauth``, built from the schema."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from twisted.python import usage

from mutauth_twisted.errors import MutualAuthError, UsageError, check_utf8
from mutauth_twisted.files import keep_what_is_read
from mutauth_twisted.settings import schema
from mutauth_twisted.settings.configfile import parse_config
from mutauth_twisted.settings.mistakes import Collector, errors_in
from mutauth_twisted.settings.process import ProcessSettings, process_settings
from mutauth_twisted.settings.read import Front, Values
from mutauth_twisted.settings.schema import FLAG, Option, Where
from mutauth_twisted.settings.service import service_settings

TWISTD = Front(Where.TWISTD)


def leave(error: MutualAuthError) -> NoReturn:
    """End the process with the lines of an error and its code, before anything was started."""
    for each in errors_in(error):
        # What is wrong with an option begins with its place, FILE:LINE, as editors read it.
        line = str(each) if each.code == UsageError.code else each.coded
        sys.stderr.write(f"mutauth: {line}\n")
    sys.exit(error.exit_code)


class _Given(str):
    """A value on the command line, which no default is."""


def _adder(option: Option) -> Callable[[ServiceOptions, str], None]:
    def add(self: ServiceOptions, value: str) -> None:
        self.setdefault(option.name, []).append(value)

    add.__doc__ = f"{option.usage} [default: {option.shown}]" if option.shown else option.usage
    return add


#: Reads what describes the process: as far as it is right, and what is wrong with it.
Source = Callable[[], tuple[ProcessSettings, Collector]]


def _source(given: Mapping[str, Any]) -> Source:
    """Source of the settings of a process.

    :param given: the options of its command line.
    :raises UsageError: when it is not one thing.
    """
    if (path := given.get("config")) is None:
        return partial(_parse_options, given)
    path = TWISTD.convert(TWISTD.option("config", Where.START), path)
    for name in given.keys() - {"config"}:
        remedy = f"write {name} into {path}, or leave {TWISTD.spell('config')} out"
        raise UsageError(TWISTD.spell(name), "the configuration file has all options", remedy)
    return partial(parse_config, path)


def _parse_options(given: Mapping[str, Any]) -> tuple[ProcessSettings, Collector]:
    settings, told = ProcessSettings((), TWISTD), Collector()
    with told.taking():
        values = Values(TWISTD, TWISTD.where, given, Collector())
        settings = process_settings(values, (service_settings(values),))
    return settings, told


class ServiceOptions(usage.Options):
    """The part of the command line that is not an option.

    :ivar words: the words that describe the process.
    :ivar settings: the process that the options describe, once they are parsed; where it is only
        to be checked, as far as they are right.
    :ivar told: what is wrong with it; nothing, unless it is only to be checked.
    :ivar only_check: whether it is not to be started.
    :ivar load: reads it again.
    :ivar contents: the contents of the files that were read for it.
    :ivar config: the configuration file; None: there is none.
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
        """Read the command line; mistakes end the process with a line for each and code 2."""
        try:
            check_utf8(options or ())
            super().parseOptions(options)
            given = {
                name: self[name]
                for name, option in schema.options(TWISTD.where).items()
                if isinstance(self.get(name), (_Given, list))
                or (option.kind is FLAG and self[name])
            }
            self.only_check = bool(given.pop("check", False))
            self.load = _source(given)
            config = self.config = given.get("config")
            self.words = tuple(options or ())
            self.contents: dict[str, bytes] = {}
            try:
                with keep_what_is_read(self.contents):
                    self.settings, self.told = self.load()
            except UsageError as error:
                self.settings, self.told = ProcessSettings((), TWISTD), Collector()
                self.told.add(error)
            if not self.only_check:
                self.told.settle()
            if config is not None:  # twistd may change its directory
                self.config = os.path.abspath(config)
                self.words = ("--config", self.config)
                self.load = partial(parse_config, self.config)
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
