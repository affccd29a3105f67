"""The package that does not authenticate the service: over TCP, against Kerberos, and through the
commands.
"""

from __future__ import annotations

from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import LogLevel, formatEvent

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import (
    CredentialError,
    PeerError,
    PeerRefused,
    RecordError,
    StreamCut,
)
from mutauth_twisted.mechanisms import KERBEROS, NEGOTIATE, NTLM
from mutauth_twisted.mechanisms.ntlm import NtlmCredentials, NtlmUsers
from mutauth_twisted.net.client import MutualAuthClientEndpoint
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.testing.fakes import captured_log
from mutauth_twisted.testing.hostile import stripped
from mutauth_twisted.wire import NNS, WINSOCK, Wire
from tests.integration.commands import CommandTestCase
from tests.integration.handshake_case import (
    LOOPBACK,
    Application,
    Filter,
    HandshakeTestCase,
    MiddleFactory,
    one,
)
from tests.support.tampering import UP, flipped
from tests.support.users import users_file

USERS = "LAB:alice:first s3cret\nLAB:bob:second s3cret\n"
CHANNELS = tuple(
    SecurityOptions(wire, protection, 5.0, NTLM)
    for wire, protection in product((NNS, WINSOCK), (Protection.SEAL, Protection.SIGN))
)
POLICY = AccessPolicy(("*@LAB",))


def heard(seen: list[bytes], turns: list[str], wrong: list[int]) -> Filter:
    """Hear all that is said, and change a byte of what is said first in some turns."""

    def change(direction: str, data: bytes) -> list[bytes | None]:
        seen.append(data)
        if turns[-1:] != [direction]:
            turns.append(direction)
            if len(turns) in wrong:
                # Records may come together with a token, behind it.
                at = len(data) // 2 if len(turns) < 4 else len(data) - 1
                data = flipped(data, at, 0)
        return [data]

    return change


def stripping(wire: Wire) -> Filter:
    """Take the code and the wish to seal out of the client's last token."""
    tokens = count(1)

    def change(direction: str, data: bytes) -> list[bytes | None]:
        if direction == UP and next(tokens) == 2:
            at = data.index(b"NTLMSSP\0")
            data = wire.token(stripped(data[at:], 24, 0x20), wire is NNS)
        return [data]

    return change


