"""Output of the commands: tables for people, JSON for programs, and nothing that a terminal obeys.

Names come from the directory, where others wrote them: a name may hold
characters that a terminal takes for commands, or that show it as another name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.findings import Finding
from mutauth_twisted.text import printable

if TYPE_CHECKING:
    from mutauth_twisted.directory.done import Done, Report

Command = Callable[..., Any]


def line(text: str, *, err: bool = False) -> None:
    """Print one line."""
    click.echo(printable(text), err=err)


class _Reader:
    """Reader of the output, and what was wrong by the last line that was logged for them."""

    is_program = False
    told: Finding | None = None


def write_for(words: Sequence[str]) -> None:
    """Print for people, or for a program when its command line says ``--json``."""
    options = words[: words.index("--")] if "--" in words else words
    _Reader.is_program = "--json" in options


def note(text: str) -> None:
    """Print one line on standard error: for a program a JSON object with a ``note``."""
    if _Reader.is_program:
        click.echo(json.dumps({"note": text}), err=True)
    else:
        line(f"mutauth: {text}", err=True)


def tell(finding: Finding, **more: object) -> None:
    """Print what is wrong on standard error: for a program a JSON object on one line.

    :param more: what else a program is told.
    """
    if _Reader.is_program:
        click.echo(json.dumps({**finding.as_json(), **more}), err=True)
    else:
        note(finding.coded)


def told(finding: Finding | None) -> None:
    """A line was logged, which ended with this finding, if there was one."""
    _Reader.told = finding


def report(error: MutualAuthError) -> None:
    """Print an error's line, unless the last line that was logged ended with it."""
    if _Reader.told != error.finding:
        tell(error.finding, exit_code=error.exit_code, left_behind=error.left_behind)


def result(value: object, *lines: str) -> None:
    """Print the result of a command: lines for people, a value for a program."""
    if _Reader.is_program:
        as_json(value)
    for text in () if _Reader.is_program else lines:
        line(text)


def rows(value: object, titles: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Print the result of a command: a table for people, a value for a program."""
    if _Reader.is_program:
        as_json(value)
    else:
        table(titles, cells)


@contextmanager
def steps() -> Iterator[tuple[Report, Callable[..., None]]]:
    """Print what the block does: each step at once for people, all in one value for a program.

    A program is told the steps of work that failed, too.  Gives what to call with each step, from
    any thread, and what to call with lines for people, and with further values for a program.
    """
    value: dict[str, Any] = {"steps": []}

    def report(done: Done) -> None:
        value["steps"].append(done.as_json())
        if not _Reader.is_program:
            line(str(done))

    def end(*lines: str, **more: Any) -> None:
        value.update(more)
        for text in () if _Reader.is_program else lines:
            line(text)

    try:
        yield report, end
    finally:
        if _Reader.is_program:
            as_json(value)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below titles, in columns; none: nothing at all.

    Lines are as long as they are, so that names can be copied and searched.
    """
    cells = [list(map(str.upper, titles)), *([printable(cell) for cell in row] for row in rows)]
    if not rows:
        return
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def as_json(value: object) -> None:
    """Print a value for programs; what is not ASCII is escaped."""
    click.echo(json.dumps(value, indent=2))


_JSON_HELP = (
    "Print JSON: the result on standard output; errors, warnings and notes on standard error, "
    "one object a line, an error with its exit_code last."
)


def json_option(command: Command) -> Command:
    """``--json``, for which :func:`write_for` looks: errors of the command line are JSON, too."""
    return click.option("--json", is_flag=True, expose_value=False, help=_JSON_HELP)(command)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error while the block runs, when that is a terminal.

    Gives what to call with the accounts and the SPNs read so far, from any
    thread.  How many there will be is not known before the end.
    """
    if not sys.stderr.isatty():
        yield lambda accounts, spns: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None, counts="")

        def update(accounts: int, spns: int) -> None:
            progress.update(task, counts=f"{accounts} accounts, {spns} SPNs")

        yield update
