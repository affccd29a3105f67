"""The service's own view of the directory: checked at start and after, published, withdrawn at
stop.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from mutauth_twisted.access import AccessPolicy, AccessRules
from mutauth_twisted.credentials import ClientCredentials
from mutauth_twisted.directory.accountkeys import read_account_keys, version_fault, weak_keys
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.groups import Group
from mutauth_twisted.directory.published import ENTRIES
from mutauth_twisted.directory.published.base import (
    Elsewhere,
    Inspection,
    PublishedEntry,
    Registration,
    Standing,
    TakenByAnother,
)
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.findings import Finding
from mutauth_twisted.kerberos.keytab import keytab_file, versions_of
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.log import Log
from mutauth_twisted.names import split_principal
from mutauth_twisted.service.groups import NamedGroups
from mutauth_twisted.service.names import NamedAccounts
from mutauth_twisted.service.neighbours import Neighbours
from mutauth_twisted.service.watch import Watch
from mutauth_twisted.settings.service import Settings

#: Seconds that a start gives to the directory: for everything it has to know, and again for
#: publishing.
START_DEADLINE = 15.0
#: Seconds between looks at another instance to which the object points.
FOLLOW = 5.0
#: The port to publish, where it is known before the service listens.
_FIXED_PORT = re.compile(r"tcp6?:(?:port=)?([0-9]{1,5})(?![0-9])")
#: Seconds that a look at the directory which is under way gets when the service stops.
GRACE = 1.0


def _has_entry(settings: Settings) -> bool:
    return settings.publish or settings.spn_check != "off"


def _registration(settings: Settings, account: str) -> Registration:
    found = _FIXED_PORT.match(settings.listen[0])
    port = int(found.group(1)) or None if found else None
    return Registration(settings.service, account, settings.spn_check, settings.state_dir, port)


def tell_nobody(event: str, **fields: object) -> None:
    """Nobody wants to know."""


class Publisher:
    """Keeps what the directory says of one service true, with the service's own keys.

    :param reactor: Twisted's reactor.
    :param settings: the service.
    :param principal: who runs it, ``account@REALM``; a key of it is in the keytab.
    :ivar watch: the periodic look at the directory; None: there is none.
    """

    _log = Log()

    def __init__(self, reactor: Any, settings: Settings, principal: str) -> None:
        self._settings = settings
        self._entry = (
            ENTRIES[settings.entry](_registration(settings, settings.account or principal))
            if _has_entry(settings)
            else None
        )
        self._groups = NamedGroups(settings.rules)
        self._realm = settings.directory.realm or split_principal(principal)[1]
        self._use: Callable[[AccessPolicy], None] | None = None
        #: Who runs the service.
        self.principal = principal
        #: Told of each change of the directory: ``published`` or ``withdrawn``, and its fields.
        self.told: Callable[..., object] = tell_nobody
        # Named here, too, when it is the default one: else a ticket cache would be meant.
        keytab = keytab_file(settings.keytab)
        credentials = ClientCredentials(principal=principal, keytab=keytab)
        self._directory = Directory(reactor, settings.directory, credentials)
        self._standing: Standing | None = None
        self._binding: BindingInformation | None = None
        self._neighbours = Neighbours(reactor, self._directory.resolver, credentials)
        self._taken: tuple[Finding, ...] = ()
        #: When the last check ended, seconds since 1970; None: there was none.
        self._key_fault: Finding | None = None
        self._checked_at: float | None = None
        #: As the last look at the object that there was found it; None: there was none.
        self._spns_are_right: bool | None = None
        self._is_there = False
        self._publishes = False
        #: Whether nothing is to be published for now.
        self._is_held = False
        self._reactor = reactor
        self._following: IDelayedCall | None = None
        self._taking_over: Deferred[None] | None = None
        self.watch = (
            Watch(reactor, settings.check_interval, self._inspect)
            if settings.check_interval
            else None
        )

    @staticmethod
    def is_needed(settings: Settings) -> bool:
        """Tell whether there is anything to ask the directory for."""
        return _has_entry(settings) or bool(settings.rules.names())

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """Faults in the directory: by the last look at it, or else by that of the start."""
        if self.watch is not None and self.watch.looked:
            return self.watch.wrong
        warnings = self._standing.warnings if self._standing is not None else ()
        return (*(warning.finding for warning in warnings), *self._taken)

    @property
    def key_fault(self) -> Finding | None:
        """Fault of the keytab's newest key, by the last look; None: it is the account's."""
        return self._key_fault

    @property
    def _stands(self) -> bool:
        """True if the object has the address, as far as is known."""
        return self._publishes and self._is_there and not self._is_held

    @property
    def figures(self) -> dict[str, float]:
        """Figures of :data:`~mutauth_twisted.status.metrics.METRICS` about the directory."""
        found: dict[str, float] = {}
        if self._checked_at is not None:
            found["directory_check_timestamp_seconds"] = self._checked_at
            found["directory_check_success"] = int(not self.wrong)
        if self._spns_are_right is not None and self._settings.spn_check != "off":
            found["spns_registered"] = int(self._spns_are_right)
        if self._settings.publish:
            found["published"] = int(self._stands)
        if (end := self._directory.ticket_end) is not None:
            found["ticket_end_timestamp_seconds"] = end
        return found

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """The published object, its address, SPNs and account, for people."""
        if self._entry is None or self._standing is None:
            return (("Account", self.principal),)
        found = self._standing.found
        address = f"{self._settings.service.host} {self._entry.published}"
        return (
            (self._entry.kind, found.dn),
            ("Published address", address if self._stands else "none"),
            *(("SPN", str(spn)) for spn in found.spns),
            ("Account", self._standing.account.dn),
        )

    @property
    def groups(self) -> NamedGroups:
        """The groups that rules name."""
        return self._groups

    async def check(self, use: Callable[[AccessPolicy], None]) -> None:
        """Find the service's object and groups, and check that every SPN is registered on our
        account and nowhere else.

        Rules about accounts that are not there are named in the log.

        :param use: told who is allowed where groups have names, now and when that changes.
        :raises ServiceCheckFailed: when one does not, unless --spn-check says otherwise.
        :raises NotFound: when the object or a group is not there.
        :raises UsageError: when a group can be in no client's ticket.
        :raises DirectoryUnreachable: when the directory does not answer in time.
        """
        self._use = use
        deadline = self._reactor.seconds() + START_DEADLINE
        if self._groups:
            await self._find_groups(self._groups, deadline)
            use(self._groups.policy)
        if self._entry is not None:
            await self._check_entry(self._entry, deadline)
        await self._look_for_names(self._settings.rules, deadline)
        await self._check_keys()
        self._checked_at = time.time()

    async def find_groups(self, rules: AccessRules) -> NamedGroups:
        """Find the groups of other rules, and change nothing yet; see :meth:`watch_groups`.

        :raises MutualAuthError: as :meth:`check`.
        """
        groups, deadline = NamedGroups(rules), self._reactor.seconds() + START_DEADLINE
        groups.know(self._groups)
        if groups:
            await self._find_groups(groups, deadline)
        await self._look_for_names(rules, deadline)
        return groups

    def watch_groups(self, groups: NamedGroups) -> None:
        """Look for these groups from now on, and no more for those before."""
        self._groups = groups

    async def _look_for_names(self, rules: AccessRules, deadline: float) -> None:
        names = NamedAccounts(rules, self._realm)
        if not names:
            return
        try:
            for finding in await self._directory.run(names.look, deadline=deadline):
                self._log.warn("{finding}", finding=finding)
        except MutualAuthError as error:
            self._log.warn("the accounts that rules name were not looked up: {error}", error=error)

    async def _find_groups(self, groups: NamedGroups, deadline: float) -> None:
        found: Mapping[str, Group] = {}
        if groups.missing:
            found = await self._directory.run_with_catalog(groups.find, deadline=deadline)
        groups.settle(found)
        for group in found.values():
            self._log.info(
                "group {name} is {dn}, {sid}", name=group.asked, dn=group.dn, sid=group.sid
            )

    async def _check_entry(self, entry: PublishedEntry, deadline: float) -> None:
        standing = self._standing = await self._directory.run_with_catalog(
            entry.check, deadline=deadline
        )
        self._spns_are_right = not standing.warnings
        self._log.info("{subject} found {how}", subject=entry.subject, how=standing.found.how)
        for warning in (*standing.warnings, weak_keys(standing.account)):
            if warning is not None:
                self._log.warn("{warning}", warning=warning)
        if self._settings.spn_check != "off" and not standing.warnings:
            spns = ", ".join(map(str, standing.found.spns))
            self._log.info(
                "{account} holds {spns}, and no other account does",
                account=standing.account.name,
                spns=spns,
            )

    async def publish(
        self, port: int | None, own: Iterable[tuple[str, int]] = (), seen: Callable[[], int] = int
    ) -> None:
        """Make the object say where the service listens, and watch over it from now on.

        Where the object says that another instance runs, and it does, that stays,
        and is what is wrong, until soon after that one has gone.

        :param port: the TCP port; None: nothing is published.
        :param own: the addresses and TCP ports on which the service listens.
        :param seen: see :class:`~mutauth_twisted.service.neighbours.Neighbours`.
        :raises ServiceCheckFailed: when our account may not write it.
        """
        settings, entry = self._settings, self._entry
        if entry is not None and self._standing is not None and port is not None:
            binding = BindingInformation(
                port,
                settings.priority,
                settings.weight,
                settings.security.wire.name,
                settings.security.protection.value,
            )
            self._publishes = True
            self._neighbours.own = frozenset(own)
            self._neighbours.seen = seen
            self._binding = binding
        try:
            if self._publishes and not self._is_held and entry is not None and self._binding:
                await self._publish(entry, self._binding, self._reactor.seconds() + START_DEADLINE)
        finally:
            # A service that runs already goes on without its address, which is tried again then.
            if self.watch is not None:
                self.watch.start()

    async def _publish(
        self, entry: PublishedEntry, binding: BindingInformation, deadline: float | None = None
    ) -> None:
        def publish(*gone: Elsewhere) -> Deferred[Sequence[str]]:
            return self._directory.run(
                lambda session: entry.publish(session, binding, gone), deadline=deadline
            )

        self._taken, self._is_there = (), False
        try:
            try:
                changed = await publish()
            except TakenByAnother as error:
                if error.there is None or await self._neighbours.knock(error.there):
                    raise
                changed = await publish(error.there)
        except TakenByAnother as error:
            self._taken = (error.finding,)
            self._log.error("{error}", error=error)
            self._follow(error.there)
        else:
            self._is_there = True
            host = self._settings.service.host
            self.told("published", entry=entry.kind, dn=entry.dn, host=host, port=binding.port)
            self._log.info(
                "{kind} updated: {what} ({host}, {published})",
                kind=entry.kind,
                what=", ".join(changed) or "nothing, all was right",
                host=self._settings.service.host,
                published=entry.published,
            )

    def _follow(self, there: Elsewhere | None) -> None:
        """Take the place of another instance soon after its end.

        :param there: where it is by what the object says; None: there is none.
        """
        is_waiting = self._following is not None or self._is_held
        if self._publishes and there is not None and not is_waiting:
            self._following = self._reactor.callLater(FOLLOW, self._knock, there)

    def _knock(self, there: Elsewhere) -> None:
        self._following = None
        self._taking_over = Deferred.fromCoroutine(self._take_over(there)).addErrback(
            self._not_taken_over, there
        )

    async def _take_over(self, there: Elsewhere) -> None:
        if await self._neighbours.knock(there) or self._entry is None or self._binding is None:
            self._follow(there)
        elif self.watch is not None:
            await self.watch.look()
        else:
            await self._publish(self._entry, self._binding)

    def _not_taken_over(self, failure: Failure, there: Elsewhere) -> None:
        if failure.check(MutualAuthError):
            self._log.error("the address could not be published: {error}", error=failure.value)
            self._follow(there)
        elif not failure.check(CancelledError):
            self._log.failure("internal error while the address was published", failure)

    async def _inspect(self) -> Inspection:
        try:
            return await self._inspect_all()
        finally:
            self._checked_at = time.time()

    async def _check_keys(self) -> None:
        """See that the keytab's newest key is the account's."""
        path, before = keytab_file(self._settings.keytab), self._key_fault

        def look(session: LdapSession) -> Finding | None:
            account = read_account_keys(session, self.principal)
            return version_fault(account, path, versions_of(self.principal, path))

        try:
            self._key_fault = await self._directory.run(look)
        except MutualAuthError as error:
            # Whatever keeps the directory or the keytab from being read has a finding of its own.
            self._log.debug("the version of the keys was not checked: {error}", error=error)
        if self._key_fault is not None and self._key_fault != before:
            self._log.warn("{finding}", finding=self._key_fault)

    async def _inspect_all(self) -> Inspection:
        await self._check_keys()
        wrong = await self._inspect_groups() if self._groups else []
        if self._entry is None:
            return Inspection(tuple(wrong))
        try:
            found = await self._inspect_entry(self._entry)
        except MutualAuthError as error:
            found = Inspection((error.finding,))
        else:
            codes = [finding.code.startswith("spn-") for finding in found.wrong]
            self._spns_are_right, self._is_there = not any(codes), all(codes)
        self._follow(found.there)
        # Both may have failed for the same: a domain controller that does not answer.
        return evolve(found, wrong=tuple(dict.fromkeys((*wrong, *found.wrong))))

    async def _inspect_entry(self, entry: PublishedEntry) -> Inspection:
        def inspect(*gone: Elsewhere) -> Deferred[Inspection]:
            return self._directory.run_with_catalog(
                lambda session, catalog: entry.inspect(session, catalog, gone)
            )

        found = await inspect()
        if found.there is None or await self._neighbours.knock(found.there):
            return found
        return await inspect(found.there)

    async def _inspect_groups(self) -> list[Finding]:
        groups = self._groups
        before = groups.policy
        try:
            looked = await self._directory.run_with_catalog(groups.look)
        except MutualAuthError as error:
            return [error.finding]
        if groups is not self._groups:  # other rules are in force meanwhile
            return []
        wrong = groups.compare(looked)
        if self._use is not None and groups.policy != before:
            self._use(groups.policy)
        return wrong

    async def hold(self) -> None:
        """Have the object point nowhere until :meth:`release`; what else is published by this
        service is not touched.

        :raises MutualAuthError: when the directory cannot be written.
        """
        self._is_held = True
        self._stop_following()
        if self.watch is not None:
            await self.watch.settled()
        await self._take_back()

    async def release(self) -> None:
        """Publish the address again.

        :raises MutualAuthError: when the directory cannot be written.
        """
        self._is_held = False
        if self._publishes and self._entry is not None and self._binding is not None:
            await self._publish(self._entry, self._binding)

    def _stop_following(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._following = None
        if self._taking_over is not None:
            self._taking_over.cancel()

    async def _take_back(self) -> None:
        entry = self._entry if self._publishes else None
        self._is_there = False
        if entry is not None and await self._directory.run(entry.withdraw):
            self.told("withdrawn", entry=entry.kind, dn=entry.dn)
            self._log.info("{kind} withdrawn: {dn}", kind=entry.kind, dn=entry.dn)

    async def withdraw(self) -> None:
        """Take back the address, unless another instance has published its own since.

        What is under way with the directory gets a moment, in which it may end
        by itself, and is given up then: its thread writes nothing any more.
        """
        await self._rest()
        await self._take_back()
        self._publishes = False
        self._directory.close()

    def use(self, use: Callable[[AccessPolicy], None]) -> None:
        """Tell another one who is allowed when that changes; see :meth:`check`."""
        self._use = use

    async def hand_over(self) -> None:
        """Leave the address as it is to another publisher, which keeps it from now on."""
        await self._rest()
        self._publishes = False
        self._directory.close()

    async def _rest(self) -> None:
        """Look at the directory no more, write nothing by oneself, and tell nobody."""
        self._use = None  # what a look that is under way finds is of rules that are over
        self._is_held = True
        self._stop_following()
        if self.watch is not None:
            stopping = Deferred.fromCoroutine(self.watch.stop())
            stopping.addTimeout(GRACE, self._reactor)
            with suppress(TimeoutError):
                await stopping
