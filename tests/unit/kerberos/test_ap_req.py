"""The name on a ticket, read from tokens of every kind."""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

from gssapi.raw.misc import GSSError
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.core.context import StepFailed
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import MutualAuthError, PeerNotAuthenticated
from mutauth_twisted.kerberos import ap_req as ticket
from mutauth_twisted.kerberos.ap_req import is_spnego, ticket_label, ticket_principal
from mutauth_twisted.kerberos.errors import TicketLabel
from mutauth_twisted.kerberos.refusals import Acceptor, explain_token
from mutauth_twisted.mechanisms import NEGOTIATE, kerberos
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator, ServiceKeys
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.forge import Realm, _name, der, make_realm
from mutauth_twisted.testing.hostile import (
    ap_req,
    long_tag,
    opened,
    raw_in,
    request,
    spnego,
    worst_tokens,
)
from mutauth_twisted.text import LONGEST_STRANGER

BY_DN = SPN("echoSvc", "srv1.test.example", "CN=echoSvc,CN=SRV1,CN=Computers,DC=test,DC=example")
LONG = SPN("echoSvc", "srv1.test.example", "CN=" + "x" * 300)


def first_token(realm: Realm, spn: SPN) -> bytes:
    """A client's first token for the SPN."""
    client = KerberosInitiator(
        spn, ClientCredentials(ccache=realm.ccache("alice", str(spn), "svc-echo")), Protection.SEAL
    )
    return client.step(None).token


