"""The administrator's step: everything a service needs in the directory, or nothing of it.

Source: Microsoft, *Mutual authentication in a Windows Sockets service with an
SCP*, the installation program: the service connection point, the two rights
on it for the service's account, and the SPNs on that account.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar
from uuid import UUID

from attrs import frozen

from mutauth_twisted.admin.scpadmin import (
    find_stale,
    read_dacl,
    read_grants,
    spns_naming,
    write_dacl,
)
from mutauth_twisted.admin.undo import Undo
from mutauth_twisted.directory import acl as security
from mutauth_twisted.directory.done import Done, Report, no_report
from mutauth_twisted.directory.scp import (
    ServiceConnectionPoint,
    create_scp,
    delete_scp,
    read_scp,
    scp_dn,
)
from mutauth_twisted.directory.servicename import ServiceName, verify_class
from mutauth_twisted.directory.spns import (
    Account,
    add_spns,
    check_free,
    find_account,
    find_holders_of,
    remove_spns,
)
from mutauth_twisted.errors import (
    DirectoryRefused,
    DirectoryUnreachable,
    MutualAuthError,
    NotFound,
    ServiceCheckFailed,
    UsageError,
)
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.dn import parent_of, same_dn
from mutauth_twisted.ldap.session import NO_SUCH_ATTRIBUTE, Change, LdapSession
from mutauth_twisted.names import fold_ascii
from mutauth_twisted.spn import SPN

T = TypeVar("T")
_CONTAINER = "container"
_RIGHT = "serviceDNSName and serviceBindingInformation"
_STALE = "with a DN from before the SCP was moved"
# What tells a container that installation made from one made by other means.
_CONTAINER_MARK = "Service connection points; made by mutauth install"


@frozen
class Installation:
    """Result of :func:`install`: the objects that it left in the directory.

    :param created: whether the service connection point is new.
    :param spns: the SPNs that the service needs, all on the account now.
    """

    scp: ServiceConnectionPoint
    account: Account
    spns: tuple[SPN, ...]
    created: bool

    @property
    def dn(self) -> str:
        """The service connection point's DN."""
        return self.scp.dn

    @property
    def guid(self) -> UUID:
        """The service connection point's objectGUID: what the service caches."""
        return self.scp.guid


def install(
    session: LdapSession,
    catalog: LdapSession,
    service: ServiceName,
    account: str,
    *,
    keywords: Sequence[str] = (),
    report: Report = no_report,
    finish: Callable[[Installation], object] = lambda _: None,
    undo: Undo | None = None,
) -> Installation:
    """Create what is missing of the service's objects and rights; blocks.

    When all is there already nothing is changed.  When another account ran the
    service, its rights are revoked; its SPNs have to be deleted first.  When a
    step fails, what this call did is undone, in reverse order, before the error
    is raised.

    :param session: a domain controller, with an administrator's tickets.
    :param catalog: a global catalog, to look for SPNs on other accounts first.
    :param service: what it is called; its container is created if need be.
    :param account: who runs the service: sAMAccountName, UPN or DN.
    :param keywords: what clients find it by; the service class by default.
    :param report: is told what is done; with ``undo`` it is that one's.
    :param finish: the last step, outside the directory; when it raises a
        MutualAuthError everything is undone.
    :param undo: holds what could not be undone because the connection was
        lost; see :func:`all_or_nothing`.
    """
    undo = undo or Undo(report)
    holder = find_account(session, account)
    dn = scp_dn(session, service)
    existing = _existing(session, dn, service)
    planned = existing or ServiceConnectionPoint(dn, UUID(int=0))
    # Nothing is written before it is known that the SPNs are free. A new object's GUID cannot be
    # taken.
    known = [spn for spn in planned.spns_of(service) if spn.service_name != str(UUID(int=0))]
    check_free(catalog, known, holder)
    steps = _Steps(session, catalog, service, holder, undo)
    try:
        if existing:
            point = existing
            steps.add_keywords(point, keywords)
        else:
            if service.container:
                steps.create_container(parent_of(dn))
            point = steps.create_scp(dn, keywords or (service.service_class,))
        is_new = steps.grant(point)
        spns = point.spns_of(service)
        for spn in spns:
            steps.add_spn(spn)
        if existing and is_new:
            steps.revoke_former(point)
        done = Installation(
            read_scp(session, point.guid), find_account(session, holder.dn), spns, existing is None
        )
        finish(done)
    except BaseException:
        with suppress(DirectoryUnreachable):
            undo.run(session)
        raise
    return done