class HandshakeTests(HandshakeTestCase):
    """Clients and services of this package, and of others."""

    async def serve(self, security: SecurityOptions, policy: AccessPolicy = POLICY) -> int:
        self.path = users_file(self, USERS)
        return await self.listen(
            cast(Any, NtlmUsers(NtlmCredentials(self.path))), policy, security=security
        )

    def come(
        self, port: int, security: SecurityOptions, users: str = USERS, user: str | None = None
    ) -> Deferred[Application]:
        """Connect with a file of one's own."""
        path = Path(self.mktemp()).absolute()
        path.write_text(users)
        path.chmod(0o600)
        inner = TCP4ClientEndpoint(reactor, LOOPBACK, port)
        endpoint = MutualAuthClientEndpoint(
            reactor, inner, None, NtlmCredentials(str(path), user), security
        )
        return cast("Deferred[Application]", endpoint.connect(one(Application())))

    async def test_both_ways(self) -> None:
        """On either wire, sealed or signed: the client is authenticated, the service is not, and
        the log says both loudly.
        """
        for security in CHANNELS:
            what = (security.wire.name, security.protection.value)
            self.servers.clear()
            with captured_log() as events:
                port = await self.serve(security)
                client = await self.come(port, security, user="bob@LAB")
                client.protected.write(b"x" * 200_000)
                self.assertEqual(await client.wait_for(200_000), b"X" * 200_000, what)
            known = self.servers[0].protected.peer_identity
            self.assertEqual(
                (known.principal, known.account, known.package), ("bob@LAB", "LAB\\bob", NTLM.name)
            )
            unknown = client.protected.peer_identity
            # On winsock the client has the last word: there is no token of the service's that could
            # carry its mark.
            self.assertEqual({known.mutauth, unknown.mutauth}, {security.wire is NNS}, what)
            self.assertEqual(
                (unknown.principal, unknown.spn, unknown.package), ("", None, NTLM.name)
            )
            for identity in (known, unknown):
                self.assertNotIn(Flag.MUTUAL, identity.flags)
                self.assertIs(identity.protection, security.protection)
            warnings = [
                str(formatEvent(event)) for event in events if event["log_level"] is LogLevel.warn
            ]
            self.assertEqual(len(warnings), 2, warnings)
            self.assertIn("this service is NOT AUTHENTICATED", warnings[0])
            self.assertIn(f"the service at {LOOPBACK}:{port} is NOT AUTHENTICATED", warnings[1])
            self.assertNotIn("s3cret", "".join(map(repr, events)))
            await self.close(client)

    async def test_refused(self) -> None:
        """A wrong password, somebody unknown, and a user whom the policy denies: no application,
        on either side.
        """
        for security in CHANNELS:
            port = await self.serve(security, AccessPolicy(("*@LAB",), ("bob@LAB",)))
            for users in (
                "LAB:alice:second s3cret",
                "LAB:mallory:first s3cret",
                "HOME:alice:first s3cret",
            ):
                with captured_log() as events:
                    await self.turned_away(
                        self.come(port, security, users),
                        security,
                        "did not accept the user and password",
                    )
                lines = [
                    text for text in map(formatEvent, events) if "none of the users" in str(text)
                ]
                self.assertEqual(len(lines), 1, lines)
            await self.turned_away(
                self.come(port, security, user="bob@LAB"), security, "access policy"
            )

    async def turned_away(
        self, connecting: Deferred[Application], security: SecurityOptions, text: str
    ) -> None:
        """The service has no application; the client none either, where the wire can tell it."""
        if security.wire is NNS:
            self.assertIn(text, str(await self.assertFailure(connecting, PeerRefused)))
        else:
            # It has said its last word, which completes it, and finds the stream cut.
            client = await connecting
            self.assertIsInstance(await client.ended, StreamCut)
            self.assertEqual(client.received, b"")
        self.assertEqual(self.servers, [])

    async def test_kerberos_services(self) -> None:
        """Neither package of Kerberos' takes such a client in, with a password that is right in
        every file there is.
        """
        for wire, package in product((NNS, WINSOCK), (KERBEROS, NEGOTIATE)):
            users_file(self, USERS)
            security = SecurityOptions(wire, package=package)
            port = await self.listen(
                self.keys_for(package), AccessPolicy(allow_all=True), security=security
            )
            await self.refused_client(self.come(port, SecurityOptions(wire, package=NTLM)))

    async def test_kerberos_clients(self) -> None:
        """A client that wants a proof gets none from such a service, and gives it nothing but its
        ticket's token.
        """
        for wire, package in product((NNS, WINSOCK), (KERBEROS, NEGOTIATE)):
            port = await self.serve(
                SecurityOptions(wire, package=NTLM), AccessPolicy(allow_all=True)
            )
            await self.refused_client(
                self.connect(port, security=SecurityOptions(wire, package=package))
            )

    async def refused_client(self, connecting: Deferred[Any]) -> None:
        """No connection comes about, on either side."""
        error: Any = await self.assertFailure(connecting, Exception)
        self.assertIn(error.exit_code, (3, 4))
        self.assertEqual(self.servers, [])

    async def test_other_protection(self) -> None:
        """A service that seals takes no client that signs; one that signs seals for who asks it to,
        on wire nns.
        """
        seal, sign = CHANNELS[0], CHANNELS[1]
        port = await self.serve(seal)
        self.assertIn(
            "protection", str(await self.assertFailure(self.come(port, sign), PeerRefused))
        )
        self.assertEqual(self.servers, [])
        client = await self.come(await self.serve(sign), seal)
        client.protected.write(b"word")
        self.assertEqual(await client.wait_for(4), b"WORD")
        self.assertIs(self.servers[0].protected.peer_identity.protection, Protection.SEAL)
        await self.close(client)

    async def middle(self, port: int, turns: list[str], wrong: list[int], seen: list[bytes]) -> int:
        """Somebody who listens, and changes what is said in some turns."""
        return await self.listen_plainly(MiddleFactory(port, lambda: heard(seen, turns, wrong)))

    async def test_changed(self) -> None:
        """A byte changed in any of the three tokens allows no client; in a record it ends the
        connection.
        """
        for security in CHANNELS:
            port = await self.serve(security)
            for wrong in (1, 2, 3):
                connecting = self.come(await self.middle(port, [], [wrong], []), security)
                if security.wire is WINSOCK:
                    # Its last word completes the client; the service takes it for nobody, and no
                    # record of it either.
                    client = await connecting
                    self.assertIsInstance(await client.ended, StreamCut)
                    self.assertEqual(client.received, b"")
                else:
                    await self.assertFailure(connecting, PeerError)
                self.assertEqual(self.servers, [], (security, wrong))
            turns: list[str] = []
            records: list[int] = []
            client = await self.come(await self.middle(port, turns, records, []), security)
            client.protected.write(b"word")
            self.assertEqual(await client.wait_for(4), b"WORD")
            records.append(len(turns) + 1)
            client.protected.write(b"question")
            self.assertIsInstance(await self.servers[0].ended, RecordError)
            # Third-party peers to each other end as TCP does.
            expected = (ConnectionDone, ConnectionLost) if security.wire is WINSOCK else StreamCut
            self.assertIsInstance(await client.ended, expected)
            self.assertEqual((self.servers[0].received, client.received), (b"word", b"WORD"))
            self.servers.clear()

    async def test_stripped(self) -> None:
        """Without the code, and with it the wish to seal, taken out of its last token, nobody has a
        client.
        """
        for security in (each for each in CHANNELS if each.protection is Protection.SEAL):
            port = await self.serve(SecurityOptions(security.wire, Protection.SIGN, 5.0, NTLM))
            middle = MiddleFactory(port, partial(stripping, security.wire))
            with captured_log() as events:
                await self.turned_away(
                    self.come(await self.listen_plainly(middle), security),
                    security,
                    "did not accept",
                )
            lines = [str(formatEvent(each)) for each in events]
            self.assertTrue(
                any("the code that protects the tokens is not there" in line for line in lines),
                lines,
            )

    async def test_sealed(self) -> None:
        """A listener on the line reads nothing of what is sealed."""
        for security in CHANNELS:
            heard: list[bytes] = []
            client = await self.come(
                await self.middle(await self.serve(security), [], [], heard), security
            )
            client.protected.write(b"a private question")
            await client.wait_for(18)
            self.assertIs(b"private" in b"".join(heard), security.protection is Protection.SIGN)
            self.assertNotIn(b"s3cret", b"".join(heard))
            await self.close(client)
            self.servers.clear()

    async def test_no_users(self) -> None:
        """A client whose file others may read sends nothing."""
        path = users_file(self, USERS, 0o644)
        heard: list[bytes] = []
        port = await self.middle(await self.serve(CHANNELS[0]), [], [], heard)
        inner = TCP4ClientEndpoint(reactor, LOOPBACK, port)
        endpoint = MutualAuthClientEndpoint(
            reactor, inner, None, NtlmCredentials(path), CHANNELS[0]
        )
        error = await self.assertFailure(endpoint.connect(one(Application())), CredentialError)
        self.assertIn("chmod 600", str(error))
        self.assertEqual(heard, [])


