"""NTLM's contexts, both of them real: what they prove, and what they do not."""

from __future__ import annotations

import base64
import hashlib
import logging
import logging.config
import math
import os
import struct
from itertools import product
from pathlib import Path
from typing import Any, cast

import spnego
from spnego import ContextReq, NegotiateOptions
from spnego.channel_bindings import GssChannelBindings
from twisted.trial.unittest import SynchronousTestCase

from mutauth_twisted.access import AccessPolicy
from mutauth_twisted.core.channelbinding import TLS_EXPORTER, ChannelBinding
from mutauth_twisted.core.context import StepFailed
from mutauth_twisted.core.options import SecurityOptions
from mutauth_twisted.errors import (
    AuthenticationError,
    CredentialError,
    PeerNotAuthenticated,
    RecordError,
    UsageError,
)
from mutauth_twisted.mechanisms import KERBEROS, MECHANISMS, NEGOTIATE, NTLM
from mutauth_twisted.mechanisms import ntlm as module
from mutauth_twisted.mechanisms.ntlm import (
    USERS_VARIABLE,
    NtlmAcceptor,
    NtlmCredentials,
    NtlmInitiator,
    NtlmUsers,
)
from mutauth_twisted.mechanisms.pyspnego import keep_quiet
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.testing.fakes import Player, captured_log, converse
from mutauth_twisted.testing.hostile import stripped
from mutauth_twisted.wire import NNS, WINSOCK
from tests.support.users import users_file

SEAL, SIGN, TLS = Protection.SEAL, Protection.SIGN, Protection.TLS
PASSWORD = "Pa55 \N{EURO SIGN} wort!"
USERS = f"LAB:alice:{PASSWORD}\nLAB:Bob:other word\nWORK:alice:third word\n"
FOREIGN = GssChannelBindings(application_data=b"tls-server-end-point:" + bytes(32))
FLAGS = SEAL.requested_flags & ~Flag.MUTUAL


class Case(SynchronousTestCase):
    """A service with three users."""

    def setUp(self) -> None:
        self.path = users_file(self, USERS)
        self.keys = NtlmUsers(NtlmCredentials(self.path))

    def client(
        self, user: str | None = None, text: str | None = None, protection: Protection = SEAL
    ) -> NtlmInitiator:
        """A client, with the service's file or one of its own."""
        path = self.path
        if text is not None:
            path = str(Path(self.mktemp()).absolute())
            Path(path).write_text(text, "utf-8")
            Path(path).chmod(0o600)
        return NtlmInitiator(NtlmCredentials(path, user), protection, "the service")

    def server(self) -> NtlmAcceptor:
        return self.keys.acceptor("the client")

    def handshake(self, client: NtlmInitiator, server: NtlmAcceptor) -> list[bytes]:
        """All three tokens; neither side is complete before its last."""
        asked = client.step(None)
        answer = server.step(asked.token)
        last = client.step(answer.token)
        end = server.step(last.token)
        self.assertEqual(
            [each.complete for each in (asked, answer, last, end)], [False, False, True, True]
        )
        self.assertEqual(end.token, b"")
        return [asked.token, answer.token, last.token]

    def established(self, protection: Protection = SEAL) -> tuple[NtlmInitiator, NtlmAcceptor]:
        client, server = self.client(protection=protection), self.server()
        self.handshake(client, server)
        client.verify(protection)
        server.verify(protection)
        return client, server

    def refused(
        self, context: Any, token: bytes | None, kind: type[AuthenticationError], text: str
    ) -> None:
        """A step fails for this reason, in one line and without a token for the peer."""
        failed = self.assertRaises(StepFailed, context.step, token)
        self.assertIs(type(failed.error), kind)
        self.assertIn(text, str(failed.error))
        self.assertNotIn("\n", str(failed.error))
        self.assertEqual(failed.token, b"")


