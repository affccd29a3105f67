"""Peers that speak NTLM, or SPNEGO where NTLM is all that is on offer: as a .NET client does that
has no ticket.
"""

from __future__ import annotations

import re
import struct
from itertools import product
from typing import Any, cast

import gssapi
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent

from mutauth_twisted import mechanisms
from mutauth_twisted.core.mechanism import Mechanism
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import PeerError
from mutauth_twisted.testing.fakes import captured_log
from mutauth_twisted.wire import NNS, WINSOCK, Wire
from tests.integration.handshake_case import HandshakeTestCase, say

# MS-NLMP 2.2.1.1: the flags of a client of today; neither domain nor workstation.
NEGOTIATE = (
    b"NTLMSSP\0" + struct.pack("<II", 1, 0xE2088297) + bytes(16) + b"\x0a\0\x63\x45\0\0\0\x0f"
)
# MS-NLMP 2.2.1.2: for a target "LAB", with a challenge.
CHALLENGE = (
    b"NTLMSSP\0"
    + struct.pack("<IHHII", 2, 6, 6, 56, 0xE2898215)
    + b"challnge"
    + bytes(8)
    + struct.pack("<HHI", 4, 4, 62)
    + b"\x0a\0\x63\x45\0\0\0\x0f"
    + "LAB".encode("utf-16-le")
    + bytes(4)
)
_SPNEGO = b"\x06\x06\x2b\x06\x01\x05\x05\x02"
_NTLM = b"\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a"


def _der(tag: int, *contents: bytes) -> bytes:
    body = b"".join(contents)
    assert len(body) < 0x80
    return bytes((tag, len(body))) + body


def offer(token: bytes) -> bytes:
    """A NegTokenInit that offers NTLM and nothing else (RFC 4178 4.2.1), with NTLM's first token in
    it.
    """
    init = _der(
        0x30, _der(0xA0, _der(0x30, _NTLM)), *([_der(0xA2, _der(0x04, token))] if token else [])
    )
    return _der(0x60, _SPNEGO, _der(0xA0, init))


def answer(token: bytes) -> bytes:
    """A NegTokenResp that selects NTLM and wants more (RFC 4178 4.2.2)."""
    return _der(
        0xA1,
        _der(0x30, _der(0xA0, b"\x0a\x01\x01"), _der(0xA1, _NTLM), _der(0xA2, _der(0x04, token))),
    )


CLIENTS = {
    "NTLM": NEGOTIATE,
    "SPNEGO with NTLM": offer(NEGOTIATE),
    "SPNEGO, offer only": offer(b""),
}
SERVICES = {"NTLM": CHALLENGE, "SPNEGO with NTLM": answer(CHALLENGE)}

#: The packages that authenticate both sides.
KERBEROS = (mechanisms.KERBEROS, mechanisms.NEGOTIATE)


class PackageTests(HandshakeTestCase):
    """Neither side accepts a package that authenticates less."""

    def refusals(self, events: list[Any]) -> list[str]:
        """Lines of the log about connections that did not come about."""
        return [
            text
            for text in map(formatEvent, events)
            if re.match("handshake (with .+ )?failed: ", text)
        ]

    async def ask(
        self, wire: Wire, token: bytes, package: Mechanism = mechanisms.KERBEROS
    ) -> tuple[bytes, str]:
        """Answer of a service to a token, until it closes, and its one line about it."""
        port = await self.listen(
            self.keys_for(package), security=SecurityOptions(wire, package=package)
        )
        with captured_log() as events:
            heard = await deferToThread(say, port, wire.token(token, False))
        (line,) = self.refusals(events)
        self.assertNotIn("\n", line)
        self.assertEqual(self.servers, [])
        return heard, line

    async def test_clients(self) -> None:
        """A client that offers NTLM only is refused with code 1326, where the wire has codes, and
        one line in the log.
        """
        for wire, (what, token) in product((NNS, WINSOCK), CLIENTS.items()):
            heard, _ = await self.ask(wire, token)
            self.assertEqual(heard, wire.fault(1326), (wire.name, what))

    async def test_clients_are_told_apart(self) -> None:
        """The line says what the client did, not what the service should do about a ticket of its
        own.
        """
        for package, (what, token) in product(KERBEROS, CLIENTS.items()):
            _, line = await self.ask(NNS, token, package)
            self.assertNotIn("kinit", line, what)
            self.assertNotIn("Unknown error", line, what)
            told = (
                "this service takes Kerberos' own only"
                if package is mechanisms.KERBEROS
                else "bare or inside SPNEGO"
            )
            self.assertIn(told, line, what)

    async def test_clients_that_negotiate(self) -> None:
        """Where SPNEGO is spoken, NTLM is refused all the same: the service has nothing but
        Kerberos to choose.
        """
        for wire, (what, token) in product((NNS, WINSOCK), CLIENTS.items()):
            heard, _ = await self.ask(wire, token, mechanisms.NEGOTIATE)
            self.assertTrue(heard.endswith(wire.fault(1326)), (wire.name, what))
            self.assertNotIn(b"NTLMSSP", heard)

    async def test_kerberos_inside(self) -> None:
        """Kerberos inside SPNEGO comes in where it is asked for, and says which of the two it
        was.
        """
        port = await self.listen(self.keys_for(mechanisms.NEGOTIATE))
        for package in KERBEROS:
            client = await self.connect(port, security=SecurityOptions(package=package))
            client.protected.write(b"a word")
            self.assertEqual(await client.wait_for(6), b"A WORD")
            identity = self.servers[0].protected.peer_identity
            self.assertEqual(
                (identity.package, identity.claimed_spn), (package.name, str(self.by_dn))
            )
            self.assertEqual(client.protected.peer_identity.package, package.name)
            await self.close(client)
            self.servers.clear()

    async def test_negotiate(self) -> None:
        """Kerberos inside SPNEGO, with a ticket that is good, is refused where only Kerberos itself
        is spoken.
        """
        name = gssapi.Name(str(self.by_host), gssapi.NameType.kerberos_principal)
        for wire in (NNS, WINSOCK):
            credential = gssapi.Credentials(
                usage="initiate", store={"ccache": f"FILE:{self.ccache}"}
            )
            spnego = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")
            context = gssapi.SecurityContext(
                name=name, creds=credential, usage="initiate", mech=spnego
            )
            token = cast(bytes, await deferToThread(context.step))
            self.assertIn(b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02", token)
            heard, _ = await self.ask(wire, token)
            self.assertEqual(heard, wire.fault(1326), wire.name)

    async def test_services(self) -> None:
        """A service that answers with NTLM's challenge is refused at once, whether it calls itself
        done or not.
        """
        every = product((NNS, WINSOCK), SERVICES.items(), (False, True), KERBEROS)
        for wire, (what, token), done, package in every:
            heard: list[bytes] = []

            class Service(Protocol):
                reply = wire.token(token, done)
                said = heard

                def dataReceived(self, data: bytes) -> None:
                    if not self.said:
                        cast(Any, self.transport).write(self.reply)
                    self.said.append(data)

            port = await self.listen_plainly(Factory.forProtocol(Service))
            with captured_log() as events:
                connecting = self.connect(port, security=SecurityOptions(wire, package=package))
                error = await self.assertFailure(connecting, PeerError)
            (line,) = self.refusals(events)
            self.assertIn(str(error), line, (wire.name, what, done))
            self.assertEqual(error.exit_code, 4)
