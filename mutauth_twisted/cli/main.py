"""The ``mutauth`` command."""

from __future__ import annotations

import click

from mutauth_twisted.cli.connect import connect
from mutauth_twisted.cli.group import OneLineGroup
from mutauth_twisted.cli.install import install, uninstall
from mutauth_twisted.cli.lab import lab
from mutauth_twisted.cli.rnr import rnr
from mutauth_twisted.cli.scp import scp
from mutauth_twisted.cli.spn import spn


@click.group(cls=OneLineGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mutauth_twisted", message="%(version)s")
def main() -> None:
    """Mutual authentication for TCP services in Active Directory.

    Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 directory or
    network trouble, 4 authentication refused.
    """


main.add_command(install)
main.add_command(uninstall)
main.add_command(spn)
main.add_command(scp)
main.add_command(rnr)
main.add_command(connect)
main.add_command(lab)
