"""Kerberos contexts: real ones, with tickets that the tests make for themselves.

Many of these tests are here to fail when a release of python-gssapi changes what
mutauth_twisted.mechanisms.kerberos relies on.
"""

from __future__ import annotations

import base64
import logging
import os
import time
from itertools import product
from pathlib import Path
from typing import Any, cast

import gssapi
from gssapi.raw import inquire_context
from gssapi.raw.misc import GSSError

from mutauth_twisted.core.context import Outcome, StepFailed
from mutauth_twisted.credentials import ClientCredentials, ServiceCredentials
from mutauth_twisted.errors import (
    AuthenticationError,
    CredentialError,
    KDCError,
    MutualAuthError,
    PeerError,
    PeerNotAuthenticated,
    PeerRefused,
    RecordError,
)
from mutauth_twisted.identity import PeerIdentity
from mutauth_twisted.kerberos.tickets import tickets_for
from mutauth_twisted.mechanisms import kerberos as module
from mutauth_twisted.mechanisms.kerberos import KerberosInitiator, ServiceKeys, kerberos_name
from mutauth_twisted.protection import Flag, Protection
from mutauth_twisted.spn import SPN
from mutauth_twisted.testing.forge import set_environment
from tests.unit.kerberos_case import BY_DN, BY_HOST, DN, SEAL, SPNEGO, Case, flip


class HandshakeTests(Case):
    """Two sides that should come together."""

    def test_steps(self) -> None:
        """The client speaks, the service answers and is complete, and so is the client then."""
        client, server = self.client(), self.keys.acceptor("client")
        request = client.step(None)
        self.assertFalse(request.complete)
        reply = server.step(request.token)
        self.assertTrue(reply.complete)
        self.assertNotEqual(reply.token, b"")
        self.assertEqual(client.step(reply.token), Outcome(b"", True))

    def test_only_the_first_step_may_wait(self) -> None:
        """A client's first step may ask a KDC; later ones, and a service's, do not."""
        client, server = self.client(), self.keys.acceptor("client")
        self.assertTrue(client.blocking)
        self.assertFalse(server.blocking)
        client.step(None)
        self.assertFalse(client.blocking)

    def test_identities(self) -> None:
        """The client sees the SPN it asked for, the service the client's principal."""
        client, server = self.established()
        seen = client.verify(SEAL)
        self.assertEqual(
            seen,
            PeerIdentity(
                f"{BY_HOST}@TEST.EXAMPLE", BY_HOST, "kerberos", SEAL, seen.flags, seen.expires
            ),
        )
        self.assertEqual(seen.flags, SEAL.requested_flags)
        self.assertEqual(seen.realm, "TEST.EXAMPLE")
        principal = server.verify(SEAL)
        self.assertEqual((principal.principal, principal.spn), ("alice@TEST.EXAMPLE", None))
        self.assertTrue(time.time() + 3590 < seen.expires <= time.time() + 3600)
        self.assertEqual(principal.expires, seen.expires)

    def test_three_part_names(self) -> None:
        """SPNs with a DN or a GUID as third part can be asked for."""
        for name in (DN, "0b2f6ad0-6c7c-4f0f-b1c5-0f5a0f5a0f5a", "CN=odd@name,DC=test"):
            spn = SPN("echoSvc", "srv1.test.example", name, "9000")
            self.assertEqual(
                str(kerberos_name(spn)).partition("@TEST")[0].replace("\\", ""),
                str(spn).replace("\\", ""),
            )
        client, _ = self.established(spn=BY_DN)
        identity = client.verify(SEAL)
        self.assertEqual(identity.spn, BY_DN)
        self.assertIn("OU=A\\\\, B", identity.principal)

    def test_the_default_cache(self) -> None:
        """Without credentials of its own a client uses the process's ticket cache."""
        os.environ["KRB5CCNAME"] = self.realm.ccache("bob", str(BY_HOST), "svc-echo")
        server = self.keys.acceptor("client")
        server.step(KerberosInitiator(BY_HOST, ClientCredentials(), SEAL).step(None).token)
        self.assertEqual(server.verify(SEAL).principal, "bob@TEST.EXAMPLE")

    def test_a_keytab_for_each_service(self) -> None:
        """Two services of one process each accept with their own keytab only."""
        other = ServiceKeys(ServiceCredentials(self.realm.keytab("svc-other")))
        token = self.client(account="svc-other").step(None).token
        self.step_fails(self.keys.acceptor("client"), token)
        self.assertTrue(other.acceptor("client").step(token).complete)

    def test_one_principal_of_a_keytab(self) -> None:
        """A service that names its principal accepts with that key, and with no other one of its
        keytab.
        """
        both = Path(self.mktemp())
        both.write_bytes(
            Path(self.realm.keytab("svc-echo")).read_bytes()
            + Path(self.realm.keytab("svc-other")).read_bytes()[2:]
        )
        ours, other = (
            self.client(account=account).step(None).token for account in ("svc-echo", "svc-other")
        )
        named = ServiceKeys(ServiceCredentials(both, "svc-echo@TEST.EXAMPLE"))
        self.assertTrue(named.acceptor("client").step(ours).complete)
        self.step_fails(named.acceptor("client"), other)
        self.assertTrue(
            ServiceKeys(ServiceCredentials(both)).acceptor("client").step(other).complete
        )

    def test_shared_tickets(self) -> None:
        """Contexts with the same credentials share what was fetched with them; others share
        nothing.
        """
        first = tickets_for(ClientCredentials(keytab="/a", principal="x@R"))
        self.assertIs(tickets_for(ClientCredentials(keytab="/a", principal="x@R")), first)
        self.assertIsNot(tickets_for(ClientCredentials(keytab="/a", principal="y@R")), first)