class CommandTests(CommandTestCase):
    """``twistd mutauth`` and ``mutauth connect``."""

    def setUp(self) -> None:
        super().setUp()
        self.users = Path(self.state) / "users"
        self.write(self.users, USERS)

    def write(self, path: Path, text: str, mode: int = 0o600) -> None:
        path.write_text(text)
        path.chmod(mode)

    def service_words(self, *options: str) -> tuple[str, ...]:
        given = (
            "--package=ntlm-service-unproven",
            "--ntlm-users",
            str(self.users),
            "--publish=none",
            "--spn-check=off",
        )
        who = ("--allow=*@LAB", "--deny=bob@LAB")
        return (
            "mutauth",
            *self.common,
            *given,
            "--echo",
            *who,
            "--listen",
            "tcp:0:interface=127.0.0.1",
            *options,
        )

    def endpoint_at(self, port: int, *words: str) -> str:
        keywords = ("package=ntlm-service-unproven", f"ntlm-users={self.users}", *words)
        return f"mutauth:tcp\\:127.0.0.1\\:{port}:" + ":".join(keywords)

    def test_service(self) -> None:
        """A service and its clients: what is not authenticated is said at every start and
        connection, passwords never.
        """
        for wire in ("nns", "winsock"):
            with self.service("--wire", wire) as running:
                where = self.endpoint_at(running.port, f"wire={wire}")
                for words, note in (((), 1), (("-v",), 2)):
                    ended = self.mutauth("connect", *words, where, given="a word\n")
                    self.assertEqual((ended.code, ended.output), (0, "a word\n"), ended)
                    self.assertIn(
                        "package ntlm-service-unproven: the service is NOT AUTHENTICATED",
                        ended.errors,
                    )
                    self.assertEqual(
                        len(
                            [
                                line
                                for line in ended.errors.splitlines()
                                if "PROVE" in line.upper() or "NOT AUTH" in line
                            ]
                        ),
                        note,
                    )
                if wire == "nns":
                    kept_out = self.mutauth("connect", where + ":principal=bob@LAB")
                    self.assertEqual(kept_out.code, 4, kept_out)
                    self.assertIn("access policy", kept_out.errors)
                authenticated = (
                    f"mutauth:tcp\\:127.0.0.1\\:{running.port}:spn=echoSvc/srv1.lab.example:"
                    f"wire={wire}"
                )
                self.assertIn(self.mutauth("connect", authenticated).code, (3, 4))
                running.stop()
            self.assertIn("this service is NOT AUTHENTICATED", running.log)
            self.assertIn("authenticated as alice@LAB (ntlm-service-unproven, seal; ", running.log)
            self.assertNotIn("s3cret", running.log + ended.errors + authenticated)

    def test_wrong_password(self) -> None:
        """A client with a wrong password is refused with code 4; both sides say why in a line."""
        with self.service() as running:
            other = Path(self.state) / "other"
            self.write(other, "LAB:alice:wrong s3cret")
            where = self.endpoint_at(running.port).replace(str(self.users), str(other))
            ended = self.mutauth("connect", where)
            self.assertEqual(ended.code, 4, ended)
            self.assertIn("it did not accept the user and password", ended.errors.splitlines()[-1])
            running.stop()
        self.assertIn(f"its NTLM authenticates none of the users in {self.users}", running.log)
        self.assertNotIn("s3cret", running.log)

    def test_start_refused(self) -> None:
        """Options that would promise a proof, and files that others can read, are refused in one
        line and with a code.
        """
        self.refused(self.start_refused("--publish=scp"), 2, "add --publish none")
        self.refused(self.start_refused("--protection=tls"), 2, "it cannot be bound to TLS")
        self.refused(self.start_refused("--allow-group=Domain Users"), 2, "--allow-group")
        self.users.chmod(0o644)
        self.refused(self.start_refused(), 4, "chmod 600")
        self.refused(
            self.start_refused("--ntlm-users=/nonexistent"), 4, "/nonexistent", "cannot be read"
        )
        self.refused(
            self.mutauth("connect", f"{self.endpoint}:package=ntlm-service-unproven"),
            2,
            "does not authenticate the service",
        )
