"""Tests against a real domain: a mixin for trial and unittest, and pytest's fixtures.

The lab is the one that MUTAUTH_LAB names (``mutauth lab run -- trial my.tests`` sets it).
Otherwise one is started when it is first needed, at an address that is free, and ends with the
tests.  It takes root and Samba's packages.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from mutauth_twisted.lab import Lab, Service, running, serving
from mutauth_twisted.lab.state import ENVIRONMENT_VARIABLE


@contextmanager
def some_lab() -> Iterator[Lab]:
    """The lab of the environment, or one for the time of a ``with`` block."""
    if os.environ.get(ENVIRONMENT_VARIABLE):
        yield Lab.current()
        return
    with (
        tempfile.TemporaryDirectory(prefix="mutauth-", ignore_cleanup_errors=True) as parent,
        running(f"{parent}/lab", "auto") as lab,
    ):
        yield lab


@cache
def shared_lab() -> Lab:
    """The lab of this process.

    :raises LabError: when there is none, and none can be started.
    """
    stack = ExitStack()
    lab = stack.enter_context(some_lab())
    atexit.register(stack.close)
    return lab


@contextmanager
def logged_on(lab: Lab, user: str) -> Iterator[None]:
    """Have this process be a member of the lab's domain, with a user's tickets, for the time of a
    ``with`` block.
    """
    before: Mapping[str, str | None] = {
        name: os.environ.get(name) for name in lab.environment(user)
    }
    os.environ.update(lab.environment(user))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


if TYPE_CHECKING:
    from unittest import TestCase as _Base
else:
    _Base = object


class LabMixin(_Base):
    """A test case in the lab, for trial and unittest; stands before their ``TestCase``::

        class ShopTests(LabMixin, TestCase):
            async def test_shop(self):
                service = self.serve("shop", "--factory", "shop.Factory", "--allow-all")
                protocol = await self.client_of(service).connect(ShopClientFactory())
                ...

    :cvar user: the account whose tickets the test has.
    :ivar lab: the lab, from setUp on.
    """

    user = "alice"
    lab: Lab

    def setUp(self) -> None:
        """Start the lab, if it is the first test, and log on; see unittest."""
        super().setUp()
        self.lab = shared_lab()
        self._stack = ExitStack()
        self.addCleanup(self._close)
        self._stack.enter_context(logged_on(self.lab, self.user))

    def _close(self) -> Any:
        from twisted.internet import reactor, threads

        # The service waits for its clients, which may be in this very process.
        if getattr(reactor, "running", False):
            return threads.deferToThread(self._stack.close)
        self._stack.close()
        return None

    def serve(self, service_class: str, *options: str, **where: str) -> Service:
        """Serve until the end of the test; see :func:`mutauth_twisted.lab.serving`."""
        context = serving(self.lab, service_class, *options, **where)
        return self._stack.enter_context(context)

    def client_of(self, service: Service) -> Any:
        """The client endpoint of a service, closed at the end of the test."""
        from twisted.internet import reactor
        from twisted.internet.endpoints import clientFromString

        endpoint: Any = clientFromString(reactor, service.endpoint)
        self.addCleanup(endpoint.close)
        return endpoint


def serve_until_closed(stack: ExitStack, lab: Lab) -> Any:
    """A function that serves until a stack is closed, for pytest's fixture."""

    def serve(service_class: str, *options: str, **where: str) -> Service:
        return stack.enter_context(serving(lab, service_class, *options, **where))

    return serve
