"""Several errors at once: whoever corrects a file wants to know all that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mutauth_twisted.errors import MutualAuthError, UsageError


class Mistakes(UsageError):
    """Several errors, each with a line of its own; the text is the first one's.

    :ivar errors: all of them.
    """

    def __init__(self, errors: Sequence[MutualAuthError]) -> None:
        first = errors[0]
        super().__init__(first.subject, first.cause, first.remedy, code=first.code)
        self.errors = tuple(errors)
        self.exit_code = first.exit_code  # type: ignore[misc]


class Consequence(UsageError):
    """An error that only follows from another, which was told already."""


def errors_in(error: MutualAuthError) -> tuple[MutualAuthError, ...]:
    """The errors that one stands for."""
    return error.errors if isinstance(error, Mistakes) else (error,)


class Collector:
    """Takes errors, so that what comes after the first one is looked at too.

    :ivar errors: those that were taken, each once.
    """

    def __init__(self) -> None:
        self.errors: list[MutualAuthError] = []

    @contextmanager
    def taking(self, place: str = "") -> Iterator[None]:
        """Take the error that ends the block.

        :param place: precedes its subject.
        """
        try:
            yield
        except Consequence:
            pass
        except MutualAuthError as error:
            for each in errors_in(error):
                each.subject = place + each.subject
                self.add(each)

    def add(self, error: MutualAuthError) -> None:
        """Take an error."""
        if str(error) not in map(str, self.errors):
            self.errors.append(error)

    def settle(self) -> None:
        """See that there was none.

        :raises Mistakes: when there were some.
        """
        if self.errors:
            raise Mistakes(self.errors)


class First(Collector):
    """Leaves the first error to end everything, for those who give one option at a time."""

    @contextmanager
    def taking(self, place: str = "") -> Iterator[None]:
        """See :class:`Collector`."""
        yield
