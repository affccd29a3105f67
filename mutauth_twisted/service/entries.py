"""The object that stands for one service in the directory, of whichever kind it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from attrs import evolve, frozen

from mutauth_twisted.directory import rnr
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.guidcache import DEFAULT_STATE_DIR, GuidCache
from mutauth_twisted.directory.published import rnr as rnrstartup
from mutauth_twisted.directory.published import scp as startup
from mutauth_twisted.directory.published.scp import Answers, SpnCheck
from mutauth_twisted.directory.scp import read_scp, withdraw
from mutauth_twisted.directory.spns import Account
from mutauth_twisted.errors import DirectoryRefused, NotFound
from mutauth_twisted.ldap.session import INSUFFICIENT_RIGHTS, LdapSession
from mutauth_twisted.names import fold_ascii
from mutauth_twisted.settings.service import Settings
from mutauth_twisted.spn import SPN


@frozen
class Standing:
    """What a check found.

    :param subject: the object, and how it was found.
    :param dn: where it is now.
    :param account: who runs the service.
    :param spns: what clients may ask for.
    :param warnings: what is wrong, and no reason to stop.
    """

    subject: str
    dn: str
    account: Account
    spns: tuple[SPN, ...]
    warnings: tuple[str, ...]


@frozen
class Inspection:
    """What a look at a running service found.

    :param wrong: what is wrong, a line each.
    :param mended: what was wrong and is right again, a line each.
    """

    wrong: tuple[str, ...]
    mended: tuple[str, ...] = ()


class Entry(Protocol):
    """One service's object; its methods block, and raise MutualAuthErrors."""

    def check(self, session: LdapSession, catalog: LdapSession) -> Standing:
        """Find the object and check the SPNs, as a start demands it."""

    def publish(self, session: LdapSession, binding: BindingInformation, answers: Answers) -> str:
        """Make the object say where the service is; what had to be written."""

    def inspect(self, session: LdapSession, catalog: LdapSession, answers: Answers) -> Inspection:
        """See what has become wrong since, and mend what we may."""

    def withdraw(self, session: LdapSession) -> bool:
        """Take back what was published, unless somebody else has published since; whether it
        was.
        """


class ScpEntry:
    """A service connection point.

    :param account: who runs the service.
    """

    def __init__(self, settings: Settings, account: str) -> None:
        self._settings = settings
        self._account = account
        self._checked: startup.Checked | None = None
        self._published: BindingInformation | None = None

    def _check(
        self, session: LdapSession, catalog: LdapSession, spn_check: SpnCheck
    ) -> startup.Checked:
        settings = self._settings
        cached = GuidCache(settings.state_dir).read(settings.service)
        self._checked = startup.check(
            session,
            catalog,
            settings.service,
            self._account,
            guid=cached.guid if cached else None,
            spn_check=spn_check,
            state=_state(settings),
        )
        return self._checked

    def check(self, session: LdapSession, catalog: LdapSession) -> Standing:
        """See :meth:`Entry.check`."""
        checked = self._check(session, catalog, self._settings.spn_check)
        how = "by its GUID" if checked.by_guid else "by its place (no GUID is cached)"
        subject = f"SCP {checked.scp.dn} found {how}"
        return Standing(subject, checked.scp.dn, checked.account, checked.spns, checked.warnings)

    def publish(self, session: LdapSession, binding: BindingInformation, answers: Answers) -> str:
        """See :meth:`Entry.publish`."""
        assert self._checked is not None
        form = advertised_form(self._settings.service.spn_forms, self._checked.scp.dn)
        # Before it is written: a stop in the middle has to take back what the thread still writes.
        self._published = evolve(binding, spn_form=form)
        changed = startup.publish(
            session, self._checked, self._settings.service.host, self._published, answers
        )
        what = ", ".join(changed) or "nothing, all was right"
        return f"SCP updated: {what} ({self._settings.service.host}, {self._published})"

    def inspect(self, session: LdapSession, catalog: LdapSession, answers: Answers) -> Inspection:
        """See :meth:`Entry.inspect`."""
        checked = self._check(session, catalog, _inspected(self._settings.spn_check))
        wrong, mended = startup.inspect(
            session, checked, self._settings.service.host, self._published, answers
        )
        return Inspection(tuple(wrong), tuple(mended))

    def withdraw(self, session: LdapSession) -> bool:
        """See :meth:`Entry.withdraw`."""
        published, self._published = self._published, None
        if published is None or self._checked is None:
            return False
        with suppress(NotFound):
            point = read_scp(session, self._checked.scp.guid)
            # An instance on another host may have the same port.
            if fold_ascii(point.dns_name or "") == fold_ascii(self._settings.service.host):
                return withdraw(session, point.guid, published)
        return False


