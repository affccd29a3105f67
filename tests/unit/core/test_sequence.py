"""Sequence numbers of records, with peers that ask for neither replay nor sequence detection, as
.NET does on Linux.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import gssapi
from gssapi.raw import IOV, IOVBufferType, get_mic, unwrap, wrap, wrap_iov

from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import RecordError
from mutauth_twisted.kerberos.ap_req import _enter, _response
from mutauth_twisted.kerberos.lucid import read_lucid
from mutauth_twisted.mechanisms import KERBEROS, NEGOTIATE
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator, ServiceKeys
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.testing.forge import der
from tests.unit.kerberos_case import BY_HOST, SPNEGO, Case, own_side

DETECTION = Flag.REPLAY | Flag.SEQUENCE
#: What is asked for besides protection: as .NET does, either one alone, and as we do.
ASKED = (Flag(0), Flag.REPLAY, Flag.SEQUENCE, DETECTION)

Body = tuple[bytes, bytes]


class Record:
    """One way to protect a record and to verify it: of one part as on wire nns, of two as on
    winsock.
    """

    def __init__(self, parts: int, seal: bool) -> None:
        self.parts = parts
        self.seal = seal

    def made_by(self, context: Any, data: bytes) -> Body:
        """Protect with GSSAPI alone."""
        if self.parts == 1:
            return wrap(context, data, self.seal).message, b""
        if not self.seal:
            return get_mic(context, data), data
        buffers = IOV(IOVBufferType.header, data, std_layout=False)
        wrap_iov(context, buffers, True)
        return buffers[0].value or b"", buffers[1].value or b""

    def opened_by(self, ours: Any, body: Body) -> tuple[bytes, bool]:
        """Verify a copy with our context: MIT before 1.22 writes into what it verifies."""
        body = bytes(bytearray(body[0])), body[1]
        if self.parts == 1:
            return ours.unwrap(body[0])  # type: ignore[no-any-return]
        return ours.unwrap_apart(*body, seal=self.seal)  # type: ignore[no-any-return]


RECORDS = tuple(Record(parts, seal) for parts, seal in product((1, 2), (True, False)))


class SequenceCase(Case):
    """Established pairs of a context of ours and one of GSSAPI's own."""

    def accepted(
        self, protection: Protection, asked: Flag, mechanism: gssapi.OID
    ) -> tuple[Any, Any]:
        """A client of GSSAPI's own, and our acceptor, which has verified it."""
        keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")), None, NEGOTIATE)
        client = self.raw_client(protection.required_flags | asked, mechanism, unprotected=True)
        server = keys.acceptor("client")
        client.step(server.step(client.step()).token)
        identity = server.verify(protection)
        self.assertEqual((identity.protection, identity.flags & DETECTION), (protection, asked))
        return client, server

    def initiated(
        self, protection: Protection, asked: Flag, mechanism: gssapi.OID
    ) -> tuple[Any, Any]:
        """A service of GSSAPI's own, and our initiator, made to ask for what it may not have
        got.
        """
        package = NEGOTIATE if mechanism == SPNEGO else KERBEROS
        ccache = self.realm.ccache("alice", str(BY_HOST), "svc-echo")
        client = KerberosInitiator(BY_HOST, ClientCredentials(ccache=ccache), protection, package)
        client._request = int(protection.required_flags | asked)
        credential = gssapi.Credentials(
            usage="accept", store={"keytab": self.realm.keytab("svc-echo")}
        )
        server = gssapi.SecurityContext(creds=credential, usage="accept")
        client.step(server.step(client.step(None).token))
        self.assertEqual(client.verify(protection).flags & DETECTION, asked)
        return server, client

    def pairs(self) -> Iterator[tuple[Record, Callable[[], tuple[Any, Any]]]]:
        """Every kind of record, and what makes a sender of GSSAPI's own and a receiver of ours for
        it.
        """
        for record, asked in product(RECORDS, ASKED):
            protection = Protection.SEAL if record.seal else Protection.SIGN
            for mechanism, make in product(
                (gssapi.MechType.kerberos, SPNEGO), (self.accepted, self.initiated)
            ):
                yield record, partial(make, protection, asked, mechanism)


