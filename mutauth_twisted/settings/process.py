"""One process with all its services, whichever front-end they come from."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

from mutauth_twisted.settings.read import Front, Values
from mutauth_twisted.settings.service import Settings


@frozen
class ProcessSettings:
    """The options of a process that are given once, and its services.

    :param services: in the order in which they were given; each has a name of its own.
    :param front: the front-end that it comes from, which knows where an option stands.
    :param status: the server endpoint string of the status.
    :param user: whom a process that was started as root becomes, ``NAME`` or ``NAME:GROUP``; None:
        it stays who it is.
    :param workers: how many processes take connections; 1: this one does.
    """

    services: tuple[Settings, ...]
    front: Front = field(eq=False, repr=False)
    status: str | None = None
    user: str | None = None
    workers: int = 1

    def fixed(self, other: ProcessSettings) -> list[str]:
        """Names of those options that differ and that no running process can change."""
        return [name for name in ("user", "workers") if getattr(self, name) != getattr(other, name)]

    def __getitem__(self, name: str) -> Settings:
        """A service by its name."""
        return next(each for each in self.services if each.name == name)


def process_settings(values: Values, services: Iterable[Settings]) -> ProcessSettings:
    """The process that values of :data:`~mutauth_twisted.settings.schema.Where.PROCESS` describe.

    :param services: those that it has.
    :raises UsageError: for what does not go together.
    """
    values.gather()
    return ProcessSettings(
        tuple(services), values.front, values["status"], values["user"], values["workers"]
    )
