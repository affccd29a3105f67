"""An Active Directory domain in memory, with the rules of a domain controller.

It enforces what services run into: SPNs are unique in the forest, hosts may give themselves
two-part SPNs of their own name only, access control lists decide who may write, attributes have
one value or several, objects are of known classes and below suitable parents.  What fails has the
LDAP result code of a real one; :mod:`tests.cases.contract` is run against this and Samba alike.

Not here: other domains, groups in groups, rights to read, inherited ACEs of one's own, passwords,
and a global catalog that lags behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, execute, fail, succeed

from mutauth_twisted.directory.acl import parse_sid, sid_bytes
from mutauth_twisted.dns import Resolver, SRVTarget
from mutauth_twisted.errors import DirectoryUnreachable, NotFound
from mutauth_twisted.ldap.connection import Directory
from mutauth_twisted.ldap.dn import child_dn
from mutauth_twisted.ldap.options import DirectoryOptions
from mutauth_twisted.ldap.sealing import adopt
from mutauth_twisted.ldap.session import LdapSession
from mutauth_twisted.testing._socket import AnswerLost, DirectorySocket, Interference
from mutauth_twisted.testing._store import UNWILLING, Caller, Refused, Store

T = TypeVar("T")
_DEFAULT_OPTIONS = DirectoryOptions()
_EVERYBODY = frozenset(("S-1-1-0", "S-1-5-11"))
_SID = "S-1-5-21-1004336348-1177238915-682003330"
# groupType (MS-ADTS 2.2.12): security groups.
_GLOBAL, _BUILTIN = "-2147483646", "-2147483643"
_ALIASES = "host=alerter,cifs,dhcp,dns,http,netlogon,rpc,time,wins,www"


def _leave_alone(operation: str, dn: str) -> None:
    """Have a write done as it was asked for."""


class Domain:
    """An Active Directory domain, the only one of its forest.

    :param name: its DNS name.
    :ivar dn: its DN.
    :ivar interfere: called with the operation (``add``, ``modify``, ``delete``, ``move``) and the
        DN before each write; see :meth:`refuse_write` and :meth:`lose_answer`.
    :ivar srv_records: what DNS says, by name.
    """

    def __init__(self, name: str = "test.example") -> None:
        self.name = name
        self.dn = ",".join(f"DC={label}" for label in name.split("."))
        self.configuration = f"CN=Configuration,{self.dn}"
        self.controller = f"dc1.{name}"
        self.interfere: Interference = _leave_alone
        self.srv_records: dict[str, list[SRVTarget]] = {}
        self._store = Store(_SID)
        self._callers: dict[str, Caller] = {}
        self._fill()

    def _fill(self) -> None:
        self._store.add_context(self.dn, "domainDNS")
        self._store.add_context(self.configuration, "configuration")
        for name in ("Users", "Computers", "System", "Builtin"):
            self._add(child_dn(name, self.dn), "container")
        system = child_dn("System", self.dn)
        self._add(child_dn("WinsockServices", system), "container")
        self._add(child_dn("Password Settings Container", system), "msDS-PasswordSettingsContainer")
        partitions = child_dn("Partitions", self.configuration)
        self._add(partitions, "crossRefContainer")
        short = self.name.partition(".")[0].upper()
        self._add(child_dn(short, partitions), "crossRef")
        services = child_dn("Services", self.configuration)
        self._add(services, "container")
        self._add(child_dn("Windows NT", services), "container")
        service = child_dn("Directory Service", child_dn("Windows NT", services))
        self._add(service, "nTDSService")
        self._force(service, sPNMappings=_ALIASES)
        self._force(
            child_dn(short, partitions),
            nETBIOSName=short,
            dnsRoot=self.name,
            nCName=self.dn,
            systemFlags="3",
        )
        for name, where, kind, sid in (
            ("Administrators", "Builtin", _BUILTIN, "S-1-5-32-544"),
            ("Server Operators", "Builtin", _BUILTIN, "S-1-5-32-549"),
            ("Domain Users", "Users", _GLOBAL, f"{_SID}-513"),
        ):
            dn = f"CN={name},CN={where},{self.dn}"
            self._add(dn, "group", sAMAccountName=name, groupType=kind)
            self._force(dn, objectSid=sid_bytes(sid))
        self._force(self.add_user("Administrator"), objectSid=sid_bytes(f"{_SID}-500"))
        self._callers["administrator"] = self._store.administrator

    def _add(self, dn: str, kind: str, **values: str | list[str]) -> None:
        given = {
            name: [text.encode() for text in ([value] if isinstance(value, str) else value)]
            for name, value in values.items()
        }
        self._store.add(self._store.administrator, dn, {"objectClass": [kind.encode()], **given})

    def _force(self, dn: str, **values: str | bytes) -> None:
        """Write what the directory alone writes."""
        for name, value in values.items():
            raw = value if isinstance(value, bytes) else value.encode()
            self._store.find(dn).values[name] = [raw]

    def _add_account(self, dn: str, kind: str, name: str, **values: str) -> str:
        self._add(dn, kind, sAMAccountName=name, **values)
        sid = parse_sid(self._store.find(dn).values["objectSid"][0])
        self._callers[name.rstrip("$").lower()] = Caller(sid, _EVERYBODY | {sid})
        return dn

    def add_user(self, name: str) -> str:
        """Create a user without rights; its DN."""
        dn = child_dn(name, f"CN=Users,{self.dn}")
        return self._add_account(dn, "user", name, userPrincipalName=f"{name}@{self.name}")

    def add_computer(self, name: str) -> str:
        """Join a host, ``name.domain``; its computer object's DN."""
        dn = child_dn(name, f"CN=Computers,{self.dn}")
        return self._add_account(dn, "computer", f"{name}$", dNSHostName=f"{name}.{self.name}")

    def add_raw_value(self, dn: str, name: str, value: bytes) -> None:
        """Write a value past every check, as replication conflicts and old tools do."""
        self._store.find(dn).values.setdefault(name, []).append(value)

    def refuse_write(self, number: int) -> None:
        """Have the n-th write from now on refused, and no other."""
        self._disturb(number, Refused(UNWILLING, "injected"))

    def lose_answer(self, number: int) -> None:
        """Have the connection lost with the answer to the n-th write, which is done."""
        self._disturb(number, AnswerLost())

    def leave_alone(self) -> None:
        """Disturb no further writes."""
        self.interfere = _leave_alone

    def contents(self) -> dict[str, dict[str, list[bytes]]]:
        """Every object's values by DN, GUID and access control list included, to compare before and
        after.
        """
        return {
            each.dn: {
                **{name: sorted(values) for name, values in each.values.items()},
                "objectGUID": [each.guid.bytes_le],
                "nTSecurityDescriptor": [each.security],
            }
            for each in self._store.everything()
        }

    def _disturb(self, number: int, error: Exception) -> None:
        left = number

        def interfere(operation: str, dn: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise error

        self.interfere = interfere

    def session(
        self,
        user: str = "administrator",
        *,
        catalog: bool = False,
        options: DirectoryOptions = _DEFAULT_OPTIONS,
    ) -> LdapSession:
        """A connection of one of the accounts, a computer without its ``$``.

        :param catalog: to the global catalog.
        :param options: how commands in remedies reach this domain.
        """
        root = {
            "defaultNamingContext": self.dn,
            "rootDomainNamingContext": self.dn,
            "configurationNamingContext": self.configuration,
            "dnsHostName": self.controller,
        }
        wire = DirectorySocket(
            self._store,
            self._callers[user.lower()],
            root,
            catalog=catalog,
            interfere=lambda operation, dn: self.interfere(operation, dn),
        )
        connection = adopt(cast(Any, wire), "192.0.2.1", 389)
        connection.bound = connection.raise_exceptions = True
        return LdapSession(connection, self.controller, catalog=catalog, options=options)

    def directory(
        self, user: str = "administrator", *, options: DirectoryOptions = _DEFAULT_OPTIONS
    ) -> Directory:
        """Connect to the directory as one of the accounts, as
        :class:`~mutauth_twisted.ldap.connection.Directory` does; its work is done at once.
        """
        return MemoryDirectory(self, user, options)


class _Resolver(Resolver):
    """DNS as the domain has it."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain

    def lookup_srv(self, name: str) -> Deferred[list[SRVTarget]]:
        found = self._domain.srv_records.get(name)
        if found is None:
            return fail(NotFound(name, "DNS has no SRV record of this name", "check the name"))
        return succeed(found)


class MemoryDirectory(Directory):
    """A directory whose one domain controller is in memory; every Deferred has fired already."""

    def __init__(self, domain: Domain, user: str, options: DirectoryOptions) -> None:
        self._memory = domain
        self._user = user
        self.options = options
        self.resolver = _Resolver(domain)

    def _session(self, catalog: bool = False) -> LdapSession:
        return self._memory.session(self._user, catalog=catalog, options=self.options)

    def run(
        self,
        work: Callable[[LdapSession], T],
        *,
        global_catalog: bool = False,
        domain: str | None = None,
        deadline: float | None = None,
    ) -> Deferred[T]:
        if domain not in (None, self._memory.name) and not global_catalog:
            return fail(DirectoryUnreachable(f"directory of {domain}", "there is none", "name one"))
        return execute(work, self._session(global_catalog))

    def run_with_catalog(
        self,
        work: Callable[[LdapSession, LdapSession], T],
        *,
        domain: str | None = None,
        deadline: float | None = None,
    ) -> Deferred[T]:
        return self.run(lambda session: work(session, self._session(True)), domain=domain)

    async def domain(self) -> str:
        return self._memory.name

    def close(self) -> None:
        """Nothing is open."""