class OrderTests(SequenceCase):
    """Records in their order and out of it: whatever the peer asked for, every one of them has its
    place.
    """

    def test_in_order(self) -> None:
        """Records that come as they were sent are taken, and sent ones as well."""
        for record, make in self.pairs():
            theirs, ours = make()
            for number in range(5):
                data = b"data %d" % number
                self.assertEqual(
                    record.opened_by(ours, record.made_by(theirs, data)), (data, record.seal)
                )
                self.assertEqual(unwrap(theirs, ours.wrap(data, seal=record.seal)).message, data)

    def test_attacks(self) -> None:
        """The first one dropped, one in the middle, one sent again at once or later, two swapped:
        refused where it shows.
        """
        for (record, make), (order, good, text) in product(
            self.pairs(),
            (
                ((1,), 0, "missing"),
                ((0, 2), 1, "missing"),
                ((0, 0), 1, "came twice|out of order"),
                ((0, 1, 2, 0), 3, "came twice|out of order|too old"),
                ((1, 0), 0, "missing"),
                ((0, 2, 1), 1, "missing"),
            ),
        ):
            theirs, ours = make()
            bodies = [record.made_by(theirs, b"data") for _ in range(3)]
            for number in order[:good]:
                record.opened_by(ours, bodies[number])
            with self.assertRaisesRegex(RecordError, text):
                record.opened_by(ours, bodies[order[good]])

    def test_after_a_refusal(self) -> None:
        """A record that was refused has not moved the place of the next one."""
        theirs, ours = self.accepted(Protection.SEAL, Flag(0), gssapi.MechType.kerberos)
        bodies = [RECORDS[0].made_by(theirs, b"data") for _ in range(2)]
        for _ in range(2):
            self.assertRaises(RecordError, ours.unwrap, bodies[1][0])
        self.assertEqual(ours.unwrap(bodies[0][0]), (b"data", True))

    def test_signature_as_a_record(self) -> None:
        """A signature in a record's place, and a record in a signature's, is refused."""
        theirs, ours = self.accepted(Protection.SIGN, Flag(0), gssapi.MechType.kerberos)
        self.assertRaises(RecordError, ours.unwrap, get_mic(theirs, b"data"))
        theirs, ours = self.accepted(Protection.SIGN, Flag(0), gssapi.MechType.kerberos)
        self.assertRaises(
            RecordError,
            ours.unwrap_apart,
            wrap(theirs, b"data", False).message,
            b"data",
            seal=False,
        )

    def test_framed(self) -> None:
        """A record in the framing of RFC 1964, whose numbers would be elsewhere, is refused even if
        MIT takes it.
        """
        theirs, ours = self.accepted(Protection.SEAL, Flag(0), gssapi.MechType.kerberos)
        body = wrap(theirs, b"data", True).message
        framed = der(0x60, b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02", body)
        self.assertRaises(RecordError, ours.unwrap, framed)


class NumberTests(SequenceCase):
    """Large numbers."""

    def moved(self, context: Any, number: int) -> Any:
        """The context with another number for its next message: exported, changed and imported."""
        before = own_side(context)[1].to_bytes(8, "big")
        exported = context.export()
        self.assertEqual(exported.count(before), 1)
        return gssapi.SecurityContext(token=exported.replace(before, number.to_bytes(8, "big")))

    def test_beyond_32_bits(self) -> None:
        """Numbers go on where 32 bits end, and where 64 do."""
        for last in (2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1):
            client, server = self.accepted(Protection.SEAL, Flag(0), gssapi.MechType.kerberos)
            client, server._expected = self.moved(client, last), last
            bodies = [wrap(client, b"data %d" % number, True).message for number in range(3)]
            self.assertEqual([int.from_bytes(body[8:16], "big") for body in bodies[:1]], [last])
            for number in (0, 1):
                self.assertEqual(server.unwrap(bodies[number]), (b"data %d" % number, True))
            for again in (0, 1):
                # MIT's decryption has written nothing into a sealed one.
                with self.assertRaisesRegex(RecordError, "came twice, or out of order"):
                    server.unwrap(bodies[again])
            self.assertEqual(server.unwrap(bodies[2]), (b"data 2", True))

    def test_same_in_32_bits(self) -> None:
        """A number that is the expected one in its lower 32 bits only is not the next one."""
        client, server = self.accepted(Protection.SEAL, Flag(0), gssapi.MechType.kerberos)
        client = self.moved(client, own_side(client)[1] + 2**32)
        with self.assertRaisesRegex(RecordError, "missing"):
            server.unwrap(wrap(client, b"data", True).message)


class SignedListTests(SequenceCase):
    """SPNEGO handshakes in which both sides sign the list of mechanisms, with their first numbers
    (RFC 4178 5).
    """

    NTLM = b"\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a"
    KERBEROS = b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02"

    def test_windows(self) -> None:
        """Windows offers Kerberos under Microsoft's own number first, and signs nothing: it is
        served, in sequence.
        """
        microsoft = b"\x06\x09\x2a\x86\x48\x82\xf7\x12\x01\x02\x02"
        keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")), None, NEGOTIATE)
        server, client = (
            keys.acceptor("client"),
            self.raw_client(int(Protection.SEAL.required_flags), unprotected=True),
        )
        mechanisms = der(0xA0, der(0x30, microsoft, self.KERBEROS, self.NTLM))
        offer = der(0xA0, der(0x30, mechanisms, der(0xA2, der(0x04, client.step() or b""))))
        answer = server.step(der(0x60, b"\x06\x06\x2b\x06\x01\x05\x05\x02", offer))
        self.assertTrue(answer.complete)
        inside = _response(answer.token)[2]
        client.step(answer.token[slice(*_enter(answer.token, *inside, 0x04))])
        self.assertEqual(server.verify(Protection.SEAL).package, "negotiate")
        self.assertEqual(server.unwrap(wrap(client, b"data", True).message), (b"data", True))
        wrap(client, b"data", True)
        self.assertRaises(RecordError, server.unwrap, wrap(client, b"data", True).message)

    def established_with_signatures(self, asked: Flag) -> tuple[gssapi.SecurityContext, Any]:
        """A client that prefers NTLM and has Kerberos as well; written out, as MIT's own offers
        nothing before Kerberos.
        """
        keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")), None, NEGOTIATE)
        server, client = (
            keys.acceptor("client"),
            self.raw_client(Protection.SEAL.required_flags | asked, unprotected=True),
        )
        mechanisms = der(0x30, self.NTLM, self.KERBEROS)
        offer = der(
            0x60, b"\x06\x06\x2b\x06\x01\x05\x05\x02", der(0xA0, der(0x30, der(0xA0, mechanisms)))
        )
        self.assertFalse(server.step(offer).complete)
        request = client.step()
        answer = server.step(der(0xA1, der(0x30, der(0xA2, der(0x04, request)))))
        self.assertFalse(answer.complete)
        inside = _response(answer.token)[2]
        client.step(answer.token[slice(*_enter(answer.token, *inside, 0x04))])
        signature = der(0xA3, der(0x04, get_mic(client, mechanisms)))
        done = server.step(der(0xA1, der(0x30, der(0xA0, b"\x0a\x01\x00"), signature)))
        self.assertTrue(done.complete)
        return client, server

    def test_records(self) -> None:
        """The client's first record has its second number, and is the one that is expected."""
        for asked in ASKED:
            client, server = self.established_with_signatures(asked)
            self.assertEqual(server.verify(Protection.SEAL).package, "negotiate")
            bodies = [wrap(client, b"data", True).message for _ in range(3)]
            self.assertEqual(
                int.from_bytes(bodies[0][8:16], "big"), read_lucid(server._context).recv_seq + 1
            )
            self.assertEqual(server.unwrap(bodies[0]), (b"data", True))
            self.assertRaises(RecordError, server.unwrap, bodies[2])
            client, server = self.established_with_signatures(asked)
            wrap(client, b"data", True)
            with self.assertRaisesRegex(RecordError, "missing"):
                server.unwrap(wrap(client, b"data", True).message)
