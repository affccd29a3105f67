"""Common faults of directories, made on purpose, for the demonstration.

tamper.py point NAMESERVER KEYWORD PORT       make an SCP say another port
tamper.py unregister NAMESERVER ACCOUNT       take an account's SPNs away
"""

from __future__ import annotations

import sys
from typing import Any

from mutauth_twisted.cli.reactor import run_in_reactor
from mutauth_twisted.directory.scp import find_by_keyword
from mutauth_twisted.directory.spns import find_account
from mutauth_twisted.errors import MutualAuthError
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.session import Change, LdapSession


def point(session: LdapSession, keyword: str, port: str) -> str:
    for scp in list(find_by_keyword(session, keyword)):
        session.modify(scp.guid, [Change("replace", "serviceBindingInformation", (port,))])
    return f"serviceBindingInformation of {keyword} is {port} now"


def unregister(session: LdapSession, name: str) -> str:
    account = find_account(session, name)
    session.modify(account.dn, [Change("replace", "servicePrincipalName", ())])
    return f"{name} has no SPN any more"


def main(action: str, nameserver: str, *arguments: str) -> str:
    work = {"point": point, "unregister": unregister}[action]

    async def change(reactor: Any) -> str:
        directory = Directory(reactor, DirectoryOptions(nameserver=nameserver))
        return await directory.run(lambda session: work(session, *arguments))

    return run_in_reactor(change)


if __name__ == "__main__":
    if sys.argv[1:2] not in (["point"], ["unregister"]) or len(sys.argv) != (
        5 if sys.argv[1] == "point" else 4
    ):
        sys.exit(str(__doc__).strip())
    try:
        print(main(*sys.argv[1:]))
    except MutualAuthError as error:
        sys.exit(str(error))