class HandshakeTests(Case):
    """Results of the handshake."""

    def test_client_is_authenticated(self) -> None:
        """The service knows who came, as its file writes it; nothing is claimed of the service."""
        client, server = self.client(), self.server()
        self.handshake(client, server)
        known = server.verify(SEAL)
        self.assertEqual(
            (known.principal, known.spn, known.account), ("alice@LAB", None, "LAB\\alice")
        )
        self.assertEqual(
            (known.package, known.protection, known.flags), ("ntlm-service-unproven", SEAL, FLAGS)
        )
        self.assertEqual((known.sid, known.groups, known.expires), (None, (), math.inf))

    def test_mutauth_client(self) -> None:
        """A mutauth client says so in its response, which its password protects; any other is a
        third-party one.
        """
        for bindings, mutauth in ((module._BINDINGS, True), (FOREIGN, False), (None, False)):
            self.patch(module, "_BINDINGS", bindings)
            client, server = self.client(), self.server()
            self.handshake(client, server)
            self.assertIs(server.verify(SEAL).mutauth, mutauth)
            self.assertFalse(client.verify(SEAL).mutauth)

    def test_changed_word(self) -> None:
        """Nobody on the way can put that word into a response, nor take it out."""
        word, other = module._HASH_OF_BINDINGS, hashlib.md5(FOREIGN.pack()).digest()
        for bindings, before, after in ((module._BINDINGS, word, other), (FOREIGN, other, word)):
            self.patch(module, "_BINDINGS", bindings)
            client, server = self.client(), self.server()
            last = client.step(server.step(client.step(None).token).token).token
            self.assertEqual(last.count(before), 1)
            self.refused(
                server,
                last.replace(before, after),
                PeerNotAuthenticated,
                "its NTLM authenticates none of the users",
            )

    def test_service_is_not(self) -> None:
        """The client knows nothing of the service, and the flag is not there."""
        client, server = self.client(), self.server()
        self.handshake(client, server)
        known = client.verify(SEAL)
        self.assertEqual(
            (known.principal, known.spn, known.realm, known.account), ("", None, "", None)
        )
        self.assertEqual((known.package, known.flags), ("ntlm-service-unproven", FLAGS))
        self.assertNotIn(Flag.MUTUAL, known.flags)

    def test_mutual_is_never_claimed(self) -> None:
        """Not even where pyspnego would claim it one day."""
        client, server = self.client(), self.server()
        self.handshake(client, server)

        class Claiming:
            complete = True
            context_attr = ContextReq(0xFFF)
            client_principal = "LAB\\alice"

        for context in (client, server):
            context._proxy = Claiming()
            self.assertEqual(context.verify(SEAL).flags, FLAGS)

    def test_who(self) -> None:
        """Which of a file's users a client is, it says; the domain is part of the name, and case is
        not.
        """
        for user, principal in (
            (None, "alice@LAB"),
            ("alice@LAB", "alice@LAB"),
            ("ALICE@lab", "alice@LAB"),
            ("bob@LAB", "Bob@LAB"),
            ("alice@WORK", "alice@WORK"),
        ):
            server = self.server()
            self.handshake(self.client(user), server)
            self.assertEqual(server.verify(SEAL).principal, principal)
        for user in ("mallory@LAB", "alice", "bob@WORK", "LAB\\alice"):
            self.refused(self.client(user), None, CredentialError, f"there is no {user} in it")

    def test_name_is_the_files(self) -> None:
        """A client that writes its name in other letters comes under the file's."""
        server = self.server()
        self.handshake(self.client(text="lAB:ALICE:" + PASSWORD), server)
        self.assertEqual(server.verify(SEAL).principal, "alice@LAB")

    def test_hashes(self) -> None:
        """Lines of smbpasswd stand for passwords that the file does not hold."""
        nt = "8846F7EAEE8FB117AD06BDD830B7586C"  # of "password"
        line = f"LAB\\alice:1000:{'0' * 32}:{nt}:[U]:LCT-1589398321\n"
        Path(self.path).write_text(line)
        for text in (line, "LAB:alice:password"):
            server = self.server()
            self.handshake(self.client(text=text), server)
            self.assertEqual(server.verify(SEAL).principal, "alice@LAB")

    def test_protections(self) -> None:
        """A service that signs seals for who asks; one that seals takes nothing less; nobody takes
        TLS.
        """
        for asked, least, reached in (
            (SEAL, SIGN, SEAL),
            (SIGN, SIGN, SIGN),
            (SEAL, SEAL, SEAL),
            (SIGN, SEAL, None),
        ):
            client, server = self.client(protection=asked), self.server()
            self.handshake(client, server)
            for context, wanted in ((client, asked), (server, least)):
                if reached is None and context is server:
                    error = self.assertRaises(PeerNotAuthenticated, context.verify, wanted)
                    self.assertIn("without confidentiality", str(error))
                else:
                    self.assertIs(context.verify(wanted).protection, reached or asked)

    def test_tls(self) -> None:
        """TLS is never verified to be authenticated, channel or none."""
        client, server = self.established()
        bound = self.keys.acceptor("the client", ChannelBinding(TLS_EXPORTER, bytes(32)))
        self.handshake(self.client(), bound)
        for context in (client, server, bound):
            error = self.assertRaises(PeerNotAuthenticated, context.verify, TLS)
            self.assertIn("TLS channel", str(error))

    def test_incomplete(self) -> None:
        """Nothing is verified before the last token, on either side."""
        client, server = self.client(), self.server()
        self.assertRaises(PeerNotAuthenticated, client.verify, SEAL)
        self.assertRaises(PeerNotAuthenticated, server.verify, SEAL)
        answer = server.step(client.step(None).token)
        self.assertRaises(PeerNotAuthenticated, client.verify, SEAL)
        self.assertRaises(PeerNotAuthenticated, server.verify, SEAL)
        client.step(answer.token)
        self.assertRaises(PeerNotAuthenticated, server.verify, SEAL)

    def test_user_who_is_gone(self) -> None:
        """A user that was taken out of the file between its last token and the verification is
        nobody.
        """
        client, server = self.client(), self.server()
        self.handshake(client, server)
        Path(self.path).write_text("LAB:Bob:other word\n")
        error = self.assertRaises(PeerNotAuthenticated, server.verify, SEAL)
        self.assertIn("no longer has this user", str(error))


