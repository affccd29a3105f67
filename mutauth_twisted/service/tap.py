"""``twistd mutauth``: what the plugin names; see :mod:`twisted.application.service`."""

from __future__ import annotations

from attrs import evolve
from twisted.application.service import IService

from mutauth_twisted.dns import install_resolver
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.kerberos.keytab import keytab_principal
from mutauth_twisted.log import Log
from mutauth_twisted.net.descriptors import REMEDY, fit, raise_limit
from mutauth_twisted.net.plain import parse_server
from mutauth_twisted.net.tls import server_layer
from mutauth_twisted.service.applications import application_factory
from mutauth_twisted.service.publisher import Publisher
from mutauth_twisted.service.server import MutualAuthService
from mutauth_twisted.settings.service import Settings
from mutauth_twisted.settings.twistd import Options, ServiceOptions, leave

__all__ = ["Options", "makeService"]

_log = Log()


def makeService(options: ServiceOptions) -> IService:
    """Make the service that the options describe.

    What is wrong with keys or factories ends the process here, with one line.
    """
    from twisted.internet import reactor

    install_resolver(reactor)
    try:
        return _make(reactor, options.settings)
    except MutualAuthError as error:
        leave(error)


def _fitting(settings: Settings) -> Settings:
    """The service with limits that this process has descriptors for."""
    available = raise_limit()
    each = 2 if settings.serve[0] == "forward" else 1
    limits = fit(settings.limits, settings.explicit_limits, each, available)
    if limits != settings.limits:
        _log.warn(
            "this process may have {available} descriptors, too few for the limits asked for; they "
            "are now"
            " max-handshakes {limits.handshakes} ({limits.handshakes_per_address} of one address), "
            "max-waiting"
            " {limits.waiting} ({limits.waiting_per_address}), max-connections "
            "{limits.connections}; {remedy}",
            available=available,
            limits=limits,
            remedy=REMEDY,
        )
    return evolve(settings, limits=limits)


def _make(reactor: object, settings: Settings) -> IService:
    settings = _fitting(settings)
    for listen in (*settings.listen, *((settings.status,) if settings.status is not None else ())):
        parse_server(reactor, listen)
    package, principal = settings.security.package, None
    # Clients are accepted with any key of the keytab; the directory is asked as the account alone.
    if Publisher.is_needed(settings) or settings.account is not None:
        principal = keytab_principal(settings.keytab, settings.account)
    credentials = package.service_credentials(settings.package_options)
    keys = package.acceptor_keys(credentials, settings.service.service_class)
    tls = server_layer(*settings.tls_files) if settings.tls_files is not None else None
    publisher = (
        Publisher(reactor, settings, principal)
        if principal and Publisher.is_needed(settings)
        else None
    )
    return MutualAuthService(
        reactor, settings, keys, publisher, application_factory(reactor, settings), tls
    )
