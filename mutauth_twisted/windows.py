"""Windows, where there are only clients that are given an address and an SPN."""

from __future__ import annotations

import sys

from mutauth_twisted.errors import UsageError

#: True on Windows.  Tests set it.
WINDOWS = sys.platform == "win32"


def refuse_on_windows(what: str) -> None:
    """Refuse what Windows has not.

    :param what: what is asked for.
    :raises UsageError: on Windows.
    """
    if WINDOWS:
        cause = "Windows has only clients that are given an address and an SPN"
        raise UsageError(
            what, cause, "use it on Linux, or connect to mutauth:tcp\\:HOST\\:PORT:spn=SPN"
        )