class RefusalTests(Case):
    """Users that do not come in."""

    def last_token(self, client: NtlmInitiator, server: NtlmAcceptor) -> bytes:
        return client.step(server.step(client.step(None).token).token).token

    def test_pyspnego_refuses_to_begin(self) -> None:
        """An error before there is any context of pyspnego's is a failed step like any other."""

        def client(*arguments: object, **options: object) -> None:
            raise ValueError("not like that")

        self.patch(spnego, "client", client)
        self.refused(
            self.client(), None, PeerNotAuthenticated, "the service's token cannot be taken"
        )

    def test_wrong(self) -> None:
        """A wrong password, an unknown user, another domain's: refused alike."""
        for text in (
            "LAB:alice:wrong",
            "LAB:mallory:" + PASSWORD,
            "HOME:alice:" + PASSWORD,
            "LAB:Bob:" + PASSWORD,
        ):
            server = self.server()
            token = self.last_token(self.client(text=text), server)
            self.refused(
                server,
                token,
                PeerNotAuthenticated,
                f"authenticates none of the users in {self.path}",
            )
            self.assertRaises(PeerNotAuthenticated, server.verify, SEAL)

    def test_repeated(self) -> None:
        """An old response is good for no other challenge."""
        token = self.last_token(self.client(), self.server())
        server = self.server()
        server.step(self.client().step(None).token)
        self.refused(server, token, PeerNotAuthenticated, "none of the users")

    def old_client(self, level: str) -> Any:
        """A third-party client, as old as its level says; see pyspnego for the levels."""
        os.environ["LM_COMPAT_LEVEL"] = level
        self.addCleanup(os.environ.pop, "LM_COMPAT_LEVEL", None)
        request = ContextReq(int(FLAGS))
        made = spnego.client(
            "LAB\\alice",
            PASSWORD,
            protocol="ntlm",
            options=NegotiateOptions.use_ntlm,
            context_req=request,
        )
        del os.environ["LM_COMPAT_LEVEL"]
        return made

    def test_old_clients(self) -> None:
        """NTLMv1 is refused, which pyspnego left alone allows."""
        for level in "012":
            bare: Any = spnego.server(protocol="ntlm", options=NegotiateOptions.use_ntlm)
            old = self.old_client(level)
            bare.step(old.step(bare.step(old.step(None))))
            self.assertTrue(bare.complete)
            old, server = self.old_client(level), self.server()
            token = old.step(server.step(old.step(None)).token)
            self.refused(
                server, token, PeerNotAuthenticated, "its response is of NTLMv1, or anonymous"
            )

    def test_old_environment(self) -> None:
        """Nor does a mutauth client send NTLMv1, whatever its environment asks for."""
        os.environ["LM_COMPAT_LEVEL"] = "1"
        self.addCleanup(os.environ.pop, "LM_COMPAT_LEVEL", None)
        client = self.client()
        challenge = self.server().step(client.step(None).token).token
        self.refused(client, challenge, PeerNotAuthenticated, "NTLMv1")

    def test_weakened(self) -> None:
        """A challenge out of which somebody took what makes NTLM strong gets no answer."""
        for flag, text in module._WEAKER_WITHOUT.items():
            client = self.client()
            challenge = bytearray(self.server().step(client.step(None).token).token)
            (flags,) = struct.unpack_from("<I", challenge, 20)
            struct.pack_into("<I", challenge, 20, flags & ~flag)
            self.refused(client, bytes(challenge), PeerNotAuthenticated, text)

    def test_without_code(self) -> None:
        """Without the time in the challenge the client would leave out the code that protects all
        tokens.
        """
        client = self.client()
        challenge = self.server().step(client.step(None).token).token
        time = challenge.index(b"\x07\0\x08\0")
        unknown = challenge[:time] + b"\x0a\0\x08\0" + challenge[time + 4 :]
        self.refused(client, unknown, PeerNotAuthenticated, "no code protects the tokens")

    def test_without_the_codes_flag(self) -> None:
        """A response that does not promise the code is refused before pyspnego sees it."""
        server = self.server()
        token = bytearray(self.last_token(self.client(), server))
        at = token.index(b"\x06\0\x04\0\x02\0\0\0")
        token[at + 4] = 0
        self.refused(server, bytes(token), PeerNotAuthenticated, "no code protects the tokens")

    def test_every_byte(self) -> None:
        """No byte of any token can be changed, on the way in either direction, so that the client
        is allowed.
        """
        sizes = [len(token) for token in self.handshake(self.client(), self.server())]
        for which, size in enumerate(sizes):
            for position in range(size):
                client, server = self.client(), self.server()

                def passed(
                    token: bytes, number: int, which: int = which, position: int = position
                ) -> bytes:
                    if number != which or position >= len(token):
                        return token
                    return (
                        token[:position]
                        + bytes([token[position] ^ 1 << position % 8])
                        + token[position + 1 :]
                    )

                with self.assertRaises(StepFailed, msg=(which, position)):
                    asked = passed(client.step(None).token, 0)
                    answer = passed(server.step(asked).token, 1)
                    server.step(passed(client.step(answer).token, 2))
                self.assertRaises(PeerNotAuthenticated, server.verify, SEAL)

    def test_strangers(self) -> None:
        """Tokens of something else, or of NTLM in the wrong place, end in an orderly way."""
        first = self.client().step(None).token
        challenge = self.server().step(first).token
        for token in (
            b"",
            b"junk",
            b"NTLMSSP\0",
            bytes(64),
            challenge,
            b"\x60\x06\x2b\x06\x01\x05\x05\x02",
        ):
            server, client = self.server(), self.client()
            client.step(None)
            if token != challenge:
                self.refused(
                    client, token, PeerNotAuthenticated, "the service's token cannot be taken"
                )
            self.refused(server, token, PeerNotAuthenticated, "none of the users")
            server = self.server()
            server.step(first)
            self.refused(server, token, PeerNotAuthenticated, "")
        self.refused(self.server(), None, PeerNotAuthenticated, "")
        for end in (1, 63, 64, 88, 200):
            server = self.server()
            self.refused(
                server, self.last_token(self.client(), server)[:end], PeerNotAuthenticated, ""
            )

    def test_a_file_that_has_gone(self) -> None:
        """A service that cannot read its users any more says that, and does not blame the
        client.
        """
        server = self.server()
        token = self.last_token(self.client(), server)
        self.keys.check()
        os.unlink(self.path)
        self.assertRaises(CredentialError, self.keys.check)
        self.refused(server, token, CredentialError, "cannot be read (No such file or directory)")


