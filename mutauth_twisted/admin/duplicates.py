"""SPNs registered on more than one account, among any number of accounts.

A domain controller forbids them today, and yet they are there: from before it
did, from replication conflicts, from restored or migrated accounts.  The KDC
gives no ticket for such a name, or one that the wrong account can use.

Everything is read once, page by page, into a temporary database that SQLite
keeps on disk as soon as it outgrows a few megabytes; what stays in memory does
not depend on the number of accounts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import groupby

from attrs import frozen

from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.ldap.session import LdapSession

Progress = Callable[[int, int], None]
_HOLDS_AN_SPN = "(servicePrincipalName=*)"
_CACHE_KIB = 8192
_REPORT_EVERY = 100

_PREPARE = f"""
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA temp_store = FILE;
    PRAGMA cache_size = -{_CACHE_KIB};
    CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT, dn TEXT);
    CREATE TABLE spn (folded TEXT, text TEXT, account INTEGER);
"""
_DUPLICATES = """
    WITH twice AS (SELECT folded FROM spn GROUP BY folded HAVING count(DISTINCT account) > 1)
    SELECT spn.folded, spn.text, account.name, account.dn
    FROM twice JOIN spn ON spn.folded = twice.folded JOIN account ON account.id = spn.account
    ORDER BY spn.folded, account.dn
"""


@frozen
class Holder:
    """One of those who hold a duplicate SPN, and how it is written there."""

    name: str
    dn: str
    spn: str


@frozen
class Duplicate:
    """An SPN with more than one holder; case does not count.

    :param holders: at least two, by DN.
    """

    spn: str
    holders: tuple[Holder, ...]


#: An account's name, its DN, and its SPNs.
Held = tuple[str, str, Iterable[str]]


def find_duplicates(
    catalog: LdapSession, progress: Progress = lambda accounts, spns: None
) -> list[Duplicate]:
    """Search the forest for SPNs with several holders; blocks.

    :param catalog: a global catalog.
    :param progress: is told now and then how many accounts and SPNs were read.
    :raises MutualAuthError: when there is no room for the temporary database.
    """
    return duplicates_among(_read(catalog), progress)


def _read(catalog: LdapSession) -> Iterator[Held]:
    for entry in catalog.search(
        catalog.root, _HOLDS_AN_SPN, ["sAMAccountName", "servicePrincipalName"]
    ):
        yield (
            entry.text("sAMAccountName") or entry.dn,
            entry.dn,
            entry.texts("servicePrincipalName"),
        )


def duplicates_among(
    accounts: Iterable[Held], progress: Progress = lambda accounts, spns: None
) -> list[Duplicate]:
    """The SPNs that several of these accounts hold, in alphabetical order."""
    # An empty name is a database of our own that is gone when it is closed.
    try:
        with closing(sqlite3.connect("", isolation_level=None)) as database:
            database.executescript(_PREPARE)
            _fill(database, accounts, progress)
            database.execute("CREATE INDEX by_name ON spn (folded)")
            rows = database.execute(_DUPLICATES)
            return [_duplicate(list(group)) for _, group in groupby(rows, key=lambda row: row[0])]
    except sqlite3.Error as error:
        remedy = "make room there, or name another directory in SQLITE_TMPDIR"
        raise MutualAuthError(
            "temporary database", str(error), remedy, code="temporary-database"
        ) from error


def _fill(database: sqlite3.Connection, accounts: Iterable[Held], progress: Progress) -> None:
    number = spns = 0
    database.execute("BEGIN")
    for number, (name, dn, texts) in enumerate(accounts, 1):
        rows = [(text.casefold(), text, number) for text in texts]
        database.execute("INSERT INTO account VALUES (?, ?, ?)", (number, name, dn))
        database.executemany("INSERT INTO spn VALUES (?, ?, ?)", rows)
        spns += len(rows)
        if number % _REPORT_EVERY == 0:
            progress(number, spns)
    database.execute("COMMIT")
    progress(number, spns)


def _duplicate(rows: list[tuple[str, str, str, str]]) -> Duplicate:
    return Duplicate(rows[0][1], tuple(Holder(name, dn, text) for _, text, name, dn in rows))
