"""A service connection point, with room for one instance of a service."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

from attrs import evolve

from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.guidcache import DEFAULT_STATE_DIR, GuidCache
from mutauth_twisted.directory.published.base import (
    Elsewhere,
    Found,
    PublishedEntry,
    TakenByAnother,
    may_write,
)
from mutauth_twisted.directory.scp import (
    ServiceConnectionPoint,
    read_scp,
    scp_dn,
    update_binding,
    withdraw,
)
from mutauth_twisted.directory.servicename import SPN_FORMS, ServiceName, verify_class
from mutauth_twisted.errors import NotFound, UsageError
from mutauth_twisted.findings import Command, Remedy
from mutauth_twisted.ldap.dn import same_dn
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.names import fold_ascii


class ScpEntry(PublishedEntry):
    """A service connection point; one whose hosts are in DNS is left alone: nothing of one host is
    in it.
    """

    kind = "SCP"
    attributes = ("serviceDNSName", "serviceBindingInformation")
    _point: ServiceConnectionPoint

    def _find(self, session: LdapSession) -> Found:
        service = self._registration.service
        cached = GuidCache(self._registration.state_dir).read(service)
        place: str | None = None
        remedy: Remedy = self._command(session, service)
        try:
            place = scp_dn(session, service)
        except (NotFound, UsageError) as error:
            if cached is None:  # a service that is found by its GUID may have lost its place
                raise
            remedy = error.remedy  # what the installation would say next
        where = cached.guid if cached is not None else place
        assert where is not None, "without a GUID the place is known"
        try:
            point = read_scp(session, where)
        except NotFound as error:
            raise NotFound(error.subject, error.cause, remedy, code="scp-not-found") from error
        verify_class(
            f"SCP {point.dn}",
            point.service_class,
            service.service_class,
            "name the service's own SCP with --scp-name, or its class with --service-class",
        )
        # Run as it was, the installation would make a second object where the first one had been.
        is_moved = place is None or not same_dn(place, point.dn)
        command = self._command(session, service.at(point.dn) if is_moved else service)
        how = "by its GUID" if cached is not None else "by its DN (no GUID is cached)"
        self._point = point
        return Found(point.dn, how, point.spns_of(service), command)

    def _command(self, session: LdapSession, service: ServiceName) -> Command:
        directory = self._registration.state_dir
        state = ["--state-dir", str(directory)] if directory != DEFAULT_STATE_DIR else []
        words = service.install_words(self._registration.account)
        return session.options.command(*words, *state)

    def _announced(self, binding: BindingInformation) -> BindingInformation:
        """See :class:`PublishedEntry`.

        Clients are told to ask for the DN, as in Microsoft's sample, when it is registered; but for
        the GUID when the DN holds what not every KDC finds: Samba's looks names up with blanks,
        backslashes and '@' escaped.
        """
        registered = self._registration.service.spn_forms
        is_findable = not re.search(r"[\s\\@]", self._point.dn)
        uses_dn = "dn" in registered and (is_findable or "guid" not in registered)
        return evolve(binding, spn_form="dn" if uses_dn else registered[0])

    def _difference(self, binding: BindingInformation) -> str:
        point, host = self._point, self._registration.service.host
        is_here = fold_ascii(point.dns_name or "") == fold_ascii(host)
        if point.dns_name_type == "SRV" or (is_here and point.binding_text == str(binding)):
            return ""
        said = f"{point.dns_name} {point.binding_text or '(no port)'}"
        return f"it said {said} instead of {host} {binding}"

    def needs_right(self, session: LdapSession) -> bool:
        """See :class:`PublishedEntry`: its next start may get another port."""
        point = self._point
        return point.dns_name_type != "SRV" and not may_write(session, point.dn, self.attributes)

    def _write(
        self, session: LdapSession, binding: BindingInformation, gone: Sequence[Elsewhere]
    ) -> list[str]:
        point = read_scp(session, self._point.guid)
        if point.dns_name_type == "SRV":
            return []
        self._check_free(point, binding, gone)
        return update_binding(session, point, self._registration.service.host, binding)

    def _check_free(
        self, point: ServiceConnectionPoint, binding: BindingInformation, gone: Sequence[Elsewhere]
    ) -> None:
        host = self._registration.service.host
        name = point.dns_name or host
        try:
            theirs = BindingInformation.parse(point.binding_text or "")
            spn = point.spn(theirs.spn_form if theirs.spn_form in SPN_FORMS else "dn", name)
        except UsageError:  # no client gets there either
            return
        is_ours = (fold_ascii(name), theirs.port) == (fold_ascii(host), binding.port)
        there = Elsewhere(name, theirs, spn)
        if not (is_ours or there in gone):
            raise TakenByAnother(
                f"SCP {point.dn}",
                f"it points to {name} {theirs.port}, where another instance runs, and not to "
                f"{host} {binding.port}",
                "give each instance an SCP of its own: --scp-name, for mutauth install too; or "
                "stop that one",
                there,
            )

    def _remedy(self, session: LdapSession, binding: BindingInformation) -> Remedy:
        assert self._standing is not None
        return self._standing.found.command

    def _take_back(self, session: LdapSession, binding: BindingInformation) -> bool:
        host = self._registration.service.host
        with suppress(NotFound):
            point = read_scp(session, self._point.guid)
            # An instance on another host may have the same port.
            if fold_ascii(point.dns_name or "") == fold_ascii(host):
                return withdraw(session, point.guid, binding)
        return False
