"""Entries that a service keeps in the directory: the same promises for every kind of object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.admin.installation import install
from mutauth_twisted.admin.scpadmin import read_dacl, write_dacl
from mutauth_twisted.directory import acl, rnr
from mutauth_twisted.directory.binding import BindingInformation
from mutauth_twisted.directory.published import ENTRIES
from mutauth_twisted.directory.published.base import (
    Elsewhere,
    Inspection,
    PublishedEntry,
    Registration,
    TakenByAnother,
)
from mutauth_twisted.directory.rnr import Address
from mutauth_twisted.directory.scp import read_scp
from mutauth_twisted.directory.servicename import RNR_FORMS, ServiceName
from mutauth_twisted.directory.spns import add_spns, find_account, remove_spns
from mutauth_twisted.errors import MutualAuthError, NotFound, ServiceCheckFailed
from mutauth_twisted.ldap.session import Change
from mutauth_twisted.testing.directory import Domain

HOST = "srv1.test.example"
BINDING = BindingInformation(9000)


class PublishedCase:
    """The cases of every kind, with the right to write its object.

    :cvar kind: a key of :data:`ENTRIES`.
    :cvar forms: the service's SPN forms.
    :ivar user: who has the right.
    """

    kind: str
    forms: tuple[str, ...]
    user = "svc-echo"

    def setUp(self) -> None:
        self.domain = Domain()
        self.domain.add_user("svc-echo")
        self.domain.add_user("svc-other")
        self.domain.add_computer("srv1")
        self.admin, self.catalog = self.domain.session(), self.domain.session(catalog=True)
        self.service = ServiceName("echo", HOST, self.forms)
        self.state = Path(self.mktemp()).absolute()  # type: ignore[attr-defined]

    def installed(self) -> str:
        """Install the service; its object's DN."""
        raise NotImplementedError

    def entry(self, **options: Any) -> PublishedEntry:
        return ENTRIES[self.kind](
            Registration(self.service, "svc-echo", state_dir=self.state, **options)
        )

    def check(self, entry: PublishedEntry) -> Any:
        return entry.check(self.session(), self.domain.session("svc-echo", catalog=True))

    def inspect(self, entry: PublishedEntry) -> Inspection:
        catalog = self.domain.session("svc-echo", catalog=True)
        return entry.inspect(self.session(), catalog)

    def session(self) -> Any:
        return self.domain.session(self.user)

    def spoil(self, dn: str) -> None:
        """Take what is published out of the object."""
        change = Change("replace", self.entry().attributes[-1])
        self.admin.modify(dn, [change])

    def refusal(self: Any, kind: type[MutualAuthError], work: Any, *given: Any) -> str:
        return str(self.assertRaises(kind, work, *given))

    def test_life(self: Any) -> None:
        """Checked, published once, fixed when somebody has spoilt it, and withdrawn."""
        dn = self.installed()
        entry = self.entry()
        self.assertFalse(entry.withdraw(self.session()))
        standing = self.check(entry)
        self.assertEqual((standing.found.dn, standing.warnings), (dn, ()))
        self.assertTrue(entry.publish(self.session(), BINDING))
        self.assertFalse(entry.publish(self.session(), BINDING))
        self.assertEqual(self.inspect(entry), Inspection(()))
        self.spoil(dn)
        seen = self.inspect(entry)
        self.assertEqual((seen.wrong, len(seen.fixed)), ((), 1))
        self.assertIn(f"{entry.subject}: it ", str(seen.fixed[0]))
        self.assertTrue(str(seen.fixed[0]).endswith("; published again"))
        self.assertEqual(self.inspect(entry), Inspection(()))
        self.assertTrue(entry.withdraw(self.session()))
        self.assertFalse(entry.withdraw(self.session()))
        values = self.admin.read(dn, [entry.attributes[-1]]).texts(entry.attributes[-1])
        self.assertEqual(values, ())

    def test_what_another_one_has_published_stays(self: Any) -> None:
        """Nothing is withdrawn that is not ours any more."""
        dn = self.installed()
        entry = self.entry()
        self.check(entry)
        entry.publish(self.session(), BINDING)
        self.spoil(dn)
        self.assertFalse(entry.withdraw(self.session()))

    def test_spns(self: Any) -> None:
        """A missing SPN refuses, warns or does not matter; one on another account is named."""
        self.installed()
        spn = self.check(self.entry()).found.spns[0]
        remove_spns(self.admin, find_account(self.admin, "svc-echo"), [spn])
        line = self.refusal(ServiceCheckFailed, self.check, self.entry())
        self.assertIn(f"SPN {spn}: it is not on account svc-echo", line)
        (warning,) = self.check(self.entry(spn_check="warn")).warnings
        self.assertEqual(str(warning), line)
        self.assertEqual(self.check(self.entry(spn_check="off")).warnings, ())
        add_spns(self.admin, find_account(self.admin, "svc-other"), [spn])
        line = self.refusal(ServiceCheckFailed, self.check, self.entry())
        self.assertIn(f"SPN {spn}: it is on svc-other", line)

    def test_without_the_right(self: Any) -> None:
        """Neither the start nor a look later can write; both name the right and the command."""
        dn = self.installed()
        entry = self.entry()
        self.check(entry)
        self.deny(dn)
        denied = f"svc-echo may not write {' and '.join(entry.attributes)}"
        line = self.refusal(ServiceCheckFailed, entry.publish, self.session(), BINDING)
        self.assertIn(denied, line)
        self.assertIn("run mutauth ", line)
        line = str(*self.inspect(entry).wrong)
        self.assertIn(f"{entry.subject}: it ", line)
        self.assertIn(f", and {denied}", line)

    def test_another_class_or_none(self: Any) -> None:
        """An object that says it is another service's, or not whose it is, is not ours."""
        dn = self.installed()
        for says, cause in (
            ("other", "it is of service class other, not echo"),
            (None, "it names no service class"),
        ):
            self.name_class(dn, says)
            line = self.refusal(ServiceCheckFailed, self.check, self.entry())
            self.assertIn(cause, line)

    def test_not_there(self: Any) -> None:
        """The remedy is the administrator's command."""
        self.assertIn("; run mutauth ", self.refusal(NotFound, self.check, self.entry()))

    def deny(self, dn: str) -> None:
        """Take the right to write from the service's account."""
        raise NotImplementedError

    def name_class(self, dn: str, name: str | None) -> None:
        """Have the object say another class."""
        raise NotImplementedError


