"""Twisted's plugins: the two endpoint parsers, which load the rest when they are used.

``twistd``, for whatever service, imports every plugin of the machine: it must
neither pay for Kerberos and LDAP, nor fail with them.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class MutualAuthClientParser:
    """Parses ``mutauth:...`` client endpoint strings."""

    prefix = "mutauth"

    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> IStreamClientEndpoint:
        """Make the endpoint; see :func:`mutauth_twisted.endpoints.strings.client_endpoint`."""
        from mutauth_twisted.endpoints.strings import client_endpoint

        return client_endpoint(reactor, args, kwargs)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class MutualAuthServerParser:
    """Parses ``mutauth:...`` server endpoint strings."""

    prefix = "mutauth"

    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> IStreamServerEndpoint:
        """Make the endpoint; see :func:`mutauth_twisted.endpoints.strings.server_endpoint`."""
        from mutauth_twisted.endpoints.strings import server_endpoint

        return server_endpoint(reactor, args, kwargs)
