"""Commands of ``mutauth``, run in this process."""

from __future__ import annotations

from click.testing import CliRunner, Result


def invoke(*words: str) -> Result:
    """Run ``mutauth`` in this process, without a directory."""
    from mutauth_twisted.cli.main import main

    return CliRunner().invoke(main, list(words))