class VerificationTests(Case):
    """Contexts that are complete and have not authenticated enough."""

    def refused_for(self, flags: int, missing: str, **options: bool) -> None:
        """The service's verification names what is missing, and nothing else."""
        server = self.keys.acceptor("client")
        self.assertTrue(server.step(self.raw_client(flags, **options).step()).complete)
        with self.assertRaises(PeerNotAuthenticated) as caught:
            server.verify(SEAL)
        self.assertEqual(caught.exception.cause, f"the handshake ended without {missing}")

    def test_missing_flags(self) -> None:
        """A client that leaves out mutual authentication is not allowed."""
        self.refused_for(SEAL.requested_flags & ~Flag.MUTUAL, "mutual")

    def test_missing_protection(self) -> None:
        """A client that leaves out confidentiality and integrity is not allowed."""
        flags = Flag.MUTUAL | Flag.REPLAY | Flag.SEQUENCE
        self.refused_for(flags, "confidentiality, integrity", unprotected=True)
        self.refused_for(flags | Flag.INTEGRITY, "confidentiality", unprotected=True)

    def test_signing_needs_no_confidentiality(self) -> None:
        """Where signing was agreed, a context without confidentiality will do."""
        server = self.keys.acceptor("client")
        flags = SEAL.requested_flags & ~Flag.CONFIDENTIALITY
        server.step(self.raw_client(flags, unprotected=True).step())
        self.assertEqual(server.verify(Protection.SIGN).flags, flags)

    def test_unfinished(self) -> None:
        """A client's context that still waits for the service shows all flags, and proves
        nothing.
        """
        client = self.client()
        client.step(None)
        shown = int(inquire_context(client._context).flags)
        self.assertEqual(shown & int(SEAL.requested_flags), int(SEAL.requested_flags))
        with self.assertRaises(MutualAuthError):
            client.verify(SEAL)

    def test_other_mechanism(self) -> None:
        """A context of another mechanism is refused, whatever its flags say."""
        client, _ = self.established()
        inquire = gssapi.raw.inquire_context

        def inquired(*args: Any, **kwargs: Any) -> Any:
            return inquire(*args, **kwargs)._replace(
                mech=gssapi.OID.from_int_seq("1.3.6.1.4.1.311.2.2.10")
            )

        self.patch(module, "inquire_context", inquired)
        with self.assertRaisesRegex(PeerNotAuthenticated, "did not end with Kerberos"):
            client.verify(SEAL)

    def test_before_its_end(self) -> None:
        """A service's context that has taken no step, or failed in it, proves nothing."""
        server = self.keys.acceptor("client")
        self.assertRaises(MutualAuthError, server.verify, SEAL)
        self.step_fails(server, None)
        self.step_fails(server, b"junk")
        self.assertRaises(MutualAuthError, server.verify, SEAL)

    def test_verified_by_the_context(self) -> None:
        """A service's verification asks the context itself for its mechanism, its flags and whether
        it is complete.
        """
        inquire = gssapi.raw.inquire_context
        for changed in (
            {"mech": gssapi.OID.from_int_seq("1.3.6.1.4.1.311.2.2.10")},
            {"complete": False},
            {"flags": 0},
        ):
            _, server = self.established()

            def inquired(*args: Any, _changed: Any = changed, **kwargs: Any) -> Any:
                return inquire(*args, **kwargs)._replace(**_changed)

            self.patch(module, "inquire_context", inquired)
            self.assertRaises(PeerNotAuthenticated, server.verify, SEAL)

    def test_ended_ticket(self) -> None:
        """A ticket that ends between the last step and the verification is an error like others."""
        client, _ = self.established()

        def expired(*_: object, **__: object) -> None:
            raise gssapi.exceptions.ExpiredContextError(0x000C0000, 0)

        self.patch(module, "inquire_context", expired)
        with self.assertRaisesRegex(AuthenticationError, "ended with its ticket"):
            client.verify(SEAL)

    def test_other_name(self) -> None:
        """A context that names another service than was asked for is refused."""
        client, _ = self.established()
        # Unicode would fold the last one into the name on the ticket, and a directory keeps them
        # apart.
        for other in ("echoSvc/other.test.example", "echoSvc/\u017frv1.test.example"):
            client._spn = SPN.parse(other)
            with self.assertRaisesRegex(PeerNotAuthenticated, "the ticket names echoSvc/srv1"):
                client.verify(SEAL)
        client._spn = SPN.parse("ECHOSVC/SRV1.Test.example")
        self.assertEqual(client.verify(SEAL).spn, client._spn)