async def all_or_nothing(
    directory: Directory,
    work: Callable[[LdapSession, LdapSession, Undo], T],
    report: Report = no_report,
) -> T:
    """Do work that writes; when the connection is lost on the way, take it back over another one.

    :param work: gets a domain controller, a global catalog, and what to put
        down each write with; it takes back by itself what it can.
    :raises MutualAuthError: whatever ended the work; its remedy names what
        could not be taken back.
    """
    undo = Undo(report)
    try:
        return await directory.run_with_catalog(
            lambda session, catalog: work(session, catalog, undo)
        )
    except MutualAuthError as error:
        if undo.pending:
            with suppress(MutualAuthError):
                await directory.run(undo.run)
        if undo.left:
            error.left_behind = tuple(undo.left)
        raise


@frozen
class _Steps:
    """The writes of an installation, each of which is put down to be taken back."""

    session: LdapSession
    catalog: LdapSession
    service: ServiceName
    account: Account
    undo: Undo

    def create_container(self, dn: str) -> None:
        try:
            kinds = self.session.read(dn, ["objectClass"]).texts("objectClass")
        except NotFound:
            with self.undo.around(f"container {dn}", partial(_deleted, dn=dn)):
                values = {"objectClass": _CONTAINER, "description": _CONTAINER_MARK}
                self.session.add(dn, values)
            self.undo.report(Done("created", "container", dn))
            return
        if _CONTAINER not in kinds:
            raise UsageError(
                f"container {dn}",
                f"it is there, and is a {kinds[-1]}",
                "choose another name with --container",
                code="other-object",
            )

    def create_scp(self, dn: str, keywords: Sequence[str]) -> ServiceConnectionPoint:
        with self.undo.around(f"SCP {dn}", partial(_deleted, dn=dn)):
            point = create_scp(
                self.session,
                dn,
                service_class=self.service.service_class,
                dns_name=self.service.host,
                keywords=keywords,
            )
        self.undo.report(Done("created", "SCP", point.dn, detail=f"GUID {point.guid}"))
        return point

    def add_keywords(self, point: ServiceConnectionPoint, keywords: Sequence[str]) -> None:
        present = {keyword.casefold() for keyword in point.keywords}
        missing = tuple(keyword for keyword in keywords if keyword.casefold() not in present)
        if not missing:
            return
        names = ", ".join(missing)
        take_back = partial(_remove_keywords, guid=point.guid, keywords=missing)
        with self.undo.around(f"keywords {names}", take_back):
            self.session.modify(point.guid, [Change("add", "keywords", missing)])
        for keyword in missing:
            self.undo.report(Done("added", "keyword", keyword))

    def grant(self, point: ServiceConnectionPoint) -> bool:
        """Give the account the two rights; whether it lacked them."""
        before, name = read_dacl(self.session, point.guid), self.account.name
        after = security.grant(before, self.account.sid)
        if after != before:
            self._write_dacl(f"rights of {name} on the SCP", point.guid, before, after)
            self.undo.report(Done("granted", "right to update", _RIGHT, self.account))
        return after != before

    def _write_dacl(self, what: str, guid: UUID, before: bytes, after: bytes) -> None:
        self.undo.before(what, partial(_restore_dacl, guid=guid, before=before))
        write_dacl(self.session, guid, after)

    def revoke_former(self, point: ServiceConnectionPoint) -> None:
        """Take the two rights from the accounts that ran the service before.

        An account that holds an SPN of this object still runs it, on another host.
        Groups and unknown SIDs are an administrator's own arrangement.
        """
        former = [
            grant.holder
            for grant in read_grants(self.session, self.catalog, point)
            if grant.complete
            and grant.sid != self.account.sid
            and grant.holder is not None
            and not grant.holder.is_group
        ]
        naming = spns_naming(self.catalog, point) if former else []
        running = {holder.dn for holder, _ in naming}
        for other in former:
            if other.dn not in running:
                before = read_dacl(self.session, point.guid)
                after = security.revoke(before, other.sid)
                self._write_dacl(f"revoking rights of {other.name}", point.guid, before, after)
                former_one = "which ran the service before"
                self.undo.report(Done("revoked", "right to update", _RIGHT, other, former_one))

    def add_spn(self, spn: SPN) -> None:
        account = self.account
        if account.holds(spn):
            return
        take_back = partial(_remove_spn, account=account, spn=spn)
        with self.undo.around(f"SPN {spn}", take_back):
            added = add_spns(self.session, account, [spn])
        if added:
            self.undo.report(Done("added", "SPN", str(spn), account))
        else:  # it was added since it was looked for
            self.undo.forget()


def _remove_spn(session: LdapSession, account: Account, spn: SPN) -> bool:
    return bool(remove_spns(session, account, [spn]))


def _deleted(session: LdapSession, dn: str) -> bool:
    try:
        session.delete(dn)
    except NotFound:
        return False
    return True


def _delete_container(session: LdapSession, dn: str, done: Report) -> None:
    """Delete a container that installation made, unless something is in it."""
    try:
        is_ours = session.read(dn, ["description"]).text("description") == _CONTAINER_MARK
        is_empty = (
            next(session.search(dn, "(objectClass=*)", scope="one", page_size=1), None) is None
        )
    except NotFound:
        return
    if is_ours and is_empty:
        session.delete(dn)
        done(Done("deleted", "container", dn))


