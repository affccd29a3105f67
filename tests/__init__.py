"""The tests: run `trial tests`, or `make test` for those that need a directory."""

import os

# What a lab's environment says of the directory, tests say themselves, or mean to leave out.
for name in ("MUTAUTH_NAMESERVER", "MUTAUTH_STATE_DIR"):
    os.environ.pop(name, None)