class RefusalTests(Case):
    """Steps that fail."""

    def setUp(self) -> None:
        super().setUp()
        self.ccache = self.realm.ccache("alice", str(BY_HOST), "svc-echo")

    def test_other_key(self) -> None:
        """A ticket for another account's key is refused with an error token, with which the client
        says why.
        """
        client = self.client(account="svc-other")
        failed = self.step_fails(self.keys.acceptor("client"), client.step(None).token)
        self.assertIsInstance(failed.error, PeerNotAuthenticated)
        self.assertIn("made for another key", str(failed.error))
        self.assertTrue(0 < len(failed.token) < 500)
        told = self.step_fails(client, failed.token)
        self.assertIsInstance(told.error, PeerRefused)
        self.assertIn(
            "the service refused the ticket: the ticket was made for another key", str(told.error)
        )

    def test_cause(self) -> None:
        """A caller that gets the error of a failed step finds GSSAPI's below it, whose frames hold
        no context.
        """
        client = self.client(account="svc-other")
        refused = self.step_fails(self.keys.acceptor("client"), client.step(None).token)
        told = self.step_fails(client, refused.token)
        nobody = KerberosInitiator(
            BY_HOST, ClientCredentials(ccache="FILE:/nonexistent/ccache"), SEAL
        )
        for failed in (refused, told, self.step_fails(nobody, None)):
            self.assertIsInstance(failed.error.__cause__, GSSError)
        for failed in (refused, told):
            self.assertIsNone(cast(BaseException, failed.error.__cause__).__traceback__)

    def test_a_service_that_plays_the_kdc(self) -> None:
        """An error that a KDC alone should send is the service's word when the service sends it,
        however it is wrapped.
        """
        client = self.client()
        for code in (7, 12, 29):
            error = client._explain(GSSError(0xD0000, (code - 1765328384) & 0xFFFFFFFF), b"a token")
            self.assertIs(type(error), PeerRefused)
            self.assertIn("the service refused the ticket: ", str(error))
            self.assertIsInstance(
                client._explain(GSSError(0xD0000, (code - 1765328384) & 0xFFFFFFFF), None), KDCError
            )

    def test_replayed(self) -> None:
        """The token of a finished handshake is refused when it comes again."""
        token = self.client().step(None).token
        self.keys.acceptor("client").step(token)
        failed = self.step_fails(self.keys.acceptor("thief"), token)
        self.assertIn("replay", str(failed.error))

    def test_ended_ticket(self) -> None:
        """A service refuses a ticket that ended longer ago than clocks may differ."""
        client = self.client(lifetime=-3600, age=7200)
        self.assertIsInstance(self.step_fails(client, None).error, MutualAuthError)

    def test_ticket_that_has_just_ended(self) -> None:
        """A service refuses a ticket from its end on, by its own clock: what MIT takes for five
        more minutes.
        """
        for lifetime in (-1, -10, -200):
            client, server = (
                self.client(lifetime=lifetime, age=600, said=3600),
                self.keys.acceptor("client"),
            )
            failed = self.step_fails(server, client.step(None).token)
            self.assertIs(type(failed.error), PeerNotAuthenticated)
            self.assertIn("its ticket has expired", str(failed.error))
            raw = inquire_context(server._context)
            self.assertTrue(raw.complete and raw.lifetime > 0, "it is MIT that has refused it")

    def test_own_ticket_that_has_just_ended(self) -> None:
        """A client whose ticket ends while it waits for the service's answer is told so."""
        client, server = self.client(lifetime=1000), self.keys.acceptor("client")
        reply = server.step(client.step(None).token).token
        later = time.time() + 1001
        self.patch(module.time, "time", lambda: later)
        failed = self.step_fails(client, reply)
        self.assertIsInstance(failed.error, CredentialError)
        self.assertIn("the Kerberos ticket has expired", str(failed.error))

    def test_other_packages(self) -> None:
        """NTLM, and Kerberos inside SPNEGO, are not Kerberos."""
        os.environ["KRB5CCNAME"] = self.realm.ccache("alice", str(BY_HOST), "svc-echo")
        wrapped = gssapi.SecurityContext(
            name=kerberos_name(BY_HOST), usage="initiate", mech=SPNEGO
        ).step()
        assert wrapped is not None
        ntlm = b"NTLMSSP\0\1\0\0\0\x97\x82\x08\xe2" + bytes(24)
        for token in (wrapped, ntlm):
            self.step_fails(self.keys.acceptor("client"), token)

    def test_hostile_tokens(self) -> None:
        """On any token of a stranger, a step fails in the one way it may."""
        request = self.client().step(None).token
        for token in (
            b"",
            b"\0",
            b"\x60",
            b"\xff" * 70_000,
            request[:-1],
            request + b"\0",
            request[15:],
            bytes(500),
        ):
            self.step_fails(self.keys.acceptor("stranger"), token)

    def answered(self) -> tuple[KerberosInitiator, bytes]:
        """A client and the service's token for it."""
        client = KerberosInitiator(BY_HOST, ClientCredentials(ccache=self.ccache), SEAL)
        return client, self.keys.acceptor("client").step(client.step(None).token).token

    def test_truncated(self) -> None:
        """A token that was cut anywhere is refused."""
        request = self.client().step(None).token
        for end in range(len(request)):
            self.step_fails(self.keys.acceptor("client"), request[:end])
        for missing in range(1, len(self.answered()[1])):
            client, reply = self.answered()
            self.step_fails(client, reply[:-missing])

    def test_flipped_request(self) -> None:
        """No bit of the client's token can be changed so that another identity or less protection
        comes out.
        """
        # With a replay cache the second token that is good would be refused for that alone.
        set_environment(self, {"KRB5RCACHENAME": "none:"})
        request, harmless = self.client().step(None).token, set()
        for position, bit in product(range(len(request)), range(8)):
            server = self.keys.acceptor("client")
            try:
                outcome = server.step(flip(request, position, bit))
            except StepFailed:
                continue
            if outcome.complete:
                identity = server.verify(SEAL)
                self.assertEqual(
                    (identity.principal, identity.flags),
                    ("alice@TEST.EXAMPLE", SEAL.requested_flags),
                )
                harmless.add(position)
            else:
                # MIT asks for more after an unknown token identifier, without a word: the handshake
                # ends that.
                self.assertEqual(outcome.token, b"")
        # What is in the clear (RFC 4120 5.5.1, 5.3) and decides nothing.  The message type says
        # what the token's identifier said already; of the options GSSAPI goes by its own flags, in
        # the authenticator.
        meaningless = {request.index(b"\xa1\x03\x02\x01\x0e") + 4}
        options = request.index(b"\xa2\x07\x03\x05\x00") + 4
        meaningless |= set(range(options, options + 5))
        # The key decides which service a ticket is for, not the ticket's own words.
        for text in (b"TEST.EXAMPLE", b"echoSvc", b"srv1.test.example"):
            start = request.index(text)
            meaningless |= set(range(start, start + len(text)))
        meaningless.add(request.index(b"\xa0\x03\x02\x01\x01\xa1") + 4)
        # The key's version: with one key for the account there is no other to choose.
        meaningless.add(request.index(b"\xa0\x03\x02\x01\x12\xa1\x03\x02\x01") + 9)
        self.assertEqual(harmless, meaningless)

    def test_flipped_reply(self) -> None:
        """No bit of the service's token can be changed so that another service or less protection
        comes out.
        """
        harmless, reply = set(), self.answered()[1]
        for position, bit in product(range(len(reply)), range(8)):
            client, reply = self.answered()
            if position >= len(reply):
                continue  # its numbers have no leading zeros
            try:
                outcome = client.step(flip(reply, position, bit))
            except StepFailed:
                continue
            self.assertEqual(outcome, Outcome(b"", True))
            identity = client.verify(SEAL)
            self.assertEqual((identity.spn, identity.flags), (BY_HOST, SEAL.requested_flags))
            harmless.add(position)
        # As in the request (RFC 4120 5.5.2).
        self.assertEqual(harmless, {reply.index(b"\xa1\x03\x02\x01\x0f") + 4})

    def test_no_ticket(self) -> None:
        """A client without a ticket is told to get one, and nothing is sent."""
        failed = self.step_fails(KerberosInitiator(BY_HOST, ClientCredentials(), SEAL), None)
        self.assertIsInstance(failed.error, CredentialError)
        self.assertIn("kinit", str(failed.error))
        self.assertEqual(failed.token, b"")

    def test_ticket_for_another_service(self) -> None:
        """A client whose tickets are for another service, and whose KDC does not answer, says
        so.
        """
        ccache = self.realm.ccache("alice", "echoSvc/other.test.example", "svc-echo")
        failed = self.step_fails(
            KerberosInitiator(BY_HOST, ClientCredentials(ccache=ccache), SEAL), None
        )
        self.assertIsInstance(failed.error, MutualAuthError)
        self.assertIn(str(BY_HOST), str(failed.error))


