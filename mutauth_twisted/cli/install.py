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
from mutauth_twisted.directory.scp import SPN_FORMS, client_strings
from mutauth_twisted.dns import Resolver
from mutauth_twisted.errors import DirectoryRefused, UsageError
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.session import INSUFFICIENT_RIGHTS, Session
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


def open_directory(reactor: Any, options: dict[str, Any]) -> Directory:
    """The directory as :func:`directory_options` describe it."""
    return Directory(
        reactor,
        realm=options["realm"],
        servers=options["servers"],
        ca_file=options["directory_ca"],
        resolver=Resolver(reactor, options["nameserver"]),
        credentials=ClientCredentials(options["principal"], options["ccache"], options["keytab"]),
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

    async def main(reactor: Any) -> T:
        return await work(open_directory(reactor, options))

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
    forms = tuple(form.strip() for form in value.split(",") if form.strip())
    for form in forms:
        if form not in SPN_FORMS:
            raise UsageError(
                f"--spn-form {form}", "there is no such form", f"use {', '.join(SPN_FORMS)}"
            )
    return forms


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
def install(
    service_class: str,
    host: str,
    scp_name: str | None,
    scp_parent: str | None,
    container: str | None,
    state_dir: str,
    account: str,
    keywords: tuple[str, ...],
    forms: tuple[str, ...],
    **options: Any,
) -> None:
    """Prepare the directory for a service (an administrator's step).

    Creates the service connection point, lets the account keep it up to date,
    registers the SPNs on the account, and caches the object's GUID for the
    service.  What is there already stays; when anything fails, what was done
    is undone.
    """
    begin_logging(verbose=False)
    cache = GuidCache(state_dir)

    def work(session: Session, catalog: Session, undo: Undo) -> installation.Installation:
        return installation.install(
            session,
            catalog,
            service_class=service_class,
            host=host,
            account=account,
            scp_name=scp_name,
            scp_parent=scp_parent,
            container=container,
            keywords=keywords,
            spn_forms=forms,
            report=line,
            finish=lambda done: cache.write(service_class, host, done.guid, done.dn, scp_name),
            undo=undo,
        )

    done = in_directory(
        options,
        lambda directory: installation.all_or_nothing(directory, work, line),
        writes=True,
        whole=True,
    )
    line(f"cached GUID {done.guid} in {cache.path(service_class, host, scp_name)}")
    line(f"{service_class} on {host} is ready to run as {done.account.name}")
    for warning in account_warnings(done.account):
        note(warning)
    strings = client_strings(done.scp)
    if strings:
        line(f"clients connect with {' or '.join(strings)}")
    if not strings or "class=" in strings[0]:
        note(f"no keyword is the service class: clients need class={service_class}; see --keyword")


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
def uninstall(
    service_class: str,
    host: str,
    scp_name: str | None,
    scp_parent: str | None,
    container: str | None,
    state_dir: str,
    account: str | None,
    forms: tuple[str, ...],
    **options: Any,
) -> None:
    """Remove what install made: the SPNs, the service connection point, the cached GUID."""
    cache = GuidCache(state_dir)
    cached = cache.read(service_class, host, scp_name)

    def work(session: Session, catalog: Session) -> list[installation.Removed]:
        return installation.uninstall(
            session,
            catalog,
            service_class=service_class,
            host=host,
            account=account,
            scp_name=scp_name,
            scp_parent=scp_parent,
            container=container,
            guid=cached.guid if cached else None,
            spn_forms=forms,
            report=line,
        )

    removed = in_directory(
        options, lambda directory: directory.run_with_catalog(work), writes=True, whole=True
    )
    if cache.remove(service_class, host, scp_name):
        line(f"removed {cache.path(service_class, host, scp_name)}")
    elif not removed:
        line(f"nothing of {service_class} on {host} was there")