def _existing(session: LdapSession, dn: str, service: ServiceName) -> ServiceConnectionPoint | None:
    try:
        point = read_scp(session, dn)
    except NotFound:
        return None
    verify_class(
        f"SCP {point.dn}",
        point.service_class,
        service.service_class,
        "choose another name with --scp-name",
    )
    return point


def _remove_keywords(session: LdapSession, guid: UUID, keywords: tuple[str, ...]) -> bool:
    try:
        session.modify(guid, [Change("delete", "keywords", keywords)])
    except DirectoryRefused as error:
        if error.result != NO_SUCH_ATTRIBUTE:
            raise
        return False
    return True


def _restore_dacl(session: LdapSession, guid: UUID, before: bytes) -> bool:
    if read_dacl(session, guid) == before:
        return False
    write_dacl(session, guid, before)
    return True


def uninstall(
    session: LdapSession,
    catalog: LdapSession,
    service: ServiceName,
    account: str | None = None,
    *,
    guid: UUID | None = None,
    report: Report = no_report,
) -> list[Done]:
    """Remove what :func:`install` made: the SPNs first, then the service connection point; blocks.

    SPNs that carry a DN which the object had before it was moved go too, when
    they are registered on the given account, or on one that holds the SPN with the GUID.

    :param service: as it was given to :func:`install`; a container that this made is deleted when
        nothing is left in it.
    :param account: take the SPNs from this account only; None: from whoever holds them.
    :param guid: the cached GUID, which finds the object wherever it was moved.
    :param report: is told what was removed, and what was kept.
    :return: what was removed; none when nothing was there.
    """
    removed: list[Done] = []

    def done(what: Done) -> None:
        removed.append(what)
        report(what)

    point, is_there = _find_installed(session, guid, service)
    if point is None:
        return removed
    only = find_account(session, account) if account else None
    spns = point.spns_of(service)
    holders = find_holders_of(catalog, spns)
    if only is not None:
        _check_only(holders, only, spns)
        holders = [only]
    for holder in holders:
        for spn in remove_spns(session, holder, [spn for spn in spns if holder.holds(spn)]):
            done(Done("removed", "SPN", str(spn), holder))
        if only or holder.holds(point.spn("guid", service.host, service.service_class)):
            stale = find_stale(catalog, point, holder, service.service_class, service.host)
            for text in remove_spns(session, holder, stale):
                done(Done("removed", "SPN", text, holder, _STALE))
    if is_there and (others := _still_used(catalog, point, removed)):
        report(Done("kept", "SCP", point.dn, detail=f"{', '.join(others)} still name it"))
        return removed
    if is_there:
        delete_scp(session, point)
        done(Done("deleted", "SCP", point.dn))
    if service.container:
        _delete_container(session, parent_of(scp_dn(session, service)), done)
    return removed


def _still_used(
    catalog: LdapSession, point: ServiceConnectionPoint, removed: Sequence[Done]
) -> list[str]:
    """The SPNs, of other hosts, that name the object; those just removed may still be in the global
    catalog.
    """
    return [
        f"SPN {spn} on {holder.name}"
        for holder, spn in spns_naming(catalog, point)
        if not any(_was(each, holder, spn) for each in removed)
    ]


def _was(removed: Done, holder: Account, spn: SPN) -> bool:
    """Tell whether it was this SPN of this account."""
    account = removed.account
    if account is None or not same_dn(account.dn, holder.dn):
        return False
    return fold_ascii(removed.name) == fold_ascii(str(spn))


def _check_only(holders: Sequence[Account], only: Account, spns: Sequence[SPN]) -> None:
    """Half of it would be left behind when the SPNs are on another account than the one given."""
    for other in holders:
        if not same_dn(other.dn, only.dn):
            spn = next(filter(other.may_hold, spns), spns[0])
            raise ServiceCheckFailed(
                f"SPN {spn}",
                f"it is on {other.name}, not on {only.name}",
                f"give --account {other.name}, or none",
                code="spn-on-other-account",
            )


def _find_installed(
    session: LdapSession,
    guid: UUID | None,
    service: ServiceName,
) -> tuple[ServiceConnectionPoint | None, bool]:
    """The service connection point, and whether it is still there.

    Of one that was deleted by hand, what is known of it, so that its SPNs
    can still be found.
    """
    if guid is not None:
        with suppress(NotFound):
            return read_scp(session, guid), True
    try:
        dn = scp_dn(session, service)
    except NotFound:  # not even the host is known any more
        return None, False
    point = _existing(session, dn, service)
    if point is not None:
        return point, True
    return ServiceConnectionPoint(dn, guid or UUID(int=0)), False