class FileTests(SynchronousTestCase):
    """Files of users: what is taken, and what is not."""

    def refused(self, text: str, mode: int = 0o600) -> str:
        path = users_file(self, text, mode)
        error = self.assertRaises(CredentialError, NtlmUsers, NtlmCredentials(path))
        again = NtlmInitiator(NtlmCredentials(path), SEAL, "service")
        self.assertEqual(str(self.assertRaises(StepFailed, again.step, None).error), str(error))
        self.assertIn(path, str(error))
        self.assertNotIn("\n", str(error))
        self.assertNotIn("s3cret", str(error))
        self.assertIsNone(error.__cause__)
        return str(error)

    def test_others(self) -> None:
        """A file to which anybody else has access is refused; its owner can fix that."""
        for mode in (0o604, 0o640, 0o644, 0o620, 0o602, 0o666, 0o601):
            self.assertIn("chmod 600", self.refused("LAB:alice:s3cret", mode))
        for mode in (0o600, 0o400):
            NtlmUsers(NtlmCredentials(users_file(self, "LAB:alice:s3cret", mode)))

    def test_lines(self) -> None:
        """A line that pyspnego would pass over, or stumble over, is named by its number and never
        quoted.
        """
        for line in (
            "LAB:alice",
            "LAB:alice:s3cret:more",
            "LAB:alice:",
            "# LAB alice s3cret",
            "LAB\\alice:1000:s3cret:s3cret:[U]:LCT-1",
            "LAB\\alice:1000:" + "X" * 32 + ":" + "0" * 32 + ":[U]:LCT-1",
            ":alice@LAB:s3cret",
            "LAB::s3cret",
            " LAB:alice:s3cret",
            "LAB:al\x1bice:s3cret",
            "LAB:a/b:s3cret",
            "LAB:a@b:s3cret",
            "L\\AB:alice:s3cret",
        ):
            self.assertIn("line 2 of ", self.refused(f"LAB:bob:s3cret\n{line}\n"))
        self.assertIn("a line already", self.refused("LAB:alice:s3cret\nlab:ALICE:s3cret2"))
        self.assertIn("it names no user", self.refused("\n\n"))

    def test_no_files(self) -> None:
        """Paths that do not exist, are directories, or are not text."""
        irregular = "it is not a regular file"
        for path, text in (
            ("/nonexistent/users", "No such file"),
            ("/", irregular),
            ("/dev/null", irregular),
        ):
            error = self.assertRaises(CredentialError, NtlmUsers, NtlmCredentials(path))
            self.assertIn(text, str(error))
        path = users_file(self, USERS)
        Path(path).write_bytes(b"LAB:alice:s3cret\xff")
        error = self.assertRaises(CredentialError, NtlmUsers, NtlmCredentials(path))
        self.assertIn("UTF-8", str(error))
        self.assertTrue(error.__suppress_context__)

    def test_one_file_for_a_process(self) -> None:
        """pyspnego knows one file for a process: services agree on one, whatever the working
        directory is then.
        """
        first = users_file(self, USERS)
        del os.environ[USERS_VARIABLE]
        NtlmUsers(NtlmCredentials(os.path.relpath(first)))
        self.assertEqual(os.environ[USERS_VARIABLE], first)
        NtlmUsers(NtlmCredentials(first))
        second = users_file(self, USERS)
        os.environ[USERS_VARIABLE] = first
        error = self.assertRaises(UsageError, NtlmUsers, NtlmCredentials(second))
        self.assertIn("NTLM_USER_FILE of this process names another one already", str(error))
        self.assertEqual(os.environ[USERS_VARIABLE], first)


