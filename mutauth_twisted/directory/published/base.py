"""A service's object in the directory: checked at the start, published to, inspected, withdrawn.

Source: Microsoft, *Mutual authentication in a Windows Sockets service with an
SCP*, the service's start: the object is found, brought up to date, and the SPNs
are looked for on the account that runs the service; the service does not start
when one is missing.  Here nothing is published before the SPNs are known to be
right.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from attrs import frozen

from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.guidcache import DEFAULT_STATE_DIR
from mutauth_twisted.directory.servicename import ServiceName
from mutauth_twisted.directory.spns import Account, find_account, find_holders, spn_command
from mutauth_twisted.errors import DirectoryRefused, ServiceCheckFailed, UsageError
from mutauth_twisted.findings import Command, Finding, Remedy, either
from mutauth_twisted.ldap.dn import is_dn, same_dn
from mutauth_twisted.ldap.session import INSUFFICIENT_RIGHTS, LdapSession
from mutauth_twisted.names import fold_ascii
from mutauth_twisted.spn import SPN

SpnCheck = Literal["refuse", "warn", "off"]


@frozen
class Elsewhere:
    """Where an object says that the service is.

    :param spn: what it has to authenticate as, by what the object tells clients.
    """

    host: str
    binding: BindingInformation
    spn: SPN


class TakenByAnother(ServiceCheckFailed):
    """The object says that another instance is there, which may still run.

    :ivar there: where.
    """

    code = "scp-taken"

    def __init__(
        self, subject: str, cause: str, remedy: Remedy = "", there: Elsewhere | None = None
    ) -> None:
        super().__init__(subject, cause, remedy)
        self.there = there


@frozen
class Registration:
    """A service that has an entry in the directory.

    :param service: what it is called.
    :param account: who runs it: sAMAccountName, UPN or DN.
    :param spn_check: what to do about an SPN that is missing or on another account.
    :param state_dir: where ``mutauth install`` cached the GUID of its object.
    :param port: the TCP port, where it is known before the service listens.
    """

    service: ServiceName
    account: str
    spn_check: SpnCheck = "refuse"
    state_dir: Path = DEFAULT_STATE_DIR
    port: int | None = None


@frozen
class Found:
    """A service's object.

    :param dn: where it is now.
    :param how: how it was found.
    :param spns: what clients may ask for.
    :param command: what puts the service right, for an administrator.
    """

    dn: str
    how: str
    spns: tuple[SPN, ...]
    command: Command


@frozen
class Standing:
    """Result of a check.

    :param found: the object.
    :param account: who runs the service.
    :param warnings: what is wrong, and no reason to stop.
    """

    found: Found
    account: Account
    warnings: tuple[ServiceCheckFailed, ...]


@frozen
class Inspection:
    """Result of a look at a running service.

    :param wrong: what is wrong.
    :param fixed: findings that no longer hold.
    :param there: where another instance is by what the object says, unless it has gone.
    """

    wrong: tuple[Finding, ...]
    fixed: tuple[Finding, ...] = ()
    there: Elsewhere | None = None


class PublishedEntry(ABC):
    """One service's object; its methods block, and raise MutualAuthErrors.

    Those of a kind of object are the abstract ones.

    :cvar kind: what people call such an object.
    :cvar attributes: what the service writes.
    :ivar published: what the service has published; None: nothing, or it was withdrawn.
    """

    kind: ClassVar[str]
    attributes: ClassVar[tuple[str, ...]]

    def __init__(self, registration: Registration) -> None:
        self._registration = registration
        self._standing: Standing | None = None
        self.published: BindingInformation | None = None

    def check(self, session: LdapSession, catalog: LdapSession) -> Standing:
        """Find the object and check the SPNs, as a start demands it; changes nothing.

        :param session: a domain controller, with the service account's tickets.
        :param catalog: a global catalog, to say who holds an SPN that is not ours.
        :raises NotFound: when the object or the account is not there; the remedy is the command
            for an administrator.
        :raises ServiceCheckFailed: when an SPN is missing, likewise.
        """
        return self._check(session, catalog, self._registration.spn_check)

    def _check(self, session: LdapSession, catalog: LdapSession, spn_check: SpnCheck) -> Standing:
        found = self._find(session)
        account = find_account(session, self._registration.account)
        failures = [] if spn_check == "off" else check_spns(catalog, found, account)
        if failures and spn_check == "refuse":
            raise failures[0]
        self._standing = Standing(found, account, tuple(failures))
        return self._standing

    def publish(
        self, session: LdapSession, binding: BindingInformation, gone: Sequence[Elsewhere] = ()
    ) -> Sequence[str]:
        """Make the checked object say where the service is.

        Nobody publishes over an instance that may run, where there is room for one only.

        :param gone: where no instance is, whatever the object says.
        :return: the attributes that had to be written.
        :raises TakenByAnother: when it says that another instance is elsewhere.
        :raises ServiceCheckFailed: without the right to write them; the remedy is the command for
            an administrator.
        """
        # Before it is written: a stop in the middle has to take back what the thread still writes.
        self.published = self._announced(binding)
        return self._publish(session, self.published, gone)

    def _publish(
        self, session: LdapSession, binding: BindingInformation, gone: Sequence[Elsewhere]
    ) -> Sequence[str]:
        try:
            return self._write(session, binding, gone)
        except DirectoryRefused as error:
            if error.result != INSUFFICIENT_RIGHTS:
                raise
            raise self._no_right("", self._remedy(session, binding)) from error

    def _no_right(self, since: str, remedy: Remedy) -> ServiceCheckFailed:
        assert self._standing is not None
        cause = f"{self._standing.account.name} may not write {' and '.join(self.attributes)} of it"
        return ServiceCheckFailed(self.subject, cause + since, remedy, code="no-right-to-publish")

    def inspect(
        self, session: LdapSession, catalog: LdapSession, gone: Sequence[Elsewhere] = ()
    ) -> Inspection:
        """See what has become wrong since with a running service, and fix what we may.

        While it runs nothing is a reason to stop.

        :param gone: as for :meth:`publish`.
        """
        spn_check: SpnCheck = "off" if self._registration.spn_check == "off" else "warn"
        standing, published = self._check(session, catalog, spn_check), self.published
        wrong: list[ServiceCheckFailed] = list(standing.warnings)
        if published is None:
            return Inspection(_findings(wrong))
        difference = self._difference(published)
        if not difference:
            if self.needs_right(session):
                wrong.append(self._no_right(" any more", self._remedy(session, published)))
            return Inspection(_findings(wrong))
        try:
            self._publish(session, published, gone)
        except TakenByAnother as error:
            return Inspection(_findings([*wrong, error]), there=error.there)
        except ServiceCheckFailed as error:
            cause = f"{difference}, and {error.cause}"
            return Inspection(
                _findings(
                    [
                        *wrong,
                        ServiceCheckFailed(error.subject, cause, error.remedy, code=error.code),
                    ]
                )
            )
        fixed = Finding("address-overwritten", self.subject, f"{difference}; published again")
        return Inspection(_findings(wrong), (fixed,))

    def withdraw(self, session: LdapSession) -> bool:
        """Take back what was published, unless another instance has published since; whether it
        was.
        """
        published, self.published = self.published, None
        return published is not None and self._take_back(session, published)

    @property
    def dn(self) -> str:
        """Where the object was found."""
        assert self._standing is not None, "it is checked first"
        return self._standing.found.dn

    @property
    def subject(self) -> str:
        """The object, for messages."""
        return f"{self.kind} {self.dn}"

    def needs_right(self, session: LdapSession) -> bool:
        """True if the service has to be able to write at any time, and may not."""
        return False

    @abstractmethod
    def _find(self, session: LdapSession) -> Found:
        """Find the object, and verify that it is of the service's class."""

    @abstractmethod
    def _announced(self, binding: BindingInformation) -> BindingInformation:
        """Return the binding that the object is to publish for an address."""

    @abstractmethod
    def _difference(self, binding: BindingInformation) -> str:
        """Describe how the object, as it was found, differs from this binding; empty if it does
        not.
        """

    @abstractmethod
    def _write(
        self, session: LdapSession, binding: BindingInformation, gone: Sequence[Elsewhere]
    ) -> Sequence[str]:
        """Make the object say this; the attributes that had to be written."""

    @abstractmethod
    def _remedy(self, session: LdapSession, binding: BindingInformation) -> Remedy:
        """The next step when the service may not write this."""

    @abstractmethod
    def _take_back(self, session: LdapSession, binding: BindingInformation) -> bool:
        """Withdraw what was published if it is still there; whether it was."""


