"""Accounts and their SPNs: DsWriteAccountSpn, and who holds a name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from attrs import frozen

from mutauth_twisted.directory.accounts import only_one
from mutauth_twisted.directory.acl import parse_sid, sid_bytes
from mutauth_twisted.errors import DirectoryRefused, NotFound
from mutauth_twisted.findings import Command, either
from mutauth_twisted.ldap.dn import domain_of, is_dn, same_dn
from mutauth_twisted.ldap.filter import all_of, any_of, equals, matches
from mutauth_twisted.ldap.session import (
    CONSTRAINT_VIOLATION,
    INSUFFICIENT_RIGHTS,
    NO_SUCH_ATTRIBUTE,
    SPN_NOT_UNIQUE,
    VALUE_EXISTS,
    Change,
    Entry,
    LdapSession,
)
from mutauth_twisted.names import fold_ascii
from mutauth_twisted.spn import SPN

_AT_ONCE = 100  # names in one filter; a domain controller takes many more, but not any number
_SAMBA_UNIQUENESS = "module samldb"  # the one that looks for aliases, and says no more
S = TypeVar("S", SPN, str)
#: What :func:`account_of` reads.
ACCOUNT_ATTRIBUTES = (
    "sAMAccountName",
    "userPrincipalName",
    "objectSid",
    "objectClass",
    "dNSHostName",
    "servicePrincipalName",
    "msDS-SupportedEncryptionTypes",
)


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
    :param is_group: whether it is a group after all, which may have rights.
    :param encryption_types: its msDS-SupportedEncryptionTypes (MS-KILE 2.2.7); None: it has none,
        or a global catalog was asked, which does not know.
    """

    dn: str
    name: str
    sid: str
    spns: tuple[str, ...]
    is_computer: bool
    dns_host_name: str | None
    is_group: bool = False
    encryption_types: int | None = None

    def holds(self, spn: SPN | str) -> bool:
        """Tell whether this SPN is registered on the account literally; the case of A to Z does not
        count.
        """
        return fold_ascii(str(spn)) in set(map(fold_ascii, self.spns))

    def may_hold(self, spn: SPN | str) -> bool:
        """Tell whether the directory may take one of its SPNs for this one, as it folds more
        letters than A to Z.

        For what must not be there; what has to be there is :meth:`holds`.
        """
        return str(spn).casefold() in {text.casefold() for text in self.spns}


