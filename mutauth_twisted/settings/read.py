"""From what a front-end was given to typed values: names, kinds, and the rules between options.

A mistake has the same words in each front-end, with its own spelling of the option.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Any

from attrs import field, frozen

from mutauth_twisted.access.patterns import SeveralPatterns
from mutauth_twisted.core.mechanism import Mechanism
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import UsageError, check_utf8
from mutauth_twisted.findings import Remedy
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.mechanisms import MECHANISMS
from mutauth_twisted.net.limits import Limits
from mutauth_twisted.protection import Protection
from mutauth_twisted.settings.mistakes import Collector, Consequence, First
from mutauth_twisted.settings.schema import (
    ABOUT_GROUPS,
    ABOUT_SERVICE,
    FOR_ALL_PACKAGES,
    LIMITS,
    NEEDS,
    UNAUTHENTICATED,
    Option,
    Where,
    options,
)
from mutauth_twisted.wire import NNS, WIRES


def nearest(name: str, names: Collection[str], aliases: Collection[str] = ()) -> str:
    """A remedy for an unknown name: the nearest known one, or all of them."""
    close = get_close_matches(name, [*names, *aliases], 1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(names)}"


@frozen
class Front:
    """One front-end; a command line, unless it is a subclass.

    :param where: all that it takes, in any of its forms.
    :param noun: its word for an option.
    :param subject: precedes an option in an error.
    :param aliases: the names that stand for others in it.
    """

    where: Where
    noun: str = "option"
    subject: str = ""
    aliases: Mapping[str, str] = field(factory=dict)

    def spell(self, name: str, value: object = None) -> str:
        """An option as users of this front-end write it; True is a flag that is set."""
        return f"--{name}" if value is None or value is True else f"--{name} {value}".rstrip()

    def place(self, name: str) -> str:
        """The words before an option in an error."""
        return self.subject

    def origin(self, name: str) -> str:
        """The words before an error that an option's value causes later."""
        return ""

    def elsewhere(self, name: str) -> str:
        """A remedy for an option that this front-end takes in another place; empty: it does not."""
        return ""

    def unknown(self, name: str, known: Collection[str]) -> UsageError:
        """The error about an unknown option."""
        remedy = self.elsewhere(name) or nearest(name, sorted(known), self.aliases)
        subject = self.place(name) + self.spell(name)
        return UsageError(subject, f"there is no such {self.noun} here", remedy)

    def option(self, name: str, form: Where) -> Option:
        """The option of a name.

        :raises UsageError: when there is none.
        """
        known = options(form)
        if name not in known:
            raise self.unknown(name, known)
        return known[name]

    def several(self, name: str) -> str:
        """Remedy that tells how an option's values are separated."""
        return f"give {self.spell(name)} once for each"

    def raw(self, option: Option, value: Any) -> Any:
        """The text of a value, the texts where the option is repeatable, or a flag's bool.

        :raises UsageError: for what cannot be one; its cause and remedy count.
        """
        return value

    def convert(self, option: Option, value: Any, spelling: str = "") -> Any:
        """The value of an option.

        :param value: as the front-end has it.
        :param spelling: the name that was given for the option's own.
        :raises UsageError: for one that it cannot have.
        """
        shown, values = value, []
        try:
            raw = self.raw(option, value)
            for shown in raw if option.kind.repeatable else (raw,):
                values.append(option.kind.convert(shown))
            if not values:
                raise UsageError("", "it is empty", "give one at least, or leave it out")
        except UsageError as error:
            name = spelling or option.name
            several = isinstance(error, SeveralPatterns)
            remedy = self.several(name) if several else error.remedy
            subject = self.place(name) + self.spell(name, shown)
            raise UsageError(subject, error.cause, remedy) from None
        return tuple(values) if option.kind.repeatable else values[0]