class RecordTests(Case):
    """Records of an established context."""

    def test_both_ways(self) -> None:
        """Bytes that one side protects the other takes, in one part and in two, sealed or signed as
        was agreed.
        """
        for protection in (SEAL, SIGN):
            seal = protection is SEAL
            client, server = self.established(protection)
            for sender, receiver in ((client, server), (server, client), (client, server)):
                for data in (b"some data", b"", bytes(64_500)):
                    body = sender.wrap(data, seal=seal)
                    self.assertEqual(len(body), len(data) + sender.signature_size)
                    self.assertEqual(data in body, not seal or not data)
                    self.assertEqual(receiver.unwrap(body), (data, seal))
                    trailer, body = sender.wrap_apart(data, seal=seal)
                    self.assertEqual((len(trailer), body == data), (16, not seal or not data))
                    self.assertEqual(receiver.unwrap_apart(trailer, body, seal=seal), (data, seal))

    def sent(self, protection: Protection) -> tuple[list[bytes], NtlmAcceptor, bytes]:
        """Four records of a client, who takes them, and one of the same number that went the other
        way.
        """
        client, server = self.established(protection)
        seal = protection is SEAL
        bodies = [client.wrap(b"data %d" % number, seal=seal) for number in range(4)]
        return bodies, server, server.wrap(b"mine", seal=seal)

    def test_attacks(self) -> None:
        """A record that was repeated, dropped, reordered, reflected or cut is refused, and so is
        all that follows.
        """
        for protection, what in product(
            (SEAL, SIGN), ("repeated", "dropped", "reordered", "reflected", "cut", "empty")
        ):
            bodies, server, own = self.sent(protection)
            if what in ("repeated", "cut"):
                self.assertEqual(server.unwrap(bodies[0])[0], b"data 0")
            wrong = {
                "repeated": bodies[0],
                "dropped": bodies[1],
                "reordered": bodies[3],
                "reflected": own,
                "cut": bodies[1][:-1],
                "empty": b"",
            }[what]
            for body in (wrong, *bodies):
                error = self.assertRaises(RecordError, server.unwrap, body)
                self.assertIn("record rejected: ", str(error), what)

    def test_flipped(self) -> None:
        """A record with any bit changed is refused."""
        for protection in (SEAL, SIGN):
            size = len(self.sent(protection)[0][0])
            for position, bit in product(range(size), range(8)):
                if bit != position % 8:
                    continue
                bodies, server, _ = self.sent(protection)
                body = bytearray(bodies[0])
                body[position] ^= 1 << bit
                self.assertRaises(RecordError, server.unwrap, bytes(body))

    def test_less_than_agreed(self) -> None:
        """A signed record where sealed ones were agreed is refused, and a sealed one where signed
        ones were.
        """
        for protection in (SEAL, SIGN):
            client, server = self.established(protection)
            body = client.wrap(b"data", seal=protection is not SEAL)
            self.assertRaises(RecordError, server.unwrap, body)

    def test_no_more(self) -> None:
        """A context that protects nothing any more says so with one of our errors."""
        client, _ = self.established()
        client._proxy = None
        self.assertRaises(AuthenticationError, client.wrap, b"data", seal=True)