def _findings(errors: Iterable[ServiceCheckFailed]) -> tuple[Finding, ...]:
    return tuple(error.finding for error in errors)


def may_write(session: LdapSession, dn: str, attributes: Sequence[str]) -> bool:
    """Tell whether we ourselves may write these attributes of an object.

    The domain controller answers by its own rules (allowedAttributesEffective,
    MS-ADTS 3.1.1.4.5.20), so the right may have come from anywhere.
    """
    allowed = session.read(dn, ["allowedAttributesEffective"]).texts("allowedAttributesEffective")
    return {attribute.casefold() for attribute in attributes} <= {
        attribute.casefold() for attribute in allowed
    }


def check_spns(catalog: LdapSession, found: Found, account: Account) -> list[ServiceCheckFailed]:
    """Return the faults of a service's SPNs; none if all are registered on its account and nowhere
    else.
    """
    failures = []
    for spn in found.spns:
        others = [
            other for other in find_holders(catalog, spn) if not same_dn(other.dn, account.dn)
        ]
        if others:
            failures.append(_on_another(catalog, spn, account, others))
        elif not account.holds(spn):
            cause = _why_missing(spn, found.dn, account)
            failures.append(
                ServiceCheckFailed(f"SPN {spn}", cause, found.command, code="spn-missing")
            )
    return failures


def _on_another(
    catalog: LdapSession, spn: SPN, account: Account, others: Sequence[Account]
) -> ServiceCheckFailed:
    names = ", ".join(f"{other.name} ({other.dn})" for other in others)
    where = "also on" if account.holds(spn) else "on"
    commands = either(spn_command(catalog, "delete", other, spn) for other in others)
    return ServiceCheckFailed(
        f"SPN {spn}",
        f"it is {where} {names}, and this service runs as {account.name}",
        ("run the service under that account, or remove the SPN: ", *commands),
        code="spn-on-other-account",
    )


def _why_missing(spn: SPN, dn: str, account: Account) -> str:
    cause = f"it is not on account {account.name}, under which the service runs"
    for text in account.spns:
        try:
            other = SPN.parse(text)
        except UsageError:
            continue
        if fold_ascii(other.service_class) != fold_ascii(spn.service_class):
            continue
        same_host = fold_ascii(other.host) == fold_ascii(spn.host)
        if not same_host and other.service_name == spn.service_name:
            return f"{cause}: the host was renamed, it was {other.host}"
        is_dn_form = spn.service_name == dn
        if same_host and is_dn_form and other.service_name and is_dn(other.service_name):
            return f"{cause}: the SCP was moved, it was {other.service_name}"
    return cause
