"""Shared parts of all sub-commands: errors as one line, and exit codes."""

from __future__ import annotations

import sys
from typing import Any

import click

from mutauth_twisted.cli.output import note, report, write_for
from mutauth_twisted.errors import MutualAuthError, UsageError, check_utf8


class OneLineGroup(click.Group):
    """A command group that ends on any foreseeable error with one line and its exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; see click's Group.main."""
        kwargs["standalone_mode"] = False
        try:
            words = args[0] if args and args[0] is not None else kwargs.get("args")
            words = list(sys.argv[1:] if words is None else words)
            write_for(words)
            check_utf8(words)
            result = super().main(*args, **kwargs)
        except MutualAuthError as error:
            report(error)
            sys.exit(error.exit_code)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(2)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "mutauth"
            said = error.format_message().rstrip(".")
            report(UsageError(command, said, f"see {command} --help"))
            sys.exit(UsageError.exit_code)
        except click.ClickException as error:
            note(error.format_message())
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            note("interrupted")
            sys.exit(130)
        sys.exit(result if isinstance(result, int) else 0)