class KeytabTests(Case):
    """A service's own keys that cannot be used: known before anybody connects."""

    def refused(self, *credentials: str) -> str:
        """The one line that a service with these credentials ends with."""
        with self.assertRaises(CredentialError) as caught:
            ServiceKeys(ServiceCredentials(*credentials))
        self.assertNotIn("\n", str(caught.exception))
        return str(caught.exception)

    def test_missing(self) -> None:
        """A keytab that does not exist."""
        self.assertIn("there is no such file", self.refused("/nonexistent/echo.keytab"))

    def test_unreadable(self) -> None:
        """A keytab that cannot be read; root can read any file, but no directory."""
        self.assertIn("cannot be read", self.refused(str(self.realm.directory)))

    def test_garbage(self) -> None:
        """A file that is not a keytab."""
        path = self.realm.directory / "garbage"
        path.write_bytes(b"not a keytab at all")
        self.assertIn(str(path), self.refused(str(path)))

    def test_other_principal(self) -> None:
        """A keytab without the principal's key."""
        self.assertIn(
            "svc-none@TEST.EXAMPLE",
            self.refused(self.realm.keytab("svc-echo"), "svc-none@TEST.EXAMPLE"),
        )


class RecordTests(Case):
    """Records of an established context."""

    def setUp(self) -> None:
        super().setUp()
        self.client_side, self.server_side = self.established()

    def test_both_ways(self) -> None:
        """Bytes that one side wraps the other unwraps, and is told whether they were sealed."""
        for sender, receiver in (
            (self.client_side, self.server_side),
            (self.server_side, self.client_side),
        ):
            for data, seal in (
                (b"sealed", True),
                (b"", True),
                (b"signed", False),
                (bytes(64_500), True),
            ):
                body = sender.wrap(data, seal=seal)
                self.assertLessEqual(len(body), 65_536)
                self.assertEqual(data in body, not seal or not data)
                self.assertEqual(receiver.unwrap(body), (data, seal))

    def test_attacks(self) -> None:
        """A record that was repeated, dropped, reordered, reflected or cut is refused."""
        bodies = [self.client_side.wrap(b"data %d" % number, seal=True) for number in range(4)]
        self.server_side.unwrap(bodies[0])
        for body, text in (
            (bodies[0], "came twice"),
            (bodies[0][:-1], ""),
            (b"", ""),
            (self.server_side.wrap(b"mine", seal=True), ""),
            (bodies[2], "missing"),
        ):
            with self.assertRaisesRegex(RecordError, text):
                self.server_side.unwrap(body)

    def test_flipped(self) -> None:
        """A record with any byte changed is refused."""
        body = self.client_side.wrap(b"data", seal=True)
        for position in range(len(body)):
            with self.assertRaises(RecordError):
                self.server_side.unwrap(flip(body, position, 0))

    def test_wrapping_fails(self) -> None:
        """A context that protects nothing any more says so with one of our errors."""
        self.client_side._context = gssapi.raw.SecurityContext()
        with self.assertRaises(MutualAuthError):
            self.client_side.wrap(b"data", seal=True)