class ScpEntryTests(PublishedCase, SynchronousTestCase):
    """Service connection points."""

    kind = "scp"
    forms = ("guid", "dn")

    def installed(self) -> str:
        return install(self.admin, self.catalog, self.service, "svc-echo").dn

    def deny(self, dn: str) -> None:
        guid, sid = read_scp(self.admin, dn).guid, find_account(self.admin, "svc-echo").sid
        write_dacl(self.admin, guid, acl.revoke(read_dacl(self.admin, guid), sid))

    def name_class(self, dn: str, name: str | None) -> None:
        values = () if name is None else (name,)
        self.admin.modify(dn, [Change("replace", "serviceClassName", values)])

    def test_right_lost_while_all_is_right(self) -> None:
        """It is noticed before it is needed."""
        dn = self.installed()
        entry = self.entry()
        self.check(entry)
        entry.publish(self.session(), BINDING)
        self.deny(dn)
        line = str(*self.inspect(entry).wrong)
        self.assertIn("may not write serviceDNSName and serviceBindingInformation of it any", line)

    def test_another_instance(self) -> None:
        """Nobody publishes over one before it is known that it has gone, and then over no other."""
        dn = self.installed()
        entry = self.entry()
        spns = self.check(entry).found.spns
        gone: list[Elsewhere] = []
        for port in (9001, 9002):
            theirs = Change("replace", "serviceBindingInformation", (str(port),))
            self.admin.modify(dn, [theirs])
            error = self.assertRaises(
                TakenByAnother, entry.publish, self.session(), BINDING, tuple(gone)
            )
            self.assertIn(f"it points to {HOST} {port}, where another instance runs", str(error))
            there = Elsewhere(HOST, BindingInformation(port), spns[1])
            self.assertEqual(error.there, there)
            seen = entry.inspect(self.session(), self.catalog, gone)
            self.assertEqual((seen.wrong, seen.fixed, seen.there), ((error.finding,), (), there))
            gone.append(there)
        seen = entry.inspect(self.session(), self.catalog, gone)
        self.assertEqual((seen.wrong, seen.there), ((), None))
        self.assertIn(
            f"it said {HOST} 9002 instead of {HOST} 9000; published again", str(seen.fixed[0])
        )

    def test_the_form_that_clients_ask_for(self) -> None:
        """The DN, unless it holds what not every KDC finds, or is not registered."""
        for names, expected in (
            ({}, "dn"),
            ({"scp_name": "a b"}, "guid"),
            ({"scp_name": "a c", "spn_forms": ("dn",)}, "dn"),
            ({"scp_name": "d", "spn_forms": ("guid",)}, "guid"),
        ):
            self.service = ServiceName("echo", HOST, **names)  # type: ignore[arg-type]
            self.installed()
            entry = self.entry()
            self.check(entry)
            entry.publish(self.session(), BINDING)
            assert entry.published is not None
            self.assertEqual(entry.published.spn_form, expected)

    def test_hosts_in_dns(self) -> None:
        """A connection point that names an SRV record is left alone."""
        dn = self.installed()
        srv = Change("replace", "serviceDNSNameType", ("SRV",))
        self.admin.modify(dn, [srv])
        entry = self.entry()
        self.check(entry)
        self.assertFalse(entry.publish(self.session(), BINDING))
        self.assertEqual(self.inspect(entry), Inspection(()))


