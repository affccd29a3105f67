"""Fixtures for pytest, which finds them by itself where this package is installed.

``mutauth_lab``
    The lab, for the session, as a :class:`mutauth_twisted.lab.Lab`.
``mutauth_serve``
    A function that serves until the end of the test, as
    ``mutauth_serve("shop", "--echo", "--allow-all")``, and returns a
    :class:`mutauth_twisted.lab.Service`.  The test has alice's tickets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest


@pytest.fixture(scope="session")
def mutauth_lab() -> Iterator[Any]:
    """A running lab."""
    # Not before: pytest loads this in every project of a machine.
    from mutauth_twisted.testing.lab import some_lab

    with some_lab() as lab:
        yield lab


@pytest.fixture
def mutauth_serve(mutauth_lab: Any) -> Iterator[Any]:
    """A function that starts services, which end with the test."""
    from mutauth_twisted.testing.lab import logged_on, serve_until_closed

    with ExitStack() as stack:
        stack.enter_context(logged_on(mutauth_lab, "alice"))
        yield serve_until_closed(stack, mutauth_lab)
