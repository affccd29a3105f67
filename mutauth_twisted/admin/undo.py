"""Taking back a series of writes that did not come to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mutauth_twisted.directory.done import Done, Report
from mutauth_twisted.errors import DirectoryRefused, DirectoryUnreachable, MutualAuthError
from mutauth_twisted.ldap.session import LdapSession


class Undo:
    """Steps that take back what was done, the last one first.

    A step is put down before the write that it takes back, since the answer to
    a write can be lost: each step finds out by itself whether there is
    anything to take back.

    :param report: is told what was done.
    """

    def __init__(self, report: Report) -> None:
        #: Told what is done.
        self.report = report
        self._steps: list[tuple[str, Callable[[LdapSession], bool]]] = []
        self._failed: list[str] = []

    def before(self, what: str, step: Callable[[LdapSession], bool]) -> None:
        """Put down how to take back the write that comes next.

        :param what: names it for people.
        :param step: takes it back, and returns whether there was anything to take back.
        """
        self._steps.append((what, step))

    @contextmanager
    def around(self, what: str, step: Callable[[LdapSession], bool]) -> Iterator[None]:
        """Put down how to take back the write in the block; one that the directory refused was
        none.

        What stands there after a refusal is someone else's.
        """
        self.before(what, step)
        try:
            yield
        except DirectoryRefused:
            self.forget()
            raise

    def forget(self) -> None:
        """The write that was put down last changed nothing."""
        self._steps.pop()

    @property
    def pending(self) -> bool:
        """True if there is a step that has not been tried yet."""
        return bool(self._steps)

    @property
    def left(self) -> list[str]:
        """Objects that are still there, or may be."""
        return self._failed + [what for what, _ in reversed(self._steps)]

    def run(self, session: LdapSession) -> None:
        """Take back everything that can be; blocks.

        :raises DirectoryUnreachable: when the connection is lost; what is
            pending then can be tried on another one.
        """
        while self._steps:
            what, step = self._steps[-1]
            try:
                if step(session):
                    self.report(Done("undone", "", what))
            except DirectoryUnreachable:
                raise
            except MutualAuthError as error:
                self._failed.append(what)
                self.report(Done("left behind", "", what, detail=str(error)))
            self._steps.pop()
