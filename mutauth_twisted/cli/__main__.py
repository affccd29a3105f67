"""The start of ``mutauth``, which is ``python -m mutauth_twisted.cli`` as well."""

from __future__ import annotations

from mutauth_twisted.cli.imports import interruptible


def run() -> None:
    """Run the command line."""
    with interruptible():
        from mutauth_twisted.cli.main import main
    main(prog_name="mutauth")


if __name__ == "__main__":
    run()