class PolicyTests(Case):
    """Users that a policy allows: accounts of the file, by their names, and never by a group."""

    def permitted(self, policy: AccessPolicy, user: str = "alice@LAB") -> bool:
        server = self.server()
        self.handshake(self.client(user), server)
        identity = server.verify(SEAL)
        return policy.permits(identity.principal, identity.read_logon)

    def test_names(self) -> None:
        """user@DOMAIN, with the domain of the file for a realm; case does not count."""
        for patterns, permitted in (
            (("alice@LAB",), True),
            (("ALICE@lab",), True),
            (("*@LAB",), True),
            (("al*@*",), True),
            (("alice@WORK",), False),
            (("bob@LAB",), False),
            (("*@LAB.EXAMPLE",), False),
        ):
            self.assertIs(self.permitted(AccessPolicy(patterns)), permitted, patterns)
        self.assertFalse(self.permitted(AccessPolicy(("*@LAB",), ("alice@*",))))
        self.assertTrue(self.permitted(AccessPolicy(("*@LAB",), ("bob@LAB",))))
        self.assertFalse(self.permitted(AccessPolicy(("*@LAB",), ("bob@LAB",)), "bob@LAB"))
        self.assertFalse(self.permitted(AccessPolicy(allow_all=True, deny=("alice@LAB",))))
        self.assertTrue(self.permitted(AccessPolicy(allow_all=True)))

    def test_groups(self) -> None:
        """A group allows no client, and denies every client where it is on a denial: nothing tells
        who is in it.
        """
        group = "S-1-5-21-1-2-3-1104"
        self.assertFalse(self.permitted(AccessPolicy(allow_groups=(group,))))
        for given in ({"allow": ("alice@LAB",)}, {"allow_all": True}):
            allowed = AccessPolicy(**given, deny_groups=(group,))  # type: ignore[arg-type]
            self.assertFalse(self.permitted(allowed))
            server = self.server()
            self.handshake(self.client(), server)
            identity = server.verify(SEAL)
            self.assertIn(
                "nothing tells its groups",
                allowed.decide(identity.principal, identity.read_logon).cause,
            )


