"""A process and its services, made of what their settings say; nothing runs yet.

Whatever does not need the directory is read and verified here: keys, certificates, factories,
endpoint strings, and the descriptors that all of it takes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any

from attrs import evolve

from mutauth_twisted.audit.sinks import JOURNAL, check_sink, open_sink
from mutauth_twisted.audit.trail import AuditTrail
from mutauth_twisted.core.context import Keys
from mutauth_twisted.errors import MutualAuthError, UsageError
from mutauth_twisted.files import keep_what_is_read, read_what_was_kept
from mutauth_twisted.findings import Finding
from mutauth_twisted.gateway.ident import IdentFactory, ident_endpoint
from mutauth_twisted.kerberos.keytab import keytab_file, keytab_principal
from mutauth_twisted.log import Log
from mutauth_twisted.net.descriptors import REMEDY, RESERVE, fit, raise_limit
from mutauth_twisted.net.listening import Places
from mutauth_twisted.net.plain import parse_server
from mutauth_twisted.net.tally import Tally
from mutauth_twisted.net.tls import server_layer
from mutauth_twisted.service.applications import application_factory
from mutauth_twisted.service.keyfiles import KeyFiles
from mutauth_twisted.service.messages import Configuration, Start
from mutauth_twisted.service.privileges import Copy, find_user, shed, with_copies
from mutauth_twisted.service.process import Process, WorkerProcess
from mutauth_twisted.service.publisher import Publisher
from mutauth_twisted.service.server import MutualAuthService
from mutauth_twisted.service.workers import Inherited
from mutauth_twisted.settings.mistakes import Collector
from mutauth_twisted.settings.process import ProcessSettings
from mutauth_twisted.settings.service import Settings
from mutauth_twisted.settings.twistd import Options

_log = Log()


def make_process(
    reactor: Any,
    settings: ProcessSettings,
    words: Sequence[str] = (),
    contents: Mapping[str, bytes] = MappingProxyType({}),
) -> Process:
    """Make a process with all its services.

    It binds where it will listen, reads the keys, and becomes the user that it is to run as.

    :param words: the options that the settings come from, for its workers.
    :param contents: the contents of the files that the settings come from, for its workers.
    :raises MutualAuthError: when one of them cannot be made; it stands for all that is wrong.
    """
    told, has_workers = Collector(), settings.workers > 1
    shared = tuple(chain.from_iterable(each.listen for each in settings.services))
    places = Places(reactor, shared if has_workers else ())
    copies: tuple[Copy, ...] = ()
    for place, endpoint in _endpoints(settings):
        with told.taking(place):
            places.bind(endpoint)
    with told.taking(settings.front.origin("user")):
        settings, copies = shed(settings)
    services, read = [], dict(contents)
    for each in _fitting_and_told(settings, told):
        with told.taking(), keep_what_is_read(read):
            services.append(make_service(reactor, each, places))
    with told.taking():
        _check_sharing(settings)
    told.settle()
    if not has_workers:
        return Process(reactor, settings, services, places, copies)
    configuration = configuration_of(settings, read, {each.path: each for each in copies})
    inherited = Inherited(words, copies, configuration)
    return Process(reactor, settings, services, places, copies, inherited)


def configuration_of(
    settings: ProcessSettings, contents: Mapping[str, bytes], copies: Mapping[str, Copy]
) -> Configuration:
    """The configuration of workers.

    :param contents: of all files that were read for the settings and their services.
    :param copies: those in the place of files.
    """
    keytabs = [
        os.path.abspath(keytab_file(each.keytab))
        for each in settings.services
        if "keytab" in each.package_options
    ]
    descriptors = {path: each.descriptor for path, each in copies.items()}
    return Configuration.of(contents, keytabs, descriptors)


def make_worker(reactor: Any, start: Start) -> WorkerProcess:
    """Make a worker with all its services, of what its parent has bound and read.

    :raises MutualAuthError: when one of them cannot be made.
    """
    options, places = Options(), Places(reactor)
    with read_what_was_kept(start.configuration.contents):
        options.parseOptions(start.words)
    for text, descriptor in start.sockets:
        places.bind(text, socket.socket(fileno=descriptor))

    def make(
        configuration: Configuration,
        names: Collection[str] | None = None,
        running: Mapping[str, MutualAuthService] = MappingProxyType({}),
    ) -> tuple[ProcessSettings, list[MutualAuthService]]:
        told, given = Collector(), configuration.copies
        copies = {path: Copy(path, descriptor, None) for path, descriptor in given.items()}
        with read_what_was_kept(configuration.contents):
            settings, mistakes = options.load()
            mistakes.settle()
            settings = with_copies(evolve(settings, status=None), copies)
            services = [
                make_service(
                    reactor,
                    _share(each, start.count),
                    places,
                    is_worker=True,
                    before=running.get(each.name),
                )
                for each in _fitting_ones(settings, told)
                if names is None or each.name in names
            ]
            told.settle()
        return settings, services

    settings, services = make(start.configuration)
    for service in services:
        part = (start.number - 1) / start.count
        service.count_together(Tally(start.sessions, service.name, part, reactor.seconds))
    return WorkerProcess(reactor, settings, services, places, make)


def _check_sharing(settings: ProcessSettings) -> None:
    """See that workers can share what the services do.

    :raises UsageError: when they cannot.
    """
    for service in settings.services if settings.workers > 1 else ():
        if service.ident_address is not None:
            cause, remedy = "one process answers ident queries", "leave workers or this out"
            raise UsageError(service.front.spell("ident-address"), cause, remedy)


def _share(settings: Settings, count: int) -> Settings:
    """A service with a worker's share of the limits on strangers."""
    limits = settings.limits
    share = evolve(
        limits,
        handshakes=-(-limits.handshakes // count),
        handshakes_per_address=-(-limits.handshakes_per_address // count),
        waiting=-(-limits.waiting // count),
        waiting_per_address=-(-limits.waiting_per_address // count),
    )
    return evolve(settings, limits=share)


def _endpoints(settings: ProcessSettings) -> Iterator[tuple[str, str]]:
    """Each server endpoint string, behind the words that say where it stands."""
    for service in settings.services:
        for listen in service.listen:
            yield service.front.origin("listen"), listen
        if service.ident_address is not None:
            yield service.front.origin("ident-address"), ident_endpoint(*service.ident_address)
    if settings.status is not None:
        yield settings.front.origin("status"), settings.status


def check(reactor: Any, settings: ProcessSettings, told: Collector) -> tuple[Finding, ...]:
    """Look for all that would keep a process from starting, as far as this machine tells; nothing
    is left behind.

    :param told: takes what is wrong.
    :return: warnings.
    """
    for place, endpoint in _endpoints(settings):
        with told.taking(place):
            if "systemd:" not in endpoint:  # it passes its sockets to those it starts
                parse_server(reactor, endpoint)
    with told.taking(settings.front.origin("user")):
        if settings.user is not None:
            find_user(settings.user)
    with told.taking():
        _check_sharing(settings)
    warnings: list[Finding] = []
    for each in _fitting_ones(settings, told):
        with told.taking():
            make_service(reactor, each, only_check=True)
            warnings += KeyFiles(each).warnings
    return tuple(warnings)


def make_service(
    reactor: Any,
    settings: Settings,
    places: Places | None = None,
    *,
    only_check: bool = False,
    is_worker: bool = False,
    before: MutualAuthService | None = None,
) -> MutualAuthService:
    """Make one service.

    :param settings: with limits that fit.
    :param places: its endpoints that are bound already.
    :param only_check: whether it will not run, and nothing may be made for it.
    :param is_worker: whether another process asks the directory.
    :param before: the service that it takes the place of, whose application it goes on with, and
        whose answers to ident queries, where the settings leave it these.
    :raises MutualAuthError: when its keys, certificate or factory cannot be used; it stands for all
        that is wrong.
    """
    told, at = Collector(), settings.front.origin
    keys: Any = None
    factory: Any = None
    principal, tls, publisher, trail, ident = None, None, None, None, None
    with told.taking(at("keytab")):
        # Clients are accepted with any key of the keytab; the directory is asked as the account
        # alone.
        if Publisher.is_needed(settings) or settings.account is not None:
            principal = keytab_principal(settings.keytab, settings.account)
        keys = _keys(settings, only_check=only_check)
    with told.taking(at("tls-cert")):
        tls = server_layer(*settings.tls_files) if settings.tls_files is not None else None
    with told.taking(at(settings.serve[0])):
        where = settings.ident_address
        ident = before.ident_for(settings) if before is not None else None
        if where is not None and ident is None:
            ident = IdentFactory(reactor, *where)
        factory = before.application_for(settings) if before is not None else None
        factory = factory or application_factory(reactor, settings, ident)
    with told.taking(at("audit")):
        trail = _trail(reactor, settings, only_check=only_check)
    with told.taking():
        own = principal if Publisher.is_needed(settings) else None
        if own is not None and not is_worker:
            publisher = Publisher(reactor, settings, own)
            if before is not None and (known := before.groups_for(settings)) is not None:
                publisher.groups.know(known)
    try:
        told.settle()
    except MutualAuthError:
        if trail is not None:
            trail.close()
        raise
    return MutualAuthService(
        *(reactor, settings, keys, publisher, factory, tls, trail, ident, places, own),
        probes=not is_worker,
    )


def _keys(settings: Settings, *, only_check: bool) -> Keys:
    package, given = settings.security.package, dict(settings.package_options)
    if only_check and "accept-replays" in given:
        # A replay cache would be made, and be the user's who checks.
        given["accept-replays"] = True
    credentials = package.service_credentials(given)
    return package.acceptor_keys(credentials, settings.service.service_class)


def _trail(reactor: Any, settings: Settings, *, only_check: bool) -> AuditTrail | None:
    """The service's audit trail, if it is to have one."""
    if (destination := settings.audit) is None:
        return None
    try:
        if only_check:
            check_sink(destination)
            return None
        sink = open_sink(destination)
    except OSError as error:
        subject, cause = f"audit {destination}", error.strerror or str(error)
        remedy = "give the service's user the right to write it, or name another"
        if destination == "journald":
            subject, remedy = (
                f"{subject} ({JOURNAL})",
                "run it where systemd's journal is, or name a file",
            )
        raise UsageError(subject, cause, remedy, code="audit-failing") from error
    required = settings.audit_required
    return AuditTrail(reactor, sink, settings.name, destination, required=required)


def fitting(settings: ProcessSettings) -> Iterator[Settings]:
    """The services with limits that this process has descriptors for; each has an equal share.

    :raises UsageError: when limits that the user gave do not fit.
    """
    told = Collector()
    yield from _fitting_ones(settings, told)
    told.settle()


def _fitting_and_told(settings: ProcessSettings, told: Collector) -> Iterator[Settings]:
    """The same, with a line in the log for each whose limits are lower than it asks for."""
    count, given = len(settings.services), {each.name: each for each in settings.services}
    for service in _fitting_ones(settings, told):
        if service.limits != given[service.name].limits:
            _tell_lower(service, count)
        yield service


def _fitting_ones(settings: ProcessSettings, told: Collector) -> Iterator[Settings]:
    count = len(settings.services)
    available = raise_limit()
    share = available if count < 2 else RESERVE + (available - RESERVE) // count
    for service in settings.services:
        with told.taking(service.front.origin("max-connections")):
            each = 2 if service.serve[0] == "forward" else 1
            limits = fit(service.limits, service.explicit_limits, each, share)
            yield evolve(service, limits=limits)


def _tell_lower(settings: Settings, count: int) -> None:
    _log.warn(
        "{name}: this process may have {available} descriptors{of_all}, too few for the default "
        "limits; they are now max-handshakes {limits.handshakes} "
        "({limits.handshakes_per_address} of one address), max-waiting {limits.waiting} "
        "({limits.waiting_per_address}), max-connections {limits.connections}; {remedy}",
        name=settings.name,
        available=raise_limit(),
        of_all="" if count == 1 else f" for its {count} services",
        limits=settings.limits,
        remedy=REMEDY,
    )