class Values(dict[str, Any]):
    """The value of every option of a front-end's form, those that were not given included.

    :param front: the front-end.
    :param form: which of its forms it is.
    :param given: values as the front-end has them, by name.
    :param collector: takes the errors, until :meth:`gather`; None: the first one is raised.
    :raises UsageError: for what is unknown, has not a value that it can have, or does not go with
        the rest.
    """

    def __init__(
        self,
        front: Front,
        form: Where,
        given: Mapping[str, Any],
        collector: Collector | None = None,
    ) -> None:
        self.front = front
        self._collector = First() if collector is None else collector
        #: What was given with a value that it cannot have.
        self._faulty: set[str] = set()
        self._is_client = bool(Where.CLIENT & front.where)
        self._known = options(form)
        super().__init__()
        every = {**options(front.where), **self._known}
        #: The names that were given, with their spelling.
        self.given: dict[str, str] = {}
        for spelling, value in given.items():
            with self._collector.taking():
                self._take(every, spelling, value)
        self._check()

    def _take(self, every: Mapping[str, Option], spelling: str, value: Any) -> None:
        check_utf8((spelling, *(value if isinstance(value, (list, tuple)) else (value,))))
        name = self.front.aliases.get(spelling, spelling)
        if name not in every:
            raise self.front.unknown(str(spelling), self._known)
        if name in self.given:
            cause = f"{self.front.spell(self.given[name])} means the same"
            subject = self.front.place(spelling) + self.front.spell(spelling)
            raise UsageError(subject, cause, "leave one of the two out")
        self.given[name] = spelling
        self._faulty.add(name)
        self[name] = self.front.convert(every[name], value, spelling)
        self._faulty.remove(name)
        if self[name] is False:  # a flag that is not set needs and excludes nothing
            del self.given[name]

    def gather(self, *makers: Callable[[Values], Any]) -> list[Any]:
        """Results of all makers, each of which reads the values.

        :raises UsageError: when one of them or a value is wrong; of a collector, all errors.
        """
        made = []
        for make in makers:
            with self._collector.taking():
                made.append(make(self))
        self._collector.settle()
        return made

    def __missing__(self, name: str) -> Any:
        if name in self._faulty:
            raise Consequence(name, "it is wrong")
        option = self._known[name]
        try:
            return self.setdefault(name, option.initial)
        except UsageError as error:
            remedy = f"add {self.front.spell(name, option.kind.metavar)}"
            raise self.error(name, f"{error.subject}: {error.cause}", remedy) from None

    def error(
        self,
        name: str,
        cause: str,
        remedy: Remedy,
        value: object = None,
        *,
        code: str = UsageError.code,
    ) -> UsageError:
        """An error about an option, as the front-end spells it."""
        spelling = self.given.get(name, name)
        subject = self.front.place(spelling) + self.front.spell(spelling, value)
        return UsageError(subject, cause, remedy, code=code)

    @property
    def package(self) -> Mechanism:
        """The security package."""
        return MECHANISMS[self["package"]]

    def _options_of(self, package: Mechanism) -> frozenset[str]:
        """The options that make a package's credentials, on this side of the connection."""
        return package.client_options if self._is_client else package.service_options

    @property
    def package_options(self) -> dict[str, Any]:
        """The values that make the package's credentials."""
        own = self._options_of(self.package) & self._known.keys()
        return {name: self[name] for name in sorted(own)}

    def _here(self, names: Mapping[Where, set[str]]) -> set[str]:
        """The names for this front-end."""
        return set().union(*(some for where, some in names.items() if where & self.front.where))

    def _check(self) -> None:
        if "package" in self._known:
            with self._collector.taking():
                self._check_package()
        for name in self.given:
            with self._collector.taking():
                self._check_needs(name)
        if Where.SERVICE & self.front.where:
            with self._collector.taking():
                self._require("service-class")

    def _check_needs(self, name: str) -> None:
        other, value = NEEDS.get(name, ("", None))
        if other and not (other in self.given if value is None else self[other] == value):
            needed = self.front.spell(other, value)
            cause = f"it means nothing without {needed}"
            raise self.error(name, cause, f"add {needed}, or leave it out")
        if name not in self._known:
            raise self.front.unknown(self.given[name], self._known)

    def _require(self, name: str) -> None:
        if name not in self.given:
            option = self._known[name]
            add = f"add {self.front.spell(name, option.kind.metavar)}"
            raise self.error(name, "it is missing", f"{add}: {option.help.rstrip('.')}")

    def _check_package(self) -> None:
        """See that what was given goes with the package, and that nothing it needs is missing."""
        spell, package = self.front.spell, self.package
        own = self._options_of(package)
        for name in self.given:
            with self._collector.taking():
                self._check_with(package, name)
        for name in package.required.keys() & own:
            with self._collector.taking():
                self._require(name)
        if not package.authenticates_service:
            for name, value in UNAUTHENTICATED.items():
                if name in self._known and self[name] != value:
                    cause = f"{spell(name, self[name])} needs one that authenticates the service"
                    raise self.error("package", cause, f"add {spell(name, value)}", package.name)

    def _check_with(self, package: Mechanism, name: str) -> None:
        spell = self.front.spell
        spelt = spell("package", package.name)
        own = self._options_of(package) | self._here(FOR_ALL_PACKAGES)
        about_service = set() if package.authenticates_service else self._here(ABOUT_SERVICE)
        others = [each.name for each in MECHANISMS.values() if name in self._options_of(each)]
        if others and name not in own:
            needed = " or ".join(spell("package", other) for other in others)
            cause = f"it means nothing without {needed}"
        elif name in about_service:
            cause = f"{spelt} does not authenticate the service"
        elif name in ABOUT_GROUPS and not package.identifies_groups:
            cause = f"{spelt} does not tell a client's groups"
        else:
            return
        raise self.error(name, cause, "leave it out, or use another package")

    @property
    def security(self) -> SecurityOptions:
        """The wire, protection, deadline and package of a connection."""
        wire, protection = WIRES[self["wire"] or NNS.name], Protection(self["protection"])
        return SecurityOptions(wire, protection, self["handshake-timeout"], self.package)

    @property
    def limits(self) -> Limits:
        """The limits."""
        return Limits(**{LIMITS[name]: self[name] for name in LIMITS.keys() & self.given})

    @property
    def directory(self) -> DirectoryOptions:
        """Way to reach the directory."""
        names = ("directory", "directory-ca", "realm", "nameserver")
        return DirectoryOptions(*(self[name] for name in names))
