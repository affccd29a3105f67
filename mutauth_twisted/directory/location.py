"""Finding the instances of a service, and the SPN that each of them has to authenticate as.

Source: Microsoft, *Mutual authentication in a Windows Sockets service with an
SCP*, the client: the global catalog is searched for a keyword, the rest is
read from a domain controller of the object's own domain, and the SPN is
composed from both.

Nothing in an object is believed.  Any computer account can put a connection
point with any content below itself, delete one that an administrator put there
and make it anew at the same DN, and can register ``class/its-own-host``; and
DNS says what an attacker likes.  So every instance is asked for a three-part
SPN, which names class, host and object, and is left out unless the directory
has an account on which that very SPN is registered: only an administrator
registers one of three parts.  The literal search is what counts.  A KDC alone is
no proof that the name is registered: Samba's answers ``http/any-host/x``
with the key of whoever holds ``host/any-host``.  By keyword the class is the
client's to say.  Two parts are asked for only of the hosts that the client
itself names (``hosts``).

A DN or an objectGUID is never taken for a keyword: one that is not there is an
error.  An RnR service is found by its name or DN in the domain's own container.

Names are compared literally but for the case of A to Z, and a host is an ASCII
name: Unicode's folding makes one host of several that a directory keeps apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal
from uuid import UUID

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore

from mutauth_twisted.directory.binding import BindingError, BindingInformation, advertised_form
from mutauth_twisted.directory.rnr import ServiceInstance, read_instance
from mutauth_twisted.directory.scp import ServiceConnectionPoint, find_by_keyword, read_scp
from mutauth_twisted.directory.servicename import SPN_FORMS, ServiceName, is_of_class, verify_class
from mutauth_twisted.directory.spns import find_holders_of, find_named
from mutauth_twisted.dns import weighted_order
from mutauth_twisted.errors import MutualAuthError, NotFound, ServiceCheckFailed, UsageError
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.dn import domain_of, is_dn, parse_guid
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.names import fold_ascii
from mutauth_twisted.spn import SPN, check_service_class

_LOOKUPS = 20  # SRV records that are looked up at the same time


@frozen
class Instance:
    """One place where the service is offered.

    :param dn: the object that says so: a service connection point, or an RnR service.
    :param guid: its objectGUID.
    :param host: the DNS name to connect to.
    :param port: the TCP port.
    :param spn: what the service has to authenticate as.
    :param binding: what else the service published.
    """

    dn: str
    guid: UUID
    host: str
    port: int
    spn: SPN
    binding: BindingInformation


@frozen
class Selection:
    """Which service to look for.

    :param selector: for kind ``scp`` a connection point's keyword, DN or
        objectGUID; for ``keyword`` a keyword, whatever it looks like; for
        ``rnr`` an RnR service's name or DN.
    :param service_class: what its class has to be.  None: by keyword the
        keyword itself (which kind ``keyword`` does not allow), otherwise any.
    :param base: the DN below which to look for a keyword; None: the whole forest.
    :param spn_form: ``guid``, ``dn``, or ``host`` together with ``hosts``; None:
        what the SCP advertises, but only a form of three parts is believed.
    :param hosts: a shell pattern, in ASCII, that its host has to match; None: anything.
    :raises UsageError: for what does not go together.
    """

    selector: str
    service_class: str | None = None
    base: str | None = None
    spn_form: str | None = None
    hosts: str | None = None
    kind: Literal["scp", "keyword", "rnr"] = "scp"

    def __attrs_post_init__(self) -> None:
        if self.spn_form is not None and self.spn_form not in SPN_FORMS:
            raise UsageError(
                f"SPN form {self.spn_form!r}", "it is unknown", f"use one of {', '.join(SPN_FORMS)}"
            )
        if self.service_class is not None:
            check_service_class(self.service_class)
        if self.hosts is not None and not self.hosts.isascii():
            raise UsageError(
                f"hosts {self.hosts!r}",
                "host names are ASCII",
                "write the pattern in ASCII letters",
            )
        if self.spn_form == "host" and not self.hosts:
            raise UsageError(
                self.subject,
                "whoever can write the object, or answers DNS, chooses the host, and a host "
                "registers two-part SPNs itself",
                "name the hosts to be believed with hosts, or use spn-form guid or dn",
                code="location-not-trusted",
            )
        if not self.by_keyword:
            return
        if self.service_class is None:
            if self.kind == "keyword":
                cause = (
                    "any computer can publish any keyword, and nothing says which service class to "
                    "believe"
                )
                raise UsageError(self.subject, cause, "add class=CLASS, the first part of its SPN")
            remedy = (
                f"name the class: keyword={self.selector}:class=CLASS, the first part of its SPN"
            )
            try:
                check_service_class(self.selector)
            except UsageError as error:
                cause = (
                    "this keyword is neither a DN of a domain, nor an objectGUID, nor a valid "
                    "service class"
                )
                raise UsageError(self.subject, cause, remedy) from error

    @property
    def guid(self) -> UUID | None:
        """The objectGUID that is meant, if it is one."""
        return parse_guid(self.selector) if self.kind == "scp" else None

    @property
    def by_keyword(self) -> bool:
        """True where the object is looked for by what any account may publish."""
        if self.kind == "scp":
            return self.guid is None and not is_dn(self.selector)
        return self.kind == "keyword"

    @property
    def wanted_class(self) -> str | None:
        """The service class that the SPN must be of; None: that of the pinned object."""
        return self.service_class or (self.selector if self.by_keyword else None)

    @property
    def subject(self) -> str:
        """Subject of errors."""
        return f"service {self.selector!r}" + (f" below {self.base}" if self.base else "")

    def form_for(self, binding: BindingInformation) -> str:
        """The SPN form to ask for: a three-part one unless the user said otherwise."""
        return self.spn_form or advertised_form(binding)

    def wants(self, host: str) -> bool:
        """Tell whether a host is one of those to be believed."""
        return self.hosts is None or fnmatchcase(fold_ascii(host), fold_ascii(self.hosts))


def locate(
    directory: Directory, selection: Selection, randrange: Callable[[int], int] = random.randrange
) -> Deferred[list[Instance]]:
    """Find the instances of a service, in the order to try them.

    :param randrange: the random source for the order by weight (RFC 2782).
    :return: fires with at least one instance.
    :raises NotFound: when there is none.
    :raises ServiceCheckFailed: when those that there are cannot be used.
    """
    find = _locate_rnr if selection.kind == "rnr" else _locate_scp
    return Deferred.fromCoroutine(find(directory, selection, randrange))


async def _locate_scp(
    directory: Directory, query: Selection, randrange: Callable[[int], int]
) -> list[Instance]:
    points = await _points(directory, query)
    faults: list[MutualAuthError] = []
    if query.spn_form != "host":
        points, faults = await _named(directory, query, points)
    instances, others = await _instances(directory, query, points)
    faults += others
    instances, others = await _held(directory, query, instances)
    faults += others
    if not instances:
        raise faults[0] if faults else _nothing(directory, query)
    return in_order(instances, randrange)


def in_order(
    instances: Iterable[Instance], randrange: Callable[[int], int] = random.randrange
) -> list[Instance]:
    """The order in which to try instances: by priority, and at random by weight (RFC 2782)."""
    return weighted_order(
        instances, lambda found: (found.binding.priority, found.binding.weight), randrange
    )


async def _locate_rnr(
    directory: Directory, query: Selection, randrange: Callable[[int], int]
) -> list[Instance]:
    domain = domain_of(query.selector) if is_dn(query.selector) else None
    found = await directory.run(
        lambda session: read_instance(session, query.selector), domain=domain
    )
    subject = f"RnR service {found.dn}"
    _check_class(query, subject, found.service_class)
    if not found.addresses:
        words = ServiceName.for_remedy(found.service_class, None).publish_words(
            found.dn, port="PORT"
        )
        publish = directory.options.command(*words)
        also = f" that can be read here ({found.foreign} others)" if found.foreign else ""
        raise ServiceCheckFailed(
            subject,
            f"it has published no address{also}",
            ("an administrator runs ", publish),
            code="address-not-published",
        )
    instances = [each for each in _of_rnr(found) if query.wants(each.host)]
    if not instances:
        remedy = ("see them with ", directory.options.command("rnr", "list"))
        raise NotFound(subject, f"none of its hosts matches {query.hosts!r}", remedy)
    instances, faults = await _held(directory, query, instances)
    if not instances:
        raise faults[0]
    return in_order(instances, randrange)


def _of_rnr(found: ServiceInstance) -> list[Instance]:
    return [
        Instance(
            found.dn, found.guid, each.host, each.binding.port, found.spn(each.host), each.binding
        )
        for each in found.addresses
    ]


def _nothing(directory: Directory, query: Selection) -> NotFound:
    narrowed = " of these hosts" if query.hosts else ""
    return NotFound(
        query.subject,
        f"no service connection point{narrowed} has this keyword",
        (
            "check the name; ",
            directory.options.command("scp", "list"),
            " names those of the domain",
        ),
        code="scp-not-found",
    )


async def _points(directory: Directory, query: Selection) -> list[ServiceConnectionPoint]:
    """The connection points that are meant, read in full."""
    if query.guid is not None:
        return [await _read_by_guid(directory, query.guid)]
    if not query.by_keyword:
        domain = domain_of(query.selector)
        return [
            await directory.run(lambda session: read_scp(session, query.selector), domain=domain)
        ]
    found = await directory.run(_search(query), global_catalog=True)
    by_domain: dict[str, list[UUID]] = {}
    for point in found:
        by_domain.setdefault(domain_of(point.dn), []).append(point.guid)
    points: list[ServiceConnectionPoint] = []
    for domain, guids in by_domain.items():
        # The same search again, on the objects' own domain controller: what the global catalog does
        # not have is there.
        there = await directory.run(_search(query), domain=domain)
        points += [point for point in there if point.guid in guids]
    return points


async def _read_by_guid(directory: Directory, guid: UUID) -> ServiceConnectionPoint:
    try:
        found = await directory.run(lambda session: read_scp(session, guid), global_catalog=True)
    except NotFound as error:
        remedy = (
            "check it; a product's GUID among the keywords of an SCP is written "
            f"keyword={guid}:class=CLASS"
        )
        raise NotFound(error.subject, error.cause, remedy) from error
    return await directory.run(lambda session: read_scp(session, guid), domain=domain_of(found.dn))


def _search(query: Selection) -> Callable[[LdapSession], list[ServiceConnectionPoint]]:
    return lambda session: list(find_by_keyword(session, query.selector, base=query.base))


async def _instances(
    directory: Directory, query: Selection, points: Sequence[ServiceConnectionPoint]
) -> tuple[list[Instance], list[MutualAuthError]]:
    instances: list[Instance] = []
    faults: list[MutualAuthError] = []
    # At once: one with broken DNS records holds up none of the others.
    few = DeferredSemaphore(_LOOKUPS)
    looking = [few.run(_look_at, directory, query, point) for point in points]
    outcomes: list[tuple[bool, Any]] = await DeferredList(looking, consumeErrors=True)
    for worked, found in outcomes:
        if worked:
            instances += [each for each in found if query.wants(each.host)]
        elif isinstance(found.value, MutualAuthError):
            faults.append(found.value)
        else:
            found.raiseException()
    return instances, faults


def _look_at(
    directory: Directory, query: Selection, point: ServiceConnectionPoint
) -> Deferred[list[Instance]]:
    return Deferred.fromCoroutine(_of_point(directory, query, point))


async def _of_point(
    directory: Directory, query: Selection, point: ServiceConnectionPoint
) -> list[Instance]:
    subject = f"SCP {point.dn}"
    _check_class(query, subject, point.service_class)
    try:
        binding = point.binding
    except BindingError as error:
        raise ServiceCheckFailed(
            subject,
            str(error),
            "start the service again: it publishes its port",
            code="address-not-published",
        ) from error
    if point.dns_name_type == "SRV" and point.dns_name:
        return await _of_srv_record(directory, query, point, binding)
    if binding is None:
        raise ServiceCheckFailed(
            subject,
            "it has published no port",
            "is the service running?",
            code="address-not-published",
        )
    if not point.dns_name:
        raise ServiceCheckFailed(
            subject,
            "it names no host",
            "start the service again: it publishes its host",
            code="address-not-published",
        )
    spn = point.spn(query.form_for(binding), service_class=query.wanted_class)
    return [Instance(point.dn, point.guid, spn.host, binding.port, spn, binding)]


def _check_class(query: Selection, subject: str, service_class: str | None) -> None:
    wanted = query.wanted_class
    if wanted is None:
        return
    remedy = "check the selector and the class"
    if query.service_class is None:
        remedy = "check the keyword, or name the class that you trust with class=CLASS"
    verify_class(subject, service_class, wanted, remedy)


async def _of_srv_record(
    directory: Directory,
    query: Selection,
    point: ServiceConnectionPoint,
    published: BindingInformation | None,
) -> list[Instance]:
    """One connection point for many hosts: serviceDNSName is an SRV record's name, and DNS has
    hosts and ports.

    Nothing vouches for what DNS says; no account holds an SPN with the object's DN or GUID for a
    host that it makes up.
    """
    targets = await directory.resolver.lookup_srv(point.dns_name or "")
    instances = []
    for target in targets:
        ranked = evolve(
            published or BindingInformation(target.port),
            port=target.port,
            priority=target.priority,
            weight=target.weight,
        )
        spn = point.spn(query.form_for(ranked), target.host, query.wanted_class)
        instances.append(Instance(point.dn, point.guid, target.host, target.port, spn, ranked))
    return instances


async def _named(
    directory: Directory, query: Selection, points: Sequence[ServiceConnectionPoint]
) -> tuple[list[ServiceConnectionPoint], list[MutualAuthError]]:
    """Without the SRV records that no SPN of the wanted class vouches for: whoever can publish has
    nobody ask DNS.
    """
    wanted = (
        query.wanted_class or (points[0].service_class if points else None) or ""
    )  # the one that is pinned
    records = [
        point
        for point in points
        if point.dns_name_type == "SRV" and is_of_class(point.service_class, wanted)
    ]
    if not records:
        return list(points), []
    names = [name for point in records for name in (str(point.guid), point.dn)]
    found = await directory.run(
        lambda session: find_named(session, wanted, names), global_catalog=True
    )
    unnamed = {
        point.guid: point
        for point in records
        if found.isdisjoint((str(point.guid), fold_ascii(point.dn)))
    }
    faults: list[MutualAuthError] = [
        ServiceCheckFailed(
            f"SCP {point.dn}",
            f"no account holds an SPN of class {wanted} that vouches for it",
            "if it is to be trusted, an administrator installs it, or registers an SPN with its "
            "GUID for each host",
            code="spn-not-vouched-for",
        )
        for point in unnamed.values()
    ]
    return [point for point in points if point.guid not in unnamed], faults


async def _held(
    directory: Directory, query: Selection, instances: Sequence[Instance]
) -> tuple[list[Instance], list[MutualAuthError]]:
    """Those whose three-part SPN is registered literally; what a KDC makes of the name does not
    count.

    Those of two parts are of hosts that the client named.
    """
    three_parts = dict.fromkeys(
        instance.spn for instance in instances if instance.spn.service_name is not None
    )
    if not three_parts:
        return list(instances), []
    accounts = await directory.run(
        lambda session: find_holders_of(session, list(three_parts)), global_catalog=True
    )
    standing = {fold_ascii(text) for account in accounts for text in account.spns}
    held, faults = [], list[MutualAuthError]()
    for instance in instances:
        if instance.spn.service_name is None or fold_ascii(str(instance.spn)) in standing:
            held.append(instance)
        else:
            faults.append(_not_held(directory, query, instance))
    return held, faults


def _not_held(directory: Directory, query: Selection, instance: Instance) -> ServiceCheckFailed:
    service = ServiceName.for_remedy(instance.spn.service_class, instance.host)
    if query.kind == "rnr":
        subject = f"RnR service {instance.dn}"
        words = service.publish_words(instance.dn, port=instance.port, account="ACCOUNT")
    else:
        subject = f"SCP {instance.dn}"
        words = service.at(instance.dn).install_words("ACCOUNT")
    return ServiceCheckFailed(
        subject,
        f"no account holds the SPN that vouches for it, {instance.spn}",
        ("if it is to be trusted, an administrator runs ", directory.options.command(*words)),
        code="spn-not-vouched-for",
    )
