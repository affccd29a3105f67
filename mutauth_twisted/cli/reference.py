"""The reference of all options: ``python -m mutauth_twisted.cli.reference`` prints it.

It is made of the schema and of the sub-commands; ``make reference`` writes it where the
documentation has it, and a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import click

from mutauth_twisted.cli.directory import DIRECTORY_OPTIONS
from mutauth_twisted.cli.main import main, summary
from mutauth_twisted.settings.schema import ALIASES, NEEDS, Option, Where, rows

_FRONTS = {
    "twistd": Where.START,
    "twistd, TOML": Where.SERVICE | Where.PROCESS,
    "server string": Where.SERVER,
    "client string": Where.CLIENT,
    "mutauth": Where.COMMAND,
    "policy file": Where.RULE,
}
_INTRODUCTION = """\
# Options

<!-- Written by `make reference`: change mutauth_twisted/settings/schema.py instead. -->

An option has the same name everywhere: `--NAME VALUE` for `twistd mutauth` and the commands of
`mutauth`, `NAME = VALUE` in the [configuration file](../configuration.md) (TOML), `NAME=VALUE` in
an endpoint string. An option that may be repeated is a list in TOML, and its values are separated
by commas in an endpoint string. A flag is `true` in TOML and `yes` in an endpoint string.
"""
_COMMANDS = """\
## Commands

Commands that ask the directory also have the options of "The client" and "The directory".
"""


_SPECIAL = re.compile(r"[|*<]")


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (titles, ["---"] * len(titles), *lines):
        yield "| " + " | ".join(_SPECIAL.sub(r"\\\g<0>", cell) for cell in cells) + " |"
    yield ""


def _row(option: Option, where: Where) -> tuple[str, ...]:
    fronts = ", ".join(name for name, bits in _FRONTS.items() if bits & where)
    needs, value = NEEDS.get(option.name, ("", None))
    more = f" Needs `{needs}{f' {value}' if value else ''}`." if needs else ""
    if where & (Where.SERVER | Where.CLIENT):
        short = (alias for alias, name in ALIASES.items() if name == option.name)
        more += "".join(f" Short: `{alias}`." for alias in short)
    value_of = f"`{option.kind.metavar}`" if option.kind.metavar else ""
    default = f"`{option.shown}`" if option.shown else ""
    return f"`{option.name}`", value_of, option.usage + more, default, fronts


def _options() -> Iterator[str]:
    titles = ("option", "value", "meaning (if not given)", "default", "taken by")
    every = list(rows())
    for title in dict.fromkeys(title for title, _, _ in every):
        yield f"## {title.rstrip(':')}\n"
        found = [_row(option, where) for other, where, option in every if other == title]
        yield from _table(titles, found)


def _commands(context: click.Context, names: tuple[str, ...]) -> Iterator[str]:
    command = context.command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            inner = click.Context(found, info_name=name, parent=context)
            yield from _commands(inner, (*names, name))
        return
    yield f"### {' '.join(names)}\n"
    yield f"{command.get_short_help_str(200)}\n"
    usage = " ".join(command.collect_usage_pieces(context)[1:])
    yield f"    {' '.join(names)} [OPTIONS] {usage}".rstrip() + "\n"
    shared = {name.replace("-", "_") for name in DIRECTORY_OPTIONS}
    own = (each for each in command.params if each.name not in shared)
    records = (each.get_help_record(context) for each in own)
    lines = [(f"`{record[0]}`", record[1]) for record in records if record is not None]
    yield from _table(("option", "meaning"), lines)


def reference() -> str:
    """The document."""
    context = click.Context(main, info_name="mutauth")
    parts = [_INTRODUCTION, *_options(), _COMMANDS]
    lines = [(f"`mutauth {name}`", summary(name)) for name in main.list_commands(context)]
    parts += [*_table(("command", "what it does"), lines), *_commands(context, ("mutauth",))]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    click.echo(reference(), nl=False)
