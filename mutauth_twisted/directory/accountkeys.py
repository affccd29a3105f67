"""Warnings about an account whose keys are too weak to run a service with: values only."""

from __future__ import annotations

from mutauth_twisted.directory.spns import Account
from mutauth_twisted.findings import Finding

#: MS-KILE 2.2.7: AES-128 and AES-256.
_AES = 0x08 | 0x10


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