class NameTests(SynchronousTestCase):
    """Tokens that are invalid, and those that are."""

    def setUp(self) -> None:
        self.realm = make_realm(self)

    def test_names(self) -> None:
        """Names of two and three parts, and with lengths of one to three bytes, are read from real
        tokens.
        """
        for spn in (SPN("echoSvc", "srv1"), BY_DN, LONG):
            token = first_token(self.realm, spn)
            self.assertEqual(ticket_label(token).name, str(spn))
            self.assertEqual(ticket_principal(token), f"{spn}@TEST.EXAMPLE")

    def test_inside_a_later_token(self) -> None:
        """A client that guessed wrong first sends its ticket in an answer of SPNEGO's."""
        token = first_token(self.realm, BY_DN)
        size = len(token).to_bytes(2, "big")
        inner = b"\xa2\x82" + (len(token) + 4).to_bytes(2, "big") + b"\x04\x82" + size + token
        body = b"\x30\x82" + len(inner).to_bytes(2, "big") + inner
        answer = b"\xa1\x82" + len(body).to_bytes(2, "big") + body
        self.assertEqual(ticket_label(answer).name, str(BY_DN))
        for end in range(len(answer)):
            self.assertRaises(ValueError, ticket_label, answer[:end])

    def test_inside_spnego(self) -> None:
        """The name is found in SPNEGO's first token as well, which is known for what it is."""
        for spn in (SPN("echoSvc", "srv1"), BY_DN, LONG):
            credentials = ClientCredentials(ccache=self.realm.ccache("alice", str(spn), "svc-echo"))
            token = KerberosInitiator(spn, credentials, Protection.SEAL, NEGOTIATE).step(None).token
            self.assertEqual((ticket_label(token).name, is_spnego(token)), (str(spn), True))
            self.assertFalse(is_spnego(first_token(self.realm, spn)))
            for size in range(len(token)):
                self.assertRaises(ValueError, ticket_label, token[:size])
        for size in range(10):
            self.assertFalse(is_spnego(token[:size]))

    def test_labels(self) -> None:
        """So are the kind and version of the key, and a version that is not there."""
        token = first_token(self.realm, BY_DN)
        self.assertEqual(ticket_label(token), TicketLabel(str(BY_DN), 18, 1, 18))
        kind = token.index(b"\xa0\x03\x02\x01\x12\xa1\x03\x02\x01\x01")
        other = token[: kind + 4] + b"\x17\xa1\x03\x02\x01\x07" + token[kind + 10 :]
        self.assertEqual(ticket_label(other), TicketLabel(str(BY_DN), 23, 7, 18))
        without = ap_req(_name(str(BY_DN).split("/")), version=None)
        self.assertEqual(ticket_label(without), TicketLabel(str(BY_DN), 18, None, 18))
        for version in (b"\xa1\x03\x02\x00\x01", b"\xa3\x03\x02\x01\x01", b"\xa0\x03\x02\x01\x01"):
            self.assertRaises(
                ValueError, ticket_label, token[: kind + 5] + version + token[kind + 10 :]
            )
        self.assertRaises(ValueError, ticket_label, b"")

    def test_hostile_labels(self) -> None:
        """On any token of a stranger, the refusal is one line in our words."""
        token, keytab = first_token(self.realm, BY_DN), self.realm.keytab("svc-echo")
        keys = ServiceKeys(ServiceCredentials(keytab))
        refusal = GSSError(0xD0000, -1765328349 & 0xFFFFFFFF)
        for position in range(len(token) // 2):
            for bit in (0x01, 0x10, 0x80):
                changed = token[:position] + bytes([token[position] ^ bit]) + token[position + 1 :]
                try:
                    label = ticket_label(changed)
                except ValueError:
                    continue
                error = explain_token(refusal, "client", Acceptor(keytab, label))
                self.assertIsInstance(error, MutualAuthError)
                self.assertTrue(str(error).isprintable())
        self.assertTrue(keys.acceptor("client").step(token).complete)

    def test_worst(self) -> None:
        """The worst tokens are refused with a short line that no terminal obeys, read in few
        steps.
        """
        keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")))
        steps = 0

        def counted(data: bytes, at: int, end: int) -> tuple[int, int, int]:
            nonlocal steps
            steps += 1
            return element(data, at, end)

        element = ticket._element
        self.patch(ticket, "_element", counted)
        for what, token in worst_tokens().items():
            steps = 0
            error = self.assertRaises(StepFailed, keys.acceptor("10.0.0.1:1").step, token).error
            self.assertIsInstance(error, MutualAuthError, what)
            self.assertLess(len(str(error)), LONGEST_STRANGER, what)
            self.assertEqual(raw_in(str(error)), [], what)
            self.assertLess(steps, 100, what)

    def test_name_is_cut(self) -> None:
        """A refusal shows the beginning of the name on the ticket."""
        token = ap_req(_name(["echoSvc", "x" * 3000]), kind=23)
        self.assertEqual(len(ticket_label(token).name), 3008)
        keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")))
        error = self.assertRaises(StepFailed, keys.acceptor("10.0.0.1:1").step, token).error
        self.assertIn(f"for echoSvc/{'x' * 92}... is encrypted", str(error))

    def test_cut(self) -> None:
        """A token that is cut anywhere is refused."""
        token = first_token(self.realm, BY_DN)
        for size in range(len(token)):
            self.assertRaises(ValueError, ticket_label, token[:size])

    def test_other_tags(self) -> None:
        """Elements of another kind than RFC 4120 has there are refused, whatever is in them."""
        token = first_token(self.realm, BY_DN)
        name = token.index(b"echoSvc")
        for position in (
            0,
            token.index(b"\x06\x09"),
            token.index(b"\x6e\x82"),
            token.index(b"\x61\x82"),
            name - 2,
        ):
            changed = token[:position] + bytes([token[position] ^ 1]) + token[position + 1 :]
            self.assertRaises(ValueError, ticket_label, changed)

    def test_one_way_to_read(self) -> None:
        """Tags and lengths in other forms than DER's, fields out of order, and what is not in RFC
        4120, are refused.
        """
        name = _name(["echoSvc", "srv1"])
        fields = opened(ap_req(name))
        label = ticket_label(
            request(*(der(0xA0 + number, content) for number, content in fields.items()))
        )
        self.assertEqual(label, TicketLabel("echoSvc/srv1", 18, 1, 18))
        first, second, third, fourth, fifth = (
            der(0xA0 + number, content) for number, content in fields.items()
        )
        held = fields[3]
        size = len(held)
        for what, token in {
            "long tag": request(first, second, third, long_tag(3, held), fifth),
            "long tag and another ticket": request(
                first, second, third, long_tag(3, held), fifth, fourth, fifth
            ),
            "longer length": request(
                first, second, third, b"\xa3\x83\0" + size.to_bytes(2, "big") + held, fifth
            ),
            "long length of a short one": request(
                b"\xa0\x81\x03" + fields[0], second, third, fourth, fifth
            ),
            "indefinite length": request(first, second, third, b"\xa3\x80" + held + b"\0\0", fifth),
            "a field twice": request(first, second, third, fourth, fourth, fifth),
            "out of order": request(first, second, third, fifth, fourth),
            "missing": request(first, third, fourth, fifth),
            "unknown before": request(der(0x05), first, second, third, fourth, fifth),
            "unknown between": request(first, second, third, der(0x05), fourth, fifth),
            "unknown behind": request(first, second, third, fourth, fifth, der(0xA5, b"x")),
            "something in a field's end": request(
                first, second, third, der(0xA3, held, b"\x05\0"), fifth
            ),
            "something in the ticket's end": request(
                first, second, third, der(0xA3, held[:-1]), fifth
            ),
            "something behind": request(first, second, third, fourth, fifth) + b"\0",
            "no frame": der(0x6E, der(0x30, first, second, third, fourth, fifth)),
        }.items():
            for read, sent in (
                (ticket_label, token),
                (ticket_principal, token),
                (ticket_label, spnego(token)),
            ):
                with self.assertRaises(ValueError, msg=what):
                    read(sent)

    def test_other_messages(self) -> None:
        """A service's answer is not an AP-REQ."""
        token = first_token(self.realm, BY_DN)
        keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")))
        self.assertRaises(ValueError, ticket_label, keys.acceptor("client").step(token).token)
        self.assertRaises(ValueError, ticket_label, b"NTLMSSP\0" + bytes(40))

    @settings(max_examples=400, deadline=None)
    @given(data=st.data())
    def test_anything(self, data: st.DataObject) -> None:
        """Any bytes, and a token with any bytes changed, give a name or a ValueError."""
        if not hasattr(self, "token"):
            self.token = first_token(self.realm, BY_DN)
        changed = bytearray(self.token)
        for position, mask in data.draw(
            st.lists(st.tuples(st.integers(0, 200), st.integers(1, 255)), max_size=4)
        ):
            changed[position] ^= mask
        for candidate in (bytes(changed), data.draw(st.binary(max_size=100))):
            try:
                name = ticket_label(candidate).name
            except ValueError as error:
                self.assertNotEqual(str(error), "")
            else:
                self.assertLess(len(name), len(candidate))


class ServiceClassTests(SynchronousTestCase):
    """A service that wants tickets for itself."""

    def setUp(self) -> None:
        self.realm = make_realm(self)

    def verified(self, spn: SPN, service_class: str | None) -> str | None:
        """The name on the ticket, once a service of this class has taken it."""
        keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")), service_class)
        acceptor = keys.acceptor("client")
        acceptor.step(first_token(self.realm, spn))
        return acceptor.verify(Protection.SEAL).claimed_spn

    def test_own(self) -> None:
        """Tickets for the service's own class pass, in whatever case, and so do all where none was
        given.
        """
        for service_class in ("echoSvc", "ECHOsvc", None):
            self.assertEqual(self.verified(BY_DN, service_class), str(BY_DN))

    def test_other(self) -> None:
        """A ticket for another class of the same account is refused, and both are named."""
        with self.assertRaises(PeerNotAuthenticated) as caught:
            self.verified(BY_DN, "otherSvc")
        self.assertIn(f"its ticket is for {BY_DN}, not for otherSvc", str(caught.exception))
        with self.assertRaises(PeerNotAuthenticated):
            self.verified(BY_DN, "echo")

    def test_no_pac(self) -> None:
        """A ticket without a PAC tells of no account and no groups."""
        keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")))
        acceptor = keys.acceptor("client")
        acceptor.step(first_token(self.realm, BY_DN))
        identity = acceptor.verify(Protection.SEAL)
        self.assertEqual((identity.account, identity.sid, identity.groups), (None, None, ()))

    def test_unusable_pac(self) -> None:
        """A PAC that no key vouches for, or that is invalid, is not a missing one."""
        keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")))
        acceptor = keys.acceptor("client")
        acceptor.step(first_token(self.realm, BY_DN))
        identity = acceptor.verify(Protection.SEAL)
        for authenticated, words in ((False, "not vouched for"), (True, "cannot be read")):
            part = SimpleNamespace(authenticated=authenticated, values=[b"anything"])
            with mock.patch.object(kerberos, "get_name_attribute", return_value=part):
                for read in (
                    lambda: identity.account,
                    lambda: identity.sid,
                    lambda: identity.groups,
                ):
                    self.assertIn(words, str(self.assertRaises(PeerNotAuthenticated, read)))
                policy = AccessPolicy(allow=["*@*"], deny=["bob@*"])
                self.assertRaises(
                    PeerNotAuthenticated, policy.permits, identity.principal, identity.read_logon
                )