def account_of(entry: Entry) -> Account:
    sid = entry.values("objectSid")
    return Account(
        dn=entry.dn,
        name=entry.text("sAMAccountName") or entry.dn,
        sid=parse_sid(sid[0]) if sid else "",
        spns=entry.texts("servicePrincipalName"),
        is_computer="computer" in entry.texts("objectClass"),
        dns_host_name=entry.text("dNSHostName"),
        is_group="group" in entry.texts("objectClass"),
        encryption_types=_number(entry.text("msDS-SupportedEncryptionTypes")),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.lstrip("-").isdecimal() else None


def find_account(session: LdapSession, name: str) -> Account:
    """Find an account by sAMAccountName (with or without a computer's ``$``), UPN or DN.

    :raises NotFound: when the domain has no such account.
    :raises UsageError: when the name fits several.
    """
    if is_dn(name):
        return account_of(session.read(name, ACCOUNT_ATTRIBUTES))
    bare = name.rpartition("\\")[2]
    exact = any_of(equals("sAMAccountName", bare), equals("userPrincipalName", bare))
    # The UPN of an account without one of its own is implied: name@domain (MS-ADTS 5.1.1.1.1).
    local, _, domain = bare.partition("@")
    dns_domain = domain_of(session.domain_dn)
    if domain and domain.casefold() == dns_domain.casefold():
        exact = any_of(equals("userPrincipalName", bare), equals("sAMAccountName", local))
        bare = local
    for wanted in (exact, equals("sAMAccountName", bare + "$")):
        wanted = all_of(equals("objectClass", "user"), wanted)
        found = list(session.search(session.domain_dn, wanted, ACCOUNT_ATTRIBUTES))
        if (entry := only_one(f"account {name}", "accounts", found)) is not None:
            return account_of(entry)
    raise NotFound(
        f"account {name}",
        f"{dns_domain} has no such account",
        "check the name, or give its DN",
        code="account-not-found",
    )


def find_by_sid(session: LdapSession, sid: str) -> Account | None:
    """The account or group that has a SID; None if it is not in this domain."""
    wanted = equals("objectSid", sid_bytes(sid))
    return next(
        (account_of(entry) for entry in session.search(session.root, wanted, ACCOUNT_ATTRIBUTES)),
        None,
    )


def find_holders(session: LdapSession, spn: SPN) -> list[Account]:
    """The accounts that hold an SPN: in the forest on a global catalog, else in the domain."""
    return find_holders_of(session, [spn])


def find_holders_of(session: LdapSession, spns: Sequence[SPN]) -> list[Account]:
    """The accounts that hold any of these SPNs."""
    found: dict[str, Account] = {}
    for begin in range(0, len(spns), _AT_ONCE):
        wanted = any_of(
            *(equals("servicePrincipalName", str(spn)) for spn in spns[begin : begin + _AT_ONCE])
        )
        for entry in session.search(session.root, wanted, ACCOUNT_ATTRIBUTES):
            found[entry.dn] = account_of(entry)
    return list(found.values())


def find_named(session: LdapSession, service_class: str, names: Sequence[str]) -> set[str]:
    """Those of these service names that are in an SPN of this class, whatever its host, with A to Z
    in lower case.

    :param session: a global catalog searches the forest.
    :param names: third parts of SPNs, such as GUIDs and DNs.
    """
    found: set[str] = set()
    for begin in range(0, len(names), _AT_ONCE):
        # A star in a DN is a wildcard to the search.
        patterns = (f"{service_class}/*/{name}" for name in names[begin : begin + _AT_ONCE])
        wanted = any_of(*(matches("servicePrincipalName", pattern) for pattern in patterns))
        for entry in session.search(session.root, wanted, ["servicePrincipalName"]):
            for text in entry.texts("servicePrincipalName"):
                parts = fold_ascii(text).split("/")
                if len(parts) == 3 and parts[0] == fold_ascii(service_class):
                    found.add(parts[2])
    return found & set(map(fold_ascii, names))


def spn_command(session: LdapSession, kind: str, account: Account, *spns: SPN | str) -> Command:
    """The command for an administrator that adds, deletes or replaces SPNs."""
    return session.options.command("spn", kind, account.name, *map(str, spns))


def check_free(catalog: LdapSession, spns: Sequence[SPN], account: Account) -> None:
    """Check that no other account holds these SPNs.

    :param catalog: a session with a global catalog.
    :raises DirectoryRefused: naming an SPN, every account that holds it, and the
        commands that free all of these SPNs.
    """
    others = [
        other for other in find_holders_of(catalog, spns) if not same_dn(other.dn, account.dn)
    ]
    for spn in spns:
        holders = [other for other in others if other.may_hold(spn)]
        if holders:
            places = " and ".join(f"{other.name} ({other.dn})" for other in holders)
            commands = [
                spn_command(catalog, "delete", other, *filter(other.may_hold, spns))
                for other in others
            ]
            raise DirectoryRefused(
                f"SPN {spn}",
                f"it is on another account already, {places}",
                ("if it does not belong there, an administrator runs ", *either(commands)),
                result=CONSTRAINT_VIOLATION,
                win32=SPN_NOT_UNIQUE,
                code="spn-duplicate",
            )


def _refused(
    session: LdapSession,
    kind: str,
    spns: Sequence[SPN | str],
    account: Account,
    error: DirectoryRefused,
    pending: Sequence[SPN | str] = (),
) -> DirectoryRefused:
    """The same refusal with the rule behind it and the next step.

    :param spns: what was refused.
    :param pending: what was to follow.
    """
    remedy = error.remedy
    command = spn_command(session, kind, account, *spns, *pending)
    if error.result == INSUFFICIENT_RIGHTS:
        right = "'Write servicePrincipalName'"
        if account.is_computer:
            right += (
                " (or 'Validated write to service principal name', for two-part SPNs of its own "
                "host)"
            )
        remedy = ("an administrator runs ", command, f", or grants you {right} on {account.dn}")
    elif error.win32 == SPN_NOT_UNIQUE or (
        error.result == CONSTRAINT_VIOLATION and _SAMBA_UNIQUENESS in error.diagnostic
    ):
        # Whatever the class: a domain controller refuses host/h while HTTP/h is elsewhere
        # (sPNMappings).
        patterns = dict.fromkeys(f"*/{str(spn).partition('/')[2]}" for spn in spns)
        command = session.options.command("spn", "query", *patterns)
        remedy = (command, " tells who holds it or an alias of it")
    elif error.result == CONSTRAINT_VIOLATION and account.is_computer:
        own = " or ".join(filter(None, (account.dns_host_name, account.name.rstrip("$"))))
        remedy = (
            f"a computer may give itself two-part SPNs of {own} without a port only: an "
            "administrator runs ",
            command,
        )
    subject = f"SPN {', '.join(map(str, spns))} on {account.name}"
    return DirectoryRefused(
        subject,
        error.cause,
        remedy,
        code=error.code,
        result=error.result,
        win32=error.win32,
        diagnostic=error.diagnostic,
    )


def add_spns(session: LdapSession, account: Account, spns: Iterable[SPN]) -> list[SPN]:
    """DsWriteAccountSpn, DS_SPN_ADD_SPN_OP: what stands already is not an error.

    One that differs, in the directory's eyes, in case only is written anew as given here.

    :return: those that were really added.
    :raises DirectoryRefused: when the directory does not allow one; those
        before it have been added.
    """
    added: list[SPN] = []
    spns = tuple(spns)
    for place, spn in enumerate(spns):
        if account.holds(spn):
            continue
        try:
            try:
                session.modify(account.dn, [Change("add", "servicePrincipalName", (str(spn),))])
                added.append(spn)
            except DirectoryRefused as error:
                if error.result != VALUE_EXISTS:
                    raise
                # The directory takes more letters than A to Z for the same in any case, and clients
                # do not.
                respelled = [
                    Change(kind, "servicePrincipalName", (str(spn),)) for kind in ("delete", "add")
                ]
                session.modify(account.dn, respelled)
        except DirectoryRefused as error:
            raise _refused(session, "add", [spn], account, error, spns[place + 1 :]) from error
    return added


def remove_spns(session: LdapSession, account: Account, spns: Iterable[S]) -> list[S]:
    """DsWriteAccountSpn, DS_SPN_DELETE_SPN_OP: what is not there is no error.

    :param spns: SPNs, or values as they stand, which need not be well-formed.
    :return: those that were really removed.
    """
    removed: list[S] = []
    spns = tuple(spns)
    for place, spn in enumerate(spns):
        try:
            _remove(session, account, str(spn))
        except DirectoryRefused as error:
            if error.result != NO_SUCH_ATTRIBUTE:
                raise _refused(
                    session, "delete", [spn], account, error, spns[place + 1 :]
                ) from error
        else:
            removed.append(spn)
    return removed


def _remove(session: LdapSession, account: Account, text: str) -> None:
    try:
        session.modify(account.dn, [Change("delete", "servicePrincipalName", (text,))])
    except DirectoryRefused as error:
        if error.result != CONSTRAINT_VIOLATION or _SAMBA_UNIQUENESS not in error.diagnostic:
            raise
        # Samba refuses to delete a value that is registered on another account too, of all things.
        standing = session.read(account.dn, ["servicePrincipalName"]).texts("servicePrincipalName")
        others = tuple(each for each in standing if fold_ascii(each) != fold_ascii(text))
        session.modify(account.dn, [Change("replace", "servicePrincipalName", others)])


def replace_spns(session: LdapSession, account: Account, spns: Sequence[SPN]) -> None:
    """DsWriteAccountSpn, DS_SPN_REPLACE_SPN_OP: exactly these; none clears all."""
    try:
        session.modify(
            account.dn, [Change("replace", "servicePrincipalName", tuple(map(str, spns)))]
        )
    except DirectoryRefused as error:
        raise _refused(session, "replace", spns or ["--clear"], account, error) from error
