"""Behaviour of a domain controller: the same cases for Samba and for the directory in memory.

A difference between the two fails here, so that what is tested in memory holds in a domain.
Where Samba is known to differ from Windows (MS-ADTS), the directory in memory is as Windows is,
and the case says so with ``is_samba``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from mutauth_twisted.directory import acl
from mutauth_twisted.errors import DirectoryRefused, NotFound
from mutauth_twisted.ldap.dn import child_dn, parent_of, same_dn
from mutauth_twisted.ldap.filter import all_of, any_of, equals, matches
from mutauth_twisted.ldap.session import SPN_NOT_UNIQUE, Change, Entry, LdapSession
from tests.cases.world import DirectoryWorld

SPN = "servicePrincipalName"
SCP = {"objectClass": "serviceConnectionPoint"}
_NO_OBJECT = 32


class _Case(DirectoryWorld):
    """The shorthands of the contract's cases, and what they leave behind."""

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        self.addCleanup(self.forget_objects)

    async def forget_objects(self) -> None:
        """Delete every object that is named after the test's class."""

        def forget(session: LdapSession) -> None:
            mine = matches("cn", f"{self.service_class}*")
            for entry in list(session.search(session.domain_dn, mine)):
                session.delete(entry.dn)

        await self.do("administrator", forget)

    @property
    def parent(self) -> str:
        """The computer object that the cases put their objects below."""
        return f"CN=srv1,CN=Computers,{self.place.base_dn}"

    def dn(self, name: str = "") -> str:
        """The DN of an object that is gone after the test."""
        return child_dn(self.service_class + name, self.parent)

    async def code(self, user: str, work: Callable[[LdapSession], object]) -> int:
        """The LDAP result code that an operation ends with."""
        try:
            await self.do(user, work)
        except NotFound:
            return _NO_OBJECT
        except DirectoryRefused as error:
            return error.result
        return 0

    async def modify(
        self, name: str | UUID, *changes: tuple[Any, ...], user: str = "administrator"
    ) -> int:
        """The result code of a modification."""
        wanted = [Change(kind, attribute, tuple(values)) for kind, attribute, *values in changes]
        return await self.code(user, lambda session: session.modify(name, wanted))

    async def add(self, dn: str, *, user: str = "administrator", **attributes: Any) -> int:
        """The result code of an addition; a connection point unless said otherwise."""
        given = {"keywords": self.service_class, **SCP, **attributes}
        if given["objectClass"] != SCP["objectClass"]:
            del given["keywords"]
        return await self.code(user, lambda session: session.add(dn, given))

    async def made(self, name: str = "", **attributes: Any) -> Entry:
        """Create a connection point and read it."""
        self.assertEqual(await self.add(self.dn(name), **attributes), 0)
        return await self.read(self.dn(name), "objectGUID", "cn", "objectClass")

    async def read(self, name: str | UUID, *attributes: str, user: str = "alice") -> Entry:
        return await self.do(user, lambda session: session.read(name, attributes))

    async def texts(self, name: str | UUID, attribute: str) -> list[str]:
        """An attribute's values, in alphabetical order."""
        return sorted((await self.read(name, attribute)).texts(attribute))

    async def found(
        self, filter: str, base: str | None = None, scope: Any = "one", **options: Any
    ) -> list[str]:
        """The names of the objects that a filter finds, without the test's class."""
        where = self.parent if base is None else base
        entries = await self.do(
            "alice",
            lambda session: list(session.search(where, filter, ["cn"], scope=scope)),
            **options,
        )
        return sorted(
            (entry.text("cn") or "").removeprefix(self.service_class) for entry in entries
        )


