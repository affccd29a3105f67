"""``mutauth install`` and ``mutauth uninstall``: the administrator's step, and undoing it."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click

from mutauth_twisted.admin import installation
from mutauth_twisted.admin.undo import Undo
from mutauth_twisted.cli.group import begin_logging, run_in_reactor
from mutauth_twisted.cli.output import line, note
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.accountkeys import account_warnings
from mutauth_twisted.directory.guidcache import DEFAULT_STATE_DIR, GuidCache
from mutauth_twisted.directory.scp import client_strings
from mutauth_twisted.directory.servicename import ServiceName, parse_spn_forms
from mutauth_twisted.errors import DirectoryRefused
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.session import INSUFFICIENT_RIGHTS, LdapSession
from mutauth_twisted.spn import check_service_class, own_host

Command = Callable[..., Any]
T = TypeVar("T")


def directory_options(command: Command) -> Command:
    """The options with which every sub-command reaches the directory."""
    for option in (
        click.option(
            "--ccache", metavar="CACHE", help="The ticket cache to use (the default one)."
        ),
        click.option("--keytab", metavar="FILE", help="Get a ticket with this keytab instead."),
        click.option("--principal", metavar="NAME@REALM", help="Whose ticket (the cache's own)."),
        click.option("--realm", help="The realm (the ticket's)."),
        click.option(
            "--nameserver", metavar="IP", help="Ask this DNS server instead of the system's."
        ),
        click.option(
            "--directory-ca",
            metavar="FILE",
            help="Certificates (PEM) that may vouch for ldaps:// servers.",
        ),
        click.option(
            "--directory",
            "servers",
            multiple=True,
            metavar="URL",
            help="ldap://DC or ldaps://DC; repeatable.",
        ),
    ):
        command = option(command)
    return command


def directory_of(options: dict[str, Any]) -> DirectoryOptions:
    """The directory as :func:`directory_options` describe it."""
    return DirectoryOptions(
        options["servers"], options["directory_ca"], options["realm"], options["nameserver"]
    )


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
    credentials = ClientCredentials(options["principal"], options["ccache"], options["keytab"])

    async def main(reactor: Any) -> T:
        return await work(Directory(reactor, where, credentials))

    try:
        return run_in_reactor(main, to_the_end=writes)
    except DirectoryRefused as error:
        if whole and error.code == INSUFFICIENT_RIGHTS:
            error.remedy = f"an administrator runs {command_again(click.get_current_context())}"
        raise


_PERSONAL = frozenset(("ccache", "keytab", "principal"))


def command_again(context: click.Context) -> str:
    """The command line of a command for somebody else to run, maybe elsewhere: without whose
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
        elif callable(parameter.default) or values != [str(parameter.default)]:
            words += [word for each in values for word in (parameter.opts[-1], each)]
    return shlex.join([*context.command_path.split(), *operands, *words])


def _written(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def service_class_option(help: str) -> Callable[[Command], Command]:
    """The option ``--service-class``, whose value can be the first part of an SPN."""

    def check(context: click.Context, parameter: click.Parameter, value: str) -> str:
        return check_service_class(value, f"--service-class {value}")

    return click.option("--service-class", metavar="NAME", required=True, callback=check, help=help)


def _service_options(command: Command) -> Command:
    for option in (
        click.option(
            "--state-dir",
            default=str(DEFAULT_STATE_DIR),
            show_default=True,
            help="Where the SCP's GUID is cached.",
        ),
        click.option(
            "--scp-parent",
            metavar="DN",
            help="What the SCP is put below (the host's computer object).",
        ),
        click.option(
            "--container",
            metavar="NAME",
            help=(
                "Put the SCP into this container below CN=System, for a replicated service; "
                "created and removed as needed."
            ),
        ),
        click.option("--scp-name", metavar="CN", help="The SCP's common name (the service class)."),
        click.option(
            "--host",
            metavar="FQDN",
            default=own_host,
            help="Second part of the SPNs (this machine).",
        ),
        service_class_option("First part of the SPNs."),
    ):
        command = option(command)
    return command


def spn_forms(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Read ``--spn-form``: forms with commas between them."""
    return parse_spn_forms(value)


def _service_of(options: dict[str, Any]) -> ServiceName:
    """The service as :func:`_service_options` and ``--spn-form`` describe it."""
    return ServiceName(
        options["service_class"],
        options["host"],
        options["forms"],
        options["scp_name"],
        options["scp_parent"],
        options["container"],
    )


@click.command()
@_service_options
@click.option(
    "--account", required=True, help="The account that runs the service: name, UPN or DN."
)
@click.option(
    "--keyword",
    "keywords",
    multiple=True,
    help="What clients find it by, with class=; repeatable (the service class).",
)
@click.option(
    "--spn-form",
    "forms",
    default="guid,dn",
    show_default=True,
    callback=spn_forms,
    help="SPNs to register (guid,dn,host).",
)
@directory_options
def install(state_dir: str, account: str, keywords: tuple[str, ...], **options: Any) -> None:
    """Prepare the directory for a service (an administrator's step).

    Creates the service connection point, lets the account keep it up to date,
    registers the SPNs on the account, and caches the object's GUID for the
    service.  What is there already stays; when anything fails, what was done
    is undone.
    """
    begin_logging(verbose=False)
    service, cache = _service_of(options), GuidCache(state_dir)

    def work(session: LdapSession, catalog: LdapSession, undo: Undo) -> installation.Installation:
        return installation.install(
            session,
            catalog,
            service,
            account,
            keywords=keywords,
            report=line,
            finish=lambda done: cache.write(service, done.guid, done.dn),
            undo=undo,
        )

    done = in_directory(
        options,
        lambda directory: installation.all_or_nothing(directory, work, line),
        writes=True,
        whole=True,
    )
    line(f"cached GUID {done.guid} in {cache.path(service)}")
    line(f"{service.service_class} on {service.host} is ready to run as {done.account.name}")
    for warning in account_warnings(done.account):
        note(warning)
    strings = client_strings(done.scp)
    if strings:
        line(f"clients connect with {' or '.join(strings)}")
    if not strings or "class=" in strings[0]:
        needed = f"class={service.service_class}"
        note(f"no keyword is the service class: clients need {needed}; see --keyword")


@click.command()
@_service_options
@click.option("--account", help="Take the SPNs from this account only (from whoever holds them).")
@click.option(
    "--spn-form",
    "forms",
    default="guid,dn",
    show_default=True,
    callback=spn_forms,
    help="SPNs to remove (guid,dn,host).",
)
@directory_options
def uninstall(state_dir: str, account: str | None, **options: Any) -> None:
    """Remove what install made: the SPNs, the service connection point, the cached GUID."""
    service, cache = _service_of(options), GuidCache(state_dir)
    cached = cache.read(service)

    def work(session: LdapSession, catalog: LdapSession) -> list[installation.Removed]:
        return installation.uninstall(
            session,
            catalog,
            service,
            account,
            guid=cached.guid if cached else None,
            report=line,
        )

    removed = in_directory(
        options, lambda directory: directory.run_with_catalog(work), writes=True, whole=True
    )
    if cache.remove(service):
        line(f"removed {cache.path(service)}")
    elif not removed:
        line(f"nothing of {service.service_class} on {service.host} was there")
