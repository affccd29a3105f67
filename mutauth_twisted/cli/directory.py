"""Options and connections shared by the sub-commands that use the directory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from mutauth_twisted.cli.options import options
from mutauth_twisted.cli.reactor import begin_logging, run_in_reactor
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.servicename import ServiceName
from mutauth_twisted.errors import DirectoryRefused
from mutauth_twisted.findings import Command
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.session import INSUFFICIENT_RIGHTS
from mutauth_twisted.settings.schema import FromEnvironment

T = TypeVar("T")

#: The options with which every such sub-command reaches the directory.
DIRECTORY_OPTIONS = (
    *("directory", "directory-ca", "nameserver", "realm"),
    *("principal", "keytab", "ccache"),
)
directory_options = options(*DIRECTORY_OPTIONS)
#: Those that name a service and say where its SCP is.
service_options = options("host", "scp-name", "container", "scp-parent", "state-dir", "spn-form")


def directory_of(options: dict[str, Any]) -> DirectoryOptions:
    """The directory as :data:`directory_options` describe it."""
    names = ("directory", "directory_ca", "realm", "nameserver")
    return DirectoryOptions(*(options[name] for name in names))


def service_of(options: dict[str, Any]) -> ServiceName:
    """The service as ``--service-class`` and :data:`service_options` describe it."""
    names = ("service_class", "host", "spn_form", "scp_name", "scp_parent", "container")
    return ServiceName(*(options[name] for name in names))


def in_directory(
    options: dict[str, Any],
    work: Callable[[Directory], Awaitable[T]],
    *,
    writes: bool = False,
    whole: bool = False,
) -> T:
    """Run the reactor for one piece of work with the directory; returns its result or raises its
    error.

    :param writes: whether it changes the directory, and so goes on to its end when it is
        interrupted.
    :param whole: whether an administrator who is to do what was denied has to
        run the whole command, of which the denied operation was one step.
    """
    begin_logging(verbose=False)
    where = directory_of(options)
    credentials = ClientCredentials.from_options(options)

    async def main(reactor: Any) -> T:
        return await work(Directory(reactor, where, credentials))

    try:
        return run_in_reactor(main, to_the_end=writes)
    except DirectoryRefused as error:
        if whole and error.result == INSUFFICIENT_RIGHTS:
            error.remedy = ("an administrator runs ", command_again(click.get_current_context()))
        raise


_PERSONAL = frozenset(("ccache", "keytab", "principal"))


def command_again(context: click.Context) -> Command:
    """The command line of a command for another user to run, maybe elsewhere: without whose
    tickets to use.

    What was not given and is not the same everywhere, such as the host's own name, is spelt out.
    """
    operands: list[str] = []
    words: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.name in _PERSONAL or value in (None, False, ()):
            continue
        values = (
            [str(each) for each in value]
            if parameter.multiple or parameter.nargs == -1
            else [_written(value)]
        )
        if isinstance(parameter, click.Argument):
            operands += values
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[-1])
        elif values != [_usual(parameter.default)]:
            words += [word for each in values for word in (parameter.opts[-1], each)]
    return Command(*context.command_path.split(), *operands, *words)


def _usual(default: Any) -> str | None:
    """The value that an option has everywhere when it is not given; None: there is none."""
    if isinstance(default, FromEnvironment):
        return default.otherwise
    return None if callable(default) else str(default)


def _written(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
