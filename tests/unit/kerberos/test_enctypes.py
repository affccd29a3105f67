"""The floor for encryption types: sessions and tickets that are not AES throughout are refused, by
either side.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, permutations, product
from typing import Any

import gssapi
from gssapi.raw import accept_sec_context, get_mic, set_neg_mechs
from gssapi.raw.misc import GSSError
from hypothesis import given, settings
from hypothesis import strategies as st

from mutauth_twisted.core.context import StepFailed
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import (
    AuthenticationError,
    PeerNotAuthenticated,
    ProtocolViolation,
    ToldByTicket,
)
from mutauth_twisted.kerberos import ap_req as ticket
from mutauth_twisted.kerberos.ap_req import ticket_label
from mutauth_twisted.kerberos.enctypes import AES_TYPES, check_keys
from mutauth_twisted.kerberos.errors import TicketLabel
from mutauth_twisted.kerberos.lucid import LucidContext
from mutauth_twisted.mechanisms import KERBEROS, NEGOTIATE, kerberos
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator, ServiceKeys, kerberos_name
from mutauth_twisted.protection import Flag
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.forge import AES128, AES256, DCE_STYLE, RC4, der
from mutauth_twisted.testing.hostile import ap_req, long_tag, opened, request, spnego, with_decoy
from tests.unit.kerberos_case import BY_HOST, SEAL, SPNEGO, Case

_KERBEROS = b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"
_NTLM = b"\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a"


class FloorCase(Case):
    """A service whose keytab has keys of every type."""

    def setUp(self) -> None:
        super().setUp()
        keytab = self.realm.keytab("svc-echo", (AES256, AES128, RC4))
        self.keys = ServiceKeys(ServiceCredentials(keytab), None, NEGOTIATE)

    def third_party(
        self,
        kind: int,
        session: int,
        spn: SPN = BY_HOST,
        flags: int = int(SEAL.requested_flags),
        mechanism: gssapi.OID = gssapi.MechType.kerberos,
        client: str = "alice",
    ) -> gssapi.SecurityContext:
        """A client of GSSAPI's own, with a ticket of these types."""
        ccache = self.realm.ccache(client, str(spn), "svc-echo", kind=kind, session=session)
        credential = gssapi.Credentials(
            usage="initiate", mechs=[mechanism], store={"ccache": ccache}
        )
        if mechanism == SPNEGO:
            set_neg_mechs(credential, [gssapi.MechType.kerberos])
        name = kerberos_name(spn)
        return gssapi.SecurityContext(
            name=name, creds=credential, usage="initiate", mech=mechanism, flags=flags
        )

    def taken_by_mit(self, token: bytes) -> str:
        """The client's name, once GSSAPI by itself has accepted the token; empty: it has not."""
        try:
            # Whoever looks at a token twice must not find it in the replay cache.
            accepted = accept_sec_context(token, self.keys.keytab.acquired_again)
            return str(gssapi.Name(accepted.initiator_name))
        except GSSError:
            return ""