class ObjectContract(_Case):
    """Objects: created, read, found, changed, moved and deleted."""

    async def test_created_objects(self) -> None:
        """Classes get their superclasses, names their spelling from the parent."""
        upper = child_dn(self.service_class, self.parent.upper())
        self.assertEqual(await self.add(upper), 0)
        entry = await self.read(self.dn().upper(), "objectClass", "cn", "objectGUID")
        self.assertEqual(entry.dn, self.dn())
        self.assertEqual(
            entry.texts("objectClass"),
            ("top", "leaf", "connectionPoint", "serviceConnectionPoint"),
        )
        self.assertEqual(entry.text("cn"), self.service_class)
        self.assertEqual((await self.read(entry.guid, "cn")).dn, self.dn())

    async def test_refused_additions(self) -> None:
        """Entries that cannot be created are refused, each with its code."""
        await self.made()
        table: list[tuple[int, str, dict[str, Any]]] = [
            (68, self.dn(), {}),
            (68, self.dn().upper(), {}),
            (32, child_dn("x", self.dn("-none")), {}),
            (34, "no dn", {}),
            (64, child_dn("x", self.dn()), {}),
            (64, child_dn("x", f"CN=alice,CN=Users,{self.place.base_dn}"), {}),
            (16, self.dn("-x"), {"noSuchAttribute": "x"}),
            (65, self.dn("-x"), {"dNSHostName": "x"}),
            (
                65,
                f"CN=x,CN=WinsockServices,CN=System,{self.place.base_dn}",
                {"objectClass": "serviceInstance"},
            ),
            (20, self.dn("-x"), {"keywords": ["a", "a"]}),
            (19, self.dn("-x"), {"serviceDNSName": ["a", "b"]}),
        ]
        for code, dn, attributes in table:
            self.assertEqual(await self.add(dn, **attributes), code, (dn, attributes))

    async def test_escaped_names(self) -> None:
        """A DN is the same however its escapes are written, and is told in one spelling."""
        for name in (' #a,b+c"d\\e<f>g;h=i ü ', "a#b", "\u20ac*(x)", "tab\there"):
            entry = await self.made(name)
            self.assertTrue(same_dn(entry.dn, self.dn(name)), entry.dn)
            self.assertEqual((await self.read(entry.dn, "cn")).dn, entry.dn)
            self.assertEqual(entry.text("cn"), (self.service_class + name))
            self.assertEqual(await self.found(equals("cn", self.service_class + name)), [name])

    async def test_values(self) -> None:
        """Values are added, deleted and replaced, all of a request's or none."""
        guid = (await self.made(keywords=["a", "b"])).guid
        kept = ["a", "b"]
        refused: list[tuple[int, tuple[Any, ...]]] = [
            (20, (("add", "keywords", "a"),)),
            (16, (("delete", "keywords", "c"),)),
            (16, (("delete", "serviceDNSName", "c"),)),
            (16, (("delete", "keywords", "a"), ("delete", "serviceDNSName", "x"))),
            (16, (("add", "noSuchAttribute", "x"),)),
            (65, (("add", "dNSHostName", "x"),)),
            (67, (("replace", "cn", "x"),)),
        ]
        for code, changes in refused:
            self.assertEqual(await self.modify(guid, *changes), code, changes)
            self.assertEqual(await self.texts(guid, "keywords"), kept)
        allowed: list[tuple[list[str], tuple[Any, ...]]] = [
            (["a", "b", "ü"], (("add", "keywords", "ü"),)),
            (["a", "b"], (("delete", "keywords", "Ü"),)),
            (["A", "b"], (("delete", "keywords", "a"), ("add", "keywords", "A"))),
            (["c"], (("replace", "keywords", "c"),)),
            (["C"], (("replace", "keywords", "C"),)),
            ([], (("replace", "keywords"),)),
            ([], (("replace", "keywords"),)),
            (["d"], (("add", "keywords", "d"),)),
            ([], (("delete", "keywords"),)),
        ]
        for standing, changes in allowed:
            self.assertEqual(await self.modify(guid, *changes), 0, changes)
            self.assertEqual(await self.texts(guid, "keywords"), standing, changes)
        self.assertEqual(await self.modify(self.dn("-none"), ("add", "keywords", "x")), _NO_OBJECT)

    async def test_attributes_of_one_value(self) -> None:
        """A second value is refused; replacing is not."""
        guid = (await self.made(serviceDNSName="a")).guid
        self.assertEqual(await self.modify(guid, ("add", "serviceDNSName", "b")), 20)
        self.assertEqual(await self.modify(guid, ("replace", "serviceDNSName", "b", "c")), 20)
        self.assertEqual(await self.modify(guid, ("replace", "serviceDNSName", "b")), 0)
        self.assertEqual(await self.texts(guid, "serviceDNSName"), ["b"])
        self.assertEqual(await self.modify(guid, ("add", "serviceBindingInformation", "1", "2")), 0)

    async def test_moved_and_deleted(self) -> None:
        """A GUID finds an object wherever it is, and nothing once it is deleted."""
        first, second = await self.made(), await self.made("-2")
        other = f"CN=srv2,CN=Computers,{self.place.base_dn}"

        def move(parent: str) -> Callable[[LdapSession], object]:
            return lambda session: session.move(first.dn, parent)

        self.assertEqual(await self.code("administrator", move(self.dn("-none"))), 80)
        self.assertEqual(await self.code("administrator", move(second.dn)), 64)
        self.assertEqual(await self.code("alice", move(other)), 50)
        self.assertEqual(await self.code("administrator", move(other)), 0)
        moved = child_dn(self.service_class, other)
        self.assertEqual((await self.read(first.guid, "cn")).dn, moved)
        self.assertEqual(await self.code("alice", lambda s: s.read(first.dn, ["cn"])), _NO_OBJECT)
        self.assertEqual(await self.add(first.dn), 0)
        self.assertEqual(await self.code("administrator", lambda s: s.move(moved, self.parent)), 68)
        for dn, code in (
            (moved, 0),
            (moved, _NO_OBJECT),
            (self.place.base_dn, 53),
            (self.parent, 66),
        ):
            if code in (53, 66):  # not to be tried where it could succeed
                continue
            self.assertEqual(await self.code("administrator", lambda s, d=dn: s.delete(d)), code)  # type: ignore[misc]
        self.assertEqual(await self.code("alice", lambda s: s.read(first.guid, ["cn"])), _NO_OBJECT)
        container = f"CN={self.service_class},CN=System,{self.place.base_dn}"
        self.assertEqual(await self.add(container, objectClass="container"), 0)
        self.assertEqual(await self.add(child_dn("x", container)), 0)
        for dn, code in ((container, 66), (child_dn("x", container), 0), (container, 0)):
            self.assertEqual(await self.code("administrator", lambda s, d=dn: s.delete(d)), code)  # type: ignore[misc]

    async def test_scopes(self) -> None:
        """Base, one level and subtree; a base that is not there, and none that is a DN."""
        await self.made()
        mine = equals("keywords", self.service_class)
        self.assertEqual(await self.found(mine, scope="one"), [""])
        self.assertEqual(await self.found(mine, scope="base"), [])
        self.assertEqual(await self.found(mine, self.dn(), "base"), [""])
        self.assertEqual(await self.found(mine, self.dn(), "one"), [])
        self.assertEqual(await self.found(mine, self.place.base_dn, "one"), [])
        self.assertEqual(await self.found(mine, self.place.base_dn, "subtree"), [""])
        self.assertEqual(await self.found(mine, "", "subtree", global_catalog=True), [""])
        for base, code in ((self.dn("-none"), _NO_OBJECT), ("no dn", 34)):
            self.assertEqual(
                await self.code("alice", lambda s, b=base: list(s.search(b, mine))),
                code,  # type: ignore[misc]
            )

    async def test_filters(self) -> None:
        """Text without regard to case, blanks and wildcards; bytes exactly; escapes mean bytes."""
        keywords = ["*)(x", " a\\2a  b ", "Åse", "ß", "\u202eevil"]
        guid = (await self.made(keywords=[self.service_class, *keywords])).guid
        await self.made("-2", keywords=[self.service_class, "other"])
        both, mine = ["", "-2"], [""]
        table: list[tuple[list[str], str]] = [
            (both, equals("keywords", self.service_class.upper())),
            (mine, equals("keywords", "*)(X")),
            (mine, equals("keywords", " A\\2A  B ")),
            (mine, equals("keywords", "a\\2a b")),
            (mine, equals("keywords", "åSE")),
            (mine, equals("keywords", "ß")),
            ([], equals("keywords", "ss")),
            (mine, equals("keywords", "\u202eEVIL")),
            ([], equals("keywords", "*")),
            (mine, matches("keywords", "*\\2*")),
            (mine, matches("keywords", "å*")),
            (["-2"], matches("keywords", "o*h*R")),
            ([], matches("keywords", "o*x*R")),
            ([], matches("keywords", "o*h")),
            (mine, equals("objectGUID", guid.bytes_le)),
            (both, equals("objectClass", "connectionPoint")),
            ([], equals("objectClass", "computer")),
            ([], "(serviceDNSName=*)"),
            (both, all_of("(keywords=*)", "(!(serviceDNSName=*))")),
            (mine, all_of(equals("keywords", "ß"), equals("keywords", "åse"))),
            (both, any_of(equals("keywords", "ß"), equals("keywords", "other"))),
            ([], "(noSuchAttribute=*)"),
            ([], "(noSuchAttribute=x)"),
            (both if self.is_samba else [], "(!(noSuchAttribute=x))"),
            (both, any_of("(noSuchAttribute=x)", "(keywords=*)")),
        ]
        only = equals("keywords", self.service_class)
        for names, filter in table:
            self.assertEqual(await self.found(all_of(only, filter)), names, filter)

    async def test_filters_on_accounts(self) -> None:
        """Accounts by class, category, SID, name and host."""
        users, computers = f"CN=Users,{self.place.base_dn}", f"CN=Computers,{self.place.base_dn}"
        sid = (await self.read(f"CN=alice,{users}", "objectSid")).values("objectSid")[0]
        partitions = f"CN=Partitions,CN=Configuration,{self.place.base_dn}"
        domains = all_of("(objectClass=crossRef)", "(systemFlags:1.2.840.113556.1.4.803:=2)")
        table = [
            (["alice"], users, equals("objectSid", sid)),
            (["alice"], users, equals("objectSid", acl.parse_sid(sid))),
            (["alice"], users, equals("sAMAccountName", "ALICE")),
            ([], users, all_of(equals("objectCategory", "computer"), equals("cn", "alice"))),
            (["alice"], users, all_of(equals("objectClass", "person"), equals("cn", "alice"))),
            (
                ["srv1"],
                computers,
                all_of(
                    equals("objectCategory", "computer"),
                    equals("dNSHostName", self.place.host("srv1").upper()),
                ),
            ),
            (["srv1"], computers, all_of(equals("objectClass", "user"), equals("cn", "srv1"))),
        ]
        for names, base, filter in table:
            self.assertEqual(await self.found(filter, base), names, filter)

        def domain(session: LdapSession) -> list[tuple[str | None, ...]]:
            names = ("nCName", "dnsRoot")
            return [
                tuple(map(entry.text, names))
                for entry in session.search(partitions, domains, names)
            ]

        self.assertEqual(
            await self.do("alice", domain),
            [(self.place.base_dn, self.place.host("srv1").partition(".")[2])],
        )

    async def test_pages(self) -> None:
        """Every object comes once, whatever the size of the pages, and as few as are read."""
        for number in range(7):
            await self.made(f"-{number}")
        mine = equals("keywords", self.service_class)

        def names(session: LdapSession, size: int) -> list[str]:
            found = session.search(self.parent, mine, ["cn"], page_size=size)
            return sorted((each.text("cn") or "")[-2:] for each in found)

        for size in (1, 3, 7, 500):
            pages = await self.do("alice", lambda session, size=size: names(session, size))  # type: ignore[misc]
            self.assertEqual(pages, [f"-{number}" for number in range(7)], size)
        first = await self.do(
            "alice", lambda session: next(session.search(self.parent, mine, page_size=1)).attributes
        )
        self.assertEqual(dict(first), {})

    async def test_root(self) -> None:
        """The domain controller says where its domain is, and the global catalog what it lacks."""
        await self.made(serviceClassName="x", serviceDNSName="y")
        full = ("x", "y")  # Samba's catalog has every attribute
        for catalog, known in ((False, full), (True, full if self.is_samba else (None, None))):

            def look(session: LdapSession) -> tuple[Any, ...]:
                entry = session.read(self.dn(), ["serviceClassName", "serviceDNSName", "keywords"])
                texts = map(entry.text, ("serviceClassName", "serviceDNSName"))
                return session.domain_dn, session.forest_dn, entry.text("keywords"), *texts

            self.assertEqual(
                await self.do("alice", look, global_catalog=catalog),
                (self.place.base_dn, self.place.base_dn, self.service_class, *known),
            )


