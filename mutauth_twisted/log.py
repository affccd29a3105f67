"""The package's log: safe lines only, and few of those that any client can cause.

Every line passes :func:`mutauth_twisted.text.one_line`, whatever its fields hold,
so that no call can forget it, and so does the exception at the end of a
traceback.  Errors and findings among the fields are shown with their codes.  A
line that unauthenticated clients can cause as often as they like goes through a
:class:`LimitedLog` in addition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure, format_frames
from twisted.python.reflect import qual, safe_str

from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.findings import Finding
from mutauth_twisted.text import LONGEST_STRANGER, one_line, printable


class _SafeFailure(Failure):
    """Failure, made from another one, whose traceback has the exception's text escaped, bounded and
    on one line.
    """

    def getTraceback(self, elideFrameworkCode: int = 0, detail: str = "default") -> str:
        """Render it as Failure does; observers call this."""
        lines = ["Traceback (most recent call last):\n"]
        format_frames(self.frames, lines.append, detail)
        lines.append(f"{qual(type(self.value))}: {one_line(safe_str(self.value))}\n")
        return "".join(f"{printable(line)}\n" for line in "".join(lines).splitlines())


class Log(Logger):
    """Twisted's logger, whose events' text is formatted at once, escaped and bounded; their fields
    stay as they are.

    A failure's traceback is escaped when an observer renders it.
    """

    def emit(self, level: Any, format: str | None = None, **fields: Any) -> None:
        """See twisted.logger.Logger."""
        if format is not None:
            shown = {
                name: value.coded if isinstance(value, (MutualAuthError, Finding)) else value
                for name, value in fields.items()
            }
            format = one_line(format.format(**shown)).replace("{", "{{").replace("}", "}}")
        if isinstance(failure := fields.get("log_failure"), Failure):
            fields["log_failure"] = _SafeFailure(failure)
        super().emit(level, format, **fields)


class LimitedLog:
    """Lines that can be caused at will: the first ones in full, and one summary with counts for the
    others.

    A source is given a part of the lines only, and its first line is logged even when
    others have used them all up, so that some sources hide no other.

    :param clock: provides IReactorTime.
    :param log: takes the summaries.
    :param what: what is counted, in the plural, as the summary names it.
    :param lines: lines in full in :data:`INTERVAL`.
    :param lines_of_one: how many of them one source may have.
    :param firsts: how many sources may have their first line in addition.
    """

    #: Seconds that a count lasts.
    INTERVAL: Final = 10.0
    #: Lines in full in that time, and how many of them one source may have, unless it is said
    #: otherwise.
    LINES: Final = 30
    LINES_OF_ONE: Final = 20
    #: Sources whose first line is logged after these are used up.
    FIRSTS: Final = 30
    #: Sources that are told apart; kinds of lines likewise.
    MOST_SOURCES: Final = 1000
    MOST_KINDS: Final = 12

    def __init__(
        self,
        clock: Any,
        log: Logger,
        what: str,
        *,
        lines: int = LINES,
        lines_of_one: int = LINES_OF_ONE,
        firsts: int = FIRSTS,
    ) -> None:
        self._clock = clock
        self._log = log
        self._what = what
        self._lines = lines
        self._lines_of_one = lines_of_one
        self._most = lines + firsts
        self._begun: float | None = None
        # By source; their sum is kept, as a line of each connection must not have to add them up.
        self._in_full: dict[str, int] = {}
        self._logged = 0
        self._left_out: Counter[str] = Counter()
        self._sources: set[str] = set()
        self._timer: IDelayedCall | None = None

    def line(
        self,
        kind: str,
        source: str,
        render: Callable[[], str],
        level: Any = LogLevel.info,
        **fields: Any,
    ) -> None:
        """Log one line, or count it; its text is not even made then.

        :param kind: what the summary counts it as; of few words and few different ones.
        :param source: who caused it: a network, an account.
        :param render: makes the line.
        :param fields: for the event.
        """
        if self.allows(kind, source):
            self._log.emit(level, "{line}", line=one_line(render(), LONGEST_STRANGER), **fields)

    def allows(self, kind: str, source: str) -> bool:
        """Tell whether a line may be logged in full now; if not, count it."""
        now = self._clock.seconds()
        if self._begun is None or now - self._begun >= self.INTERVAL:
            self.flush()
            self._begun = now
        of_one = self._in_full.get(source, 0)
        if (
            of_one < self._lines_of_one
            if self._logged < self._lines
            else not of_one and self._logged < self._most
        ):
            self._in_full[source] = of_one + 1
            self._logged += 1
            return True
        self._left_out[
            kind if kind in self._left_out or len(self._left_out) < self.MOST_KINDS else "other"
        ] += 1
        if len(self._sources) < self.MOST_SOURCES:
            self._sources.add(source)
        if self._timer is None:
            self._timer = self._clock.callLater(self.INTERVAL - (now - self._begun), self.flush)
        return False

    def flush(self) -> None:
        """Write the summary of what was counted, and begin anew."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        left_out, sources, begun = self._left_out, self._sources, self._begun
        self._left_out, self._sources, self._begun = Counter(), set(), None
        self._in_full.clear()
        self._logged = 0
        if not left_out or begun is None:
            return
        many = "or more " if len(sources) == self.MOST_SOURCES else ""
        self._log.warn(
            "{count} more {what} in {seconds:.0f} s, of {sources} {many}source(s): {kinds}",
            count=left_out.total(),
            what=self._what,
            seconds=max(1.0, self._clock.seconds() - begun),
            sources=len(sources),
            many=many,
            kinds=", ".join(f"{kind} {count}" for kind, count in left_out.most_common()),
        )
