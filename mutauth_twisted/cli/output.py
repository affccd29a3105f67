"""How the commands print: tables for people, JSON for programs, and nothing that a terminal obeys.

Names come from the directory, where others wrote them: a name may hold
characters that a terminal takes for commands, or that show it as another name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mutauth_twisted.text import printable

Command = Callable[..., Any]


def line(text: str, *, err: bool = False) -> None:
    """Print one line."""
    click.echo(printable(text), err=err)


def note(text: str) -> None:
    """Print one line for people on standard error."""
    line(f"mutauth: {text}", err=True)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below titles, in columns; none: nothing at all.

    Lines are as long as they are, so that names can be copied and searched.
    """
    cells = [list(map(str.upper, titles)), *([printable(cell) for cell in row] for row in rows)]
    if not rows:
        return
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def as_json(value: object) -> None:
    """Print a value for programs; what is not ASCII is escaped."""
    click.echo(json.dumps(value, indent=2))


def json_option(command: Command) -> Command:
    """``--json``."""
    return click.option("--json", "for_programs", is_flag=True, help="Print JSON instead.")(command)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error while the block runs, when that is a terminal.

    Gives what to call with the accounts and the SPNs read so far, from any
    thread.  How many there will be nobody knows before the end.
    """
    if not sys.stderr.isatty():
        yield lambda accounts, spns: None
        return
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
