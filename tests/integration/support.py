"""Common start of every integration test."""

from __future__ import annotations

from unittest import SkipTest

from mutauth_twisted.lab import Lab, LabError


def require_lab() -> Lab:
    """The lab this run takes place in; skips the test where there is none.

    Call it in ``setUp``.  A lab that MUTAUTH_LAB names and that is broken skips as
    well, with the reason: ``make test`` fails on any skip.
    """
    try:
        return Lab.current()
    except LabError as error:
        raise SkipTest(f"{error} (`make test` does)") from error
