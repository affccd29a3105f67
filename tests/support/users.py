"""Files of NTLM's users, for tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mutauth_twisted.mechanisms.ntlm import USERS_VARIABLE


def users_file(test: Any, text: str, mode: int = 0o600) -> str:
    """A file of users, which this process names until the test ends, as a service would that uses
    it.

    :param test: a test case of trial's.
    """
    path = Path(test.mktemp()).absolute()
    path.write_text(text, "utf-8")
    path.chmod(mode)
    before = os.environ.pop(USERS_VARIABLE, None)
    test.addCleanup(
        os.environ.pop if before is None else os.environ.__setitem__, USERS_VARIABLE, before or ""
    )
    os.environ[USERS_VARIABLE] = str(path)
    return str(path)