class RightsContract(_Case):
    """Rights to write, account by account."""

    async def test_who_may_create_below_a_host(self) -> None:
        """An administrator, and the host itself, which may remove what others put there."""
        table = {"alice": 50, "svc-echo": 50, "rogue": 50, "srv1": 0, "administrator": 0}
        for user, code in table.items():
            self.assertEqual(await self.add(self.dn(), user=user), code, user)
            if code == 0:
                port = ("replace", "serviceBindingInformation", "1")
                self.assertEqual(await self.modify(self.dn(), port, user=user), 0)
                self.assertEqual(await self.modify(self.dn(), port, user="rogue"), 50)
                self.assertEqual(await self.code("srv1", lambda s: s.delete(self.dn())), 0)
        await self.made()
        port = ("replace", "serviceBindingInformation", "1")
        self.assertEqual(await self.modify(self.dn(), port, user="srv1"), 50)
        for user in ("alice", "svc-echo", "rogue"):
            self.assertEqual(await self.code(user, lambda s: s.delete(self.dn())), 50)
        system = child_dn(self.service_class, f"CN=System,{self.place.base_dn}")
        for user in ("alice", "srv1"):
            self.assertEqual(await self.add(system, user=user), 50)

    async def test_granted_attributes(self) -> None:
        """Two ACEs let an account write two attributes, until they are revoked."""
        guid = (await self.made()).guid
        account = await self.read(f"CN=svc-echo,CN=Users,{self.place.base_dn}", "objectSid")
        sid = acl.parse_sid(account.values("objectSid")[0])

        def rewrite(change: Callable[[bytes, str], bytes]) -> Callable[[LdapSession], object]:
            def work(session: LdapSession) -> bytes:
                (before,) = session.read(guid, ["nTSecurityDescriptor"]).values(
                    "nTSecurityDescriptor"
                )
                change_to = Change("replace", "nTSecurityDescriptor", (change(before, sid),))
                session.modify(guid, [change_to])
                (after,) = session.read(guid, ["nTSecurityDescriptor"]).values(
                    "nTSecurityDescriptor"
                )
                self.assertEqual(acl.granted_to(after).get(sid), change is acl.grant or None)
                return before

            return work

        host, port = ("replace", "serviceDNSName", "x"), ("add", "serviceBindingInformation", "1")
        self.assertEqual(await self.code("svc-echo", rewrite(acl.grant)), 50)
        self.assertEqual(await self.modify(guid, host, user="svc-echo"), 50)
        await self.do("administrator", rewrite(acl.grant))
        self.assertEqual(await self.modify(guid, host, port, user="svc-echo"), 0)
        for user, change in (
            ("svc-echo", ("add", "keywords", "x")),
            ("svc-other", host),
            ("rogue", port),
        ):
            self.assertEqual(await self.modify(guid, change, user=user), 50)
        self.assertEqual(await self.code("svc-echo", lambda s: s.delete(self.dn())), 50)
        await self.do("administrator", rewrite(acl.revoke))
        self.assertEqual(await self.modify(guid, host, user="svc-echo"), 50)

    async def test_winsock_services(self) -> None:
        """Only administrators create there."""
        container = f"CN=WinsockServices,CN=System,{self.place.base_dn}"
        dn = child_dn(self.service_class, container)
        given = {"objectClass": "serviceInstance", "displayName": "x", "serviceClassID": bytes(16)}
        for user, code in (("alice", 50), ("srv1", 50), ("administrator", 0)):
            self.assertEqual(await self.add(dn, user=user, **given), code, user)
        values = (b"\xff\x00", b"a", b"A")
        self.assertEqual(await self.modify(dn, ("add", "winsockAddresses", *values)), 0)
        self.assertEqual(await self.modify(dn, ("delete", "winsockAddresses", b"a")), 0)
        entry = await self.read(dn, "winsockAddresses")
        self.assertEqual(sorted(entry.values("winsockAddresses")), [b"A", b"\xff\x00"])
        self.assertEqual(await self.modify(dn, ("delete", "winsockAddresses", b"a")), 16)
        await self.do("administrator", lambda session: session.delete(dn))