class SecrecyTests(Case):
    """Passwords, hashes and tokens stay in."""

    def test_nothing_is_told(self) -> None:
        """With all logging at its most talkative, neither a token nor a password is in it, nor in
        what can be printed.
        """
        messages: list[str] = []

        class Keeper(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                messages.append(record.getMessage())

        keeper, root, own = Keeper(0), logging.getLogger(), logging.getLogger("spnego._ntlm")
        for logger in (root, own):
            self.addCleanup(logger.setLevel, logger.level)
            logger.setLevel(1)
        root.addHandler(keeper)
        self.addCleanup(root.removeHandler, keeper)
        with captured_log() as events:
            client, server = self.client(), self.server()
            tokens = self.handshake(client, server)
            messages += [
                repr(each)
                for each in (client.verify(SEAL), server.verify(SEAL), client, server, self.keys)
            ]
            messages += map(repr, module._read_users(self.path))
            refusing = self.server()
            wrong = self.client(text="LAB:alice:s3cret")
            asked = wrong.step(None)
            failed = self.assertRaises(
                StepFailed, refusing.step, wrong.step(refusing.step(asked.token).token).token
            )
            messages += [repr(failed), str(failed.error), repr(failed.error), repr(asked)]
        text = "\n".join([*messages, *map(repr, events)])
        for word in (PASSWORD, "s3cret", "other word"):
            self.assertNotIn(word, text)
        for token in tokens:
            for start in range(0, len(token) - 24, 24):
                self.assertNotIn(base64.b64encode(token[start : start + 24]).decode(), text)
                self.assertNotIn(token[start : start + 24].hex(), text)

    def test_pyspnego_logs_tokens(self) -> None:
        """Left alone, pyspnego writes whole tokens into the log: this is why it is not."""
        own = logging.getLogger("spnego._ntlm")
        own.removeFilter(keep_quiet)
        self.addCleanup(own.addFilter, keep_quiet)
        with self.assertLogs(own, 1) as told:
            token = self.client().step(None).token
        self.assertIn(base64.b64encode(token).decode(), "".join(told.output))

    def test_configured_logging(self) -> None:
        """No configuration that names pyspnego's loggers makes them talk."""
        names = ("spnego", "spnego._ntlm", "spnego._context")
        loggers = {name: {"level": "DEBUG", "propagate": True} for name in names}
        logging.config.dictConfig(
            {"version": 1, "disable_existing_loggers": False, "loggers": loggers}
        )
        with self.assertLogs(level=1) as told:
            logging.getLogger("test").debug("something")
            self.handshake(self.client(), self.server())
        self.assertEqual(told.output, ["DEBUG:test:something"])

    def test_all_its_loggers(self) -> None:
        """Every logger of pyspnego is quiet at debug level, and speaks of what is wrong."""
        names = [
            name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "spnego"
        ]
        self.assertLessEqual({"spnego._gss", "spnego._ntlm", "spnego._sspi"}, set(names))
        for name in names:
            logger = logging.getLogger(name)
            record = logger.makeRecord(name, logging.DEBUG, "", 0, "token", (), None)
            self.assertFalse(logger.filter(record), name)
            record.levelno = logging.WARNING
            self.assertTrue(logger.filter(record), name)


class StrippedTests(Case):
    """Somebody on the way takes the code out that protects the tokens, which a flag announces."""

    SEALING = 0x20  # NTLMSSP_NEGOTIATE_SEAL

    def last(self) -> tuple[NtlmAcceptor, bytes]:
        """A service that waits for the client's last token, and that token."""
        client, server = self.client(), self.server()
        return server, client.step(server.step(client.step(None).token).token).token

    def test_refused(self) -> None:
        """Without the code nobody comes in, whatever else was changed, and however much is gone."""
        for gap in (1, 8, 16, 23, 24):
            for flags in (0, self.SEALING):
                server, token = self.last()
                self.refused(
                    server, stripped(token, gap, flags), PeerNotAuthenticated, "is not there"
                )

    def test_one_payload_in_its_place(self) -> None:
        """Nor with one payload where the code has to be, an empty one included."""
        for at in range(16, 60, 8):
            server, token = self.last()
            message = bytearray(token)
            struct.pack_into("<I", message, at, 64)
            failed = self.assertRaises(StepFailed, server.step, bytes(message))
            self.assertIsInstance(failed.error, PeerNotAuthenticated, at)

    def test_sealing_cleared(self) -> None:
        """The flag that asks to seal cannot be taken out, with the code in its place or without."""
        server, token = self.last()
        changed = bytearray(token)
        changed[60] &= ~self.SEALING
        self.refused(
            server, bytes(changed), PeerNotAuthenticated, "authenticates none of the users"
        )
        server, token = self.last()
        self.refused(
            server, stripped(token, 24, self.SEALING), PeerNotAuthenticated, "is not there"
        )

    def test_pyspnego_alone(self) -> None:
        """This is why: pyspnego compares nothing where there is nothing, and has a session in plain
        text.
        """
        server, token = self.last()
        self.patch(module, "_check_authenticate", lambda token: None)
        self.assertTrue(server.step(stripped(token, 24, self.SEALING)).complete)
        self.assertNotIn(Flag.CONFIDENTIALITY, server.verify(SIGN).flags)


class PackageTests(SynchronousTestCase):
    """Facts that the package's name tells."""

    def test_names(self) -> None:
        """The one package that does not authenticate the service says so in its name, and asks for
        all other flags.
        """
        for package in MECHANISMS.values():
            self.assertIs("service-unproven" not in package.name, package.authenticates_service)
        for protection in (SEAL, SIGN):
            given_up = protection.required_flags & ~module.required_flags(protection)
            self.assertEqual(given_up, Flag.MUTUAL)


class TogetherTests(Case):
    """Both contexts in the handshake itself."""

    def players(self, security: SecurityOptions) -> tuple[Player, Player]:
        client = Player(cast(Any, _Side(self.client(), True)), security=security)
        server = Player(cast(Any, _Side(self.server(), False)), security=security)
        return client, server

    def test_all_the_way(self) -> None:
        """In one piece and byte by byte, on either wire: nothing reaches an application before the
        last leg.
        """
        for wire, protection, bytewise in product((NNS, WINSOCK), (SEAL, SIGN), (False, True)):
            client, server = self.players(SecurityOptions(wire, protection, package=NTLM))
            for sender, receiver in ((client, server), (server, client)):
                self.assertEqual((client.factory.built, server.factory.built), ([], []))
                receiver.receive(sender.transport.take(), bytewise=bytewise)
            self.assertEqual(server.factory.built, [])
            converse(client, server, bytewise=bytewise)
            client.application.transport.write(b"data")  # type: ignore[union-attr]
            converse(client, server, bytewise=bytewise)
            self.assertEqual(b"".join(server.application.received), b"data")

    def test_no_other_package_lets_it_in(self) -> None:
        """Contexts that authenticate too little are refused by the handshake itself, wherever they
        come from.
        """
        for package, wire in product((KERBEROS, NEGOTIATE), (NNS, WINSOCK)):
            for strict in ("client", "server"):
                lax, own = (
                    SecurityOptions(wire, package=NTLM),
                    SecurityOptions(wire, package=package),
                )
                client = self.players(own if strict == "client" else lax)[0]
                server = self.players(own if strict == "server" else lax)[1]
                converse(client, server)
                side = client if strict == "client" else server
                self.assertEqual(side.factory.built, [])
                self.assertIsInstance(side.error, PeerNotAuthenticated)
                self.assertIn("without mutual authentication", str(side.error))


class _Side:
    """A context that says which side it is on."""

    def __init__(self, context: Any, initiator: bool) -> None:
        self.context = context
        self.initiator = initiator

    def __getattr__(self, name: str) -> Any:
        return getattr(self.context, name)
