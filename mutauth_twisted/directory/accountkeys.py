"""The keys of an account that runs a service: their version, and warnings where they are weak."""

from __future__ import annotations

from collections.abc import Collection

from attrs import frozen

from mutauth_twisted.directory.spns import Account
from mutauth_twisted.errors import CredentialError
from mutauth_twisted.findings import Command, Finding
from mutauth_twisted.ldap.filter import any_of, equals
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.names import split_principal

#: MS-KILE 2.2.7: AES-128 and AES-256.
_AES = 0x08 | 0x10
_ATTRIBUTES = (
    "sAMAccountName",
    "userPrincipalName",
    "dNSHostName",
    "msDS-KeyVersionNumber",
)


@frozen
class AccountKeys:
    """Facts about an account's keys, as a domain controller has them.

    :param dn: its DN.
    :param names: its sAMAccountName and, if it has a UPN, the prefix of that.
    :param host: a computer's name; None: it is a user's account.
    :param version: the version of its present keys (msDS-KeyVersionNumber).
    """

    dn: str
    names: tuple[str, ...]
    host: str | None
    version: int


def read_account_keys(session: LdapSession, principal: str) -> AccountKeys:
    """Read what a domain controller says of an account's keys; blocks.

    :param principal: the account's.
    :raises CredentialError: when the domain has no such account.
    """
    name = split_principal(principal)[0]
    wanted = any_of(equals("sAMAccountName", name), equals("userPrincipalName", principal))
    found = list(session.search(session.domain_dn, wanted, _ATTRIBUTES))
    if len(found) != 1:
        cause = (
            "the domain has no account of this name" if not found else "several accounts have it"
        )
        raise CredentialError(principal, cause, "name one with --account", code="account-not-found")
    (entry,) = found
    upn = (entry.text("userPrincipalName") or "").partition("@")[0]
    sam = entry.text("sAMAccountName") or name
    return AccountKeys(
        entry.dn,
        tuple(dict.fromkeys(filter(None, (sam, upn)))),
        sam.removesuffix("$") if sam.endswith("$") else None,
        int(entry.text("msDS-KeyVersionNumber") or 0),
    )


def version_fault(account: AccountKeys, path: str, versions: Collection[int]) -> Finding | None:
    """Finding where a keytab's newest key is not the one that the KDC uses; None: it is.

    :param path: the keytab.
    :param versions: of the account's keys in it.
    """
    newest = max(versions, default=0)
    if newest == account.version:
        return None
    subject, wanted = f"keytab {path}", account.version
    if wanted in versions:
        cause = (
            f"its newest key, version {newest}, is not the KDC's, which is version {wanted}: a "
            "rotation was not finished"
        )
        remedy = ("end it: ", Command("mutauth", "key", "rotate", "--keytab", path))
        return Finding("keytab-outdated", subject, cause, remedy, "warning")
    cause = (
        f"the KDC uses key version {wanted}, which it has not: clients with new tickets are refused"
    )
    return Finding("keytab-outdated", subject, cause, "export the account's keys again")


def account_warnings(account: Account) -> list[Finding]:
    """All that is to be said of an account that is to run a service.

    :param account: as for :func:`weak_keys`.
    """
    return [
        warning
        for warning in (weak_keys(account), guessable_password(account))
        if warning is not None
    ]


def weak_keys(account: Account) -> Finding | None:
    """A warning where a KDC makes, or may make, tickets for an account that are not AES; None:
    there is no such reason.

    :param account: read from a domain controller, and not from a global catalog.
    """
    types = account.encryption_types
    if types and types & _AES:
        return None
    # A KDC's default is RC4, on Windows until 2026, or whatever its administrator has set.
    cause = "allows no AES" if types else "is not set, so that KDCs may choose RC4"
    return Finding(
        "weak-encryption",
        f"account {account.name}",
        f"msDS-SupportedEncryptionTypes {cause}, and sessions with such tickets are refused",
        "set it to 24, then a new password, and export the keytab again",
        "warning",
    )


def guessable_password(account: Account) -> Finding | None:
    """A hint where a person may have chosen an account's password; None: machines choose it."""
    if account.is_computer:  # group managed service accounts are computers too
        return None
    return Finding(
        "password-guessable",
        f"account {account.name}",
        "it is a user's: whoever has an account can get tickets for its SPNs, and try passwords on "
        "them offline",
        "give it a random one of 25 characters and more, or use a group managed service account",
    )