class RnrEntryTests(PublishedCase, SynchronousTestCase):
    """RnR services."""

    kind = "rnr"
    forms = RNR_FORMS

    def installed(self) -> str:
        instance = rnr.publish(self.admin, "echo", "echo", [])
        account = find_account(self.admin, "svc-echo")
        add_spns(self.admin, account, [instance.spn(HOST)])
        self.user = "administrator"
        return instance.dn

    def deny(self, dn: str) -> None:
        self.user = "svc-echo"

    def name_class(self, dn: str, name: str | None) -> None:
        class_dn = dn.replace("CN=echo,", "CN=echo-class,", 1)
        if name is None:
            self.admin.delete(class_dn)
        else:
            self.admin.modify(class_dn, [Change("replace", "displayName", (name,))])

    def test_a_missing_class_is_made_again(self) -> None:
        """Publishing is what the refused start advises."""
        dn = self.installed()
        self.name_class(dn, None)
        line = self.refusal(ServiceCheckFailed, self.check, self.entry())
        self.assertIn("run mutauth rnr publish echo --service-class echo", line)
        lines: list[str] = []
        rnr.publish(self.admin, "echo", "echo", [Address(HOST, BINDING)], lines.append)
        self.assertIn("created service class", str(lines[0]))
        self.check(self.entry())

    def test_what_an_administrator_has_published_stays(self) -> None:
        """Without the right it is enough, and is nobody else's to withdraw."""
        dn = self.installed()
        rnr.publish(self.admin, "echo", "echo", [Address(HOST, BINDING)])
        self.deny(dn)
        entry = self.entry()
        self.check(entry)
        self.assertFalse(entry.publish(self.session(), BINDING))
        self.assertEqual(self.inspect(entry), Inspection(()))
        self.assertFalse(entry.withdraw(self.session()))