class FloorTests(FloorCase):
    """Tickets and sessions of each type."""

    def test_aes(self) -> None:
        """AES sessions of either size are served."""
        for session in (AES128, AES256):
            client, server = self.established(session=session)
            self.assertEqual(server.verify(SEAL).principal, "alice@TEST.EXAMPLE")
            self.assertEqual(server.unwrap(client.wrap(b"data", seal=True)), (b"data", True))

    def test_service(self) -> None:
        """A service refuses what is not, and says which key it is about, and how to put it
        right.
        """
        for kind, session, error, text, remedy in (
            (
                RC4,
                AES256,
                ToldByTicket,
                "encrypted with arcfour-hmac",
                "msDS-SupportedEncryptionTypes",
            ),
            (RC4, RC4, ToldByTicket, "encrypted with arcfour-hmac", "export its keytab"),
            (AES256, RC4, AuthenticationError, "key is of type arcfour-hmac", "permitted_enctypes"),
        ):
            request = self.third_party(kind, session).step()
            failed = self.step_fails(self.keys.acceptor("client"), request)
            self.assertIs(type(failed.error), error)
            self.assertIn(text, str(failed.error))
            self.assertIn(remedy, failed.error.remedy)
            # Without the floor MIT takes it.
            own = gssapi.Credentials(
                usage="accept", store={"keytab": self.realm.keytab("svc-echo", (AES256, RC4))}
            )
            request = self.third_party(kind, session).step()
            accepted = gssapi.SecurityContext(creds=own, usage="accept")
            self.assertNotEqual(accepted.step(request), b"")
            self.assertTrue(accepted.complete)

    def test_client(self) -> None:
        """A client refuses what is not before it sends anything."""
        for kind, session, text in (
            (RC4, AES256, "the KDC encrypts tickets for it with arcfour-hmac"),
            (RC4, RC4, "the KDC encrypts tickets for it with arcfour-hmac"),
            (AES256, RC4, "key is of type arcfour-hmac"),
        ):
            for package in (KERBEROS, NEGOTIATE):
                ccache = self.realm.ccache(
                    "alice", str(BY_HOST), "svc-echo", kind=kind, session=session
                )
                client = KerberosInitiator(BY_HOST, ClientCredentials(ccache=ccache), SEAL, package)
                failed = self.step_fails(client, None)
                self.assertEqual((type(failed.error), failed.token), (AuthenticationError, b""))
                self.assertIn(text, str(failed.error))
                self.assertIn("msDS-SupportedEncryptionTypes", failed.error.remedy)

    def test_keys(self) -> None:
        """Each of an established context's keys counts, an acceptor's subkey too, and so does the
        kind of its messages.
        """

        def lucid(*types: int, rfc4121: bool = True) -> LucidContext:
            return LucidContext(0, 0, rfc4121, types)

        for kind in AES_TYPES:
            check_keys(lucid(kind, kind), "peer")
        for types in ((RC4,), (AES256, RC4), (RC4, AES256), (16, 16), (0,), (AES256, 25)):
            self.assertRaises(AuthenticationError, check_keys, lucid(*types), "peer")
        self.assertRaises(AuthenticationError, check_keys, lucid(AES256, rfc4121=False), "peer")

    def test_keys_of_the_context(self) -> None:
        """The established context is asked, whatever the request said: on both sides."""
        for side in (0, 1):
            client, server = self.client(), self.keys.acceptor("client")
            with_rc4 = LucidContext(2**32 - 1, 0, True, (AES256, RC4))
            context: Any = (client, server)[side]
            request = client.step(None).token
            self.patch(kerberos, "read_lucid", lambda _, with_rc4=with_rc4: with_rc4)
            if side == 1:
                self.step_fails(context, request)
            else:
                own = gssapi.Credentials(
                    usage="accept", store={"keytab": self.realm.keytab("svc-echo")}
                )
                self.step_fails(
                    context, gssapi.SecurityContext(creds=own, usage="accept").step(request)
                )