class SecrecyTests(Case):
    """Tokens and keys stay in, whoever configures logging."""

    class Keeper(logging.Handler):
        """Keeps every message."""

        def __init__(self) -> None:
            super().__init__(0)
            self.messages: list[str] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.messages.append(record.getMessage())

    def listen(self) -> list[str]:
        """Turn everything on in the standard library's logging."""
        keeper, root = self.Keeper(), logging.getLogger()
        for logger in (root, *map(logging.getLogger, logging.root.manager.loggerDict)):
            self.addCleanup(logger.setLevel, logger.level)
            logger.setLevel(1)
        root.addHandler(keeper)
        self.addCleanup(root.removeHandler, keeper)
        return keeper.messages

    def handshake(self) -> list[bytes]:
        """Tokens of a handshake that succeeds and one that fails."""
        client, server = self.client(), self.keys.acceptor("client")
        request = client.step(None).token
        reply = server.step(request).token
        client.step(reply)
        failed = self.step_fails(self.keys.acceptor("client"), request)
        return [request, reply, failed.token]

    def assert_silent(self, messages: list[str], tokens: list[bytes]) -> None:
        """No message holds a token, whole or in part."""
        text = "\n".join(messages)
        for token in tokens:
            for start in range(0, len(token) - 24, 24):
                self.assertNotIn(base64.b64encode(token[start : start + 24]).decode(), text)

    def test_debug_logging(self) -> None:
        """With all logging at its most talkative, no token is in it."""
        messages = self.listen()
        self.assert_silent(messages, self.handshake())

    def test_representations(self) -> None:
        """A token is not in an outcome's representation, nor in that of a failed step."""
        self.assertNotIn("secret", repr(Outcome(b"secret", True)))
        self.assertNotIn("secret", repr(StepFailed(PeerError("it", "failed"), b"secret")))


class LibraryTests(Case):
    """Behaviour that is relied on in python-gssapi."""

    def test_each_connection_has_its_own(self) -> None:
        """Contexts share the credential and nothing that a connection changes."""
        first, second = self.keys.acceptor("first"), self.keys.acceptor("second")
        first.step(self.client().step(None).token)
        self.step_fails(second, b"junk")
        self.assertIsNot(first._context, second._context)
        self.assertEqual(first.verify(SEAL).principal, "alice@TEST.EXAMPLE")

    def test_errors_are_raised_at_once(self) -> None:
        """A failed step raises with its token, which python-gssapi's own class of contexts hands
        out as a good one.
        """
        server = self.keys.acceptor("client")
        request = self.client(account="svc-other").step(None).token
        deferring = gssapi.SecurityContext(creds=self.keys.keytab.acquired, usage="accept")
        self.assertNotEqual(deferring.step(request), b"")
        self.assertNotEqual(self.step_fails(server, request).token, b"")
