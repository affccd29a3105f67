"""The identity of a client in a PROXY header, and clients who would forge it."""

from __future__ import annotations

from pathlib import Path
from typing import cast
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

import mutauth_twisted
from mutauth_twisted.access.logon import Logon
from mutauth_twisted.errors import MutualAuthError, PeerNotAuthenticated
from mutauth_twisted.gateway.forwarded import CUT, ForwardedIdentity, Tlv, proxy_introducer
from mutauth_twisted.gateway.proxyprotocol import LONGEST, HeaderParser, InvalidHeader, ProxyHeader
from mutauth_twisted.identity import PeerIdentity
from tests.unit.gateway.client_case import CLIENT, DOMAIN_SID, LOGON, SERVICE, SPN, client, identity


def told(data: bytes) -> ForwardedIdentity:
    """The identity that a backend reads in bytes."""
    header, _ = cast(tuple[ProxyHeader, bytes], HeaderParser().feed(data))
    return cast(ForwardedIdentity, ForwardedIdentity.told(header))


_TEXT = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=40)
_SIDS = st.lists(st.integers(0, 2**32 - 1).map(lambda rid: f"S-1-5-21-1-2-3-{rid}"), max_size=400)


class HeaderTests(SynchronousTestCase):
    """Facts that a backend is told."""

    def introduced(self, who: PeerIdentity, *, groups: bool = False) -> bytes:
        """The bytes that a backend gets before the client's."""
        return proxy_introducer(SPN, groups=groups)(client(who)).connected(mock.Mock())

    def test_told(self) -> None:
        """Each part comes from the security context, and arrives."""
        data = self.introduced(identity(), groups=True)
        header, rest = HeaderParser().feed(data) or self.fail("it is cut")
        self.assertEqual((header.source, header.destination, rest), (CLIENT, SERVICE, b""))
        self.assertEqual(
            dict(header.tlvs),
            {
                0x05: b"c-1",
                0xE0: b"alice@EXAMPLE.COM",
                0xE1: b"EXAMPLE\\alice",
                0xE2: f"{DOMAIN_SID}-1104".encode(),
                0xE3: b"EXAMPLE.COM",
                0xE4: b"kerberos",
                0xE5: SPN.encode(),
                0xE6: f"{DOMAIN_SID}-513,S-1-18-1".encode(),
            },
        )
        expected = ForwardedIdentity.of(identity(), SPN, "c-1", groups=True)
        self.assertEqual(told(data), expected)

    def test_groups_when_asked(self) -> None:
        """Groups are told only where that is asked for; unknown ones never are, and none at all
        are told as such.
        """
        self.assertIsNone(told(self.introduced(identity())).groups)
        for logon, groups in (
            (LOGON, LOGON.groups),
            (Logon("alice", "EXAMPLE"), ()),
            (Logon("alice", "EXAMPLE", groups_known=False), None),
            (None, None),
        ):
            data = self.introduced(identity(logon=logon), groups=True)
            self.assertEqual(told(data).groups, groups)

    def test_no_pac(self) -> None:
        """Nothing takes the place of an account that is unknown."""
        read = told(self.introduced(identity(logon=None)))
        self.assertEqual((read.account, read.sid), (None, None))

    def test_alias(self) -> None:
        """A client that comes under a name of its choice: account and SID are its own."""
        read = told(self.introduced(identity("administrator@EXAMPLE.COM")))
        self.assertEqual((read.account, read.sid), ("EXAMPLE\\alice", f"{DOMAIN_SID}-1104"))

    def test_claimed_spn_is_not_told(self) -> None:
        """A name that a client wrote on its ticket is not taken for the service's SPN."""
        data = self.introduced(identity(claimed_spn="other/host.example.com"))
        self.assertEqual(told(data).spn, SPN)
        self.assertNotIn(b"other/host", data)

    def test_unreadable_pac(self) -> None:
        """A client whose PAC cannot be read is refused."""

        def unreadable() -> Logon:
            raise PeerNotAuthenticated("alice", "its PAC is cut")

        who = identity(read_logon=unreadable)
        self.assertRaises(PeerNotAuthenticated, self.introduced, who)

    def test_refused(self) -> None:
        """Names that a backend could take for others are not told at all: the client is refused
        with one line that has a code.
        """
        for who in (
            identity("ali\0ce@EXAMPLE.COM"),
            identity("alice\r\nroot@EXAMPLE.COM"),
            identity("alice\x1b[2J@EXAMPLE.COM"),
            identity("alice\u2028@EXAMPLE.COM"),
            identity("ali\udc80ce@EXAMPLE.COM"),
            identity("a" * LONGEST + "@EXAMPLE.COM"),
            identity(logon=Logon("alice\0", "EXAMPLE")),
            identity(logon=Logon("alice", "EXA\nMPLE")),
        ):
            error = self.assertRaises(MutualAuthError, self.introduced, who)
            self.assertEqual(error.code, "identity-not-forwardable")
            line = error.coded
            self.assertTrue(line.isprintable(), repr(line))

    @given(_TEXT, _TEXT, _SIDS, st.booleans())
    def test_round_trip(self, name: str, domain: str, sids: list[str], groups: bool) -> None:
        """Any printable name arrives as it is, and so do the groups, as far as there is room for
        them: the header is never too long, and a cut never silent.
        """
        logon = Logon(name, domain, sids[0] if sids else None, tuple(sids))
        who = identity(f"{name}@R", logon)
        data = self.introduced(who, groups=groups)
        self.assertLessEqual(len(data), LONGEST)
        read, full = told(data), ForwardedIdentity.of(who, SPN, "c-1", groups=groups)
        if read.groups_cut:
            assert full.groups is not None
            assert read.groups is not None
            self.assertLess(len(read.groups), len(full.groups))
            self.assertEqual(read.groups, full.groups[: len(read.groups)])
            self.assertGreater(len(data), LONGEST - 60, "more would have fitted")
        else:
            self.assertEqual(read, full)

    def test_cut(self) -> None:
        """Groups that do not fit end in a mark, at the end of one of them."""
        sids = tuple(f"{DOMAIN_SID}-{rid}" for rid in range(1000, 1400))
        data = self.introduced(identity(logon=Logon("alice", "EXAMPLE", None, sids)), groups=True)
        header, _ = HeaderParser().feed(data) or self.fail("it is cut")
        *kept, last = (header.value(Tlv.GROUPS) or b"").decode().split(",")
        self.assertEqual(last, CUT)
        self.assertEqual(tuple(kept), sids[: len(kept)])

    def test_no_room_for_a_mark(self) -> None:
        """Where not even the mark fits, the client is refused, and never told with fewer groups."""
        for size in range(LONGEST - 400, LONGEST):
            who = identity("a" * size + "@R", Logon("a", "B", None, ("S-1-5-21-1-2-3-4",) * 40))
            try:
                data = self.introduced(who, groups=True)
            except MutualAuthError:
                break
            self.assertTrue(told(data).groups_cut)
            self.assertLessEqual(len(data), LONGEST)
        else:
            self.fail("it always fits")


