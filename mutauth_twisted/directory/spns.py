"""Accounts and their SPNs: DsWriteAccountSpn, and who holds a name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen

from mutauth_twisted.directory.names import all_of, any_of, domain_of, equals, is_dn, same_dn
from mutauth_twisted.directory.security import parse_sid
from mutauth_twisted.directory.session import (
    CONSTRAINT_VIOLATION,
    INSUFFICIENT_RIGHTS,
    NO_SUCH_ATTRIBUTE,
    SPN_NOT_UNIQUE,
    VALUE_EXISTS,
    Change,
    Entry,
    Session,
)
from mutauth_twisted.errors import DirectoryRefused, NotFound, UsageError
from mutauth_twisted.spn import SPN

_ATTRIBUTES = ("sAMAccountName", "userPrincipalName", "objectSid", "objectClass", "dNSHostName", "servicePrincipalName")


@frozen
class Account:
    """A user or computer account.

    :param dn: its DN.
    :param name: its sAMAccountName; a computer's ends in ``$``.
    :param sid: its SID as text.
    :param spns: its servicePrincipalName values as they stand, those of forms
        unknown here included.
    :param is_computer: whether it is a computer's.
    :param dns_host_name: a computer's DNS name.
    """

    dn: str
    name: str
    sid: str
    spns: tuple[str, ...]
    is_computer: bool
    dns_host_name: str | None

    def holds(self, spn: SPN) -> bool:
        """Whether this SPN stands on the account; case does not count."""
        return str(spn).casefold() in {text.casefold() for text in self.spns}


def _account(entry: Entry) -> Account:
    sid = entry.values("objectSid")
    return Account(
        dn=entry.dn,
        name=entry.text("sAMAccountName") or entry.dn,
        sid=parse_sid(sid[0]) if sid else "",
        spns=entry.texts("servicePrincipalName"),
        is_computer="computer" in entry.texts("objectClass"),
        dns_host_name=entry.text("dNSHostName"),
    )


def find_account(session: Session, name: str) -> Account:
    """Find an account by sAMAccountName (with or without a computer's ``$``), UPN or DN.

    :raises NotFound: when the domain has no such account.
    :raises UsageError: when the name fits several.
    """
    if is_dn(name):
        return _account(session.read(name, _ATTRIBUTES))
    bare = name.rpartition("\\")[2]
    exact = any_of(equals("sAMAccountName", bare), equals("userPrincipalName", bare))
    # The UPN of an account without one of its own is implied: name@domain (MS-ADTS 5.1.1.1.1).
    local, _, domain = bare.partition("@")
    dns_domain = domain_of(session.domain_dn)
    if domain and domain.casefold() == dns_domain.casefold():
        exact = any_of(equals("userPrincipalName", bare), equals("sAMAccountName", local))
        bare = local
    for wanted in (exact, equals("sAMAccountName", bare + "$")):
        found = list(session.search(session.domain_dn, all_of(equals("objectClass", "user"), wanted), _ATTRIBUTES))
        if len(found) > 1:
            raise UsageError(f"account {name}", f"{len(found)} accounts have this name", "give its DN")
        if found:
            return _account(found[0])
    raise NotFound(f"account {name}", f"{dns_domain} has no such account", "check the name, or give its DN")


def find_holders(session: Session, spn: SPN) -> list[Account]:
    """The accounts that hold an SPN: in the forest on a global catalog, else in the domain."""
    return find_holders_of(session, [spn])


def find_holders_of(session: Session, spns: Sequence[SPN]) -> list[Account]:
    """The accounts that hold any of these SPNs, in one search."""
    if not spns:
        return []
    wanted = any_of(*(equals("servicePrincipalName", str(spn)) for spn in spns))
    return [_account(entry) for entry in session.search(session.root, wanted, _ATTRIBUTES)]


def check_free(catalog: Session, spns: Sequence[SPN], account: Account) -> None:
    """Make sure that nobody but this account holds these SPNs.

    :param catalog: a session with a global catalog.
    :raises DirectoryRefused: naming the SPN and who holds it.
    """
    for holder in find_holders_of(catalog, spns):
        for spn in spns:
            if holder.holds(spn) and not same_dn(holder.dn, account.dn):
                raise DirectoryRefused(
                    f"SPN {spn}",
                    f"it is on another account already, {holder.name} ({holder.dn})",
                    f"remove it there: mutauth spn delete {holder.name} {spn}",
                    code=CONSTRAINT_VIOLATION,
                )


def _refused(spn: SPN, account: Account, error: DirectoryRefused) -> DirectoryRefused:
    remedy = error.remedy
    if error.code == INSUFFICIENT_RIGHTS:
        remedy = "run it as an administrator, or delegate 'write servicePrincipalName' on the account"
    elif error.code == CONSTRAINT_VIOLATION and account.is_computer and error.win32 != SPN_NOT_UNIQUE:
        remedy = "a computer may add two-part SPNs of its own host name only: run it as an administrator"
    subject = f"SPN {spn} on {account.name}"
    return DirectoryRefused(subject, error.cause, remedy, code=error.code, win32=error.win32)


def add_spns(session: Session, account: Account, spns: Iterable[SPN]) -> list[SPN]:
    """DsWriteAccountSpn, DS_SPN_ADD_SPN_OP: what stands already is no error.

    :return: those that were really added.
    :raises DirectoryRefused: when the directory does not allow one; those
        before it have been added, and are in the error's ``added``.
    """
    added: list[SPN] = []
    for spn in spns:
        if account.holds(spn):
            continue
        try:
            session.modify(account.dn, [Change("add", "servicePrincipalName", (str(spn),))])
        except DirectoryRefused as error:
            if error.code != VALUE_EXISTS:
                raise _refused(spn, account, error) from error
        else:
            added.append(spn)
    return added


def remove_spns(session: Session, account: Account, spns: Iterable[SPN]) -> list[SPN]:
    """DsWriteAccountSpn, DS_SPN_DELETE_SPN_OP: what is not there is no error.

    :return: those that were really removed.
    """
    removed: list[SPN] = []
    for spn in spns:
        try:
            session.modify(account.dn, [Change("delete", "servicePrincipalName", (str(spn),))])
        except DirectoryRefused as error:
            if error.code != NO_SUCH_ATTRIBUTE:
                raise _refused(spn, account, error) from error
        else:
            removed.append(spn)
    return removed


def replace_spns(session: Session, account: Account, spns: Sequence[SPN]) -> None:
    """DsWriteAccountSpn, DS_SPN_REPLACE_SPN_OP: exactly these; none clears all."""
    try:
        session.modify(account.dn, [Change("replace", "servicePrincipalName", tuple(map(str, spns)))])
    except DirectoryRefused as error:
        raise _refused(spns[0], account, error) if spns else error from error
