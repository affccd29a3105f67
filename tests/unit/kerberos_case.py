"""Common ground of the tests of Kerberos contexts: a service, and a client with a ticket for it."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import gssapi
from gssapi.raw import (
    inquire_sec_context_by_oid,
    set_cred_option,
    set_neg_mechs,
)
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.core.context import StepFailed
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.kerberos import lucid as module
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator, ServiceKeys, kerberos_name
from mutauth_twisted.protection import Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.forge import make_realm

DN = "CN=echoSvc,CN=SRV1,OU=A\\, B,DC=test,DC=example"
BY_HOST = SPN.parse("echoSvc/srv1.test.example")
BY_DN = SPN("echoSvc", "srv1.test.example", DN)
SEAL = Protection.SEAL
SPNEGO = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")


def flip(data: bytes, position: int, bit: int) -> bytes:
    """The data with one bit changed."""
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


class Case(SynchronousTestCase):
    """A service ``svc-echo`` with an SPN, and alice with a ticket for it."""

    spn = BY_HOST

    def setUp(self) -> None:
        self.realm = make_realm(self)
        self.keys = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-echo")))

    def client(
        self, spn: SPN | None = None, protection: Protection = SEAL, **ticket: Any
    ) -> KerberosInitiator:
        """A client with a ticket for the SPN, which ``svc-echo`` has."""
        spn = spn or self.spn
        ccache = self.realm.ccache("alice", str(spn), ticket.pop("account", "svc-echo"), **ticket)
        return KerberosInitiator(spn, ClientCredentials(ccache=ccache), protection)

    def established(self, **options: Any) -> tuple[KerberosInitiator, Any]:
        """Both sides with their contexts complete."""
        client, server = self.client(**options), self.keys.acceptor("client")
        reply = server.step(client.step(None).token)
        self.assertTrue(client.step(reply.token).complete)
        return client, server

    def raw_client(
        self,
        flags: int,
        mechanism: gssapi.OID = gssapi.MechType.kerberos,
        *,
        unprotected: bool = False,
    ) -> gssapi.SecurityContext:
        """A client of GSSAPI's own that asks for what it likes."""
        ccache = self.realm.ccache("alice", str(BY_HOST), "svc-echo")
        credential = gssapi.Credentials(
            usage="initiate", mechs=[mechanism], store={"ccache": ccache}
        )
        if mechanism == SPNEGO:
            set_neg_mechs(credential, [gssapi.MechType.kerberos])
        if unprotected:
            # MIT asks for confidentiality and integrity by itself unless told not to.
            set_cred_option(gssapi.OID.from_int_seq("1.2.752.43.13.29"), credential)
        return gssapi.SecurityContext(
            name=kerberos_name(BY_HOST),
            creds=credential,
            usage="initiate",
            mech=mechanism,
            flags=flags,
        )

    def step_fails(self, context: Any, token: bytes | None) -> StepFailed:
        """The step fails, and says so in one line."""
        with self.assertRaises(StepFailed) as caught:
            context.step(token)
        failed: StepFailed = caught.exception
        self.assertNotIn("\n", str(failed.error))
        return failed


def own_side(context: Any) -> tuple[bool, int]:
    """Other fields of the structure: whether it is the initiator's, and the number of its next
    message.
    """
    (answer,) = inquire_sec_context_by_oid(context, module._LUCID_V1)
    address = int.from_bytes(answer, sys.byteorder)
    try:
        found = module._Lucid.from_address(address)
        return bool(found.initiate), found.send_seq
    finally:
        module._free_lucid(ctypes.byref(ctypes.c_uint32()), address)
