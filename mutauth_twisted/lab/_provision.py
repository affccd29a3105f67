"""Make and populate the lab's directory: run by path under the system's Python.

Samba's Python modules belong to the distribution's interpreter, so this file
imports nothing of the package.  It reads its plan as JSON from standard input
(passwords included: they are never on a command line) and works directly on
the database files, before the domain controller starts.  A failure is one
line on standard error, behind a traceback for the log.
"""

import json
import logging
import os
import struct
import sys

import ldb
import samba.dckeytab  # noqa: F401  gives Net its export_keytab
from samba import dsdb, param
from samba.auth import system_session
from samba.ndr import ndr_pack
from samba.net import Net
from samba.provision import FILL_FULL, provision
from samba.provision.sambadns import ARecord, SRVRecord
from samba.samdb import SamDB

# AES128-CTS-HMAC-SHA1-96 | AES256-CTS-HMAC-SHA1-96 (MS-KILE 2.2.7).
AES_ONLY = "24"
# The same two in the numbering of RFC 3962.
AES_TYPES = (17, 18)

KEYTAB_VERSION = b"\x05\x02"


def load(smb_conf):
    """The lab's own parameters; the system's smb.conf is never read."""
    parameters = param.LoadParm()
    parameters.load(smb_conf)
    return parameters


def make_directory(plan):
    """Provision an empty domain into the directories the smb.conf names."""
    logger = logging.getLogger("provision")
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.setLevel(logging.INFO)
    provision(
        logger,
        system_session(),
        smbconf=plan["smb_conf"],
        samdb_fill=FILL_FULL,
        realm=plan["realm"],
        domain=plan["domain"],
        hostname=plan["dc_name"],
        hostip=plan["address"],
        adminpass=plan["passwords"]["administrator"],
        dns_backend="SAMBA_INTERNAL",
        serverrole="dc",
        dom_for_fun_level=dsdb.DS_DOMAIN_FUNCTION_2008_R2,
        lp=load(plan["smb_conf"]),
        # Nothing is served over SMB: the ACLs of SYSVOL would go unread.
        skip_sysvolacl=True,
    )


def account_dn(samdb, name):
    """The DN of the account called *name* (a sAMAccountName)."""
    found = samdb.search(
        base=samdb.domain_dn(),
        scope=ldb.SCOPE_SUBTREE,
        expression=f"(sAMAccountName={ldb.binary_encode(name)})",
        attrs=["sAMAccountName"],
    )
    if len(found) != 1:
        raise LookupError(f"{len(found)} accounts are called {name}")
    return found[0].dn


def replace(samdb, dn, **attributes):
    """Set attributes to one value each."""
    message = ldb.Message()
    message.dn = dn
    for name, value in attributes.items():
        name = name.replace("_", "-")
        message[name] = ldb.MessageElement(value, ldb.FLAG_MOD_REPLACE, name)
    samdb.modify(message)


def add_accounts(samdb, plan):
    """Create users, computers and groups with AES keys and no SPN."""
    passwords = plan["passwords"]
    for user in plan["users"]:
        samdb.newuser(user, passwords[user])
    for computer, host in plan["computers"].items():
        samdb.newcomputer(computer)
        name = computer.upper() + "$"
        replace(samdb, account_dn(samdb, name), dNSHostName=host)
        samdb.setpassword(f"(sAMAccountName={ldb.binary_encode(name)})", passwords[computer])
    for group, members in plan["groups"].items():
        samdb.newgroup(group)
        samdb.add_remove_group_members(group, members)
    for name in plan["principals"].values():
        dn = account_dn(samdb, name)
        replace(samdb, dn, **{"msDS_SupportedEncryptionTypes": AES_ONLY})


def add_dns_records(samdb, plan):
    """Give every host its A record, and every service its SRV records."""
    domain = plan["realm"].lower()
    zone = f"DC={domain},CN=MicrosoftDNS,DC=DomainDnsZones,{samdb.domain_dn()}"
    controllers = f"DC=_msdcs.{domain},CN=MicrosoftDNS,DC=ForestDnsZones,{samdb.domain_dn()}"
    for host, address in plan["addresses"].items():
        add_dns_record(samdb, zone, host.partition(".")[0], ARecord(address, ttl=60))
    for name, targets in plan["srv_records"].items():
        parent, name = (
            (controllers, name.removesuffix("._msdcs"))
            if name.endswith("._msdcs")
            else (zone, name)
        )
        for host, port, priority, weight in targets:
            add_dns_record(samdb, parent, name, SRVRecord(host, port, priority, weight, ttl=60))


