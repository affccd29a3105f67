"""An RnR service, with room for every host that offers the service."""

from __future__ import annotations

from collections.abc import Sequence

from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.published.base import Elsewhere, Found, PublishedEntry, Registration
from mutauth_twisted.directory.rnr import (
    Address,
    ServiceInstance,
    read_instance,
    update_address,
    withdraw_address,
)
from mutauth_twisted.directory.servicename import verify_class
from mutauth_twisted.errors import DirectoryRefused, NotFound
from mutauth_twisted.findings import Command, Remedy
from mutauth_twisted.ldap.session import INSUFFICIENT_RIGHTS, LdapSession


class RnrEntry(PublishedEntry):
    """An RnR service.

    Without the right to write it, what an administrator has published is enough, and stays.
    """

    kind = "RnR service"
    attributes = ("winsockAddresses",)
    _instance: ServiceInstance

    def __init__(self, registration: Registration) -> None:
        super().__init__(registration)
        #: Whether we may have written something that is ours to take back.
        self._wrote = False

    def _find(self, session: LdapSession) -> Found:
        service = self._registration.service
        command = self._command(session, self._registration.port)
        try:
            instance = read_instance(session, service.rnr_name or service.service_class)
        except NotFound as error:
            raise NotFound(error.subject, error.cause, command, code="rnr-not-found") from error
        verify_class(
            f"RnR service {instance.dn}",
            instance.service_class,
            service.service_class,
            ("choose another name with --rnr-name, or run ", command),
        )
        self._instance = instance
        spn = instance.spn(service.host, service.service_class)
        return Found(instance.dn, "by its name", (spn,), command)

    def _command(self, session: LdapSession, port: int | None) -> Command:
        registration, service = self._registration, self._registration.service
        name = service.rnr_name or service.service_class
        words = service.publish_words(name, port=port, account=registration.account)
        return session.options.command(*words)

    def _announced(self, binding: BindingInformation) -> BindingInformation:
        return binding

    def _address(self, binding: BindingInformation) -> Address:
        return Address(self._registration.service.host, binding)

    def _difference(self, binding: BindingInformation) -> str:
        address = self._address(binding)
        if address in self._instance.addresses:
            return ""
        return f"it did not say {address.host} {binding}"

    def _write(
        self, session: LdapSession, binding: BindingInformation, gone: Sequence[Elsewhere]
    ) -> tuple[str, ...]:
        before, self._wrote = self._wrote, True
        instance = read_instance(session, self._instance.dn)
        is_new = update_address(session, instance, self._address(binding))
        self._wrote = before or is_new
        return self.attributes if is_new else ()

    def _remedy(self, session: LdapSession, binding: BindingInformation) -> Remedy:
        command = self._command(session, binding.port)
        return ("run ", command, ", and listen on a fixed port; or delegate the right")

    def _take_back(self, session: LdapSession, binding: BindingInformation) -> bool:
        try:
            return self._wrote and withdraw_address(
                session, self._instance.dn, self._address(binding)
            )
        except DirectoryRefused as error:
            if error.result != INSUFFICIENT_RIGHTS:
                raise
            return False