class SecondTicketTests(FloorCase):
    """Requests with two tickets, of which MIT uses the one that nobody else sees."""

    def test_type(self) -> None:
        """A ticket of RC4 behind one that looks like AES is refused, bare and inside SPNEGO."""
        decoy = self.third_party(AES256, AES256).step()
        for outer in (bytes, spnego):
            token = outer(with_decoy(self.third_party(RC4, AES256).step(), decoy))
            self.assertNotEqual(self.taken_by_mit(token), "")
            failed = self.step_fails(self.keys.acceptor("client"), token)
            self.assertIs(type(failed.error), ProtocolViolation)
            self.assertIn("its request cannot be read", str(failed.error))

    def test_service_class(self) -> None:
        """Nor does a ticket for another service pass with the name of this one."""
        keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")), "echoSvc")
        decoy = self.third_party(AES256, AES256).step()
        token = with_decoy(
            self.third_party(AES256, AES256, SPN("other", "srv1.test.example")).step(), decoy
        )
        self.assertNotEqual(self.taken_by_mit(token), "")
        self.step_fails(keys.acceptor("client"), token)

    def test_without_mutual_authentication(self) -> None:
        """A request that asks for no answer is no way around it: nothing is said of a ticket that
        was not read.
        """
        for mechanism in (gssapi.MechType.kerberos, SPNEGO):
            flags = int(SEAL.requested_flags & ~Flag.MUTUAL)
            server = self.keys.acceptor("client")
            self.assertTrue(
                server.step(
                    self.third_party(RC4, AES256, flags=flags, mechanism=mechanism).step()
                ).complete
            )
            self.assertRaisesRegex(PeerNotAuthenticated, "without mutual", server.verify, SEAL)

    def test_whatever_mit_takes(self) -> None:
        """Of any request that MIT accepts, the label is that of the ticket that it used, or there
        is none.
        """
        other = SPN("other", "srv1.test.example")
        # Each one's ticket has a name and a type of its own, so that who is accepted tells which
        # ticket it was.
        first = opened(self.third_party(RC4, AES256).step())
        second = opened(self.third_party(AES256, AES128, other, client="bob").step())
        labels = {
            "alice@TEST.EXAMPLE": TicketLabel(str(BY_HOST), RC4, 1, AES256),
            "bob@TEST.EXAMPLE": TicketLabel(str(other), AES256, 1, AES128),
        }
        read = unread = 0
        for own, foreign in ((first, second), (second, first)):
            for elements in chain(_arranged(own, foreign, (3, 4)), _arranged_tickets(own, foreign)):
                for token in (request(elements), spnego(request(elements))):
                    client = self.taken_by_mit(token)
                    if not client:
                        continue
                    try:
                        label = ticket_label(token)
                    except ValueError:
                        unread += 1
                        continue
                    read += 1
                    self.assertEqual(label, labels[client], elements.hex())
        # Both kinds are among them, or this would say nothing.
        self.assertGreater(read, 0)
        self.assertGreater(unread, 100)

    @settings(max_examples=300, deadline=None)
    @given(
        changes=st.lists(
            st.tuples(st.integers(0, 160), st.integers(0, 255), st.booleans()),
            min_size=1,
            max_size=2,
        )
    )
    def test_changed_bytes(self, changes: list[tuple[int, int, bool]]) -> None:
        """Bytes that are changed or come in between, and that MIT does not mind, do not make RC4
        look like AES.
        """
        if not hasattr(self, "changing"):
            self.changing = self.third_party(RC4, AES256).step()
        token = self.changing
        for position, value, between in changes:
            token = token[:position] + bytes((value,)) + token[position + (not between) :]
        if self.taken_by_mit(token):
            try:
                label = ticket_label(token)
            except ValueError:
                return
            self.assertEqual((label.kind, label.session), (RC4, AES256))


def _long_tag(tag: int, content: bytes) -> bytes:
    return long_tag(tag & 0x1F, content)


def _long_length(tag: int, content: bytes) -> bytes:
    return bytes((tag, 0x83)) + len(content).to_bytes(3, "big") + content


def _indefinite(tag: int, content: bytes) -> bytes:
    return bytes((tag, 0x80)) + content + b"\0\0"


def _arranged(
    own: dict[int, bytes], foreign: dict[int, bytes], taken: tuple[int, ...]
) -> Iterator[bytes]:
    """A sequence's fields, one of them written in each form, with each choice of foreign ones in
    each place.

    :param taken: the numbers of the foreign ones.
    """
    strange = [(0xA0 + number, foreign[number]) for number in taken]
    choices = [
        list(each) for size in range(len(strange) + 1) for each in permutations(strange, size)
    ]
    for odd, form, added in product(
        own, (der, _long_tag, _long_length, _indefinite), (*choices, [(0x05, b"")])
    ):
        parts = [
            (form if number == odd else der)(0xA0 + number, content)
            for number, content in own.items()
        ]
        for place in range(len(parts) + 1):
            yield b"".join((*parts[:place], *(der(*each) for each in added), *parts[place:]))


def _arranged_tickets(own: dict[int, bytes], foreign: dict[int, bytes]) -> Iterator[bytes]:
    """An AP-REQ's fields, with the same done to those of its ticket, and to those of what is
    encrypted in either place.
    """

    def fields(content: bytes, *tags: int) -> dict[int, bytes]:
        at, end = ticket._enter(content, 0, len(content), *tags)
        found = {}
        while at < end:
            tag, start, at = ticket._element(content, at, end)
            found[tag & 0x1F] = content[start:at]
        return found

    def with_field(whole: dict[int, bytes], number: int, content: bytes) -> bytes:
        return b"".join(
            der(0xA0 + each, content if each == number else held) for each, held in whole.items()
        )

    inner, other = (fields(each[3], 0x61, 0x30) for each in (own, foreign))
    for content in _arranged(inner, other, (2, 3)):
        yield with_field(own, 3, der(0x61, der(0x30, content)))
    for content in _arranged(fields(inner[3], 0x30), fields(other[3], 0x30), (0, 2)):
        yield with_field(own, 3, der(0x61, der(0x30, with_field(inner, 3, der(0x30, content)))))
    for content in _arranged(fields(own[4], 0x30), fields(foreign[4], 0x30), (0, 2)):
        yield with_field(own, 4, der(0x30, content))


