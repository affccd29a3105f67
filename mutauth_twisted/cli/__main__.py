"""The start of ``mutauth``, which is ``python -m mutauth_twisted.cli`` as well."""

from __future__ import annotations

import os
import signal


def run() -> None:
    """Run the command line.

    The imports take a while, in which Ctrl-C must end in one line as it does later.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    from mutauth_twisted.cli.main import main

    if signal.getsignal(signal.SIGINT) is _interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main(prog_name="mutauth")


def _interrupted(*_: object) -> None:
    # No exception: an import in the middle might make another one of it.
    os.write(2, b"mutauth: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    run()
