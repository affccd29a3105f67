"""Fill a lab's directory with many objects: run by path under the system's Python.

    /usr/bin/python3 benchmarks/populate.py LAB_DIRECTORY [--scps N] [--accounts N]

The objects are written into the database of the running domain controller, in
large transactions, past LDAP but with all of the directory's rules.
The SCPs are below CN=bench,CN=System, each with the keyword
``bench-NUMBER`` and with the SPN that vouches for it on one of a few accounts.
The accounts have two SPNs each.  What is there already is left alone.
"""

import argparse
import time

import ldb
from samba import param
from samba.auth import system_session
from samba.samdb import SamDB

BATCH = 1000
SPNS_PER_SERVICE = 500  # of the SCPs, on one account


def open_directory(lab):
    """The directory of the lab's first domain controller."""
    parameters = param.LoadParm()
    parameters.load(f"{lab}/samba/etc/smb.conf")
    return SamDB(url=parameters.samdb_url(), session_info=system_session(), lp=parameters)


def add_all(directory, what, messages):
    """Add objects in transactions of some size, and tell the pace."""
    begun, count = time.monotonic(), 0
    directory.transaction_start()
    for count, message in enumerate(messages, 1):
        try:
            directory.add(message)
        except ldb.LdbError as error:
            if error.args[0] != ldb.ERR_ENTRY_ALREADY_EXISTS:
                raise
        if count % BATCH == 0:
            directory.transaction_commit()
            directory.transaction_start()
            print(f"{count} {what}, {count / (time.monotonic() - begun):.0f}/s", flush=True)
    directory.transaction_commit()


def containers(directory):
    """Where everything is."""
    for name in ("bench", "bench-accounts"):
        yield {"dn": f"CN={name},CN=System,{directory.domain_dn()}", "objectClass": "container"}


def accounts(directory, number):
    """Users with two SPNs each."""
    for index in range(number):
        name = f"bench{index:05}"
        yield {
            "dn": f"CN={name},CN=bench-accounts,CN=System,{directory.domain_dn()}",
            "objectClass": "user",
            "sAMAccountName": name,
            "servicePrincipalName": [f"bench/{name}", f"bench/{name}.lab.example"],
        }


def points(directory, number):
    """Connection points that say where a service is."""
    for index in range(number):
        host = f"h{index:05}.lab.example"
        yield {
            "dn": f"CN=b{index:05},CN=bench,CN=System,{directory.domain_dn()}",
            "objectClass": "serviceConnectionPoint",
            "serviceClassName": "benchSvc",
            "serviceDNSName": host,
            "serviceDNSNameType": "A",
            "serviceBindingInformation": "9000",
            "keywords": [f"bench-{index}"],
        }


def services(directory, number):
    """The accounts that hold the SPNs of the connection points."""
    for start in range(0, number, SPNS_PER_SERVICE):
        name = f"benchsvc{start:05}"
        places = range(start, min(start + SPNS_PER_SERVICE, number))
        where = f"CN=bench,CN=System,{directory.domain_dn()}"
        yield {
            "dn": f"CN={name},CN=bench-accounts,CN=System,{directory.domain_dn()}",
            "objectClass": "user",
            "sAMAccountName": name,
            "servicePrincipalName": [
                f"benchSvc/h{index:05}.lab.example/CN=b{index:05},{where}" for index in places
            ],
        }


def main():
    """Carry the command line out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lab")
    parser.add_argument("--scps", type=int, default=0)
    parser.add_argument("--accounts", type=int, default=0)
    chosen = parser.parse_args()
    directory = open_directory(chosen.lab)
    add_all(directory, "containers", containers(directory))
    add_all(directory, "accounts", accounts(directory, chosen.accounts))
    add_all(directory, "SCPs", points(directory, chosen.scps))
    add_all(directory, "service accounts", services(directory, chosen.scps))


main()