class ToldTests(SynchronousTestCase):
    """Result of TLVs at a backend."""

    needed = {
        Tlv.PRINCIPAL: b"alice@R",
        Tlv.REALM: b"R",
        Tlv.MECHANISM: b"kerberos",
        Tlv.SPN: b"s/h",
    }

    def header(self, **changes: bytes | None) -> ProxyHeader:
        """A header with other values by name; None: without it."""
        values = {tlv.name: value for tlv, value in self.needed.items()} | changes
        tlvs = [(Tlv[name], value) for name, value in values.items() if value is not None]
        return ProxyHeader(CLIENT, SERVICE, tlvs)

    def test_no_identity(self) -> None:
        """The header of another proxy tells none, whatever its unique id."""
        self.assertIsNone(ForwardedIdentity.told(ProxyHeader(CLIENT, SERVICE, [(5, b"\xff\0")])))
        self.assertIsNone(ForwardedIdentity.told(ProxyHeader(local=True)))

    def test_refused(self) -> None:
        """Identities that are not whole, or not text, are refused."""
        for header in (
            *(self.header(**{tlv.name: None}) for tlv in self.needed),
            self.header(PRINCIPAL=b"\xff@R"),
            self.header(ACCOUNT=b"D\\ali\0ce"),
            self.header(SID=b"S-1\n"),
            self.header(UNIQUE_ID=b"\xff"),
        ):
            self.assertRaises(InvalidHeader, ForwardedIdentity.told, header)

    def test_cut_of_nothing(self) -> None:
        """A mark alone: there are groups, and none of them is told."""
        read = ForwardedIdentity.told(self.header(GROUPS=CUT.encode()))
        assert read is not None
        self.assertEqual((read.groups, read.groups_cut), ((), True))


class DocumentTests(SynchronousTestCase):
    """The header in docs/identity.md, for those who write receivers."""

    def test_header(self) -> None:
        """It is what a gateway says of such a client."""
        page = (Path(mutauth_twisted.__file__).parents[1] / "docs/identity.md").read_text("utf-8")
        _, _, after = page.partition("**To test a receiver**")
        words, _, rest = after.partition("```text\n")
        data = bytes.fromhex(rest.partition("```")[0])
        self.assertIn(f"{len(data)} bytes", words)
        expected = ForwardedIdentity(
            "alice@EXAMPLE.COM",
            "EXAMPLE.COM",
            "kerberos",
            "shop/srv1.example.com",
            "EXAMPLE\\alice",
            f"{DOMAIN_SID}-1104",
            (f"{DOMAIN_SID}-513", "S-1-18-1"),
            connection_id="d3b07384d113-2a",
        )
        self.assertEqual(told(data), expected)
        ends = (IPv4Address("TCP", "192.0.2.7", 40000), IPv4Address("TCP", "192.0.2.1", 9000))
        self.assertEqual(expected.header(*ends).encode(), data)
        self.assertIn(expected.account, words)
