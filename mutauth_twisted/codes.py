"""Codes of everything that can be wrong: severity, what it means, and what to do.

The one table of them.  Each code is stable, and stands in front of its line in
logs, on the status page and in what the commands print.  docs/troubleshooting.md
is made from it.
"""

from __future__ import annotations

from typing import Final, Literal

from attrs import frozen

Severity = Literal["error", "warning", "info"]


@frozen
class Code:
    """Meaning of one code, in Markdown.

    :param cause: what is wrong.
    :param fix: what to do about it.
    :param severity: ``error``: something does not work; ``warning``: it works for now.
    """

    cause: str
    fix: str
    severity: Severity = "error"


CODES: Final[dict[str, Code]] = {
    "access-denied": Code(
        "A client authenticated itself, and the access policy does not allow it.",
        "Add the account or one of its groups to `--allow` or `--allow-group`, if it should have "
        "access; look for a `--deny` that matches.",
    ),
    "access-withdrawn": Code(
        "The session was ended: the access policy that is in force now does not allow its client.",
        "Nothing, if that was meant; `mutauth check-access` tells the rule.",
        "info",
    ),
    "account-disabled": Code(
        "The KDC refuses to let the account log on: it is disabled, locked, expired, not valid "
        "yet, or outside its logon hours.",
        "An administrator enables the account or extends it.",
    ),
    "account-is-group": Code(
        "`--allow` or `--deny` names a group where it needs an account.",
        "Name the group with `--allow-group` or `--deny-group`.",
    ),
    "account-not-found": Code(
        "The directory has no account of this name.",
        "Check the sAMAccountName or UPN, or give the account's DN. A computer's name ends with "
        "`$`.",
    ),
    "account-unknown": Code(
        "The KDC does not know the principal, or it is in another realm.",
        "Check the principal's spelling and realm, `account@REALM`.",
    ),
    "address-not-published": Code(
        "The object in the directory does not say where the service is: it has no host or no "
        "usable port.",
        "Start the service, which publishes its address; or write it with `mutauth scp publish` "
        "or `mutauth rnr publish`.",
    ),
    "address-overwritten": Code(
        "Another program or user changed the address in the object; the service has published it "
        "again.",
        "Look for another instance or a script that writes the same object.",
        "warning",
    ),
    "ambiguous-name": Code(
        "Several objects in the directory have this name.",
        "Give the DN of the one that is meant.",
    ),
    "audit-failing": Code(
        "The audit trail cannot be written: the disk is full, the file may not be written, the "
        "journal is stopped, or the reader of standard output does not keep up. The number of "
        "events that were lost is the first line that is written again. With `--audit-required` "
        "clients are refused meanwhile.",
        "Make room, give the service's user the right to write the file and its directory, or "
        "start the journal. The service goes on by itself.",
    ),
    "backend-not-protected": Code(
        "The service behind the gateway is on another machine, and the connection to it is plain: "
        "whoever can read that network reads and changes what clients send.",
        "Forward to `tls:HOST:PORT`, or run the gateway on the machine of the service, or accept "
        "the risk with `--unsafe-backend`.",
    ),
    "backend-unreachable": Code(
        "The gateway runs, but the service behind it (`--forward`) cannot be reached: it does not "
        "listen, does not answer in time, or its TLS certificate is not accepted. Clients are told "
        "so, and try another instance, if there is one.",
        "Check that the service behind the gateway runs, and that `--forward` names its address; "
        "the gateway's log gives the reason.",
    ),
    "binding-invalid": Code(
        "The binding information (port, priority, weight, wire, protection) cannot be read or "
        "written.",
        "It begins with a port, such as `9000;wire=nns`. Start the service again, or correct it "
        "with `mutauth scp publish`.",
    ),
    "cannot-listen": Code(
        "The service cannot listen on this port or address: it is in use, not local, or needs "
        "more rights.",
        "Choose another port or address; `ss -ltnp` shows what listens there.",
    ),
    "ccache-unusable": Code(
        "The ticket cache cannot be read, or belongs to another principal.",
        "Get new tickets with `kinit`; compare `KRB5CCNAME` and `klist`.",
    ),
    "certificate-untrusted": Code(
        "No trusted authority signed the peer's TLS certificate, or it cannot be read.",
        "Name the authority that signed it (`tls-ca`, `--directory-ca`). Another mutauth peer "
        "needs no certificate authority.",
    ),
    "certificate-unusable": Code(
        "This side's certificate or its private key cannot be read, or they do not belong "
        "together.",
        "Check the files of `--tls-cert` and `--tls-key`: PEM, readable, the key without a "
        "password.",
    ),
    "certificate-wrong-name": Code(
        "The peer's TLS certificate is valid, but was issued for another name.",
        "Connect by the name in the certificate, give that with `tls-name`, or have a certificate "
        "issued for the host.",
    ),
    "clock-skew": Code(
        "The clocks of client, service and KDC differ by more than Kerberos allows (five minutes).",
        "Synchronise all of them with NTP.",
    ),
    "computer-not-found": Code(
        "No computer object in the domain has this dNSHostName.",
        "Check `--host`; join the host to the domain, or choose the SCP's place with "
        "`--scp-parent` or `--container`.",
    ),
    "config-unusable": Code(
        "The configuration file cannot be read, is not valid TOML, or describes no service.",
        "Correct the line that the message names; `twistd -n mutauth --config FILE --check` tries "
        "a file out.",
    ),
    "config-writable": Code(
        "Others than root and the user who reads it may write or replace the configuration "
        "file, or a directory or link that leads to it, and could allow themselves.",
        "Look at what is in the file, and run the command in the message.",
    ),
    "connection-failed": Code(
        "The TCP connection could not be made: nothing listens there, or the host cannot be "
        "reached.",
        "Check that the service runs, its port, and the firewalls on the way.",
    ),
    "connections-cut": Code(
        "The service has stopped, and connections that did not end by themselves were cut.",
        "Raise `drain-timeout` (and systemd's `TimeoutStopSec=`) if they need longer.",
        "warning",
    ),
    "connections-waiting": Code(
        "Too many connections are waiting for a handshake, so this one was refused.",
        "Look for a flood from one address. If the clients are legitimate, raise "
        "`max-handshakes`, `max-waiting` or `max-waiting-per-address`.",
    ),
    "descriptors-used-up": Code(
        "The process has as many files and sockets open as it may (EMFILE).",
        "Raise `LimitNOFILE=` (or `ulimit -n`), or lower `max-connections`.",
    ),
    "directory-login-refused": Code(
        "A domain controller answered, and refused the login.",
        "Check that the account is enabled, and that the clocks agree.",
    ),
    "directory-not-protected": Code(
        "A directory server does not offer the encryption and authentication that are required.",
        "Try another domain controller; look for a proxy or firewall in front of this one.",
    ),
    "directory-refused": Code(
        "A domain controller answered, and refused the operation. The message gives its reason.",
        "Do what the message says; the domain controller's log and the reason's number tell more.",
    ),
    "directory-unreachable": Code(
        "No domain controller answers, or the connection to one was lost.",
        "Check the network, DNS, and that a domain controller runs; name one with `--directory`"
        " (`directory=` in an endpoint).",
    ),
    "dns-failed": Code(
        "No DNS server gave a usable answer in time.",
        "Check the servers in `/etc/resolv.conf`, or ask another one with `--nameserver` "
        "(`nameserver=` in an endpoint).",
    ),
    "dns-name-invalid": Code(
        "A name that should be a DNS name is invalid.",
        "Correct the option, the record in DNS, or the object in the directory that gives it.",
    ),
    "dns-name-unknown": Code(
        "DNS does not know the name, or has no such record for it.",
        "Check the name; ask another server with `--nameserver` (`nameserver=` in an endpoint).",
    ),
    "factory-unusable": Code(
        "The object that `--factory` names cannot be imported, fails, or does not make a "
        "Twisted factory.",
        "Name a factory, or a function that makes one, as `package.module.Name`; check that "
        "`PYTHONPATH` contains its directory.",
    ),
    "group-not-found": Code(
        "The forest has no group of this name, or no such domain.",
        "Check the name, `DOMAIN\\group` or a DN, or give the group's SID.",
    ),
    "group-replaced": Code(
        "A group in the access policy has a different SID than at the service's start: it was "
        "deleted and created again, or renamed.",
        "Find out who created it. Restart the service if the new group is the right one.",
    ),
    "group-unusable": Code(
        "The object exists, but cannot be in a client's ticket: it is a distribution group, a "
        "group local to a domain, or not a group.",
        "Use a global or universal security group.",
    ),
    "guid-cache-unusable": Code(
        "The file that caches the SCP's GUID cannot be read or written.",
        "Run the command as root, or name another directory with `--state-dir`; remove a damaged "
        "file.",
    ),
    "handshake-cut": Code(
        "The peer closed the connection during the handshake.",
        "The peer's log says why. Check the port, and that both sides use the same wire and "
        "protection.",
    ),
    "handshake-timeout": Code(
        "The handshake was not complete in time.",
        "Check that the service, a KDC and the directory answer; allow more with `timeout` or "
        "`--handshake-timeout`.",
    ),
    "identity-not-forwardable": Code(
        "A client is authenticated and allowed, but the backend cannot be told exactly who it is. "
        "The message says why. The backend was not contacted.",
        "Rename the account; or serve it through a gateway that does not tell identities.",
    ),
    "internal-error": Code(
        "A bug in this program.",
        "Report it with the traceback in the log.",
    ),
    "invalid-option": Code(
        "An option, a keyword of an endpoint string, an argument, or a combination of them cannot "
        "be used.",
        "The message names it and says what to give; see `--help`.",
    ),
    "kdc-refused": Code(
        "The KDC answered, but its policy does not allow a ticket.",
        "The account may be restricted: ask an administrator, who finds the reason in the KDC's "
        "log.",
    ),
    "kdc-unreachable": Code(
        "No KDC of the realm answers.",
        "Check the network, DNS (`_kerberos._udp` records), and `krb5.conf`.",
    ),
    "kerberos-failed": Code(
        "The Kerberos library failed for a reason that has no code of its own. The message "
        "quotes it.",
        "Search for the quoted text; `KRB5_TRACE=/dev/stderr` shows every step.",
    ),
    "key-refused": Code(
        "The KDC refused the key or the password: it was changed, or has expired.",
        "Export the keytab again, or log on again with `kinit`; change an expired password with "
        "`kpasswd`.",
    ),
    "keys-copied": Code(
        "The service's user may not read a file with its keys, which was read as root before the "
        "service became that user. A new file in its place is not read.",
        "Let the service's user read the file (`chgrp` and mode 0440), or restart the service "
        "whenever its keys change.",
        "warning",
    ),
    "keys-exposed": Code(
        "Every account of the machine can read a file with the service's keys.",
        "`chmod o= FILE`. Whoever may have copied the keys can be the service: give the account a "
        "new password and export its keytab again, or get a new TLS key.",
        "warning",
    ),
    "keytab-ambiguous": Code(
        "The keytab holds keys of several accounts, and no option says which of them runs the "
        "service.",
        "Name it with `--account`, or export the account's own entry too.",
    ),
    "keytab-lacks-key": Code(
        "The keytab lacks the key that is needed: its keys are for another account, version or "
        "encryption type.",
        "Compare `klist -ke` with the account; export all of its keys again.",
    ),
    "keytab-outdated": Code(
        "The newest key in the keytab is not the one that the KDC uses for the account. Either a "
        "rotation was not finished, and the service works with the older key; or the password was "
        "changed without the keytab, and clients with new tickets are refused.",
        "Run `mutauth key rotate --keytab FILE`, which ends a rotation that was interrupted; or "
        "export the account's keys again.",
    ),
    "keytab-unusable": Code(
        "The keytab is missing, cannot be read by this user, or is not a keytab.",
        "Name the account's keytab with `--keytab`, and let this user read it.",
    ),
    "lab-failed": Code(
        "The throw-away Active Directory cannot be started, used or stopped.",
        "The message says what to change; the log is in the lab's directory.",
    ),
    "listener-not-protected": Code(
        "The local port of `mutauth connect --listen` would be open to other machines: whoever "
        "reaches it connects as you, and the network between can be read and changed.",
        "Add `interface=127.0.0.1`, or listen on a Unix socket, or accept the risk with "
        "`--unsafe-listen`.",
    ),
    "location-not-trusted": Code(
        "This way to find the service would let an attacker choose the host: any account may "
        "publish a keyword, and hosts register two-part SPNs themselves.",
        "Name the trusted hosts with `hosts=`, or use `spn-form=guid` or `dn`.",
    ),
    "network-failed": Code(
        "A connection broke or was refused.",
        "Check the network and the service's log, and try again.",
    ),
    "no-access-policy": Code(
        "The access policy allows no client, so the service would refuse every one.",
        "Say who may connect: `--allow`, `--allow-group` or `--allow-all` (`allow=` in an "
        "endpoint).",
    ),
    "no-common-encryption": Code(
        "Client, service and KDC have no permitted encryption type in common.",
        "Allow AES on the accounts (msDS-SupportedEncryptionTypes 24) and in `krb5.conf` "
        "(permitted_enctypes).",
    ),
    "no-right": Code(
        "The account that asked has no right to do this in the directory.",
        "Run the command in the message as an administrator, or have the right delegated.",
    ),
    "no-right-to-publish": Code(
        "The service's account may not write its own address into its object.",
        "Run `mutauth install` again for this account; for an RnR service, listen on a fixed "
        "port that an administrator publishes.",
    ),
    "not-authenticated": Code(
        "The peer is not authenticated as the principal it has to be.",
        "Check that the address belongs to the intended service; something between the two "
        "sides may be altering the handshake.",
    ),
    "not-found": Code(
        "The object is not in the directory, or this account may not see it.",
        "Check the name.",
    ),
    "not-kerberos": Code(
        "A client offers NTLM or another package where the service accepts Kerberos only.",
        "Have the client use Kerberos: give the host's full name, and check with `klist` that "
        "it gets a ticket.",
    ),
    "ntlm-users-invalid": Code(
        "The file of NTLM users cannot be used: its permissions, its encoding or one of its "
        "lines is wrong.",
        "Use `chmod 600`, UTF-8, and a line `DOMAIN:user:password` for each user.",
    ),
    "offer-mismatch": Code(
        "The SCP says that the service uses another wire or protection than the client was told "
        "to use.",
        "Leave the keyword out, or correct what the service publishes.",
    ),
    "opening-missing": Code(
        "A client's first record is not the one that every mutauth client sends: something "
        "removed this service's mark on the way.",
        "Look for what stands between both sides.",
    ),
    "other-object": Code(
        "The directory has an object of this name, but of another class.",
        "Check the name, or choose another one.",
    ),
    "pac-unusable": Code(
        "The client's ticket has no PAC that the KDC vouches for, so its groups are unknown.",
        "Check the domain controllers; rules for users alone need no PAC.",
    ),
    "password-guessable": Code(
        "A user account runs the service: any account of the domain can get tickets for its "
        "SPNs and try passwords on them offline.",
        "Give it a random password of 25 characters or more, or use a group managed service "
        "account.",
        "warning",
    ),
    "password-refused": Code(
        "The domain does not take a new password for the account: it is younger than the minimum "
        "age (one day by default), does not fit the password policy, or whoever asks may not set "
        "it. The keytab is as it was.",
        "Wait until the minimum age is over, or have an administrator run `mutauth key rotate "
        "--set`.",
    ),
    "peer-refused": Code(
        "The other side ended the handshake, with or without a code.",
        "Its own log says why.",
    ),
    "policy-unusable": Code(
        "The policy file cannot be read, is not valid TOML, or has no rule.",
        "Correct the line that the message names; `mutauth check-access --policy FILE PRINCIPAL` "
        "tries a file out.",
    ),
    "policy-writable": Code(
        "Others than root and the user who reads it may write or replace the policy "
        "file, or a directory or link that leads to it, and could allow themselves.",
        "Look at what is in the file, and run the command in the message.",
    ),
    "protection-mismatch": Code(
        "A record has a different protection than was agreed.",
        "Give both sides the same protection.",
    ),
    "protection-not-agreed": Code(
        "The handshake ended without mutual authentication, or without the protection that is "
        "required.",
        "Configure the peer to ask for mutual authentication and for that protection (sign or "
        "seal).",
    ),
    "protocol-violation": Code(
        "The peer violated the protocol.",
        "Check the port, and that both sides use the same wire and protection.",
    ),
    "proxy-header-invalid": Code(
        "A connection from an address in `--proxy-from` did not begin with a PROXY protocol header "
        "of version 2. It was closed.",
        "Have the balancer send one (HAProxy: `send-proxy-v2`), with its health checks too; or "
        "take the address out of `--proxy-from`.",
    ),
    "realm-unknown": Code(
        "No realm is known, or no KDC for it.",
        "Name the realm, or set default_realm in `krb5.conf`; check DNS.",
    ),
    "record-not-encrypted": Code(
        "The security library did not encrypt a record; nothing was sent.",
        "Update the library; the message has details.",
    ),
    "record-rejected": Code(
        "A record was altered, repeated, reordered or dropped; none of it was delivered.",
        "Look for what stands between both sides; connect again.",
    ),
    "reload-incomplete": Code(
        "What was read again is right and in force, but for what the message names: it could not "
        "begin.",
        "Fix what the message names, and reload: what has failed is tried again.",
        "warning",
    ),
    "reload-rejected": Code(
        "The configuration, a policy, a keytab or a certificate was read again, and something is "
        "wrong with it. What was read before stays in force.",
        "Correct what the message names; `twistd -n mutauth --config FILE --check` tells all "
        "mistakes. A file that changes is read at once, and all are at SIGHUP.",
        "warning",
    ),
    "replay-cache-unusable": Code(
        "The service cannot record which requests it has seen, and without that it accepts none.",
        "Give it a directory that its user alone writes to: `StateDirectory=` in systemd, "
        "`--state-dir`, or KRB5RCACHEDIR.",
    ),
    "request-replayed": Code(
        "The same request was seen before.",
        "Let the client try again; if it happens often, look for an attacker who replays requests.",
    ),
    "rights-unreadable": Code(
        "An object's security descriptor cannot be read.",
        "Run the command as an account that may read it.",
    ),
    "rnr-not-found": Code(
        "The RnR service is not in the domain's WinsockServices container.",
        "Check the name with `mutauth rnr list`; an administrator creates it with `mutauth rnr "
        "publish`.",
    ),
    "scp-not-found": Code(
        "The service connection point does not exist, or none has the keyword.",
        "Check the name with `mutauth scp list`; an administrator creates it with `mutauth "
        "install`.",
    ),
    "scp-not-named": Code(
        "An SCP was named by something that is neither a DN nor a GUID.",
        "`mutauth scp find KEYWORD` tells both.",
    ),
    "scp-taken": Code(
        "The SCP points to another instance of the service, and that instance is running.",
        "Give each instance an SCP of its own (`--scp-name`, for `mutauth install` too), or stop "
        "the other one.",
    ),
    "service-class-differs": Code(
        "The object belongs to another service class.",
        "Name the service's own object with `--scp-name` or `--rnr-name`, or its class with "
        "`--service-class`.",
    ),
    "service-differs": Code(
        "The ticket is for a different service than the intended one.",
        "Connect to the intended service; look for a redirected address or DNS record.",
    ),
    "service-disabled": Code(
        "The service's account is disabled or expired, or has no key.",
        "An administrator enables it, or sets its password and exports the keytab again.",
    ),
    "service-full": Code(
        "The service has reached its limit of sessions, in total or for one account.",
        "Raise `max-connections` or `max-connections-per-principal` if it can serve more.",
    ),
    "service-unknown": Code(
        "The KDC knows no such SPN, or finds it on several accounts.",
        "Check the SPN; register it with `mutauth install`; `mutauth spn query` finds all holders.",
    ),
    "session-ended": Code(
        "The session reached one of its limits: its ticket's end, the longest session, or idle "
        "time.",
        "Connect again; raise `idle-timeout` or `max-session` if it should live longer.",
    ),
    "session-refused": Code(
        "The service authenticated itself, and ended the session before any data. The message "
        "gives the service's own code.",
        "Look for that code on this page; the service's log says more.",
    ),
    "spn-alias": Code(
        "Another account holds an SPN that Active Directory treats as the same (sPNMappings), "
        "such as `host` for `HTTP`.",
        "If tickets should go to the new account instead, give `--allow-alias`.",
    ),
    "spn-duplicate": Code(
        "Several accounts hold the SPN, or would hold it: the KDC then grants no ticket, or one"
        " that the wrong account can use.",
        "Find the holders with `mutauth spn query` or `duplicates`, and delete it from all but "
        "one.",
    ),
    "spn-invalid": Code(
        "The text is not an SPN: `class/host[:port][/name]`.",
        "Correct it. A DN with `/` in it cannot be part of an SPN: use the object's GUID.",
    ),
    "spn-missing": Code(
        "The SPN is not registered on the account that runs the service, so clients get no "
        "ticket for it.",
        "Run the `mutauth install` command in the message as an administrator.",
    ),
    "spn-names-scp": Code(
        "SPNs still carry the GUID or DN of an object that is to be deleted.",
        "Use `mutauth uninstall`, delete these SPNs first, or give `--leave-spns`.",
    ),
    "spn-not-vouched-for": Code(
        "No account holds an SPN that vouches for this object: any account could have made it.",
        "If the object can be trusted, an administrator installs it with `mutauth install`.",
    ),
    "spn-on-other-account": Code(
        "The SPN is registered on a different account than the one that runs the service.",
        "Run the service under that account, or delete the SPN there.",
    ),
    "spn-stale": Code(
        "The SPN carries a DN that the service connection point had before it was moved.",
        "Delete it, as the message says; `mutauth uninstall` also does this.",
    ),
    "status-exposed": Code(
        "The status port can be reached from other machines: it shows, without authentication and "
        "in the clear, which accounts come from where.",
        "Listen on 127.0.0.1 or a UNIX socket (`unix:PATH:mode=660`), or have a firewall say who "
        "reaches it.",
        "warning",
    ),
    "stream-cut": Code(
        "The connection ended without the peer's authenticated end of stream: the peer was "
        "stopped, or the connection was cut on the way.",
        "What came before is genuine. Connect again.",
    ),
    "temporary-database": Code(
        "There is no room for the temporary database of the search.",
        "Make room, or name another directory in SQLITE_TMPDIR.",
    ),
    "threads-used-up": Code(
        "The process can start no further thread.",
        "Raise `TasksMax=` (or `ulimit -u`), and the limit of its container.",
    ),
    "ticket-expired": Code(
        "A Kerberos ticket has expired or was revoked: this side's, or the client's.",
        "Get a new one with `kinit`; check the clocks.",
    ),
    "ticket-missing": Code(
        "There is no Kerberos ticket.",
        "Get one with `kinit`, or name a keytab.",
    ),
    "ticket-wrong-key": Code(
        "The ticket was made for a different key than the service has: an old ticket, an old "
        "keytab, or an SPN on another account.",
        "Get new tickets with `kinit`; compare `mutauth spn query` with `klist -k`; export the "
        "keytab again.",
    ),
    "tls-channel-mismatch": Code(
        "The handshake is not bound to this TLS channel: TLS ends somewhere between the two sides.",
        "Look for what terminates TLS; a third-party client must send its channel bindings.",
    ),
    "token-unreadable": Code(
        "The peer's token cannot be read.",
        "Check that the peer connects to the right port.",
    ),
    "weak-encryption": Code(
        "Tickets or session keys are not AES, and only AES is accepted.",
        "Set msDS-SupportedEncryptionTypes of the account to 24, then a new password; export its "
        "keytab again.",
    ),
    "worker-failed": Code(
        "A worker process has ended by itself, or was killed because it hung or did not apply a "
        "reload; its sessions were cut. It is started again after a pause. When one ends soon "
        "after each start, the service ends with exit code 6.",
        "Look in the log for what went before, and in the kernel's for the out-of-memory killer.",
    ),
    "wrong-protocol": Code(
        "The peer speaks another protocol or another wire.",
        "Check the port, and that both sides use the same wire and protection.",
    ),
}
