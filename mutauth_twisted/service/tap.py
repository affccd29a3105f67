"""``twistd mutauth``: what the plugin names; see :mod:`twisted.application.service`."""

from __future__ import annotations

from twisted.application.service import IService

from mutauth_twisted.dns import install_resolver
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.service.assembly import make_process
from mutauth_twisted.settings.twistd import Options, ServiceOptions, leave

__all__ = ["Options", "makeService"]


def makeService(options: ServiceOptions) -> IService:
    """Make the process that the options describe.

    What is wrong with keys or factories ends the process here, with one line.
    """
    from twisted.internet import reactor

    install_resolver(reactor)
    try:
        return make_process(reactor, options.settings)
    except MutualAuthError as error:
        leave(error)
