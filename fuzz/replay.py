"""Have a target check the inputs in files, without a fuzzer.

python -m fuzz.replay TARGET FILE...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fuzz.targets import TARGETS


def main(arguments: Sequence[str]) -> int:
    """Exit with 0 when all is well; a finding ends it with its traceback."""
    if len(arguments) < 2 or arguments[0] not in TARGETS:
        print(f"{__doc__}\ntargets: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    with TARGETS[arguments[0]].open() as check:
        for name in arguments[1:]:
            check(Path(name).read_bytes())
            print(f"{name}: all is well")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
