"""Run one target under atheris, and so libFuzzer; started by the runner.

python -m fuzz.engine TARGET LIBFUZZER-ARGUMENT...
"""

from __future__ import annotations

import ctypes
import signal
import sys

import atheris  # type: ignore[import-untyped]
from twisted.logger import globalLogBeginner

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    # Whatever becomes of the runner, nothing goes on without it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    # Only the package is of interest: libraries' branches would fill the corpus.
    # Not the fakes: the engine would learn their digests from where they are compared.
    with atheris.instrument_imports(
        include=["mutauth_twisted"], exclude=["mutauth_twisted.testing.fakes"]
    ):
        from fuzz.targets import TARGETS

        target = TARGETS[sys.argv[1]]
        opened = target.open()
        # A prepared target imports what it needs when it is entered.
        check = opened.__enter__()
    atheris.Setup([sys.argv[0], f"-max_len={target.longest}", *sys.argv[2:]], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
