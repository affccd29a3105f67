"""``python -m mutauth_twisted.cli``: the same as ``mutauth``."""

from mutauth_twisted.cli.main import main

main(prog_name="mutauth")
