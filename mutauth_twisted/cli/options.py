"""The options of sub-commands, as the schema has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from mutauth_twisted.settings import schema
from mutauth_twisted.settings.read import Front
from mutauth_twisted.settings.schema import Where

Command = Callable[..., Any]
COMMAND = Front(Where.COMMAND)


def options(*names: str, **changes: Any) -> Callable[[Command], Command]:
    """The schema's options of these names.

    :param changes: what a command has otherwise than the schema, as :func:`click.option` takes it.
    """
    rows = schema.options(Where.COMMAND)

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            command = _option(rows[name], changes)(command)
        return command

    return decorate


def _option(row: schema.Option, changes: dict[str, Any]) -> Callable[[Command], Command]:
    def convert(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        return value if value in (None, ()) else COMMAND.convert(row, value)

    if row.kind is schema.FLAG:
        return click.option(f"--{row.name}", is_flag=True, help=row.usage, **changes)
    told = {
        "metavar": row.kind.metavar,
        "help": row.usage,
        "multiple": row.kind.repeatable,
        "type": str,
        "show_default": bool(row.shown),
        "callback": convert,
    }
    # To click a default of None is a value, with which an option that is required is not missing.
    if row.default is not None:
        told["default"] = row.default if callable(row.default) else row.shown
    return click.option(f"--{row.name}", **{**told, **changes})
