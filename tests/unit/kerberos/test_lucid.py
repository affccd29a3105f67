"""The Kerberos library's description of an established context, and that it is read as the library
wrote it.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

import gssapi
from gssapi.raw import krb5_export_lucid_sec_context
from gssapi.raw.misc import GSSError

from mutauth_twisted.errors import AuthenticationError
from mutauth_twisted.kerberos import lucid as module
from mutauth_twisted.kerberos.lucid import read_lucid
from mutauth_twisted.testing.forge import AES256
from tests.unit.kerberos_case import Case, own_side


class LucidTests(Case):
    """Contexts whose state is known in another way."""

    def test_both_sides(self) -> None:
        """Initiator and acceptor agree on the numbers, on the keys, and on the end of the ticket
        that was made.
        """
        before = int(time.time())
        sides = self.established(lifetime=1000)
        client, server = (read_lucid(side._context) for side in sides)
        self.assertEqual(
            [own_side(side._context) for side in sides],
            [(True, server.recv_seq), (False, client.recv_seq)],
        )
        self.assertNotEqual(server.recv_seq, client.recv_seq)
        self.assertEqual(client.endtime, server.endtime)
        self.assertTrue(before + 1000 <= server.endtime <= int(time.time()) + 1000)
        for side in (client, server):
            self.assertEqual((side.rfc4121, side.key_types), (True, (AES256, AES256)))

    def test_the_number_on_the_wire(self) -> None:
        """The first message carries the number that the sender is said to use, and the receiver to
        expect.
        """
        client, server = self.established()
        for sender, receiver in ((client, server), (server, client)):
            first = int.from_bytes(sender.wrap(b"data", seal=True)[8:16], "big")
            self.assertEqual(read_lucid(receiver._context).recv_seq, first)
            self.assertEqual(own_side(sender._context)[1], first + 1)

    def test_as_python_gssapi_reads_it(self) -> None:
        """python-gssapi's own way, which deletes the context, tells the same: both have the same
        layout in mind.
        """
        for side in self.established():
            ours, (initiate, send_seq) = read_lucid(side._context), own_side(side._context)
            theirs: Any = krb5_export_lucid_sec_context(side._context, side is not None)
            keys = theirs.cfx_kd
            self.assertEqual((theirs.version, bool(theirs.is_initiator)), (1, initiate))
            self.assertEqual(theirs.endtime, ours.endtime)
            self.assertEqual((theirs.send_seq, theirs.recv_seq), (send_seq, ours.recv_seq))
            self.assertEqual((theirs.protocol, theirs.rfc1964_kd), (1, None))
            self.assertEqual((keys.ctx_key_type, keys.acceptor_subkey_type), ours.key_types)

    def test_the_context_stays_usable(self) -> None:
        """Reading a context any number of times changes nothing about it."""
        client, server = self.established()
        known = [read_lucid(client._context) for _ in range(3)]
        self.assertEqual(known, known[:1] * 3)
        self.assertEqual(server.unwrap(client.wrap(b"data", seal=True)), (b"data", True))

    def test_before_the_end(self) -> None:
        """A context that is not established has nothing to read."""
        client = self.client()
        client.step(None)
        for context in (client._context, gssapi.raw.SecurityContext()):
            self.assertRaises(GSSError, read_lucid, context)

    def test_another_structure(self) -> None:
        """Bytes that are not a structure of this version are refused, and given back to the
        library.
        """
        context = self.established()[0]._context
        freed: list[int] = []
        self.patch(module, "_free_lucid", lambda minor, address: freed.append(address))
        for changes in ({"version": 2}, {"initiate": 2}, {"protocol": 7}):
            made = module._Lucid(**{"version": 1, **changes})
            pointer = ctypes.addressof(made).to_bytes(module._POINTER_SIZE, module.sys.byteorder)
            self.patch(module, "inquire_sec_context_by_oid", lambda *_, pointer=pointer: [pointer])
            with self.assertRaisesRegex(AuthenticationError, "unknown way"):
                read_lucid(context)
        self.assertEqual(len(freed), 3)
        answers: tuple[list[bytes], ...] = ([], [b""], [b"\1\2\3"], [bytes(module._POINTER_SIZE)])
        for answer in answers:
            self.patch(module, "inquire_sec_context_by_oid", lambda *_, answer=answer: answer)
            with self.assertRaisesRegex(AuthenticationError, "not a pointer"):
                read_lucid(context)
        self.assertEqual(len(freed), 3)

    def test_old_keys(self) -> None:
        """The one key of a context of RFC 1964 is where MIT puts it."""
        made = module._Lucid(version=1, protocol=0, endtime=7)
        made.rfc1964_kd.ctx_key.type = 23
        made.cfx_kd.ctx_key.type = 99
        known = module._read(made)
        self.assertEqual((known.rfc4121, known.key_types, known.endtime), (False, (23,), 7))