class RnrEntry:
    """An RnR service.

    :param account: who runs the service.
    """

    def __init__(self, settings: Settings, account: str) -> None:
        self._settings = settings
        self._account = account
        self._checked: rnrstartup.CheckedRnr | None = None
        self._published: rnr.Address | None = None
        self._wrote = False

    def _check(
        self, session: LdapSession, catalog: LdapSession, spn_check: SpnCheck
    ) -> rnrstartup.CheckedRnr:
        settings = self._settings
        self._checked = rnrstartup.check(
            session,
            catalog,
            settings.service,
            self._account,
            name=settings.rnr_name or settings.service.service_class,
            spn_check=spn_check,
            port=_fixed_port(settings),
        )
        return self._checked

    def check(self, session: LdapSession, catalog: LdapSession) -> Standing:
        """See :meth:`Entry.check`."""
        checked = self._check(session, catalog, self._settings.spn_check)
        dn = checked.instance.dn
        return Standing(
            f"RnR service {dn} found", dn, checked.account, (checked.spn,), checked.warnings
        )

    def publish(self, session: LdapSession, binding: BindingInformation, answers: Answers) -> str:
        """See :meth:`Entry.publish`; an RnR service has room for every instance."""
        assert self._checked is not None
        self._published = rnr.Address(self._settings.service.host, binding)
        self._wrote = True
        self._wrote = rnrstartup.publish(session, self._checked, self._published)
        what = "winsockAddresses" if self._wrote else "nothing, all was right"
        return f"RnR service updated: {what} ({self._settings.service.host}, {binding})"

    def inspect(self, session: LdapSession, catalog: LdapSession, answers: Answers) -> Inspection:
        """See :meth:`Entry.inspect`."""
        checked = self._check(session, catalog, _inspected(self._settings.spn_check))
        wrong, mended = rnrstartup.inspect(session, checked, self._published)
        self._wrote = self._wrote or bool(mended)
        return Inspection(tuple(wrong), tuple(mended))

    def withdraw(self, session: LdapSession) -> bool:
        """See :meth:`Entry.withdraw`; what an administrator has published stays."""
        published, self._published = self._published, None
        if published is None or self._checked is None or not self._wrote:
            return False
        try:
            return rnr.withdraw_address(session, self._checked.instance.dn, published)
        except DirectoryRefused as error:
            if error.code != INSUFFICIENT_RIGHTS:
                raise
            return False


def entry_of(settings: Settings, account: str) -> Entry:
    """The entry that the settings ask for."""
    return RnrEntry(settings, account) if settings.entry == "rnr" else ScpEntry(settings, account)


def _inspected(spn_check: SpnCheck) -> SpnCheck:
    """While it runs nothing is a reason to stop."""
    return "off" if spn_check == "off" else "warn"


def _fixed_port(settings: Settings) -> int | None:
    """The port to publish, where it is known before the service listens."""
    found = re.match(r"tcp6?:(?:port=)?([0-9]{1,5})(?![0-9])", settings.listen[0])
    return int(found.group(1)) or None if found else None


def _state(settings: Settings) -> list[str]:
    return (
        ["--state-dir", str(settings.state_dir)] if settings.state_dir != DEFAULT_STATE_DIR else []
    )


def advertised_form(registered: Sequence[str], dn: str) -> str:
    """Which of the registered forms clients are told to ask for.

    The DN, as in Microsoft's sample, when it is one of them; but the GUID when
    the DN holds what not every KDC finds: Samba's looks names up with blanks,
    backslashes and '@' escaped.
    """
    if "dn" in registered and not ("guid" in registered and re.search(r"[\s\\@]", dn)):
        return "dn"
    return registered[0]
