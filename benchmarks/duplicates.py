"""Time and memory of the search for SPNs on several accounts.

    mutauth lab run -- python benchmarks/duplicates.py

The lab holds the accounts of ``populate.py --accounts N``.
"""

from __future__ import annotations

import resource
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from mutauth_twisted.admin.duplicates import find_duplicates
from mutauth_twisted.lab import Lab
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions


def _peak() -> float:
    """The most memory this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def main(reactor: Any) -> None:
    directory = Directory(reactor, DirectoryOptions(nameserver=Lab.current().nameserver))
    seen = (0, 0)

    def progress(accounts: int, spns: int) -> None:
        nonlocal seen
        seen = (accounts, spns)

    before, began = _peak(), time.perf_counter()
    found = await directory.run(
        lambda catalog: find_duplicates(catalog, progress), global_catalog=True
    )
    took = time.perf_counter() - began
    directory.close()
    print(f"{seen[0]} accounts with {seen[1]} SPNs: {len(found)} duplicates in {took:.1f} s")
    print(
        f"memory: {before:.0f} MB at the start, {_peak():.0f} MB at the most; {seen[0] / took:.0f} "
        "accounts/s"
    )


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
