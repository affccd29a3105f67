"""A process and its services, made of what their settings say; nothing runs yet.

Whatever does not need the directory is read and verified here: keys, certificates, factories,
endpoint strings, and the descriptors that all of it takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import evolve

from mutauth_twisted.audit.sinks import open_sink
from mutauth_twisted.audit.trail import AuditTrail
from mutauth_twisted.errors import UsageError
from mutauth_twisted.gateway.ident import IdentFactory, ident_endpoint
from mutauth_twisted.kerberos.keytab import keytab_principal
from mutauth_twisted.log import Log
from mutauth_twisted.net.descriptors import REMEDY, RESERVE, fit, raise_limit
from mutauth_twisted.net.listening import Places
from mutauth_twisted.net.plain import parse_server
from mutauth_twisted.net.tls import server_layer
from mutauth_twisted.service.applications import application_factory
from mutauth_twisted.service.privileges import shed
from mutauth_twisted.service.process import Process
from mutauth_twisted.service.publisher import Publisher
from mutauth_twisted.service.server import MutualAuthService
from mutauth_twisted.settings.process import ProcessSettings
from mutauth_twisted.settings.service import Settings

_log = Log()


def make_process(reactor: Any, settings: ProcessSettings) -> Process:
    """Make a process with all its services.

    It binds where it will listen, reads the keys, and becomes the user that it is to run as.

    :raises MutualAuthError: when one of them cannot be made.
    """
    places = Places(reactor)
    for endpoint in _endpoints(settings):
        places.bind(endpoint)
    settings, copies = shed(settings)
    services = [make_service(reactor, each, places) for each in fitting(settings)]
    return Process(reactor, settings, services, places, copies)


def _endpoints(settings: ProcessSettings) -> Iterator[str]:
    for service in settings.services:
        yield from service.listen
        if service.ident_address is not None:
            yield ident_endpoint(*service.ident_address)
    if settings.status is not None:
        yield settings.status


def make_service(
    reactor: Any, settings: Settings, places: Places | None = None
) -> MutualAuthService:
    """Make one service.

    :param settings: with limits that fit.
    :param places: those of its endpoints that are bound already.
    :raises MutualAuthError: when its keys, certificate, factory or endpoints cannot be used.
    """
    if places is None:
        for listen in settings.listen:
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
    where = settings.ident_address
    ident = IdentFactory(reactor, *where) if where is not None else None
    factory = application_factory(reactor, settings, ident)
    trail = _trail(reactor, settings)
    return MutualAuthService(reactor, settings, keys, publisher, factory, tls, trail, ident, places)


def _trail(reactor: Any, settings: Settings) -> AuditTrail | None:
    """The service's audit trail, if it is to have one."""
    if (destination := settings.audit) is None:
        return None
    try:
        sink = open_sink(destination)
    except OSError as error:
        subject, cause = f"audit {destination}", error.strerror or str(error)
        remedy = "give the service's user the right to write it, or name another"
        raise UsageError(subject, cause, remedy, code="audit-failing") from error
    required = settings.audit_required
    return AuditTrail(reactor, sink, settings.name, destination, required=required)


def fitting(settings: ProcessSettings) -> Iterator[Settings]:
    """The services with limits that this process has descriptors for; each has an equal share.

    :raises UsageError: when limits that the user gave do not fit.
    """
    count = len(settings.services)
    available = raise_limit()
    share = available if count == 1 else RESERVE + (available - RESERVE) // count
    for service in settings.services:
        yield _fitting(service, share, count)


def _fitting(settings: Settings, share: int, count: int) -> Settings:
    each = 2 if settings.serve[0] == "forward" else 1
    limits = fit(settings.limits, settings.explicit_limits, each, share)
    if limits != settings.limits:
        _log.warn(
            "{name}: this process may have {share} descriptors{of_one}, too few for the limits "
            "asked for; they are now max-handshakes {limits.handshakes} "
            "({limits.handshakes_per_address} of one address), max-waiting {limits.waiting} "
            "({limits.waiting_per_address}), max-connections {limits.connections}; {remedy}",
            name=settings.name,
            share=share,
            of_one="" if count == 1 else f" for each of its {count} services",
            limits=limits,
            remedy=REMEDY,
        )
    return evolve(settings, limits=limits)