class UnframedTests(FloorCase):
    """Requests without GSSAPI's framing, which nobody here reads."""

    def test_dce_style(self) -> None:
        """A client that asks for DCE's three legs is refused, whatever the ticket, where MIT opens
        a session with any.
        """
        flags = int(SEAL.requested_flags) | DCE_STYLE
        for kind, mechanism in product((RC4, AES256), (gssapi.MechType.kerberos, SPNEGO)):
            client = self.third_party(kind, AES256, flags=flags, mechanism=mechanism)
            server = self.keys.acceptor("client")
            with self.assertRaises(StepFailed) as caught:
                server.step(client.step(server.step(client.step()).token))
            failed = caught.exception.error
            self.assertIs(type(failed), ProtocolViolation)
            self.assertIn("have the client leave out GSS_C_DCE_STYLE", str(failed))
            client = self.third_party(kind, AES256, flags=flags, mechanism=mechanism)
            first = accept_sec_context(client.step(), self.keys.keytab.acquired_again)
            last = accept_sec_context(
                client.step(first.token), self.keys.keytab.acquired_again, first.context
            )
            self.assertEqual((last.more_steps, int(last.flags) & DCE_STYLE), (False, DCE_STYLE))

    def test_bare_request(self) -> None:
        """An AP-REQ that comes as it is opens no session."""
        for kind in (RC4, AES256):
            token = self.third_party(kind, AES256).step()
            bare = token[token.index(b"\x01\x00\x6e") + 2 :]
            for sent in (bare, spnego(bare)):
                self.step_fails(self.keys.acceptor("client"), sent)

    def test_complete_and_unread(self) -> None:
        """No context that is complete, in whatever way, passes without a ticket that was read."""
        _, server = self.established()
        server._label = None
        self.assertRaisesRegex(ProtocolViolation, "its request cannot be read", server.verify, SEAL)


class HiddenTests(FloorCase):
    """Requests that show one ticket and use another: SPNEGO has room for tokens at which no
    mechanism looks.
    """

    def offer(self, token: bytes) -> bytes:
        """A NegTokenInit that guesses wrong: its token is for NTLM."""
        mechanisms = der(0xA0, der(0x30, _NTLM, _KERBEROS))
        return der(
            0x60,
            b"\x06\x06\x2b\x06\x01\x05\x05\x02",
            der(0xA0, der(0x30, mechanisms, der(0xA2, der(0x04, token)))),
        )

    @staticmethod
    def answer(*fields: bytes) -> bytes:
        """A NegTokenResp."""
        return der(0xA1, der(0x30, *fields))

    def decoy(self) -> bytes:
        """A request that looks like one with AES."""
        name = der(
            0x30,
            der(0xA0, b"\x02\x01\x01"),
            der(0xA1, der(0x30, der(0x1B, b"echoSvc"), der(0x1B, b"srv1"))),
        )
        return ap_req(name)

    def test_in_the_first_token(self) -> None:
        """A decoy in SPNEGO's first token does not stand for the request in its second."""
        server, client = self.keys.acceptor("client"), self.third_party(RC4, AES256)
        self.assertFalse(server.step(self.offer(self.decoy())).complete)
        failed = self.step_fails(server, self.answer(der(0xA2, der(0x04, client.step()))))
        self.assertIn("encrypted with arcfour-hmac", str(failed.error))

    def test_in_the_last_token(self) -> None:
        """Nor does one beside the signature in its last."""
        server, client = self.keys.acceptor("client"), self.third_party(RC4, AES256)
        self.assertFalse(server.step(self.offer(b"x")).complete)
        with self.assertRaises(StepFailed):
            server.step(self.answer(der(0xA2, der(0x04, client.step()))))
            signature = get_mic(client, der(0x30, _NTLM, _KERBEROS))
            server.step(
                self.answer(der(0xA2, der(0x04, self.decoy())), der(0xA3, der(0x04, signature)))
            )

    def test_unreadable(self) -> None:
        """A request that GSSAPI takes and nobody here can read is refused."""
        server = self.keys.acceptor("client")
        request = self.client().step(None).token

        def unreadable(token: bytes) -> Any:
            raise ValueError("planted")

        self.patch(kerberos, "ticket_label", unreadable)
        failed = self.step_fails(server, request)
        self.assertIs(type(failed.error), ProtocolViolation)
        self.assertIn("cannot be read", str(failed.error))
