"""Join the lab's second domain controller: run by path under the system's Python.

Like ``_provision.py`` it reads its plan as JSON from standard input.
"""

import json
import logging
import os
import sys

import ldb
import samba
from samba import param
from samba.auth import system_session
from samba.credentials import DONT_USE_KERBEROS, Credentials
from samba.dcerpc import drsblobs
from samba.join import join_DC
from samba.ndr import ndr_pack, ndr_unpack
from samba.samdb import SamDB


def join(plan, parameters):
    """Make this controller's account, and copy the directory from the first controller."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)
    administrator = Credentials()
    administrator.guess(parameters)
    administrator.set_username("Administrator")
    administrator.set_password(plan["password"])
    # The first controller is named by its address, for which there is no ticket.
    administrator.set_kerberos_state(DONT_USE_KERBEROS)
    # Samba passes over loopback addresses, and would enter the new controller into DNS with none.
    samba.interface_ips = lambda *_: [plan["address"]]
    name = parameters.get("netbios name")
    join_DC(
        logger=logging.getLogger("join"),
        server=plan["server"],
        creds=administrator,
        lp=parameters,
        netbios_name=name,
        domain=plan["realm"].lower(),
        dns_backend="SAMBA_INTERNAL",
    )
    first = SamDB(url=f"ldap://{plan['server']}", credentials=administrator, lp=parameters)
    add_spns(first, name.lower(), plan["realm"].lower())


def add_spns(first, name, domain):
    """Give the new controller the SPNs that clients ask for; the first one's KDC has to know them
    too.
    """
    found = first.search(
        base=first.domain_dn(), expression=f"(sAMAccountName={name}$)", attrs=["cn"]
    )
    message = ldb.Message()
    message.dn = found[0].dn
    host = f"{name}.{domain}"
    spns = [f"ldap/{host}", f"ldap/{host}/{domain}", f"ldap/{name.upper()}"]
    message["spn"] = ldb.MessageElement(spns, ldb.FLAG_MOD_ADD, "servicePrincipalName")
    first.modify(message)


def name_partner(local, server):
    """Let replication look for its partner at an address; its usual name is in no DNS that Samba
    asks.
    """
    for context in local.search(base="", scope=ldb.SCOPE_BASE, attrs=["namingContexts"])[0][
        "namingContexts"
    ]:
        dn = ldb.Dn(local, str(context))
        sources = local.search(base=dn, scope=ldb.SCOPE_BASE, attrs=["repsFrom"])[0].get(
            "repsFrom", ()
        )
        message = ldb.Message()
        message.dn = dn
        blobs = [renamed(source, server) for source in sources]
        message["repsFrom"] = ldb.MessageElement(blobs, ldb.FLAG_MOD_REPLACE, "repsFrom")
        local.modify(message)


def renamed(source, server):
    """One source of replication (MS-DRSR 5.170, REPS_FROM) at another address."""
    blob = ndr_unpack(drsblobs.repsFromToBlob, source)
    blob.ctr.other_info.dns_name = server
    return ndr_pack(blob)


def main():
    """Carry the plan out."""
    plan = json.load(sys.stdin)
    os.umask(0o077)
    parameters = param.LoadParm()
    parameters.load(plan["smb_conf"])
    join(plan, parameters)
    name_partner(
        SamDB(url=parameters.samdb_url(), session_info=system_session(), lp=parameters),
        plan["server"],
    )


main()