class SPNContract(_Case):
    """Service principal names: who may write them, and that one account has each."""

    def account(self, name: str) -> str:
        where = "Users" if name.startswith("svc") else "Computers"
        return f"CN={name},CN={where},{self.place.base_dn}"

    async def spn(self, user: str, account: str, kind: str, *rests: str) -> int:
        """The result code of writing SPNs of the test's class."""
        names = [f"{self.service_class}/{rest}" for rest in rests]
        return await self.modify(self.account(account), (kind, SPN, *names), user=user)

    async def test_validated_writes(self) -> None:
        """A host gives itself two-part names of its own, without a port; nobody else anything."""
        own, foreign = self.place.host("rogue"), self.place.host("srv1")
        table = [
            ("rogue", "rogue", "add", (own,), 0),
            ("rogue", "rogue", "delete", (own.upper(),), 0),
            ("rogue", "rogue", "add", (own, "rogue"), 0),
            ("rogue", "rogue", "add", (own,), 20),
            ("rogue", "rogue", "delete", (own, "rogue"), 0),
            ("rogue", "rogue", "delete", (own,), 16),
            ("rogue", "rogue", "add", ("ROGUE",), 0),
            ("rogue", "rogue", "delete", ("rogue",), 0),
            ("rogue", "rogue", "add", (f"{own}:80",), 19),
            ("rogue", "rogue", "add", (f"{own}/x",), 19),
            ("rogue", "rogue", "add", (foreign,), 19),
            ("rogue", "rogue", "add", (own, foreign), 19),
            ("rogue", "srv1", "add", (foreign,), 50),
            ("rogue", "svc-echo", "add", (own,), 50),
            ("alice", "rogue", "add", (own,), 50),
            ("svc-echo", "svc-echo", "add", (foreign,), 50),
            ("administrator", "rogue", "add", (f"{own}/x",), 0),
            ("alice", "rogue", "delete", (f"{own}/x",), 50),
            ("administrator", "rogue", "delete", (f"{own}/X",), 0),
        ]
        for user, account, kind, names, code in table:
            case = (user, account, kind, names)
            self.assertEqual(await self.spn(user, account, kind, *names), code, case)

    async def test_unique_in_the_forest(self) -> None:
        """A name is registered on one account, whatever its case; on the same one it is there
        already.
        """
        name = "h/CN=a\\, ü*,DC=x"
        self.assertEqual(await self.spn("administrator", "svc-other", "add", name, "i"), 0)
        self.assertEqual(await self.spn("administrator", "svc-other", "add", name), 20)
        for kind in ("add", "replace"):
            for taken in ((name,), (name.upper(),), ("j", "I")):
                self.assertEqual(
                    await self.spn("administrator", "svc-echo", kind, *taken), 19, (kind, taken)
                )

        def refused(session: LdapSession) -> int:
            change = [Change("add", SPN, (f"{self.service_class}/{name}",))]
            try:
                session.modify(self.account("svc-echo"), change)
            except DirectoryRefused as error:
                return error.win32
            return 0

        self.assertEqual(await self.do("administrator", refused), SPN_NOT_UNIQUE)
        anew = [("delete", SPN, f"{self.service_class}/{name}")]
        anew.append(("add", SPN, f"{self.service_class}/{name.replace('ü', 'Ü')}"))
        self.assertEqual(await self.modify(self.account("svc-other"), *anew), 0)
        self.assertEqual(await self.spn("administrator", "svc-other", "delete", name, "i"), 0)
        self.assertEqual(await self.spn("administrator", "svc-echo", "add", name, "i"), 0)
        self.assertEqual(await self.spn("administrator", "svc-echo", "replace", "k"), 0)
        respelled = await self.spn("administrator", "svc-echo", "add", "K")
        self.assertEqual(respelled, 0 if self.is_samba else 20)
        self.assertEqual(await self.spn("administrator", "svc-echo", "replace"), 0)
        self.assertEqual(await self.texts(self.account("svc-echo"), SPN), [])

    async def test_aliases(self) -> None:
        """``host/h`` is refused where another account has ``http/h``; the other way round not."""
        host = f"{self.service_class}.example"
        other, echo = self.account("svc-other"), self.account("svc-echo")
        table = [
            (other, "add", f"http/{host}", 0),
            (echo, "add", f"host/{host}", 19),
            (other, "add", f"host/{host}", 0),
            (other, "delete", f"http/{host}", 0),
            (echo, "add", f"HTTP/{host}", 0),
            (other, "delete", f"host/{host}", 0),
            (echo, "delete", f"http/{host}", 0),
        ]
        for account, kind, name, code in table:
            self.assertEqual(await self.modify(account, (kind, SPN, name)), code, (kind, name))

    async def test_found_by_pattern(self) -> None:
        """SPNs are found by equality and by pattern, in the domain and in the forest."""
        name = "h/CN=a\\, (ü*,DC=x"
        self.assertEqual(await self.spn("administrator", "svc-echo", "add", name, "i"), 0)
        users = parent_of(self.account("svc-echo"))
        full = f"{self.service_class.upper()}/{name}"
        table: Sequence[tuple[list[str], str]] = [
            (["svc-echo"], equals(SPN, full)),
            (["svc-echo"], equals(SPN, full.replace("ü", "Ü"))),
            ([], equals(SPN, full[:-1])),
            (["svc-echo"], matches(SPN, f"{self.service_class}/*/CN=A\\, (*")),
            (["svc-echo"], matches(SPN, f"{self.service_class}/*")),
            ([], matches(SPN, f"*{self.service_class}x/*")),
        ]
        for names, filter in table:
            self.assertEqual(await self.found(filter, users), names, filter)
            self.assertEqual(
                await self.found(filter, "", "subtree", global_catalog=True), names, filter
            )
