"""The ``mutauth`` command."""

from __future__ import annotations

import ast
import io
import tokenize
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

import click

from mutauth_twisted.cli import commands
from mutauth_twisted.cli.group import OneLineGroup
from mutauth_twisted.cli.imports import interruptible


def names() -> list[str]:
    """The sub-commands' names, which are those of their files, with ``-`` for ``_``."""
    return sorted(module.name.replace("_", "-") for module in iter_modules(commands.__path__))


def _module_of(name: str) -> str:
    return f"{commands.__name__}.{name.replace('-', '_')}"


def summary(name: str) -> str:
    """The first line of a sub-command's docstring, read without importing the file."""
    spec: Any = find_spec(_module_of(name))
    words = tokenize.generate_tokens(io.StringIO(spec.loader.get_source(spec.name)).readline)
    docstring = next(word.string for word in words if word.type == tokenize.STRING)
    return str(ast.literal_eval(docstring)).partition("\n")[0]


class Commands(OneLineGroup):
    """A group whose sub-commands are the files of :mod:`mutauth_twisted.cli.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See :func:`names`."""
        return names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a file, which is imported now; None: there is no such file."""
        if cmd_name not in names():
            return None
        with interruptible():
            module = import_module(_module_of(cmd_name))
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' lines."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(name)) for name in names()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mutauth_twisted", message="%(version)s")
def main() -> None:
    """Mutual authentication for TCP services in Active Directory.

    Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 directory or
    network trouble, 4 authentication refused.
    """