def add_dns_record(samdb, zone, name, record):
    """Put a record beside those that a name has already, if any."""
    node = ldb.Message()
    node.dn = ldb.Dn(samdb, f"DC={name},{zone}")
    try:
        node["dnsRecord"] = ldb.MessageElement([ndr_pack(record)], ldb.FLAG_MOD_ADD, "dnsRecord")
        samdb.modify(node)
    except ldb.LdbError as error:
        if error.args[0] != ldb.ERR_NO_SUCH_OBJECT:
            raise
        samdb.add(
            {"dn": node.dn, "objectClass": ["top", "dnsNode"], "dnsRecord": [ndr_pack(record)]}
        )


def add_controller_spns(samdb, plan):
    """Give the DC the SPNs it lacks after provisioning, as samba_spnupdate does.

    Without ``ldap/...`` every GSSAPI bind to it fails.
    """
    dc, domain = plan["dc_host"], plan["realm"].lower()
    wanted = [
        f"ldap/{dc}",
        f"ldap/{dc}/{domain}",
        f"ldap/{dc}/{plan['domain']}",
        f"ldap/{plan['dc_name'].upper()}",
        f"ldap/{dc}/DomainDnsZones.{domain}",
        f"ldap/{dc}/ForestDnsZones.{domain}",
        f"ldap/{samdb.get_ntds_GUID()}._msdcs.{domain}",
        f"HOST/{dc}/{domain}",
        f"HOST/{dc}/{plan['domain']}",
        f"GC/{dc}/{domain}",
    ]
    dn = account_dn(samdb, plan["dc_name"].upper() + "$")
    present = samdb.search(base=dn, scope=ldb.SCOPE_BASE, attrs=["servicePrincipalName"])[0]
    have = {str(value).lower() for value in present.get("servicePrincipalName", ())}
    message = ldb.Message()
    message.dn = dn
    missing = [spn for spn in wanted if spn.lower() not in have]
    message["spn"] = ldb.MessageElement(missing, ldb.FLAG_MOD_ADD, "servicePrincipalName")
    samdb.modify(message)


def export_keytabs(parameters, plan):
    """Write every account's keys, without the RC4 one Samba exports along."""
    net = Net(None, parameters)
    for name, principal in plan["principals"].items():
        path = os.path.join(plan["keytabs"], name + ".keytab")
        net.export_keytab(keytab=path, principal=principal)
        with open(path, "rb") as file:
            entries = list(keytab_entries(file.read()))
        strong = [entry for entry in entries if encryption_type(entry) in AES_TYPES]
        if not strong:
            raise LookupError(f"{principal} has no AES key")
        with open(path, "wb") as file:
            file.write(KEYTAB_VERSION)
            for entry in strong:
                file.write(struct.pack(">i", len(entry)) + entry)


def keytab_entries(keytab):
    """The entries of a keytab of version 2 (MIT's keytab file format)."""
    if not keytab.startswith(KEYTAB_VERSION):
        raise ValueError("not a keytab of version 2")
    position = len(KEYTAB_VERSION)
    while position + 4 <= len(keytab):
        (size,) = struct.unpack_from(">i", keytab, position)
        position += 4
        # A negative size is a hole, a zero one the end.
        if size > 0:
            yield keytab[position : position + size]
        elif not size:
            break
        position += abs(size)


def encryption_type(entry):
    """The encryption type of the key in a keytab's entry."""
    (components,) = struct.unpack_from(">H", entry, 0)
    position = 2
    # The realm stands before the components and is not counted among them.
    for _ in range(components + 1):
        (length,) = struct.unpack_from(">H", entry, position)
        position += 2 + length
    # Name type, timestamp, and the key version's low byte.
    (found,) = struct.unpack_from(">H", entry, position + 4 + 4 + 1)
    return found


def main():
    """Carry the plan out."""
    plan = json.load(sys.stdin)
    os.umask(0o077)
    make_directory(plan)
    parameters = load(plan["smb_conf"])
    samdb = SamDB(url=parameters.samdb_url(), session_info=system_session(), lp=parameters)
    samdb.transaction_start()
    try:
        add_accounts(samdb, plan)
        add_controller_spns(samdb, plan)
        add_dns_records(samdb, plan)
    except BaseException:
        samdb.transaction_cancel()
        raise
    samdb.transaction_commit()
    export_keytabs(parameters, plan)


main()
