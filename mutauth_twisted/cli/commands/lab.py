"""A throw-away Active Directory on loopback (root, Samba)."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import click

from mutauth_twisted import lab as laboratory
from mutauth_twisted.cli.group import OneLineGroup
from mutauth_twisted.cli.output import note
from mutauth_twisted.lab import state


class _Ended(BaseException):
    """SIGTERM or SIGHUP came; not an Exception, so that only clean-up sees it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


@contextlib.contextmanager
def _cleaned_up() -> Iterator[None]:
    """Let a signal unwind the stack, so that a half-made lab is removed."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise _Ended(signum)

    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, end)
    try:
        yield
    except _Ended as ended:
        sys.exit(128 + ended.signum)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _print_step(text: str, elapsed: float) -> None:
    click.echo(f"lab {elapsed:5.1f} s  {text}", err=True)


directory_option = click.option(
    "--dir",
    "directory",
    metavar="DIR",
    help="Directory of the lab (MUTAUTH_LAB, else /run/mutauth-lab).",
)
address_option = click.option(
    "--address",
    metavar="IP",
    help="The domain controller's loopback address (127.0.0.10), or auto for a free one.",
)


@click.group(cls=OneLineGroup)
def lab() -> None:
    """A throw-away Active Directory on loopback (root, Samba).

    \b
    Users       administrator, alice, bob (alice is in the group echo-users)
    Services    svc-echo, svc-other
    Computers   srv1, srv2, rogue (`lab up` prints their addresses)
    Keys        $MUTAUTH_LAB/keytabs/NAME.keytab
    Tickets     $MUTAUTH_LAB/ccaches/NAME
    Samba       samba-tool ... -s $MUTAUTH_LAB/samba/etc/smb.conf
    """


@lab.command()
@directory_option
@address_option
@click.option(
    "--second-dc",
    is_flag=True,
    help="Join a second domain controller, at the address that ends in 11.",
)
def up(directory: str | None, address: str | None, second_dc: bool) -> None:
    """Make a lab and start it; it runs until `mutauth lab stop` or `mutauth lab down`."""
    with _cleaned_up():
        _tell_next(laboratory.up(directory, address, second_dc=second_dc, progress=_print_step))


def _tell_next(running_lab: laboratory.Lab) -> None:
    click.echo(f'next: eval "$({state.command("env", running_lab.directory)})"', err=True)


@lab.command()
@directory_option
def start(directory: str | None) -> None:
    """Start a stopped lab again: the same domain, accounts and keys."""
    with _cleaned_up():
        _tell_next(laboratory.start(directory, progress=_print_step))


@lab.command()
@directory_option
def stop(directory: str | None) -> None:
    """Stop the lab and keep all of it, for `mutauth lab start`."""
    if laboratory.stop(directory, progress=_print_step):
        click.echo("the lab is stopped", err=True)
    else:
        click.echo("no lab is running", err=True)


@lab.command()
@directory_option
def down(directory: str | None) -> None:
    """Stop the lab and remove all of it."""
    if laboratory.down(directory, progress=_print_step):
        click.echo("the lab is gone", err=True)
    else:
        click.echo("there is no lab", err=True)


@lab.command()
@directory_option
@click.option("--user", default="alice", show_default=True, help="User whose tickets to use.")
def env(directory: str | None, user: str) -> None:
    """Print the environment of a lab, running or stopped, for eval "$(mutauth lab env)"."""
    made, is_running = laboratory.Lab.made(directory)
    if not is_running:
        note(f"the lab is stopped; start it with `{state.command('start', made.directory)}`")
    for name, value in made.environment(user).items():
        click.echo(f"export {name}={shlex.quote(value)}")


@lab.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@directory_option
@address_option
@click.option("--user", default="alice", show_default=True, help="User whose tickets to use.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(directory: str | None, address: str | None, user: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in the lab, and end with its exit code.

    A lab that is up is used and left alone; otherwise one is started and taken
    down at the end, whatever ends it.
    """
    with _cleaned_up(), laboratory.running(directory, address, progress=_print_step) as running_lab:
        code = laboratory.run_command(command, running_lab.environment(user))
    sys.exit(code)


if __name__ == "__main__":
    lab(prog_name="mutauth lab")
