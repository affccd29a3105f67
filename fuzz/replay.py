"""Have a target check inputs, without a fuzzer: seeds by their names, and others in files.

python -m fuzz.replay TARGET SEED|FILE...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fuzz.seeds import inputs
from fuzz.targets import TARGETS


def main(arguments: Sequence[str]) -> int:
    """Exit with 0 when all is well; a finding ends it with its traceback."""
    if len(arguments) < 2 or arguments[0] not in TARGETS:
        print(f"{__doc__}\ntargets: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    seeds = inputs(arguments[0])
    with TARGETS[arguments[0]].open() as check:
        for name in arguments[1:]:
            check(seeds[name] if name in seeds else Path(name).read_bytes())
            print(f"{name}: all is well")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
